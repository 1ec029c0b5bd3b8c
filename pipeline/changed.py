"""When files were changed, as a filter: what users type of times, and which files of a snapshot it means.

The time stands in the snapshot alone: in the index, a file that was only touched would have its rows rewritten. So a
time becomes a set of files. Two ways lead from it to the index, by cost (200,000 passages of 20,000 files, two cores):
a predicate that lists them, or lists the others, costs 7 microseconds a file; without one a search takes more rows and
leaves out what does not belong, which is cheap where much belongs. See `Files.few`.

Knows times and columns of a snapshot; nothing of searching.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import lance, schema

MOST_LISTED = 3_000  # files in a predicate, where there is another way: 20 ms
LEAST_SHARE = 0.03  # of the files that belong, for the other way
_NS = 1_000_000_000
_EVER = (-(1 << 63), (1 << 63) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Files changed from `start` until before `end`, nanoseconds of Unix time; `outside`: the others."""

    start: int
    end: int
    outside: bool = False


class Files:
    """The files of a snapshot that were changed within all of `spans`."""

    def __init__(self, snapshot: pa.Table, spans: Sequence[Span]) -> None:
        """`snapshot`: at least the columns uri, mtime_ns and doc_id of schema.SNAPSHOT."""
        documents = snapshot.select(["uri", "mtime_ns"]).filter(pc.is_valid(snapshot["doc_id"]))
        times = documents["mtime_ns"].to_numpy()
        mask = np.ones(len(times), np.bool_)
        for one in spans:
            mask &= ((times >= one.start) & (times < one.end)) != one.outside
        self.wanted: pa.ChunkedArray[Any] = documents["uri"].filter(pa.array(mask))
        self._documents, self._mask = documents, mask

    @functools.cached_property
    def others(self) -> pa.ChunkedArray[Any]:
        return self._documents["uri"].filter(pa.array(~self._mask))

    @property
    def share(self) -> float:
        """Of all files, from 0 to 1."""
        return len(self.wanted) / len(self._documents) if len(self._documents) else 0.0

    @property
    def few(self) -> bool:
        """Whether to list a side: it is short, or so little belongs that too many rows would be fetched for it.

        Of 20,000 files with 17 % wanted both take as long; with half of them wanted, a list takes six times as long.
        """
        shorter = min(len(self.wanted), len(self._documents) - len(self.wanted))
        return shorter <= MOST_LISTED or self.share < LEAST_SHARE

    @property
    def predicate(self) -> lance.Predicate:
        """The shorter side, listed."""
        if 2 * len(self.wanted) <= len(self._documents):
            return lance.Predicate(f"uri IN ({_literals(self.wanted)})" if len(self.wanted) else "false")
        return lance.Predicate(f"uri NOT IN ({_literals(self.others)})" if len(self.others) else "true")

    def mask(self, uris: pa.ChunkedArray[Any]) -> pa.Array[Any]:
        """Which of these are wanted. A pass over all that are, 20 ms for 500,000: the few are hashed, not the many."""
        present = self.wanted.filter(pc.is_in(self.wanted, value_set=pc.unique(uris)))
        found: pa.Array[Any] = pc.is_in(uris, value_set=present.combine_chunks())
        return found


def _literals(uris: pa.ChunkedArray[Any]) -> str:
    return ", ".join(map(lance.quote, schema.strings(uris)))


# -- what users type

_AGO = re.compile(r"([0-9]{1,6})\s*([hdwy])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}


def span(operator: str, value: str, now: datetime) -> Span:
    """The files that `modified`, `operator` and `value` mean, at the local time `now` (without a zone).

    "<" and ">" are before and after all of what is named: `modified>2026-03` begins in April. "7d" is a moment, so long
    ago.

    Raises:
        ValueError: it is no time; the message says why.
    """
    try:
        start, end = _named(value, now)
    except (OverflowError, OSError) as error:
        raise ValueError(f"{value!r} is out of range ({error})") from error
    if start == end and operator in ("=", "!="):
        raise ValueError(f"{value!r} is a moment: use < or >")
    match operator:
        case "<":
            return Span(start=_EVER[0], end=start)
        case "<=":
            return Span(start=_EVER[0], end=end)
        case ">":
            return Span(start=end, end=_EVER[1])
        case ">=":
            return Span(start=start, end=_EVER[1])
    return Span(start=start, end=end, outside=operator == "!=")


def _named(value: str, now: datetime) -> tuple[int, int]:
    """The first nanosecond of what `value` names, and the first one after it."""
    today = now.date()
    if (ago := _AGO.fullmatch(value.lower())) is not None:
        return (_ns(now - int(ago[1]) * _UNITS[ago[2]]),) * 2
    if value.lower() in ("today", "yesterday"):
        day = today - timedelta(days=value.lower() == "yesterday")
        return _ns(_midnight(day)), _ns(_midnight(day + timedelta(days=1)))
    if (found := re.fullmatch(r"([0-9]{4})(?:-([0-9]{2}))?(?:-([0-9]{2}))?", value)) is not None:
        year, month, day_ = (int(part) if part else 0 for part in found.groups())
        first = date(year, month or 1, day_ or 1)
        after = date(year + 1, 1, 1) if not month else first.replace(day=28) + timedelta(days=4)
        after = after.replace(day=1) if not day_ else first + timedelta(days=1)
        return _ns(_midnight(first)), _ns(_midnight(after))
    moment = datetime.fromisoformat(value)
    return (_ns(moment),) * 2


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)


def _ns(moment: datetime) -> int:
    """Nanoseconds of Unix time; a moment without a zone is local."""
    return int(moment.replace(microsecond=0).timestamp()) * _NS + moment.microsecond * 1000
