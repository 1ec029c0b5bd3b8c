"""How Ollama's eras read a text for an uncased WordPiece model: three readings beside the reference tokenizer's.

prompt_eval_count is compared with our count to find a text that was cut or a tokenizer that is not the model's. But no
version reads every text as the reference does, and that is neither:

- llama.cpp without accent marks (llm_tokenizer_wpm_session; inside Ollama below 0.13.5, and from 0.30 on): takes the first
  character of a decomposition, so a Hangul syllable is its first letter; what is private or for formatting is dropped.
- llama.cpp with them: marks that stand alone (Hebrew points, variation selectors) stay in their word, which is then [UNK].
- Ollama's own engine (model/wordpiece.go; 0.13.5 to 0.29): strips no accents, does not take + = ~ $ and the like for marks,
  and cuts a mark of several bytes in its middle: each curly quote, long dash or full-width stop is two [UNK] and swallows
  the word that follows it. Seen on a server of 0.13.5 that was built from source.

Counts only, for the comparison; chunks are counted by the reference. Knows no server.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f"
_WIDE = re.compile(f"([{_IDEOGRAPH}])")
CACHE_WORDS = 1 << 15
Reading = Callable[[str], int]


class Readings:
    """Counts by each reading, special tokens left out. `vocabulary`: as tokenizer.json has it (`##` before the rest of a word)."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        words = list(vocabulary)
        self._first = frozenset(word for word in words if not word.startswith("##"))
        self._rest = frozenset(word[2:] for word in words if word.startswith("##"))
        self._longest = max(map(len, words), default=1)
        self._pieces = lru_cache(CACHE_WORDS)(self._count_pieces)

    def totals(self, texts: Sequence[str]) -> Iterator[int]:
        """The count of all `texts` by each reading in turn."""
        readings: tuple[Reading, ...] = (self.engine, self.llama_cpp, lambda text: self.llama_cpp(text, marks=True))
        return (sum(map(reading, texts)) for reading in readings)

    def llama_cpp(self, text: str, *, marks: bool = False) -> int:
        """As llama.cpp reads `text`; `marks`: accents that stand alone are kept."""
        return sum(self._pieces(word) for word in _llama_words(text, marks=marks))

    def engine(self, text: str) -> int:
        """As Ollama's own engine reads `text`."""
        return sum(self._engine_words(word) for word in _SPACE.split(_WIDE.sub(r" \1 ", text)) if word)

    def _engine_words(self, word: str) -> int:
        """A run without spaces: marks apart, and after a mark of several bytes everything up to the next is [UNK]."""
        total, broken, start = 0, False, 0
        for at, char in enumerate(word):
            if not unicodedata.category(char).startswith("P"):
                continue
            total += 1 if broken else self._pieces(_lower(word[start:at])) if at > start else 0
            broken, start = not char.isascii(), at + 1
            total += 1 if broken else self._pieces(char)
        if broken:
            return total + 1
        return total + (self._pieces(_lower(word[start:])) if start < len(word) else 0)

    def _count_pieces(self, word: str) -> int:
        """Longest match first; one [UNK] for a word that does not come out even."""
        start, count = 0, 0
        while start < len(word):
            known = self._rest if start else self._first
            end = min(len(word), start + self._longest)
            while end > start and word[start:end] not in known:
                end -= 1
            if end == start:
                return 1
            start, count = end, count + 1
        return count


def readings(tokenizer: Mapping[str, object]) -> Readings:
    """The readings of a decoded tokenizer.json with a WordPiece model."""
    model = tokenizer["model"]
    assert isinstance(model, dict)
    return Readings(model["vocab"])


def _lower(word: str) -> str:
    """Character by character, as Go and llama.cpp do: never longer than before."""
    return "".join(low if len(low := char.lower()) == 1 else char for char in word)


def _llama_words(text: str, *, marks: bool) -> Iterator[str]:
    word = ""
    for part in _WIDE.split(text):
        for char in map(_base, part):
            kind = unicodedata.category(char)
            alone = kind[0] == "P" or (char < "\x7f" and kind[0] == "S") or _WIDE.match(char) is not None
            space = _SPACE.match(char) is not None
            if (alone or space) and word:
                yield word
                word = ""
            if alone:
                yield _lower(char)
            elif not space and not _dropped(char, kind, marks=marks):
                word += _lower(char)
    if word:
        yield word


@lru_cache(1 << 12)
def _base(char: str) -> str:
    return unicodedata.normalize("NFD", char)[0]


def _dropped(char: str, kind: str, *, marks: bool) -> bool:
    return char in "\0\ufffd" or kind in ("Cc", "Cf", "Co", "Cs") or (not marks and kind[0] == "M")
