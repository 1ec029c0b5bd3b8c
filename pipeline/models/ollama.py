"""Embedder and Generator over Ollama servers: what is asked of them, and what is believed of their answers.

One call of `embed` is one request to one server, checked to the last vector; retries, isolation of a bad text and
pacing belong to the embed stage. Knows the profile and limits of its model through `EmbedderSpec`; HTTP is in
ollama_client.py.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pipeline import errors
from pipeline.models import EmbedderSpec, EmbedReply, Limits, Message, Piece, Vectors, profiles, transport, vectors
from pipeline.models.ollama_client import Embedded, Server
from pipeline.models.ollama_errors import Version
from pipeline.models.wire import EmbeddingList

log = logging.getLogger(__name__)
CHAT_STALL_S = 330.0  # Ollama gives a loading model 5 minutes without progress before it gives up itself
SEED = 1
RESET_S = 60.0
DOWN_S = 5.0  # that a server which did not answer is left alone while another does
SPECIALS = (0, 1, 2)  # tokens that a model may add to a text
SameInput = Callable[[str, str], bool]


@dataclass(slots=True)
class _Lane:
    """One server and what it is doing. `specials`: learned from its first answer where the version does not tell."""

    server: Server
    outstanding: int = 0
    warm: bool = False
    base64: bool = True
    specials: int | None = None
    down_until_s: float = 0.0  # on the event loop's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How far the caller's token counts can be trusted against the server's.

    Attributes:
        exact: counts come from the model's own vocabulary, so they must agree; else they are bounds and nothing is
            compared.
        wordpiece: [CLS] and [SEP] are two per text; the version says whether the server counts them.
        readings: what other totals an honest server may come to for these texts (see wordpiece.py).
        same_input: whether two texts are the same token ids, so that one vector for both is right.
    """

    exact: bool
    wordpiece: bool = False
    readings: Callable[[Sequence[str]], Iterable[int]] = field(default=lambda texts: ())
    same_input: SameInput = field(default=lambda a, b: vectors.fold(a) == vectors.fold(b))


