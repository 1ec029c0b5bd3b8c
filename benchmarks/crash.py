"""`kill -9` at random points of nightly runs: never a row too many or too few, never a reader that fails.

    python -m benchmarks.crash [--kills 300] [--seed 1] [--no-torn]

One collection lives through night after night. Each night some files are rewritten, edited, added, moved and deleted;
then `pipeline run` is killed with SIGKILL again and again (the whole process group, or the parent alone) and started
again until it finishes, then `pipeline gc` likewise. A kill aims at a phase, waits until the files on the disk show
that the run has reached it, and strikes a random moment later; what is counted is where it hit, told by the same files.

All the while a process searches (benchmarks.onlooker): each of its looks must see the generation of the night before or
the new one, whole. After each night documents, chunks, vectors and rows must be those of a collection that went through
the same nights undisturbed. After each kill the texts that the model server was sent and the vector log does not have
must be no more than what one flush interval and the requests in flight allow.

Then benchmarks.torn: files as a power loss leaves them. Exit code 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from benchmarks import common
from benchmarks.incremental import WORDS, differences, documents, generate, paragraph
from benchmarks.onlooker import Onlooker
from tests.fake_ollama.client import FakeOllama

FLUSH_S = 0.3
BATCH = 8  # texts in a request
# Small, so that a night passes through every phase in seconds: a vector index at 256 rows instead of 50,000, versions
# of the table freed after seconds and not after an hour.
TUNING = {
    "embed_flush_s": FLUSH_S,
    "embed_batch_texts": BATCH,
    "index_vector_index_from": 256,
    "index_keep_versions_h": 20 / 3600,
    "readers_workers": 2,
}
COST_US = 250.0  # per token: 30 ms for a text, two seconds for a night's
POLL_S = 0.002
LONGEST_RUN_S = 120.0

# Where a kill can aim; how long after the first sign of it the kill may come; how often, since what takes a few
# milliseconds is seldom hit.
PHASES = {
    "start, scan": (1.2, 1),
    "parse": (0.8, 1),
    "chunk": (0.5, 1),
    "embed": (2.2, 1),
    "compaction": (0.01, 3),
    "compare": (0.8, 1),
    "table write": (0.25, 1),
    "index build": (0.3, 2),
    "optimise": (0.5, 1),
    "publish": (0.004, 3),
    "after publication": (0.2, 1),
}
GC = "gc"
GC_WITHIN_S = 1.0
IN_TURN = tuple(PHASES)


# --- nights --------------------------------------------------------------------------------------------------------


def change(folder: Path, dice: random.Random, night: int) -> None:
    """What people did during the day: 8 files rewritten, 6 edited, 3 new, 3 moved, 3 deleted."""
    files = dice.sample(documents(folder), 20)
    for path in files[:8]:
        path.write_text("\n".join([f"# {path.stem}, night {night}\n", *(paragraph(dice) + "\n" for _ in range(12))]))
    for path in files[8:14]:
        path.write_text(path.read_text() + f"\nA line of night {night}.\n")
    for number, path in enumerate(files[14:17]):
        path.rename(path.with_name(f"moved-{night}-{number}.md"))
    for number, path in enumerate(files[17:20]):
        path.unlink()
        text = [f"# New in night {night}\n", *(paragraph(dice) + "\n" for _ in range(12))]
        (folder / f"new-{night}-{number}.md").write_text("\n".join(text))


def options(data: Path, server: FakeOllama) -> list[str]:
    return ["--data", str(data), "--provider", "ollama", "--ollama-host", server.url]


# --- where a run is ------------------------------------------------------------------------------------------------


def _age(path: Path) -> int:
    """When a folder was given or lost a name; 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []


