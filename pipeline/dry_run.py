"""What a run would do, found out without writing: each file's fate, and the chunks, tokens and minutes it would cost.

New and changed files are read and chunked in the workers as a run would, so the counts are exact; only nothing is kept.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from pipeline import changes, config, errors, executor, live, opening, run, tasks
from pipeline.executor import Context
from pipeline.models import EmbedderSpec, resolve
from pipeline.models import tokens as tokenizers
from pipeline.progress import Progress
from pipeline.report import Planned, Report
from pipeline.scan import File
from pipeline.stages import ingest
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection, VectorLog

HISTORY = 20  # reports looked at for a rate


class _PastRun(msgspec.Struct):
    provider: str = ""
    model: str = ""
    embedded_tokens: int = 0
    embed_seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class _Cost:
    """Keys that would be embedded, with their tokens, and the fate of each file."""

    vectors: VectorLog | None
    tokens: dict[str, int] = field(default_factory=dict)
    chunks: int = 0
    fates: list[tuple[str, str]] = field(default_factory=list)

    def add(self, chunks: list[tuple[str, int]]) -> None:
        self.chunks += len(chunks)
        keys = [key for key, _ in chunks]
        there = self.vectors.contains(keys) if self.vectors is not None else [False] * len(keys)
        self.tokens |= {key: count for (key, count), has in zip(chunks, there, strict=True) if not has}


def plan(settings: config.Settings, request: run.Request, progress: Progress) -> Report:
    """Say what `run.execute` would do with the same arguments. Writes nothing, takes no lock."""
    return asyncio.run(_plan(settings, request, opening.collection_of(settings), progress))


async def _spec(settings: config.Settings, collection: Collection) -> tuple[EmbedderSpec, str]:
    """Who would embed, and the line that would be said about it."""
    recorded = collection.embedder() if collection.exists else None
    if recorded is not None:
        return recorded, ""
    choice = await resolve.open_embedder(settings, None, bulk=False)
    await choice.embedder.aclose()
    return choice.embedder.spec, choice.note


async def _plan(settings: config.Settings, request: run.Request, collection: Collection, progress: Progress) -> Report:
    spec, note = await _spec(settings, collection)
    new = not (collection.exists and collection.embedder() is not None)
    params = live.chunk_params(settings, spec)
    cost = _Cost(vectors=None if new else live.vector_log(collection, spec))
    files: dict[str, int] = {}
    snapshot = collection.snapshot() if collection.exists else None
    pending = live.of_snapshot(snapshot)
    if "ingest" in request.stages:
        scanned = changes.look(settings, collection, request.folders, retry=request.retry)
        with run.worker_pool(settings) as pool:
            context = Context(
                collection=collection,
                settings=settings,
                options=changes.reader_options(settings),
                pool=pool,
                progress=progress,
            )
            rows = await _preview(context, scanned, cost, params, _tokenizer(collection, spec))
        rows |= {row["uri"]: row for row in scanned.plan.keep}
        files = ingest.fates(scanned.plan, rows)
        cost.fates += [(row["uri"], "deleted") for row in scanned.plan.gone]
        pending = live.of_rows(rows.values())
    if not new:
        _pending(collection, params.fingerprint(), pending, cost)
    tokens = sum(cost.tokens.values())
    planned = Planned(
        chunks=len(cost.tokens),
        tokens=tokens,
        seconds=_estimate(collection, spec, tokens),
        fates=tuple(sorted(cost.fates)),
    )
    return Report(
        collection=collection.name,
        stages=tuple(stage for stage in run.STAGES if stage in request.stages),
        provider=spec.provider,
        model=spec.model,
        dims=spec.dims,
        files=files,
        chunks=cost.chunks,
        reused=cost.chunks - len(cost.tokens),
        snapshot=snapshot.number if snapshot else 0,
        dry_run=True,
        notes=(note,) if note else (),
        planned=planned,
    )


def _tokenizer(collection: Collection, spec: EmbedderSpec) -> Path | None:
    """The tokenizer that is there already; a new collection's model may need one that only a run would keep."""
    path = live.tokenizer_path(collection, spec) if collection.exists else None
    if path is None and spec.tokenizer != tokenizers.builtin().identity:
        raise errors.UsageError(
            f"A dry run cannot count the tokens of {spec.model} before its tokenizer is kept.",
            "Run `pipeline ingest DOCS` and `pipeline chunk` first: they embed nothing.",
        )
    return path


async def _preview(
    context: Context, scanned: changes.Scanned, cost: _Cost, params: ChunkParams, tokenizer: Path | None
) -> dict[str, ingest.Row]:
    """Read and chunk the due files; returns rows enough for `ingest.fates`."""
    files, due = scanned.found.files, scanned.plan.due
    rows: dict[str, ingest.Row] = {}
    context.progress.start("files", len(due), "file")

    def submit(item: ingest.Due) -> asyncio.Future[tasks.Preview]:
        file = files[item.index]
        future = context.pool.submit(
            "pipeline.tasks:preview",
            file.path,
            executor.seen(file),
            context.options,
            item.known_hash,
            params,
            tokenizer,
            timeout_s=2 * executor.read_timeout_s(context.settings, file.size),
        )
        return asyncio.wrap_future(future)

    async with aclosing(executor.ordered(due, submit)) as results:
        async for item, result in results:
            context.progress.advance("files")
            rows[files[item.index].uri] = _row(context, files[item.index], item, result, cost)
    context.progress.finish("files")
    return rows


def _row(
    context: Context, file: File, item: ingest.Due, result: tasks.Preview | errors.WorkerError, cost: _Cost
) -> ingest.Row:
    preview = (
        result if isinstance(result, tasks.Preview) else tasks.Preview(read=executor.as_read(context, file, result))
    )
    read, before = preview.read, item.previous
    if read.same and before is not None:
        return before
    doc_hash = read.row["doc_hash"] if read.row else None
    same = before is not None and doc_hash is not None and before["doc_hash"] == doc_hash
    if not same:
        cost.add(list(preview.chunks))
        fate = read.kind if read.row is None else "changed" if before is not None else "new"
        cost.fates.append((file.uri, fate))
    row = ingest.snapshot_row(
        read.seen, content_hash=read.content_hash, reader=read.reader, status=read.kind, documents=None, shard=""
    )
    kept = {"doc_id": before["doc_id"], "shard": before["shard"]} if same and before is not None else {}
    return row | {"doc_hash": doc_hash} | kept


def _pending(collection: Collection, chunks_fp: str, shards: live.Live, cost: _Cost) -> None:
    """Add what earlier runs left to embed."""
    for shard, docs in shards.items():
        if collection.has_chunks(chunks_fp, shard):
            table = collection.read_chunks(chunks_fp, shard, ["doc_id", "embed_key", "tokens"])
            cost.add([(row["embed_key"], row["tokens"]) for row in table.to_pylist() if row["doc_id"] in docs])


def _estimate(collection: Collection, spec: EmbedderSpec, tokens: int) -> float | None:
    """Seconds to embed `tokens`, by the rate of past runs here with this model."""
    if not collection.exists:
        return None
    past = [msgspec.json.decode(data, type=_PastRun) for data in collection.newest_reports(HISTORY)]
    alike = [p for p in past if (p.provider, p.model) == (spec.provider, spec.model) and p.embedded_tokens]
    seconds = sum(p.embed_seconds for p in alike)
    return tokens * seconds / sum(p.embedded_tokens for p in alike) if seconds else None
