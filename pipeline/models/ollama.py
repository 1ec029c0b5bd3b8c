"""Embedder over Ollama servers: what is asked of them, and what is believed of their answers.

One call of `embed` is one request to one server, checked to the last vector; retries, isolation of a bad text and
pacing belong to the embed stage. Knows the profile and limits of its model through `EmbedderSpec`; HTTP is in
ollama_client.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import errors
from pipeline.models import (
    Description,
    EmbedderSpec,
    EmbedReply,
    Limits,
    Vectors,
    canary,
    ollama_pool,
    profiles,
    transport,
    vectors,
)
from pipeline.models.ollama_client import Embedded, Server
from pipeline.models.ollama_counts import Counting as Counting
from pipeline.models.ollama_counts import Counts
from pipeline.models.ollama_growth import Growth
from pipeline.models.ollama_local import LocalServers
from pipeline.models.ollama_pool import Lane, Pool
from pipeline.models.wire import EmbeddingList

log = logging.getLogger(__name__)
LOAD_TIMEOUT_S = 60.0  # see config.OllamaSettings.load_timeout_s
RESET_S = 60.0
RELOADS = 2  # of a server's model, before a check that goes on failing is put off
LOAD_S = 0.2  # load_duration of a model that is there is below 50 ms; a runner takes a quarter of a second to start
PLAIN_EVERY_S = 20.0  # /v1/embeddings tells of no loads, and a model that it loads is kept for 5 minutes only


class OllamaEmbedder:
    """Embeds on the server with the fewest tokens in flight. All servers must hold the model with `spec.digest`.

    Args:
        spec: `spec.model` is the name to ask for; `spec.native_dims` not 0: vectors of that length are cut to
            `spec.dims`.
        counting: what the caller's token counts are worth; without exact ones /v1/embeddings is not used, since it cuts
            in silence.
        absent: servers that were not checked yet, such as one that did not answer: they take part as soon as they
            answer and have the same model.
        keep_alive: how long the model stays in memory after a request (Go's notation).
        eager: go and see in the background whether a server that is out can take part again; else only when no other
            is left.
        local: stopped by `aclose`; growth: servers to be started when there is much to do, stopped likewise.
        load_timeout_s: for a known text, where the model may have to be loaded first.
    """

    def __init__(
        self,
        servers: Sequence[Server],
        spec: EmbedderSpec,
        *,
        counting: Counting,
        absent: Sequence[Server] = (),
        keep_alive: str = "30m",
        limits: Limits | None = None,
        eager: bool = True,
        local: LocalServers | None = None,
        growth: Growth | None = None,
        load_timeout_s: float = LOAD_TIMEOUT_S,
    ) -> None:
        lanes = [Lane(server) for server in servers] + [Lane(server, away=True) for server in absent]
        self._pool = Pool(lanes, self._restore, eager=eager)
        self._spec = spec
        self._counting = counting
        self._counts = Counts(counting, spec.model)
        self._keep_alive = keep_alive
        self._limits = limits or Limits()
        self._local = local
        self._growth = growth
        self._load_timeout_s = load_timeout_s
        self._canary: NDArray[np.float32] | None = None
        self._canary_of_server = ""
        self._warned_of_loads = False

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def servers(self) -> tuple[Server, ...]:
        """All of them, those that answered at the start first."""
        return tuple(lane.server for lane in self._pool.lanes)

    async def aclose(self) -> None:
        await self._pool.aclose()
        if self._growth is not None:
            await self._growth.aclose()
        for server in self.servers:
            await server.aclose()
        if self._local is not None:
            await self._local.aclose()

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        """As `Embedder.embed`. `tokens` 0: not counted, so nothing is compared. No text may be empty.

        Raises:
            ServerUnreachable, TransientFault, TextRejected, ModelMissing, ServerRefused: see ollama_errors.py.
            BadVectors: a vector that cannot be right; a TransientFault.
            ModelMismatch: the server counts other tokens than the caller, and has done so before: it cuts texts, or the
                tokenizer is not the model's; or the only servers that answer have another model than before.
        """
        if not all(texts):
            # Ollama would answer with fewer vectors, or with a junk one.
            raise errors.TextRejected("empty", "An empty text has no embedding.")
        return await self._send(await self._pool.take(), texts, tokens, timeout_s)

    async def _send(self, lane: Lane, texts: Sequence[str], tokens: int, timeout_s: float | None) -> EmbedReply:
        began_s, weight = asyncio.get_running_loop().time(), max(tokens, 1)
        self._pool.began(lane, weight)
        if self._growth is not None:
            self._growth.began(self._pool)
        try:
            async with transport.deadline(lane.server.name, timeout_s):
                reply = await self._embed_on(lane, texts, tokens, timeout_s)
        except errors.ModelError as error:
            lane.warm = False  # it may have restarted: the next request says keep_alive again
            failure = self._pool.failed(lane, error)
            if failure is error:
                raise
            raise failure from error
        finally:
            self._pool.ended(lane, weight)
            if self._growth is not None:
                self._growth.ended()
        self._pool.succeeded(lane, began_s)
        return reply

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[OneServer]:
        """As `Divided.alone`."""
        lane = await self._pool.keep()
        try:
            yield OneServer(self, lane)
        finally:
            self._pool.free(lane)

    @property
    def spare(self) -> bool:
        """As `Divided.spare`."""
        return self._pool.spare

    @property
    def taken(self) -> bool:
        """As `Divided.taken`."""
        return self._pool.taken

    # --- whom to believe

    async def agree(self) -> None:
        """Have every server embed one known text: the vectors must be those of one model.

        What a server that does not answer, or answers wrongly, would make of it is found out later: it is left out
        until then.

        Raises:
            ModelMismatch: two servers make different vectors.
            ServerUnreachable, TransientFault, ...: of the first server, where none brings a vector.
        """
        lanes = [lane for lane in self._pool.lanes if not lane.away]
        found = await asyncio.gather(*(self._canary_on(lane) for lane in lanes), return_exceptions=True)
        failures: list[errors.ModelError] = []
        for lane, vector in zip(lanes, found, strict=True):
            if isinstance(vector, errors.ServerUnreachable | errors.TransientFault):
                failures.append(vector)
            elif isinstance(vector, BaseException):
                raise vector
            else:
                self._compare(lane, vector)
        if len(failures) == len(lanes):
            raise failures[0]
        for lane, vector in zip(lanes, found, strict=True):
            if isinstance(vector, errors.ModelError):
                log.warning("%s The other servers go on without it.", vector.message)
                lane.away = True

    async def describe(self) -> Description:
        """The versions of the servers that take part, and the vector that they agree on."""
        if self._canary is None:
            lane = await self._pool.take()
            try:
                self._compare(lane, await self._canary_on(lane))
            except errors.ModelError as error:
                raise self._pool.failed(lane, error) from error.__cause__
            assert self._canary is not None
        versions = [await lane.server.version() for lane in self._pool.lanes if not (lane.away or lane.refused)]
        text = ", ".join(dict.fromkeys(version.text for version in versions))
        return Description(server_version=text, canary=canary.encode(self._canary))

    async def reset(self) -> None:
        """Unload the model, see it gone, load it again: one input can poison a runner until then. On the servers that
        sent wrong vectors or errors last; on all that answer where none is known to have done so.

        Raises:
            ServerUnreachable, TransientFault: that fails, or the model is still there after RESET_S.
            BadVectors: a known text still comes out wrong.
        """
        lanes = [lane for lane in self._pool.lanes if not (lane.away or lane.refused)] or self._pool.lanes
        hurt = [lane for lane in lanes if lane.suspect_s is not None or lane.breaker.failures]
        for lane in hurt or lanes:
            await self._renew(lane)

    async def _renew(self, lane: Lane) -> None:
        await self._reload(lane)
        if self._canary is not None:
            self._compare(lane, await self._canary_on(lane))

    async def _restore(self, lane: Lane) -> None:
        """The pool's check: the server answers, has the same model, and that model makes the same vectors, if need be
        after it was loaded anew."""
        lane.warm, lane.specials, lane.loads = False, None, 0
        await self._same_digest(lane)
        for _ in range(RELOADS):
            try:
                return self._compare(lane, await self._canary_on(lane))
            except (errors.BadVectors, errors.ModelMismatch) as error:
                log.warning("%s Its model is loaded anew.", error.message)
            await self._reload(lane)
        return self._compare(lane, await self._canary_on(lane))

    async def _same_digest(self, lane: Lane) -> None:
        tag = await ollama_pool.held(lane.server, self._spec.model)
        if tag is None:
            raise ollama_pool.missing(lane.server, self._spec.model)
        if self._spec.digest and tag.digest != self._spec.digest:
            raise _other_model(lane.server, self._spec.model, f"digest {tag.digest[:12]}, not {self._spec.digest[:12]}")

    async def _canary_on(self, lane: Lane) -> NDArray[np.float32]:
        began_s, limit_s = asyncio.get_running_loop().time(), self._load_timeout_s
        try:
            answer = await self._ask_plainly(lane, [canary.TEXT], limit_s)
        except errors.TransientFault as error:
            if asyncio.get_running_loop().time() - began_s < limit_s:
                raise
            raise errors.TransientFault(
                f"{lane.server.name} answers, but {self._spec.model} has not embedded one sentence in {limit_s:.3g} s: "
                "its runner hangs, or the model takes longer than that to load.",
                "Restart Ollama. Where the model does take so long to load, raise ollama.load_timeout_s.",
            ) from error
        rows = self._rows(answer, 1, lane.server)
        vectors.verify(rows, lane.server.name)
        row: NDArray[np.float32] = vectors.cut(rows, self._spec.dims)[0]
        return row

    def _compare(self, lane: Lane, vector: NDArray[np.float32]) -> None:
        """Whether the canary's vector is that of the others; the first that comes is what the others are held to."""
        if self._canary is None:
            self._canary, self._canary_of_server = vector, lane.server.name
            return
        found = canary.cosine(self._canary, vector)
        if not found > canary.AGREE:
            what = f"a known text gets another vector there than from {self._canary_of_server}, cosine {found:.4f}"
            raise _other_model(lane.server, self._spec.model, what)

    async def _reload(self, lane: Lane) -> None:
        server, model = lane.server, self._spec.model
        await server.unload(model)
        async with transport.deadline(server.name, RESET_S):
            while any(profiles.canonical(one.name) == profiles.canonical(model) for one in await server.ps()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # nothing tells when it is gone
        async with transport.deadline(server.name, self._load_timeout_s):
            await server.load(model, keep_alive=self._keep_alive)

    # --- one request

    async def _embed_on(self, lane: Lane, texts: Sequence[str], tokens: int, timeout_s: float | None) -> EmbedReply:
        answer = await self._request(lane, texts, tokens, timeout_s)
        agreed = await self._counts.agree(lane, texts, tokens, answer.prompt_eval_count)
        if not agreed and isinstance(answer, EmbeddingList):  # perhaps it cut a text: /api/embed would say so
            answer = await self._ask_plainly(lane, texts, timeout_s)
            agreed = await self._counts.agree(lane, texts, tokens, answer.prompt_eval_count)
        if not agreed:
            raise await self._counts.drift(lane, texts, tokens, answer.prompt_eval_count)
        rows = self._rows(answer, len(texts), lane.server)
        self._verify(rows, texts, lane.server.name)
        return EmbedReply(
            vectors=vectors.cut(rows, self._spec.dims),
            prompt_tokens=answer.prompt_eval_count,
            load_ns=answer.load_duration,
            server=lane.server.url,
        )

    async def _request(
        self, lane: Lane, texts: Sequence[str], tokens: int, timeout_s: float | None
    ) -> Embedded | EmbeddingList:
        """The first request to a server goes to /api/embed, which loads the model with keep_alive; later ones as base64
        where they may: /v1/embeddings leaves the keep_alive as it is. Now and then one asks plainly again, to see
        whether the model had to be loaded anew, and which one that was: a tag can be pulled again under a run."""
        version = await lane.server.version()
        counted = self._counting.exact and tokens > 0
        look = bool(lane.loads) or asyncio.get_running_loop().time() - lane.plain_s >= PLAIN_EVERY_S
        if look and lane.warm:
            await self._same_digest(lane)
        if look or not (lane.warm and lane.base64 and counted and version.has_base64):
            return await self._ask_plainly(lane, texts, timeout_s)
        found = await lane.server.embed_base64(self._spec.model, texts, timeout_s=timeout_s)
        lane.base64 = found.is_base64
        return found

    async def _ask_plainly(self, lane: Lane, texts: Sequence[str], timeout_s: float | None) -> Embedded:
        was_warm, began_s = lane.warm, asyncio.get_running_loop().time()
        answer = await lane.server.embed(self._spec.model, texts, keep_alive=self._keep_alive, timeout_s=timeout_s)
        lane.warm, lane.plain_s = True, asyncio.get_running_loop().time()
        if was_warm:
            self._watch_loads(lane, answer.load_duration / 1e9, began_s)
        return answer

    def _watch_loads(self, lane: Lane, load_s: float, began_s: float) -> None:
        """Warn, once, when requests in a row each find that the model had to be loaded again. Those that were in flight
        together tell of one load."""
        if began_s < lane.loaded_s:
            return
        if load_s < LOAD_S:
            lane.loads = 0
            return
        lane.loads, lane.loaded_s = lane.loads + 1, lane.plain_s
        if lane.loads < 2 or self._warned_of_loads:
            return
        self._warned_of_loads = True
        log.warning(
            "%s has to load %s again and again (%.1f s each time): another program uses it with other options, or "
            "another model takes its memory. Start Ollama with OLLAMA_KEEP_ALIVE=30m, OLLAMA_CONTEXT_LENGTH=8192 and "
            "OLLAMA_MAX_LOADED_MODELS=2, or let the other program wait.",
            lane.server.name,
            self._spec.model,
            load_s,
        )

    def _rows(self, answer: Embedded | EmbeddingList, texts: int, server: Server) -> Vectors:
        native = self._spec.native_dims or self._spec.dims
        return vectors.stack(answer.rows, texts=texts, dims=native, server=server.name)

    def _verify(self, rows: Vectors, texts: Sequence[str], server: str) -> None:
        vectors.verify(rows, server)
        for a, b in vectors.twins(rows, texts):
            if not self._counting.same_input(texts[a], texts[b]):
                raise errors.BadVectors(f"{server} sent the same vector for texts {a} and {b}, which differ.")


class OneServer:
    """One server of an OllamaEmbedder, as an embedder for whoever has it alone (`OllamaEmbedder.alone`)."""

    def __init__(self, whole: OllamaEmbedder, lane: Lane) -> None:
        self._whole = whole
        self._lane = lane

    @property
    def spec(self) -> EmbedderSpec:
        return self._whole.spec

    @property
    def limits(self) -> Limits:
        return self._whole.limits

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        """As `OllamaEmbedder.embed`, on this server whatever is known against it."""
        return await self._whole._send(self._lane, texts, tokens, timeout_s)

    async def reset(self) -> None:
        """As `OllamaEmbedder.reset`, of this server alone."""
        await self._whole._renew(self._lane)

    async def aclose(self) -> None:
        """Nothing: it belongs to the whole."""


def _other_model(server: Server, model: str, what: str) -> errors.ModelMismatch:
    return errors.ModelMismatch(
        f"{server.name} has another {model} than the other servers, or than before ({what}): their vectors do not "
        "belong together.",
        f"Run `OLLAMA_HOST={server.url} ollama pull {model}` and update Ollama there, or leave it out of ollama.hosts.",
    )
