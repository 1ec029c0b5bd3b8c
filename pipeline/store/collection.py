"""The disk layout of a collection: the one place that builds a path under the data folder.

    data/<collection>/
      VERSION  LOCK
      snapshots/<n>.parquet        one row per file of the scan (schema.SNAPSHOT); its metadata: sources, scanned_ns
      documents/<shard>.parquet    schema.DOCUMENTS
      chunks/<fp>/<shard>.parquet  schema.CHUNKS
      vectors/<fp>/<part>.parquet  the vector log (store.vectors)
      contexts/<fp>/<part>.parquet sentences that situate chunks, by who wrote them (store.sentences)
      embedders/<n>.json           who embeds this collection; the newest counts, and a new one is a change of model
      tokenizers/<identity>.json   of models that do not use the packaged vocabulary
      rejects/<part>.parquet       schema.REJECTS
      index/                       the LanceDB database
      published/<n>.json           publications: what readers see is what the newest says (records.Published)
      calibrations/<n>.json        when a question is taken for unanswerable, the newest counts (records.Calibration)
      migrations/<n>.json          a change of model under way, the newest counts (records.Migration)
      maps/<time>-<fp>.parquet     pictures of a publication, by what they were made from (store.charts)
      runs/<time>.json             reports; read back only for the rate that `--dry-run` estimates with
      tmp/                         swept by the next writer

| crash | leaves | repaired by |
|---|---|---|
| while writing any file | a file in tmp/ | the next writer sweeps it |
| after a document shard, before the snapshot | an unreferenced shard | ingest makes the same name again |
| in chunk or embed | finished shards and parts | the next run does the rest |
| in index | a table between two versions; readers are on the one published | `index` compares again, then publishes |
| after the tag, before published/ | a version that nobody reads yet | `index` compares again and writes the note |
| in rollback or migrate | perhaps a copy of a snapshot; readers see what they saw | the same command |
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from pipeline import errors, schema
from pipeline.models import EmbedderSpec, Storage
from pipeline.store import files, lock
from pipeline.store.charts import Charts
from pipeline.store.records import Calibration, Migration, Published, Records, numbered
from pipeline.store.runs import Runs
from pipeline.store.sentences import IsSame, SentenceLog
from pipeline.store.vectors import VectorLog

VERSION = "1"
SNAPSHOTS_KEPT = 7  # of those never published


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # tables cannot be hashed, and the same one is itself
class Snapshot:
    """The files of one scan.

    Attributes:
        table: of schema.SNAPSHOT.
        sources: the folders scanned, absolute.
        scanned_ns: when the scan began, Unix time.
        mounts: folders (uri with "/" at the end) that were file systems of their own.
    """

    number: int
    table: pa.Table
    sources: tuple[str, ...]
    scanned_ns: int
    mounts: tuple[str, ...] = ()


@functools.lru_cache(maxsize=2)
def _read_snapshot(path: Path, number: int, mtime_ns: int, size: int) -> Snapshot:
    """A snapshot, remembered while its file is the same: a run asks for it again and again."""
    metadata = files.parquet_metadata(path)
    return Snapshot(
        number=number,
        table=files.read_parquet(path, schema.SNAPSHOT, added=("container",)),
        sources=tuple(msgspec.json.decode(metadata["sources"], type=list[str])),
        mounts=tuple(msgspec.json.decode(metadata.get("mounts", "[]"), type=list[str])),  # older ones have none
        scanned_ns=int(metadata["scanned_ns"]),
    )


class Collection:
    """One collection below `data`. Reading needs no lock; every write is to be made inside `writing()`."""

    def __init__(self, data: Path, name: str) -> None:
        if not name or name in (".", "..") or any(char in name for char in "/\\\0"):
            raise errors.ConfigError(f"{name!r} cannot be the name of a collection", "Use letters, digits, - and _.")
        self.name = name
        self.root = data / name
        self.publications = Records(self.root / "published", self.temporary, Published)
        self.migrations = Records(self.root / "migrations", self.temporary, Migration)
        self.calibrations = Records(self.root / "calibrations", self.temporary, Calibration)
        self._embedders = Records(self.root / "embedders", self.temporary, EmbedderSpec)

    # -- existence and the lock

    @property
    def exists(self) -> bool:
        return (self.root / "VERSION").exists()

    def check_version(self) -> None:
        """Refuse a layout that this program does not know."""
        with files.disk_errors(self.root / "VERSION"):
            found = (self.root / "VERSION").read_text().strip()
        if found != VERSION:
            raise errors.StoreError(
                f"{self.root} has layout {found!r}; this program knows {VERSION!r}",
                "Use the version of the program that made it, or another --data folder.",
            )

    @contextlib.contextmanager
    def writing(self, wait_s: float = 0.0, tell: Callable[[str], None] | None = None) -> Iterator[None]:
        """Be the one writer: creates the collection if need be and sweeps what a killed writer left in tmp/.

        Raises:
            Locked: another process is writing, still after `wait_s` seconds.
        """
        with lock.hold(self.root / "LOCK", wait_s, tell):
            if not self.exists:
                self._write_text(self.root / "VERSION", VERSION + "\n")
            self.check_version()
            with files.disk_errors(self.temporary):
                self.temporary.mkdir(exist_ok=True)
                files.sweep(self.temporary)
            yield

    def writer(self) -> str:
        """Who is writing now, for people; "" where nobody says so."""
        return lock.holder(self.root / "LOCK")

    @property
    def temporary(self) -> Path:
        """For drafts and for the index's own temporary files; swept under the lock."""
        return self.root / "tmp"

    @property
    def index_folder(self) -> Path:
        return self.root / "index"

    def _write_text(self, target: Path, text: str) -> None:
        files.write_once(self.temporary, target, lambda file: file.write(text.encode()))

    # -- records: the newest counts

    def embedder(self) -> EmbedderSpec | None:
        """Who embeds this collection: as published, and before that whoever was chosen for it; None: nobody yet."""
        note = self.published()
        return note.spec if note is not None and note.spec is not None else self._embedders.newest()

    def set_embedder(self, spec: EmbedderSpec) -> None:
        """Choose who embeds. Once something is published, that decides: only a publication changes it."""
        if self._embedders.newest() != spec:
            self._embedders.append(spec)

    def published(self) -> Published | None:
        """What readers see."""
        return self.publications.newest()

    def set_published(self, record: Published) -> None:
        """The commit point of a publication: from now on readers open what `record` says."""
        self.publications.append(record)

    def tokenizer_file(self, identity: str) -> Path | None:
        """The tokenizer.json kept for this collection under `identity`, if it is not the packaged one."""
        path = self.root / "tokenizers" / f"{identity}.json"
        return path if path.exists() else None

    def keep_tokenizer(self, identity: str, text: str) -> None:
        if self.tokenizer_file(identity) is None:
            self._write_text(self.root / "tokenizers" / f"{identity}.json", text)

    # -- snapshots

    def snapshots(self) -> list[int]:
        """The numbers of those that are kept, oldest first."""
        return [number for number, _ in numbered(self.root / "snapshots", ".parquet")]

    def snapshot(self, number: int | None = None) -> Snapshot | None:
        """The newest snapshot, or the one of this number; None where there is none."""
        found = dict(numbered(self.root / "snapshots", ".parquet"))
        if not found or (number is not None and number not in found):
            return None
        number = max(found) if number is None else number
        with files.disk_errors(found[number]):
            status = found[number].stat()
        return _read_snapshot(found[number], number, status.st_mtime_ns, status.st_size)

    def sources(self, number: int) -> tuple[str, ...]:
        """The folders of the snapshot of this number, without its files; none where it is gone."""
        path = self.root / "snapshots" / f"{number:08d}.parquet"
        if not path.exists():
            return ()
        return tuple(msgspec.json.decode(files.parquet_metadata(path)["sources"], type=list[str]))

    def write_snapshot(
        self, table: pa.Table, sources: Sequence[str], scanned_ns: int, mounts: Sequence[str] = ()
    ) -> int:
        """Ingest's one commit point: from now on these files are what should be searchable. Returns its number."""
        number = max(self.snapshots(), default=0) + 1
        metadata = {
            "sources": msgspec.json.encode(list(sources)).decode(),
            "mounts": msgspec.json.encode(list(mounts)).decode(),
            "scanned_ns": str(scanned_ns),
        }
        table = schema.check(table, schema.SNAPSHOT, "snapshot")
        files.write_parquet(self.temporary, self.root / "snapshots" / f"{number:08d}.parquet", table, metadata=metadata)
        published = {note.snapshot for _, note in self.publications.all()}
        self.drop_snapshots(set(self.snapshots()[:-SNAPSHOTS_KEPT]) - published)
        return number

    def write_again(self, snapshot: Snapshot, table: pa.Table | None = None) -> int:
        """The files of `snapshot`, or `table` in place of them, under a new number, which is returned."""
        rows = snapshot.table if table is None else table
        return self.write_snapshot(rows, snapshot.sources, snapshot.scanned_ns, snapshot.mounts)

    def drop_snapshots(self, numbers: Set[int]) -> None:
        """Forget these; never the newest."""
        for number, path in numbered(self.root / "snapshots", ".parquet")[:-1]:
            if number in numbers:
                with files.disk_errors(path):
                    path.unlink(missing_ok=True)

    # -- documents and chunks

    def _documents(self, shard: str) -> Path:
        return self.root / "documents" / f"{shard}.parquet"

    def write_documents(self, shard: str, table: pa.Table) -> None:
        """Write a document shard unless a file of its name is there: the name says what is in it."""
        if not self._documents(shard).exists():
            table = schema.check(table, schema.DOCUMENTS, "documents")
            files.write_parquet(self.temporary, self._documents(shard), table, row_group=256)

    def has_documents(self, shard: str) -> bool:
        return self._documents(shard).exists()

    def read_documents(self, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        return files.read_parquet(self._documents(shard), schema.DOCUMENTS, columns)

    def _chunks(self, fingerprint: str, shard: str) -> Path:
        return self.root / "chunks" / fingerprint / f"{shard}.parquet"

    def has_chunks(self, fingerprint: str, shard: str) -> bool:
        return self._chunks(fingerprint, shard).exists()

    def drop_chunks(self, fingerprint: str, shard: str) -> None:
        """Forget a chunk file that lacks documents, so that they are tried again."""
        with files.disk_errors(self._chunks(fingerprint, shard)):
            self._chunks(fingerprint, shard).unlink(missing_ok=True)

    def write_chunks(self, fingerprint: str, shard: str, table: pa.Table) -> None:
        table = schema.check(table, schema.CHUNKS, "chunks")
        files.write_parquet(self.temporary, self._chunks(fingerprint, shard), table)

    def read_chunks(self, fingerprint: str, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        return files.read_parquet(self._chunks(fingerprint, shard), schema.CHUNKS, columns)

    # -- vectors and rejects

    def vectors(
        self,
        fingerprint: str,
        dims: int,
        provenance: Mapping[str, str],
        *,
        record: Mapping[str, str] | None = None,
        storage: Storage = "float32",
    ) -> VectorLog:
        folder = self.root / "vectors" / fingerprint
        return VectorLog(folder, self.temporary, dims, provenance, record=record, storage=storage)

    def sentences(self, fingerprint: str, is_same: IsSame) -> SentenceLog:
        """The sentences of one writer. `is_same`: whether two sketches are of one document."""
        return SentenceLog(self.root / "contexts" / fingerprint, self.temporary, is_same)

    def add_rejects(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            newest = max((path.name for path in (self.root / "rejects").glob("*.parquet")), default="0-")
            # Later than the last one, also where the clock was set back: the newest of an input is what counts.
            stamp = max(time.time_ns() // 1_000_000, int(newest.partition("-")[0]) + 1)
            name = f"{stamp:013d}-{secrets.token_hex(4)}.parquet"
            table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema.REJECTS)
            files.write_parquet(self.temporary, self.root / "rejects" / name, table)

    def rejects(self) -> pa.Table:
        """Every reject ever recorded, oldest first (schema.REJECTS); the newest of a (stage, uri, key) counts."""
        parts = sorted((self.root / "rejects").glob("*.parquet"))
        tables = [files.read_parquet(part, schema.REJECTS) for part in parts]
        return pa.concat_tables(tables) if tables else schema.REJECTS.empty_table()

    # -- reports

    @property
    def runs(self) -> Runs:
        """The reports; written without the lock, as maps are."""
        return Runs(self.root / "runs")

    @property
    def charts(self) -> Charts:
        """The maps; written without the lock."""
        return Charts(self.root / "maps")

    def disk_bytes(self) -> int:
        """Size of all files; one that goes while they are counted does not count."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += Path(folder, name).lstat().st_size
        return total


def own_folders(data: Path) -> frozenset[tuple[int, int]]:
    """Device and inode of the folder `data`, as far as it is there, and of the collections in it."""
    found = set()
    for folder in (data, *(version.parent for version in data.glob("*/VERSION"))):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = folder.stat()
            found.add((status.st_dev, status.st_ino))
    return frozenset(found)
