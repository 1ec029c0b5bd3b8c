"""Files that are made to hurt. Each is read or refused by its right name, in time; what can hang does so in a
worker."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import openpyxl
import pytest

from pipeline import errors, readers, workers
from tests.readers import samples
from tests.readers.helpers import OPTIONS, check, refusal

DEEP = 10_000


@pytest.fixture(scope="module")
def pool() -> Iterator[workers.WorkerPool]:
    with workers.WorkerPool(1, memory_mb=2048) as made:
        yield made


def outcome(pool: workers.WorkerPool, data: bytes, name: str, timeout_s: float = 20.0) -> str:
    """Read in a worker: "read", the kind of the refusal, or that of the worker's failure."""
    try:
        check(pool.submit("pipeline.readers:read_bytes", data, name, OPTIONS, timeout_s=timeout_s).result())
    except errors.DocumentError as error:
        return error.kind
    except errors.WorkerError as error:
        return error.kind
    return "read"


def bomb(name: str, size: int) -> dict[str, str | bytes]:
    return {"[Content_Types].xml": "x", name: bytes(size)}


def repeated_entry(size: int, count: int) -> bytes:
    """A zip whose directory names one stored member `count` times."""
    data = samples.packed({"word/a": os.urandom(size)})
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack("<I", data[end + 16 : end + 20])[0]
    entry = data[start:end]
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(entry) * count, start, 0)
    return data[:start] + entry * count + tail


@pytest.mark.parametrize("name", ["word/document.xml", "ppt/presentation.xml", "xl/workbook.xml"])
def test_zip_bomb_by_ratio(name: str) -> None:
    data = samples.packed(bomb(name, 40_000_000))
    assert len(data) < 100_000
    assert refusal(data, "a.docx").kind == "zip_bomb"


def test_zip_bomb_by_total() -> None:
    """Many entries over the same bytes: small on disk, 310 MB by the directory's own words, no single one suspect."""
    assert refusal(repeated_entry(100_000, 3100), "a.docx").kind == "zip_bomb"


def test_zip_of_many_members() -> None:
    assert refusal(repeated_entry(0, 60_000), "a.docx").kind == "zip_bomb"


def test_zip_member_that_lies_about_its_size() -> None:
    """The directory says 10 bytes, the stream holds 50 MB: no more than was declared is unpacked."""
    data = bytearray(samples.packed({"mimetype": bytes(50_000_000)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(signature) + offset
        data[place : place + 4] = struct.pack("<I", 10)
    assert refusal(bytes(data), "a.epub").kind in ("damaged", "unknown_type")


def test_encrypted_zip() -> None:
    data = bytearray(samples.docx())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    assert refusal(bytes(data), "a.docx").kind == "encrypted"


LAUGHS = (
    '<!DOCTYPE l [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefghi", "bcdefghij", strict=True))
    + "]>"
)
FILE = '<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("doctype", [LAUGHS, FILE])
def test_entities_in_packed_xml(pool: workers.WorkerPool, doctype: str) -> None:
    entity = "j" if doctype is LAUGHS else "x"
    names = 'xmlns:t="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    data = samples.packed(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"{doctype}<o {names}><t:p>before &{entity}; after</t:p></o>",
        }
    )
    assert outcome(pool, data, "a.odt") in ("read", "damaged")
    try:
        text = readers.read_bytes(data, "a.odt", OPTIONS).text
    except errors.DocumentError:
        return
    assert "root:" not in text
    assert len(text) < 100


@pytest.mark.parametrize("place", ["word/document.xml", "docProps/core.xml"])
def test_entities_in_docx(pool: workers.WorkerPool, place: str) -> None:
    with zipfile.ZipFile(io.BytesIO(samples.docx())) as archive:
        members: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    members[place] = f"{LAUGHS}<x>&j;</x>"
    assert outcome(pool, samples.packed(members), "a.docx") in ("read", "damaged")


def test_entities_in_plain_xml_stay_text() -> None:
    data = f"{LAUGHS}<lolz>&j;</lolz>".encode()
    assert readers.read_bytes(data, "a.xml", OPTIONS).text == data.decode()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"<div>" * DEEP + b"text" + b"</div>" * DEEP, "a.html"),
        (b"<ul><li>" * DEEP + b"text", "a.html"),
        (b"<table><tr><td>" * DEEP + b"text", "a.html"),
        (b"<b><p>" * 2000 + b"text", "a.html"),
        (b"[" * DEEP + b"]" * DEEP, "a.json"),
        (b'{"a":' * DEEP + b"1" + b"}" * DEEP, "a.json"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "a.json"),
        (b"[" * DEEP + b"]" * DEEP, "a.jsonl"),
        (b"[" * DEEP, "a.ipynb"),
        (b">" * DEEP + b" text", "a.md"),
        (b"- " * DEEP + b"text", "a.md"),
        (rb"{\rtf1 " + b"{" * DEEP + b"text" + b"}" * DEEP, "a.rtf"),
        (samples.odt("<text:p>" * DEEP + "text" + "</text:p>" * DEEP), "a.odt"),
        (b"Content-Type: multipart/mixed; boundary=b\n\n--b\n" * 500, "a.eml"),
        (b"%PDF-1.4\n1 0 obj\n" + b"[" * DEEP + b"\nendobj\ntrailer<</Root 1 0 R>>", "a.pdf"),
    ],
)
def test_deep_nesting(pool: workers.WorkerPool, data: bytes, name: str) -> None:
    assert outcome(pool, data, name) in ("read", "damaged", "empty")


