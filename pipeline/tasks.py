"""What a worker process does: read one file, chunk one shard. A worker writes its own output and returns little.

Imported in every worker, so it imports little itself. The pool calls these by name ("pipeline.tasks:read").
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline import errors, ids, readers, record, schema
from pipeline.models import Tokenizer
from pipeline.stages import ingest

if TYPE_CHECKING:
    from pipeline.stages.chunk import ChunkParams
    from pipeline.store import Collection

# What ends a sentence, with the quotes and brackets that may follow, or a line.
_ENDS = re.compile(r"[.!?:;。！？：；…][\"'”’»)\]}」』）】*_`]*\s*\Z|\n")
_BLOCK = 1 << 20  # bytes of a file hashed at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A file as read: the document's row, or why there is none. `same`: it has the content that was known already;
    `seconds`: how long it kept the worker busy.
    """

    seen: ingest.Seen
    content_hash: str
    reader: str
    row: dict[str, Any] | None = None
    same: bool = False
    kind: str = "ok"
    reason: str = ""
    seconds: float = 0.0


def hash_file(path: bytes, size: int) -> str:
    """The content hash of a regular file of `size` bytes, "" when it cannot be read (then reading tells why)."""
    state = hashlib.blake2b(digest_size=ids.LENGTH // 2)
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # a name that need not be text
            while block := file.read(_BLOCK):
                state.update(block)
    except OSError:
        return ""
    return state.hexdigest()


def read(path: bytes, seen: ingest.Seen, options: readers.ReaderOptions, known_hash: str) -> Read:
    """Open a file, and read it unless its content has `known_hash`."""
    began = time.monotonic()
    return replace(_read(path, seen, options, known_hash), seconds=time.monotonic() - began)


def _read(path: bytes, seen: ingest.Seen, options: readers.ReaderOptions, known_hash: str) -> Read:
    if known_hash and hash_file(path, seen.size) == known_hash:
        return Read(seen=seen, content_hash=known_hash, reader="", same=True)
    result = readers.read_file(path, seen.uri, options)
    mtime_ns, inode = schema.to_int64(result.mtime_ns), schema.to_int64(result.inode)
    now = ingest.Seen(uri=seen.uri, size=result.size, mtime_ns=mtime_ns, inode=inode)
    if result.document is None:
        seen = seen if not result.content_hash else now  # never opened: what the scan saw
        return Read(
            seen=seen,
            content_hash=result.content_hash,
            reader=result.reader,
            kind=result.kind,
            reason=result.reason + (f" {result.remedy}" if result.remedy else ""),
        )
    row = ingest.document_row(seen.uri, result.document)
    return Read(seen=now, content_hash=result.content_hash, reader=result.reader, row=row)


@functools.lru_cache(maxsize=2)
def tokenizer(identity: str, path: Path | None) -> Tokenizer:
    """The tokenizer `identity`: at `path`, or one of the program's own for None.

    Raises:
        CorruptStore: it is neither.
    """
    from pipeline.models import tokens  # tokenizers takes 50 ms to import: not for readers

    if path is not None:
        return tokens.load(path)
    for own in (tokens.builtin, tokens.conservative):
        if own().identity == identity:
            return own()
    raise errors.CorruptStore(f"The tokenizer {identity} of this collection is missing.", "Run `pipeline run` again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunked:
    """A shard's chunk file: its rows, how many are in each bin of lengths (record.BIN_TOKENS), and how many end inside
    a sentence or line that is longer than a chunk.
    """

    rows: int
    lengths: tuple[int, ...]
    split: int


def chunk(collection: Collection, shard: str, params: ChunkParams, tokenizer_path: Path | None) -> Chunked:
    """Chunk a document shard and write its chunk file."""
    from pipeline.stages import chunk as stage

    documents = collection.read_documents(shard)
    table = stage.chunk_documents(documents, params, tokenizer(params.tokenizer, tokenizer_path))
    collection.write_chunks(params.fingerprint(), shard, table)
    return Chunked(rows=table.num_rows, lengths=_lengths(table), split=_split(documents, table))


def _lengths(chunks: pa.Table) -> tuple[int, ...]:
    bins = np.minimum(chunks["tokens"].to_numpy() // record.BIN_TOKENS, record.BINS - 1)
    return tuple(np.bincount(bins, minlength=record.BINS).tolist())


def _split(documents: pa.Table, chunks: pa.Table) -> int:
    """How many chunks end where neither a line nor a sentence does."""
    texts = dict(zip(schema.strings(documents["doc_id"]), schema.strings(documents["text"]), strict=True))
    starts, ends = (chunks[name].to_numpy().tolist() for name in ("start", "end"))
    spans = zip(schema.strings(chunks["doc_id"]), starts, ends, strict=True)
    return sum(
        before == doc and not _ENDS.search(texts[doc], max(0, last - 4), start)
        for (before, _, last), (doc, start, _) in itertools.pairwise(spans)
    )


def chunk_one(
    collection: Collection, shard: str, doc_id: str, params: ChunkParams, tokenizer_path: Path | None
) -> pa.Table:
    """The chunks of one document of a shard, schema.CHUNKS; for a shard that cannot be chunked whole."""
    from pipeline.stages import chunk as stage

    documents = collection.read_documents(shard)
    one = documents.filter(pa.array([value == doc_id for value in schema.strings(documents["doc_id"])]))
    return stage.chunk_documents(one, params, tokenizer(params.tokenizer, tokenizer_path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a run would make of a file: its fate, and key and tokens of each of its chunks."""

    read: Read  # without the text
    chunks: tuple[tuple[str, int], ...] = ()


def preview(
    path: bytes,
    seen: ingest.Seen,
    options: readers.ReaderOptions,
    known_hash: str,
    params: ChunkParams,
    tokenizer_path: Path | None,
) -> Preview:
    """Read and chunk a file as a run would; nothing is written."""
    from pipeline.stages import chunk as stage

    result = read(path, seen, options, known_hash)
    if result.row is None:
        return Preview(read=result)
    documents = pa.Table.from_pylist([result.row], schema=schema.DOCUMENTS)
    table = stage.chunk_documents(documents, params, tokenizer(params.tokenizer, tokenizer_path))
    chunks = zip(schema.strings(table["embed_key"]), table["tokens"].to_pylist(), strict=True)
    row = {"doc_hash": result.row["doc_hash"]}
    return Preview(read=replace(result, row=row), chunks=tuple((key, int(count or 0)) for key, count in chunks))


def preview_shard(
    collection: Collection, shard: str, docs: frozenset[str], params: ChunkParams, tokenizer_path: Path | None
) -> tuple[tuple[str, int], ...]:
    """Key and tokens of each chunk that these documents of a shard would have; nothing is written."""
    from pipeline.stages import chunk as stage

    documents = collection.read_documents(shard)
    chosen = documents.filter(pa.array([doc in docs for doc in schema.strings(documents["doc_id"])], pa.bool_()))
    table = stage.chunk_documents(chosen, params, tokenizer(params.tokenizer, tokenizer_path))
    return tuple(zip(schema.strings(table["embed_key"]), table["tokens"].to_numpy().tolist(), strict=True))


def inspect(
    path: bytes, seen: ingest.Seen, options: readers.ReaderOptions, params: ChunkParams, tokenizer_path: Path | None
) -> tuple[Read, list[dict[str, Any]]]:
    """A file as read, and the rows (schema.CHUNKS) of its chunks."""
    from pipeline.stages import chunk as stage

    result = read(path, seen, options, "")
    if result.row is None:
        return result, []
    documents = pa.Table.from_pylist([result.row], schema=schema.DOCUMENTS)
    table = stage.chunk_documents(documents, params, tokenizer(params.tokenizer, tokenizer_path))
    return result, table.to_pylist()
