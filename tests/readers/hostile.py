"""Files that are made to hurt, each with the fate that it must have: "ok", or the kind under which it is refused.

`everything` yields them by family. None is large on disk but one of 100 MB (the sparse ones take a block).
"""

from __future__ import annotations

import base64
import codecs
import functools
import io
import json
import os
import socket
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.readers import samples

DEEP = 10_000
MB = 1_000_000
PATTERN = 50_000  # bytes: what takes squared time needs minutes for it
TOO_LARGE = 2 << 30
OLD = 1_700_000_000  # when they were last changed: long before the scan, which trusts no file of its own age


@dataclass(frozen=True, slots=True)
class Hostile:
    """A file to be written. `content`: its bytes, or what writes it to a path.

    `fate`: with "|" where two limits are reached at about the same time.
    """

    name: str
    fate: str
    content: bytes | Callable[[Path], None]

    def write(self, folder: Path) -> None:
        path = folder / self.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.content, bytes):
            path.write_bytes(self.content)
        else:
            self.content(path)
        os.utime(path, (OLD, OLD))


def everything(secret: Path, port: int) -> Iterator[Hostile]:
    """`secret`: a file that external entities name; `port`: of a loopback server that nothing may ask."""
    yield from _bombs()
    yield from _sizes()
    yield from _entities(secret.as_uri())
    yield from _entities(f"http://127.0.0.1:{port}/x", "remote")
    yield from _in_xml("entity/laughs", LAUGHS, "&j;", fate="ok|damaged")
    yield from _in_xml("entity/quadratic", QUADRATIC, "&j;" * 5000, fate="ok|damaged")
    yield from _links(f"http://127.0.0.1:{port}")
    yield from _deep()
    yield from _wide()
    yield from _bytes()
    yield from _truncated()
    yield from _wrong_names()
    yield from _locked()
    yield from _macros()
    yield from _grids()
    yield from _patterns()
    yield from _pdfs()


_docx = functools.cache(samples.docx)
_pptx = functools.cache(samples.pptx)
_xlsx = functools.cache(lambda: samples.xlsx({"One": [["x"]]}))


# --- zip ----------------------------------------------------------------------------------------------------------


