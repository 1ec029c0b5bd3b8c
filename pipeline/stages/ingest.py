"""Files to documents: which files are due, and the rows that come of them. No paths, no clock, no reading of files.

A file is trusted unread when size, mtime and inode are those of the last snapshot *and* the mtime is older than that
scan by more than a clock's granularity (an edit within it leaves the same mtime: git calls such entries racy).
Everything else is hashed, and read again only when the hash or the reader changed.

A scan and the last snapshot are compared column by column; rows are made only of what differs.

A file may hold documents (an archive, a mail with attachments): each has a row that names its container, and what
becomes of the file becomes of them. Only when the file is read again are they compared one by one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import document, ids, schema

VERSION = 1
SHARD_BYTES = 512 * 1024  # of text
GRANULARITY_NS = 2_000_000_000  # FAT and some network file systems keep two seconds

# Failures to get at a file, which say nothing of what is in it: the next run looks again, and what was known stays.
PASSING = frozenset({"vanished", "permission", "io", "changing", "loop", "unmounted"})
# Those, and a worker's failures: the documents inside a file that fails so stay as they were.
WITHHELD = PASSING | {"timeout", "crash", "memory", "worker"}

# What the reject log calls a document of which some pages could not be read; the rest of it is searchable.
PAGES = "pages"

Row = dict[str, Any]  # one row of schema.SNAPSHOT or schema.DOCUMENTS
_Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a scan tells of one file."""

    uri: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A file to be opened. `known_hash`: with this content nothing has to be read again ("": read it in any case).

    `inside`: the rows of the documents that were in it.
    """

    index: int  # into the files that were planned
    uri: str
    known_hash: str
    previous: Row | None
    inside: tuple[Row, ...] = ()

    @property
    def before(self) -> tuple[Row, ...]:
        """All that the last snapshot says of it."""
        return (*((self.previous,) if self.previous is not None else ()), *self.inside)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What becomes of the files of a scan and of the rows of the last snapshot.

    Attributes:
        keep: rows carried over unread, a table of schema.SNAPSHOT in the order of the last one.
        due: what to open, by uri.
        gone: rows of documents that are not there.
        withheld: rows of files that cannot be looked at now.
        stale: a carried row was too young at the last scan and is not any more: worth a new snapshot.
    """

    keep: pa.Table
    due: tuple[Due, ...]
    gone: tuple[Row, ...]
    withheld: tuple[Row, ...] = ()
    stale: bool = False


def plan(
    files: pa.Table,
    previous: pa.Table,
    scanned_ns: int,
    *,
    now_ns: int,
    is_current: Callable[[str], bool],
    unreadable: Sequence[str] = (),
    retry: bool = False,
) -> Plan:
    """Compare a scan with the last snapshot.

    Args:
        files: of schema.SCAN, in any order, no uri twice.
        previous: the last snapshot (schema.SNAPSHOT); scanned_ns: when its scan began; now_ns: when this one did.
        is_current: whether what a reader ("name/version") made of a file still holds.
        unreadable: uris that could not be looked at: what was known of them, and below them, stays.
        retry: open failed files again although nothing changed.
    """
    snapshot, inner = previous, _inner(previous)
    previous = snapshot.filter(pc.invert(inner.mask)) if inner.table.num_rows else snapshot
    at: NDArray[np.int64] = pc.index_in(files["uri"], previous["uri"]).fill_null(-1).to_numpy().astype(np.int64)
    found = at >= 0
    same = found & _equal(files, previous, at)
    mtime_ns = files["mtime_ns"].to_numpy()
    old = mtime_ns < scanned_ns - GRANULARITY_NS
    holds = _usable(previous, is_current, retry=retry) & inner.usable(previous, is_current, retry=retry)
    usable = found & holds[at] if previous.num_rows else found
    kept, unseen = usable & same & old, np.ones(previous.num_rows, dtype=bool)
    unseen[at[found]] = False
    hidden, withheld, gone = _unseen(previous, np.flatnonzero(unseen), unreadable)
    carried = np.zeros(previous.num_rows, dtype=bool)
    carried[at[kept]] = carried[hidden] = True
    racy = usable & same & ~old & (mtime_ns < now_ns - GRANULARITY_NS)
    stays = carried.copy()
    stays[withheld] = True
    due = files["uri"].filter(pa.array(~kept))
    below = inner.sorted_out(previous["uri"].filter(pa.array(stays)), due)
    return Plan(
        keep=_kept(snapshot, inner, carried, below.stay),
        due=_due(files, previous, np.flatnonzero(~kept), np.where(found, at, -1), usable, below.due),
        gone=_rows(previous, gone) + below.gone,
        withheld=_rows(previous, withheld),
        stale=bool(racy.any()),
    )


