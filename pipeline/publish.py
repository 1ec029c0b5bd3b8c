"""Make the search table what the live documents say, and publish it: the index stage over a collection.

Running it twice does nothing the second time: the note of the last publication is compared first, then ids, and only a
difference is applied (delete + add by the one writer); readers see it when the tag has moved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import config, lance, live, schema
from pipeline.models import EmbedderSpec, Storage, canary
from pipeline.progress import Progress
from pipeline.stages import index as stage
from pipeline.store import Collection, Published, VectorLog


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What was published: the note of it, rows added and deleted, and whether anything had to be done."""

    note: Published
    added: int = 0
    deleted: int = 0
    changed: bool = True


class _Wanted:
    """The rows that the table should hold, shard by shard; only their ids and hashes are kept (32 bytes a row)."""

    def __init__(
        self, collection: Collection, chunks_fp: str, vectors: VectorLog, live_: live.Live, storage: Storage
    ) -> None:
        self._storage = storage
        self._collection = collection
        self._chunks_fp = chunks_fp
        self._vectors = vectors
        self._live = live_
        self.chunks = 0
        self._pairs = {shard: pairs for shard in live_ if (pairs := self._look(shard)) is not None}

    def _look(self, shard: str) -> stage.Pairs | None:
        """Pairs of the shard's rows; None where it has not been chunked yet."""
        if not self._collection.has_chunks(self._chunks_fp, shard):
            return None
        rows = self._rows(shard, self._collection.read_chunks(self._chunks_fp, shard, stage.CHUNK_COLUMNS))
        self.chunks += len(rows.keys)
        rows = rows.where(self._vectors.contains(rows.keys))
        return stage.pairs(rows.chunk_ids, rows.hashes)

    def _documents(self, shard: str) -> pa.Table:
        table = self._collection.read_documents(shard, stage.DOCUMENT_COLUMNS)
        mask = np.array([doc in self._live[shard] for doc in schema.strings(table["doc_id"])], dtype=bool)
        return table.filter(pa.array(mask))

    def _rows(self, shard: str, chunks: pa.Table) -> stage.Rows:
        return stage.wanted(self._documents(shard), chunks.select(list(stage.CHUNK_COLUMNS)))

    def pairs(self) -> stage.Pairs:
        return np.concatenate([np.empty(0, dtype="S32"), *self._pairs.values()])

    def batches(self, add: stage.Pairs, progress: Progress) -> Iterator[pa.RecordBatch]:
        """The rows of `add`, with their vectors, in the order of the shards."""
        for shard, pairs in self._pairs.items():
            if np.isin(pairs, add).any():
                table = self._table(shard, add)
                progress.advance("rows", table.num_rows)
                yield from table.to_batches()

    def _table(self, shard: str, add: stage.Pairs) -> pa.Table:
        chunks = self._collection.read_chunks(self._chunks_fp, shard)
        rows = self._rows(shard, chunks)
        mask: NDArray[np.bool_] = np.isin(stage.pairs(rows.chunk_ids, rows.hashes), add)
        mask &= self._vectors.contains(rows.keys)
        rows = rows.where(mask)
        return stage.rows(self._documents(shard), chunks, rows, self._vectors.take(rows.keys), self._storage)


def publish(
    collection: Collection,
    settings: config.Settings,
    spec: EmbedderSpec,
    live_: live.Live,
    progress: Progress,
    *,
    anew: bool = False,
) -> Publication:
    """Bring the table of `spec` to what `live_` says and move the tag.

    Args:
        anew: compare in any case (a retry may have made chunks that the note does not count).

    Raises:
        IndexMismatch, ModelMismatch: the table was made otherwise. StoreError: the disk refused.
    """
    chunks_fp, last = live.chunk_params(settings, spec).fingerprint(), collection.published()
    live_hash, vectors_fp = live.hash_of(live_), live.vectors_fp(spec)
    if (
        not anew
        and last is not None
        and (last.live, last.chunks_fp, last.vectors_fp) == (live_hash, chunks_fp, vectors_fp)
        and last.rows == last.chunks
    ):
        return Publication(note=last, changed=False)
    vectors = live.vector_log(collection, spec)
    wanted = _Wanted(collection, chunks_fp, vectors, live_, spec.storage)
    pairs = wanted.pairs()
    table = _open(collection, spec, vectors)
    actual = table.rows()
    there = stage.pairs(schema.strings(actual["chunk_id"]), schema.strings(actual["row_hash"]))
    difference = stage.difference(pairs, there)
    _apply(table, difference, wanted, progress, spec)
    table.finish(vector_index_from=settings.index.vector_index_from)
    note = Published(
        live=live_hash,
        chunks_fp=chunks_fp,
        vectors_fp=vectors_fp,
        documents=sum(len(docs) for docs in live_.values()),
        chunks=wanted.chunks,
        rows=len(pairs),
    )
    collection.set_published(note)
    changed = bool(difference.delete) or len(difference.add) > 0
    return Publication(note=note, added=len(difference.add), deleted=len(difference.delete), changed=changed)


def _open(collection: Collection, spec: EmbedderSpec, vectors: VectorLog) -> lance.Table:
    """The table of `spec`, seen to belong to the vectors: rows that stay in it were made by the same model."""
    known = "".join(vectors.recorded("canary")[:1])  # one of a log stands for all: embedding sees to that
    record = live.record(spec) | {"server_version": ", ".join(vectors.recorded("server_version")), "canary": known}
    table = lance.Table.open(
        collection.index_folder,
        live.table_name(spec),
        spec.dims,
        live.provenance(spec),
        record=record,
        storage=spec.storage,
    )
    if known:
        canary.check_canary(table.provenance.get("canary", ""), known)
    return table


def _apply(
    table: lance.Table, difference: stage.Difference, wanted: _Wanted, progress: Progress, spec: EmbedderSpec
) -> None:
    progress.start("rows", len(difference.add), "row")
    if difference.delete:
        table.delete(difference.delete)
    if len(difference.add):
        batches = wanted.batches(difference.add, progress)
        layout = lance.index_schema(spec.dims, spec.storage)
        table.add(pa.RecordBatchReader.from_batches(layout, batches))
    progress.finish("rows")
