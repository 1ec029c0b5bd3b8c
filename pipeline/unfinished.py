"""A run that its time limit ended: what was not reached stays as it was, and newest comes first while it lasts.

- A changed file that was not read keeps its last row, and so its last text is what is searched; a new one has none yet.
- A file that is gone while new ones of its size are unread may be one of them, moved: it stays until that is known.
- A document that was read and is not embedded whole is held back by `publish`: its last version goes on.

The next run finds all of it due again, and pays for nothing twice: what was read, cut or embedded is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow.compute as pc

from pipeline import scan, schema
from pipeline.changes import Scanned
from pipeline.stages import ingest
from pipeline.store import Snapshot


def to_be_read(scanned: Scanned) -> list[tuple[str, int]]:
    """Name and size of each file that is new or has another size: what was only touched costs no space."""
    sizes = [(item, scanned.found.files[item.index].size) for item in scanned.plan.due]
    return [(item.uri, size) for item, size in sizes if item.previous is None or item.previous["size"] != size]


def newest_first(due: Sequence[ingest.Due], files: Sequence[scan.File]) -> list[ingest.Due]:
    """Files to be read in the order of their modification, the last one first."""
    return sorted(due, key=lambda item: (-files[item.index].mtime_ns, item.uri))


def shards_newest_first(snapshot: Snapshot | None) -> list[str]:
    """The shards with live documents; first the one that holds the file modified last."""
    if snapshot is None:
        return []
    live = snapshot.table.filter(pc.is_valid(snapshot.table["doc_id"])).select(["shard", "mtime_ns"])
    newest = live.group_by("shard").aggregate([("mtime_ns", "max")])
    return schema.strings(newest.sort_by([("mtime_ns_max", "descending"), ("shard", "ascending")])["shard"])


def unread(scanned: Scanned, rows: Mapping[str, ingest.Row]) -> list[ingest.Due]:
    """The files that were due and have no row."""
    return [item for item in scanned.plan.due if item.uri not in rows]


def reached(scanned: Scanned, left: Sequence[ingest.Due]) -> Scanned:
    """`scanned` without the deletion of files that may be among those `left` unread, moved: they have their size."""
    sizes = {scanned.found.files[item.index].size for item in left if item.previous is None}
    waiting = [row for row in scanned.plan.gone if row["size"] in sizes]
    if not waiting:
        return scanned
    gone = tuple(row for row in scanned.plan.gone if row["size"] not in sizes)
    return replace(
        scanned, plan=replace(scanned.plan, keep=ingest.snapshot_table(waiting, scanned.plan.keep), gone=gone)
    )
