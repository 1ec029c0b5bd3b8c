"""The index: one LanceDB table per embedding fingerprint. With lance_reader the only module that knows lancedb, whose
exceptions do not leave them.

`Table` is the one writer's handle (the caller holds the collection's lock), `Reader` opens what was last published
and is never disturbed by the writer (lance_reader). Knows rows; not where they come from.

A night: `delete` what is gone, `add` what is new, `prepare` (indexes, compaction), look at it with `reader`, `publish`
(make it durable, move the tag "live"), let readers know its version, `clean`. Readers name a version, so that whoever
keeps the note of it decides, in one write, what all of them see; the tag says what is durable.

| killed | leaves | repaired by |
|---|---|---|
| in `delete` or `add` | versions after the tag, temporary files | `open` sweeps; the next comparison with `rows()` |
| in `prepare` | the same, with or without new index segments | the next `prepare` |
| after the tag, before clean-up | old versions on disk | the next `clean` |
| by power loss, any time | perhaps torn files after the tag | `open` goes back to the tag (lance_disk.mend) |

The numbers behind the choices here were measured with LanceDB 0.40 on 200,000 and 1,000,000 rows of 1,024 dimensions.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import errors, lance_disk, lance_rows
from pipeline.lance_reader import (
    LIVE,
    Keep,
    Predicate,
    Reader,
    any_of,
    connect,
    exists,
    indices,
    is_published,
    preload,
    quote,
    translated,
    words_of,
)
from pipeline.lance_rows import FOUND, HASHED, WORDS, index_schema, row_hashes
from pipeline.models import Storage

__all__ = [
    "FOUND",
    "HASHED",
    "LIVE",
    "Keep",
    "Predicate",
    "Published",
    "Reader",
    "Table",
    "index_schema",
    "is_published",
    "preload",
    "quote",
    "row_hashes",
    "words_of",
]

log = logging.getLogger(__name__)

DELETE_BATCH = 1_000  # ids in one SQL predicate
MOST_PASSES = 5  # of optimise; it takes three
NEVER = timedelta(days=3650)

RETRAIN_UNINDEXED = 0.2  # share of rows added since the vector index was trained
RETRAIN_SEGMENTS = 30  # each night's optimise adds one

# Full text is one column of its own, `words`: file name, title, headings and text. Measured on XQuAD (240 passages,
# every other question; nDCG@10): English 0.958 text alone, 0.962 with the titles in it, 0.965 with stemming alone;
# German 0.910, 0.920, 0.923; Chinese 0.958 throughout. The titles as a second column: the maximum of both changes
# nothing, and the sum (0.957) takes 100 ms at 60,000 rows instead of 5: only a query of one column can skip blocks.
# "icu/split" finds 98 % of Chinese and Japanese answers at 10, the library's default tokenizer 12-20 %.
_FULL_TEXT: dict[str, Any] = {
    "base_tokenizer": "icu/split",
    "stem": True,  # English rules; they leave other scripts alone and help German too
    "remove_stop_words": False,
    "ascii_folding": True,
    "lower_case": True,
    "with_position": False,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What readers may see from now on. `changed` is False when the tag was there already."""

    version: int
    rows: int
    changed: bool
    vector_index: bool  # False: exact search


