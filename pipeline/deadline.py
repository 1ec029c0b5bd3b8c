"""When a run has to stop by: a span of time, a time of day, or never. Knows clocks, and nothing of what runs.

A time of day is watched on two clocks. The wall clock says when it is 06:00, also after the machine has slept; the
monotonic one holds where somebody sets the wall clock back, which else would lengthen the night by as much.
"""

from __future__ import annotations

import datetime
import math
import re
import time
from dataclasses import dataclass, field

from pipeline import errors

_SPAN = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2})")
_UNITS_S = (86_400.0, 3_600.0, 60.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadline:
    """A point in time; the default one never comes.

    Attributes:
        at_monotonic: of time.monotonic(). at_wall: of time.time(). The earlier one counts.
    """

    at_monotonic: float = math.inf
    at_wall: float = math.inf

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(at_monotonic=time.monotonic() + seconds)

    @classmethod
    def at(cls, time_of_day: str, *, now: float | None = None) -> Deadline:
        """The next `HH:MM` of the local clock, from `now` (Unix time, left out: the present) on: at 06:00 and
        later, "06:00" is tomorrow's.

        Raises:
            UsageError: no such time.
        """
        start = time.time() if now is None else now
        wall = next_time_of_day(time_of_day, start)
        return cls(at_wall=wall, at_monotonic=time.monotonic() + wall - start)

    @classmethod
    def of(cls, max_duration: str = "", until: str = "") -> Deadline:
        """The earlier of both; "" sets no limit.

        Raises:
            UsageError: not a span such as "6h", or not a time such as "06:00".
        """
        span = cls.after(span_s(max_duration)) if max_duration else cls()
        clock = cls.at(until) if until else cls()
        return span.earlier_of(clock)

    def earlier_of(self, other: Deadline) -> Deadline:
        return Deadline(
            at_monotonic=min(self.at_monotonic, other.at_monotonic), at_wall=min(self.at_wall, other.at_wall)
        )

    def earlier_by(self, seconds: float) -> Deadline:
        """The same, with `seconds` kept back for what has to be done afterwards."""
        return Deadline(at_monotonic=self.at_monotonic - seconds, at_wall=self.at_wall - seconds)

    @property
    def is_set(self) -> bool:
        """False: it never comes."""
        return math.isfinite(min(self.at_monotonic, self.at_wall))

    def left(self) -> float | None:
        """Seconds until then, 0 when it is over; None when it never comes."""
        if not self.is_set:
            return None
        return max(0.0, min(self.at_monotonic - time.monotonic(), self.at_wall - time.time()))

    def at_most(self, seconds: float) -> float:
        """`seconds`, or what is left where that is less."""
        left = self.left()
        return seconds if left is None else min(seconds, left)

    def over(self) -> bool:
        return self.left() == 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimit:
    """Until when a run may work, what it has to do at the end left out.

    Attributes:
        begin: from then on nothing new is begun. wait: what is in flight by then is not waited for any longer.
    """

    begin: Deadline = field(default_factory=Deadline)
    wait: Deadline = field(default_factory=Deadline)

    @property
    def is_set(self) -> bool:
        return self.begin.is_set


NEVER = TimeLimit()


def span_s(text: str) -> float:
    """Seconds of a span such as "6h", "90m", "1h30m", "45s" or "2d".

    A number alone is refused: `--wait-lock` counts seconds, people mean minutes.

    Raises:
        UsageError: it is none.
    """
    match = _SPAN.fullmatch(text.strip()) if text.strip() else None
    if match is None:
        raise errors.UsageError(f"{text!r} is not a length of time.", 'Write it with its unit, such as "6h" or "90m".')
    return sum(float(number or 0) * unit for number, unit in zip(match.groups(), _UNITS_S, strict=True))


def next_time_of_day(text: str, now: float) -> float:
    """Unix time of the first local `HH:MM` after `now`, today or tomorrow; daylight saving is the system's business.

    Raises:
        UsageError: no such time.
    """
    match = _TIME_OF_DAY.fullmatch(text.strip())
    hour, minute = (int(part) for part in match.groups()) if match else (99, 0)
    if hour > 23 or minute > 59:
        raise errors.UsageError(f"{text!r} is not a time of day.", 'Write hours and minutes, such as "06:00".')
    day = datetime.datetime.fromtimestamp(now)  # local time is what the user typed
    then = day.replace(hour=hour, minute=minute, second=0, microsecond=0, fold=0)
    while then.timestamp() <= now:  # twice at most: 02:30 may come once more where clocks go back
        then += datetime.timedelta(days=1)
    return then.timestamp()
