"""Markdown by a scan for headings, fences, lists, quotes and tables. The text stays as it is.

Offsets are those of the source.

Not a Markdown parser: those cost 100 to 2,000 times the time and lose the offsets. Block rules after CommonMark 0.31,
section 4 and 5.
"""

from __future__ import annotations

import re

from pipeline.readers import build, decode, lines

_FENCE = re.compile(r"\s*(?:(?:[-*+]|\d{1,9}[.)])\s+)?(`{3,}(?=[^`]*$)|~{3,})")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]|$)")
_SETEXT = re.compile(r" {0,3}(?:(=+)|-+)[ \t]*$")
_LIST = re.compile(r"\s*(?:[-*+]|\d{1,9}[.)])(?:\s|$)")
_RULE = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$")
_TABLE_RULE = re.compile(r"\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?$")  # of a stripped line
_INDENTED = re.compile(r"(?: {4}| {0,3}\t)")
_FRONT_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*(.+)$", re.M)
_FRONT_LINES = 200
_LINE_CHARS = 1000  # of a line are looked at: all rules are about its beginning, or about short lines

# For the bare text of a heading, on at most a few hundred characters.
_IMAGE_OR_LINK = re.compile(r"!?\[([^\]\[]*)\](?:\([^()]*\)|\[[^\]]*\])")
_ATTRIBUTES = re.compile(r"\{[^{}]*\}\s*$|<[^<>]*>")
_CLOSING = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_EMPHASIS = re.compile(r"(\*\*|__|\*|`{1,3})(?=\S)(.+?)(?<=\S)\1")


def read(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data)
    start, title = front_matter(text)
    spans = [build.Span(start=0, end=start, kind="code")] if start else []
    spans += scan(text, start)
    return build.Draft(title=title or lines.first_heading(spans), text=text, blocks=build.outline(text, spans))


def front_matter(text: str) -> tuple[int, str]:
    """Where YAML ("---") or TOML ("+++") front matter ends, and the title it names; (0, "") where there is none."""
    mark = text[:3]
    if mark not in ("---", "+++") or text[3 : text.find("\n")].strip():
        return 0, ""
    for number, (start, end) in enumerate(lines.lines(text)):
        if number > _FRONT_LINES:
            break
        line = text[start : min(end, start + 80)].rstrip()
        if number and (line == mark or (mark == "---" and line == "...")):
            found = _FRONT_TITLE.search(text, 0, start)
            return end, build.one_line(found[1].strip().strip("\"'")) if found else ""
        if number == 1 and not line:
            break  # a thematic break, then a paragraph
    return 0, ""


def scan(text: str, start: int = 0) -> list[build.Span]:
    """Spans of Markdown `text` from `start` on."""
    state = lines.Scan()
    fence = ""
    for begin, end in lines.lines(text, start):
        line = text[begin : min(end, begin + _LINE_CHARS)]
        if not line or (line.isspace() and text[begin:end].isspace()):
            if not fence:
                _blank(state)
        elif fence:
            state.end = end
            if _closes(line, fence):
                fence = ""
                state.close()
        elif opened := _FENCE.match(line):
            state.close()
            state.put("code", begin, end)
            fence = opened[1]
        else:
            _line(state, text, line, begin, end)
    state.close()
    return state.spans


def _closes(line: str, fence: str) -> bool:
    bare = line.strip()
    return len(bare) >= len(fence) and not bare.strip(fence[0])


def _line(state: lines.Scan, text: str, line: str, begin: int, end: int) -> None:
    if atx := _ATX.match(line):
        state.heading(len(atx[1]), bare(line[atx.end() :]), begin, end)
    elif state.kind == "paragraph" and state.lines <= 2 and (underline := _SETEXT.match(line)):
        heading = bare(text[state.start : state.end])
        state.heading(1 if underline[1] else 2, heading, state.drop(), end)
    elif _RULE.match(line):
        state.close()
        state.put("paragraph", begin, end)
        state.close()
    else:
        state.put(_kind(state, line), begin, end)


def _blank(state: lines.Scan) -> None:
    if state.kind in ("list", "code"):  # both may go on after a blank line
        state.gap = True
    else:
        state.close()


def _kind(state: lines.Scan, line: str) -> str:
    if _LIST.match(line) and (state.kind != "paragraph" or _may_interrupt(line)):
        return "list"
    indented = _INDENTED.match(line) is not None
    if state.kind == "list" and (not state.gap or line[0] in " \t"):
        return "list"
    if indented and state.kind in ("", "code"):
        return "code"
    bare_line = line.lstrip()
    if bare_line[0] == ">":
        return "quote"
    if bare_line[0] == "|" or (state.kind == "table" and "|" in line):
        return "table"
    if state.kind == "paragraph" and state.lines == 1 and "|" in line and _TABLE_RULE.match(line.strip()):
        state.kind = "table"
        return "table"
    return "quote" if state.kind == "quote" else "paragraph"


def _may_interrupt(line: str) -> bool:
    """Whether a list may begin here without a blank line before it.

    Not with a number other than 1 (a year at a line's start).
    """
    first = line.lstrip()
    return not first[0].isdigit() or first.startswith(("1.", "1)"))


def bare(heading: str) -> str:
    """A heading's text without Markdown's marks."""
    text = _CLOSING.sub("", heading[: 2 * build.HEADING_CHARS].strip())
    text = _ATTRIBUTES.sub("", _IMAGE_OR_LINK.sub(r"\1", text))
    return _EMPHASIS.sub(r"\2", text).strip()
