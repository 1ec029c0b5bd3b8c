"""How long work says how far it is. Knows neither terminals nor files: the command line draws, `Silent` does not.

Tasks of a run: "files", "chunks", "texts" (with `tokens=` for the rate), "rows"; of a download: "pull" in unit "B".
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from one thread only; every call returns at once."""

    def start(self, task: str, total: int | None, unit: str) -> None:
        """Begin a task. `total`: None while it is unknown. A task that runs already is left as it is."""
        ...

    def advance(self, task: str, n: int = 1, **counts: int) -> None:
        """`n` more are done; `counts`: what they held, such as tokens=512."""
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

    def advance(self, task: str, n: int = 1, **counts: int) -> None:
        pass

    def grow(self, task: str, n: int) -> None:
        pass

    def message(self, text: str) -> None:
        pass

    def finish(self, task: str) -> None:
        pass
