"""Every operator of Dify's metadata filter, on values one can check by eye, and its laws on any."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import errors
from pipeline.search import Hit
from pipeline.serve import citing
from pipeline.serve.conditions import FIELDS, Condition, MetadataCondition, Operator, accepts


def hit(**fields: Any) -> Hit:
    defaults: dict[str, Any] = dict.fromkeys(("chunk_id", "doc_id", "title", "media_type", "heading", "text"), "")
    numbers: dict[str, Any] = {"start": 0, "end": 0, "score": 0.5, "fused": 0.0, "path": "a.md"}
    nothing: dict[str, Any] = dict.fromkeys(("page", "similarity", "vector_rank", "text_rank"))
    return Hit(**defaults | numbers | nothing | fields)


def holds(name: str | list[str], operator: str, value: Any, **fields: Any) -> bool:
    one = {"name": name, "comparison_operator": operator, "value": value}
    return accepts(MetadataCondition.model_validate({"conditions": [one]}), hit(**fields))


PATH = "minutes/2026-03-01.md"


@pytest.mark.parametrize(
    ("name", "operator", "value", "expected"),
    [
        ("path", "contains", "2026", True),
        ("path", "contains", "MINUTES", False),
        ("path", "contains", ["x", "2026"], True),
        ("path", "not contains", "2026", False),
        ("path", "start with", "minutes/", True),
        ("path", "start with", "2026", False),
        ("path", "end with", ".md", True),
        ("path", "end with", "minutes", False),
        ("path", "is", PATH, True),
        ("path", "is", "minutes", False),
        ("path", "is not", PATH, False),
        ("path", "in", f"x.md, {PATH}", True),
        ("path", "in", ["x.md", PATH], True),
        ("path", "in", [], False),
        ("path", "not in", ["x.md", PATH], False),
        ("path", "not in", "x.md", True),
        ("path", "after", "minutes/2026-02", True),
        ("path", "before", "minutes/2026-02", False),
        ("page", "=", 3, True),
        ("page", "=", "3", True),
        ("page", "=", 3.5, False),
        ("page", "is", "3.0", True),
        ("page", "in", "1,3", True),
        ("page", "≠", 3, False),
        ("page", "≠", 4, True),
        ("page", ">", 2, True),
        ("page", ">", 3, False),
        ("page", "<", "10", True),
        ("page", "<", 3, False),
        ("page", "≥", 3, True),
        ("page", "≥", 4, False),
        ("page", "≤", 3, True),
        ("page", "≤", 2, False),
        ("page", "after", 2, True),
        ("page", "before", 2, False),
        ("page", "contains", "3", True),
        ("heading", "empty", None, True),
        ("heading", "null", None, True),
        ("heading", "not empty", None, False),
        ("page", "empty", None, False),
        ("page", "not null", None, True),
        ("title", "is", "Minutes", True),
        ("media_type", "end with", "markdown", True),
        ("document_id", "is", "d1", True),
        (["heading", "title"], "is", "Minutes", True),
        (["heading", "title"], "is not", "Minutes", False),
    ],
)
def test_operators(name: str | list[str], operator: str, value: Any, expected: bool) -> None:
    found = {"path": PATH, "title": "Minutes", "page": 3, "media_type": "text/markdown", "doc_id": "d1"}
    assert holds(name, operator, value, **found) is expected


def test_every_operator_is_tested_above() -> None:
    (mark,) = [mark for mark in test_operators.pytestmark if mark.name == "parametrize"]  # type: ignore[attr-defined]
    assert {case[1] for case in mark.args[1]} == set(get_args(Operator))
    assert {name for case in mark.args[1] if isinstance(case[0], str) for name in [case[0]]} == set(FIELDS)


@pytest.mark.parametrize("operator", ["=", ">", "<", "≥", "≤", "in", "before", "after", "contains"])
def test_a_document_without_pages_fulfils_no_comparison_of_pages(operator: str) -> None:
    assert not holds("page", operator, 1)


def test_a_condition_without_a_value_restricts_nothing() -> None:
    assert holds("path", "is", None)
    none = {"name": "path", "comparison_operator": "is", "value": None}
    other = {"name": "path", "comparison_operator": "is", "value": "x"}
    condition = MetadataCondition.model_validate({"logical_operator": "or", "conditions": [none, other]})
    assert not accepts(condition, hit())  # and does not make an "or" true either


@pytest.mark.parametrize("value", ["three", "nan", ""])
def test_a_page_is_compared_with_numbers(value: str) -> None:
    with pytest.raises(errors.UsageError, match="page is compared with numbers"):
        holds("page", ">", value, page=3)


def test_an_unknown_field_and_an_unknown_operator_are_refused() -> None:
    with pytest.raises(errors.UsageError, match="use path, title"):
        holds("author", "is", "x")
    with pytest.raises(ValidationError):
        holds("path", "matches", "x")


NEGATIONS = {
    "contains": "not contains",
    "is": "is not",
    "=": "≠",
    "empty": "not empty",
    "in": "not in",
    "<": "≥",
    ">": "≤",
}
TEXTS = st.text("ab,.", max_size=4)
PAGES = st.none() | st.integers(1, 4)


@given(path=TEXTS, page=PAGES, value=TEXTS, number=st.integers(0, 5))
def test_a_negation_is_the_opposite(path: str, page: int | None, value: str, number: int) -> None:
    for positive, negative in NEGATIONS.items():
        assert holds("path", positive, value, path=path) != holds("path", negative, value, path=path)
        if positive not in "<>" or page is not None:
            assert holds("page", positive, number, page=page) != holds("page", negative, number, page=page)


@given(path=TEXTS, values=st.lists(TEXTS, max_size=3))
def test_and_and_or_are_all_and_any(path: str, values: list[str]) -> None:
    ones = [Condition(name="path", comparison_operator="contains", value=value) for value in values]
    each = [accepts(MetadataCondition(conditions=[one]), hit(path=path)) for one in ones]
    assert accepts(MetadataCondition(logical_operator="and", conditions=ones), hit(path=path)) is all(each)
    assert accepts(MetadataCondition(logical_operator=None, conditions=ones), hit(path=path)) is all(each)
    expected = any(each) if ones else True
    assert accepts(MetadataCondition(logical_operator="or", conditions=ones), hit(path=path)) is expected


# --- how a passage is named


def test_source_lines() -> None:
    assert citing.source_line("docs/handbook.pdf", 3, "Leave > Annual") == "[handbook.pdf p.3 › Leave › Annual]"
    assert citing.source_line("a.md", None, "") == "[a.md]"
    assert citing.source_line("折/守则.md", None, "假期") == "[守则.md › 假期]"


@given(path=st.text(), heading=st.text(), page=PAGES)
def test_a_source_line_is_one_line_and_a_title_is_never_empty(path: str, heading: str, page: int | None) -> None:
    line = citing.source_line(path, page, heading)
    assert len(line.splitlines()) == 1
    assert line[0] + line[-1] == "[]"
    assert citing.title(hit(path=path, page=page)).strip()
