"""Check documents, chunks and vectors row by row: every checksum, every hash that a name or a key promises, every
vector's length. One shard, one row group in memory at a time, and 16 bytes for each key.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import config, errors, ids, live, schema
from pipeline.check_records import relative
from pipeline.findings import NEXT_RUN, Seen, fault
from pipeline.models.templates import embed_text
from pipeline.progress import Progress
from pipeline.store import Collection, Snapshot, files, keys, prune
from pipeline.store.inventory import Inventory
from pipeline.store.keys import Keys, KeySet

Row = Mapping[str, Any]
_LOST = "dropped; what the search table still has is copied back, the next `pipeline run` embeds the rest"
Use = tuple[int, str, str]  # snapshot, chunk fingerprint, embedding fingerprint


def uses(settings: config.Settings, seen: Seen) -> list[Use]:
    """What must be there: every published snapshot as it was published, then the newest as the next run wants it."""
    found = {note.snapshot: (note.snapshot, note.chunks_fp, note.vectors_fp) for note in seen.notes.values()}
    known = [use for number, use in found.items() if number in seen.snapshots]
    if seen.newest is not None and seen.embedder is not None:
        chunks_fp = live.chunk_params(settings, seen.embedder).fingerprint()
        known.append((seen.newest.number, chunks_fp, live.vectors_fp(seen.embedder)))
    return list(dict.fromkeys(known))


# -- documents and chunks


def shards(collection: Collection, settings: config.Settings, seen: Seen, progress: Progress) -> None:
    """Each document shard that a snapshot names, and every chunk file of it."""
    inventory = Inventory(collection)
    there, chunkings = inventory.documents(), inventory.chunkings()
    members = _members(seen)
    wanted = {(chunks_fp, shard) for number, chunks_fp, _ in uses(settings, seen) for shard in _live(seen, number)}
    seen.missing_chunks = {(fp, shard) for fp, shard in wanted if shard not in chunkings.get(fp, {})}
    progress.start("checked", len(members), "shard")
    for shard, docs in members.items():
        table = _documents(collection, seen, shard, there.get(shard), docs)
        for chunks_fp, found in chunkings.items():
            if shard in found:
                _chunks(collection, seen, chunks_fp, shard, found[shard], table)
        progress.advance("checked")
    progress.finish("checked")


def _live(seen: Seen, number: int) -> live.Live:
    return live.of_snapshot(seen.snapshots.get(number))


def _members(seen: Seen) -> dict[str, dict[str, str]]:
    """shard → doc_id → doc_hash, as the snapshots say."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for snapshot in seen.snapshots.values():
        for row in snapshot.table.select(["shard", "doc_id", "doc_hash"]).to_pylist():
            if row["shard"] is not None:
                found[row["shard"]][row["doc_id"]] = row["doc_hash"]
    return dict(found)


def _documents(
    collection: Collection, seen: Seen, shard: str, path: Path | None, members: Mapping[str, str]
) -> dict[str, Row] | None:
    """The documents of a shard by id; None where it is missing or damaged."""
    mends = "dropped; the next `pipeline run` reads its files again and embeds nothing"
    what, rows = "missing", list[dict[str, Any]]()
    if path is not None:
        try:
            rows = collection.read_documents(shard).to_pylist()
            what = _document_fault(shard, rows, members)
        except errors.StoreError as error:
            what = fault(error, path)
    seen.counts["documents"] += len(rows)
    if not what:
        return {row["doc_id"]: row for row in rows}
    seen.broken_shards.add(shard)
    where = relative(collection, path) if path is not None else f"document shard {shard}"
    paths = () if path is None else (path,)
    seen.add("documents", where, what, mends, act="forget", paths=paths, names=frozenset({shard}))
    return None


