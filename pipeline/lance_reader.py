"""A published state of the index, for questions: the nearest rows, the rows that match words, filters over both.

The other half of lance.py, and like it a module that knows lancedb, whose exceptions do not leave it. Knows how rows
are found; not how two rankings are fused, or what a question is.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NewType, Protocol

import numpy as np
import pyarrow as pa

from pipeline import errors, lance_disk, lance_rows, scripts
from pipeline.lance_rows import FOUND, WORDS
from pipeline.models import Vectors

LIVE = "live"  # the tag of what is durable
MOST_FETCHED = 2_000  # rows, of which those are left out that do not belong: about 40 ms
NPROBES, REFINE = 40, 10  # recall@10 0.998 at 1M rows, 12 ms; 20 probes: 0.983
_RUST_SOURCE = re.compile(r",?\s*\S+\.rs:\d+:\d+")


# Which rows may be found, as SQL over the columns of a row. Made by the program of column names and of literals by
# `quote` (filters.py), never of what a user typed: a type of its own, so that no other text is taken for one.
Predicate = NewType("Predicate", str)


def preload() -> None:
    """Import lancedb (1.0-1.4 s): call it in a thread while the question is embedded."""
    os.environ.setdefault("LANCEDB_LOG", "error")  # read once, at the import; else Rust's warnings go to stderr
    import lancedb  # noqa: F401


def quote(value: str) -> str:
    """`value` as an SQL string literal, for `where`."""
    return "'" + value.replace("'", "''") + "'"


class Keep(Protocol):
    """Rows that may be found, where a predicate that says so would be long: they are told apart when they are there."""

    @property
    def share(self) -> float:
        """Of all rows, from 0 to 1, about."""

    @property
    def predicate(self) -> Predicate:
        """The long predicate."""

    def mask(self, uris: pa.ChunkedArray[Any]) -> pa.Array[Any]:
        """Which of these may be found."""


class Reader:
    """A published state of the table, for questions. Never blocks the writer and never sees half of a night's work."""

    def __init__(self, folder: Path, table: Any) -> None:
        self._folder = folder
        self._table = table
        # What lancedb's own synchronous queries are made of. They look at the schema three times more and copy what
        # they found: of a hybrid question's 15 ms of CPU that is 5, and under load as much of a server's rate.
        self._asked = table._table
        self._approximate = "vector" in indices(table)
        self._dims = int(table.schema.field("vector").type.list_size)  # each look at the schema is a call of 1 ms

    @classmethod
    def open(cls, folder: Path, name: str, version: int = 0) -> Reader:
        """Open a published version of table `name`; 0: the one that was published last.

        Raises:
            NoIndex: there is no such table, or nothing of it was published, or that version is gone.
        """
        path = folder / f"{name}.lance"
        if not is_published(folder, name, version):
            what = "What was indexed is not there any more" if version and exists(path) else "Nothing has been indexed"
            raise errors.NoIndex(f"{what} ({path}).", "Run `pipeline run DOCS`.")
        with translated(folder):
            whole = lance_disk.readable(folder, name, version)
            return cls(folder, connect(whole).open_table(name, version=version or LIVE))

    @property
    def provenance(self) -> dict[str, str]:
        """Who made the vectors, as given to `Table.open`."""
        return lance_rows.provenance_of(self._table.schema)

    @property
    def dims(self) -> int:
        return self._dims

    def count(self, where: Predicate | None = None) -> int:
        """Rows that there are, or that fulfil the predicate `where`."""
        with translated(self._folder):
            return int(self._table.count_rows(where))

    def vector(self, query: Vectors, k: int, where: Predicate | None = None, keep: Keep | None = None) -> pa.Table:
        """The `k` rows nearest to `query` (shape (dims,)): columns FOUND and `similarity`, the cosine from -1 to 1,
        falling.

        Args:
            where: a predicate that every row fulfils (see filters); of `k` rows that fulfil it all are found.
            keep: the same, told by rows.
        """
        self._check_dims(query)

        def fetch(rows: int, predicate: Predicate | None) -> pa.Table:
            search = self._asked.query().nearest_to(query).column("vector").distance_type("cosine").limit(rows)
            if self._approximate:
                # Where few rows fulfil a predicate, the nearest partitions may hold none: go on until enough are found.
                search = search.maximum_nprobes(0 if predicate else NPROBES).minimum_nprobes(NPROBES)
                search = search.refine_factor(REFINE)
            return _rows(_filtered(search, predicate).select([*FOUND, "_distance"]))

        with translated(self._folder):
            found = _fitting(fetch, k, where, keep)
        similarity = np.clip(1.0 - found.column("_distance").to_numpy(), -1.0, 1.0)
        return found.drop_columns(["_distance"]).append_column("similarity", pa.array(similarity, pa.float32()))

    def text(
        self, query: str, k: int, where: Predicate | None = None, near: Vectors | None = None, keep: Keep | None = None
    ) -> pa.Table:
        """The `k` rows that match the words of `query` best: columns FOUND and `score` (BM25, above 0, no upper
        limit), falling.

        Args:
            query: plain words in any language; nothing in it is syntax.
            where, keep: as for `vector`.
            near: a query vector; adds the column `similarity` (cosine).
        """
        columns = [*FOUND, "_score"]
        if near is not None:
            self._check_dims(near)
            columns.append("vector")

        def fetch(rows: int, predicate: Predicate | None) -> pa.Table:
            search = self._asked.query().nearest_to_text(_match(query)).limit(rows)
            return _rows(_filtered(search, predicate).select(columns))

        with translated(self._folder):
            found = _fitting(fetch, k, where, keep)
        found = found.rename_columns(["score" if name == "_score" else name for name in found.column_names])
        return found if near is None else _with_similarity(found, near)

    def get(self, chunk_ids: Sequence[str]) -> pa.Table:
        """The rows of these chunks with columns FOUND, in no order; absent ones are left out."""
        with translated(self._folder):
            found: pa.Table = self._table.search(None).where(any_of(chunk_ids)).select(list(FOUND)).to_arrow()
        return found

    def rows(self, columns: Sequence[str], where: Predicate | None = None) -> pa.Table:
        """These columns of every row that fulfils `where`, all in memory, in no order."""
        with translated(self._folder):
            found: pa.Table = _filtered(self._table.search(None), where).select(list(columns)).to_arrow()
        return found

    def _check_dims(self, query: Vectors) -> None:
        if query.shape != (self.dims,):
            raise errors.IndexMismatch(
                f"The question's vector has shape {query.shape}, the index {self.dims} dimensions.",
                "Ask with the model that built the index, or index into another collection.",
            )


