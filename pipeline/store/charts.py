"""The maps of a collection: `maps/<time>-<made from>.parquet`, rows of schema.MAP and a note about them.

A name says when a map was finished and what it was made from, so that it is made again when that has changed and not
otherwise. Written without the collection's lock, as reports are: whoever draws a map for a minute stands in no night's
way. Drafts lie in the same folder under names of their own.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline import schema
from pipeline.store import files

_NAME = re.compile(r"(\d{13})-([0-9a-f]{16})\.parquet")  # milliseconds of Unix time, fingerprint
_DRAFT = re.compile(rf"{_NAME.pattern}\.[0-9a-f]{{8}}")
_STALE_S = 86_400
KEPT = 3  # so that a rollback finds its map, and a page that is open goes on
NOTE = "pipeline.map"  # key of the metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A map that is there: `made_from` is a fingerprint, `at_ms` Unix time."""

    path: Path
    made_from: str
    at_ms: int

    @property
    def name(self) -> str:
        """For addresses: digits, letters and a hyphen."""
        return self.path.stem


class Charts:
    """The folder of maps; it need not exist."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Entry]:
        """What there is, the oldest first."""
        found = ((path, _NAME.fullmatch(path.name)) for path in self._folder.glob("*.parquet"))
        entries = [Entry(path=path, made_from=name[2], at_ms=int(name[1])) for path, name in found if name is not None]
        return sorted(entries, key=lambda entry: entry.path.name)

    def find(self, made_from: str) -> Entry | None:
        """The newest map made from this; None: there is none."""
        return next((entry for entry in reversed(self.all()) if entry.made_from == made_from), None)

    def named(self, name: str) -> Entry | None:
        """The map of this name; a name that is none finds none, whatever is in it."""
        return next((entry for entry in self.all() if entry.name == name), None)

    def write(self, made_from: str, table: pa.Table, note: str) -> Entry:
        """Write a map, the newest from now on.

        Raises:
            DiskFull, StoreError: the system refused.
        """
        at_ms = max([time.time_ns() // 1_000_000, *(entry.at_ms + 1 for entry in self.all())])
        path = self._folder / f"{at_ms:013d}-{made_from}.parquet"
        files.write_parquet(self._folder, path, schema.check(table, schema.MAP, "map"), metadata={NOTE: note})
        return Entry(path=path, made_from=made_from, at_ms=at_ms)

    def read(self, entry: Entry) -> tuple[pa.Table, str]:
        """Rows of schema.MAP, and the note.

        Raises:
            CorruptStore: gone or damaged.
        """
        return files.read_parquet(entry.path, schema.MAP), self.note(entry)

    def note(self, entry: Entry) -> str:
        """The note alone: the file's foot is read, and none of its rows."""
        return files.parquet_metadata(entry.path).get(NOTE, "")

    def unneeded(self) -> list[Path]:
        """What may go: all but the newest KEPT maps; drafts that are a day old."""
        before = time.time() - _STALE_S
        drafts = (path for path in self._folder.glob("*.parquet.*") if _DRAFT.fullmatch(path.name))
        return [*(entry.path for entry in self.all()[:-KEPT]), *(path for path in drafts if _is_older(path, before))]

    def tidy(self) -> None:
        """Drop what may go."""
        for path in self.unneeded():
            with files.disk_errors(path):
                path.unlink(missing_ok=True)


def _is_older(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime < moment
    except FileNotFoundError:  # finished, or swept by another
        return False