def _document_fault(shard: str, rows: Sequence[Row], members: Mapping[str, str]) -> str:
    """What is wrong with a shard's rows; "" for nothing."""
    if ids.shard_name(row["doc_hash"] for row in rows) != shard:
        return "its documents are not those that its name says"
    for row in rows:
        if ids.doc_id(row["uri"], row["text"]) != row["doc_id"]:
            return f"the text of {row['uri']} is not the one that was read"
        ends = [0, *(block["end"] for block in row["blocks"])]
        starts = [*(block["start"] for block in row["blocks"]), len(row["text"])]
        if any(end > start for end, start in zip(ends, starts, strict=True)):
            return f"the blocks of {row['uri']} do not fit its text"
    there = {row["doc_id"]: row["doc_hash"] for row in rows}
    if any(there.get(doc) != doc_hash for doc, doc_hash in members.items()):
        return "a snapshot names a document that is not in it"
    return ""


def _chunks(
    collection: Collection, seen: Seen, chunks_fp: str, shard: str, path: Path, documents: Mapping[str, Row] | None
) -> None:
    try:
        rows = collection.read_chunks(chunks_fp, shard).to_pylist()
        what = _chunk_fault(rows, documents, seen) if documents is not None else ""
    except errors.StoreError as error:
        rows, what = [], fault(error, path)
    seen.counts["chunks"] += len(rows)
    if what:
        seen.broken_chunks.add((chunks_fp, shard))
        mends = "dropped; the next `pipeline run` cuts it again and embeds nothing"
        seen.add("chunks", relative(collection, path), what, mends, act="drop", paths=(path,))


def _chunk_fault(rows: Sequence[Row], documents: Mapping[str, Row], seen: Seen) -> str:
    """What is wrong with a chunk file; "" for nothing. One of the recorded embedders' templates must fit all of it."""
    for row in rows:
        document = documents.get(row["doc_id"])
        if document is None:
            return f"chunk {row['chunk_id']} is of a document that is not in its shard"
        if document["text"][row["start"] : row["end"]] != row["text"]:
            return f"the text of chunk {row['chunk_id']} is not that of {document['uri']}"
        if ids.chunk_id(row["doc_id"], row["start"], row["end"]) != row["chunk_id"]:
            return f"chunk {row['chunk_id']} does not stand where its id says"
    templates = {spec.document_template for spec in seen.specs.values()} or {"{text}"}
    if not any(all(_key(row, template) == row["embed_key"] for row in rows) for template in sorted(templates)):
        return "an embed_key is not the hash of its text"
    return ""


def _key(row: Row, template: str) -> str:
    return ids.embed_key(embed_text(row["context"], row["text"], row["title"], template))


# -- vectors


def logs(collection: Collection, seen: Seen, progress: Progress) -> None:
    """Every part of every log: readable, made by whom its folder says, its vectors finite and of length 1."""
    for vectors_fp, parts in Inventory(collection).logs().items():
        progress.start("vectors", None, "vector")
        good = seen.keys[vectors_fp] = KeySet()
        for part in parts:
            before = len(seen.findings)
            _part(collection, seen, vectors_fp, part, good, progress)
            if len(seen.findings) > before:
                seen.broken_logs.add(vectors_fp)
    progress.finish("vectors")


def _part(collection: Collection, seen: Seen, vectors_fp: str, part: Path, good: KeySet, progress: Progress) -> None:
    where = relative(collection, part)
    try:
        expected = prune.layout(part)
        stranger = _provenance(seen, vectors_fp, files.parquet_metadata(part), expected)
    except errors.StoreError as error:
        seen.add("vectors", where, fault(error, part), _LOST, act="drop", paths=(part,))
        return
    if stranger:
        seen.add("vectors", where, stranger, _LOST, act="drop", paths=(part,))
        return
    unreadable = wrong = 0
    for batch in prune.readable(part, expected):
        if batch is None:
            unreadable += 1
            continue
        bad = prune.faults(batch, expected)
        wrong += int(bad.sum())
        good.add(keys.of_column(batch.column("embed_key"))[~bad])
        seen.counts["vectors"] += batch.num_rows
        progress.advance("vectors", batch.num_rows)
    told = [f"{unreadable} row groups are damaged"] if unreadable else []
    told += [f"{wrong} vectors are not finite or not of length 1"] if wrong else []
    if told:
        what = " and ".join(told)
        seen.add("vectors", where, what, f"the rest is kept; {_LOST}", act="salvage", paths=(part,))


