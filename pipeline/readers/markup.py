"""reStructuredText, AsciiDoc, Org and TeX by a scan for headings, literal blocks, lists and tables.

Offsets are those of the source.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pipeline.readers import build, decode, lines

_LIST = re.compile(r"\s*(?:[-*+•]|#\.|\d{1,9}[.)]|\([0-9a-zA-Z]{1,3}\))\s")
_LINE_CHARS = 1000  # of a line are looked at


def _draft(text: str, spans: list[build.Span], title: str = "") -> build.Draft:
    title = build.one_line(title) or lines.first_heading(spans)
    return build.Draft(title=title, text=text, blocks=build.outline(text, spans))


# --- reStructuredText -------------------------------------------------------------------------------------------------

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+$")  # docutils: any one punctuation character, repeated
_GRID = re.compile(r"\s*(?:\+[-=+]+\+$|={2,}(?: +={2,})+$)")
_CODE_DIRECTIVE = re.compile(r"\s*\.\. (?:code|code-block|sourcecode|literalinclude|math|productionlist)::")
_RST_TITLE = re.compile(r":?Title:\s+(\S.*)")


def read_rst(data: bytes, name: str) -> build.Draft:
    """Section titles after docutils: underlined, or between two equal lines.

    A level is the order in which its style came first.
    """
    text = decode.text_of(data)
    scan = _Rst(text)
    for start, end in lines.lines(text):
        scan.line(start, end)
    scan.state.close()
    return _draft(text, scan.state.spans, scan.title)


class _Rst:
    def __init__(self, text: str) -> None:
        self.text = text
        self.state = lines.Scan()
        self.styles: list[tuple[str, bool]] = []
        self.literal = False  # an indented block that comes next is literal
        self.title = ""

    def line(self, start: int, end: int) -> None:
        line = self.text[start : min(end, start + _LINE_CHARS)].rstrip()
        state = self.state
        if not line:
            if not self.text[start:end].strip():
                self._blank()
                return
        elif state.kind == "paragraph" and _ADORNMENT.match(line) and self._section(line, end):
            return
        if not self.title and len(state.spans) < 3 and (found := _RST_TITLE.match(line)):
            self.title = found[1]
        state.put(self._kind(line), start, end)
        if state.kind != "code":
            self.literal = line.endswith("::") or bool(_CODE_DIRECTIVE.match(line))

    def _blank(self) -> None:
        if self.state.kind in ("code", "list") or (self.state.kind == "table" and not self._grid()):
            self.state.gap = True
        else:
            self.state.close()

    def _grid(self) -> bool:
        return self.text[self.state.start] == "+"

    def _section(self, underline: str, end: int) -> bool:
        """Whether the open paragraph is a section title over this underline; then it has become a heading."""
        above = self.text[self.state.start : self.state.end].split("\n", 3)
        overlined = len(above) == 2 and above[0].rstrip() == underline
        heading = above[-1].rstrip()
        if len(above) > 2 or (len(above) == 2 and not overlined) or _ADORNMENT.match(heading):
            return False
        if len(underline) < min(len(heading.strip()), 4) or (heading[:1].isspace() and not overlined):
            return False
        style = (underline[0], overlined)
        if style not in self.styles:
            self.styles.append(style)
        self.state.heading(self.styles.index(style) + 1, heading, self.state.drop(), end)
        return True

    def _kind(self, line: str) -> str:
        kind, gap = self.state.kind, self.state.gap
        indented = line[:1].isspace()
        if indented and (kind == "code" or (self.literal and kind != "list")):
            return "code"
        if kind == "table" or _GRID.match(line):
            return (
                "table"
                if kind != "table" or not gap or indented or _GRID.match(line) or line[0] == "|"
                else "paragraph"
            )
        if _LIST.match(line) and kind != "paragraph":
            return "list"
        return "list" if kind == "list" and (indented or not gap) else "paragraph"


# --- AsciiDoc, Org, TeX: one line tells -------------------------------------------------------------------------------

Classify = Callable[[lines.Scan, str], "tuple[str, int, str]"]  # kind, level, heading


def _read(text: str, classify: Classify, opens: Callable[[str], str]) -> list[build.Span]:
    """Spans by a classifier of lines. `opens`: the line that ends the literal block which this line begins, or ""."""
    state = lines.Scan()
    closing = ""
    for start, end in lines.lines(text):
        line = text[start : min(end, start + _LINE_CHARS)].rstrip()
        if closing:
            state.end = end
            if line.strip().lower() == closing:
                closing = ""
                state.close()
        elif closing := opens(line):
            state.close()
            state.put("code", start, end)
        elif not line and not text[start:end].strip():
            _blank(state)
        else:
            kind, level, heading = classify(state, line)
            if level:
                state.heading(level, heading, start, end)
            else:
                state.put(kind, start, end)
    state.close()
    return state.spans


def _blank(state: lines.Scan) -> None:
    if state.kind == "list":
        state.gap = True
    else:
        state.close()


def _list_or_paragraph(state: lines.Scan, line: str, marker: re.Pattern[str]) -> str:
    if marker.match(line) and state.kind != "paragraph":
        return "list"
    return "list" if state.kind == "list" and (not state.gap or line[:1].isspace()) else "paragraph"


_ADOC_HEADING = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*)")
_ADOC_FENCE = re.compile(r"(-{4,}|\.{4,}|/{4,}|\+{4,}|```)\w*$")
_ADOC_LIST = re.compile(r"\s*(?:\*{1,5}|\.{1,5}|-|\d{1,9}\.|\S.{0,80}?::)\s")


def read_asciidoc(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data)

    def opens(line: str) -> str:
        found = _ADOC_FENCE.match(line)
        return found[1] if found else ""

    def classify(state: lines.Scan, line: str) -> tuple[str, int, str]:
        if found := _ADOC_HEADING.match(line):
            return "heading", len(found[1]), found[2]
        if line.startswith("|") or (state.kind == "table" and not line.startswith("|===")):
            return "table", 0, ""
        return _list_or_paragraph(state, line, _ADOC_LIST), 0, ""

    return _draft(text, _read(text, classify, opens))


_ORG_HEADING = re.compile(r"(\*{1,32})[ \t]+(?:(?:TODO|DONE|NEXT|WAITING)[ \t]+)?(?:\[#[A-Z]\][ \t]+)?(\S.*)")
_ORG_TAGS = re.compile(r"[ \t]+:[\w@:]+:$")
_ORG_BEGIN = re.compile(r"\s*#\+begin_(src|example|verse|export)\b", re.I)
_ORG_TITLE = re.compile(r"^#\+title:[ \t]*(\S.*)$", re.I | re.M)


def read_org(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data)
    title = _ORG_TITLE.search(text, 0, 10_000)

    def opens(line: str) -> str:
        found = _ORG_BEGIN.match(line)
        return f"#+end_{found[1].lower()}" if found else ""

    def classify(state: lines.Scan, line: str) -> tuple[str, int, str]:
        if found := _ORG_HEADING.match(line):
            return "heading", len(found[1]), _ORG_TAGS.sub("", found[2])
        if line.lstrip().startswith("|"):
            return "table", 0, ""
        return _list_or_paragraph(state, line, _LIST), 0, ""

    return _draft(text, _read(text, classify, opens), title[1] if title else "")


_TEX_LEVELS = {"part": 1, "chapter": 2, "section": 3, "subsection": 4, "subsubsection": 5, "paragraph": 6}
_TEX_HEADING = re.compile(r"\s*\\(part|chapter|section|subsection|subsubsection|paragraph)\*?(?:\[[^\]]*\])?\{(.*)")
_TEX_BEGIN = re.compile(r"\s*\\begin\{(verbatim|lstlisting|minted|equation|align|table|tabular|tikzpicture)(\*?)\}")
_TEX_TITLE = re.compile(r"\\title(?:\[[^\]]*\])?\{([^{}\\]{1,300})")
_TEX_COMMAND = re.compile(r"\\[a-zA-Z]+\*?|[{}~]")


def read_tex(data: bytes, name: str) -> build.Draft:
    """TeX as it stands, comments and commands too: only its structure is looked at."""
    text = decode.text_of(data)
    title = _TEX_TITLE.search(text, 0, 50_000)

    def opens(line: str) -> str:
        found = _TEX_BEGIN.match(line)
        closing = f"\\end{{{found[1]}{found[2]}}}" if found else ""
        return "" if closing and closing in line else closing

    def classify(state: lines.Scan, line: str) -> tuple[str, int, str]:
        if found := _TEX_HEADING.match(line):
            heading = _TEX_COMMAND.sub(" ", _in_braces(found[2]))
            return "heading", _TEX_LEVELS[found[1]], heading
        return "paragraph", 0, ""

    return _draft(text, _read(text, classify, opens), title[1] if title else "")


def _in_braces(rest: str) -> str:
    """`rest` up to the brace that closes the one just opened."""
    depth = 1
    for position, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if not depth:
            return rest[:position]
    return rest
