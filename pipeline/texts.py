"""Documents' texts as of one publication, for whoever shows a hit with its surroundings.

A hit names its document by `doc_id`, which is made of the document's text: what is found under it is exactly what was
cut into chunks, never an older or newer version. Knows the store; nothing of hits.
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Collection as Some
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import errors
from pipeline.document import Block
from pipeline.expansion import Text
from pipeline.store import Collection

log = logging.getLogger(__name__)

REMEMBERED = 4_000_000  # characters of documents that are kept for questions that follow one another


@functools.lru_cache(maxsize=4)
def of(collection: Path, number: int) -> StoredTexts:
    """The one of this publication in this process, which remembers what it has read. `collection`: its folder."""
    return StoredTexts(Collection(collection.parent, collection.name), number)


class StoredTexts:
    """An `expansion.Source`: the documents of snapshot `number` of a collection. May be shared between threads.

    Args:
        remembered: characters of documents that are kept.
    """

    def __init__(self, collection: Collection, number: int, *, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._collection = collection
        self._number = number
        self._known: dict[str, Text] = {}

    def texts(self, doc_ids: Some[str]) -> Mapping[str, Text]:
        """The documents that are there. What is not, or cannot be read, is left out with a warning: a hit is found
        without it, and stays as it is.
        """
        known = dict(self._known)
        missing = set(doc_ids) - known.keys()
        try:
            for shard, wanted in self._shards(missing).items():
                known |= self._read(shard, wanted)
        except errors.StoreError as error:
            log.warning("Some passages are shown without their surroundings: %s", error)
        self._known = _newest(known, self._remembered)
        return {doc_id: known[doc_id] for doc_id in doc_ids if doc_id in known}

    def _shards(self, doc_ids: Some[str]) -> dict[str, list[str]]:
        """Where each document is: shard → doc_ids. One that was held back from the publication (its new version is
        not embedded whole) is searched in its last version, which only older snapshots name.
        """
        found: dict[str, list[str]] = {}
        missing = set(doc_ids)
        older = (number for number in reversed(self._collection.snapshots()) if number != self._number)
        for number in (self._number, *older) if missing else ():
            for row in self._rows(number, missing):
                found.setdefault(row["shard"], []).append(row["doc_id"])
                missing.discard(row["doc_id"])
            if not missing:
                break
        return found

    def _rows(self, number: int, doc_ids: Some[str]) -> list[dict[str, str]]:
        snapshot = self._collection.snapshot(number)
        if snapshot is None:
            return []
        named = pc.is_in(snapshot.table["doc_id"], pa.array(list(doc_ids), pa.string()))
        return snapshot.table.select(["doc_id", "shard"]).filter(named).to_pylist()

    def _read(self, shard: str, doc_ids: list[str]) -> dict[str, Text]:
        table = self._collection.read_documents(shard, ["doc_id", "text", "blocks"])
        rows = table.filter(pc.is_in(table["doc_id"], pa.array(doc_ids, pa.string())))
        return {row["doc_id"]: _text(row) for row in rows.to_pylist()}


def _newest(known: dict[str, Text], characters: int) -> dict[str, Text]:
    """Those that were read last, of so many characters together."""
    sizes = itertools.accumulate(len(text.text) for text in reversed(known.values()))
    kept = sum(size <= characters for size in sizes)
    return dict(list(known.items())[len(known) - kept :])


def _text(row: Mapping[str, Any]) -> Text:
    blocks = [Block(**{**block, "heading_path": tuple(block["heading_path"])}) for block in row["blocks"]]
    return Text(text=row["text"], blocks=blocks)
