"""PDF pages letter by letter: text of any size at any place, bold or not, and pictures; and the picture of a page."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pypdfium2
from numpy.typing import NDArray

WIDTH, HEIGHT = 612, 792  # points


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """`y`: of the baseline, from the top of the page. `upright`: False for a stamp at the margin, written upwards."""

    text: str
    y: float
    x: float = 72
    size: float = 10
    bold: bool = False
    upright: bool = True


Page = Sequence[Text] | NDArray[np.uint8]


def pdf(pages: Sequence[Page]) -> bytes:
    """A picture (height, width), in shades of grey, fills its page."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica-Bold/Encoding/WinAnsiEncoding>>",
    ]
    kids = []
    for page in pages:
        if isinstance(page, np.ndarray):
            height, width = page.shape
            kind = b"/Type/XObject/Subtype/Image/ColorSpace/DeviceGray/BitsPerComponent 8/Filter/FlateDecode"
            objects.append(_stream(zlib.compress(page.tobytes()), kind + b"/Width %d/Height %d" % (width, height)))
            resources = b"/XObject<</P %d 0 R>>" % len(objects)
            content = b"%d 0 0 %d 0 0 cm /P Do" % (WIDTH, HEIGHT)
        else:
            resources = b"/Font<</F 3 0 R/B 4 0 R>>"
            content = b"\n".join(map(_shown, page))
        objects.append(_stream(content))
        kids.append(len(objects) + 1)
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 %d %d]/Resources<<%s>>/Contents %d 0 R>>"
            % (WIDTH, HEIGHT, resources, len(objects))
        )
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    return _file(objects)


def _shown(line: Text) -> bytes:
    escaped = line.text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")
    turned = b"1 0 0 1" if line.upright else b"0 1 -1 0"
    font = b"B" if line.bold else b"F"
    return b"BT /%s %.1f Tf %s %.1f %.1f Tm (%s) Tj ET" % (font, line.size, turned, line.x, HEIGHT - line.y, escaped)


def _stream(content: bytes, more: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (more, len(content), content)


def _file(objects: Sequence[bytes]) -> bytes:
    out, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return out + head + table + b"trailer<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(out))


def text(lines: Sequence[str], *, y: float = 100, size: float = 10, step: float = 14, x: float = 72) -> list[Text]:
    """Lines one below the other."""
    return [Text(text=line, y=y + step * at, size=size, x=x) for at, line in enumerate(lines)]


def picture(data: bytes, index: int = 0, dpi: int = 150) -> NDArray[np.uint8]:
    """A page as a scanner sees it, in shades of grey."""
    document = pypdfium2.PdfDocument(data)
    try:
        found = document[index].render(scale=dpi / 72, grayscale=True).to_numpy()
        whole: NDArray[np.uint8] = found.reshape(found.shape[:2]).copy()
        return whole
    finally:
        document.close()