def _kept(snapshot: pa.Table, inner: _Inner, carried: _Mask, stay: _Mask) -> pa.Table:
    """The rows of `snapshot` that stay, of files and of what is in files, in their order."""
    if carried.all() and stay.all():
        return snapshot
    if not inner.table.num_rows:
        return snapshot.filter(pa.array(carried))
    mask = np.zeros(snapshot.num_rows, dtype=bool)
    is_inner: _Mask = inner.mask.to_numpy()
    mask[~is_inner], mask[is_inner] = carried, stay
    return snapshot.filter(pa.array(mask))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Below:
    """What becomes of the documents inside files: which stay, which are looked at again (by file), which are gone."""

    stay: _Mask
    due: Mapping[str, tuple[Row, ...]]
    gone: tuple[Row, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inner:
    """The rows of a snapshot that stand for documents inside files. `mask`: where they are in it."""

    mask: Any
    table: pa.Table

    def usable(self, files: pa.Table, is_current: Callable[[str], bool], *, retry: bool) -> _Mask:
        """Which of `files` hold no document that has to be read again."""
        if not self.table.num_rows:
            return np.ones(files.num_rows, dtype=bool)
        outdated = pa.array(~_usable(self.table, is_current, retry=retry))
        containers = pc.unique(self.table["container"].filter(outdated))
        return cast("_Mask", pc.invert(pc.is_in(files["uri"], containers)).to_numpy())

    def sorted_out(self, staying: Any, due: Any) -> _Below:
        """`staying`: the files whose documents stay; `due`: those that are opened. All others are gone."""
        if not self.table.num_rows:
            return _Below(stay=np.ones(0, dtype=bool), due={}, gone=())
        container = self.table["container"]
        stay = pc.is_in(container, staying.combine_chunks())
        opened = pc.and_(pc.is_in(container, due.combine_chunks()), pc.invert(stay))
        gone = pc.and_(pc.is_valid(self.table["doc_id"]), pc.invert(pc.or_(stay, opened)))
        found: dict[str, list[Row]] = {}
        for row in self.table.filter(opened).to_pylist():
            found.setdefault(row["container"], []).append(row)
        return _Below(
            stay=cast("_Mask", stay.to_numpy()),
            due={uri: tuple(rows) for uri, rows in found.items()},
            gone=tuple(self.table.filter(gone).to_pylist()),
        )


def _inner(snapshot: pa.Table) -> _Inner:
    mask = pc.is_valid(snapshot["container"])
    none = snapshot["container"].null_count == snapshot.num_rows
    return _Inner(mask=mask, table=snapshot.slice(0, 0) if none else snapshot.filter(mask))


def _equal(files: pa.Table, previous: pa.Table, at: NDArray[np.int64]) -> _Mask:
    """Whether each file is as its row `at` says (any value where there is none)."""
    same = np.ones(files.num_rows, dtype=bool)
    for name in ("size", "mtime_ns", "inode"):
        if previous.num_rows:
            same &= files[name].to_numpy() == previous[name].to_numpy()[at]
    return same


def _usable(previous: pa.Table, is_current: Callable[[str], bool], *, retry: bool) -> _Mask:
    """Which rows still hold, if their file has not changed."""
    status, reader = previous["status"], previous["reader"]
    current = [name for name in schema.strings(pc.unique(reader)) if is_current(name)]
    again = [name for name in schema.strings(pc.unique(status)) if name in PASSING or (retry and name != "ok")]
    usable = pc.and_(_among(reader, current), pc.invert(_among(status, again)))
    return cast("_Mask", usable.to_numpy())


def _among(column: pa.ChunkedArray[Any], values: Sequence[str]) -> Any:
    return pc.is_in(column, pa.array(values, pa.string()))


def _unseen(
    previous: pa.Table, unseen: NDArray[np.int64], unreadable: Sequence[str]
) -> tuple[list[int], list[int], list[int]]:
    """The rows of no file that was found: below an unreadable folder, unreadable themselves, and of documents gone."""
    names, below = frozenset(unreadable), tuple(f"{name}/" for name in unreadable)
    hidden: list[int] = []
    withheld: list[int] = []
    gone: list[int] = []
    rows = previous.select(["uri", "doc_id"]).take(unseen)
    for row, uri, doc in zip(unseen.tolist(), schema.strings(rows["uri"]), rows["doc_id"].to_pylist(), strict=True):
        if uri in names:
            withheld.append(row)
        elif uri.startswith(below):
            hidden.append(row)
        elif doc is not None:
            gone.append(row)
    return hidden, withheld, gone


def _due(
    files: pa.Table,
    previous: pa.Table,
    due: NDArray[np.int64],
    at: NDArray[np.int64],
    usable: _Mask,
    inside: Mapping[str, tuple[Row, ...]],
) -> tuple[Due, ...]:
    rows = iter(_rows(previous, at[due][at[due] >= 0].tolist()))
    found: list[Due] = []
    for index, uri in zip(due.tolist(), schema.strings(files["uri"].take(due)), strict=True):
        row = next(rows) if at[index] >= 0 else None
        known = row["content_hash"] if row is not None and usable[index] else ""
        found.append(Due(index=index, uri=uri, known_hash=known, previous=row, inside=inside.get(uri, ())))
    return tuple(sorted(found, key=lambda item: item.uri))


def _rows(table: pa.Table, at: Sequence[int]) -> tuple[Row, ...]:
    return tuple(table.take(pa.array(at, pa.int64())).to_pylist()) if len(at) else ()


def unread(row: Row) -> Row:
    """`row` of a file that was due and was not opened: it stays, and is due again, since no file has such an inode."""
    return row | {"inode": -1}


def unseen(uri: str, kind: str, before: Row | None) -> Row:
    """The row of a name that cannot be looked at now, for the reason `kind`; what was known of it stays searchable."""
    nothing = Seen(uri=uri, size=0, mtime_ns=0, inode=0)
    row = snapshot_row(nothing, content_hash="", reader="scan/1", status=kind, documents=None, shard="")
    return still_live(row, before)


def still_live(row: Row, before: Row | None) -> Row:
    """`row` of a failure that says nothing of the file's content, with the document that was `before`."""
    return row | ({key: before[key] for key in ("doc_id", "doc_hash", "shard")} if before is not None else {})


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


def snapshot_row(
    seen: Seen,
    *,
    content_hash: str,
    reader: str,
    status: str,
    documents: Row | None,
    shard: str,
    container: str | None = None,
) -> Row:
    """One row of schema.SNAPSHOT; `documents`: the document's row, None for a file that failed or has no own text."""
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
        "container": container,
    }


