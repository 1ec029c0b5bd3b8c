"""The index stage: the difference between rows wanted and rows there, and rows that carry what they should."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors, ids, lance_rows, schema
from pipeline.stages import index


def key(value: int | str) -> str:
    return ids.embed_key(str(value))


def packed(rows: list[tuple[int, int]]) -> index.Pairs:
    return index.pairs([key(chunk) for chunk, _ in rows], [key(row) for _, row in rows])


rows_of = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), max_size=12, unique_by=lambda row: row[0])
there = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 2)), max_size=12)


@given(wanted=rows_of, actual=there)
def test_applying_the_difference_gives_what_is_wanted(
    wanted: list[tuple[int, int]], actual: list[tuple[int, int]]
) -> None:
    found = index.difference(packed(wanted), packed(actual))
    deleted = set(found.delete)
    added = {bytes(value).ljust(32, b"\0") for value in found.add}
    after = [row for row in actual if key(row[0]) not in deleted]
    after += [row for row in wanted if bytes.fromhex(key(row[0]) + key(row[1])) in added]
    assert sorted(after) == sorted(wanted)
    if sorted(wanted) == sorted(actual):
        assert (found.delete, len(found.add)) == ([], 0)


def test_ids_that_end_in_zeros_survive() -> None:
    chunk, row = "ab" * 8 + "00" * 8, "00" * 16
    found = index.difference(index.pairs([], []), index.pairs([chunk], [row]))
    assert found.delete == [chunk]


def shard(pages: list[int | None], doc: str = "doc") -> tuple[pa.Table, pa.Table]:
    documents = pa.table({"doc_id": [doc], "uri": ["a.pdf"], "title": ["T"], "media_type": ["application/pdf"]})
    chunks = [
        {
            "chunk_id": key(f"chunk {n}"),
            "doc_id": doc,
            "start": n,
            "end": n + 1,
            "page": page,
            "heading_path": ["A", "B"],
            "text": str(n),
            "context": "A > B",
            "title": "T",
            "tokens": 1,
            "embed_key": key(n),
        }
        for n, page in enumerate(pages)
    ]
    return documents, pa.Table.from_pylist(chunks, schema=schema.CHUNKS)


def test_rows_carry_document_heading_and_vector() -> None:
    documents, chunks = shard([1, None, 2])
    wanted = index.wanted(documents, chunks.select(list(index.CHUNK_COLUMNS)))
    chosen = wanted.where(np.array([True, False, True]))
    vectors = np.eye(2, 3, dtype=np.float32)
    table = index.rows(documents, chunks, chosen, vectors)
    assert table.schema.names == lance_rows.index_schema(3).names
    assert table["uri"].to_pylist() == ["a.pdf"] * 2
    assert table["heading"].to_pylist() == ["A > B"] * 2
    assert table["page"].to_pylist() == [1, 2]
    assert table["row_hash"].to_pylist() == chosen.hashes
    assert table["vector"].to_pylist() == vectors.tolist()


def test_rows_of_dead_documents_are_not_wanted() -> None:
    _, chunks = shard([1, 2])
    others, _ = shard([], doc="another")
    assert index.wanted(others, chunks.select(list(index.CHUNK_COLUMNS))).keys == []


def test_a_moved_page_is_another_row_of_the_same_chunk() -> None:
    first, second = (index.wanted(d, c.select(list(index.CHUNK_COLUMNS))) for d, c in (shard([1]), shard([2])))
    assert first.chunk_ids == second.chunk_ids
    assert first.hashes != second.hashes


def test_a_row_without_its_column_is_refused() -> None:
    documents, chunks = shard([1])
    wanted = index.wanted(documents, chunks.select(list(index.CHUNK_COLUMNS)))
    with pytest.raises((errors.CorruptStore, KeyError)):
        index.rows(documents, chunks.drop_columns(["text"]), wanted, np.eye(1, 3, dtype=np.float32))
