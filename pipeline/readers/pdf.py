"""PDF by pdfium, page by page: its text, what stands large or bold in it, its outline and its title.

pdfium is neither thread-safe nor fork-safe: one call at a time in a spawned process. Pages are rendered for recognition
only (see ocr), where that is wanted.
"""

from __future__ import annotations

import ctypes
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pypdfium2
import pypdfium2.raw as pdfium

from pipeline import errors, worker_process
from pipeline.readers import build, decode, garbled, ocr, pdf_headings, pdf_lines
from pipeline.readers.pdf_lines import Line, Page

# In the trailer, which is never encrypted or compressed itself. pdfium's error code cannot be asked: where a document
# opens but has no pages (pypdfium2 5.15), it is that of the document before, and the answer would depend on the order.
_ENCRYPTED = b"/Encrypt"
_MAX_BOOKMARKS = 10_000
_LONE_MARK = re.compile(r"[•‣▪●○◦]$|\(?\d{1,3}[.)]$")  # a list's mark away from its text: it tells nothing
_BOLD_NAME = re.compile(rb"(?i)bold|black|heavy|semib|demi|[-,]bd|medi|cmbx")
_BOLD_WEIGHT = 600
_LINE_END = re.compile("\r\n|[\r\n]")
_LINE_OR_WORD_END = re.compile("\r\n|[\r\n]|(?<=\ufffe)(?=.)")
_STYLED_CHARS = 200  # of a line: a longer one is text, whatever its letters
_NAME_BYTES = 100
_STAMP_CHARS = 40  # a page with a picture all over and no more text than this is a scan: a number, a stamp
_SCAN_SHARE = 0.5  # of the page that the picture covers
_NAMED_RUNS = 20  # of pages, in a reason
_GARBLED, _SCANNED = "garbled", "scanned: needs OCR"

_NO_TITLE = re.compile(
    r"(?i)untitled|microsoft \w+ ?-|slide \d+$|document\d*$|title$"
    r"|.*\.(?:docx?|dvi|indd|tex|qxd|pmd|pdf|xlsx?|pptx?|rtf|txt|ps|fm|html?)$"
)


@dataclass(slots=True, kw_only=True)
class _Extract:
    """A document as pdfium tells it.

    Attributes:
        pages: none of the lines of a page that is left out.
        left: index of each such page: why.
    """

    title: str = ""
    pages: list[Page] = field(default_factory=list)
    outline: pdf_headings.Outline = field(default_factory=dict)
    left: dict[int, str] = field(default_factory=dict)

    def has_text(self) -> bool:
        return any(line.text.strip() for page in self.pages for line in page)


def read(data: bytes, name: str, recognition: ocr.Recognition | None = None) -> build.Draft:
    extract = _extract(data, recognition)
    builder = build.Builder()
    pages = pdf_lines.without_running(pdf_lines.cleaned(extract.pages))
    contents = 0  # the level of the heading of a table of contents, while what follows is below it
    for number, parts in enumerate(pdf_headings.parts(pages, extract.outline), 1):
        for part in parts:
            if part.level:
                if part.level > contents > 0:
                    builder.leave_headings(contents)
                contents = part.level if pdf_headings.is_contents(_add_heading(builder, part, number)) else 0
                continue
            for text in pdf_lines.paragraphs([line for line in part.lines if not _LONE_MARK.match(line.text)]):
                builder.add(text, page=number)
    return builder.draft(extract.title, left_out=_left_out(extract))


def _add_heading(builder: build.Builder, part: pdf_headings.Part, page: int) -> str:
    if not part.lines:
        builder.enter(part.level, part.title)
        return part.title
    text = " ".join(line.text for line in part.lines)
    builder.add(text, page=page, level=part.level)
    return text


def read_by_unstructured(data: bytes, name: str, recognition: ocr.Recognition | None = None) -> build.Draft:
    """pdfium's pages, cut into elements by unstructured's partition_text (its own PDF route needs 6.8 GB of torch)."""
    from pipeline.readers import unstructured_

    extract = _extract(data, recognition)
    pages = ["\n".join(line.text for line in page) for page in pdf_lines.cleaned(extract.pages)]
    return replace(unstructured_.from_pages(pages, extract.title), left_out=_left_out(extract))


def _extract(data: bytes, recognition: ocr.Recognition | None) -> _Extract:
    pdf = _opened(data)
    try:
        extract = _Extract(title=_sensible(pdf.get_metadata_value("Title")), outline=_outline(pdf))
        for index in range(len(pdf)):
            _add_page(extract, pdf, index)
        if recognition is not None:
            _recognise(extract, pdf, recognition)
    finally:
        pdf.close()
    if not extract.has_text():
        raise _without_text(extract, recognition)
    return extract


