"""OpenDocument text: headings, paragraphs, lists and tables of content.xml, in one iterative walk."""

from __future__ import annotations

from lxml import etree

from pipeline.readers import archives, build, tables, xmltree

_SKIPPED = frozenset(("tracked-changes", "annotation", "table-of-content", "forms", "sequence-decls", "desc", "title"))
_MAX_SPACES = 100
_MAX_REPEATED = 100  # of one cell; a spreadsheet's last one claims 16,384


def read(data: bytes, name: str) -> build.Draft:
    builder = build.Builder()
    with archives.opened(data) as archive:
        root = xmltree.parse(archives.member(archive, "content.xml"), "content.xml")
        title = _title(archives.member(archive, "meta.xml")) if "meta.xml" in archive.NameToInfo else ""
    _Walk(builder).run(root)
    return builder.draft(title)


def _title(data: bytes) -> str:
    root = xmltree.parse(data, "meta.xml")
    return next((element.text or "" for element in root.iter("{http://purl.org/dc/elements/1.1/}title")), "")


class _Walk:
    def __init__(self, builder: build.Builder) -> None:
        self.builder = builder
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
            repeated = min(int(_attribute(element, "number-columns-repeated") or 1), _MAX_REPEATED)
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
        elif self.list_depth and not level:
            self.items.append("  " * min(self.list_depth - 1, 8) + "- " + text)
        else:
            self._end_list()
            self.builder.add(text, level=level)

    def _end_list(self) -> None:
        self.builder.add("\n".join(self.items), "list")
        self.items.clear()

    def _end_table(self) -> None:
        for text in tables.grouped(self.rows, header=tables.looks_like_header(self.rows[:20])):
            self.builder.add(text, "table")
        self.rows.clear()


def _attribute(element: etree._Element, local: str) -> str:
    return next((str(value) for key, value in element.attrib.items() if str(key).endswith("}" + local)), "")