@dataclass(slots=True)
class Marks:
    """What the phases leave on the disk: times of folders, most of them, since looking must cost nothing."""

    root: Path
    documents: int = 0
    chunks: int = 0
    table: int = 0
    indices: int = 0
    versions: int = 0
    tag: int = 0
    published: int = 0
    parts: int = 0
    draft: bool = False  # of a part of the vector log
    building: bool = False

    def look(self) -> Marks:
        root = self.root
        tables = [root / "index" / name for name in _names(root / "index") if name.endswith(".lance")]
        logs = [root / "vectors" / name for name in _names(root / "vectors")]
        return Marks(
            root,
            documents=_age(root / "documents") + _age(root / "snapshots"),
            chunks=sum(_age(folder) for folder in (root / "chunks").glob("*")),
            table=sum(_age(table / name) for table in tables for name in ("data", "_deletions", "_versions")),
            indices=max([0, *(_age(table / "_indices") for table in tables)]),
            versions=max([0, *(_age(table / "_versions") for table in tables)]),
            tag=sum(_age(tag) for table in tables for tag in (table / "_refs" / "tags").glob("*.json")),
            published=_age(root / "published"),
            parts=sum(len(_names(folder)) for folder in logs),
            draft=any(name[:13].isdigit() and name[13:14] == "-" for name in _names(root / "tmp")),
            building=bool(_names(root / "index" / "tmp")),
        )


class Watch:
    """Says which phase a run is in. `base`: the stage it resumes at, as far as earlier attempts of the night went."""

    def __init__(self, root: Path, pid: int, base: str) -> None:
        self._pid = pid
        self._base = base
        self._lock = root / "LOCK"
        self._before = Marks(root).look()

    def phase(self) -> str:
        now, before = Marks(self._before.root).look(), self._before
        if now.published != before.published:
            return "after publication"
        if now.tag != before.tag:
            return "publish"
        if now.indices != before.indices and now.versions > now.indices:
            return "optimise"
        if now.indices != before.indices or now.building:
            return "index build"
        if now.table != before.table:
            return "table write"
        if now.parts < before.parts or (now.draft and now.parts >= 8):
            return "compaction"
        if now.chunks != before.chunks or now.parts > before.parts:
            return "embed"
        if now.documents != before.documents:
            return "chunk"
        return self._base if self._has_lock() else "start, scan"

    def _has_lock(self) -> bool:
        try:
            return bool(json.loads(self._lock.read_bytes())["pid"] == self._pid)
        except (ValueError, FileNotFoundError):
            return False


def resumes_at(reached: str) -> str:
    """What a run that follows one killed in phase `reached` does once it has the lock."""
    return reached if reached in ("parse", "chunk", "embed") else "compare"