def members(data: bytes) -> dict[str, str | bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def office(data: bytes, **changed: str | bytes) -> bytes:
    """An Office file with other members: `word__document_xml` is word/document.xml."""
    named = {key.replace("__", "/").replace("_xml", ".xml"): value for key, value in changed.items()}
    return samples.packed(members(data) | named)


def repeated_entry(size: int, count: int) -> bytes:
    """A zip whose directory names one stored member `count` times: entries that overlap, a "better zip bomb"."""
    data = samples.packed({"word/a": bytes(range(256)) * (size // 256)}, compression=zipfile.ZIP_STORED)
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    entry = data[start:end]
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, start, 0)
    return data[:start] + entry * count + tail


def lying(data: bytes, member: str, size: int) -> bytes:
    """`data` whose directory declares `size` bytes for a member, whatever it holds."""
    out = bytearray(data)
    place = out.rindex(member.encode(), 0, out.rindex(b"PK\x05\x06")) - 46
    out[place + 24 : place + 28] = struct.pack("<I", size)
    return bytes(out)


def _bomb(name: str, size: int) -> bytes:
    return samples.packed({"[Content_Types].xml": "x", name: bytes(size)})


def _bombs() -> Iterator[Hostile]:
    flat = {"docx": "word/document.xml", "xlsx": "xl/workbook.xml", "pptx": "ppt/presentation.xml"}
    for extension, name in flat.items():
        yield Hostile(f"bomb/flat.{extension}", "zip_bomb", _bomb(name, 31 * MB))
    for extension, kind in (("odt", "opendocument.text"), ("epub", "epub+zip")):
        content = samples.packed({"mimetype": f"application/{_vendor(kind)}", "content.xml": bytes(31 * MB)})
        yield Hostile(f"bomb/flat.{extension}", "zip_bomb", content)
    inner = samples.packed({"0.zip": samples.packed({"a.txt": bytes(30 * MB)})})
    yield Hostile("bomb/nested.docx", "unknown_type", samples.packed({f"{n}.zip": inner for n in range(16)}))
    yield Hostile("bomb/overlapping.docx", "zip_bomb", repeated_entry(102_400, 3100))
    yield Hostile("bomb/members.xlsx", "zip_bomb", repeated_entry(0, 60_000))
    # As much as may be unpacked, and no more than it declares: the checksum then tells.
    yield Hostile("bomb/lying.docx", "damaged", lying(_docx_of(b"<x>" + b" " * 20 * MB), "word/document.xml", 100))
    yield Hostile("bomb/lying.epub", "damaged", lying(samples.packed({"mimetype": bytes(50 * MB)}), "mimetype", 9))
    # Small members, much text: what is named many times is read once, or refused.
    chapter = f"<p>{'snow ' * 2_000}</p>"
    yield Hostile("bomb/one-chapter-10000-times.epub", "ok", _repeating_epub(chapter, 10_000))
    yield Hostile("bomb/shared-string.xlsx", "memory|timeout", _shared_string(30_000, 150_000))


def _vendor(kind: str) -> str:
    return kind if "+" in kind else f"vnd.oasis.{kind}"


def _docx_of(document: bytes) -> bytes:
    return office(_docx(), word__document_xml=document)


def _repeating_epub(chapter: str, times: int) -> bytes:
    found = members(samples.epub([chapter]))
    package = bytes(found["OPS/book.opf"])  # type: ignore[arg-type]
    reference = b'<itemref idref="c0"/>'
    return samples.packed(found | {"OPS/book.opf": package.replace(reference, reference * times)})


def _shared_string(length: int, cells: int) -> bytes:
    """A long string that many cells name: gigabytes of text in a few kilobytes."""
    found = members(_xlsx())
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    part = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}"/></Types>'
    types = bytes(found["[Content_Types].xml"]).replace(b"</Types>", part.encode())  # type: ignore[arg-type]
    strings = f'<sst xmlns="{_SHEET}" count="1" uniqueCount="1"><si><t>{"snow " * (length // 5)}</t></si></sst>'
    rows = "".join(f'<row r="{n}"><c r="A{n}" t="s"><v>0</v></c></row>' for n in range(1, cells + 1))
    sheet = f'<worksheet xmlns="{_SHEET}"><sheetData>{rows}</sheetData></worksheet>'
    more = {"[Content_Types].xml": types, "xl/sharedStrings.xml": strings, "xl/worksheets/sheet1.xml": sheet}
    return samples.packed(found | more)


_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


# --- sizes ------------------------------------------------------------------------------------------------------------


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"%PDF-1.7\n" if path.suffix == ".pdf" else b"PK\x03\x04" if path.suffix == ".docx" else b"")
        file.truncate(TOO_LARGE)


def _sizes() -> Iterator[Hostile]:
    for extension in ("txt", "pdf", "docx", "csv"):
        yield Hostile(f"size/sparse.{extension}", "too_large", _sparse)
    yield Hostile("size/empty.txt", "empty", b"")
    yield Hostile("size/empty.pdf", "empty", b"")
    yield Hostile("size/empty.docx", "empty", b"")
    yield Hostile("size/blank.md", "empty", b" \n\t\n" * 100)
    yield Hostile("size/one-byte.txt", "ok", b"x")
    yield Hostile("size/one-high-byte.txt", "ok", b"\xff")
    yield Hostile("size/one-nul.txt", "damaged", b"\0")
    yield Hostile("size/one-byte.pdf", "ok", b"x")
    yield Hostile("size/one-byte.json", "ok", b"7")
    yield Hostile("size/one-bracket.json", "ok", b"{")


# --- XML --------------------------------------------------------------------------------------------------------------

LAUGHS = (
    '<!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefghi", "bcdefghij", strict=True))
    + "]>"
)
QUADRATIC = f'<!DOCTYPE l [<!ENTITY j "{"a" * 100_000}">]>'


def _entities(target: str, name: str = "local") -> Iterator[Hostile]:
    """External entities and doctypes wherever XML is read; a document is read without them."""
    for way in ("ENTITY x", "ENTITY % p"):
        use = "%p;" if "%" in way else ""
        external = f'<!DOCTYPE d [<!{way} SYSTEM "{target}">{use}]>'
        short = f"{name}-{'parameter' if use else 'general'}"
        yield from _in_xml(f"entity/{short}", external, "" if use else "&x;", fate="ok")
    yield Hostile(f"entity/{name}.html", "ok", f'<!DOCTYPE html SYSTEM "{target}"><p>Ice &x; here.'.encode())
    yield Hostile(f"entity/{name}.xml", "ok", f'<!DOCTYPE d [<!ENTITY x SYSTEM "{target}">]><d>&x;</d>'.encode())
    include = f'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="{target}" parse="text"/>'
    yield Hostile(f"entity/{name}-include.odt", "ok", samples.odt(f"<text:p>Ice {include} here.</text:p>"))


def _in_xml(name: str, doctype: str, use: str, *, fate: str) -> Iterator[Hostile]:
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    paragraph = f"<w:p><w:r><w:t>Ice {use} here.</w:t></w:r></w:p>"
    body = f'{doctype}<w:document xmlns:w="{word}"><w:body>{paragraph}</w:body></w:document>'
    yield Hostile(f"{name}.docx", fate, _docx_of(body.encode()))
    content = members(samples.odt(f"<text:p>Ice {use} here.</text:p>"))
    packed = samples.packed(content | {"content.xml": doctype + str(content["content.xml"], "utf-8")})  # type: ignore[arg-type]
    yield Hostile(f"{name}.odt", fate, packed)
    yield Hostile(f"{name}.epub", "ok", _epub_with(f"{doctype}<html><body><p>Ice {use} here.</p></body></html>"))
    cells = f'<row r="1"><c r="A1" t="inlineStr"><is><t>Ice {use} here.</t></is></c></row>'
    sheet = f'{doctype}<worksheet xmlns="{_SHEET}"><sheetData>{cells}</sheetData></worksheet>'
    book = members(_xlsx())
    fate = "damaged" if use else "ok|damaged"  # what parses it may refuse a doctype altogether
    yield Hostile(f"{name}.xlsx", fate, samples.packed(book | {"xl/worksheets/sheet1.xml": sheet}))


def _epub_with(page: str) -> bytes:
    return samples.packed(members(samples.epub(["x"])) | {"OPS/c 0.xhtml": page})


def _links(server: str) -> Iterator[Hostile]:
    """What a browser or an Office program would fetch."""
    page = (
        f"<html><head><base href='{server}/'><meta http-equiv=refresh content='0;url={server}/'>"
        f"<script src='{server}/s'></script><link rel=stylesheet href='{server}/c'></head>"
        f"<body background='{server}/b'><img src='{server}/i'>"
        f"<iframe src='{server}/f'></iframe><object data='{server}/o'></object><p>Ice here.</body></html>"
    )
    yield Hostile("link/page.html", "ok", page.encode())
    yield Hostile("link/mail.eml", "ok", samples.eml(html=page))
    yield Hostile("link/note.md", "ok", f"# Ice\n\n![i]({server}/i) <img src='{server}/j'> [l]: {server}/l\n".encode())
    template = rf"{{\rtf1{{\*\template {server}/t}}{{\field{{\*\fldinst INCLUDETEXT {server}/f}}{{\fldrslt Ice}}}}}}"
    yield Hostile("link/template.rtf", "ok", template.encode())
    image = f'<text:p>Ice<draw:image xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="{server}/i"/></text:p>'
    yield Hostile("link/image.odt", "ok", samples.odt(image))
    found = members(_docx())
    relations = bytes(found["word/_rels/document.xml.rels"])  # type: ignore[arg-type]
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    more = "".join(
        f'<Relationship Id="rX{n}" Type="{kind}/{what}" Target="{server}/{what}" TargetMode="External"/>'
        for n, what in enumerate(("attachedTemplate", "image", "oleObject", "hyperlink", "aFChunk"))
    )
    relations = relations.replace(b"</Relationships>", more.encode() + b"</Relationships>")
    yield Hostile("link/template.docx", "ok", samples.packed(found | {"word/_rels/document.xml.rels": relations}))
    yield Hostile("link/uri.pdf", "ok", _pdf_with(b"/OpenAction<</S/URI/URI(%s/u)>>" % server.encode()))
    action = b"/OpenAction<</S/SubmitForm/F<</FS/URL/F(%s/u)>>>>" % server.encode()
    yield Hostile("link/submit.pdf", "ok", _pdf_with(action))


# --- nesting and width ------------------------------------------------------------------------------------------------


def _deep() -> Iterator[Hostile]:
    yield Hostile("deep/div.html", "damaged", b"<div>" * DEEP + b"text" + b"</div>" * DEEP)
    yield Hostile("deep/unclosed.html", "ok", b"<font><b>" * 500 + b"<p>text")
    yield Hostile("deep/table.html", "damaged", b"<table><tr><td>" * DEEP + b"text")
    yield Hostile("deep/list.html", "damaged", b"<ul><li>" * DEEP + b"text")
    yield Hostile("deep/elements.xml", "ok", b"<a>" * DEEP + b"text" + b"</a>" * DEEP)
    yield Hostile("deep/lists.json", "ok", b"[" * DEEP + b"1" + b"]" * DEEP)
    yield Hostile("deep/objects.json", "ok", b'{"a":' * DEEP + b"1" + b"}" * DEEP)
    yield Hostile("deep/lists.jsonl", "ok", (b"[" * DEEP + b"1" + b"]" * DEEP + b"\n") * 2)
    yield Hostile("deep/flow.yaml", "ok", b"a: " + b"[" * DEEP + b"1" + b"]" * DEEP)
    yield Hostile("deep/block.yaml", "ok", b"".join(b" " * n + b"a:\n" for n in range(1500)))
    yield Hostile("deep/arrays.toml", "ok", b"a = " + b"[" * DEEP + b"]" * DEEP)
    yield Hostile("deep/keys.toml", "ok", b"[" + b"a." * DEEP + b"a]\nb = 1\n")
    yield Hostile("deep/groups.rtf", "ok", rb"{\rtf1 " + b"{" * DEEP + b"text" + b"}" * DEEP + b"}")
    yield Hostile("deep/cells.ipynb", "damaged", b'{"cells":' + b"[" * DEEP + b"]" * DEEP + b"}")
    yield Hostile("deep/parts.eml", "damaged", _nested_mail(DEEP))
    yield Hostile("deep/messages.eml", "damaged", b"Content-Type: message/rfc822\n\n" * DEEP + b"text")
    yield Hostile("deep/quotes.md", "ok", b">" * DEEP + b" text")
    yield Hostile("deep/lists.md", "ok", b"- " * DEEP + b"text")
    yield Hostile(
        "deep/spans.odt", "damaged", samples.odt("<text:p>" + "<text:span>" * DEEP + "x" + "</text:span>" * DEEP)
    )
    word = b'<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    yield Hostile("deep/tables.docx", "damaged", _docx_of(word + b"<w:tbl><w:tr><w:tc>" * DEEP))
    yield Hostile("deep/page.epub", "damaged", _epub_with("<html><body>" + "<div>" * DEEP + "text"))


def _nested_mail(depth: int) -> bytes:
    """Each part a multipart with a boundary of its own."""
    parts = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(depth))
    return b"Subject: deep\n" + parts + b"Content-Type: text/plain\n\ntext\n"


