"""Which format a file really has: content before name. Looks at bytes only, never parses.

Knows the signatures of the formats that are read, and of enough others to name them in the refusal.
"""

from __future__ import annotations

import codecs
import re

from pipeline import errors
from pipeline.readers import archives, formats

_HEAD = 1024
_SAMPLE = 65_536
_STRAY_CONTROLS = 3  # happen in a text, however short
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML = re.compile(rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,500}?-->\s*)*<(?:!doctype\s+html|html[\s>])", re.I | re.S)
# Control bytes that no text has. Bell, backspace and escape do occur: in ISO-2022, and in logs of a terminal.
_CONTROL_BYTES = bytes(byte for byte in range(32) if byte not in b"\a\b\t\n\v\f\r\x1b")

_FOREIGN = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\x00", "a program"),
    (b"\xca\xfe\xba\xbe", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"PAR1", "a Parquet file"),
    (b"OggS", "an audio file"),
    (b"ID3", "an audio file"),
    (b"wOF2", "a font"),
)


def format_of(data: bytes, name: str) -> formats.Format:
    """The format to read `data` as.

    Raises:
        DocumentError: unknown_type, or what archives.format_name says of a zip (zip_bomb, damaged, encrypted).
    """
    promised = formats.by_name(name)
    found = _by_signature(data, promised)
    if found is not None:
        return formats.FORMATS[found]
    if looks_binary(data):
        if promised is not None and promised.binary:
            return promised  # its parser can tell best what is wrong with it
        raise errors.DocumentError("unknown_type", f"{name}: binary, and no format that can be read")
    if promised is None or promised.binary:
        promised = formats.FORMATS["text"]
    if promised.name in ("text", "xml") and _HTML.match(data[:_HEAD]):
        return formats.FORMATS["html"]
    return promised


def looks_binary(data: bytes) -> bool:
    """Whether `data` is text in no encoding: over one control byte in a hundred, UTF-16 and UTF-32 set aside."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)) or _is_utf16(data[:_SAMPLE]):
        return False
    sample = data[:_SAMPLE]
    controls = len(sample) - len(sample.translate(None, _CONTROL_BYTES))
    return controls > max(_STRAY_CONTROLS, len(sample) // 100)


def _is_utf16(sample: bytes) -> bool:
    """UTF-16 of mostly Western text without a mark.

    NUL in nearly every even or nearly every odd byte, in none of the others.
    """
    if len(sample) < 8:
        return False
    even, odd = sample[0::2], sample[1::2]
    zeros = sorted((even.count(0) / len(even), odd.count(0) / len(odd)))
    return zeros[0] == 0 and zeros[1] > 0.7


def _by_signature(data: bytes, promised: formats.Format | None) -> str | None:
    head = data[:_HEAD]
    if not head.strip(b"\0") and not data.strip(b"\0"):
        raise errors.DocumentError(
            "damaged", "nothing but zero bytes: it was never written to the disk", "Restore it from a backup."
        )
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return archives.format_name(data, promised)
    if head.startswith(_OLE):
        return _in_ole(data)
    if head.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b"%PDF-"):
        return "pdf"
    # ISO 32000 readers allow up to 1,024 bytes before the header; a text *about* PDF must stay a text.
    if b"%PDF-" in head and (looks_binary(data) or (promised is not None and promised.name == "pdf")):
        return "pdf"
    if head.startswith(b"{\\rtf"):
        return "rtf"
    for signature, what in _FOREIGN:
        if head.startswith(signature) and looks_binary(data):
            raise errors.DocumentError("unknown_type", f"{what}: no text to read")
    return None


def _in_ole(data: bytes) -> str:
    """The kind of an OLE compound file, by the names in its directory (UTF-16, never compressed)."""
    if _has_entry(data, "EncryptedPackage"):
        raise errors.DocumentError("encrypted", "protected by a password", "Save a copy without the password.")
    if _has_entry(data, "__properties_version1.0"):
        return "msg"
    if _has_entry(data, "Workbook") or _has_entry(data, "Book"):
        return "xls"
    if _has_entry(data, "WordDocument"):
        return "doc"
    if _has_entry(data, "PowerPoint Document"):
        raise errors.DocumentError("unknown_type", "the old binary .ppt format", "Save it as .pptx.")
    if not _has_entry(data, "Root Entry"):
        raise errors.DocumentError("damaged", "an OLE compound file without its directory: cut off")
    raise errors.DocumentError("unknown_type", "an OLE compound file of an unknown kind")


def _has_entry(data: bytes, name: str) -> bool:
    """Names are compared without regard to case (MS-CFB 2.6.4), so some programs write them in capitals."""
    return any((spelt + "\0").encode("utf-16-le") in data for spelt in (name, name.upper()))
