"""Numbers, times and how a run ended, in words: for the report's page and for the terminal."""

from __future__ import annotations

from datetime import datetime

from pipeline.report import FAILED_FILES, Report

INTERRUPTED = 130


def size(count: float) -> str:
    """Bytes such as "12.3 MB", in units of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def duration(seconds: float) -> str:
    """Such as "7 ms", "1.3 s", "12 s", "3 min 05 s", "2 h 07 min"."""
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def moment(iso: str) -> str:
    """A time of ISO 8601 such as "Sun 22 Nov 2026, 02:30:05"; "" for ""."""
    return datetime.fromisoformat(iso).strftime("%a %d %b %Y, %H:%M:%S") if iso else ""


def ending(report: Report) -> tuple[str, str]:
    """How a run ended: (one of "good", "warn", "bad"; in words)."""
    if report.exit_code == INTERRUPTED:
        return "warn", "Interrupted"
    if report.exit_code not in (0, FAILED_FILES):
        return "bad", f"Failed with exit code {report.exit_code}"
    rejects = f"{report.rejects:,} cannot be read or embedded" if report.exit_code else ""
    end = "Incomplete: the time was over" if report.incomplete else "Finished"
    return "warn" if rejects or report.incomplete else "good", f"{end}; {rejects}" if rejects else end


def change(now: float, before: float) -> str:
    """A difference such as "+12", "−3", "=" where there is none."""
    delta = now - before
    return "=" if not delta else f"{'+' if delta > 0 else '−'}{abs(delta):,.0f}"
