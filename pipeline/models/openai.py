"""Embedder and Generator over any server with `/v1/embeddings` and `/v1/chat/completions`: llama.cpp's server, vLLM,
TEI, LM Studio.

Such a server tells little about its model, so: the dimensions are those of a canary's vector; the limit is the
profile's, else what `/v1/models` tells, else 510 tokens; the digest is "", because none is told and a hash of a
canary's vector would change with the server's build, its device or its batch size. A model that is replaced under the
same name is noticed by its dimensions alone.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import numpy as np

from pipeline import errors
from pipeline.models import (
    Description,
    EmbedderSpec,
    EmbedReply,
    Limits,
    Message,
    Piece,
    canary,
    openai_errors,
    transport,
    vectors,
)
from pipeline.models.wire import Answer, EmbeddingList, Usage

log = logging.getLogger(__name__)
QUICK_S = 30.0
OPENING_S = 60.0  # for a first text: such a server has its model in memory, or (LM Studio) loads it as Ollama does
CHAT_STALL_S = 330.0
SEED = 1
T = TypeVar("T")


class ModelMeta(Answer, frozen=True, kw_only=True):
    n_ctx_train: int = 0  # llama.cpp


class ModelEntry(Answer, frozen=True, kw_only=True):
    id: str
    max_model_len: int | None = None  # vLLM
    meta: ModelMeta | None = None

    @property
    def context_length(self) -> int:
        """Tokens that a text may have, specials included; 0 where the server does not tell."""
        return self.max_model_len or (self.meta.n_ctx_train if self.meta else 0)


class _Models(Answer, frozen=True, kw_only=True):
    data: tuple[ModelEntry, ...] = ()


class _Delta(Answer, frozen=True, kw_only=True):
    content: str | None = None


class _Choice(Answer, frozen=True, kw_only=True):
    delta: _Delta = _Delta()
    finish_reason: str | None = None


class _ChatUsage(Usage, frozen=True, kw_only=True):
    completion_tokens: int | None = None


class _ChatChunk(Answer, frozen=True, kw_only=True):
    choices: tuple[_Choice, ...] = ()
    usage: _ChatUsage | None = None
    error: Any = None


def base_url(url: str) -> str:
    """`url` with `/v1` where it names a server alone."""
    trimmed = url.strip().rstrip("/")
    scheme, _, rest = trimmed.partition("://")
    return trimmed if "/" in rest or not scheme else f"{trimmed}/v1"


class Server:
    """A client of one OpenAI-compatible server. `key` empty: no Authorization header."""

    def __init__(self, url: str, *, key: str = "", key_name: str = "", connect_timeout_s: float = 5.0) -> None:
        self.url = base_url(url)
        self.name = f"The server at {self.url}"
        self._key_name = key_name
        headers = {"Authorization": f"Bearer {key}"} if key else None
        self._http = transport.Http(
            self.url, name=self.name, remedy=_REMEDY, connect_timeout_s=connect_timeout_s, headers=headers
        )

    async def aclose(self) -> None:
        await self._http.aclose()

    async def models(self) -> tuple[ModelEntry, ...]:
        """What the server lists; empty where it has no such list (TEI)."""
        try:
            return (await self._ask("GET", "models", _Models, timeout_s=QUICK_S)).data
        except errors.ServerRefused as error:
            if openai_errors.NO_SUCH_PATH in error.message:
                return ()
            raise

    async def embed(self, model: str, texts: Sequence[str], *, timeout_s: float | None = None) -> EmbeddingList:
        body = {"model": model, "input": texts, "encoding_format": "base64"}
        return await self._ask("POST", "embeddings", EmbeddingList, body, model=model, timeout_s=timeout_s)

    async def chat(self, body: Mapping[str, object], *, model: str, stall_s: float) -> AsyncGenerator[_ChatChunk]:
        """The chunks of a streamed completion, up to `[DONE]` or the end of the stream."""
        async with self._http.stream("chat/completions", transport.encode(body), stall_s=stall_s) as reply:
            if reply.status_code != transport.OK:
                raise self._failure(reply.status_code, await reply.aread(), model)
            async with aclosing(transport.lines(reply, self.name, stall_s)) as lines:
                async for line in lines:
                    if line == "data: [DONE]":
                        return
                    if line.startswith("data:"):
                        yield transport.decode(line[5:].encode(), _ChatChunk, self.name)

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: Mapping[str, object] | None = None,
        *,
        model: str = "",
        timeout_s: float | None,
    ) -> T:
        content = None if body is None else transport.encode(body)
        reply = await self._http.ask(method, path, content, timeout_s=timeout_s)
        if reply.status != transport.OK:
            raise self._failure(reply.status, bytes(reply.body), model)
        return transport.decode(reply.body, kind, self.name)

    def _failure(self, status: int, body: bytes, model: str) -> errors.ModelError:
        return openai_errors.classify(status, body, model=model, server=self.name, key_name=self._key_name)


class OpenAIEmbedder:
    """Embeds by one server. `normalise`: it sends vectors that are not of unit length (see `probe`)."""

    def __init__(
        self, server: Server, spec: EmbedderSpec, *, normalise: bool = False, limits: Limits | None = None
    ) -> None:
        self._server = server
        self._spec = spec
        self._normalise = normalise
        self._limits = limits or Limits(batch_texts=32)  # TEI's default maximum

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def servers(self) -> tuple[Server, ...]:
        return (self._server,)

    async def aclose(self) -> None:
        await self._server.aclose()

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        """As `Embedder.embed`. The counts are not compared: the server's tokenizer is not known here."""
        if not all(texts):
            raise errors.TextRejected("empty", "An empty text has no embedding.")
        answer = await self._server.embed(self._spec.model, texts, timeout_s=timeout_s)
        dims = self._spec.native_dims or self._spec.dims
        rows = vectors.stack(answer.rows, texts=len(texts), dims=dims, server=self._server.name)
        if self._normalise:
            rows = vectors.normalised(rows)
        vectors.verify(rows, self._server.name)
        for a, b in vectors.twins(rows, texts):
            if vectors.fold(texts[a]) != vectors.fold(texts[b]):
                raise errors.BadVectors(
                    f"{self._server.name} sent the same vector for texts {a} and {b}, which differ."
                )
        cut = vectors.cut(rows, self._spec.dims)
        return EmbedReply(vectors=cut, prompt_tokens=answer.prompt_eval_count, server=self._server.url)

    async def describe(self) -> Description:
        """The canary alone: these servers have no common way to tell their version."""
        reply = await self.embed([canary.TEXT], tokens=0, timeout_s=OPENING_S)
        return Description(server_version="", canary=canary.encode(reply.vectors[0]))


