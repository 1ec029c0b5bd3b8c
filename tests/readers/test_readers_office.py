"""Packed and binary formats."""

from __future__ import annotations

import datetime
import io
import re
import zipfile

import pytest

from tests.readers import samples
from tests.readers.helpers import page_of, path_of, paths, read, refusal, texts


def test_docx() -> None:
    made = read(samples.docx(), "report.docx")
    assert made.reader == "unstructured-docx/1"
    assert made.title == "Report on ice"
    assert paths(made) == [("Report on ice",), ("Report on ice", "Causes"), ("结论",)]
    assert texts(made, "table") == ["Time\tEvent\n22:31\ta gust"]
    assert texts(made, "list") == ["- the wrong fuse\n- too much rime"]
    assert texts(made, "header") == ["Running head"]
    assert path_of(made, "保险丝") == ("结论",)


def test_docx_title_from_its_properties() -> None:
    assert read(samples.docx(title="IR-2026-02"), "report.docx").title == "IR-2026-02"
    assert read(samples.docx(title="Word Document"), "report.docx").title == "Report on ice"


def test_pptx() -> None:
    made = read(samples.pptx(), "course.pptx")
    assert made.reader == "unstructured-pptx/2"
    assert paths(made) == [("Snow",), ("Rime",)]
    assert page_of(made, "Body of slide 2") == 2
    assert path_of(made, "Notes: Say it slowly.") == ("Snow",)
    assert path_of(made, "no title here") == ()
    assert texts(made, "table") == ["Year\tDepth\n2025\t40 cm"]


def test_msg() -> None:
    made = read(samples.msg("Fuses", "Dear Tom,\r\n\r\nthe fuses are ordered.\r\n"), "a.msg")
    assert made.reader == "unstructured-msg/1"
    assert made.title == "Fuses"
    assert texts(made)[0] == "Subject: Fuses\nFrom: Ewan Brock"
    assert texts(made)[1:] == ["Dear Tom,", "the fuses are ordered."]


_W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def _run(text: str) -> str:
    return f"<w:r><w:t>{text}</w:t></w:r>"


def _paragraph(*inside: str) -> str:
    return f"<w:p>{''.join(inside)}</w:p>"


_BOX = f"<w:txbxContent>{_paragraph(_run('In a box.'))}{_paragraph(_run('Still there.'))}</w:txbxContent>"
_RUBY = f"<w:ruby><w:rubyPr/><w:rt>{_run('ひめ')}</w:rt><w:rubyBase>{_run('姫')}</w:rubyBase></w:ruby>"
_DELETED = "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
_CONTROL = f"<w:sdt><w:sdtPr/><w:sdtContent>{_paragraph(_run('In a control.'))}</w:sdtContent></w:sdt>"
_BOXED = _paragraph(_run("Before."), f"<w:r><w:pict>{_BOX}</w:pict></w:r>") + _paragraph(_run("After."))


def docx_of(body: str) -> bytes:
    """samples.docx with another body."""
    with zipfile.ZipFile(io.BytesIO(samples.docx())) as archive:
        members: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    members["word/document.xml"] = f"<w:document {_W}><w:body>{body}</w:body></w:document>"
    return samples.packed(members)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (_paragraph(_run("Kept"), f"<w:ins>{_run(' inserted')}</w:ins>"), ["Kept inserted"]),
        (_paragraph(_run("a"), _DELETED, f"<w:ins>{_run('b')}</w:ins>"), ["ab"]),
        (_CONTROL, ["In a control."]),
        (_BOXED, ["Before.", "In a box.", "Still there.", "After."]),
        (_paragraph(f"<w:r>{_RUBY}</w:r>", _run("路城")), ["姫路城"]),
    ],
)
def test_docx_what_libraries_do_not_see(body: str, expected: list[str]) -> None:
    made = read(docx_of(body), "a.docx")
    assert [text for text in texts(made) if text != "Running head"] == expected


