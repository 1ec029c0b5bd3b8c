"""When two passages say the same: equal but for layout, or nearly equal with nothing decisive between them.

Two passages are alike when at least LEAST of the runs of three words that either has are in both (Jaccard's measure
over shingles; Broder 1997), and their numbers and negations are the same, in the same order. White space, case and
punctuation do not count. A word is a word, or one character of Chinese, Japanese or Korean. A short first or last
line with a number in it is a running header or footer, and does not count.

A changed number or a "not" keeps two passages apart, though nearly all of their words agree: "25 days" and "30 days"
in two years' handbooks are two answers, and whoever asks must see both. Knows words; nothing of hits.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from pipeline import scripts

LEAST = 0.9  # of the shingles of both that are in both
RUN = 3  # words in a shingle
_LENGTHS = 0.8  # shorter text to longer, by characters, layout included: below, the two cannot be alike in practice
_FOOTER, _FOOTER_WORDS = 80, 8  # characters and words of a running header or footer, at most
_BODY_WORDS = 20  # that must remain without it

_CJK_NUMERALS = "〇零一二三四五六七八九十百千万萬亿億兆两兩"
_DECISIVE = frozenset(
    "no not never none without nor kein keine keinen keiner nicht nie ohne pas jamais sans ni sin nunca".split()  # noqa: SIM905
) | frozenset("不没沒未無无非勿別别" + _CJK_NUMERALS)
_CJK = scripts.CJK_RUN.pattern.removeprefix("[").removesuffix("]+")
_UNIT = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Print:
    """What two texts are compared by.

    Attributes:
        decisive: numbers and negations, in their order.
        shingles: every run of RUN words; of a shorter text, the whole.
    """

    decisive: tuple[str, ...]
    shingles: frozenset[tuple[str, ...]]


def of(text: str) -> Print:
    """The print of a passage: about 0.1 ms."""
    units = _units(unicodedata.normalize("NFKC", text).casefold())
    decisive = tuple(unit for unit in units if unit in _DECISIVE or not unit.isalpha())
    if len(units) < RUN:
        return Print(decisive=decisive, shingles=frozenset([tuple(units)]))
    return Print(decisive=decisive, shingles=frozenset(zip(units, units[1:], units[2:], strict=False)))


def _units(text: str) -> list[str]:
    """The words of `text`, without a running header and footer."""
    lines = text.strip().split("\n")
    body = lines[_is_edge(lines[0]) : len(lines) - _is_edge(lines[-1])]
    units = _UNIT.findall("\n".join(body))
    return units if len(units) >= _BODY_WORDS or len(body) == len(lines) else _UNIT.findall(text)


def _is_edge(line: str) -> bool:
    return len(line) <= _FOOTER and bool(_DIGIT.search(line)) and len(_UNIT.findall(line)) <= _FOOTER_WORDS


def alike(one: Print, other: Print) -> bool:
    """Whether two passages say the same; symmetric."""
    if one.decisive != other.decisive:
        return False
    small, large = sorted((len(one.shingles), len(other.shingles)))
    if small < LEAST * large:
        return False
    shared = len(one.shingles & other.shingles)
    return shared >= LEAST * (small + large - shared)


def may_be(one: str, other: str) -> bool:
    """Whether it is worth comparing two texts: a look at their lengths."""
    small, large = sorted((len(one), len(other)))
    return small >= _LENGTHS * large
