"""How near to the model server's own limit the embed engine comes.

A fake Ollama spends a fixed time per token, one text at a time, as Ollama does; what it spends on all texts is the
least time that any client could take. Printed is the share of that limit which the engine reaches, requests, gate and
all.

    python -m benchmarks.embed_limit [--chunks 5000] [--tokens 256] [--cost-us 25] [--servers 1]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import resource
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from pipeline import models
from pipeline.models import ollama, tokens
from pipeline.models.ollama_client import Server
from pipeline.stages import embed
from tests.fake_ollama.client import FakeOllama

DIMS = 1024
WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "he",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """`limit_s`: what the busiest possible servers would have taken; `first_s`: until the first vectors were there."""

    seconds: float
    limit_s: float
    first_s: float
    cpu_s: float
    stats: embed.Stats


def chunks(n: int, size: int, seed: int = 1) -> list[embed.Item]:
    """Texts of `size` tokens give or take a third, all different."""
    dice = random.Random(seed)
    texts = [f"{i} " + " ".join(dice.choices(WORDS, k=int(dice.uniform(0.67, 1.33) * size))) for i in range(n)]
    counts = tokens.builtin().count(texts)
    pairs = enumerate(zip(texts, counts, strict=True))
    return [embed.Item(key=f"{i:032x}", text=text, tokens=count) for i, (text, count) in pairs]


async def stream(items: list[embed.Item]) -> AsyncGenerator[embed.Item]:
    for item in items:
        yield item


def connect(fakes: list[FakeOllama]) -> ollama.OllamaEmbedder:
    counter = tokens.builtin().identity
    spec = models.EmbedderSpec(
        provider="ollama", model="mxbai-embed-large", digest="", dims=DIMS, limit=510, tokenizer=counter
    )
    limits = models.Limits(concurrency=2 * len(fakes))
    counting = ollama.Counting(exact=True, wordpiece=True)
    return ollama.OllamaEmbedder([Server(fake.url) for fake in fakes], spec, counting=counting, limits=limits)


async def measure(fakes: list[FakeOllama], items: list[embed.Item]) -> Measured:
    """Embed all and compare with what the servers say they spent. Models are loaded before."""
    async with contextlib.aclosing(connect(fakes)) as embedder:
        for server in embedder.servers:
            await server.embed(embedder.spec.model, ["warm"], keep_alive="5m")
        before = spent(fakes)
        engine = embed.Engine(embedder, embed.EngineOptions())
        began, cpu = time.perf_counter(), cpu_s()
        found, first_s = 0, 0.0
        async with contextlib.aclosing(engine.run(stream(items))) as results:
            async for result in results:
                assert isinstance(result, embed.Embedded), result
                found += len(result.keys)
                first_s = first_s or time.perf_counter() - began
        seconds = time.perf_counter() - began
        assert found == len(items)
        limit_s = (spent(fakes) - before) / len(fakes)
        return Measured(seconds=seconds, limit_s=limit_s, first_s=first_s, cpu_s=cpu_s() - cpu, stats=engine.stats)


def spent(fakes: list[FakeOllama]) -> float:
    return sum(float(fake.counters()["busy_s"]) for fake in fakes)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--chunks", type=int, default=5000)
    parser.add_argument("--tokens", type=int, default=256, help="per chunk, on average")
    parser.add_argument("--cost-us", type=float, default=25.0, help="of the fake server, per token")
    parser.add_argument("--servers", type=int, default=1)
    options = parser.parse_args()
    items = chunks(options.chunks, options.tokens)
    with contextlib.ExitStack() as stack:
        fakes = [
            stack.enter_context(FakeOllama(vectors="hash", cost_us_per_token=options.cost_us, record=False))
            for _ in range(options.servers)
        ]
        found = asyncio.run(measure(fakes, items))
    total = sum(item.tokens for item in items)
    print(f"{len(items)} chunks, {total} tokens, {options.cost_us:g} us per token, {options.servers} server(s)")
    print(f"least possible {found.limit_s:.2f} s, taken {found.seconds:.2f} s, first vectors at {found.first_s:.2f} s")
    print(f"{found.stats.requests} requests, {total / found.seconds:.0f} tokens/s, client CPU {found.cpu_s:.2f} s")
    print(f"share of the limit: {found.limit_s / found.seconds:.4f}")


if __name__ == "__main__":
    main()
