"""Check what readers see: the published table against the chunks and vectors it was made of, row by row and number by
number, and its indexes against its rows. In memory: 32 bytes a row on either side, and one shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import check_content, errors, ids, lance, lance_check, live, schema
from pipeline.findings import Seen
from pipeline.lance_rows import HASHED
from pipeline.models import EmbedderSpec
from pipeline.progress import Progress
from pipeline.stages import index as stage
from pipeline.store import Collection, Published, Snapshot

REBUILD = "built anew from chunks and vectors; nothing is embedded"
_COLUMNS = (*HASHED, "row_hash")


def table(collection: Collection, seen: Seen, progress: Progress) -> None:
    """The table that the newest publication names."""
    note = seen.published
    spec = note.spec or seen.specs.get(note.vectors_fp) if note is not None else None
    if note is None or spec is None:
        return
    name = live.table_name(spec)
    for path in lance_check.torn_manifests(collection.index_folder, name):
        what = "torn by a crash of the machine: it may block readers"
        seen.add("index", str(path.relative_to(collection.root)), what, REBUILD, act="rebuild")
    if what := lance_check.tag_fault(collection.index_folder, name, note.version):
        seen.add("index", f"index/{name}", what, "published again", act="publish")
    try:
        _look(collection, seen, note, spec, progress)
    except (errors.NoIndex, errors.StoreError, errors.IndexMismatch) as error:
        seen.add("index", f"index/{name}", error.message, REBUILD, act="rebuild")


def _look(collection: Collection, seen: Seen, note: Published, spec: EmbedderSpec, progress: Progress) -> None:
    name = live.table_name(spec)
    where = f"index/{name}"
    lance.preload()
    reader = lance_check.Inspector.inspect(collection.index_folder, name, note.version)
    if stranger := reader.provenance_fault(live.provenance(spec)):
        seen.add("index", where, stranger, REBUILD, act="rebuild")
    _compare(collection, seen, note, spec, reader, progress)
    for column, rows in reader.uncovered().items():
        if rows:
            what = f"the index on {column} does not cover {rows} rows" if rows > 0 else "the full-text index is missing"
            seen.add("index", where, what, REBUILD, act="rebuild")
    reader.try_indexes("a")


def _compare(
    collection: Collection,
    seen: Seen,
    note: Published,
    spec: EmbedderSpec,
    reader: lance_check.Inspector,
    progress: Progress,
) -> None:
    """Rows of the table against the rows that the published snapshot asks for."""
    where = f"index/{live.table_name(spec)}"
    snapshot = seen.snapshots.get(note.snapshot)
    whole = snapshot is not None and check_content.is_whole(seen, snapshot, note.chunks_fp)
    progress.start("rows", note.rows, "row")
    if snapshot is None or not whole or note.vectors_fp in seen.broken_logs:
        what = "its rows were not compared: of the snapshot, its chunks or vectors not all can be read"
        seen.add("index", where, what, "the next `pipeline run` compares them", damage=False)
        wanted, held = None, frozenset[str]()
    else:
        wanted, held = _wanted(collection, seen, snapshot, note.chunks_fp, spec)
    actual, strange = _actual(reader, spec, held, seen, progress)
    progress.finish("rows")
    if strange:
        seen.add("index", where, f"{strange} rows hold other words for full-text search", REBUILD, act="rebuild")
    if reader.count() != note.rows + note.left:
        what = f"{reader.count()} rows, but {note.rows + note.left} were published"
        seen.add("index", where, what, REBUILD, act="rebuild")
    if wanted is not None:
        _tell_difference(seen, where, wanted, actual)


def _tell_difference(seen: Seen, where: str, wanted: stage.Pairs, actual: stage.Pairs) -> None:
    wrong = _ids(np.concatenate([np.setdiff1d(wanted, actual), np.setdiff1d(actual, wanted)]))
    values, counts = np.unique(actual, return_counts=True)
    wrong |= _ids(values[counts > 1])
    if wrong:
        what = f"{len(wrong)} rows are missing, double, too many or hold something else"
        seen.add("index", where, what, "replaced; nothing is embedded", act="rows", names=frozenset(wrong))


def _actual(
    reader: lance_check.Inspector, spec: EmbedderSpec, held: frozenset[str], seen: Seen, progress: Progress
) -> tuple[stage.Pairs, int]:
    """The rows of the table but those of the uris `held`; and how many of all read other words than they hold."""
    parts, strange, passed = [_none()], 0, pa.array(sorted(held), pa.string())
    for batch in reader.batches():
        strange += lance_check.words_differ(batch)
        rows = pa.Table.from_batches([batch])
        parts.append(_digests(rows.filter(pc.invert(pc.is_in(rows["uri"], passed))), spec))
        seen.counts["rows"] += batch.num_rows
        progress.advance("rows", batch.num_rows)
    return np.concatenate(parts), strange


def _none() -> stage.Pairs:
    return np.empty(0, dtype="S32")


def _wanted(
    collection: Collection, seen: Seen, snapshot: Snapshot, chunks_fp: str, spec: EmbedderSpec
) -> tuple[stage.Pairs, frozenset[str]]:
    """The rows of a snapshot's documents; and the uris of those that wait for a vector, whose rows are left alone as
    `publish` leaves them.
    """
    vectors, given_up = live.vector_log(collection, spec), seen.given_up.get(live.vectors_fp(spec), ())
    parts, held = [_none()], set[str]()
    for shard, docs in live.of_snapshot(snapshot).items():
        documents = collection.read_documents(shard, stage.DOCUMENT_COLUMNS)
        documents = documents.filter(pc.is_in(documents["doc_id"], pa.array(sorted(docs), pa.string())))
        chunks = collection.read_chunks(chunks_fp, shard)
        rows = stage.wanted(documents, chunks.select(list(stage.CHUNK_COLUMNS)))
        there = vectors.contains(rows.keys)
        of = [str(doc) for doc in chunks["doc_id"].take(pa.array(rows.positions, pa.int64())).to_pylist()]
        waiting = {
            doc for doc, key, found in zip(of, rows.keys, there, strict=True) if not found and key not in given_up
        }
        held |= {row["uri"] for row in documents.to_pylist() if row["doc_id"] in waiting}
        rows = rows.where(there & np.array([doc not in waiting for doc in of], dtype=bool))
        made = stage.rows(documents, chunks, rows, vectors.take(rows.keys), spec.storage)
        parts.append(_digests(made, spec))
    return np.concatenate(parts), frozenset(held)


def _digests(rows: pa.Table, spec: EmbedderSpec) -> stage.Pairs:
    """chunk_id and a hash over all that a row holds, the vector to the last bit."""
    columns: list[Sequence[Any]] = [rows.column(name).to_pylist() for name in _COLUMNS]
    columns.append([ids.content_hash(vector.tobytes()) for vector in _matrix(rows, spec)])
    hashes = [ids.row_hash(row) for row in zip(*columns, strict=True)]
    return stage.pairs(schema.strings(rows["chunk_id"]), hashes)


def _matrix(rows: pa.Table, spec: EmbedderSpec) -> NDArray[Any]:
    batches = [schema.matrix(batch.column("vector"), spec.dims) for batch in rows.to_batches()]
    return np.concatenate([np.empty((0, spec.dims), dtype=np.float32), *batches])


def _ids(pairs: stage.Pairs) -> set[str]:
    """The chunk ids of `pairs`."""
    heads = np.ascontiguousarray(pairs).view("S16").reshape(-1, 2)[:, 0]
    return {bytes(head).ljust(16, b"\0").hex() for head in heads}  # numpy drops trailing zeros
