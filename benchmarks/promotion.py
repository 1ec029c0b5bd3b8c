"""`kill -9` at random points of a change of model and of the way back: readers see the old one or the new one, whole.

    python -m benchmarks.promotion [--kills 60] [--files 40] [--seed 1]

A collection is built with one model and all vectors of another are made. Then, round after round, `migrate` (which has
only to build the new table and to promote it) or `rollback` (back to the old model) is killed: at any moment, or a few
milliseconds after the files show that it has come to a step (AIMS). All the while a thread opens what is published,
asks it by words and by vector, and compares every row with the two states that there may be: model, table and rows must
be of one and the same. After each kill the command is given once more and must end in the new state. Exit code 1 if
anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks import common
from benchmarks.incremental import generate
from tests.fake_ollama.client import FakeOllama

OLD, NEW = "mxbai-embed-large", "bge-m3"
CHILD = "from benchmarks import promotion; promotion.child()"


def settings_of(data: Path, url: str) -> Any:
    from pipeline import config

    return config.Settings(
        data=str(data),
        ollama=config.OllamaSettings(hosts=(url,)),
        readers=config.ReaderSettings(workers=1),
        index=config.IndexSettings(keep_versions_h=0.0, vector_index_from=300),
    )


def act(what: str, data: Path, url: str) -> None:
    """Promote the new model, or go back to the old one; nothing to do where that is what serves."""
    from pipeline import history, migrate, rollback
    from pipeline.progress import Silent

    settings = settings_of(data, url)
    if what == "migrate":
        state = migrate.execute(settings, migrate.Wish(model=NEW), Silent()).state
        assert state in ("promoted", "there already"), state
        return
    old = [entry.number for entry in history.entries(settings) if entry.model == OLD]
    if history.entries(settings)[-1].model != OLD:
        rollback.execute(settings, old[-1], Silent())


def child() -> None:
    """Entry of the process that is killed: everything loaded first, so that the kill falls into the work."""
    from pipeline import lance, lance_lean, migrate, rollback  # noqa: F401

    lance_lean.install()
    lance.preload()
    what, data, url = sys.stdin.readline().split("\t")[:3]
    print("ready", flush=True)
    sys.stdin.readline()
    act(what, Path(data), url)
    print("done", flush=True)


class Child:
    """A process that waits for the word to begin."""

    def __init__(self, what: str, data: Path, url: str) -> None:
        self.data = data
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._say(f"{what}\t{data}\t{url}\t")

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def wait_until_ready(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def begin(self) -> None:
        self._say("")

    def end(self) -> float:
        """Wait until it is done; seconds."""
        began = time.monotonic()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "done\n"
        took = time.monotonic() - began
        self.reap()
        return took

    def kill(self, step: str, seconds: float) -> bool:
        """Kill it `seconds` after `step`; whether it was still at work."""
        folder = self.data / "default"
        before, deadline = marks(folder, step), time.monotonic() + 60
        while step and marks(folder, step) == before and self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.0005)
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self.reap()
        return self._process.returncode != 0

    def reap(self) -> None:
        self._process.communicate()


AIMS = {
    "": "any moment",
    "index/*.lance/_versions/*": "table written",
    "index/*.lance/_refs/tags/*": "tag moved",
    "snapshots/*": "snapshot copied",
    "published/*": "note written",
    "migrations/*": "record written",
}
NEAR_S = 0.01
PAUSE_S = 0.01  # between two looks: the one that is killed needs the processor too


def marks(folder: Path, step: str) -> set[tuple[str, int]]:
    """What lies on the disk of a step, and when each was written."""
    found = set()
    for path in folder.glob(step) if step else ():
        with contextlib.suppress(FileNotFoundError):
            found.add((path.name, path.stat().st_mtime_ns))
    return found


@dataclass(slots=True)
class Reader:
    """Looks at what is published, as fast as it can, until it is closed. `states`: model → digest of all rows."""

    data: Path
    url: str
    states: dict[str, str]
    faults: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    looks: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(PAUSE_S):
            try:
                model = look(self.data, self.url, self.states)
            except Exception as error:
                self.faults.append(f"{type(error).__name__}: {error}")
                return
            self.looks += 1
            if self.seen[-1:] != [model]:
                self.seen.append(model)


def look(data: Path, url: str, states: dict[str, str]) -> str:
    """The model that serves, after a look at every row.

    Raises:
        LookupError: model, table and rows are not of one state, or a search fails.
    """
    import numpy as np

    from pipeline import query

    standing = query.open_collection(settings_of(data, url))
    reader = query.open_reader(standing)
    model, rows = standing.spec.model, common.published_rows(reader)
    if reader.provenance["model"] != model:
        raise LookupError(f"{model} is asked of the table of {reader.provenance['model']}")
    if common.digest(rows) != states[model]:
        raise LookupError(f"{len(rows)} rows of {model} are not those that it has")
    by_words, by_vector = reader.text(rows[0]["text"], 3), reader.vector(np.ones(reader.dims, np.float32), 3)
    if not by_words.num_rows or by_vector.num_rows < 3:
        raise LookupError(f"a search found {by_words.num_rows} rows by words, {by_vector.num_rows} by vector")
    return model


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Two folders: one where the old model serves (and all vectors of the new are made), one where the new does."""

    old: Path
    new: Path
    url: str
    states: dict[str, str]


