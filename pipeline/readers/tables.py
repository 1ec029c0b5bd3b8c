"""Rows of cells to text that embeds well: tab-separated lines in groups, the header repeated at the head of each group.

A chunk holds a few hundred tokens. A group is made to fit into one, so that a row is never far from the names of its
columns.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterable, Iterator, Sequence

from pipeline import errors
from pipeline.readers import build

GROUP_CHARS = 700  # of rows after the header: with it, about 256 tokens of digits and words
HEADER_SHARE = 0.5  # of GROUP_CHARS: a longer header is not repeated, it would crowd out the rows
MAX_TABLE_CHARS = 300_000_000
_EXACT = 2**53  # up to here a float is a whole number: an account's, a barcode's
_LOOKED_AT = 20  # rows: for a header, and for remarks above the table


def add_sheet(builder: build.Builder, title: str, rows: Iterable[list[str]], page: int) -> None:
    """A sheet of a workbook: its name as heading, remarks above the table, the rows in groups."""
    notes, rest = _split(row for row in rows if any(row))
    first = list(itertools.islice(rest, _LOOKED_AT))
    if notes or first:
        builder.add(title, page=page, level=1)
    for note in notes:
        builder.add(note, page=page)
    for group in grouped(itertools.chain(first, rest), header=looks_like_header(first)):
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


def cell(value: object) -> str:
    """A value of a workbook as people write it."""
    if value is None:
        return ""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        value = _to_second(value)
        return str(value.date()) if value.time() == datetime.time() else f"{value.date()} {_clock(value.time())}"
    if isinstance(value, datetime.time):
        return _clock(_to_second(datetime.datetime.combine(datetime.date(2000, 1, 1), value)).time())
    return str(value)


def _to_second(value: datetime.datetime) -> datetime.datetime:
    """Rounded: a fraction of a day, which is what a workbook keeps, seldom comes out even."""
    if value.microsecond >= 500_000 and value < datetime.datetime.max.replace(microsecond=0, tzinfo=value.tzinfo):
        value += datetime.timedelta(seconds=1)
    return value.replace(microsecond=0)


def _clock(value: datetime.time) -> str:
    return value.isoformat("seconds" if value.second else "minutes")


def grouped(rows: Iterable[Sequence[str]], *, header: bool) -> Iterator[str]:
    """The text of each group of rows; empty rows and trailing empty cells are left out. `header`.

    The first row names the columns.

    Raises:
        DocumentError: too_large (more than MAX_TABLE_CHARS of text).

    """
    lines = _lines(rows)
    head = next(lines, "") if header else ""
    repeated = head if len(head) <= HEADER_SHARE * GROUP_CHARS else ""
    group = [head] if head else []
    size = 0
    total = 0
    for line in lines:
        if size and size + len(line) > GROUP_CHARS:
            yield "\n".join(group)
            group = [repeated] if repeated else []
            size = 0
        group.append(line)
        size += len(line) + 1
        total += len(line)
        if total > MAX_TABLE_CHARS:
            raise errors.DocumentError("too_large", "more than 300 MB of text in one table")
    if group:
        yield "\n".join(group)


def _lines(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    for row in rows:
        line = "\t".join(" ".join(cell.split()) for cell in row).rstrip()
        if line:
            yield line


def looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first of some rows names the columns.

    Nothing in it is a number, its cells differ, and it is nearly full.
    """
    if not rows:
        return False
    first = [cell.strip() for cell in rows[0]]
    named = [cell for cell in first if cell]
    if len(named) < 2 and len(first) > 1:
        return False
    return len(set(named)) == len(named) and not any(is_number(cell) for cell in named) and len(named) * 2 >= len(first)


def is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%"))
    except ValueError:
        return False
    return True