def _opened(data: bytes) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if _ENCRYPTED in data:
            raise errors.DocumentError(
                "encrypted", "protected by a password", "Save a copy without the password."
            ) from error
        raise errors.DocumentError(
            "damaged", "pdfium cannot open it: not a PDF that it understands, or without pages"
        ) from error


def _add_page(extract: _Extract, pdf: pypdfium2.PdfDocument, index: int) -> None:
    extract.pages.append([])
    try:
        page = pdf[index]
    except pypdfium2.PdfiumError:
        return  # one broken page of many; if all are, the document is refused
    try:
        lines = _lines(page)
        text = "\n".join(line.text for line in lines)
        if fault := garbled.fault(pdf_lines.with_symbols(text)):
            extract.left[index] = f"{_GARBLED} ({fault})"
            return
        if len(text.strip()) < _STAMP_CHARS and _is_picture(page):
            extract.left[index] = _SCANNED
        extract.pages[index] = lines
    finally:
        page.close()


def _recognise(extract: _Extract, pdf: pypdfium2.PdfDocument, recognition: ocr.Recognition) -> None:
    """Read the pages that have no readable text as pictures; all pages where there is no text at all."""
    wanted = sorted(extract.left) if extract.has_text() else range(len(pdf))
    for index in wanted[: recognition.pages]:
        worker_process.more_time(recognition.page_s)
        try:
            lines = recognition.engine().recognise(_picture(pdf, index))
        except (TimeoutError, ValueError, pypdfium2.PdfiumError) as error:
            extract.left[index] = f"not recognised: {error}"
            continue
        fault = garbled.fault("\n".join(line.text for line in lines))
        if fault:
            extract.left[index] = f"not recognised: {fault}"
        elif any(line.text for line in lines):
            extract.pages[index] = lines
            extract.left.pop(index, None)
    for index in wanted[recognition.pages :]:
        extract.left[index] = f"scanned, beyond the {recognition.pages} pages of readers.ocr_pages"


def _picture(pdf: pypdfium2.PdfDocument, index: int) -> ocr.Picture:
    page = pdf[index]
    try:
        width, height = page.get_size()
        scale = min(ocr.DPI / 72, (ocr.MAX_PIXELS / max(1.0, width * height)) ** 0.5)
        picture = page.render(scale=scale, grayscale=True).to_numpy()
        whole: ocr.Picture = picture.reshape(picture.shape[:2]).copy()
        return whole
    finally:
        page.close()


def _without_text(extract: _Extract, recognition: ocr.Recognition | None) -> errors.DocumentError:
    garbled_ = [why for why in extract.left.values() if why.startswith(_GARBLED)]
    count = len(extract.pages)
    remedy = ocr.remedy() if recognition is None else ""
    if garbled_:
        what = f"the text of all {len(garbled_)} pages is {garbled_[0]}: its fonts do not tell their characters"
        return errors.DocumentError("garbled", what, remedy)
    if recognition is None:
        return errors.DocumentError("needs_ocr", f"{count} pages without any text: scanned: needs OCR", remedy)
    why = _left_out(extract) or "nothing to read on any page"
    return errors.DocumentError("empty", f"{count} pages without any text, and by {recognition.choice}: {why}")


def _left_out(extract: _Extract) -> str:
    reasons: dict[str, list[int]] = {}
    for index, why in sorted(extract.left.items()):
        reasons.setdefault(why, []).append(index)
    return "; ".join(f"{_numbers(indexes)} {why}" for why, indexes in reasons.items())


def _numbers(indexes: list[int]) -> str:
    """Page numbers in words: "pages 2-4, 9"."""
    runs: list[list[int]] = []
    for index in indexes:
        if runs and index == runs[-1][-1] + 1:
            runs[-1][1:] = [index]
        else:
            runs.append([index])
    words = ", ".join("-".join(str(index + 1) for index in run) for run in runs[:_NAMED_RUNS])
    return f"page{'s' if len(indexes) > 1 else ''} {words}{' …' if len(runs) > _NAMED_RUNS else ''}"


def _sensible(title: str) -> str:
    """A title from the metadata, unless it is a file name or a program's default."""
    title = title.strip()
    return "" if len(title) < 3 or _NO_TITLE.match(title) or not any(map(str.isalpha, title)) else title


def _outline(pdf: pypdfium2.PdfDocument) -> pdf_headings.Outline:
    found: pdf_headings.Outline = {}
    for bookmark in itertools.islice(pdf.get_toc(), _MAX_BOOKMARKS):
        place = bookmark.get_dest()
        index = place.get_index() if place is not None else None
        title = build.one_line(decode.clean(bookmark.get_title()))
        if place is not None and index is not None and pdf_headings.bare(title):
            top = _top(pdf, index, place.get_view())
            found.setdefault(index, []).append(pdf_headings.Entry(title=title, level=bookmark.level + 1, top=top))
    return found


