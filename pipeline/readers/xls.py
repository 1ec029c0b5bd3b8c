"""Workbooks of Excel 97 to 2003 by xlrd: values only, each sheet a page under its name as heading."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import xlrd

from pipeline import errors
from pipeline.readers import build, tables


def read(data: bytes, name: str) -> build.Draft:
    builder = build.Builder()
    book = _opened(data)
    with book:
        for page, sheet in enumerate(book.sheets(), 1):
            if sheet.visibility == 0:
                tables.add_sheet(builder, sheet.name, _rows(book, sheet), page)
    return builder.draft(heading_as_title=False)  # "Sheet1" is not a title


def _opened(data: bytes) -> Any:
    try:
        # logfile: it prints its warnings. ragged_rows: else one far cell makes 16 million, in 16 s.
        return xlrd.open_workbook(file_contents=data, logfile=io.StringIO(), ragged_rows=True)
    except xlrd.XLRDError as error:
        if "encrypted" in str(error):
            raise errors.DocumentError(
                "encrypted", "protected by a password", "Save a copy without the password."
            ) from error
        raise


def _rows(book: Any, sheet: Any) -> Iterator[list[str]]:
    return ([_text(book, cell) for cell in sheet.row(number)] for number in range(sheet.nrows))


def _text(book: Any, cell: Any) -> str:
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            moment = xlrd.xldate_as_datetime(cell.value, book.datemode)
            return tables.cell(moment.time() if 0 <= cell.value < 1 else moment)  # a time of day has no date
        except (xlrd.xldate.XLDateError, OverflowError, ValueError):
            return tables.cell(cell.value)  # a number that is only formatted like a date
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return str(bool(cell.value))
    if cell.ctype == xlrd.XL_CELL_ERROR:
        return str(xlrd.error_text_from_code.get(cell.value, "#ERROR"))
    return tables.cell(cell.value or None if cell.ctype == xlrd.XL_CELL_TEXT else cell.value)
