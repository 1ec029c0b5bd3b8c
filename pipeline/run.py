"""The graph over one collection: what is due, which stages run, what is published, what is reported.

`execute` streams the four stages: shards go from ingest to chunk to embed as they are written, so that the first
vectors are computed seconds after the first file was read. Each stage alone is the same code with the other queues
fed from disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import changes, config, embedding, errors, executor, live, opening, publish, run_model, run_report, tasks
from pipeline.changes import Scanned
from pipeline.executor import Context, Names
from pipeline.models import EmbedderSpec
from pipeline.progress import Progress
from pipeline.report import Report
from pipeline.run_model import Model
from pipeline.run_report import Outcome
from pipeline.store import Collection, VectorLog
from pipeline.workers import WorkerPool

log = logging.getLogger(__name__)

STAGES = run_report.STAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for. `stages`: of STAGES; `folders`: for ingest; `max_delete`: share of the files, 0 to 1."""

    stages: frozenset[str]
    folders: tuple[Path, ...] = ()
    pull: bool = False
    retry: bool = False
    max_delete: float = 0.2


def worker_pool(settings: config.Settings) -> WorkerPool:
    return WorkerPool(executor.worker_count(settings), memory_mb=settings.readers.memory_mb)


def execute(settings: config.Settings, request: Request, progress: Progress) -> Report:
    """Run the stages asked for on whatever is due, under the collection's lock.

    Raises:
        PipelineError: with the exit code and the remedy. What was finished before it stays, and is not done again.
    """
    collection = opening.collection_of(settings)
    if "ingest" not in request.stages and not collection.exists:
        raise opening.nothing(settings)
    scanned = None
    if "ingest" in request.stages:  # before the lock makes a folder: a wrong DOCS leaves nothing behind
        scanned = changes.look(settings, collection, request.folders, retry=request.retry)
    with collection.writing(settings.run.wait_lock_s):
        if scanned is not None and settings.run.wait_lock_s:
            scanned = changes.look(settings, collection, request.folders, retry=request.retry)
        report = asyncio.run(_Run(settings, request, collection, progress, scanned).go())
        collection.write_report(msgspec.json.format(msgspec.json.encode(report.to_json()), indent=1))
    return report