def prepare(folder: Path, server: FakeOllama, files: int) -> Prepared:
    """Build both; the new model's table is not in the first one."""
    docs, old, new = folder / "docs", folder / "old", folder / "new"
    docs.mkdir()
    generate(docs, files=files, paragraphs=8)
    common.pipeline(
        *(f"--data={old}", f"--ollama-host={server.url}", "--provider=ollama", f"--model={OLD}", "-q"),
        *("run", str(docs)),
    )
    states: dict[str, str] = {OLD: digest_of(old, server.url)}
    shutil.copytree(old, new)
    act("migrate", new, server.url)
    states[NEW] = digest_of(new, server.url)
    for kind in ("chunks", "vectors"):
        shutil.copytree(new / "default" / kind, old / "default" / kind, dirs_exist_ok=True)
    return Prepared(old=old, new=new, url=server.url, states=states)


def digest_of(data: Path, url: str) -> str:
    from pipeline import query

    return common.digest(common.published_rows(query.open_reader(query.open_collection(settings_of(data, url)))))


def start(what: str, made: Prepared, data: Path) -> Child:
    shutil.copytree(made.old if what == "migrate" else made.new, data)
    return Child(what, data, made.url)


def measure(folder: Path, made: Prepared) -> dict[str, float]:
    """How long each takes undisturbed."""
    took = {}
    for what in ("migrate", "rollback"):
        begun = start(what, made, folder / f"whole-{what}")
        begun.wait_until_ready()
        begun.begin()
        took[what] = begun.end()
    return took


def strike(what: str, process: Child, made: Prepared, step: str, after_s: float) -> tuple[str, list[str]]:
    """One kill: where it hit and what was left, and what was wrong."""
    wanted = NEW if what == "migrate" else OLD
    process.wait_until_ready()
    with Reader(process.data, made.url, made.states) as reader:
        process.begin()
        killed = process.kill(step, after_s)
    faults = [*reader.faults, *([] if reader.looks else ["nobody looked"])]
    left = look(process.data, made.url, made.states)
    act(what, process.data, made.url)
    if look(process.data, made.url, made.states) != wanted:
        faults.append(f"given once more, {what} did not end with {wanted}")
    if len(reader.seen) > 2:
        faults.append(f"readers saw {' then '.join(reader.seen)}")
    where = "not killed" if not killed else "new state" if left == wanted else "old state"
    return f"{what}, {AIMS[step]}: {where}", faults


def rounds(
    folder: Path, server: FakeOllama, kills: int, files: int, chance: random.Random, ahead: int = 2
) -> list[str]:
    """What was wrong in `kills` rounds; each is told as it ends. `ahead`: processes that load while others work."""
    made = prepare(folder, server, files)
    took = measure(folder, made)
    told: Counter[str] = Counter()
    wrong: list[str] = []
    waiting: list[tuple[str, Child]] = []
    for number in range(kills + ahead):
        if number < kills:
            what = ("migrate", "rollback")[number % 2]
            waiting.append((what, start(what, made, folder / str(number))))
        if number >= ahead:
            what, process = waiting.pop(0)
            step = "" if chance.random() < 0.3 else chance.choice(list(AIMS))
            after_s = chance.uniform(0, NEAR_S if step else took[what] * 1.1)
            outcome, faults = strike(what, process, made, step, after_s)
            told[outcome] += 1
            wrong += [f"round {number - ahead}, {outcome}: {fault}" for fault in faults]
            shutil.rmtree(process.data)
    print(common.table(("killed, and what readers saw then", "rounds"), sorted(told.items())))
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, FakeOllama(vectors="hash", models=[OLD, NEW]) as server:
        wrong = rounds(Path(folder), server, given.kills, given.files, random.Random(given.seed))
    print("\n".join(wrong) or "Nothing was wrong.")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