def connect(folder: Path) -> Any:
    preload()
    import lancedb

    return lancedb.connect(folder)


def is_published(folder: Path, name: str, version: int = 0) -> bool:
    """Whether a reader finds this version of the table (0: the tagged one): a look at names, without LanceDB."""
    path = folder / f"{name}.lance"
    if version:
        return lance_disk.has_version(path, version)
    return exists(path) and lance_disk.tag_file(path, LIVE).exists()


def exists(path: Path) -> bool:
    return bool(list((path / "_versions").glob("*.manifest")))


def _rows(search: Any) -> pa.Table:
    from lancedb import background_loop

    loop: Any = background_loop.LOOP
    found: pa.Table = loop.run(search.to_arrow())
    return found


def _filtered(search: Any, predicate: Predicate | None) -> Any:
    return search.where(predicate) if predicate else search


def _fitting(
    fetch: Callable[[int, Predicate | None], pa.Table], k: int, where: Predicate | None, keep: Keep | None
) -> pa.Table:
    """The first `k` rows that fulfil `where` and are to be kept.

    With `keep`, more rows are fetched, and those that do not belong left out. Where that is not enough, since what
    belongs ranks low, the predicate decides.
    """
    if keep is None:
        return fetch(k, where)
    rows = min(MOST_FETCHED, 2 + math.ceil(2 * k / max(keep.share, 1e-6)))
    found = fetch(rows, where)
    kept = found.filter(keep.mask(found["uri"]))
    if len(kept) >= k or len(found) < rows:
        return kept.slice(0, k)
    return fetch(k, Predicate(f"{where} AND {keep.predicate}") if where else keep.predicate)


def _match(query: str) -> Any:
    from lancedb.query import MatchQuery

    return MatchQuery(lance_rows.fold(query), WORDS.name)  # type: ignore[call-arg]  # pydantic fills in the rest


def words_of(query: str) -> tuple[str, ...]:
    """What a text search looks for, before the index stems it and cuts Chinese and Japanese into words."""
    return tuple(scripts.WORD.findall(lance_rows.fold(query)))


def any_of(chunk_ids: Sequence[str]) -> str:
    return f"chunk_id IN ({', '.join(map(quote, chunk_ids))})" if chunk_ids else "false"


def _with_similarity(found: pa.Table, near: Vectors) -> pa.Table:
    matrix = np.concatenate([lance_rows.matrix(batch) for batch in found.to_batches()] or [near[None, :][:0]])
    norms = np.linalg.norm(matrix, axis=1) * np.linalg.norm(near)
    similarity = np.clip(matrix @ near / norms, -1.0, 1.0)
    return found.drop_columns(["vector"]).append_column("similarity", pa.array(similarity, pa.float32()))


def indices(table: Any) -> dict[str, Any]:
    return {index.columns[0]: index for index in table.list_indices()}


@contextmanager
def translated(folder: Path) -> Iterator[None]:
    """Turn what lancedb and the file system raise into our errors. Lance says everything by RuntimeError, ValueError
    or OSError.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
        said = _RUST_SOURCE.sub("", str(error)).strip().splitlines()
        message = f"{folder}: {said[0] if said else type(error).__name__}"
        if "No space left on device" in str(error):
            raise errors.DiskFull(message, "Free some space and run the same command again.") from error
        raise errors.StoreError(message, "Run it again; if it says the same: `pipeline check --fix`.") from error
