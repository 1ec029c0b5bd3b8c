"""Make the search table what a snapshot says, and publish it: the index stage over a collection.

Running it twice does nothing the second time: the note of the last publication is compared first, then ids, and only a
difference is applied (delete + add by the one writer). The next state is built beside the one that readers see; the one
write that shows it to them is the note in published/, which names snapshot, embedder, table and version together:

| killed | readers see | repaired by |
|---|---|---|
| before the tag moves | what they saw | the next publication compares again |
| after the tag, before the note | what they saw: a note names a version | the same; it finds nothing to change |
| after the note | the new state, whole | – (old versions are freed by the next one) |
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import config, errors, kept, lance, live, schema
from pipeline.models import EmbedderSpec, Storage, canary
from pipeline.progress import Progress
from pipeline.stages import index as stage
from pipeline.store import Collection, Published, Snapshot, VectorLog

Check = Callable[[lance.Reader], None]  # of what is about to be published; raises to refuse it


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What was published: the note of it, rows added and deleted, and whether anything had to be done."""

    note: Published
    added: int = 0
    deleted: int = 0
    changed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is to be published: the live documents of a snapshot, cut as `chunks_fp` and embedded by `spec`."""

    snapshot: int
    live: live.Live
    chunks_fp: str
    spec: EmbedderSpec

    @classmethod
    def of(cls, snapshot: Snapshot, chunks_fp: str, spec: EmbedderSpec) -> Target:
        return cls(snapshot=snapshot.number, live=live.of_snapshot(snapshot), chunks_fp=chunks_fp, spec=spec)

    def is_shown_by(self, note: Published) -> bool:
        """Whether `note` says that just this is published, though perhaps of another snapshot."""
        return (self.live.hash, self.chunks_fp, self.spec) == (note.live, note.chunks_fp, note.spec)


class _Wanted:
    """The rows of `target` that the table should hold, shard by shard; only ids and hashes are kept (32 bytes a row).

    A document is published whole or not at all: while a chunk of it lacks its vector (and was not given up), what the
    table holds under its uri is left alone, its last version or nothing. Those uris are `held`; `left` counts the rows.
    """

    def __init__(self, collection: Collection, target: Target, vectors: VectorLog) -> None:
        self._storage: Storage = target.spec.storage
        self._collection = collection
        self._chunks_fp = target.chunks_fp
        self._vectors = vectors
        self._live = target.live
        self._target = target
        self.chunks = 0
        self.held: set[str] = set()
        self.left = 0
        self.standing = 0  # rows of documents that need not be compared
        self._pairs = {shard: pairs for shard in target.live if (pairs := self._look(shard)) is not None}
        self.rows = sum(map(len, self._pairs.values()))

    def _look(self, shard: str) -> stage.Pairs | None:
        """Pairs of the shard's rows; None where it has not been chunked yet."""
        if not self._collection.has_chunks(self._chunks_fp, shard):
            self.held |= set(schema.strings(self._documents(shard)["uri"]))
            return None
        chunks = self._collection.read_chunks(self._chunks_fp, shard, stage.CHUNK_COLUMNS)
        rows = self._rows(shard, chunks)
        self.chunks += len(rows.keys)
        there = self._vectors.contains(rows.keys)
        if not there.all():
            there &= self._whole(shard, rows, schema.strings(chunks["doc_id"]), there)
        rows = rows.where(there)
        return stage.pairs(rows.chunk_ids, rows.hashes)

    def _whole(self, shard: str, rows: stage.Rows, docs: list[str], there: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which rows belong to documents that wait for no vector; the uris of the others are held."""
        of = [docs[position] for position in rows.positions]
        waiting = {
            doc
            for doc, key, found in zip(of, rows.keys, there.tolist(), strict=True)
            if not found and key not in self._given_up
        }
        self.held |= {row["uri"] for row in self._documents(shard).to_pylist() if row["doc_id"] in waiting}
        return np.array([doc not in waiting for doc in of], dtype=bool)

    @functools.cached_property
    def _given_up(self) -> frozenset[str]:
        return live.given_up(self._collection, self._target.spec)

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
    check: Check | None = None,
) -> Publication:
    """Publish the newest snapshot, whose live documents are `live_`: see `publish_target`."""
    target = Target(
        snapshot=max(collection.snapshots(), default=0),
        live=live_,
        chunks_fp=live.chunk_params(settings, spec).fingerprint(),
        spec=spec,
    )
    return publish_target(collection, settings, target, progress, anew=anew, check=check)


def publish_target(
    collection: Collection,
    settings: config.Settings,
    target: Target,
    progress: Progress,
    *,
    anew: bool = False,
    check: Check | None = None,
    rollback_of: int = 0,
) -> Publication:
    """Bring the table to what `target` says, and show it to readers in one write.

    Args:
        anew: compare in any case (a retry may have made chunks that the note does not count).
        check: looks at the new state before anybody else does; what it raises leaves readers where they are.

    Raises:
        IndexMismatch, ModelMismatch: the table was made otherwise. StoreError: the disk refused.
        CorruptStore: the table does not hold the rows that were put into it.
    """
    last = collection.published()
    if not anew and last is not None and _stands(collection, target, last):
        return Publication(note=last, changed=False)
    vectors = live.vector_log(collection, target.spec)
    table = _open(collection, target.spec, vectors)
    news = None if anew or last is None else _news(collection, target, last, table)
    wanted = _Wanted(collection, target if news is None else dataclasses.replace(target, live=news.added), vectors)
    difference = _apply(table, wanted, progress, target.spec, news)
    table.prepare(vector_index_from=settings.index.vector_index_from)
    _count(table, wanted)
    if check is not None:
        check(table.reader())
    note = _note(collection, target, wanted, table.publish().version)
    params = live.chunk_params(settings, target.spec)
    if params.fingerprint() == target.chunks_fp:  # an older snapshot may have been cut otherwise
        note = dataclasses.replace(note, chunking=dataclasses.asdict(params))
    if rollback_of:
        note = dataclasses.replace(note, rollback_of=rollback_of)
    collection.set_published(note)
    _tidy(collection, settings, table, note)
    changed = bool(difference.delete) or len(difference.add) > 0
    return Publication(note=note, added=len(difference.add), deleted=len(difference.delete), changed=changed)


def _stands(collection: Collection, target: Target, last: Published) -> bool:
    """Whether the last publication shows all of `target`, and is still there."""
    return (
        target.is_shown_by(last)
        and last.is_whole
        and lance.is_published(collection.index_folder, live.table_name(target.spec), last.version)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _News:
    """Documents that differ from those of the last publication: what is live now, and every one that is or was.

    The rest of the table is known to be right: nothing has been written to it since it was published whole, and it was
    counted then. So a night costs what changed, not what is there; `check` compares all of it.
    """

    added: live.Live
    touched: list[str]


def _news(collection: Collection, target: Target, last: Published, table: lance.Table) -> _News | None:
    """What to compare; None: everything, since the table may not be what `last` says."""
    before = collection.snapshot(last.snapshot)
    made = (last.chunks_fp, last.spec) == (target.chunks_fp, target.spec)
    if before is None or not last.is_whole or not made or (table.version, table.count()) != (last.version, last.rows):
        return None
    then = live.of_snapshot(before)
    if then.hash != last.live:
        return None
    added = target.live.without(then)
    touched = [*added.names, *then.without(target.live).names]
    return _News(added=added, touched=touched)


def _count(table: lance.Table, wanted: _Wanted) -> None:
    found, expected = table.count(), wanted.standing + wanted.rows + wanted.left
    if found != expected:
        raise errors.CorruptStore(
            f"The new index holds {found} rows instead of {expected}; nothing was published.",
            "Run the same command again: it compares row by row.",
        )


def _note(collection: Collection, target: Target, wanted: _Wanted, version: int) -> Published:
    snapshot = _numbered(collection, target)
    earlier = [note for _, note in collection.publications.all() if note.snapshot == snapshot]
    return Published(
        live=target.live.hash,
        chunks_fp=target.chunks_fp,
        vectors_fp=live.vectors_fp(target.spec),
        documents=target.live.documents,
        chunks=wanted.standing + wanted.chunks,
        rows=wanted.standing + wanted.rows,
        snapshot=snapshot,
        version=version,
        at_ms=time.time_ns() // 1_000_000,
        spec=target.spec,
        rollback_of=earlier[-1].rollback_of if earlier else 0,
        held=len(wanted.held),
        left=wanted.left,
    )


def _numbered(collection: Collection, target: Target) -> int:
    """The number to publish under: the snapshot's own if it is the newest, and was not published otherwise before.

    Else a copy is written, so that a number means one thing for ever and the newest snapshot is what should be
    searchable.
    """
    mine = (target.chunks_fp, live.vectors_fp(target.spec))
    earlier = [note for _, note in collection.publications.all() if note.snapshot == target.snapshot]
    same = all((note.chunks_fp, note.vectors_fp) == mine for note in earlier)
    newest = max(collection.snapshots(), default=0)
    found = collection.snapshot(target.snapshot)
    if found is None or (target.snapshot == newest and same):
        return target.snapshot
    return collection.write_again(found)


def _tidy(collection: Collection, settings: config.Settings, table: lance.Table, note: Published) -> None:
    """Free what no reader can be on, and forget what is no longer kept."""
    hours = settings.index.keep_versions_h
    if oldest := kept.oldest_version(collection, note.vectors_fp, hours):
        table.clean(oldest)
    kept.trim(collection, settings.run.keep, hours)


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
    table: lance.Table, wanted: _Wanted, progress: Progress, spec: EmbedderSpec, news: _News | None
) -> stage.Difference:
    """Delete and add what differs; returns that."""
    actual = table.rows(*(("uri",) if wanted.held else ()), *(("doc_id",) if news is not None else ()))
    if news is not None:
        touched = actual.filter(pc.is_in(actual["doc_id"], pa.array(news.touched, pa.string())))
        wanted.standing, actual = len(actual) - len(touched), touched
    if wanted.held:
        others = actual.filter(pc.invert(pc.is_in(actual["uri"], pa.array(sorted(wanted.held)))))
        wanted.left, actual = len(actual) - len(others), others
    there = stage.pairs(schema.strings(actual["chunk_id"]), schema.strings(actual["row_hash"]))
    difference = stage.difference(wanted.pairs(), there)
    progress.start("rows", len(difference.add), "row")
    if difference.delete:
        table.delete(difference.delete)
    if len(difference.add):
        batches = wanted.batches(difference.add, progress)
        layout = lance.index_schema(spec.dims, spec.storage)
        table.add(pa.RecordBatchReader.from_batches(layout, batches))
    progress.finish("rows")
    return difference
