"""Files as a power loss leaves them: empty, or half. Readers go on, and the next run makes all good.

    python -m benchmarks.torn [--only WORD ...]

A night's run is killed after its new rows were written and before they are published; then one file of those that this
run wrote is torn, in a copy of the data folder for each kind of file. What must hold each time: a reader still sees the
generation of the night before, whole; `pipeline run` ends well, or names `pipeline check --fix` as the remedy, after
which it does; then the collection holds what one that was never disturbed holds, and a reader sees that.

Write-once files (fsync, rename, fsync of the folder) cannot be torn on a disk that keeps its promises. They are torn
here all the same. Exit code 1 if anything is otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import common, crash, onlooker
from benchmarks.incremental import WORDS, differences, generate
from tests.fake_ollama.client import FakeOllama

TRIES = 10


def newest(root: Path, pattern: str) -> Path:
    found = [path for path in root.glob(pattern) if path.is_file()]
    if not found:
        raise SystemExit(f"nothing to tear: {root}/{pattern}")
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def half(pattern: str) -> Callable[[Path], None]:
    """The newest of these files loses its second half."""

    def tear(root: Path) -> None:
        path = newest(root, pattern)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)

    return tear


def empty(pattern: str) -> Callable[[Path], None]:
    """The newest of these files has a name and no contents."""

    def tear(root: Path) -> None:
        newest(root, pattern).write_bytes(b"")

    return tear


def next_note(share: float) -> Callable[[Path], None]:
    """The note of the publication that was coming, of which only a part was written."""

    def tear(root: Path) -> None:
        last = newest(root, "published/*.json")
        data = last.read_bytes()
        last.with_name(f"{int(last.stem) + 1:08d}.json").write_bytes(data[: int(len(data) * share)])

    return tear


def draft(root: Path) -> None:
    """Half a file in the place where files are made."""
    part = newest(root, "vectors/*/*.parquet")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp" / f"{part.name}.0badcafe").write_bytes(part.read_bytes()[:1000])


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    name: str
    tear: Callable[[Path], None]


_TABLE = "index/*.lance"
CASES = (
    Case(name="nothing torn", tear=lambda root: None),
    Case(name="head manifest of the table, empty", tear=empty(f"{_TABLE}/_versions/*.manifest")),
    Case(name="head manifest of the table, half", tear=half(f"{_TABLE}/_versions/*.manifest")),
    Case(name="rows of the table, half", tear=half(f"{_TABLE}/data/*.lance")),
    Case(name="rows of the table, empty", tear=empty(f"{_TABLE}/data/*.lance")),
    Case(name="list of deleted rows, empty", tear=empty(f"{_TABLE}/_deletions/*")),
    Case(name="an index, half", tear=half(f"{_TABLE}/_indices/*/*")),
    Case(name="an index, empty", tear=empty(f"{_TABLE}/_indices/*/*")),
    Case(name="transaction of the table, half", tear=half(f"{_TABLE}/_transactions/*")),
    Case(name="version hint of the table, empty", tear=empty(f"{_TABLE}/_versions/*.json")),
    Case(name="tag of the table, empty", tear=empty(f"{_TABLE}/_refs/tags/live.json")),
    Case(name="document shard, half", tear=half("documents/*.parquet")),
    Case(name="document shard, empty", tear=empty("documents/*.parquet")),
    Case(name="chunk file, half", tear=half("chunks/*/*.parquet")),
    Case(name="chunk file, empty", tear=empty("chunks/*/*.parquet")),
    Case(name="part of the vector log, half", tear=half("vectors/*/*.parquet")),
    Case(name="part of the vector log, empty", tear=empty("vectors/*/*.parquet")),
    Case(name="rejects, half", tear=half("rejects/*.parquet")),
    Case(name="snapshot, half", tear=half("snapshots/*.parquet")),
    Case(name="snapshot, empty", tear=empty("snapshots/*.parquet")),
    Case(name="note of the next publication, half", tear=next_note(0.5)),
    Case(name="note of the next publication, empty", tear=next_note(0.0)),
    Case(name="report, half", tear=half("runs/*.json")),
    Case(name="lock, empty", tear=empty("LOCK")),
    Case(name="a draft, half", tear=draft),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of one case; "" where all was well."""

    reader: str
    run: str
    after: str

    @property
    def good(self) -> bool:
        return not self.reader and not self.after


