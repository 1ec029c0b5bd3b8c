"""How progress looks: tqdm bars on a terminal, else a line per interval. Implements `pipeline.progress.Progress` twice.

The times are wall-clock (monotonic) and handed in, so that a test need not wait.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline import progress
from pipeline.cli import log_handler

LINE_EVERY_S = 10.0
RATE_WINDOW_S = 20.0  # long enough to smooth batches, short enough to show that a server slowed down

LABELS = {"files": "reading", "chunks": "chunking", "texts": "embedding", "rows": "indexing", "pull": "pulling"}


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

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bars: dict[str, Any] = {}  # tqdm[NoReturn]: its type parameter means nothing here
        self._tokens: dict[str, Rate] = {}
        self.said: set[str] = set()

    def start(self, task: str, total: int | None, unit: str) -> None:
        import tqdm  # 40 ms that only a terminal needs

        if task not in self._bars:
            self._tokens[task] = Rate(self._clock)
            self._bars[task] = tqdm.tqdm(
                desc=f"{LABELS.get(task, task):9}",
                total=total,
                unit=unit if unit == "B" else f" {_plural(unit)}",
                unit_scale=unit == "B",
                unit_divisor=1024,
                leave=False,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def advance(self, task: str, n: int = 1, **counts: int) -> None:
        bar = self._bars[task]
        if "tokens" in counts:
            rate = self._tokens[task]
            rate.add(counts["tokens"])
            bar.set_postfix_str(f"{rate.per_second():,.0f} tokens/s", refresh=False)
        bar.update(n)

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
    total: int | None
    unit: str
    tokens: Rate
    steps: Rate
    done: int = 0


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
            self._tasks[task] = _Task(total=total, unit=unit, tokens=Rate(self.clock), steps=Rate(self.clock))

    def advance(self, task: str, n: int = 1, **counts: int) -> None:
        state = self._tasks[task]
        state.done += n
        state.steps.add(n)
        state.tokens.add(counts.get("tokens", 0))
        if self.clock() - self._last >= LINE_EVERY_S:
            self._last = self.clock()
            self.write(", ".join(_describe(task) for task in self._tasks.values() if task.done or task.total))

    def grow(self, task: str, n: int) -> None:
        state = self._tasks[task]
        state.total = (state.total or 0) + n

    def message(self, text: str) -> None:
        self.said.add(text)
        self.write(text)

    def finish(self, task: str) -> None:
        self._tasks.pop(task, None)


def _describe(task: _Task) -> str:
    """Such as "320 of 1,500 texts (12,345 tokens/s, 1:35 left)"."""
    amount = _bytes if task.unit == "B" else "{:,}".format
    unit = "" if task.unit == "B" else f" {_plural(task.unit)}"
    total = f" of {amount(task.total)}" if task.total else ""
    rates = []
    if task.tokens.total:
        rates.append(f"{task.tokens.per_second():,.0f} tokens/s")
    if task.total and task.total > task.done and task.steps.per_second() > 0:
        rates.append(f"{clock_time((task.total - task.done) / task.steps.per_second())} left")
    return f"{amount(task.done)}{total}{unit}" + (f" ({', '.join(rates)})" if rates else "")


def _plural(unit: str) -> str:
    return f"{unit.removesuffix('s')}s"


def _bytes(n: int) -> str:
    return f"{n / 1024**2:,.0f} MiB"


def clock_time(seconds: float) -> str:
    """Such as 0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
