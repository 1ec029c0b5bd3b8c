"""Plain text and source code: the text as it is, in paragraphs or top-level groups. Offsets are those of the source.

Headings only where the text itself marks them: underlined, or numbered and alone ("2.1 Scope"), as in RFCs and minutes.
A short line is not a heading. Source code has none.
"""

from __future__ import annotations

import re

from pipeline.readers import build, decode, formats, lines

_PROSE = ("", "txt", "text")  # extensions; the others of this reader are data and logs
_UNDERLINE = re.compile(r"([=\-~*#^])\1{2,}$")
_NUMBERED = re.compile(r"(\d{1,3}(?:\.\d{1,3}){0,5})\.?[ \t]+(?=\S)(?![a-z])")
_SENTENCE_END = tuple(".,;:!?。，；：！？…")
_TITLE_CHARS = 150
_DOCSTRING = re.compile(r'(?:\s*#[^\n]*\n){0,20}\s*[rR]?(?:"""|\'\'\')\s*([^\n]{1,200}?)\s*(?:"""|\'\'\'|\n|$)')


def read(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data, declared(data))
    if formats.extension(name) not in _PROSE:
        return build.Draft(title="", text=text, blocks=build.outline(text, paragraphs(text)))
    spans = _numbered(text, paragraphs(text, underlined=True))
    title = lines.first_heading(spans) if spans and spans[0].level else _title(text, spans)
    return build.Draft(title=title, text=text, blocks=build.outline(text, spans))


def read_code(data: bytes, name: str) -> build.Draft:
    """Blocks begin at an unindented line after a blank one: top-level definitions, in most languages."""
    text = decode.text_of(data)
    state = lines.Scan()
    for start, end in lines.lines(text):
        if not text[start:end].strip():
            state.gap = True
            continue
        if state.gap and not text[start].isspace() and text[start] not in ")}]":
            state.close()
        state.put("code", start, end)
    state.close()
    found = _DOCSTRING.match(text) if formats.extension(name) in ("py", "pyi") else None
    return build.Draft(
        title=build.one_line(found[1]) if found else "", text=text, blocks=build.outline(text, state.spans)
    )


def paragraphs(text: str, *, underlined: bool = False) -> list[build.Span]:
    """Runs of lines between blank lines; if `underlined`, a line over a ruler of about its length is a heading."""
    state = lines.Scan()
    rulers: list[str] = []
    for start, end in lines.lines(text):
        line = text[start : min(end, start + build.HEADING_CHARS)].strip()
        if not line and not text[start:end].strip():
            state.close()
        elif underlined and state.kind and state.lines == 1 and _is_ruler(line, text[state.start : state.end].strip()):
            if line[0] not in rulers:
                rulers.append(line[0])
            heading = text[state.start : state.end]
            state.heading(rulers.index(line[0]) + 1, heading, state.drop(), end)
        else:
            state.put("paragraph", start, end)
    state.close()
    return state.spans


def _is_ruler(line: str, above: str) -> bool:
    return (
        bool(_UNDERLINE.match(line))
        and not _UNDERLINE.match(above)
        and 0.7 * len(above) <= len(line) <= 2 * len(above) + 10
    )


def _numbered(text: str, spans: list[build.Span]) -> list[build.Span]:
    """Make headings of numbered lines that stand alone, unless the next paragraph is one too (then it is a list)."""
    below = 1 if any(span.level for span in spans) else 0
    levels = [_number_level(text, span) for span in spans]
    result = []
    for position, (span, level) in enumerate(zip(spans, levels, strict=True)):
        after = levels[position + 1] if position + 1 < len(spans) else level
        if level and after != level:
            heading = text[span.start : span.end]
            span = build.Span(start=span.start, end=span.end, kind="heading", level=level + below, heading=heading)
        result.append(span)
    return result


def _number_level(text: str, span: build.Span) -> int:
    if span.level or span.end - span.start > 80:
        return 0
    line = text[span.start : span.end].rstrip()
    found = _NUMBERED.match(line)
    if not found or "\n" in line or line.endswith(_SENTENCE_END):
        return 0
    return found[1].count(".") + 1


def _title(text: str, spans: list[build.Span]) -> str:
    """The first paragraph if it looks like a title: up to three short lines, no full stop, and more text after it."""
    if len(spans) < 2 or spans[0].end - spans[0].start > _TITLE_CHARS:
        return ""
    first = text[spans[0].start : spans[0].end].strip()
    if first.count("\n") > 2 or first.endswith(_SENTENCE_END) or not any(map(str.isalpha, first)):
        return ""
    return build.one_line(first)


def declared(data: bytes) -> str:
    """The encoding in an XML declaration; "" without one."""
    found = re.match(rb"<\?xml[^>]{0,100}?encoding=[\"']([\w.-]{1,40})[\"']", data[:200])
    return found[1].decode("ascii") if found else ""
