"""A document's text as it was read, a window of it as elements, with a passage marked.

Headings, lists, tables and code look like what they are; the marks of Markdown that make them so are left as they were
written, but at headings and in tables. Knows blocks and offsets; nothing of addresses.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.document import Block
from pipeline.expansion import Text
from pipeline.report_markup import Child, Element, el

WINDOW = 16_000  # characters on either side of a passage: eight pages of a book
ANCHOR = "passage"  # id of the first mark
_WRAPPED = (50, 130)  # characters of a line that was broken since it was full
_MOST_CELLS = 5_000  # in a window: a browser takes a second for 50,000

_HASHES = re.compile(r"#{1,6}[ \t]+")
_CLOSING = re.compile(r"[ \t]+#+[ \t]*\Z")
_RULE = r"[=\-~^\"'`#*+.:_]{2,}[ \t]*"
_OVERLINE, _UNDERLINE = re.compile(rf"{_RULE}\n"), re.compile(rf"\n{_RULE}\Z")
_PIPES = re.compile(r"(?<!\\)\|")
_DASHES = re.compile(r"[ \t:|+-]*-[ \t:|+-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A run of a document, of whole blocks but at the ends of long ones: text[start:end]."""

    start: int
    end: int
    blocks: tuple[Block, ...]


def window(of: Text, start: int, end: int, around: int = WINDOW) -> Window:
    """The blocks that reach into `around` characters on either side of text[start:end]. A block that reaches further
    than that again is cut: a text without blank lines is one."""
    low, high = max(0, start - around), min(len(of.text), end + around)
    starts = [block.start for block in of.blocks]
    first = max(0, bisect_right(starts, low) - 1)
    kept = [block for block in of.blocks[first : bisect_right(starts, high)] if block.end > low and block.start < high]
    if not kept:
        return Window(start=low, end=high, blocks=())
    begin = max(kept[0].start, low - around)
    until = min(kept[-1].end, high + around)
    return Window(start=begin, end=until, blocks=tuple(kept))


def pages(of: Text, start: int, end: int) -> list[int]:
    """The pages on which text[start:end] stands, rising."""
    return sorted({block.page for block in of.blocks if block.page and block.start < end and block.end > start})


def on_page(of: Text, page: int, start: int, end: int, most: int) -> tuple[str, str, str]:
    """The text of a page: before text[start:end], as far as this stands on it, and after; `most` characters each."""
    before, marked, after = list[str](), list[str](), list[str]()
    for block in of.blocks:
        if block.page == page:
            low, high = (min(max(at, block.start), block.end) for at in (start, end))
            before.append(of.text[block.start : low])
            marked.append(of.text[low:high])
            after.append(of.text[high : block.end])
    return "\n".join(before)[-most:], "\n".join(marked).strip()[:most], "\n".join(after)[:most]


def page_labels(blocks: Sequence[Block]) -> dict[int, int]:
    """At which of the blocks another page begins, and which."""
    found: dict[int, int] = {}
    before: int | None = None
    for at, block in enumerate(blocks):
        if block.page is not None and block.page != before:
            found[at] = block.page
        before = block.page if block.page is not None else before
    return found


