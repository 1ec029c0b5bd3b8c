"""HTML and XHTML by lxml: one iterative walk that collects headings, paragraphs, lists, quotes, code and tables.

No addresses of links and images get into the text (they would be 60 % of what is embedded). Navigation, scripts, forms
and page footers are left out, unless that leaves nothing. Knows nothing of where the page came from.
"""

from __future__ import annotations

import re

from lxml import etree

from pipeline import errors
from pipeline.readers import build, decode, tables, xmltree

_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.I)
_XML_CHARSET = re.compile(rb"<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w.-]{1,40})", re.I)
_SPACES = re.compile(r"[ \t\n\r\f\u00a0]+")
_BREAKS = re.compile(r" ?\n[ \n]*")

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_SKIPPED_TAGS = (
    "script style noscript template svg iframe object embed applet canvas head title meta link select option datalist "
    "button input textarea audio video map"
)
_SKIPPED = frozenset(_SKIPPED_TAGS.split())
_BOILERPLATE = frozenset(("nav", "footer", "dialog", "menu"))
_BOILERPLATE_ROLES = frozenset(("navigation", "search", "contentinfo", "menu", "menubar", "toolbar", "dialog"))
_CONTENT = frozenset(("article", "main", "section", "blockquote"))  # a footer in one of these belongs to the text
_BLOCK_TAGS = (
    "address article aside blockquote body caption center dd details dir div dl dt fieldset figcaption figure footer "
    "form header hgroup hr html legend li main nav ol p pre section summary table tbody td tfoot th thead tr ul "
    "h1 h2 h3 h4 h5 h6"
)
_BLOCKS = frozenset(_BLOCK_TAGS.split())
_KINDS = {
    "blockquote": "quote",
    "pre": "code",
    "caption": "caption",
    "figcaption": "caption",
    "ul": "list",
    "ol": "list",
    "dl": "list",
}
_LAYOUT = ("table", "h1", "h2", "h3", "h4")  # in a table: it only arranges the page
_LOOKED_AT = 20  # rows of a table, for its header
_LINE_BREAK = "\x0b"  # a <br> until white space has been collapsed


def read(data: bytes, name: str) -> build.Draft:
    builder = build.Builder()
    title = add_page(data, builder)
    return builder.draft(title)


def add_page(data: bytes, builder: build.Builder, *, page: int | None = None) -> str:
    """Add a page's text to `builder`; its <title> is returned, "" for none.

    Raises:
        DocumentError: empty (nothing between the tags), damaged.
    """
    root = _root(decode.text_of(data, declared(data)))
    before = builder.length
    for everything in (False, True):
        _Walk(builder, everything=everything, page=page).run(root)
        if builder.length > before:
            break
    title = root.find(".//title")
    return "" if title is None else build.one_line("".join(map(str, title.itertext())))


def declared(data: bytes) -> str:
    found = _META_CHARSET.search(data[:4096]) or _XML_CHARSET.match(data[:200])
    return found[1].decode("ascii") if found else ""


def _root(text: str) -> etree._Element:
    # huge_tree: without it libxml2 ends the page, in silence, at the 256th level (300 <font> that nobody closed) and at
    # the first picture of 10 MB within an attribute. The worker's limits hold the rest.
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root = etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError as error:
        raise errors.DocumentError("empty", f"no text in it ({error})") from error
    last = parser.error_log.last_error
    if last is not None and last.type_name == "ERR_RESOURCE_LIMIT":  # what follows is not in the tree
        raise errors.DocumentError("damaged", f"nested too deeply ({last.message.partition(',')[0]})")
    if root is None:
        raise errors.DocumentError("empty", "no text in it")
    return root


