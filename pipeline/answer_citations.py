"""The `[n]` of an answer as it streams: kept where passage n exists, removed and counted where it does not.

Small models invent numbers. Knows the brackets; nothing of passages or models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# "[2]", "[1, 3]", "[1-3]", "[1;2]", "[Passage 2]", and the Chinese 【2】; a blank before goes with what is removed.
_SEPARATOR = r"\s*[,;，、和–-]\s*"
_NUMBER = r"(?:passages?\s*)?\d{1,4}"
_MARK = re.compile(rf"(?P<blank>[ \t]*)[\[【](?P<list>{_NUMBER}(?:{_SEPARATOR}{_NUMBER})*)[\]】]", re.IGNORECASE)
_BEGUN = re.compile(r"[ \t]*(?:[\[【][\w\s,;，、和–-]{0,40})?\Z")  # perhaps the beginning of a mark
_RANGE = re.compile(r"(\d+)\s*[-–]\s*(?:passages?\s*)?(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """`[number]` at `start` to `end` (code points) of the answer's text."""

    number: int
    start: int
    end: int


class Marks:
    """Feed the pieces of an answer, put out what is ready; `citations` and `invalid` tell what was seen so far.

    Args:
        passages: how many there are; numbers 1 to this are valid.
    """

    def __init__(self, passages: int) -> None:
        self._passages = passages
        self._held = ""
        self._length = 0  # code points put out
        self.citations: list[Citation] = []
        self.invalid = 0

    def feed(self, piece: str) -> str:
        """What can be shown now. An incomplete mark at the end is held back until it is complete or cannot be one."""
        text = self._held + piece
        begun = _BEGUN.search(text)
        assert begun is not None  # matches the empty end at least
        self._held = text[begun.start() :]
        return self._put_out(text[: begun.start()])

    def close(self) -> str:
        """The rest, when nothing more comes."""
        rest, self._held = self._held, ""
        return self._put_out(rest)

    def _put_out(self, text: str) -> str:
        shown: list[str] = []
        done = 0
        for mark in _MARK.finditer(text):
            self._append(shown, text[done : mark.start()])
            self._cite(shown, mark["blank"], _numbers(mark["list"]))
            done = mark.end()
        self._append(shown, text[done:])
        return "".join(shown)

    def _cite(self, shown: list[str], blank: str, numbers: list[int]) -> None:
        valid = [number for number in dict.fromkeys(numbers) if 1 <= number <= self._passages]
        self.invalid += len(set(numbers)) - len(valid)
        for number in valid:
            self._append(shown, blank)
            blank = ""
            start = self._length
            self._append(shown, f"[{number}]")
            self.citations.append(Citation(number=number, start=start, end=self._length))

    def _append(self, shown: list[str], text: str) -> None:
        shown.append(text)
        self._length += len(text)


def _numbers(listed: str) -> list[int]:
    """The numbers of a mark, ranges spelled out (at most 20 of a range: what is longer is no citation)."""

    def spelled(found: re.Match[str]) -> str:
        first, last = int(found[1]), int(found[2])
        return ",".join(map(str, range(first, min(last, first + 20) + 1))) if last >= first else f"{first},{last}"

    return [int(number) for number in re.findall(r"\d+", _RANGE.sub(spelled, listed))]
