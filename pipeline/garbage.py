"""`pipeline gc`: free what nothing needs any more. What is needed, kept.py says; this drops the rest.

Only whole files go, and only after what replaces them is durable, so that a kill at any point leaves a whole collection
and the next gc does the rest. The order is from what names to what is named: snapshots, then shards, chunk files,
vectors, tables. A small part of it, `tidy`, belongs to every run that changed something.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import config, kept, lance, live, opening, repack, schema
from pipeline.kept import Referenced
from pipeline.progress import Progress
from pipeline.store import Collection, files, prune
from pipeline.store.inventory import Freed, Inventory, size_of
from pipeline.store.keys import KeySet

log = logging.getLogger(__name__)

KINDS = ("snapshots", "documents", "chunks", "sentences", "vectors", "index", "tokenizers", "rejects", "maps")
SWOLLEN = 2.0  # a run prunes the log by itself when it holds so many times what is published
REJECT_PARTS = 8  # joined from so many on


@dataclass(slots=True, kw_only=True)
class Collected:
    """What gc freed, or with `dry_run` would free.

    Attributes:
        before_bytes, after_bytes: the collection on disk.
        freed: by kind of KINDS.
        dropped_vectors: rows of the vector log; emptied, made: shards that were re-packed, and into how many.
    """

    dry_run: bool = False
    before_bytes: int = 0
    after_bytes: int = 0
    freed: dict[str, Freed] = field(default_factory=lambda: {kind: Freed() for kind in KINDS})
    dropped_vectors: int = 0
    emptied: int = 0
    made: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def freed_bytes(self) -> int:
        return sum(one.bytes for one in self.freed.values())

    def to_json(self) -> dict[str, Any]:
        kinds = {kind: {"files": one.files, "bytes": one.bytes} for kind, one in self.freed.items()}
        plain = ("dry_run", "before_bytes", "after_bytes", "dropped_vectors", "emptied", "made", "notes")
        return {name: getattr(self, name) for name in plain} | {"freed": kinds}


def collect(settings: config.Settings, progress: Progress, *, dry_run: bool = False) -> Collected:
    """Free everything that neither the kept generations nor the next run need. Embeds nothing.

    Raises:
        NoIndex: there is no such collection. Locked: a run is writing. CorruptStore: run `check --fix` first.
    """
    collection = opening.collection_of(settings)
    if not collection.exists:
        raise opening.nothing(settings)
    with collection.writing(settings.run.wait_lock_s):
        done = Collected(dry_run=dry_run, before_bytes=collection.disk_bytes())
        _Sweep(collection, settings, done).all(progress)
        done.after_bytes = collection.disk_bytes() if not dry_run else done.before_bytes - done.freed_bytes
    return done


def tidy(collection: Collection, settings: config.Settings) -> Collected:
    """What each run frees that published something: files of snapshots that are no longer kept.

    Cheap: it reads the names of shards (a column of each snapshot) and lists folders. The vector log, which it would
    have to compare key by key, only when that has grown to twice what is published.
    """
    done = Collected()
    inventory = Inventory(collection)
    named = _named(inventory)
    sweep = _Sweep(collection, settings, done)
    sweep.drop("documents", [path for shard, path in inventory.documents().items() if shard not in named])
    for there in inventory.chunkings().values():
        sweep.drop("chunks", [path for shard, path in there.items() if shard not in named])
    sweep.rejects(kept_uris=None)
    note = collection.published()
    if note is not None and _rows(inventory.logs().get(note.vectors_fp, [])) > SWOLLEN * note.rows:
        sweep.vectors(kept.referenced(collection, settings))
    return done


def _named(inventory: Inventory) -> frozenset[str]:
    """The shards that any snapshot on disk names: one column of each is read."""
    found: set[str] = set()
    for _, path in inventory.snapshots():
        found.update(
            name for name in pc.unique(files.read_parquet(path, _SHARD, ["shard"])["shard"]).to_pylist() if name
        )
    return frozenset(found)


_SHARD = pa.schema([schema.SNAPSHOT.field("shard")])


def _rows(parts: Sequence[Path]) -> int:
    return sum(files.parquet_rows(part) for part in parts)


@dataclass(slots=True)
class _Sweep:
    collection: Collection
    settings: config.Settings
    done: Collected

    def all(self, progress: Progress) -> None:
        if not self.done.dry_run:
            before = self._snapshots()
            kept.trim(self.collection, self.settings.run.keep, self.settings.index.keep_versions_h)
            after = self._snapshots()
            self.done.freed["snapshots"].add(Freed(before.files - after.files, before.bytes - after.bytes))
        self._repack(progress)
        found, inventory = kept.referenced(self.collection, self.settings), Inventory(self.collection)
        self.drop("snapshots", [path for number, path in inventory.snapshots() if number not in found.snapshots])
        self.drop("documents", [path for shard, path in inventory.documents().items() if shard not in found.documents])
        self._chunks(found, inventory)
        authors = inventory.fingerprint_folders("contexts")
        self.drop("sentences", [folder for author, folder in authors.items() if author not in found.authors])
        self.vectors(found)
        self._index(found, inventory)
        self.drop("tokenizers", [path for name, path in inventory.tokenizers().items() if name not in found.tokenizers])
        self.rejects(kept_uris=_uris(self.collection, found))
        self.drop("maps", self.collection.charts.unneeded())

    def _snapshots(self) -> Freed:
        return size_of(path for _, path in Inventory(self.collection).snapshots())

    def drop(self, kind: str, paths: Sequence[Path]) -> None:
        """Remove these, or only count them."""
        found = size_of(paths) if self.done.dry_run else Inventory(self.collection).remove(paths)
        self.done.freed[kind].add(found)

    def _repack(self, progress: Progress) -> None:
        snapshot, spec = self.collection.snapshot(), self.collection.embedder()
        if snapshot is None or spec is None or not repack.ready(self.collection, self.settings, snapshot, spec):
            return
        shards = repack.worn(self.collection, snapshot)
        self.done.emptied = len(shards)
        if shards and not self.done.dry_run:
            self.done.made = repack.repack(self.collection, self.settings, snapshot, shards, progress).made

    def _chunks(self, found: Referenced, inventory: Inventory) -> None:
        for chunks_fp, folder in inventory.fingerprint_folders("chunks").items():
            if chunks_fp not in found.chunks:
                self.drop("chunks", [folder])
        for chunks_fp, there in inventory.chunkings().items():
            needed = found.chunks.get(chunks_fp)
            if needed is not None:
                self.drop("chunks", [path for shard, path in there.items() if shard not in needed])

    def vectors(self, found: Referenced) -> None:
        """Drop the logs of abandoned embedders, and of the others what no kept document needs."""
        inventory, spared = Inventory(self.collection), self._spared()
        for vectors_fp, folder in inventory.fingerprint_folders("vectors").items():
            if vectors_fp not in found.vectors | spared:
                self.done.dropped_vectors += _rows(inventory.logs().get(vectors_fp, []))
                self.drop("vectors", [folder])
        for vectors_fp, parts in inventory.logs().items():
            if vectors_fp in found.vectors and self._known(found, vectors_fp):
                self._prune(found, vectors_fp, parts)

    def _spared(self) -> frozenset[str]:
        """Logs that the next run goes on with, though no snapshot asks for them yet: after an import, or half way
        through a change of model.
        """
        moving = kept.under_way(self.collection)
        specs = (self.collection.embedder(), moving.spec if moving is not None else None)
        return frozenset(live.vectors_fp(spec) for spec in specs if spec is not None)

    def _known(self, found: Referenced, vectors_fp: str) -> bool:
        """Whether every document that is kept has been cut: only then is it known which vectors are needed."""
        for use in found.uses:
            shards = live.of_snapshot(self.collection.snapshot(use.snapshot))
            if use.vectors_fp == vectors_fp and not all(self.collection.has_chunks(use.chunks_fp, s) for s in shards):
                self.done.notes.append("Not all documents are chunked with these settings: no vector was dropped.")
                return False
        return True

    def _prune(self, found: Referenced, vectors_fp: str, parts: Sequence[Path]) -> None:
        wanted, before = KeySet(), size_of(parts)
        wanted.add(kept.needed_keys(self.collection, found, vectors_fp))
        dropped = prune.prune(parts, self.collection.temporary, wanted, dry=self.done.dry_run)
        self.done.dropped_vectors += dropped
        if self.done.dry_run:
            rows = _rows(parts)
            self.done.freed["vectors"].add(Freed(0, before.bytes * dropped // rows if rows else 0))
        else:
            after = size_of(Inventory(self.collection).logs().get(vectors_fp, []))
            self.done.freed["vectors"].add(Freed(before.files - after.files, before.bytes - after.bytes))

    def _index(self, found: Referenced, inventory: Inventory) -> None:
        """Tables of abandoned embedders, and in the one that serves the versions that no reader can be on."""
        tables = inventory.tables()
        self.drop("index", [path for name, path in tables.items() if name not in found.tables])
        note = self.collection.published()
        name = live.table_name(note.spec) if note is not None and note.spec is not None else ""
        if note is None or note.spec is None or name not in tables or self.done.dry_run:
            return
        before = size_of([tables[name]])
        table = lance.Table.open(
            self.collection.index_folder, name, note.spec.dims, live.provenance(note.spec), storage=note.spec.storage
        )
        if oldest := kept.oldest_version(self.collection, note.vectors_fp, self.settings.index.keep_versions_h):
            table.clean(oldest)
        after = size_of([tables[name]])
        self.done.freed["index"].add(Freed(before.files - after.files, before.bytes - after.bytes))

    def rejects(self, kept_uris: frozenset[str] | None) -> None:
        """Join the reject log's parts: of each input the newest word, of files that are kept (None: of all)."""
        parts = Inventory(self.collection).rejects()
        if len(parts) < REJECT_PARTS:
            return
        table = self.collection.rejects()
        rows = list(_newest(table, kept_uris))
        before = size_of(parts)
        if not self.done.dry_run:
            self.collection.add_rejects(rows)
            self.drop("rejects", parts)
            self.done.freed["rejects"] = Freed()
        after = size_of(set(Inventory(self.collection).rejects()) - set(parts))
        self.done.freed["rejects"].add(Freed(before.files - after.files, before.bytes - after.bytes))


def _newest(table: pa.Table, kept_uris: frozenset[str] | None) -> Iterator[dict[str, Any]]:
    newest = {(row["stage"], row["uri"], row["key"], row["made_by"]): row for row in table.to_pylist()}
    for row in newest.values():
        if kept_uris is None or row["uri"] in kept_uris:
            yield row


def _uris(collection: Collection, found: Referenced) -> frozenset[str]:
    snapshots = (collection.snapshot(number) for number in found.snapshots)
    return frozenset(uri for one in snapshots if one is not None for uri in one.table["uri"].to_pylist() if uri)
