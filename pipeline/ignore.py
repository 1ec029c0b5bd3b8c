"""Which names are left out: gitignore rules, from the settings and from the `.pipelineignore` files on the way down.

As git does it (gitignore(5)): the last pattern of a file that matches decides, a file in a deeper folder over one
above it, and the settings over both; a pattern that begins with "!" takes a name in again, unless a folder above it is
left out, since such a folder is not entered. Knows no files but the ones with the rules.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence

import pathspec

from pipeline import errors

FILE = b".pipelineignore"
MAX_BYTES = 1_000_000  # of one such file: thousands of patterns; more is no list of patterns

_UNDECODED = re.compile("[\udc80-\udcff]")
_FOLDER = "ps_d"  # the group with which pathspec marks the "/" after a folder that a pattern has matched


class Rules:
    """The patterns of one file, as pathspec reads them.

    pathspec asks of a path whether a pattern matches it or a folder above it. On the way down only the path itself
    must count, as with git: what lies above was decided before.
    """

    __slots__ = ("_patterns",)

    def __init__(self, lines_: Sequence[str]) -> None:
        """ValueError: a line is no pattern."""
        patterns = pathspec.GitIgnoreSpec.from_lines(lines_).patterns
        self._patterns = [(one.regex, bool(one.include)) for one in reversed(list(patterns)) if one.regex is not None]

    def decide(self, path: str) -> bool | None:
        """Whether the last pattern that matches `path` (a folder's ends with "/") leaves it out; None: none does."""
        name = path.rstrip("/")
        for regex, include in self._patterns:
            found = regex.search(name)
            if found is not None and not found.groupdict().get(_FOLDER):
                return include
            if path != name and any(match.end(_FOLDER) == len(path) for match in _marked(regex, path)):
                return include
        return None


def _marked(regex: re.Pattern[str], path: str) -> Iterator[re.Match[str]]:
    return regex.finditer(path) if _FOLDER in regex.groupindex else iter(())


class Chain:
    """The rules that hold in one folder: its own before those of the folders above it."""

    __slots__ = ("_rules",)

    def __init__(self, rules: tuple[tuple[int, Rules], ...] = ()) -> None:
        self._rules = rules  # innermost first, each with the length of the path it counts from

    def __bool__(self) -> bool:
        return bool(self._rules)

    def below(self, base: str, rules: Rules) -> Chain:
        """The chain in the folder `base` ("" or with "/" at the end), which has `rules` of its own."""
        return Chain(((len(base), rules), *self._rules))

    def decide(self, path: str) -> bool | None:
        """Whether `path` (a folder's ends with "/") is left out; None: no pattern says anything of it."""
        for start, rules in self._rules:
            decided = rules.decide(path[start:])
            if decided is not None:
                return decided
        return None


def left_out(lines_: Sequence[str]) -> Chain:
    """The patterns of source.exclude. ConfigError: one is no pattern."""
    with _patterns_of("source.exclude"):
        return Chain().below("", Rules(lines_)) if lines_ else Chain()


def wanted(lines_: Sequence[str]) -> Callable[[str], bool] | None:
    """Whether the patterns of source.include match a file or a folder above it; None: there are none.

    Raises:
        ConfigError: one is no pattern.
    """
    with _patterns_of("source.include"):
        return pathspec.GitIgnoreSpec.from_lines(lines_).match_file if lines_ else None


@contextlib.contextmanager
def _patterns_of(key: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise errors.ConfigError(f"{key}: {error}", "Patterns are written as in a .gitignore file.") from error


def read(path: bytes) -> Rules:
    """The rules in the file at `path`.

    Raises:
        OSError: it cannot be read, or is no regular file (opening a FIFO would wait for ever).
        ValueError: it is not a list of patterns.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  (bytes)
        raise ValueError("is not a regular file")
    with open(path, "rb") as file:  # noqa: PTH123  (bytes)
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"is larger than {MAX_BYTES:,} bytes")
    return Rules(lines(data))


def lines(data: bytes) -> list[str]:
    r"""The patterns of a file, one a line as git reads them: a byte order mark and a return before the line's end do
    not count, other control characters do. Bytes that are no UTF-8 match names as scan.text_name writes them (`\xNN`).
    """
    text = data.removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    found = (line.removesuffix("\r") for line in text.split("\n"))
    return [_UNDECODED.sub(lambda match: f"\\\\x{ord(match[0]) - 0xDC00:02x}", line) for line in found]
