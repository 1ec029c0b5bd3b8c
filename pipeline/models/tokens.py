"""Counting tokens as an embedding model does, without the model: the one module that knows the `tokenizers` package.

Three sources: the packaged bert-base-uncased WordPiece (all-MiniLM and mxbai-embed-large share it), a vocabulary as
Ollama's `/api/show` tells it, and, where neither is to be had, a bound. Knows nothing of chunks or servers.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline import errors
from pipeline.models import Tokenizer

if TYPE_CHECKING:
    import tokenizers

BUILTIN = Path(__file__).parent / "data" / "all-minilm-l6-v2" / "tokenizer.json"
BUILTIN_SHA256 = "5fd1c882abbd30517dced455a2c9768945ec726b96727927e4959348d9de550b"

WINDOW = 60_000  # code points tokenised at once: 3 MB of punctuation take 1.8 GB in one call, 91 MB in windows
LONGEST_WORD = 100  # characters of a word that the reference WordPiece looks at; see _split_long_words
PIECE = 16
CACHE_WORDS = 1 << 17  # about 20 MB

# What BertNormalizer takes for a space (it drops \v, \f and U+0085 as control characters: they separate no words), the
# ideographs that it puts between spaces, and the ASCII marks that BertPreTokenizer isolates. Cutting there changes no
# count.
_SPACE = " \t\n\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_IDEOGRAPH = "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f\uf900-\ufaff"
_MARK = "!-/:-@\\[-`{-~"


def load(path: Path) -> Tokenizer:
    """The tokenizer of a tokenizer.json; its identity is the hash of the file.

    Raises:
        ConfigError: the file cannot be read or is not a tokenizer.json.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{path}: {error}", "Name a readable tokenizer.json.") from error


def from_json(text: str) -> Tokenizer:
    """The tokenizer that the text of a tokenizer.json describes; truncation and padding in it are switched off.

    Raises:
        ConfigError: it is not a tokenizer.json.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # workers are the parallelism; no warning after a fork
    import tokenizers

    try:
        inner = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the package raises bare Exception for every fault of the file
        raise errors.ConfigError(f"not a tokenizer.json: {error}", "Download the model's tokenizer again.") from error
    inner.no_truncation()
    inner.no_padding()
    identity = hashlib.sha256(text.encode()).hexdigest()[:16]
    if isinstance(inner.model, tokenizers.models.WordPiece) and inner.pre_tokenizer is not None:
        _split_long_words(inner)
        if isinstance(inner.pre_tokenizer[0], tokenizers.pre_tokenizers.BertPreTokenizer):
            return BertTokenizer(identity, inner)
    return FileTokenizer(identity, inner)


@cache
def builtin() -> Tokenizer:
    """The packaged bert-base-uncased WordPiece.

    Raises:
        ConfigError: the packaged file is damaged.
    """
    try:
        data = BUILTIN.read_bytes()
    except OSError as error:
        raise errors.ConfigError(f"{BUILTIN}: {error}", "Install embed-pipeline again.") from error
    if hashlib.sha256(data).hexdigest() != BUILTIN_SHA256:
        raise errors.ConfigError(f"{BUILTIN} is damaged", "Install embed-pipeline again.")
    return from_json(data.decode())


def _split_long_words(inner: tokenizers.Tokenizer) -> None:
    """Count a word of more than 100 characters in pieces of 16.

    The reference WordPiece makes such a word a single [UNK]; llama.cpp (llm_tokenizer_wpm_session), which Ollama runs,
    knows no such limit and sees some 2,000 tokens in a line of base64 that the reference counts as one. The pieces' sum
    is within a token a piece of llama.cpp's and never below the reference's. (Short pieces, because WordPiece takes
    quadratic time in a word.)
    """
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(rf"(?=[\s\S]{{{LONGEST_WORD + 1}}})[\s\S]{{{PIECE}}}"), "isolated")
    inner.pre_tokenizer = pre_tokenizers.Sequence([inner.pre_tokenizer, split])


class FileTokenizer:
    """A tokenizer of the `tokenizers` package. Safe to share between threads: nothing in it changes."""

    def __init__(self, identity: str, inner: tokenizers.Tokenizer) -> None:
        self._identity = identity
        self._inner = inner

    @property
    def identity(self) -> str:
        return self._identity

    def offsets(self, text: str) -> NDArray[np.int32]:
        parts = [np.empty((0, 2), np.int32)]
        for start, end in windows(text):
            found = self._inner.encode(text[start:end], add_special_tokens=False).offsets
            parts.append(np.array(found, dtype=np.int32).reshape(-1, 2) + np.int32(start))
        return np.concatenate(parts)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Exact up to 60,000 characters a text; above that a word or two may be counted apart where a window ends."""
        pieces = [text[start:end] for text in texts for start, end in windows(text)]
        counts = iter(map(len, self._inner.encode_batch_fast(pieces, add_special_tokens=False)))
        return [sum(next(counts) for _ in windows(text)) for text in texts]


