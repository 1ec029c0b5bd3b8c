"""Whether reading keeps all cores busy, and the model server fed.

    python -m benchmarks.ingest_scaling --docs DIR [--workers 1,2] [--rounds 2] [--skip-embed] [--cost-us 30]

1. Scaling. `pipeline ingest` of DIR into a fresh collection, with each number of workers in turn, --rounds times. A
   machine that others use as well makes seconds of the clock worthless, so the kernel is asked (/proc/PID/schedstat,
   Linux) how long each worker ran and how long it was ready to run and had no core. What is left of the clock is time
   in which the program gave it nothing to do. From the first file read to the last one:

       busy    = (ran + waited for a core) / (workers x clock)
       scaling = cores' worth of work done = busy(n) x n / busy(1), times CPU(1) / CPU(n) for what more workers cost

   `clock` is the plain ratio of the seconds: below `scaling` by what the other programs took, and by the main process
   where it needs a core that the workers use too. `parent` is its CPU per file.
2. Feeding. The whole `pipeline run` with the fake server, which answers one request at a time and takes --cost-us per
   token; its idle time between the first text embedded and the last file read, when there always was more to parse.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.common import table
from pipeline import config, run
from pipeline.progress import Silent
from tests.fake_ollama.client import FakeOllama

LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One ingest. Seconds; ran, ready: of all workers together, between the first file read and the last one."""

    workers: int
    files: int
    clock_s: float
    ran_s: float
    ready_s: float
    children_s: float
    parent_s: float

    @property
    def busy(self) -> float:
        return (self.ran_s + self.ready_s) / (self.workers * self.clock_s)


class Files(Silent):
    """Notes when the first file was read and when the last one. `now`: called at both."""

    def __init__(self, now: Callable[[], None]) -> None:
        self.files = 0
        self._now = now

    def advance(self, task: str, n: int = 1) -> None:
        if task == "files":
            self.files += n
            if self.files == n:
                self._now()

    def finish(self, task: str) -> None:
        if task == "files":
            self._now()


