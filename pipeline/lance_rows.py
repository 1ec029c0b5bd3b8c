"""A row of the index as Arrow knows it: its schema, what is hashed and checked in it, and who made its vectors.

Knows pyarrow alone; how rows are stored and found is lance.py's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import errors, ids
from pipeline import schema as layouts
from pipeline.models import Storage, Vectors

_PREFIX = "pipeline:"  # of our keys in the vector field's metadata

_COLUMNS: tuple[pa.Field[Any], ...] = (
    pa.field("chunk_id", pa.string(), nullable=False),
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("title", pa.string(), nullable=False),
    pa.field("media_type", pa.string(), nullable=False),
    pa.field("page", pa.int32()),
    pa.field("heading", pa.string(), nullable=False),  # path, outermost first, joined by " > "
    pa.field("start", pa.int32(), nullable=False),
    pa.field("end", pa.int32(), nullable=False),
    pa.field("text", pa.string(), nullable=False),
    pa.field("context", pa.string(), nullable=False),
    pa.field("embed_key", pa.string(), nullable=False),
)
ROW_HASH = pa.field("row_hash", pa.string(), nullable=False)
HASHED = tuple(field.name for field in _COLUMNS)  # in this order in `row_hash`
FOUND = HASHED[:10]  # columns of what a Reader returns
WORDS = pa.field("words", pa.string(), nullable=False)  # what full-text search reads; made here, not given


def index_schema(dims: int, storage: Storage = "float32") -> pa.Schema:
    """Schema of a row to be added: where a chunk stands, what it says, `row_hash` over these, and its vector of `dims`
    numbers. LanceDB 0.40 searches and indexes float16 as it does float32, asked with a float32 vector.
    """
    return pa.schema([*_COLUMNS, ROW_HASH, layouts.vector(dims, storage)])


def stored_schema(dims: int, storage: Storage = "float32") -> pa.Schema:
    return index_schema(dims, storage).append(WORDS)


def row_hashes(rows: pa.Table | pa.RecordBatch) -> pa.StringArray:
    """`row_hash` of each row of a table that has at least the columns HASHED."""
    columns = [rows.column(name).to_pylist() for name in HASHED]
    return pa.array([ids.row_hash(row) for row in zip(*columns, strict=True)], pa.string())


def words(batch: pa.RecordBatch) -> pa.Array[Any]:
    """What full-text search reads of each row: people also ask by file name, title, heading, and the sentence that
    situates it where there is one.
    """
    given: Any = pc  # the stubs know no mixture of arrays and a separator
    name = given.replace_substring_regex(batch.column("uri"), "^.*/", "")
    sentence = given.replace_substring_regex(batch.column("context"), "^[^\n]*\n?", "")  # see stages.situate
    parts = [name, *(batch.column(column) for column in ("title", "heading")), sentence, batch.column("text")]
    joined = given.binary_join_element_wise(*parts, "\n")
    folded: pa.Array[Any] = given.replace_substring(given.utf8_lower(given.utf8_normalize(joined, "NFKC")), "ß", "ss")
    return folded


def fold(query: str) -> str:
    """A question as `words` are: full-width and half-width forms made one, lower case, "ss" for "ß".

    The stemmer comes before the index's own folding of accents, and would cut "Straße" and "strasse" differently.
    """
    return unicodedata.normalize("NFKC", query).lower().replace("ß", "ss")


def matrix(batch: pa.RecordBatch) -> Vectors:
    """The vectors of a batch, shape (rows, dims); a null inside one becomes NaN."""
    vectors: Any = batch.column("vector")
    return np.asarray(vectors.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(batch.num_rows, -1)


def with_provenance(schema: pa.Schema, provenance: Mapping[str, str]) -> pa.Schema:
    position = schema.get_field_index("vector")
    metadata: dict[bytes | str, bytes | str] = {f"{_PREFIX}{key}": value for key, value in provenance.items()}
    return schema.set(position, schema.field(position).with_metadata(metadata))


def provenance_of(schema: pa.Schema) -> dict[str, str]:
    metadata = schema.field("vector").metadata or {}
    pairs = ((key.decode(), value.decode()) for key, value in metadata.items())
    return {key.removeprefix(_PREFIX): value for key, value in pairs if key.startswith(_PREFIX)}


def compare(schema: pa.Schema, dims: int, storage: Storage, provenance: Mapping[str, str]) -> None:
    """Refuse a table of another shape or origin; one that lacks a key of `provenance` is older than the key."""
    remedy = "Index into another collection (`--collection NAME`), or set the model back."
    if _shape(schema) != _shape(stored_schema(dims, storage)):
        raise errors.IndexMismatch(
            f"The index has other columns than this program's, or not {dims} dimensions.", remedy
        )
    stored = provenance_of(schema)
    for key, value in sorted(provenance.items()):
        if stored.get(key, value) != value:
            raise errors.IndexMismatch(f"The index was built with {key} {stored[key]!r}, not {value!r}.", remedy)


def check_columns(given: pa.Schema, expected: pa.Schema) -> None:
    if _shape(given) != _shape(expected):
        raise errors.CorruptStore(f"Rows for the index have the columns\n{given}\ninstead of\n{expected}")


def _shape(schema: pa.Schema) -> list[tuple[str, object, int]]:
    """Names and types; whether the numbers in a vector are nullable is lost in Lance, and does not matter here."""
    return [
        (field.name, field.type.value_type, field.type.list_size)
        if pa.types.is_fixed_size_list(field.type)
        else (field.name, field.type, 0)
        for field in schema
    ]


def validated(reader: pa.RecordBatchReader, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches of `reader` in the table's own schema, checked, with the column WORDS."""
    for batch in reader:
        if batch.num_rows:
            _check_values(batch)
            columns = [*batch.columns, words(batch)]
            fitted = [column.cast(field.type) for column, field in zip(columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(fitted, schema=schema)


def _check_values(batch: pa.RecordBatch) -> None:
    for field in (*_COLUMNS, ROW_HASH):
        if not field.nullable and batch.column(field.name).null_count:
            raise errors.CorruptStore(f"a row for the index has no {field.name}")
    vectors = matrix(batch)
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1) | ~vectors.any(axis=1))
    if bad.size:
        chunk = batch.column("chunk_id")[int(bad[0])]
        raise errors.CorruptStore(
            f"the vector of chunk {chunk} is null, infinite, not a number or zero",
            errors.MEND,
        )


def remember(batches: Iterator[pa.RecordBatch], faults: list[BaseException]) -> Iterator[pa.RecordBatch]:
    try:
        yield from batches
    except BaseException as error:
        faults.append(error)
        raise