class BertTokenizer(FileTokenizer):
    """WordPiece after BertPreTokenizer: a text counts as the sum of its words, so each is tokenised once and kept.

    Measured on 1.2 MB of English: 1.5 MB/s without, more than 10 MB/s with the words known.
    """

    def __init__(self, identity: str, inner: tokenizers.Tokenizer, cache_words: int = CACHE_WORDS) -> None:
        super().__init__(identity, inner)
        special = [re.escape(token.content) for token in inner.get_added_tokens_decoder().values()]
        self._words = re.compile("|".join([*special, f"[{_MARK}{_IDEOGRAPH}]", f"[^{_SPACE}{_MARK}{_IDEOGRAPH}]+"]))
        self._counts = _WordCounts(inner, cache_words)

    def count(self, texts: Sequence[str]) -> list[int]:
        """Exact for a text of any length."""
        counts, words = self._counts, self._words
        return [sum(map(counts.__getitem__, words.findall(text))) for text in texts]


class _WordCounts(dict[str, int]):
    def __init__(self, inner: tokenizers.Tokenizer, most: int) -> None:
        super().__init__()
        self._inner = inner
        self._most = most

    def __missing__(self, word: str) -> int:
        if len(word) > WINDOW:
            return sum(self[word[start:end]] for start, end in windows(word))
        tokens = len(self._inner.encode(word, add_special_tokens=False))
        if len(word) <= LONGEST_WORD:  # longer ones hardly come again
            if len(self) >= self._most:
                self.clear()
            self[word] = tokens
        return tokens


def windows(text: str, size: int = WINDOW) -> Iterator[tuple[int, int]]:
    """Half-open ranges of at most `size` code points that cover `text`, cut at a line end, a space or anywhere safe."""
    start = 0
    while len(text) - start > size:
        end = _safe_cut(text, start, start + size)
        yield start, end
        start = end
    if start < len(text):
        yield start, len(text)


def _safe_cut(text: str, start: int, end: int) -> int:
    line = text.rfind("\n", start + 1, end) + 1
    if line > start:
        return line
    space = text.rfind(" ", start + 1, end)
    if space > start:
        return space  # before it: byte-level BPE counts a space with the word that follows
    for cut in range(end, max(start, end - LONGEST_WORD), -1):
        if not _joins(text[cut]) and (_breaks(text[cut]) or _breaks(text[cut - 1])):
            return cut
    while end > start + 1 and _joins(text[end]):
        end -= 1
    return end


def _joins(char: str) -> bool:
    """True for what belongs to the character before it: accents, variation selectors, joiners."""
    return unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf", "Sk")


def _breaks(char: str) -> bool:
    return unicodedata.category(char) in ("Lo", "Po", "Ps", "Pe", "Zs")


_BOUND = re.compile(
    r"(?P<each>(?<![A-Za-z0-9])[A-Za-z0-9]{21,})"  # not a word: base64, hashes
    r"|[A-Za-z][a-z]{0,2}"  # a letter of either case and two more small ones
    r"|[0-9]|\n+|[^\S\n]{2,}"
    r"|(?P<wide>[\u0800-\uffff])|(?P<outer>[\U00010000-\U0010ffff])"
    r"|[^\s]"
)


class BoundTokenizer:
    """Counts for a model of unknown vocabulary: more than it will need, though not the certain bound of one per byte.

    One token for up to three letters of a word, for each digit, mark, newline run and two-byte letter (é, Cyrillic,
    Arabic); one for each character of an alphanumeric run above 20; two for other characters of the basic plane (CJK)
    and four above it (emoji). Subword vocabularies spend 1.2–1.5 tokens on an English word (this: 2), 0.6–1.3 on a
    Chinese character, 2–2.3 where a vocabulary has only bytes (GPT-2). One per byte would make chunks a quarter of the
    size asked for; rare text that beats this bound comes back from the server as too long, and its sender cuts it.
    """

    identity = "bound-1"

    def offsets(self, text: str) -> NDArray[np.int32]:
        spans = [span for match in _BOUND.finditer(text) for span in _bound_spans(match)]
        return np.array(spans, dtype=np.int32).reshape(-1, 2)

    def count(self, texts: Sequence[str]) -> list[int]:
        return [sum(_bound_count(match) for match in _BOUND.finditer(text)) for text in texts]


def _bound_count(match: re.Match[str]) -> int:
    kind = match.lastgroup
    if kind is None:
        return 1
    return {"wide": 2, "outer": 4}.get(kind) or match.end() - match.start()


def _bound_spans(match: re.Match[str]) -> list[tuple[int, int]]:
    start, end = match.span()
    if match.lastgroup == "each":
        return [(at, at + 1) for at in range(start, end)]
    return [(start, end)] * _bound_count(match)


def conservative() -> Tokenizer:
    """A counter for a model whose vocabulary is unknown: see BoundTokenizer for what it promises."""
    return BoundTokenizer()
