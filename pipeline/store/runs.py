"""The reports of a collection's runs: `runs/<time>.json`, the record, and `runs/<time>.html`, the page made of it.

Written without the collection's lock, since a run that could not get it leaves a report too: drafts lie in the same
folder under names of their own, and are swept when they are a day old.
"""

from __future__ import annotations

import calendar
import contextlib
import logging
import re
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from pipeline import errors
from pipeline.store import files

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

_STEM = "%Y%m%dT%H%M%S"  # UTC, and then milliseconds: names sort as the runs did
_NAME = re.compile(r"(\d{8}T\d{6})(?:\.(\d{3}))?-")  # anything else in the folder is not ours
_STALE_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One report. `page`: may be gone, or of a run before there were pages."""

    record: Path
    page: Path

    @property
    def at_s(self) -> float:
        """When it was written, Unix time, by its name; 0 for a name that tells none."""
        return _time_ms(self.record.name) / 1000

    def read(self) -> bytes:
        with files.disk_errors(self.record):
            return self.record.read_bytes()


def _time_ms(name: str) -> int:
    """The time in a report's name, Unix time in milliseconds; an older name knows seconds only."""
    match = _NAME.match(name)
    if match is None:
        return 0
    return calendar.timegm(time.strptime(match[1], _STEM)) * 1000 + int(match[2] or 0)


class Runs:
    """The folder of reports; it need not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name(self) -> Entry:
        """Where a report of now is to go: known before it is written, for the page and for who is told.

        After the newest in any case: a clock that was set back must not make tonight's report last year's.
        """
        last_ms = max((_time_ms(entry.record.name) for entry in self.newest(1)), default=0)
        at_ms = max(time.time_ns() // 1_000_000, last_ms + 1)
        moment = time.strftime(_STEM, time.gmtime(at_ms // 1000))
        stem = f"{moment}.{at_ms % 1000:03}-{secrets.token_hex(2)}"
        return Entry(record=self._folder / f"{stem}.json", page=self._folder / f"{stem}.html")

    def write(self, entry: Entry, record: bytes, page: bytes, keep: int) -> None:
        """Write both, the record last, and drop all but the newest `keep`.

        Raises:
            DiskFull, StoreError: the system refused.
        """
        files.write_once(self._folder, entry.page, lambda file: file.write(page))
        files.write_once(self._folder, entry.record, lambda file: file.write(record))
        self._drop(keep)

    def newest(self, count: int | None = None) -> list[Entry]:
        """The newest `count` (all by default), newest first."""
        found = (path for path in self._folder.glob("*.json") if _NAME.match(path.name))
        records = sorted(found, key=lambda path: (_time_ms(path.name), path.name), reverse=True)[:count]
        return [Entry(record=record, page=record.with_suffix(".html")) for record in records]

    def past(self, count: int, kind: type[T]) -> list[T]:
        """What the newest `count` reports say, newest first: fields of the struct `kind`, each with a default. One that
        cannot be read is passed over with a warning: a report decides nothing.
        """
        found = []
        for entry in self.newest(count):
            try:
                found.append(msgspec.json.decode(entry.read(), type=kind))
            except (errors.StoreError, msgspec.DecodeError) as error:
                log.warning("A report of an earlier run cannot be read (%s): %s", entry.record.name, error)
        return found

    def _drop(self, keep: int) -> None:
        entries = self.newest()
        for entry in entries[keep:]:
            entry.page.unlink(missing_ok=True)
            entry.record.unlink(missing_ok=True)
        kept = {entry.record.stem for entry in entries[:keep]}
        oldest = time.time() - _STALE_S  # younger: a draft, or a page whose record another run is about to write
        with files.disk_errors(self._folder), contextlib.suppress(FileNotFoundError):  # another's sweep was first
            for path in self._folder.iterdir():
                if _NAME.match(path.name) and path.stem not in kept and path.stat().st_mtime < oldest:
                    path.unlink()
