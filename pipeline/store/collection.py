"""The disk layout of a collection: the one place that builds a path under the data folder.

    data/<collection>/
      VERSION  LOCK
      snapshots/<n>.parquet        one row per file of the scan (schema.SNAPSHOT); its metadata: sources, scanned_ns
      documents/<shard>.parquet    schema.DOCUMENTS
      chunks/<fp>/<shard>.parquet  schema.CHUNKS
      vectors/<fp>/<part>.parquet  the vector log (store.vectors)
      embedders/<n>.json           who embeds this collection; the newest counts, and a new one is a change of model
      tokenizers/<identity>.json   of models that do not use the packaged vocabulary
      rejects/<part>.parquet       schema.REJECTS
      published/<n>.json           what the live tag of the index was made from: lets `index` see at once that nothing
      is due index/                       the LanceDB database runs/<time>.json             reports; read back only
      for the rate that `--dry-run` estimates with tmp/                         swept by the next writer

| crash | leaves | repaired by |
|---|---|---|
| while writing any file | a file in tmp/ | the next writer sweeps it |
| after a document shard, before the snapshot | an unreferenced shard | ingest makes the same name again |
| in chunk or embed | finished shards and parts | the next run does the rest |
| in index | a table between two versions; readers are on the published tag | `index` compares again, then publishes |
| after the tag, before published/ | a tag newer than its note | `index` compares again and writes the note |
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from pipeline import errors, schema
from pipeline.models import EmbedderSpec, Storage
from pipeline.store import files, lock
from pipeline.store.vectors import VectorLog

VERSION = "1"
SNAPSHOTS_KEPT = 7

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files of one scan.

    Attributes:
        table: of schema.SNAPSHOT.
        sources: the folders scanned, absolute.
        scanned_ns: when the scan began, Unix time.
    """

    number: int
    table: pa.Table
    sources: tuple[str, ...]
    scanned_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What the live tag shows: equal fields mean that `index` has nothing to do."""

    live: str  # hash of the live documents and their shards
    chunks_fp: str
    vectors_fp: str
    documents: int
    chunks: int
    rows: int  # chunks that have their vector


class Collection:
    """One collection below `data`. Reading needs no lock; every write is to be made inside `writing()`."""

    def __init__(self, data: Path, name: str) -> None:
        if not name or name in (".", "..") or any(char in name for char in "/\\\0"):
            raise errors.ConfigError(f"{name!r} cannot be the name of a collection", "Use letters, digits, - and _.")
        self.name = name
        self.root = data / name

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
    def writing(self, wait_s: float = 0.0) -> Iterator[None]:
        """Be the one writer: creates the collection if need be and sweeps what a killed writer left in tmp/.

        Raises:
            Locked: another process is writing, still after `wait_s` seconds.
        """
        with lock.hold(self.root / "LOCK", wait_s):
            if not self.exists:
                self._write_text(self.root / "VERSION", VERSION + "\n")
            self.check_version()
            with files.disk_errors(self.temporary):
                self.temporary.mkdir(exist_ok=True)
                files.sweep(self.temporary)
            yield

    @property
    def temporary(self) -> Path:
        """For drafts and for the index's own temporary files; swept under the lock."""
        return self.root / "tmp"

    @property
    def index_folder(self) -> Path:
        return self.root / "index"

    def _write_text(self, target: Path, text: str) -> None:
        files.write_once(self.temporary, target, lambda file: file.write(text.encode()))

    # -- numbered records: the newest counts

    def _numbered(self, folder: str, suffix: str) -> list[tuple[int, Path]]:
        found = ((path.stem, path) for path in (self.root / folder).glob(f"*{suffix}"))
        return sorted((int(stem), path) for stem, path in found if stem.isdigit())

    def _newest(self, folder: str, kind: type[_T]) -> _T | None:
        numbered = self._numbered(folder, ".json")
        if not numbered:
            return None
        path = numbered[-1][1]
        with files.disk_errors(path):
            data = path.read_bytes()
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise errors.CorruptStore(
                f"{path} is damaged: {error}", "Move the collection's folder away and build it again: pipeline run DOCS"
            ) from error

    def _append_record(self, folder: str, record: object) -> None:
        numbered = self._numbered(folder, ".json")
        number = numbered[-1][0] + 1 if numbered else 1
        data = msgspec.json.format(msgspec.json.encode(record), indent=1).decode()
        self._write_text(self.root / folder / f"{number:08d}.json", data + "\n")

    def embedder(self) -> EmbedderSpec | None:
        """Who embeds this collection; None before the first chunk stage."""
        return self._newest("embedders", EmbedderSpec)

    def set_embedder(self, spec: EmbedderSpec) -> None:
        if self.embedder() != spec:
            self._append_record("embedders", spec)

    def published(self) -> Published | None:
        return self._newest("published", Published)

    def set_published(self, record: Published) -> None:
        if self.published() != record:
            self._append_record("published", record)

    def tokenizer_file(self, identity: str) -> Path | None:
        """The tokenizer.json kept for this collection under `identity`, if it is not the packaged one."""
        path = self.root / "tokenizers" / f"{identity}.json"
        return path if path.exists() else None

    def keep_tokenizer(self, identity: str, text: str) -> None:
        if self.tokenizer_file(identity) is None:
            self._write_text(self.root / "tokenizers" / f"{identity}.json", text)

    # -- snapshots

    def snapshot(self) -> Snapshot | None:
        """The newest snapshot; None before the first ingest."""
        numbered = self._numbered("snapshots", ".parquet")
        if not numbered:
            return None
        number, path = numbered[-1]
        metadata = files.parquet_metadata(path)
        return Snapshot(
            number=number,
            table=files.read_parquet(path, schema.SNAPSHOT),
            sources=tuple(msgspec.json.decode(metadata["sources"], type=list[str])),
            scanned_ns=int(metadata["scanned_ns"]),
        )

    def write_snapshot(self, table: pa.Table, sources: Sequence[str], scanned_ns: int) -> int:
        """Ingest's one commit point: from now on these files are what should be searchable. Returns its number."""
        numbered = self._numbered("snapshots", ".parquet")
        number = numbered[-1][0] + 1 if numbered else 1
        metadata = {"sources": msgspec.json.encode(list(sources)).decode(), "scanned_ns": str(scanned_ns)}
        table = schema.check(table, schema.SNAPSHOT, "snapshot")
        files.write_parquet(self.temporary, self.root / "snapshots" / f"{number:08d}.parquet", table, metadata=metadata)
        for _, path in numbered[: -(SNAPSHOTS_KEPT - 1)]:
            path.unlink(missing_ok=True)
        return number

    # -- documents and chunks

    def _documents(self, shard: str) -> Path:
        return self.root / "documents" / f"{shard}.parquet"

    def write_documents(self, shard: str, table: pa.Table) -> None:
        """Write a document shard unless a file of its name is there: the name says what is in it."""
        if not self._documents(shard).exists():
            table = schema.check(table, schema.DOCUMENTS, "documents")
            files.write_parquet(self.temporary, self._documents(shard), table, row_group=256)

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

    def add_rejects(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            name = f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}.parquet"
            table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema.REJECTS)
            files.write_parquet(self.temporary, self.root / "rejects" / name, table)

    def rejects(self) -> pa.Table:
        """Every reject ever recorded, oldest first (schema.REJECTS); the newest of a (stage, uri, key) counts."""
        parts = sorted((self.root / "rejects").glob("*.parquet"))
        tables = [files.read_parquet(part, schema.REJECTS) for part in parts]
        return pa.concat_tables(tables) if tables else schema.REJECTS.empty_table()

    # -- reports

    def write_report(self, data: bytes) -> Path:
        path = self.root / "runs" / time.strftime(f"%Y%m%dT%H%M%S-{secrets.token_hex(2)}.json", time.gmtime())
        files.write_once(self.temporary, path, lambda file: file.write(data))
        return path

    def newest_reports(self, count: int) -> list[bytes]:
        """The newest `count` reports, newest first."""
        paths = sorted((self.root / "runs").glob("*.json"), reverse=True)[:count]
        with files.disk_errors(self.root / "runs"):
            return [path.read_bytes() for path in paths]

    def disk_bytes(self) -> int:
        """Size of all files; one that goes while they are counted does not count."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += Path(folder, name).lstat().st_size
        return total