def _wide() -> Iterator[Hostile]:
    attributes = b" ".join(b"a%d=1" % number for number in range(200_000))
    yield Hostile("wide/attributes.html", "timeout", b"<p " + attributes + b">text")
    yield Hostile("wide/attributes.xml", "ok", b"<p " + attributes[:100_000] + b">text</p>")
    yield Hostile("wide/classes.html", "ok", b"<p class='" + b"c " * 200_000 + b"'>text")
    yield Hostile("wide/spans.html", "ok", b"<table><tr><td colspan=99999999 rowspan=99999999>text<td>more</table>")
    yield Hostile("wide/entities.html", "ok", b"<p>" + b"&lt;" * 20_000)
    yield Hostile("wide/keys.json", "ok", json.dumps({f"key {n}": n for n in range(20_000)}).encode())
    yield Hostile("wide/integer.json", "ok", b'{"n": ' + b"9" * 20_000 + b"}")
    yield Hostile("wide/headers.eml", "ok", b"".join(b"X-%d: y\n" % n for n in range(20_000)) + b"\ntext\n")
    yield Hostile("wide/addresses.eml", "ok", b"To: " + b"a@b.c, " * 3_000 + b"d@e.f\nSubject: wide\n\ntext\n")
    yield Hostile("wide/words.eml", "ok", b"Subject:" + b" =?utf-8?q?x?=\n" * 5_000 + b"\ntext\n")
    yield Hostile("wide/columns.csv", "ok", b",".join(b"c%d" % n for n in range(20_000)) + b"\n" + b"1," * 20_000)
    yield Hostile("wide/messages.mbox", "ok", b"From a@b.c Tue Feb  3 10:00:00 2026\nSubject: x\n\ny\n\n" * 200)
    yield Hostile("wide/lines.txt", "ok", b"a\n\n" * 20_000)


