"""Cuts a stream of texts into batches. Knows token counts and time, not what a batch is for, and sends nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One text to embed. `tokens`: its content tokens (specials left out), as counted by the model's own tokenizer."""

    key: str
    text: str
    tokens: int


def tokens_of(items: list[Item]) -> int:
    return sum(item.tokens for item in items)


class Signal:
    """Wakes everybody who waits now; whoever comes later waits for the next one.

    Notifying never suspends, so it is safe in `finally`.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[None], None] = {}  # in order; mostly empty: it is notified for every text

    def notify(self) -> None:
        if not self._waiting:
            return
        for one in self._waiting:
            if not one.done():
                one.set_result(None)
        self._waiting.clear()

    async def wait(self) -> None:
        one: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[one] = None
        try:
            await one
        finally:
            self._waiting.pop(one, None)


class Batcher:
    """A bounded buffer of texts between one reader and takers who come one at a time.

    A batch is given out when it is full, when the stream has ended, or when a taker has lingered for `linger_s`: an
    idle server gets what is there, but not one text at a time from a source that is only a little slower than it.
    """

    def __init__(self, *, texts: int, tokens: int, linger_s: float, room: int) -> None:
        self._texts = texts
        self._tokens = tokens
        self._linger_s = linger_s
        self._room = room  # batches that the buffer holds before `put` waits
        self._pending: deque[Item] = deque()
        self._pending_tokens = 0
        self._closed = False
        self._changed = Signal()
        self._starved = False

    async def put(self, item: Item) -> None:
        """Add a text; waits while the buffer is full."""
        while len(self._pending) >= self._room * self._texts or self._pending_tokens >= self._room * self._tokens:
            await self._changed.wait()
        self._pending.append(item)
        self._pending_tokens += item.tokens
        self._changed.notify()

    def close(self) -> None:
        """The stream has ended."""
        self._closed = True
        self._changed.notify()

    async def take(self, *, texts: int, share: int) -> list[Item]:
        """The next batch of at most `texts`; empty when the stream has ended. `share`: how many could work at once."""
        while not self._pending and not self._closed:
            self._starved = True
            await self._changed.wait()
        if not self._full(texts):
            await self._linger(texts)
        return self._cut(texts, share)

    def was_starved(self) -> bool:
        """Whether a taker has waited for the source since this was asked last."""
        starved, self._starved = self._starved, False
        return starved

    def _full(self, texts: int) -> bool:
        return self._closed or len(self._pending) >= texts or self._pending_tokens >= self._tokens

    async def _linger(self, texts: int) -> None:
        self._starved = True
        try:
            async with asyncio.timeout(self._linger_s):
                while not self._full(texts):
                    await self._changed.wait()
        except TimeoutError:
            return

    def _cut(self, texts: int, share: int) -> list[Item]:
        if self._closed:  # the last batches are shared out evenly, so that all servers finish together
            texts = min(texts, max(8, -(-len(self._pending) // share)))
        batch: list[Item] = []
        pending, tokens = self._pending, 0
        while pending and len(batch) < texts:
            more = pending[0].tokens
            if batch and tokens + more > self._tokens:
                break
            tokens += more
            batch.append(pending.popleft())
        self._pending_tokens -= tokens
        self._changed.notify()
        return batch
