"""What a run did, put together from the store and from what its stages returned."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipeline import config, embedding, live, publish
from pipeline.models import EmbedderSpec
from pipeline.report import Report
from pipeline.store import Collection

STAGES = ("ingest", "chunk", "embed", "index")


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What is known only while a run goes on: gathered by it, read once at its end. Times are in seconds."""

    stages: frozenset[str]
    began: float = field(default_factory=time.monotonic)
    spec: EmbedderSpec | None = None
    fates: dict[str, int] = field(default_factory=dict)
    embedding: embedding.Embedding = field(default_factory=embedding.Embedding)
    embed_seconds: float = 0.0
    publication: publish.Publication | None = None
    notes: list[str] = field(default_factory=list)


def build(collection: Collection, settings: config.Settings, outcome: Outcome) -> Report:
    done, publication = outcome.embedding, outcome.publication
    spec = outcome.spec or collection.embedder()
    snapshot = collection.snapshot()
    counts = live.count(collection, settings, spec, live.of_snapshot(snapshot))
    failures = live.failures(collection, settings, spec, snapshot)
    return Report(
        collection=collection.name,
        stages=tuple(stage for stage in STAGES if stage in outcome.stages),
        provider=spec.provider if spec else "",
        model=spec.model if spec else "",
        dims=spec.dims if spec else 0,
        files=outcome.fates,
        documents=counts.documents,
        chunks=counts.chunks,
        vectors=counts.vectors,
        rows_added=publication.added if publication else 0,
        rows_deleted=publication.deleted if publication else 0,
        embedded_texts=done.texts,
        embedded_tokens=done.tokens,
        embed_seconds=outcome.embed_seconds if done.texts else 0.0,
        reused=max(0, counts.vectors - done.texts) if "embed" in outcome.stages else 0,
        rejects=len(failures),
        seconds=time.monotonic() - outcome.began,
        snapshot=snapshot.number if snapshot else 0,
        notes=tuple(outcome.notes),
        failures=failures,
    )
