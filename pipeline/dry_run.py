"""What a run would do, found out without writing: each file's fate, and the chunks, tokens and minutes it would cost.

New and changed files are read and chunked in the workers as a run would, and so are documents that were read and not
chunked yet, or otherwise: the counts are exact; only nothing is kept. What would stop the run is said.
"""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import (
    changes,
    config,
    errors,
    executor,
    forecast,
    guards,
    live,
    opening,
    run,
    run_model,
    situating,
    tasks,
    unfinished,
)
from pipeline.executor import Context
from pipeline.models import EmbedderSpec
from pipeline.progress import Progress
from pipeline.readers.containers import Turn
from pipeline.report import Planned, Report
from pipeline.scan import File
from pipeline.stages import ingest
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection
from pipeline.turns import Fallen, Notes, Unfinished, turns
from pipeline.turns import as_read as as_fallen


@dataclass(slots=True, kw_only=True)
class Files:
    """The files that are due, looked into: `rows` enough for `ingest.fates`, and the fate of each by name."""

    rows: dict[str, ingest.Row] = field(default_factory=dict)
    fates: dict[str, str] = field(default_factory=dict)


def plan(settings: config.Settings, request: run.Request, progress: Progress) -> Report:
    """Say what `run.execute` would do with the same arguments. Writes nothing, takes no lock."""
    return asyncio.run(_plan(settings, request, opening.collection_of(settings), progress))


async def _plan(settings: config.Settings, request: run.Request, collection: Collection, progress: Progress) -> Report:
    spec, note = await run_model.would_choose(settings, collection)
    new = not (collection.exists and collection.embedder() is not None)
    cost = forecast.Cost(vectors=None if new else live.vector_log(collection, spec))
    params, tokenizer = live.chunk_params(settings, spec), forecast.tokenizer_of(collection, spec)
    snapshot = collection.snapshot() if collection.exists else None
    pending, counts, fates, notes = live.of_snapshot(snapshot), {}, {}, [note] if note else []
    with run.worker_pool(settings) as pool:
        context = Context(
            collection=collection,
            settings=settings,
            options=changes.reader_options(settings),
            pool=pool,
            progress=progress,
        )
        if "ingest" in request.stages:
            scanned = changes.look(settings, collection, request.folders, retry=request.retry)
            found = await preview(context, scanned.found.files, scanned.plan.due, cost, params, tokenizer)
            rows = found.rows | changes.unseen(scanned)
            settled = ingest.settled(scanned.plan, rows)
            counts, fates = ingest.fates(settled, rows), _named(settled, found)
            pending = live.Live(ingest.snapshot_table(rows.values(), scanned.plan.keep))
            notes += _obstacles(settings, request, collection, scanned, found, spec)
        if pending:
            await forecast.add_documents(context, params, tokenizer, pending, cost)
    if params.situated_by:
        due = situating.calls(collection, params, pending, cost.tokens)
        notes.append(f"{due} sentences would be asked of {settings.generate.model} first: one call each.")
    tokens = sum(cost.tokens.values())
    return Report(
        collection=collection.name,
        stages=tuple(stage for stage in run.STAGES if stage in request.stages),
        provider=spec.provider,
        model=spec.model,
        dims=spec.dims,
        files=counts,
        chunks=cost.chunks,
        reused=cost.surviving,
        snapshot=snapshot.number if snapshot else 0,
        dry_run=True,
        notes=tuple(notes),
        planned=Planned(
            chunks=len(cost.tokens),
            tokens=tokens,
            seconds=forecast.seconds(collection, spec, tokens),
            fates=tuple(sorted(fates.items())),
        ),
    )


def _named(plan_: ingest.Plan, found: Files) -> dict[str, str]:
    """Each file's fate: what is new and has the content of one that is gone was moved."""
    gone: defaultdict[str, deque[str]] = defaultdict(deque)
    for row in plan_.gone:
        gone[row["content_hash"]].append(row["uri"])
    fates = dict(found.fates)
    for uri, fate in found.fates.items():
        if fate == "new" and gone[found.rows[uri]["content_hash"]]:
            gone[found.rows[uri]["content_hash"]].popleft()
            fates[uri] = "moved"
    return fates | {uri: "deleted" for uris in gone.values() for uri in uris}


