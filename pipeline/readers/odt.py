"""OpenDocument text, presentations and sheets: content.xml, in one iterative walk."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from lxml import etree

from pipeline import errors
from pipeline.readers import archives, build, tables, xmltree

_SKIPPED = frozenset(("tracked-changes", "annotation", "table-of-content", "forms", "sequence-decls", "desc", "title"))
_MAX_SPACES = 100
_UPPER_CM = 5.0  # from the top of a slide, which is 14 to 21 high: a title begins above that
_LENGTH = re.compile(r"(-?\d{1,9}(?:\.\d{1,9})?)(cm|mm|in|pt)")
_UNITS = {"cm": 1.0, "mm": 0.1, "in": 2.54, "pt": 2.54 / 72}
_MAX_REPEATED = 100  # of one cell or row; a spreadsheet's last ones claim 16,384 and 1,048,576


def read(data: bytes, name: str) -> build.Draft:
    builder = build.Builder()
    root, title = _parsed(data)
    _Walk(builder).run(root)
    return builder.draft(title)


def read_presentation(data: bytes, name: str) -> build.Draft:
    """Each slide a page: its title as heading, its text, its notes."""
    builder = build.Builder()
    root, title = _parsed(data)
    slides = (element for element in root.iter() if xmltree.local(element) == "page")
    for page, slide in enumerate(slides, 1):
        titles = [frame for frame in slide if _attribute(frame, "class") == "title"] or _title_shape(slide)
        # The title first, wherever it stands on the slide: all else is under it.
        for frame in sorted(slide, key=lambda frame: frame not in titles):
            if xmltree.local(frame) == "notes":
                _add_notes(builder, frame, page)
            elif xmltree.local(frame):
                _Walk(builder, page=page, heading=frame in titles).run(frame)
        builder.end_slide()
    return builder.draft(title)


def _title_shape(slide: etree._Element) -> list[etree._Element]:
    """The shape that says as a title what a slide without one is about: a line of text above all others.

    What comes from other programs has no placeholders; what fills the layout's place for text is no title.
    """
    placed = [shape for shape in slide if _attribute(shape, "y")]
    shapes = [shape for shape in placed if "".join(map(str, shape.itertext())).strip()]
    shapes.sort(key=lambda shape: _length(shape, "y"))
    if not shapes or _attribute(shapes[0], "class") or len(placed) < 2 or _length(shapes[0], "y") > _UPPER_CM:
        return []
    if any(_length(one, "y") < _length(shapes[0], "y") + _length(shapes[0], "height") / 2 for one in shapes[1:2]):
        return []
    within = build.Builder()
    _Walk(within).run(shapes[0])
    return shapes[:1] if build.like_title(within.draft().text) else []


def _length(shape: etree._Element, attribute: str) -> float:
    """In centimetres; 0.0 where it is not written so, which no program does."""
    found = _LENGTH.fullmatch(_attribute(shape, attribute))
    return float(found[1]) * _UNITS[found[2]] if found else 0.0


def _add_notes(builder: build.Builder, notes: etree._Element, page: int) -> None:
    within = build.Builder()
    for frame in notes:
        if _attribute(frame, "class") != "page":  # the picture of the slide
            _Walk(within).run(frame)
    if text := within.draft().text:
        builder.add(f"Notes: {text}", page=page)


def read_sheets(data: bytes, name: str) -> build.Draft:
    """Each sheet a page under its name as heading, rows in groups (see tables)."""
    builder = build.Builder()
    root, title = _parsed(data)
    hidden = {
        _attribute(style, "name")
        for style in root.iter()
        if xmltree.local(style) == "style" and any(_attribute(one, "display") == "false" for one in style)
    }
    sheets = [element for element in root.iter() if xmltree.local(element) == "table"]
    for page, sheet in enumerate(sheets, 1):
        if _attribute(sheet, "style-name") not in hidden:
            tables.add_sheet(builder, _attribute(sheet, "name"), _rows(sheet), page)
    return builder.draft(title, heading_as_title=False)  # "Sheet1" is not a title


def _rows(sheet: etree._Element) -> Iterator[list[str]]:
    for row in sheet.iter():
        if xmltree.local(row) == "table-row":
            cells = list(_cells(row))
            while cells and not cells[-1]:  # the empty rest of the grid: it would hide that the first row is full
                cells.pop()
            repeated = _repeated(row, "number-rows-repeated") if cells else 1
            yield from itertools.repeat(cells, repeated)


def _cells(row: etree._Element) -> Iterator[str]:
    for cell in row:
        if xmltree.local(cell) in ("table-cell", "covered-table-cell"):
            yield from itertools.repeat(_cell(cell), _repeated(cell, "number-columns-repeated"))


def _cell(cell: etree._Element) -> str:
    if not len(cell):  # most cells of a sheet
        return ""
    within = build.Builder()
    _Walk(within).run(cell)
    return within.draft().text


def _repeated(element: etree._Element, attribute: str) -> int:
    return max(1, min(int(_attribute(element, attribute) or 1), _MAX_REPEATED))


def _parsed(data: bytes) -> tuple[etree._Element, str]:
    """The root of content.xml, and the title that the document's properties give."""
    with archives.opened(data) as archive:
        if "META-INF/manifest.xml" in archive.NameToInfo:
            _check_readable(archives.member(archive, "META-INF/manifest.xml"))
        root = xmltree.parse(archives.member(archive, "content.xml"), "content.xml")
        return root, _title(archives.member(archive, "meta.xml")) if "meta.xml" in archive.NameToInfo else ""