class OllamaEmbedder:
    """Embeds on the server with the fewest tokens in flight. All servers must hold the model with `spec.digest`.

    Args:
        spec: `spec.model` is the name to ask for; `spec.native_dims` not 0: vectors of that length are cut to
            `spec.dims`.
        counting: what the caller's token counts are worth; without exact ones /v1/embeddings is not used, since it cuts
            in silence.
        keep_alive: how long the model stays in memory after a request (Go's notation).
    """

    def __init__(
        self,
        servers: Sequence[Server],
        spec: EmbedderSpec,
        *,
        counting: Counting,
        keep_alive: str = "30m",
        limits: Limits | None = None,
    ) -> None:
        self._lanes = [_Lane(server) for server in servers]
        self._spec = spec
        self._counting = counting
        self._keep_alive = keep_alive
        self._limits = limits or Limits()

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def servers(self) -> tuple[Server, ...]:
        return tuple(lane.server for lane in self._lanes)

    async def aclose(self) -> None:
        for lane in self._lanes:
            await lane.server.aclose()

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        """As `Embedder.embed`. `tokens` 0: not counted, so nothing is compared. No text may be empty.

        Raises:
            ServerUnreachable, TransientFault, TextRejected, ModelMissing, ServerRefused: see ollama_errors.py.
            BadVectors: a vector that cannot be right; a TransientFault.
            ModelMismatch: the server counts other tokens than the caller: it cuts texts, or the tokenizer is not the
                model's.
        """
        if not all(texts):
            # Ollama would answer with fewer vectors, or with a junk one.
            raise errors.TextRejected("empty", "An empty text has no embedding.")
        lane = self._free_lane()
        lane.outstanding += max(tokens, 1)
        try:
            async with transport.deadline(lane.server.name, timeout_s):
                return await self._embed_on(lane, texts, tokens, timeout_s)
        except errors.ModelError as error:
            lane.warm = False  # it may have restarted: the next request says keep_alive again
            if isinstance(error, errors.ServerUnreachable):
                lane.down_until_s = asyncio.get_running_loop().time() + DOWN_S
            raise
        finally:
            lane.outstanding -= max(tokens, 1)

    def _free_lane(self) -> _Lane:
        """The server with the fewest tokens in flight; one that did not answer a moment ago only if none did."""
        now_s = asyncio.get_running_loop().time()
        return min(self._lanes, key=lambda lane: (max(lane.down_until_s - now_s, 0.0), lane.outstanding))

    async def reset(self) -> None:
        """Unload the model on every server, see it gone, load it again: one input can poison a runner until then.

        Raises:
            ServerUnreachable, TransientFault: that fails, or the model is still there after RESET_S.
        """
        for lane in self._lanes:
            await self._reload(lane)

    async def _reload(self, lane: _Lane) -> None:
        server, model = lane.server, self._spec.model
        await server.unload(model)
        async with transport.deadline(server.name, RESET_S):
            while any(profiles.canonical(one.name) == profiles.canonical(model) for one in await server.ps()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # nothing tells when it is gone
        await server.load(model, keep_alive=self._keep_alive)

    async def _embed_on(self, lane: _Lane, texts: Sequence[str], tokens: int, timeout_s: float | None) -> EmbedReply:
        answer = await self._request(lane, texts, tokens, timeout_s)
        agreed = await self._agrees(lane, texts, tokens, answer.prompt_eval_count)
        if not agreed and isinstance(answer, EmbeddingList):  # perhaps it cut a text: /api/embed would say so
            answer = await self._ask_plainly(lane, texts, timeout_s)
            agreed = await self._agrees(lane, texts, tokens, answer.prompt_eval_count)
        if not agreed:
            raise await self._drift(lane, len(texts), tokens, answer.prompt_eval_count)
        native = self._spec.native_dims or self._spec.dims
        rows = vectors.stack(answer.rows, texts=len(texts), dims=native, server=lane.server.name)
        self._verify(rows, texts, lane.server.name)
        return EmbedReply(
            vectors=vectors.cut(rows, self._spec.dims),
            prompt_tokens=answer.prompt_eval_count,
            load_ns=answer.load_duration,
            server=lane.server.url,
        )

    async def _request(
        self, lane: _Lane, texts: Sequence[str], tokens: int, timeout_s: float | None
    ) -> Embedded | EmbeddingList:
        """The first request to a server goes to /api/embed, which loads the model with keep_alive; later ones as base64
        where they may: /v1/embeddings leaves the keep_alive as it is."""
        version = await lane.server.version()
        counted = self._counting.exact and tokens > 0
        if not (lane.warm and lane.base64 and counted and version.has_base64):
            return await self._ask_plainly(lane, texts, timeout_s)
        found = await lane.server.embed_base64(self._spec.model, texts, timeout_s=timeout_s)
        lane.base64 = found.is_base64
        return found

    async def _ask_plainly(self, lane: _Lane, texts: Sequence[str], timeout_s: float | None) -> Embedded:
        answer = await lane.server.embed(self._spec.model, texts, keep_alive=self._keep_alive, timeout_s=timeout_s)
        lane.warm = True
        return answer

    def _verify(self, rows: Vectors, texts: Sequence[str], server: str) -> None:
        vectors.verify(rows, server)
        for a, b in vectors.twins(rows, texts):
            if not self._counting.same_input(texts[a], texts[b]):
                raise errors.BadVectors(f"{server} sent the same vector for texts {a} and {b}, which differ.")

    async def _agrees(self, lane: _Lane, texts: Sequence[str], tokens: int, counted: int | None) -> bool:
        """Whether the server's count is ours, with the specials of each text where its version counts them."""
        if not self._counting.exact or not tokens or counted is None:
            return True
        known = await lane.server.version()
        if self._explains(lane, known, texts, tokens, counted):
            return True
        version = await lane.server.version(fresh=True)
        if version == known:
            return False
        lane.specials = None  # it was updated under us
        return self._explains(lane, version, texts, tokens, counted)

    def _explains(self, lane: _Lane, version: Version, texts: Sequence[str], tokens: int, counted: int) -> bool:
        """Whether `counted` comes from our count, or from another way in which servers read these texts."""
        content = counted - len(texts) * self._specials(lane, version, len(texts), tokens, counted)
        if content == tokens:
            return True
        return any(content == total for total in self._counting.readings(texts))

    async def _drift(self, lane: _Lane, texts: int, tokens: int, counted: int | None) -> errors.ModelMismatch:
        version = await lane.server.version()
        expected = tokens + texts * self._specials(lane, version, texts, tokens, counted or 0)
        return errors.ModelMismatch(
            f"{lane.server.name} (version {version.text}) counted {counted} tokens for {texts} texts of "
            f"{self._spec.model} where {expected} are expected: it cuts texts, or its tokenizer is not the one "
            "that chunks were counted with. Nothing of this batch was kept.",
            "Run `pipeline doctor`. If the model was replaced there, pull it again, or build a new collection.",
        )

    def _specials(self, lane: _Lane, version: Version, texts: int, tokens: int, counted: int) -> int:
        """Specials per text in this server's counts: by version for WordPiece, else as its first answer showed."""
        if self._counting.wordpiece:
            return 2 if version.counts_specials else 0
        if lane.specials is None:
            lane.specials = next((n for n in SPECIALS if counted == tokens + n * texts), 0)
        return lane.specials


class OllamaGenerator:
    """Answers by /api/chat. One fixed set of options per model: another num_ctx would load it anew."""

    def __init__(
        self,
        server: Server,
        model: str,
        *,
        num_ctx: int = 8192,
        temperature: float = 0.0,
        keep_alive: str = "30m",
        stall_s: float = CHAT_STALL_S,
    ) -> None:
        self._server = server
        self._model = model
        self._num_ctx = num_ctx
        self._temperature = temperature
        self._keep_alive = keep_alive
        self._stall_s = stall_s

    @property
    def model(self) -> str:
        return self._model

    @property
    def server(self) -> Server:
        return self._server

    @property
    def context_tokens(self) -> int:
        return self._num_ctx

    async def aclose(self) -> None:
        await self._server.aclose()

    async def stream(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[Piece]:
        """The answer as it is written. Never cut in silence: `truncate` and `shift` are off (Ollama >= 0.12.6 obeys),
        and an answer that ran into `max_tokens` ends with done_reason "length".

        Raises:
            TextRejected: the conversation is longer than num_ctx.
            ServerUnreachable, TransientFault, ModelMissing, ServerRefused: see ollama_errors.py.
        """
        body = self._body(messages, max_tokens)
        async with aclosing(self._server.chat(body, model=self._model, stall_s=self._stall_s)) as lines:
            async for line in lines:
                yield Piece(
                    text=line.message.content,
                    done=line.done,
                    done_reason=line.done_reason,
                    prompt_tokens=line.prompt_eval_count,
                    answer_tokens=line.eval_count,
                )

    def _body(self, messages: Sequence[Message], max_tokens: int) -> dict[str, object]:
        return {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
            "truncate": False,
            "shift": False,
            "keep_alive": self._keep_alive,
            "options": {
                "num_ctx": self._num_ctx,
                "num_predict": max_tokens,
                "temperature": self._temperature,
                "seed": SEED,
            },
        }
