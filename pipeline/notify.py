"""Tell someone how a run ended: a command of the user's, run without a shell, within a time limit.

The command is split into words before its fields are filled in, so that nothing in a report (a file's name, an error)
is ever more than part of one argument. It gets the summary on stdin as well, as mail programs want it, and everything
in variables. Their names do not begin with PIPELINE_: the command may be `pipeline report`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from pipeline import errors
from pipeline.report import FAILED_FILES, Report

log = logging.getLogger(__name__)

_FIELD = re.compile(r"\{(\w+)\}")
_PREFIX = "EMBED_PIPELINE_"
_MOST = 8_000  # characters of a summary: one argument may have 128 KiB on Linux


def words(command: str) -> tuple[str, ...]:
    """The command's words, as a shell splits them; none for "".

    Raises:
        ConfigError: a quote without its partner.
    """
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise errors.ConfigError(
            f"notify.command cannot be split into words: {error}", "Close each quote: mail -s 'a subject' me"
        ) from error


def is_wanted(report: Report, when: str) -> bool:
    """Whether to tell. For "failure": the run failed, or it met failures that the run before did not have (a file that
    is broken for good would otherwise tell every night).
    """
    if when == "always" or report.exit_code not in (0, FAILED_FILES):
        return True
    return report.detail is not None and report.detail.new_failures > 0


def summary(report: Report) -> str:
    """A line or two about the run, for a mail or a message."""
    if report.error:
        return f"{report.collection}: failed with exit code {report.exit_code}: {report.error}" + (
            f"\n{report.remedy}" if report.remedy else ""
        )
    fates = ", ".join(f"{count:,} {fate}" for fate, count in report.files.items() if count)
    line = f"{report.collection}: {fates or 'no files'}; {report.embedded_texts:,} texts embedded in "
    line += f"{report.seconds:,.1f} s"
    if not report.rejects:
        return line
    named = [f"{failure.uri}: {failure.kind}: {failure.reason}" for failure in report.failures[:20]]
    return "\n".join([f"{line}; {report.rejects:,} cannot be read or embedded:", *named])


def fields(report: Report, record: Path | None, page: Path | None) -> dict[str, str]:
    """What the command's fields and variables are filled with."""
    return {
        "collection": report.collection,
        "exit_code": str(report.exit_code),
        "summary": summary(report).replace("\0", "")[:_MOST],
        "report": str(page) if page is not None else "",
        "json": str(record) if record is not None else "",
    }


def send(words_: Sequence[str], filled: Mapping[str, str], timeout_s: float) -> None:
    """Run the command. Its failure is said in the log and is nobody else's business."""
    arguments = [_FIELD.sub(lambda match: filled[match[1]], word) for word in words_]
    own = {f"{_PREFIX}{name.upper()}": value for name, value in filled.items()}
    with tempfile.TemporaryFile() as output:  # not a pipe: what the command leaves running would keep it open
        try:
            code = _run(arguments, own, filled["summary"], output, timeout_s)
        except subprocess.TimeoutExpired:
            log.error("notify.command took longer than %g s and was ended: %s", timeout_s, words_[0])
        except (OSError, ValueError) as error:
            log.error("notify.command cannot be run: %s", error)
        else:
            if code:
                output.seek(max(0, output.seek(0, os.SEEK_END) - 10_000))
                told = output.read().decode(errors="replace").strip()
                log.error("notify.command ended with %d: %s", code, told[-500:] or words_[0])


def _run(arguments: Sequence[str], own: Mapping[str, str], summary_: str, output: IO[bytes], timeout_s: float) -> int:
    """Run to its end, else end it and all that it started; returns its exit code."""
    process = subprocess.Popen(  # noqa: S603  # the user's own command, without a shell
        arguments,
        env=os.environ | own,
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        start_new_session=True,
    )
    try:
        process.communicate(summary_.encode("utf-8", "backslashreplace"), timeout_s)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode
