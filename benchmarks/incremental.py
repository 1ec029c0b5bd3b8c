"""What a change costs: texts sent to the model by each step of the series, expected and seen.

    python -m benchmarks.incremental [--docs FOLDER] [--files 1500]

FOLDER is copied, never touched; its Markdown files (or all, with --suffix "") are indexed against the fake Ollama,
which records every text that it is asked to embed. Without --docs: 40 generated files of 20 paragraphs. Both have one
file of 200 kB beside them.

Beside the most that a step may cost stands what it made due: texts of the new chunks whose key was not in the vector
log before. Each of these must be sent once and nothing else but the canary, the sentence by which a server is known
again. After each step the rows that are searched are compared with those before it: files that were not touched kept
theirs, one that was moved has its old rows under the new path, a deleted one has none. At the end a new collection is
built of the same folder: it must hold the same. Exit code 1 if anything is otherwise.

Two steps need explaining. *A newer parser that yields the same text*: the snapshot says who read each file
("markdown/1"); it is written again as an older program would have left it ("markdown/0"), so that every file is read
anew. *The model changed*: `pipeline migrate` runs in nights of a few seconds while a process searches all the while,
which must see the old table whole until it sees the new one whole; a text whose answer was not there when the night was
over is sent again in the next.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.onlooker import Look, Onlooker
from tests.fake_ollama.client import FakeOllama

WORDS = [f"{a}{b}" for a in ("stone", "river", "cloud", "lamp", "field") for b in ("maker", "light", "bridge", "song")]
LARGE = "large.md"
LARGE_BYTES = 200_000
EDITED, GONE = "(edited)", "(gone)"
OTHER_SIZE = 224  # of a chunk, in tokens, instead of 256
MODEL, OTHER_MODEL = "mxbai-embed-large", "bge-m3"
MOST_NIGHTS = 20
IN_FLIGHT = 128  # texts under way at once: two requests of 64

Changed = Mapping[str, str]  # uri → the uri whose text it holds now, EDITED or GONE; what is not in it is untouched


# --- folders -------------------------------------------------------------------------------------------------------


def paragraph(dice: random.Random, sentences: int = 5) -> str:
    return " ".join(" ".join(dice.choices(WORDS, k=12)).capitalize() + "." for _ in range(sentences))


def generate(folder: Path, files: int = 40, paragraphs: int = 20) -> None:
    dice = random.Random(7)
    for number in range(files):
        text = [f"# File {number}\n", *(paragraph(dice) + "\n" for _ in range(paragraphs))]
        (folder / f"{number:03d}.md").write_text("\n".join(text))


def generate_large(folder: Path) -> None:
    """One file of 200 kB, with a heading now and then."""
    dice = random.Random(11)
    parts: list[str] = []
    while sum(map(len, parts)) < LARGE_BYTES:
        parts += [f"\n## Part {len(parts)}\n", *(paragraph(dice) + "\n" for _ in range(dice.randint(3, 12)))]
    (folder / LARGE).write_text("\n".join(parts))


def join_large(folder: Path) -> None:
    """The same of real text: the first files one after another."""
    text = ""
    for path in documents(folder):
        text += path.read_text(encoding="utf-8", errors="replace") + "\n\n"
        if len(text) > LARGE_BYTES:
            break
    (folder / LARGE).write_text(text[:LARGE_BYTES], encoding="utf-8")


def copy_documents(source: Path, target: Path, files: int, suffix: str) -> int:
    """Copy at most `files` documents, folders kept."""
    names = sorted(path for path in source.rglob(f"*{suffix}") if path.is_file())[:files]
    for path in names:
        to = target / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
    return len(names)


def documents(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def middling(folder: Path, nth: int = 0) -> Path:
    """A file of at least a few paragraphs, neither the first nor the last. Another for each `nth`."""
    large = [path for path in documents(folder) if path.stat().st_size > 3_000 and path.name != LARGE]
    return large[len(large) // 2 + nth]


# --- changes: each makes one and says what became of the files -----------------------------------------------------


def nothing(folder: Path) -> Changed:
    return {}


def touch(folder: Path) -> Changed:
    for path in documents(folder):
        os.utime(path)
    return {}


def edit_end(folder: Path) -> Changed:
    """A few words more in the last paragraph."""
    path = middling(folder)
    path.write_bytes(path.read_bytes().rstrip() + b" And a few words more.\n")
    return {path.relative_to(folder).as_posix(): EDITED}


def insert_at_top(folder: Path) -> Changed:
    path = middling(folder, 1)
    path.write_bytes(b"A line that was not here before.\n\n" + path.read_bytes())
    return {path.relative_to(folder).as_posix(): EDITED}


def edit_middle(folder: Path) -> Changed:
    """A word more in a sentence in the middle of the 200 kB file."""
    path = folder / LARGE
    data = path.read_bytes()
    at = data.index(b" ", len(data) // 2)
    path.write_bytes(data[:at] + b" quite" + data[at:])
    return {LARGE: EDITED}


def move(folder: Path) -> Changed:
    path = middling(folder, 2)
    target = folder / "another folder" / f"moved {path.name}"
    target.parent.mkdir()
    path.rename(target)
    before = path.relative_to(folder).as_posix()
    return {target.relative_to(folder).as_posix(): before, before: GONE}


def copy(folder: Path) -> Changed:
    path = middling(folder, 3)
    target = path.with_name(f"copied {path.name}")
    shutil.copyfile(path, target)
    return {target.relative_to(folder).as_posix(): path.relative_to(folder).as_posix()}


def delete(folder: Path) -> Changed:
    path = middling(folder, 4)
    path.unlink()
    return {path.relative_to(folder).as_posix(): GONE}


def swap(folder: Path) -> Changed:
    one, two = middling(folder, 5), middling(folder, 6)
    third = one.with_name("third")
    one.rename(third)
    two.rename(one)
    third.rename(two)
    names = one.relative_to(folder).as_posix(), two.relative_to(folder).as_posix()
    return dict(zip(names, reversed(names), strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change and the most texts it may cost; None: as many as it makes due. `old_reader`: see the module."""

    name: str
    change: Callable[[Path], Changed]
    most: int | None = 0
    settings: Mapping[str, int] = field(default_factory=dict)  # of the section chunk, from here on
    old_reader: bool = False


