"""Files, and the documents in them, by name and fate: one snapshot against the one before it.

The counts are `stages.ingest.fates`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.store import Snapshot

NAMED = 200  # files named of each fate

_File = tuple[str, str | None, str]  # status, doc_hash, content_hash


def named(before: Snapshot | None, after: Snapshot | None) -> dict[str, tuple[str, ...]]:
    """The first NAMED files of each fate: "new", "changed", "moved" ("old → new"), "deleted"."""
    if after is None or (before is not None and before.number == after.number):
        return {}
    old, new = _files(before, after), _files(after, before)
    moves = dict(_moves(old, new))
    origins = set(moves.values())
    fresh = (uri for uri in _ok(new) if uri not in old)
    found: dict[str, Iterable[str]] = {
        "new": (uri for uri in fresh if uri not in moves),
        "changed": (uri for uri in _ok(new) if uri in old and old[uri][1] != new[uri][1]),
        "moved": (f"{moves[uri]} → {uri}" for uri in sorted(moves)),
        "deleted": (uri for uri, file in sorted(old.items()) if uri not in new and file[1] and uri not in origins),
    }
    return {fate: names for fate, uris in found.items() if (names := tuple(islice(uris, NAMED)))}


def _files(snapshot: Snapshot | None, other: Snapshot | None) -> dict[str, _File]:
    """The files of a snapshot of which the other one does not say the same, by uri."""
    if snapshot is None:
        return {}
    table = snapshot.table
    if other is not None:
        table = table.filter(pc.invert(pc.is_in(_said(table), _said(other.table))))
    rest = zip(
        schema.strings(table["status"]),
        table["doc_hash"].to_pylist(),
        schema.strings(table["content_hash"]),
        strict=True,
    )
    return dict(zip(schema.strings(table["uri"]), rest, strict=True))


def _said(table: pa.Table) -> Any:
    """All that is compared of each file in one string; a uri may hold any character but NUL."""
    join: Any = pc.binary_join_element_wise  # its stub does not know that a separator may be one string
    doc_hash = pc.fill_null(table["doc_hash"], pa.scalar(""))
    return join(table["uri"], table["status"], doc_hash, table["content_hash"], "\0")


def _ok(files: dict[str, _File]) -> Iterator[str]:
    return (uri for uri, file in sorted(files.items()) if file[0] == "ok" and file[1])


def _moves(old: dict[str, _File], new: dict[str, _File]) -> Iterator[tuple[str, str]]:
    """Pairs (new name, old name): a file that is new has the content of one that is gone."""
    gone: dict[str, deque[str]] = {}
    for uri, (_, doc_hash, content) in sorted(old.items()):
        if uri not in new and doc_hash:
            gone.setdefault(content, deque()).append(uri)
    for uri in _ok(new):
        if uri not in old and (names := gone.get(new[uri][2])):
            yield uri, names.popleft()