def _check_readable(manifest: bytes) -> None:
    if b"encryption-data" in manifest:
        raise errors.DocumentError("encrypted", "protected by a password", "Save a copy without the password.")


def _title(data: bytes) -> str:
    root = xmltree.parse(data, "meta.xml")
    return next((element.text or "" for element in root.iter("{http://purl.org/dc/elements/1.1/}title")), "")


class _Walk:
    """Adds what stands in an element to a document. `heading`: each paragraph is one."""

    def __init__(self, builder: build.Builder, *, page: int | None = None, heading: bool = False) -> None:
        self.builder = builder
        self.page = page
        self.heading = heading
        self.inline: list[str] = []
        self.items: list[str] = []
        self.rows: list[list[str]] = []
        self.list_depth = 0
        self.table_depth = 0

    def run(self, root: etree._Element) -> None:
        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            tag = xmltree.local(element)
            if event == "start" and (tag in _SKIPPED or not tag):
                walk.skip_subtree()
            elif event == "start":
                self._start(tag, element)
            elif tag not in _SKIPPED:
                self._end(tag, element)
            if event == "end" and element.tail:
                self.inline.append(element.tail)

    def _start(self, tag: str, element: etree._Element) -> None:
        if tag in ("p", "h"):
            self.inline.clear()  # white space between elements
        elif tag == "s":
            self.inline.append(" " * min(int(_attribute(element, "c") or 1), _MAX_SPACES))
        elif tag == "tab":
            self.inline.append("\t")
        elif tag == "line-break":
            self.inline.append("\n")
        elif tag == "list":
            self.list_depth += 1
        elif tag == "table":
            self._end_list()
            self.table_depth += 1
        elif tag == "table-row" and self.table_depth == 1:
            self.rows.append([])
        elif tag in ("table-cell", "covered-table-cell") and self.table_depth == 1 and self.rows:
            self.rows[-1].append("")
        if element.text:
            self.inline.append(element.text)

    def _end(self, tag: str, element: etree._Element) -> None:
        if tag in ("p", "h"):
            self._paragraph(
                "".join(self.inline).strip(), int(_attribute(element, "outline-level") or 1) if tag == "h" else 0
            )
            self.inline.clear()
        elif tag == "list":
            self.list_depth -= 1
            if not self.list_depth:
                self._end_list()
        elif tag == "table-cell" and self.table_depth == 1 and self.rows and self.rows[-1]:
            repeated = _repeated(element, "number-columns-repeated")
            self.rows[-1].extend([self.rows[-1][-1]] * (repeated - 1))
        elif tag == "table":
            self.table_depth -= 1
            if not self.table_depth:
                self._end_table()

    def _paragraph(self, text: str, level: int) -> None:
        if not text:
            return
        if self.table_depth and self.rows and self.rows[-1]:
            cell = self.rows[-1][-1]
            self.rows[-1][-1] = f"{cell} {text}" if cell else text
        elif self.list_depth and not level and not self.heading:
            self.items.append("  " * min(self.list_depth - 1, 8) + "- " + text)
        else:
            self._end_list()
            self.builder.add(text, page=self.page, level=level or self.heading)

    def _end_list(self) -> None:
        self.builder.add("\n".join(self.items), "list", page=self.page)
        self.items.clear()

    def _end_table(self) -> None:
        for text in tables.grouped(self.rows, header=tables.looks_like_header(self.rows[:20])):
            self.builder.add(text, "table", page=self.page)
        self.rows.clear()


def _attribute(element: etree._Element, local: str) -> str:
    return next((str(value) for key, value in element.attrib.items() if str(key).endswith("}" + local)), "")
