"""Index rows for tests, with vectors that one can compute by eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import ids, lance

DIMS = 8
MADE_BY = {"provider": "builtin", "model": "by-eye", "digest": "0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A row to be. `vector`: direction in the first dimensions, the rest 0."""

    text: str
    uri: str = "a.md"
    vector: tuple[float, ...] = (1.0,)
    heading: str = ""
    title: str = ""
    context: str = ""
    page: int | None = None
    start: int = 0

    @property
    def chunk_id(self) -> str:
        return ids.chunk_id(self.doc_id, self.start, self.start + len(self.text))

    @property
    def doc_id(self) -> str:
        return ids.doc_id(self.uri, "")


def numbered(numbers: Sequence[int]) -> list[Passage]:
    """One passage for each number, all different, each with its own vector."""
    return [
        Passage(text=f"Passage {n} of the ledger", uri=f"{n}.md", vector=tuple(np.cos(n + np.arange(DIMS))))
        for n in numbers
    ]


def direction(*values: float, dims: int = DIMS) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    padded = np.zeros(dims, np.float32)
    padded[: len(values)] = values
    return padded


def rows(passages: Sequence[Passage], dims: int = DIMS) -> pa.Table:
    """Rows of `lance.index_schema(dims)`."""
    columns = {
        "chunk_id": [p.chunk_id for p in passages],
        "doc_id": [p.doc_id for p in passages],
        "uri": [p.uri for p in passages],
        "title": [p.title for p in passages],
        "media_type": ["text/markdown" for _ in passages],
        "page": [p.page for p in passages],
        "heading": [p.heading for p in passages],
        "start": [p.start for p in passages],
        "end": [p.start + len(p.text) for p in passages],
        "text": [p.text for p in passages],
        "context": [p.context for p in passages],
        "embed_key": [ids.embed_key(p.context + p.text) for p in passages],
    }
    schema = lance.index_schema(dims)
    named = pa.table([pa.array(columns[name], schema.field(name).type) for name in lance.HASHED], names=lance.HASHED)
    flat = np.concatenate([direction(*p.vector, dims=dims) for p in passages]) if passages else np.empty(0, np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(flat, pa.float32()), type=schema.field("vector").type)
    return pa.table([*named.columns, lance.row_hashes(named), vectors], schema=schema)


def publish(folder: Path, passages: Sequence[Passage], name: str = "chunks") -> lance.Reader:
    """A published table of these passages, opened for questions."""
    table = lance.Table.open(folder, name, DIMS, MADE_BY)
    table.add(rows(passages).to_reader())
    table.finish(vector_index_from=50_000)
    return lance.Reader.open(folder, name)
