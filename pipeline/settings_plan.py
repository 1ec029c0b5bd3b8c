"""What changed settings would cost: how many vectors survive, what would be read, cut and embedded again.

Found by really cutting every document with the new settings, in memory, against the vector log: nothing is written, and
no text is sent to a model. What is due anyway, because files changed, is not counted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import changes, config, dry_run, errors, forecast, live, opening, run
from pipeline.executor import Context
from pipeline.models import EmbedderSpec, resolve
from pipeline.progress import Progress
from pipeline.stages import ingest
from pipeline.store import Collection

_MODEL = ("embed.provider", "embed.model", "embed.dims", "embed.storage", "profiles.")
_SOURCE = ("source.",)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsPlan:
    """What a run with the new settings would do because of them.

    Attributes:
        changed: (key, value now, value asked for).
        documents: live now. to_read: files to be read again, or for the first time; to_drop: files that would go.
        to_chunk: documents to be cut again.
        chunks_now, chunks: before and after. surviving: chunks of the latter that have their vector.
        texts, tokens: to be embedded, equal texts once. seconds: by this machine's history with the model; None where
            there is none.
        model: that would embed. other_table: the collection would need a new table (`pipeline migrate`).
    """

    changed: tuple[tuple[str, str, str], ...]
    documents: int
    to_read: int
    to_drop: int
    to_chunk: int
    chunks_now: int
    chunks: int
    surviving: int
    texts: int
    tokens: int
    seconds: float | None
    model: str
    other_table: bool

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def plan(
    now: config.Settings, new: config.Settings, changed: Mapping[str, tuple[str, str]], progress: Progress
) -> SettingsPlan:
    """What `new` would cost where `now` holds. `changed`: dotted key → value now and then, as people write them.

    Raises:
        NoIndex: there is no collection. SourceError: files would have to be read, and their folder is not there.
        UsageError: with chunk.contextual nobody can tell. PipelineError: another model cannot be looked at.
    """
    collection = opening.collection_of(now)
    if not collection.exists or collection.embedder() is None:
        raise opening.nothing(now)
    collection.check_version()
    if new.chunk.contextual:
        raise errors.UsageError(
            "What is embedded with chunk.contextual depends on sentences that nobody has written yet.",
            "`pipeline run --dry-run` with these settings counts the calls and the chunks.",
        )
    with tempfile.TemporaryDirectory(prefix="pipeline-plan-") as folder:
        return asyncio.run(_plan(now, new, changed, collection, progress, Path(folder)))


async def _plan(
    now: config.Settings,
    new: config.Settings,
    changed: Mapping[str, tuple[str, str]],
    collection: Collection,
    progress: Progress,
    scratch: Path,
) -> SettingsPlan:
    old_spec = collection.embedder()
    assert old_spec is not None
    spec, tokenizer = await _model(new, collection, old_spec, changed, scratch)
    params = live.chunk_params(new, spec)
    cost = forecast.Cost(vectors=live.vector_log(collection, spec))
    with run.worker_pool(new) as pool:
        options = changes.reader_options(new)
        context = Context(collection=collection, settings=new, options=options, pool=pool, progress=progress)
        sources, due, dropped = _sources(now, new, collection, changed)
        found = dry_run.Files()
        if sources is not None and due:
            found = await dry_run.preview(context, sources.found.files, due, cost, params, tokenizer)
        dropped |= {row["uri"] for item in due for row in item.inside if row["uri"] not in found.rows}
        no_text = {uri for uri, row in found.rows.items() if row["doc_hash"] is None}
        shards = _untouched(collection, {*dropped, *found.fates, *no_text})
        to_chunk = await forecast.add_documents(context, params, tokenizer, shards, cost)
    before = live.of_snapshot(collection.snapshot())
    tokens = sum(cost.tokens.values())
    return SettingsPlan(
        changed=tuple((key, *values) for key, values in changed.items()),
        documents=before.documents,
        to_read=len(due),
        to_drop=len(dropped),
        to_chunk=to_chunk + sum(fate in ("new", "changed") for fate in found.fates.values()),
        chunks_now=live.count(collection, now, old_spec, before).chunks,
        chunks=cost.chunks,
        surviving=cost.surviving,
        texts=len(cost.tokens),
        tokens=tokens,
        seconds=forecast.seconds(collection, spec, tokens),
        model=spec.model,
        other_table=live.vectors_fp(spec) != live.vectors_fp(old_spec),
    )


async def _model(
    new: config.Settings,
    collection: Collection,
    old: EmbedderSpec,
    changed: Mapping[str, tuple[str, str]],
    scratch: Path,
) -> tuple[EmbedderSpec, Path | None]:
    """Who would embed, and the tokenizer to count with: a collection keeps its model unless another is asked for."""
    if not any(key.startswith(_MODEL) for key in changed):
        return old, forecast.tokenizer_of(collection, old)
    choice = await resolve.open_embedder(new, None, bulk=False)
    await choice.embedder.aclose()
    spec = dataclasses.replace(choice.embedder.spec, storage=new.embed.storage)
    if choice.tokenizer is None:
        return spec, forecast.tokenizer_of(collection, spec)
    path = scratch / "tokenizer.json"
    path.write_text(choice.tokenizer, encoding="utf-8")
    return spec, path


def _sources(
    now: config.Settings, new: config.Settings, collection: Collection, changed: Mapping[str, tuple[str, str]]
) -> tuple[changes.Scanned | None, list[ingest.Due], set[str]]:
    """The folders under the new settings; the files due, and the uris gone, because of these and not as things are."""
    snapshot = collection.snapshot()
    if snapshot is None or not any(key.startswith((*_SOURCE, "readers.")) for key in changed):
        return None, [], set()
    folders = [Path(source) for source in snapshot.sources]
    as_is, then = changes.look(now, collection, folders), changes.look(new, collection, folders)
    anyway = {item.uri: item.known_hash for item in as_is.plan.due}
    due = [item for item in then.plan.due if anyway.get(item.uri) not in (item.known_hash, "")]
    gone = {row["uri"] for row in then.plan.gone} - {row["uri"] for row in as_is.plan.gone}
    return then, due, gone


def _untouched(collection: Collection, others: set[str]) -> live.Live:
    """The live documents by shard, but those of the uris `others`."""
    snapshot = collection.snapshot()
    if snapshot is None:
        return live.NOTHING
    other = pc.is_in(snapshot.table["uri"], pa.array(sorted(others), pa.string()))
    return live.Live(snapshot.table.filter(pc.invert(other)))
