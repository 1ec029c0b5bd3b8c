"""Small real documents of each format, made byte by byte or with the library that users' programs are like."""

from __future__ import annotations

import datetime
import email.message
import io
import re
import struct
import zipfile
from collections.abc import Iterable, Sequence

# --- PDF --------------------------------------------------------------------------------------------------------------


def pdf(
    pages: Iterable[Sequence[str]],
    *,
    title: str = "",
    outline: Sequence[tuple[str, int]] = (),
    encrypted: bool = False,
    to_unicode: dict[str, int] | None = None,
    contents: bytes = b"",
) -> bytes:
    """Pages of lines in Helvetica, 14 points apart; "" is a wider gap. `outline`: titles with page indexes.

    `contents`: the stream object that stands in for the pages' own.
    """
    objects: list[bytes] = [b"", b"", b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"]
    if to_unicode is not None:
        objects[2] = objects[2][:-2] + b"/ToUnicode 4 0 R>>"
        objects.append(_stream(_cmap(to_unicode)))
    kids = []
    for page in pages:
        shown = b" ".join(b"(%s) Tj T*" % _escaped(line) for line in page)
        objects.append(contents or _stream(b"BT /F1 12 Tf 72 720 Td 14 TL %s ET 10 10 20 20 re f" % shown))
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>/Contents %d 0 R>>"
            % len(objects)
        )
        kids.append(len(objects))
    catalog = b"<</Type/Catalog/Pages 2 0 R"
    if outline:
        first = len(objects) + 2
        last = first + len(outline) - 1
        objects.append(b"<</Type/Outlines/First %d 0 R/Last %d 0 R/Count %d>>" % (first, last, len(outline)))
        catalog += b"/Outlines %d 0 R" % len(objects)
        for at, (name, page_index) in enumerate(outline, first):
            following = b"/Next %d 0 R" % (at + 1) if at < last else b""
            objects.append(
                b"<</Title(%s)/Parent %d 0 R/Dest[%d 0 R/Fit]%s>>"
                % (_escaped(name), first - 1, kids[page_index], following)
            )
    objects[0] = catalog + b">>"
    objects[1] = b"<</Type/Pages/Count %d/Kids[%s]>>" % (len(kids), b" ".join(b"%d 0 R" % kid for kid in kids))
    trailer = b""
    if title:
        objects.append(b"<</Title(%s)>>" % _escaped(title))
        trailer += b"/Info %d 0 R" % len(objects)
    if encrypted:  # the check value of a password that is not the empty one
        objects.append(b"<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"ab" * 32, b"cd" * 32))
        trailer += b"/Encrypt %d 0 R/ID[<00><00>]" % len(objects)
    return _file(objects, trailer)


def _file(objects: list[bytes], trailer: bytes) -> bytes:
    out = b"%PDF-1.4\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n" % size
    return out + head + table + b"trailer<</Size %d/Root 1 0 R%s>>\nstartxref\n%d\n%%%%EOF" % (size, trailer, len(out))


def _stream(content: bytes) -> bytes:
    return b"<</Length %d>>stream\n%s\nendstream" % (len(content), content)


def _escaped(text: str) -> bytes:
    return text.encode("cp1252").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _cmap(mapping: dict[str, int]) -> bytes:
    lines = b"\n".join(b"<%02x> <%04x>" % (ord(key), value) for key, value in mapping.items())
    return (
        b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def "
        b"1 begincodespacerange <00> <ff> endcodespacerange\n%d beginbfchar\n%s\nendbfchar\nendcmap end end"
        % (len(mapping), lines)
    )


# --- Office -----------------------------------------------------------------------------------------------------------


def docx(title: str = "") -> bytes:
    import docx as library

    made = library.Document()
    made.core_properties.title = title
    made.sections[0].header.paragraphs[0].text = "Running head"
    made.add_heading("Report on ice", 1)
    made.add_paragraph("The station lost ten hours of records in one night.")
    made.add_heading("Causes", 2)
    made.add_paragraph("the wrong fuse", style="List Bullet")
    made.add_paragraph("too much rime", style="List Bullet")
    table = made.add_table(2, 2)
    for row, cells in enumerate((("Time", "Event"), ("22:31", "a gust"))):
        for column, text in enumerate(cells):
            table.cell(row, column).text = text
    made.add_heading("结论", 1)
    made.add_paragraph("保险丝的额定值是四安。")
    return _saved(made)


def pptx() -> bytes:
    import pptx as library

    made = library.Presentation()
    for number, title in enumerate(("Snow", "Rime"), 1):
        slide = made.slides.add_slide(made.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = f"Body of slide {number}"
        if number == 1:
            slide.notes_slide.notes_text_frame.text = "Say it slowly."
    blank = made.slides.add_slide(made.slide_layouts[6])
    grid = blank.shapes.add_table(2, 2, 1_000_000, 1_000_000, 3_000_000, 500_000).table
    blank.shapes.add_textbox(1_000_000, 2_000_000, 3_000_000, 500_000).text_frame.text = "no title here"
    for row, cells in enumerate((("Year", "Depth"), ("2025", "40 cm"))):
        for column, text in enumerate(cells):
            grid.cell(row, column).text = text
    return _saved(made)


def titled_slides(*titles: str) -> bytes:
    import pptx as library

    made = library.Presentation()
    for title in titles:
        made.slides.add_slide(made.slide_layouts[5]).shapes.title.text = title
    return _saved(made)


def slide_of_boxes(*boxes: tuple[str, float]) -> bytes:
    """A slide without placeholders. `boxes`: text and place from the top, as a share of the slide's height."""
    import pptx as library

    made = library.Presentation()
    slide = made.slides.add_slide(made.slide_layouts[6])
    for text, y in boxes:
        top = int(y * made.slide_height)
        slide.shapes.add_textbox(1_000_000, top, 3_000_000, 400_000).text_frame.text = text
    return _saved(made)


def xlsx(sheets: dict[str, list[list[object]]], *, hidden: str = "") -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        if name == hidden:
            sheet.sheet_state = "hidden"
    return _saved(book)


def _saved(made: object) -> bytes:
    out = io.BytesIO()
    made.save(out)  # type: ignore[attr-defined]
    return out.getvalue()


def packed(members: dict[str, str | bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip with these members; the same bytes at any time, as processes that share the tests must name them alike."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return out.getvalue()


def epub(chapters: Sequence[str], *, title: str = "A small book", more: dict[str, str] | None = None) -> bytes:
    items = "".join(
        f'<item id="c{n}" href="c%20{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))
    )
    spine = "".join(f'<itemref idref="c{n}"/>' for n in reversed(range(len(chapters))))
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        f"<metadata><dc:title>{title}</dc:title></metadata><manifest>{items}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
    )
    files = {
        f"OPS/c {n}.xhtml": f"<html xmlns='http://www.w3.org/1999/xhtml'><body>{text}</body></html>"
        for n, text in enumerate(chapters)
    }
    return packed(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": container,
            "OPS/book.opf": package,
            **files,
            **(more or {}),
        }
    )


_ODF_NAMES = " ".join(
    (
        'xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"',
        'xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"',
        'xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"',
        'xmlns:dc="http://purl.org/dc/elements/1.1/"',
        'xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0"',
        'xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0"',
        'xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"',
        'xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0"',
    )
)


def odt(body: str, *, title: str = "") -> bytes:
    content = f"<office:body><office:text>{body}</office:text></office:body>"
    meta = f"<office:meta><dc:title>{title}</dc:title></office:meta>"
    return packed(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"<office:document-content {_ODF_NAMES}>{content}</office:document-content>",
            "meta.xml": f"<office:document-meta {_ODF_NAMES}>{meta}</office:document-meta>",
        }
    )


def ods(tables: str) -> bytes:
    styles = '<style:style style:name="hid"><style:table-properties table:display="false"/></style:style>'
    body = f"<office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>"
    return _odf("spreadsheet", f"<office:automatic-styles>{styles}</office:automatic-styles>{body}")


def odp(slides: str) -> bytes:
    return _odf("presentation", f"<office:body><office:presentation>{slides}</office:presentation></office:body>")


def _odf(kind: str, content: str) -> bytes:
    content = f"<office:document-content {_ODF_NAMES}>{content}</office:document-content>"
    return packed({"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content})


def xls(sheets: dict[str, list[list[object]]], *, hidden: str = "") -> bytes:
    """A BIFF8 workbook (MS-XLS) in a compound file. A datetime becomes a number formatted as a date."""
    bodies = [_xls_sheet(rows) for rows in sheets.values()]
    start = _biff(0x809, struct.pack("<HHHHII", 0x600, 5, 0, 0, 0, 0))
    start += b"".join(_biff(0xE0, struct.pack("<HH16x", 0, form)) for form in (0, 14))  # General, a date
    names = [(name, struct.pack("<BB", len(name), 1) + name.encode("utf-16-le")) for name in sheets]
    length = len(start) + sum(10 + len(packed) for _, packed in names) + 4
    for (name, text), body in zip(names, bodies, strict=True):
        start += _biff(0x85, struct.pack("<IBB", length, name == hidden, 0) + text)
        length += len(body)
    return compound_file([("Workbook", start + _biff(0x0A, b"") + b"".join(bodies))])


def _xls_sheet(rows: list[list[object]]) -> bytes:
    out = _biff(0x809, struct.pack("<HHHHII", 0x600, 0x10, 0, 0, 0, 0))
    for at, row in enumerate(rows):
        for column, value in enumerate(row):
            if isinstance(value, str):
                text = struct.pack("<HB", len(value), 1) + value.encode("utf-16-le")
                out += _biff(0x204, struct.pack("<HHH", at, column, 0) + text)
            elif isinstance(value, bool):
                out += _biff(0x205, struct.pack("<HHHBB", at, column, 0, value, 0))
            elif isinstance(value, datetime.datetime):
                days = (value - datetime.datetime(1899, 12, 30)) / datetime.timedelta(days=1)
                out += _biff(0x203, struct.pack("<HHHd", at, column, 1, days))
            elif isinstance(value, int | float):
                out += _biff(0x203, struct.pack("<HHHd", at, column, 0, value))
    return out + _biff(0x0A, b"")


def _biff(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data


# --- mail -------------------------------------------------------------------------------------------------------------


def eml(*, plain: str = "", html: str = "", attachment: bytes = b"") -> bytes:
    message = email.message.EmailMessage()
    message["Subject"] = "Sicherungen für die Hütte"
    message["From"] = "Ewan <ewan@example.org>"
    message["To"] = "Tom <tom@example.org>"
    message["Date"] = "Tue, 03 Feb 2026 10:00:00 +0000"
    if plain or not html:
        message.set_content(plain or "\n")
    if html:
        if plain:
            message.add_alternative(html, subtype="html")
        else:
            message.set_content(html, subtype="html")
    if attachment:
        message.add_attachment(attachment, maintype="application", subtype="pdf", filename="invoice.pdf")
    return message.as_bytes()


def mbox(*messages: bytes) -> bytes:
    quoted = [re.sub(rb"(?m)^(>*From )", rb">\1", message) for message in messages]
    return b"".join(b"From ewan@example.org Tue Feb  3 10:00:00 2026\n" + one.rstrip() + b"\n\n" for one in quoted)


def msg(subject: str, body: str) -> bytes:
    """An Outlook message: an OLE compound file (MS-CFB) of MAPI properties (MS-OXMSG)."""
    texts = {0x0037: subject, 0x0042: "Ewan Brock", 0x1000: body}
    properties = b"\0" * 32
    streams: list[tuple[str, bytes]] = []
    for tag, text in texts.items():
        data = text.encode("utf-16-le")
        properties += struct.pack("<HHIQ", 0x001F, tag, 6, len(data) + 2)
        streams.append((f"__substg1.0_{tag:04X}001F", data))
    streams.append(("__properties_version1.0", properties))
    return compound_file(streams)


_FREE, _END, _FAT, _NONE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, 0xFFFFFFFF


def compound_file(streams: list[tuple[str, bytes]]) -> bytes:
    """An OLE compound file, version 3, with all streams below 4,096 bytes in the mini stream."""
    streams = sorted(streams, key=lambda stream: (len(stream[0]), stream[0].upper()))
    mini = b""
    mini_fat: list[int] = []
    starts = []
    for _, data in streams:
        starts.append(len(mini) // 64)
        sectors = -(-len(data) // 64)
        mini_fat += [len(mini_fat) + at + 1 for at in range(sectors - 1)] + [_END]
        mini += data.ljust(sectors * 64, b"\0")
    entries = [_entry("Root Entry", 5, child=1, start=0, size=len(mini))]
    for at, ((name, data), start) in enumerate(zip(streams, starts, strict=True), 1):
        entries.append(_entry(name, 2, right=at + 1 if at < len(streams) else _NONE, start=start, size=len(data)))
    return ole(mini, mini_fat, entries)


def ole(mini: bytes, mini_fat: list[int], entries: list[bytes]) -> bytes:
    """A compound file of a mini stream, its allocation table and the entries of its directory."""
    directory = b"".join(entries).ljust(-(-len(entries) // 4) * 512, b"\0")
    parts = [_sectors(mini), _sectors(struct.pack(f"<{len(mini_fat)}I", *mini_fat)), directory]
    places: list[int] = []
    chain: list[int] = []
    for part in parts:
        places.append(len(chain))
        count = len(part) // 512
        chain += [len(chain) + at + 1 for at in range(count - 1)] + [_END]
    fat_at = len(chain)
    chain.append(_FAT)
    fat = struct.pack(f"<{len(chain)}I", *chain).ljust(512, b"\xff")
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 16
    header += struct.pack(
        "<HHHHH6xIIIIIIIII", 0x3E, 3, 0xFFFE, 9, 6, 0, 1, places[2], 0, 4096, places[1], len(parts[1]) // 512, _END, 0
    )
    header += struct.pack("<I", fat_at) + b"\xff" * (108 * 4)
    return header + b"".join(parts) + fat


def _sectors(data: bytes) -> bytes:
    return data.ljust(-(-len(data) // 512) * 512, b"\0")


def _entry(name: str, kind: int, *, right: int = _NONE, child: int = _NONE, start: int, size: int) -> bytes:
    text = (name + "\0").encode("utf-16-le")
    return text.ljust(64, b"\0") + struct.pack("<HBBIII36xIII", len(text), kind, 1, _NONE, right, child, start, size, 0)