# --- kills ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started(
    arguments: Sequence[str], log: IO[bytes], env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`pipeline ARGUMENTS` in a group of its own, of which nothing is left behind."""
    process = subprocess.Popen(
        [*common.COMMAND, *arguments],
        env=env or common.environment(**TUNING),
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=log,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def strike(process: subprocess.Popen[bytes], dice: random.Random) -> None:
    """SIGKILL to all its processes, or to the parent alone: then its workers have to notice."""
    with contextlib.suppress(ProcessLookupError):
        if dice.random() < 0.7:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()


@dataclass(slots=True)
class Tally:
    """What happened."""

    phases: Counter[str] = field(default_factory=Counter)
    sent: int = 0
    lost: int = 0
    most_lost: int = 0
    looks: int = 0
    nights: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.phases.values())

    def show(self, seconds: float) -> None:
        rows = [[phase, self.phases[phase]] for phase in (*IN_TURN, GC)]
        print(common.table(["killed in", "times"], rows))
        print(f"{self.kills} kills in {self.nights} nights, {seconds:.0f} s")
        print(f"{self.sent} texts sent, {self.lost} of them lost by a kill; at most {self.most_lost} by one kill")
        print(f"{self.looks} looks of a reader beside them")
        for line in self.wrong[:20]:
            print(f"WRONG: {line}")
        print(f"{len(self.wrong)} wrong")


class Trial:
    """The collection that is killed, the one that is not, and the folder that both are made of."""

    def __init__(
        self, scratch: Path, folder: Path, server: FakeOllama, dice: random.Random, tuning: Mapping[str, object]
    ) -> None:
        self._folder = folder
        self._env = common.environment(**tuning)
        self._server = server
        self._dice = dice
        self._calm = scratch / "calm"
        self.data = scratch / "killed"
        self._messages = scratch / "messages"
        self.tally = Tally()
        self._seen: set[str] = set()  # digests of the generations that may be seen now

    def begin(self) -> None:
        """The first night, undisturbed: from then on there is something to search."""
        self._server.configure(cost_us_per_token=0.0)
        arguments = [*options(self._calm, self._server), "run", str(self._folder)]
        common.pipeline(*arguments, env=self._env)
        shutil.copytree(self._calm, self.data)
        self._server.configure(cost_us_per_token=COST_US)
        self._seen = {common.digest(common.content(self._calm)["rows"])}

    def night(self, eyes: Onlooker, number: int, kills: int, most_gc: int) -> None:
        """Change the folder, run with about `kills` kills until it is done, collect the garbage, compare.

        `most_gc`: kills of `pipeline gc`; 0: it is not run.
        """
        change(self._folder, self._dice, number)
        calm = self._calm_run()
        arguments = [*options(self.data, self._server), "run", str(self._folder)]
        base = "parse"
        weights = [weight for _, weight in PHASES.values()]
        for target in sorted(self._dice.choices(IN_TURN, weights, k=kills), key=IN_TURN.index):
            hit = self._attempt(arguments, target, base)
            if hit is None:
                break
            base = max(base, resumes_at(hit), key=IN_TURN.index) if hit != "start, scan" else base
            eyes.wait()
        else:
            self._attempt(arguments, None, base)
        if most_gc:
            self._collect(eyes, self._dice.randint(1, most_gc))
        if calm.wait() not in (0, 3):
            raise SystemExit(f"the undisturbed run ended with {calm.returncode}")
        self._compare(eyes, number)

    def _calm_run(self) -> subprocess.Popen[bytes]:
        """The same night for the other collection, at the same time; its server's texts are not counted."""
        self._free = FakeOllama(vectors="hash", record=False)
        self._free.start()
        arguments = [*options(self._calm, self._free), "run", str(self._folder)]
        return subprocess.Popen([*common.COMMAND, *arguments], env=self._env, stdout=subprocess.DEVNULL)

    def _attempt(self, arguments: Sequence[str], target: str | None, base: str) -> str | None:
        """Run until `target`, and kill; returns the phase that was hit, None when the run was done before."""
        self._server.reset()
        hit: str | None = None
        with self._messages.open("wb") as log, started(arguments, log, self._env) as process:
            watch = Watch(self.data / "default", process.pid, base)
            if target is not None:
                hit = self._aim(process, watch, target)
            else:
                process.wait(LONGEST_RUN_S)
        if hit is None and process.returncode not in (0, 3):
            said = self._messages.read_text(errors="replace")
            raise SystemExit(f"a run after {self.tally.kills} kills ended with {process.returncode}:\n{said}")
        self._count_texts(hit)
        return hit

    def _aim(self, process: subprocess.Popen[bytes], watch: Watch, target: str) -> str | None:
        while process.poll() is None:
            if IN_TURN.index(watch.phase()) >= IN_TURN.index(target):
                break
            time.sleep(POLL_S)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(self._dice.uniform(0, PHASES[target][0]))
        if process.returncode is not None:
            return None
        hit = watch.phase()
        strike(process, self._dice)
        self.tally.phases[hit] += 1
        return hit

    def _count_texts(self, hit: str | None) -> None:
        """What the server was sent in this attempt, and what of it the log has not."""
        from pipeline import ids, live
        from pipeline.models import canary
        from pipeline.store import Collection

        keys = sorted({ids.embed_key(text) for text in self._server.texts() if text != canary.TEXT})
        self.tally.sent += len(keys)
        if hit is None or not keys:
            return
        store = Collection(self.data, "default")
        spec = store.embedder()
        assert spec is not None
        lost = len(keys) - int(live.vector_log(store, spec).contains(keys).sum())
        rate = len(keys) / max(self._server.counters()["busy_s"], 0.1)
        in_flight = sum(entry.texts for entry in self._server.requests() if entry.status != 200)
        # A flush is looked for when a request ends: the one that ends just before it is due, and the one that ends
        # while the part is being written.
        allowed = int(in_flight + rate * FLUSH_S + 2 * BATCH)
        self.tally.lost += lost
        self.tally.most_lost = max(self.tally.most_lost, lost)
        if lost > allowed:
            self.tally.wrong.append(f"{lost} texts lost by a kill in {hit}; at most {allowed} are allowed")

    def _collect(self, eyes: Onlooker, kills: int) -> None:
        """`pipeline gc`, killed and run again."""
        arguments = [*options(self.data, self._server), "gc"]
        for number in range(kills + 1):
            with self._messages.open("wb") as log, started(arguments, log, self._env) as process:
                if number < kills:
                    watch = Watch(self.data / "default", process.pid, GC)
                    while process.poll() is None and watch.phase() == "start, scan":
                        time.sleep(POLL_S)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(self._dice.uniform(0, GC_WITHIN_S))
                    if process.returncode is None:
                        strike(process, self._dice)
                        self.tally.phases[GC] += 1
                        eyes.wait()
                        continue
                if process.wait(LONGEST_RUN_S) != 0:
                    said = self._messages.read_text(errors="replace")
                    raise SystemExit(f"`pipeline gc` ended with {process.returncode}:\n{said}")

    def _compare(self, eyes: Onlooker, number: int) -> None:
        self._free.stop()
        calm, killed = common.content(self._calm), common.content(self.data)
        if wrong := differences(calm, killed):
            self.tally.wrong.append(f"after night {number} there are other {', '.join(wrong)}")
        new = common.digest(calm["rows"])
        eyes.wait(2)
        self._judge_looks(eyes, number, self._seen | {new})
        self._seen = {new}
        self.tally.nights += 1

    def _judge_looks(self, eyes: Onlooker, number: int, allowed: set[str]) -> None:
        looks = eyes.looks()
        self.tally.looks += len(looks)
        for look in looks:
            if look.error:
                self.tally.wrong.append(f"in night {number} a reader failed: {look.error}")
            elif look.digest not in allowed:
                self.tally.wrong.append(f"in night {number} a reader saw {look.rows} rows of no generation")
        if looks and looks[-1].digest not in allowed - self._seen:
            self.tally.wrong.append(f"after night {number} a reader still saw the generation before")


