"""What a collection holds now: the live documents, who made their chunks and vectors, and how many of each there are.

Read by every command that asks about a collection; writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import config, ids
from pipeline.models import EmbedderSpec
from pipeline.report import Failure
from pipeline.stages import embed
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection, Snapshot, VectorLog

Live = Mapping[str, frozenset[str]]  # shard → its live doc_ids
_Row = Mapping[str, Any]


def of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, frozenset[str]]:
    """The live documents of rows of schema.SNAPSHOT, in their order."""
    shards: dict[str, set[str]] = {}
    for row in rows:
        if row["shard"] is not None and row["doc_id"] is not None:
            shards.setdefault(row["shard"], set()).add(row["doc_id"])
    return {shard: frozenset(docs) for shard, docs in shards.items()}


def of_snapshot(snapshot: Snapshot | None) -> dict[str, frozenset[str]]:
    """The live documents of a snapshot, in the order of its files."""
    return of_rows(snapshot.table.select(["shard", "doc_id"]).to_pylist()) if snapshot is not None else {}


def hash_of(live: Live) -> str:
    return ids.live_hash((shard, doc) for shard, docs in live.items() for doc in docs)


def chunk_params(settings: config.Settings, spec: EmbedderSpec) -> ChunkParams:
    """The chunk stage's parameters for a model: its limit, tokenizer and template with the user's sizes."""
    return ChunkParams(
        size=settings.chunk.size,
        max=settings.chunk.max,
        limit=spec.limit,
        context=settings.chunk.context,
        document_template=spec.document_template,
        tokenizer=spec.tokenizer,
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


def count(collection: Collection, settings: config.Settings, spec: EmbedderSpec | None, live: Live) -> Counts:
    """Count what is there; from the last publication's note where nothing has changed since."""
    documents = sum(len(docs) for docs in live.values())
    if spec is None:
        return Counts(documents=documents, chunks=0, vectors=0, unchunked=documents)
    chunks_fp, published = chunk_params(settings, spec).fingerprint(), collection.published()
    if published is not None and (published.live, published.chunks_fp, published.vectors_fp) == (
        hash_of(live),
        chunks_fp,
        vectors_fp(spec),
    ):
        return Counts(documents=documents, chunks=published.chunks, vectors=published.rows, unchunked=0)
    return _count(collection, chunks_fp, vector_log(collection, spec), live)


def _count(collection: Collection, chunks_fp: str, log: VectorLog, live: Live) -> Counts:
    chunks = vectors = unchunked = 0
    for shard, docs in live.items():
        if not collection.has_chunks(chunks_fp, shard):
            unchunked += len(docs)
            continue
        table = collection.read_chunks(chunks_fp, shard, ["doc_id", "embed_key"])
        keys = [row["embed_key"] for row in table.to_pylist() if row["doc_id"] in docs]
        chunks += len(keys)
        vectors += int(log.contains(keys).sum())
    documents = sum(len(docs) for docs in live.values())
    return Counts(documents=documents, chunks=chunks, vectors=vectors, unchunked=unchunked)


def open_failures(
    collection: Collection, settings: config.Settings, spec: EmbedderSpec | None, snapshot: Snapshot | None
) -> list[dict[str, str]]:
    """What could not be read or embedded and still is wanted: rows of schema.REJECTS, the newest of each input."""
    if snapshot is None:
        return []
    newest = {(row["stage"], row["uri"], row["key"]): row for row in collection.rejects().to_pylist()}
    files = {row["uri"]: row for row in snapshot.table.to_pylist()}
    found = ((files[row["uri"]], row) for _, row in sorted(newest.items()) if row["uri"] in files)
    return [row for file, row in found if _stands(collection, settings, spec, file, row)]


def _stands(
    collection: Collection, settings: config.Settings, spec: EmbedderSpec | None, file: _Row, row: _Row
) -> bool:
    """Whether a reject is about what the live file still holds, and was not mended since."""
    if row["stage"] == "ingest":
        return (file["status"], file["content_hash"]) == (row["kind"], row["key"])
    if spec is None:
        return False
    if row["stage"] == "chunk":
        return _lacks_chunks(collection, chunk_params(settings, spec).fingerprint(), file, row)
    return _lacks_vector(collection, settings, spec, file, row["key"])


def _lacks_chunks(collection: Collection, chunks_fp: str, file: _Row, row: _Row) -> bool:
    if (file["doc_id"], chunks_fp) != (row["key"], row["made_by"]) or not collection.has_chunks(
        chunks_fp, file["shard"]
    ):
        return False
    return file["doc_id"] not in collection.read_chunks(chunks_fp, file["shard"], ["doc_id"])["doc_id"].to_pylist()


def _lacks_vector(collection: Collection, settings: config.Settings, spec: EmbedderSpec, file: _Row, key: str) -> bool:
    chunks_fp, shard = chunk_params(settings, spec).fingerprint(), file["shard"]
    if shard is None or not collection.has_chunks(chunks_fp, shard):
        return False
    table = collection.read_chunks(chunks_fp, shard, ["doc_id", "embed_key"])
    wanted = any(row["embed_key"] == key and row["doc_id"] == file["doc_id"] for row in table.to_pylist())
    return wanted and not bool(vector_log(collection, spec).contains([key])[0])


def failures(
    collection: Collection, settings: config.Settings, spec: EmbedderSpec | None, snapshot: Snapshot | None
) -> tuple[Failure, ...]:
    """What could not be read or embedded and still is wanted."""
    rows = open_failures(collection, settings, spec, snapshot)
    return tuple(Failure(uri=row["uri"], stage=row["stage"], kind=row["kind"], reason=row["reason"]) for row in rows)


def rejected_keys(collection: Collection, made_by: str) -> frozenset[str]:
    """Keys that the embedder `made_by` refused before: not tried again until asked."""
    table = collection.rejects().select(["stage", "key", "made_by"])
    return frozenset(row["key"] for row in table.to_pylist() if row["stage"] == "embed" and row["made_by"] == made_by)
