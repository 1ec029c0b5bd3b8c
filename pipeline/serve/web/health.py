"""How a collection stands, for the foot of every page: what is published, since when, and how the newest run ended.

Reads two small files; opens no model and no table. Knows records; nothing of HTML.
"""

from __future__ import annotations

import collections
import time
from dataclasses import dataclass
from typing import Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import query, schema
from pipeline.report import FAILED_FILES
from pipeline.store import Collection

FRESH_S = 2.0  # so long what was read is shown again: fifty people look at one collection
MOST_FOLDERS = 8  # named where nothing is asked yet

Ending = Literal["", "good", "warn", "incomplete", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A collection now.

    Attributes:
        documents, passages: published. generation: number of the snapshot; at_ms: when it was published, Unix time.
        rollback_of: the generation that is shown again; 0: none.
        report: name of the newest run's report; "" where there is none. ending: how that run ended.
        stale: a newer snapshot of the documents is there, and is not published.
    """

    documents: int
    passages: int
    model: str
    generation: int
    at_ms: int
    rollback_of: int = 0
    report: str = ""
    ending: Ending = ""
    stale: bool = False


class _Run(msgspec.Struct):
    """What is read of a run's report."""

    exit_code: int = 0
    incomplete: bool = False


class Watch:
    """Looks after collections, at each every FRESH_S seconds at most."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, Health]] = {}
        self._folders: dict[str, tuple[int, list[tuple[str, int]]]] = {}  # by collection, of one generation

    def of(self, standing: query.Standing) -> Health:
        """How it stands. Two small files are read, or nothing.

        Raises:
            StoreError: the folder cannot be read.
        """
        name = (str(standing.collection.root), f"{standing.note.snapshot}.{standing.note.at_ms}")
        at_s, found = self._known.get(name, (0.0, None))
        if found is not None and time.monotonic() - at_s < FRESH_S:
            return found
        found = look(standing)
        self._known = {known: entry for known, entry in self._known.items() if known[0] != name[0]}
        self._known[name] = (time.monotonic(), found)
        return found

    def folders(self, standing: query.Standing) -> list[tuple[str, int]]:
        """The folders at the top with the number of documents in each, the largest first, at most MOST_FOLDERS.

        Raises:
            StoreError: the snapshot cannot be read.
        """
        root, number = str(standing.collection.root), standing.note.snapshot
        known, found = self._folders.get(root, (-1, []))
        if known != number:
            snapshot = standing.collection.snapshot(number)
            found = _folders(snapshot.table) if snapshot is not None else []
            self._folders[root] = (number, found)
        return found


def _folders(table: pa.Table) -> list[tuple[str, int]]:
    """Of the documents of a snapshot (schema.SNAPSHOT)."""
    uris = schema.strings(table["uri"].filter(pc.is_valid(table["doc_id"])))
    counts = collections.Counter(uri.partition("/")[0] for uri in uris if "/" in uri)
    return sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MOST_FOLDERS]


def look(standing: query.Standing) -> Health:
    """How it stands, read anew."""
    note = standing.note
    report, ending = _newest_run(standing.collection)
    return Health(
        documents=note.documents,
        passages=note.rows,
        model=standing.spec.model,
        generation=note.snapshot,
        at_ms=note.at_ms,
        rollback_of=note.rollback_of,
        report=report,
        ending=ending,
        stale=not note.rollback_of and max(standing.collection.snapshots(), default=0) > note.snapshot,
    )


def _newest_run(collection: Collection) -> tuple[str, Ending]:
    entries = collection.runs.newest(1)
    runs = collection.runs.past(1, _Run)
    if not entries or not runs:
        return "", ""
    name = entries[0].record.stem if entries[0].page.is_file() else ""
    run = runs[0]
    if run.exit_code not in (0, FAILED_FILES):
        return name, "bad"
    if run.incomplete:
        return name, "incomplete"
    return name, "warn" if run.exit_code == FAILED_FILES else "good"
