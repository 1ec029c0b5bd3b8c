"""What the embed engine tells about its work: events, and their totals and rates. Knows no bar and no log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["started", "finished", "retry", "rejected", "reset"]
WINDOW_S = 10.0  # "now" in tokens per second now


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a batch. `seconds`: how long its request took; `at_s`: the event loop's clock.

    started: a request was sent. finished: its vectors passed the gate. retry: it failed, and its texts are sent again
    unless the run ends. rejected: one text was given up. reset: the server's model was unloaded and loaded again.
    """

    kind: Kind
    texts: int
    tokens: int
    seconds: float
    at_s: float
    reason: str = ""


OnEvent = Callable[[Event], None]


def now_s() -> float:
    """The event loop's clock, which a test may replace together with all its sleeps and time-outs."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True, kw_only=True)
class Stats:
    """Totals of a run. `texts` and `tokens` are those of vectors that passed the gate, `in_flight` counts requests."""

    requests: int = 0
    in_flight: int = 0
    texts: int = 0
    tokens: int = 0
    retries: int = 0
    rejected: int = 0
    resets: int = 0
    began_s: float | None = None
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, event: Event) -> None:
        """Count an event."""
        if self.began_s is None:
            self.began_s = event.at_s
        if event.kind == "started":
            self.requests += 1
            self.in_flight += 1
        elif event.kind == "finished":
            self._finish(event)
        elif event.kind == "retry":
            self.in_flight -= 1
            self.retries += 1
        elif event.kind == "rejected":
            self.rejected += 1
        else:
            self.resets += 1

    def _finish(self, event: Event) -> None:
        self.in_flight -= 1
        self.texts += event.texts
        self.tokens += event.tokens
        self._recent.append((event.at_s, event.tokens))
        self._forget(event.at_s)

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] <= now_s - WINDOW_S:
            self._recent.popleft()

    def tokens_per_s(self, now_s: float) -> float:
        """Over the last ten seconds, or since the start where that is less."""
        self._forget(now_s)
        span = min(WINDOW_S, now_s - self.began_s) if self.began_s is not None else 0.0
        return sum(tokens for _, tokens in self._recent) / span if span > 0 else 0.0

    def average(self, now_s: float) -> float:
        """Tokens per second since the first request."""
        span = now_s - self.began_s if self.began_s is not None else 0.0
        return self.tokens / span if span > 0 else 0.0
