"""The graph over one collection: what is due, which stages run, what is published, what is reported.

`execute` streams the four stages: shards go from ingest to chunk to embed as they are written, so that the first
vectors are computed seconds after the first file was read. Each stage alone is the same code with the other queues
fed from disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import config, embedding, errors, executor, live, publish, readers, scan, tasks
from pipeline.executor import Context, Names
from pipeline.models import Embedder, EmbedderSpec, resolve
from pipeline.progress import Progress
from pipeline.report import Report
from pipeline.stages import ingest
from pipeline.store import Collection, Snapshot
from pipeline.workers import WorkerPool

log = logging.getLogger(__name__)

STAGES = ("ingest", "chunk", "embed", "index")
GRACE = 1  # files that may always go, as long as others stay: one of four is more than 20 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked for. `stages`: of STAGES; `folders`: for ingest; `max_delete`: share of the files, 0 to 1."""

    stages: frozenset[str]
    folders: tuple[Path, ...] = ()
    pull: bool = False
    retry: bool = False
    max_delete: float = 0.2


def collection_of(settings: config.Settings) -> Collection:
    return Collection(Path(settings.data), settings.collection)


def reader_options(settings: config.Settings) -> readers.ReaderOptions:
    chosen = settings.readers
    return readers.ReaderOptions(
        pdf=chosen.pdf, docx=chosen.docx, html=chosen.html, max_file_mb=settings.source.max_file_mb
    )


def scan_rules(settings: config.Settings) -> scan.Rules:
    source = settings.source
    return scan.Rules(
        known=readers.known,
        include=source.include,
        exclude=source.exclude,
        hidden=source.hidden,
        follow_symlinks=source.follow_symlinks,
    )


def worker_pool(settings: config.Settings) -> WorkerPool:
    return WorkerPool(executor.worker_count(settings), memory_mb=settings.readers.memory_mb)


@dataclass(slots=True, kw_only=True)
class Scanned:
    """The folders as they are now, against the last snapshot."""

    found: scan.Scan
    plan: ingest.Plan
    before: Snapshot | None
    sources: tuple[str, ...]
    scanned_ns: int


def look(settings: config.Settings, collection: Collection, folders: Sequence[Path], *, retry: bool = False) -> Scanned:
    """Scan `folders` and say which files are due; reads no file.

    Raises:
        SourceError: a folder is not there, or cannot be listed.
    """
    options, scanned_ns = reader_options(settings), time.time_ns()
    found = scan.scan(folders, scan_rules(settings))
    before = collection.snapshot() if collection.exists else None
    plan = ingest.plan(
        [executor.seen(file) for file in found.files],
        before.table.to_pylist() if before else [],
        before.scanned_ns if before else 0,
        is_current=lambda reader, uri: readers.is_current(reader, uri, options),
        unreadable=[f"{refused.uri}/" for refused in found.refused if refused.folder],
        retry=retry,
    )
    sources = tuple(str(folder.resolve()) for folder in folders)
    return Scanned(found=found, plan=plan, before=before, sources=sources, scanned_ns=scanned_ns)


def execute(settings: config.Settings, request: Request, progress: Progress) -> Report:
    """Run the stages asked for on whatever is due, under the collection's lock.

    Raises:
        PipelineError: with the exit code and the remedy. What was finished before it stays, and is not done again.
    """
    collection = collection_of(settings)
    if "ingest" not in request.stages and not collection.exists:
        raise nothing(settings)
    scanned = None
    if "ingest" in request.stages:  # before the lock makes a folder: a wrong DOCS leaves nothing behind
        scanned = look(settings, collection, request.folders, retry=request.retry)
    with collection.writing(settings.run.wait_lock_s):
        if scanned is not None and settings.run.wait_lock_s:
            scanned = look(settings, collection, request.folders, retry=request.retry)
        report = asyncio.run(_Run(settings, request, collection, progress, scanned).go())
        collection.write_report(msgspec.json.format(msgspec.json.encode(report.to_json()), indent=1))
    return report


