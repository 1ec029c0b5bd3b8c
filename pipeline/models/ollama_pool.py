"""Which of several Ollama servers gets the next request, and which ones are left alone for now.

Knows servers and time; does not know texts, vectors or how a server is checked (that is handed in). The clock is the
running event loop's.

    closed ── no answer, or FAILURES faults in a row ──▶ open ── its pause is over ──▶ half-open: one check
       ▲                                                  ▲                                 │ wrong: twice the pause
       └── right ─────────────────────────────────────────┼─────────────────────────────────┤
                                                          └─────────────────────────────────┘

Not failures of the connection alone count: a server that answers every request with an error at once has nothing in
flight, so that "fewest tokens in flight" would send it everything. Where no server is well, a breaker keeps nobody from
trying: waiting and giving up are the engine's work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pipeline import errors
from pipeline.models import ollama_errors, profiles
from pipeline.models.ollama_client import Server, Tag

log = logging.getLogger(__name__)
FAILURES = 3  # faults in a row, from a server that does answer, until it is left alone
PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


@dataclass(slots=True)
class Breaker:
    """Whether to send a server anything. Times are the caller's clock in seconds."""

    failures: int = 0  # in a row
    _openings: int = 0  # since the last request that succeeded
    _until_s: float | None = None

    def state(self, now_s: float) -> Literal["closed", "open", "half-open"]:
        if self._until_s is None:
            return "closed"
        return "open" if now_s < self._until_s else "half-open"

    def failed(self, now_s: float) -> None:
        """A request failed through the server's fault."""
        self.failures += 1
        if self.failures >= FAILURES:
            self.trip(now_s)

    def trip(self, now_s: float) -> None:
        """Open it. The failures of one burst, all in flight when it began, are one reason."""
        if self.state(now_s) != "open":
            self.reopen(now_s)

    def reopen(self, now_s: float) -> None:
        """A check failed: the next pause is twice as long."""
        self._until_s = now_s + min(LONGEST_PAUSE_S, PAUSE_S * 2.0 ** min(self._openings, 16))
        self._openings += 1

    def close(self) -> None:
        """A check succeeded. The pauses stay long until a request does: a server may pass every check and no work."""
        self.failures = 0
        self._until_s = None

    def succeeded(self) -> None:
        """A request succeeded."""
        self._openings = 0
        self.close()


@dataclass(slots=True, eq=False)
class Lane:
    """One server and what it is doing.

    Attributes:
        outstanding: tokens in flight; sent: requests so far.
        specials: per text in its counts; learned from its first answer where the version does not tell.
        plain_s: when /api/embed answered last (only that tells of loads); loads: how many of its answers in a row told
            of a load of a model that was there; loaded_s: when the last of them came.
        away: it did not answer, or not yet: whoever answers there next must show that it is the same model.
        kept: it is for one caller alone (see `Pool.keep`).
        drifts: answers in a row whose token counts were not ours.
        suspect_s: since when it is known to have sent vectors that cannot be right; None: it has not.
        refused: it has another model, for good.
    """

    server: Server
    away: bool = False
    kept: bool = False
    drifts: int = 0
    outstanding: int = 0
    sent: int = 0
    warm: bool = False
    base64: bool = True
    specials: int | None = None
    plain_s: float = 0.0
    loads: int = 0
    loaded_s: float = 0.0
    breaker: Breaker = field(default_factory=Breaker)
    suspect_s: float | None = None
    refused: errors.ModelMismatch | None = None
    check: asyncio.Task[errors.ModelError | None] | None = None

    @property
    def checking(self) -> bool:
        return self.check is not None and not self.check.done()

    def ready(self, now_s: float) -> bool:
        """Nothing is known against it, and it is free."""
        return self._well and self.breaker.state(now_s) == "closed" and not self.checking and not self.kept

    def due(self, now_s: float) -> bool:
        """Something is, and it may be checked again."""
        state = self.breaker.state(now_s)
        hurt = not self._well or state == "half-open"
        return hurt and self.refused is None and state != "open" and not self.checking and not self.kept

    @property
    def _well(self) -> bool:
        return not self.away and self.suspect_s is None and self.refused is None

    def restored(self) -> None:
        """It has shown that it is well."""
        self.breaker.close()
        self.away, self.suspect_s = False, None


