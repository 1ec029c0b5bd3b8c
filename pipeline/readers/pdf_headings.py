"""Which lines of a PDF are headings: by its outline where it has one that fits the text, else by the size of letters.

A PDF does not say what is a heading, and a wrong one misleads more than none: in doubt a line is text.
"""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.readers import build, pdf_lines
from pipeline.readers.pdf_lines import Line, Page

_MAX_LINES = 3  # of a heading
_MAX_CHARS = 150
_MAX_SHARE = 0.15  # of the letters of a document: what is used more is no style of headings
_SHORT_SHARE = 0.3  # of one as short as this; a still shorter one is a diagram, as often as not
_SHORT_CHARS = range(500, 2000)
_ROW_NUMBERS = 3  # in a line: then it is a row of a table
_LEVELS = 4  # sizes that are told apart
_FITTING = 0.5  # of an outline's titles have to be found in the text
_SHORT = 2  # pages: of longer documents a size that only the first page has is that of authors and dates

_ORDINAL = r"第[一二三四五六七八九十百\d]+[章节節条條部編编]"
_NUMBERING = re.compile(rf"^(?:(?:[\dA-Z]{{1,3}}(?:[.-]\d+)*\.?|[IVXLC]+\.)\s+|{_ORDINAL}\s*)")
_SECTION = re.compile(rf"(?:(\d{{1,2}}(?:\.\d{{1,2}}){{0,3}})\.?|[A-Z]\.|[IVX]{{1,4}}\.|{_ORDINAL})\s*(?=[^\W\d_])")
_BEGINNING = re.compile(r"[\"'“‘«(\[<「『《【]?\w")
_NUMBER = re.compile(r"(?<!\w)\d[\d.,]*")
_LETTER = re.compile(r"[^\W\d_]")
_LETTERS = re.compile(r"[^\W\d_]{2}|[\u3040-\u9fff\uac00-\ud7af]{2}")
_TEXT_END = re.compile(r"[.,;:。，；：、…-]$|\.{3,}|…")
_UNFINISHED = re.compile(
    r" (?:a|an|and|as|at|by|for|from|in|is|of|on|or|that|the|to|with|de|des|du|et|la|le|der|die|und)$"
)
_FOOT = 0.75  # of the page's height: below it a column may end
_BLANK = re.compile(r"(?i)this page (?:\w+ )*left blank")
_CONTENTS_WORDS = (
    "contents tableofcontents inhalt inhaltsverzeichnis sommaire tabledesmatières índice indice contenido sumário "
    "inhoud inhoudsopgave 目录 目錄 目次 차례 목차 содержание оглавление"
)
_TABLES_OF_CONTENTS = frozenset(_CONTENTS_WORDS.split())
_CONTENTS = re.compile(r"(?:\.\s?){3,}|\s\d{1,4}$")  # a line of a table of contents


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A title of the outline. `top`: where on its page it leads to, as in pdf_lines.Line; 0.0 for the whole page."""

    title: str
    level: int
    top: float = 0.0


Outline = dict[int, list[Entry]]  # by page index


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Lines of a page that belong together: a heading of some level, or (level 0) text.

    A heading without lines is one of the outline that the page does not show as text: a picture, another wording.
    """

    lines: tuple[Line, ...]
    level: int
    title: str = ""


def bare(heading: str) -> str:
    """What two writings of a heading have in common: without numbering, case and white space."""
    line = build.one_line(unicodedata.normalize("NFKC", heading))
    return "".join(_NUMBERING.sub("", line).lower().split())


def parts(pages: Sequence[Page], outline: Outline) -> list[list[Part]]:
    """Each page as headings and the text between them, in order.

    Where an outline fits the text, the styles of the headings that it names say what else is a heading, and of which
    level: few outlines name all.
    """
    found = [list(_by_outline(page, outline.get(number, []))) for number, page in enumerate(pages)]
    headings = [part for page in found for part in page if part.level and part.lines]
    if not headings or len(headings) < _FITTING * sum(map(len, outline.values())):
        headings, found = [], [list(_text(list(page))) for page in pages]
    styles = _Styles(pages, headings)
    return [[one for part in page for one in ([part] if part.level else styles.parts(part.lines))] for page in found]


