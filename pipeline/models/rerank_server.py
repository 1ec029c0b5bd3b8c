"""A reranker behind HTTP: any server with `/v1/rerank` or `/rerank`.

Two shapes are spoken. Jina's, which Cohere, llama.cpp (`--reranking`), vLLM, Infinity and this program's own service
share: `{model, query, documents, top_n}` to `{results: [{index, relevance_score}]}`. And that of Hugging Face's Text
Embeddings Inference: `{query, texts}` to `[{index, score}]`. Which of them, and at which path, is found out by the
first question and kept: a server alone is tried at /v1/rerank, then at /rerank in either shape.

Nothing of an answer is believed unseen: each passage must be named once, with a number. Scores are on the server's
own scale (llama.cpp sends logits, the others mostly 0 to 1): they order passages, and say nothing across questions.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline import errors
from pipeline.models import openai_errors, rerank, transport
from pipeline.models.http1 import Reply
from pipeline.models.wire import Answer

PAUSES_S = (0.5, 1.0)  # before another try: a server that loads its model answers 503
ROOT_PATHS = ("v1/rerank", "rerank")


class _Entry(Answer, frozen=True, kw_only=True):
    index: int
    relevance_score: float | None = None
    score: float | None = None  # of TEI


class _Results(Answer, frozen=True, kw_only=True):
    results: list[_Entry] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A path and a shape to ask in."""

    path: str
    tei: bool

    def body(self, question: str, texts: Sequence[str], model: str) -> Mapping[str, object]:
        if self.tei:  # without `truncate` it refuses a passage that is too long, and all others with it
            return {"query": question, "texts": texts, "truncate": True}
        named = {"model": model} if model else {}
        return {**named, "query": question, "documents": texts, "top_n": len(texts)}


