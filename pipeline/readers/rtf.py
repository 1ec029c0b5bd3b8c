"""RTF by striprtf: paragraphs and table rows."""

from __future__ import annotations

import re
from collections.abc import Callable

from striprtf import striprtf

from pipeline.readers import build

_TITLE = re.compile(r"\{\\title\s+([^{}\\]{1,300})\}")
_to_text: Callable[..., str] = striprtf.rtf_to_text


def read(data: bytes, name: str) -> build.Draft:
    source = data.decode(
        "latin-1"
    )  # RTF is ASCII; \'xx escapes are decoded by striprtf, by the code page that it declares
    found = _TITLE.search(source, 0, 20_000)
    builder = build.Builder()
    table: list[str] = []
    for line in _to_text(source, errors="replace").split("\n"):
        if "|" in line and line.rstrip().endswith("|"):  # striprtf's mark of a table row
            table.append(line.rstrip().rstrip("|").replace("|", "\t"))
            continue
        builder.add("\n".join(table), "table")
        table.clear()
        builder.add(line)
    builder.add("\n".join(table), "table")
    return builder.draft(found[1] if found else "")
