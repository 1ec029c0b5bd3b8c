"""Requests of the embed engine: one batch, one answer, and what there is to learn from it.

Knows the embedder, how many requests may be in flight and for how long, and whether the server can be believed. Does
not know what is done with a batch that fails: that is `Engine`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from pipeline import errors, models
from pipeline.stages import embed_control, embed_gate, embed_health, embed_progress
from pipeline.stages.embed_batches import Item, tokens_of
from pipeline.stages.embed_control import EngineOptions
from pipeline.stages.embed_verdict import Failure


class Tell(Protocol):
    """Where a request says that it was sent, failed or succeeded."""

    def __call__(
        self, kind: embed_progress.Kind, items: list[Item], *, seconds: float = 0.0, reason: str = "", server: str = ""
    ) -> None: ...


Attempt = Callable[[list[Item]], Awaitable[models.Vectors | Failure]]


class Requests:
    """All requests of one run. `starved`: whether the source was waited for since it was asked last."""

    def __init__(
        self,
        embedder: models.Embedder,
        options: EngineOptions,
        *,
        canaries: tuple[Item, ...],
        dice: random.Random,
        tell: Tell,
        starved: Callable[[], bool],
    ) -> None:
        self._embedder = embedder
        self._divided = embedder if isinstance(embedder, models.Divided) else None  # asked once: it takes 50 us
        self._dims = embedder.spec.dims
        self._options = options
        self._dice = dice
        self._tell = tell
        self._starved = starved
        self._climber = embed_control.Climber(
            start=options.concurrency, most=options.max_concurrency, least=options.servers
        )
        self._permits = embed_control.Permits(
            level=lambda: self._climber.level, texts=options.in_flight_texts, barred=self._barred
        )
        self._deadlines = embed_control.Deadlines(options.shortest_deadline_s)
        self._health = embed_health.Health(
            canaries,
            patience_s=options.patience_s,
            ask=lambda one, items: self._ask(one, items, _tell_nobody),
            on_reset=lambda reason: self._tell("reset", [], reason=reason),
            pause_s=self.pause_s,
        )
        self._tokens_in_flight = 0
        self._timeouts = 0  # requests in a row that ran into their deadline
        self._measured = False

    @property
    def level(self) -> int:
        """Requests that may be in flight now."""
        return self._climber.level

    def require_known(self, error: errors.ModelError) -> None:
        """Without a text that the server must be able to embed, a sick server cannot be told from a bad text.

        Raises:
            TransientFault: there is none, so `error` ends the run.
        """
        if not self._health.can_tell:
            raise embed_health.given_up(error, "has not embedded a single text")

    async def ready(self) -> None:
        """Wait until a request could be sent."""
        await self._permits.ready()

    def batch_texts(self) -> int:
        """How many texts the next batch should have at most."""
        most = max(1, min(self._options.batch_texts, self._options.in_flight_texts // self._climber.level))
        return most if self._measured else min(most, self._options.first_texts)

    def pause_s(self, n: int) -> float:
        """Full jitter: anywhere up to base * 2^n. See "Exponential Backoff And Jitter", AWS Architecture Blog, 2015."""
        most_s = min(self._options.backoff_max_s, self._options.backoff_base_s * 2.0 ** min(n, 30))
        return self._dice.uniform(0.0, most_s)

    async def attempt(self, items: list[Item]) -> models.Vectors | Failure:
        """Send a batch once; where there is no answer, wait and send it again."""
        silences = 0
        while True:
            try:
                async with self._permits.hold(len(items)):
                    return await self._send(self._embedder, items)
            except errors.ServerUnreachable as error:
                await self.silence(error, silences)
            silences += 1

    async def silence(self, error: errors.ServerUnreachable, before: int) -> None:
        """Wait because of no answer, the `before`-th time in a row.

        Raises:
            ServerUnreachable: nothing has answered for `patience_s`.
        """
        self._health.silent(error)
        await asyncio.sleep(self.pause_s(before))

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[Attempt]:
        """A way to send to a server that does nothing else until the end of the block, and is known to be well.

        After a failure there it is proved again, so that each attempt begins on a server that is well.

        Raises (also the attempts):
            ServerUnreachable: no answer; or, where there are others, it does not get well: take one of those.
            TransientFault: it does not get well, and there is no other.
        """
        self._climber.disturbed()
        try:
            async with self._one() as one:
                await self._prove(one)
                yield partial(self._send_alone, one)
        finally:
            self._permits.changed()

    @contextlib.asynccontextmanager
    async def _one(self) -> AsyncIterator[models.Embedder]:
        """A server that is asked by nobody else."""
        async with contextlib.AsyncExitStack() as stack:
            if self._divided is None:
                await stack.enter_async_context(self._permits.hold(0, alone=True))
                yield self._embedder
                return
            try:
                one = await stack.enter_async_context(self._divided.alone())
            except errors.TransientFault as error:  # they answer, and none is well: as good as no answer
                raise errors.ServerUnreachable(error.message, error.remedy) from error
            yield one

    async def _send_alone(self, one: models.Embedder, items: list[Item]) -> models.Vectors | Failure:
        outcome = await self._send(one, items)
        if isinstance(outcome, Failure) and not outcome.refused:
            proof = await self._prove(one)
            return replace(outcome, poisons=proof.reloads > 0, shaken=proof.failures > 0)
        return outcome

    async def _prove(self, one: models.Embedder) -> embed_health.Proof:
        spare = self._divided is not None and self._divided.spare
        return await self._health.prove(one, others=spare)

    def _barred(self) -> bool:
        """Whether every server is kept for one caller."""
        return self._divided is not None and self._divided.taken

    async def _send(self, one: models.Embedder, items: list[Item]) -> models.Vectors | Failure:
        try:
            return await self._ask(one, items, self._tell)
        except errors.TextRejected as error:
            return Failure(kind=error.kind, error=error, texts=len(items), refused=True)
        except errors.BadVectors as error:
            return Failure(kind="bad_vector", error=error, texts=len(items))
        except errors.TransientFault as error:
            return Failure(kind="fault", error=error, texts=len(items))

    async def _ask(self, one: models.Embedder, items: list[Item], tell: Tell) -> models.Vectors:
        """One request, its deadline, the gate, and what there is to learn from it.

        Raises:
            BadVectors: the gate refused what came.
            TransientFault: also when the deadline passed.
            ServerUnreachable, TextRejected, ...: as the embedder raised them.
        """
        tokens = tokens_of(items)
        began_s = embed_progress.now_s()
        self._tokens_in_flight += tokens
        in_flight = self._tokens_in_flight
        tell("started", items)
        try:
            reply = await self._reply(one, items, tokens)
        except errors.ModelError as error:
            tell("retry", items, seconds=embed_progress.now_s() - began_s, reason=error.message)
            self._failed(error)
            raise
        finally:
            self._tokens_in_flight -= tokens
        seconds = embed_progress.now_s() - began_s
        self._deadlines.finished(in_flight, max(0.0, seconds - reply.load_ns / 1e9))
        self._succeeded(items, tokens)
        tell("finished", items, seconds=seconds, server=reply.server)
        return reply.vectors

    async def _reply(self, one: models.Embedder, items: list[Item], tokens: int) -> models.EmbedReply:
        texts = [item.text for item in items]
        limit_s = self._deadlines.limit(self._tokens_in_flight, self._timeouts)
        began_s = embed_progress.now_s()
        try:
            async with asyncio.timeout(1.1 * limit_s + 1.0):  # the embedder's own comes first, where it has one
                reply = await one.embed(texts, tokens=tokens, timeout_s=limit_s)
        except (TimeoutError, errors.TransientFault) as error:
            self._timeouts += embed_progress.now_s() - began_s >= limit_s
            if isinstance(error, errors.TransientFault):
                raise
            raise errors.TransientFault(f"The model server gave no answer within {limit_s:.0f} s.") from error
        if (wrong := embed_gate.violation(reply.vectors, texts, self._dims)) is not None:
            raise errors.BadVectors(f"The model server sent {wrong}.")
        return reply

    def _failed(self, error: errors.ModelError) -> None:
        if not isinstance(error, errors.ServerUnreachable):
            self._health.answered()
        if not isinstance(error, errors.TextRejected):
            self._climber.failed(embed_progress.now_s())

    def _succeeded(self, items: list[Item], tokens: int) -> None:
        self._timeouts = 0
        self._health.succeeded(items)
        self._measured = True
        if self._starved():
            self._climber.disturbed()
        self._climber.finished(tokens, embed_progress.now_s())


def _tell_nobody(
    kind: embed_progress.Kind, items: list[Item], *, seconds: float = 0.0, reason: str = "", server: str = ""
) -> None:
    """For requests that no total may count."""
