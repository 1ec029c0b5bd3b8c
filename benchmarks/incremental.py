"""What a change costs: texts sent to the model by each step of the series, expected and seen.

    python -m benchmarks.incremental --docs FOLDER [--files 1500]

FOLDER is copied, never touched; its Markdown files (or all, with --suffix "") are indexed against the fake Ollama,
which counts every text that it is asked to embed. Without --docs: 40 generated files of 20 paragraphs. Exit code 1 if
a step costs too much.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import common
from tests.fake_ollama.client import FakeOllama


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A change to the folder and the most texts it may cost; `exact`: not fewer either."""

    name: str
    change: Callable[[Path], None]
    most: int
    exact: bool = False


def generate(folder: Path, files: int = 40, paragraphs: int = 20) -> None:
    dice = random.Random(7)
    words = [
        f"{a}{b}" for a in ("stone", "river", "cloud", "lamp", "field") for b in ("maker", "light", "bridge", "song")
    ]
    for number in range(files):
        text = [f"# File {number}\n"]
        for _ in range(paragraphs):
            sentences = [" ".join(dice.choices(words, k=12)).capitalize() + "." for _ in range(5)]
            text.append(" ".join(sentences) + "\n")
        (folder / f"{number:03d}.md").write_text("\n".join(text))


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


def middling(folder: Path) -> Path:
    """A file of at least a few paragraphs, neither the first nor the last."""
    large = [path for path in documents(folder) if path.stat().st_size > 3_000]
    return large[len(large) // 2]


def largest(folder: Path) -> Path:
    return max(documents(folder), key=lambda path: path.stat().st_size)


def touch(folder: Path) -> None:
    for path in documents(folder):
        os.utime(path)


def edit_middle(folder: Path) -> None:
    path = largest(folder)
    text = path.read_text(errors="replace")
    at = text.index(" ", len(text) // 2)
    path.write_text(text[:at] + " quite" + text[at:])


def append(folder: Path) -> None:
    with middling(folder).open("a") as file:
        file.write("\nA paragraph that was not here before.\n")


def insert_at_top(folder: Path) -> None:
    path = middling(folder)
    path.write_text("A line that was not here before.\n\n" + path.read_text(errors="replace"))


def move(folder: Path) -> None:
    path = middling(folder)
    path.rename(path.with_name("moved-" + path.name))


def copy(folder: Path) -> None:
    path = middling(folder)
    shutil.copyfile(path, path.with_name("copied-" + path.name))


def delete(folder: Path) -> None:
    middling(folder).unlink()


def swap(folder: Path) -> None:
    one, two = documents(folder)[:2]
    third = one.with_name("third")
    one.rename(third)
    two.rename(one)
    third.rename(two)


SERIES = (
    Step(name="no change", change=lambda folder: None, most=0),
    Step(name="every mtime touched", change=touch, most=0),
    Step(name="a paragraph added at the end", change=append, most=2),
    Step(name="a line inserted at the top", change=insert_at_top, most=2),
    Step(name="a word added in the middle of the largest file", change=edit_middle, most=3),
    Step(name="a file moved", change=move, most=0),
    Step(name="a file copied", change=copy, most=0),
    Step(name="a file deleted", change=delete, most=0),
    Step(name="two files swapped by name", change=swap, most=0),
)


def series(folder: Path, data: Path, server: FakeOllama) -> bool:
    """Run the series, print its table; returns whether no step cost more than it may."""
    options = ("--data", str(data), "--provider", "ollama", "--ollama-host", server.url)
    rows: list[list[object]] = []
    good = True
    for step in (None, *SERIES):
        if step is not None:
            step.change(folder)
        server.reset()
        began = time.monotonic()
        report = common.run(*options, "run", str(folder))
        seconds = time.monotonic() - began
        seen = server.counters()["texts"]
        unique = len(set(server.texts()))
        held = common.content(data)
        consistent = held["row_count"] == len(held["rows"]) == len(held["chunks"]) == report["vectors"]
        if step is None:
            good &= seen == unique
            rows.append(["first run", f"{unique} unique", seen, report["chunks"], f"{seconds:.1f}", consistent])
        else:
            good &= seen <= step.most and consistent
            rows.append([step.name, f"≤ {step.most}", seen, report["chunks"], f"{seconds:.1f}", consistent])
    print(common.table(["step", "expected texts", "seen", "chunks", "s", "table = chunks"], rows))
    return good


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
        else:
            generate(folder)
            print("40 generated files of 20 paragraphs")
        with FakeOllama(vectors="hash") as server:
            return 0 if series(folder, data, server) else 1


if __name__ == "__main__":
    sys.exit(main())
