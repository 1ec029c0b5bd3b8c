"""Lines of a PDF's pages, as pdfium tells them: running heads dropped, hyphens mended, joined to paragraphs.

Works on text, sizes and places; knows nothing of pdfium.
"""

from __future__ import annotations

import collections
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.readers import decode

# Latin ligatures and the Kangxi radicals that Chinese fonts map common characters to ("⼀" for "一"): only these get
# NFKC.
_COMPATIBLE = re.compile("[\ufb00-\ufb06\u2e80-\u2eff\u2f00-\u2fd5]")
# What the Symbol and Wingdings fonts have at private places: bullets, and the signs of formulas.
_SYMBOLS = dict.fromkeys((0xF0B7, 0xF0A7, 0xF076, 0xF0D8), "•")
_SYMBOLS |= {0xF000 + ord(sign): sign for sign in "!#%&()+,./0123456789:;<=>?[]_{|}"} | {0xF02D: "-", 0xF020: " "}
_SYMBOL = re.compile("[\uf020-\uf0d8]")
_HYPHENS = ("-", "\u2010", "\u00ad", "\ufffe")
_BROKEN_WORD = re.compile("([^\\W\\d_]+)[-\u2010\u00ad\ufffe]$")
_HALVES = re.compile("[^\\W\\d_]+(?:[-\u2010\u00ad\ufffe]\n|\ufffe)[^\\W\\d_]+")
_WORD_START = re.compile(r"([^\W\d_]+)([^\s\w]*)[ \t]*")
_SOFT = re.compile(r"([^\W\d_]+)\ufffe([^\W\d_]+)")  # pdfium's mark for the hyphen at the end of a line
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_DIGITS = re.compile(r"\d+")
BULLET = re.compile(r"[•‣▪●○◦–*-]\s|\(?\d{1,3}[.)]\s|\(?[a-z][.)]\s")
_NO_SPACES = re.compile("[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff9f]")  # Korean has spaces
SENTENCE_END = re.compile(r"[.!?:。！？：][\"'”’)\]」』]*$")

_EDGE_LINES = 2  # at the top and at the foot of a page where running heads are looked for
_RUNNING_PAGES = 3
_RUNNING_SHARE = 0.3  # of the pages: heads of left and right pages often differ, and some pages have none
_HEAD_WORDS = 3  # "Chapter 4" may be a heading
_COUNTED_SHARE = 0.7  # of the steps from a line to the next: its number grows with the pages
_DETACHED = 1.3  # times the usual distance of lines: nearer to the text, it is a table's head or a heading
_MARGIN = 0.05  # of the page's height: what stands there is no text in any case
LARGE = 1.12  # times the size of the text: a heading
_FULL_LINE = 0.6  # of the page's usual line: a shorter one was ended on purpose
_NEW_PARAGRAPH = 1.5  # times the usual distance of lines


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of text on a page.

    Attributes:
        size: of its letters in points; 0.0 where that is unknown.
        bold: all of it.
        top: of its baseline from the page's top edge, as a share of the page's height; below 0 where that is unknown.
        goes_on: it ended within a word, whose rest is now here too: the next line belongs to it.
    """

    text: str
    size: float = 0.0
    bold: bool = False
    top: float = -1.0
    goes_on: bool = False


Page = list[Line]


def usual_size(pages: Iterable[Page]) -> float:
    """The size of most letters, to half a point; 0.0 where no size is known."""
    counts: collections.Counter[float] = collections.Counter()
    for page in pages:
        for line in page:
            if line.size:
                counts[round(2 * line.size) / 2] += len(line.text)
    return counts.most_common(1)[0][0] if counts else 0.0


# --- words ------------------------------------------------------------------------------------------------------------


def cleaned(pages: Iterable[Page]) -> list[Page]:
    """Pages whose words are whole: ligatures as letters, the hyphens of line ends mended, control characters gone."""
    plain = [[_with(line, _plain(line.text)) for line in page] for page in pages]
    vocabulary = _vocabulary(plain)
    return [_mended(page, vocabulary) for page in plain]


def _with(line: Line, text: str) -> Line:
    return line if text is line.text else replace(line, text=text)


def _plain(text: str) -> str:
    if text.isascii():
        return text
    text = _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    return with_symbols(text)


def with_symbols(text: str) -> str:
    return text if text.isascii() or not _SYMBOL.search(text) else text.translate(_SYMBOLS)


def _vocabulary(pages: Iterable[Page]) -> collections.Counter[str]:
    """How often each word stands in the document, halves of broken ones not counted."""
    counts: collections.Counter[str] = collections.Counter()
    for page in pages:
        counts.update(_WORD.findall(_without_halves(line.text.lower() for line in page)))
    return counts


def _without_halves(lines: Iterable[str]) -> str:
    """Their text without the words that a line's end breaks; looked for in the lines that may have one: 1 in 20."""
    pieces: list[str] = []
    for line in lines:
        if pieces and pieces[-1].endswith(_HYPHENS):
            pieces[-1] += f"\n{line}"
        else:
            pieces.append(line)
    return "\n".join(_HALVES.sub(" ", piece) if "\n" in piece or "\ufffe" in piece else piece for piece in pieces)


