"""How near to the model server's own limit the embed engine comes.

A fake Ollama spends a fixed time per token, one text at a time, as Ollama does; what it spends on all texts is the
least time that any client could take. Printed is the share of that limit which the engine reaches, requests, gate and
all.

    python -m benchmarks.embed_limit [--chunks 5000] [--tokens 256] [--cost-us 100] [--servers 1,4] [--command]

100 us per token, 10,000 tokens per second and server, stands for a desktop's GPU or a current Apple chip with a model
of 334M parameters. A CPU is ten times slower, which flatters every client; a data centre's GPU is faster than one
server's own HTTP and JSON. 5000 chunks then take two minutes, and what a command needs before its first request and
after its last is to be less than 3 % of that, and with four servers of half a minute.

The engine alone is measured in this process. --command measures `pipeline embed` instead, on a collection that was
ingested and chunked before: once from the start of the process to its end, with all that an interpreter, imports,
opening a model and a last compaction take, and once over its embed stage, as its own report says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import resource
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import common
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


class Address(Protocol):
    """Where a server listens."""

    url: str


def connect(fakes: Sequence[Address]) -> ollama.OllamaEmbedder:
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


# --- the whole command -------------------------------------------------------------------------------------------

SECTIONS = 50  # per file; each becomes one chunk
SETTINGS = "[chunk]\nsize = 400\nmax = 500\n"  # above every section, so that none is cut


def prepare(scratch: Path, items: list[embed.Item]) -> None:
    """A collection of these texts, ingested and chunked, nothing embedded."""
    folder = scratch / "docs"
    folder.mkdir()
    for first in range(0, len(items), SECTIONS):
        sections = [f"## Section {item.key}\n\n{item.text}.\n" for item in items[first : first + SECTIONS]]
        (folder / f"{first:07d}.md").write_text("\n".join(sections), encoding="utf-8")
    (scratch / "settings.toml").write_text(SETTINGS, encoding="utf-8")
    with servers(1, 0.0) as quiet:
        common.pipeline(*arguments(scratch, scratch / "chunked", quiet), "ingest", str(folder))
        common.pipeline(*arguments(scratch, scratch / "chunked", quiet), "chunk")


def arguments(scratch: Path, data: Path, fakes: list[FakeOllama]) -> list[str]:
    hosts = [argument for fake in fakes for argument in ("--ollama-host", fake.url)]
    return ["--config", str(scratch / "settings.toml"), "--data", str(data), "--provider", "ollama", *hosts]


def measure_command(scratch: Path, fakes: list[FakeOllama]) -> list[object]:
    """Embed a copy of the prepared collection; a row of the table."""
    data = scratch / f"embedded-{len(fakes)}"
    shutil.copytree(scratch / "chunked", data)
    before, began = spent(fakes), time.perf_counter()
    report = common.run(*arguments(scratch, data, fakes), "embed")
    wall_s = time.perf_counter() - began
    limit_s = (spent(fakes) - before) / len(fakes)
    stage_s = report["embed_seconds"]
    texts = report["embedded_texts"]
    figures = [f"{limit_s:.2f}", f"{wall_s:.2f}", f"{limit_s / wall_s:.4f}", f"{stage_s:.2f}"]
    return [len(fakes), texts, *figures, f"{limit_s / stage_s:.4f}", f"{texts / wall_s:.0f}", f"{texts / stage_s:.0f}"]


# --- the command line --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def servers(count: int, cost_us: float) -> Iterator[list[FakeOllama]]:
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(FakeOllama(vectors="hash", cost_us_per_token=cost_us, record=False))
            for _ in range(count)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=5000)
    parser.add_argument("--tokens", type=int, default=256, help="per chunk, on average")
    parser.add_argument("--cost-us", type=float, default=100.0, help="of the fake server, per token")
    parser.add_argument("--servers", default="1", metavar="N,N,...", help="how many; each number is a run")
    parser.add_argument("--command", action="store_true", help="measure the whole of `pipeline embed`")
    options = parser.parse_args()
    items = chunks(options.chunks, options.tokens)
    counts = [int(count) for count in options.servers.split(",")]
    total = sum(item.tokens for item in items)
    print(f"{len(items)} chunks, {total} tokens, {options.cost_us:g} us per token")
    (show_command if options.command else show_engine)(items, counts, options.cost_us)


def show_engine(items: list[embed.Item], counts: list[int], cost_us: float) -> None:
    rows: list[list[object]] = []
    for count in counts:
        with servers(count, cost_us) as fakes:
            found = asyncio.run(measure(fakes, items))
        figures = [f"{found.limit_s:.2f}", f"{found.seconds:.2f}", f"{found.limit_s / found.seconds:.4f}"]
        rate = len(items) / found.seconds
        more = [f"{found.first_s:.2f}", found.stats.requests, f"{found.cpu_s:.2f}", f"{rate:.0f}"]
        rows.append([count, *figures, *more, f"{rate / float(str(rows[0][-2])):.2f}" if rows else "1.00"])
    header = (
        "servers",
        "least s",
        "taken s",
        "share",
        "first vectors s",
        "requests",
        "CPU s",
        "texts/s",
        "x the first",
    )
    print(common.table(header, rows))


def show_command(items: list[embed.Item], counts: list[int], cost_us: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), items)
        rows: list[list[object]] = []
        for count in counts:
            with servers(count, cost_us) as fakes:
                rows.append(measure_command(Path(folder), fakes))
    header = ("servers", "texts", "least s", "command s", "share", "embed stage s", "share", "texts/s", "of the stage")
    print(common.table(header, rows))
    for row in rows[1:]:
        whole, stage = (float(str(row[at])) / float(str(rows[0][at])) for at in (-2, -1))
        print(f"{row[0]} servers: {whole:.2f} x the first as a command, {stage:.2f} x in the embed stage")


if __name__ == "__main__":
    main()
