"""Reading: from a file to a `document.Document`. The one door to every parser; imports none of them itself.

Parsers may hang, die or eat memory on hostile input: call `read_file` in a worker (see pipeline.workers), never in the
main process. Nothing here opens a socket, follows an external entity or runs a macro.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import dataclass

from pipeline import document, errors, ids
from pipeline.readers import formats

logger = logging.getLogger(__name__)

MEGABYTE = 1_000_000  # in "max_file_mb"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderOptions:
    """What decides how a file is read; values as in config.ReaderSettings and config.SourceSettings."""

    pdf: str = "pdfium"
    docx: str = "unstructured"
    html: str = "lxml"
    max_file_mb: int = 200


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


def known(name: str) -> bool:
    """Whether a file of this name is a document, by its extension alone."""
    return formats.by_name(name) is not None


def reader_of(name: str, options: ReaderOptions) -> str:
    """The reader ("pdfium/1") that the name alone would choose now; files of unknown extension are tried as text."""
    return str(_reader(formats.by_name(name) or formats.FORMATS["text"], options))


def is_current(reader: str, name: str, options: ReaderOptions) -> bool:
    """Whether a file that `reader` ("name/version") has read needs no other reading now.

    The content may have chosen another format than the name: then that format's reader must still be the chosen one, in
    this version.
    """
    if reader == reader_of(name, options):
        return True
    entry = formats.BY_READER.get(reader.partition("/")[0])
    return entry is not None and str(_reader(entry[0], options)) == reader


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
    content_hash = ids.content_hash(data)
    reader = reader_of(name, options)
    try:
        if not data:
            raise errors.DocumentError("empty", "0 bytes")
        format_ = _format(data, name)
        reader = str(_reader(format_, options))
        read = _read(data, name, format_, options)
    except errors.DocumentError as error:
        return _refused(content_hash, status, reader, error)
    return ReadResult(
        content_hash=content_hash,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=status.st_ino,
        reader=reader,
        document=read,
    )


def _read(data: bytes, name: str, format_: formats.Format, options: ReaderOptions) -> document.Document:
    reader = _reader(format_, options)
    with _one_error(str(reader)):
        draft = reader.load()(data, name)
    if not draft.blocks:
        raise errors.DocumentError("empty", "no text in it")
    from pipeline.readers import decode

    share = decode.unreadable_share(draft.text)
    if share > decode.GARBLED_SHARE:
        raise errors.DocumentError("garbled", f"{share:.0%} of its characters are unreadable")
    return document.Document(
        title=draft.title, media_type=format_.media_type, text=draft.text, blocks=draft.blocks, reader=str(reader)
    )


def _format(data: bytes, name: str) -> formats.Format:
    from pipeline.readers import detect  # not above: see formats, whose import has to stay light

    with _one_error("type detection"):
        return detect.format_of(data, name)


class _one_error:  # noqa: N801  a context manager, used as a statement
    """The one seam where parsers' exceptions end.

    On bytes from anywhere they raise anything, so that all of it means "damaged".

    MemoryError passes: it is the worker's matter. So does what is not an Exception.

    """

    def __init__(self, who: str) -> None:
        self._who = who

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, (errors.DocumentError, MemoryError)) or not isinstance(error, Exception):
            return
        logger.debug("%s failed", self._who, exc_info=error)
        what = "nested too deeply" if isinstance(error, RecursionError) else f"{type(error).__name__}: {error}"
        raise errors.DocumentError("damaged", f"{self._who} cannot read it ({what[:300]})") from error


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
