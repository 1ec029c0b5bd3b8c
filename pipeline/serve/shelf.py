"""Collections kept open between requests: embedder and index reader, one of each per collection, opened when first
asked for.

Before each question the collection's note of its last publication is read again (a listing and two small files): a new
generation is opened when there is one, while requests under way go on with the reader that they have. Knows questions
and hits; nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import re
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from pipeline import config, errors, explain, filters, lance, live, opening, query, reranking, search, tasks
from pipeline.models import Embedder, EmbedderSpec, EmbedReply, Vectors, rerank, resolve
from pipeline.models.rerank import Reranker
from pipeline.serve import keys
from pipeline.serve.meter import Meter
from pipeline.store import Collection, Published, files

log = logging.getLogger(__name__)
T = TypeVar("T")

QUESTION_S = 30.0  # for a model server to embed one question, loading the model included
_NAME = re.compile(r"\w[\w.-]{0,63}")  # as config.Name


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A collection as it was published when it was opened.

    Attributes:
        settings: those of the server, with this collection's name.
        note: which publication.
    """

    settings: config.Settings
    collection: Collection
    spec: EmbedderSpec
    note: Published | None
    embedder: Embedder
    reader: lance.Reader

    @property
    def standing(self) -> query.Standing:
        """What is published, for who asks for no more."""
        assert self.note is not None  # only a publication is opened
        return query.Standing(collection=self.collection, spec=self.spec, note=self.note)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Hits and the collection that they were found in."""

    hits: Sequence[search.Hit]
    opened: Opened


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A score for each text, and whose it is."""

    values: tuple[float, ...]
    model: str


