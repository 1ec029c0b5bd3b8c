"""The sentences that situate chunks, by chunk and document: an append-only log of Parquet parts, like the vectors'.

Knows how they are kept and found again; who writes them, and when two documents are one, is its callers' to say.
"""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from pipeline import schema
from pipeline.store import files

COMPACT_FROM = 16  # parts

IsSame = Callable[[Sequence[str], Sequence[str]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One sentence.

    Attributes:
        key: of the chunk, as it would be embedded without the sentence.
        document: what the document is known by (see stages.situate.sketch).
        sentence: "" where the model brought none, and then:
        fault: why.
    """

    key: str
    document: tuple[str, ...]
    sentence: str
    fault: str = ""


class SentenceLog:
    """Append to, look up in and compact the log at `folder`; one writer. All of it is in memory: some 300 bytes each.

    Raises:
        CorruptStore: a part is damaged.
    """

    def __init__(self, folder: Path, temporary: Path, is_same: IsSame) -> None:
        self._folder = folder
        self._temporary = temporary
        self._is_same = is_same
        self._found: defaultdict[str, list[Entry]] = defaultdict(list)
        self._new: list[Entry] = []
        self._parts = sorted(folder.glob("*.parquet"))
        for part in self._parts:
            self._take(_entries(files.read_parquet(part, schema.SENTENCES)))

    def _take(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self._found[entry.key].append(entry)

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))

    def knows(self, key: str) -> bool:
        """Whether there is a sentence for this chunk in some document."""
        return key in self._found

    def find(self, key: str, document: Sequence[str]) -> Entry | None:
        """The newest entry of this chunk in this document."""
        found = reversed(self._found.get(key, ()))
        return next((entry for entry in found if self._is_same(entry.document, document)), None)

    def add(self, entry: Entry) -> None:
        """Found from now on, and on disk after `flush`."""
        self._found[entry.key].append(entry)
        self._new.append(entry)

    def forget_faults(self) -> None:
        """As if what the model brought nothing for had never been asked."""
        for key, found in list(self._found.items()):
            self._found[key] = [entry for entry in found if entry.sentence]
            if not self._found[key]:
                del self._found[key]

    def flush(self) -> None:
        """Write what was added as one part."""
        if self._new:
            self._parts.append(self._write(self._new))
            self._new = []

    def compact(self) -> None:
        """Make one part of many. A crash leaves both the old and the new, which says everything twice: harmless."""
        if len(self._parts) < COMPACT_FROM:
            return
        old = self._parts
        entries = (entry for found in self._found.values() for entry in found)
        self._parts = [self._write(list(dict.fromkeys(entries)))]
        with files.disk_errors(self._folder):
            for part in old:
                part.unlink()
            files.fsync_folder(self._folder)

    def _write(self, entries: Sequence[Entry]) -> Path:
        rows = [
            {
                "key": entry.key,
                "document": list(entry.document),
                "sentence": entry.sentence,
                "fault": entry.fault,
            }
            for entry in entries
        ]
        # A name that sorts by time: of two entries the later one counts.
        part = self._folder / f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}.parquet"
        files.write_parquet(self._temporary, part, pa.Table.from_pylist(rows, schema=schema.SENTENCES))
        return part


def _entries(table: pa.Table) -> Iterable[Entry]:
    return (Entry(**{**row, "document": tuple(row["document"])}) for row in table.to_pylist())