# --- bytes ------------------------------------------------------------------------------------------------------------


def _bytes() -> Iterator[Hostile]:
    for name, mark in (("8", codecs.BOM_UTF8), ("16-le", codecs.BOM_UTF16_LE), ("32-be", codecs.BOM_UTF32_BE)):
        yield Hostile(f"bytes/only-mark-{name}.txt", "empty", mark)
    yield Hostile("bytes/zeros.txt", "damaged", bytes(4096))
    yield Hostile("bytes/zeros.docx", "damaged", bytes(4096))
    yield Hostile("bytes/a-few-zeros.md", "ok", b"# Ice\n\n" + b"It was cold. " * 100 + b"\0\0")
    yield Hostile("bytes/noise.txt", "unknown_type", _noise(20_000))
    yield Hostile("bytes/noise.pdf", "damaged", b"%PDF-1.7\n" + _noise(20_000))
    yield Hostile("bytes/noise.docx", "damaged", b"PK\x03\x04" + _noise(20_000))
    yield Hostile("bytes/noise.xls", "damaged", _noise(20_000))
    yield Hostile("bytes/surrogates.txt", "garbled", b"\xed\xa0\x80" * 500)
    yield Hostile("bytes/one-surrogate.txt", "ok", b"The ice \xed\xa0\x80 is thin. " * 20)
    yield Hostile("bytes/half-pair.txt", "ok", codecs.BOM_UTF16_LE + ("Ice " * 50).encode("utf-16-le") + b"\x00\xd8")
    yield Hostile("bytes/odd-length.txt", "ok", codecs.BOM_UTF16_LE + ("Ice " * 50).encode("utf-16-le") + b"x")
    yield Hostile("bytes/escaped-surrogate.json", "ok", rb'{"title": "\ud800 ice", "text": "The ice \udfff is thin."}')
    book = {"cells": [{"cell_type": "markdown", "source": ["# \ud800 ice\n", "The ice is thin."]}], "metadata": {}}
    yield Hostile("bytes/escaped-surrogate.ipynb", "ok", json.dumps(book).encode())
    yield Hostile("bytes/utf-7.txt", "ok", "The ice is thin: 氷が薄い。".encode("utf-7"))
    yield Hostile("bytes/iso-2022-jp.txt", "ok", "氷が薄いので、渡ってはいけません。".encode("iso-2022-jp"))
    yield Hostile("bytes/iso-2022-open.txt", "ok", "氷が薄いので、渡っては".encode("iso-2022-jp")[:-4])
    yield Hostile("bytes/iso-2022-noise.txt", "unknown_type", b"\x1b$B" + b"\x7f\x01~~" * 300)
    yield Hostile("bytes/overlong.txt", "ok", b"A slash \xc0\xaf in too many bytes, " * 40)
    yield Hostile("bytes/beyond-unicode.txt", "ok", b"Beyond \xf4\x90\x80\x80 Unicode, " * 40)
    yield Hostile("bytes/escapes.log", "ok", b"\x1b[31mred\x1b[0m \x1b]0;title\x07 text\r" * 50)
    yield Hostile("bytes/bidi.txt", "ok", "harmless \u202etxt.exe\u202c \u2066name\u2069".encode())
    yield Hostile("bytes/combining.txt", "ok", ("z" + "\u0301\u0327\u0316" * 2_000 + " ").encode() * 3)
    yield Hostile("bytes/private.txt", "garbled", "\ue000\ue001\uf8ff".encode() * 200)


