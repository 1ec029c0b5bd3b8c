"""The file behind a document: where it lies now, whether it still is what was indexed, and a page of it as a picture.

A file is looked for by what the published snapshot says of a document, never by a path from outside: what is not in the
snapshot does not exist here. What is read of it is used only if its content hash is the one that was indexed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import errors, freshness, ids, readers
from pipeline.readers import containers
from pipeline.readers.pdf_page import Picture, Wanted
from pipeline.store import Collection

# "away": its source folder is not there (an unmounted disk); "unreadable": it is there, and cannot be opened.
Fate = Literal["same", "changed", "gone", "away", "unreadable"]

_BLOCK = 1 << 20  # bytes of a file hashed at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A document's file.

    Attributes:
        uri: of the file; member: of the document in it, after the "!/"; "" for the file itself.
        path: None where the source folder is not there.
        size: of the file in bytes, as indexed.
        file_hash, content_hash: of the file, and of the document in it; the same where that is the file.
        fate: by size and time, and by the content where these differ.
    """

    uri: str
    member: str
    path: bytes | None
    size: int
    file_hash: str
    content_hash: str
    fate: Fate


def look(collection: Collection, snapshot: int, uri: str, doc_id: str) -> Origin:
    """The file behind document `uri`, which was indexed as `doc_id`, as snapshot number `snapshot` knows it.

    A document that is searched in its last version, since the new one is not embedded whole, has "changed".

    Raises:
        CorruptStore: the snapshot is damaged.
    """
    known = collection.snapshot(snapshot)
    row = _row(known.table, uri) if known is not None else None
    if known is None or row is None:
        return Origin(uri=uri, member="", path=None, size=0, file_hash="", content_hash="", fate="gone")
    file_uri = str(row["container"] or uri)
    holding = row if file_uri == uri else _row(known.table, file_uri)
    path = freshness.place(known.sources, file_uri)
    fate: Fate = freshness.stale(collection, snapshot, [uri]).get(uri) or _reachable(path)
    return Origin(
        uri=file_uri,
        member=uri.removeprefix(file_uri + containers.SEPARATOR) if file_uri != uri else "",
        path=path,
        size=int(row["size"]),
        file_hash=str(holding["content_hash"]) if holding is not None else "",
        content_hash=str(row["content_hash"]),
        fate="changed" if fate == "same" and row["doc_id"] != doc_id else fate,
    )


def _row(table: pa.Table, uri: str) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table["uri"], pa.array([uri], pa.string()))).to_pylist()
    return rows[0] if rows else None


def _reachable(path: bytes | None) -> Fate:
    if path is None:
        return "away"
    return "same" if os.access(path, os.R_OK) else "unreadable"


def open_same(origin: Origin, most_bytes: int) -> BinaryIO:
    """The file, open at its beginning, its content compared with what was indexed.

    Raises:
        DocumentError: vanished (gone, or no file any more), permission, too_large, changed.
    """
    file = _open(origin, most_bytes)
    try:
        state = hashlib.blake2b(digest_size=ids.LENGTH // 2)  # as ids.content_hash, a piece at a time
        while block := file.read(_BLOCK):
            state.update(block)
        if state.hexdigest() != origin.file_hash:
            raise _changed()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _open(origin: Origin, most_bytes: int) -> BinaryIO:
    if origin.path is None:
        raise errors.DocumentError("vanished", "its folder is not there")
    try:
        # O_NONBLOCK: should a FIFO have taken its place by now, open returns at once.
        descriptor = os.open(origin.path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except PermissionError as error:
        raise errors.DocumentError("permission", "it may not be read") from error
    except OSError as error:
        raise errors.DocumentError("vanished", f"it cannot be opened ({error.strerror})") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise errors.DocumentError("vanished", "it is no file any more")
        if status.st_size > most_bytes:
            raise errors.DocumentError("too_large", f"it has {status.st_size:,} bytes")
        if status.st_size != origin.size:
            raise _changed()
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read(origin: Origin, most_bytes: int) -> bytes:
    """The document's bytes, exactly as they were indexed; of one inside a file, taken out of it. For a worker: what
    opens archives and mails is a parser.

    Raises:
        DocumentError: as `open_same`; vanished also where it is not in its file.
    """
    with open_same(origin, most_bytes) as file:
        data = file.read(origin.size)
    if origin.member:
        data = _member(data, origin, most_bytes)
    if ids.content_hash(data) != origin.content_hash:
        raise _changed()
    return data


def _changed() -> errors.DocumentError:
    return errors.DocumentError("changed", "it has changed since it was indexed")


def _member(data: bytes, origin: Origin, most_bytes: int) -> bytes:
    options = readers.ReaderOptions(max_file_mb=max(1, most_bytes // readers.MEGABYTE), attachments=True, archives=True)
    holding = readers.read_member(data, origin.uri, options)

    def enter(at: containers.At, found: str) -> bool:
        return found == origin.member or origin.member.startswith(found + containers.SEPARATOR)

    if holding.holds:
        _, documents = readers.inside(holding, origin.uri, options, containers.Turn(), enter)
        for one in documents:
            if one.path == origin.member and one.error is None:
                return one.data
    raise errors.DocumentError("vanished", "it is not in its file any more")


def draw(origin: Origin, wanted: Wanted, most_bytes: int) -> Picture:
    """A page with the passage marked. For a worker.

    Raises:
        DocumentError: as `read`; damaged, no_page (see pdf_picture).
    """
    from pipeline.readers import pdf_picture  # pdfium, which the server itself must not load

    return pdf_picture.draw(read(origin, most_bytes), wanted)
