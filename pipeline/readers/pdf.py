"""PDF by pdfium, page by page.

Hyphens and ligatures mended, lines joined, running heads dropped, headings from the outline.

pdfium is neither thread-safe nor fork-safe: one call at a time in a spawned process. Nothing is rendered; pages that
are pictures have no text here.
"""

from __future__ import annotations

import collections
import itertools
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import pypdfium2

from pipeline import errors
from pipeline.readers import build, decode

# In the trailer, which is never encrypted or compressed itself. pdfium's error code cannot be asked: where a document
# opens but has no pages (pypdfium2 5.15), it is that of the document before, and the answer would depend on the order.
_ENCRYPTED = b"/Encrypt"
_MAX_BOOKMARKS = 10_000

# Latin ligatures and the Kangxi radicals that Chinese fonts map common characters to ("⼀" for "一"): only these get
# NFKC.
_COMPATIBLE = re.compile("[\ufb00-\ufb06\u2e80-\u2eff\u2f00-\u2fd5]")
_SYMBOL_BULLETS = re.compile("[\uf0b7\uf0a7\uf076\uf0d8]")  # bullets of the Symbol and Wingdings fonts
_HYPHENATED = re.compile(r"([^\W\d_]+)(?:\ufffe\n?|[-\u2010]\n)([^\W\d_]+)")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_DIGITS = re.compile(r"\d+")
_NUMBERING = re.compile(r"^(?:[\dA-Z]{1,3}(?:\.\d+)*\.?|[IVXLC]+\.)\s+")
_LONE_MARK = re.compile(r"[•‣▪●○◦]$|\(?\d{1,3}[.)]$")  # a list's mark away from its text: it tells nothing
_BULLET = re.compile(r"[•‣▪●○◦–*-]\s|\(?\d{1,3}[.)]\s|\(?[a-z][.)]\s")
_CJK = re.compile("[\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef\uac00-\ud7af]")
_SENTENCE_END = re.compile(r"[.!?:。！？：][\"'”’)\]」』]*$")

_EDGE_LINES = 2  # at the top and at the foot of a page where running heads are looked for
_RUNNING_PAGES = 3
_RUNNING_SHARE = 0.4  # of the pages: heads of left and right pages often differ
_FULL_LINE = 0.6  # of the page's usual line: a shorter one was ended on purpose

