"""Whether the files behind some passages are still as they were when they were indexed.

As the program's own runs do: size and time first, and where they differ the content, so that a file that was only
touched or copied back counts as it was. A document inside another file (an archive, a mail) stands and falls with
that file. Looks at the few files that are asked for, and at no other.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import scan, schema, tasks
from pipeline.store import Collection, Snapshot

Stale = Literal["changed", "gone"]

_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})|\\\\")


def stale(collection: Collection, snapshot: int, uris: Iterable[str]) -> dict[str, Stale]:
    """Which of the documents are not any more what snapshot number `snapshot` says, and how.

    Nothing is said of a file whose source folder is not there (an unmounted disk), nor of one that cannot be read.

    Raises:
        CorruptStore: the snapshot is damaged.
    """
    known = collection.snapshot(snapshot)
    if known is None:
        return {}
    rows = _rows(known, set(uris))
    found = {uri: _fate(place(known.sources, str(row["container"] or uri)), row) for uri, row in rows.items()}
    return {uri: fate for uri, fate in found.items() if fate is not None}


def file_of(snapshot: Snapshot, uri: str) -> str:
    """The uri of the file that a document is, or lies in."""
    row = _rows(snapshot, {uri}).get(uri)
    return str(row["container"] or uri) if row is not None else uri


def place(sources: Sequence[str], uri: str) -> bytes | None:
    """The path of a file by its uri; None where its source folder is not there."""
    folders = [Path(source) for source in sources]
    for folder, prefix in zip(folders, scan.prefixes(folders), strict=True):
        if uri.startswith(prefix) and folder.is_dir():
            below = uri.removeprefix(prefix)
            path = os.path.join(os.fsencode(folder), os.fsencode(below))  # noqa: PTH118  # a name that need not be text
            return path if "\\" not in below or os.path.lexists(path) else _unescaped(os.fsencode(folder), below)
    return None


def _unescaped(folder: bytes, below: str) -> bytes:
    """The name that `scan.text_name` wrote with escapes, since it is not UTF-8."""
    name = _ESCAPE.sub(lambda found: bytes([int(found[1], 16)]) if found[1] else b"\\", below.encode())
    return folder + b"/" + name


def _rows(snapshot: Snapshot, uris: set[str]) -> Mapping[str, dict[str, Any]]:
    table = snapshot.table.filter(pc.is_in(snapshot.table["uri"], pa.array(sorted(uris), pa.string())))
    containers = {row["container"] for row in table.to_pylist()} - {None}
    holding = snapshot.table.filter(pc.is_in(snapshot.table["uri"], pa.array(sorted(containers), pa.string())))
    hashes = {row["uri"]: row["content_hash"] for row in holding.to_pylist()}
    return {
        row["uri"]: row | {"content_hash": hashes.get(row["container"], row["content_hash"])}
        for row in table.to_pylist()
    }


def _fate(path: bytes | None, row: Mapping[str, Any]) -> Stale | None:
    if path is None:
        return None
    try:
        now = os.stat(path)  # noqa: PTH116  # a name that need not be text
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except OSError:
        return None
    if (now.st_size, schema.to_int64(now.st_mtime_ns)) == (row["size"], row["mtime_ns"]):
        return None
    content = "" if now.st_size != row["size"] else tasks.hash_file(path, now.st_size)
    if now.st_size == row["size"] and not content:  # it cannot be read
        return None
    return None if content == row["content_hash"] else "changed"