def _noise(size: int) -> bytes:
    """Bytes without any order, the same in each run."""
    return zlib.compress(b"".join(struct.pack("<Q", (n * 0x9E3779B97F4A7C15) % (1 << 64)) for n in range(size // 7)))[
        :size
    ]


def whole() -> dict[str, bytes]:
    """A small whole document of each binary format."""
    table = [["year", "depth"], [2025, 40]]
    return {
        "docx": _docx(),
        "pptx": _pptx(),
        "xlsx": samples.xlsx({"One": table}),
        "odt": samples.odt("<text:p>Ice here.</text:p>"),
        "ods": samples.ods('<table:table table:name="One"><table:table-row><table:table-cell><text:p>Ice</text:p>'
                           "</table:table-cell></table:table-row></table:table>"),
        "odp": samples.odp('<draw:page><draw:frame><text:p>Ice</text:p></draw:frame></draw:page>'),
        "epub": samples.epub(["<p>Ice here.</p>"]),
        "pdf": samples.pdf([["Ice is here."]] * 3),
        "xls": samples.xls({"One": table}),
        "msg": samples.msg("Ice", "It is cold.\r\n" * 20),
    }  # fmt: skip


def _truncated() -> Iterator[Hostile]:
    for extension, data in whole().items():
        yield Hostile(f"truncated/half.{extension}", "damaged", data[: len(data) // 2])
    book = json.dumps({"cells": [{"cell_type": "markdown", "source": "# Ice"}]})
    yield Hostile("truncated/half.ipynb", "damaged", book[:-5].encode())
    for extension, text in (
        ("json", '{"title": "Ice", "list": [1, 2'),
        ("jsonl", '{"title": "Ice"}\n{"title": "Sn'),
        ("html", "<html><body><p>Ice is here.</p><table><tr><td>thin"),
        ("xml", "<d><p>Ice is here.</p><p>th"),
        ("csv", 'year,depth\n2025,"40'),
        ("rtf", r"{\rtf1\ansi Ice is here.\par It is thi"),
        ("vtt", "WEBVTT\n\n00:01.000 --> 00:04.000\nIce is"),
        ("mbox", "From a@b.c Tue Feb  3 10:00:00 2026\nSubject: Ice\n\nIt is"),
        ("yaml", "title: 'Ice\nlist: [1, 2"),
        ("tex", r"\section{Ice} \begin{table} thin"),
    ):
        yield Hostile(f"truncated/half.{extension}", "ok", text.encode())
    mail = samples.eml(plain="Ice is here.", attachment=bytes(3000))
    yield Hostile("truncated/half.eml", "ok", mail[: len(mail) * 3 // 4])
    yield Hostile("truncated/half-a-character.md", "ok", ("# 氷\n\n" + "氷が薄い。" * 30).encode()[:-1])


def _wrong_names() -> Iterator[Hostile]:
    all_ = whole()
    for data, name, fate in (
        (all_["pdf"], "pdf.docx", "ok"),
        (all_["docx"], "docx.pdf", "ok"),
        (all_["xlsx"], "xlsx.csv", "ok"),
        (all_["odt"], "odt.docx", "ok"),
        (all_["xls"], "xls.xlsx", "ok"),
        (all_["msg"], "msg.eml", "ok"),
        (all_["epub"], "epub.txt", "ok"),
        (b"<!doctype html><html><body><h1>Ice</h1><p>Thin.</p></body></html>", "html.txt", "ok"),
        (b"<html><body><table><tr><td>Ice</td><td>40</td></tr></table></body></html>", "html.xls", "ok"),
        (b"<!doctype html><html><body><p>404 Not Found</p></body></html>", "html.pdf", "ok"),
        (rb"{\rtf1\ansi Ice is here.\par}", "rtf.docx", "ok"),
        (b"A text about ice.\n", "text.pdf", "ok"),
        (b"year\tdepth\n2025\t40\n", "tsv.xlsx", "ok"),
        (b"Ice, not JSON.\n", "text.json", "ok"),
        (b"Ice, not a notebook.\n", "text.ipynb", "damaged"),
        (b"Ice, not a mailbox.\n", "text.mbox", "damaged"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + _noise(2000), "png.md", "unknown_type"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + _noise(2000), "jpeg.html", "unknown_type"),
        (b"MZ\x90\0\x03\0\0\0" + _noise(2000), "exe.pdf", "unknown_type"),
        (b"\x7fELF\x02\x01\x01\0" + _noise(2000), "elf.sh", "unknown_type"),
        (b"\xca\xfe\xba\xbe\0\0\0\x34" + _noise(2000), "class.java", "unknown_type"),
        (b"SQLite format 3\0" + bytes(2000), "sqlite.csv", "unknown_type"),
        (b"\x1f\x8b\x08\0" + _noise(2000), "gzip.json", "unknown_type"),
        (b"ID3\x03\0\0\0" + _noise(2000), "mp3.txt", "unknown_type"),
        (b"PAR1" + _noise(2000) + b"PAR1", "parquet.csv", "unknown_type"),
        (samples.packed({"a.txt": "ice"}), "zip.docx", "unknown_type"),
    ):
        yield Hostile(f"name/{name}", fate, data)


# --- locked, macros ---------------------------------------------------------------------------------------------------


def _locked() -> Iterator[Hostile]:
    """Documents that ask for a password."""
    package = samples.compound_file([("EncryptedPackage", bytes(600)), ("EncryptionInfo", bytes(300))])
    for extension in ("docx", "xlsx", "pptx"):
        yield Hostile(f"locked/password.{extension}", "encrypted", package)
    yield Hostile("locked/password.pdf", "encrypted", samples.pdf([["secret"]], encrypted=True))
    odt = members(samples.odt("<text:p>x</text:p>")) | {
        "content.xml": _noise(500),
        "META-INF/manifest.xml": "<manifest:manifest xmlns:manifest='urn:x'><manifest:file-entry "
        "manifest:full-path='content.xml'><manifest:encryption-data/></manifest:file-entry></manifest:manifest>",
    }
    yield Hostile("locked/password.odt", "encrypted", samples.packed(odt))
    flagged = bytearray(_docx())
    flagged[flagged.index(b"PK\x01\x02") + 8] |= 1
    yield Hostile("locked/zip-flag.docx", "encrypted", bytes(flagged))
    yield Hostile("locked/password.xls", "encrypted", _locked_xls())
    rights = "<encryption xmlns='urn:x'><CipherReference URI='OPS/c%200.xhtml'/></encryption>"
    yield Hostile(
        "locked/rights.epub", "encrypted", samples.epub(["<p>x</p>"], more={"META-INF/encryption.xml": rights})
    )


def _locked_xls() -> bytes:
    """FILEPASS (MS-XLS 2.4.117) after the first BOF; all that follows is noise."""
    start = struct.pack("<HHHHHHII", 0x809, 16, 0x600, 5, 0, 0, 0, 0)
    return samples.compound_file(
        [("Workbook", start + struct.pack("<HHHHH", 0x2F, 6, 0, 0x1234, 0x5678) + _noise(400))]
    )


def _macros() -> Iterator[Hostile]:
    """Programs in documents: the text is read, they are not."""
    code = b'Attribute VB_Name = "M"\nSub AutoOpen()\nShell "touch ran"\nEnd Sub\n'
    project = samples.compound_file([("PROJECT", code), ("dir", code)])
    yield Hostile("macro/auto.docm", "ok", office(_docx(), word__vbaProject_bin=project))
    yield Hostile("macro/auto.xlsm", "ok", office(samples.xlsx({"One": [["Ice"]]}), xl__vbaProject_bin=project))
    yield Hostile("macro/auto.pptm", "ok", office(_pptx(), ppt__vbaProject_bin=project))
    formula = samples.xlsx({"One": [["Ice", '=CMD|"/c touch ran"!A0', '=WEBSERVICE("http://127.0.0.1:9/")']]})
    yield Hostile("macro/formula.xlsx", "ok", formula)
    yield Hostile("macro/formula.csv", "ok", b"a,b\n=cmd|' /C touch ran'!A0,@SUM(1)\n")
    yield Hostile("macro/object.yaml", "ok", b"!!python/object/apply:os.system ['touch ran']\n")
    yield Hostile("macro/script.html", "ok", b"<p onclick='x()'>Ice here.<script>fetch('/x')</script>")
    yield Hostile("macro/write18.tex", "ok", rb"\immediate\write18{touch ran}\input{/etc/passwd} Ice here.")
    yield Hostile(
        "macro/include.rst", "ok", b".. include:: /etc/passwd\n.. raw:: html\n   :file: /etc/passwd\n\nIce.\n"
    )
    yield Hostile("macro/include.adoc", "ok", b"include::/etc/passwd[]\n\nIce here.\n")
    yield Hostile("macro/script.pdf", "ok", _pdf_with(b"/OpenAction<</S/JavaScript/JS(while\\(1\\);)>>"))
    yield Hostile("macro/launch.pdf", "ok", _pdf_with(b"/OpenAction<</S/Launch/F(touch)/P(ran)>>"))


# --- grids ------------------------------------------------------------------------------------------------------------


def _sheet(rows: str) -> bytes:
    sheet = f'<worksheet xmlns="{_SHEET}"><sheetData>{rows}</sheetData></worksheet>'
    return samples.packed(members(_xlsx()) | {"xl/worksheets/sheet1.xml": sheet})


def _inline(place: str) -> str:
    return f'<c r="{place}" t="inlineStr"><is><t>ice</t></is></c>'


def _grids() -> Iterator[Hostile]:
    far = f'<row r="1">{_inline("A1")}</row><row r="1048576">{_inline("XFD1048576")}</row>'
    yield Hostile("grid/far-cell.xlsx", "ok", _sheet(far))
    beyond = f'<row r="1">{_inline("A1")}</row><row r="2000000000">{_inline("A2000000000")}</row>'
    yield Hostile("grid/beyond-the-grid.xlsx", "ok", _sheet(beyond))
    backwards = "".join(f'<row r="{n}">{_inline(f"A{n}")}</row>' for n in (5, 3, -1, 0, 4))
    yield Hostile("grid/backwards.xlsx", "damaged", _sheet(backwards))
    yield Hostile("grid/no-such-string.xlsx", "damaged", _sheet('<row r="1"><c r="A1" t="s"><v>99999999</v></c></row>'))
    far_xls: list[list[object]] = [["near"], *[[] for _ in range(65_534)], [*([None] * 255), "far"]]
    yield Hostile("grid/far-cell.xls", "ok", samples.xls({"One": far_xls}))
    row = (
        '<table:table-row table:number-rows-repeated="1048576"><table:table-cell table:number-columns-repeated="16384">'
    )
    cell = "<text:p>ice</text:p></table:table-cell></table:table-row>"
    yield Hostile("grid/repeated.ods", "ok", samples.ods(f'<table:table table:name="One">{row}{cell}</table:table>'))
    negative = cell.join(('<table:table-row><table:table-cell table:number-columns-repeated="-5">', ""))
    yield Hostile("grid/negative.ods", "ok", samples.ods(f'<table:table table:name="One">{negative}</table:table>'))
    yield Hostile("grid/spaces.odt", "ok", samples.odt('<text:p>ice<text:s text:c="2000000000"/>snow</text:p>'))
    yield Hostile("grid/rows.csv", "ok", b"a,b,c\n" + b"1,2,3\n" * 20_000)
    yield Hostile("grid/open-quote.csv", "ok", b'a,b\n1,"2\n' + b"3,4\n" * 5_000)
    yield Hostile("grid/quotes.csv", "ok", b'"' * 100_001 + b"\na,b\n")
    yield Hostile("grid/one-line.csv", "ok", b"word," * 50_000)
    yield Hostile("grid/one-line-100-mb.csv", "too_large", lambda path: path.write_bytes(b"word," * 20 * MB))
    word = '<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:tbl><w:tr>'
    span = '<w:tc><w:tcPr><w:gridSpan w:val="2000000000"/></w:tcPr><w:p><w:r><w:t>ice</w:t></w:r></w:p></w:tc>'
    yield Hostile("grid/span.docx", "ok", _docx_of(f"{word}{span}</w:tr></w:tbl></w:body></w:document>".encode()))


# --- patterns that regular expressions choke on -----------------------------------------------------------------------


def _patterns() -> Iterator[Hostile]:
    for at, piece in enumerate(
        ("[", "![a](", "**", "`", "<", "|", "# ", "[a]: ", "&#", "* a\n", "a\n=", "> ", "\\", "~~~\n")
    ):
        yield Hostile(f"pattern/{at:02}.md", "ok", (piece * (PATTERN // len(piece)) + "\n\nice\n").encode())
    for at, piece in enumerate(
        ("<", "<!--", "<!doctype ", "<a href='", "<meta charset=", "</p>", "&amp", "<![CDATA[", "<?")
    ):
        yield Hostile(f"pattern/{at:02}.html", "ok", ("<p>ice</p>" + piece * (PATTERN // len(piece))).encode())
    for at, piece in enumerate((r"\'", r"\u-", r"{\*\x ", r"\bin99999999 ", r"\par", "\\\n", r"\uc99999999\u1 ")):
        yield Hostile(
            f"pattern/{at:02}.rtf", "ok", (r"{\rtf1\ansi ice " + piece * (PATTERN // len(piece)) + "}").encode()
        )
    for name, piece in (
        ("spaces.txt", " "), ("commas.txt", ", "), ("dots.txt", ". "), ("breaks.txt", "\n"), ("rulers.rst", "=\n"),
        ("roles.rst", ":a:`"), ("macros.tex", r"\a{"), ("dollars.tex", "$"), ("stars.org", "*"),
        ("blocks.adoc", "----\n"), ("colons.json", ":"), ("encoded.eml", "=?utf-8?b?"),
    ):  # fmt: skip
        yield Hostile(f"pattern/{name}", "ok", ("ice\n\n" + piece * (PATTERN // len(piece)) + "\n\nsnow").encode())


# --- PDF --------------------------------------------------------------------------------------------------------------


def _pdf_with(catalog: bytes, *, title: str = "") -> bytes:
    """A page, and more in the catalog."""
    return _moved(samples.pdf([["Ice is here."]], title=title).replace(b"/Type/Catalog", b"/Type/Catalog" + catalog, 1))


def _moved(data: bytes) -> bytes:
    """The cross-reference table is wrong after a change: without it, each reader looks for the objects itself."""
    return data[: data.index(b"xref\n")] + data[data.index(b"trailer") : data.index(b"startxref")] + b"%%EOF"


def _objects(*objects: bytes) -> bytes:
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, content) for number, content in enumerate(objects, 1))
    return b"%%PDF-1.7\n%strailer<</Size %d/Root 1 0 R>>\n%%%%EOF" % (body, len(objects) + 1)


def _stream(content: bytes, more: bytes = b"") -> bytes:
    return b"<<%s/Length %d>>stream\n%s\nendstream" % (more, len(content), content)


_CATALOG = b"<</Type/Catalog/Pages 2 0 R>>"
_FONT = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"


def _page(more: bytes = b"") -> bytes:
    return b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>%s>>" % more


def _pdfs() -> Iterator[Hostile]:
    text = _stream(b"BT /F1 12 Tf 72 720 Td (Ice is here.) Tj ET")
    loop = _objects(_CATALOG, b"<</Type/Pages/Count 3/Kids[2 0 R 3 0 R 2 0 R]>>", _page(), text, _FONT)
    yield Hostile("pdf/page-tree-loop.pdf", "ok", loop)
    many = _objects(_CATALOG, b"<</Type/Pages/Count 2000000000/Kids[3 0 R]>>", _page(), text, _FONT)
    yield Hostile("pdf/pages-2-billion.pdf", "ok", many)
    negative = _objects(_CATALOG, b"<</Type/Pages/Count -7/Kids[3 0 R]>>", _page(), text, _FONT)
    yield Hostile("pdf/pages-below-zero.pdf", "ok", negative)
    deep = [b"<</Type/Pages/Count 1/Kids[%d 0 R]>>" % number for number in range(3, DEEP)]
    yield Hostile("pdf/page-tree-deep.pdf", "needs_ocr", _objects(_CATALOG, *deep, b"<</Type/Page>>"))
    yield Hostile(
        "pdf/arrays-deep.pdf", "damaged", b"%PDF-1.4\n1 0 obj\n" + b"[" * DEEP + b"\nendobj\ntrailer<</Root 1 0 R>>"
    )
    xref = b"%PDF-1.4\nxref\n0 1\n0000000000 65535 f \ntrailer<</Size 1/Prev 9/Root 1 0 R>>\nstartxref\n9\n%%EOF"
    yield Hostile("pdf/xref-loop.pdf", "damaged", xref)
    outline = _objects(
        b"<</Type/Catalog/Pages 2 0 R/Outlines 6 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>", _page(), text, _FONT,
        b"<</First 7 0 R/Last 7 0 R/Count 1>>", b"<</Title(Ice)/Parent 6 0 R/Next 7 0 R/First 7 0 R/Dest[3 0 R/Fit]>>",
    )  # fmt: skip
    yield Hostile("pdf/outline-loop.pdf", "ok", outline)
    shown = b"BT /F1 12 Tf 1 0 0 1 72 720 Tm (Ice is here.) Tj ET /X Do"
    again = b"/Resources<</Font<</F1 5 0 R>>/XObject<</X 6 0 R>>>>"
    form = _stream(shown, b"/Type/XObject/Subtype/Form/BBox[0 0 612 792]" + again)
    itself = _objects(_CATALOG, b"<</Type/Pages/Count 1/Kids[3 0 R]>>", _page(again), _stream(shown), _FONT, form)
    yield Hostile("pdf/form-in-itself.pdf", "ok", itself)
    yield Hostile("pdf/forms-billion.pdf", "timeout|crash", _laughing_forms())
    packed = zlib.compress(zlib.compress(b" " * 100 * MB, 1), 9)
    stream = _stream(packed, b"/Filter[/FlateDecode/FlateDecode]")
    yield Hostile("pdf/stream-bomb.pdf", "needs_ocr|crash", samples.pdf([["x"]], contents=stream))
    inner = b"".join(b"%d %d " % (number, 0) for number in range(10, 60_000)) + b"<<>>" * 50_000
    yield Hostile("pdf/object-stream.pdf", "ok", loop.replace(b"trailer", b"9 0 obj\n%s\nendobj\ntrailer" % _stream(
        zlib.compress(inner), b"/Type/ObjStm/N 59990/First 4/Filter/FlateDecode")))  # fmt: skip
    yield Hostile("pdf/picture-only.pdf", "needs_ocr", samples.pdf([[""]]))
    yield Hostile("pdf/late-header.pdf", "ok", b"\n" * 900 + samples.pdf([["Ice is here."]]))
    attached = base64.b64encode(_noise(3000))
    yield Hostile("pdf/attachment.pdf", "ok", _pdf_with(b"/Names<</EmbeddedFiles<</Names[(%s)]>>>>" % attached))


def _laughing_forms() -> bytes:
    """Forms that each show the next one ten times: a billion texts."""
    font, count = b"/Font<</F1 5 0 R>>", 9
    objects = [_CATALOG, b"<</Type/Pages/Count 1/Kids[3 0 R]>>"]
    objects.append(_page(b"/Resources<</XObject<</X 6 0 R>>>>").replace(b"/Resources<</Font<</F1 5 0 R>>>>", b"", 1))
    objects += [_stream(b"/X Do " * 10), _FONT]
    for number in range(6, 6 + count):
        resources = b"/Resources<<%s/XObject<</X %d 0 R>>>>" % (font, number + 1)
        objects.append(_stream(b"/X Do " * 10, b"/Type/XObject/Subtype/Form/BBox[0 0 612 792]" + resources))
    last = _stream(b"BT /F1 12 Tf (Ice.) Tj ET", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<<%s>>" % font)
    return _objects(*objects, last)


# --- what is no ordinary file -----------------------------------------------------------------------------------------


def strange(folder: Path) -> dict[str, str]:
    """Make links, sockets, devices and odd names in `folder`; the fates of those that are files, by uri."""
    folder.mkdir()
    os.mkfifo(folder / "fifo.txt")
    server = socket.socket(socket.AF_UNIX)
    try:
        server.bind(os.path.relpath(folder / "socket.txt"))  # a socket's address is short
    finally:
        server.close()
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "nothing.txt").symlink_to("nowhere")
    (folder / "folder-loop").symlink_to(".")
    (folder / "zero.txt").symlink_to("/dev/zero")
    (folder / "terminal.txt").symlink_to("/dev/tty")
    fates = {"folder-loop": "loop", "loop.txt": "loop", "nothing.txt": "vanished"}
    if Path(
        "/proc/self/status"
    ).exists():  # of no bytes by its size, and more each time: like one that is being written
        (folder / "growing.txt").symlink_to("/proc/self/status")
        fates["growing.txt"] = "changing"
    if os.geteuid():  # root may read everything
        (folder / "forbidden.txt").write_bytes(b"Ice is here.\n")
        (folder / "forbidden.txt").chmod(0)
        fates["forbidden.txt"] = "permission"
    for name in (
        "new\nline.md",
        "-rf.md",
        "\u202egnp.md",
        "a" * 250 + ".md",
        "$(touch ran).md",
        "*.md",
        "con.md",
        " .md",
    ):
        (folder / name).write_bytes(b"# Ice\n\nIt is thin.\n")
        os.utime(folder / name, (OLD, OLD))
        fates[name] = "ok"
    if sys.platform == "linux":  # macOS refuses such names
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.md")).write_bytes(b"# Ice\n\nIt is thin.\n")
        fates["\\xff\\xfe.md"] = "ok"
    return {f"{folder.name}/{name}": fate for name, fate in fates.items()}
