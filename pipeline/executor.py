"""Run ingest and chunk over shards, in worker processes (`embedding` runs the embed stage, in this one's event loop).

Between two stages lies a queue of shard *names*: what they name is on disk already, so the queues need no bound and a
slow stage never holds back the one before it. Nothing here decides what is due; `run` does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from pipeline import config, errors, readers, schema, tasks
from pipeline.deadline import NEVER, TimeLimit
from pipeline.progress import Progress
from pipeline.readers.containers import SEPARATOR, Turn, may_be_archive
from pipeline.record import Recorder
from pipeline.scan import File
from pipeline.stages import ingest
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection
from pipeline.turns import Fallen, Notes, Unfinished, turns
from pipeline.turns import as_read as as_fallen
from pipeline.workers import WorkerPool

log = logging.getLogger(__name__)

# Files given to the pool before the oldest has answered. Few at first, so that the first shard is there soon; then so
# many that the other workers have something to do while one reads for a minute. The bytes bound the texts in memory.
AHEAD, FIRST_AHEAD, AHEAD_BYTES = 512, 32, 64_000_000
LARGE_BYTES = 1_000_000  # a file is read before smaller ones: begun last, it would be waited for alone
BRIEF_BYTES = 65_536  # a file is read in milliseconds, and given to a worker together with others
CHUNK_FIRST = 1 << 62  # before any reading: what is read already is what the model server waits for

_Job = TypeVar("_Job")
Names = asyncio.Queue[str | None]  # shard names, None at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every stage of one run shares. `limit`: when it stops, with what it has done by then."""

    collection: Collection
    settings: config.Settings
    options: readers.ReaderOptions
    pool: WorkerPool
    progress: Progress
    limit: TimeLimit = NEVER
    record: Recorder = field(default_factory=Recorder)


@dataclass(slots=True, kw_only=True)
class Ingested:
    """What came of the due files: snapshot rows by uri (none for a file that was not reached in time), and rows for
    the reject log.
    """

    rows: dict[str, ingest.Row] = field(default_factory=dict)
    rejects: list[dict[str, Any]] = field(default_factory=list)
    passed: int = 0  # files inside files whose kind no reader knows


async def ordered(
    jobs: Iterable[_Job],
    submit: Callable[[_Job], asyncio.Future[Any]],
    ahead: int = AHEAD,
    limit: TimeLimit = NEVER,
    size: Callable[[_Job], int] = lambda job: 0,
) -> AsyncGenerator[tuple[_Job, Any]]:
    """Run `jobs`, `ahead` at a time; yield each with its result, or its WorkerError, in the order of the jobs.

    Of jobs with a `size` no more are taken than AHEAD_BYTES, but for FIRST_AHEAD.
    At the `limit` what is finished is still yielded, and the rest of the jobs is left out.
    """
    waiting: list[tuple[_Job, asyncio.Future[Any]]] = []
    source = iter(jobs)
    held, most = 0, min(FIRST_AHEAD, ahead)
    try:
        while True:
            while (
                len(waiting) < (most if held < AHEAD_BYTES else FIRST_AHEAD)
                and not limit.begin.over()
                and (job := next(source, None)) is not None
            ):
                waiting.append((job, submit(job)))
                held += size(job)
            if not waiting:
                return
            await asyncio.wait({waiting[0][1]}, timeout=limit.wait.left())
            if not waiting[0][1].done():  # the last moment has come
                waiting = [(job, future) for job, future in waiting if _kept(future)]
                continue
            job, future = waiting.pop(0)
            held, most = held - size(job), min(ahead, most + 4)
            yield job, _result(future)
    finally:
        for _, future in waiting:
            future.cancel()


def _kept(future: asyncio.Future[Any]) -> bool:
    """Whether it is done; else it is given up."""
    return future.done() or not future.cancel()


def _result(future: asyncio.Future[Any]) -> Any:
    try:
        return future.result()
    except errors.WorkerError as error:
        return error


def worker_count(settings: config.Settings) -> int:
    """Worker processes: as set, else one per core."""
    return settings.readers.workers or os.cpu_count() or 1


def read_timeout_s(settings: config.Settings, size: int) -> float:
    """Time limit for one file: a base plus one second per megabyte."""
    return settings.readers.timeout_s + size / 1_000_000