class Bench:
    """A collection whose night was cut short, and what it should have become."""

    def __init__(self, scratch: Path, server: FakeOllama) -> None:
        self._scratch = scratch
        self._server = server
        self._docs = scratch / "docs"
        self.cut = scratch / "cut"
        self._before = self._after = ""  # digests of the two generations
        self._calm: dict[str, Any] = {}

    def prepare(self, seed: int = 3) -> None:
        self._docs.mkdir()
        generate(self._docs, files=60, paragraphs=12)
        (self._docs / "broken.pdf").write_bytes(b"%PDF-1.4 and nothing else")
        first, calm, dice = self._scratch / "first", self._scratch / "calm", random.Random(seed)
        self.run(first)
        self._before = common.digest(common.content(first)["rows"])
        shutil.copytree(first, calm)
        crash.change(self._docs, dice, 1)
        (self._docs / "broken too.pdf").write_bytes(b"%PDF-1.4 and nothing else")
        self.run(calm)
        self._calm = common.content(calm)
        self._after = common.digest(self._calm["rows"])
        for stage in (("ingest", str(self._docs)), ("chunk",), ("embed",)):
            self._pipeline(first, *stage)
        for _ in range(TRIES):
            shutil.rmtree(self.cut, ignore_errors=True)
            shutil.copytree(first, self.cut)
            if self._cut_short(dice):
                return
        raise SystemExit("no run could be killed between its rows and its publication")

    def _cut_short(self, dice: random.Random) -> bool:
        """Kill `index` after it wrote indexes and before it publishes; whether that worked."""
        arguments = [*crash.options(self.cut, self._server), "index"]
        with (self._scratch / "messages").open("wb") as log, crash.started(arguments, log) as process:
            watch = crash.Watch(self.cut / "default", process.pid, "compare")
            while process.poll() is None and watch.phase() not in ("optimise", "publish", "after publication"):
                time.sleep(crash.POLL_S)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(dice.uniform(0, 0.1))
            crash.strike(process, dice)
        return watch.phase() == "optimise" and bool(list(self.cut.glob(f"default/{_TABLE}/_deletions/*")))

    def _pipeline(self, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*common.COMMAND, *crash.options(data, self._server), *arguments]
        return subprocess.run(
            command, env=common.environment(**crash.TUNING), capture_output=True, text=True, check=False
        )

    def run(self, data: Path) -> subprocess.CompletedProcess[str]:
        return self._pipeline(data, "run", str(self._docs))

    def try_case(self, case: Case) -> Found:
        data = self._scratch / "torn"
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(self.cut, data)  # keeps the times: what is younger than the tag stays younger
        case.tear(data / "default")
        reader = self._look(data, self._before)
        done = self.run(data)
        said = "" if done.returncode in (0, 3) else f"exit {done.returncode}: {done.stderr.strip().splitlines()[:1]}"
        if done.returncode not in (0, 3) and "check --fix" in done.stderr:
            fixed = self._pipeline(data, "check", "--fix")
            reader = reader or self._look(data, self._before, self._after)  # it may finish what was cut short
            done = self.run(data)
            said = f"after `check --fix` (exit {fixed.returncode})"
        if done.returncode not in (0, 3):
            return Found(reader=reader, run=said, after=f"exit {done.returncode}: {done.stderr.strip()[:300]}")
        other = ", ".join(differences(self._calm, common.content(data)))
        after = other or self._look(data, self._after)
        return Found(reader=reader, run=said, after=after)

    def _look(self, data: Path, *generations: str) -> str:
        look = onlooker.Eyes(data, WORDS[0]).look()
        return look.error or ("" if look.digest in generations else f"{look.rows} rows of no generation")


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as scratch, FakeOllama(vectors="hash", record=False) as server:
        made = Bench(Path(scratch), server)
        made.prepare()
        yield made


def show(only: Sequence[str] = ()) -> bool:
    """Try every case, print the table; returns whether all was well."""
    rows: list[list[object]] = []
    good = True
    with bench() as made:
        for case in CASES:
            if not only or any(word in case.name for word in only):
                found = made.try_case(case)
                good &= found.good
                row = [case.name, found.reader or "all of the night before", found.run or "well", found.after or "same"]
                rows.append(row)
                print(" | ".join(map(str, row)), file=sys.stderr, flush=True)
    print(common.table(["torn", "a reader sees", "the next run ends", "then, beside a calm one"], rows))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=(), metavar="WORD", help="cases with one of these in their name")
    return 0 if show(parser.parse_args().only) else 1


if __name__ == "__main__":
    sys.exit(main())