def _mended(page: Page, vocabulary: collections.Counter[str]) -> Page:
    result: Page = []
    for line in page:
        text = line.text
        if "\ufffe" in text:
            text = _SOFT.sub(lambda found: _joined(found[1], found[2], vocabulary), text)
        if result and result[-1].text[-1:] in _HYPHENS:
            text = _take(result, text, vocabulary)
            if not text:
                continue
        result.append(_with(line, text))
    return [_with(line, decode.clean(line.text)) for line in result]


def _take(lines: Page, text: str, vocabulary: collections.Counter[str]) -> str:
    """Complete the word at whose hyphen the last of `lines` ends, by the first of `text`; the rest of the text."""
    half, rest = _BROKEN_WORD.search(lines[-1].text), _WORD_START.match(text)
    if half is None or rest is None:
        return text
    whole = lines[-1].text[: half.start()] + _joined(half[1], rest[1], vocabulary) + rest[2]
    lines[-1] = replace(lines[-1], text=whole, goes_on=True)
    return text[rest.end() :]


def _joined(left: str, right: str, vocabulary: collections.Counter[str]) -> str:
    """Two halves of a word, with its hyphen where that belongs to it.

    It does before a capital ("Anglo-Saxon") and after a single letter ("N-methyl"), where the document has the word
    with a hyphen more often than without, and, of words that it has nowhere else, where both halves are words of it
    ("state-owned"). Of 3,008 broken words in PDFs of which other lines tell how they are written, 5 came out wrong.
    """
    hyphenated, joined = f"{left}-{right}".lower(), f"{left}{right}".lower()
    if len(left) == 1 or (right[0].isupper() and not left.isupper()):
        return f"{left}-{right}"
    if vocabulary[joined] or vocabulary[hyphenated]:
        return left + right if vocabulary[joined] >= vocabulary[hyphenated] else f"{left}-{right}"
    words = len(left) > 3 and len(right) > 3 and vocabulary[left.lower()] and vocabulary[right.lower()]
    return f"{left}-{right}" if words else left + right


# --- running heads ----------------------------------------------------------------------------------------------------


def without_running(pages: list[Page]) -> list[Page]:
    """Pages without the lines at their edges that many of them repeat, page numbers aside.

    A line that stands as near to the text as lines of text do is kept: the head of a table that goes on, a heading.
    """
    places = collections.defaultdict[str, list[tuple[int, Line]]](list)
    for number, page in enumerate(pages):
        outermost = sorted((page[at] for at in _edges(page)), key=lambda line: abs(line.top - 0.5))
        for key, line in {_running_key(line): line for line in outermost}.items():
            places[key].append((number, line))
    needed = max(_RUNNING_PAGES, _RUNNING_SHARE * len(pages))
    usual = usual_size(pages)
    often = {key: found for key, found in places.items() if len(found) >= needed}
    running = {key for key, found in often.items() if _is_running(found, usual)}
    # What is kept of the others may be the head of a table; a heading has other words on each page.
    plain = {key for key, found in often.items() if len(_WORD.findall(found[0][1].text)) >= _HEAD_WORDS}
    return [_without(page, running, plain) for page in pages] if often else pages


def _is_running(found: list[tuple[int, Line]], usual: float) -> bool:
    """Whether a line that pages share, numbers aside, tells of the page and not of what is on it."""
    if all(_in_margin(line) for _, line in found):
        return True
    numbers = [(page, [int(digits[:9]) for digits in _DIGITS.findall(line.text)]) for page, line in found]
    if len({tuple(values) for _, values in numbers}) == 1:
        return True
    return found[0][1].size < LARGE * usual and _counts_pages(numbers)  # not "Chapter 4"