def seen(file: File) -> ingest.Seen:
    """What the ingest stage knows of a scanned file: all but its path."""
    return ingest.Seen(uri=file.uri, size=file.size, mtime_ns=file.mtime_ns, inode=file.inode)


def fitting(settings: config.Settings, turn: Turn) -> Turn:
    """`turn` so short that the last document in it has most of a file's time limit to itself."""
    return replace(turn, seconds=min(turn.seconds, settings.readers.timeout_s / 4))


def submit_read(
    context: Context, file: File, known_hash: str, turn: Turn = tasks.FIRST, note: Path | None = None
) -> asyncio.Future[tasks.Read]:
    """Have a worker read a file, or a turn of what is in it."""
    timeout_s = read_timeout_s(context.settings, file.size + turn.allow)
    turn = fitting(context.settings, turn)
    words = (file.path, seen(file), context.options, known_hash, turn, note)
    size = max(file.size, turn.allow)
    future = context.pool.submit(
        "pipeline.tasks:read",
        *words,
        timeout_s=timeout_s,
        priority=size if size >= LARGE_BYTES else 0,
        brief=size <= BRIEF_BYTES and note is None and readers.is_text(file.uri),
    )
    return asyncio.wrap_future(future)


def reject(stage: str, uri: str, key: str, made_by: str, kind: str, reason: str) -> dict[str, Any]:
    """One row of schema.REJECTS, dated now."""
    at_ms = time.time_ns() // 1_000_000
    return {
        "stage": stage,
        "uri": uri,
        "key": key,
        "made_by": made_by,
        "kind": kind,
        "reason": reason,
        "at_ms": at_ms,
    }


def as_read(context: Context, file: File, result: tasks.Read | errors.WorkerError) -> tasks.Read:
    """A worker's failure on a file, as a result like any other."""
    if isinstance(result, tasks.Read):
        return result
    reader = readers.reader_of(file.uri, context.options)
    took_s = read_timeout_s(context.settings, file.size) if isinstance(result, errors.WorkerTimeout) else 0.0
    reason = errors.in_a_line(result.message, result.remedy)
    return tasks.Read(
        seen=seen(file), content_hash="", reader=reader, kind=type(result).kind, reason=reason, seconds=took_s
    )


async def ingest_files(context: Context, files: Sequence[File], due: Sequence[ingest.Due], out: Names) -> Ingested:
    """Read the due files and write their shards; shard names go to `out` as they are written (no None at the end)."""
    with Notes.open() as notes:
        return await _Ingest(context, files, notes, out).go(due)


