"""The Arrow schema of every table that crosses a stage, checked on write and on read.

Offsets are code points into `text` of the document (Python's own), half open. Pages, slides and sheets count from 1;
null where a format has none. There is no free-form metadata column: what is worth keeping has a name here.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import errors

BLOCK_KINDS = ("heading", "paragraph", "list", "table", "code", "quote", "caption", "header")


def _schema(*fields: pa.Field[Any]) -> pa.Schema:
    return pa.schema(list(fields))


SNAPSHOT = _schema(
    pa.field("uri", pa.string(), nullable=False),  # path below its source folder; what is inside a file: after "!/"
    pa.field("size", pa.int64(), nullable=False),  # bytes
    pa.field("mtime_ns", pa.int64(), nullable=False),
    pa.field("inode", pa.int64(), nullable=False),  # 0 where the file system has none
    pa.field("content_hash", pa.string(), nullable=False),  # "" for a file that could not be opened
    pa.field("doc_id", pa.string()),  # null unless "ok" with a text, or left as it was by a passing failure
    pa.field("doc_hash", pa.string()),
    pa.field("shard", pa.string()),
    pa.field("reader", pa.string(), nullable=False),  # name/version, what read or refused the file
    pa.field("status", pa.string(), nullable=False),  # "ok" or the kind of its DocumentError or WorkerError
    # Of a document inside a file: the uri of that file, which has a row of its own, and whose size, time and inode
    # these are. Null for a file itself. A file that only holds documents (an archive) is "ok" without a doc_id.
    pa.field("container", pa.string()),
)

SCAN = _schema(*(SNAPSHOT.field(name) for name in ("uri", "size", "mtime_ns", "inode")))  # a file as it lies there now

BLOCK = pa.struct(
    [
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # one of BLOCK_KINDS
        pa.field(
            "heading_path", pa.list_(pa.string()), nullable=False
        ),  # outermost first; a heading's own text included
        pa.field("page", pa.int32()),
    ]
)

DOCUMENTS = _schema(
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("doc_hash", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("title", pa.string(), nullable=False),  # from inside the document; "" where it has none
    pa.field("media_type", pa.string(), nullable=False),
    pa.field("text", pa.large_string(), nullable=False),
    pa.field("blocks", pa.list_(BLOCK), nullable=False),  # in order, not overlapping; what lies between is white space
)

CHUNKS = _schema(
    pa.field("chunk_id", pa.string(), nullable=False),
    pa.field("doc_id", pa.string(), nullable=False),
    pa.field("start", pa.int32(), nullable=False),
    pa.field("end", pa.int32(), nullable=False),
    pa.field("page", pa.int32()),  # of its first character
    pa.field("heading_path", pa.list_(pa.string()), nullable=False),
    pa.field("text", pa.string(), nullable=False),  # exactly document text[start:end]
    pa.field(
        "context", pa.string(), nullable=False
    ),  # title and heading path before the text, or ""; \n and a sentence
    pa.field("title", pa.string(), nullable=False),  # of the document: some models' templates name it
    pa.field("tokens", pa.int32(), nullable=False),  # of the text sent to the model, its special tokens not counted
    pa.field("embed_key", pa.string(), nullable=False),
)

SENTENCES = _schema(
    pa.field("key", pa.string(), nullable=False),  # embed_key of the chunk without its sentence
    pa.field("document", pa.list_(pa.string()), nullable=False),  # stages.situate.sketch
    pa.field("sentence", pa.string(), nullable=False),  # "" for none, and then
    pa.field("fault", pa.string(), nullable=False),  # why
)

MAP = _schema(  # a row per passage that is drawn, in order of chunk_id
    pa.field("chunk_id", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
    pa.field("title", pa.string(), nullable=False),
    pa.field("page", pa.int32()),
    pa.field("x", pa.float32(), nullable=False),  # from -1 to 1, upwards and to the right
    pa.field("y", pa.float32(), nullable=False),
    pa.field("group", pa.int16(), nullable=False),  # from 0, the largest first
)

REJECTS = _schema(
    pa.field("stage", pa.string(), nullable=False),  # "ingest", "chunk" or "embed"
    pa.field("uri", pa.string(), nullable=False),
    pa.field("key", pa.string(), nullable=False),  # its input: content_hash, doc_id or embed_key
    pa.field("made_by", pa.string(), nullable=False),  # reader, chunk fingerprint, or embedding fingerprint and server
    pa.field("kind", pa.string(), nullable=False),
    pa.field("reason", pa.string(), nullable=False),
    pa.field("at_ms", pa.int64(), nullable=False),  # Unix time
)


def vectors(dims: int, storage: str = "float32") -> pa.Schema:
    """Schema of the vector log: a key and its vector of `dims` numbers, "float32" or "float16"."""
    return pa.schema([pa.field("embed_key", pa.string(), nullable=False), vector(dims, storage)])


def vector(dims: int, storage: str = "float32") -> pa.Field[Any]:
    """The column of vectors, in the log and in the search table."""
    number = {"float32": pa.float32(), "float16": pa.float16()}[storage]
    return pa.field("vector", pa.list_(pa.field("item", number, nullable=False), dims), nullable=False)


def vector_column(vectors_: NDArray[np.float32], field: pa.Field[Any]) -> pa.Array[Any]:
    """Vectors of shape (rows, dims) as a column of `field`'s type, rounded to it where it is float16."""
    kind: Any = field.type
    numbers = np.ascontiguousarray(vectors_, dtype=kind.value_type.to_pandas_dtype()).reshape(-1)
    column: pa.Array[Any] = pa.FixedSizeListArray.from_arrays(pa.array(numbers, type=kind.value_type), type=kind)
    return column


def to_int64(value: int) -> int:
    """A number of a `stat` as a column can hold it: inodes have 64 bits, and times go beyond the year 2262."""
    return value if -(1 << 63) <= value < 1 << 63 else value & ((1 << 63) - 1)


def strings(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> list[str]:
    """The values of a string column that holds no null."""
    return cast("list[str]", column.to_pylist())


def matrix(column: pa.Array[Any], dims: int) -> NDArray[np.float32]:
    """A column of vectors as float32 of shape (rows, dims), without a copy where Arrow allows it."""
    flat = cast("pa.FixedSizeListArray[Any]", column).flatten()
    return np.asarray(flat, dtype=np.float32).reshape(-1, dims)


def check(table: pa.Table, expected: pa.Schema, what: str) -> pa.Table:
    """Return `table` cast to exactly `expected` (field order and nullability included).

    Raises:
        CorruptStore: a column is missing or surplus, has another type, or holds a null where none may be.
    """
    if table.schema.names != expected.names:
        raise errors.CorruptStore(
            f"{what}: columns {table.schema.names} instead of {expected.names}",
            errors.MEND,
        )
    for field in expected:
        if not field.nullable and table.column(field.name).null_count:
            raise errors.CorruptStore(
                f"{what}: null in column {field.name}",
                errors.MEND,
            )
    try:
        return table.cast(expected)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        raise errors.CorruptStore(f"{what}: {error}", errors.MEND) from error