def strict(data: bytes) -> bytes:
    """An Office file as "Strict Open XML" names its elements."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    usual = re.compile(rb"http://schemas\.openxmlformats\.org/(officeDocument|\w+ml)/2006/(?=[mr])")
    return samples.packed({name: usual.sub(rb"http://purl.oclc.org/ooxml/\1/", text) for name, text in members.items()})


def test_strict_office_files() -> None:
    plain = read(samples.docx(), "a.docx")
    assert texts(read(strict(samples.docx()), "a.docx")) == texts(plain)
    book = samples.xlsx({"Budget": [["item", "pounds"], ["fuse", 4]]})
    assert texts(read(strict(book), "a.xlsx"))[-1] == "item\tpounds\nfuse\t4"
    assert texts(read(strict(samples.pptx()), "a.pptx")) == texts(read(samples.pptx(), "a.pptx"))


def test_an_encrypted_odt() -> None:
    manifest = {"META-INF/manifest.xml": "<manifest><encryption-data/></manifest>"}
    packed = samples.packed(
        {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": b"\x93\x12", **manifest}
    )
    assert refusal(packed, "a.odt").kind == "encrypted"


def test_old_office_formats_are_named() -> None:
    error = refusal(samples.compound_file([("WordDocument", b"x" * 100)]), "a.doc")
    assert error.kind == "needs_libreoffice"  # see test_doc
    assert refusal(samples.compound_file([("EncryptedPackage", b"x" * 100)]), "a.docx").kind == "encrypted"
    assert refusal(samples.compound_file([("ENCRYPTEDPACKAGE", b"x" * 100)]), "a.docx").kind == "encrypted"
    assert refusal(samples.compound_file([("Something", b"x" * 100)]), "a.bin").kind == "unknown_type"


def test_xlsx() -> None:
    many = [[f"item {number}", number * 1.5, None] for number in range(200)]
    book = {
        "Budget": [["Draft, not for the press"], [], ["item", "pounds"], *many],
        "Empty": [],
        "Secret": [["x", "y"]],
    }
    made = read(samples.xlsx(book, hidden="Secret"), "a.xlsx")
    assert (made.title, made.reader) == ("", "xlsx/2")
    assert paths(made) == [("Budget",)]
    assert texts(made, "paragraph") == ["Draft, not for the press"]
    assert all(text.startswith("item\tpounds\nitem ") for text in texts(made, "table"))
    assert "item 199\t298.5" in made.text
    assert page_of(made, "item 7\t10.5") == 1


def test_xlsx_values() -> None:
    rows: list[list[object]] = [
        ["day", "ok", "n"],
        [datetime.datetime(2026, 1, 17), True, 3.0],
        [datetime.datetime(2026, 1, 17, 22, 31), "=1+1", 1e20],
    ]
    made = read(samples.xlsx({"S": rows}), "a.xlsx")
    assert "2026-01-17\tTrue\t3\n2026-01-17 22:31" in made.text


def test_epub_in_spine_order() -> None:
    made = read(samples.epub(["<h1>Last</h1><p>end</p>", "<h2>First</h2><p>begin</p>", "<p>zero</p>"]), "a.epub")
    assert made.title == "A small book"
    assert texts(made) == ["zero", "First", "begin", "Last", "end"]
    assert (page_of(made, "zero"), page_of(made, "end")) == (1, 3)
    assert path_of(made, "end") == ("Last",)


def test_epub_with_rights_management() -> None:
    locked = '<encryption xmlns:e="x"><e:CipherReference URI="OPS/c%200.xhtml"/></encryption>'
    fonts = '<encryption xmlns:e="x"><e:CipherReference URI="OPS/a.otf"/></encryption>'
    assert refusal(samples.epub(["<p>x"], more={"META-INF/encryption.xml": locked}), "a.epub").kind == "encrypted"
    read(samples.epub(["<p>x"], more={"META-INF/encryption.xml": fonts}), "a.epub")


def test_epub_without_chapters() -> None:
    assert refusal(samples.packed({"META-INF/container.xml": "<container/>"}), "a.epub").kind == "damaged"


def test_chapters_of_an_epub_stand_under_the_part_of_another_file() -> None:
    """And a page without a heading under none. samples.epub puts the last file first."""
    files = ["<h2>Rime</h2><p>ice</p>", "<p>to Tom</p>", "<h1>Part I</h1>", "<h1>Preface</h1><p>why</p>"]
    made = read(samples.epub(files), "a.epub")
    assert paths(made) == [("Preface",), ("Part I",), ("Part I", "Rime")]
    assert [path_of(made, piece) for piece in ("why", "to Tom", "ice")] == [("Preface",), (), ("Part I", "Rime")]


ODT = (
    '<text:h text:outline-level="1">Snow</text:h><text:p>Deep<text:s text:c="2"/>snow<text:line-break/>here</text:p>'
    "<text:tracked-changes><text:p>deleted</text:p></text:tracked-changes>"
    "<text:list><text:list-item><text:p>one</text:p></text:list-item><text:list-item><text:p>two</text:p>"
    "</text:list-item></text:list><table:table><table:table-row><table:table-cell><text:p>a</text:p></table:table-cell>"
    '<table:table-cell table:number-columns-repeated="2"><text:p>b</text:p></table:table-cell>'
    "</table:table-row></table:table>"
)


def test_odt() -> None:
    made = read(samples.odt(ODT, title="On snow"), "a.odt")
    assert made.title == "On snow"
    assert texts(made) == ["Snow", "Deep  snow\nhere", "- one\n- two", "a\tb\tb"]
    assert path_of(made, "- one") == ("Snow",)


def test_ods() -> None:
    def row(*cells: str, repeated: int = 1) -> str:
        inside = "".join(f"<table:table-cell><text:p>{cell}</text:p></table:table-cell>" for cell in cells)
        more = '<table:table-cell table:number-columns-repeated="16384"/>'
        return f'<table:table-row table:number-rows-repeated="{repeated}">{inside}{more}</table:table-row>'

    empty = '<table:table-row table:number-rows-repeated="1048576"><table:table-cell/></table:table-row>'
    sheet = (
        f'<table:table table:name="Depths">{row("year", "cm")}{row("2025", "40")}{row("2026", "7", repeated=2)}{empty}'
    )
    hidden = f'<table:table table:name="Secret" table:style-name="hid">{row("x", "y")}</table:table>'
    made = read(samples.ods(f"{sheet}</table:table>{hidden}"), "a.ods")
    assert (made.title, made.reader) == ("", "ods/2")
    assert texts(made) == ["Depths", "year\tcm\n2025\t40\n2026\t7\n2026\t7"]
    assert page_of(made, "2025") == 1


def test_odp() -> None:
    def frame(kind: str, text: str) -> str:
        inside = f"<draw:text-box><text:p>{text}</text:p></draw:text-box>"
        return f'<draw:frame presentation:class="{kind}">{inside}</draw:frame>'

    notes = f"<presentation:notes>{frame('notes', 'Say it slowly.')}</presentation:notes>"
    slides = (
        f"<draw:page>{frame('outline', 'Body of the first')}{frame('title', 'Snow')}{notes}</draw:page>"
        f"<draw:page>{frame('outline', 'no title here')}</draw:page>"
    )
    made = read(samples.odp(slides), "course.odp")
    assert (made.title, made.reader) == ("Snow", "odp/3")
    assert texts(made) == ["Snow", "Body of the first", "Notes: Say it slowly.", "no title here"]
    assert (page_of(made, "Body"), page_of(made, "no title")) == (1, 2)
    assert (path_of(made, "Notes"), path_of(made, "no title")) == (("Snow",), ())


def shape(text: str, y: str) -> str:
    return f'<draw:custom-shape svg:y="{y}" svg:height="2cm"><text:p>{text}</text:p></draw:custom-shape>'


@pytest.mark.parametrize(
    ("shapes", "path"),
    [
        (shape("It grows to windward.", "6cm") + shape("Rime", "15mm"), ("Rime",)),
        (shape("Rime is:", "1in") + shape("It grows to windward.", "6cm"), ()),
        (shape("Rime", "2cm") + shape("It grows to windward.", "2.5cm"), ()),
        (shape("Rime", "7cm") + shape("It grows to windward.", "10cm"), ()),
        (shape("It grows to windward.", "1cm"), ()),
    ],
    ids=["a title", "what goes on", "side by side", "too far down", "nothing under it"],
)
def test_a_shape_above_all_others_is_the_title_of_a_slide_without_one(shapes: str, path: tuple[str, ...]) -> None:
    assert path_of(read(samples.odp(f"<draw:page>{shapes}</draw:page>"), "a.odp"), "windward") == path


@pytest.mark.parametrize(
    ("boxes", "path"),
    [
        ((("It grows to windward.", 0.5), ("On the loss\nof records", 0.1)), ("On the loss of records",)),
        ((("Rime is:", 0.1), ("It grows to windward.", 0.5)), ()),
        ((("Rime", 0.1), ("It grows to windward.", 0.11)), ()),
        ((("Rime", 0.4), ("It grows to windward.", 0.6)), ()),
        ((("A", 0.1), ("It grows to windward.", 0.6)), ()),
    ],
    ids=["a title", "what goes on", "side by side", "too far down", "a letter"],
)
def test_so_is_a_text_box(boxes: tuple[tuple[str, float], ...], path: tuple[str, ...]) -> None:
    made = read(samples.slide_of_boxes(*boxes), "a.pptx")
    assert path_of(made, "windward") == path
    assert made.text.count("windward") == 1
    assert len(texts(made)) == 2


def test_a_title_with_nothing_under_it_is_the_text_of_its_slide() -> None:
    """Else passages of such slides would stand under the title of the last."""
    slides = [
        f'<draw:page><draw:frame presentation:class="title"><text:p>{name}</text:p></draw:frame></draw:page>'
        for name in ("Snow", "Rime")
    ]
    made = read(samples.odp("".join(slides)), "a.odp")
    assert [(block.kind, block.heading_path, block.page) for block in made.blocks] == [
        ("paragraph", ("Snow",), 1),
        ("paragraph", ("Rime",), 2),
    ]
    made = read(samples.titled_slides("Snow", "Rime"), "a.pptx")
    assert [(block.kind, block.heading_path) for block in made.blocks] == [
        ("paragraph", ("Snow",)),
        ("paragraph", ("Rime",)),
    ]
    assert made.title == "Snow"


def test_times_and_long_numbers_of_workbooks() -> None:
    """A number of 16 digits is a card's; a time of day has no date; a second is one, where there are any."""
    moments = [datetime.datetime(2026, 1, 17, 22, 31, 40), datetime.datetime(1899, 12, 30, 6, 30)]
    made = read(samples.xls({"S": [["n", "at", "from"], [4111111111111111.0, *moments]]}), "a.xls")
    assert texts(made, "table") == ["n\tat\tfrom\n4111111111111111\t2026-01-17 22:31:40\t06:30"]
    made = read(samples.xlsx({"S": [["at", "from"], [moments[0], datetime.time(6, 30, 5)]]}), "a.xlsx")
    assert texts(made, "table") == ["at\tfrom\n2026-01-17 22:31:40\t06:30:05"]


