"""Tables longer than a passage: in every format each group of rows begins with the names of the columns."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from pipeline.readers import tables
from tests.readers import samples
from tests.readers.helpers import path_of, read, texts

HEAD = ["Station", "Depth of snow", "Remark"]
ROWS = [[f"Hut {number}", f"{number * 7} cm", "measured at noon by the warden"] for number in range(60)]
TABLE = [HEAD, *ROWS]


def _csv() -> bytes:
    return "\n".join(",".join(row) for row in TABLE).encode()


def _html() -> bytes:
    rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in TABLE)
    return f"<html><body><h1>Snow</h1><table>{rows}</table></body></html>".encode()


def _docx() -> bytes:
    import docx

    made = docx.Document()
    grid = made.add_table(len(TABLE), len(HEAD))
    for row, cells in zip(grid.rows, TABLE, strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    out = io.BytesIO()
    made.save(out)
    return out.getvalue()


def _cell(text: str, more: str = "") -> str:
    return f"<table:table-cell{more}><text:p>{text}</text:p></table:table-cell>"


def _odf(rest: str) -> str:
    rows = "".join(f"<table:table-row>{''.join(map(_cell, row))}{rest}</table:table-row>" for row in TABLE)
    return f'<table:table table:name="Snow">{rows}</table:table>'


REST = '<table:table-cell table:number-columns-repeated="16381"/>'  # of the grid, as every spreadsheet has it
SHORT = 25
MADE: dict[str, Callable[[], bytes]] = {
    "a.csv": _csv,
    "a.html": _html,
    "a.docx": _docx,
    "a.xlsx": lambda: samples.xlsx({"Snow": [list(row) for row in TABLE]}),
    "a.xls": lambda: samples.xls(
        {"Snow": [list(row) for row in TABLE[:SHORT]]}
    ),  # as many rows as the sample writer can hold
    "a.ods": lambda: samples.ods(_odf(REST)),
    "a.odt": lambda: samples.odt(_odf("")),
}


@pytest.mark.parametrize("name", MADE)
def test_the_header_is_repeated(name: str) -> None:
    groups = texts(read(MADE[name](), name), "table")
    rows = ROWS[: SHORT - 1] if name == "a.xls" else ROWS
    assert len(groups) > 1
    assert sum(map(len, groups)) > tables.GROUP_CHARS
    for group in groups:
        assert group.split("\n")[0] == "\t".join(HEAD)
        assert len(group) < 2 * tables.GROUP_CHARS
    assert [line for group in groups for line in group.split("\n")[1:]] == ["\t".join(row) for row in rows]


def test_repeated_cells_of_a_sheet_are_written_out() -> None:
    two = _cell("4 A", ' table:number-columns-repeated="2"')
    row = f'<table:table-row table:number-rows-repeated="3">{_cell("fuse")}{two}{REST}</table:table-row>'
    empty = f'<table:table-row table:number-rows-repeated="1048570">{REST}</table:table-row>'
    between = f"<table:table-row>{_cell('a')}<table:table-cell/>{_cell('b')}{REST}</table:table-row>"
    made = read(samples.ods(f'<table:table table:name="S">{row}{empty}{between}{empty}</table:table>'), "a.ods")
    assert texts(made, "table") == ["fuse\t4 A\t4 A\nfuse\t4 A\t4 A\nfuse\t4 A\t4 A\na\t\tb"]


# --- RTF --------------------------------------------------------------------------------------------------------------

SHEET = (
    r"{\stylesheet{\s0 Normal;}{\s1\outlinelevel0\b\fs48 heading 1;}"
    r"{\s2\sbasedon0\outlinelevel1{\*\soutlvl1}\fs36 heading 2;}}"
)
BODY = (
    r"\pard\plain\s1\outlinelevel0 On snow\par\pard\s0 Snow is deep.\par\pard\plain\s2\ql{\b Rime}\par"
    r"\pard\plain\s0 Rime is ice.\par\pard\outlinelevel1 Fog\par\pard Fog is wet, says \'a7 4.\par"
)


def test_headings_of_rtf() -> None:
    made = read((r"{\rtf1\ansi\ansicpg1252" + SHEET + BODY + "}").encode(), "a.rtf")
    assert texts(made) == ["On snow", "Snow is deep.", "Rime", "Rime is ice.", "Fog", "Fog is wet, says § 4."]
    assert path_of(made, "is ice") == ("On snow", "Rime")
    assert path_of(made, "is wet") == ("On snow", "Fog")
    assert made.title == "On snow"


def test_characters_beyond_the_first_plane_in_rtf() -> None:
    assert read(rb"{\rtf1\ansi\uc1 a \u-10240?\u-8400? b}", "a.rtf").text == "a \U00010330 b"