def nothing(settings: config.Settings) -> errors.NoIndex:
    return errors.NoIndex(
        f"There is no collection {settings.collection!r} in {settings.data}.",
        "Build it first: pipeline run DOCS",
    )


@dataclass(slots=True, kw_only=True)
class _Model:
    """Who embeds in this run; `embedder` is None when no stage needs one."""

    spec: EmbedderSpec
    embedder: Embedder | None = None


@dataclass(slots=True)
class _Run:
    settings: config.Settings
    request: Request
    collection: Collection
    progress: Progress
    scanned: Scanned | None
    notes: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    embed_seconds: float = 0.0
    pull_total: int = 0
    pull_done: int = 0

    async def go(self) -> Report:
        if self.scanned is not None:
            unseen = sum(due.previous is None for due in self.scanned.plan.due)  # each may be one of them, moved
            self._guard(len(self.scanned.plan.gone) - unseen)
        model = await self._open_model()
        try:
            with worker_pool(self.settings) as pool:
                context = Context(
                    collection=self.collection,
                    settings=self.settings,
                    options=reader_options(self.settings),
                    pool=pool,
                    progress=self.progress,
                )
                return await self._stages(context, model)
        finally:
            if model is not None and model.embedder is not None:
                await model.embedder.aclose()

    # -- guards

    def _guard(self, dropped: int) -> None:
        """Refuse to drop more of the files than allowed: an unmounted folder must never empty the index."""
        scanned = self.scanned
        if scanned is None or scanned.before is None:
            return
        known = sum(row["status"] == "ok" for row in scanned.before.table.to_pylist())
        if dropped <= self.request.max_delete * known or (scanned.found.files and _others(scanned)):
            return
        if dropped <= GRACE and dropped < known and self.request.max_delete > 0:
            return
        raise errors.TooManyDeletions(
            f"{dropped} of {known} files are no longer in {', '.join(scanned.sources)}: "
            f"more than the {self.request.max_delete:.0%} that one run may drop. Nothing was changed.",
            "If the folder is not mounted, mount it. If they are meant to go, give --max-delete 100%; "
            "for another set of documents, give --collection NAME.",
        )

    # -- the model

    async def _open_model(self) -> _Model | None:
        """Find out who embeds, and keep it: a collection stays with the model it was begun with."""
        stages, recorded = self.request.stages, self.collection.embedder()
        if not stages & {"chunk", "embed", "index"}:
            return None
        if "embed" not in stages and recorded is not None:
            return _Model(spec=recorded)
        if stages == {"index"}:
            raise errors.NoIndex(
                "Nothing has been embedded yet.", "Run `pipeline embed` first, or `pipeline run DOCS`."
            )
        choice = await resolve.open_embedder(self.settings, recorded, pull=self._pulled if self.request.pull else None)
        if choice.note:
            self.notes.append(choice.note)
            self.progress.message(choice.note)
        spec = choice.embedder.spec
        if choice.tokenizer is not None:
            self.collection.keep_tokenizer(spec.tokenizer, choice.tokenizer)
        self.collection.set_embedder(spec)
        return _Model(spec=spec, embedder=choice.embedder)

    def _pulled(self, step: resolve.PullStep) -> None:
        """Show how far a pull is."""
        self.progress.start("pull", None, "B")
        self.progress.grow("pull", step.total - self.pull_total)
        self.progress.advance("pull", step.completed - self.pull_done)
        self.pull_total, self.pull_done = step.total, step.completed
        if step.status == "success":
            self.progress.finish("pull")
            self.progress.message(f"Pulled {step.model}.")

    # -- the stages

    async def _stages(self, context: Context, model: _Model | None) -> Report:
        stages = self.request.stages
        shards: Names = asyncio.Queue()
        chunked: Names = asyncio.Queue()
        embedded: asyncio.Task[embedding.Embedding] | None = None
        try:
            async with asyncio.TaskGroup() as group:
                fed = group.create_task(self._feed(context, model, shards))
                if model is not None and "chunk" in stages:
                    params = live.chunk_params(self.settings, model.spec)
                    tokenizer = live.tokenizer_path(self.collection, model.spec)
                    group.create_task(executor.chunk_shards(context, params, tokenizer, shards, chunked))
                elif model is not None and "embed" in stages:
                    group.create_task(self._chunked_already(model.spec, shards, chunked))
                if model is not None and "embed" in stages:
                    embedded = group.create_task(self._embed(context, model, chunked))
        except BaseExceptionGroup as caught:
            raise _first(caught) from caught
        done = embedded.result() if embedded is not None else embedding.Embedding()
        publication = None
        if model is not None and "index" in stages:
            publication = publish.publish(
                self.collection, self.settings, model.spec, self._live(), self.progress, anew=self.request.retry
            )
        return self._report(model, fed.result(), done, publication)

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

    async def _feed(self, context: Context, model: _Model | None, out: Names) -> dict[str, int]:
        """Name the shards to be chunked and embedded, new ones as they are written; returns the files' fates."""
        fates: dict[str, int] = {}
        sent: set[str] = set()
        if self.request.retry and model is not None and "chunk" in self.request.stages:
            self._retry_chunks(model.spec)
        complete = self._complete(model) and not self.request.retry
        if not complete:
            _send(live.of_snapshot(self.collection.snapshot()), sent, out)
        if self.scanned is not None:
            done = await executor.ingest_files(context, self.scanned.found.files, self.scanned.plan.due, out)
            fates = self._commit(self.scanned, done)
            if not complete:
                _send(self._live(), sent, out)
        out.put_nowait(None)
        return fates

    def _complete(self, model: _Model | None) -> bool:
        """Whether every live document of the last snapshot is chunked, embedded and published with these settings."""
        note = self.collection.published()
        if model is None or note is None or note.rows != note.chunks:
            return False
        chunks_fp = live.chunk_params(self.settings, model.spec).fingerprint()
        now = (live.hash_of(self._live()), chunks_fp, live.vectors_fp(model.spec))
        return now == (note.live, note.chunks_fp, note.vectors_fp)

    def _commit(self, scanned: Scanned, done: executor.Ingested) -> dict[str, int]:
        """Write the snapshot, unless it would say what the last one says."""
        refused = {item.uri: _refused_row(item) for item in scanned.found.refused}
        rows = {row["uri"]: row for row in scanned.plan.keep} | done.rows | refused
        fresh = [uri for uri, row in done.rows.items() if row["status"] == "ok"]
        found = {done.rows[uri]["content_hash"] for uri in fresh}
        self._guard(sum(row["status"] == "ok" and row["content_hash"] not in found for row in scanned.plan.gone))
        before = {row["uri"]: row for row in scanned.before.table.to_pylist()} if scanned.before else {}
        rejects = done.rejects + [
            executor.reject("ingest", item.uri, "", "scan", item.kind, item.reason) for item in scanned.found.refused
        ]
        self.collection.add_rejects([row for row in rejects if not _known(row, before.get(row["uri"]))])
        table = ingest.snapshot_table(rows.values())
        same = scanned.before is not None and scanned.before.sources == scanned.sources
        if not same or scanned.plan.stale or rows != before:
            self.collection.write_snapshot(table, scanned.sources, scanned.scanned_ns)
        if _others(scanned) and scanned.before is not None and scanned.plan.gone:
            self.notes.append(
                f"This collection held {', '.join(scanned.before.sources)} and now holds {', '.join(scanned.sources)} "
                "instead. For both, name both; or give each its own --collection NAME."
            )
        if not rows:
            self.notes.append(f"No documents found in {', '.join(scanned.sources)}.")
        if scanned.found.unknown:
            self.notes.append(f"{scanned.found.unknown} files of unknown kinds were left out.")
        return ingest.fates(scanned.plan, rows)

    async def _chunked_already(self, spec: EmbedderSpec, names: Names, out: Names) -> None:
        """`embed` without `chunk`: what has a chunk file goes on, what has none is said."""
        fingerprint, missing = live.chunk_params(self.settings, spec).fingerprint(), 0
        while (name := await names.get()) is not None:
            if self.collection.has_chunks(fingerprint, name):
                out.put_nowait(name)
            else:
                missing += 1
        if missing:
            self.notes.append("Some documents are not chunked yet with these settings: run `pipeline chunk` first.")
        out.put_nowait(None)

    async def _embed(self, context: Context, model: _Model, names: Names) -> embedding.Embedding:
        assert model.embedder is not None
        spec, began = model.spec, time.monotonic()
        vectors = live.vector_log(self.collection, spec)
        made_by = live.vectors_fp(spec)
        skip = frozenset[str]() if self.request.retry else live.rejected_keys(self.collection, made_by)
        chunks_fp = live.chunk_params(self.settings, spec).fingerprint()
        source = embedding.Source(context, spec, vectors, chunks_fp, skip)
        tokenizer = tasks.tokenizer(spec.tokenizer, live.tokenizer_path(self.collection, spec))
        done = await embedding.embed_shards(context, model.embedder, vectors, source, names, made_by, tokenizer)
        self.embed_seconds = time.monotonic() - began
        vectors.refresh()
        vectors.compact()
        return done

    # -- the report

    def _report(
        self,
        model: _Model | None,
        fates: dict[str, int],
        done: embedding.Embedding,
        publication: publish.Publication | None,
    ) -> Report:
        spec = model.spec if model is not None else self.collection.embedder()
        snapshot = self.collection.snapshot()
        counts = live.count(self.collection, self.settings, spec, live.of_snapshot(snapshot))
        failures = live.failures(self.collection, self.settings, spec, snapshot)
        return Report(
            collection=self.collection.name,
            stages=tuple(stage for stage in STAGES if stage in self.request.stages),
            provider=spec.provider if spec else "",
            model=spec.model if spec else "",
            dims=spec.dims if spec else 0,
            files=fates,
            documents=counts.documents,
            chunks=counts.chunks,
            vectors=counts.vectors,
            rows_added=publication.added if publication else 0,
            rows_deleted=publication.deleted if publication else 0,
            embedded_texts=done.texts,
            embedded_tokens=done.tokens,
            embed_seconds=self.embed_seconds if done.texts else 0.0,
            reused=max(0, counts.vectors - done.texts) if "embed" in self.request.stages else 0,
            rejects=len(failures),
            seconds=time.monotonic() - self.began,
            snapshot=snapshot.number if snapshot else 0,
            notes=tuple(self.notes),
            failures=failures,
        )


def _others(scanned: Scanned) -> bool:
    """Whether other folders were named than last time: a wish, not a mount that failed."""
    return scanned.before is not None and scanned.before.sources != scanned.sources


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


def _refused_row(item: scan.Refused) -> ingest.Row:
    seen = ingest.Seen(uri=item.uri, size=0, mtime_ns=0, inode=0)
    return ingest.snapshot_row(seen, content_hash="", reader="scan/1", status=item.kind, documents=None, shard="")


def _known(reject: ingest.Row, before: ingest.Row | None) -> bool:
    """Whether the last snapshot holds this failure already: then its row in the log stands."""
    return before is not None and (before["status"], before["content_hash"]) == (reject["kind"], reject["key"])


def last_folders(settings: config.Settings) -> tuple[Path, ...]:
    """The folders of the last ingest; none where there was none."""
    collection = collection_of(settings)
    snapshot = collection.snapshot() if collection.exists else None
    return tuple(Path(source) for source in snapshot.sources) if snapshot else ()
