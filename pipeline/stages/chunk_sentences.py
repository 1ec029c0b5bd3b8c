"""Where sentences end in running text: European scripts, Chinese and Japanese with their quotes, and other full stops.

Knows one block's characters; knows nothing of blocks between each other, tokens or chunks. Rules look at most QUOTE
characters back, so that a boundary depends on its neighbourhood alone. Thai has no full stop: its phrases end at
spaces, which `chunk_bounds.within_unit` cuts at where it must.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

QUOTE = 120  # characters that are searched for a quote that is still open


class Ending(Enum):
    """How good a place is: SENTENCE after a sentence; LINE at a line end, or where a sentence stops within a quote."""

    SENTENCE = 1
    LINE = 2


_CLOSING = "”“’」』｣）】〕》〉»›\"')\\]"
_STOPS = "。！？；｡؟۔।॥։።။។‼⁇⁈⁉"  # end a sentence without a space after them
_HIRAGANA = "\u3041-\u309f"
_CJK = "\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Marks, the quotes that they close, and marks after these ("走吧！”。"). A full-width point between digits is a decimal
# one; half-width ones end a sentence between ideographs or kana, the full stop (also of names: 马克.吐温) in Japanese.
_WIDE = (
    rf"(?:[{_STOPS}]|．(?![0-9０-９])|(?<=[{_CJK}])[!?]++(?=[{_CLOSING}]*+[{_CJK}])"
    rf"|(?<=[{_HIRAGANA}])\.(?=[{_CLOSING}]*+[{_CJK}]))[{_STOPS}…]*+(?P<closed>[{_CLOSING}][{_CLOSING}{_STOPS}…]*+)?+\s*+"
)
# Possessive, and never begun within a run: a million dots must not be tried from each of them.
_PROSE = re.compile(
    rf"(?P<wide>{_WIDE})|(?P<latin>(?<![.!?])[.!?]++[{_CLOSING}]*+)\s++|(?P<line>\n\s*+)",
)
# What goes on after a quote: a Japanese particle (「…。」と言った), a Chinese verb of saying with whoever says it.
_GOES_ON = re.compile(r"[とっのをはがにへもやﾄ、，,]|など|なん|[^\W\d_]{0,4}?(?:[说説道问問喊叫答]|回答)")
_PAIRS = ("「」", "『』", "｢｣", "“”", "（）", "《》", "【】")

_WORD_BEFORE = re.compile(r"[\w.]+$")
_ABBREVIATIONS = frozenset(
    """
    mr mrs ms dr prof st sr jr inc ltd co corp vs cf al ca approx dept est fig figs eq eqs sec no nos nr vol pp ed eds
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun
    bzw usw ggf evtl inkl exkl sog str tel abs art abb tab bsp hrsg vgl zzgl max min mme mlle
    """.split()  # noqa: SIM905 – a list of 80 quoted words reads worse
)


def endings(text: str, start: int, end: int) -> Iterator[tuple[int, Ending]]:
    """The offsets in text[start:end] at which a sentence or a line has ended and the next begins, in order."""
    for match in _PROSE.finditer(text, start, end):
        at = match.end()
        if match["line"] is not None:
            yield at, Ending.LINE
        elif match["wide"] is not None:
            yield at, Ending.LINE if _goes_on(text, match, start, end) else Ending.SENTENCE
        elif at < end and _ends_sentence(text, match, start):
            yield at, Ending.SENTENCE
        elif "\n" in text[match.end("latin") : at]:
            yield at, Ending.LINE


def _goes_on(text: str, match: re.Match[str], start: int, end: int) -> bool:
    """Whether the sentence around a quote is not over: the quote is still open, or what follows belongs to it."""
    at = match.end()
    if match["closed"] is not None and match["closed"][-1] in _CLOSING and _GOES_ON.match(text, at, end):
        return True
    low = max(start, at - QUOTE)
    return any(text.rfind(pair[0], low, at) > text.rfind(pair[1], low, at) for pair in _PAIRS)


def _ends_sentence(text: str, match: re.Match[str], start: int) -> bool:
    """Whether a mark before white space ends a sentence: not after an abbreviation, an initial, one or two digits."""
    if text[match.end()].islower():
        return False
    if match["latin"][0] != ".":
        return True
    found = _WORD_BEFORE.search(text, max(start, match.start() - 12), match.start())
    if found is None:
        return True
    word = found[0]
    if word.isdigit():
        return len(word) > 2  # "3. Oktober", "12. Item": years end sentences
    return len(word) > 1 and "." not in word and word.casefold() not in _ABBREVIATIONS
