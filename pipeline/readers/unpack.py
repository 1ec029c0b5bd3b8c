"""Archives: zip, tar, and what gzip, bzip2 and xz have compressed. Members are listed first, and unpacked one by one,
in memory: no name in an archive ever becomes a path, no link is followed.

Knows no documents; limits and names are `containers`'.
"""

from __future__ import annotations

import bz2
import codecs
import functools
import gzip
import io
import lzma
import re
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable

from pipeline import errors
from pipeline.readers import containers, formats

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PACKED = (
    ("gz", rb"\x1f\x8b\x08"),
    ("bz2", rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"),
    ("xz", rb"\xfd7zXZ\x00"),
)
_OFFICE = ("[Content_Types].xml", "mimetype", "META-INF/container.xml")  # a zip that is a document
_BLOCK = 1 << 20
_SAVE = "Save a copy without the password."
_ENCRYPTED, _UTF8 = 0x1, 0x800  # bits of a member's flags
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field
_NEVER = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OSError,
)
# Tried on names that are not UTF-8 and declare nothing: what Windows writes in China, Japan, Taiwan and Korea.
_CODEPAGES = ("cp932", "gb18030", "big5", "cp949")
_CUT_ENDINGS = {"tgz": "tar", "tbz2": "tar", "tbz": "tar", "txz": "tar"}


def kind(data: bytes, name: str) -> str:
    """Which archive `data` is ("zip", "tar", "gz", "bz2", "xz"), "" for none. A zip that is an Office file, an
    OpenDocument or a book is none.
    """
    if data.startswith(_ZIP):
        return "" if _is_office(data, name) else "zip"
    for found, signature in _PACKED:
        if re.match(signature, data):
            return found
    return "tar" if _is_tar(data, name) else ""


