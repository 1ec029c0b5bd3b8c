"""The embed engine: a stream of texts in, verified vectors out, through whatever fails in between.

Knows the Embedder protocol and time. Does not know paths, files, HTTP, providers, bars or what vectors are for.

    batches ──▶ attempt ──▶ gate ──▶ Embedded
                  │ the runner died, wrong vectors: again ──▶ find the culprit by halves ──▶ judge it ──▶ Rejected
                  │ refused: find the culprit by halves at once
                  │ a full queue, a cut, no end: wait, try again ──▶ after `max_tries`: see whether the server is well
                  │ no answer: wait, up to `patience_s`
                  └ no such model, another model, no access: the run ends; what was finished is handed out first

A good text loses its vector to no fault of the server: it is given up only after failing for one reason again and
again, alone on a server that embedded a known text rightly just before (embed_isolation.py, embed_verdict.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from pipeline import models
from pipeline.stages import embed_batches, embed_isolation, embed_progress, embed_requests
from pipeline.stages.embed_batches import Item, tokens_of
from pipeline.stages.embed_control import EngineOptions
from pipeline.stages.embed_health import Resettable, canaries, describe
from pipeline.stages.embed_progress import Event, OnEvent, Stats
from pipeline.stages.embed_verdict import Failure

__all__ = [
    "VERSION",
    "Embedded",
    "Engine",
    "EngineOptions",
    "Event",
    "Item",
    "OnEvent",
    "Rejected",
    "Resettable",
    "Stats",
    "canaries",
    "describe",
    "embed_stream",
]

VERSION = 1
SPARE = 4  # consumers that may wait before another try while as many requests as allowed are in flight
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """One finished batch that passed the gate. `vectors`: float32, shape (len(keys), dims), in the order of `keys`."""

    keys: list[str]
    vectors: models.Vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """One text that this model on this server cannot embed.

    Attributes:
        kind: "empty", "too_long", "fault", "bad_vector", or what the embedder's TextRejected says ("poison", ...).
    """

    key: str
    kind: str
    reason: str


def ignore(event: Event) -> None:
    """An `on_event` for callers who watch nothing."""


def embed_stream(
    items: AsyncIterator[Item],
    embedder: models.Embedder,
    options: EngineOptions | None = None,
    *,
    on_event: OnEvent = ignore,
    canaries: tuple[Item, ...] = (),
    dice: random.Random | None = None,
) -> AsyncGenerator[Embedded | Rejected]:
    """Embed a stream of texts; each item comes back once, in an Embedded or as a Rejected, in any order.

    Use it under `contextlib.aclosing`: leaving that block cancels what is in flight and closes `items`.

    Args:
        items: read only as fast as results are taken. Their keys mean nothing here: who sends no text twice has to
            remember what was sent (embedding.Source does), and twice would be too much for a million.
        canaries: two good texts (see `canaries()`), to tell a sick server from a bad text before anything was embedded.
        dice: for the jitter of the waits.

    Raises:
        ServerUnreachable: no answer for `options.patience_s`.
        TransientFault: the server answers, and keeps failing on known texts.
        ModelMissing, ModelMismatch, ServerRefused: as the embedder raised them, after everything finished was yielded.
    """
    return Engine(embedder, options or EngineOptions(), on_event=on_event, canaries=canaries, dice=dice).run(items)


class Engine:
    """One run over one stream. `stats` may be read at any time."""

    def __init__(
        self,
        embedder: models.Embedder,
        options: EngineOptions,
        *,
        on_event: OnEvent = ignore,
        canaries: tuple[Item, ...] = (),
        dice: random.Random | None = None,
    ) -> None:
        self.stats = Stats()
        self._embedder = embedder
        self._options = options = options.within(embedder.limits)
        self._on_event = on_event
        self._batches = embed_batches.Batcher(
            texts=options.batch_texts,
            tokens=options.batch_tokens,
            linger_s=options.linger_s,
            room=2 * options.max_concurrency,
        )
        self._requests = embed_requests.Requests(
            embedder,
            options,
            canaries=canaries,
            dice=dice or random.Random(),  # noqa: S311 - jitter
            tell=self._tell,
            starved=self._batches.was_starved,
        )
        self._taking = asyncio.Lock()
        self._results: deque[Embedded | Rejected] = deque()
        self._news = embed_batches.Signal()  # a result is there, or the work has ended
        self._taken = embed_batches.Signal()  # a result was taken

    async def run(self, items: AsyncIterator[Item]) -> AsyncGenerator[Embedded | Rejected]:
        """See `embed_stream`. The work is a task of its own: no generator may yield inside a task group (PEP 789)."""
        work = asyncio.create_task(self._work(items))
        work.add_done_callback(lambda _: self._news.notify())
        try:
            while self._results or not work.done():
                while self._results:
                    yield self._results.popleft()
                    self._taken.notify()
                if not work.done():
                    await self._news.wait()
            _raise_first(work)
        finally:
            work.cancel()
            await asyncio.wait({work})
            if not work.cancelled() and (left := work.exception()) is not None:
                log.debug("The work ended with %r", left)

    async def _work(self, items: AsyncIterator[Item]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read(items))
            for _ in range(self._options.max_concurrency + SPARE):
                group.create_task(self._consume())

    async def _read(self, items: AsyncIterator[Item]) -> None:
        async with contextlib.AsyncExitStack() as stack:
            if isinstance(items, AsyncGenerator):
                await stack.enter_async_context(contextlib.aclosing(items))
            async for item in items:
                if (refusal := self._refusal(item)) is not None:
                    await self._reject(item, *refusal)
                else:
                    await self._batches.put(item)
        self._batches.close()

    def _refusal(self, item: Item) -> tuple[str, str] | None:
        """Kind and reason where a text must not be sent. Ollama gives an empty one a vector that means nothing."""
        if not item.text or item.text.isspace():
            return "empty", "There is no text in it."
        limit = self._embedder.spec.limit
        if 0 < limit < item.tokens:
            return "too_long", f"It has {item.tokens} tokens and the model takes {limit}."
        return None

    async def _consume(self) -> None:
        while True:
            async with self._taking:
                await self._requests.ready()
                items = await self._batches.take(texts=self._requests.batch_texts(), share=self._requests.level)
            if not items:
                return
            await self._process(items)

    # One batch, to its end

    async def _process(self, items: list[Item]) -> None:
        """Every text of a batch becomes part of an Embedded or a Rejected, or the run ends."""
        passing = suspicions = 0
        while True:
            outcome = await self._requests.attempt(items)
            if not isinstance(outcome, Failure):
                return await self._finish(items, outcome)
            passing += outcome.passing
            suspicions += not outcome.passing
            if outcome.refused or suspicions >= self._options.suspected_after or passing >= self._options.max_tries:
                return await self._isolate(items, outcome)
            await asyncio.sleep(self._requests.pause_s(passing + suspicions))

    async def _isolate(self, items: list[Item], failure: Failure) -> None:
        one = embed_isolation.Isolation(
            self._requests, tries=self._options.max_tries, finish=self._finish, reject=self._reject
        )
        await one.run(items, failure)

    # Results and events

    async def _finish(self, items: list[Item], vectors: models.Vectors) -> None:
        await self._hand_out(Embedded(keys=[item.key for item in items], vectors=vectors))

    async def _reject(self, item: Item, kind: str, reason: str) -> None:
        self._tell("rejected", [item], reason=reason)
        await self._hand_out(Rejected(key=item.key, kind=kind, reason=reason))

    async def _hand_out(self, result: Embedded | Rejected) -> None:
        """Put the result where nothing can lose it, and only then wait for room: a cancelled wait costs no vector."""
        self._results.append(result)
        self._news.notify()
        while len(self._results) > self._options.max_concurrency:
            await self._taken.wait()

    def _tell(
        self, kind: embed_progress.Kind, items: list[Item], *, seconds: float = 0.0, reason: str = "", server: str = ""
    ) -> None:
        tokens, at_s = tokens_of(items), embed_progress.now_s()
        event = Event(
            kind=kind, texts=len(items), tokens=tokens, seconds=seconds, at_s=at_s, reason=reason, server=server
        )
        self.stats.add(event)
        self._on_event(event)


def _raise_first(work: asyncio.Task[None]) -> None:
    """Raise what ended the work, out of the group that a TaskGroup wraps it in."""
    error = work.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if error is not None:
        raise error