def test_attributes_without_end(pool: workers.WorkerPool) -> None:
    """Quadratic in every HTML parser: the worker's time limit ends it, and the next file is read."""
    data = b"<p " + b" ".join(b"a%d=1" % number for number in range(200_000)) + b">text"
    assert outcome(pool, data, "a.html", timeout_s=1.0) in ("timeout", "read")
    assert outcome(pool, b"<p>next", "b.html") == "read"


LINE = 4_000_000


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        (b"word ", "a.txt"),
        (b"a", "a.md"),
        (b"# ", "a.md"),
        (b"- ", "a.md"),
        (b"|", "a.md"),
        (b"`", "a.md"),
        (b" ", "a.md"),
        (b"=", "a.rst"),
        (b" x", "a.tex"),
        (b'a,"b",', "a.csv"),
        (b'"', "a.csv"),
        (b"[1,", "a.jsonl"),
        (b"<p>", "a.html"),
        ("é".encode("latin-1"), "a.txt"),
        ("雪".encode("gb18030"), "a.txt"),
    ],
)
def test_one_long_line(pool: workers.WorkerPool, piece: bytes, name: str) -> None:
    """4 MB without a line end, within the 24 s that the pipeline would give it (quadratic ones take hours).

    Of HTML 1 MB, in which there are 300,000 paragraphs.
    """
    data = piece * (LINE // len(piece) // (4 if name == "a.html" else 1))
    assert outcome(pool, data, name, timeout_s=24.0) in ("read", "empty", "damaged", "too_large")


def test_a_line_of_20_mb(pool: workers.WorkerPool) -> None:
    made = pool.submit("pipeline.readers:read_bytes", b"word " * LINE, "a.txt", OPTIONS, timeout_s=40.0).result()
    assert len(made.text) == 5 * LINE
    assert len(made.blocks) == 1


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.rst", "a.html", "a.csv"])
def test_a_heading_without_end_is_not_copied_into_every_path(name: str) -> None:
    text = "# " + "x" * 100_000 + "\n\n" + "paragraph\n\n" * 100
    made = readers.read_bytes(text.encode(), name, OPTIONS)
    assert all(len("".join(block.heading_path)) <= 2000 for block in made.blocks)
    assert len(made.title) <= 300


def test_xlsx_with_a_far_cell(pool: workers.WorkerPool) -> None:
    book = openpyxl.Workbook()
    book.active["A1"] = "near"
    book.active["XFD1048576"] = "far"
    out = io.BytesIO()
    book.save(out)
    assert outcome(pool, out.getvalue(), "a.xlsx", timeout_s=30.0) == "read"


def test_pdf_that_unpacks_to_more_than_there_is(pool: workers.WorkerPool) -> None:
    content = zlib.compress(zlib.compress(b" " * 300_000_000, 1))
    stream = b"<</Length %d/Filter[/FlateDecode/FlateDecode]>>stream\n%s\nendstream" % (len(content), content)
    data = samples.pdf([["x"]], contents=stream)
    assert outcome(pool, data, "a.pdf") in ("needs_ocr", "damaged", "memory", "crash", "timeout")
    assert outcome(pool, b"next", "b.txt") == "read"


def test_neighbours_of_a_crash_are_read(pool: workers.WorkerPool, tmp_path: Path) -> None:
    first = pool.submit("os:abort", timeout_s=20)
    (tmp_path / "a.md").write_bytes(b"# fine\n")
    second = pool.submit("pipeline.readers:read_file", os.fsencode(tmp_path / "a.md"), "a.md", OPTIONS, timeout_s=20)
    assert isinstance(first.exception(), errors.WorkerCrash)
    assert second.result().document is not None
