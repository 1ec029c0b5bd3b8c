"""What differs between two snapshots: files, and the chunks and texts that they ask for.

Knows tables and keys; where they come from is `history`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.store.keys import Keys

_File = tuple[str, str]  # content_hash, doc_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Uris, each list sorted.

    Attributes:
        changed: other bytes, or read otherwise by a newer reader.
        moved: (before, after): gone under one name, and there under another with the same bytes.
        failed: still there, and could not be read the second time.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    failed: tuple[str, ...] = ()

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """How many of a kind are in both, in the second alone, in the first alone."""

    kept: int
    added: int
    removed: int


def files(before: pa.Table, after: pa.Table) -> Files:
    """Compare two tables of schema.SNAPSHOT. Files that could not be read count as not there, but for `failed`."""
    old, new = _readable(before), _readable(after)
    there = set(schema.strings(after["uri"]))
    gone = sorted(old.keys() - new.keys())
    failed = [uri for uri in gone if uri in there]
    moved = _moves(
        {uri: old[uri] for uri in gone if uri not in there}, {uri: new[uri] for uri in new.keys() - old.keys()}
    )
    left, come = {first for first, _ in moved}, {second for _, second in moved}
    return Files(
        added=tuple(sorted(new.keys() - old.keys() - come)),
        removed=tuple(uri for uri in gone if uri not in there and uri not in left),
        changed=tuple(sorted(uri for uri in new.keys() & old.keys() if new[uri] != old[uri])),
        moved=moved,
        failed=tuple(failed),
    )


def _readable(table: pa.Table) -> dict[str, _File]:
    table = table.filter(pc.is_valid(table["doc_id"]))
    columns = (schema.strings(table[name]) for name in ("uri", "content_hash", "doc_hash"))
    return {uri: (content, doc) for uri, content, doc in zip(*columns, strict=True)}


def _moves(gone: Mapping[str, _File], new: Mapping[str, _File]) -> tuple[tuple[str, str], ...]:
    """Pairs with equal bytes, by name where there are several."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for uri in sorted(new, reverse=True):
        places[new[uri][0]].append(uri)
    return tuple((uri, places[gone[uri][0]].pop()) for uri in sorted(gone) if places.get(gone[uri][0]))


def amounts(before: Sequence[Keys], after: Sequence[Keys]) -> Amounts:
    """Compare sets of keys, each given in parts; a key that is there twice counts once."""
    old, new = _set(before), _set(after)
    kept = len(np.intersect1d(old, new, assume_unique=True))
    return Amounts(kept=kept, added=len(new) - kept, removed=len(old) - kept)


def _set(parts: Sequence[Keys]) -> Keys:
    joined: Any = np.concatenate([np.empty(0, dtype="S16"), *parts])
    found: Keys = np.unique(joined)
    return found