def test_xls() -> None:
    rows: list[list[object]] = [
        ["Draft, not for the press"],
        [],
        ["day", "ok", "n"],
        [datetime.datetime(2026, 1, 17), True, 3],
        [datetime.datetime(2026, 1, 17, 22, 31), "保险丝", 2.5],
    ]
    made = read(samples.xls({"预算": rows, "Secret": [["x", "y"]]}, hidden="Secret"), "a.xls")
    assert (made.title, made.reader) == ("", "xls/2")
    assert texts(made, "paragraph") == ["Draft, not for the press"]
    assert texts(made, "table") == ["day\tok\tn\n2026-01-17\tTrue\t3\n2026-01-17 22:31\t保险丝\t2.5"]
    assert path_of(made, "保险丝") == ("预算",)
    assert page_of(made, "保险丝") == 1


def test_a_damaged_xls() -> None:
    assert refusal(samples.compound_file([("Workbook", b"x" * 100)]), "a.xls").kind == "damaged"


def test_mbox() -> None:
    first = samples.eml(plain="Hello\n\nFrom now on, four amperes.")
    made = read(samples.mbox(first, samples.eml(html="<p>rich</p>"), samples.eml(html="<html></html>")), "a.mbox")
    assert (made.title, made.reader) == ("", "mbox/2")
    assert texts(made, "heading") == ["Sicherungen für die Hütte"] * 3
    assert texts(made, "paragraph") == ["Hello", "From now on, four amperes.", "rich"]
    assert [page_of(made, "From now"), page_of(made, "rich")] == [1, 2]
    assert path_of(made, "rich") == ("Sicherungen für die Hütte",)
    assert refusal(b"no mail at all\n", "a.mbox").kind == "damaged"


