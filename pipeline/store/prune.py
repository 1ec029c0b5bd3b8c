"""Upkeep of a vector log's parts, one at a time and a row group in memory: copy, prune, salvage.

A part is never changed: what is kept of it is written as a new one, and only when that is durable does the old one go.
A kill between the two leaves both, and two equal keys are harmless. Knows Parquet parts and keys; not whose keys are
wanted, nor who made the vectors.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import errors, schema
from pipeline.store import files, keys
from pipeline.store.keys import KeySet, Mask
from pipeline.store.vectors import ROW_GROUP

NORM_TOLERANCE = {"float32": 1e-3, "float16": 2e-3}  # the gate's own, and as much again for rounding to half precision


def prune(parts: Sequence[Path], temporary: Path, wanted: KeySet, *, dry: bool = False) -> int:
    """Drop the rows whose key is not in `wanted`, and doubles; returns how many. In memory: 16 bytes a key and one row
    group. `dry`: only count.
    """
    seen, rows = KeySet(), 0
    for part in parts:
        found = keys.of_column(files.read_parquet(part, _KEYS, ["embed_key"]).column(0))
        alive = wanted.contains(found)
        alive[alive] = seen.add(found[alive])
        dead = len(found) - int(alive.sum())
        if len(found) and not dead:
            continue
        rows += dead
        if not dry:
            replace(part, temporary, _where(part, alive) if alive.any() else None)
    return rows


_KEYS = pa.schema([pa.field("embed_key", pa.string(), nullable=False)])


def layout(part: Path) -> pa.Schema:
    """The schema of a part: its vectors' length and number type are written in it.

    Raises:
        CorruptStore: it cannot be read, or is no part of a vector log.
    """
    with files.disk_errors(part):
        found = pq.read_schema(part)
    kind: Any = found.field("vector").type if found.names == ["embed_key", "vector"] else None
    if kind is None or not pa.types.is_fixed_size_list(kind) or str(kind.value_type) not in _STORAGE:
        raise errors.CorruptStore(f"{part} is not a part of a vector log: columns {found.names}", errors.MEND)
    return schema.vectors(int(kind.list_size), _STORAGE[str(kind.value_type)])


_STORAGE = {"float": "float32", "halffloat": "float16"}


def storage_of(expected: pa.Schema) -> str:
    kind: Any = expected.field("vector").type
    return _STORAGE[str(kind.value_type)]


def _where(part: Path, alive: Mask) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in files.read_batches(part, layout(part), ROW_GROUP):
        yield batch.filter(pa.array(alive[start : start + batch.num_rows]))
        start += batch.num_rows


def replace(part: Path, temporary: Path, batches: Iterable[pa.RecordBatch] | None) -> None:
    """Put a new part with these rows in the place of `part`, in its order among the others; None: no part at all."""
    if batches is not None:
        name = f"{part.stem.split('-')[0]}-{secrets.token_hex(4)}.parquet"
        files.write_batches(
            temporary,
            part.with_name(name),
            batches,
            layout(part),
            metadata=files.parquet_metadata(part),
            row_group=ROW_GROUP,
        )
    with files.disk_errors(part):
        part.unlink()
        files.fsync_folder(part.parent)


def faults(batch: pa.RecordBatch, expected: pa.Schema) -> Mask:
    """Which rows hold what no embedder makes: NaN, infinity, zeros, a length other than 1."""
    kind: Any = expected.field("vector").type
    matrix = schema.matrix(batch.column("vector"), int(kind.list_size))
    with np.errstate(invalid="ignore", over="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
        good = np.abs(norms - 1) <= NORM_TOLERANCE[storage_of(expected)]
    wrong: Mask = ~(good & np.isfinite(norms))
    return wrong


def readable(part: Path, expected: pa.Schema) -> Iterator[pa.RecordBatch | None]:
    """The row groups of a part one by one, each checked by its checksums; None for one that cannot be read.

    Raises:
        CorruptStore: not even the footer can be read.
    """
    with files.disk_errors(part), pq.ParquetFile(part, page_checksum_verification=True) as file:
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group).replace_schema_metadata(None)
                keys.of_column(table["embed_key"])
                yield from schema.check(table, expected, str(part)).combine_chunks().to_batches()
            except (OSError, pa.ArrowException, errors.CorruptStore):
                yield None


def salvage(part: Path, temporary: Path, expected: pa.Schema) -> int:
    """Keep of a damaged part what can be read and believed; returns how many rows that is."""
    kept = 0

    def good() -> Iterator[pa.RecordBatch]:
        nonlocal kept
        for batch in readable(part, expected):
            if batch is not None:
                sound = batch.filter(pa.array(~faults(batch, expected)))
                kept += sound.num_rows
                yield sound

    replace(part, temporary, good())
    return kept