def _top(pdf: pypdfium2.PdfDocument, index: int, view: tuple[int, list[float]]) -> float:
    """How far down a page a bookmark leads, as a share of its height; 0.0 where it does not say."""
    kind, numbers = view
    height = pdf.get_page_size(index)[1]
    if kind != pdfium.PDFDEST_VIEW_XYZ or len(numbers) < 2 or not 0 < numbers[1] < height:
        return 0.0
    return 1 - float(numbers[1]) / float(height)


# --- a page -----------------------------------------------------------------------------------------------------------


def _lines(page: pypdfium2.PdfPage) -> Page:
    text_page = page.get_textpage()
    try:
        text = str(text_page.get_text_range())
        look = _Look(page, text_page)
        return [look.line(line, start) for start, line in _cut(text)]
    finally:
        text_page.close()


def _cut(text: str) -> Iterator[tuple[int, str]]:
    """Each line without its end, and where it begins for pdfium, which counts the halves of UTF-16."""
    start = place = 0
    for line in (_LINE_OR_WORD_END if "\ufffe" in text else _LINE_END).split(text):
        yield place, line
        start += len(line)
        end = 2 if text.startswith("\r\n", start) else int(text[start : start + 1] in ("\r", "\n"))
        start += end
        place += _halves(line) + end


def _halves(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


class _Look:
    """Asks pdfium for size, weight and place of a line's letters, a few calls each: two microseconds a call."""

    def __init__(self, page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage) -> None:
        self._handle = text_page.raw
        self._height = page.get_height() or 1.0
        self._rotation = page.get_rotation()
        self._matrix, self._name = pdfium.FS_MATRIX(), ctypes.create_string_buffer(_NAME_BYTES)
        self._x, self._y, self._flags = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
        self._left, self._bottom, _, self._top = page.get_bbox()

    def line(self, text: str, start: int) -> Line:
        bare = text.strip()
        if not bare:
            return Line(text="")
        begin = start + text.index(bare[0])
        first = self._index(begin, bare[0])
        if first is None:
            return Line(text=bare)
        size, top = self._size(first), self._place(first)
        bold = len(bare) <= _STYLED_CHARS and self._is_bold(first)
        if len(bare) <= _STYLED_CHARS:  # a heading that runs into its text is none
            visible = bare.rstrip("\ufffe")
            last = self._index(begin + _halves(visible) - 1, visible[-1]) if visible else None
            if last is None:
                return Line(text=bare, top=top)
            bold = bold and self._is_bold(last)
            if size != (end := self._size(last)):
                size = self._most(visible, begin, size, end)
        return Line(text=bare, size=size, bold=bold, top=top)

    def _most(self, line: str, begin: int, first: float, last: float) -> float:
        """The size of most of a line whose first and last letters differ: an initial, "(2 of 4)" after a heading."""
        middle = len(line[: len(line) // 2].rstrip()) - 1
        index = self._index(begin + _halves(line[:middle]), line[middle]) if middle > 0 else None
        return min(first, last) if index is None else sorted((first, self._size(index), last))[1]

    def _index(self, place: int, character: str) -> int | None:
        """pdfium's own number of a character of the text; None where the two counts have parted."""
        index = pdfium.FPDFText_GetCharIndexFromTextIndex(self._handle, place)
        return index if index >= 0 and pdfium.FPDFText_GetUnicode(self._handle, index) == ord(character) else None

    def _size(self, index: int) -> float:
        """In points; 0.0 for letters that stand upright nowhere: a mark at the margin, a stamp."""
        size = float(pdfium.FPDFText_GetFontSize(self._handle, index))
        if not pdfium.FPDFText_GetMatrix(self._handle, index, self._matrix):
            return size
        across, up = self._matrix.c, self._matrix.d
        if self._rotation in (90, 270):
            across, up = up, across
        return size * (across**2 + up**2) ** 0.5 if abs(across) < abs(up) else 0.0

    def _place(self, index: int) -> float:
        if not pdfium.FPDFText_GetCharOrigin(self._handle, index, self._x, self._y):
            return -1.0
        down = {0: self._top - self._y.value, 90: self._x.value - self._left, 180: self._y.value - self._bottom}
        return float(down.get(self._rotation, -1.0) / self._height)

    def _is_bold(self, index: int) -> bool:
        if pdfium.FPDFText_GetFontWeight(self._handle, index) >= _BOLD_WEIGHT:
            return True
        pdfium.FPDFText_GetFontInfo(self._handle, index, self._name, _NAME_BYTES, self._flags)
        return _BOLD_NAME.search(self._name.value) is not None


def _is_picture(page: pypdfium2.PdfPage) -> bool:
    """Whether one picture covers most of the page."""
    width, height = page.get_size()
    for item in page.get_objects(filter=[pdfium.FPDF_PAGEOBJ_IMAGE], max_depth=3):
        left, bottom, right, top = item.get_bounds()
        if (right - left) * (top - bottom) > _SCAN_SHARE * width * height:
            return True
    return False
