"""How many requests may be in flight, and how long one may take. Measures; knows no text, no vector and no server.

Ollama embeds one text at a time whatever it is sent (OLLAMA_NUM_PARALLEL does nothing for embeddings,
ollama/ollama#8778): requests beyond the second only hide the cost of HTTP, so each more must show that it is worth it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from pipeline import models
from pipeline.stages import embed_batches

GAIN = 1.05  # a level of concurrency is kept when it brings 5 % more tokens per second
LONGEST_HOLD = 64  # windows between two attempts to grow
SHRINK_EVERY_S = 5.0  # failures come in bursts: one burst is one reason to shrink


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Tuning; nothing here changes a vector, so nothing of it is part of a fingerprint.

    Attributes:
        batch_texts, batch_tokens: most per request (the embedder's own limits hold as well).
        concurrency: requests in flight at the start, of all servers together; 0: as many as the embedder wants.
        max_concurrency: most requests in flight, or twice those at the start if that is more.
        servers: behind the embedder; each keeps a request in flight whatever fails.
        in_flight_texts: most texts in flight, per two requests at the start (Ollama opens connections for each text).
        first_texts: most per request until something was measured: a slow machine is known before it gets 16k tokens.
        linger_s: how long a free server waits for a fuller batch.
        max_tries: of one batch that passing faults meet (a full queue, a cut), before the server is examined.
        suspected_after: failures that may be a text's doing (the runner died, wrong vectors), before it is looked for.
        patience_s: how long a server may give no answer, or none that is right, before the run ends.
        shortest_deadline_s: for a request, however quick the server was before: its model may have to be loaded again.
    """

    batch_texts: int = 64
    batch_tokens: int = 16_000
    concurrency: int = 0
    max_concurrency: int = 8
    servers: int = 1
    in_flight_texts: int = 100
    first_texts: int = 8
    linger_s: float = 0.02
    max_tries: int = 6
    suspected_after: int = 2
    backoff_base_s: float = 0.2
    backoff_max_s: float = 20.0
    patience_s: float = 120.0
    shortest_deadline_s: float = 30.0

    def within(self, limits: models.Limits) -> EngineOptions:
        """These options under the limits that an embedder names."""
        start = max(1, self.concurrency or limits.concurrency)
        return replace(
            self,
            batch_texts=max(1, min(self.batch_texts, limits.batch_texts)),
            batch_tokens=min(self.batch_tokens, limits.batch_tokens),
            concurrency=start,
            max_concurrency=max(self.max_concurrency, start if start < 4 else 2 * start),
            servers=min(start, max(self.servers, limits.servers)),
            in_flight_texts=self.in_flight_texts * max(1, start // 2),
        )


class Climber:
    """Concurrency that starts at `start` and grows by one only while tokens per second grow; failures halve it, but
    never below `least`: one server of four that fails is no reason to leave two idle.
    """

    def __init__(self, *, start: int, most: int, least: int = 1) -> None:
        self.level = start
        self._least = least
        self._start = start
        self._most = max(start, most)
        self._best = start  # the level to return to when the one tried brings nothing
        self._rate = 0.0  # tokens per second measured at `_best`
        self._hold = 0
        self._next_hold = 4
        self._shrunk_s = float("-inf")
        self._restart(None)

    def _restart(self, now_s: float | None) -> None:
        self._since_s = now_s
        self._tokens = 0
        self._requests = 0

    def disturbed(self) -> None:
        """What is being measured says nothing about the server: the source was slow, or requests were held back."""
        self._restart(None)

    def finished(self, tokens: int, now_s: float) -> None:
        """A request succeeded. The first after a change only starts the clock."""
        if self._since_s is None:
            self._restart(now_s)
            return
        self._tokens += tokens
        self._requests += 1
        if self._requests >= 4 * self.level + 4 and now_s > self._since_s:
            self._decide(self._tokens / (now_s - self._since_s))
            self._restart(None)

    def _decide(self, rate: float) -> None:
        if self.level < self._start:  # after failures: back to where it started without proof
            self.level += 1
            self._best = self.level
        elif self.level > self._best:
            self._judge(rate)
        else:
            self._rate = rate
            self._hold -= 1
            if self._hold <= 0:
                self.level = min(self._most, self.level + 1)

    def _judge(self, rate: float) -> None:
        if rate > self._rate * GAIN:
            self._best, self._rate = self.level, rate
            self._next_hold = 4
            self.level = min(self._most, self.level + 1)
        else:
            self.level = self._best
            self._hold = self._next_hold
            self._next_hold = min(LONGEST_HOLD, 2 * self._next_hold)

    def failed(self, now_s: float) -> None:
        """A request failed through the server's fault."""
        self._restart(None)
        if now_s - self._shrunk_s >= SHRINK_EVERY_S:
            self._shrunk_s = now_s
            self.level = self._best = max(self._least, self.level // 2)


class Permits:
    """Who may have a request in flight: as many as `level` allows and at most `texts` texts in all, or one alone.

    `barred`: whether nobody may for now; `changed` must be called when it may have ended.
    """

    def __init__(self, *, level: Callable[[], int], texts: int, barred: Callable[[], bool] = lambda: False) -> None:
        self._level = level
        self._most_texts = texts
        self._barred = barred
        self._requests = 0
        self._texts = 0
        self._alone = False
        self._alone_waiting = 0
        self._changed = embed_batches.Signal()

    def _free(self) -> bool:
        return not (self._alone or self._alone_waiting or self._barred()) and self._requests < self._level()

    def changed(self) -> None:
        """Look again."""
        self._changed.notify()

    async def ready(self) -> None:
        """Wait until a request could be sent. The permit is not taken: its batch is not made yet."""
        while not self._free():
            await self._changed.wait()

    @contextlib.asynccontextmanager
    async def hold(self, texts: int, *, alone: bool = False) -> AsyncIterator[None]:
        """In flight from here to the end of the block. `alone`: with nothing else, and before all who wait for less."""
        await (self._enter_alone() if alone else self._enter(texts))
        self._requests += 1
        self._texts += texts
        self._alone = alone
        try:
            yield
        finally:
            self._requests -= 1
            self._texts -= texts
            self._alone = False
            self._changed.notify()

    async def _enter(self, texts: int) -> None:
        while not self._free() or (self._requests and self._texts + texts > self._most_texts):
            await self._changed.wait()

    async def _enter_alone(self) -> None:
        self._alone_waiting += 1
        try:
            while self._requests:
                await self._changed.wait()
        finally:
            self._alone_waiting -= 1
            self._changed.notify()


class Deadlines:
    """Seconds a request may take, from the measured seconds per token in flight.

    Until something was measured a request may have to wait for the model, on a server that was not asked before the
    others: as long as the opening waits for it (config.OllamaSettings.load_timeout_s).
    """

    FIRST_S = 60.0
    SLOWEST_S_PER_TOKEN = 1 / 40  # a laptop's CPU under load, for a first request
    FACTOR = 4.0  # requests that come later are served in between: up to twice what was in flight, and as much again
    LONGEST_S = 3600.0

    def __init__(self, floor_s: float) -> None:
        self._floor_s = floor_s
        self._s_per_token: float | None = None

    def finished(self, tokens_in_flight: int, seconds: float) -> None:
        """A request took `seconds`, loads left out; `tokens_in_flight`: when it was sent, its own included."""
        found = seconds / max(1, tokens_in_flight)
        self._s_per_token = found if self._s_per_token is None else 0.8 * self._s_per_token + 0.2 * found

    def limit(self, tokens_in_flight: int, timeouts: int) -> float:
        """`timeouts`: requests in a row that ran out of time; each doubles the limit (the model may be loading)."""
        if self._s_per_token is None:
            limit_s = self.FIRST_S + tokens_in_flight * self.SLOWEST_S_PER_TOKEN
        else:
            limit_s = self._floor_s + self.FACTOR * self._s_per_token * tokens_in_flight
        return min(self.LONGEST_S, limit_s * 2.0 ** min(timeouts, 7))