def is_contents(heading: str) -> bool:
    """Whether it stands over a table of contents: whatever its size, it is nobody's parent."""
    return bare(heading) in _TABLES_OF_CONTENTS


def _by_outline(page: Page, entries: Sequence[Entry]) -> Iterator[Part]:
    if not entries:
        yield from _text(list(page))
        return
    text: list[Line] = []
    left = {bare(entry.title): entry for entry in reversed(entries)}
    shown = _shown(page, dict(left))
    unseen = [entry for entry in entries if entry not in shown.values()]
    at = 0
    while at < len(page):
        length, entry = next(((length, entry) for (start, length), entry in shown.items() if start == at), (1, None))
        here = max(page[at].top, 0.0)
        late = [one for one in unseen if one.top <= here]
        if entry is not None or late:
            yield from _text(text)
            text = []
        if late:
            unseen = [one for one in unseen if one.top > here]
            yield from (Part(lines=(), level=one.level, title=one.title) for one in late)
        if entry is not None:
            yield Part(lines=tuple(page[at : at + length]), level=entry.level)
        else:
            text.append(page[at])
        at += length
    yield from _text(text)
    yield from (Part(lines=(), level=one.level, title=one.title) for one in unseen)


def _shown(page: Page, entries: dict[str, Entry]) -> dict[tuple[int, int], Entry]:
    """Which lines of a page (the first, and how many) are titles of its entries; each entry once."""
    shown: dict[tuple[int, int], Entry] = {}
    at = 0
    while at < len(page) and entries:
        length, key = _titled(page, at, entries)
        if length:
            shown[at, length] = entries.pop(key)
        at += length or 1
    return shown


def _titled(page: Page, at: int, entries: dict[str, Entry]) -> tuple[int, str]:
    """How many lines from `at` on are one of the titles, and which."""
    for length in range(1, _MAX_LINES + 1):
        lines = page[at : at + length]
        if len(lines) < length or not lines[-1].text:
            break
        key = bare(" ".join(line.text for line in lines))
        if key in entries:
            return length, key
        if not any(title.startswith(key) for title in entries):
            break
    return 0, ""


def _text(lines: list[Line]) -> Iterator[Part]:
    if any(line.text for line in lines):
        yield Part(lines=tuple(lines), level=0)


_Style = tuple[float, bool]  # size to half a point, bold


