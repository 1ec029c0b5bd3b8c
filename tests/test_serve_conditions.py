"""Every operator of Dify's metadata filter, on values one can check by eye, and its laws on any."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline import errors, lance, schema
from pipeline.search import Hit
from pipeline.serve import citing
from pipeline.serve.conditions import (
    FIELDS,
    Condition,
    MetadataCondition,
    Operator,
    narrowing,
)
from tests import passages
from tests.passages import Passage, direction


def hit(**fields: Any) -> Hit:
    defaults: dict[str, Any] = dict.fromkeys(("chunk_id", "doc_id", "title", "media_type", "heading", "text"), "")
    numbers: dict[str, Any] = {"start": 0, "end": 0, "score": 0.5, "fused": 0.0, "path": "a.md"}
    nothing: dict[str, Any] = dict.fromkeys(("page", "similarity", "vector_rank", "text_rank"))
    return Hit(**defaults | numbers | nothing | fields)


# By eye: the first is asked by `test_operators`, the others are every path of TEXTS and page of PAGES.
ONE = Passage(text="one", uri="minutes/2026-03-01.md", title="Minutes", page=3)
PATHS = ["".join(letters) for length in (1, 2, 3) for letters in itertools.product("ab,.", repeat=length)]
ROWS = [ONE, *(Passage(text=f"p {n}", uri=path, page=n % 5 or None) for n, path in enumerate(PATHS))]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> lance.Reader:
    return passages.publish(tmp_path_factory.mktemp("conditions"), ROWS)


def found(reader: lance.Reader, condition: MetadataCondition) -> set[str]:
    rows = reader.vector(direction(1.0), len(ROWS), narrowing(condition).predicate)
    return set(schema.strings(rows["uri"]))


def holds(reader: lance.Reader, name: str | list[str], operator: str, value: Any) -> bool:
    """Of ONE."""
    return ONE.uri in found(reader, one(name, operator, value))


def one(name: str | list[str], operator: str, value: Any) -> MetadataCondition:
    return MetadataCondition.model_validate(
        {"conditions": [{"name": name, "comparison_operator": operator, "value": value}]}
    )


PATH = ONE.uri


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
        ("document_id", "is", ONE.doc_id, True),
        (["heading", "title"], "is", "Minutes", True),
        (["heading", "title"], "is not", "Minutes", False),
    ],
)
def test_operators(reader: lance.Reader, name: str | list[str], operator: str, value: Any, expected: bool) -> None:
    assert holds(reader, name, operator, value) is expected


def test_every_operator_is_tested_above() -> None:
    (mark,) = [mark for mark in test_operators.pytestmark if mark.name == "parametrize"]
    assert {case[1] for case in mark.args[1]} == set(get_args(Operator))
    assert {name for case in mark.args[1] if isinstance(case[0], str) for name in [case[0]]} == set(FIELDS)


@pytest.mark.parametrize("operator", ["=", ">", "<", "≥", "≤", "in", "before", "after", "contains"])
def test_a_document_without_pages_fulfils_no_comparison_of_pages(reader: lance.Reader, operator: str) -> None:
    without = {row.uri for row in ROWS if row.page is None}
    assert without
    assert not without & found(reader, one("page", operator, 1))
    assert without <= found(reader, one("page", "≠", 1))


def test_a_condition_without_a_value_restricts_nothing(reader: lance.Reader) -> None:
    assert holds(reader, "path", "is", None)
    none = {"name": "path", "comparison_operator": "is", "value": None}
    other = {"name": "path", "comparison_operator": "is", "value": "x"}
    condition = MetadataCondition.model_validate({"logical_operator": "or", "conditions": [none, other]})
    assert not found(reader, condition)  # and does not make an "or" true either
    assert narrowing(MetadataCondition()).predicate is None


@pytest.mark.parametrize("value", ["three", "nan", ""])
def test_a_page_is_compared_with_numbers(value: str) -> None:
    with pytest.raises(errors.UsageError, match="page is compared with numbers"):
        narrowing(one("page", ">", value))


@pytest.mark.parametrize("value", ["inf", 1e400, 10**30, -(10**30)])
def test_numbers_beyond_the_index_compare(reader: lance.Reader, value: Any) -> None:
    assert holds(reader, "page", "<", value) is (float(value) > 0)
    assert not holds(reader, "page", "=", value)


def test_an_unknown_field_and_an_unknown_operator_are_refused() -> None:
    with pytest.raises(errors.UsageError, match="use path, title"):
        narrowing(one("author", "is", "x"))
    with pytest.raises(ValidationError):
        one("path", "matches", "x")


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
EVERY = {row.uri for row in ROWS}
PAGED = {row.uri for row in ROWS if row.page is not None}
SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(pair=st.sampled_from(sorted(NEGATIONS.items())), value=TEXTS, number=st.integers(0, 5))
def test_a_negation_is_the_opposite(reader: lance.Reader, pair: tuple[str, str], value: str, number: int) -> None:
    of_paths = [found(reader, one("path", operator, value)) for operator in pair]
    assert (of_paths[0] | of_paths[1], of_paths[0] & of_paths[1]) == (EVERY, set())
    of_pages = [found(reader, one("page", operator, number)) for operator in pair]
    assert (of_pages[0] | of_pages[1], of_pages[0] & of_pages[1]) == (PAGED if pair[0] in "<>" else EVERY, set())


@SLOW
@given(values=st.lists(TEXTS, max_size=3))
def test_and_and_or_are_all_and_any(reader: lance.Reader, values: list[str]) -> None:
    ones = [Condition(name="path", comparison_operator="contains", value=value) for value in values]
    each = [{row.uri for row in ROWS if value in row.uri} for value in values]
    every, some = set.intersection(EVERY, *each), set.union(set(), *each) if each else EVERY
    assert found(reader, MetadataCondition(conditions=ones)) == every
    assert found(reader, MetadataCondition(logical_operator=None, conditions=ones)) == every
    assert found(reader, MetadataCondition(logical_operator="or", conditions=ones)) == some


# --- how a passage is named


def test_source_lines() -> None:
    assert citing.source_line("docs/handbook.pdf", 3, "Leave > Annual") == "[handbook.pdf p.3 › Leave › Annual]"
    assert citing.source_line("a.md", None, "") == "[a.md]"
    assert citing.source_line("折/守则.md", None, "假期") == "[守则.md › 假期]"


@given(path=st.text(), heading=st.text(), page=st.none() | st.integers(1, 4))
def test_a_source_line_is_one_line_and_a_title_is_never_empty(path: str, heading: str, page: int | None) -> None:
    line = citing.source_line(path, page, heading)
    assert len(line.splitlines()) == 1
    assert line[0] + line[-1] == "[]"
    assert citing.title(hit(path=path, page=page)).strip()
