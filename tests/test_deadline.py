"""Deadlines: spans, times of day over midnight and daylight saving, and clocks that are set back."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator

import pytest

from pipeline import errors
from pipeline.deadline import Deadline, next_time_of_day, span_s


@pytest.fixture
def berlin() -> Iterator[None]:
    """The zone whose clocks go forward on 2026-03-29 at 02:00 and back on 2026-10-25 at 03:00."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def unix(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6h", 21_600),
        ("90m", 5_400),
        ("1h30m", 5_400),
        ("45s", 45),
        ("2d", 172_800),
        ("1.5h", 5_400),
        (" 1d2h ", 93_600),
    ],
)
def test_a_span_is_a_number_with_its_unit(text: str, seconds: float) -> None:
    assert span_s(text) == seconds


@pytest.mark.parametrize("text", ["90", "6 hours", "-1h", "h", "1h6", "30m1h", ""])
def test_a_span_without_its_unit_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        span_s(text)
    assert "6h" in caught.value.remedy


@pytest.mark.parametrize(
    ("now", "asked", "then"),
    [
        ("2026-11-20T02:30:00+01:00", "06:00", "2026-11-20T06:00:00+01:00"),
        ("2026-11-20T06:00:00+01:00", "06:00", "2026-11-21T06:00:00+01:00"),
        ("2026-11-20T23:59:59+01:00", "0:00", "2026-11-21T00:00:00+01:00"),
        ("2026-12-31T22:00:00+01:00", "06:00", "2027-01-01T06:00:00+01:00"),
        ("2026-03-29T01:30:00+01:00", "06:00", "2026-03-29T06:00:00+02:00"),  # that night is an hour shorter
        ("2026-10-25T01:30:00+02:00", "06:00", "2026-10-25T06:00:00+01:00"),  # and this one an hour longer
    ],
)
def test_a_time_of_day_is_the_next_one(berlin: None, now: str, asked: str, then: str) -> None:
    assert next_time_of_day(asked, unix(now)) == unix(then)


@pytest.mark.parametrize("text", ["24:00", "06:60", "6", "six", "06:00:00", ""])
def test_a_time_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(errors.UsageError, match="time of day"):
        next_time_of_day(text, time.time())


def test_a_deadline_is_over_when_its_time_has_come() -> None:
    assert Deadline.after(0).over()
    later = Deadline.after(3600)
    left = later.left()
    assert left is not None
    assert 3590 < left <= 3600
    assert not later.over()
    assert later.earlier_by(3600).over()


def test_none_set_is_never_over() -> None:
    assert Deadline().left() is None
    assert not Deadline().over()
    assert not Deadline().earlier_by(1e9).over()
    assert not Deadline.of("", "").is_set


def test_of_a_span_and_a_time_the_earlier_one_counts() -> None:
    left = Deadline.of("1h", datetime.datetime.now().strftime("%H:%M")).left()  # this minute: tomorrow's
    assert left is not None
    assert left <= 3600


def test_a_wall_clock_set_back_does_not_lengthen_the_night() -> None:
    yesterday = Deadline.at("06:00", now=time.time())
    left = yesterday.left()
    assert left is not None
    set_back = Deadline(at_monotonic=time.monotonic(), at_wall=yesterday.at_wall + 86_400)
    assert set_back.over()