@dataclass(slots=True)
class _Run:
    settings: config.Settings
    request: Request
    collection: Collection
    progress: Progress
    scanned: Scanned | None
    outcome: Outcome = field(init=False)

    def __post_init__(self) -> None:
        self.outcome = Outcome(stages=self.request.stages)

    async def go(self) -> Report:
        if self.scanned is not None:
            unseen = sum(due.previous is None for due in self.scanned.plan.due)  # each may be one of them, moved
            changes.guard(self.scanned, len(self.scanned.plan.gone) - unseen, self.request.max_delete)
        model = await run_model.open_model(
            self.settings, self.collection, self.request.stages, self.progress, pull=self.request.pull
        )
        if model is not None:
            self.outcome.spec = model.spec
            self.outcome.notes += [model.note] if model.note else []
        try:
            with worker_pool(self.settings) as pool:
                context = Context(
                    collection=self.collection,
                    settings=self.settings,
                    options=changes.reader_options(self.settings),
                    pool=pool,
                    progress=self.progress,
                )
                await self._stages(context, model)
        finally:
            if model is not None and model.embedder is not None:
                await model.embedder.aclose()
        return run_report.build(self.collection, self.settings, self.outcome)

    async def _stages(self, context: Context, model: Model | None) -> None:
        stages = self.request.stages
        shards: Names = asyncio.Queue()
        chunked: Names = asyncio.Queue()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._feed(context, model, shards))
                if model is not None and "chunk" in stages:
                    params = live.chunk_params(self.settings, model.spec)
                    tokenizer = live.tokenizer_path(self.collection, model.spec)
                    group.create_task(executor.chunk_shards(context, params, tokenizer, shards, chunked))
                elif model is not None and "embed" in stages:
                    group.create_task(self._chunked_already(model.spec, shards, chunked))
                if model is not None and "embed" in stages:
                    group.create_task(self._embed(context, model, chunked))
        except BaseExceptionGroup as caught:
            raise _first(caught) from caught
        if model is not None and "index" in stages:
            self.outcome.publication = publish.publish(
                self.collection, self.settings, model.spec, self._live(), self.progress, anew=self.request.retry
            )

    def _live(self) -> dict[str, frozenset[str]]:
        return live.of_snapshot(self.collection.snapshot())

    def _retry_chunks(self, spec: EmbedderSpec) -> None:
        """Forget the chunk files of shards that hold a document that could not be chunked."""
        snapshot = self.collection.snapshot()
        failed = live.open_failures(self.collection, self.settings, spec, snapshot)
        documents = {row["key"] for row in failed if row["stage"] == "chunk"}
        fingerprint = live.chunk_params(self.settings, spec).fingerprint()
        for shard, docs in live.of_snapshot(snapshot).items():
            if docs & documents:
                self.collection.drop_chunks(fingerprint, shard)

    async def _feed(self, context: Context, model: Model | None, out: Names) -> None:
        """Name the shards to be chunked and embedded, new ones as they are written, and commit the snapshot."""
        sent: set[str] = set()
        if self.request.retry and model is not None and "chunk" in self.request.stages:
            self._retry_chunks(model.spec)
        complete = self._complete(model) and not self.request.retry
        if not complete:
            _send(live.of_snapshot(self.collection.snapshot()), sent, out)
        if self.scanned is not None:
            done = await executor.ingest_files(context, self.scanned.found.files, self.scanned.plan.due, out)
            self.outcome.fates, notes = changes.commit(self.collection, self.scanned, done, self.request.max_delete)
            self.outcome.notes += notes
            if not complete:
                _send(self._live(), sent, out)
        out.put_nowait(None)

    def _complete(self, model: Model | None) -> bool:
        """Whether every live document of the last snapshot is chunked, embedded and published with these settings."""
        note = self.collection.published()
        if model is None or note is None or note.rows != note.chunks:
            return False
        chunks_fp = live.chunk_params(self.settings, model.spec).fingerprint()
        now = (live.hash_of(self._live()), chunks_fp, live.vectors_fp(model.spec))
        return now == (note.live, note.chunks_fp, note.vectors_fp)

    async def _chunked_already(self, spec: EmbedderSpec, names: Names, out: Names) -> None:
        """`embed` without `chunk`: what has a chunk file goes on, what has none is said."""
        fingerprint, missing = live.chunk_params(self.settings, spec).fingerprint(), 0
        while (name := await names.get()) is not None:
            if self.collection.has_chunks(fingerprint, name):
                out.put_nowait(name)
            else:
                missing += 1
        if missing:
            self.outcome.notes.append(
                "Some documents are not chunked yet with these settings: run `pipeline chunk` first."
            )
        out.put_nowait(None)

    async def _embed(self, context: Context, model: Model, names: Names) -> None:
        assert model.embedder is not None
        spec, began = model.spec, time.monotonic()
        vectors = live.vector_log(self.collection, spec)
        chunks_fp = live.chunk_params(self.settings, spec).fingerprint()
        source = embedding.Source(context, spec, vectors, chunks_fp, lambda: self._begin(model, vectors))
        tokenizer = tasks.tokenizer(spec.tokenizer, live.tokenizer_path(self.collection, spec))
        self.outcome.embedding = await embedding.embed_shards(
            context, model.embedder, vectors, source, names, tokenizer
        )
        self.outcome.embed_seconds = time.monotonic() - began
        vectors.refresh()
        vectors.compact()

    async def _begin(self, model: Model, vectors: VectorLog) -> embedding.Server:
        """Who embeds, and what it need not be sent: a text it refused is tried on another version, or when asked."""
        assert model.embedder is not None
        version = await embedding.ask_server(model.embedder, vectors)
        made_by = f"{live.vectors_fp(model.spec)} {version}".strip()
        skip = frozenset[str]() if self.request.retry else live.rejected_keys(self.collection, made_by)
        return embedding.Server(made_by=made_by, skip=skip)


def _first(caught: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended a group of tasks: one of ours before any other."""
    flat: list[BaseException] = []
    stack: list[BaseException] = [caught]
    while stack:
        item = stack.pop()
        if isinstance(item, BaseExceptionGroup):
            stack.extend(reversed(item.exceptions))
        else:
            flat.append(item)
    ours = [item for item in flat if isinstance(item, errors.PipelineError)]
    return (ours or flat)[0]


def _send(shards: live.Live, sent: set[str], out: Names) -> None:
    for shard in shards:
        if shard not in sent:
            sent.add(shard)
            out.put_nowait(shard)
