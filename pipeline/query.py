"""Questions to a collection: open its embedder and its published index, and search. A running job blocks none.

A cold start is mostly imports, so LanceDB is loaded in a thread while the question is embedded.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from pipeline import changed, config, errors, explain, filters, lance, live, opening, reranking, scripts, search, tasks
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
        wait_s = settings.ask.wait_s or None
        reply = await embedder.embed([embedder.spec.query(question)], tokens=0, timeout_s=wait_s)
    vector: Vectors = reply.vectors[0]
    return vector


def search_params(
    settings: config.Settings, spec: EmbedderSpec, *, mode: str | None = None, top_k: int | None = None
) -> search.SearchParams:
    """How the settings want a collection of `spec` to be searched."""
    found = search.SearchParams.of(settings.search, spec.languages)
    asked: Any = mode or found.mode  # the command line offers only those that there are
    return replace(found, mode=asked, top_k=top_k or found.top_k)


def find(
    settings: config.Settings,
    question: str,
    *,
    mode: str | None = None,
    top_k: int | None = None,
    where: filters.Filters | None = None,
    standing: Standing | None = None,
    reordering: reranking.Reordering | None = None,
    trace: explain.Trace | None = None,
) -> list[search.Hit]:
    """The passages that fit `question` best, best first; in `standing`, where that was opened already.

    Args:
        where: which passages may be found (filters.parse).
        reordering: to be used for the one that the settings ask for, so that its `work` can be looked at.
        trace: is told what was done and why.

    Raises:
        NoIndex: nothing is published. UsageError: an empty question. ModelError: the question cannot be embedded.
    """
    standing = standing or open_collection(settings)
    params = search_params(settings, standing.spec, mode=mode, top_k=top_k)
    if not question.strip():
        raise errors.UsageError("The question is empty.", 'Type it in quotes: pipeline search "...".')
    reordering = reordering or reranking.once(settings, question)
    with ThreadPoolExecutor(max_workers=2) as thread:
        opened = thread.submit(_open_timed, standing, trace)
        warmed = None if reordering is None else thread.submit(reordering.warm)
        if where is not None:
            with explain.timed(trace, "filter"):
                params = narrowed(params, standing, where)
        with explain.timed(trace, "embed"):
            vector = None if params.mode == "text" else asyncio.run(embed_question(settings, standing.spec, question))
        reader = opened.result()
        if warmed is not None:
            warmed.result()
    if trace is not None:
        introduce(trace, standing, question, params)
        count(trace, where, params, reader)
    hits = search.search(reader, question, vector, params, reorder=reordering, trace=trace)
    if trace is not None and reordering is not None and reordering.work is not None:
        trace.reranker, trace.reranked = reordering.work.model, reordering.work.passages
    return hits


def narrowed(params: search.SearchParams, standing: Standing, where: filters.Filters) -> search.SearchParams:
    """`params` for what these filters let through in `standing`.

    Raises:
        StoreError: it is asked when files were changed, and the snapshot that says so is gone.
    """
    if where.names_paths:
        folders = standing.collection.sources(standing.note.snapshot)
        where = where.below(folders[0]) if len(folders) == 1 else where  # of several, paths begin with their names
    if not where.changed:
        return replace(params, where=where.predicate)
    snapshot = standing.collection.snapshot(standing.note.snapshot or None)
    if snapshot is None:
        raise errors.StoreError("The times of the files that were published are gone.", errors.MEND)
    files = changed.Files(snapshot.table, where.changed)
    if not files.few:
        return replace(params, where=where.predicate, keep=files)
    parts = [part for part in (where.predicate, files.predicate) if part is not None]
    return replace(params, where=filters.all_of(parts))


def _open_timed(standing: Standing, trace: explain.Trace | None) -> lance.Reader:
    with explain.timed(trace, "open"):
        return open_reader(standing)


def introduce(trace: explain.Trace, standing: Standing, question: str, params: search.SearchParams) -> None:
    """What is known before the search."""
    spec = standing.spec
    trace.question, trace.model, trace.publication = question, spec.model, standing.note.snapshot
    trace.asked = trace.used = params.mode
    trace.words = lance.words_of(question) if params.mode != "vector" else ()
    if params.mode == "text":
        return
    trace.query = spec.query(question)
    tokenizer = tasks.tokenizer(spec.tokenizer, live.tokenizer_path(standing.collection, spec))
    trace.tokens = tuple(trace.query[start:end] for start, end in tokenizer.offsets(trace.query))
    if scripts.is_foreign(question, params.languages) and params.mode == "hybrid":
        trace.used = "text"
        trace.why = f"{spec.model} knows {', '.join(spec.languages)} only: words decide, vectors fill up"


def count(
    trace: explain.Trace, where: filters.Filters | None, params: search.SearchParams, reader: lance.Reader
) -> None:
    """How many passages there are, and how many the filters leave; of the latter nothing is counted for `keep`."""
    trace.rows = reader.count()
    if where is not None and where.said:
        trace.where = where.said
        trace.left = reader.count(params.where) if params.keep is None else None