def _is_office(data: bytes, name: str) -> bool:
    """Whether another reader knows this zip; one without a readable directory is left to whom its name promises."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = frozenset(archive.namelist())
    except _NEVER:
        return not containers.may_be_archive(name)
    return any(one in names for one in _OFFICE) or (formats.by_name(name) is not None and "content.xml" in names)


def _is_tar(data: bytes, name: str) -> bool:
    if len(data) < 512:
        return False
    if data[257:262] == b"ustar":
        return True
    if formats.extension(name) != "tar":
        return False
    try:
        tarfile.TarInfo.frombuf(data[:512], "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def members(data: bytes, kind_: str, name: str, limit: int) -> list[containers.Member]:
    """The files in an archive, in its order. `limit`: bytes that it may unpack to.

    Raises:
        DocumentError: damaged, zip_bomb.
    """
    if kind_ == "zip":
        return _in_zip(data)
    if kind_ == "tar":
        return _in_tar(data)
    unpacked = _decompressed(data, kind_, limit)
    if _is_tar(unpacked, f"{_inner_name(name)}"):
        return _in_tar(unpacked)
    return [containers.Member(name=_inner_name(name), size=len(unpacked), load=lambda: unpacked)]


def _inner_name(name: str) -> str:
    """What a compressed file is called without its compression: "notes.txt" of "notes.txt.gz"."""
    base = name.rsplit("/", 1)[-1]
    stem, _, ending = base.rpartition(".")
    if ending.lower() in _CUT_ENDINGS:
        return f"{stem}.{_CUT_ENDINGS[ending.lower()]}"
    return stem if stem and ending.lower() in ("gz", "bz2", "xz") else base


def _decompressed(data: bytes, kind_: str, limit: int) -> bytes:
    openers: dict[str, Callable[[io.BytesIO], io.BufferedIOBase]] = {
        "gz": lambda source: gzip.GzipFile(fileobj=source),
        "bz2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
    }
    out = bytearray()
    try:
        with openers[kind_](io.BytesIO(data)) as file:
            while block := file.read(_BLOCK):
                out += block
                containers.check_size(len(data), len(out), limit)
    except _NEVER as error:
        raise errors.DocumentError("damaged", f"the {kind_} file does not unpack: {error}") from error
    return bytes(out)


# -- zip


def _in_zip(data: bytes) -> list[containers.Member]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        infos = [info for info in archive.infolist() if not info.is_dir() and not _is_link(info)]
        names = _zip_names(infos)
    except (*_NEVER, struct.error, UnicodeError) as error:
        raise errors.DocumentError("damaged", f"not a readable zip archive: {error}") from error
    return [
        containers.Member(name=name, size=info.file_size, load=functools.partial(_unzipped, archive, info))
        for name, info in zip(names, infos, strict=True)
    ]


def _is_link(info: zipfile.ZipInfo) -> bool:
    """By the Unix mode in the upper half: 0o120000 is a symbolic link, whose content is only where it leads."""
    return (info.external_attr >> 16) & 0o170000 == 0o120000


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & _ENCRYPTED:
        raise errors.DocumentError("encrypted", "protected by the archive's password", _SAVE)
    try:
        with archive.open(info) as file:
            data = file.read(info.file_size + 1)
    except _NEVER as error:
        raise errors.DocumentError("damaged", f"it does not unpack: {error}") from error
    if len(data) > info.file_size:  # more than what the limits were checked with
        raise errors.DocumentError("zip_bomb", f"more than the {info.file_size:,} bytes that it declares")
    return data


def _zip_names(infos: list[zipfile.ZipInfo]) -> list[str]:
    """Names as text. The format knows UTF-8, flagged, and code page 437; programs write what their system uses."""
    raw = [info.orig_filename.encode("cp437") if not info.flag_bits & _UTF8 else b"" for info in infos]
    encoding = _encoding([one for one in raw if not one.isascii()])
    return [
        _unicode_path(info) or (info.filename if info.flag_bits & _UTF8 else name.decode(encoding, "replace"))
        for info, name in zip(infos, raw, strict=True)
    ]


def _encoding(names: list[bytes]) -> str:
    """One for all names of an archive: it comes from one machine."""
    if not names or _fits(names, "utf-8"):
        return "utf-8"
    import chardet

    found = chardet.detect(b"\n".join(names), prefer_superset=True, compat_names=False)["encoding"]
    if found and _is_codec(found) and _fits(names, found):
        return found
    return next((codec for codec in _CODEPAGES if _fits(names, codec)), "cp437")


def _is_codec(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def _fits(names: list[bytes], encoding: str) -> bool:
    try:
        text = "".join(name.decode(encoding) for name in names)
    except (UnicodeDecodeError, LookupError):
        return False
    return not any(unicodedata.category(char) in ("Cc", "Cn", "Co") or "\u2500" <= char <= "\u259f" for char in text)


def _unicode_path(info: zipfile.ZipInfo) -> str:
    """The name that Info-ZIP puts beside the one of the code page; "" for none (APPNOTE 4.6.9)."""
    extra = info.extra
    while len(extra) >= 4:
        tag, size = struct.unpack_from("<HH", extra)
        body, extra = extra[4 : 4 + size], extra[4 + size :]
        crc = zlib.crc32(info.orig_filename.encode("cp437", "replace"))
        if tag == _UNICODE_PATH and len(body) > 5 and struct.unpack_from("<BI", body) == (1, crc):
            return body[5:].decode("utf-8", "replace")
    return ""


# -- tar


def _in_tar(data: bytes) -> list[containers.Member]:
    """Regular files alone: links, devices and FIFOs have no content of their own."""
    try:
        archive = tarfile.TarFile(fileobj=io.BytesIO(data))
        infos = [info for info in archive if info.isreg() and not info.issparse()]
    except (tarfile.TarError, *_NEVER) as error:
        raise errors.DocumentError("damaged", f"not a readable tar archive: {error}") from error
    encoding = _encoding([one for info in infos if not (one := _tar_raw(info)).isascii()])
    return [
        containers.Member(
            name=_tar_raw(info).decode(encoding, "replace"),
            size=info.size,
            load=functools.partial(_untarred, data, info),
        )
        for info in infos
    ]


def _tar_raw(info: tarfile.TarInfo) -> bytes:
    return info.name.encode("utf-8", "surrogateescape")


def _untarred(data: bytes, info: tarfile.TarInfo) -> bytes:
    found = data[info.offset_data : info.offset_data + info.size]
    if len(found) != info.size:
        raise errors.DocumentError("damaged", "the archive ends within it")
    return found