_NO_TITLE = re.compile(
    r"(?i)untitled|microsoft \w+ ?-|slide \d+$|document\d*$|title$"
    r"|.*\.(?:docx?|dvi|indd|tex|qxd|pmd|pdf|xlsx?|pptx?|rtf|txt|ps|fm|html?)$"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extract:
    title: str
    pages: list[str]  # "" for a page that has no text or is garbled
    bookmarks: dict[int, dict[str, int]]  # by page index: bare title and level


def read(data: bytes, name: str) -> build.Draft:
    extract = _extract(data)
    builder = build.Builder()
    vocabulary = _vocabulary(extract.pages)
    mended = [_mend(page, vocabulary).split("\n") for page in extract.pages]
    for index, lines in enumerate(_without_running(mended)):
        _add_page(builder, lines, index + 1, extract.bookmarks.get(index, {}))
    return builder.draft(extract.title)


def read_by_unstructured(data: bytes, name: str) -> build.Draft:
    """pdfium's pages, cut into elements by unstructured's partition_text (its own PDF route needs 6.8 GB of torch)."""
    from pipeline.readers import unstructured_

    extract = _extract(data)
    vocabulary = _vocabulary(extract.pages)
    return unstructured_.from_pages([_mend(page, vocabulary) for page in extract.pages], extract.title)


def _extract(data: bytes) -> _Extract:
    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if _ENCRYPTED in data:
            raise errors.DocumentError(
                "encrypted", "protected by a password", "Save a copy without the password."
            ) from error
        raise errors.DocumentError(
            "damaged", "pdfium cannot open it: not a PDF that it understands, or without pages"
        ) from error
    try:
        raw = [_page_text(pdf, index) for index in range(len(pdf))]
        title = pdf.get_metadata_value("Title")
        bookmarks = _bookmarks(pdf)
    finally:
        pdf.close()
    pages = _readable(raw)
    return _Extract(title=_sensible(title), pages=pages, bookmarks=bookmarks)


def _page_text(pdf: pypdfium2.PdfDocument, index: int) -> str:
    try:
        page = pdf[index]
    except pypdfium2.PdfiumError:
        return ""  # one broken page of many; if all are, the document is refused
    try:
        text_page = page.get_textpage()
        try:
            return str(text_page.get_text_range())
        finally:
            text_page.close()
    finally:
        page.close()


def _readable(raw: list[str]) -> list[str]:
    """The pages with text; "" in place of one that is garbled (a font that does not tell its characters).

    Raises:
        DocumentError: needs_ocr, garbled.
    """
    filled = sum(1 for text in raw if text.strip())
    if not filled:
        raise errors.DocumentError("needs_ocr", f"{len(raw)} pages without any text: scanned, it needs OCR")
    pages = [
        text if decode.unreadable_share(_SYMBOL_BULLETS.sub("•", text)) <= decode.GARBLED_SHARE else "" for text in raw
    ]
    if not any(text.strip() for text in pages):
        raise errors.DocumentError(
            "garbled", f"the text of all {filled} pages is garbled: its fonts do not tell their characters"
        )
    return pages


def _sensible(title: str) -> str:
    """A title from the metadata, unless it is a file name or a program's default."""
    title = title.strip()
    return "" if len(title) < 3 or _NO_TITLE.match(title) or not any(map(str.isalpha, title)) else title


def _bookmarks(pdf: pypdfium2.PdfDocument) -> dict[int, dict[str, int]]:
    found: dict[int, dict[str, int]] = {}
    for bookmark in itertools.islice(pdf.get_toc(), _MAX_BOOKMARKS):
        place = bookmark.get_dest()
        index = place.get_index() if place is not None else None
        title = _bare(bookmark.get_title())
        if index is not None and title:
            found.setdefault(index, {}).setdefault(title, bookmark.level + 1)
    return found


def _bare(heading: str) -> str:
    """What two writings of a heading have in common: without numbering, case and white space."""
    line = build.one_line(unicodedata.normalize("NFKC", heading))
    return "".join(_NUMBERING.sub("", line).lower().split())


# --- words and lines --------------------------------------------------------------------------------------------------


def _vocabulary(pages: Iterable[str]) -> set[str]:
    return {word.lower() for page in pages for word in _WORD.findall(page)}


def _mend(text: str, vocabulary: set[str]) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = _SYMBOL_BULLETS.sub("•", text)

    def join(found: re.Match[str]) -> str:
        left, right = found[1], found[2]
        if not right[0].islower():
            return f"{left}-{right}"
        hyphenated, joined = f"{left}-{right}".lower(), f"{left}{right}".lower()
        return f"{left}-{right}" if hyphenated in vocabulary and joined not in vocabulary else left + right

    return decode.clean(_HYPHENATED.sub(join, text))


def _without_running(pages: list[list[str]]) -> list[list[str]]:
    """Pages without the lines at their edges that most pages repeat, page numbers aside."""
    counts = collections.Counter(key for lines in pages for key in {_running_key(lines[at]) for at in _edges(lines)})
    needed = max(_RUNNING_PAGES, _RUNNING_SHARE * len(pages))
    running = {key for key, count in counts.items() if count >= needed}
    if not running:
        return pages
    result = []
    for lines in pages:
        dropped = {at for at in _edges(lines) if _running_key(lines[at]) in running}
        kept = [line for at, line in enumerate(lines) if at not in dropped]
        result.append(kept if any(line.strip() for line in kept) else lines)
    return result


def _edges(lines: list[str]) -> list[int]:
    filled = [at for at, line in enumerate(lines) if line.strip()]
    return sorted({*filled[:_EDGE_LINES], *filled[-_EDGE_LINES:]})


def _running_key(line: str) -> str:
    return "".join(_DIGITS.sub("#", line[:200]).lower().split())


def _add_page(builder: build.Builder, lines: list[str], page: int, headings: dict[str, int]) -> None:
    usual = _usual_length(lines)
    paragraph: list[str] = []
    before = ""

    def end_paragraph() -> None:
        builder.add("".join(paragraph), page=page)
        paragraph.clear()

    for line in map(str.strip, lines):
        if _LONE_MARK.match(line):
            continue
        level = headings.get(_bare(line), 0) if headings and line else 0
        if level:
            end_paragraph()
            builder.add(line, page=page, level=level)
        elif not line or (paragraph and _ends_paragraph(before, line, usual)):
            end_paragraph()
        if line and not level:
            paragraph.append(_glue(before, line, usual) + line if paragraph else line)
        before = line
    end_paragraph()


def _usual_length(lines: list[str]) -> int:
    """Nine lines in ten are no longer: the width of the text, in characters."""
    lengths = sorted(len(line) for line in lines if line.strip())
    return lengths[len(lengths) * 9 // 10] if lengths else 0


def _ends_paragraph(line: str, after: str, usual: int) -> bool:
    return bool(_BULLET.match(after)) or (len(line) < 0.85 * usual and _SENTENCE_END.search(line[-8:]) is not None)


def _glue(line: str, after: str, usual: int) -> str:
    """What stands between two lines of a paragraph: nothing in Chinese; a short line was ended on purpose."""
    if len(line) < _FULL_LINE * usual:
        return "\n"
    return "" if _CJK.match(line[-1]) or _CJK.match(after[0]) else " "
