"""Run again whenever a folder of documents changes: watchfiles tells that something did, the run finds out what.

Knows neither settings nor models: what a run is, and what its failure means, is the caller's. The watch is begun before
the first run and goes on during each, so that nothing is missed; a change that it did not tell of is found by the next
run all the same.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import watchfiles
from watchfiles.main import FileChange

from pipeline import errors, ignore

log = logging.getLogger(__name__)

IGNORE_FILE = ignore.FILE.decode()  # hidden, and yet its change changes what is read
_STEP_MS = 100  # how fast Ctrl-C is heard
_TURN_MS = 500  # at least so often the clock is looked at

Attempt = Callable[[], float | None]  # runs; returns the seconds after which to try again, None: at the next change
Changes = Generator[set[FileChange], None, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`quiet_s`: a run begins when nothing has changed for so long; `most_s`: or when changes have gone on for so long.

    `ignored`: folders whose changes do not count, such as our own data; `hidden`: files that begin with a dot count.
    """

    quiet_s: float = 2.0
    most_s: float = 30.0
    poll: bool = False
    hidden: bool = False
    ignored: tuple[Path, ...] = ()


def follow(folders: Sequence[Path], attempt: Attempt, options: Options) -> NoReturn:
    """Run `attempt` now and after every change, until something is raised.

    Raises:
        SourceError: the folders cannot be watched. KeyboardInterrupt: in a run or between two. What `attempt` raises.
    """
    while True:
        with contextlib.closing(_watch(folders, options)) as changes:
            _begin(changes, folders)
            retry_s = attempt()
            while _settled(changes, options, retry_s):
                retry_s = attempt()
        # a folder that went and came back is a new one to the system: watch it anew


def _watch(folders: Sequence[Path], options: Options) -> Changes:
    """What changes, in small portions; an empty one when nothing did for a while."""
    ignored = tuple(f"{folder.resolve()}/" for folder in options.ignored)
    roots = tuple(str(folder.resolve()) for folder in folders)

    def counts(_: watchfiles.Change, path: str) -> bool:
        if f"{path}/".startswith(ignored):
            return False
        inside = next((path[len(root) :] for root in roots if path.startswith(root)), path)
        parts = Path(inside).parts
        return options.hidden or path.endswith(f"/{IGNORE_FILE}") or not any(part.startswith(".") for part in parts)

    return watchfiles.watch(
        *roots,
        watch_filter=counts,
        debounce=_TURN_MS,
        step=_STEP_MS,
        rust_timeout=_TURN_MS,
        yield_on_timeout=True,
        force_polling=options.poll or None,
        ignore_permission_denied=True,
    )


def _begin(changes: Changes, folders: Sequence[Path]) -> None:
    """Start watching.

    Raises:
        SourceError: a folder is not there, or the system has no watch left to give.
    """
    for folder in folders:  # watchfiles says nothing of it when it ignores what it may not read
        if not folder.is_dir():
            raise errors.SourceError(f"{folder} is not a folder", "Check the path, or mount it first.")
    try:
        next(changes)
    except OSError as error:
        raise errors.SourceError(
            f"The folders cannot be watched: {error}",
            "Raise fs.inotify.max_user_watches (sysctl), or give --poll, which needs no watches.",
        ) from error


def _settled(changes: Changes, options: Options, retry_s: float | None) -> bool:
    """Wait until there is something to do: changes that have come to rest, or the time to try again.

    Returns False where the watch itself has to be begun anew, which is when a failure is tried again.
    """
    waiting_since, first, last = time.monotonic(), 0.0, 0.0
    while True:
        found = next(changes)
        now = time.monotonic()
        if found:
            log.debug("Changed: %s", sorted(path for _, path in found)[:20])
            first, last = first or now, now
        if first and (now - last >= options.quiet_s or now - first >= options.most_s):
            return True
        if not first and retry_s is not None and now - waiting_since >= retry_s:
            return False