class Shown:
    """Makes the elements of a window. `start`, `end`: of the passage that is marked; `go`: the browser goes to it by
    itself.
    """

    def __init__(self, of: Text, seen: Window, start: int, end: int, *, go: bool) -> None:
        self._text, self._window = of.text, seen
        self._start, self._end = start, end
        self._go = {"autofocus": "autofocus"} if go else {}
        self._cells = 0
        self._marked = False

    def elements(self) -> Iterator[tuple[int, Element]]:
        """Number of a block in the window, and what it looks like."""
        for number, block in enumerate(self._window.blocks):
            low, high = max(block.start, self._window.start), min(block.end, self._window.end)
            if low < high:
                yield number, self._block(block, low, high)

    def _block(self, block: Block, low: int, high: int) -> Element:
        match block.kind:
            case "heading":
                level = min(max(len(block.heading_path), 1) + 2, 6)  # below the page's own two
                return el(f"h{level}", *self._slice(*self._bare(low, high)))
            case "table":
                return self._table(low, high) or self._plain(low, high)
            case "code" | "header":
                return self._plain(low, high)
            case "quote":
                return el("blockquote", *self._slice(low, high))
        wrapped = block.kind == "paragraph" and _is_wrapped(self._text[low:high])
        return el("p", *self._slice(low, high), class_="wrapped" if wrapped else block.kind)

    def _slice(self, low: int, high: int) -> Iterator[Child]:
        """text[low:high], what is of the passage in a mark."""
        first, last = (min(max(at, low), high) for at in (self._start, self._end))
        if first >= last or not self._text[first:last].strip():
            yield self._text[low:high]
            return
        yield self._text[low:first]
        mark = {} if self._marked else {"id": ANCHOR, "tabindex": "-1", **self._go}
        self._marked = True
        yield el("mark", self._text[first:last], **mark)
        yield self._text[last:high]

    def _bare(self, low: int, high: int) -> tuple[int, int]:
        """A heading without what marks it as one in Markdown and reStructuredText."""
        text = self._text[low:high]
        if found := _HASHES.match(text):
            closing = _CLOSING.search(text)
            return low + found.end(), low + closing.start() if closing and closing.start() > found.end() else high
        under = _UNDERLINE.search(text)
        over = _OVERLINE.match(text) if under else None
        return low + over.end() if over else low, low + under.start() if under and under.start() else high

    def _plain(self, low: int, high: int) -> Element:
        return el("pre", *self._slice(low, high), tabindex="0")  # it may be wider than the page, and is gone to by keys

    # -- tables

    def _table(self, low: int, high: int) -> Element | None:
        """Of cells set apart by tabs or pipes; None for a table in another writing."""
        rows = list(self._rows(low, high))
        self._cells += sum(map(len, rows))
        if not rows or max(map(len, rows)) < 2 or self._cells > _MOST_CELLS:
            return None
        lines = [
            el("tr", *(self._cell("td" if number else "th", *cell) for cell in row)) for number, row in enumerate(rows)
        ]
        parts = [el("thead", lines[0]), el("tbody", *lines[1:])] if len(lines) > 1 else [el("tbody", *lines)]
        return el("div", el("table", *parts), class_="wide", tabindex="0")

    def _cell(self, tag: str, low: int, high: int) -> Element:
        return el(tag, *self._slice(low, high))

    def _rows(self, low: int, high: int) -> Iterator[list[tuple[int, int]]]:
        text = self._text[low:high]
        piped = text.lstrip().startswith("|")
        if not piped and "\t" not in text:
            return
        at = low
        for line in text.split("\n"):
            if not piped:
                yield list(_between(at, at + len(line), [found.start() + at for found in re.finditer("\t", line)]))
            elif not _DASHES.fullmatch(line):
                bars = [found.start() + at for found in _PIPES.finditer(line)]
                cells = list(_between(at, at + len(line), bars))
                yield [cell for number, cell in enumerate(cells) if 0 < number < len(cells) - 1 or self._says(*cell)]
            at += len(line) + 1

    def _says(self, low: int, high: int) -> bool:
        return bool(self._text[low:high].strip())


def _is_wrapped(text: str) -> bool:
    """Whether its lines end where an editor broke them, which on a narrower screen is no place to end one."""
    *lines, _ = text.split("\n")
    return bool(lines) and all(_WRAPPED[0] <= len(line) <= _WRAPPED[1] for line in lines)


def _between(low: int, high: int, bars: list[int]) -> Iterator[tuple[int, int]]:
    """What lies between the bars."""
    at = low
    for bar in bars:
        yield at, bar
        at = bar + 1
    yield at, high