def _provenance(seen: Seen, vectors_fp: str, found: Mapping[str, str], expected: pa.Schema) -> str:
    """Why a part cannot belong where it lies; "" where it can."""
    spec = seen.specs.get(vectors_fp)
    if spec is None:
        return ""
    if expected != schema.vectors(spec.dims, spec.storage):
        return f"its vectors are not {spec.dims} numbers of {spec.storage}"
    for key, value in live.provenance(spec).items():
        if found.get(key, value) != value:
            return f"made with {key} {found[key]!r}, not {value!r}"
    return ""


# -- what lacks what


def needed(collection: Collection, seen: Seen, use: Use) -> Iterator[Keys]:
    """The keys that a use needs, shard by shard, as far as its chunks can be read."""
    number, chunks_fp, _ = use
    for shard, docs in _live(seen, number).items():
        if (chunks_fp, shard) not in seen.broken_chunks | seen.missing_chunks:
            yield live.keys_of(collection, chunks_fp, shard, docs)


def lacking(collection: Collection, seen: Seen, use: Use) -> Keys:
    """Of these, the keys without a vector that were not given up, each once."""
    good, found = seen.keys.get(use[2], KeySet()), KeySet()
    found.add(keys.packed(sorted(seen.given_up.get(use[2], ()))))
    parts = [keys.empty()]
    for wanted in needed(collection, seen, use):
        wanted = wanted[~good.contains(wanted)]
        parts.append(wanted[found.add(wanted)])
    return np.concatenate(parts)


def generations(collection: Collection, settings: config.Settings, seen: Seen) -> None:
    """Whether each kept generation could still be shown, and what the next run has to do for the newest."""
    wanted = uses(settings, seen)
    newest = seen.newest
    if newest is None or seen.embedder is None:
        return
    next_run = (newest.number, live.chunk_params(settings, seen.embedder).fingerprint(), live.vectors_fp(seen.embedder))
    ahead = lacking(collection, seen, next_run)
    seen.due = len(ahead)
    if len(ahead) or any((next_run[1], shard) in seen.missing_chunks for shard in _live(seen, newest.number)):
        what = f"{len(ahead)} texts have no vector yet" if len(ahead) else "not everything is chunked yet"
        seen.add("pending", f"snapshot {newest.number}", what, NEXT_RUN, damage=False)
    coming = KeySet()
    coming.add(ahead)
    for use in wanted:
        if use[0] != newest.number:
            _generation(collection, seen, use, next_run, coming)


def _generation(collection: Collection, seen: Seen, use: Use, next_run: Use, coming: KeySet) -> None:
    """An older generation: what the next run does not make for the newest, nobody makes for it."""
    number, chunks_fp, vectors_fp = use
    shards_ = _live(seen, number)
    again = _live(seen, next_run[0]).keys() if chunks_fp == next_run[1] else set[str]()
    gone = sum((chunks_fp, s) in seen.broken_chunks | seen.missing_chunks and s not in again for s in shards_)
    lost = seen.broken_shards & shards_.keys()
    missing = lacking(collection, seen, use)
    if vectors_fp == next_run[2]:
        missing = missing[~coming.contains(missing)]
    note = next(note for _, note in sorted(seen.notes.items(), reverse=True) if note.snapshot == number)
    if gone or lost or (len(missing) and not note.held):
        what = f"cannot be shown again: {len(missing)} vectors, {gone} chunk files, {len(lost)} document shards missing"
        seen.add("generation", f"snapshot {number}", what, "`rollback` refuses it; the others are whole", damage=False)


def is_whole(seen: Seen, snapshot: Snapshot, chunks_fp: str) -> bool:
    """Whether documents and chunks of a snapshot can all be read."""
    missing = seen.broken_chunks | seen.missing_chunks
    return not any(s in seen.broken_shards or (chunks_fp, s) in missing for s in live.of_snapshot(snapshot))
