"""Counting tokens as bert-base-uncased WordPiece does, cutting a text at a token, and the vocabulary in GGUF form.

The rule for the GGUF form is Ollama's `convert/convert_bert.go`: `[…]` stays, `##x` becomes `x`, anything else gets
U+2581 in front. Simplified: every embedding model counts with this one tokenizer, bge-m3 too; llama3.2's tokens are
words and single CJK characters (`rough_tokens`).
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenizers import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_TOKENIZER = ROOT / "pipeline" / "models" / "data" / "all-minilm-l6-v2" / "tokenizer.json"
PHANTOM_SPACE = "\u2581"
CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_NOT_SPACES = "\x0b\x0c\x1c\x1d\x1e\x1f"  # spaces to Python, control characters to BERT
_ROUGH = re.compile(rf"\s*[{CJK}]|\s*[^\W{CJK}]+(?:['’-][^\W{CJK}]+)*|\s*[^\w\s]|\s+")


@cache
def load(path: Path = DEFAULT_TOKENIZER) -> Tokenizer:
    """The tokenizer, loaded at its first use: the server answers /api/version before it needs one."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


def count(texts: list[str], path: Path = DEFAULT_TOKENIZER) -> list[int]:
    """Content tokens of each text, without [CLS] and [SEP].

    An ASCII text is counted from a cache of what stands between spaces, because the tokenizer cuts at spaces first;
    any other text goes through the tokenizer, which takes some thirty times as long.
    """
    words = _words(path)
    return [sum(map(words, text.split())) if _has_cached_words(text) else _exact(text, path) for text in texts]


def _has_cached_words(text: str) -> bool:
    return text.isascii() and not any(odd in text for odd in _NOT_SPACES)


def _exact(text: str, path: Path) -> int:
    return len(load(path).encode(text, add_special_tokens=False))


@cache
def _words(path: Path) -> Callable[[str], int]:
    @lru_cache(maxsize=1 << 17)
    def known(word: str) -> int:
        return _exact(word, path)

    return known


def cut(text: str, limit: int, path: Path = DEFAULT_TOKENIZER) -> str:
    """The part of `text` that holds its first `limit` content tokens. (Ollama detokenizes instead, which also
    lower-cases.)
    """
    offsets = load(path).encode(text, add_special_tokens=False).offsets
    return text if len(offsets) <= limit else text[: offsets[limit - 1][1]]


@cache
def gguf_vocabulary(path: Path = DEFAULT_TOKENIZER) -> list[str]:
    """`tokenizer.ggml.tokens` of a WordPiece model, in id order."""
    by_id = sorted((number, token) for token, number in load(path).get_vocab().items())
    return [_phantom(token) for _, token in by_id]


def _phantom(token: str) -> str:
    if token.startswith("[") and token.endswith("]"):
        return token
    return token[2:] if token.startswith("##") else PHANTOM_SPACE + token


def rough_tokens(text: str) -> list[str]:
    """A stand-in for the chat model's tokens: words, single CJK characters and marks, each with the space before it;
    joined they are `text`.
    """
    return _ROUGH.findall(text)
