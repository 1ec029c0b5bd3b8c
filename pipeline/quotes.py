"""Where a quote stands in a text, whatever its white space and case. Knows texts and nothing else."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

WHOLE = 20  # characters of a quote that must stand in one passage as a whole; of a longer one, half

Span = tuple[int, int]


# What nobody sees and readers leave out: byte order marks within a text, zero-width spaces, soft hyphens.
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u2060\u00ad"))


def folded(text: str) -> str:
    """Without white space, in one case: a passage breaks its lines as the file did."""
    return "".join(text.translate(_INVISIBLE).split()).casefold()


def holds(text: str, quote: str) -> bool:
    """Whether the quote stands in `text`, or half of a longer one: a quote may lie across the end of a passage."""
    return holds_folded(folded(text), folded(quote))


def holds_folded(text: str, quote: str) -> bool:
    """The same of texts that are folded already."""
    middle = len(quote) // 2
    parts = (quote,) if len(quote) < WHOLE else (quote[:middle], quote[middle:])
    return any(part in text for part in parts)


class Text:
    """A text that is searched for many quotes: folded once, when one does not stand there as it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    @functools.cached_property
    def _folded(self) -> str:
        return folded(self.text)

    @functools.cached_property
    def _places(self) -> NDArray[np.int64]:
        """Of each folded character, where it comes from."""
        return np.repeat(np.arange(len(self.text)), [len(folded(character)) for character in self.text])

    def find(self, quote: str, *, near: int | None = None) -> Span | None:
        """Start and end of the first place where `quote` stands; None: nowhere. An empty quote stands nowhere.

        Args:
            near: where it is said to begin. Believed if it does.
        """
        if near is not None and quote and self.text.startswith(quote, near):
            return near, near + len(quote)
        if quote.strip() and (at := self.text.find(quote)) >= 0:
            return at, at + len(quote)
        wanted = folded(quote)
        if not wanted or (at := self._folded.find(wanted)) < 0:
            return None
        return int(self._places[at]), int(self._places[at + len(wanted) - 1]) + 1
