"""Check a month of ten-minute records before it is published.

The program reads one CSV file of the Paired Ridges Weather Co-operative, for example
``WP1_2026-01.csv``, and gives each value a quality flag: ``G`` (good), ``D`` (doubtful) or ``M``
(missing). It never changes a value, and it never gives the flags ``C`` and ``E``: a correction
needs a technician, and estimates do not belong in ten-minute records.

Three checks are made, in this order. The first one that fails decides.

1. Range: is the value possible at all on our mountains?
2. Step: did it change by more than nature allows within ten minutes?
3. Persistence: has it stayed exactly the same for so long that the sensor must be stuck?

Usage: python check_observations.py WP1_2026-01.csv
"""

import csv
import sys
from collections.abc import Iterable, Iterator

# Lowest and highest possible value. The gust limit lies well above the record of Wether Pike,
# 52.7 m/s on 3 January 2012, so that a new record is not thrown away as an error.
RANGES = {
    "temperature_c": (-40.0, 45.0),
    "humidity_pct": (1.0, 100.0),
    "gust_ms": (0.0, 75.0),
    "pressure_hpa": (640.0, 1060.0),
    "precip_mm": (0.0, 30.0),
}

# Largest change between two neighbouring records. Wind and rain may jump, and have no limit.
STEPS = {"temperature_c": 5.0, "humidity_pct": 40.0, "pressure_hpa": 3.0}

# So many equal values in a row make a sensor suspicious. Rain may be 0.0 for weeks, and humidity
# stays at 100 in fog for days, so neither is checked.
PERSISTENCE = {"temperature_c": 18, "gust_ms": 6, "pressure_hpa": 18}


def flag_range(name: str, value: float) -> str:
    """Return ``D`` if ``value`` lies outside the range of the quantity ``name``, else ``G``.

    >>> flag_range("gust_ms", 52.7)
    'G'
    >>> flag_range("temperature_c", 61.0)
    'D'
    """
    low, high = RANGES[name]
    return "G" if low <= value <= high else "D"


def flag_step(name: str, before: float | None, value: float) -> str:
    """Return ``D`` if the change since the record ``before`` is larger than nature allows.

    A missing record before this one makes the check pass: after a gap the weather may have changed
    by any amount.
    """
    limit = STEPS.get(name)
    if limit is None or before is None:
        return "G"
    return "D" if abs(value - before) > limit else "G"


def flag_persistence(name: str, run_length: int) -> str:
    """Return ``D`` once a value has been repeated too often.

    Six equal gusts, which is one hour, are what an anemometer frozen solid looks like: it
    reports 0.0 without a fault code. This check found the ice of December 2017 a day
    before the observer did.
    """
    limit = PERSISTENCE.get(name)
    return "D" if limit is not None and run_length >= limit else "G"


def flags(name: str, values: Iterable[float | None]) -> Iterator[str]:
    """Yield one flag for each value of the quantity ``name``; ``None`` stands for an empty field."""
    before: float | None = None
    run_length = 0
    for value in values:
        if value is None:
            before, run_length = None, 0
            yield "M"
            continue
        run_length = run_length + 1 if value == before else 1
        results = (
            flag_range(name, value),
            flag_step(name, before, value),
            flag_persistence(name, run_length),
        )
        before = value
        yield "D" if "D" in results else "G"


def share_usable(all_flags: Iterable[str]) -> float:
    """Return the share of flags that are ``G`` or ``C``, from 0.0 to 1.0.

    The data policy asks for 0.90 before a month may be summarised.
    """
    marks = list(all_flags)
    return sum(mark in "GC" for mark in marks) / len(marks) if marks else 0.0


def main(path: str) -> int:
    """Print the usable share of each quantity in the file, and return 1 if one is below 0.90."""
    with open(path, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    worst = 1.0
    for name in RANGES:
        values = [float(row[name]) if row[name] else None for row in rows]
        share = share_usable(flags(name, values))
        worst = min(worst, share)
        print(f"{name:15} {share:6.1%}")
    return 0 if worst >= 0.90 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
