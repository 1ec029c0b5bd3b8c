"""What the readers make of real files, format by format, beside other parsers on the same files.

    python -m benchmarks.readers --docs DIR [--docs DIR ...] [--unstructured PYTHON] [--markitdown PYTHON]
        [--most 60] [--markdown FILE] [--show REASON]

At most --most files of each format under the DIRs (chosen by a hash of their content, equal files once) go through
each parser in killable processes, one for each format, with the limits of a run (20 s and 1 s for each megabyte, 3
GiB; --slack multiplies the time on a busy machine). A parser that hangs or dies costs that file. `unstructured` is its
own `partition` with the fast strategy, and `markitdown` its `convert_local`, each in the interpreter given (see
`reading_process`); attachments are left alone.

- refused: files without a text, by reason; a hang is `timeout`.
- recall: of the words that both other parsers found in a file, counted with their number, the share that this one
  found too, over all files of the format; a refused file has none. It judges all three alike, and needs both others.
- characters: that are neither white space nor marks of a table or of Markdown, so that writing a table with pipes and
  dashes gains nothing; of ours as a share of the other parser's that found most, over files both could read. More is
  not better in itself: page headers that repeat and the targets of links are left out by ours.
- CPU s: of the parser and of what it starts, the first file read twice and counted once, so that imports do not count.
- MB: the highest resident memory of the process after the files of that format; for ours an upper bound, since a worker
  counts from what its parent had when it was started.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import io
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import reading_process
from benchmarks.common import table
from pipeline import errors, readers
from pipeline.readers import doc, formats
from pipeline.workers import WorkerPool

MEMORY_MB = 3072
EXTRA = frozenset(("doc",))  # read where LibreOffice is there
_MARKUP = re.compile(r"[\s|#*_`>\-=~\\\[\]()]+")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What is kept of one parser's text of one file. `refusal`: why there is none, or ""."""

    refusal: str
    characters: int = 0
    words: collections.Counter[str]
    cpu_s: float = 0.0
    memory_mb: float = 0.0


def main() -> None:
    given = _options()
    groups = _groups(given.docs, given.most)
    if given.only:
        groups = {kind: groups[kind] for kind in given.only.split(",")}
    pythons = {"unstructured": given.unstructured, "markitdown": given.markitdown}
    names = ["ours", *(name for name, python in pythons.items() if python)]
    jobs = [(name, kind) for kind in groups for name in names]
    with ThreadPoolExecutor(given.workers) as pool:  # parsers of one format follow each other: alike in a busy minute
        found = pool.map(lambda job: list(_run(job[0], groups[job[1]], pythons.get(job[0], ""), given.slack)), jobs)
        results = dict(zip(jobs, found, strict=True))
    text = _page(groups, names, results)
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    for kind, paths in groups.items():
        for path, result in zip(paths, results["ours", kind], strict=True):
            if given.show and result.refusal == given.show:
                print(path)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument("--unstructured", default="", metavar="PYTHON", help="an interpreter with unstructured")
    parser.add_argument("--markitdown", default="", metavar="PYTHON", help="an interpreter with markitdown[all]")
    parser.add_argument("--most", type=int, default=60, help="files of each format")
    parser.add_argument("--only", default="", metavar="FORMATS", help="as in the table, with commas between them")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--slack", type=float, default=1.0)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as well")
    parser.add_argument("--show", default="", metavar="REASON", help="name our files refused with this reason")
    return parser.parse_args()


# --- the files


def _groups(folders: Sequence[Path], most: int) -> dict[str, list[Path]]:
    """Files by format, in order of a hash of their content."""
    by_kind: dict[str, dict[str, Path]] = collections.defaultdict(dict)
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.stat().st_size and (kind := _kind(path)):
                by_kind[kind].setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    return {kind: [each[key] for key in sorted(each)[:most]] for kind, each in sorted(by_kind.items())}


def _kind(path: Path) -> str:
    extension = formats.extension(path.name)
    found = formats.by_name(path.name)
    if extension in EXTRA:
        return extension
    return found.name if found else ""


# --- the parsers


def ours(path: str) -> dict[str, Any]:
    """In a worker: as reading_process answers."""
    began, text = reading_process.cpu_s(), ""
    options = readers.ReaderOptions(attachments=False, doc=doc.available())
    found = readers.read_file(os.fsencode(path), Path(path).name, options)
    text = found.document.text if found.document else ""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory_mb = peak / (1e6 if sys.platform == "darwin" else 1e3)
    return {"refusal": found.kind, "text": text, "cpu_s": reading_process.cpu_s() - began, "memory_mb": memory_mb}


def _run(name: str, paths: Sequence[Path], python: str, slack: float) -> Iterator[Result]:
    """The first file is read twice: once to load what its format needs."""
    with _Own() if name == "ours" else _Other(name, python) as parser:
        parser.read(paths[0], _limit_s(paths[0], slack))
        for path in paths:
            yield _kept(parser.read(path, _limit_s(path, slack)))


def _kept(found: dict[str, Any]) -> Result:
    text = unicodedata.normalize("NFKC", found["text"]).lower()
    return Result(
        refusal=found["refusal"],
        characters=len(_MARKUP.sub("", text)),
        words=collections.Counter(_WORD.findall(text)),
        cpu_s=found["cpu_s"],
        memory_mb=found["memory_mb"],
    )


