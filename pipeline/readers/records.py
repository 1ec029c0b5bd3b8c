"""JSON and JSON lines: one block per record, as lines of "key: value" with nesting by indentation.

JSON that is none (comments, several values, nested beyond the parser's depth) is read as the text it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipeline.readers import build, decode, lines, plain

_TITLE_KEYS = ("title", "name")
_MAX_INDENT = 20


def read(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data)
    value = _loads(text)
    if value is None:
        return build.Draft(title="", text=text, blocks=build.outline(text, plain.paragraphs(text)))
    builder = build.Builder()
    for record in _records(value):
        builder.add(render(record))
    return builder.draft(_title(value))


def read_lines(data: bytes, name: str) -> build.Draft:
    """JSON lines. A line that is not JSON is kept as it is."""
    text = decode.text_of(data)
    builder = build.Builder()
    for start, end in lines.lines(text):
        line = text[start:end]
        value = _loads(line)
        builder.add(line if value is None else render(value))
    return builder.draft()


def _loads(text: str) -> Any:
    """The value, numbers as written; None if it cannot be parsed (or is null: there is nothing in it then)."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except (ValueError, RecursionError):
        return None


def _title(value: Any) -> str:
    if isinstance(value, dict):
        for key in _TITLE_KEYS:
            if isinstance(value.get(key), str):
                return str(value[key])
    return ""


def _records(value: Any) -> Iterator[Any]:
    """Members of the outermost list; a dictionary in runs of short members, each long one (by its lists) on its own."""
    if isinstance(value, list):
        yield from value
    elif isinstance(value, dict):
        run: dict[str, Any] = {}
        for key, member in value.items():
            if isinstance(member, list) and any(isinstance(item, dict) for item in member):
                if run:
                    yield run
                    run = {}
                yield from ({key: item} for item in member)
            elif isinstance(member, (dict, list)):
                if run:
                    yield run
                    run = {}
                yield {key: member}
            else:
                run[key] = member
        if run:
            yield run
    else:
        yield value


def render(value: Any) -> str:
    """Readable text of a JSON value, in YAML's manner. Without recursion."""
    out: list[str] = []
    stack: list[tuple[int, str, Any]] = [(0, "", value)]
    while stack:
        depth, label, item = stack.pop()
        indent = "  " * min(depth, _MAX_INDENT)
        if isinstance(item, (dict, list)) and not item:
            continue
        if isinstance(item, dict):
            stack.extend(_members(out, indent, depth, label, list(item.items())))
        elif isinstance(item, list) and not any(isinstance(member, (dict, list)) for member in item):
            out.append(f"{indent}{label}{', '.join(map(_scalar, item))}")
        elif isinstance(item, list):
            stack.extend(_members(out, indent, depth, label, [("", member) for member in item]))
        else:
            out.append(f"{indent}{label}{_scalar(item)}")
    return "\n".join(out)


def _members(
    out: list[str], indent: str, depth: int, label: str, members: list[tuple[str, Any]]
) -> Iterator[tuple[int, str, Any]]:
    if label:
        out.append((indent + label).rstrip())
        depth += 1
    return ((depth, f"{key}: " if key else "- ", member) for key, member in reversed(members))


def _scalar(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
