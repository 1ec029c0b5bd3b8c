"""The vector log of one embedding fingerprint: content-addressed, append-only Parquet parts, found by key.

Two equal keys in the log are harmless (a crash between request and flush repeats a text): the first one found is used.
In memory it holds 24 bytes a vector (sorted keys and where each lies) and a few decoded row groups, never the vectors.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import errors, schema
from pipeline.store import files

ROW_GROUP = 1024  # vectors; 4 MiB at 1024 dimensions, the unit of a read
CACHED_GROUPS = 16
COMPACT_FROM = 8  # parts

Keys = NDArray[
    np.bytes_
]  # dtype S16: fixed length, so that numpy's stripping of trailing zeros cannot make two keys equal


def to_keys(hexadecimal: Sequence[str]) -> Keys:
    """Pack hexadecimal ids into an array of 16 bytes each."""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), dtype="S16")


class VectorLog:
    """Append to, look up in and compact the log at `folder`; one writer, any number of readers.

    Args:
        dims: length of every vector.
        provenance: who made the vectors; written into each part, compared on opening.

    Raises:
        CorruptStore: a part is damaged. ModelMismatch: a part was made otherwise.
    """

    def __init__(self, folder: Path, temporary: Path, dims: int, provenance: Mapping[str, str]) -> None:
        self._folder = folder
        self._temporary = temporary
        self._schema = schema.vectors(dims)
        self._provenance = dict(provenance)
        self.dims = dims
        self._parts: list[Path] = []
        self._keys: Keys = np.empty(0, dtype="S16")
        self._places: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # part << 32 | row, beside the sorted keys
        self._group = functools.lru_cache(maxsize=CACHED_GROUPS)(self._read_group)
        self.refresh()

    def __len__(self) -> int:
        """Distinct keys."""
        return len(self._keys)

    def refresh(self) -> None:
        """Look at the parts on disk again."""
        self._parts = sorted(self._folder.glob("*.parquet"))
        self._group.cache_clear()
        keys, places = [np.empty(0, dtype="S16")], [np.empty(0, dtype=np.int64)]
        for number, part in enumerate(self._parts):
            self._check_provenance(part)
            column = files.read_parquet(part, self._schema, ["embed_key"]).column(0)
            keys.append(to_keys(schema.strings(column)))
            places.append(np.arange(len(column), dtype=np.int64) | (number << 32))
        every = np.concatenate(keys)
        self._keys, first = np.unique(every, return_index=True)
        self._places = np.concatenate(places)[first]

    def _check_provenance(self, part: Path) -> None:
        found = files.parquet_metadata(part)
        for key, value in self._provenance.items():
            if found.get(key, value) != value:
                raise errors.ModelMismatch(
                    f"{part} was made with {key} {found[key]!r}, not {value!r}",
                    "Move this file out of the data folder, then run `pipeline embed` to make its vectors again.",
                )

    def _find(self, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        positions = np.searchsorted(self._keys, keys)
        if not len(self._keys):
            return positions, np.zeros(len(keys), dtype=bool)
        clipped = np.minimum(positions, len(self._keys) - 1)
        return clipped, self._keys[clipped] == keys

    def contains(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Which of `keys` (hexadecimal) have a vector: bool of shape (len(keys),)."""
        return self._find(to_keys(keys))[1]

    def take(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of `keys`, in their order: float32 of shape (len(keys), dims).

        Raises:
            KeyError: a key has no vector; ask `contains` first.
        """
        positions, found = self._find(to_keys(keys))
        if not found.all():
            raise KeyError(keys[int(np.argmin(found))])
        places = self._places[positions]
        result = np.empty((len(keys), self.dims), dtype=np.float32)
        groups = (places >> 32) * (1 << 32) + (places & 0xFFFFFFFF) // ROW_GROUP
        for group in np.unique(groups):
            at = groups == group
            rows = (places[at] & 0xFFFFFFFF) % ROW_GROUP
            result[at] = self._group(int(group >> 32), int(group & 0xFFFFFFFF))[rows]
        return result

    def _read_group(self, part: int, group: int) -> NDArray[np.float32]:
        path = self._parts[part]
        with files.disk_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
            column = file.read_row_group(group, columns=["vector"]).column(0).combine_chunks()
        return schema.matrix(column, self.dims)

    def append(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Write one part. `vectors`: float32 of shape (len(keys), dims), checked by the embedding gate before."""
        if not len(keys):
            return
        flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1), type=pa.float32())
        column = pa.FixedSizeListArray.from_arrays(flat, type=self._schema.field("vector").type)
        self._write(pa.table([pa.array(list(keys), pa.string()), column], schema=self._schema))

    def _write(self, table: pa.Table) -> None:
        # A name that sorts by time: parts keep the order of the run, and so a shard's vectors lie together.
        name = f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}.parquet"
        files.write_parquet(
            self._temporary,
            self._folder / name,
            table,
            metadata=self._provenance,
            row_group=ROW_GROUP,
            plain=True,
        )

    def compact(self, *, part_rows: int = 131_072) -> int:
        """Join small parts into parts of about `part_rows` rows, duplicates dropped; returns how many files went.

        A crash leaves the old files beside the new one, which is harmless: a later compaction drops what is double.
        """
        small = [part for part in self._parts if self._rows(part) < part_rows // 2]
        if len(small) < COMPACT_FROM:
            return 0
        for batch in self._batches(small, part_rows):
            self._join(batch)
        self.refresh()
        return len(small)

    def _rows(self, part: Path) -> int:
        with files.disk_errors(part):
            return int(pq.read_metadata(part).num_rows)

    def _batches(self, parts: Sequence[Path], part_rows: int) -> list[list[Path]]:
        batches: list[list[Path]] = [[]]
        total = 0
        for part in parts:
            if total >= part_rows:
                batches.append([])
                total = 0
            batches[-1].append(part)
            total += self._rows(part)
        return [batch for batch in batches if len(batch) > 1]

    def _join(self, parts: Sequence[Path]) -> None:
        tables = [files.read_parquet(part, self._schema) for part in parts]
        joined = pa.concat_tables(tables)
        _, first = np.unique(to_keys(schema.strings(joined.column(0))), return_index=True)
        self._write(joined.take(np.sort(first)))
        with files.disk_errors(self._folder):
            for part in parts:
                part.unlink()
            files.fsync_folder(self._folder)
