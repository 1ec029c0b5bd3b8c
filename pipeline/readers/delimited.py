"""CSV and TSV: the delimiter sniffed, rows in groups with the header repeated (see tables)."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator

from pipeline.readers import build, decode, formats, tables

_SNIFFED_LINES = 50
_DELIMITERS = ",;\t|"
_MAX_FIELD = 10_000_000  # characters; the csv module's own limit of 131,072 is met by real exports


def read(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data)
    csv.field_size_limit(_MAX_FIELD)
    delimiter = "\t" if formats.extension(name) in ("tsv", "tab") else _delimiter(text)
    rows = _rows(text, delimiter)
    first = list(itertools.islice(rows, 20))
    builder = build.Builder()
    for group in tables.grouped(itertools.chain(first, rows), header=tables.looks_like_header(first)):
        builder.add(group, "table")
    return builder.draft()


def _rows(text: str, delimiter: str) -> Iterator[list[str]]:
    # Not strict: a stray quote is common, and part of the text.
    return csv.reader(_lines(text), delimiter=delimiter)


def _lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def _delimiter(text: str) -> str:
    """The one that cuts the first lines most evenly.

    Csv.Sniffer guesses letters and takes quadratic time on long lines.
    """
    sample = [line[:10_000] for line in itertools.islice(_lines(text), _SNIFFED_LINES)]
    best, best_score = ",", 0.0
    for delimiter in _DELIMITERS:
        widths = [len(row) for row in csv.reader(sample, delimiter=delimiter) if row]
        usual = max(set(widths), key=widths.count, default=1)
        if usual > 1:
            score = widths.count(usual) / len(widths) + min(usual, 50) / 1000
            best, best_score = max((best, best_score), (delimiter, score), key=lambda pair: pair[1])
    return best
