"""One Ollama server: its endpoints as typed methods. Knows the wire; knows nothing of batches, retries or what a vector
must be.

Every request has one deadline, every answer is decoded into a Struct that names the fields used here, and every failure
is one of `pipeline.errors` (ollama_errors.py has the table).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from pipeline import errors
from pipeline.models import ollama_errors, transport
from pipeline.models.ollama_errors import Version
from pipeline.models.wire import Answer, EmbeddingList

QUICK_S = 30.0  # for what needs no model: /api/version, /api/tags, /api/ps (with a busy disk, /api/show)
T = TypeVar("T")


class Tag(Answer, frozen=True, kw_only=True):
    """A model that the server has. `digest` is its identity; `remote_host` not empty: its text leaves that machine."""

    name: str
    digest: str = ""
    size: int = 0
    remote_host: str = ""
    capabilities: tuple[str, ...] | None = None


class Show(Answer, frozen=True, kw_only=True):
    """What a model is made of. `model_info` is the model file's own table: keys such as `bert.context_length`."""

    model_info: dict[str, Any] = msgspec.field(default_factory=dict)
    capabilities: tuple[str, ...] | None = None
    remote_host: str = ""

    def number(self, key: str) -> int:
        """`key` of the model's architecture, such as "embedding_length"; 0 where it is not told."""
        found = self.model_info.get(f"{self.model_info.get('general.architecture', '')}.{key}", 0)
        return found if isinstance(found, int) else 0


class Loaded(Answer, frozen=True, kw_only=True):
    """A model in memory. `size_vram` equal to `size`: all on the GPU; 0: on the CPU."""

    name: str
    digest: str = ""
    size: int = 0
    size_vram: int = 0
    context_length: int = 0
    expires_at: str = ""


class Progress(Answer, frozen=True, kw_only=True):
    """A step of a pull. Digests interleave; bytes are per digest."""

    status: str = ""
    digest: str = ""
    total: int = 0
    completed: int = 0
    error: str = ""


class ChatMessage(Answer, frozen=True, kw_only=True):
    content: str = ""


class ChatLine(Answer, frozen=True, kw_only=True):
    message: ChatMessage = ChatMessage()
    done: bool = False
    done_reason: str = ""
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: str = ""


class Embedded(Answer, frozen=True, kw_only=True):
    """Answer of /api/embed. `prompt_eval_count` is left out by the server where it is 0."""

    embeddings: list[list[float]] | None = None
    prompt_eval_count: int | None = None
    load_duration: int = 0

    @property
    def rows(self) -> Sequence[Sequence[float] | bytes]:
        return self.embeddings or ()


class _Tags(Answer, frozen=True, kw_only=True):
    models: list[Tag] | None = None


class _Loaded(Answer, frozen=True, kw_only=True):
    models: list[Loaded] | None = None


class _Version(Answer, frozen=True, kw_only=True):
    version: str


