"""Which passages may be found: conditions over what is known of them, as predicates of the index.

A user's filter is one short word of text: FIELD OPERATOR VALUE, such as `type=pdf`; several must all hold. A predicate
is made of column names and operators from this module and of values as literals (lance.quote), so that nothing that
anybody types is ever syntax; `Predicate` is a type of its own so that no other text is taken for one.

Names are compared as they are written, but for the two ways in which Unicode writes an accent (NFC, and NFD as macOS
stores names): both are tried. "~" ignores case. A negation is the exact opposite: a document without pages fulfils
`page!=3`.

When a file was changed stands in the snapshot, not in the index (a touched file would otherwise rewrite its rows);
`Filters.changed` says what is asked of it, and changed.py looks it up.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pipeline import changed, errors, lance
from pipeline.lance import Predicate
from pipeline.readers import formats

__all__ = [
    "COLUMNS",
    "NOTHING",
    "USAGE",
    "Filters",
    "Predicate",
    "Test",
    "all_of",
    "any_of",
    "compare",
    "empty",
    "negated",
    "parse",
]

Test = Literal["is", "contains", "starts", "ends", "<", "<=", ">", ">="]

COLUMNS = {
    "path": "uri",
    "title": "title",
    "type": "media_type",
    "page": "page",
    "heading": "heading",
    "document": "doc_id",
}
USAGE = {
    "path": "path=docs/2026/  path=*.pdf  path~report   a folder, a file or a pattern as in .gitignore; ~: contains",
    "type": "type=pdf  type=pdf,docx  type=text/*       an ending or a media type",
    "title": "title~handbook                            = or ~ (contains, any case)",
    "heading": "heading~leave                             any of the headings above the passage; = or ~",
    "page": "page=3  page=3-7  page<=3",
    "modified": "modified>2026-01-01  modified>7d          7d, 24h: so long ago; also 2026, 2026-03, today",
}
_OPERATORS = {
    "path": ("=", "!=", "~", "!~"),
    "type": ("=", "!="),
    "title": ("=", "!=", "~", "!~"),
    "heading": ("=", "!=", "~", "!~"),
    "page": ("=", "!=", "<", "<=", ">", ">="),
    "modified": ("=", "!=", "<", "<=", ">", ">="),
}
_LARGEST = 1e18  # what a page is compared with at most; infinity is no literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """What a user's filters come to; all must hold.

    Attributes:
        predicate: of the index; None: no condition of it.
        changed: conditions of the time of a file's last change.
        said: the filters as typed; `now`: when.
    """

    predicate: Predicate | None = None
    changed: tuple[changed.Span, ...] = ()
    said: tuple[str, ...] = ()
    now: datetime | None = None

    @property
    def names_paths(self) -> bool:
        """Whether `below` may change anything."""
        return any(_split(text)[:2] in (("path", "="), ("path", "!=")) for text in self.said)

    def below(self, folder: str) -> Filters:
        """The same, where paths of documents begin below `folder`, and people write it before them."""
        return parse(self.said, self.now, folder) if self.now is not None else self


# -- predicates


def compare(name: str, test: Test, value: str | float) -> Predicate:
    """The field `name` (of COLUMNS) against a value: text as it is written and by code points, `page` by number where
    the test is of order or equality.

    Raises:
        UsageError: a page compared with what is no number, or text that no index can hold.
    """
    column = COLUMNS[name]
    if name == "page" and test not in ("contains", "starts", "ends"):
        return Predicate(f"(CAST(page AS double) {'=' if test == 'is' else test} {_number(value)})")
    if name == "page":
        column = "CAST(page AS string)"
    literal = _literal(str(value))
    match test:
        case "is":
            return Predicate(f"({column} = {literal})")
        case "contains" | "starts" | "ends":
            function = {"contains": "contains", "starts": "starts_with", "ends": "ends_with"}[test]
            return Predicate(f"{function}({column}, {literal})")
    return Predicate(f"({column} {test} {literal})")


def contains_any_case(name: str, value: str) -> Predicate:
    """Whether the field holds `value`, upper and lower case alike."""
    lowered = f"replace(lower({COLUMNS[name]}), 'ς', 'σ')"  # a sigma's small form depends on its place in the word
    forms = {form.lower().replace("ς", "σ") for form in _forms(value)}
    return any_of(Predicate(f"contains({lowered}, {_literal(form)})") for form in sorted(forms))


def empty(name: str) -> Predicate:
    return Predicate("(page IS NULL)") if name == "page" else Predicate(f"({COLUMNS[name]} = '')")


def all_of(parts: Iterable[Predicate]) -> Predicate | None:
    """Every one of them; None where there is none."""
    found = list(parts)
    return Predicate(f"({' AND '.join(found)})") if len(found) > 1 else found[0] if found else None


def any_of(parts: Iterable[Predicate]) -> Predicate:
    """One of them at least; none holds where there is none."""
    found = list(parts)
    return Predicate(f"({' OR '.join(found)})") if len(found) > 1 else found[0] if found else NOTHING


def negated(part: Predicate) -> Predicate:
    """Where `part` does not hold, a missing page included."""
    return Predicate(f"(NOT coalesce({part}, false))")


NOTHING, EVERYTHING = Predicate("false"), Predicate("true")


def _literal(value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise errors.UsageError(f"A filter holds what is no text: {value!r}.", "Set LANG to a UTF-8 locale.")
    return lance.quote(value)


def _number(value: str | float) -> str:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise errors.UsageError(f"A page is compared with numbers, not with {value!r}.")
    return f"CAST('{min(max(number, -_LARGEST), _LARGEST)!r}' AS double)"


def _forms(value: str) -> list[str]:
    """The ways in which a name may be stored that reads as `value`."""
    return sorted({value, unicodedata.normalize("NFC", value), unicodedata.normalize("NFD", value)})


# -- what users type

_FILTER = re.compile(r"\s*([A-Za-z]+)\s*(!=|<=|>=|!~|=|<|>|~)\s*(.*?)\s*", re.DOTALL)


def parse(texts: Sequence[str], now: datetime, folder: str = "") -> Filters:
    """Filters as typed.

    Args:
        now: the local time (without a zone) that "7d" and "today" are counted from.
        folder: the one that was indexed, where there is one only. The index knows paths below it; people also write
            `docs/2026/` for what is `2026/` in the folder `docs`, and whole paths.

    Raises:
        UsageError: one cannot be read; the remedy lists the fields.
    """
    parts: list[Predicate] = []
    spans: list[changed.Span] = []
    for text in texts:
        name, operator, value = _split(text)
        try:
            if name == "modified":
                spans.append(changed.span(operator, value, now))
            else:
                parts.append(_predicate(name, operator, value, folder))
        except ValueError as error:
            raise _unreadable(text, str(error)) from None
    return Filters(predicate=all_of(parts), changed=tuple(spans), said=tuple(texts), now=now)


def _split(text: str) -> tuple[str, str, str]:
    found = _FILTER.fullmatch(text)
    if found is None:
        raise _unreadable(text, "it is not FIELD=VALUE")
    name, operator, value = found[1].lower(), found[2], found[3]
    if name not in USAGE:
        raise _unreadable(text, f"there is no field {name!r}")
    if operator not in _OPERATORS[name]:
        raise _unreadable(text, f"{name} takes {' '.join(_OPERATORS[name])}, not {operator}")
    if not value:
        raise _unreadable(text, "the value is missing")
    return name, operator, value


def _unreadable(text: str, why: str) -> errors.UsageError:
    fields = "\n".join(f"  {line}" for line in USAGE.values())
    return errors.UsageError(f"--where {text!r}: {why}.", f"Fields (quote those with <, > or *):\n{fields}")


def _predicate(name: str, operator: str, value: str, folder: str) -> Predicate:
    made = {"type": _type, "page": _page, "title": _title, "heading": _heading}
    positive = operator.removeprefix("!")
    if positive == "~":
        found = contains_any_case(name, value)
    elif name == "path":
        found = any_of(map(_path, [value, *_inside(value, folder)]))
    else:
        found = made[name](positive, value)
    return negated(found) if operator.startswith("!") else found


def _inside(value: str, folder: str) -> list[str]:
    """What follows the indexed folder in `value`, as a path that begins there."""
    whole, value = folder.rstrip("/"), value.removeprefix("./")
    starts = [start for start in (whole, whole.rpartition("/")[2]) if start and value.startswith(f"{start}/")]
    return [value.removeprefix(start) for start in starts]


def _path(value: str) -> Predicate:
    r"""A file or folder, with all that is below and in it, by the rules of gitignore(5): a name without a slash, but at
    its end, is looked for at every depth; "*" and "?" stay within one name, "**" does not; "/" at the end: a folder.
    """
    pattern = value.removeprefix("./")
    anywhere = "/" not in pattern.rstrip("/")
    only_inside = pattern.endswith("/")
    pattern = pattern.strip("/")
    if not pattern:
        return EVERYTHING
    made: Callable[[str, bool, bool], Predicate] = _glob if "*" in pattern or "?" in pattern else _plain
    return any_of(made(form, anywhere, only_inside) for form in _forms(pattern))


def _plain(path: str, anywhere: bool, only_inside: bool) -> Predicate:
    """What is inside a file (an archive, a mail) follows it after "!/"."""
    folders = [f"{path}/", f"{path}!/"]
    parts = [compare("path", "starts", folder) for folder in folders]
    if anywhere:
        parts += [compare("path", "contains", f"/{folder}") for folder in folders]
    if not only_inside:
        parts.append(compare("path", "is", path))
        if anywhere:
            parts.append(compare("path", "ends", f"/{path}"))
    return any_of(parts)


_WILD = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_WILD_OR_NOT = re.compile(r"\*\*/|\*\*|\*|\?|[^*?]+")
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~-]")  # of Rust's regular expressions


def _glob(pattern: str, anywhere: bool, only_inside: bool) -> Predicate:
    parts = [_WILD.get(part) or _SPECIAL.sub(r"\\\g<0>", part) for part in _WILD_OR_NOT.findall(pattern)]
    regex = f"(?s)^{'(?:.*/)?' if anywhere else ''}{''.join(parts)}{'!?/.*' if only_inside else '(?:!?/.*)?'}$"
    return Predicate(f"regexp_like(uri, {_literal(regex)})")


_TYPE = re.compile(r"[\w.+-]+(/(\*|[\w.+*-]+))?")


def _type(_: str, value: str) -> Predicate:
    return any_of(_one_type(one.strip().lower()) for one in value.split(","))


def _one_type(value: str) -> Predicate:
    """A media type, or an ending. A format's own name stands for all of its endings; a PDF is one by any name."""
    if not _TYPE.fullmatch(value):
        raise ValueError(f"{value!r} is no ending and no media type")
    if "/" in value:
        return compare("type", "starts", value[:-1]) if value.endswith("/*") else compare("type", "is", value)
    ending = value.removeprefix(".")
    parts = [Predicate(f"ends_with(lower(uri), {_literal(f'.{ending}')})")]
    named, extended = formats.FORMATS.get(ending), formats.BY_EXTENSION.get(ending)
    if named is not None:
        parts.append(compare("type", "is", named.media_type))
    elif extended is not None and extended.binary:
        parts.append(compare("type", "is", extended.media_type))
    return any_of(parts)


_RANGE = re.compile(r"([0-9]+)\s*(?:-|\.\.)\s*([0-9]+)")


def _page(operator: str, value: str) -> Predicate:
    if (span := _RANGE.fullmatch(value)) is not None and operator == "=":
        first, last = (compare("page", ">=", span[1]), compare("page", "<=", span[2]))
        return Predicate(f"({first} AND {last})")
    if not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError(f"{value!r} is no page")
    tests: Mapping[str, Test] = {"=": "is", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
    return compare("page", tests[operator], value)


def _title(_: str, value: str) -> Predicate:
    return any_of(compare("title", "is", form) for form in _forms(value))


def _heading(_: str, value: str) -> Predicate:
    """One of the headings above the passage, or the whole path of them (`A > B`)."""
    tests: tuple[tuple[Test, str], ...] = (
        ("is", "{}"),
        ("starts", "{} > "),
        ("ends", " > {}"),
        ("contains", " > {} > "),
    )
    return any_of(compare("heading", test, text.format(form)) for form in _forms(value) for test, text in tests)
