"""What the readers make of real files, format by format, beside other parsers on the same files.

    python -m benchmarks.readers --docs DIR [--others unstructured,markitdown] [--packages DIR] [--show REASON]

Every file under DIR that a run would read, and a few that it would not (.doc, .ppt), goes through each parser in worker
processes with the limits of a run (time, 3 GiB of memory): a parser that hangs or dies costs that file. `unstructured`
is its own `partition` with its fast strategy (without what it fetches from a network: see pipeline.readers), and
`markitdown` takes part where --packages names a folder with it (`pip install --target DIR 'markitdown[all]'`).

Characters are those that are neither white space nor marks of a table or of Markdown, so that writing a table with
pipes and dashes gains nothing. "words of the best" is the share of the words of the richest other result, counted with
their number, that ours has too: what is missing there is worth a look. Seconds are CPU seconds of the worker; MB its
highest memory after a file of that format.
"""

from __future__ import annotations

import argparse
import collections
import io
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import table
from pipeline import errors, readers
from pipeline.readers import formats
from pipeline.workers import WorkerPool

MEMORY_MB = 3072
EXTRA = frozenset(("doc", "ppt"))
_MARKUP = re.compile(r"[\s|#*_`>\-=~\\\[\]()]+")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`refusal`: why there is no text, or ""."""

    refusal: str
    text: str = ""
    format: str = ""
    cpu_s: float = 0.0
    memory_mb: float = 0.0

    @property
    def characters(self) -> int:
        return len(_MARKUP.sub("", self.text))

    @property
    def words(self) -> collections.Counter[str]:
        return collections.Counter(_WORD.findall(self.text.lower()))


# --- in a worker


def ours(path: str, packages: str) -> Result:
    def read() -> tuple[str, str]:
        found = readers.read_file(os.fsencode(path), Path(path).name, readers.ReaderOptions())
        if found.document is None:
            raise errors.DocumentError(found.kind, found.reason)
        return found.document.text, found.reader.split("/")[0]

    return _measured(read)


def unstructured(path: str, packages: str) -> Result:
    def read() -> tuple[str, str]:
        from pipeline.readers import unstructured_

        unstructured_._partitioner("text")  # prepares the library to work without a network
        from unstructured.partition.auto import partition

        return "\n".join(str(element) for element in partition(path, strategy="fast", languages=[""])), ""

    return _measured(read)


def markitdown(path: str, packages: str) -> Result:
    def read() -> tuple[str, str]:
        if packages not in sys.path:
            sys.path.insert(0, packages)
        from markitdown import MarkItDown

        return str(MarkItDown(enable_plugins=False).convert_local(path).text_content), ""

    return _measured(read)


def _measured(read: Callable[[], tuple[str, str]]) -> Result:
    began = time.process_time()
    try:
        text, reader = read()
        refusal = "" if text.strip() else "empty"
    except errors.DocumentError as error:
        text, reader, refusal = "", "", error.kind
    except Exception as error:  # other parsers raise anything, and that is what is counted
        text, reader, refusal = "", "", type(error).__name__
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory_mb = peak / (1e6 if sys.platform == "darwin" else 1e3)
    return Result(refusal=refusal, text=text, format=reader, cpu_s=time.process_time() - began, memory_mb=memory_mb)


# --- the table


@dataclass(slots=True)
class Column:
    """What one parser made of the files of one format."""

    results: list[Result] = field(default_factory=list)

    @property
    def refusals(self) -> str:
        counts = collections.Counter(result.refusal for result in self.results if result.refusal)
        return ", ".join(f"{count} {why}" for why, count in counts.most_common()) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--others", default="unstructured", metavar="NAMES")
    parser.add_argument("--packages", type=Path, default=Path(), metavar="DIR")
    parser.add_argument("--show", default="", metavar="REASON", help="name our files refused with this reason")
    given = parser.parse_args()
    files = sorted(path for path in given.docs.rglob("*") if path.is_file() and _wanted(path))
    names = ["ours", *filter(None, given.others.split(","))]
    results = {name: list(_run(name, files, str(given.packages.absolute()))) for name in names}
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e6:.0f} MB\n")
    print(table(_header(names), list(_rows(files, results))))
    for path, result in zip(files, results["ours"], strict=True):
        if given.show and result.refusal == given.show:
            print(path)


def _wanted(path: Path) -> bool:
    return readers.known(path.name) or formats.extension(path.name) in EXTRA


def _run(name: str, files: Sequence[Path], packages: str) -> Iterator[Result]:
    with WorkerPool(os.cpu_count() or 1, memory_mb=MEMORY_MB) as pool:
        futures = []
        for path in files:
            timeout_s = 20 + path.stat().st_size / 1e6
            futures.append(pool.submit(f"benchmarks.readers:{name}", str(path), packages, timeout_s=timeout_s))
        for future in futures:
            try:
                yield future.result()
            except errors.WorkerError as error:
                yield Result(refusal=error.kind)


def _header(names: Sequence[str]) -> tuple[str, ...]:
    others = [f"{name}: {what}" for name in names[1:] for what in ("refused", "characters", "s", "MB")]
    return ("format", "files", "refused", "why", "characters", "s", "MB", *others, "words of the best")


def _rows(files: Sequence[Path], results: dict[str, list[Result]]) -> Iterator[list[object]]:
    kinds = [_kind(path) for path in files]
    for kind in [*sorted(set(kinds)), ""]:
        chosen = [at for at, found in enumerate(kinds) if kind in ("", found)]
        columns = {name: Column([each[at] for at in chosen]) for name, each in results.items()}
        first, *rest = columns.values()
        cells = [cell for column in rest for cell in _cells(column)]
        shared = _shared(first.results, [column.results for column in rest])
        yield [kind or "all", len(chosen), *_cells(first, why=True), *cells, shared]


def _kind(path: Path) -> str:
    extension = formats.extension(path.name)
    found = formats.by_name(path.name)
    return extension if extension in EXTRA or found is None else found.name


def _cells(column: Column, *, why: bool = False) -> list[object]:
    refused = sum(bool(result.refusal) for result in column.results)
    characters = sum(result.characters for result in column.results)
    cpu_s = sum(result.cpu_s for result in column.results)
    memory_mb = max(result.memory_mb for result in column.results)
    return [refused, *([column.refusals] if why else []), f"{characters:,}", f"{cpu_s:.1f}", f"{memory_mb:.0f}"]


def _shared(mine: Sequence[Result], others: Sequence[Sequence[Result]]) -> str:
    """Over the files that both could read: the words of the other result with the most of them that ours has."""
    have = total = 0
    for at, own in enumerate(mine):
        best = max((each[at] for each in others), key=lambda result: result.characters, default=None)
        if best is None or own.refusal or best.refusal:
            continue
        words = best.words
        have += (own.words & words).total()
        total += words.total()
    return f"{have / total:.3f}" if total else "-"


if __name__ == "__main__":
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
    main()