def trial(
    scratch: Path,
    server: FakeOllama,
    kills: int,
    dice: random.Random,
    *,
    per_night: int = 12,
    most_gc: int = 2,
    longest_s: float = math.inf,
    files: int = 60,
    workers: int = 2,
) -> Tally:
    """Nights until there were `kills` kills, or the time is up. `files`: at least 20; `workers`: of each run."""
    began = time.monotonic()
    folder = scratch / "docs"
    folder.mkdir()
    generate(folder, files=files, paragraphs=12)
    run = Trial(scratch, folder, server, dice, TUNING | {"readers_workers": workers})
    run.begin()
    with Onlooker(run.data, scratch / "looks.jsonl", word=WORDS[0]) as eyes:
        number = 0
        while run.tally.kills < kills and time.monotonic() - began < longest_s:
            number += 1
            run.night(eyes, number, min(per_night, kills - run.tally.kills), most_gc)
            print(f"night {number}: {run.tally.kills} kills, {len(run.tally.wrong)} wrong", file=sys.stderr, flush=True)
    return run.tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest-s", type=float, default=math.inf, help="begin no night after this")
    parser.add_argument("--no-torn", action="store_true", help="without the torn files")
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, FakeOllama(vectors="hash") as server:
        dice = random.Random(arguments.seed)
        tally = trial(Path(scratch), server, arguments.kills, dice, longest_s=arguments.longest_s)
    tally.show(time.monotonic() - began)
    good = not tally.wrong
    if not arguments.no_torn:
        from benchmarks import torn

        good = torn.show() and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
