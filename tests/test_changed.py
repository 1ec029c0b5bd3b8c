"""Times as typed, the files of a snapshot that they mean, and both ways from those files to the index."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import changed, filters, lance, lance_reader, schema
from pipeline.changed import Span
from tests import passages
from tests.passages import Passage, direction

NOW = datetime(2026, 3, 15, 12, 0)


@pytest.fixture(autouse=True)
def berlin() -> Iterator[None]:
    """Midnight is local, and summer time begins on 29 March 2026."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("operator", "value", "first", "after"),
    [
        ("=", "2026", "2026-01-01T00:00+01:00", "2027-01-01T00:00+01:00"),
        ("=", "2026-03", "2026-03-01T00:00+01:00", "2026-04-01T00:00+02:00"),
        ("=", "2026-12", "2026-12-01T00:00+01:00", "2027-01-01T00:00+01:00"),
        ("=", "2026-03-29", "2026-03-29T00:00+01:00", "2026-03-30T00:00+02:00"),
        ("=", "today", "2026-03-15T00:00+01:00", "2026-03-16T00:00+01:00"),
        ("=", "Yesterday", "2026-03-14T00:00+01:00", "2026-03-15T00:00+01:00"),
        (">", "2026-03-29", "2026-03-30T00:00+02:00", None),
        (">=", "2026-03-29", "2026-03-29T00:00+01:00", None),
        ("<", "2026-03-29", None, "2026-03-29T00:00+01:00"),
        ("<=", "2026-03-29", None, "2026-03-30T00:00+02:00"),
        (">", "7d", "2026-03-08T12:00+01:00", None),
        ("<", "24h", None, "2026-03-14T12:00+01:00"),
        (">=", "2 w", "2026-03-01T12:00+01:00", None),
        (">", "1y", "2025-03-15T12:00+01:00", None),
        (">", "2026-03-01T08:30", "2026-03-01T08:30+01:00", None),
        (">", "2026-03-01 08:30:15+00:00", "2026-03-01T08:30:15+00:00", None),
    ],
)
def test_spans(operator: str, value: str, first: str | None, after: str | None) -> None:
    found = changed.span(operator, value, NOW)
    assert found.start == (ns(first) if first else -(1 << 63))
    assert found.end == (ns(after) if after else (1 << 63) - 1)
    assert not found.outside


def test_not_then_is_before_and_after() -> None:
    assert changed.span("!=", "today", NOW) == Span(start=ns("2026-03-15"), end=ns("2026-03-16"), outside=True)


@pytest.mark.parametrize(
    "value", ["", "soon", "3", "2026-13", "2026-02-30", "12-2026", "7m", "0000", "999999y", "٢٠٢٦"]
)
def test_what_is_no_time_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        changed.span(">", value, NOW)


# --- from files to rows

FILES = 60


def snapshot(times: list[int]) -> pa.Table:
    columns = {
        "uri": [f"{n}.md" for n in range(len(times))],
        "mtime_ns": times,
        "doc_id": ["d"] * len(times),
    }
    return pa.table(columns, schema=pa.schema([schema.SNAPSHOT.field(name) for name in columns]))


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> lance.Reader:
    """Three passages of each file: the smaller its number, the nearer."""
    rows = [
        Passage(text=f"apple {part}", uri=f"{n}.md", vector=(1.0, (3 * n + part) / 100), start=part * 100)
        for n in range(FILES)
        for part in range(3)
    ]
    return passages.publish(tmp_path_factory.mktemp("changed"), rows)


def nearest(reader: lance.Reader, k: int, where: lance.Predicate | None, keep: lance.Keep | None) -> list[str]:
    return schema.strings(reader.vector(direction(1.0), k, where, keep)["uri"])


SLOW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SLOW
@given(
    times=st.lists(st.integers(0, 20), min_size=FILES, max_size=FILES),
    start=st.integers(0, 20),
    length=st.integers(0, 20),
    outside=st.booleans(),
    k=st.integers(1, 50),
    typed=st.booleans(),
)
def test_listed_or_left_out_afterwards_is_the_same(
    reader: lance.Reader, times: list[int], start: int, length: int, outside: bool, k: int, typed: bool
) -> None:
    files = changed.Files(snapshot(times), [Span(start=start, end=start + length, outside=outside)])
    wanted = [n for n in range(FILES) if (start <= times[n] < start + length) is not outside]
    assert schema.strings(files.wanted) == [f"{n}.md" for n in wanted]
    assert files.share == len(wanted) / FILES
    where = filters.parse(["path=*1.md"], NOW).predicate if typed else None
    expected = [f"{n}.md" for n in wanted if not typed or n % 10 == 1 for _ in range(3)][:k]
    assert nearest(reader, k, where, files) == expected
    assert nearest(reader, k, filters.all_of([one for one in (where, files.predicate) if one]), None) == expected
    words = reader.text("apple", k, where, keep=files)
    assert len(words) == len(expected)
    assert set(schema.strings(words["uri"])) <= {f"{n}.md" for n in wanted}


def test_the_predicate_lists_the_shorter_side() -> None:
    files = changed.Files(snapshot([1, 1, 1, 9]), [Span(start=5, end=10)])
    assert files.predicate == "uri IN ('3.md')"
    assert changed.Files(snapshot([1, 1, 1, 9]), [Span(start=0, end=5)]).predicate == "uri NOT IN ('3.md')"
    assert changed.Files(snapshot([1, 1]), [Span(start=0, end=5)]).predicate == "true"
    assert changed.Files(snapshot([1, 1]), [Span(start=5, end=9)]).predicate == "false"
    assert changed.Files(snapshot([]), [Span(start=5, end=9)]).share == 0.0


@pytest.mark.parametrize(
    ("files", "wanted", "listed"),
    [
        (10_000, 3_000, True),
        (10_000, 3_001, False),
        (10_000, 7_000, True),
        (10_000, 5_000, False),
        (200_000, 5_999, True),
        (200_000, 6_001, False),
    ],
)
def test_a_side_is_listed_where_it_is_short_or_little_belongs(files: int, wanted: int, listed: bool) -> None:
    assert changed.Files(snapshot([9] * wanted + [0] * (files - wanted)), [Span(start=5, end=10)]).few is listed


def test_files_without_a_text_do_not_count() -> None:
    table = snapshot([1, 2, 3])
    table = table.set_column(2, table.schema.field("doc_id"), pa.array(["d", None, "d"]))
    assert schema.strings(changed.Files(table, [Span(start=0, end=9)]).wanted) == ["0.md", "2.md"]


def test_what_belongs_but_ranks_last_is_found(tmp_path: Path) -> None:
    """More rows rank before it than are fetched to choose from: then the predicate decides."""
    many = lance_reader.MOST_FETCHED + 100
    rows = [Passage(text=f"p {n}", uri=f"{n}.md", vector=(1.0, n / many)) for n in range(many)]
    reader = passages.publish(tmp_path, rows)
    files = changed.Files(snapshot([0] * (many - 50) + [9] * 50), [Span(start=5, end=10)])
    assert nearest(reader, 3, None, files) == [f"{many - 50 + n}.md" for n in range(3)]
