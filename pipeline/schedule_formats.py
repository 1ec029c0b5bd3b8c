"""A nightly job as cron, systemd and launchd want it written. Text in, text out: each format's own quoting is here.

Sources: crontab(5) ("%" ends the command unless a backslash stands before it), systemd.service(5), systemd.syntax(7),
launchd.plist(5).
"""

from __future__ import annotations

import plistlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import errors
from pipeline.report import FAILED_FILES

MARK = "embed-pipeline"
CRON_MOST = 990  # characters of a command; cron's own limit is 1,000 on Debian and on macOS


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be started every night.

    Attributes:
        ident: tells this job from others of the same user: collection and data folder in one word.
        words: the command with its arguments, absolute paths.
        folder: where it is started. environment: variables that it needs. log: what it prints is appended there.
    """

    ident: str
    collection: str
    words: tuple[str, ...]
    folder: Path
    hour: int
    minute: int
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)


def check(job: Job) -> Job:
    """The job itself.

    Raises:
        UsageError: a line break in it, which no format can carry.
    """
    texts = [*job.words, str(job.folder), str(job.log), *job.environment.values()]
    for text in texts:
        if re.search(r"[\r\n\0]", text):
            raise errors.UsageError(f"{text!r} has a line break in it: it cannot be scheduled.", "Rename that folder.")
    return job


# --- cron


def cron_line(job: Job) -> str:
    """The one line of the crontab, without its end. On a failure it prints the log's end, so that cron mails it; that
    some files cannot be read is none, or a broken one would be mailed every night.

    Raises:
        UsageError: it would be longer than cron takes.
    """
    log = shlex.quote(str(job.log))
    assigned = "".join(f"{name}={shlex.quote(value)} " for name, value in sorted(job.environment.items()))
    command = f"cd {shlex.quote(str(job.folder))} && {{ {assigned}{shlex.join(job.words)} >>{log} 2>&1"
    command = f"{command} || [ $? -eq {FAILED_FILES} ] || tail -n 20 {log}; }} {_cron_mark(job)}".replace("%", "\\%")
    if len(command) > CRON_MOST:
        raise errors.UsageError(
            f"The line for the crontab would have {len(command)} characters; cron takes {CRON_MOST}.",
            "Put folders and settings into a file (pipeline --config FILE schedule install ...), shorten PATH, or take "
            "another: --with systemd.",
        )
    return f"{job.minute} {job.hour} * * * {command}"


def _cron_mark(job: Job) -> str:
    return f"# {MARK} {job.collection} {job.ident}"


def cron_lines(crontab: str, job: Job) -> list[str]:
    """The lines of a crontab that are this job's."""
    return [line for line in crontab.splitlines() if line.rstrip().endswith(_cron_mark(job).replace("%", "\\%"))]


def crontab_with(crontab: str, job: Job) -> str:
    """A crontab with this job once; all other lines as they are."""
    rest = crontab_without(crontab, job)
    if rest and not rest.endswith("\n"):
        rest += "\n"
    return f"{rest}{cron_line(job)}\n"


def crontab_without(crontab: str, job: Job) -> str:
    own = set(cron_lines(crontab, job))
    return "".join(line for line in crontab.splitlines(keepends=True) if line.rstrip("\r\n") not in own)


# --- systemd


def unit_name(job: Job) -> str:
    """Of both units, without the suffix."""
    return f"{MARK}-{job.ident}"


def service(job: Job) -> str:
    """The service unit. ":" before the command: no `$` in it means a variable."""
    environment = "".join(
        f"Environment={_systemd_word(f'{name}={value}')}\n" for name, value in sorted(job.environment.items())
    )
    log = _percent(str(job.log))
    return (
        f"# Written by `pipeline schedule install`; `pipeline schedule remove` takes it away.\n"
        f"[Unit]\n"
        f"Description=Index of documents, collection {_percent(job.collection)}\n"
        f"\n"
        f"[Service]\n"
        f"Type=oneshot\n"
        f"WorkingDirectory={_percent(str(job.folder))}\n"
        f"{environment}"
        f"ExecStart=:{' '.join(map(_systemd_word, _startable(job.words)))}\n"
        f"SuccessExitStatus={FAILED_FILES}\n"
        f"KillSignal=SIGINT\n"  # as Ctrl-C: what is finished is kept
        f"KillMode=mixed\n"
        f"Nice=10\n"
        f"StandardOutput=append:{log}\n"
        f"StandardError=append:{log}\n"
    )


def timer(job: Job) -> str:
    """The timer unit. Persistent: a night that the machine was off is made up for."""
    return (
        f"# Written by `pipeline schedule install`; `pipeline schedule remove` takes it away.\n"
        f"[Unit]\n"
        f"Description=Index of documents every night, collection {_percent(job.collection)}\n"
        f"\n"
        f"[Timer]\n"
        f"OnCalendar=*-*-* {job.hour:02}:{job.minute:02}:00\n"
        f"Persistent=true\n"
        f"\n"
        f"[Install]\n"
        f"WantedBy=timers.target\n"
    )


def _percent(text: str) -> str:
    return text.replace("%", "%%")


def _startable(words: Sequence[str]) -> Sequence[str]:
    """The command as systemd starts it: a program with a quote or a backslash in its path only through a shell."""
    if re.search(r"[\\\"'\x00-\x1f\x7f]", words[0]):  # systemd's string_is_safe
        return ("/bin/sh", "-c", 'exec "$0" "$@"', *words)
    return words


def _systemd_word(word: str) -> str:
    escaped = _percent(word.replace("\\", "\\\\").replace('"', '\\"'))
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", word) else f'"{escaped}"'


# --- launchd


def label(job: Job) -> str:
    return f"org.{MARK}.{job.ident}"


def agent(job: Job) -> bytes:
    """The launch agent's property list. A night that the Mac slept through is made up for when it wakes."""
    told = {
        "Label": label(job),
        "ProgramArguments": list(job.words),
        "WorkingDirectory": str(job.folder),
        "EnvironmentVariables": dict(job.environment),
        "StartCalendarInterval": {"Hour": job.hour, "Minute": job.minute},
        "StandardOutPath": str(job.log),
        "StandardErrorPath": str(job.log),
        "ProcessType": "Background",
        "LowPriorityIO": True,
    }
    return plistlib.dumps(told, sort_keys=False)