def _in_margin(line: Line) -> bool:
    return 0 <= line.top < _MARGIN or line.top > 1 - _MARGIN


def _without(page: Page, running: set[str], plain: set[str]) -> Page:
    repeated = {at for at in _edges(page) if _running_key(page[at]) in running}
    dropped = repeated - _attached(page, repeated) if repeated else repeated
    kept = [
        replace(line, size=0.0, bold=False) if plain and _running_key(line) in plain else line
        for at, line in enumerate(page)
        if at not in dropped
    ]
    return kept if any(line.text for line in kept) else page


def _attached(page: Page, repeated: set[int]) -> set[int]:
    """Which of the repeated lines belong to the text by their place: directly, or over one another."""
    reach = _DETACHED * usual_distance(page)
    near = [line.top for at, line in enumerate(page) if at not in repeated and line.top >= 0]
    attached: set[int] = set()
    while True:
        more = {
            at
            for at in repeated - attached
            if page[at].top >= 0
            and not _in_margin(page[at])
            and near
            and (min(near) < page[at].top < max(near) or min(abs(page[at].top - top) for top in near) <= reach)
        }
        if not more:
            return attached
        attached |= more
        near += [page[at].top for at in more]


def _edges(page: Page) -> list[int]:
    """The first and last lines, in order of the text and from top to foot: programs write heads before or after all."""
    filled = [at for at, line in enumerate(page) if line.text.strip()]
    placed = sorted((at for at in filled if page[at].top >= 0), key=lambda at: page[at].top)
    ends = (*filled[:_EDGE_LINES], *filled[-_EDGE_LINES:], *placed[:_EDGE_LINES], *placed[-_EDGE_LINES:])
    return sorted(set(ends))


def _running_key(line: Line) -> str:
    """What lines of different pages have in common: their letters and size."""
    return "".join(_DIGITS.sub("#", line.text[:200]).lower().split()) + f"\n{line.size:.0f}"


def _counts_pages(numbers: list[tuple[int, list[int]]]) -> bool:
    """Whether one of the numbers in a repeated line is the page's: by its steps, as books begin anew with chapters."""
    needed = _COUNTED_SHARE * (len(numbers) - 1)
    for column in zip(*(values for _, values in numbers), strict=False):
        numbered = [(page, value) for (page, _), value in zip(numbers, column, strict=True)]
        if sum(b - a == after - before for (before, a), (after, b) in itertools.pairwise(numbered)) >= needed:
            return True
    return False


def usual_distance(page: Page) -> float:
    """Between a line and the one below it, as a share of the page's height; 0.0 where it is unknown."""
    steps = sorted(below.top - line.top for line, below in itertools.pairwise(page) if 0 <= line.top < below.top)
    return steps[len(steps) // 2] if steps else 0.0


# --- paragraphs -------------------------------------------------------------------------------------------------------


def paragraphs(lines: Sequence[Line]) -> Iterator[str]:
    """The text of each paragraph."""
    usual, distance = usual_length(lines), usual_distance(list(lines))
    paragraph: list[str] = []
    before: Line | None = None
    for line in lines:
        if before is not None and paragraph and (not line.text or _ends(before, line, usual, distance)):
            yield "".join(paragraph)
            paragraph = []
        if line.text:
            glue = _glue(before, line.text, usual) if before is not None and paragraph else ""
            paragraph.append(glue + line.text)
        before = line
    if paragraph:
        yield "".join(paragraph)


def usual_length(lines: Iterable[Line]) -> int:
    """Nine lines in ten are no longer: the width of the text, in characters."""
    lengths = sorted(len(line.text) for line in lines if line.text)
    return lengths[len(lengths) * 9 // 10] if lengths else 0


def _ends(line: Line, after: Line, usual: int, distance: float) -> bool:
    """Whether a paragraph ends between two lines."""
    if line.goes_on:
        return False
    if BULLET.match(after.text) or not line.text:
        return True
    if distance and 0 <= line.top < after.top and after.top - line.top > _NEW_PARAGRAPH * distance:
        return True
    return len(line.text) < 0.85 * usual and SENTENCE_END.search(line.text[-8:]) is not None


def _glue(line: Line, after: str, usual: int) -> str:
    """What stands between two lines of a paragraph: nothing in Chinese; a short line was ended on purpose."""
    if line.goes_on:
        return " "
    if len(line.text) < _FULL_LINE * usual:
        return "\n"
    return "" if _NO_SPACES.match(line.text[-1]) or _NO_SPACES.match(after[0]) else " "
