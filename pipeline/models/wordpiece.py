"""How Ollama's eras read a text for an uncased WordPiece model: three readings beside the reference tokenizer's.

prompt_eval_count is compared with our count to find a text that was cut, or a tokenizer that is not the model's. But no
version reads every text as the reference does, and that is neither:

- llama.cpp without accent marks (llm_tokenizer_wpm_session; in Ollama below 0.13.5, and from 0.30 on): takes the first
  character of a decomposition, so a Hangul syllable is its first letter; drops what is private or for formatting.
- llama.cpp with them (older builds): marks that stand alone (Hebrew points, variation selectors) stay in their word,
  which is then [UNK].
- Ollama's own engine (model/wordpiece.go; 0.13.5 to 0.29): strips no accents, does not take + = ~ $ and the like for
  marks, and cuts a mark of several bytes in its middle: each curly quote, long dash or full-width stop is two [UNK] and
  swallows what follows it up to the next mark or space. Agreed with a server of 0.13.5, built from source, on 348 of
  348 texts, 148 of which the reference counts otherwise.

For comparing only: chunks are counted by the reference. Knows no server.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain

_SPACE = re.compile("[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+")
_IDEOGRAPH = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002ceaf\U0002f800-\U0002fa1f"
_WIDE = re.compile(f"([{_IDEOGRAPH}])")
CACHE_WORDS = 1 << 15
UNKNOWN = "[UNK]"
_BROKEN = "\ufffd"


class Readings:
    """The tokens of a text by each reading, special tokens left out.

    `vocabulary`: as tokenizer.json has it, with `##` before the rest of a word.
    """

    def __init__(self, vocabulary: Iterable[str]) -> None:
        words = list(vocabulary)
        self._first = frozenset(word for word in words if not word.startswith("##"))
        self._rest = frozenset(word[2:] for word in words if word.startswith("##"))
        self._longest = max(map(len, words), default=1)
        self._pieces = lru_cache(CACHE_WORDS)(self._split)

    def totals(self, texts: Sequence[str]) -> Iterator[int]:
        """How many tokens `texts` have together, by each reading in turn."""
        return (sum(len(reading(text)) for text in texts) for reading in self._all)

    def alike(self, a: str, b: str) -> bool:
        """Whether some reading makes the same tokens of both: then one vector for both is right."""
        return any(reading(a) == reading(b) for reading in self._all)

    @property
    def _all(self) -> tuple[Callable[[str], list[str]], ...]:
        return self.engine, self.llama_cpp, self.llama_cpp_with_marks

    def llama_cpp(self, text: str) -> list[str]:
        """As llama.cpp reads `text` today."""
        return self._join(_llama_words(text, marks=False))

    def llama_cpp_with_marks(self, text: str) -> list[str]:
        """As older builds of llama.cpp read `text`."""
        return self._join(_llama_words(text, marks=True))

    def engine(self, text: str) -> list[str]:
        """As Ollama's own engine reads `text`."""
        return self._join(word for run in _SPACE.split(_WIDE.sub(r" \1 ", text)) for word in _engine_words(run))

    def _join(self, words: Iterable[str]) -> list[str]:
        return list(chain.from_iterable(map(self._pieces, words)))

    def _split(self, word: str) -> tuple[str, ...]:
        """Longest match first; one [UNK] for a word that does not come out even."""
        pieces: list[str] = []
        start = 0
        while start < len(word):
            known = self._rest if start else self._first
            end = min(len(word), start + self._longest)
            while end > start and word[start:end] not in known:
                end -= 1
            if end == start:
                return (UNKNOWN,)
            pieces.append(("##" if start else "") + word[start:end])
            start = end
        return tuple(pieces)


def readings(tokenizer: Mapping[str, object]) -> Readings:
    """The readings of a decoded tokenizer.json with a WordPiece model."""
    model = tokenizer["model"]
    assert isinstance(model, dict)
    return Readings(model["vocab"])


def _engine_words(run: str) -> Iterator[str]:
    """The words of a run without spaces; `_BROKEN`, which no vocabulary has, for either half of a mark that was cut."""
    start, broken = 0, False
    for at, char in enumerate(run):
        if not unicodedata.category(char).startswith("P"):
            continue
        if broken or at > start:
            yield _BROKEN if broken else _lower(run[start:at])
        start, broken = at + 1, not char.isascii()
        yield _BROKEN if broken else char
    if broken or start < len(run):
        yield _BROKEN if broken else _lower(run[start:])


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
