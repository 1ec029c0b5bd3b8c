"""Where the letters of our text of a page stand among pdfium's letters of it.

Ours were made of theirs: ligatures taken apart, hyphens mended, running heads and lone marks dropped, perhaps columns
put into another order. So letters and digits are compared, and nothing between them. Knows neither pdfium nor boxes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.readers import pdf_lines

GRAMS = (24, 12)  # letters in a row that tell a place, if they stand once in either text; the longer ones first
STEP = 8  # letters that tell a place between two that are known
REACH = 2_000  # letters that may be passed over at once: more than running heads and the notes at a margin
NEAR = 3  # times the letters that are looked for, where they are fewer than STEP: all that may be left to look at


@dataclass(frozen=True, slots=True)
class Letters:
    """The letters and digits of a text, in one form; `places`: of which of its characters each is (a part)."""

    text: str
    places: Sequence[int]


def letters(characters: Sequence[str]) -> Letters:
    """Compatible forms made one (NFKD), accents and vowel signs left out: programs write them in several ways."""
    found: list[str] = []
    places: list[int] = []
    for place, character in enumerate(characters):
        if character.isascii():
            if character.isalnum():
                found.append(character)
                places.append(place)
            continue
        for part in unicodedata.normalize("NFKD", pdf_lines.with_symbols(character)):
            if part.isalnum():
                found.append(part)
                places.append(place)
    return Letters("".join(found), places)


def align(ours: str, theirs: str) -> list[int]:
    """For each letter of `ours` its index in `theirs`, or -1. Takes time in proportion to both lengths."""
    only = theirs.find(ours)
    if only >= 0 and theirs.find(ours, only + 1) < 0:
        return list(range(only, only + len(ours)))
    found = _Found(ours, theirs)
    for size in GRAMS:
        found.join_unique(size)
    found.fill()
    return found.places


class _Found:
    def __init__(self, ours: str, theirs: str) -> None:
        self._ours, self._theirs = ours, theirs
        self.places = [-1] * len(ours)
        self._used = bytearray(len(theirs))

    def join_unique(self, size: int) -> None:
        """Join what is in both texts once, and all that is equal around it."""
        mine, other = _once(self._ours, size), _once(self._theirs, size)
        for gram, at in mine.items():
            place = other.get(gram, -1)
            if place >= 0 <= at and self._is_free(at, place):
                self._extend(at, place)

    def _is_free(self, at: int, place: int) -> bool:
        inside = at < len(self.places) and place < len(self._theirs)
        return inside and self.places[at] < 0 and not self._used[place]

    def _extend(self, at: int, place: int) -> int:
        """Join this pair and its equal neighbours on both sides; how many after it are joined."""
        begin = 0
        while at > begin and place > begin and self._fits(at - begin - 1, place - begin - 1):
            begin += 1
        end = 0
        while self._fits(at + end, place + end):
            self._join(at + end, place + end)
            end += 1
        for back in range(1, begin + 1):
            self._join(at - back, place - back)
        return end

    def _fits(self, at: int, place: int) -> bool:
        return self._is_free(at, place) and self._ours[at] == self._theirs[place]

    def _join(self, at: int, place: int) -> None:
        self.places[at] = place
        self._used[place] = 1

    def fill(self) -> None:
        """Look for what is left after what stands before it, and then before what stands after it."""
        for start, end in list(self._gaps()):
            low = self.places[start - 1] + 1 if start else 0
            self._walk(start, end, low, self._next_used(low))
        for start, end in list(self._gaps()):
            if end < len(self.places):
                high = self.places[end]
                self._walk(start, end, self._used.rfind(1, 0, high) + 1, high)

    def _next_used(self, low: int) -> int:
        found = self._used.find(1, low)
        return len(self._theirs) if found < 0 else found

    def _gaps(self) -> Iterator[tuple[int, int]]:
        start = -1
        for at, place in enumerate(self.places):
            if place < 0 <= start or (place >= 0 and start < 0):
                continue
            if place < 0:
                start = at
            else:
                yield start, at
                start = -1
        if start >= 0:
            yield start, len(self.places)

    def _walk(self, start: int, end: int, low: int, high: int) -> None:
        """Go through both side by side, past what only one of them has."""
        at, place = start, low
        while at < end and place < high:
            wanted = self._ours[at : min(at + STEP, end)]
            if len(wanted) < STEP and high - place > NEAR * len(wanted):
                return  # few letters stand anywhere
            found = self._theirs.find(wanted, place, min(high, place + REACH + STEP))
            if found < 0:
                at += 1
                continue
            joined = self._extend(at, found)
            at, place = at + max(joined, 1), found + max(joined, 1)


def _once(text: str, size: int) -> dict[str, int]:
    """Where each run of `size` letters stands; -1 for one that stands there more than once."""
    found: dict[str, int] = {}
    for at in range(len(text) - size + 1):
        gram = text[at : at + size]
        found[gram] = -1 if gram in found else at
    return found
