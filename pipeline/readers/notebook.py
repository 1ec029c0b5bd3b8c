"""Jupyter notebooks: Markdown cells with their structure, code cells as code.

Outputs (pictures, tables, tracebacks) are left out.
"""

from __future__ import annotations

import json
from typing import Any

from pipeline import errors
from pipeline.readers import build, decode, markdown


def read(data: bytes, name: str) -> build.Draft:
    try:
        book = json.loads(decode.text_of(data))
    except ValueError as error:
        raise errors.DocumentError("damaged", f"not JSON: {error}") from error
    cells = book.get("cells") if isinstance(book, dict) else None
    if cells is None and isinstance(book, dict):  # nbformat 3
        cells = [cell for sheet in _list(book.get("worksheets")) for cell in _list(sheet.get("cells"))]
    builder = build.Builder()
    for cell in _list(cells):
        _add(builder, cell)
    return builder.draft()


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _add(builder: build.Builder, cell: dict[str, Any]) -> None:
    source = cell.get("source", cell.get("input", ""))
    text = "".join(map(str, source)) if isinstance(source, list) else str(source)
    if cell.get("cell_type") == "code":
        builder.add(text, "code")
        return
    text = decode.clean(text)
    for span in markdown.scan(text):
        builder.add(span.heading or text[span.start : span.end], span.kind, level=span.level if span.heading else 0)
