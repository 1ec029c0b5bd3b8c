"""Where the exceptions of parsers end."""

from __future__ import annotations

import logging
from types import TracebackType

from pipeline import errors

logger = logging.getLogger(__name__)


class one_error:  # noqa: N801  a context manager, used as a statement
    """The one seam: on bytes from anywhere parsers raise anything, so that all of it means "damaged".

    MemoryError passes: it is the worker's matter. So does what is not an Exception.
    """

    def __init__(self, who: str) -> None:
        self._who = who

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, (errors.DocumentError, MemoryError)) or not isinstance(error, Exception):
            return
        logger.debug("%s failed", self._who, exc_info=error)
        what = (
            "nested too deeply"
            if isinstance(error, RecursionError)
            else " ".join(f"{type(error).__name__}: {error}".split())
        )
        raise errors.DocumentError("damaged", f"{self._who} cannot read it ({what[:300]})") from error
