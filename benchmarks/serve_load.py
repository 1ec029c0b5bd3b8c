"""`pipeline serve` under load: clients that ask without a pause, while a nightly run publishes a new generation.

    python -m benchmarks.serve_load [--clients 50] [--seconds 60] [--rounds 2] [--path /retrieval --path /]

The server is a process of its own over a collection of generated notes, embedded by the model in the package. First one
client asks alone. Then, for each path and round, all of them ask for so many seconds; after a third of these a tenth of
the notes is edited and `pipeline run` started, in another process. Printed: requests a second, latency, errors (any
answer but 200, or no records), the snapshots that the server showed before and after, and its resident memory. The exit
code is 1 if there was an error, or a run that did not publish before its round was over.

The clients are processes of their own that speak HTTP/1.1 over plain asyncio streams, one kept connection for each
client, so that they measure the server and not themselves. Server, clients and run share the machine: its cores are the
limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from benchmarks import common

WORDS = ("rime", "gauge", "mast", "cable", "heater", "battery", "duty", "observer", "valley", "ridge", "snow", "sensor")
SINGLE_S = 10.0  # for the client that asks alone
START_S = 1.5  # for the clients' processes to start
WARM_S = 60.0  # for the server to open its collection and model
HEADER = ("path", "clients", "requests/s", "p50", "p95", "p99", "longest", "errors", "snapshots", "MB before", "after")


@dataclass(frozen=True)
class Plan:
    """What a process of clients does. `begin`, `end`: of time.monotonic, which processes of a machine share."""

    url: str
    path: str
    clients: int
    seed: int
    begin: float
    end: float


@dataclass(slots=True)
class Load:
    """What clients saw: seconds of each answer, and answers that were none."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)


# -- clients


def request(plan: Plan, chance: random.Random) -> bytes:
    host = urlsplit(plan.url).netloc
    if plan.path != "/retrieval":
        return f"GET {plan.path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/html\r\n\r\n".encode()
    asked = {
        "knowledge_id": "default",
        "query": " ".join(chance.choices(WORDS, k=5)),
        "retrieval_setting": {"top_k": 5, "score_threshold": 0.0},
    }
    body = json.dumps(asked).encode()
    head = f"POST /retrieval HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one answer; the server tells its length."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


async def ask(plan: Plan, number: int, load: Load) -> None:
    """One client: a question, its answer, the next; a new connection after one that failed."""
    chance = random.Random(plan.seed * 1000 + number)
    place = urlsplit(plan.url)
    await asyncio.sleep(plan.begin - time.monotonic())
    while time.monotonic() < plan.end:
        try:
            reader, writer = await asyncio.open_connection(place.hostname, place.port)
            while (began := time.monotonic()) < plan.end:
                writer.write(request(plan, chance))
                status, body = await answer(reader)
                load.seconds.append(time.monotonic() - began)
                if status != 200 or (plan.path == "/retrieval" and not json.loads(body)["records"]):
                    load.errors[str(status)] += 1
            writer.close()
        except (OSError, EOFError) as error:
            load.errors[type(error).__name__] += 1


def clients(plan: Plan) -> Load:
    """All clients of one process."""

    async def together() -> Load:
        load = Load()
        await asyncio.gather(*(ask(plan, number, load) for number in range(plan.clients)))
        return load

    return asyncio.run(together())


# -- server and run