SERIES = (
    Step(name="no change", change=nothing),
    Step(name="every mtime touched", change=touch),
    Step(name="last paragraph edited", change=edit_end, most=2),
    Step(name="a line inserted at the top", change=insert_at_top, most=2),
    Step(name="a sentence edited in the middle of 200 kB", change=edit_middle, most=3),
    Step(name="a file moved", change=move),
    Step(name="a file copied", change=copy),
    Step(name="a file deleted", change=delete),
    Step(name="two files swapped by name", change=swap),
    Step(name="a newer parser, the same text", change=nothing, old_reader=True),
    Step(name=f"chunk size 256 → {OTHER_SIZE}", change=nothing, most=None, settings={"size": OTHER_SIZE}),
)


# --- what is right -------------------------------------------------------------------------------------------------


def rows_by_file(held: Mapping[str, Any]) -> dict[str, list[tuple[object, ...]]]:
    """What each file's rows say, without whose they are."""
    found: dict[str, list[tuple[object, ...]]] = {}
    for row in held["rows"]:
        said = tuple(row[name] for name in ("start", "end", "page", "heading", "title", "text"))
        found.setdefault(row["uri"], []).append(said)
    return {uri: sorted(rows, key=repr) for uri, rows in found.items()}


def wrong_rows(before: Mapping[str, Any], after: Mapping[str, Any], changed: Changed) -> list[str]:
    """Files whose rows are not what the step should have made of them."""
    was, now = rows_by_file(before), rows_by_file(after)
    wrong = []
    for uri in sorted(was.keys() | now.keys() | changed.keys()):
        source = changed.get(uri, uri)
        if source == EDITED:
            good = now.get(uri, []) not in ([], was[uri])
        else:
            good = now.get(uri) == (None if source == GONE else was.get(source))
        if not good:
            wrong.append(uri)
    return wrong


def differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """Which parts of two collections differ; vectors are compared to the last bit."""
    names = [name for name in ("documents", "chunks", "rows", "row_count", "keys") if one[name] != two[name]]
    same = one["vectors"].shape == two["vectors"].shape and np.array_equal(one["vectors"], two["vectors"])
    return names if same else [*names, "vectors"]


