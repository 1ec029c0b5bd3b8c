"""An embedder that needs no server before there is something to embed: a night without news needs and starts none.

For a collection that was begun before: who embeds it is recorded. Whether that model is still there, and is the same,
is found out when it is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from pipeline.models import Description, Embedder, EmbedderSpec, EmbedReply, Limits
from pipeline.models.ollama import OllamaEmbedder


class LaterEmbedder:
    """`open_` is called once, by `open` or by whatever needs the server first; its errors are those of either."""

    def __init__(self, spec: EmbedderSpec, limits: Limits, open_: Callable[[], Awaitable[OllamaEmbedder]]) -> None:
        self._spec = spec
        self._limits = limits
        self._open = open_
        self._opening = asyncio.Lock()
        self._inner: OllamaEmbedder | None = None

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    @property
    def limits(self) -> Limits:
        return self._limits

    async def open(self) -> OllamaEmbedder:
        """As `resolve.open_embedder`."""
        async with self._opening:
            if self._inner is None:
                self._inner = await self._open()
            return self._inner

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        return await (self._inner or await self.open()).embed(texts, tokens=tokens, timeout_s=timeout_s)

    async def describe(self) -> Description:
        return await (await self.open()).describe()

    async def reset(self) -> None:
        await (await self.open()).reset()

    def alone(self) -> AbstractAsyncContextManager[Embedder]:
        """As `Divided.alone`; only after something was embedded."""
        assert self._inner is not None
        return self._inner.alone()

    @property
    def spare(self) -> bool:
        return self._inner is not None and self._inner.spare

    @property
    def taken(self) -> bool:
        return self._inner is not None and self._inner.taken

    async def aclose(self) -> None:
        if self._inner is not None:
            await self._inner.aclose()
