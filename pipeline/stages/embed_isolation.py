"""A batch that keeps failing, or that a server refuses: every good text keeps its vector, each culprit is named.

Knows which texts may be to blame and what is to be tried next. How a request is sent, and how a server is kept free of
other work meanwhile, is `Requests`; what becomes of results is handed in.

    unknown ── all in one request ──▶ fails ──▶ suspects ── first half ──▶ fails ──▶ suspects are that half
                  │                                ▲            │                    the other becomes unknown again
                  ▼                                │            ▼
              embedded                             └── it is embedded, so it is one of the other half

One culprit among n is found in log2(n) requests; alone, it is tried until one reason has come back often enough
(embed_verdict.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pipeline import errors, models
from pipeline.stages.embed_batches import Item
from pipeline.stages.embed_requests import Attempt, Requests
from pipeline.stages.embed_verdict import Evidence, Failure

Finish = Callable[[list[Item], models.Vectors], Awaitable[None]]
Reject = Callable[[Item, str, str], Awaitable[None]]


class Isolation:
    """One batch. `tries`: how often a passing fault may come in a row before it counts."""

    def __init__(self, requests: Requests, *, tries: int, finish: Finish, reject: Reject) -> None:
        self._requests = requests
        self._tries = tries
        self._finish = finish
        self._reject = reject
        self._suspects: list[Item] = []  # one of these at least is to blame
        self._unknown: list[Item] = []
        self._evidence = Evidence(tries)
        self._failures = 0  # passing ones in a row
        self._refused = False

    async def run(self, items: list[Item], failure: Failure) -> None:
        """Every text of `items` is finished or rejected.

        Raises:
            TransientFault, ServerUnreachable: no server is well enough to tell.
            ModelMissing, ModelMismatch, ServerRefused: as the embedder raised them.
        """
        self._refused = failure.refused
        self._suspects, self._unknown = (items, []) if failure.refused else ([], items)
        if failure.refused and len(items) == 1:
            await self._reject(items[0], failure.kind, failure.error.message)
            return
        silences = 0
        while self._open:
            if self._refused:  # by the server's own word it is one of these: no need to keep others away
                await self._step(self._requests.attempt)
                continue
            try:
                await self._alone()
            except errors.ServerUnreachable as error:
                await self._requests.silence(error, silences)
                silences += 1

    @property
    def _open(self) -> bool:
        return bool(self._suspects or self._unknown)

    async def _alone(self) -> None:
        """Go on with a server that does nothing else, until the end, or until one refuses instead of failing."""
        async with self._requests.alone() as attempt:
            while self._open and not self._refused:
                await self._step(attempt)

    async def _step(self, attempt: Attempt) -> None:
        """One request, and what follows from it. What is known is changed after it only: it may be cut off."""
        tried = self._suspects or self._unknown
        if len(self._suspects) > 1:
            tried = self._suspects[: len(self._suspects) // 2]
        outcome = await attempt(tried)
        if not isinstance(outcome, Failure):
            self._cleared(tried)
            await self._finish(tried, outcome)
            return
        if outcome.passing and len(tried) > 1 and self._failures + 1 < self._tries:
            self._failures += 1
            await asyncio.sleep(self._requests.pause_s(self._failures))
            return
        self._refused = outcome.refused
        self._blamed(tried)
        if len(tried) == 1:
            await self._judge(tried[0], outcome)

    def _cleared(self, tried: list[Item]) -> None:
        """`tried` is embedded: what else was suspected holds the culprit."""
        if not self._suspects:
            self._unknown = []
        self._suspect(self._suspects[len(tried) :])

    def _blamed(self, tried: list[Item]) -> None:
        """`tried` holds a culprit; of what else was suspected nothing is known any more."""
        if not self._suspects:
            self._unknown = []
        elif len(tried) < len(self._suspects):
            self._unknown = self._suspects[len(tried) :] + self._unknown
        if tried != self._suspects:
            self._suspect(tried)

    def _suspect(self, items: list[Item]) -> None:
        self._suspects, self._failures, self._evidence = items, 0, Evidence(self._tries)

    async def _judge(self, item: Item, failure: Failure) -> None:
        """One text has failed alone."""
        self._evidence.add(failure)
        found = failure if failure.refused else self._evidence.verdict()
        if found is None:
            self._failures += 1
            await asyncio.sleep(self._requests.pause_s(self._failures))
            return
        if not found.refused:
            self._requests.require_known(found.error)
        self._suspect([])
        await self._reject(item, found.kind, found.error.message)