def _obstacles(
    settings: config.Settings,
    request: run.Request,
    collection: Collection,
    scanned: changes.Scanned,
    found: Files,
    spec: EmbedderSpec,
) -> Iterator[str]:
    """What would stop the run before it begins, as it would say it."""
    try:
        changes.check_lost(scanned, found.rows, request.max_delete)
        if settings.run.disk_check and request.stages != {"ingest"}:
            left = live.of_snapshot(scanned.before)
            guards.check_run(settings, collection, spec, unfinished.to_be_read(scanned), left)
    except (errors.TooManyDeletions, errors.DiskFull) as error:
        yield f"The run would stop: {error.message} {error.remedy}"


async def preview(
    context: Context,
    files: Sequence[File],
    due: Sequence[ingest.Due],
    cost: forecast.Cost,
    params: ChunkParams,
    tokenizer: Path | None,
) -> Files:
    """Read and chunk the due files; what their chunks cost is added to `cost`."""
    found = Files()
    context.progress.start("files", len(due), "file")
    with Notes.open() as notes:

        def submit(item: ingest.Due, turn: Turn = tasks.FIRST) -> asyncio.Future[tasks.Preview]:
            file = files[item.index]
            known_hash, note = item.known_hash if turn == tasks.FIRST else "", notes.of(file.uri, item.index)
            turn = executor.fitting(context.settings, turn)
            words = (file.path, executor.seen(file), context.options, known_hash, params, tokenizer, turn, note)
            timeout_s = 2 * executor.read_timeout_s(context.settings, file.size + turn.allow)
            return asyncio.wrap_future(context.pool.submit("pipeline.tasks:preview", *words, timeout_s=timeout_s))

        async with aclosing(executor.ordered(due, submit)) as results:
            async for item, result in results:
                file, again = files[item.index], functools.partial(submit, item)
                async for part in turns(result, again, notes.of(file.uri, item.index)):
                    _take_turn(context, found, file, item, part, cost)
                context.progress.advance("files")
    context.progress.finish("files")
    return found


def _take_turn(
    context: Context,
    found: Files,
    file: File,
    item: ingest.Due,
    part: tasks.Preview | errors.WorkerError | Fallen | Unfinished,
    cost: forecast.Cost,
) -> None:
    """A turn of a file: the file itself, and what is in it."""
    if isinstance(part, Unfinished):
        return
    before = {row["uri"]: row for row in item.before}
    if isinstance(part, Fallen):
        fallen = as_fallen(part, executor.seen(file), context.options)
        _take(found, before, tasks.Preview(read=fallen), cost)
        return
    own = part if isinstance(part, tasks.Preview) else tasks.Preview(read=executor.as_read(context, file, part))
    if file.uri not in found.rows:
        _take(found, before, own, cost)
    if own.read.same or own.read.kind in ingest.WITHHELD:
        for row in item.inside:
            found.rows.setdefault(row["uri"], row)
    for one in own.inside:
        _take(found, before, one, cost)


def _take(found: Files, rows: Mapping[str, ingest.Row], seen: tasks.Preview, cost: forecast.Cost) -> None:
    read, uri = seen.read, seen.read.seen.uri
    before = rows.get(uri)
    if read.same and before is not None:
        found.rows[uri] = before
        return
    doc_hash = read.row["doc_hash"] if read.row else None
    row = ingest.snapshot_row(
        read.seen,
        content_hash=read.content_hash,
        reader=read.reader,
        status=read.kind,
        documents=None,
        shard="",
        container=read.container,
    )
    if before is not None and doc_hash is not None and before["doc_hash"] == doc_hash:  # other bytes, the same text
        found.rows[uri] = row | {name: before[name] for name in ("doc_id", "doc_hash", "shard")}
        return
    if read.kind in ingest.PASSING:
        row = ingest.still_live(row, before)
    else:
        row |= {"doc_hash": doc_hash}
    found.rows[uri] = row
    if doc_hash is not None:
        found.fates[uri] = "changed" if before is not None else "new"
    elif read.kind != "ok":
        found.fates[uri] = read.kind
    cost.add(seen.chunks)