class _Walk:
    """One pass over a tree. Text gathers in `inline` until a block begins or ends, then goes where `kinds` says."""

    def __init__(self, builder: build.Builder, *, everything: bool, page: int | None) -> None:
        self.builder = builder
        self.everything = everything
        self.page = page
        self.inline: list[str] = []
        self.kinds: list[str] = []  # of the open lists, quotes, code and captions
        self.items: list[str] = []  # of the list that comes next in the document
        self.content_depth = 0
        self.table: _Table | None = None

    def run(self, root: etree._Element) -> None:
        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            tag = xmltree.local(element).lower()
            skipped = self._is_skipped(tag, element)
            if event == "start" and skipped:
                walk.skip_subtree()  # its end event still comes
            elif event == "start":
                self._start(tag, element)
            elif not skipped:
                self._end(tag)
            if event == "end" and element.tail and element is not root:
                self.inline.append(element.tail)
        self._flush()
        self._end_list()

    def _is_skipped(self, tag: str, element: etree._Element) -> bool:
        if tag in _SKIPPED or not tag:
            return True
        if self.everything:
            return False
        if tag in _BOILERPLATE:
            return tag != "footer" or not self.content_depth
        attributes = element.attrib
        if not attributes or tag in ("html", "body"):
            return False
        return (
            "hidden" in attributes
            or attributes.get("role") in _BOILERPLATE_ROLES
            or attributes.get("aria-hidden") == "true"
        )

    def _start(self, tag: str, element: etree._Element) -> None:
        if tag in _BLOCKS:
            self._flush()
            if tag in _KINDS:
                self.kinds.append(_KINDS[tag])
            elif tag in _CONTENT:
                self.content_depth += 1
            if self.table is not None:
                self.table.open(tag)
            elif tag == "table" and not _is_layout(element):
                self.table = _Table(element)
        elif tag == "br":
            self.inline.append("\n" if self._kind() == "code" else _LINE_BREAK)
        if element.text:
            self.inline.append(element.text)

    def _end(self, tag: str) -> None:
        if tag not in _BLOCKS:
            return
        self._flush(_HEADINGS.get(tag, 0))
        if tag in _KINDS:
            self.kinds.pop()
            if "list" not in self.kinds[-1:]:
                self._end_list()
        elif tag in _CONTENT:
            self.content_depth -= 1
        if tag == "table" and self.table is not None and self.table.close():
            rows, self.table = self.table, None
            self._end_list()
            # Programs that export pages write the names of columns into common cells.
            header = rows.has_header or tables.looks_like_header(rows.rows[:_LOOKED_AT])
            for text in tables.grouped(rows.rows, header=header):
                self.builder.add(text, "table", page=self.page)

    def _kind(self) -> str:
        return self.kinds[-1] if self.kinds else "paragraph"

    def _flush(self, level: int = 0) -> None:
        if not self.inline:
            return
        text = "".join(self.inline)
        self.inline.clear()
        kind = self._kind()
        if kind != "code":
            text = _BREAKS.sub("\n", _SPACES.sub(" ", text).replace(_LINE_BREAK, "\n")).strip()
        if not text or text.isspace():
            return
        if self.table is not None and kind != "caption":
            self.table.add(text)
        elif kind == "list" and not level:
            depth = min(self.kinds.count("list"), 8)
            self.items.append("  " * (depth - 1) + "- " + text)
        else:
            self._end_list()
            self.builder.add(text, kind, page=self.page, level=level)

    def _end_list(self) -> None:
        if self.items:
            self.builder.add("\n".join(self.items), "list", page=self.page)
            self.items.clear()


def _is_layout(element: etree._Element) -> bool:
    """Whether a table arranges a page instead of holding data: by its role, or by what is in it."""
    if element.get("role") in ("presentation", "none"):
        return True
    return next(element.iterdescendants(*_LAYOUT), None) is not None


class _Table:
    """Rows of cells under construction.

    Tables inside it are part of the cell (they are only met when `_is_layout` said no).
    """

    def __init__(self, element: etree._Element) -> None:
        self.rows: list[list[str]] = []
        self.has_header = next(element.iterdescendants("th"), None) is not None
        self._depth = 1

    def open(self, tag: str) -> None:
        if tag == "table":
            self._depth += 1
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            if not self.rows:
                self.rows.append([])
            self.rows[-1].append("")

    def add(self, text: str) -> None:
        if not self.rows or not self.rows[-1]:
            self.rows.append([""])
        cell = self.rows[-1][-1]
        self.rows[-1][-1] = f"{cell} {text}" if cell else text

    def close(self) -> bool:
        self._depth -= 1
        return self._depth == 0