def test_eml_prefers_plain() -> None:
    made = read(samples.eml(plain="Hello\n\n> quoted\n\nbye", html="<p>rich", attachment=b"%PDF-1.4"), "a.eml")
    assert made.title == "Sicherungen für die Hütte"
    assert texts(made, "header")[0].splitlines()[-1] == "Attachments: invoice.pdf"
    assert texts(made)[1:] == ["Hello", "> quoted", "bye"]
    assert [block.kind for block in made.blocks] == ["header", "paragraph", "quote", "paragraph"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_eml_that_an_editor_has_saved(encoding: str) -> None:
    source = "Subject: Die Hütte\nFrom: Ewan <ewan@example.org>\nContent-Type: text/plain\n\nSnow on the ridge.\n"
    made = read(source.encode(encoding), "a.eml")
    assert made.title == "Die Hütte"
    assert texts(made) == ["Subject: Die Hütte\nFrom: Ewan <ewan@example.org>", "Snow on the ridge."]


def test_eml_of_html_only() -> None:
    made = read(samples.eml(html="<h1>Hi</h1><p>see <a href='http://x.example'>this</a>"), "a.eml")
    assert texts(made)[1:] == ["Hi", "see this"]


def test_eml_with_an_empty_plain_part() -> None:
    assert texts(read(samples.eml(plain="\n", html="<p>rich"), "a.eml"))[1:] == ["rich"]


def test_eml_charset_of_a_part() -> None:
    data = "Subject: x\nContent-Type: text/plain; charset=gb2312\n\n青螺岭".encode("gb18030")
    assert "青螺岭" in read(data, "a.eml").text
