"""The vector log of one embedding fingerprint: content-addressed, append-only Parquet parts, found by key.

Two equal keys in the log are harmless (a crash between request and flush repeats a text): the first one found is used.
In memory it holds 24 bytes a vector (sorted keys and where each lies) and a few decoded row groups, never the vectors.
"""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import errors, schema
from pipeline.models import Storage
from pipeline.store import files, keys
from pipeline.store.keys import Keys, Mask

ROW_GROUP = 1024  # vectors; 4 MiB at 1024 dimensions, the unit of a read
CACHED_GROUPS = 16
COMPACT_FROM = 8  # parts
_SEPARATOR = "\n"  # between the values of a record that parts joined into one had


class VectorLog:
    """Append to, look up in and compact the log at `folder`; one writer, any number of readers.

    Args:
        dims: length of every vector.
        provenance: who made the vectors; written into each part, compared on opening. A part that lacks one of its keys
            is older than the key, and is believed.
        record: what is worth knowing of them beside; written into each part, never compared here.
        storage: what numbers are kept as; they come out as float32.

    Raises:
        CorruptStore: a part is damaged. ModelMismatch: a part was made otherwise.
    """

    def __init__(
        self,
        folder: Path,
        temporary: Path,
        dims: int,
        provenance: Mapping[str, str],
        *,
        record: Mapping[str, str] | None = None,
        storage: Storage = "float32",
    ) -> None:
        self._folder = folder
        self._temporary = temporary
        self._schema = schema.vectors(dims, storage)
        self._provenance = dict(provenance)
        self._record = dict(record or {})
        self.dims = dims
        self._parts: list[Path] = []
        self._metadata: list[dict[str, str]] = []  # of the parts
        self._keys: Keys = keys.empty()
        self._places: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # part << 32 | row, beside the sorted keys
        self._group = functools.lru_cache(maxsize=CACHED_GROUPS)(self._read_group)
        self.refresh()

    def __len__(self) -> int:
        """Distinct keys."""
        return len(self._keys)

    def refresh(self) -> None:
        """Look at the parts on disk again. 24 bytes a key stay, and as much again is needed while it lasts."""
        self._parts = sorted(self._folder.glob("*.parquet"))
        self._group.cache_clear()
        self._metadata = [files.parquet_metadata(part) for part in self._parts]
        for part, found in zip(self._parts, self._metadata, strict=True):
            self._check_provenance(part, found)
        self._keys, self._places = keys.empty(), np.empty(0, dtype=np.int64)  # given back before as much is taken
        columns = [self._keys_of(part) for part in self._parts]
        spans = [np.arange(len(column), dtype=np.int64) | (n << 32) for n, column in enumerate(columns)]
        every = np.concatenate([keys.empty(), *columns])
        columns.clear()
        self._keys, first = np.unique(every, return_index=True)
        self._places = np.concatenate([np.empty(0, dtype=np.int64), *spans])[first]

    def _keys_of(self, part: Path) -> Keys:
        return keys.of_column(files.read_parquet(part, self._schema, ["embed_key"]).column(0))

    def _check_provenance(self, part: Path, found: Mapping[str, str]) -> None:
        for key, value in self._provenance.items():
            if found.get(key, value) != value:
                raise errors.ModelMismatch(
                    f"{part} was made with {key} {found[key]!r}, not {value!r}",
                    "Move this file out of the data folder, then run `pipeline embed` to make its vectors again.",
                )

    def recorded(self, key: str) -> list[str]:
        """What the parts' records say under `key`: every value there is but "", oldest first, each once."""
        return _values(key, self._metadata)

    def record(self, **values: str) -> None:
        """Write this beside into the parts that follow."""
        self._record |= values

    def _find(self, wanted: Keys) -> tuple[NDArray[np.int64], Mask]:
        positions = np.searchsorted(self._keys, wanted)
        if not len(self._keys):
            return positions, np.zeros(len(wanted), dtype=bool)
        clipped = np.minimum(positions, len(self._keys) - 1)
        return clipped, self._keys[clipped] == wanted

    def contains(self, wanted: Sequence[str]) -> Mask:
        """Which of these keys (hexadecimal) have a vector: bool of shape (len(wanted),)."""
        return self.has(keys.packed(wanted))

    def has(self, wanted: Keys) -> Mask:
        """The same of packed keys."""
        return self._find(wanted)[1]

    def take(self, wanted: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of these keys, in their order: float32 of shape (len(wanted), dims).

        Raises:
            KeyError: a key has no vector; ask `contains` first.
        """
        positions, found = self._find(keys.packed(wanted))
        if not found.all():
            raise KeyError(wanted[int(np.argmin(found))])
        places = self._places[positions]
        result = np.empty((len(wanted), self.dims), dtype=np.float32)
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

    def append(self, made: Sequence[str], *vectors: NDArray[np.float32]) -> None:
        """Write one part. `vectors`: float32 of shapes (n, dims), len(made) in all and in their order, checked by the
        embedding gate before."""
        if not len(made):
            return
        field = self._schema.field("vector")
        column = pa.chunked_array([schema.vector_column(matrix, field) for matrix in vectors], field.type)
        table = pa.table([pa.array(list(made), pa.string()), column], schema=self._schema)
        metadata = self._record | self._provenance
        files.write_parquet(
            self._temporary, self._new_part(), table, metadata=metadata, row_group=ROW_GROUP, plain=True
        )

    def adopt(self, batches: Iterable[pa.RecordBatch]) -> int:
        """Write one part of rows of another log, as they are and checked by the caller; returns how many there were.

        `batches` must not be empty.
        """
        rows = 0

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal rows
            for batch in batches:
                rows += batch.num_rows
                yield batch

        metadata = self._record | self._provenance
        files.write_batches(
            self._temporary, self._new_part(), counted(), self._schema, metadata=metadata, row_group=ROW_GROUP
        )
        return rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every key once with its vector, as they are stored, a row group at a time."""
        return self._first_of_each(self._parts)

    def _new_part(self) -> Path:
        # A name that sorts by time: parts keep the order of the run, and so a shard's vectors lie together.
        return self._folder / f"{time.time_ns() // 1_000_000:013d}-{secrets.token_hex(4)}.parquet"

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
        """Copy a few row groups at a time: whole parts of 131,072 vectors of 1024 dimensions would take a gigabyte."""
        found = [files.parquet_metadata(part) for part in parts]
        names = {name for one in found for name in one}
        # What decides a vector was compared; of the rest a joined part says all that its parts said.
        metadata = {name: _SEPARATOR.join(_values(name, found)) for name in names} | self._provenance
        batches = self._first_of_each(parts)
        files.write_batches(
            self._temporary, self._new_part(), batches, self._schema, metadata=metadata, row_group=ROW_GROUP
        )
        with files.disk_errors(self._folder):
            for part in parts:
                part.unlink()
            files.fsync_folder(self._folder)

    def _first_of_each(self, parts: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        """The rows of `parts` in their order, without doubles."""
        kept, start = keys.first_of_each(np.concatenate([self._keys_of(part) for part in parts])), 0
        for part in parts:
            for batch in files.read_batches(part, self._schema, ROW_GROUP):
                yield batch.filter(pa.array(kept[start : start + batch.num_rows]))
                start += batch.num_rows


def _values(key: str, metadata: Sequence[Mapping[str, str]]) -> list[str]:
    each = (value for found in metadata for value in found.get(key, "").split(_SEPARATOR) if value)
    return list(dict.fromkeys(each))