def consistent(held: Mapping[str, Any]) -> bool:
    """Every live chunk has its vector and one row, and there is no other row."""
    chunks = [row["chunk_id"] for row in held["chunks"]]
    return (
        chunks == [row["chunk_id"] for row in held["rows"]]
        and held["row_count"] == len(chunks)
        and len(held["keys"]) == len({row["embed_key"] for row in held["chunks"]})
    )


def wrong_looks(looks: Sequence[Look], before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What somebody saw who searched while a model was changed, and should not have seen."""
    wrong = [look.error for look in looks if look.error]
    states = [(common.digest(held["rows"]), held["model"]) for held in (before, after)]
    seen = [(look.digest, look.model) for look in looks if not look.error]
    if strange := [state for state in seen if state not in states]:
        wrong.append(f"{len(strange)} looks saw another table")
    elif seen != sorted(seen, key=states.index) or set(seen) != set(states):
        wrong.append("not the old table and then the new one")
    return wrong


# --- the series ----------------------------------------------------------------------------------------------------


class Series:
    """A collection and the table of what happened to it."""

    def __init__(self, folder: Path, data: Path, server: FakeOllama) -> None:
        self._folder = folder
        self._data = data
        self._server = server
        self._chunk: dict[str, int] = {}
        self._first_s = self._first_tokens = 0.0
        self.rows: list[list[object]] = []
        self.bad: list[str] = []

    def _options(self, data: Path) -> list[str]:
        return ["--data", str(data), "--provider", "ollama", "--ollama-host", self._server.url]

    def pipeline(self, *arguments: str) -> dict[str, Any]:
        """`pipeline ARGUMENTS --json`, with the settings of now."""
        env = common.environment(**{f"chunk_{name}": value for name, value in self._chunk.items()})
        return common.run(*self._options(self._data), *arguments, env=env)

    def content(self, data: Path | None = None) -> dict[str, Any]:
        from pipeline import config

        return common.content(data or self._data, chunk=config.ChunkSettings(**self._chunk))

    def first(self) -> None:
        began = time.monotonic()
        self.pipeline("run", str(self._folder))
        held = self.content()
        self._first_s, self._first_tokens = time.monotonic() - began, self._server.counters()["tokens"]
        self._judge("first run", None, set(held["keys"]), held, [], self._first_s)

    def step(self, step: Step) -> None:
        before, known = self.content(), self._log()
        if step.old_reader:
            self._age_readers()
        changed = step.change(self._folder)
        self._chunk |= step.settings
        self._server.reset()
        began = time.monotonic()
        self.pipeline("run", str(self._folder))
        seconds = time.monotonic() - began
        held = self.content()
        due = {key for key, there in zip(held["keys"], known.contains(held["keys"]), strict=True) if not there}
        wrong = [] if step.settings else wrong_rows(before, held, changed)
        if step.old_reader and "/0" in "".join(self._readers()):
            wrong.append("not read again")
        self._judge(step.name, step.most, due, held, wrong, seconds)

    def _judge(
        self,
        name: str,
        most: int | None,
        due: set[str],
        held: dict[str, Any],
        wrong: list[str],
        seconds: float,
        again: int = 0,
    ) -> None:
        """`most`: see Step; `again`: texts that may be sent twice, because a time limit came before their answer."""
        sent, allowed = self._sent(), len(due) + again if most is None else most
        good = set(sent) == due and len(sent) <= min(allowed, len(due) + again)
        if not consistent(held):
            wrong = [*wrong, "table ≠ chunks"]
        self.rows.append(
            [
                name,
                f"≤ {allowed}" if most or again else allowed,
                len(sent),
                len(due),
                held["row_count"],
                ", ".join(wrong[:3]) or "as expected",
                f"{seconds:.1f}",
            ]
        )
        print(*self.rows[-1], sep=" | ", file=sys.stderr, flush=True)  # a long series is watched
        if wrong or not good:
            self.bad.append(name)

    def _sent(self) -> list[str]:
        """Keys of the texts that the server was sent, but the canary's."""
        from pipeline import ids
        from pipeline.models import canary

        return [ids.embed_key(text) for text in self._server.texts() if text != canary.TEXT]

    def _log(self) -> Any:
        """The vector log as it is now: what is written later is not in it."""
        from pipeline import live
        from pipeline.store import Collection

        store = Collection(self._data, "default")
        spec = store.embedder()
        assert spec is not None
        return live.vector_log(store, spec)

    def _readers(self) -> list[str]:
        from pipeline.store import Collection

        snapshot = Collection(self._data, "default").snapshot()
        assert snapshot is not None
        return [str(reader) for reader in snapshot.table["reader"].to_pylist()]

    def _age_readers(self) -> None:
        """Say in the snapshot that each file was read by version 0 of its reader."""
        import pyarrow as pa

        from pipeline.store import Collection

        store = Collection(self._data, "default")
        snapshot = store.snapshot()
        assert snapshot is not None
        older = [reader.partition("/")[0] + "/0" for reader in self._readers()]
        at = snapshot.table.column_names.index("reader")
        table = snapshot.table.set_column(at, snapshot.table.schema.field(at), pa.array(older))
        with store.writing():
            store.write_snapshot(table, snapshot.sources, snapshot.scanned_ns)

    def switch(self, word: str, pause_s: float) -> None:
        """Another model, over a few nights, while somebody searches: the old table whole until the new one is whole.

        Args:
            word: that some passages hold; pause_s: between two looks (each reads all rows).
        """
        before = self.content()
        self._server.reset()
        night_s, began, nights = max(5, round(self._first_s / 3)), time.monotonic(), 0
        self._server.configure(cost_us_per_token=8e6 / self._first_tokens)  # eight seconds for all
        with Onlooker(self._data, self._data.with_name("looks.jsonl"), word=word, pause_s=pause_s) as eyes:
            state = ""
            while state != "promoted" and nights < MOST_NIGHTS:
                model = () if nights else ("--model", OTHER_MODEL)
                state = self.pipeline("migrate", *model, "--max-duration", f"{night_s}s")["state"]
                eyes.wait()
                nights += 1
            eyes.wait(2)
            looks = eyes.looks()
        seconds = time.monotonic() - began
        self._server.configure(cost_us_per_token=0.0)
        held = self.content()
        wrong = wrong_looks(looks, before, held) + ([] if state == "promoted" else [f"state {state}"])
        name = f"model → {OTHER_MODEL}, {nights} nights, {len(looks)} looks"
        self._judge(name, None, set(held["keys"]), held, wrong, seconds, again=IN_FLIGHT * (nights - 1))

    def like_new(self, data: Path) -> None:
        """The collection against one that is built of the same folder in one go."""
        env = common.environment(**{f"chunk_{name}": value for name, value in self._chunk.items()})
        model = self.content()["model"]
        common.run(*self._options(data), "--model", model, "run", str(self._folder), env=env)
        found = differences(self.content(data), self.content())
        self.rows.append(["beside a new collection", "", "", "", "", ", ".join(found) or "the same", ""])
        if found:
            self.bad.append("beside a new collection")


def series(
    folder: Path,
    data: Path,
    server: FakeOllama,
    steps: tuple[Step, ...] = SERIES,
    *,
    word: str = WORDS[0],
    pause_s: float = 0.25,
) -> bool:
    """Run the series, print its table; returns whether all was as expected. `word`, `pause_s`: see `Series.switch`."""
    run = Series(folder, data, server)
    run.first()
    for step in steps:
        run.step(step)
    if steps is SERIES:
        run.switch(word, pause_s)
        run.step(Step(name="no change", change=nothing))
        run.like_new(data.with_name(f"{data.name}-new"))
    print(common.table(["step", "texts allowed", "sent", "due", "rows", "rows of the files", "s"], run.rows))
    for name in run.bad:
        print(f"NOT AS EXPECTED: {name}")
    return not run.bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--files", type=int, default=1500)
    parser.add_argument("--suffix", default=".md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, data = Path(scratch, "docs"), Path(scratch, "data")
        folder.mkdir()
        if arguments.docs:
            print(f"{copy_documents(arguments.docs, folder, arguments.files, arguments.suffix)} real files")
            join_large(folder)
        else:
            generate(folder)
            generate_large(folder)
            print("40 generated files of 20 paragraphs")
        word, pause_s = ("the", 5.0) if arguments.docs else (WORDS[0], 0.25)
        with FakeOllama(vectors="hash", models=(MODEL, OTHER_MODEL)) as server:
            return 0 if series(folder, data, server, word=word, pause_s=pause_s) else 1


if __name__ == "__main__":
    sys.exit(main())
