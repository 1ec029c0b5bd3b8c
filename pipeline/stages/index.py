"""Documents, chunks and vectors to rows of the search table, and how the rows wanted differ from those there.

Wanted and actual rows are compared by (chunk_id, row_hash) alone, 32 bytes a row: a million rows take some 100 MB here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import ids, lance_rows, schema
from pipeline.models import Storage

VERSION = 1

DOCUMENT_COLUMNS = ("doc_id", "uri", "title", "media_type")
CHUNK_COLUMNS = ("chunk_id", "doc_id", "start", "end", "page", "heading_path", "context", "embed_key")
SEPARATOR = " > "  # between headings

Pairs = NDArray[np.bytes_]  # dtype S32: chunk_id and row_hash, 16 bytes each


def pairs(chunk_ids: Sequence[str], row_hashes: Sequence[str]) -> Pairs:
    """Pack ids and hashes (hexadecimal) into one array of 32 bytes a row."""
    packed = bytes.fromhex("".join(a + b for a, b in zip(chunk_ids, row_hashes, strict=True)))
    return np.frombuffer(packed, dtype="S32")


def _chunk_ids(values: Pairs) -> NDArray[np.bytes_]:
    """The packed chunk ids of `values`, dtype S16."""
    ids_: NDArray[np.bytes_] = np.ascontiguousarray(values).view("S16").reshape(-1, 2)[:, 0]
    return ids_


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of one shard, column by column: ids, row hashes, embed keys, and where each stands in the chunk file."""

    chunk_ids: list[str]
    hashes: list[str]
    keys: list[str]
    positions: list[int]

    def where(self, mask: NDArray[np.bool_]) -> Rows:
        """The rows of which `mask`, bool of shape (rows,), is true."""
        at = np.flatnonzero(mask).tolist()
        return Rows(
            chunk_ids=[self.chunk_ids[i] for i in at],
            hashes=[self.hashes[i] for i in at],
            keys=[self.keys[i] for i in at],
            positions=[self.positions[i] for i in at],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What to delete (chunk ids) and which pairs to add, both possibly empty."""

    delete: list[str]
    add: Pairs


def difference(wanted: Pairs, actual: Pairs) -> Difference:
    """Compare rows. A chunk that is there twice is deleted and added once: two rows of it are the trace of a crash."""
    want, there = np.unique(wanted), _chunk_ids(actual)
    _, which, counts = np.unique(there, return_inverse=True, return_counts=True)
    good = np.isin(actual, want) & (counts[which] == 1)
    surplus = np.unique(there[~good])
    # A bytes item comes out of numpy without its trailing zeros: they are put back.
    delete = [bytes(value).ljust(16, b"\0").hex() for value in surplus]
    return Difference(delete=delete, add=want[~np.isin(want, actual[good])])


def wanted(documents: pa.Table, chunks: pa.Table) -> Rows:
    """What the table should hold of one shard.

    Args:
        documents: DOCUMENT_COLUMNS of the *live* documents of the shard; chunks of other documents are left out.
        chunks: CHUNK_COLUMNS of the shard.
    """
    by_id = {row["doc_id"]: row for row in documents.to_pylist()}
    chunk_ids, hashes, keys, positions = [], [], [], []
    for position, chunk in enumerate(chunks.to_pylist()):
        doc = by_id.get(chunk["doc_id"])
        if doc is not None:
            chunk_ids.append(chunk["chunk_id"])
            # The text is not hashed, so that a comparison need not read it: doc_id, start and end say what it is.
            hashes.append(ids.row_hash((*doc.values(), *chunk.values())))
            keys.append(chunk["embed_key"])
            positions.append(position)
    return Rows(chunk_ids=chunk_ids, hashes=hashes, keys=keys, positions=positions)


def rows(
    documents: pa.Table,
    chunks: pa.Table,
    chosen: Rows,
    vectors: NDArray[np.float32],
    storage: Storage = "float32",
) -> pa.Table:
    """The rows `chosen` of one shard, ready to be added.

    Args:
        documents: DOCUMENT_COLUMNS of the shard; chunks: all columns of it.
        vectors: float32 of shape (len(chosen.keys), dims); the rows hold them as `storage`.
    """
    expected = lance_rows.index_schema(vectors.shape[1], storage)
    by_id = {row["doc_id"]: row for row in documents.to_pylist()}
    picked = chunks.take(np.asarray(chosen.positions, dtype=np.int64))
    docs = [by_id[value] for value in schema.strings(picked["doc_id"])]
    headings = [SEPARATOR.join(path) for path in picked["heading_path"].to_pylist() if path is not None]
    columns: dict[str, Any] = {name: picked[name] for name in picked.column_names}
    columns |= {"heading": headings, "row_hash": chosen.hashes}
    columns |= {name: [doc[name] for doc in docs] for name in ("uri", "title", "media_type")}
    columns["vector"] = schema.vector_column(vectors, expected.field("vector"))
    return schema.check(pa.table({name: columns[name] for name in expected.names}), expected, "index rows")
