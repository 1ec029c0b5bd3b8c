"""How long work says how far it is. Knows neither terminals nor files: the command line draws, `Silent` does not.

Tasks of a run: "files", "chunks", "contexts" (sentences), "texts" (with its Pace), "rows"; of a download: "pull", in
unit "B".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast model servers are, and what went wrong so far.

    Attributes:
        tokens_per_s: over the last seconds; average: since the first request.
        left_s: what the tokens known to be due will take; None while no rate is known.
        servers: that answered within the last minute; known_servers: in this run.
        retries: requests that failed and were sent again; rejected: texts given up.
    """

    tokens_per_s: float = 0.0
    average: float = 0.0
    left_s: float | None = None
    servers: int = 0
    known_servers: int = 0
    retries: int = 0
    rejected: int = 0


class Progress(Protocol):
    """Called from one thread only; every call returns at once."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task. `total`: None while it is unknown. A task that runs already is left as it is."""
        ...

    def advance(self, task: str, n: int = 1) -> None:
        """`n` more are done."""
        ...

    def pace(self, task: str, pace: Pace) -> None:
        """How it gets on, told every second: also while nothing advances."""
        ...

    def grow(self, task: str, n: int) -> None:
        """`n` more are known to be due: totals grow while a run streams."""
        ...

    def message(self, text: str) -> None:
        """A line for the person who waits."""
        ...

    def finish(self, task: str) -> None: ...


class Silent:
    """Nobody is watching."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, task: str, n: int = 1) -> None:
        pass

    def pace(self, task: str, pace: Pace) -> None:
        pass

    def grow(self, task: str, n: int) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def finish(self, task: str) -> None:
        pass
