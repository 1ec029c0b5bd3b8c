"""Start a run every night: write, show and remove the user's crontab line, systemd timer or launchd agent.

Only what carries our mark is ever changed. Nothing here needs root, and nothing is clever about daylight saving: the
scheduler's own rules hold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pipeline import errors, schedule_formats
from pipeline.schedule_formats import Job

Kind = Literal["cron", "systemd", "launchd"]
KINDS: tuple[Kind, ...] = ("systemd", "launchd", "cron")
_CALL_S = 60.0
_RUNNING = ("running", "degraded", "starting", "initializing", "maintenance")  # states in which timers fire


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Something that is written, or would be. `where`: a path, or "crontab"."""

    where: str
    text: str


class Scheduler(Protocol):
    """One of the three."""

    kind: Kind

    def plan(self, job: Job) -> list[Written]:
        """What `install` would write, to the letter."""
        ...

    def installed(self, job: Job) -> list[Written]:
        """What of this job is there now."""
        ...

    def install(self, job: Job) -> None: ...

    def remove(self, job: Job) -> None: ...


def scheduler(kind: Kind) -> Scheduler:
    found: dict[Kind, Scheduler] = {"cron": Cron(), "systemd": Systemd(), "launchd": Launchd()}
    return found[kind]


def choose() -> Kind:
    """What this system has: launchd on macOS, systemd where the user's manager runs, else cron.

    Raises:
        UsageError: none of them.
    """
    if sys.platform == "darwin":
        return "launchd"
    if shutil.which("systemctl") and _call("systemctl", "--user", "is-system-running").out.strip() in _RUNNING:
        return "systemd"
    if shutil.which("crontab"):
        return "cron"
    raise errors.UsageError(
        "Neither a systemd user manager nor cron was found here.",
        "Install cron (Debian, Ubuntu: sudo apt install cron), or let something else start `pipeline run`.",
    )


def install(kind: Kind, job: Job) -> None:
    """Schedule the job with `kind`, and with nothing else: two schedulers would run it twice.

    Raises:
        UsageError: the scheduler refused; its own words are in the message.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    scheduler(kind).install(job)
    for other in KINDS:
        if other != kind:
            _remove(other, job)


def installed(job: Job) -> dict[Kind, list[Written]]:
    """What of this job is there, by kind."""
    found = {kind: scheduler(kind).installed(job) for kind in KINDS}
    return {kind: written for kind, written in found.items() if written}


def remove(job: Job) -> list[Kind]:
    """Remove the job wherever it is; returns where it was."""
    return [kind for kind in KINDS if _remove(kind, job)]


def _remove(kind: Kind, job: Job) -> bool:
    found = scheduler(kind)
    if not found.installed(job):
        return False
    found.remove(job)
    return True


# --- programs of the system


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    code: int
    out: str
    err: str


def _call(*words: str, text: str = "") -> _Done:
    """Run a program of the system, to its end.

    Raises:
        UsageError: it is not there, or does not end.
    """
    try:
        done = subprocess.run(  # noqa: S603  # our own words, no shell
            words, input=text, capture_output=True, text=True, timeout=_CALL_S, check=False, errors="surrogateescape"
        )
    except FileNotFoundError as error:
        raise errors.UsageError(
            f"{words[0]} is not installed here.", "Choose another: --with cron, systemd or launchd."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise errors.UsageError(f"{' '.join(words)} did not end.", "Try it by hand.") from error
    return _Done(code=done.returncode, out=done.stdout, err=done.stderr)


def _try(*words: str) -> None:
    """Run a program whose failure does not matter: what it undoes may be undone already."""
    if shutil.which(words[0]):
        _call(*words)


def _must(*words: str, text: str = "") -> str:
    done = _call(*words, text=text)
    if done.code:
        told = (done.err or done.out).strip()
        raise errors.UsageError(
            f"`{' '.join(words)}` failed: {told}", "Try it by hand, or choose another: --with cron, systemd or launchd."
        )
    return done.out


def _read(paths: Sequence[Path]) -> list[Written]:
    found = []
    for path in paths:
        try:
            found.append(Written(where=str(path), text=path.read_text(encoding="utf-8", errors="replace")))
        except FileNotFoundError:
            continue
    return found


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)  # a variable's value may be a server's URL with a password in it
        path.write_bytes(data)
    except OSError as error:
        raise errors.UsageError(f"{path} cannot be written: {error.strerror}", "Check its permissions.") from error


# --- the three


class Cron:
    """The user's crontab, through `crontab` alone."""

    kind: Kind = "cron"

    def plan(self, job: Job) -> list[Written]:
        return [Written(where="crontab", text=schedule_formats.cron_line(job) + "\n")]

    def installed(self, job: Job) -> list[Written]:
        if not shutil.which("crontab"):
            return []
        lines = schedule_formats.cron_lines(self._crontab(), job)
        return [Written(where="crontab", text=f"{line}\n") for line in lines]

    def install(self, job: Job) -> None:
        _must("crontab", "-", text=schedule_formats.crontab_with(self._crontab(), job))

    def remove(self, job: Job) -> None:
        _must("crontab", "-", text=schedule_formats.crontab_without(self._crontab(), job))

    def _crontab(self) -> str:
        done = _call("crontab", "-l")
        if done.code and "no crontab" not in done.err.lower():  # an unreadable one must not be overwritten
            raise errors.UsageError(f"`crontab -l` failed: {done.err.strip()}", "Try it by hand.")
        return "" if done.code else done.out


