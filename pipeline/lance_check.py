"""A search table looked at as a whole: every row, every index, every file. For `pipeline check`; questions use Reader.

What LanceDB raises does not leave this module: a table that cannot be read is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import errors, lance, lance_disk, lance_rows
from pipeline.lance_rows import HASHED, WORDS

COLUMNS = (*HASHED, "row_hash", "vector", WORDS.name)
BATCH_ROWS = 1024


class Inspector(lance.Reader):
    """A published version of a table, for reading all of it."""

    @classmethod
    def inspect(cls, folder: Path, name: str, version: int) -> Inspector:
        """Open a published version; 0: the one that the tag names.

        Raises:
            NoIndex: it is not there. CorruptStore: it cannot be opened.
        """
        with _reading(folder):
            found = cls.open(folder, name, version)
        assert isinstance(found, Inspector)
        return found

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every row with COLUMNS, a batch at a time.

        Raises:
            CorruptStore: the table cannot be read.
        """
        with _reading(self._folder):
            reader = self._table.search(None).select(list(COLUMNS)).to_batches(BATCH_ROWS)
            yield from reader

    def uncovered(self) -> dict[str, int]:
        """Rows that the full-text index and, where there is one, the vector index do not cover, by column; -1: the
        full-text index is missing.
        """
        with _reading(self._folder):
            found = {index.columns[0]: int(index.num_unindexed_rows) for index in self._table.list_indices()}
        return {WORDS.name: -1} | found

    def try_indexes(self, word: str) -> None:
        """Ask each index one question: a torn index file shows only then.

        Raises:
            CorruptStore: one cannot be read.
        """
        with _reading(self._folder):
            self.text(word, 1)
            vector = np.zeros(self.dims, dtype=np.float32)
            vector[0] = 1.0
            self.vector(vector, 1)

    def provenance_fault(self, expected: dict[str, str]) -> str:
        """Why the vectors are not those of `expected`; "" where they are."""
        stored = self.provenance
        wrong = [key for key, value in expected.items() if stored.get(key, value) != value]
        return f"built with another {wrong[0]}: {stored[wrong[0]]!r}" if wrong else ""


def words_differ(batch: pa.RecordBatch) -> int:
    """Rows of which full-text search reads other words than the row holds."""
    given, made = batch.column(WORDS.name).to_pylist(), lance_rows.words(batch).to_pylist()
    return sum(a != b for a, b in zip(given, made, strict=True))


def torn_manifests(folder: Path, name: str) -> Sequence[Path]:
    """Manifests of the table that a crash of the machine left empty or half written: they block every open."""
    return lance_disk.torn((folder / f"{name}.lance" / "_versions").glob("*.manifest"))


def tag_fault(folder: Path, name: str, version: int) -> str:
    """What is wrong with the tag that says which version is durable; "" for nothing.

    Args:
        version: published; the tag may be ahead of it, by a run that was killed between the two.
    """
    path = lance_disk.tag_file(folder / f"{name}.lance", lance.LIVE)
    try:
        tagged = int(json.loads(path.read_bytes())["version"])
    except FileNotFoundError:
        return "the published tag is missing"
    except (ValueError, KeyError, TypeError):
        return "the published tag is torn"
    return f"the tag names version {tagged}, but {version} is published" if tagged < version else ""


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except errors.StoreError as error:
        raise errors.CorruptStore(error.message, "Run `pipeline check --fix`.") from error
    except (RuntimeError, ValueError, OSError, pa.ArrowException) as error:
        said = str(error).strip().splitlines()
        what = f"{folder}: cannot be read: {said[0] if said else type(error).__name__}"
        raise errors.CorruptStore(what, "Run `pipeline check --fix`.") from error