class Workers(threading.Thread):
    """Adds up what the kernel says of each worker process, replaced ones included."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.marks: list[tuple[float, float, float]] = []  # clock, ran, ready
        self.own_s = 0.0  # CPU that the looking itself took
        self._seen: dict[int, tuple[float, float]] = {}
        self._over = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        while not self._over.wait(LOOK_S):
            self._look()
        self.own_s = time.thread_time()

    def _look(self) -> None:
        with self._lock:
            for child in psutil.Process().children():
                with contextlib.suppress(psutil.Error, OSError, ValueError):
                    ran, ready, _ = Path(f"/proc/{child.pid}/schedstat").read_text().split()
                    self._seen[child.pid] = (int(ran) / 1e9, int(ready) / 1e9)

    def mark(self) -> None:
        self._look()
        ran, ready = (sum(column) for column in zip(*self._seen.values(), strict=True))
        self.marks.append((time.monotonic(), ran, ready))

    def stop(self) -> None:
        self._over.set()
        self.join()


def measure(docs: Path, workers: int) -> Measured:
    """One ingest in this process, which must be a fresh one: it counts what its children used."""
    watch = Workers()
    files = Files(watch.mark)
    with tempfile.TemporaryDirectory() as data:
        settings = config.Settings(data=data, readers=config.ReaderSettings(workers=workers))
        watch.start()
        run.execute(settings, run.Request(stages=frozenset({"ingest"}), folders=(docs,)), files)
        watch.stop()
    (began, ran, ready), (ended, ran_after, ready_after) = watch.marks
    children, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    return Measured(
        workers=workers,
        files=files.files,
        clock_s=ended - began,
        ran_s=ran_after - ran,
        ready_s=ready_after - ready,
        children_s=children.ru_utime + children.ru_stime,
        parent_s=own.ru_utime + own.ru_stime - watch.own_s,
    )


def scaling(docs: Path, counts: Sequence[int], rounds: int) -> None:
    found: dict[int, list[Measured]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:  # in turn, so that a busy minute does not hit one of them alone
            command = [sys.executable, "-m", "benchmarks.ingest_scaling", "--docs", str(docs), "--one", str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[count].append(Measured(**json.loads(done.stdout)))
            print(f"{count} workers: {asdict(found[count][-1])}", file=sys.stderr)
    rows = [_row(found[count], found[counts[0]]) for count in counts]
    header = (
        "workers",
        "clock s",
        "ran s",
        "no core s",
        "busy",
        "parent ms/file",
        "scaling",
        "of the cores",
        "clock x",
    )
    print(table(header, rows))


def _row(runs: Sequence[Measured], first: Sequence[Measured]) -> list[object]:
    def middle(runs: Sequence[Measured], value: Callable[[Measured], float]) -> float:
        return statistics.median(map(value, runs))

    workers, base = runs[0].workers, first[0].workers
    work = middle(first, lambda one: one.ran_s) / middle(runs, lambda one: one.ran_s)
    times = middle(runs, lambda one: one.busy) * workers / (middle(first, lambda one: one.busy) * base) * work
    clock = middle(first, lambda one: one.clock_s) / middle(runs, lambda one: one.clock_s)
    parent_ms = 1000 * middle(runs, lambda one: one.parent_s / one.files)
    seconds = [
        middle(runs, value) for value in (lambda one: one.clock_s, lambda one: one.ran_s, lambda one: one.ready_s)
    ]
    busy = f"{middle(runs, lambda one: one.busy):.3f}"
    return [
        workers,
        *(f"{s:.1f}" for s in seconds),
        busy,
        f"{parent_ms:.2f}",
        f"{times:.2f}",
        f"{times * base / workers:.2f}",
        f"{clock:.2f}",
    ]


# --- the model server -------------------------------------------------------------------------------------------------


class Server(threading.Thread):
    """Asks the fake server how long it has been busy."""

    def __init__(self, server: FakeOllama) -> None:
        super().__init__(daemon=True)
        self.samples: list[tuple[float, float, int]] = []  # clock, busy seconds, texts
        self._server = server
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.05):
            told = self._server.counters()
            self.samples.append((time.monotonic(), float(told["busy_s"]), int(told["texts"])))

    def stop(self) -> None:
        self._over.set()
        self.join()


def feeding(docs: Path, cost_us: float) -> None:
    read: list[float] = []
    with FakeOllama(vectors="hash", cost_us_per_token=cost_us, record=False) as fake, _data() as data:
        settings = config.Settings(
            data=data,
            embed=config.EmbedSettings(provider="ollama"),
            ollama=config.OllamaSettings(hosts=(fake.url,)),
        )
        server = Server(fake)
        server.start()
        files = Files(lambda: read.append(time.monotonic()))
        request = run.Request(stages=frozenset(("ingest", "chunk", "embed")), folders=(docs,))
        run.execute(settings, request, files)
        server.stop()
    during = [sample for sample in server.samples if sample[2] > 1 and sample[0] <= read[-1]]
    (began, busy, texts), (ended, busy_after, texts_after) = during[0], during[-1]
    clock_s, busy_s = ended - began, busy_after - busy
    header = ("files", "first text after s", "reading went on s", "texts meanwhile", "server busy s", "idle share")
    row = [files.files, began - read[0], clock_s, texts_after - texts, busy_s, 1 - busy_s / clock_s]
    print(table(header, [[f"{value:.2f}" if isinstance(value, float) else value for value in row]]))


@contextlib.contextmanager
def _data() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--workers", default=f"1,{os.cpu_count() or 2}", metavar="N,N")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cost-us", type=float, default=30.0, help="of the fake server, per token")
    parser.add_argument("--skip-embed", action="store_true")
    parser.add_argument("--skip-scaling", action="store_true")
    parser.add_argument("--one", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(asdict(measure(given.docs, given.one))))
        return
    for path in given.docs.rglob("*"):  # into the system's memory: the disk is not what is measured
        if path.is_file():
            path.read_bytes()
    if not given.skip_scaling:
        scaling(given.docs, [int(word) for word in given.workers.split(",")], given.rounds)
    if not given.skip_embed:
        feeding(given.docs, given.cost_us)


if __name__ == "__main__":
    main()
