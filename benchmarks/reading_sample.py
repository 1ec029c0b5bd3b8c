"""Passages drawn by lot from real files, for a person to judge; and every offset of every passage, checked.

    python -m benchmarks.reading_sample --docs DIR [--chunks 60] [--seed N] [--out FILE]
    python -m benchmarks.reading_sample --docs DIR --offsets

The first form reads every file under DIR as a run would and draws passages evenly over the formats, by at most one of a
file. It writes them as Markdown: the heading path and page that are claimed, the passage, and beside it what the file
says by other means where there are such: the page's text by pdftotext and a picture of it by pdftoppm (poppler-utils),
the raw XML around the passage's first words in a zip, the lines before them in a text. Lines "heading: ?" and "page: ?"
are for the verdict; --score counts them. A heading path is right when the passage stands under these headings in the
document, or under none where none is claimed; a page is right when the passage's first word stands on it. Neither is
judged ("-") where a format has none and none is claimed.

--offsets: whether `text[start:end]` is each passage's text, whether the blocks of each document are in order and do not
overlap, and whether nothing but white space lies between them.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.common import table
from pipeline import document, errors, readers, schema
from pipeline.models import tokens
from pipeline.readers import formats
from pipeline.stages import chunk, ingest
from pipeline.workers import WorkerPool

MEMORY_MB = 3072
PARAMS = chunk.ChunkParams(tokenizer=tokens.builtin().identity)
_LINES_BEFORE = 60
_XML_AROUND = 1500


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    path: str
    reader: str
    page: int | None
    heading_path: tuple[str, ...]
    title: str
    text: str


# --- in a worker


def passages(path: str) -> list[Passage]:
    found = readers.read_file(os.fsencode(path), Path(path).name, readers.ReaderOptions())
    if found.document is None:
        raise errors.DocumentError(found.kind, found.reason)
    made = _chunks(found.document)
    check(found.document, made)
    return [
        Passage(
            path=path,
            reader=found.reader,
            page=row["page"],
            heading_path=tuple(row["heading_path"]),
            title=found.document.title,
            text=row["text"],
        )
        for row in made
    ]


def _chunks(read: document.Document) -> list[dict[str, Any]]:
    rows = pa.Table.from_pylist([ingest.document_row("a", read)], schema=schema.DOCUMENTS)
    return chunk.chunk_documents(rows, PARAMS, tokens.builtin()).to_pylist()


def check(read: document.Document, chunks: Sequence[dict[str, Any]]) -> None:
    """That blocks and chunks cut the text as they say.

    Raises:
        AssertionError: they do not.
    """
    _cover(read.text, [(block.start, block.end) for block in read.blocks], "blocks")
    _cover(read.text, [(row["start"], row["end"]) for row in chunks], "chunks")
    for row in chunks:
        assert read.text[row["start"] : row["end"]] == row["text"], f"chunk at {row['start']} is not its text"


def _cover(text: str, spans: Sequence[tuple[int, int]], what: str) -> None:
    position = 0
    for start, end in spans:
        assert position <= start < end <= len(text), f"{what} at {start} overlap"
        assert not text[position:start].strip(), f"{what} leave out text at {position}"
        position = end
    assert not text[position:].strip(), f"{what} leave out the end"


# --- the sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, metavar="DIR")
    parser.add_argument("--chunks", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("reading_sample.md"), metavar="FILE")
    parser.add_argument("--offsets", action="store_true")
    parser.add_argument("--score", type=Path, metavar="FILE", help="count the verdicts in a judged sample")
    given = parser.parse_args()
    if given.score:
        print(score(given.score.read_text("utf-8")))
        return
    files = sorted(path for path in given.docs.rglob("*") if path.is_file() and readers.known(path.name))
    if given.offsets:
        print(offsets(files))
        return
    chosen = draw(files, given.chunks, random.Random(given.seed))
    given.out.write_text("\n".join(_written(number, one) for number, one in enumerate(chosen, 1)), "utf-8")
    print(f"{len(chosen)} passages of {len(files)} files: {given.out}")


def offsets(files: Sequence[Path]) -> str:
    """Read and check all files; a table of them by format."""
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    faults = []
    for path, found in _each(files):
        row = counts[_format(path)]
        row["files"] += 1
        if isinstance(found, list):
            row["read"] += 1
            row["chunks"] += len(found)
        elif not isinstance(found, errors.PipelineError):
            row["wrong"] += 1
            faults.append(f"{path}: {found}")
    names = ("files", "read", "chunks", "wrong")
    rows = [[name, *(f"{row[key]:,}" for key in names)] for name, row in sorted(counts.items())]
    rows.append(["all", *(f"{sum(row[key] for row in counts.values()):,}" for key in names)])
    return "\n".join([table(("format", *names), rows), *faults])


def draw(files: Sequence[Path], count: int, chance: random.Random) -> list[Passage]:
    """Passages by lot: the formats in turn, in each a file and of it a passage."""
    queues: dict[str, list[Path]] = collections.defaultdict(list)
    for path in chance.sample(files, len(files)):
        queues[_format(path)].append(path)
    chosen: list[Passage] = []
    with WorkerPool(1, memory_mb=MEMORY_MB) as pool:
        while len(chosen) < count and any(queues.values()):
            for queue in [queues[name] for name in sorted(queues)]:
                found: Any = []
                while queue and not found:
                    found = _read(pool, queue.pop())
                    found = found if isinstance(found, list) else []
                if found and len(chosen) < count:
                    chosen.append(chance.choice(found))
    return chosen


def _format(path: Path) -> str:
    found = formats.by_name(path.name)
    return found.name if found else ""


def _each(files: Sequence[Path]) -> Iterator[tuple[Path, Any]]:
    with WorkerPool(1, memory_mb=MEMORY_MB) as pool:
        for path in files:
            yield path, _read(pool, path)


def _read(pool: WorkerPool, path: Path) -> Any:
    """The passages of a file, or what was raised instead."""
    timeout_s = 60 + path.stat().st_size / 1e5
    try:
        return pool.submit("benchmarks.reading_sample:passages", str(path), timeout_s=timeout_s).result()
    except Exception as error:
        return error


# --- what a person needs


def _written(number: int, one: Passage) -> str:
    lines = [f"## {number}. {one.path}", "", f"read by {one.reader}, title: {one.title}", ""]
    lines += [f"claimed heading: {' > '.join(one.heading_path) or '(none)'}", f"claimed page: {one.page or '-'}"]
    lines += ["heading: ?", "page: ?" if one.page else "page: -", "", "```", one.text, "```", ""]
    lines += ["by other means:", "", "```", _otherwise(one).replace("```", "'''"), "```", ""]
    return "\n".join(lines)


def _otherwise(one: Passage) -> str:
    path = Path(one.path)
    if one.reader.startswith("pdfium") and one.page:
        return _program("pdftotext", "-layout", "-f", str(one.page), "-l", str(one.page), str(path), "-")
    data = path.read_bytes()
    if data.startswith(b"PK"):
        return _in_zip(path, one.text)
    lines = data.decode("utf-8", "replace").split("\n")
    at = next((at for at, line in enumerate(lines) if _key(one.text) and _key(one.text) in _squeezed(line)), None)
    return "(not found as it stands)" if at is None else "\n".join(lines[max(0, at - _LINES_BEFORE) : at + 3])


def _program(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).stdout.decode("utf-8", "replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"({command[0]}: {error})"


def _in_zip(path: Path, text: str) -> str:
    """The XML around the first words of a passage."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith((".xml", ".html", ".xhtml", ".htm")):
                    continue
                source = re.sub(r"<[^>]*>", "\n", archive.read(name).decode("utf-8", "replace"))
                source = re.sub(r"\s*\n\s*", "\n", source)
                words = _words(text)
                at = source.find(words) if words else -1
                if at >= 0:
                    return f"{name}:\n{source[max(0, at - _XML_AROUND) : at + 200]}"
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return f"({error})"
    return "(not found as it stands)"


def _words(text: str) -> str:
    return re.split(r"[\n\t]", text.lstrip("-# "), maxsplit=1)[0][:40].strip()


def _key(text: str) -> str:
    return _squeezed(text.split("\n", 1)[0])[:40]


def _squeezed(text: str) -> str:
    return "".join(text.split())


def score(judged: str) -> str:
    """The verdicts of a judged sample: "ok" is right, "-" is not counted, anything else is wrong."""
    rows = []
    for what in ("heading", "page"):
        verdicts = [line.split(":", 1)[1].strip() for line in judged.split("\n") if line.startswith(f"{what}: ")]
        counted = [verdict for verdict in verdicts if verdict != "-"]
        right = sum(verdict == "ok" for verdict in counted)
        rows.append([what, len(counted), right, f"{right / len(counted):.1%}" if counted else "-"])
    return table(("", "judged", "right", "share"), rows)


if __name__ == "__main__":
    sys.exit(main())
