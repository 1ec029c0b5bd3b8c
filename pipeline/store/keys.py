"""Embed keys in numbers: 16 bytes each in numpy arrays, where a Python string would take 81. Knows no files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import errors, ids

# dtype S16: fixed length, so that numpy's stripping of trailing zeros cannot make two keys equal
Keys = NDArray[np.bytes_]
Mask = NDArray[np.bool_]

_BAD = 255  # in _NIBBLES: not a hexadecimal digit
_NIBBLES = np.full(256, _BAD, dtype=np.uint8)
for _digit in b"0123456789abcdef":
    _NIBBLES[_digit] = int(chr(_digit), 16)


def empty() -> Keys:
    return np.empty(0, dtype="S16")


def packed(hexadecimal: Sequence[str]) -> Keys:
    """Hexadecimal ids as an array of 16 bytes each."""
    return np.frombuffer(bytes.fromhex("".join(hexadecimal)), dtype="S16")


def of_column(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> Keys:
    """The same of a string column without nulls, read from Arrow's own memory: no Python string is made.

    Raises:
        CorruptStore: a value is not 32 lower-case hexadecimal digits.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    found = [_of_array(cast("pa.StringArray", chunk)) for chunk in chunks if len(chunk)]
    return np.concatenate([empty(), *found])


def _of_array(array: pa.StringArray) -> Keys:
    """A StringArray's buffers are validity, int32 offsets (one more than values) and UTF-8 text: Arrow's columnar
    format, "Variable-size Binary Layout"."""
    buffers: list[Any] = array.buffers()  # the stubs do not know that a Buffer has the buffer protocol
    _, offsets_buffer, text = buffers
    offsets = np.frombuffer(offsets_buffer, dtype=np.int32, count=len(array) + 1, offset=4 * array.offset)
    if text is None or (np.diff(offsets) != ids.LENGTH).any():
        raise _corrupt()
    start = int(offsets[0])
    digits = _NIBBLES[np.frombuffer(text, dtype=np.uint8, count=len(array) * ids.LENGTH, offset=start)]
    if (digits == _BAD).any():
        raise _corrupt()
    return (digits[0::2] << 4 | digits[1::2]).view("S16")


def _corrupt() -> errors.CorruptStore:
    return errors.CorruptStore(f"An embed key is not {ids.LENGTH} hexadecimal digits.", "Run `pipeline check --fix`.")


def first_of_each(keys: Keys) -> Mask:
    """Which of `keys` have no equal before them."""
    mask = np.zeros(len(keys), dtype=bool)
    mask[np.unique(keys, return_index=True)[1]] = True
    return mask


class KeySet:
    """Remembers keys, 16 bytes each and nothing more: sorted runs, each more than twice as long as the next.

    A million keys in a `set[bytes]` take 116 MB.
    """

    def __init__(self) -> None:
        self._runs: list[Keys] = []

    def __len__(self) -> int:
        return sum(map(len, self._runs))

    def contains(self, keys: Keys) -> Mask:
        """Which of `keys` were added before."""
        found = np.zeros(len(keys), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, keys), len(run) - 1)
            found |= run[places] == keys
        return found

    def add(self, keys: Keys) -> Mask:
        """Add all; returns which are new, the first of equal ones."""
        fresh = ~self.contains(keys) & first_of_each(keys)
        run = np.sort(keys[fresh])
        while len(run) and self._runs and len(self._runs[-1]) <= 2 * len(run):
            run = np.sort(np.concatenate((self._runs.pop(), run)), kind="stable")
        if len(run):
            self._runs.append(run)
        return fresh