class Server:
    """A client of one server, with keep-alive. `url` as `ollama_host.server_url` gives it."""

    def __init__(self, url: str, *, connect_timeout_s: float = 5.0) -> None:
        self.url = url
        self.name = f"Ollama at {url}"
        self._http = transport.Http(url, name=self.name, remedy=_REMEDY, connect_timeout_s=connect_timeout_s)
        self._version: Version | None = None

    async def aclose(self) -> None:
        await self._http.aclose()

    async def version(self, *, fresh: bool = False) -> Version:
        """The server's version; asked once, again with `fresh` (it may have been updated under a running job)."""
        if self._version is None or fresh:
            found = await self._ask("GET", "/api/version", _Version, timeout_s=QUICK_S)
            self._version = Version(found.version)
        return self._version

    async def tags(self) -> list[Tag]:
        return (await self._ask("GET", "/api/tags", _Tags, timeout_s=QUICK_S)).models or []

    async def ps(self) -> list[Loaded]:
        return (await self._ask("GET", "/api/ps", _Loaded, timeout_s=QUICK_S)).models or []

    async def show(self, model: str, *, verbose: bool = False) -> Show:
        """`verbose` adds the vocabulary (`tokenizer.ggml.tokens`; megabytes). Raises ModelMissing."""
        body = {"model": model, "verbose": verbose}
        return await self._ask("POST", "/api/show", Show, body, model=model, timeout_s=2 * QUICK_S)

    async def embed(
        self, model: str, texts: Sequence[str], *, keep_alive: str, timeout_s: float | None = None
    ) -> Embedded:
        """/api/embed: loads the model if need be and keeps it; refuses what is too long instead of cutting it.

        No `options` are sent: /v1/embeddings cannot send any, and other options between two requests reload the model.
        """
        body = {"model": model, "input": texts, "truncate": False, "keep_alive": keep_alive}
        return await self._ask("POST", "/api/embed", Embedded, body, model=model, timeout_s=timeout_s)

    async def embed_base64(self, model: str, texts: Sequence[str], *, timeout_s: float | None = None) -> EmbeddingList:
        """/v1/embeddings as base64: a third of the bytes and of the decoding. It cuts what is too long and does not say
        so: only for texts whose tokens were counted."""
        body = {"model": model, "input": texts, "encoding_format": "base64"}
        return await self._ask("POST", "/v1/embeddings", EmbeddingList, body, model=model, timeout_s=timeout_s)

    async def load(self, model: str, *, keep_alive: str) -> None:
        """Have the model in memory, without embedding anything."""
        await self.embed(model, (), keep_alive=keep_alive)

    async def unload(self, model: str) -> None:
        """Drop the model from memory (a fresh runner forgets what poisoned it). Returns before it is gone: see `ps`."""
        body = {"model": model, "keep_alive": 0}
        await self._ask("POST", "/api/generate", Answer, body, model=model, timeout_s=QUICK_S)

    async def pull(self, model: str, *, stall_s: float = 120.0) -> AsyncGenerator[Progress]:
        """Fetch a model. The last item has status "success"; without it the iterator raises.

        Raises:
            TransientFault: nothing came for `stall_s` seconds, or the stream ended early. Pulling again resumes.
            ModelError: the server says why it cannot.
        """
        status = ""
        body = {"model": model, "stream": True}
        async with aclosing(self._lines("/api/pull", body, Progress, model=model, stall_s=stall_s)) as steps:
            async for step in steps:
                if step.error:
                    raise errors.ModelError(
                        f"{self.name} cannot pull {model}: {step.error}",
                        "Check the name and the network, and try again.",
                    )
                status = step.status
                yield step
        if status != "success":
            raise errors.TransientFault(
                f"{self.name}: the pull of {model} ended at {status!r}.", "Pull again: it resumes where it stopped."
            )

    async def chat(self, body: Mapping[str, Any], *, model: str, stall_s: float) -> AsyncGenerator[ChatLine]:
        """/api/chat, streamed. The last line has `done`.

        Raises:
            TransientFault: the stream ended before that, or was silent for `stall_s` seconds.
        """
        done = False
        async with aclosing(self._lines("/api/chat", body, ChatLine, model=model, stall_s=stall_s)) as lines:
            async for line in lines:
                if line.error:
                    raise ollama_errors.in_stream(line.error, version=self._version, model=model, server=self.name)
                done = line.done
                yield line
        if not done:
            raise errors.TransientFault(f"{self.name} ended its answer in the middle.", "Ask again.")

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Mapping[str, Any] | None = None,
        *,
        model: str = "",
        timeout_s: float | None,
    ) -> T:
        content = None if body is None else transport.encode(body)
        reply = await self._http.ask(method, path, content, timeout_s=timeout_s)
        if reply.status != transport.OK:
            raise self._failure(reply.status, bytes(reply.body), model)
        return transport.decode(reply.body, kind, self.name)

    async def _lines(
        self, path: str, body: Mapping[str, Any], kind: type[T], *, model: str, stall_s: float
    ) -> AsyncGenerator[T]:
        """NDJSON, line by line as it comes; the deadline starts anew with each line."""
        async with self._http.stream(path, transport.encode(body), stall_s=stall_s) as reply:
            if reply.status_code != transport.OK:
                raise self._failure(reply.status_code, await reply.aread(), model)
            async with aclosing(transport.lines(reply, self.name, stall_s)) as lines:
                async for line in lines:
                    yield transport.decode(line.encode(), kind, self.name)

    def _failure(self, status: int, body: bytes, model: str) -> errors.ModelError:
        return ollama_errors.classify(status, body, version=self._version, model=model, server=self.name)


_REMEDY = "Start it with `ollama serve`, or name another server with --ollama-host."
