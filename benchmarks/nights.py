"""30 nights of a collection that changes a little every day: disk, time and latency must stay flat.

    python -m benchmarks.nights [--nights 30] [--files 400] [--svg nights.svg]

Each day 1 % of the files are edited, 1 % moved and 1 % deleted, and as many written anew as were deleted, so that the
collection stays as large as it was and whatever grows is waste. Each night `pipeline run` and `pipeline gc` run against
the fake Ollama (vectors of hashes, no time for a text); then the folder on disk is measured, and searches by words and
vector are asked of the published table. Nights follow each other at once here, so that a replaced index is freed at
once too, not after an hour; and 7 reports are kept, not 90. The number of files goes up and down: `gc` joins small
shards when there are eight.

Time is that of the processor, of the run with its workers: the wall clock of a shared machine says little. After the
first nights (seven snapshots are kept, so that until then the disk must grow) each series is judged by the Theil-Sen
slope, the median of the slopes between all pairs of nights, times the nights that were judged: what it grew by, as a
share of its median. It may not be more than the limit unless it might as well be chance: then the slope's own 95 %
interval (Sen 1968, by Kendall's variance) reaches below the limit. Exit code 1 if one grows, or if a night's table is
not what it should be.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.incremental import WORDS, consistent, documents, generate, paragraph
from tests.fake_ollama.client import FakeOllama

SHARE = 0.01
TUNING = {"index_keep_versions_h": 0, "report_keep": 7}
WARM = 8  # nights that are not judged: seven snapshots are kept
QUESTIONS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """What was measured after one. `run_s`, `gc_s`: processor time; `wall_s`: of both; `query_ms`: median, processor
    time.
    """

    disk_mb: float
    files_on_disk: int
    run_s: float
    gc_s: float
    wall_s: float
    query_ms: float
    texts: int
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Growth over the nights that were judged, as a share of the median: the estimate and the lower end of its 95 %
    interval.
    """

    growth: float
    least: float

    def within(self, limit: float) -> bool:
        return self.growth <= limit or self.least <= limit


# what is judged → how much it may grow in the nights after the first
LIMITS = {"disk_mb": 0.10, "run_s": 0.15, "gc_s": 0.15, "query_ms": 0.15}


def judge(values: Sequence[float]) -> Judgement:
    """Theil-Sen slope of `values` over 0, 1, 2, …, as growth from the first to the last."""
    n = len(values)
    slopes = sorted((values[j] - values[i]) / (j - i) for i in range(n) for j in range(i + 1, n))
    spread = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    lowest = max(0, round((len(slopes) - spread) / 2))
    scale = (n - 1) / statistics.median(values)
    return Judgement(growth=statistics.median(slopes) * scale, least=slopes[lowest] * scale)


# --- a day and a night ---------------------------------------------------------------------------------------------


def change(folder: Path, dice: random.Random, night: int, share: float = SHARE) -> None:
    """A day's work: `share` of the files edited, as many moved, as many deleted and written."""
    files = documents(folder)
    count = max(1, round(share * len(files)))
    chosen = dice.sample(files, 3 * count)
    for path in chosen[:count]:
        paragraphs = path.read_text().split("\n\n")
        paragraphs[dice.randrange(1, len(paragraphs))] = paragraph(dice) + "\n"
        path.write_text("\n\n".join(paragraphs))
    for number, path in enumerate(chosen[count : 2 * count]):
        target = folder / f"shelf {dice.randrange(10)}" / f"{night:02d}-{number}-moved.md"
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    for number, path in enumerate(chosen[2 * count :]):
        path.unlink()
        text = [f"# Night {night}, {number}\n", *(paragraph(dice) + "\n" for _ in range(20))]
        (folder / f"{night:02d}-{number}-new.md").write_text("\n".join(text))


