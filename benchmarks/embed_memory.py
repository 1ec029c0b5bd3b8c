"""How much memory the embed stage takes beyond what the program takes anyway, and that it does not grow.

A million texts go from chunk shards on disk through source, engine and flushes into the vector log, and the log is
opened again and compacted as a run does at its end; only the model server is left out: an embedder in this process
answers at once. Vectors are short (8 dimensions) so that a million take a minute; what a long vector needs beside is
that of one flush and of the requests in flight, whatever the number of texts.

    python -m benchmarks.embed_memory [--texts 1000000] [--dims 8]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa

from pipeline import config, embedding, models, readers, schema
from pipeline.executor import Context, Names
from pipeline.models import tokens
from pipeline.progress import Silent
from pipeline.store import Collection, VectorLog
from pipeline.workers import WorkerPool

SHARD = 5_000  # chunks
CHUNKS_FP = "memory"
MIB = 1 << 20


class Instant:
    """An embedder that answers at once, with vectors of unit length that tell its texts apart."""

    def __init__(self, dims: int) -> None:
        self.spec = models.EmbedderSpec(
            provider="builtin", model="instant", digest="d", dims=dims, limit=510, tokenizer=tokens.builtin().identity
        )
        self.limits = models.Limits()

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> models.EmbedReply:
        numbers = np.array([int(text.rpartition(" ")[2]) if text[-1].isdigit() else -1 for text in texts])
        vectors = np.zeros((len(texts), self.spec.dims), np.float32)
        angles = (numbers % 100_003) / 100_003
        vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
        return models.EmbedReply(vectors=vectors, server="instant")

    async def aclose(self) -> None:
        pass


class Watch(Silent):
    """Notes the resident memory at each tenth of the texts."""

    def __init__(self, texts: int) -> None:
        self._step = max(1, texts // 10)
        self.done = 0
        self.resident: list[int] = []

    def advance(self, task: str, n: int = 1) -> None:
        self.done += n
        if self.done >= (len(self.resident) + 1) * self._step:
            self.resident.append(resident())


def resident() -> int:
    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write_shards(collection: Collection, texts: int) -> list[str]:
    names = []
    for start in range(0, texts, SHARD):
        numbers = range(start, min(start + SHARD, texts))
        columns = {
            "chunk_id": [f"{n:032x}" for n in numbers],
            "doc_id": [f"{start:032x}"] * len(numbers),
            "start": list(numbers),
            "end": list(numbers),
            "page": [None] * len(numbers),
            "heading_path": [[]] * len(numbers),
            "text": [f"a text of some length with a number at its end {n}" for n in numbers],
            "context": [""] * len(numbers),
            "title": [""] * len(numbers),
            "tokens": [12] * len(numbers),
            "embed_key": [f"{n * 0x9E3779B97F4A7C15 % (1 << 128):032x}" for n in numbers],
        }
        names.append(f"{start:09d}")
        collection.write_chunks(CHUNKS_FP, names[-1], pa.table(columns, schema=schema.CHUNKS))
    return names


async def embed(collection: Collection, names: list[str], dims: int, watch: Watch) -> tuple[VectorLog, int]:
    """Embed all as a run does; returns the log and the resident memory before."""
    settings = config.Settings(data=str(collection.root.parent), embed=config.EmbedSettings(flush_s=1.0))
    log = collection.vectors("memory", dims, {"digest": "d"})
    embedder = Instant(dims)

    async def begin() -> embedding.Server:
        return embedding.Server(made_by="benchmark", skip=frozenset())

    with WorkerPool(1, memory_mb=3072) as pool:
        context = Context(
            collection=collection, settings=settings, options=readers.ReaderOptions(), pool=pool, progress=watch
        )
        queue: Names = asyncio.Queue()
        for name in [*names, None]:
            queue.put_nowait(name)
        source = embedding.Source(context, embedder.spec, log, CHUNKS_FP, begin)
        tokenizer = tokens.builtin()
        tokenizer.count(["warm"])
        before = resident()
        await embedding.embed_shards(context, embedder, log, source, queue, tokenizer, embedding.Embedding())
    return log, before


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--texts", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        collection = Collection(Path(folder), "memory")
        names = write_shards(collection, options.texts)
        watch = Watch(options.texts)
        pa.default_memory_pool().release_unused()
        began = time.perf_counter()
        log, before = asyncio.run(embed(collection, names, options.dims, watch))
        seconds, embedded = time.perf_counter() - began, peak()
        log.refresh()
        parts = log.compact()
        assert len(log) == options.texts
    print(f"{options.texts} texts of {options.dims} dimensions in {seconds:.1f} s, {parts} parts compacted")
    print(f"before {before / MIB:.0f} MiB; at each tenth: {', '.join(f'{r / MIB:.0f}' for r in watch.resident)} MiB")
    print(f"most while embedding {embedded / MIB:.0f} MiB, with refresh and compaction {peak() / MIB:.0f} MiB")
    print(f"extra memory of the embed stage: {(peak() - before) / MIB:.0f} MiB")


if __name__ == "__main__":
    main()
