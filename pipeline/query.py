"""Questions to a collection: open its embedder and its published index, search, answer. A running job blocks none.

A cold start is mostly imports, so LanceDB is loaded in a thread while the question is embedded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

from pipeline import answer, config, errors, lance, live, opening, search
from pipeline.models import Embedder, EmbedderSpec, Vectors, resolve
from pipeline.store import Collection, Published


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What readers see of a collection now: one publication, with who embeds it, so that both always fit together."""

    collection: Collection
    spec: EmbedderSpec
    note: Published


def open_collection(settings: config.Settings) -> Standing:
    """What is published in the collection of these settings.

    Raises:
        NoIndex: nothing is published. StoreError: another program's layout.
    """
    collection = opening.collection_of(settings)
    note = collection.published() if collection.exists else None
    spec = (note.spec or collection.embedder()) if note is not None else None
    if note is None or spec is None:
        raise errors.NoIndex(
            f"Nothing is indexed yet in collection {settings.collection!r} of {settings.data}.",
            "Build the index first: pipeline run DOCS",
        )
    collection.check_version()
    return Standing(collection=collection, spec=spec, note=note)


def open_reader(standing: Standing) -> lance.Reader:
    """The table of this publication. Takes a second the first time in a process: LanceDB is imported."""
    lance.preload()
    return lance.Reader.open(standing.collection.index_folder, live.table_name(standing.spec), standing.note.version)


@asynccontextmanager
async def _closing(embedder: Embedder) -> AsyncIterator[Embedder]:
    try:
        yield embedder
    finally:
        await embedder.aclose()


async def embed_question(settings: config.Settings, spec: EmbedderSpec, question: str) -> Vectors:
    """The question's vector after the model's query template, shape (dims,).

    Raises:
        ServerUnreachable, ModelMissing, ModelMismatch: the collection's own model is not there; no other takes its
            place.
    """
    choice = await resolve.open_embedder(opening.settings_for(settings, spec), spec, bulk=False)
    async with _closing(choice.embedder) as embedder:
        reply = await embedder.embed([embedder.spec.query(question)], tokens=0)
    vector: Vectors = reply.vectors[0]
    return vector


def search_params(
    settings: config.Settings, spec: EmbedderSpec, *, mode: str | None = None, top_k: int | None = None
) -> search.SearchParams:
    """How the settings want a collection of `spec` to be searched."""
    return search.SearchParams(
        mode=mode or settings.search.mode,  # type: ignore[arg-type]  # the command line offers only these
        top_k=top_k or settings.search.top_k,
        candidates=settings.search.candidates,
        rrf_k=settings.search.rrf_k,
        languages=spec.languages,
    )


def ask_params(settings: config.Settings, spec: EmbedderSpec, *, top_k: int | None = None) -> answer.AskParams:
    """How the settings want questions to a collection of `spec` to be answered."""
    return answer.AskParams(
        passages=top_k or settings.ask.passages,
        context_tokens=settings.ask.context_tokens,
        min_score=settings.ask.min_score,
        max_tokens=settings.generate.max_tokens,
        model=spec.model,
        languages=spec.languages,
    )


def find(
    settings: config.Settings,
    question: str,
    *,
    mode: str | None = None,
    top_k: int | None = None,
    standing: Standing | None = None,
) -> list[search.Hit]:
    """The passages that fit `question` best, best first; in `standing`, where that was opened already.

    Raises:
        NoIndex: nothing is published. UsageError: an empty question. ModelError: the question cannot be embedded.
    """
    standing = standing or open_collection(settings)
    spec = standing.spec
    params = search_params(settings, spec, mode=mode, top_k=top_k)
    if not question.strip():
        raise errors.UsageError("The question is empty.", 'Type it in quotes: pipeline search "...".')
    with ThreadPoolExecutor(max_workers=1) as thread:
        opened = thread.submit(open_reader, standing)
        vector = None if params.mode == "text" else asyncio.run(embed_question(settings, spec, question))
        reader = opened.result()
    return search.search(reader, question, vector, params)


async def ask(
    settings: config.Settings, question: str, *, top_k: int | None = None
) -> AsyncIterator[answer.AnswerEvent]:
    """Search, then stream the answer; the last event is an `answer.Answer`."""
    standing = open_collection(settings)
    hits = await asyncio.to_thread(find, settings, question, top_k=top_k or settings.ask.passages, standing=standing)
    generator = await resolve.open_generator(settings)
    params = ask_params(settings, standing.spec, top_k=top_k)
    try:
        async with aclosing(answer.answer(question, hits, generator, params)) as events:
            async for event in events:
                yield event
    finally:
        if generator is not None:
            await generator.aclose()
