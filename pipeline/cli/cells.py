"""Text in the cells of a terminal: Chinese, Japanese and Korean characters take two, combining marks none."""

from __future__ import annotations

import re
import unicodedata

from pipeline import scripts

_CJK = scripts.CJK_RUN.pattern.removesuffix("+")
_PIECE = re.compile(rf"\s+|{_CJK}[\u3000-\u303f\uff00-\uffef]*|(?:(?!{_CJK})\S)+")  # a line may end after each
MORE = " ..."


def width(text: str) -> int:
    """Cells that `text`, without control characters, takes."""
    if text.isascii():
        return len(text)
    return sum(_cell(character) for character in text)


def _cell(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in ("Mn", "Me", "Cf") else 1


def cut(text: str, columns: int) -> str:
    """The beginning of `text` that fits, without half a character."""
    if width(text) <= columns:
        return text
    taken = 0
    for number, character in enumerate(text):
        taken += _cell(character)
        if taken > columns:
            return text[:number]
    return text


def cut_start(text: str, columns: int) -> str:
    """The end of `text` that fits, after "..." where something is missing: of a path the end says most."""
    if width(text) <= columns:
        return text
    return "..." + cut(text[::-1], max(columns - 3, 0))[::-1]


def wrap(text: str, columns: int, most: int) -> list[str]:
    """`text` on at most `most` lines of `columns` cells, white space made single blanks; MORE at the end where there is
    more. A word that is longer than a line is cut.
    """
    lines = [""]
    for piece in _pieces(text, columns):
        if width(lines[-1]) + width(piece) <= columns:
            lines[-1] += piece
        else:
            lines.append(piece.lstrip())
        if len(lines) > most:
            return [*(line.rstrip() for line in lines[: most - 1]), _ended(lines[most - 1], columns)]
    return [line.rstrip() for line in lines if line.strip()]


def _pieces(text: str, columns: int) -> list[str]:
    """What must stay together, each with a blank before it where there was one."""
    found: list[str] = []
    blank = ""
    for piece in _PIECE.findall(text.strip()):
        if piece.isspace():
            blank = " "
            continue
        rest = blank + piece
        while width(rest) > columns:
            head = cut(rest, columns)
            found.append(head)
            rest = rest[len(head) :]
        found.append(rest)
        blank = ""
    return found


def _ended(line: str, columns: int) -> str:
    """`line` with MORE, after a whole word where there is one."""
    if width(line.rstrip()) + len(MORE) <= columns:
        return line.rstrip() + MORE
    head = cut(line, columns - len(MORE))
    words, blank, last = head.rpartition(" ")
    return (words if blank and last and not scripts.CJK_RUN.match(last) else head).rstrip() + MORE
