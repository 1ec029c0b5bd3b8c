"""Dify's `metadata_condition`: which passages may be found, by what is known of their documents.

The operators are those of Dify's `SupportedComparisonOperator`, with "null" and "not null" as names of "empty" and
"not empty". As in Dify's own filter, text is compared as it is written (case counts), a condition whose value is null
restricts nothing, and the items of "in" may be one text with commas. A negation is the exact opposite of what it
negates: a document without pages fulfils `page ≠ 3`. Order (>, <, ≥, ≤, before, after) is by number for `page`, and by
characters for the rest, which puts dates such as 2026-03-01 in their order.

Knows hits; nothing of how they were found. The conditions are evaluated here, over the candidates of a search
(`dify.FILTERED_FROM`), not in the index.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

from pydantic import BaseModel

from pipeline import errors
from pipeline.search import Hit

Operator = Literal[
    "contains",
    "not contains",
    "start with",
    "end with",
    "is",
    "is not",
    "empty",
    "not empty",
    "null",
    "not null",
    "in",
    "not in",
    "=",
    "≠",
    ">",
    "<",
    "≥",
    "≤",
    "before",
    "after",
]
Item = str | int | float
Value = str | int | None

FIELDS: Mapping[str, Callable[[Hit], Value]] = {
    "path": lambda hit: hit.path,
    "title": lambda hit: hit.title,
    "media_type": lambda hit: hit.media_type,
    "page": lambda hit: hit.page,
    "heading": lambda hit: hit.heading,
    "document_id": lambda hit: hit.doc_id,
}


class Condition(BaseModel):
    """One comparison. `name`: one of FIELDS, or several, of which one must fulfil it (as Dify's documentation has it;
    its program sends one)."""

    name: str | list[str]
    comparison_operator: Operator
    value: Item | list[Item] | None = None


class MetadataCondition(BaseModel):
    """All of them ("and", the default) or one of them must hold; none restricts nothing."""

    logical_operator: Literal["and", "or"] | None = "and"
    conditions: list[Condition] | None = None


def accepts(condition: MetadataCondition, hit: Hit) -> bool:
    """Whether `hit` may be found.

    Raises:
        UsageError: a field that there is none of, or a page compared with what is no number.
    """
    results = [_holds(one, hit) for one in condition.conditions or () if _restricts(one)]
    return any(results) if condition.logical_operator == "or" and results else all(results)


def _restricts(condition: Condition) -> bool:
    return condition.value is not None or condition.comparison_operator in _UNARY


def _holds(condition: Condition, hit: Hit) -> bool:
    names = [condition.name] if isinstance(condition.name, str) else condition.name
    values = [_field(name)(hit) for name in names]
    positive = _NEGATIONS.get(condition.comparison_operator)
    holds = any(_compare(positive or condition.comparison_operator, value, condition.value) for value in values)
    return holds if positive is None else not holds


def _field(name: str) -> Callable[[Hit], Value]:
    if name not in FIELDS:
        raise errors.UsageError(f"There is no metadata field {name!r}: use {', '.join(FIELDS)}.")
    return FIELDS[name]


_UNARY = frozenset({"empty", "not empty", "null", "not null"})
_NEGATIONS = {
    "not contains": "contains",
    "is not": "is",
    "≠": "is",
    "not empty": "empty",
    "not null": "empty",
    "not in": "in",
}


def _compare(operator: str, value: Value, wanted: Item | list[Item] | None) -> bool:
    if operator in ("empty", "null"):
        return value in (None, "")
    if value is None:
        return False
    items = _items(wanted, split=operator == "in")
    return any(_one(operator, value, item) for item in items)


def _items(wanted: Item | list[Item] | None, *, split: bool) -> list[Item]:
    if isinstance(wanted, str) and split:
        return [item.strip() for item in wanted.split(",")]
    return wanted if isinstance(wanted, list) else [] if wanted is None else [wanted]


def _one(operator: str, value: str | int, item: Item) -> bool:
    match operator:
        case "contains":
            return str(item) in str(value)
        case "start with":
            return str(value).startswith(str(item))
        case "end with":
            return str(value).endswith(str(item))
    order = _order(value, item)
    match operator:
        case ">" | "after":
            return order > 0
        case "<" | "before":
            return order < 0
        case "≥":
            return order >= 0
        case "≤":
            return order <= 0
    return order == 0  # is, =, in


def _order(value: str | int, item: Item) -> int:
    """Below, at or above 0 as `value` is smaller than, equal to or greater than `item`."""
    if isinstance(value, str):
        return (value > str(item)) - (value < str(item))
    number = _number(item)
    return (value > number) - (value < number)


def _number(item: Item) -> float:
    try:
        number = float(item)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise errors.UsageError(f"A page is compared with numbers, not with {item!r}.")
    return number
