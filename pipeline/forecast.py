"""What work would cost: the chunks that would be embedded, counted by really cutting them, and the time that takes by
what this machine did before. Writes nothing; knows neither folders nor commands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import errors, executor, live
from pipeline.executor import Context
from pipeline.models import EmbedderSpec
from pipeline.models import tokens as tokenizers
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection, VectorLog

HISTORY = 20  # reports looked at for a rate


@dataclass(slots=True, kw_only=True)
class Cost:
    """Chunks looked at, how many of them have their vector, and the tokens of each text (by key) that lacks one."""

    vectors: VectorLog | None
    chunks: int = 0
    surviving: int = 0
    tokens: dict[str, int] = field(default_factory=dict)

    def add(self, chunks: Iterable[tuple[str, int]]) -> None:
        """Add chunks by key and tokens."""
        pairs = list(chunks)
        keys = [key for key, _ in pairs]
        there = self.vectors.contains(keys).tolist() if self.vectors is not None and keys else [False] * len(keys)
        self.chunks += len(pairs)
        self.surviving += sum(there)
        self.tokens |= {key: count for (key, count), has in zip(pairs, there, strict=True) if not has}


def add_cut(
    collection: Collection, chunks_fp: str, shards: Mapping[str, frozenset[str]], cost: Cost
) -> dict[str, frozenset[str]]:
    """Add the chunks of documents that were cut before, by shard; returns the others."""
    uncut = {shard: docs for shard, docs in shards.items() if not collection.has_chunks(chunks_fp, shard)}
    for shard, docs in shards.items():
        if shard not in uncut:
            table = collection.read_chunks(chunks_fp, shard, ["doc_id", "embed_key", "tokens"])
            cost.add((row["embed_key"], row["tokens"]) for row in table.to_pylist() if row["doc_id"] in docs)
    return uncut


async def add_documents(
    context: Context, params: ChunkParams, tokenizer: Path | None, shards: Mapping[str, frozenset[str]], cost: Cost
) -> int:
    """Add the chunks of documents that were read before, by shard; returns how many of them had to be cut for this."""
    uncut = add_cut(context.collection, params.fingerprint(), shards, cost)

    def submit(shard: str) -> asyncio.Future[tuple[tuple[str, int], ...]]:
        timeout_s = context.settings.chunk.timeout_s
        words = (context.collection, shard, uncut[shard], params, tokenizer)
        return asyncio.wrap_future(context.pool.submit("pipeline.tasks:preview_shard", *words, timeout_s=timeout_s))

    context.progress.start("chunks", None, "chunk")
    async with aclosing(executor.ordered(uncut, submit)) as results:
        async for shard, found in results:
            if isinstance(found, errors.WorkerError):
                context.progress.message(f"Some documents (shard {shard}) cannot be cut: {found.message}")
                continue
            context.progress.advance("chunks", len(found))
            cost.add(found)
    context.progress.finish("chunks")
    return sum(map(len, uncut.values()))


def tokenizer_of(collection: Collection, spec: EmbedderSpec) -> Path | None:
    """The tokenizer that is there already, None for one of the program's own.

    Raises:
        UsageError: a new collection's model needs one that only a run would keep.
    """
    path = live.tokenizer_path(collection, spec) if collection.exists else None
    if path is None and spec.tokenizer not in (tokenizers.builtin().identity, tokenizers.conservative().identity):
        raise errors.UsageError(
            f"The tokens of {spec.model} cannot be counted before its tokenizer is kept.",
            "Run `pipeline ingest DOCS` and `pipeline chunk` first: they embed nothing.",
        )
    return path


class _PastRun(msgspec.Struct):
    provider: str = ""
    model: str = ""
    embedded_tokens: int = 0
    embed_seconds: float = 0.0


def seconds(collection: Collection, spec: EmbedderSpec, tokens: int) -> float | None:
    """Seconds to embed `tokens`, by the rate of past runs here with this model; None where there were none."""
    past = collection.runs.past(HISTORY, _PastRun)
    alike = [p for p in past if (p.provider, p.model) == (spec.provider, spec.model) and p.embedded_tokens]
    spent = sum(p.embed_seconds for p in alike)
    return tokens * spent / sum(p.embedded_tokens for p in alike) if spent else None
