"""Run the embed stage over chunk shards: what lacks a vector goes to the engine, what comes back into the vector log.

Vectors are flushed every few seconds, so that a kill loses at most that; the engine (stages.embed) knows nothing of
files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import executor, schema
from pipeline.executor import Context, Names
from pipeline.models import Embedder, EmbedderSpec, Tokenizer
from pipeline.models.templates import embed_text
from pipeline.stages import embed
from pipeline.stages.embed import EngineOptions, Item, Rejected
from pipeline.store import VectorLog

FLUSH_BYTES = 64 << 20  # of vectors, whatever the interval
_COLUMNS = ("doc_id", "text", "context", "title", "tokens", "embed_key")


@dataclass(slots=True, kw_only=True)
class Embedding:
    """What the embed stage did: chunks seen, texts and tokens embedded and stored, rows for the reject log."""

    chunks: int = 0
    texts: int = 0
    tokens: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list)


class Flusher:
    """Collects vectors and writes a part of the log every `interval_s` seconds."""

    def __init__(self, vectors: VectorLog, interval_s: float) -> None:
        self._log = vectors
        self._interval_s = interval_s
        self._keys: list[str] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._bytes = 0
        self._last = time.monotonic()

    def add(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._keys.extend(keys)
        self._vectors.append(vectors)
        self._bytes += vectors.nbytes

    @property
    def due(self) -> bool:
        return self._bytes >= FLUSH_BYTES or time.monotonic() - self._last >= self._interval_s

    def flush(self) -> None:
        """Write what has been collected, if anything."""
        if self._keys:
            self._log.append(self._keys, np.concatenate(self._vectors))
        self._keys, self._vectors, self._bytes = [], [], 0
        self._last = time.monotonic()


@dataclass(frozen=True, slots=True)
class _Sent:
    shard: str
    doc_id: str
    tokens: int


class Source:
    """The texts that the named shards' chunks lack, as an async iterator of the engine's items.

    Args:
        vectors: what is there; skip: keys that were rejected before and are not to be tried again.
    """

    def __init__(
        self, context: Context, spec: EmbedderSpec, vectors: VectorLog, chunks_fp: str, skip: frozenset[str]
    ) -> None:
        self._context = context
        self._spec = spec
        self._vectors = vectors
        self._chunks_fp = chunks_fp
        self._skip = skip
        self._queued: set[bytes] = set()  # packed keys: 50 bytes each where text would take 81
        self.sent: dict[str, _Sent] = {}  # under way
        self.chunks = 0

    async def items(self, names: Names) -> AsyncIterator[Item]:
        while (shard := await names.get()) is not None:
            items = await asyncio.to_thread(self._of_shard, shard)
            self._context.progress.grow("texts", len(items))
            for item in items:
                yield item

    def _of_shard(self, shard: str) -> list[Item]:
        table = self._context.collection.read_chunks(self._chunks_fp, shard, _COLUMNS)
        self.chunks += table.num_rows
        missing = table.filter(~self._vectors.contains(schema.strings(table["embed_key"])))
        return [item for row in missing.to_pylist() if (item := self._item(shard, row)) is not None]

    def _item(self, shard: str, row: dict[str, Any]) -> Item | None:
        key = row["embed_key"]
        packed = bytes.fromhex(key)
        if key in self._skip or packed in self._queued:
            return None
        self._queued.add(packed)
        self.sent[key] = _Sent(shard, row["doc_id"], row["tokens"])
        text = embed_text(row["context"], row["text"], row["title"], self._spec.document_template)
        return Item(key=key, text=text, tokens=row["tokens"])

    def uri(self, sent: _Sent) -> str:
        """The document that a text was sent for."""
        documents = self._context.collection.read_documents(sent.shard, ["doc_id", "uri"])
        names = dict(zip(schema.strings(documents["doc_id"]), schema.strings(documents["uri"]), strict=True))
        return names[sent.doc_id]


async def embed_shards(
    context: Context,
    embedder: Embedder,
    vectors: VectorLog,
    source: Source,
    names: Names,
    made_by: str,
    tokenizer: Tokenizer,
) -> Embedding:
    """Embed until `names` ends with None. `made_by`: for the reject rows; `tokenizer`: the model's."""
    settings = context.settings.embed
    done = Embedding()
    flusher = Flusher(vectors, settings.flush_s)
    options = EngineOptions(batch_texts=settings.batch_texts, batch_tokens=settings.batch_tokens)
    probes = embed.canaries(tokenizer)
    context.progress.start("texts", 0, "text")
    results = embed.embed_stream(source.items(names), embedder, options, canaries=probes)
    try:
        async with aclosing(results):
            async for result in results:
                if isinstance(result, Rejected):
                    _reject(context, source, done, result, made_by)
                    continue
                flusher.add(result.keys, result.vectors)
                _count(context, source, done, result.keys)
                if flusher.due:
                    await asyncio.to_thread(flusher.flush)
    finally:
        flusher.flush()  # not awaited: what has been paid for is kept, also when the run is being cancelled
    done.chunks = source.chunks
    context.progress.finish("texts")
    return done


def _count(context: Context, source: Source, done: Embedding, keys: Sequence[str]) -> None:
    tokens = sum(source.sent.pop(key).tokens for key in keys)
    done.texts += len(keys)
    done.tokens += tokens
    context.progress.advance("texts", len(keys), tokens=tokens)


def _reject(context: Context, source: Source, done: Embedding, result: Rejected, made_by: str) -> None:
    uri = source.uri(source.sent.pop(result.key))
    context.progress.message(f"{uri}: one chunk cannot be embedded: {result.kind}: {result.reason}")
    row = executor.reject("embed", uri, result.key, made_by, result.kind, result.reason)
    context.collection.add_rejects([row])  # at once: a kill must not send a poison text again
    done.rejects.append(row)