async def probe(server: Server, model: str) -> tuple[int, bool]:
    """The model's dimensions, and whether its vectors have to be brought to unit length here."""
    answer = await server.embed(model, [canary.TEXT], timeout_s=OPENING_S)
    first = answer.rows[0] if answer.rows else b""
    row = np.frombuffer(first, dtype="<f4") if isinstance(first, bytes) else np.asarray(first, dtype=np.float32)
    if row.size == 0:
        raise errors.TransientFault(f"{server.name} sent no vector for {model}.", "Is it an embedding model?")
    return row.size, abs(float(np.linalg.norm(row)) - 1) > vectors.NORM_TOLERANCE


class OpenAIGenerator:
    """Answers by /v1/chat/completions. `num_ctx`: the window that the server was started with, as far as it is
    known."""

    def __init__(
        self, server: Server, model: str, *, num_ctx: int, temperature: float = 0.0, stall_s: float = CHAT_STALL_S
    ) -> None:
        self._server = server
        self._model = model
        self._num_ctx = num_ctx
        self._temperature = temperature
        self._stall_s = stall_s

    @property
    def model(self) -> str:
        return self._model

    @property
    def context_tokens(self) -> int:
        return self._num_ctx

    async def aclose(self) -> None:
        await self._server.aclose()

    async def stream(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[Piece]:
        """The answer as it is written; the last piece has the reason and, where the server tells them, the counts.

        Raises:
            TransientFault: the stream ended before the server gave a reason, or says that it failed.
        """
        reason, usage = "", _ChatUsage()
        chunks = self._server.chat(self._body(messages, max_tokens), model=self._model, stall_s=self._stall_s)
        async with aclosing(chunks):
            async for chunk in chunks:
                usage = chunk.usage or usage
                reason = _reason(chunk, self._server.name) or reason
                text = "".join(choice.delta.content or "" for choice in chunk.choices[:1])
                if text:
                    yield Piece(text=text)
        if not reason:
            raise errors.TransientFault(f"{self._server.name} ended its answer in the middle.", "Ask again.")
        counts = {"prompt_tokens": usage.prompt_tokens, "answer_tokens": usage.completion_tokens}
        yield Piece(text="", done=True, done_reason=reason, **counts)

    def _body(self, messages: Sequence[Message], max_tokens: int) -> dict[str, object]:
        return {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": max_tokens,
            "temperature": self._temperature,
            "seed": SEED,
        }


def _reason(chunk: _ChatChunk, server: str) -> str:
    if chunk.error:
        raise errors.TransientFault(f"{server} failed in the middle of its answer: {chunk.error}", "Ask again.")
    return next((choice.finish_reason for choice in chunk.choices if choice.finish_reason), "")


_REMEDY = "Start the server, or set openai.url to where it listens."