class Systemd:
    """A service and its timer in the user's own unit folder."""

    kind: Kind = "systemd"

    def _paths(self, job: Job) -> tuple[Path, Path]:
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        folder, name = Path(home, "systemd", "user"), schedule_formats.unit_name(job)
        return folder / f"{name}.service", folder / f"{name}.timer"

    def plan(self, job: Job) -> list[Written]:
        texts = (schedule_formats.service(job), schedule_formats.timer(job))
        return [Written(where=str(path), text=text) for path, text in zip(self._paths(job), texts, strict=True)]

    def installed(self, job: Job) -> list[Written]:
        return _read(self._paths(job))

    def install(self, job: Job) -> None:
        for written in self.plan(job):
            _write(Path(written.where), written.text.encode())
        _must("systemctl", "--user", "daemon-reload")
        _must("systemctl", "--user", "enable", "--now", f"{schedule_formats.unit_name(job)}.timer")

    def remove(self, job: Job) -> None:
        _try("systemctl", "--user", "disable", "--now", f"{schedule_formats.unit_name(job)}.timer")
        for path in self._paths(job):
            path.unlink(missing_ok=True)
        _try("systemctl", "--user", "daemon-reload")


class Launchd:
    """An agent of the logged-in user."""

    kind: Kind = "launchd"

    def _path(self, job: Job) -> Path:
        return Path.home() / "Library" / "LaunchAgents" / f"{schedule_formats.label(job)}.plist"

    def plan(self, job: Job) -> list[Written]:
        return [Written(where=str(self._path(job)), text=schedule_formats.agent(job).decode())]

    def installed(self, job: Job) -> list[Written]:
        return _read([self._path(job)])

    def install(self, job: Job) -> None:
        self._stop(job)
        _write(self._path(job), schedule_formats.agent(job))
        _must("launchctl", "bootstrap", f"gui/{os.getuid()}", str(self._path(job)))

    def remove(self, job: Job) -> None:
        self._stop(job)
        self._path(job).unlink(missing_ok=True)

    def _stop(self, job: Job) -> None:
        """Unload it; that it was not loaded is no failure."""
        _try("launchctl", "bootout", f"gui/{os.getuid()}/{schedule_formats.label(job)}")


def linger_hint() -> str:
    """What to type so that a user's timers fire while the user is not logged in; "" where they do."""
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    if not user or not shutil.which("loginctl"):
        return ""
    if _call("loginctl", "show-user", user, "--property=Linger").out.strip() == "Linger=yes":
        return ""
    return f"It runs while you are logged in. For every night: sudo loginctl enable-linger {user}"
