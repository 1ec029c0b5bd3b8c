"""Log lines on stderr, between progress bars rather than through them."""

from __future__ import annotations

import logging
import sys


class StderrHandler(logging.Handler):
    """Writes "warning: text"; with `verbose` also the time, the logger and a traceback."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__()
        if verbose:
            self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            write(self.format(record) if self.formatter else f"{record.levelname.lower()}: {record.getMessage()}")
        except OSError:  # stderr is gone: nobody to tell
            self.handleError(record)


def write(text: str) -> None:
    """A line on stderr; bars that are being drawn are moved below it."""
    bars = sys.modules.get("tqdm")
    if bars is not None:
        bars.tqdm.write(text, file=sys.stderr)
    elif sys.stderr is not None:
        print(text, file=sys.stderr)  # noqa: T201
