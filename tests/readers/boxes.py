"""Files that hold documents, made by the standard library as users' programs make them."""

from __future__ import annotations

import email.message
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from tests.readers import samples

Content = Any  # str or bytes; a dictionary of both is one of neither to a type checker
Attachment = Any  # str, bytes or another message


def zipped(members: Mapping[str, Content] | Iterable[tuple[str, Content]], *, packed: bool = True) -> bytes:
    out = io.BytesIO()
    pairs = members.items() if isinstance(members, Mapping) else members
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, content in pairs:
            archive.writestr(zipfile.ZipInfo(name), content, archive.compression)
    return out.getvalue()


def tarred(members: Mapping[str, Content], *, mode: str = "w", specials: Iterable[tarfile.TarInfo] = ()) -> bytes:
    """`mode`: "w", "w:gz", "w:bz2" or "w:xz"; `specials`: links and devices, which have no content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in specials:
            archive.addfile(info)
    return out.getvalue()


def gzipped(content: Content) -> bytes:
    return gzip.compress(content.encode() if isinstance(content, str) else content, mtime=0)


def mail(subject: str, body: str = "The body.", attached: Mapping[str, Attachment] | None = None) -> bytes:
    return message(subject, body, attached).as_bytes()


def message(
    subject: str, body: str = "The body.", attached: Mapping[str, Attachment] | None = None
) -> email.message.EmailMessage:
    made = email.message.EmailMessage()
    made["Subject"] = subject
    made["From"] = "Ewan <ewan@example.org>"
    made["Date"] = "Tue, 03 Feb 2026 10:00:00 +0000"
    made.set_content(body)
    for name, content in (attached or {}).items():
        if isinstance(content, email.message.EmailMessage):
            made.add_attachment(content)
        elif isinstance(content, str):
            made.add_attachment(content, filename=name)
        else:
            made.add_attachment(content, maintype="application", subtype="octet-stream", filename=name)
    if made.is_multipart():
        made.set_boundary(f"=-{zlib.crc32(subject.encode())}-=")  # the same bytes each time
    return made


def mailbox(*messages: bytes) -> bytes:
    return samples.mbox(*messages)


# -- Outlook


def msg(subject: str, body: str, files: Mapping[str, bytes]) -> bytes:
    """An Outlook message with files attached: a storage each, with its own properties (MS-OXMSG 2.2)."""
    texts = {0x0037: subject, 0x0042: "Ewan Brock", 0x1000: body}
    streams = [(f"__substg1.0_{tag:04X}001F", text.encode("utf-16-le")) for tag, text in texts.items()]
    header = struct.pack("<8x4I8x", 0, len(files), 0, len(files))
    header += b"".join(_property(tag, 0x1F, 2 * len(text) + 2) for tag, text in texts.items())
    storages = {f"__attach_version1.0_#{n:08X}": _attached(name, data) for n, (name, data) in enumerate(files.items())}
    return compound([*streams, ("__properties_version1.0", header)], storages)


def _attached(name: str, data: bytes) -> list[tuple[str, bytes]]:
    words = name.encode("utf-16-le")
    by_value = struct.pack("<HHIQ", 0x0003, 0x3705, 6, 1)
    header = b"\0" * 8 + _property(0x3707, 0x1F, len(words) + 2) + _property(0x3701, 0x102, len(data)) + by_value
    return [
        ("__substg1.0_3707001F", words),
        ("__substg1.0_37010102", data),
        ("__properties_version1.0", header),
    ]


def _property(tag: int, kind: int, size: int) -> bytes:
    return struct.pack("<HHIQ", kind, tag, 6, size)


def compound(streams: list[tuple[str, bytes]], storages: Mapping[str, list[tuple[str, bytes]]]) -> bytes:
    """An OLE compound file, version 3, of streams and of storages with streams, all below 4,096 bytes (MS-CFB)."""
    mini, mini_fat = b"", list[int]()
    entries: list[bytes] = [b""]  # the root comes first, and knows the length of all streams

    def put(data: bytes) -> int:
        nonlocal mini
        start, count = len(mini) // 64, -(-len(data) // 64)
        mini_fat.extend([start + at + 1 for at in range(count - 1)] + [samples._END])
        mini += data.ljust(count * 64, b"\0")
        return start

    def row(items: list[tuple[str, bytes | list[tuple[str, bytes]]]]) -> int:
        """Siblings: a chain to the right, in order; returns the first one's number."""
        items = sorted(items, key=lambda item: (len(item[0]), item[0].upper()))
        first = len(entries)
        entries.extend([b""] * len(items))
        for at, (name, what) in enumerate(items):
            right = first + at + 1 if at < len(items) - 1 else samples._NONE
            if isinstance(what, bytes):
                entries[first + at] = samples._entry(name, 2, right=right, start=put(what), size=len(what))
            else:
                entries[first + at] = samples._entry(name, 1, right=right, child=row([*what]), start=0, size=0)
        return first

    child = row([*streams, *storages.items()])
    entries[0] = samples._entry("Root Entry", 5, child=child, start=0, size=len(mini))
    return samples.ole(mini, mini_fat, entries)
