"""A page of a PDF as a picture, a passage of it marked.

To be called in a worker process alone: pdfium is not thread-safe, and a PDF may be made to hang or to crash it.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pypdfium2
import pypdfium2.raw as pdfium
from numpy.typing import NDArray

from pipeline import errors
from pipeline.readers import pdf_match
from pipeline.readers.pdf_page import Picture, Wanted

WIDTH = 1600  # pixels: 800 of a page's, twice as many for sharp screens
MAX_PIXELS = 4_000_000  # 12 MB before they are packed; an A4 page of that width has 3.6 million
MAX_CHARS = 100_000  # of a page that are looked at: 160 ms
LEAST = 0.2  # of a passage's letters: with fewer found, none is marked
MARK = (255, 226, 92)  # what white becomes; what is black stays black
_MARGIN = 2  # pixels around a line that is marked
_GAP = 2.0  # heights of a letter between two that are marked in one piece
_COMPRESSION = 6  # of zlib

Pixels = NDArray[np.uint8]  # (height, width, 3)
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What is marked: rectangles of lines, in pixels of a picture; `letters` and `share` as in Picture."""

    boxes: list[Box]
    letters: int
    share: float


def draw(data: bytes, wanted: Wanted) -> Picture:
    """The picture of a page.

    Raises:
        DocumentError: damaged (it cannot be opened), no_page (it has no such page).
    """
    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise errors.DocumentError("damaged", "pdfium cannot open it") from error
    try:
        document.init_forms()  # what is filled in belongs to the picture
        if not 1 <= wanted.page <= len(document):
            raise errors.DocumentError("no_page", f"it has {len(document)} pages, and none of number {wanted.page}")
        page = document[wanted.page - 1]
        try:
            return _picture(page, len(document), wanted)
        finally:
            page.close()
    except (pypdfium2.PdfiumError, ValueError) as error:
        raise errors.DocumentError("damaged", f"pdfium cannot draw page {wanted.page} ({error})") from error
    finally:
        document.close()


def _picture(page: pypdfium2.PdfPage, pages: int, wanted: Wanted) -> Picture:
    marks = find(page, wanted)
    drawn = page.render(scale=_scale(page), rev_byteorder=True).to_numpy()
    pixels: Pixels = drawn[:, :, :3].copy()
    _mark(pixels, marks.boxes)
    height, width = pixels.shape[:2]
    return Picture(png=png(pixels), width=width, height=height, pages=pages, letters=marks.letters, share=marks.share)


def find(page: pypdfium2.PdfPage, wanted: Wanted) -> Marks:
    """Where the passage stands in the picture of a page, which is not drawn for that.

    Raises:
        ValueError, PdfiumError: there can be no picture of it.
    """
    size = picture_size(page)
    text_page = page.get_textpage()
    try:
        look = Look(page, text_page)
        found = _find(look.characters, wanted)
        return Marks(boxes=_lines(look, found.places, size), letters=found.letters, share=found.share)
    finally:
        text_page.close()


def picture_size(page: pypdfium2.PdfPage) -> tuple[int, int]:
    """Width and height in pixels, as pypdfium2 rounds them."""
    scale = _scale(page)
    width, height = (math.ceil(side * scale) for side in page.get_size())
    return width, height


def _scale(page: pypdfium2.PdfPage) -> float:
    """Pixels per point."""
    width, height = page.get_size()
    if not (width > 0 and height > 0):
        raise ValueError("it has no size")
    scale = float(min(WIDTH / width, (MAX_PIXELS / (width * height)) ** 0.5))
    # Both sides are rounded up: of a page that is a thread, the narrow one would be many times what is meant.
    if max(width, height) * scale > MAX_PIXELS / 8:
        raise ValueError("its sides are too unlike")
    return scale


# --- which characters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Find:
    places: list[int]  # of characters of the page, rising
    share: float
    letters: int


def _find(characters: list[str], wanted: Wanted) -> _Find:
    theirs = pdf_match.letters(characters)
    before, marked, after = (pdf_match.letters(text).text for text in (wanted.before, wanted.marked, wanted.after))
    if not (theirs.text and marked):
        return _Find(places=[], share=0.0, letters=len(theirs.text))
    aligned = pdf_match.align(before + marked + after, theirs.text)
    found = sorted(index for index in aligned[len(before) : len(before) + len(marked)] if index >= 0)
    if len(found) < LEAST * len(marked):  # of a page that was recognised, its own text being garbled: by accident
        return _Find(places=[], share=0.0, letters=len(theirs.text))
    whole = {theirs.places[index] for index in found}
    for first, second in itertools.pairwise(found):
        if second == first + 1:  # between two letters that follow one another: their spaces and stops
            whole.update(range(theirs.places[first] + 1, theirs.places[second]))
    return _Find(places=_with_stops(whole, characters), share=len(found) / len(marked), letters=len(theirs.text))


