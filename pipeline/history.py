"""The generations of a collection: which are kept, and what differs between two of them. Takes no lock, changes
nothing, asks no model server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import config, difference, errors, kept, live, opening
from pipeline.difference import Amounts, Files
from pipeline.kept import Generation
from pipeline.models import EmbedderSpec
from pipeline.store import Collection, Published, Snapshot, keys
from pipeline.store.keys import Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One generation as `history` shows it.

    Attributes:
        at_ms: when it was published, Unix time.
        files: against the generation before it; None for the oldest one that is kept.
        remarks: what else set it apart: another model, other chunks, a rollback.
    """

    number: int
    at_ms: int
    published: bool
    documents: int
    chunks: int
    vectors: int
    provider: str
    model: str
    dims: int
    rollback_of: int
    files: Files | None
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        plain = dataclasses.asdict(self)
        return plain | {"files": self.files.counts() if self.files is not None else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`before` and `after`: numbers of snapshots. `texts`: distinct texts to embed; `chunks`: rows of the index."""

    before: int
    after: int
    files: Files
    chunks: Amounts
    texts: Amounts
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def entries(settings: config.Settings) -> list[Entry]:
    """What is kept, oldest first; the last one is published.

    Raises:
        NoIndex: there is no collection, or nothing was published in it.
    """
    collection = opened(settings)
    found: list[Entry] = []
    before: tuple[Generation, Snapshot] | None = None
    for generation in kept.generations(collection, settings.run.keep):
        snapshot = collection.snapshot(generation.number)
        if snapshot is not None:  # it was dropped while we looked
            found.append(_entry(generation, snapshot, before))
            before = generation, snapshot
    return found


def _entry(generation: Generation, snapshot: Snapshot, before: tuple[Generation, Snapshot] | None) -> Entry:
    note = generation.note
    return Entry(
        number=generation.number,
        at_ms=note.at_ms,
        published=generation.published,
        documents=note.documents,
        chunks=note.chunks,
        vectors=note.rows,
        provider=note.spec.provider if note.spec else "",
        model=note.spec.model if note.spec else "",
        dims=note.spec.dims if note.spec else 0,
        rollback_of=note.rollback_of,
        files=difference.files(before[1].table, snapshot.table) if before else None,
        remarks=remarks(before[0].note if before else None, note),
    )


def remarks(before: Published | None, note: Published) -> tuple[str, ...]:
    """What sets a publication apart from the one before, besides its files."""
    said = [f"rollback to {note.rollback_of}"] if note.rollback_of else []
    if before is not None and note.vectors_fp != before.vectors_fp:
        said.append(_change(before.spec, note.spec))
    elif before is not None and note.chunks_fp != before.chunks_fp:
        said.append("cut into other chunks")
    if note.rows < note.chunks:
        said.append(f"{note.chunks - note.rows} chunks without a vector")
    return tuple(said)


def _change(before: EmbedderSpec | None, now: EmbedderSpec | None) -> str:
    if before is None or now is None:
        return "another embedding model"
    if before.model != now.model:
        return f"{now.model} instead of {before.model}"
    return f"{now.model} otherwise: {now.dims} dimensions as {now.storage}, before {before.dims} as {before.storage}"


def compare(settings: config.Settings, before: int | None = None, after: int | None = None) -> Difference:
    """What differs between two generations that are kept.

    Args:
        after: left out: the published one. before: left out: the one before `after`.

    Raises:
        NoIndex: nothing was published. UsageError: a number is not kept, or there is none before.
    """
    collection = opened(settings)
    found = kept.generations(collection, settings.run.keep)
    second = found[-1] if after is None else pick(found, after)
    first = _left(found, second) if before is None else pick(found, before)
    tables = [_snapshot(collection, generation) for generation in (first, second)]
    sides = [
        _Side(collection, generation, snapshot) for generation, snapshot in zip((first, second), tables, strict=True)
    ]
    return Difference(
        before=first.number,
        after=second.number,
        files=difference.files(tables[0].table, tables[1].table),
        chunks=difference.amounts(sides[0].chunks, sides[1].chunks),
        texts=difference.amounts(sides[0].texts, sides[1].texts),
        remarks=remarks(first.note, second.note),
    )


def _left(found: Sequence[Generation], generation: Generation) -> Generation:
    """What was published until this one was."""
    place = found.index(generation)
    return found[place - 1] if place else previous(found, generation)


class _Side:
    """The ids of the chunks of a generation, and the keys of their texts, shard by shard: 32 bytes a chunk."""

    def __init__(self, collection: Collection, generation: Generation, snapshot: Snapshot) -> None:
        self.chunks: list[Keys] = []
        self.texts: list[Keys] = []
        chunks_fp = generation.note.chunks_fp
        for shard, docs in live.of_snapshot(snapshot).items():
            if collection.has_chunks(chunks_fp, shard):
                table = collection.read_chunks(chunks_fp, shard, ["doc_id", "chunk_id", "embed_key"])
                table = table.filter(pc.is_in(table["doc_id"], pa.array(sorted(docs), pa.string())))
                self.chunks.append(keys.of_column(table["chunk_id"]))
                self.texts.append(keys.of_column(table["embed_key"]))


def pick(found: Sequence[Generation], number: int) -> Generation:
    """The generation of this number.

    Raises:
        UsageError: it is not kept.
    """
    for generation in found:
        if generation.number == number:
            return generation
    raise errors.UsageError(
        f"Snapshot {number} is not kept; these are: {', '.join(str(generation.number) for generation in found)}.",
        "See them: pipeline history (run.keep says how many are kept).",
    )


def previous(found: Sequence[Generation], generation: Generation) -> Generation:
    """The generation before this one. What is before a rollback is what was before the one that it shows again: a
    second rollback goes further back, and does not undo the first.

    Raises:
        UsageError: there is none.
    """
    by_number = {one.number: one for one in found}
    shown = generation.number
    while shown in by_number and by_number[shown].note.rollback_of:
        shown = by_number[shown].note.rollback_of
    earlier = [one for one in found if one.number < shown]
    if not earlier:
        raise errors.UsageError(
            f"No snapshot from before {shown} is kept.", "See which are: pipeline history (run.keep says how many)."
        )
    return earlier[-1]


def _snapshot(collection: Collection, generation: Generation) -> Snapshot:
    found = collection.snapshot(generation.number)
    if found is None:
        raise errors.CorruptStore(
            f"Snapshot {generation.number} was dropped while it was to be read.", "Run the same command again."
        )
    return found


def opened(settings: config.Settings) -> Collection:
    """The collection, which has generations.

    Raises:
        NoIndex: it has none.
    """
    collection = opening.collection_of(settings)
    if not collection.exists:
        raise opening.nothing(settings)
    collection.check_version()
    if not kept.generations(collection, settings.run.keep):
        raise errors.NoIndex(
            f"Nothing is published in collection {settings.collection!r} that is kept by number.",
            "Run `pipeline run DOCS`: from then on each publication is.",
        )
    return collection