class Shelf:
    """All collections below `settings.data`. `settings.collection` is the one that is opened before it is asked for."""

    def __init__(self, settings: config.Settings, meter: Meter) -> None:
        self.settings = settings
        self._meter = meter
        self._opened: dict[str, Opened] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        # Requests may still use what was replaced: closed at the end; a model changes rarely.
        self._replaced: list[Embedder | Reranker] = []
        self._reranker: Reranker | None = None
        self._reranker_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    def names(self) -> list[str]:
        """The collections that have something published and that the client may ask, sorted."""
        client = keys.asking.get()
        data = Path(self.settings.data)
        with files.disk_errors(data):
            found = [entry.name for entry in data.iterdir() if entry.is_dir()] if data.is_dir() else []
        return sorted(
            name
            for name in found
            if _NAME.fullmatch(name) and client.may_ask(name) and Collection(data, name).published() is not None
        )

    def standing(self, name: str) -> query.Standing:
        """What is published in a collection, for who asks for no model and no table.

        Raises:
            NoIndex: see `open`.
        """
        try:
            return query.open_collection(self._settings_of(name))
        except errors.NoIndex:
            raise _none(name) from None

    async def open(self, name: str) -> Opened:
        """The newest publication of a collection.

        Raises:
            NoIndex: there is none of this name, or nothing is published in it, or it is not for this client: in the
                same words, which tell nothing of other people's collections.
            ModelError: its embedder cannot be opened.
        """
        settings = self._settings_of(name)
        try:
            standing = await asyncio.to_thread(query.open_collection, settings)
        except errors.NoIndex:
            raise _none(name) from None
        if (opened := self._current(name, standing)) is not None:
            return opened
        lock = self._locks.setdefault(name, asyncio.Lock())  # only names that exist come here
        before = self._opened.get(name)
        if lock.locked() and before is not None and before.note is not None:
            return before  # somebody is opening the new one already: nobody else waits for that
        async with lock:
            standing = await asyncio.to_thread(query.open_collection, settings)
            return self._current(name, standing) or await self._open(settings, standing)

    def _settings_of(self, name: str) -> config.Settings:
        if not _NAME.fullmatch(name) or not keys.asking.get().may_ask(name):
            raise _none(name)
        if name == self.settings.collection:
            return self.settings
        # Provider, model and length are settings of the server's own collection: another has recorded what it was
        # built with, and must not be refused for being different.
        embed = msgspec.structs.replace(self.settings.embed, provider="auto", model="", dims=0)
        return msgspec.structs.replace(self.settings, collection=name, embed=embed)

    def _current(self, name: str, standing: query.Standing) -> Opened | None:
        opened = self._opened.get(name)
        return opened if opened is not None and (opened.spec, opened.note) == (standing.spec, standing.note) else None

    async def _open(self, settings: config.Settings, standing: query.Standing) -> Opened:
        before = self._opened.get(settings.collection)
        if before is not None and before.spec == standing.spec:
            embedder = before.embedder
        else:
            chosen = opening.settings_for(settings, standing.spec)
            embedder = (await resolve.open_embedder(chosen, standing.spec, bulk=False)).embedder
            if before is not None:
                self._replaced.append(before.embedder)
        reader = await asyncio.to_thread(_ready, standing)
        opened = Opened(
            settings=settings,
            collection=standing.collection,
            spec=standing.spec,
            note=standing.note,
            embedder=embedder,
            reader=reader,
        )
        self._opened[settings.collection] = opened
        passages = await asyncio.to_thread(reader.count)
        self._meter.opened(settings.collection, standing.note.snapshot, passages)
        log.info("Opened collection %s: %d passages", settings.collection, passages)
        return opened

    async def find(
        self,
        name: str,
        question: str,
        *,
        top_k: int | None = None,
        mode: str | None = None,
        where: filters.Filters | None = None,
        rerank: bool = True,
        trace: explain.Trace | None = None,
    ) -> Found:
        """The passages of a collection that fit `question` best, best first; `where`: which may be found; `rerank`: by
        the reranker of the settings, if they name one; `trace`: is told what was done and why.

        Raises:
            NoIndex: see `open`. UsageError: an empty question. ModelError: it cannot be embedded.
        """
        if not question.strip():
            raise errors.UsageError("The question is empty.")
        _check_unicode(question)
        with explain.timed(trace, "open"):
            opened = await self.open(name)
        params = query.search_params(opened.settings, opened.spec, top_k=top_k, mode=mode)
        if where is not None:
            with explain.timed(trace, "filter"):
                params = await asyncio.to_thread(query.narrowed, params, opened.standing, where)
        reorder = await self._reordering(question) if rerank else None
        with explain.timed(trace, "embed"):
            vector = None if params.mode == "text" else await _embed(opened, question)
        told = _Asking(question=question, vector=vector, params=params, reorder=reorder, where=where, trace=trace)
        try:
            hits = await asyncio.to_thread(_search, opened, told)
        except errors.StoreError as error:
            # The files of a version that is no longer published are freed after a day, whatever the note says.
            log.warning("Collection %s is opened anew: %s", name, error.message)
            self._forget(opened)
            opened = await self.open(name)
            hits = await asyncio.to_thread(_search, opened, told)
        return Found(hits=hits, opened=opened)

    async def _reordering(self, question: str) -> reranking.Reordering | None:
        """By the reranker of the settings, whose connections live in this loop; a search runs in a thread."""
        reranker = await self._open_reranker()
        if reranker is None:
            return None
        loop = asyncio.get_running_loop()
        return reranking.of(
            self.settings, reranker, question, lambda asked: asyncio.run_coroutine_threadsafe(asked, loop).result()
        )

    async def _open_reranker(self) -> Reranker | None:
        """The one that the settings name, opened; anew where another model was put into its folder.

        Raises:
            ModelError: it cannot be opened. The next request tries again.
        """
        if not self.settings.search.rerank:
            return None
        async with self._reranker_lock:
            known = self._reranker
            if known is None or known.changed:
                self._reranker = None
                self._replaced += [known] if known is not None else []
                opened = rerank.create(self.settings)
                assert opened is not None  # the setting is not empty
                await opened.open()
                self._reranker = opened
            return self._reranker

    async def rank(self, name: str, question: str, texts: Sequence[str]) -> Ranked:
        """How well each text answers `question`, by the reranker of the settings, else by the cosine of a collection's
        embedder, from 0 to 1; a text too long for it is judged by its beginning.

        Raises:
            NoIndex: see `open`, where the embedder is needed. UsageError: an empty question or text.
            ModelError: the model server's fault.
        """
        for text in (question, *texts):
            _check_unicode(text)
            if not text.strip():
                raise errors.UsageError("The query and every document must hold some text.")
        reranker = await self._open_reranker()
        if reranker is not None:
            timeout_s = self.settings.search.rerank_timeout_s
            scores = await reranker.score(question, texts, timeout_s=timeout_s)
            return Ranked(values=scores.values, model=reranker.name)
        opened = await self.open(name)
        vector = await _embed(opened, question)
        fitting = await asyncio.to_thread(lambda: [_fitting(opened, text, opened.spec.document) for text in texts])
        vectors = (await self.embed(name, fitting)).vectors
        cosines = np.clip(vectors @ vector, 0.0, 1.0).tolist()
        return Ranked(values=tuple(cosines), model=f"{opened.spec.model} (cosine)")

    def _forget(self, opened: Opened) -> None:
        name = opened.settings.collection
        if self._opened.get(name) is opened:
            self._opened[name] = dataclasses.replace(opened, note=None)

    async def passage(self, name: str, chunk_id: str) -> search.Row:
        """One row of the index: columns lance.FOUND.

        Raises:
            NoIndex: there is no such collection, or no such passage in it (any more).
        """
        reader = (await self.open(name)).reader
        rows = await asyncio.to_thread(reader.get, [chunk_id])
        if not rows:
            raise errors.NoIndex("There is no such passage, or its document has changed.")
        row: search.Row = rows.to_pylist()[0]
        return row

    async def embed(self, name: str, texts: Sequence[str]) -> EmbedReply:
        """The texts' vectors, exactly as given, in requests as large as the embedder likes them.

        Raises:
            NoIndex: see `open`. TextRejected: one is empty or too long. ModelError: the model server's fault.
        """
        for text in texts:
            _check_unicode(text)
        embedder = (await self.open(name)).embedder
        size = embedder.limits.batch_texts
        replies = [await embedder.embed(texts[at : at + size], tokens=0) for at in range(0, len(texts), size)]
        counts = [reply.prompt_tokens for reply in replies]
        known = None if None in counts else sum(count or 0 for count in counts)
        return EmbedReply(vectors=np.concatenate([reply.vectors for reply in replies]), prompt_tokens=known)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which goes on when the time is over: a model that was being loaded for it is then
        there for the next request.

        Raises:
            TransientFault: it takes longer.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.wait_for(asyncio.shield(task), seconds)
        except TimeoutError:
            task.add_done_callback(tell_failure)
            raise errors.TransientFault(f"There was no result within {seconds:.0f} s: try again.") from None

    async def warm(self) -> None:
        """Open the server's own collection and ask it something, so that nobody waits for libraries and models."""
        await self.find(self.settings.collection, "warm-up", top_k=1)

    async def aclose(self) -> None:
        """Close every model and give up what is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        kept = [self._reranker] if self._reranker is not None else []
        for model in (*self._replaced, *kept, *(opened.embedder for opened in self._opened.values())):
            await model.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """One search, all that it needs but the collection."""

    question: str
    vector: Vectors | None
    params: search.SearchParams
    reorder: reranking.Reordering | None
    where: filters.Filters | None
    trace: explain.Trace | None


def _search(opened: Opened, told: _Asking) -> list[search.Hit]:
    if told.trace is not None:
        query.introduce(told.trace, opened.standing, told.question, told.params)
        query.count(told.trace, told.where, told.params, opened.reader)
    hits = search.search(opened.reader, told.question, told.vector, told.params, reorder=told.reorder, trace=told.trace)
    if told.trace is not None and told.reorder is not None and told.reorder.work is not None:
        told.trace.reranker, told.trace.reranked = told.reorder.work.model, told.reorder.work.passages
    return hits


def _ready(standing: query.Standing) -> lance.Reader:
    """A reader that was asked once both ways: what Lance loads for that, the first question need not wait for."""
    reader = query.open_reader(standing)
    reader.vector(np.full(standing.spec.dims, standing.spec.dims**-0.5, dtype=np.float32), 1)
    reader.text("warm-up", 1)
    return reader


def _none(name: str) -> errors.NoIndex:
    return errors.NoIndex(f"There is no collection {name!r}.")


def tell_failure(task: asyncio.Task[Any]) -> None:
    """For the end of a task that nobody waits for: an error of ours is a line in the log, a defect its traceback."""
    error = None if task.cancelled() else task.exception()
    if isinstance(error, errors.PipelineError):
        log.warning("%s", error)
    elif error is not None:
        log.error("Unexpected failure", exc_info=error)


def _check_unicode(text: str) -> None:
    """JSON can write half of a surrogate pair, which no tokenizer and no encoding takes."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise errors.UsageError(f"A text is not valid Unicode ({error.reason}).") from None


async def _embed(opened: Opened, question: str) -> Vectors:
    text = await asyncio.to_thread(_fitting, opened, question, opened.spec.query)
    reply = await opened.embedder.embed([text], tokens=0, timeout_s=QUESTION_S)
    vector: Vectors = reply.vectors[0]
    return vector


def _fitting(opened: Opened, text: str, template: Callable[[str], str]) -> str:
    """What to embed for `text`, which loses its end where it is too long for the model: people paste whole letters
    as questions, and their beginning finds more than a refusal."""
    spec = opened.spec
    tokenizer = tasks.tokenizer(spec.tokenizer, live.tokenizer_path(opened.collection, spec))
    surplus = tokenizer.count([template(text)])[0] - spec.limit
    if surplus <= 0:
        return template(text)
    offsets = tokenizer.offsets(text)
    kept = max(len(offsets) - surplus, 1)
    log.info("A text of %d tokens was cut to %d for the model.", len(offsets), kept)
    return template(text[: int(offsets[kept - 1][1])])
