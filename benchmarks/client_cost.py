"""What a vector costs in client CPU: our engine into a checkpoint on disk, beside other clients into lists in memory.

    python -m benchmarks.client_cost [--texts 20000] [--tokens 256] [--rounds 3] [--peers-python PYTHON]

The fake Ollama answers at once, so what is left is the client: building requests, HTTP, decoding, checks, files. Each
client is a process of its own and embeds the same texts; its user and system time is taken after its imports and one
request to warm up; what a client does once (ours: the first part of the log) is shared out over the texts. Ours
counts the integrity gate, token reconciliation, hashing of keys and the Parquet parts that the vector log fsyncs; the
peers' vectors stay lists. Peers run in --peers-python (default: this one) and are left out where they cannot be
imported; each gets batches of 64 texts, and llama-index also its own default of 10.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL = "mxbai-embed-large"
BATCH = 64
OURS = ("ours: engine into the vector log", "ours: engine, vectors dropped")


def main() -> None:
    options = _options()
    if options.client:
        print(json.dumps(_measured(options.client, options.url, json.loads(options.file.read_text()), options.profile)))
        return
    from tests.fake_ollama.client import FakeOllama

    with tempfile.TemporaryDirectory() as scratch, FakeOllama(vectors="hash", record=False) as fake:
        file = Path(scratch, "texts.json")
        file.write_text(json.dumps(_texts(options.texts, options.tokens)))
        names = list(OURS) + [name for name in PEERS if _importable(options.peers_python, PEERS[name][0])]
        best: dict[str, dict[str, float]] = {}
        for _ in range(options.rounds):  # in turn, so that a busy minute of the machine strikes all alike
            for name in names:
                python = sys.executable if name in OURS else options.peers_python
                found = _in_process(python, name, fake.url, file, options.profile)
                if name not in best or found["cpu_s"] < best[name]["cpu_s"]:
                    best[name] = found
    _show(options, best)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--tokens", type=int, default=256, help="per text, on average")
    parser.add_argument("--rounds", type=int, default=3, help="the least CPU of these counts")
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has the other clients")
    parser.add_argument("--profile", type=Path, help="write cProfile's statistics of our client to this file")
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _texts(n: int, size: int) -> list[tuple[str, str, int]]:
    """Key, text and token count, as the chunk stage leaves them."""
    from benchmarks import embed_limit
    from pipeline import ids

    return [(ids.embed_key(item.text), item.text, item.tokens) for item in embed_limit.chunks(n, size)]


def _importable(python: str, module: str) -> bool:
    done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
    return done.returncode == 0


def _in_process(python: str, name: str, url: str, file: Path, profile: Path | None) -> dict[str, float]:
    ours = name in OURS
    start = ["-m", "benchmarks.client_cost"] if ours else [__file__]
    more = [f"--profile={profile}"] if ours and profile else []
    command = [python, *start, f"--client={name}", f"--url={url}", f"--file={file}", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(name: str, url: str, rows: Sequence[tuple[str, str, int]], profile: Path | None) -> dict[str, float]:
    """In the client's process: embed all, and say what it took."""
    work = _ours(name, url, rows, profile) if name in OURS else PEERS[name][1](url)
    texts = [text for _, text, _ in rows]
    work(texts[:1])  # imports what is imported late, and loads the model
    before, began = _cpu_s(), time.perf_counter()
    count = work(texts)
    seconds, cpu_s = time.perf_counter() - began, _cpu_s() - before
    if count != len(texts):
        raise SystemExit(f"{name} brought {count} vectors for {len(texts)} texts")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"vectors": count, "cpu_s": cpu_s, "seconds": seconds, "rss_mb": rss}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _ours(
    name: str, url: str, rows: Sequence[tuple[str, str, int]], profile: Path | None
) -> Callable[[list[str]], int]:
    from pipeline.stages import embed

    items = [embed.Item(key=key, text=text, tokens=tokens) for key, text, tokens in rows]

    def work(texts: list[str]) -> int:
        chosen = items[: len(texts)]
        if profile is None or len(texts) == 1:
            return asyncio.run(_embed(url, chosen, keep=name == OURS[0]))
        import cProfile

        profiler = cProfile.Profile(time.process_time)
        try:
            return profiler.runcall(asyncio.run, _embed(url, chosen, keep=name == OURS[0]))
        finally:
            profiler.dump_stats(profile)

    return work