class _Styles:
    """The sizes of a document's letters, and which of them are those of headings."""

    def __init__(self, pages: Sequence[Page], headings: Sequence[Part]) -> None:
        """`headings`: those that are known; the levels of all others are such that these are right."""
        self._body = pdf_lines.usual_size(pages)
        bold = sum(len(line.text) for page in pages for line in page if line.bold)
        total = sum(len(line.text) for page in pages for line in page) or 1
        self._is_tiny = total < _SHORT_CHARS.start
        self._most = (_SHORT_SHARE if total in _SHORT_CHARS else _MAX_SHARE) * total
        self._bold_counts = bold <= self._most
        self._levels = self._ranked(pages, self._learned(headings))

    def _style(self, line: Line) -> _Style | None:
        """None for text."""
        if not self._body or not line.size:
            return None
        if line.size >= pdf_lines.LARGE * self._body:
            return round(2 * line.size) / 2, line.bold
        if self._bold_counts and line.bold and line.size >= 0.95 * self._body:
            return self._body, True
        return None

    def _learned(self, headings: Sequence[Part]) -> dict[_Style, int]:
        """The level that most of the known headings of a style have."""
        counts: dict[_Style, collections.Counter[int]] = collections.defaultdict(collections.Counter)
        for part in headings:
            style = self._style(part.lines[-1])
            if style is not None:
                counts[style][part.level] += 1
        return {style: levels.most_common(1)[0][0] for style, levels in counts.items()}

    def _ranked(self, pages: Sequence[Page], learned: dict[_Style, int]) -> dict[_Style, int]:
        """Levels of the styles of headings: the largest is 1, bold letters of the text's size come last."""
        letters: collections.Counter[_Style] = collections.Counter()
        on: dict[_Style, set[int]] = {}
        for number, page in enumerate(pages):
            for run in self._runs(page):
                style = self._style(run[0])
                if style is not None and _may_be_heading(run):
                    letters[style] += sum(len(line.text) for line in run)
                    on.setdefault(style, set()).add(number)
        kept = [style for style, count in letters.items() if style in learned or count <= self._most]
        kept.sort(key=lambda style: (-style[0], not style[1]))
        if len(pages) > _SHORT:
            kept = [style for number, style in enumerate(kept) if not number or style in learned or on[style] != {0}]
        levels: dict[_Style, int] = {}
        for style in kept:
            below = max(levels.values(), default=0)
            levels[style] = learned.get(style) or (min(below + 1, _LEVELS) if below < _LEVELS else below)
        return levels

    def _runs(self, page: Sequence[Line]) -> Iterator[list[Line]]:
        """Successive lines of one style."""
        run: list[Line] = []
        before: _Style | None = None
        for line in page:
            style = self._style(line)
            if run and not (line.text and run[-1].text and style == before):
                yield run
                run = []
            run.append(line)
            before = style
        if run:
            yield run

    def parts(self, page: Sequence[Line]) -> Iterator[Part]:
        text: list[Line] = []
        runs = list(self._runs(page))
        usual = pdf_lines.usual_length(page)
        for at, run in enumerate(runs):
            after = runs[at + 1] if at + 1 < len(runs) else []
            style = self._style(run[0])
            level = self._levels.get(style, 0) if style is not None and _may_be_heading(run) else 0
            if level > 1 and not _stands_over(run, runs[at - 1] if at else [], after):
                level = 0
            if after and after[0].text[:1].islower() and self._style(after[0]) is None:
                level = 0  # it goes on as text
            if at and self._is_tiny and len(after[0].text if after else "") < len(run[-1].text):
                level = 0  # a name in a diagram
            if level and style == (self._body, True):
                level = self._bold_level(level, run, after, usual)
            if not level:
                text += run
                continue
            yield from _text(text)
            text = []
            yield Part(lines=tuple(run), level=level)
        yield from _text(text)

    def _bold_level(self, level: int, run: list[Line], after: list[Line], usual: int) -> int:
        """Bold lines of the text's size are headings where they are numbered, or a full line of text follows.

        Else they are the head of a table, a label of a form, a name.
        """
        line = run[0].text
        if len(run) > _MAX_LINES or _CONTENTS.search(run[-1].text):
            return 0
        if found := _SECTION.match(line):
            return level + (found[1] or "").count(".")
        text = after[0].text if after else ""
        return level if len(text) > 0.7 * usual and len(_NUMBER.findall(text)) < _ROW_NUMBERS else 0


def _stands_over(run: list[Line], before: list[Line], after: list[Line]) -> bool:
    """Whether what comes next on the page is below these lines, or they end a column.

    Else a program has written them out of order, and nobody knows what they stand over: an icon at the margin ("TIP").
    Titles, which stand over all, are not asked.
    """
    place = run[-1].top
    if place < 0 or place > _FOOT:
        return True
    return place <= after[0].top or after[0].top < 0 if after else not before or before[-1].top <= place


def _may_be_heading(run: list[Line]) -> bool:
    text = " ".join(line.text for line in run)
    first = _LETTER.search(text)
    return (
        first is not None
        and not first[0].islower()
        and len(run) <= _MAX_LINES
        and len(text) <= _MAX_CHARS
        and _BEGINNING.match(text) is not None
        and 2 * len(_LETTER.findall(text)) > len("".join(text.split()))
        and _LETTERS.search(text) is not None
        and _TEXT_END.search(text) is None
        and _BLANK.match(text) is None
        and _UNFINISHED.search(text) is None
        and not (text.startswith("(") and text.endswith(")"))
        and not (pdf_lines.BULLET.match(text) and not _SECTION.match(text))
    )