class Table:
    """The writer's handle on the newest version. One at a time, under the collection's lock."""

    def __init__(self, folder: Path, name: str, schema: pa.Schema, table: Any) -> None:
        self._folder = folder / f"{name}.lance"
        self._scratch = folder / "tmp"
        self._schema = schema
        self._dims = int(schema.field("vector").type.list_size)
        self._table = table

    @classmethod
    def open(
        cls,
        folder: Path,
        name: str,
        dims: int,
        provenance: Mapping[str, str],
        *,
        record: Mapping[str, str] | None = None,
        storage: Storage = "float32",
    ) -> Table:
        """Open the table `name` below `folder`, created when absent; sweep and mend what a crash left.

        Args:
            provenance: who made the vectors (provider, digest, template, ...): kept with the vector column and compared
                here.
            record: what a new table says of them beside (server, canary): kept with it, not compared here.

        Raises:
            IndexMismatch: the table holds vectors of another origin or length.
            StoreError: the folder cannot be used.
        """
        path = folder / f"{name}.lance"
        with translated(folder):
            folder.mkdir(parents=True, exist_ok=True)
            lance_disk.sweep(path, folder / "tmp")
            lance_disk.mend(path, LIVE)
            database = connect(folder)
            if exists(path):
                table = database.open_table(name)
                lance_rows.compare(table.schema, dims, storage, provenance)
            else:
                stored = lance_rows.stored_schema(dims, storage)
                said = dict(record or {}) | dict(provenance)
                table = database.create_table(name, schema=lance_rows.with_provenance(stored, said))
        return cls(folder, name, index_schema(dims, storage), table)

    @property
    def provenance(self) -> dict[str, str]:
        """Who made the vectors, as given when the table was made."""
        return lance_rows.provenance_of(self._table.schema)

    def rows(self, *more: str) -> pa.Table:
        """`chunk_id` and `row_hash` of every row of the newest version, published or not: 64 bytes a row; and the
        columns `more`.
        """
        with translated(self._folder):
            rows: pa.Table = self._table.search(None).select(["chunk_id", "row_hash", *more]).to_arrow()
        return rows

    def count(self) -> int:
        with translated(self._folder):
            return int(self._table.count_rows())

    @property
    def version(self) -> int:
        return int(self._table.version)

    def delete(self, chunk_ids: Sequence[str]) -> None:
        """Remove the rows of these chunks; absent ones are passed over."""
        with translated(self._folder):
            for start in range(0, len(chunk_ids), DELETE_BATCH):
                self._table.delete(any_of(chunk_ids[start : start + DELETE_BATCH]))

    def add(self, reader: pa.RecordBatchReader) -> None:
        """Append rows of `index_schema(dims, storage)`, all or none, as one version; nothing when there is no row.

        The caller has seen to it that no `chunk_id` is there already. `reader` must not be a query on this table:
        Lance deadlocks.

        Raises:
            CorruptStore: other columns, a null, or a vector that is infinite, not a number or all zeros (Lance takes
                some of these without a word); also whatever `reader` itself raises.
        """
        lance_rows.check_columns(reader.schema, self._schema)
        schema = self._table.schema
        faults: list[BaseException] = []
        batches = lance_rows.remember(lance_rows.validated(reader, schema), faults)
        first = next(batches, None)
        if first is None:
            return
        source = pa.RecordBatchReader.from_batches(schema, itertools.chain((first,), batches))
        try:
            with translated(self._folder):
                self._table.add(source)
        except errors.PipelineError:
            if faults:  # Lance reports a failing source as its own error, with our traceback in the text
                raise faults[0] from None
            raise

    def prepare(self, *, vector_index_from: int) -> bool:
        """Index what is new and join small fragments; False: the newest version is the published one, and as it should
        be.

        Args:
            vector_index_from: rows from which on an approximate index is kept; exact search below (0.09 s at 50,000
                rows).
        """
        with translated(self._folder), lance_disk.scratch(self._scratch):
            rows = int(self._table.count_rows())
            changed = self._index(rows, vector_index_from) or self._table.version != _live_version(self._table)
            if changed:
                self._settle()
        return changed

    def reader(self) -> Reader:
        """The newest version as readers would see it, published or not; good until something is written."""
        return Reader(self._folder, self._table)

    def publish(self) -> Published:
        """Make the newest version durable and move the tag to it."""
        with translated(self._folder):
            changed = self._table.version != _live_version(self._table)
            if changed:
                lance_disk.sync(self._folder, LIVE)
                tags = self._table.tags
                move = tags.update if LIVE in tags.list() else tags.create
                move(LIVE, self._table.version)
                lance_disk.sync_tag(self._folder, LIVE)
            return Published(
                version=self._table.version,
                rows=int(self._table.count_rows()),
                changed=changed,
                vector_index="vector" in indices(self._table),
            )

    def clean(self, oldest: int, slack: timedelta = lance_disk.SLACK) -> None:
        """Free the versions before `oldest`, which readers may still be on, as are those after it.

        The newest version must be the published one: a tag on one that is to go makes Lance refuse.
        """
        with translated(self._folder), lance_disk.scratch(self._scratch):
            made = {int(version["version"]): version["timestamp"] for version in self._table.list_versions()}
            age = lance_disk.age_to_free(made, oldest, datetime.now(), slack)  # LanceDB tells local time
            if age is not None:
                self._table.optimize(cleanup_older_than=age)

    def finish(self, *, vector_index_from: int) -> Published:
        """`prepare` and `publish`, for a table that nobody keeps notes of."""
        self.prepare(vector_index_from=vector_index_from)
        return self.publish()

    def _settle(self) -> None:
        """Optimise until nothing is left to do, so that the clean-up after the tag's move makes no version of its own.

        The first pass indexes the new rows, and only then does a second one join their fragment to the others (LanceDB
        0.40); a third finds nothing.
        """
        for _ in range(MOST_PASSES):
            before = self._table.version
            self._table.optimize(cleanup_older_than=NEVER)
            if self._table.version == before:
                return

    def _index(self, rows: int, vector_index_from: int) -> bool:
        """Create the indexes that are missing or worn out; True when there were any. Later rows join by `optimize`."""
        from lancedb.index import FTS

        present = indices(self._table)
        stale = not _is_full_text(present.get(WORDS.name))
        if stale:
            self._table.create_index(WORDS.name, config=FTS(**_FULL_TEXT), replace=True)
        if rows < vector_index_from or not _is_worn(present.get("vector"), rows):
            return stale
        if "vector" in present:
            self._table.drop_index(present["vector"].name)
        # Training with deleted rows in the table takes 3 to 14 times as long.
        self._table.optimize(cleanup_older_than=NEVER)
        self._table.create_index("vector", config=self._vector_config())
        return True

    def _vector_config(self) -> Any:
        from lancedb.index import IvfRq, IvfSq

        # RaBitQ is 5 times smaller and faster at the same recall, but takes only whole bytes of sign bits.
        return IvfRq(distance_type="cosine") if self._dims % 8 == 0 else IvfSq(distance_type="cosine")


def _is_full_text(index: Any | None) -> bool:
    return index is not None and all(index.index_details.get(key) == value for key, value in _FULL_TEXT.items())


def _is_worn(index: Any | None, rows: int) -> bool:
    if index is None:
        return True
    return bool(index.num_segments > RETRAIN_SEGMENTS or index.num_unindexed_rows > RETRAIN_UNINDEXED * rows)


def _live_version(table: Any) -> int | None:
    tag = table.tags.list().get(LIVE)
    return None if tag is None else int(tag["version"])
