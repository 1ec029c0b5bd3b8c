"""What a worker process does: read one file, chunk one shard. A worker writes its own output and returns little.

Imported in every worker, so it imports little itself. The pool calls these by name ("pipeline.tasks:read").
"""

from __future__ import annotations

import functools
import hashlib
import io
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
from pipeline.readers import containers
from pipeline.stages import ingest

if TYPE_CHECKING:
    from pipeline.stages.chunk import ChunkParams
    from pipeline.store import Collection

# What ends a sentence, with the quotes and brackets that may follow, or a line.
_ENDS = re.compile(r"[.!?:;。！？：；…][\"'”’»)\]}」』）】*_`]*\s*\Z|\n")
_BLOCK = 1 << 20  # bytes of a file hashed at a time

# A turn of a file that holds documents ends with the one that reaches one of these: then the parent has its texts, and
# the time limit begins anew. A document larger than TURN_BYTES (and than the file) has a turn of its own, whose limit
# allows for its size.
TURN_CHARS = 2_000_000
STARVED = 3.0  # times its seconds that a turn may take by the clock on a busy machine, as `workers` has it
TURN_BYTES = 4_000_000
FIRST = containers.Turn()


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A file as read, or a document inside one: the document's row, or why there is none.

    Attributes:
        row: None for a failure, and for a file that only holds documents (then `kind` is "ok").
        same: it has the content that was known already.
        seconds: how long it kept the worker busy.
        container: the file that it is in; None for a file.
        inside: what is in it, as far as one turn went. rest: the next turn; None where that was all.
        passed: how many files in it are of kinds that no reader knows.
    """

    seen: ingest.Seen
    content_hash: str
    reader: str
    row: dict[str, Any] | None = None
    same: bool = False
    kind: str = "ok"
    reason: str = ""
    seconds: float = 0.0
    container: str | None = None
    inside: tuple[Read, ...] = ()
    rest: containers.Turn | None = None
    passed: int = 0


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


def read(
    path: bytes,
    seen: ingest.Seen,
    options: readers.ReaderOptions,
    known_hash: str,
    turn: containers.Turn = FIRST,
    note: Path | None = None,
) -> Read:
    """Open a file, and read it unless its content has `known_hash`; with it a turn of the documents inside.

    `note`: where to write down which of these is being read, for whoever finds this process dead.
    """
    began = time.monotonic()
    with _Note(note) as at:
        return replace(_read(path, seen, options, known_hash, turn, at), seconds=time.monotonic() - began)


def _read(
    path: bytes,
    seen: ingest.Seen,
    options: readers.ReaderOptions,
    known_hash: str,
    turn: containers.Turn,
    note: _Note,
) -> Read:
    if known_hash and hash_file(path, seen.size) == known_hash:
        return Read(seen=seen, content_hash=known_hash, reader="", same=True)
    result = readers.read_file(path, seen.uri, options)
    if turn.content_hash and result.content_hash not in ("", turn.content_hash):
        return Read(
            seen=seen, content_hash="", reader=result.reader, kind="changing", reason="changed while it was read"
        )
    mtime_ns, inode = schema.to_int64(result.mtime_ns), schema.to_int64(result.inode)
    now = ingest.Seen(uri=seen.uri, size=result.size, mtime_ns=mtime_ns, inode=inode)
    own = _as_read(result, now if result.content_hash else seen)  # never opened: what the scan saw
    return _with_inside(own, result, options, turn, note) if result.holds else own


def _as_read(result: readers.ReadResult, seen: ingest.Seen, container: str | None = None) -> Read:
    refused = errors.in_a_line(result.reason, result.remedy)
    return Read(
        seen=seen,
        content_hash=result.content_hash,
        reader=result.reader,
        row=ingest.document_row(seen.uri, result.document) if result.document is not None else None,
        kind=result.kind or "ok",
        reason=result.document.left_out if result.document is not None else refused,
        container=container,
    )


class _Note:
    """Tells in a file which document is being read: the system keeps it, should this process be killed."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: io.FileIO | None = None
        if path is not None:
            path.unlink(missing_ok=True)  # of an earlier turn

    def __enter__(self) -> _Note:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def enter(self, at: containers.At, path: str) -> bool:
        if self._path is not None:
            self._file = self._file or io.FileIO(self._path, "wb")
            self._file.write(f"{at[0]} {at[1]} {path}\n".encode())
        return True


def noted(note: Path) -> tuple[containers.At, str] | None:
    """Which document a worker that is gone was at, and its path; None where it was at the file itself."""
    lines = note.read_text("utf-8").split("\n") if note.exists() else []
    if len(lines) < 2:
        return None
    top, inner, path = lines[-2].split(" ", 2)  # what follows the last line feed was never finished
    return (int(top), int(inner)), path


