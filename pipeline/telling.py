"""The words that tell groups of texts apart, so that a map can be read: a class-based weighing of words after
BERTopic's c-TF-IDF (Grootendorst 2022).

A word counts by the share of the group's texts that hold it, times the logarithms of how much more often that is than
in all texts together, and of how rare it is there: "the" is everywhere and tells nothing. Chinese, Japanese and Korean
are cut into runs of two to four characters; a run that is hardly ever seen without a longer one gives way to it. Knows
texts and nothing else.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline import scripts

WORDS = 4  # of a label
READ = 300  # texts of a group; the most typical are to come first
CHARACTERS = 2_000  # of a text
_SHORTEST = 3  # letters of a word; one of digits alone says nothing
_RUNS = (2, 3, 4)
# Particles, pronouns and auxiliaries of Chinese at the edge of a run, or the commonest anywhere in it: no word begins
# or ends there. Japanese has hiragana for its endings and particles, katakana for words that are whole as they stand.
_EDGE = "的了是着们这那之与及其而且和在也为以于被把个一他她它我你很就都不有"
_PARTICLE = re.compile(rf"^[{_EDGE}上中]|[{_EDGE}]$|[的了是]")
_HIRAGANA = re.compile("[\u3040-\u309f]+")
_KATAKANA = re.compile("[\u30a0-\u30ff]{2,}")
_PRESENT = 0.1  # of a group's texts, for a kind of writing to be in its label
_COMMON = 0.99  # share of all texts; so that a word of each still has a place, the last
_ALIKE = 1e-3
_LEAST = 2  # texts that hold a word, where there are more than a handful
_WHOLE = 0.7  # of the texts with a run that also hold the longer one: then the longer is the word


@dataclass(frozen=True, slots=True)
class _Held:
    """In how many texts of a group each word is, East Asian or not, and how many texts of each kind there are.

    The kinds are weighed apart: what tells a group of Chinese texts from all Chinese texts is not that it is Chinese.
    """

    counts: tuple[Counter[str], Counter[str]]
    sizes: tuple[int, int]

    def shares(self, kind: int) -> dict[str, float]:
        """Of the texts of a kind; none where hardly a text of the group is of that kind."""
        size = self.sizes[kind]
        if size < _PRESENT * sum(self.sizes):
            return {}
        return {word: texts / size for word, texts in self.counts[kind].items()}


def labels(groups: Sequence[Sequence[str]], count: int = WORDS) -> list[tuple[str, ...]]:
    """Of each group the `count` most telling words, the most telling first; of a group without any, none.

    Args:
        groups: texts by group. Of each, READ are read.
    """
    held = [_held(texts[:READ]) for texts in groups]
    overall = _overall(held, 0) | _overall(held, 1)
    return [_label(one, overall, count) for one in held]


def _held(texts: Iterable[str]) -> _Held:
    counts, sizes = (Counter[str](), Counter[str]()), [0, 0]
    for text in texts:
        kind = int(bool(scripts.language(text)))
        sizes[kind] += 1
        counts[kind].update(word for word in words(text) if kind == int(bool(scripts.CJK_RUN.match(word))))
    return _Held(counts, (sizes[0], sizes[1]))


def _overall(held: Sequence[_Held], kind: int) -> dict[str, float]:
    """The share of texts that hold a word, of a kind and in the middle of the groups: one of few texts weighs as much
    as one of many.
    """
    shares = [found for found in (one.shares(kind) for one in held) if found]
    total: defaultdict[str, float] = defaultdict(float)
    for found in shares:
        for word, share in found.items():
            total[word] += share / len(shares)
    return dict(total)


def words(text: str) -> set[str]:
    """What of a text can be a label: words of letters, and runs of East Asian characters."""
    lowered = unicodedata.normalize("NFKC", text[:CHARACTERS]).lower()
    runs = [part for run in scripts.CJK_RUN.findall(lowered) for part in _HIRAGANA.split(run)]
    found = {word for run in runs for word in _KATAKANA.findall(run)}
    pieces = [piece for run in runs for piece in _KATAKANA.split(run)]
    cut = {piece[at : at + n] for piece in pieces for n in _RUNS for at in range(len(piece) - n + 1)}
    found |= {run for run in cut if not _PARTICLE.search(run)}
    plain = scripts.WORD.findall(scripts.CJK_RUN.sub(" ", lowered))
    return found | {word for word in plain if len(word) >= _SHORTEST and not word.isdigit()}


def _label(held: _Held, overall: Mapping[str, float], count: int) -> tuple[str, ...]:
    whole = sum(held.sizes)
    least = _LEAST if whole > 2 * _LEAST else 1
    scored: dict[str, float] = {}
    for kind, counts in enumerate(held.counts):
        for word, share in held.shares(kind).items():
            score = _score(share, overall[word]) * held.sizes[kind] / whole
            if counts[word] >= least and score > 0:
                scored[word] = score
    both = held.counts[0] + held.counts[1]
    chosen: list[str] = []
    for word in sorted(scored, key=lambda word: (-scored[word], word)):
        if len(chosen) == count:
            break
        word = _whole(word, both)
        if not any(_same(word, other) for other in chosen):
            chosen.append(word)
    return tuple(chosen)


def _score(share: float, overall: float) -> float:
    """How much a word tells: its share, how much more that is than elsewhere, and how rare it is in all. Where all
    groups have it alike, as where there is one group, the rare ones of many texts remain.
    """
    return share * (math.log(share / overall) + _ALIKE) * math.log(1 / min(overall, _COMMON))


def _whole(word: str, counts: Counter[str]) -> str:
    """The longer run that `word` is a part of, where it is hardly seen without it; among equals the first."""
    if not scripts.CJK_RUN.fullmatch(word):
        return word
    longer = [one for one in counts if len(one) == len(word) + 1 and word in one]
    best = max(longer, key=lambda one: (counts[one], one), default="")
    return _whole(best, counts) if best and counts[best] >= _WHOLE * counts[word] else word


def _same(word: str, other: str) -> bool:
    """Whether both together say no more than one: parts of each other, overlapping runs, plurals."""
    if word in other or other in word:
        return True
    if not (scripts.CJK_RUN.fullmatch(word) and scripts.CJK_RUN.fullmatch(other)):
        return False
    return any(word[-n:] == other[:n] or other[-n:] == word[:n] for n in range(1, min(len(word), len(other))))
