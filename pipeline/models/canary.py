"""One known text, and what its vector says about who embeds: whether two servers, or one server before and after an
update, make vectors that belong together. Knows arrays; asks no server.

What is recorded is the vector itself, as float16 in base64 (2.7 kB for 1024 dimensions), and not a hash of it: another
device, batch size or build of the same model moves every component in its last digits, and wherever a hash's rounding
puts its edges, some component of some model lies on one. A cosine has no edges: the same weights give more than 0.9999
on any device, float16 costs less than 1e-6 of it, another model or another way of pooling gives less than 0.99.
"""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from pipeline import errors

TEXT = "The harbour master opens the gates at seven in the morning."
AGREE = 0.999  # cosine above which two vectors of TEXT come from the same model


def encode(vector: NDArray[np.float32]) -> str:
    """`vector`, of shape (dims,), as it is recorded: base64 of little-endian float16."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode("ascii")


def decode(recorded: str) -> NDArray[np.float32]:
    """The vector of a recorded canary, shape (dims,).

    Raises:
        CorruptStore: it is not one.
    """
    try:
        raw = base64.b64decode(recorded, validate=True)
        vector = np.frombuffer(raw, dtype="<f2").astype(np.float32)
    except (binascii.Error, ValueError) as error:
        raise errors.CorruptStore(f"A recorded canary vector cannot be read ({error}).", _CHECK) from error
    if not vector.size or not np.isfinite(vector).all() or not vector.any():
        raise errors.CorruptStore("A recorded canary vector is empty, zero or not finite.", _CHECK)
    return vector


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Cosine of two vectors that are not zero; 0.0 where their lengths differ: such vectors never belong together."""
    if a.shape != b.shape:
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def check_canary(recorded: str, now: str) -> None:
    """Refuse a model server whose vectors are not those that a collection was built with.

    Args:
        recorded: as `Description.canary` was then; "" where nothing was recorded: then there is nothing to compare.
        now: as it is now.

    Raises:
        ModelMismatch: the two are not the same model's.
        CorruptStore: one of them is no canary.
    """
    if not recorded or recorded == now:
        return
    found = cosine(decode(recorded), decode(now))
    if not found > AGREE:
        raise errors.ModelMismatch(
            "The model server makes other vectors than those that this collection was built with "
            f"(cosine {found:.4f} for a known text, where {AGREE} is the least that two runs of one model give).",
            "Bring back the model and the version of the server that built it (`pipeline doctor` shows what runs now), "
            "or embed anew: `pipeline --collection NEW run DOCS`.",
        )


_CHECK = "Run `pipeline check`."
