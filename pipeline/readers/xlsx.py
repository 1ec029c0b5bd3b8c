"""Workbooks by openpyxl, read-only, values only.

Each sheet a page under its name as heading, rows in groups (see tables).

calamine would be faster; it aborts the process on one far cell.

"""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterable
from typing import Any

import openpyxl

from pipeline.readers import build, ooxml, tables

_MAX_ROWS = 1_048_576  # Excel's own; a file that names row 2,000,000,000 would keep openpyxl counting for an hour
_MAX_COLUMNS = 1000  # a formatted but empty sheet claims 16,384


def read(data: bytes, name: str) -> build.Draft:
    data = ooxml.prepared(data)
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
    rows = sheet.iter_rows(values_only=True, max_row=_MAX_ROWS)
    tables.add_sheet(builder, str(sheet.title), map(_cells, rows), page)


def _cells(row: Iterable[Any]) -> list[str]:
    return [tables.cell(value) for value in itertools.islice(row, _MAX_COLUMNS)]