class _Ingest:
    """Due files to rows and shards. A file's documents are taken in turns; a shard is written when it is full."""

    def __init__(self, context: Context, files: Sequence[File], notes: Notes, out: Names) -> None:
        self._context = context
        self._files = files
        self._notes = notes
        self._out = out
        self._done = Ingested()
        self._batch: list[tuple[tasks.Read, ingest.Row]] = []
        self._size = 0
        self._unfinished: set[str] = set()
        self._broken: dict[str, tasks.Read] = {}  # by uri: after what was in them was read in part

    async def go(self, due: Sequence[ingest.Due]) -> Ingested:
        context = self._context
        context.progress.start("files", len(due), "file")
        results = ordered(due, self._submit, limit=context.limit, size=self._weight)
        async with aclosing(results):
            async for item, result in results:
                await self._file(item, result)
                context.progress.advance("files")
        await self._write()
        self._name_broken()
        self._forget_unfinished()
        context.progress.finish("files")
        return self._done

    def _weight(self, item: ingest.Due) -> int:
        """Bytes of text that reading it may bring: of an archive, however small, those of a turn."""
        file = self._files[item.index]
        return max(file.size, tasks.TURN_CHARS) if may_be_archive(file.uri) else file.size

    def _submit(self, item: ingest.Due, turn: Turn = tasks.FIRST) -> asyncio.Future[tasks.Read]:
        file = self._files[item.index]
        known_hash = item.known_hash if turn == tasks.FIRST else ""
        return submit_read(self._context, file, known_hash, turn, self._notes.of(file.uri, item.index))

    async def _file(self, item: ingest.Due, result: tasks.Read | errors.WorkerError) -> None:
        """All that is in one file, and the file itself."""
        file = self._files[item.index]
        before = {row["uri"]: row for row in item.before}
        parts = turns(
            result,
            lambda turn: self._submit(item, turn),
            self._notes.of(file.uri, item.index),
            self._context.limit.begin.over,
        )
        seconds, whole = 0.0, None
        async with aclosing(parts):
            async for part in parts:
                if isinstance(part, Unfinished):
                    self._unfinished.add(file.uri)
                elif isinstance(part, Fallen):
                    await self._take(before, as_fallen(part, seen(file), self._context.options))
                else:
                    whole, seconds = await self._turn(item, before, as_read(self._context, file, part), whole, seconds)
        self._notes.drop(item.index)
        self._context.record.file_read(file.uri, seconds, file.size)

    async def _turn(
        self,
        item: ingest.Due,
        before: dict[str, ingest.Row],
        read: tasks.Read,
        whole: tasks.Read | None,
        seconds: float,
    ) -> tuple[tasks.Read, float]:
        """A turn of a file; of the file itself what the first one says, unless a later one fails."""
        if whole is None:
            await self._take(before, read)
            self._keep_inside(item, read)
        elif read.kind in ingest.WITHHELD:
            self._broken[read.seen.uri] = read
            self._keep_inside(item, read)
        for one in read.inside:
            await self._take(before, one)
        self._done.passed += read.passed
        return read, seconds + read.seconds

    def _keep_inside(self, item: ingest.Due, read: tasks.Read) -> None:
        """What was in a file stays, if it has not changed or cannot be looked into now."""
        rows = self._done.rows
        if read.same:
            stat = {"size": read.seen.size, "mtime_ns": read.seen.mtime_ns, "inode": read.seen.inode}
            rows.update((row["uri"], row | stat) for row in item.inside)
        elif read.kind in ingest.WITHHELD:
            for row in item.inside:
                rows.setdefault(row["uri"], row)

    async def _take(self, before: dict[str, ingest.Row], read: tasks.Read) -> None:
        self._size += _take(self._done, self._batch, before.get(read.seen.uri), read)
        if self._size >= ingest.SHARD_BYTES:
            await self._write()
            self._size = 0

    async def _write(self) -> None:
        await _write_shard(self._context, self._done, self._batch, self._out)

    def _name_broken(self) -> None:
        """A file that failed after some of its turns is a failure, whatever was found in it until then."""
        for uri, read in self._broken.items():
            self._done.rows[uri] |= {"status": read.kind, "content_hash": ""}
            self._done.rejects.append(reject("ingest", uri, "", read.reader, read.kind, read.reason))

    def _forget_unfinished(self) -> None:
        """A file whose documents were not all read in time stays as it was, and so do they."""
        if self._unfinished:
            rows, rejects = self._done.rows, self._done.rejects
            gone = self._unfinished
            self._done.rows = {uri: row for uri, row in rows.items() if gone.isdisjoint((uri, row["container"]))}
            self._done.rejects = [row for row in rejects if row["uri"].split(SEPARATOR)[0] not in gone]


def _take(
    done: Ingested, batch: list[tuple[tasks.Read, ingest.Row]], before: ingest.Row | None, read: tasks.Read
) -> int:
    """Sort one result into what is kept, rejected or to be written; returns the bytes of text it adds to the shard."""
    uri = read.seen.uri
    stat = {"size": read.seen.size, "mtime_ns": read.seen.mtime_ns, "inode": read.seen.inode}
    if read.same and before is not None:
        done.rows[uri] = before | stat
        return 0
    if read.row is None:
        row = _snapshot_row(read, None, "")
        if read.kind != "ok":
            log.info("%s: %s: %s", uri, read.kind, read.reason)
            done.rejects.append(reject("ingest", uri, read.content_hash, read.reader, read.kind, read.reason))
        done.rows[uri] = ingest.still_live(row, before) if read.kind in ingest.PASSING else row
        return 0
    if read.reason:
        done.rejects.append(reject("ingest", uri, read.content_hash, read.reader, ingest.PAGES, read.reason))
    if before is not None and before["doc_hash"] == read.row["doc_hash"]:  # other bytes, the same text: nothing to redo
        changed = {"content_hash": read.content_hash, "reader": read.reader, "status": "ok"}
        done.rows[uri] = before | stat | changed
        return 0
    batch.append((read, read.row))
    return len(read.row["text"].encode())


