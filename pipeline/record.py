"""What a run notes for its report while it is at work: rates, the slowest files, lengths of chunks, what was said.

Stands between the run and whoever shows its progress: every call is passed on. Everything is bounded, so that a night
of twelve hours over a million files notes no more than one of a minute.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence

from pipeline.progress import Pace, Progress, Silent
from pipeline.report import Sample, SlowFile

SLOWEST = 20  # files named
SAMPLES = 240  # of the pace kept at most; beyond, every second one goes
MESSAGES = 200  # kept; the number of those beyond is known
BIN_TOKENS = 32  # of the histogram of chunk lengths
BINS = 64  # the last one holds all that is longer


class Recorder:
    """Implements `progress.Progress`; `shown` is told everything as well."""

    def __init__(self, shown: Progress | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown = shown if shown is not None else Silent()
        self._clock = clock
        self._began = clock()
        self._slowest: list[tuple[float, str, int]] = []  # a heap: the least slow is the first
        self._spans: dict[str, tuple[float, float]] = {}  # task -> first start, last sign of life
        self._stride, self._paces = 1, 0
        self._lengths = [0] * BINS
        self.samples: list[Sample] = []
        self.pace_now = Pace()
        self.split = 0  # chunks that end inside a sentence or line longer than a chunk
        self.messages: list[str] = []
        self.unkept = 0  # messages beyond MESSAGES

    # -- progress.Progress

    def start(self, task: str, total: int | None, unit: str) -> None:
        self._touch(task)
        self._shown.start(task, total, unit)

    def advance(self, task: str, n: int = 1) -> None:
        self._touch(task)
        self._shown.advance(task, n)

    def pace(self, task: str, pace: Pace) -> None:
        self.pace_now = pace
        if self._paces % self._stride == 0:
            self.samples.append(Sample(at_s=round(self._clock() - self._began, 1), tokens_per_s=pace.tokens_per_s))
        self._paces += 1
        if len(self.samples) > SAMPLES:
            self.samples, self._stride = self.samples[::2], self._stride * 2
        self._shown.pace(task, pace)

    def grow(self, task: str, n: int) -> None:
        self._shown.grow(task, n)

    def message(self, text: str) -> None:
        if len(self.messages) < MESSAGES:
            self.messages.append(text)
        else:
            self.unkept += 1
        self._shown.message(text)

    def finish(self, task: str) -> None:
        self._touch(task)
        self._shown.finish(task)

    def _touch(self, task: str) -> None:
        now = self._clock()
        self._spans[task] = (self._spans.get(task, (now, now))[0], now)

    # -- what workers tell

    def file_read(self, uri: str, seconds: float, size: int) -> None:
        """A file was read, or given up, after so many seconds in a worker. `size`: bytes."""
        push = heapq.heappush if len(self._slowest) < SLOWEST else heapq.heappushpop
        push(self._slowest, (seconds, uri, size))

    def chunked(self, lengths: Sequence[int], split: int) -> None:
        """A shard was chunked. `lengths`: chunks in each bin of BIN_TOKENS; `split`: see the attribute."""
        self._lengths = [before + more for before, more in zip(self._lengths, lengths, strict=True)]
        self.split += split

    # -- for the report

    @property
    def slowest(self) -> tuple[SlowFile, ...]:
        """The slowest first."""
        return tuple(
            SlowFile(uri=uri, seconds=round(seconds, 6), bytes=size)
            for seconds, uri, size in sorted(self._slowest, reverse=True)
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Chunks in each bin of BIN_TOKENS, as far as there are any."""
        last = max((i for i, count in enumerate(self._lengths) if count), default=-1)
        return tuple(self._lengths[: last + 1])

    @property
    def stage_seconds(self) -> dict[str, float]:
        """From the first to the last sign of each task; tasks overlap."""
        return {task: round(end - begin, 3) for task, (begin, end) in self._spans.items()}