def shard(rows: Sequence[Row]) -> tuple[str, pa.Table]:
    """Name and table (schema.DOCUMENTS) of a shard of these rows."""
    name = ids.shard_name(row["doc_hash"] for row in rows)
    return name, pa.Table.from_pylist(list(rows), schema=schema.DOCUMENTS)


def snapshot_table(rows: Iterable[Mapping[str, Any]], keep: pa.Table | None = None) -> pa.Table:
    """Rows of schema.SNAPSHOT, and those of `keep`, as a table in order of uri."""
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema.SNAPSHOT)
    if keep is not None:
        table = pa.concat_tables([keep, table])
    return table.take(pc.sort_indices(table["uri"])).combine_chunks()


def is_document(row: Row) -> bool:
    """Whether `row` is of a text that can be searched, not of a failure or of a file that only holds documents."""
    return row["status"] == "ok" and row["doc_hash"] is not None


def settled(plan_: Plan, rows: Mapping[str, Row]) -> Plan:
    """`plan_`, now that `rows` (by uri) say what the due files hold: what is no longer inside one of them is gone."""
    reached = (due for due in plan_.due if due.uri in rows)
    lost = [row for due in reached for row in due.inside if row["doc_id"] is not None and row["uri"] not in rows]
    return replace(plan_, gone=(*plan_.gone, *lost)) if lost else plan_


def fates(plan_: Plan, rows: Mapping[str, Row]) -> dict[str, int]:
    """How many documents are new, changed, moved, deleted, unchanged, failed.

    A file is one, unless it only holds others (an archive); what is inside a file counts like a file.

    Args:
        plan_: `settled`.
        rows: what came of the files that were not kept, by uri. A new file with the content of one that is gone counts
            as moved.
    """
    gone = Counter(row["content_hash"] for row in plan_.gone)
    counts = dict.fromkeys(("new", "changed", "moved", "deleted", "unchanged", "failed"), 0)
    ok = pc.equal(plan_.keep["status"], pa.scalar("ok"))
    counts["unchanged"] = _true(pc.and_(ok, pc.is_valid(plan_.keep["doc_id"])))
    counts["failed"] = plan_.keep.num_rows - _true(ok) + sum(row["status"] != "ok" for row in rows.values())
    known = {row["uri"]: row for due in plan_.due for row in due.before}
    for uri, now in rows.items():
        if not is_document(now):
            continue
        before = known.get(uri)
        if before is not None:
            counts["unchanged" if before["doc_hash"] == now["doc_hash"] else "changed"] += 1
        elif gone[now["content_hash"]]:
            gone[now["content_hash"]] -= 1
            counts["moved"] += 1
        else:
            counts["new"] += 1
    counts["deleted"] = len(plan_.gone) - counts["moved"]
    return counts


def _true(mask: Any) -> int:
    return int(pc.sum(mask).as_py() or 0)
