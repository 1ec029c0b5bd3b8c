"""Requests of the embed engine: one batch, one answer, and what there is to learn from it.

Knows the embedder, how many requests may be in flight and for how long, and whether the server can be believed. Does
not know what is done with a batch that fails: that is `Engine`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline import errors, models
from pipeline.stages import embed_control, embed_gate, embed_health, embed_progress
from pipeline.stages.embed_batches import Item, tokens_of
from pipeline.stages.embed_control import EngineOptions


class Tell(Protocol):
    """Where a request says that it was sent, failed or succeeded."""

    def __call__(
        self, kind: embed_progress.Kind, items: list[Item], *, seconds: float = 0.0, reason: str = "", server: str = ""
    ) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt brought no vectors.

    Attributes:
        kind: as in Rejected.
        texts: how many the attempt was about.
        refused: the server says that no retry helps.
        poisons: on a server that was well, and with nothing else in flight, it made known texts fail too.
    """

    kind: str
    error: errors.ModelError
    texts: int
    refused: bool = False
    poisons: bool = False


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
        self._dims = embedder.spec.dims
        self._options = options
        self._dice = dice
        self._tell = tell
        self._starved = starved
        self._climber = embed_control.Climber(
            start=options.concurrency, most=options.max_concurrency, least=options.servers
        )
        self._permits = embed_control.Permits(level=lambda: self._climber.level, texts=options.in_flight_texts)
        self._deadlines = embed_control.Deadlines(options.shortest_deadline_s)
        self._health = embed_health.Health(
            embedder,
            canaries,
            patience_s=options.patience_s,
            ask=lambda items: self._ask(items, _tell_nobody),
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

    @property
    def can_tell(self) -> bool:
        """Whether a sick server can be told from a bad text."""
        return self._health.can_tell

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

    async def attempt(self, items: list[Item], *, careful: bool) -> models.Vectors | Failure:
        """Send a batch once; where there is no answer, wait and send it again.

        `careful`: alone, on a server that is known to be well, and say whether it still is after a failure.
        """
        silences = 0
        while True:
            try:
                async with self._permits.hold(len(items), alone=careful):
                    return await (self._send_carefully(items) if careful else self._send(items))
            except errors.ServerUnreachable as error:
                self._health.silent(error)
            await asyncio.sleep(self.pause_s(silences))
            silences += 1

    async def _send_carefully(self, items: list[Item]) -> models.Vectors | Failure:
        self._climber.disturbed()
        if self._health.doubtful:
            await self._health.prove()
        outcome = await self._send(items)
        if isinstance(outcome, Failure) and not outcome.refused and self._health.can_tell:
            return replace(outcome, poisons=await self._health.prove())
        return outcome

    async def _send(self, items: list[Item]) -> models.Vectors | Failure:
        try:
            return await self._ask(items, self._tell)
        except errors.TextRejected as error:
            return Failure(kind=error.kind, error=error, texts=len(items), refused=True)
        except errors.BadVectors as error:
            return Failure(kind="bad_vector", error=error, texts=len(items))
        except errors.TransientFault as error:
            return Failure(kind="fault", error=error, texts=len(items))

    async def _ask(self, items: list[Item], tell: Tell) -> models.Vectors:
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
            reply = await self._reply(items, tokens)
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

    async def _reply(self, items: list[Item], tokens: int) -> models.EmbedReply:
        texts = [item.text for item in items]
        limit_s = self._deadlines.limit(self._tokens_in_flight, self._timeouts)
        began_s = embed_progress.now_s()
        try:
            async with asyncio.timeout(1.1 * limit_s + 1.0):  # the embedder's own comes first, where it has one
                reply = await self._embedder.embed(texts, tokens=tokens, timeout_s=limit_s)
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
            self._health.doubtful = True
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
