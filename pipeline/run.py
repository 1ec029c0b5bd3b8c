"""The graph over one collection: what is due, which stages run, what is published, what is reported.

`execute` streams the four stages: shards go from ingest to chunk to embed as they are written, so that the first
vectors are computed seconds after the first file was read. Each stage alone is the same code with the other queues
fed from disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import (
    changes,
    config,
    embedding,
    errors,
    executor,
    guards,
    live,
    opening,
    pools,
    publish,
    run_model,
    run_report,
    tasks,
    unfinished,
)
from pipeline.changes import Scanned
from pipeline.deadline import Deadline, TimeLimit
from pipeline.executor import Context, Names
from pipeline.models import EmbedderSpec, resolve
from pipeline.progress import Progress
from pipeline.record import Recorder
from pipeline.report import Report
from pipeline.run_model import Model
from pipeline.run_report import Outcome
from pipeline.situating import Situating
from pipeline.stages import ingest
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection, VectorLog
from pipeline.workers import WorkerPool

if TYPE_CHECKING:
    from pipeline import question_sets

log = logging.getLogger(__name__)

STAGES = run_report.STAGES


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for. `stages`: of STAGES; `folders`: for ingest; `max_delete`: share of the files, 0 to 1;
    `end`: when it has to be over, whatever the settings say.
    """

    stages: frozenset[str]
    folders: tuple[Path, ...] = ()
    pull: bool = False
    retry: bool = False
    max_delete: float = 0.2
    end: Deadline = field(default_factory=Deadline)


def worker_pool(settings: config.Settings) -> AbstractContextManager[WorkerPool]:
    return pools.opened(executor.worker_count(settings), settings.readers.memory_mb)


def execute(settings: config.Settings, request: Request, progress: Progress) -> Report:
    """Run the stages asked for on whatever is due, under the collection's lock; leaves a report, whatever comes.

    Raises:
        PipelineError: with the exit code and the remedy. What was finished before it stays, and is not done again.
    """
    outcome = Outcome(stages=request.stages, record=Recorder(progress))
    return run_report.reported(settings, outcome, lambda: _execute(settings, request, outcome))


def _execute(settings: config.Settings, request: Request, outcome: Outcome) -> Report:
    # From here on: waiting for the lock is part of the night.
    end = request.end.earlier_of(Deadline.of(settings.run.max_duration, settings.run.until))
    collection = opening.collection_of(settings)
    if "ingest" not in request.stages and not collection.exists:
        raise opening.nothing(settings)
    scanned = None
    if "ingest" in request.stages:  # before the lock makes a folder: a wrong DOCS leaves nothing behind
        scanned = changes.look(settings, collection, request.folders, retry=request.retry)
    with collection.writing(end.at_most(settings.run.wait_lock_s), outcome.record.message):
        if scanned is not None and _is_outdated(scanned, collection):
            scanned = changes.look(settings, collection, request.folders, retry=request.retry)
        outcome.before = scanned.before if scanned is not None else None
        limit = guards.time_limit(collection, end)
        return asyncio.run(_Run(settings, request, collection, outcome, scanned, limit).go())


async def embed_all(
    settings: config.Settings, collection: Collection, model: Model, outcome: Outcome, limit: TimeLimit
) -> None:
    """Cut and embed every live document for `model`, which need not be the one that serves; closes it afterwards.
    Publishes nothing. What the limit leaves undone, the next call does.
    """
    request = Request(stages=frozenset({"chunk", "embed"}))
    await _Run(settings, request, collection, outcome, None, limit).work(model)


def _is_outdated(scanned: Scanned, collection: Collection) -> bool:
    """Whether another run has written a snapshot since."""
    return collection.snapshots()[-1:] != ([scanned.before.number] if scanned.before is not None else [])