async def _embed(url: str, items: Sequence[Any], *, keep: bool) -> int:
    """The engine as `pipeline embed` drives it: results into the flusher, parts on disk; returns how many are there."""
    from contextlib import aclosing

    from benchmarks import embed_limit
    from pipeline.embedding import Flusher
    from pipeline.stages import embed
    from pipeline.store import VectorLog

    count = 0
    with tempfile.TemporaryDirectory() as scratch:
        log = VectorLog(_folder(scratch, "vectors"), _folder(scratch, "tmp"), embed_limit.DIMS, {"model": MODEL})
        flusher = Flusher(log, 5.0)
        async with (
            aclosing(embed_limit.connect([Address(url)])) as embedder,
            aclosing(embed.embed_stream(embed_limit.stream(list(items)), embedder, embed.EngineOptions())) as results,
        ):
            async for result in results:
                assert isinstance(result, embed.Embedded), result
                count += len(result.keys)
                if keep:
                    flusher.add(result.keys, result.vectors)
                if keep and flusher.due:
                    await asyncio.to_thread(flusher.flush)
        if keep:
            flusher.flush()
            log.refresh()
            count = len(log)
    return count


@dataclass(slots=True)
class Address:
    """Where the server listens."""

    url: str


def _folder(*names: str) -> Path:
    path = Path(*names)
    path.mkdir()
    return path


# --- other clients, as their documentation says; each returns how many vectors it holds at the end -------------------


def _ollama(url: str) -> Callable[[list[str]], int]:
    client = importlib.import_module("ollama").Client(host=url)

    def work(texts: list[str]) -> int:
        found: list[Any] = []
        for start in range(0, len(texts), BATCH):
            found += client.embed(model=MODEL, input=texts[start : start + BATCH])["embeddings"]
        return len(found)

    return work


def _langchain(url: str) -> Callable[[list[str]], int]:
    embeddings = importlib.import_module("langchain_ollama").OllamaEmbeddings(model=MODEL, base_url=url)

    def work(texts: list[str]) -> int:
        found: list[Any] = []
        for start in range(0, len(texts), BATCH):
            found += embeddings.embed_documents(texts[start : start + BATCH])
        return len(found)

    return work


def _llama_index(batch: int) -> Callable[[str], Callable[[list[str]], int]]:
    def build(url: str) -> Callable[[list[str]], int]:
        kind = importlib.import_module("llama_index.embeddings.ollama").OllamaEmbedding
        embedding = kind(model_name=MODEL, base_url=url, embed_batch_size=batch)
        return lambda texts: len(embedding.get_text_embedding_batch(texts))

    return build


PEERS: dict[str, tuple[str, Callable[[str], Callable[[list[str]], int]]]] = {
    "ollama (Python)": ("ollama", _ollama),
    "langchain-ollama": ("langchain_ollama", _langchain),
    "llama-index-embeddings-ollama, 64": ("llama_index.embeddings.ollama", _llama_index(BATCH)),
    "llama-index-embeddings-ollama, 10": ("llama_index.embeddings.ollama", _llama_index(10)),
}


def _show(options: argparse.Namespace, best: dict[str, dict[str, float]]) -> None:
    from benchmarks.common import table

    rate = {name: found["vectors"] / found["cpu_s"] for name, found in best.items()}
    rows = [
        [
            name,
            f"{rate[name]:.0f}",
            f"{1e6 / rate[name]:.0f}",
            f"{found['vectors'] / found['seconds']:.0f}",
            f"{found['rss_mb']:.0f}",
            f"{rate[OURS[0]] / rate[name]:.2f}",
        ]
        for name, found in best.items()
    ]
    print(f"{options.texts} texts of about {options.tokens} tokens, best of {options.rounds} rounds")
    header = ("client", "vectors per CPU second", "us of CPU per vector", "vectors/s", "MB", "ours is x times it")
    print(table(header, rows))
    peers = {name: found for name, found in rate.items() if name not in OURS}
    if not peers:
        print("No other client can be imported; give --peers-python.")
        return
    first = max(peers, key=lambda name: peers[name])
    print(f"ours to the best peer ({first}): {rate[OURS[0]] / peers[first]:.2f} x")


if __name__ == "__main__":
    main()