def _with_stops(places: set[int], characters: list[str]) -> list[int]:
    """With what touches the words at the ends of each run: quotes, brackets, full stops."""
    whole = set(places)
    for place in places:
        for step in (-1, 1):
            at = place + step
            while 0 <= at < len(characters) and at not in whole and _touches(characters[at]):
                whole.add(at)
                at += step
    return sorted(whole)


def _touches(character: str) -> bool:
    return not character.isspace() and not character.isalnum() and character.isprintable()


# --- where they stand -------------------------------------------------------------------------------------------------


class Look:
    """Asks pdfium for a page's characters and for the place of each, in pixels of a picture."""

    def __init__(self, page: pypdfium2.PdfPage, text_page: pypdfium2.PdfTextPage) -> None:
        self._page, self._handle = page, text_page.raw
        count = min(text_page.count_chars(), MAX_CHARS)
        codes = (pdfium.FPDFText_GetUnicode(self._handle, index) for index in range(count))
        self.characters = [chr(code) if 0 < code < 0x110000 else " " for code in codes]
        self._box = pdfium.FS_RECTF()
        self._x, self._y = ctypes.c_int(), ctypes.c_int()

    def box(self, place: int, size: tuple[int, int]) -> Box | None:
        """Where a character stands in a picture of this size, its font's whole height; None where it has no place."""
        box = self._box
        if not pdfium.FPDFText_GetLooseCharBox(self._handle, place, box) or box.left == box.right:
            return None
        (x0, y0), (x1, y1) = self._pixel(box.left, box.top, size), self._pixel(box.right, box.bottom, size)
        return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)

    def _pixel(self, x: float, y: float, size: tuple[int, int]) -> tuple[int, int]:
        """pdfium knows the page's rotation and its crop box."""
        pdfium.FPDF_PageToDevice(self._page.raw, 0, 0, *size, 0, x, y, self._x, self._y)
        return self._x.value, self._y.value


def _lines(look: Look, places: list[int], size: tuple[int, int]) -> list[Box]:
    """Rectangles of what is marked, one for each run of characters that stand beside one another."""
    found: list[Box] = []
    before: Box | None = None
    for place, box in _boxes(look, places, size):
        if before is not None and _beside(before, box):
            found[-1] = _around(found[-1], box)
        elif not look.characters[place].isspace():
            found.append(box)
        else:
            continue
        before = box
    return found


def _boxes(look: Look, places: list[int], size: tuple[int, int]) -> Iterator[tuple[int, Box]]:
    for place in places:
        box = look.box(place, size)
        if box is not None:
            yield place, box


def _beside(one: Box, other: Box) -> bool:
    """Whether two characters stand in one line, or, written downwards, in one column."""
    across = min(one[2], other[2]) - max(one[0], other[0])  # below 0: the gap between them
    along = min(one[3], other[3]) - max(one[1], other[1])
    width, height = (min(one[at + 2] - one[at], other[at + 2] - other[at]) for at in (0, 1))
    return (2 * along > height and -across <= _GAP * height) or (2 * across > width and -along <= width / 2)


def _around(one: Box, other: Box) -> Box:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _mark(pixels: Pixels, boxes: list[Box]) -> None:
    height, width = pixels.shape[:2]
    under = np.zeros((height, width), dtype=bool)
    for left, top, right, bottom in boxes:
        under[max(0, top - _MARGIN) : max(0, bottom + _MARGIN), max(0, left - _MARGIN) : max(0, right + _MARGIN)] = True
    tint = np.asarray(MARK, dtype=np.uint16)
    pixels[under] = (pixels[under].astype(np.uint16) * tint // 255).astype(np.uint8)


# --- the file ---------------------------------------------------------------------------------------------------------


def png(pixels: Pixels) -> bytes:
    """Pixels of shape (height, width, 3) as a PNG (RFC 2083), each line as its difference from the one above."""
    height, width = pixels.shape[:2]
    flat = pixels.reshape(height, 3 * width)
    lines = np.empty((height, 1 + 3 * width), dtype=np.uint8)
    lines[:, 0] = 2  # the filter "up"
    lines[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=lines[1:, 1:])
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(lines.tobytes(), _COMPRESSION)
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b"")))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
