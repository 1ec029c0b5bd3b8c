"""The integrity gate: what a vector must be before anything believes it. Knows numpy, no provider and no server.

Ollama 0.30 and later send zeros with status 200 where the model made a NaN (ollama/ollama#17878); 0.4.0 to 0.5.7
reused the buffer of a result, which shows as one vector for two texts. Two vectors that changed places cannot be seen
here: the versions that did it (0.2.6 to 0.3.6) must be refused by the embedder.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import cast

import numpy as np

from pipeline import models
from pipeline.models import vectors as checks

NORM_TOLERANCE = 1e-3


def violation(vectors: models.Vectors, texts: Sequence[str], dims: int) -> str | None:
    """Why `vectors` cannot be embeddings of `texts`: float32, shape (len(texts), dims), unit length. None: they can."""
    if not isinstance(cast("object", vectors), np.ndarray) or vectors.dtype != np.float32:
        return "the vectors are not float32"
    if vectors.shape != (len(texts), dims):
        return f"vectors of shape {vectors.shape} instead of {(len(texts), dims)}"
    if checks.near_unit(vectors):
        return _shared(vectors, texts)
    squares = np.einsum("ij,ij->i", vectors, vectors)  # NaN and infinity anywhere in a row come out here as well
    finite = np.isfinite(squares)
    if not finite.all():
        return f"a vector with NaN or infinity ({int((~finite).sum())} of {len(texts)})"
    if not squares.all():
        return f"a vector of zeros ({int((squares == 0).sum())} of {len(texts)})"
    off = np.abs(np.sqrt(squares) - 1) > NORM_TOLERANCE
    if off.any():
        return (
            f"a vector of length {float(np.sqrt(squares[off][0])):.4f} instead of 1 ({int(off.sum())} of {len(texts)})"
        )
    return _shared(vectors, texts)


def _shared(vectors: models.Vectors, texts: Sequence[str]) -> str | None:
    """Says so when two texts that a tokenizer can tell apart have one vector."""
    if checks.distinct(vectors):  # the usual case, in microseconds
        return None
    first: dict[bytes, str] = {}
    for row, text in zip(vectors, texts, strict=True):
        other = first.setdefault(row.tobytes(), text)
        if other is not text and _folded(other) != _folded(text):
            return "the same vector for different texts"
    return None


def _folded(text: str) -> str:
    """What an uncased tokenizer keeps of `text`: mxbai and MiniLM rightly give "Résumé" and "resume " one vector."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if not c.isspace() and unicodedata.category(c) not in ("Mn", "Cc", "Cf"))