def _with_inside(
    own: Read, result: readers.ReadResult, options: readers.ReaderOptions, turn: containers.Turn, note: _Note
) -> Read:
    """`own` with the documents inside that this turn reads, or its refusal where it cannot be opened."""
    clocks, found, chars = (time.process_time(), time.monotonic()), list[Read](), 0

    def over(size: int) -> bool:
        spent = (time.process_time() - clocks[0], (time.monotonic() - clocks[1]) / STARVED)
        return chars >= TURN_CHARS or max(spent) >= turn.seconds or size > max(TURN_BYTES, own.seen.size)

    walk, documents = readers.inside(result, own.seen.uri, options, turn, note.enter, over)
    try:
        for one in documents:
            read = _document(own, one, options)
            found.append(read)
            chars += len(read.row["text"]) if read.row is not None else 0
    except errors.DocumentError as error:
        if own.kind != "ok":
            return own
        return replace(own, row=None, kind=error.kind, reason=errors.in_a_line(error.message, error.remedy))
    rest = replace(walk.rest, content_hash=own.content_hash) if walk.rest is not None else None
    return replace(own, inside=tuple(found), rest=rest, passed=walk.passed)


def _document(own: Read, found: containers.Found, options: readers.ReaderOptions) -> Read:
    """A document inside a file as read; size and dates are the file's."""
    seen = replace(own.seen, uri=own.seen.uri + containers.SEPARATOR + found.path)
    if found.error is None:
        return _as_read(readers.read_member(found.data, seen.uri, options), seen, container=own.seen.uri)
    refused = readers.ReadResult(
        content_hash="",
        size=0,
        mtime_ns=0,
        inode=0,
        reader=readers.reader_of(seen.uri, options),
        kind=found.error.kind,
        reason=found.error.message,
        remedy=found.error.remedy,
    )
    return _as_read(refused, seen, container=own.seen.uri)


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
    """What a run would make of a file: its fate, and key and tokens of each of its chunks.

    `inside`: the same of the documents in it that this turn reads.
    """

    read: Read  # without the text
    chunks: tuple[tuple[str, int], ...] = ()
    inside: tuple[Preview, ...] = ()


def preview(
    path: bytes,
    seen: ingest.Seen,
    options: readers.ReaderOptions,
    known_hash: str,
    params: ChunkParams,
    tokenizer_path: Path | None,
    turn: containers.Turn = FIRST,
    note: Path | None = None,
) -> Preview:
    """Read and chunk a file as a run would; nothing is written."""
    result = read(path, seen, options, known_hash, turn, note)
    inside = tuple(_preview(one, params, tokenizer_path) for one in result.inside)
    return replace(_preview(replace(result, inside=()), params, tokenizer_path), inside=inside)


def _preview(result: Read, params: ChunkParams, tokenizer_path: Path | None) -> Preview:
    if result.row is None:
        return Preview(read=result)
    chunks = _chunks(result, params, tokenizer_path)
    pairs = zip(schema.strings(chunks["embed_key"]), chunks["tokens"].to_pylist(), strict=True)
    row = {"doc_hash": result.row["doc_hash"]}
    return Preview(read=replace(result, row=row), chunks=tuple((key, int(count or 0)) for key, count in pairs))


def _chunks(result: Read, params: ChunkParams, tokenizer_path: Path | None) -> pa.Table:
    from pipeline.stages import chunk as stage

    assert result.row is not None
    documents = pa.Table.from_pylist([result.row], schema=schema.DOCUMENTS)
    return stage.chunk_documents(documents, params, tokenizer(params.tokenizer, tokenizer_path))


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
    path: bytes,
    seen: ingest.Seen,
    options: readers.ReaderOptions,
    params: ChunkParams,
    tokenizer_path: Path | None,
    member: str = "",
) -> tuple[Read, list[dict[str, Any]]]:
    """A file as read, and the rows (schema.CHUNKS) of its chunks; or those of its document `member` ("" for none)."""
    result = read_one(path, seen, options, member)
    return result, _chunks(result, params, tokenizer_path).to_pylist() if result.row is not None else []


def read_one(path: bytes, seen: ingest.Seen, options: readers.ReaderOptions, member: str = "") -> Read:
    """A file as read, or one document inside it: nothing else in it is looked at."""
    result = readers.read_file(path, seen.uri, options)
    own = _as_read(result, seen)
    if not member:
        return own

    def enter(at: containers.At, found: str) -> bool:
        return found == member or member.startswith(found + containers.SEPARATOR)

    absent = Read(seen=seen, content_hash="", reader=own.reader, kind="vanished", reason=f"{member} is not in it")
    if not result.holds:
        return own if own.row is None else absent
    try:
        _, documents = readers.inside(result, seen.uri, options, FIRST, enter)
        return next((_document(own, one, options) for one in documents if one.path == member), absent)
    except errors.DocumentError as error:
        return replace(own, row=None, kind=error.kind, reason=error.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A document inside a file, not read yet. `kind`: "ok", or why it cannot be."""

    path: str
    bytes: int
    kind: str = "ok"
    reason: str = ""


def contents(path: bytes, name: str, options: readers.ReaderOptions) -> tuple[Entry, ...]:
    """What is inside a file, in order; nothing for one that holds no documents, or cannot be opened."""
    result = readers.read_file(path, name, options)
    if not result.holds:
        return ()
    try:
        return tuple(
            Entry(path=one.path, bytes=one.size)
            if one.error is None
            else Entry(path=one.path, bytes=one.size, kind=one.error.kind, reason=one.error.message)
            for one in readers.inside(result, name, options, FIRST)[1]
        )
    except errors.DocumentError:
        return ()  # as `read` says with the reason
