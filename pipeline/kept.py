"""Which generations of a collection are kept, and what each of them needs: `history` and `rollback` live from it, `gc`
spares it.

A generation is a snapshot that was published. Its number is the snapshot's, so that a number names one set of files,
cut and embedded in one way: where a snapshot is published once more with another model or other chunks, it gets a copy
with a number of its own (publish.py).

Reads notes and snapshots; removes only records of what is no longer kept, never documents, chunks or vectors.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import config, live
from pipeline.models import EmbedderSpec
from pipeline.store import Collection, Migration, Published, keys
from pipeline.store.keys import Keys

HOUR_MS = 3_600_000
# Each publication writes a table of less than a million rows anew (LanceDB joins small fragments with large ones), so a
# folder that is watched could fill the disk within the hour. A question takes seconds.
MOST_VERSIONS = 4
LEAST_H = 1 / 60  # so long a version stays after it was replaced, however many came after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """A published snapshot that is kept. `published`: it is what readers see."""

    number: int
    note: Published
    published: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """One reason to keep files: the live documents of a snapshot, cut as `chunks_fp` and embedded as `vectors_fp`."""

    snapshot: int
    chunks_fp: str
    vectors_fp: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Referenced:
    """What must stay; everything else of these kinds is garbage.

    Attributes:
        snapshots: numbers.
        documents: shard → the documents in it that are live in a snapshot that is kept.
        chunks: chunk fingerprint → shards, of which only these documents' chunks are needed.
        vectors: embedding fingerprints; which keys of each is what `needed_keys` says.
        tables: names of the index's tables.
        tokenizers: identities; authors: who wrote sentences before their chunks.
    """

    uses: tuple[Use, ...]
    snapshots: frozenset[int]
    documents: Mapping[str, frozenset[str]]
    chunks: Mapping[str, frozenset[str]]
    vectors: frozenset[str]
    tables: frozenset[str]
    tokenizers: frozenset[str]
    authors: frozenset[str]


def generations(collection: Collection, keep: int) -> list[Generation]:
    """The newest `keep` generations, oldest first; the published one is always the last."""
    there = set(collection.snapshots())
    newest: dict[int, Published] = {}
    for _, note in collection.publications.all():
        newest.pop(note.snapshot, None)  # so that the order is that of the last publication
        newest[note.snapshot] = note
    known = [(number, note) for number, note in newest.items() if number in there][-keep:]
    last = next(reversed(newest), 0)
    return [Generation(number=number, note=note, published=number == last) for number, note in known]


def under_way(collection: Collection) -> Migration | None:
    """The change of model that has begun and is neither promoted nor given up."""
    found, note = collection.migrations.newest(), collection.published()
    if found is None or found.state != "building":
        return None
    # Killed between the publication, which is the commit point, and the record of it:
    promoted = note is not None and note.vectors_fp == live.vectors_fp(found.spec)
    return None if promoted else found


def referenced(collection: Collection, settings: config.Settings) -> Referenced:
    """What the kept generations, the newest snapshot and a migration under way need.

    Ask under the collection's lock: what a run is making is referenced only when it is finished.
    """
    notes = [generation.note for generation in generations(collection, settings.run.keep)]
    moving = under_way(collection)
    chosen = [spec for spec in (collection.embedder(), moving.spec if moving else None) if spec is not None]
    specs = [*chosen, *(note.spec for note in notes if note.spec is not None)]
    uses = tuple(dict.fromkeys([*map(_use, notes), *_newest(collection, settings, chosen)]))
    numbers = {use.snapshot for use in uses} | set(collection.snapshots()[-1:])
    documents: defaultdict[str, set[str]] = defaultdict(set)
    for shards in map(collection.snapshot, numbers):
        for shard, docs in live.of_snapshot(shards).items():
            documents[shard] |= docs
    return Referenced(
        uses=uses,
        snapshots=frozenset(numbers),
        documents={shard: frozenset(docs) for shard, docs in documents.items()},
        chunks=_chunks(collection, uses),
        vectors=frozenset(use.vectors_fp for use in uses),
        tables=frozenset(live.table_name(spec) for spec in specs),
        tokenizers=frozenset(spec.tokenizer for spec in specs),
        authors=frozenset(spec.situated_by for spec in specs),
    )


def _use(note: Published) -> Use:
    return Use(snapshot=note.snapshot, chunks_fp=note.chunks_fp, vectors_fp=note.vectors_fp)


def _newest(collection: Collection, settings: config.Settings, specs: Sequence[EmbedderSpec]) -> list[Use]:
    """What the next run, or the next night of a migration, goes on with."""
    found, note = collection.snapshots()[-1:], collection.published()
    uses = [
        Use(
            snapshot=number, chunks_fp=live.chunk_params(settings, spec).fingerprint(), vectors_fp=live.vectors_fp(spec)
        )
        for number in found
        for spec in specs
    ]
    if note is not None and not note.snapshot:  # a record older than the field: of some snapshot that is gone
        uses += [Use(snapshot=number, chunks_fp=note.chunks_fp, vectors_fp=note.vectors_fp) for number in found]
    return uses


def _chunks(collection: Collection, uses: Sequence[Use]) -> dict[str, frozenset[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for use in uses:
        found[use.chunks_fp] |= live.of_snapshot(collection.snapshot(use.snapshot)).keys()
    return {chunks_fp: frozenset(shards) for chunks_fp, shards in found.items()}


def needed_keys(collection: Collection, found: Referenced, vectors_fp: str) -> Keys:
    """The keys of the log `vectors_fp` whose vectors must stay: sorted, each once, 16 bytes each."""
    parts = [keys.empty()]
    for use in found.uses:
        if use.vectors_fp == vectors_fp:
            shards = live.of_snapshot(collection.snapshot(use.snapshot))
            parts += [_keys_of(collection, use.chunks_fp, shard, docs) for shard, docs in shards.items()]
            parts = [np.unique(np.concatenate(parts))]
    return parts[0]


def _keys_of(collection: Collection, chunks_fp: str, shard: str, docs: frozenset[str]) -> Keys:
    if not collection.has_chunks(chunks_fp, shard):
        return keys.empty()
    return live.keys_of(collection, chunks_fp, shard, docs)


def lacking(collection: Collection, generation: Generation) -> str:
    """What is missing for this generation to be published again; "": nothing."""
    note, snapshot = generation.note, collection.snapshot(generation.number)
    if note.spec is None or snapshot is None:
        return "who embedded it was not recorded"
    shards = live.of_snapshot(snapshot)
    if lost := sum(not collection.has_documents(shard) for shard in shards):
        return f"{lost} of its {len(shards)} document shards"
    uncut = sum(not collection.has_chunks(note.chunks_fp, shard) for shard in shards)
    if uncut and note.is_whole:
        return f"the chunks of {uncut} of its {len(shards)} document shards"
    log, rows = live.vector_log(collection, note.spec), 0
    for shard, docs in shards.items():
        rows += int(log.has(_keys_of(collection, note.chunks_fp, shard, docs)).sum())
    return f"{note.rows - rows} of its {note.rows} vectors" if rows < note.rows else ""


def trim(collection: Collection, keep: int, versions_h: float) -> None:
    """Forget the records of generations beyond the newest `keep`, under the lock.

    The note that was in force `versions_h` hours ago and those after it stay: they say which versions of a table may
    still be read (`oldest_version`).
    """
    kept = {generation.number: generation.note for generation in generations(collection, keep)}
    notes, since_ms = collection.publications.all(), _ago_ms(versions_h)
    young = {number for number, note in notes if note.at_ms >= since_ms}
    young |= {max((number for number, note in notes if note.at_ms < since_ms), default=0)}
    gone = [number for number, note in notes if number not in young and kept.get(note.snapshot) != note]
    collection.drop_snapshots({note.snapshot for _, note in notes} - kept.keys())
    collection.publications.drop(gone)


def oldest_version(collection: Collection, vectors_fp: str, versions_h: float) -> int:
    """The oldest version of this table that a question may still be reading: in force less than `versions_h` hours ago,
    and of those that were replaced more than LEAST_H hours ago one of the last MOST_VERSIONS. 0: none was published.
    """
    since_ms, least_ms, mine = _ago_ms(versions_h), _ago_ms(LEAST_H), list[int]()
    for _, note in reversed(collection.publications.all()):
        if note.vectors_fp == vectors_fp:
            mine.append(note.version)
        if note.at_ms < since_ms or (len(mine) >= MOST_VERSIONS and note.at_ms < least_ms):
            break
    return mine[-1] if mine else 0


def _ago_ms(hours: float) -> float:
    return time.time() * 1000 - hours * HOUR_MS