def _snapshot_row(read: tasks.Read, row: ingest.Row | None, shard: str) -> ingest.Row:
    return ingest.snapshot_row(
        read.seen,
        content_hash=read.content_hash,
        reader=read.reader,
        status=read.kind,
        documents=row,
        shard=shard,
        container=read.container,
    )


async def _write_shard(
    context: Context, done: Ingested, batch: list[tuple[tasks.Read, ingest.Row]], out: Names
) -> None:
    if not batch:
        return
    name, table = ingest.shard([row for _, row in batch])
    await asyncio.to_thread(context.collection.write_documents, name, table)
    for read, row in batch:
        done.rows[row["uri"]] = _snapshot_row(read, row, name)
    batch.clear()
    out.put_nowait(name)


def _submit_chunk(
    context: Context, function: str, arguments: Sequence[str], params: ChunkParams, tokenizer: Path | None
) -> asyncio.Future[Any]:
    timeout_s = context.settings.chunk.timeout_s
    words = (context.collection, *arguments, params, tokenizer)
    future = context.pool.submit(function, *words, timeout_s=timeout_s, priority=CHUNK_FIRST)
    return asyncio.wrap_future(future)


async def _chunk_apart(context: Context, shard: str, params: ChunkParams, tokenizer: Path | None) -> int:
    """Chunk the documents of a shard one by one, after it could not be chunked whole; who fails alone is rejected."""
    documents = context.collection.read_documents(shard, ["doc_id", "uri"]).to_pylist()
    tables, rejects = [schema.CHUNKS.empty_table()], []
    for row in documents:
        try:
            one = [shard, row["doc_id"]]
            tables.append(await _submit_chunk(context, "pipeline.tasks:chunk_one", one, params, tokenizer))
        except errors.WorkerError as error:
            log.info("%s: cannot be chunked: %s: %s", row["uri"], error.kind, error.message)
            made_by = params.fingerprint()
            rejects.append(reject("chunk", row["uri"], row["doc_id"], made_by, error.kind, error.message))
    context.collection.add_rejects(rejects)
    table = pa.concat_tables(tables)
    context.collection.write_chunks(params.fingerprint(), shard, table)
    return table.num_rows


async def _chunk(context: Context, shard: str, params: ChunkParams, tokenizer: Path | None) -> int:
    """Chunk a shard; returns how many chunks it has."""
    try:
        made: tasks.Chunked = await _submit_chunk(context, "pipeline.tasks:chunk", [shard], params, tokenizer)
    except errors.WorkerError as error:
        log.info("shard %s: %s: its documents are chunked one by one", shard, error.message)
        return await _chunk_apart(context, shard, params, tokenizer)
    context.record.chunked(made.lengths, made.split)
    return made.rows


async def _in_time(context: Context, shard: str, params: ChunkParams, tokenizer: Path | None) -> int | None:
    """Chunk a shard, unless the time is over before that is done: None."""
    if context.limit.begin.over():
        return None
    try:
        async with asyncio.timeout(context.limit.wait.left()) as timer:
            return await _chunk(context, shard, params, tokenizer)
    except TimeoutError:
        if not timer.expired():
            raise
        return None


async def chunk_shards(context: Context, params: ChunkParams, tokenizer: Path | None, names: Names, out: Names) -> int:
    """Chunk every named shard that has no chunk file yet, one worker each; names go on to `out`, None at the end.

    A shard that is not chunked at the time limit goes no further in this run. Returns how many these are.
    """
    fingerprint, taken, left = params.fingerprint(), set[str](), 0

    async def consume() -> None:
        nonlocal left
        while (name := await names.get()) is not None:
            if name in taken:  # named when it was written and again by the snapshot: two workers would both chunk it
                continue
            taken.add(name)
            if context.collection.has_chunks(fingerprint, name):
                out.put_nowait(name)
            elif (count := await _in_time(context, name, params, tokenizer)) is not None:
                context.progress.advance("chunks", count)
                out.put_nowait(name)
            else:
                left += 1
        names.put_nowait(None)  # for the other consumers

    context.progress.start("chunks", None, "chunk")
    async with asyncio.TaskGroup() as group:
        for _ in range(worker_count(context.settings)):
            group.create_task(consume())
    context.progress.finish("chunks")
    out.put_nowait(None)
    return left