class Pool:
    """The lanes, and who is next.

    Args:
        check: returns when the lane's server is well again and has the same model, however it brings that about;
            ModelMismatch: it never will; any other ModelError: not yet.
        eager: check what is hurt in the background while others work; else only when nothing else is left.
    """

    def __init__(self, lanes: Sequence[Lane], check: Callable[[Lane], Awaitable[None]], *, eager: bool = True) -> None:
        self.lanes = tuple(lanes)
        self._check = check
        self._eager = eager
        self._moved = asyncio.Event()  # replaced each time a request ends or a kept server is given back

    def add(self, servers: Sequence[Server]) -> None:
        """More servers; they take part once they have passed the check."""
        self.lanes += tuple(Lane(server, away=True) for server in servers)

    async def take(self) -> Lane:
        """The server that is well and has the fewest tokens in flight.

        With none of these: one that sends wrong vectors or errors, since nobody but the caller can tell whether its
        texts are to blame; with none of those either, the first that comes back. One that is kept is waited for only
        where there is no other at all.

        Raises:
            ServerUnreachable: none answers.
            TransientFault, ModelMissing, ServerRefused: what they answer instead.
            ModelMismatch: those that do have another model.
        """
        while True:
            now_s = _now_s()
            self._raise_bugs()
            if ready := [lane for lane in self.lanes if lane.ready(now_s)]:
                if self._eager:
                    for lane in self.lanes:
                        if lane.due(now_s):
                            self._start(lane)
                return min(ready, key=_load)
            if here := [lane for lane in self.lanes if not (lane.away or lane.refused or lane.checking or lane.kept)]:
                return min(here, key=_load)
            if any(lane.refused is None and not lane.kept for lane in self.lanes) or not self.kept:
                return await self._first_back()
            await self._moved.wait()

    # --- one for one caller

    async def keep(self) -> Lane:
        """A server for one caller, once nothing is in flight there. Give it back with `free`. Raises as `take`."""
        lane = await self.take()
        lane.kept = True
        try:
            while lane.outstanding:
                await self._moved.wait()
        except BaseException:
            self.free(lane)
            raise
        return lane

    def free(self, lane: Lane) -> None:
        lane.kept = False
        self._move()

    def began(self, lane: Lane, tokens: int) -> None:
        """A request was sent."""
        lane.outstanding += tokens
        lane.sent += 1

    def ended(self, lane: Lane, tokens: int) -> None:
        """It is over, however."""
        lane.outstanding -= tokens
        self._move()

    def _move(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    @property
    def spare(self) -> bool:
        """Whether one is well that nobody keeps."""
        now_s = _now_s()
        return any(lane.ready(now_s) for lane in self.lanes)

    @property
    def kept(self) -> bool:
        """Whether somebody keeps one."""
        return any(lane.kept for lane in self.lanes)

    @property
    def taken(self) -> bool:
        """Whether somebody keeps each one that answers."""
        return self.kept and all(lane.kept or lane.away or lane.refused is not None for lane in self.lanes)

    # --- those that are out

    async def _first_back(self) -> Lane:
        willing = [lane for lane in self.lanes if lane.refused is None and not lane.kept]
        for lane in willing:
            if not lane.checking:
                self._start(lane)
        checks = [lane.check for lane in willing if lane.check is not None]
        waiting: set[asyncio.Task[errors.ModelError | None]] = set(checks)
        while waiting:
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if back := [lane for lane in self.lanes if lane.ready(_now_s())]:
                return min(back, key=_load)
        found: list[errors.ModelError] = [error for check in checks if (error := check.result()) is not None]
        raise min(found or [lane.refused for lane in self.lanes if lane.refused is not None], key=_hopeless)

    def _start(self, lane: Lane) -> None:
        lane.check = asyncio.create_task(self._checked(lane), name=f"check {lane.server.url}")

    async def _checked(self, lane: Lane) -> errors.ModelError | None:
        try:
            await self._check(lane)
        except errors.ModelMismatch as error:
            lane.refused = error
            log.error("%s It takes no part in this run. %s", error.message, error.remedy)
            return error
        except errors.ModelError as error:
            lane.away = lane.away or isinstance(error, errors.ServerUnreachable)
            lane.breaker.reopen(_now_s())
            log.info("%s It stays out for now.", error.message)
            return error
        lane.restored()
        log.info("%s takes part again.", lane.server.name)
        return None

    def _raise_bugs(self) -> None:
        """What a check raised beyond a ModelError belongs to whoever asks next, not to the garbage collector."""
        for lane in self.lanes:
            if lane.check is not None and lane.check.done():
                check, lane.check = lane.check, None
                check.result()

    def succeeded(self, lane: Lane, began_s: float) -> None:
        """A request that began at `began_s` brought right vectors. A server that has been away since stays out until a
        check has said who answers there now."""
        if not lane.away:
            lane.breaker.succeeded()
        if lane.suspect_s is not None and began_s > lane.suspect_s:
            lane.suspect_s = None

    def failed(self, lane: Lane, error: errors.ModelError) -> errors.ModelError:
        """Take note of a failure; returns the error for the caller: one that ends a run only where no server is left
        that could go on."""
        now_s = _now_s()
        others = any(other.ready(now_s) or other.kept for other in self.lanes if other is not lane)
        if isinstance(error, errors.BadVectors):
            if lane.suspect_s is None and others:
                log.warning("%s It is left alone until a known text comes out right.", error.message)
            lane.suspect_s = now_s
        elif isinstance(error, errors.ServerUnreachable):
            self._leave(lane, error, others=others)
        elif isinstance(error, errors.TransientFault):
            lane.breaker.failed(now_s)
        elif isinstance(error, (errors.ModelMissing, errors.ServerRefused)) and self._hope_without(lane):
            self._leave(lane, error, others=others)
            return errors.TransientFault(error.message, error.remedy)
        return error

    def _hope_without(self, lane: Lane) -> bool:
        """Whether another server may still do the work, if not at this moment. One server that has lost its model ends
        no run because another is being restarted; a check of each says when all have (`_first_back`)."""
        return any(other.refused is None for other in self.lanes if other is not lane)

    def _leave(self, lane: Lane, error: errors.ModelError, *, others: bool) -> None:
        if others and not lane.away:
            log.warning("%s The other servers go on without it.", error.message)
        lane.away = True
        lane.breaker.trip(_now_s())

    async def aclose(self) -> None:
        """Stop the checks that are under way."""
        checks = [lane.check for lane in self.lanes if lane.check is not None]
        for check in checks:
            check.cancel()
        await asyncio.gather(*checks, return_exceptions=True)


def _load(lane: Lane) -> tuple[int, int, int]:
    """Fewest tokens in flight; among equals not the one that failed just now, then each in turn."""
    return lane.outstanding, lane.breaker.failures, lane.sent


def _hopeless(error: errors.ModelError) -> int:
    """0 where waiting may help: what all servers together come to is the most hopeful of what each says."""
    kinds = (errors.ServerUnreachable, errors.TransientFault)
    return next((place for place, kind in enumerate(kinds) if isinstance(error, kind)), len(kinds))


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def held(server: Server, model: str) -> Tag | None:
    """The model as the server lists it; None where it does not.

    Raises:
        ServerRefused: the server is too old, or would send the text to another machine.
        ServerUnreachable, TransientFault: see ollama_errors.py.
    """
    ollama_errors.require_supported(await server.version(fresh=True), server.url)
    name = profiles.canonical(model)
    tag = next((tag for tag in await server.tags() if profiles.canonical(tag.name) == name), None)
    if tag is not None and tag.remote_host:
        raise errors.ServerRefused(
            f"{model} does not run on {server.name}: it sends every text to {tag.remote_host}.",
            "Choose a model that runs on your own machine.",
        )
    return tag


def missing(server: Server, model: str) -> errors.ModelMissing:
    return errors.ModelMissing(
        f"{server.name} does not have the model {model}.", f"Run `ollama pull {model}`, or give --pull."
    )
