"""What an address asks for: the question, how it is searched for, and the filters; with what is wrong about each.

A field is one condition of filters.py, written for people: `modified` means "changed since". Knows parameters; nothing
of HTML.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pipeline import errors, filters

MODES = ("hybrid", "vector", "text")
MOST_HITS = 100
LONGEST = 4_000  # characters of a question; an address may be longer than a server likes
FILTERS = ("path", "type", "modified", "page", "heading")

_OPERATORS = {"path": "=", "type": "=", "modified": ">=", "page": "=", "heading": "~"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One question and how it is to be searched for.

    Attributes:
        question: as typed, without blanks around it. mode, top_k: None where the settings decide.
        given: the fields that are filled in, by name, as typed. where: what the filters come to; None: no filter.
        faults: of each field that cannot be read the word (words.py) that says why.
    """

    question: str = ""
    mode: str | None = None
    top_k: int | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    where: filters.Filters | None = None
    faults: Mapping[str, str] = field(default_factory=dict)

    @property
    def filtered(self) -> bool:
        return self.where is not None

    @property
    def said(self) -> tuple[str, ...]:
        """The filters as the command line takes them."""
        return self.where.said if self.where is not None else ()


def read(query: Mapping[str, str], now: datetime) -> Asked:
    """What these parameters ask for. `now`: the local time, without a zone, that "7d" is counted from."""
    given = {name: query.get(name, "").strip() for name in ("mode", "top_k", *FILTERS)}
    given = {name: value for name, value in given.items() if value}
    faults: dict[str, str] = {}
    question = query.get("q", "").strip()
    if len(question) > LONGEST:
        faults["q"] = "bad_q"
    if given.get("mode", MODES[0]) not in MODES:
        faults["mode"] = "bad_mode"
    number = given.get("top_k", "")
    if number and not (re.fullmatch("[0-9]{1,4}", number) and 1 <= int(number) <= MOST_HITS):
        faults["top_k"] = "bad_top_k"
    wanted = {name: _condition(name, given[name]) for name in FILTERS if name in given}
    faults |= {name: f"bad_{name}" for name, text in wanted.items() if not _readable(text, now)}
    sound = not faults
    return Asked(
        question=question,
        mode=given.get("mode") if sound else None,
        top_k=int(number) if number and sound else None,
        given=given,
        where=filters.parse(tuple(wanted.values()), now) if wanted and sound else None,
        faults=faults,
    )


def _condition(name: str, value: str) -> str:
    """A condition of filters.py; of a page (and a time) the comparison may be typed too: "<=3", "<2026"."""
    typed = name in ("page", "modified") and value[0] in "<>=!"
    return f"{name}{'' if typed else _OPERATORS[name]}{value}"


def _readable(text: str, now: datetime) -> bool:
    try:
        filters.parse((text,), now)
    except errors.UsageError:
        return False
    return True
