"""Vectors one can compute: each function depends on the text alone and is the same in every process, so a test can say
what is right.

`words` puts texts that share words (Chinese and Japanese: pairs of characters) close together, `hash` makes any two
texts nearly orthogonal and is cheap, `minilm` is a real model, tiled to the dimensions asked for. All are float32 of
unit length. Ollama normalises /api/embed in every version and never the legacy /api/embeddings; `raw_length` is the
length that the fake gives those.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tests.fake_ollama import tokens

if TYPE_CHECKING:
    from collections.abc import Callable

Vector = NDArray[np.float32]
PREFIXES = (
    "Represent this sentence for searching relevant passages: ",
    "search_query: ",
    "search_document: ",
    "query: ",
)
_STOP_WORDS = """
a an and are as at be but by did do does for from had has have how i if in is it its me of on or our she so that the
their them then they this to was we were what when where which who whom why will with you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
STOP_WEIGHT = 0.1
PLACES = 8  # a feature touches this many components, so that cutting the dimensions keeps most of it
_BANK_SIZE = 1 << 16
_WORD = re.compile(rf"[{tokens.CJK}]+|[^\W_{tokens.CJK}]+")
_ASCII_WORD = re.compile("[a-z0-9]+")
_IS_CJK = re.compile(rf"[{tokens.CJK}]")


def unit(vector: NDArray[Any]) -> Vector:
    """`vector` at length 1, as float32; a vector of zeros stays one, as in Ollama."""
    length = float(np.sqrt(np.dot(vector, vector)))
    return np.asarray(vector / max(length, 1e-12), dtype=np.float32)


def without_prefix(text: str) -> str:
    """`text` without the query or document prefix that a client of these models puts in front."""
    return next((text[len(prefix) :] for prefix in PREFIXES if text.startswith(prefix)), text)


def features(text: str) -> list[str]:
    """Lower-cased words, and for runs of CJK characters their overlapping pairs (a run of one is itself)."""
    plain = without_prefix(text).casefold()
    if plain.isascii():
        return _ASCII_WORD.findall(plain)
    found: list[str] = []
    for word in _WORD.findall(plain):
        if _IS_CJK.match(word) and len(word) > 1:
            found.extend(word[i : i + 2] for i in range(len(word) - 1))
        else:
            found.append(word)
    return found


@lru_cache(maxsize=1 << 16)
def _places(feature: str) -> tuple[NDArray[Any], NDArray[Any]]:
    raw = np.frombuffer(hashlib.blake2b(feature.encode(), digest_size=4 * PLACES).digest(), dtype="<u4")
    return raw >> 1, np.where(raw & 1, 1.0, -1.0)


def words_vector(text: str, dims: int) -> Vector:
    """A hashed bag of words: cosine is high where words are shared. A text without any word gets one fixed vector."""
    counts = Counter(features(text)) or Counter({"": 1})
    places = [_places(feature) for feature in counts]
    weights = [np.sqrt(n) * (STOP_WEIGHT if feature in STOP_WORDS else 1.0) for feature, n in counts.items()]
    where = np.concatenate([place for place, _ in places]) % dims
    what = np.concatenate([signs * weight for (_, signs), weight in zip(places, weights, strict=True)])
    total = np.bincount(where, weights=what, minlength=dims)
    if not total.any():
        total[0] = 1.0
    return unit(total)


@cache
def _bank(dims: int) -> NDArray[np.float32]:
    raw = hashlib.shake_256(b"fake ollama").digest(2 * (_BANK_SIZE + dims))
    return np.asarray((np.frombuffer(raw, dtype="<u2") - 32767.5) / 32768, dtype=np.float32)


def hash_vector(text: str, dims: int) -> Vector:
    """A unit vector that only says which text it came from: three windows of one fixed noise, at places that the text's
    hash names.
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    a, b, c = struct.unpack("<3H", digest)
    noise = _bank(dims)
    total = noise[a : a + dims] + noise[b : b + dims] - noise[c : c + dims]
    total *= 1.0 / np.sqrt(np.dot(total, total))
    return total


class MiniLM:
    """The 384-dimensional sentence model in `folder` (`model.onnx`, `tokenizer.json`), repeated until it fills the
    dimensions.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path, providers = str(folder / "model.onnx"), ["CPUExecutionProvider"]
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=providers)
        self._tokenizer = tokens.load(folder / "tokenizer.json")

    def vector(self, text: str, dims: int) -> Vector:
        ids = np.array([self._tokenizer.encode(without_prefix(text)).ids[:512]], dtype=np.int64)
        (found,) = self._session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        return unit(np.resize(found[0], dims))


def by_name(name: str, minilm: Path) -> Callable[[str, int], Vector]:
    """The function behind `--vectors NAME`; `minilm` loads its model here, at the first use."""
    if name == "minilm":
        return MiniLM(minilm).vector
    return {"words": words_vector, "hash": hash_vector}[name]


def raw_length(text: str) -> float:
    """The length of the un-normalised vector for `text`: somewhere from 10 to 20, fixed by the text."""
    return 10.0 + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] / 25.6
