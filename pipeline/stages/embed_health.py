"""Whether the model server can be believed: known texts, what it makes of them, and a way back for a poisoned runner.

A text may be given up only when the server has just proved that it is well, or a dead server would turn a whole
collection into rejects. Knows no batches and no concurrency: `Engine` sees to it that nothing else is in flight while a
server is examined.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pipeline import errors, models
from pipeline.stages.embed_batches import Item

log = logging.getLogger(__name__)
CANARIES = ("The quick brown fox jumps over the lazy dog.", "Seven ships sailed north before the winter came.")
HUNG_S = 25.0  # a fault that took as long was no fault of the moment
ROUNDS = 3  # reloads in a row that bring no right vector: then the server's owner must look at it


@runtime_checkable
class Resettable(Protocol):
    """An embedder that can take the model out of its server and load it again.

    One input can poison a runner until it is reloaded (ggml-org/llama.cpp#29216): from then on every text gets zeros,
    with status 200.
    """

    async def reset(self) -> None:
        """Unload the model, see it gone, load it again. Raises ServerUnreachable or TransientFault where that fails."""
        ...


def canaries(tokenizer: models.Tokenizer) -> tuple[Item, ...]:
    """Two short texts that every model can embed, counted by the model's tokenizer, for `embed_stream`."""
    counts = tokenizer.count(CANARIES)
    return tuple(Item(key="", text=text, tokens=n) for text, n in zip(CANARIES, counts, strict=True))


async def describe(embedder: models.Embedder, *, patience_s: float = 60.0) -> models.Description:
    """What the embedder says of its server, through whatever passes within `patience_s`.

    How long one try may take is the embedder's to say. One that ran into its deadline has no second chance: whoever
    starts this every night shall know within a minute or two that the model server hangs.

    Raises:
        ServerUnreachable, TransientFault: it did not pass. Other ModelErrors: as the embedder raised them; all at once
            where it was yet to be opened (whoever forgot to start the server shall not wait for it).
    """
    if isinstance(embedder, models.Later):
        await embedder.open()
    if not isinstance(embedder, models.Described):
        return models.Description()
    clock = asyncio.get_running_loop().time
    began_s, faults, poisoned = clock(), 0, False
    while True:
        tried_s = clock()
        try:
            if poisoned and isinstance(embedder, Resettable):
                await embedder.reset()
            return await embedder.describe()
        except (errors.ServerUnreachable, errors.TransientFault) as error:
            if clock() - began_s >= patience_s or clock() - tried_s >= HUNG_S:
                raise given_up(error, "could not be asked what it runs") from error
            faults += 1
            poisoned = faults >= 2 and isinstance(error, errors.BadVectors)
        await asyncio.sleep(min(5.0, 0.2 * 2.0 ** min(faults, 10)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """How often known texts failed before they came out right, and the model was loaded again for that."""

    reloads: int = 0
    failures: int = 0


class Health:
    """What is known of the servers since the last right answer, and the texts that each must be able to embed."""

    def __init__(
        self,
        known: tuple[Item, ...],
        *,
        patience_s: float,
        ask: Callable[[models.Embedder, list[Item]], Awaitable[models.Vectors]],
        on_reset: Callable[[str], None],
        pause_s: Callable[[int], float],
    ) -> None:
        self._known = list(known)
        self._patience_s = patience_s
        self._ask = ask
        self._on_reset = on_reset
        self._pause_s = pause_s
        self._unreachable_since_s: float | None = None

    @property
    def can_tell(self) -> bool:
        """There is a text that a server must be able to embed."""
        return bool(self._known)

    def answered(self) -> None:
        """A server answered, whatever it said."""
        self._unreachable_since_s = None

    def succeeded(self, items: list[Item]) -> None:
        """Right vectors came."""
        self.answered()
        if not self._known:
            self._known = sorted(items, key=lambda item: item.tokens)[:2]

    def silent(self, error: errors.ServerUnreachable) -> None:
        """No answer at all.

        Raises:
            ServerUnreachable: that has been so for `patience_s`.
        """
        now_s = asyncio.get_running_loop().time()
        if self._unreachable_since_s is None:
            self._unreachable_since_s = now_s
        if now_s - self._unreachable_since_s >= self._patience_s:
            raise error

    async def prove(self, one: models.Embedder, *, others: bool) -> Proof:
        """Return when `one` embeds known texts rightly, and what it took.

        Nothing else may be in flight there. Sleeping here holds up its work, as it should: there is none that could
        succeed. `others`: some server is well, so there is no reason to wait long for this one.

        Raises:
            TransientFault: it does not, after ROUNDS reloads or `patience_s`.
            ServerUnreachable: no answer; with `others` also: it did not get well.
        """
        if not self.can_tell:
            return Proof()
        try:
            return await self._well(one, self._patience_s / 12 if others else self._patience_s)
        except errors.TransientFault as error:
            if others:
                raise errors.ServerUnreachable(error.message, error.remedy) from error
            raise

    async def _well(self, one: models.Embedder, patience_s: float) -> Proof:
        clock = asyncio.get_running_loop().time
        rounds = failures = total = 0
        began_s = clock()
        while (fault := await self._examine(one)) is not None:
            failures, total = failures + 1, total + 1
            if _needs_reload(one, fault, failures, clock() - began_s >= patience_s / 4):
                rounds += 1
                await self._reload(one, fault, rounds)
                failures, began_s = 0, clock()
                continue
            if clock() - began_s >= patience_s:
                raise given_up(fault, "kept failing on texts that are known to be good")
            await asyncio.sleep(self._pause_s(failures))
        return Proof(reloads=rounds, failures=total)

    async def _examine(self, one: models.Embedder) -> errors.ModelError | None:
        """Try the known texts: two in one request, so that one vector for all texts is seen as well."""
        try:
            await self._ask(one, self._known)
        except (errors.TransientFault, errors.TextRejected) as error:
            return error
        return None

    async def _reload(self, one: models.Embedder, fault: errors.ModelError, round_: int) -> None:
        if round_ > ROUNDS:
            raise given_up(fault, f"kept failing after its model had been reloaded {ROUNDS} times")
        log.warning("The model server fails on known texts: loading its model again (%d of %d)", round_, ROUNDS)
        self._on_reset(fault.message)
        assert isinstance(one, Resettable)
        try:
            await one.reset()
        except (errors.ServerUnreachable, errors.TransientFault) as error:
            log.warning("Loading the model again failed: %s", error.message)


def _needs_reload(one: models.Embedder, fault: errors.ModelError, failures: int, waited: bool) -> bool:
    """Bad vectors twice: a poisoned runner. Other faults: when waiting has not helped (a runner that is stuck)."""
    if not isinstance(one, Resettable):
        return False
    return failures >= 2 if isinstance(fault, errors.BadVectors) else waited


def given_up(fault: errors.ModelError, what: str) -> errors.ModelError:
    """The error that ends a run because of `fault`: of its own kind, so that the exit code stays right."""
    kind = (
        type(fault) if isinstance(fault, (errors.ServerUnreachable, errors.TransientFault)) else errors.TransientFault
    )
    remedy = fault.remedy or "Restart the model server, then run the same command again."
    return kind(f"The model server {what}: {fault.message}", f"{remedy}\nWhat was embedded so far is kept.")
