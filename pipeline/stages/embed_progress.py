"""What the embed engine tells about its work: events, and their totals and rates. Knows no bar and no log."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["started", "finished", "retry", "rejected", "reset"]
WINDOW_S = 10.0  # "now" in tokens per second now
STEADY_S = 60.0  # what the time left is reckoned from, and how long after an answer a server counts as in use
_BUCKET_S = 0.25  # answers that come closer together are counted as one


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a batch. `seconds`: how long its request took; `at_s`: the event loop's clock.

    started: a request was sent. finished: its vectors passed the gate. retry: it failed, and its texts are sent again
    unless the run ends. rejected: one text was given up. reset: the server's model was unloaded and loaded again.
    `server`: who answered, where the embedder tells.
    """

    kind: Kind
    texts: int
    tokens: int
    seconds: float
    at_s: float
    reason: str = ""
    server: str = ""


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
    servers: dict[str, float] = field(default_factory=dict)  # who answered, and when last
    _recent: deque[tuple[float, int]] = field(default_factory=deque)  # since when, tokens
    _first: tuple[float, int] | None = None  # when the first vectors came, and their tokens

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
        self.servers[event.server] = event.at_s
        if self._first is None:
            self._first = (event.at_s, event.tokens)
        if self._recent and event.at_s - self._recent[-1][0] < _BUCKET_S:
            since_s, tokens = self._recent.pop()
            self._recent.append((since_s, tokens + event.tokens))
        else:
            self._recent.append((event.at_s, event.tokens))
        while self._recent[0][0] <= event.at_s - STEADY_S:
            self._recent.popleft()

    def _tokens_since(self, begin_s: float) -> int:
        return sum(tokens for at_s, tokens in self._recent if at_s > begin_s)

    def tokens_per_s(self, now_s: float) -> float:
        """Over the last ten seconds, or since the start where that is less."""
        span = min(WINDOW_S, now_s - self.began_s) if self.began_s is not None else 0.0
        return self._tokens_since(now_s - WINDOW_S) / span if span > 0 else 0.0

    def average(self, now_s: float) -> float:
        """Tokens per second since the first request."""
        span = now_s - self.began_s if self.began_s is not None else 0.0
        return self.tokens / span if span > 0 else 0.0

    def left_s(self, tokens: int, now_s: float) -> float | None:
        """Seconds that so many more tokens will take at the rate of the last minute; None where nothing came in it.

        The first answer only starts the clock, as long as it is in that minute: it may have waited for the model.
        """
        recent = self._tokens_since(now_s - STEADY_S)
        if self._first is None or self.began_s is None or not recent:
            return None
        first_s, first_tokens = self._first
        span = STEADY_S
        if first_s > now_s - STEADY_S:
            began_s, recent = (first_s, recent - first_tokens) if recent > first_tokens else (self.began_s, recent)
            span = now_s - began_s
        return tokens * span / recent if span > 0 else None

    def servers_in_use(self, now_s: float) -> int:
        """How many servers answered within the last minute."""
        return sum(at_s > now_s - STEADY_S for at_s in self.servers.values())
