"""What a night without changes costs, and one with few: against a bare walk over the same files.

    python -m benchmarks.noop [--files 100000] [--changed 1000] [--rounds 3] [--work build/noop]

The tree (short notes, a hundred to a folder) and its collection are built once under --work, with the fake Ollama;
that takes minutes, and the next call uses them again. Then, in one process each round: the bare walk (`os.scandir` and
`stat` of every file), a whole run over a folder of one file (start-up: imports, the model server asked, the report),
and the whole run over the tree; then its parts, one by one. A night costs what its run takes more than that of one
file. At last --changed files are edited, and the same number in a collection that holds no others.

Exit code 1 if a night without changes costs more than 3 bare walks or 500 MB, or if anything but the changed files is
read, cut, embedded or written to the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import common
from tests.fake_ollama.client import FakeOllama

WALKS = 3  # a night may cost so many
MEGABYTES = 500
MODEL = "all-minilm"
PER_FOLDER = 100
HOUR_NS = 3_600_000_000_000
_WORDS = [
    a + b for a in ("stone", "river", "cloud", "lamp", "field", "amber") for b in ("maker", "light", "song", "gate")
]

Found = dict[str, Any]


# -- the tree and its collection


def names(files: int) -> Iterable[str]:
    return (f"{n // (PER_FOLDER * 10):03d}/{n // PER_FOLDER:05d}/note-{n:07d}.md" for n in range(files))


def make_tree(folder: Path, files: int) -> None:
    dice = random.Random(files)
    for number, name in enumerate(names(files)):
        path = folder / name
        if not number % PER_FOLDER:
            path.parent.mkdir(parents=True, exist_ok=True)
        write(path, f"Note {number}. {' '.join(dice.choices(_WORDS, k=30))}.\n")


def write(path: Path, text: str) -> None:
    """A file whose time is old enough to be believed."""
    path.write_text(text)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - HOUR_NS))


def edit(folder: Path, files: int, changed: int) -> int:
    """Add a line to every so-many-th file; returns to how many."""
    chosen = list(names(files))[:: max(1, files // changed)][:changed]
    for name in chosen:
        write(folder / name, f"{(folder / name).read_text()}\nAdded at {time.time_ns()}.\n")
    return len(chosen)


class World:
    """A folder of documents and the collection made of it."""

    def __init__(self, work: Path, files: int, url: str) -> None:
        self.files = files
        self.docs, self.data = work / f"docs-{files}", work / f"data-{files}"
        self.options = ("--data", str(self.data), "--provider", "ollama", "--ollama-host", url, "--model", MODEL)

    def build(self) -> None:
        """Make what is not there, and let a run that does nothing find everything done."""
        ready = self.data / "ready"
        if not ready.exists():
            make_tree(self.docs, self.files)
            began = time.monotonic()
            self.run()
            print(f"{self.files:,} files: first run {time.monotonic() - began:.0f} s", flush=True)
            ready.touch()
        self.run()

    def run(self) -> Found:
        return common.run(*self.options, "run", str(self.docs))

    def shards(self) -> tuple[set[str], set[str]]:
        """Names of the document shards and of the chunk files."""
        root = self.data / "default"
        documents, chunks = (
            {path.stem for path in root.glob(f"{kind}/**/*.parquet")} for kind in ("documents", "chunks")
        )
        return documents, chunks


# -- one process: the walk, the whole run, its parts


def walk(root: Path) -> int:
    """The least that anybody can do to see whether files have changed."""
    files, stack = 0, [os.fsencode(root)]
    while stack:
        with os.scandir(stack.pop()) as entries:
            for entry in entries:
                entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                else:
                    files += 1
    return files


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def measure(work: Path, files: int, url: str) -> Found:
    """Seconds and peak memory, in this process and in this order."""
    from pipeline import config, run
    from pipeline.progress import Silent

    def night(world: World) -> Callable[[], Any]:
        settings = config.Settings(
            data=str(world.data),
            embed=config.EmbedSettings(provider="ollama", model=MODEL),
            ollama=config.OllamaSettings(hosts=(url,)),
        )
        request = run.Request(stages=frozenset(run.STAGES), folders=(world.docs,))
        return lambda: run.execute(settings, request, Silent())

    big, one = World(work, files, url), World(work, 1, url)
    night(one)()  # imports what a run imports
    found: Found = {"walk": timed(lambda: walk(big.docs))[0]}
    found["start-up"], _ = timed(night(one))
    found["run"], report = timed(night(big))
    found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << (20 if sys.platform == "darwin" else 10)
    )
    assert report.files["unchanged"] == files, report.files
    found["walk"] = min(found["walk"], timed(lambda: walk(big.docs))[0])
    return found | parts(big)


def parts(world: World) -> Found:
    """What a night without changes is made of; each part is given what the ones before it made."""
    from pipeline import changes, config, executor, live, schema
    from pipeline.scan import scan
    from pipeline.stages import ingest
    from pipeline.store import Collection, collection

    settings, store = config.Settings(data=str(world.data)), Collection(world.data, "default")
    collection._read_snapshot.cache_clear()
    live._of.cache_clear()
    found: Found = {}
    found["scan"], seen = timed(lambda: scan([world.docs], changes.scan_rules(settings)))
    found["columns"], table = timed(seen.files.table)
    found["snapshot"], before = timed(store.snapshot)
    arguments: Any = {"now_ns": time.time_ns(), "is_current": lambda reader: True}
    found["plan"], plan = timed(lambda: ingest.plan(table, before.table, before.scanned_ns, **arguments))
    found["live"], _ = timed(lambda: live.of_snapshot(before).hash)
    same = changes.Scanned(
        found=seen, plan=plan, before=before, sources=before.sources, scanned_ns=0, mounts=before.mounts
    )
    found["commit"], _ = timed(lambda: changes.commit(store, same, executor.Ingested(), 0.2))
    found["failures"], _ = timed(lambda: live.failures(store, settings, store.embedder(), before))
    assert plan.keep.equals(before.table)
    assert table.schema == schema.SCAN
    return found


# -- the report


def nights(work: Path, files: int, url: str, rounds: int) -> bool:
    """Measure the night without changes and print its table; returns whether it is cheap enough."""
    command = [sys.executable, "-m", "benchmarks.noop", "--measure", url, "--files", str(files), "--work", str(work)]
    found: list[Found] = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        found.append(json.loads(done.stdout))
    walks = {
        name: statistics.median(one[name] / one["walk"] for one in found)
        for name in found[0]
        if name not in ("walk", "megabytes")
    }
    cost = statistics.median((one["run"] - one["start-up"]) / one["walk"] for one in found)
    memory = max(one["megabytes"] for one in found)
    seconds = statistics.median(one["walk"] for one in found)
    rows = [["bare walk", f"{seconds:.2f}", "1.00"]]
    rows += [[name, f"{statistics.median(one[name] for one in found):.2f}", f"{walks[name]:.2f}"] for name in walks]
    rows.append(["**run less start-up**", "", f"**{cost:.2f}** (≤ {WALKS})"])
    rows.append(["peak memory", f"{memory:.0f} MB", f"(≤ {MEGABYTES} MB)"])
    print(f"\n{files:,} files, nothing changed (medians of {rounds})\n")
    print(common.table(["part", "s", "bare walks"], rows), flush=True)
    return bool(cost <= WALKS and memory <= MEGABYTES)


def edits(big: World, small: World, changed: int, rounds: int) -> bool:
    """Edit files and run, in the tree and in a collection of their own; returns whether only they were touched."""
    rows, good = [], True
    for world in [small, big] * rounds:
        documents, chunked = world.shards()
        edited = edit(world.docs, world.files, changed)
        seconds, report = timed(world.run)
        new_documents, new_chunked = (now - was for now, was in zip(world.shards(), (documents, chunked), strict=True))
        seen = (report["files"]["changed"], report["embedded_texts"], report["rows_added"], report["rows_deleted"])
        good &= seen == (edited,) * 4 and new_documents == new_chunked
        stages = report["detail"]["stage_seconds"] if report.get("detail") else {}
        told = ", ".join(f"{name} {spent:.1f}" for name, spent in stages.items())
        rows.append([f"{edited:,} of {world.files:,}", *seen, len(new_documents), f"{seconds:.1f}", told])
    print("\nFiles edited\n")
    head = ["files", "changed", "texts embedded", "rows added", "rows deleted", "shards cut", "s", "of which"]
    print(common.table(head, rows))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--changed", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/noop"))
    parser.add_argument("--measure", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.work, options.files, options.measure)))
        return 0
    with FakeOllama(vectors="hash", record=False, models=[MODEL]) as server:
        worlds = [World(options.work, files, server.url) for files in (1, options.changed, options.files)]
        for world in worlds:
            world.build()
        cheap = nights(options.work, options.files, server.url, options.rounds)
        exact = edits(worlds[2], worlds[1], options.changed, 1)
    return 0 if cheap and exact else 1


if __name__ == "__main__":
    sys.exit(main())
