"""Filters as typed, against rows with awkward names: what they find, what they refuse, and that no value is syntax."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pathspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline import errors, filters, lance
from pipeline.filters import Test as Comparison
from tests import passages
from tests.passages import Passage, direction

NOW = datetime(2026, 3, 15, 12, 0)
ROOM = 200  # more than there are rows

PATHS = [
    "README.md",
    "docs/README.md",
    "docs/2026/plan.pdf",
    "docs/2026/Plan (final) [2].docx",
    "docs/2026b/plan.txt",
    "old/docs/2026/plan.pdf",
    "mails.mbox!/3/offer.pdf",
    "old/mails.mbox!/1.eml",
    "it's 100%_sure\\.md",
    'say "no"\nor yes.md',
    unicodedata.normalize("NFC", "café/menü.md"),
    unicodedata.normalize("NFD", "café/menü.md"),
    "手册/年假 规定.md",
    "ΟΔΟΣ/straße.md",
    "STRASSE.MD",
]
HEADINGS = [
    "",
    "Leave",
    "Leave > Annual",
    "Work > Leave > Annual > Carry over",
    "Sick leave",
    "年假 > 天数",
    "A' OR '1'='1",
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> lance.Reader:
    rows = [Passage(text=f"text {n}", uri=path, vector=(1.0, n)) for n, path in enumerate(PATHS)]
    headed = [
        Passage(
            text=f"headed {n}", uri="headed.md", heading=heading, title=heading.upper(), page=n or None, start=n * 100
        )
        for n, heading in enumerate(HEADINGS)
    ]
    return passages.publish(tmp_path_factory.mktemp("filters"), [*rows, *headed])


def found(reader: lance.Reader, where: lance.Predicate | None) -> list[dict[str, object]]:
    return reader.vector(direction(1.0), ROOM, where).to_pylist()


def paths(reader: lance.Reader, *typed: str) -> set[str]:
    return {str(row["uri"]) for row in found(reader, filters.parse(typed, NOW).predicate)} - {"headed.md"}


def headings(reader: lance.Reader, *typed: str) -> list[str]:
    rows = found(reader, filters.parse(("path=headed.md", *typed), NOW).predicate)
    return sorted(str(row["heading"]) for row in rows)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("path=docs/2026/", ["docs/2026/plan.pdf", "docs/2026/Plan (final) [2].docx"]),
        ("path=docs/2026", ["docs/2026/plan.pdf", "docs/2026/Plan (final) [2].docx"]),
        ("path=./docs/2026/", ["docs/2026/plan.pdf", "docs/2026/Plan (final) [2].docx"]),
        ("path=2026/", ["docs/2026/plan.pdf", "docs/2026/Plan (final) [2].docx", "old/docs/2026/plan.pdf"]),
        ("path=README.md", ["README.md", "docs/README.md"]),
        ("path=/README.md", ["README.md"]),
        ("path=README.md/", []),
        ("path=docs/*.md", ["docs/README.md"]),
        ("path=**/2026/*.pdf", ["docs/2026/plan.pdf", "old/docs/2026/plan.pdf"]),
        ("path=plan.???", ["docs/2026/plan.pdf", "docs/2026b/plan.txt", "old/docs/2026/plan.pdf"]),
        ("path=mails.mbox", ["mails.mbox!/3/offer.pdf", "old/mails.mbox!/1.eml"]),
        ("path=mails.mbox!/3/", ["mails.mbox!/3/offer.pdf"]),
        ("path=*.mbox", ["mails.mbox!/3/offer.pdf", "old/mails.mbox!/1.eml"]),
        ("path=Plan (final) [2].docx", ["docs/2026/Plan (final) [2].docx"]),
        ("path=*(final) [2].*", ["docs/2026/Plan (final) [2].docx"]),
        ("path=it's 100%_sure\\.md", ["it's 100%_sure\\.md"]),
        ("path~%_", ["it's 100%_sure\\.md"]),
        ("path~PLAN", [p for p in PATHS if "plan" in p.lower()]),
        ("path=café/", [PATHS[10], PATHS[11]]),
        ("path~CAFÉ", [PATHS[10], PATHS[11]]),
        ("path=caf?/*", [PATHS[10]]),  # one "?" is one code point, and NFD has two
        ("path~年假", ["手册/年假 规定.md"]),
        ("path=手册/", ["手册/年假 规定.md"]),
        ("path~οδος", ["ΟΔΟΣ/straße.md"]),
        ("path~Straße", ["ΟΔΟΣ/straße.md"]),
        ("type=md", [p for p in PATHS if p.lower().endswith(".md")]),
        ("type=.pdf,docx", [p for p in PATHS if p.endswith(("pdf", "docx"))]),
        ("type=text/markdown", PATHS),  # all rows of passages.py are
        ("type=text/*", PATHS),
        ("type=markdown", PATHS),
        ("type!=markdown", []),
        ("type=application/*", []),
        (" Path = /README.md ", ["README.md"]),
    ],
)
def test_paths_and_types(reader: lance.Reader, typed: str, expected: list[str]) -> None:
    assert paths(reader, typed) == set(expected)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("heading~leave", ["Leave", "Leave > Annual", "Sick leave", "Work > Leave > Annual > Carry over"]),
        ("heading=Leave", ["Leave", "Leave > Annual", "Work > Leave > Annual > Carry over"]),
        ("heading=Leave > Annual", ["Leave > Annual", "Work > Leave > Annual > Carry over"]),
        ("heading=leave", []),
        ("heading=天数", ["年假 > 天数"]),
        ("heading=A' OR '1'='1", ["A' OR '1'='1"]),
        ("heading!~leave", ["", "A' OR '1'='1", "年假 > 天数"]),
        ("title=LEAVE", ["Leave"]),
        ("title~sick", ["Sick leave"]),
        ("page=1", ["Leave"]),
        ("page=1-3", ["Leave", "Leave > Annual", "Work > Leave > Annual > Carry over"]),
        ("page>4", ["A' OR '1'='1", "年假 > 天数"]),
        ("page>=6", ["A' OR '1'='1"]),
        ("page<2", ["Leave"]),
        ("page<=1", ["Leave"]),
        ("page!=1", sorted(set(HEADINGS) - {"Leave"})),  # the one without a page too
    ],
)
def test_headings_titles_and_pages(reader: lance.Reader, typed: str, expected: list[str]) -> None:
    assert headings(reader, typed) == sorted(expected)


@pytest.mark.parametrize(
    ("typed", "as_well"),
    [
        ("path=docs/2026/", "path=/2026/"),
        ("path=./docs/2026/*.pdf", "path=/2026/*.pdf"),
        ("path=/home/me/docs/2026/", "path=/2026/"),
        ("path=/home/me/docs/", "path=/"),
        ("path=docs/", "path=/"),
        ("path=2026/", "path=2026/"),
        ("path=docs2/2026/", "path=docs2/2026/"),
    ],
)
def test_the_indexed_folder_may_stand_before_a_path(reader: lance.Reader, typed: str, as_well: str) -> None:
    below = filters.parse([typed], NOW).below("/home/me/docs")
    assert below.names_paths
    found_ = {str(row["uri"]) for row in found(reader, below.predicate)}
    assert found_ - {"headed.md"} == paths(reader, typed) | paths(reader, as_well)


def test_other_filters_have_no_folder_before_them() -> None:
    assert not filters.parse(["path~docs/", "type=pdf"], NOW).names_paths


def test_several_must_all_hold(reader: lance.Reader) -> None:
    assert paths(reader, "path~plan", "type=pdf", "path!=old/") == {"docs/2026/plan.pdf"}
    assert filters.parse((), NOW).predicate is None


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("", "not FIELD=VALUE"),
        ("docs/", "not FIELD=VALUE"),
        ("pge<=3", "no field 'pge'"),
        ("path<3", "path takes = != ~ !~, not <"),
        ("type~pdf", "type takes"),
        ("page~3", "page takes"),
        ("path=", "value is missing"),
        ("page=three", "'three' is no page"),
        ("page=-1", "is no page"),
        ("page<1-3", "is no page"),
        ("page=٣", "is no page"),
        ("page=99999999999", "is no page"),
        ("type=a b", "no ending and no media type"),
        ("type=pdf,", "no ending"),
        ("modified>soon", "soon"),
        ("modified>2026-13-01", "month"),
        ("modified=7d", "use < or >"),
        ("modified>999999y", "out of range"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_list_of_fields(typed: str, why: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        filters.parse([typed], NOW)
    assert why in caught.value.message
    assert all(usage in caught.value.remedy for usage in filters.USAGE.values())


def test_the_usage_of_each_field_can_be_typed() -> None:
    for name, line in filters.USAGE.items():
        shown = re.findall(rf"{name}[=~<>]+\S+", line)
        assert shown, line
        filters.parse(shown, NOW)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(errors.UsageError, match="no text"):
        filters.parse(["path=caf\udce9"], NOW)


# --- no value is syntax: each predicate is compared with Python's own idea of it

NASTY = "'\"%_\\*?[](){}^$|.;-/! \n\0aAbß中ΣéE\u0301"
VALUES = st.text(NASTY, min_size=1, max_size=6) | st.sampled_from([*PATHS, "' OR true --", "a') OR (1=1", "\\'; --"])
FIELDS = {"path": "uri", "title": "title", "heading": "heading", "document": "doc_id"}
ORACLE: dict[str, Callable[[str, str], bool]] = {
    "is": lambda have, value: have == value,
    "contains": lambda have, value: value in have,
    "starts": lambda have, value: have.startswith(value),
    "ends": lambda have, value: have.endswith(value),
    "<": lambda have, value: have < value,
    "<=": lambda have, value: have <= value,
    ">": lambda have, value: have > value,
    ">=": lambda have, value: have >= value,
}
SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(name=st.sampled_from(sorted(FIELDS)), test=st.sampled_from(sorted(ORACLE)), value=VALUES)
@example(name="path", test="is", value=PATHS[8])
@example(name="path", test="contains", value="\n")
def test_a_comparison_is_pythons(reader: lance.Reader, name: str, test: Comparison, value: str) -> None:
    everything = found(reader, None)
    expected = [row["chunk_id"] for row in everything if ORACLE[test](str(row[FIELDS[name]]), value)]
    where = filters.compare(name, test, value)
    assert [row["chunk_id"] for row in found(reader, where)] == expected
    rest = [row["chunk_id"] for row in everything if row["chunk_id"] not in expected]
    assert [row["chunk_id"] for row in found(reader, filters.negated(where))] == rest


@SLOW
@given(value=VALUES)
def test_tilde_ignores_case_and_the_form_of_accents(reader: lance.Reader, value: str) -> None:
    if not value.strip():
        return
    value = value.strip()
    forms = {unicodedata.normalize(form, value).lower().replace("ς", "σ") for form in ("NFC", "NFD")} | {
        value.lower().replace("ς", "σ")
    }
    expected = {path for path in PATHS if any(form in path.lower().replace("ς", "σ") for form in forms)}
    assert paths(reader, f"path~{value}") == expected


GLOBS = st.lists(
    st.sampled_from(["*", "**", "?", "docs", "2026", "plan", ".pdf", "README", ".md", "old", "Plan (final) [2]"]),
    min_size=1,
    max_size=4,
).flatmap(lambda parts: st.sampled_from(["/".join(parts), "".join(parts), "/" + "/".join(parts), "".join(parts) + "/"]))


@SLOW
@given(pattern=GLOBS)
@example(pattern="docs/**")
@example(pattern="**/plan.pdf")
def test_patterns_are_those_of_gitignore(reader: lance.Reader, pattern: str) -> None:
    if re.search(r"\*{3}|[^/]\*\*|\*\*[^/]", pattern):
        return  # two stars that are no whole name: git and its libraries disagree
    plain = [path for path in PATHS if "!" not in path and path.isascii()]
    escaped = re.sub(r"([\[\]!#\\])", r"\\\1", pattern)
    oracle = pathspec.GitIgnoreSpec.from_lines([escaped])
    assert paths(reader, f"path={pattern}") & set(plain) == {path for path in plain if oracle.match_file(path)}


# --- before the first k: three rows of many


@pytest.fixture(scope="module", params=[False, True], ids=["exact", "indexed"])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> lance.Reader:
    """10,000 rows in many directions, three of them in a folder of their own, far from the question."""
    rows = [
        Passage(text=f"apple {n}", uri=f"{n}.md", vector=(1.0, n % 97 / 97, n % 89 / 89, n % 83 / 83))
        for n in range(10_000)
    ]
    rare = [Passage(text=f"pear {n} apple", uri=f"rare/{n}.md", vector=(-1.0, n / 10, 0.5), page=n) for n in range(3)]
    folder: Path = tmp_path_factory.mktemp("many")
    table = lance.Table.open(folder, "chunks", passages.DIMS, passages.MADE_BY)
    table.add(passages.rows([*rows[:5000], *rare, *rows[5000:]]).to_reader())
    assert table.finish(vector_index_from=1_000 if request.param else 1_000_000).vector_index is request.param
    return lance.Reader.open(folder, "chunks")


def test_a_filter_is_applied_before_the_first_k(many: lance.Reader) -> None:
    where = filters.parse(["path=rare/"], NOW).predicate
    near = direction(1.0)
    assert {row["uri"] for row in many.vector(near, 50, where).to_pylist()} == {f"rare/{n}.md" for n in range(3)}
    assert {row["uri"] for row in many.text("apple", 50, where, near).to_pylist()} == {f"rare/{n}.md" for n in range(3)}
    two = filters.parse(["path=rare/", "page<=1"], NOW).predicate
    assert [row["page"] for row in many.vector(direction(-1.0), 1, two).to_pylist()] in ([0], [1])
    assert many.count(where) == 3
    assert many.vector(near, 50, filters.NOTHING).num_rows == 0
    assert many.text("apple", 50, filters.NOTHING).num_rows == 0