class Year:
    """A collection through its nights."""

    def __init__(self, scratch: Path, server: FakeOllama) -> None:
        self.docs = scratch / "docs"
        self._data = scratch / "data"
        self._server = server
        self._options = ["--data", str(self._data), "--provider", "ollama", "--ollama-host", server.url]
        self._env = common.environment(**TUNING)
        self.wrong: list[str] = []

    def _timed(self, *arguments: str) -> float:
        """Processor seconds of `pipeline ARGUMENTS` and its workers."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        common.pipeline(*self._options, *arguments, env=self._env)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def night(self, number: int) -> Night:
        self._server.reset()
        began = time.monotonic()
        run_s = self._timed("run", str(self.docs))
        gc_s = self._timed("gc")
        wall_s = time.monotonic() - began
        held = common.content(self._data)
        if not consistent(held):
            self.wrong.append(f"after night {number} the table is not what the chunks are")
        if number and (again := self._server.counters()["texts"]) > 0.1 * held["row_count"]:
            self.wrong.append(f"night {number} sent {again} texts")
        sizes = [path.lstat().st_size for path in self._data.rglob("*") if path.is_file()]
        return Night(
            disk_mb=sum(sizes) / 1e6,
            files_on_disk=len(sizes),
            run_s=run_s,
            gc_s=gc_s,
            wall_s=wall_s,
            query_ms=self._query_ms(),
            texts=self._server.counters()["texts"],
            rows=held["row_count"],
        )

    def _query_ms(self) -> float:
        """Median processor time of a question by words and by vector, each of an opened table."""
        import numpy as np

        from pipeline import config, query

        reader = query.open_reader(query.open_collection(config.Settings(data=str(self._data))))
        dice, rng = random.Random(1), np.random.default_rng(1)
        times = []
        for _ in range(QUESTIONS):
            vector: Any = rng.standard_normal(reader.dims).astype(np.float32)
            words = " ".join(dice.choices(WORDS, k=3))
            began = time.process_time()
            reader.text(words, 50)
            reader.vector(vector, 50)
            times.append(time.process_time() - began)
        return statistics.median(times) * 1000


# --- the plot ------------------------------------------------------------------------------------------------------

_PANEL_W, _PANEL_H, _PAD = 300, 150, 46


def svg(panels: Sequence[tuple[str, Sequence[float]]]) -> str:
    """Line charts one beside the other, each from 0 up: SVG that needs nothing else."""
    width, height = _PAD + len(panels) * (_PANEL_W + _PAD), _PANEL_H + 2 * _PAD
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">',
        '<g font-family="sans-serif" font-size="11" fill="#444">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, (title, values) in enumerate(panels):
        parts += _panel(_PAD + number * (_PANEL_W + _PAD), title, values)
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _panel(left: float, title: str, values: Sequence[float]) -> list[str]:
    top = 1.15 * max(values)
    step = _PANEL_W / max(1, len(values) - 1)
    points = [f"{left + n * step:.1f},{_PAD + _PANEL_H * (1 - value / top):.1f}" for n, value in enumerate(values)]
    bottom, marks = _PAD + _PANEL_H, [0.0, top / 2, top]
    axis = [
        f'<text x="{left - 5}" y="{_PAD + _PANEL_H * (1 - mark / top) + 4:.1f}" text-anchor="end">{mark:.3g}</text>'
        f'<line x1="{left}" x2="{left + _PANEL_W}" y1="{_PAD + _PANEL_H * (1 - mark / top):.1f}" '
        f'y2="{_PAD + _PANEL_H * (1 - mark / top):.1f}" stroke="#ddd"/>'
        for mark in marks
    ]
    return [
        f'<text x="{left}" y="{_PAD - 14}" font-size="13" fill="#111">{title}</text>',
        *axis,
        f'<text x="{left}" y="{bottom + 16}">night 0</text>',
        f'<text x="{left + _PANEL_W}" y="{bottom + 16}" text-anchor="end">{len(values) - 1}</text>',
        f'<path d="M{" L".join(points)}" fill="none" stroke="#1f5fa8" stroke-width="1.6"/>',
    ]


# --- all of it -----------------------------------------------------------------------------------------------------


def show(nights: Sequence[Night], warm: int) -> bool:
    """Print the table and the judgements; returns whether all is flat."""
    header = [
        "night",
        "disk MB",
        "files",
        "run, CPU s",
        "gc, CPU s",
        "both, wall s",
        "query, CPU ms",
        "texts",
        "rows",
    ]
    rows = [
        [
            n,
            f"{night.disk_mb:.1f}",
            night.files_on_disk,
            f"{night.run_s:.2f}",
            f"{night.gc_s:.2f}",
            f"{night.wall_s:.1f}",
            f"{night.query_ms:.1f}",
            night.texts,
            night.rows,
        ]
        for n, night in enumerate(nights)
    ]
    print(common.table(header, rows))
    verdicts, good = [], True
    for name, limit in LIMITS.items():
        found = judge([getattr(night, name) for night in nights[warm:]])
        good &= found.within(limit)
        verdict = "flat" if found.within(limit) else "GROWS"
        verdicts.append([name, f"{found.growth:+.1%}", f"{found.least:+.1%}", f"{limit:.0%}", verdict])
    print(f"\nGrowth from night {warm} to {len(nights) - 1}:")
    print(common.table(["", "Theil-Sen", "at least (95 %)", "allowed", ""], verdicts))
    return good


def simulate(scratch: Path, nights: int, files: int, dice: random.Random) -> tuple[list[Night], list[str]]:
    """Night 0 builds the collection; the others follow a day's changes each. Also returns what was wrong."""
    with FakeOllama(vectors="hash", record=False) as server:
        year = Year(scratch, server)
        year.docs.mkdir()
        generate(year.docs, files=files, paragraphs=20)
        found = []
        for number in range(nights + 1):
            if number:
                change(year.docs, dice, number)
            found.append(year.night(number))
            print(f"night {number}: {found[-1]}", file=sys.stderr, flush=True)
    return found, year.wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=30)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--svg", type=Path, default=Path("nights.svg"), help="where the plot goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        nights, wrong = simulate(Path(scratch), options.nights, options.files, random.Random(options.seed))
    names = {
        "disk_mb": "on disk, MB",
        "run_s": "a night's run, CPU seconds",
        "query_ms": "a question, CPU milliseconds",
    }
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    options.svg.write_text(svg([(title, [getattr(x, name) for x in nights]) for name, title in names.items()]))
    good = show(nights, min(WARM, options.nights // 2))
    for line in wrong:
        print(f"WRONG: {line}")
    print(f"the plot: {os.fspath(options.svg)}")
    return 0 if good and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())
