"""Dify's `metadata_condition`: which passages may be found, by what is known of their documents.

The operators are those of Dify's `SupportedComparisonOperator`, with "null" and "not null" as names of "empty" and
"not empty". As in Dify's own filter, text is compared as it is written (case counts), a condition whose value is null
restricts nothing, and the items of "in" may be one text with commas. A negation is the exact opposite of what it
negates: a document without pages fulfils `page ≠ 3`. Order (>, <, ≥, ≤, before, after) is by number for `page`, and by
characters for the rest, which puts dates such as 2026-03-01 in their order.

They become a predicate of the index (filters.py), which is applied before anything is ranked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline import errors, filters
from pipeline.filters import Predicate, Test
from pipeline.serve import described

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

FIELDS = {
    "path": "path",
    "title": "title",
    "media_type": "type",
    "page": "page",
    "heading": "heading",
    "document_id": "document",
}  # names in our answers to Dify, and of filters.COLUMNS
Name = Annotated[str, Field(json_schema_extra=described.one_of(FIELDS))]


_NUMBER = r"\s*[-+]?[0-9]{1,15}(\.[0-9]{1,9})?\s*"
_NUMERIC: dict[str, Any] = {"anyOf": [{"type": ["number", "null"]}, {"type": "string", "pattern": f"^{_NUMBER}$"}]}
# For /openapi.json: a page is compared with numbers, but for the tests of how it is written.
_PAGES: dict[str, Any] = {
    "if": {
        "properties": {
            "name": {"anyOf": [{"const": "page"}, {"type": "array", "contains": {"const": "page"}}]},
            "comparison_operator": {"not": {"enum": ["contains", "not contains", "start with", "end with"]}},
        }
    },
    "then": {"properties": {"value": {"anyOf": [*_NUMERIC["anyOf"], {"type": "array", "items": _NUMERIC}]}}},
}


class Condition(BaseModel):
    """One comparison. `name`: one of FIELDS, or several, of which one must fulfil it (as Dify's documentation has it;
    its program sends one)."""

    model_config = ConfigDict(json_schema_extra=_PAGES)

    name: Name | list[Name]
    comparison_operator: Operator
    value: Item | list[Item] | None = None


class MetadataCondition(BaseModel):
    """All of them ("and", the default) or one of them must hold; none restricts nothing."""

    logical_operator: Literal["and", "or"] | None = "and"
    conditions: list[Condition] | None = None


def narrowing(condition: MetadataCondition) -> filters.Filters:
    """What may be found.

    Raises:
        UsageError: a field that there is none of, or a page compared with what is no number.
    """
    parts = [_holds(one) for one in condition.conditions or () if _restricts(one)]
    if condition.logical_operator == "or" and parts:
        return filters.Filters(predicate=filters.any_of(parts))
    return filters.Filters(predicate=filters.all_of(parts))


def _restricts(condition: Condition) -> bool:
    return condition.value is not None or condition.comparison_operator in _UNARY


def _holds(condition: Condition) -> Predicate:
    names = [condition.name] if isinstance(condition.name, str) else condition.name
    positive = _NEGATIONS.get(condition.comparison_operator)
    operator = positive or condition.comparison_operator
    holds = filters.any_of(_compare(operator, _field(name), condition.value) for name in names)
    return holds if positive is None else filters.negated(holds)


def _field(name: str) -> str:
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
_TESTS: dict[str, Test] = {
    "contains": "contains",
    "start with": "starts",
    "end with": "ends",
    "is": "is",
    "=": "is",
    "in": "is",
    ">": ">",
    "after": ">",
    "<": "<",
    "before": "<",
    "≥": ">=",
    "≤": "<=",
}


def _compare(operator: str, field: str, wanted: Item | list[Item] | None) -> Predicate:
    if operator in ("empty", "null"):
        return filters.empty(field)
    items = _items(wanted, split=operator == "in")
    return filters.any_of(filters.compare(field, _TESTS[operator], item) for item in items)


def _items(wanted: Item | list[Item] | None, *, split: bool) -> Sequence[Item]:
    if isinstance(wanted, str) and split:
        return [item.strip() for item in wanted.split(",")]
    return wanted if isinstance(wanted, list) else [] if wanted is None else [wanted]
