"""Chunk: documents -> the passages that are embedded, at content-defined boundaries.

Every chunk is exactly `text[start:end]` of its document, all chunks of a document cover its non-white text once and in
order, and none is above the model's limit with template and context counted. Headings always begin a chunk, except
where neighbouring sections under one parent are too small to stand alone. Inside a section cuts are chosen by
`chunk_cuts`, so that an edit changes one chunk in most cases, two or three in some, and more in about one of 3,000; all
others keep their `embed_key`.

There is no overlap: text repeated in two chunks costs tokens, wins the same question twice, and would tie a chunk's key
to its neighbour's text; the heading path as context does what overlap is meant for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline import ids, schema
from pipeline.document import Block
from pipeline.models import Tokenizer
from pipeline.models.templates import embed_text as embed_text
from pipeline.stages import chunk_sections
from pipeline.stages.chunk_fit import Chunk, Fitter

SENTENCE_TOKENS = 96  # kept free where a sentence is to stand before the text
VERSION = 2  # 2: sentences in quotes, full-width points, marks of other scripts


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkParams:
    """What decides the chunks, all in tokens of the model with its special tokens left out.

    Attributes:
        size: aimed at, for the text alone.
        max: of the text sent to the model, never exceeded.
        limit: the model's own, never exceeded either.
        context: put title and heading path before the text.
        document_template: the model's, with `{text}` and perhaps `{title}`.
        tokenizer: identity of the tokenizer that counts.
        situated_by: who writes a sentence before each chunk (situate.made_by), "" for nobody. This stage only leaves
            room for it.
    """

    size: int = 256
    max: int = 400
    limit: int = 510
    context: bool = True
    document_template: str = "{text}"
    tokenizer: str = ""
    situated_by: str = ""

    @property
    def cap(self) -> int:
        return min(self.max, self.limit - SENTENCE_TOKENS if self.situated_by else self.limit)

    def fingerprint(self) -> str:
        """Names the folder of chunks: equal parameters and VERSION, equal chunks."""
        made_by = {
            "size": self.size,
            "max": self.cap,
            "context": self.context,
            "document_template": self.document_template,
            "tokenizer": self.tokenizer,
        }
        if self.situated_by:
            made_by["situated_by"] = self.situated_by
        return ids.fingerprint("chunk", VERSION, made_by)

    def plain(self) -> ChunkParams:
        """The same chunks without their sentences: often those of a collection that never had any."""
        return replace(self, situated_by="", limit=self.cap)


def chunk_documents(documents: pa.Table, params: ChunkParams, tokenizer: Tokenizer) -> pa.Table:
    """Chunks (schema.CHUNKS) of a table of documents (schema.DOCUMENTS), in document order and then by offset.

    Raises:
        ConfigError: limit and template leave no room for text.
    """
    rows: list[dict[str, object]] = []
    for number in range(documents.num_rows):
        row = documents.slice(number, 1).to_pylist()[0]
        blocks = [Block(**{**block, "heading_path": tuple(block["heading_path"])}) for block in row["blocks"]]
        doc = chunk_sections.outline(row["text"], row["title"], blocks, tokenizer, params.cap)
        chunks = Fitter(doc, params, tokenizer).chunks() if doc.blocks else []
        rows.extend(_as_row(row["doc_id"], chunk) for chunk in chunks)
    return pa.Table.from_pylist(rows, schema=schema.CHUNKS)


def _as_row(doc_id: str, chunk: Chunk) -> dict[str, object]:
    return {
        "chunk_id": ids.chunk_id(doc_id, chunk.start, chunk.end),
        "doc_id": doc_id,
        "start": chunk.start,
        "end": chunk.end,
        "page": chunk.page,
        "heading_path": list(chunk.heading_path),
        "text": chunk.text,
        "context": chunk.context,
        "title": chunk.title,
        "tokens": chunk.tokens,
        "embed_key": ids.embed_key(chunk.sent),
    }
