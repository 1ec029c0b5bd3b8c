"""Reading: from a file to a `document.Document`. The one door to every parser; imports none of them itself.

Parsers may hang, die or eat memory on hostile input: call `read_file` in a worker (see pipeline.workers), never in the
main process. Nothing here opens a socket, follows an external entity or runs a macro.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline import document, errors, ids
from pipeline.readers import containers, formats, seam

MEGABYTE = 1_000_000  # in "max_file_mb"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """What decides how a file is read; values as in config.ReaderSettings and config.SourceSettings."""

    pdf: str = "pdfium"
    docx: str = "unstructured"
    html: str = "lxml"
    doc: str = "none"  # see doc.available
    max_file_mb: int = 200
    attachments: bool = True
    archives: bool = False
    ocr: str = ""  # see ocr.chosen
    ocr_page_s: float = 60.0
    ocr_pages: int = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadResult:
    """What became of one file.

    Attributes:
        content_hash: of its bytes; "" where they were not all read.
        size, mtime_ns, inode: by fstat of the open file; 0 where it could not be opened.
        reader: name/version of what read or refused it.
        document: None if it could not be read, and then:
        kind: the word that reports count by (see `read_file`).
        reason: one line for people, without the path.
        remedy: what the user may do about it, or "".
        holds: which kind of container it is ("" for none): `inside` finds the documents in its `data`. One that only
            holds others has no document and is "ok".
    """

    content_hash: str
    size: int
    mtime_ns: int
    inode: int
    reader: str
    document: document.Document | None = None
    kind: str = ""
    reason: str = ""
    remedy: str = ""
    holds: str = ""
    data: bytes = field(default=b"", repr=False)


def known(name: str, options: ReaderOptions | None = None) -> bool:
    """Whether a file of this name is a document, or with these options holds some, by its extension alone."""
    return formats.by_name(name) is not None or (
        options is not None and options.archives and containers.may_be_archive(name)
    )


def promised(name: str) -> str:
    """The media type that the name alone promises; "" for a name that tells nothing."""
    found = formats.by_name(name)
    return found.media_type if found is not None else ""


def is_text(name: str) -> bool:
    """Whether a file of this name is read by this program itself, in a time that its size tells."""
    found = formats.by_name(name)
    return found is not None and not found.binary


def reader_of(name: str, options: ReaderOptions) -> str:
    """The reader ("pdfium/1") that the name alone would choose now; files of unknown extension are tried as text."""
    if options.archives and containers.may_be_archive(name):
        return containers.ARCHIVE
    return _made_by(formats.by_name(name) or formats.FORMATS["text"], options)


def _made_by(format_: formats.Format, options: ReaderOptions) -> str:
    """Its reader, and whether what is inside is read as well: all that decides what becomes of a file."""
    holds = options.attachments and format_.name in containers.MAILS
    recognised = f"+{options.ocr}" if options.ocr and _reader(format_, options).module == "pdf" else ""
    return f"{_reader(format_, options)}{recognised}{containers.OF_MAILS if holds else ''}"


def is_current(reader: str, name: str, options: ReaderOptions) -> bool:
    """Whether a file that `reader` ("name/version") has read needs no other reading now.

    The content may have chosen another format than the name: then that format's reader must still be the chosen one, in
    this version.
    """
    if reader == reader_of(name, options) or (reader == containers.ARCHIVE and options.archives):
        return True
    entry = formats.BY_READER.get(reader.partition("/")[0])
    if entry is None:
        return False
    if _reader(entry[0], options).refuses:  # it was there when this was read: a missing program drops no document
        return str(entry[1]) == reader
    return _made_by(entry[0], options) == reader


def read_bytes(data: bytes, name: str, options: ReaderOptions) -> document.Document:
    """Read a document from memory. `name`: the file's, as a hint at its format. Pure.

    Raises:
        DocumentError: empty, too_large, encrypted, needs_ocr, garbled, damaged, unknown_type, zip_bomb.
        MemoryError: it needs more than there is.
    """
    if not data:
        raise errors.DocumentError("empty", "0 bytes")
    if len(data) > options.max_file_mb * MEGABYTE:
        raise _too_large(len(data), options)
    return _read(data, name, _format(data, name), options)


def read_file(path: bytes, name: str, options: ReaderOptions) -> ReadResult:
    """Read a file. `path`: bytes, as names need not be text; `name`: as for `read_bytes`.

    A file that cannot be read is a result like any other, its `kind` one of read_bytes' or: vanished, permission, io,
    changing (twice changed while it was read).

    Raises:
        MemoryError: it needs more than there is.
    """
    for _ in range(2):
        try:
            result = _attempt(path, name, options)
        except OSError as error:
            return _unopened(name, options, error)
        if result.kind != "changing":
            return result
    return result


def _attempt(path: bytes, name: str, options: ReaderOptions) -> ReadResult:
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  (bytes)
        # before open: opening a FIFO or a tape has effects of its own
        raise OSError(errno.EINVAL, "not a regular file")
    # O_NONBLOCK: should a FIFO have taken its place by now, open returns at once.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb", buffering=0):
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if before.st_size > options.max_file_mb * MEGABYTE:
            return _refused("", before, reader_of(name, options), _too_large(before.st_size, options))
        data = _read_all(descriptor, before.st_size)
        after = os.fstat(descriptor)
    if len(data) != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        changing = errors.DocumentError("changing", "changed while it was read")
        return _refused("", after, reader_of(name, options), changing)
    return _parsed(data, before, name, options)


def _read_all(descriptor: int, size: int) -> bytes:
    """Up to size + 1 bytes: one more than promised tells that the file has grown."""
    parts = []
    left = size + 1
    while left > 0 and (part := os.read(descriptor, min(left, 1 << 24))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _parsed(data: bytes, status: os.stat_result, name: str, options: ReaderOptions) -> ReadResult:
    read = read_member(data, name, options)
    return replace(read, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino)


def read_member(data: bytes, name: str, options: ReaderOptions) -> ReadResult:
    """Read what has no place in a file system: a file's content, or a document inside a file. As `read_file`.

    Raises:
        MemoryError: it needs more than there is.
    """
    result = ReadResult(
        content_hash=ids.content_hash(data), size=len(data), mtime_ns=0, inode=0, reader=reader_of(name, options)
    )
    try:
        if not data:
            raise errors.DocumentError("empty", "0 bytes")
        if len(data) > options.max_file_mb * MEGABYTE:
            raise _too_large(len(data), options)
        if archive := _archive_kind(data, name, options):
            return replace(result, reader=containers.ARCHIVE, holds=archive, data=data)
        format_ = _format(data, name)
        result = replace(result, reader=_made_by(format_, options))
        if options.attachments and format_.name in containers.MAILS:
            result = replace(result, holds=format_.name, data=data)
        if result.holds in containers.ONLY_HOLD:
            return result
        return replace(result, document=_read(data, name, format_, options))
    except errors.DocumentError as error:
        refused = replace(result, kind=error.kind, reason=error.message, remedy=error.remedy)
        # A mail that says nothing may have attachments all the same.
        return refused if error.kind in ("empty", "garbled") else replace(refused, holds="", data=b"")


def kind_of(data: bytes, name: str, options: ReaderOptions) -> str:
    """Which kind of container `data` is with these options: an archive, a mail or a mailbox; "" for none.

    Raises:
        DocumentError: as `read_bytes`, of a file that is neither.
    """
    if archive := _archive_kind(data, name, options):
        return archive
    promised = formats.by_name(name)
    if not options.attachments or promised is None or promised.name not in containers.MAILS or not data:
        return ""
    found = _format(data, name).name
    return found if found in containers.MAILS else ""


def _archive_kind(data: bytes, name: str, options: ReaderOptions) -> str:
    if not options.archives:
        return ""
    from pipeline.readers import unpack  # zipfile and tarfile, which the scanner need not wait for

    return unpack.kind(data, name)


def inside(
    result: ReadResult,
    name: str,
    options: ReaderOptions,
    turn: containers.Turn,
    enter: Callable[[containers.At, str], bool] = lambda at, path: True,
    over: Callable[[int], bool] = lambda size: False,
) -> tuple[containers.Walk, Iterator[containers.Found]]:
    """The documents inside what `read_file` has read, for this turn; the walk tells what is left. See containers.Walk.

    The iterator raises DocumentError where the file cannot be opened as what it is.
    """
    walk = containers.Walk(
        turn,
        kind_of=lambda data, member: kind_of(data, member, options),
        known=lambda member: known(member, options),
        enter=enter,
        over=over,
    )
    return walk, walk.run(result.data, result.holds, name)


def _read(data: bytes, name: str, format_: formats.Format, options: ReaderOptions) -> document.Document:
    reader = _reader(format_, options)
    with seam.one_error(str(reader)):
        draft = reader.load()(data, name, **_recognition(reader, options))
    if not draft.blocks:
        raise errors.DocumentError("empty", "no text in it")
    from pipeline.readers import decode

    share = decode.unreadable_share(draft.text)
    if share > decode.GARBLED_SHARE:
        raise errors.DocumentError("garbled", f"{share:.0%} of its characters are unreadable")
    return document.Document(
        title=draft.title,
        media_type=format_.media_type,
        text=draft.text,
        blocks=draft.blocks,
        reader=str(reader),
        left_out=draft.left_out,
    )


def _recognition(reader: formats.Reader, options: ReaderOptions) -> dict[str, Any]:
    """What a reader of pages is told besides: how those without text are read."""
    if not options.ocr or not (reader.module == "pdf" or reader.function == "read_pdf_hi_res"):
        return {}
    from pipeline.readers import ocr

    return {"recognition": ocr.Recognition(choice=options.ocr, page_s=options.ocr_page_s, pages=options.ocr_pages)}


def _format(data: bytes, name: str) -> formats.Format:
    from pipeline.readers import detect  # not above: see formats, whose import has to stay light

    with seam.one_error("type detection"):
        return detect.format_of(data, name)


def _reader(format_: formats.Format, options: ReaderOptions) -> formats.Reader:
    if len(format_.readers) == 1:
        return next(iter(format_.readers.values()))
    chosen: str = getattr(options, format_.name)
    try:
        return format_.readers[chosen]
    except KeyError:
        raise errors.ConfigError(
            f"readers.{format_.name} = {chosen!r}: no such reader", f"Choose one of: {', '.join(format_.readers)}."
        ) from None


def _too_large(size: int, options: ReaderOptions) -> errors.DocumentError:
    return errors.DocumentError(
        "too_large",
        f"{size / MEGABYTE:.1f} MB, more than the {options.max_file_mb} MB of source.max_file_mb",
        "Raise source.max_file_mb.",
    )


def _refused(content_hash: str, status: os.stat_result, reader: str, error: errors.DocumentError) -> ReadResult:
    return ReadResult(
        content_hash=content_hash,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        reader=reader,
        kind=error.kind,
        reason=error.message,
        remedy=error.remedy,
    )


def _unopened(name: str, options: ReaderOptions, error: OSError) -> ReadResult:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        kind = "vanished"
    elif isinstance(error, PermissionError):
        kind = "permission"
    else:
        kind = "io"
    reason = error.strerror or str(error)
    return ReadResult(
        content_hash="", size=0, mtime_ns=0, inode=0, reader=reader_of(name, options), kind=kind, reason=reason
    )