def _lost(why: str, cpu_s: float = 0.0) -> dict[str, Any]:
    return {"refusal": why, "text": "", "cpu_s": cpu_s, "memory_mb": 0.0}


def _limit_s(path: Path, slack: float) -> float:
    return slack * (20 + path.stat().st_size / 1e6)


class _Own:
    def __enter__(self) -> _Own:
        self._pool = WorkerPool(1, memory_mb=MEMORY_MB).__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self._pool.__exit__(*reason)

    def read(self, path: Path, limit_s: float) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            found: dict[str, Any] = self._pool.submit("benchmarks.readers:ours", str(path), timeout_s=limit_s).result()
        except errors.WorkerError as error:
            return _lost(error.kind, time.perf_counter() - began)
        return found


class _Other:
    """A parser in another interpreter, started again where it was killed or died."""

    def __init__(self, name: str, python: str) -> None:
        self._command = [python, reading_process.__file__, name, str(MEMORY_MB)]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> _Other:
        return self

    def __exit__(self, *reason: Any) -> None:
        self._stop()

    def read(self, path: Path, limit_s: float) -> dict[str, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        began = time.perf_counter()
        timer = threading.Timer(limit_s, self._kill, (process,))
        timer.start()
        try:
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        took_s = time.perf_counter() - began
        timer.cancel()
        if answer.endswith("\n"):
            found: dict[str, Any] = json.loads(answer)
            return found
        self._stop()
        return _lost("timeout" if took_s >= limit_s else "crashed", took_s)

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(
                self._command, stdin=pipe, stdout=pipe, encoding="utf-8", start_new_session=True
            )
            assert self._process.stdout is not None
            if self._process.stdout.readline() != "ready\n":
                sys.exit(f"{' '.join(self._command)} does not start")
        return self._process

    @staticmethod
    def _kill(process: subprocess.Popen[str]) -> None:
        """With what it started: LibreOffice would go on."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def _stop(self) -> None:
        if self._process is not None:
            self._kill(self._process)
            self._process.communicate()
            self._process = None


# --- the table

Results = dict[tuple[str, str], list[Result]]
_TITLE = """# The readers beside others

Printed by `python -m benchmarks.readers`, whose docstring says what is counted: public test documents of other
programs, many of them broken on purpose. "recall" is of the words that both other parsers found; "characters" are ours,
as a share of the other parser's that found most.
"""


def _page(groups: dict[str, list[Path]], names: Sequence[str], results: Results) -> str:
    files = sum(map(len, groups.values()))
    size = sum(path.stat().st_size for paths in groups.values() for path in paths)
    header = ["format", "files", "ours refused", *(f"{name}: refused" for name in names[1:])]
    header += [f"recall: {name}" for name in names] if len(names) == 3 else []
    header += ["characters"] if len(names) > 1 else []
    header += [f"CPU s: {name}" for name in names] + [f"MB: {name}" for name in names]
    rows = [_row(kind, [kind], names, results) for kind in groups]
    rows.append(_row("all", list(groups), names, results))
    return f"{_TITLE}\n{files} files, {size / 1e6:.0f} MB\n\n{table(header, rows)}\n"


def _row(title: str, kinds: Sequence[str], names: Sequence[str], results: Results) -> list[object]:
    columns = [[one for kind in kinds for one in results[name, kind]] for name in names]
    refused = [_refusals(columns[0]), *(_count(column) for column in columns[1:])]
    recalls = [_recall(column, [other for other in columns if other is not column]) for column in columns]
    ratio = [_ratio(columns[0], columns[1:])] if len(names) > 1 else []
    cpu = [f"{sum(one.cpu_s for one in column):.1f}" for column in columns]
    memory = [f"{max(one.memory_mb for one in column):.0f}" for column in columns]
    return [title, len(columns[0]), *refused, *(recalls if len(names) == 3 else []), *ratio, *cpu, *memory]


def _refusals(column: Sequence[Result]) -> str:
    counts = collections.Counter(one.refusal for one in column if one.refusal)
    return ", ".join(f"{count} {why}" for why, count in counts.most_common()) or "0"


def _count(column: Sequence[Result]) -> str:
    """How many, and how many of these hung or died."""
    counts = collections.Counter(one.refusal for one in column if one.refusal)
    lost = counts["timeout"] + counts["crashed"] + counts["MemoryError"]
    return f"{counts.total()}" + (f" ({lost} hung or died)" if lost else "")


def _recall(column: Sequence[Result], others: Sequence[Sequence[Result]]) -> str:
    have = total = 0
    for one, *rest in zip(column, *others, strict=True):
        if len(rest) == 2:
            both = rest[0].words & rest[1].words
            have += (one.words & both).total()
            total += both.total()
    return f"{have / total:.3f}" if total else "-"


def _ratio(column: Sequence[Result], others: Sequence[Sequence[Result]]) -> str:
    mine = best = 0
    for one, *rest in zip(column, *others, strict=True):
        most = max(other.characters for other in rest)
        if one.characters and most:
            mine += one.characters
            best += most
    return f"{mine / best:.2f}" if best else "-"


if __name__ == "__main__":
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8", line_buffering=True)
    main()
