"""Servers of our own, started once it is clear that there is more than a little to embed.

To start a server takes seconds: it looks for GPUs (up to ten), then the model is loaded (one to eight for mxbai's 670
MB). A changed page is embedded by then, so nothing is started for it: the first server is one that answers already, or
one of our own. After AFTER_S of work the others are started, while the first goes on: whoever waits until he has worked
as long as starting takes never loses more than twice what was necessary, however much is to come.

Knows time and the pool; which program is started is in ollama_local.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pipeline import errors
from pipeline.models.ollama_client import Server
from pipeline.models.ollama_local import LocalServers
from pipeline.models.ollama_pool import Pool

log = logging.getLogger(__name__)
AFTER_S = 10.0
Start = Callable[[], Awaitable[LocalServers]]


class Growth:
    """The servers to come, of one embedder.

    Args:
        connect: a client of a server by its URL.
    """

    def __init__(self, start: Start, connect: Callable[[str], Server]) -> None:
        self._start = start
        self._connect = connect
        self._in_flight = 0
        self._since_s = 0.0
        self._busy_s = 0.0  # with something in flight, up to `_since_s`
        self._starting: asyncio.Task[LocalServers | None] | None = None

    def began(self, pool: Pool) -> None:
        """A request is sent. What is started joins `pool`, and takes part once it has shown that it has the same
        model."""
        now_s = asyncio.get_running_loop().time()
        if not self._in_flight:
            self._since_s = now_s
        self._in_flight += 1
        if self._starting is None and self._busy_s + now_s - self._since_s >= AFTER_S:
            self._starting = asyncio.create_task(self._grow(pool))

    def ended(self) -> None:
        """It is over, however."""
        self._in_flight -= 1
        if not self._in_flight:
            self._busy_s += asyncio.get_running_loop().time() - self._since_s

    async def aclose(self) -> None:
        """Stop what was started, or is being started."""
        if self._starting is None:
            return
        self._starting.cancel()
        (local,) = await asyncio.gather(self._starting, return_exceptions=True)
        if isinstance(local, LocalServers):
            await local.aclose()

    async def _grow(self, pool: Pool) -> LocalServers | None:
        try:
            local = await self._start()
        except errors.PipelineError as error:
            log.warning("%s The run goes on without more servers. %s", error.message, error.remedy)
            return None
        pool.add([self._connect(url) for url in local.urls])
        return local
