"""Put the live documents of worn-out shards into new ones: shards of which most rows are dead, and the small ones that
a year of nights leaves.

Write-once holds: new shards and their chunk files first (their rows copied, nothing cut or embedded again), then a new
snapshot that names them, then its publication, which changes no row of the index. The old shards are garbage when the
last snapshot that names them is dropped. Killed anywhere, what is on disk is a whole collection, and doing it again
makes the same names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import config, ids, live, publish, schema
from pipeline.models import EmbedderSpec
from pipeline.progress import Progress
from pipeline.stages import ingest
from pipeline.store import Collection, Snapshot
from pipeline.store.inventory import Inventory

DEAD = 0.5  # share of dead documents from which a shard is worn out
SMALL_BYTES = 64 * 1024  # of a file; a full shard of English text takes some 200 kB
WORTH_FILES = 8  # as many files fewer, or
WORTH_SHARE = 0.2  # so much of the documents' bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Worn:
    """A shard to be emptied: its file's size, and which of its documents are live."""

    shard: str
    bytes: int
    docs: frozenset[str]
    share: float  # of its documents that are live


@dataclass(slots=True, kw_only=True)
class Repacked:
    """What was done: shards made, documents that moved."""

    made: int = 0
    moved: dict[str, str] = field(default_factory=dict)  # doc_id → new shard


def worn(collection: Collection, snapshot: Snapshot) -> list[Worn]:
    """The shards that are worth emptying now, in their order; none where little would come of it."""
    sizes = {name: path.stat().st_size for name, path in Inventory(collection).documents().items()}
    found = [_look(collection, shard, docs, sizes[shard]) for shard, docs in live.of_snapshot(snapshot).items()]
    candidates = [one for one in found if one.share < DEAD or one.bytes * one.share < SMALL_BYTES]
    alive = sum(one.bytes * one.share for one in candidates)
    fewer = len(candidates) - int(alive // (SMALL_BYTES * 2)) - 1
    freed = sum(one.bytes for one in candidates) - alive
    worth = fewer >= WORTH_FILES or freed >= WORTH_SHARE * sum(sizes.values())
    return candidates if worth and candidates else []


def _look(collection: Collection, shard: str, docs: frozenset[str], size: int) -> Worn:
    count = collection.read_documents(shard, ["doc_id"]).num_rows
    return Worn(shard=shard, bytes=size, docs=docs, share=len(docs) / max(1, count))


def ready(collection: Collection, settings: config.Settings, snapshot: Snapshot, spec: EmbedderSpec) -> bool:
    """Whether the newest snapshot is published whole with these settings: only then is nothing else under way."""
    return live.is_complete(collection, settings, spec, live.of_snapshot(snapshot))


def repack(
    collection: Collection, settings: config.Settings, snapshot: Snapshot, shards: Sequence[Worn], progress: Progress
) -> Repacked:
    """Empty `shards`; ask `ready` first. Embeds nothing.

    Raises:
        StoreError: the disk refused; nothing is lost then.
    """
    done = Repacked()
    chunkings = [fp for fp, there in Inventory(collection).chunkings().items() if all(w.shard in there for w in shards)]
    for group in _groups(collection, shards):
        name = ids.shard_name(schema.strings(group.documents["doc_hash"]))
        for chunks_fp in chunkings:
            if not collection.has_chunks(chunks_fp, name):
                collection.write_chunks(chunks_fp, name, _chunks(collection, chunks_fp, group))
        collection.write_documents(name, group.documents)
        done.moved |= dict.fromkeys(schema.strings(group.documents["doc_id"]), name)
        done.made += 1
    collection.write_again(snapshot, _renamed(snapshot.table, done.moved))
    spec = collection.embedder()
    assert spec is not None
    publish.publish(collection, settings, spec, live.of_snapshot(collection.snapshot()), progress)
    return done


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """What one new shard will hold, and from which shards it comes."""

    documents: pa.Table
    sources: Mapping[str, frozenset[str]]


def _groups(collection: Collection, shards: Sequence[Worn]) -> Iterator[_Group]:
    """Documents in order, cut as ingest cuts: by the bytes of their text."""
    tables: list[pa.Table] = []
    sources: dict[str, set[str]] = {}
    size = 0
    for one in shards:
        for row in _live_rows(collection, one):
            tables.append(row)
            sources.setdefault(one.shard, set()).add(str(row["doc_id"][0].as_py()))
            size += int(pc.binary_length(row["text"]).to_pylist()[0] or 0)
            if size >= ingest.SHARD_BYTES:
                yield _group(tables, sources)
                tables, sources, size = [], {}, 0
    if tables:
        yield _group(tables, sources)


def _group(tables: list[pa.Table], sources: Mapping[str, Iterable[str]]) -> _Group:
    return _Group(
        documents=pa.concat_tables(tables).combine_chunks(),
        sources={shard: frozenset(docs) for shard, docs in sources.items()},
    )


def _live_rows(collection: Collection, one: Worn) -> Iterator[pa.Table]:
    table = collection.read_documents(one.shard)
    for at, doc in enumerate(schema.strings(table["doc_id"])):
        if doc in one.docs:
            yield table.slice(at, 1)


def _chunks(collection: Collection, chunks_fp: str, group: _Group) -> pa.Table:
    """The chunk rows of a new shard: those of its documents, in their order."""
    tables = []
    for shard, docs in group.sources.items():
        table = collection.read_chunks(chunks_fp, shard)
        tables.append(table.filter(pc.is_in(table["doc_id"], pa.array(sorted(docs), pa.string()))))
    return pa.concat_tables(tables).combine_chunks()


def _renamed(table: pa.Table, moved: Mapping[str, str]) -> pa.Table:
    """The snapshot with the new shards' names."""
    docs, shards = table["doc_id"].to_pylist(), table["shard"].to_pylist()
    names = [moved.get(str(doc), shard) for doc, shard in zip(docs, shards, strict=True)]
    at = table.schema.get_field_index("shard")
    return table.set_column(at, table.schema.field(at), pa.array(names, pa.string()))