def write_notes(folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        lines = [f"# Note {number}", *(" ".join(chance.choices(WORDS, k=60)) + "." for _ in range(6))]
        (folder / f"{number}.md").write_text("\n\n".join(lines))


def command(home: Path, *words: str) -> list[str]:
    return ["--data", str(home / "data"), "--provider", "builtin", *words]


@contextmanager
def served(home: Path) -> Iterator[tuple[str, psutil.Process]]:
    """A server of the collection, warm: its URL and its process."""
    server = subprocess.Popen(
        [*common.COMMAND, *command(home, "serve", "--port", "0")], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        said = server.stderr.readline()
        if not said.startswith("Listening on "):
            sys.exit(f"The server does not start: {said}{server.stderr.read()}")
        url = said.removeprefix("Listening on ").strip()
        threading.Thread(target=server.stderr.read, daemon=True).start()  # else its log fills the pipe
        warm(url)
        yield url, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def warm(url: str) -> None:
    """Ask until there is an answer: the first question waits for the model, and is told so where that takes long."""
    deadline = time.monotonic() + WARM_S
    while time.monotonic() < deadline:
        now = time.monotonic()
        loads = [clients(Plan(url, path, 1, 0, now, time.monotonic() + 0.5)) for path in ("/retrieval", "/")]
        if all(load.seconds and not load.errors for load in loads):
            return
    sys.exit(f"The server does not answer: {[dict(load.errors) for load in loads]}")


def snapshot(url: str) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    return int(float(text.split('pipeline_collection_snapshot{collection="default"} ')[1].split("\n")[0]))


def publish(home: Path, notes: int, seed: int, begin: float) -> float:
    """A nightly run, from `begin` on; when it had published."""
    time.sleep(max(begin - time.monotonic(), 0))
    write_notes(home / "docs", notes // 10, seed)
    common.pipeline(*command(home, "-q", "run", str(home / "docs")), accept=(0,))
    return time.monotonic()


# -- figures


def measured(url: str, path: str, count: int, seconds: float, processes: int, seed: int) -> tuple[Load, float, float]:
    """What `count` clients see, spread over processes; when they began and ended."""
    begin = time.monotonic() + START_S
    shares = [len(range(at, count, processes)) for at in range(min(processes, count))]
    plans = [Plan(url, path, n, seed * 100 + at, begin, begin + seconds) for at, n in enumerate(shares)]
    total = Load()
    with ProcessPoolExecutor(len(plans), mp_context=multiprocessing.get_context("spawn")) as pool:
        for load in pool.map(clients, plans):
            total.seconds += load.seconds
            total.errors += load.errors
    return total, begin, begin + seconds


def row(path: str, count: int, load: Load, spent_s: float, *more: object) -> tuple[object, ...]:
    ordered = sorted(load.seconds)
    shares = [
        f"{1000 * ordered[min(int(share * len(ordered)), len(ordered) - 1)]:.0f} ms" for share in (0.5, 0.95, 0.99)
    ]
    longest = f"{1000 * ordered[-1]:.0f} ms"
    said = ", ".join(f"{number} × {name}" for name, number in load.errors.items()) or "0"
    return (path, count, f"{len(ordered) / spent_s:.0f}", *shares, longest, said, *more)


def disturbed(
    home: Path, url: str, server: psutil.Process, path: str, options: argparse.Namespace, seed: int
) -> tuple[object, ...]:
    """A row: the clients of one round, beside a run."""
    before, seen = server.memory_info().rss, snapshot(url)
    with ThreadPoolExecutor(1) as thread:
        begin = time.monotonic() + START_S + options.seconds / 3
        night = thread.submit(publish, home, options.notes, seed, begin)
        load, _, end = measured(url, path, options.clients, options.seconds, options.processes, seed)
        late = night.result() - end
    warm(url)  # asks once more, so that what was published last is what is open
    after = server.memory_info().rss
    if late > 0:
        load.errors[f"run published {late:.1f} s after the end"] += 1
    if snapshot(url) <= seen:
        load.errors["no new generation"] += 1
    figures = (f"{seen} → {snapshot(url)}", f"{before / 1e6:.0f}", f"{after / 1e6:.0f}")
    return row(path, options.clients, load, options.seconds, *figures)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serve_load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--processes", type=int, default=2, help="that the clients are spread over")
    parser.add_argument("--seconds", type=float, default=60, help="of each round")
    parser.add_argument("--rounds", type=int, default=2, help="of each path; memory must not grow from one to the next")
    parser.add_argument("--notes", type=int, default=400, help="documents of the collection")
    parser.add_argument("--path", action="append", help="instead of /retrieval and /; may be repeated")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "docs").mkdir()
        write_notes(home / "docs", options.notes, seed=1)
        common.pipeline(*command(home, "-q", "run", str(home / "docs")), accept=(0,))
        with served(home) as (url, server):
            alone, *_ = measured(url, "/retrieval", 1, min(SINGLE_S, options.seconds), 1, seed=1)
            rows = [row("/retrieval", 1, alone, min(SINGLE_S, options.seconds), "", "", "")]
            for number in range(options.rounds):
                for path in options.path or ("/retrieval", "/"):
                    rows.append(disturbed(home, url, server, path, options, seed=2 + len(rows) + number))
                    print(common.table(HEADER, rows[-1:]), file=sys.stderr)
    print(common.table(HEADER, rows))
    if any(str(line[7]) != "0" for line in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
