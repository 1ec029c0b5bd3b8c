"""Questions to a collection: open its embedder and its published index, search, answer. A running job blocks none.

A cold start is mostly imports, so LanceDB is loaded in a thread while the question is embedded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager

from pipeline import answer, config, errors, lance, live, opening, search
from pipeline.models import Embedder, EmbedderSpec, Vectors, resolve
from pipeline.store import Collection


def open_collection(settings: config.Settings) -> tuple[Collection, EmbedderSpec]:
    """The collection of these settings and who embeds it.

    Raises:
        NoIndex: nothing is published. StoreError: another program's layout.
    """
    collection = opening.collection_of(settings)
    spec = collection.embedder() if collection.exists else None
    if spec is None or collection.published() is None:
        raise errors.NoIndex(
            f"Nothing is indexed yet in collection {settings.collection!r} of {settings.data}.",
            "Build the index first: pipeline run DOCS",
        )
    collection.check_version()
    return collection, spec


def open_reader(collection: Collection, spec: EmbedderSpec) -> lance.Reader:
    """What was published last. Takes a second the first time in a process: LanceDB is imported."""
    lance.preload()
    return lance.Reader.open(collection.index_folder, live.table_name(spec))


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
    choice = await resolve.open_embedder(settings, spec, bulk=False)
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
    settings: config.Settings, question: str, *, mode: str | None = None, top_k: int | None = None
) -> list[search.Hit]:
    """The passages that fit `question` best, best first.

    Raises:
        NoIndex: nothing is published. UsageError: an empty question. ModelError: the question cannot be embedded.
    """
    collection, spec = open_collection(settings)
    params = search_params(settings, spec, mode=mode, top_k=top_k)
    if not question.strip():
        raise errors.UsageError("The question is empty.", 'Type it in quotes: pipeline search "...".')
    with ThreadPoolExecutor(max_workers=1) as thread:
        opening = thread.submit(open_reader, collection, spec)
        vector = None if params.mode == "text" else asyncio.run(embed_question(settings, spec, question))
        reader = opening.result()
    return search.search(reader, question, vector, params)


async def ask(
    settings: config.Settings, question: str, *, top_k: int | None = None
) -> AsyncIterator[answer.AnswerEvent]:
    """Search, then stream the answer; the last event is an `answer.Answer`."""
    hits = await asyncio.to_thread(find, settings, question, top_k=top_k or settings.ask.passages)
    _, spec = open_collection(settings)
    generator = await resolve.open_generator(settings)
    params = ask_params(settings, spec, top_k=top_k)
    try:
        async with aclosing(answer.answer(question, hits, generator, params)) as events:
            async for event in events:
                yield event
    finally:
        if generator is not None:
            await generator.aclose()
