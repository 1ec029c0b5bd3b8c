"""From pieces to a document: block offsets, heading paths, clean text. Knows no format.

Readers of text formats keep the text as it is and describe it by Spans (`outline`); all others put their text together
piece by piece (`Builder`). Either way blocks are trimmed, in order, not overlapping, and only white space lies between
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pipeline import document
from pipeline.readers import decode

HEADING_CHARS = 200  # of a heading in a path: it is repeated in every block under it
HEADING_LEVELS = 10
TITLE_CHARS, TITLE_LINES = 100, 3
PARAGRAPH_GAP = "\n\n"

_SPACES = re.compile(r"\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a reader module returns: a Document without its reader and media type."""

    title: str
    text: str
    blocks: tuple[document.Block, ...]
    left_out: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A run of the text. A heading has `level` >= 1 and its bare text in `heading` (without marks of the markup)."""

    start: int
    end: int
    kind: str
    level: int = 0
    heading: str = ""
    page: int | None = None


def one_line(text: str, limit: int = HEADING_CHARS) -> str:
    """`text` on one line, white space as single spaces, at most `limit` characters."""
    # Twice the limit is enough to fill it unless the text is nearly all white space; bounds the work on a 20 MB
    # heading.
    return _SPACES.sub(" ", text[: 4 * limit]).strip()[:limit].rstrip()


def like_title(text: str) -> bool:
    """Whether the first text of a slide may be its title: a few short lines, or a short sentence."""
    text = text.strip()
    lines = re.split(r"\n+", text)
    ends = text.endswith((":", ",", ";", "：", "，", "；"))
    return len(text) <= TITLE_CHARS and len(lines) <= TITLE_LINES and not ends and sum(map(str.isalpha, text)) > 1


class _Path:
    """The heading path at a point of the document."""

    def __init__(self) -> None:
        self._levels: list[int] = []
        self._path: tuple[str, ...] = ()

    def enter(self, level: int, heading: str) -> tuple[str, ...]:
        level = min(level, HEADING_LEVELS)
        self.leave(level)
        self._levels.append(level)
        self._path = (*self._path, heading)
        return self._path

    def leave(self, level: int) -> None:
        while self._levels and self._levels[-1] >= level:
            self._levels.pop()
        self._path = self._path[: len(self._levels)]

    @property
    def current(self) -> tuple[str, ...]:
        return self._path


def outline(text: str, spans: Iterable[Span]) -> tuple[document.Block, ...]:
    """Blocks of `text` from its spans (in order, not overlapping).

    Trimmed, empty ones dropped, under their heading paths.
    """
    path = _Path()
    blocks = []
    for span in spans:
        start, end = _trim(text, span.start, span.end)
        if start == end:
            continue
        heading = one_line(span.heading) if span.level else ""
        heading_path = path.enter(span.level, heading) if heading else path.current
        kind = span.kind if heading or span.kind != "heading" else "paragraph"
        blocks.append(document.Block(start=start, end=end, kind=kind, heading_path=heading_path, page=span.page))
    return tuple(blocks)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    if start < end and not (text[start].isspace() or text[end - 1].isspace()):
        return start, end
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    return (start, start) if left == len(piece) else (start + left, start + len(piece.rstrip()))


class Builder:
    """Puts a document together from pieces of text.

    Pieces are cleaned (see decode.clean), stripped and set apart by a blank line.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[document.Block] = []
        self._path = _Path()
        self._headless = False
        self._length = 0
        self.first_heading = ""

    def add(self, text: str, kind: str = "paragraph", *, page: int | None = None, level: int = 0) -> None:
        """One block. `level` >= 1 makes it a heading; one too long for a heading becomes a paragraph."""
        text = decode.clean(text).strip()
        if not text:
            return
        path = () if self._headless else self._path.current
        if level and len(text) <= 2 * HEADING_CHARS:
            kind, heading = "heading", one_line(text)
            path = self._path.enter(level, heading)
            self._headless = False
            self.first_heading = self.first_heading or heading
        if self._parts:
            self._parts.append(PARAGRAPH_GAP)
            self._length += len(PARAGRAPH_GAP)
        end = self._length + len(text)
        self._blocks.append(document.Block(start=self._length, end=end, kind=kind, heading_path=path, page=page))
        self._parts.append(text)
        self._length = end

    def enter(self, level: int, heading: str) -> None:
        """What comes next stands under a heading that is not in the text."""
        if title := one_line(decode.clean(heading)):
            self._path.enter(level, title)
            self._headless = False

    def leave_headings(self, level: int = 1) -> None:
        """What comes next stands under no heading of before that is of this level or below it: a new message."""
        self._path.leave(level)

    def end_slide(self) -> None:
        """What comes next stands under no heading of before, and a title with nothing under it is its slide's text."""
        self.leave_headings()
        if self._blocks and self._blocks[-1].kind == "heading":
            self._blocks[-1] = replace(self._blocks[-1], kind="paragraph")

    def begin_file(self) -> None:
        """What comes next stands under no heading until one of its own, and that under the higher ones of before."""
        self._headless = True

    @property
    def length(self) -> int:
        return self._length

    def draft(self, title: str = "", *, heading_as_title: bool = True, left_out: str = "") -> Draft:
        """What was put together; titled by the first heading where `title` is empty."""
        title = one_line(decode.clean(title)) or (self.first_heading if heading_as_title else "")
        return Draft(title=title, text="".join(self._parts), blocks=tuple(self._blocks), left_out=left_out)
