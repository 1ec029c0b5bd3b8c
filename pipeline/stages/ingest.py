"""Files to documents: which files are due, and the rows that come of them. No paths, no clock, no reading of files.

A file is trusted unread when size, mtime and inode are those of the last snapshot *and* the mtime is older than that
scan by more than a clock's granularity (an edit within it leaves the same mtime: git calls such entries racy).
Everything else is hashed, and read again only when the hash or the reader changed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import document, ids, schema

VERSION = 1
SHARD_BYTES = 512 * 1024  # of text
GRANULARITY_NS = 2_000_000_000  # FAT and some network file systems keep two seconds
PASSING = frozenset({"vanished", "permission", "io", "changing", "loop"})  # failures that the next run looks at again

Row = dict[str, Any]  # one row of schema.SNAPSHOT or schema.DOCUMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a scan tells of one file."""

    uri: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A file to be opened. `known_hash`: with this content nothing has to be read again ("": read it in any case)."""

    index: int  # into the list of files that was planned
    uri: str
    known_hash: str
    previous: Row | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`keep`: rows carried over unread; `due`: what to open, by uri; `gone`: rows of documents that are not there."""

    keep: tuple[Row, ...]
    due: tuple[Due, ...]
    gone: tuple[Row, ...]
    stale: bool  # a carried row was too young at the last scan and is not any more: worth a new snapshot


def _unchanged(seen: Seen, row: Row) -> bool:
    return bool(seen.size == row["size"] and seen.mtime_ns == row["mtime_ns"] and seen.inode == row["inode"])


def plan(
    files: Sequence[Seen],
    previous: Sequence[Row],
    scanned_ns: int,
    *,
    is_current: Callable[[str, str], bool],
    unreadable: Sequence[str] = (),
    retry: bool = False,
) -> Plan:
    """Compare a scan with the last snapshot.

    Args:
        files: in order of uri.
        previous: rows of the last snapshot; scanned_ns: when its scan began.
        is_current: whether what a reader ("name/version") made of a uri still holds.
        unreadable: folders (with "/" at the end) that could not be listed: what was known below them stays.
        retry: open failed files again although nothing changed.
    """
    rows = {row["uri"]: row for row in previous}
    keep: list[Row] = []
    due: list[Due] = []
    for index, seen in enumerate(files):
        row = rows.pop(seen.uri, None)
        failed = row is not None and row["status"] != "ok"
        usable = row is not None and is_current(row["reader"], seen.uri) and row["status"] not in PASSING
        if row is None or not usable or (failed and retry):
            due.append(Due(index=index, uri=seen.uri, known_hash="", previous=row))
        elif _unchanged(seen, row) and seen.mtime_ns < scanned_ns - GRANULARITY_NS:
            keep.append(row)
        else:
            due.append(Due(index=index, uri=seen.uri, known_hash=row["content_hash"], previous=row))
    hidden = [row for row in rows.values() if any(row["uri"].startswith(folder) for folder in unreadable)]
    gone = [row for row in rows.values() if row["doc_id"] and not any(row["uri"].startswith(f) for f in unreadable)]
    stale = any(item.known_hash for item in due)
    return Plan(keep=(*keep, *hidden), due=tuple(due), gone=tuple(gone), stale=stale)


def _blocks(blocks: Iterable[document.Block]) -> list[Row]:
    return [
        {
            "start": block.start,
            "end": block.end,
            "kind": block.kind,
            "heading_path": list(block.heading_path),
            "page": block.page,
        }
        for block in blocks
    ]


def document_row(uri: str, read: document.Document) -> Row:
    """One row of schema.DOCUMENTS."""
    blocks = _blocks(read.blocks)
    doc = ids.doc_id(uri, read.text)
    return {
        "doc_id": doc,
        "doc_hash": ids.doc_hash(doc, read.title, read.media_type, json.dumps(blocks, ensure_ascii=False)),
        "uri": uri,
        "title": read.title,
        "media_type": read.media_type,
        "text": read.text,
        "blocks": blocks,
    }


def snapshot_row(seen: Seen, *, content_hash: str, reader: str, status: str, documents: Row | None, shard: str) -> Row:
    """One row of schema.SNAPSHOT; `documents`: the document's row, None for a file that failed."""
    return {
        "uri": seen.uri,
        "size": seen.size,
        "mtime_ns": seen.mtime_ns,
        "inode": seen.inode,
        "content_hash": content_hash,
        "doc_id": documents["doc_id"] if documents else None,
        "doc_hash": documents["doc_hash"] if documents else None,
        "shard": shard if documents else None,
        "reader": reader,
        "status": status,
    }


def shard(rows: Sequence[Row]) -> tuple[str, pa.Table]:
    """Name and table (schema.DOCUMENTS) of a shard of these rows."""
    name = ids.shard_name(row["doc_hash"] for row in rows)
    return name, pa.Table.from_pylist(list(rows), schema=schema.DOCUMENTS)


def snapshot_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows of schema.SNAPSHOT as a table in order of uri."""
    ordered = sorted((dict(row) for row in rows), key=lambda row: str(row["uri"]))
    return pa.Table.from_pylist(ordered, schema=schema.SNAPSHOT)


def fates(plan_: Plan, rows: Mapping[str, Row]) -> dict[str, int]:
    """How many files are new, changed, moved, deleted, unchanged, failed.

    Args:
        rows: the new snapshot by uri. A new file with the content of one that is gone counts as moved.
    """
    gone = [row["content_hash"] for row in plan_.gone]
    counts = dict.fromkeys(("new", "changed", "moved", "deleted", "unchanged", "failed"), 0)
    counts["unchanged"] = sum(row["status"] == "ok" for row in plan_.keep)
    counts["failed"] = sum(row["status"] != "ok" for row in rows.values())
    for due in plan_.due:
        before, now = due.previous, rows.get(due.uri)
        if now is None or now["status"] != "ok":
            continue
        if before is not None:
            counts["unchanged" if before["doc_hash"] == now["doc_hash"] else "changed"] += 1
        elif now["content_hash"] in gone:
            gone.remove(now["content_hash"])
            counts["moved"] += 1
        else:
            counts["new"] += 1
    counts["deleted"] = len(plan_.gone) - counts["moved"]
    return counts
