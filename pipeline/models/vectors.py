"""What a vector must be before it may leave a model client, and the Matryoshka cut. Knows arrays, not servers."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline import errors
from pipeline.models import Vectors

NORM_TOLERANCE = 1e-3


def stack(rows: Sequence[Sequence[float] | bytes], *, texts: int, dims: int, server: str) -> Vectors:
    """Rows as they came off the wire (numbers, or little-endian float32 bytes) as one float32 array (texts, dims).

    It may be read-only.

    Raises:
        BadVectors: the number of rows or the length of one is not what was asked for.
    """
    if len(rows) != texts:
        raise errors.BadVectors(f"{server} sent {len(rows)} vectors for {texts} texts.")
    for row in rows:
        length = len(row) / 4 if isinstance(row, bytes) else len(row)
        if length != dims:
            raise errors.BadVectors(f"{server} sent a vector of {length:g} dimensions where {dims} are expected.")
    numbers = [row if isinstance(row, bytes) else np.asarray(row, dtype="<f4").tobytes() for row in rows]
    return np.frombuffer(b"".join(numbers), dtype="<f4").reshape(texts, dims).astype(np.float32, copy=False)


def verify(matrix: Vectors, server: str) -> None:
    """Believe no vector unseen: finite, not zero, of unit length.

    A zero vector with status 200 is what Ollama 0.30+ makes of a NaN (#17878).

    Raises:
        BadVectors: says which text (by its place in the batch) and what is wrong with its vector.
    """
    if near_unit(matrix):
        return
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64))
    for wrong, what in (
        (~np.isfinite(norms), "holds NaN or infinity"),
        (norms == 0, "is all zeros"),
        (np.abs(norms - 1) > NORM_TOLERANCE, "is not of unit length"),
    ):
        if wrong.any():
            first = int(np.flatnonzero(wrong)[0])
            count = int(wrong.sum())
            raise errors.BadVectors(
                f"{server}: {count} of {len(matrix)} vectors cannot be right; the first, of text {first}, {what} "
                f"(length {norms[first]:.4g})."
            )


def near_unit(matrix: Vectors) -> bool:
    """Whether every row is well within the tolerance, by float32 alone: its rounding errors are below 1e-5 for 4096
    numbers, and NaN or infinity anywhere in a row comes out. What it doubts is to be looked at in float64, which takes
    five times as long."""
    return bool((np.abs(np.einsum("ij,ij->i", matrix, matrix) - 1) < NORM_TOLERANCE).all())


def distinct(matrix: Vectors) -> bool:
    """Whether the rows differ in their first 16 bytes already, as those of different texts do. False: look closer."""
    heads = np.ascontiguousarray(matrix[:, :4])
    keys = heads.view(np.dtype((np.void, heads.itemsize * heads.shape[1]))).ravel().tolist() if heads.size else []
    return len(set(keys)) == len(matrix)


def twins(matrix: Vectors, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of places whose texts differ but whose vectors are equal to the last bit.

    Not always a fault: an uncased model reads "Oslo" and "oslo" as one input, and two unknown characters as the same
    [UNK]. The caller decides by what the model's tokenizer makes of the two.
    """
    if distinct(matrix):
        return []
    first: dict[bytes, int] = {}
    pairs = ((first.setdefault(row.tobytes(), i), i) for i, row in enumerate(matrix))
    return [(a, b) for a, b in pairs if texts[a] != texts[b]]


def fold(text: str) -> str:
    """`text` as an uncased model roughly reads it: no case, accents, control characters or differences of white
    space."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    kept = "".join(c for c in plain if unicodedata.category(c) not in {"Mn", "Cc", "Cf"} or c.isspace())
    return " ".join(kept.split())


def normalised(matrix: NDArray[np.float32]) -> Vectors:
    """Rows at unit length, float32; a row of zeros stays one (and `verify` refuses it)."""
    norms = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(matrix / np.maximum(norms, 1e-12), dtype=np.float32)


def cut(matrix: Vectors, dims: int) -> Vectors:
    """The first `dims` components of each row at unit length again: a Matryoshka model's shorter vector."""
    return matrix if dims == matrix.shape[1] else normalised(matrix[:, :dims])
