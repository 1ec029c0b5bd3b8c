"""What a collection holds now: the live documents, who made their chunks and vectors, and how many of each there are.

Read by every command that asks about a collection; writes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import config, ids, schema
from pipeline.models import EmbedderSpec
from pipeline.report import Failure
from pipeline.stages import embed, ingest
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection, Published, Snapshot, VectorLog, keys

SAMPLE_SHARDS, SAMPLE_DOCUMENTS, SAMPLE_CHARACTERS = 8, 16, 1_000  # of each the last: so many of one

_Row = Mapping[str, Any]


class Live(Mapping[str, frozenset[str]]):
    """The live documents of a snapshot: shard → its doc_ids, in the order of the files.

    Kept in columns, so that a hundred thousand documents are counted and hashed without a set being made of them.
    """

    def __init__(self, table: pa.Table) -> None:
        """`table`: of schema.SNAPSHOT, no uri twice; two of its columns are kept."""
        self._table = table.select(["shard", "doc_id"]).filter(pc.is_valid(table["doc_id"]))

    @property
    def documents(self) -> int:
        """How many there are."""
        return self._table.num_rows

    @property
    def names(self) -> list[str]:
        """The doc_ids."""
        return schema.strings(self._table["doc_id"])

    def without(self, other: Live) -> Live:
        """What is here and not in `other`."""
        return Live(self._table.filter(pc.invert(pc.is_in(self._pairs, other._pairs))))

    @functools.cached_property
    def _pairs(self) -> Any:
        join: Any = pc.binary_join_element_wise  # its stub does not know that a separator may be one string
        return join(self._table["shard"], self._table["doc_id"], "/")

    @functools.cached_property
    def hash(self) -> str:
        """What is live, as ids.live_hash says it."""
        return ids.live_hash(schema.strings(self._pairs.take(pc.sort_indices(self._pairs))))

    @functools.cached_property
    def _sets(self) -> dict[str, frozenset[str]]:
        shards: dict[str, list[str]] = {}
        for shard, doc in zip(*(schema.strings(self._table[name]) for name in ("shard", "doc_id")), strict=True):
            shards.setdefault(shard, []).append(doc)
        return {shard: frozenset(docs) for shard, docs in shards.items()}

    def __getitem__(self, shard: str) -> frozenset[str]:
        return self._sets[shard]

    @functools.cached_property
    def _shards(self) -> list[str]:
        return schema.strings(pc.unique(self._table["shard"]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._shards)

    def __len__(self) -> int:
        return len(self._shards)


NOTHING = Live(schema.SNAPSHOT.empty_table())


@functools.lru_cache(maxsize=1)
def _of(snapshot: Snapshot) -> Live:
    return Live(snapshot.table)


def of_snapshot(snapshot: Snapshot | None) -> Live:
    """The live documents of a snapshot, in the order of its files. The last answer is remembered: a run asks often."""
    return _of(snapshot) if snapshot is not None else NOTHING


def chunk_params(settings: config.Settings, spec: EmbedderSpec) -> ChunkParams:
    """The chunk stage's parameters for a model: its limit, tokenizer and template with the user's sizes."""
    return ChunkParams(
        size=settings.chunk.size,
        max=settings.chunk.max,
        limit=spec.limit,
        context=settings.chunk.context,
        document_template=spec.document_template,
        tokenizer=spec.tokenizer,
        situated_by=spec.situated_by if settings.chunk.contextual else "",
    )


def provenance(spec: EmbedderSpec) -> dict[str, str]:
    """What decides the vector of a text: stands in every part of the log and in the table, and is compared on opening.

    A digest says who the model is; its name counts only where there is none.
    """
    return {
        "provider": spec.provider,
        **({"digest": spec.digest} if spec.digest else {"model": spec.model}),
        "dims": str(spec.dims),
        "document_template": spec.document_template,
        "storage": spec.storage,
    }


def record(spec: EmbedderSpec) -> dict[str, str]:
    """What stands beside, for whoever asks who made a vector, and is not compared. The server's version and its canary
    (models.canary) join it when the server is asked (embedding.Begin).
    """
    return {"model": spec.model}


def vectors_fp(spec: EmbedderSpec) -> str:
    """The embedding fingerprint: `provenance` in one word."""
    made_by = {
        "provider": spec.provider,
        "model": spec.digest or spec.model,
        "dims": spec.dims,
        "document_template": spec.document_template,
    }
    if spec.storage != "float32":  # older than the choice: its fingerprints stay as they were
        made_by["storage"] = spec.storage
    return ids.fingerprint("embed", embed.VERSION, made_by)


def vector_log(collection: Collection, spec: EmbedderSpec) -> VectorLog:
    return collection.vectors(vectors_fp(spec), spec.dims, provenance(spec), record=record(spec), storage=spec.storage)


def table_name(spec: EmbedderSpec) -> str:
    return f"chunks_{vectors_fp(spec)}"


def tokenizer_path(collection: Collection, spec: EmbedderSpec) -> Path | None:
    """The tokenizer file of the collection's model; None for the packaged one."""
    return collection.tokenizer_file(spec.tokenizer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Live documents, their chunks, and how many of these have their vector."""

    documents: int
    chunks: int
    vectors: int
    unchunked: int  # documents without a chunk file of the present settings


def shown(collection: Collection, settings: config.Settings, spec: EmbedderSpec, live: Live) -> Published | None:
    """The note of the last publication, where it shows these documents, all of them, cut and embedded as `settings` and
    `spec` say; `rows` of its `chunks` had their vector. What was held back may not even be cut: it is in no count.
    """
    note = collection.published()
    if note is None or (note.chunks_fp, note.vectors_fp) != (
        chunk_params(settings, spec).fingerprint(),
        vectors_fp(spec),
    ):
        return None
    return note if note.live == live.hash and not note.held else None


def is_complete(collection: Collection, settings: config.Settings, spec: EmbedderSpec, live: Live) -> bool:
    """Whether all of these documents are chunked, embedded and published, with these settings."""
    note = shown(collection, settings, spec, live)
    return note is not None and note.is_whole


def count(collection: Collection, settings: config.Settings, spec: EmbedderSpec | None, live: Live) -> Counts:
    """Count what is there; from the last publication's note where nothing has changed since."""
    if spec is None:
        return Counts(documents=live.documents, chunks=0, vectors=0, unchunked=live.documents)
    if (published := shown(collection, settings, spec, live)) is not None:
        return Counts(documents=live.documents, chunks=published.chunks, vectors=published.rows, unchunked=0)
    return _count(collection, chunk_params(settings, spec).fingerprint(), vector_log(collection, spec), live)


def sample(collection: Collection, live: Live) -> list[str]:
    """The beginnings of a few dozen documents from all over the collection: enough to tell its language."""
    found: list[str] = []
    for shard in list(live)[:: max(1, len(live) // SAMPLE_SHARDS)][:SAMPLE_SHARDS]:
        table = collection.read_documents(shard, ["doc_id", "text"])
        alive = table.filter(pc.is_in(table["doc_id"], pa.array(live[shard], pa.string())))
        found += schema.strings(pc.utf8_slice_codeunits(alive["text"][:SAMPLE_DOCUMENTS], 0, SAMPLE_CHARACTERS))
    return found


def keys_of(collection: Collection, chunks_fp: str, shard: str, docs: frozenset[str]) -> keys.Keys:
    """The embed keys of the chunks of these documents of a shard, in their order.

    Raises:
        StoreError: the shard is not chunked so, or its file is damaged.
    """
    table = collection.read_chunks(chunks_fp, shard, ["doc_id", "embed_key"])
    return keys.of_column(table.filter(pc.is_in(table["doc_id"], pa.array(docs, pa.string())))["embed_key"])


def _count(collection: Collection, chunks_fp: str, log: VectorLog, live: Live) -> Counts:
    chunks = vectors = unchunked = 0
    for shard, docs in live.items():
        if not collection.has_chunks(chunks_fp, shard):
            unchunked += len(docs)
            continue
        live_keys = keys_of(collection, chunks_fp, shard, docs)
        chunks += len(live_keys)
        vectors += int(log.has(live_keys).sum())
    return Counts(documents=live.documents, chunks=chunks, vectors=vectors, unchunked=unchunked)


def open_failures(
    collection: Collection, settings: config.Settings, spec: EmbedderSpec | None, snapshot: Snapshot | None
) -> list[dict[str, str]]:
    """What could not be read or embedded and still is wanted: rows of schema.REJECTS, the newest of each input."""
    rejects = collection.rejects()
    if snapshot is None or not rejects.num_rows:
        return []
    newest = {(row["stage"], row["uri"], row["key"]): row for row in rejects.to_pylist()}
    named = pc.is_in(snapshot.table["uri"], pc.unique(rejects["uri"]))
    files = {row["uri"]: row for row in snapshot.table.filter(named).to_pylist()}
    standing = _Standing(collection, settings, spec)
    found = ((files[row["uri"]], row) for _, row in sorted(newest.items()) if row["uri"] in files)
    return [row for file, row in found if standing.has(file, row)]


class _Standing:
    """Which rejects are about what a live file still holds, and were not mended since. What it reads, it reads once."""

    def __init__(self, collection: Collection, settings: config.Settings, spec: EmbedderSpec | None) -> None:
        self._collection = collection
        self._spec = spec
        params = chunk_params(settings, spec) if spec is not None else None
        self._chunks_fp = params.fingerprint() if params is not None else ""
        self._cut_by = (self._chunks_fp, params.plain().fingerprint() if params is not None else "")
        self._shards: dict[str, frozenset[tuple[str, str]] | None] = {}

    def has(self, file: _Row, row: _Row) -> bool:
        if row["stage"] == "ingest":
            if row["kind"] == ingest.PAGES:
                return (file["status"], file["content_hash"], file["reader"]) == ("ok", row["key"], row["made_by"])
            return (file["status"], file["content_hash"]) == (row["kind"], row["key"])
        if self._spec is None or file["shard"] is None:
            return False
        chunked = self._chunks(file["shard"])
        if chunked is None:
            return False
        if row["stage"] == "chunk":
            asked = file["doc_id"] == row["key"] and row["made_by"] in self._cut_by
            return asked and not any(doc == file["doc_id"] for doc, _ in chunked)
        return (file["doc_id"], row["key"]) in chunked and not bool(self._log.contains([row["key"]])[0])

    @functools.cached_property
    def _log(self) -> VectorLog:
        assert self._spec is not None
        return vector_log(self._collection, self._spec)

    def _chunks(self, shard: str) -> frozenset[tuple[str, str]] | None:
        """Document and key of each chunk of a shard; None where it is not chunked."""
        if shard not in self._shards:
            self._shards[shard] = self._read(shard) if self._collection.has_chunks(self._chunks_fp, shard) else None
        return self._shards[shard]

    def _read(self, shard: str) -> frozenset[tuple[str, str]]:
        table = self._collection.read_chunks(self._chunks_fp, shard, ["doc_id", "embed_key"])
        return frozenset(zip(schema.strings(table["doc_id"]), schema.strings(table["embed_key"]), strict=True))


def failures(
    collection: Collection, settings: config.Settings, spec: EmbedderSpec | None, snapshot: Snapshot | None
) -> tuple[Failure, ...]:
    """What could not be read or embedded and still is wanted."""
    rows = open_failures(collection, settings, spec, snapshot)
    return tuple(Failure(uri=row["uri"], stage=row["stage"], kind=row["kind"], reason=row["reason"]) for row in rows)


def given_up(collection: Collection, spec: EmbedderSpec) -> frozenset[str]:
    """Keys that some server of this model refused, and that need not be waited for."""
    fingerprint = vectors_fp(spec)
    table = collection.rejects().select(["stage", "key", "made_by"])
    mine = (row for row in table.to_pylist() if row["stage"] == "embed")
    return frozenset(row["key"] for row in mine if row["made_by"].split(" ")[0] == fingerprint)


def rejected_keys(collection: Collection, made_by: str) -> frozenset[str]:
    """Keys that the embedder `made_by` refused before: not tried again until asked."""
    table = collection.rejects().select(["stage", "key", "made_by"])
    return frozenset(row["key"] for row in table.to_pylist() if row["stage"] == "embed" and row["made_by"] == made_by)
