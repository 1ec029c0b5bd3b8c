"""How progress looks: tqdm bars on a terminal, else a line per interval. Implements `pipeline.progress.Progress` twice.

The times are wall-clock (monotonic) and handed in, so that a test need not wait.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline import progress
from pipeline.cli import log_handler

LINE_EVERY_S = 10.0
RATE_WINDOW_S = 20.0

# Of tasks that have a Pace: tqdm's own rate and time left count texts, and texts differ in length.
_PACED = {"texts": "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"}
_FEEDING = ("files", "chunks")  # while these run, more texts will be due than are known
LABELS = {
    "files": "reading",
    "chunks": "chunking",
    "contexts": "situating",
    "texts": "embedding",
    "rows": "indexing",
    "pull": "pulling",
    "checked": "checking",
    "vectors": "copying",
    "map": "drawing",
}


class Shown(progress.Progress, Protocol):
    """Progress that remembers its messages, so that a report need not repeat them."""

    said: set[str]


def choose(*, quiet: bool, terminal: bool) -> Shown:
    """The progress for this invocation."""
    if quiet:
        return Quiet()
    return Bars() if terminal else Lines()


class Quiet(progress.Silent):
    """For -q: shows nothing."""

    def __init__(self) -> None:
        self.said: set[str] = set()


class Rate:
    """Things per second over the last RATE_WINDOW_S."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])  # time, things so far

    def add(self, n: int) -> None:
        now = self._clock()
        self._marks.append((now, self._marks[-1][1] + n))
        while len(self._marks) > 2 and self._marks[1][0] <= now - RATE_WINDOW_S:
            self._marks.popleft()

    @property
    def total(self) -> int:
        return self._marks[-1][1]

    def per_second(self) -> float:
        (begin, before), (_, after) = self._marks[0], self._marks[-1]
        return (after - before) / max(self._clock() - begin, 1e-3)


class Bars:
    """One tqdm bar per task; a finished bar disappears, as the report says it all."""

    def __init__(self) -> None:
        self._bars: dict[str, Any] = {}  # tqdm[NoReturn]: its type parameter means nothing here
        self.said: set[str] = set()

    def start(self, task: str, total: int | None, unit: str) -> None:
        import tqdm  # 40 ms that only a terminal needs

        if task not in self._bars:
            self._bars[task] = tqdm.tqdm(
                desc=f"{LABELS.get(task, task):9}",
                total=total,
                unit=unit if unit == "B" else f" {_plural(unit)}",
                unit_scale=unit == "B",
                unit_divisor=1024,
                bar_format=_PACED.get(task),
                leave=False,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def advance(self, task: str, n: int = 1) -> None:
        self._bars[task].update(n)

    def pace(self, task: str, pace: progress.Pace) -> None:
        if task in self._bars:
            self._bars[task].set_postfix_str(", ".join(_pace(pace, self._bars)))  # draws, so that the clock goes on

    def grow(self, task: str, n: int) -> None:
        bar = self._bars[task]
        bar.total = (bar.total or 0) + n
        bar.refresh()

    def message(self, text: str) -> None:
        self.said.add(text)
        log_handler.write(text)

    def finish(self, task: str) -> None:
        if task in self._bars:
            self._bars.pop(task).close()


@dataclass(slots=True, kw_only=True)
class _Task:
    label: str
    total: int | None
    unit: str
    steps: Rate
    pace: progress.Pace | None = None

    @property
    def done(self) -> int:
        return self.steps.total


@dataclass(slots=True, kw_only=True)
class Lines:
    """A line about all running tasks, at most every LINE_EVERY_S; nothing for what is over sooner."""

    clock: Callable[[], float] = time.monotonic
    write: Callable[[str], None] = log_handler.write
    said: set[str] = field(default_factory=set)
    _tasks: dict[str, _Task] = field(default_factory=dict)
    _last: float = field(default=0.0)

    def start(self, task: str, total: int | None, unit: str) -> None:
        if not self._tasks:
            self._last = self.clock()
        if task not in self._tasks:
            self._tasks[task] = _Task(label=LABELS.get(task, task), total=total, unit=unit, steps=Rate(self.clock))

    def advance(self, task: str, n: int = 1) -> None:
        self._tasks[task].steps.add(n)
        self._write_if_due()

    def pace(self, task: str, pace: progress.Pace) -> None:
        if task in self._tasks:
            self._tasks[task].pace = pace
            self._write_if_due()

    def _write_if_due(self) -> None:
        if self.clock() - self._last >= LINE_EVERY_S:
            self._last = self.clock()
            told = [_describe(task, self._tasks) for task in self._tasks.values() if task.done or task.total]
            if told:
                self.write("; ".join(told))

    def grow(self, task: str, n: int) -> None:
        state = self._tasks[task]
        state.total = (state.total or 0) + n

    def message(self, text: str) -> None:
        self.said.add(text)
        self.write(text)

    def finish(self, task: str) -> None:
        self._tasks.pop(task, None)


def _describe(task: _Task, running: Iterable[str]) -> str:
    """Such as "embedding: 320 of 1,500 texts, 1:35 left, 12,345 tokens/s (avg 11,900)"."""
    amount = _bytes if task.unit == "B" else "{:,}".format
    total = f" of {amount(task.total)}" if task.total else ""
    of = task.total or task.done
    unit = "" if task.unit == "B" else f" {task.unit.removesuffix('s') if of == 1 else _plural(task.unit)}"
    parts = [f"{task.label}: {amount(task.done)}{total}{unit}"]
    if task.pace is not None:
        parts += _pace(task.pace, running)
    elif task.total and task.total > task.done and task.steps.per_second() > 0:
        parts.append(f"{clock_time((task.total - task.done) / task.steps.per_second())} left")
    return ", ".join(parts)


def _pace(pace: progress.Pace, running: Iterable[str]) -> list[str]:
    """What matters most first: a terminal may be narrow. Nothing before the first vectors have come."""
    if not pace.average:
        return _troubles(pace)
    left = [] if pace.left_s is None else [f"{clock_time(pace.left_s)} left"]
    if any(task in running for task in _FEEDING):
        left = [f"at least {text}" for text in left]
    rate = f"{pace.tokens_per_s:,.0f} tokens/s (avg {pace.average:,.0f})"
    return [*left, rate, *_troubles(pace), *_servers(pace)]


def _servers(pace: progress.Pace) -> list[str]:
    if pace.known_servers < 2:
        return []
    silent = "" if pace.servers == pace.known_servers else f"{pace.servers} of "
    return [f"{silent}{pace.known_servers} servers"]


def _troubles(pace: progress.Pace) -> list[str]:
    rejected = [f"{pace.rejected:,} rejected"] if pace.rejected else []
    return rejected + ([f"{pace.retries:,} {'retry' if pace.retries == 1 else 'retries'}"] if pace.retries else [])


def _plural(unit: str) -> str:
    return f"{unit.removesuffix('s')}s"


def _bytes(n: int) -> str:
    return f"{n / 1024**2:,.0f} MiB"


def clock_time(seconds: float) -> str:
    """Such as 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
