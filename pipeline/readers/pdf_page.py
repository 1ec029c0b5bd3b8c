"""What is asked of pdf_picture, and what it tells: apart from it, since whoever asks must not load pdfium."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to show. `before`, `marked` and `after` are our text of that page: the passage, and what stands around it,
    which tells it apart from the same words elsewhere on the page.

    Attributes:
        page: counted from 1.
    """

    page: int
    marked: str = ""
    before: str = ""
    after: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A page as a PNG.

    Attributes:
        width, height: in pixels. pages: of the document.
        letters: that pdfium finds on the page; 0: it is a picture without a text.
        share: of the passage's letters and digits that are marked; 0.0 where there are none.
    """

    png: bytes
    width: int
    height: int
    pages: int
    letters: int
    share: float
