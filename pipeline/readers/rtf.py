"""RTF by striprtf: headings, paragraphs and table rows.

striprtf knows no styles: what tells a heading is put before its text, where it comes through as text, and taken out
again.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from striprtf import striprtf

from pipeline.readers import build

_TITLE = re.compile(r"\{\\title\s+([^{}\\]{1,300})\}")
_STYLE = re.compile(r"\{\\s(\d{1,4})\b[^{}]{0,2000}?\\outlinelevel(\d)")  # in the style sheet
_STYLED = re.compile(r"\\s(\d{1,4})(?!\d) ?|\\outlinelevel(\d)(?!\d) ?")
_MARK = re.compile("\x01([0-8])")
_MARKS = re.compile("\x01.?")
_to_text: Callable[..., str] = striprtf.rtf_to_text


def read(data: bytes, name: str) -> build.Draft:
    source = data.decode(
        "latin-1"
    )  # RTF is ASCII; \'xx escapes are decoded by striprtf, by the code page that it declares
    found = _TITLE.search(source, 0, 20_000)
    builder = build.Builder()
    table: list[str] = []
    text = _to_text(_marked(source), errors="replace")
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # it leaves pairs of them apart
    for line in text.split("\n"):
        mark = _MARK.search(line)
        line = _MARKS.sub("", line)
        if "|" in line and line.rstrip().endswith("|"):  # striprtf's mark of a table row
            table.append(line.rstrip().rstrip("|").replace("|", "\t"))
            continue
        builder.add("\n".join(table), "table")
        table.clear()
        builder.add(line, level=int(mark[1]) + 1 if mark else 0)
    builder.add("\n".join(table), "table")
    return builder.draft(found[1] if found else "")


def _marked(source: str) -> str:
    """The source with a mark in the text of each paragraph that has an outline level, by its style or by itself."""
    source = source.replace("\x01", "")
    levels = dict(_STYLE.findall(source))

    def mark(found: re.Match[str]) -> str:
        level = levels.get(found[1]) if found[1] else found[2]
        return f"{found[0]}\x01{level}" if level and level in "012345678" else found[0]

    return _STYLED.sub(mark, source) if levels or "\\outlinelevel" in source else source
