"""A line of `pipeline doctor`: plain data. Knows no setting and no server."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from pipeline import errors

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at, what was found, and what to type or change (empty where nothing need be)."""

    level: Level
    name: str
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def failed(name: str, error: errors.PipelineError, remedy: str = "", level: Level = "fail") -> Check:
    """`error` as a line. `remedy` stands in for the error's own where that has none."""
    return Check(level=level, name=name, detail=error.message, remedy=error.remedy or remedy or SEE_MESSAGE)


SEE_MESSAGE = "Mend what the message names, and run `pipeline doctor` again."