class ServerReranker:
    """A `rerank.Reranker` over HTTP. `key` empty: no Authorization header.

    Raises:
        ServerRefused: `url` cannot be a server's address.
    """

    def __init__(
        self, url: str, *, model: str = "", key: str = "", key_name: str = "", connect_timeout_s: float = 5.0
    ) -> None:
        base, paths = _places(url)
        self._model = model
        self._key_name = key_name
        self._server = f"The reranker at {url.rstrip('/')}"
        self._ways = [_Way(path=path, tei=tei) for path in paths for tei in (False, True)]
        headers = {"Authorization": f"Bearer {key}"} if key else None
        self._http = transport.Http(
            base, name=self._server, remedy=_START, connect_timeout_s=connect_timeout_s, headers=headers
        )

    @property
    def name(self) -> str:
        return self._model or self._server.removeprefix("The reranker at ")

    @property
    def changed(self) -> bool:
        """Never: a server that is given another model is its owner's business."""
        return False

    async def open(self) -> None:
        """Nothing: the server has its model in memory."""

    async def aclose(self) -> None:
        await self._http.aclose()

    async def score(self, question: str, texts: Sequence[str], *, timeout_s: float) -> rerank.Scores:
        """As `Reranker.score`. What another try may mend is tried twice more.

        Raises:
            ServerUnreachable, TransientFault: it does not answer, or not in time. ServerRefused: it will not rank.
            ModelMissing: it has no such model. ModelError: its answer cannot be right.
        """
        if not texts:
            return rerank.Scores(values=())
        try:
            async with transport.deadline(self._server, timeout_s):
                entries = self._entries(await self._patiently(question, texts))
        except errors.TransientFault as error:
            raise errors.TransientFault(error.message, error.remedy or rerank.REMEDY) from error
        values = _by_index(entries, self._server, len(texts))
        return rerank.Scores(values=rerank.checked(values, self._server, len(texts)))

    async def _patiently(self, question: str, texts: Sequence[str]) -> Reply:
        for pause_s in PAUSES_S:
            try:
                return await self._asked(question, texts)
            except errors.TransientFault:
                await asyncio.sleep(pause_s)
        return await self._asked(question, texts)

    async def _asked(self, question: str, texts: Sequence[str]) -> Reply:
        """The answer in the first way that the server understands; the other ways are not tried again."""
        refused: list[errors.ModelError] = []
        unknown: set[str] = set()
        for way in self._ways:
            if way.path in unknown:
                continue
            reply = await self._http.ask(
                "POST", f"/{way.path}", transport.encode(way.body(question, texts, self._model))
            )
            if reply.status == transport.OK:
                self._ways = [way]
                return reply
            if reply.status in _NO_PATH:
                unknown.add(way.path)
            elif not _is_about_shape(reply):
                raise self._failure(reply)
            else:
                refused.append(self._failure(reply))
        raise refused[0] if refused else self._failure(reply)

    def _entries(self, reply: Reply) -> Sequence[_Entry]:
        found = transport.decode(reply.body, _Results | list[_Entry], self._server)  # type: ignore[arg-type]
        entries = found.results if isinstance(found, _Results) else found
        if entries is None:
            raise errors.ModelError(f"{self._server} sent no results.", rerank.REMEDY)
        return entries

    def _failure(self, reply: Reply) -> errors.ModelError:
        text = openai_errors.message(bytes(reply.body))
        said = f"{self._server} answered {reply.status}: {text or 'without a reason'}"
        if reply.status in (401, 403):
            return errors.ServerRefused(said, f"Put the server's key into the variable {self._key_name}.")
        if reply.status in _NO_PATH:
            return errors.ServerRefused(
                f"{self._server} ranks nothing: it has no /v1/rerank and no /rerank (it answered {reply.status}).",
                "Name the whole address in search.rerank, or search without: --no-rerank.",
            )
        if openai_errors.is_missing(text) and reply.status < 500:
            return errors.ModelMissing(said, f"Set search.rerank_model to a model that it has. {rerank.REMEDY}")
        if openai_errors.is_too_large(text):
            return errors.ServerRefused(
                said, "Lower search.rerank_top, or start the server with room for more: its batch and its context."
            )
        if reply.status in (408, 425, 429, 500) or reply.status > 501:
            return errors.TransientFault(said, rerank.REMEDY)
        return errors.ServerRefused(said, rerank.REMEDY)


_NO_PATH = (404, 405)
_START = "Start it, or search without it: --no-rerank."


def _is_about_shape(reply: Reply) -> bool:
    """Whether the server misses a field of the body: another shape has it."""
    said = bytes(reply.body).decode("utf-8", "replace").lower()
    return reply.status in (400, 422) and any(word in said for word in ("missing", "required", "must be provided"))


def _places(url: str) -> tuple[str, Sequence[str]]:
    """Where a server is asked: its address, and paths below it. An address with a path of its own is taken at its
    word.
    """
    parts = urllib.parse.urlsplit(url.strip())
    path = parts.path.strip("/")
    base = urllib.parse.urlunsplit((parts.scheme, parts.netloc, "", "", ""))
    if not path:
        return base, ROOT_PATHS
    return base, [path if path.rsplit("/", 1)[-1] in ("rerank", "reranking") else f"{path}/rerank"]


def _by_index(entries: Iterable[_Entry], server: str, passages: int) -> list[float | None]:
    """The scores in the order of the passages.

    Raises:
        ModelError: a passage is missing, named twice, or not one of ours.
    """
    found: dict[int, float | None] = {}
    for entry in entries:
        if not 0 <= entry.index < passages or entry.index in found:
            what = "twice" if entry.index in found else f"of {passages}"
            raise errors.ModelError(f"{server} ranks passage {entry.index} {what}.", rerank.REMEDY)
        found[entry.index] = entry.relevance_score if entry.score is None else entry.score
    if len(found) != passages:
        raise errors.ModelError(f"{server} ranks {len(found)} of {passages} passages.", rerank.REMEDY)
    return [found[index] for index in range(passages)]
