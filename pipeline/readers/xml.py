"""XML: the text as it is, tags and all, under the headings that its elements carry.

A title, heading or head belongs to the element that it stands in, and to all within that: the sections of JATS,
DocBook, TEI and patents, the items of feeds. Knows no schema. What is not well-formed is read all the same.
"""

from __future__ import annotations

import collections
import html
import re
from dataclasses import dataclass

from pipeline import document
from pipeline.readers import build, decode, plain

_TAG = re.compile(
    r"<!--(?:.*?-->|.*\Z)|<!\[CDATA\[(?:.*?\]\]>|.*\Z)|<[?!][^<>]*+>|<(/?)([A-Za-z_][\w.:-]*+)([^<>]*+)>", re.S
)
_MARKUP = re.compile(r"<[^<>]*+>")
_TITLES = frozenset(("title", "heading", "head"))
_LEVEL = re.compile(r"\b(?:lvl|level)=[\"'](\d)[\"']", re.I)  # of patents, whose headings are one after another
# What is titled and is no section: the title goes with it, and with the page of the feed's picture.
_UNSECTIONED = (
    "caption legend fig figure table table-wrap informaltable example equation image ref reference citation bibl "
    "biblstruct monogr analytic series kwd-group"
)
_NO_SECTIONS = frozenset(_UNSECTIONED.split())
_OF_DOCUMENT = re.compile(r"<(article-title|title-of-invention|invention-title)\b[^<>]*+>(.{1,1000}?)</\1>", re.S)
_MAX_DEPTH = 1000

_Path = tuple[tuple[int, str], ...]  # headings, each with the level that it gives itself; 0 where it gives none


@dataclass(slots=True, kw_only=True)
class _Open:
    """An element that is not closed yet. `path`: the headings over what it holds; `outer`: over itself."""

    name: str
    start: int
    end: int
    level: int
    outer: _Path
    path: _Path


def read(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data, plain.declared(data))
    scan = _Scan(text)
    scan.run()
    found = _OF_DOCUMENT.search(text)
    title = _bare(found[2]) if found else scan.title()
    return build.Draft(title=title, text=text, blocks=tuple(scan.blocks))


def _bare(content: str) -> str:
    return build.one_line(html.unescape(_MARKUP.sub("", content)))


class _Scan:
    """One pass over the tags. What lies between two changes of the path is cut into paragraphs."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.blocks: list[document.Block] = []
        self._open: list[_Open] = []
        self._names: collections.Counter[str] = collections.Counter()
        self._done = 0  # so far the text is in blocks

    def run(self) -> None:
        for tag in _TAG.finditer(self.text):
            name = (tag[2] or "").rpartition(":")[2].lower()
            if not name or tag[3].endswith("/"):
                continue
            if tag[1]:
                self._close(name, tag.start(), tag.end())
            elif len(self._open) < _MAX_DEPTH:
                self._begin(name, tag)
        self._flush(len(self.text), self._path())

    def _begin(self, name: str, tag: re.Match[str]) -> None:
        path, level = self._path(), _LEVEL.search(tag[3])
        self._open.append(
            _Open(
                name=name,
                start=tag.start(),
                end=tag.end(),
                level=int(level[1]) if level else 0,
                outer=path,
                path=path,
            )
        )
        self._names[name] += 1

    def title(self) -> str:
        """The one heading that all others stand under; "" where there is none such."""
        tops = {block.heading_path[0] for block in self.blocks if block.heading_path}
        return tops.pop() if len(tops) == 1 else ""

    def _path(self) -> _Path:
        return self._open[-1].path if self._open else ()

    def _close(self, name: str, start: int, end: int) -> None:
        if not self._names[name]:
            return
        while True:
            element = self._open.pop()
            self._names[element.name] -= 1
            if element.path != element.outer:
                self._flush(end, element.path)
            if element.name == name:
                break
        is_title = name in _TITLES or (name == "h" and element.level > 0)
        if is_title and self._open and start - element.end <= 2 * build.HEADING_CHARS:
            self._add_heading(element, self.text[element.end : start], end)

    def _add_heading(self, element: _Open, content: str, end: int) -> None:
        heading, owner = _bare(content), self._open[-1]
        if owner.name.endswith("info") and len(self._open) > 1:  # DocBook's <info> tells of what it stands in
            owner = self._open[-2]
        if not heading or owner.name in _NO_SECTIONS:
            return
        begins = owner.start if not self.text[owner.end : element.start].strip() else element.start
        self._flush(max(begins, self._done), owner.path)
        owner.path = (*_above(owner, element.level)[: build.HEADING_LEVELS - 1], (element.level, heading))
        self._open[-1].path = owner.path
        self._add(self._done, end, "heading", owner.path)
        self._done = end

    def _flush(self, end: int, path: _Path) -> None:
        for span in plain.paragraphs(self.text[self._done : end]):
            self._add(self._done + span.start, self._done + span.end, span.kind, path)
        self._done = end

    def _add(self, start: int, end: int, kind: str, path: _Path) -> None:
        piece = self.text[start:end]
        left = start + len(piece) - len(piece.lstrip())
        right = start + len(piece.rstrip())
        if left < right:
            names = tuple(heading for _, heading in path)
            self.blocks.append(document.Block(start=left, end=right, kind=kind, heading_path=names, page=None))


def _above(owner: _Open, level: int) -> _Path:
    """The headings that one of this level in `owner` stands under."""
    if not level:
        return owner.outer
    path = owner.path
    while path and path[-1][0] >= level:
        path = path[:-1]
    return path