@dataclass(slots=True)
class _Run:
    settings: config.Settings
    request: Request
    collection: Collection
    outcome: Outcome
    scanned: Scanned | None
    limit: TimeLimit
    unread: list[ingest.Due] = field(default_factory=list)  # what the time limit left out, and
    unchunked: int = 0  # shards
    questions: tuple[question_sets.Line, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.questions = ()
        if self.settings.quality.questions and "index" in self.request.stages:
            from pipeline import quality  # search and LanceDB's part with it

            self.questions = quality.load(self.settings)  # now: a wrong line must not cost a night

    @property
    def progress(self) -> Progress:
        return self.outcome.record

    async def go(self) -> Report:
        if self.scanned is not None:
            changes.early_guard(self.scanned, self.request.max_delete)
        model = await run_model.open_model(
            self.settings, self.collection, self.request.stages, self.progress, pull=self.request.pull
        )
        if model is not None:
            self.outcome.spec = model.spec
            self.outcome.notes += [model.note] if model.note else []
        await self.work(model)
        return self._told(run_report.build(self.collection, self.settings, self.outcome))

    async def work(self, model: Model | None) -> None:
        """Run the stages; `model` is closed after them."""
        try:
            if model is not None and self.settings.run.disk_check:
                self._check_space(model.spec)
            with worker_pool(self.settings) as pool:
                context = Context(
                    collection=self.collection,
                    settings=self.settings,
                    options=changes.reader_options(self.settings),
                    pool=pool,
                    progress=self.progress,
                    record=self.outcome.record,
                    limit=self.limit,
                )
                await self._stages(context, model)
        finally:
            if model is not None:
                await model.aclose()

    def _check_space(self, spec: EmbedderSpec) -> None:
        files = unfinished.to_be_read(self.scanned) if self.scanned is not None else []
        guards.check_run(self.settings, self.collection, spec, files, self._live())

    def _told(self, report: Report) -> Report:
        """The report, with what the time limit left undone."""
        given_up = sum(failure.stage == "embed" for failure in report.failures)
        lacking = report.chunks - report.vectors - given_up if "embed" in self.request.stages else 0
        held = self.outcome.publication.note.held if self.outcome.publication is not None else 0
        ended = self.limit.begin.over() or (self.limit.is_set and self.unchunked > 0)  # sentences end before the rest
        if not ended or not (self.unread or self.unchunked or lacking > 0 or held):
            return report
        return replace(
            report, incomplete=True, files_left=len(self.unread), chunks_left=max(0, lacking), documents_held=held
        )

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
                    group.create_task(self._chunk(context, model, params, tokenizer, shards, chunked))
                elif model is not None and "embed" in stages:
                    group.create_task(self._chunked_already(model.spec, shards, chunked))
                if model is not None and "embed" in stages:
                    group.create_task(self._embed(context, model, chunked))
        except BaseExceptionGroup as caught:
            raise _first(caught) from caught
        if model is not None and "index" in stages:
            began = time.monotonic()
            await self._publish(model)
            self.outcome.publish_seconds = time.monotonic() - began

    async def _publish(self, model: Model) -> None:
        """Show the new index to readers, unless the golden questions speak against it."""
        gate = None
        if self.questions and not self._complete(model.spec):
            from pipeline import quality

            gate = await quality.open_gate(self.settings, self.collection, self.questions, model.spec, model.embedder)
        retry = self.request.retry
        try:
            self.outcome.publication = publish.publish(
                self.collection, self.settings, model.spec, self._live(), self.progress, anew=retry, check=gate
            )
        finally:
            self.outcome.quality = gate.verdict if gate is not None else None
        if self.outcome.publication.changed and not self.limit.wait.over():
            from pipeline import garbage

            self.outcome.freed_bytes = garbage.tidy(self.collection, self.settings).freed_bytes

    def _live(self) -> live.Live:
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
        complete = model is not None and self._complete(model.spec) and not self.request.retry
        if not complete:
            _send(self._left(), sent, out)
        if self.scanned is not None:
            await self._ingest(context, model, self.scanned, out)
            if not complete:
                _send(self._live(), sent, out)
        out.put_nowait(None)

    def _left(self) -> Iterable[str]:
        """The shards in which earlier runs may have left something to do; newest first where the time is limited."""
        snapshot = self.collection.snapshot()
        return unfinished.shards_newest_first(snapshot) if self.limit.is_set else live.of_snapshot(snapshot)

    async def _ingest(self, context: Context, model: Model | None, scanned: Scanned, out: Names) -> None:
        """Read what is due, as far as the time allows, and commit the snapshot."""
        files, due = scanned.found.files, scanned.plan.due
        order = unfinished.newest_first(due, files) if self.limit.is_set else due
        done = await executor.ingest_files(context, files, order, out)
        self.unread = unfinished.unread(scanned, done.rows)
        reached = unfinished.reached(scanned, self.unread)
        fates, notes = changes.commit(self.collection, reached, done, self.request.max_delete)
        carried = sum(ingest.is_document(row) for item in self.unread for row in item.before)
        carried += len(scanned.plan.gone) - len(reached.plan.gone)
        self.outcome.fates = fates | {"unchanged": fates["unchanged"] - carried}
        self.outcome.notes += notes
        if model is not None and scanned.before is None:
            warning = resolve.language_warning(model.spec, live.sample(self.collection, self._live()))
            self.outcome.notes += [warning] if warning else []

    def _complete(self, spec: EmbedderSpec) -> bool:
        """Whether every live document of the last snapshot is chunked, embedded and published with these settings."""
        return live.is_complete(self.collection, self.settings, spec, self._live())

    def _is_idle(self, spec: EmbedderSpec) -> bool:
        """Whether no file is due and earlier runs left nothing."""
        due = self.scanned is not None and self.scanned.plan.due
        return not due and not self.request.retry and self._complete(spec)

    async def _chunk(
        self,
        context: Context,
        model: Model,
        params: ChunkParams,
        tokenizer: Path | None,
        names: Names,
        out: Names,
    ) -> None:
        if model.author is None:
            self.unchunked = await executor.chunk_shards(context, params, tokenizer, names, out)
            return
        pass_ = Situating(context, model.spec, params, tokenizer, model.author, retry=self.request.retry)
        await pass_.run(names, out)
        self.unchunked = pass_.done.left
        self.outcome.notes += pass_.done.notes()

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
        spec = model.spec
        if self._is_idle(spec):
            return  # nothing will be named: the log, 24 bytes a vector, is not opened
        vectors = live.vector_log(self.collection, spec)
        chunks_fp = live.chunk_params(self.settings, spec).fingerprint()
        last = self._live().keys() if self.limit.is_set else ()  # what is new comes before what was left
        source = embedding.Source(
            context, spec, vectors, chunks_fp, lambda: self._begin(model, vectors), live=self._live(), last=last
        )
        tokenizer = tasks.tokenizer(spec.tokenizer, live.tokenizer_path(self.collection, spec))
        await embedding.embed_shards(context, model.embedder, vectors, source, names, tokenizer, self.outcome.embedding)
        vectors.refresh()
        vectors.compact()

    async def _begin(self, model: Model, vectors: VectorLog) -> embedding.Server:
        """Who embeds, and what it need not be sent: a text it refused is tried on another version, or when asked."""
        assert model.embedder is not None
        version = self.outcome.server_version = await embedding.ask_server(model.embedder, vectors)
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


def _send(shards: Iterable[str], sent: set[str], out: Names) -> None:
    for shard in shards:
        if shard not in sent:
            sent.add(shard)
            out.put_nowait(shard)
