"""The line put before a chunk's text: title and heading path, from inside the document and never from its file name.

Knows the outline and the tokenizer; knows nothing of cuts.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.models import Tokenizer
from pipeline.stages import chunk_sections
from pipeline.stages.chunk_sections import Outline

SEPARATOR = " > "


class Contexts:
    """Contexts for the chunks of one document; remembers what it has clipped.

    Args:
        budget: most tokens of a context.
    """

    def __init__(self, doc: Outline, tokenizer: Tokenizer, budget: int) -> None:
        self._doc = doc
        self._tokenizer = tokenizer
        self._budget = budget
        self._known: dict[tuple[str, ...], str] = {}
        self.title = clip((one_line(doc.title),), tokenizer, budget)

    def of_path(self, path: Sequence[str]) -> str:
        """For a chunk from the middle of a section."""
        return self._joined(self._parts(path))

    def of_chunk(self, start: int, end: int) -> str:
        """For text[start:end]: without what the text itself begins with."""
        doc = self._doc
        block = doc.blocks[chunk_sections.content(doc, start, end)]
        parts = self._parts(block.heading_path)
        opening = {one_line(heading) for heading in chunk_sections.headings(doc, start, end)}
        while parts and parts[-1] in opening:
            parts.pop()
        if len(parts) == 1 and doc.text.startswith(parts[0], start):
            return ""
        return self._joined(parts)

    def _parts(self, path: Sequence[str]) -> list[str]:
        parts = [one_line(heading) for heading in path]
        if self.title and (not parts or parts[0] != self.title):
            parts.insert(0, self.title)
        return [part for part in parts if part]

    def _joined(self, parts: Sequence[str]) -> str:
        key = tuple(parts)
        if key not in self._known:
            self._known[key] = clip(key, self._tokenizer, self._budget)
        return self._known[key]


def one_line(text: str) -> str:
    return " ".join(text.split())


def clip(parts: Sequence[str], tokenizer: Tokenizer, budget: int) -> str:
    """`parts` joined, at most `budget` tokens.

    The middle of the path goes first, from outside in; then the title; at last the end of the innermost heading.
    """
    left = list(parts)
    joined = SEPARATOR.join(left)
    while tokenizer.count([joined])[0] > budget:
        if len(left) == 1:
            return left[0][: int(tokenizer.offsets(left[0])[budget - 1][1])].rstrip()
        left.pop(1 if len(left) > 2 else 0)
        joined = SEPARATOR.join(left)
    return joined
