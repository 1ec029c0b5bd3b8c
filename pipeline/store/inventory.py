"""What files a collection has, kind by kind: for `gc` and `check`, which must see also what no reader would open.

Knows names and places, not contents. Nothing here believes that a file is whole; `remove` is the only way in which
upkeep makes one go, and it is durable when it returns.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline import ids
from pipeline.store import files, records
from pipeline.store.collection import Collection

RECORDS = ("embedders", "published", "migrations", "calibrations")  # numbered JSON, the newest counts
_TABLE = ".lance"


@dataclass(slots=True)
class Freed:
    """What was removed, or would be: files and their bytes."""

    files: int = 0
    bytes: int = 0

    def add(self, other: Freed) -> None:
        self.files += other.files
        self.bytes += other.bytes


class Inventory:
    """The files of `collection` as the folders list them now."""

    def __init__(self, collection: Collection) -> None:
        self._root = collection.root
        self._trash = collection.temporary

    def snapshots(self) -> list[tuple[int, Path]]:
        return records.numbered(self._root / "snapshots", ".parquet")

    def records(self, kind: str) -> list[tuple[int, Path]]:
        """The files of a kind of RECORDS by number."""
        return records.numbered(self._root / kind, ".json")

    def documents(self) -> dict[str, Path]:
        """Document shards by name."""
        return {path.stem: path for path in sorted((self._root / "documents").glob("*.parquet"))}

    def chunkings(self) -> dict[str, dict[str, Path]]:
        """Chunk files by chunk fingerprint and shard."""
        return {folder.name: self._parquet(folder) for folder in self._folders("chunks")}

    def logs(self) -> dict[str, list[Path]]:
        """Parts of the vector logs, in their order, by embedding fingerprint."""
        return {folder.name: list(self._parquet(folder).values()) for folder in self._folders("vectors")}

    def tables(self) -> dict[str, Path]:
        """The folders of the search tables by name."""
        return {
            folder.name.removesuffix(_TABLE): folder for folder in self._folders("index") if folder.suffix == _TABLE
        }

    def tokenizers(self) -> dict[str, Path]:
        return {path.stem: path for path in sorted((self._root / "tokenizers").glob("*.json"))}

    def sentences(self) -> list[Path]:
        """Parts of all logs of sentences."""
        return [part for folder in self._folders("contexts") for part in self._parquet(folder).values()]

    def rejects(self) -> list[Path]:
        return sorted((self._root / "rejects").glob("*.parquet"))

    def fingerprint_folders(self, kind: str) -> dict[str, Path]:
        """The folders below "chunks", "vectors" or "contexts" by fingerprint, empty ones too."""
        return {folder.name: folder for folder in self._folders(kind)}

    def strangers(self) -> list[Path]:
        """Files where the layout has none of that name: nobody reads them, and nothing here removes them."""
        return [path for path, fits in self._expected() if not fits(path)]

    def _expected(self) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
        named = {"documents": _is_shard, "snapshots": _is_numbered} | dict.fromkeys(RECORDS, _is_numbered)
        for kind, fits in named.items():
            yield from ((path, fits) for path in self._iterate(kind))
        for folder in self._folders("chunks"):
            yield from ((path, _is_shard) for path in sorted(folder.iterdir()))

    def _iterate(self, kind: str) -> list[Path]:
        folder = self._root / kind
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def _folders(self, kind: str) -> list[Path]:
        return [path for path in self._iterate(kind) if path.is_dir()]

    @staticmethod
    def _parquet(folder: Path) -> dict[str, Path]:
        return {path.stem: path for path in sorted(folder.glob("*.parquet"))}

    def remove(self, paths: Iterable[Path]) -> Freed:
        """Remove files and folders for good. A folder goes whole or not at all: it is renamed into tmp/ first, where
        the next writer sweeps what a kill leaves of it.
        """
        freed, parents = Freed(), set[Path]()
        for path in paths:
            freed.add(size_of([path]))
            parents.add(path.parent)
            with files.disk_errors(path):
                if path.is_dir():
                    self._discard(path)
                else:
                    path.unlink(missing_ok=True)
        for parent in sorted(parents):
            with files.disk_errors(parent):
                files.fsync_folder(parent)
        return freed

    def _discard(self, folder: Path) -> None:
        self._trash.mkdir(exist_ok=True)
        doomed = self._trash / f"{folder.name}.{secrets.token_hex(4)}"
        folder.rename(doomed)
        files.fsync_folder(folder.parent)
        shutil.rmtree(doomed)


def size_of(paths: Iterable[Path]) -> Freed:
    """Files and bytes of these files and folders; what goes meanwhile does not count."""
    total = Freed()
    for path in paths:
        inside = (Path(folder, name) for folder, _, names in os.walk(path) for name in names)
        for file in inside if path.is_dir() else (path,):
            try:
                total.add(Freed(1, file.lstat().st_size))
            except FileNotFoundError:
                continue
    return total


def _is_shard(path: Path) -> bool:
    return path.suffix == ".parquet" and len(path.stem) == ids.LENGTH


def _is_numbered(path: Path) -> bool:
    return path.suffix in (".parquet", ".json") and path.stem.isdigit()
