"""Pictures of PDF pages, made in processes that can be killed, two at a time, and the last of them kept.

A PDF that hangs, crashes pdfium or eats memory costs the picture that was asked for and the restart of that process; it
is not tried again for a while. Knows nothing of HTML.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from pipeline import errors, readers, workers
from pipeline.origin import Origin
from pipeline.readers.pdf_page import Picture, Wanted

WORKERS = 2  # 100 to 250 ms a picture, mostly; one that takes its whole time keeps the other free
PICTURE_S = 10.0  # of a processor for one, the reading of its file included
WAITING = 16  # pictures that are asked for at once; beyond, the server is busy
KEPT_BYTES = 32_000_000  # of pictures: about 100
KEPT_REFUSALS = 1_000
AGAIN_S = 300.0  # after which a PDF that could not be drawn is tried again: the machine may have been busy


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What became of a picture, and until when that is believed."""

    result: Picture | errors.PipelineError
    until_s: float = float("inf")

    @property
    def size(self) -> int:
        return len(self.result.png) if isinstance(self.result, Picture) else KEPT_BYTES // KEPT_REFUSALS


_Key = tuple[str, str, Wanted]


class Pictures:
    """Draws and remembers. To be used in one event loop."""

    def __init__(
        self,
        *,
        memory_mb: int,
        most_mb: int,
        seconds: float = PICTURE_S,
        waiting: int = WAITING,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        """`most_mb`: of a file (source.max_file_mb). For the others see the constants of their names."""
        self._memory_mb = memory_mb
        self._most_bytes = most_mb * readers.MEGABYTE
        self._seconds = seconds
        self._waiting = waiting
        self._kept_bytes = kept_bytes
        self._pool: workers.WorkerPool | None = None
        self._kept: OrderedDict[_Key, _Kept] = OrderedDict()
        self._making: dict[_Key, asyncio.Task[Picture]] = {}

    async def get(self, origin: Origin, wanted: Wanted) -> Picture:
        """The picture of a page, from memory where it was asked for before.

        Raises:
            DocumentError: the file is not what was indexed, or cannot be drawn. WorkerError: it took too long or too
                much memory, or killed its process. TransientFault: too many are being drawn.
        """
        key = (origin.file_hash, origin.content_hash, wanted)
        kept = self._kept.get(key)
        if kept is not None and time.monotonic() < kept.until_s:
            self._kept.move_to_end(key)
            if isinstance(kept.result, errors.PipelineError):
                raise type(kept.result)(*kept.result.args)  # anew: a traceback grows with each raise
            return kept.result
        task = self._making.get(key)
        if task is None:
            if len(self._making) >= self._waiting:
                raise errors.TransientFault("Many pictures are being drawn.", "Try again in a few seconds.")
            task = self._making[key] = asyncio.create_task(self._make(key, origin, wanted))
            task.add_done_callback(lambda done: self._making.pop(key, None))
            task.add_done_callback(_seen)
        return await asyncio.shield(task)  # others may wait for the same, and it is kept

    async def _make(self, key: _Key, origin: Origin, wanted: Wanted) -> Picture:
        if self._pool is None:
            self._pool = workers.WorkerPool(WORKERS, memory_mb=self._memory_mb, recycle_tasks=200)
        seconds = self._seconds + origin.size / readers.MEGABYTE / 20  # 20 MB a second from a slow disk
        future = self._pool.submit("pipeline.origin:draw", origin, wanted, self._most_bytes, timeout_s=seconds)
        try:
            picture: Picture = await asyncio.wrap_future(future)
        except (errors.DocumentError, errors.WorkerError) as error:
            # Nothing of it is drawn again for a while, unless it is of the file as it is now, which may come back.
            if not (isinstance(error, errors.DocumentError) and error.kind in ("changed", "vanished", "permission")):
                self._keep(key, _Kept(result=error, until_s=time.monotonic() + AGAIN_S))
            raise
        self._keep(key, _Kept(result=picture))
        return picture

    def _keep(self, key: _Key, kept: _Kept) -> None:
        self._kept.pop(key, None)
        self._kept[key] = kept
        size = sum(one.size for one in self._kept.values())
        while size > self._kept_bytes and len(self._kept) > 1:
            size -= self._kept.popitem(last=False)[1].size

    async def aclose(self) -> None:
        """End the process, and what it is drawing."""
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)
        await asyncio.gather(*self._making.values(), return_exceptions=True)


def _seen(task: asyncio.Task[Picture]) -> None:
    """Its error is told to who waits; asyncio shall not complain when nobody does any more."""
    if not task.cancelled():
        task.exception()
