"""`pipeline serve` under load: clients that ask without a pause, while a nightly run publishes a new generation.

    python -m benchmarks.serve_load [--clients 50] [--seconds 60] [--path /retrieval]

The server is a process of its own over a collection of generated notes, embedded by the model in the package; the run
is `pipeline run` after a tenth of the notes was edited, in another process, begun after a third of the time. Printed:
requests a second, latency, errors (any answer but 200), the snapshots that were seen, and the server's resident memory
before and after. Server, clients and run share the machine: its cores are the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

WORDS = ("rime", "gauge", "mast", "cable", "heater", "battery", "duty", "observer", "valley", "ridge", "snow", "sensor")


@dataclass(slots=True)
class Load:
    """What the clients saw: seconds of each answer, and answers that were none."""

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def write_notes(folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        lines = [f"# Note {number}", *(" ".join(chance.choices(WORDS, k=60)) + "." for _ in range(6))]
        (folder / f"{number}.md").write_text("\n\n".join(lines))


def pipeline(home: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "pipeline", "--data", str(home / "data"), "--provider", "builtin", *words]


async def ask(client: httpx.AsyncClient, path: str, until: float, load: Load, chance: random.Random) -> None:
    """One client: a question, its answer, the next."""
    while time.monotonic() < until:
        body = {
            "knowledge_id": "default",
            "query": " ".join(chance.choices(WORDS, k=5)),
            "retrieval_setting": {"top_k": 5, "score_threshold": 0.0},
        }
        began = time.monotonic()
        try:
            reply = await (client.post(path, json=body) if path == "/retrieval" else client.get(path))
        except httpx.HTTPError as error:
            load.errors.append(type(error).__name__)
            continue
        load.seconds.append(time.monotonic() - began)
        if reply.status_code != 200 or (path == "/retrieval" and not reply.json()["records"]):
            load.errors.append(str(reply.status_code))


async def snapshot(client: httpx.AsyncClient) -> int:
    text = (await client.get("/metrics")).text
    return int(float(text.split('pipeline_collection_snapshot{collection="default"} ')[1].split("\n")[0]))


async def run(home: Path, url: str, options: argparse.Namespace) -> tuple[Load, list[int]]:
    load, began = Load(), time.monotonic()
    limits = httpx.Limits(max_connections=options.clients + 1, max_keepalive_connections=options.clients + 1)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits, trust_env=False) as client:
        await client.get("/readyz")
        seen = [await snapshot(client)]
        chances = [random.Random(number) for number in range(options.clients)]
        asking = [ask(client, options.path, began + options.seconds, load, chance) for chance in chances]

        async def publish() -> None:
            await asyncio.sleep(options.seconds / 3)
            write_notes(home / "docs", options.notes // 10, seed=2)
            night = await asyncio.create_subprocess_exec(*pipeline(home, "-q", "run", str(home / "docs")))
            if await night.wait():
                load.errors.append("the run failed")
            await client.post("/retrieval", json={"knowledge_id": "default", "query": "rime"})
            seen.append(await snapshot(client))

        await asyncio.gather(publish(), *asking)
    return load, seen


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--notes", type=int, default=400)
    parser.add_argument("--path", default="/retrieval", choices=["/retrieval", "/"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "docs").mkdir()
        write_notes(home / "docs", options.notes, seed=1)
        subprocess.run(pipeline(home, "-q", "run", str(home / "docs")), check=True)
        server = subprocess.Popen(pipeline(home, "serve", "--port", "0"), stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            url = server.stderr.readline().removeprefix("Listening on ").strip()
            drain = asyncio.to_thread(server.stderr.read)  # else its log fills the pipe and it stands still

            async def measured() -> tuple[Load, list[int], int, int]:
                draining = asyncio.create_task(drain)
                async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:
                    await client.post("/retrieval", json={"knowledge_id": "default", "query": "rime"})
                before = psutil.Process(server.pid).memory_info().rss
                load, seen = await run(home, url, options)
                after = psutil.Process(server.pid).memory_info().rss
                server.terminate()
                await draining
                return load, seen, before, after

            load, seen, before, after = asyncio.run(measured())
        finally:
            server.kill()
            server.wait()
    print(f"{options.path}: {options.clients} clients, {options.seconds:g} s, snapshots {seen}")
    print(f"{len(load.seconds) / options.seconds:.0f} requests/s, {len(load.errors)} errors {sorted(set(load.errors))}")
    shares = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
    print(", ".join(f"{name} {1000 * percentile(load.seconds, share):.0f} ms" for name, share in shares.items()))
    print(f"resident memory {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after")


if __name__ == "__main__":
    main()
