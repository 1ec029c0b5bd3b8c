"""A file that holds documents, read in turns: each is one call of a worker, as long as any other call may take.

A document that hangs, kills its worker or eats its memory costs itself: the worker has noted what it was at, and the
turn is taken again without it. Knows no folders, and nothing of what becomes of the documents.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from pipeline import errors, readers, tasks
from pipeline.readers.containers import SEPARATOR, Turn, may_hold
from pipeline.stages import ingest

MOST_FALLEN = 20  # documents of one file that may cost a worker each: then what is left of it is given up

_Answer = TypeVar("_Answer", tasks.Read, tasks.Preview)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallen:
    """A document inside a file that its worker did not survive."""

    path: str
    error: errors.WorkerError


@dataclass(frozen=True, slots=True)
class Unfinished:
    """The time was over before the file was read to its end."""


class Notes:
    """Where workers note what they are at: one file for each that may hold documents."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    @contextmanager
    def open(cls) -> Iterator[Notes]:
        with tempfile.TemporaryDirectory(prefix="pipeline-notes-") as folder:
            yield cls(Path(folder))

    def of(self, uri: str, index: int) -> Path | None:
        """The note for the file `index`; None for one whose name says that nothing is in it."""
        return self._folder / str(index) if may_hold(uri) else None

    def drop(self, index: int) -> None:
        """The file was read to its end."""
        (self._folder / str(index)).unlink(missing_ok=True)


async def turns(
    first: _Answer | errors.WorkerError,
    again: Callable[[Turn], asyncio.Future[_Answer]],
    note: Path | None,
    is_over: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[_Answer | errors.WorkerError | Fallen | Unfinished]:
    """The answers to all turns of a file, after the `first` has come. Ends with a WorkerError where the file itself
    costs a worker, and with Unfinished where `is_over` before the last turn.
    """
    turn, answer, fallen = Turn(), first, 0
    while True:
        if isinstance(answer, errors.WorkerError):
            at = tasks.noted(note) if note is not None else None
            fallen += 1
            if at is None or fallen > MOST_FALLEN:
                yield answer
                return
            yield Fallen(path=at[1], error=answer)
            turn = replace(turn, skip=turn.skip | {at[0]})
        else:
            yield answer
            rest = answer.rest if isinstance(answer, tasks.Read) else answer.read.rest
            if rest is None:
                return
            turn = rest
        if is_over():
            yield Unfinished()
            return
        try:
            answer = await again(turn)
        except errors.WorkerError as error:
            answer = error


def as_read(fallen: Fallen, file: ingest.Seen, options: readers.ReaderOptions) -> tasks.Read:
    """What is left of a document whose worker did not survive it."""
    uri = f"{file.uri}{SEPARATOR}{fallen.path}"
    return tasks.Read(
        seen=replace(file, uri=uri),
        content_hash="",
        reader=readers.reader_of(uri, options),
        kind=fallen.error.kind,
        reason=errors.in_a_line(fallen.error.message, fallen.error.remedy),
        container=file.uri,
    )
