"""Workbooks by openpyxl, read-only, values only.

Each sheet a page under its name as heading, rows in groups (see tables).

calamine would be faster; it aborts the process on one far cell.

"""

from __future__ import annotations

import datetime
import io
import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import openpyxl

from pipeline.readers import archives, build, tables

_MAX_COLUMNS = 1000  # a formatted but empty sheet claims 16,384
_LOOKED_AT = 20


def read(data: bytes, name: str) -> build.Draft:
    archives.opened(data).close()
    builder = build.Builder()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # of styles and extensions that it does not know: of no use to a reader of values
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        try:
            for page, sheet in enumerate(book.worksheets, 1):
                if sheet.sheet_state == "visible":
                    _add_sheet(builder, sheet, page)
            title = book.properties.title or ""
        finally:
            book.close()
    return builder.draft(title, heading_as_title=False)  # "Sheet1" is not a title


def _add_sheet(builder: build.Builder, sheet: Any, page: int) -> None:
    sheet.reset_dimensions()  # what the file claims is often A1:A1 or the whole grid
    rows = (_cells(row) for row in sheet.iter_rows(values_only=True))
    notes, rest = _split(row for row in rows if any(row))
    first = list(itertools.islice(rest, _LOOKED_AT))
    if notes or first:
        builder.add(str(sheet.title), page=page, level=1)
    for note in notes:
        builder.add(note, page=page)
    for group in tables.grouped(itertools.chain(first, rest), header=tables.looks_like_header(first)):
        builder.add(group, "table", page=page)


def _split(rows: Iterable[list[str]]) -> tuple[list[str], Iterator[list[str]]]:
    """The single cells above a table (its title, remarks), and the table, which begins at the first wider row."""
    notes: list[str] = []
    iterator = iter(rows)
    for row in iterator:
        cells = [cell for cell in row if cell]
        if len(cells) > 1 or len(notes) >= _LOOKED_AT:
            return notes, itertools.chain([row], iterator)
        notes.append(cells[0])
    # Nothing wider came: a sheet of one column is a table of one column.
    return ([], iter([[note] for note in notes])) if len(notes) > 2 else (notes, iter(()))


def _cells(row: Iterable[Any]) -> list[str]:
    return [_cell(value) for value in itertools.islice(row, _MAX_COLUMNS)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        return str(value.date()) if value.time() == datetime.time() else value.isoformat(" ", "minutes")
    return str(value)
