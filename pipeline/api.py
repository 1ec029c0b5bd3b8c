"""For scripts: a collection opened once and asked many times, from ordinary code without asyncio.

The same as the commands do, with the same settings from the same places; a publication that a nightly run makes
meanwhile is seen by the next question.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import pyarrow.compute as pc

from pipeline import answer, config, config_load, errors, filters, search
from pipeline.models import Vectors
from pipeline.serve.answering import answers
from pipeline.serve.meter import Meter
from pipeline.serve.shelf import Opened, Shelf

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A document of a collection.

    Attributes:
        path: below its source folder; of one inside an archive or a mail "mail.eml!/report.pdf".
        title: from inside the document; "" where it has none.
        media_type: such as "application/pdf".
        modified: of its file, in UTC.
        text: as it was read; offsets of hits are code points into it.
    """

    path: str
    title: str
    media_type: str
    modified: datetime
    text: str


def open_collection(
    name: str | None = None, *, data: str | Path | None = None, config_file: str | Path | None = None
) -> Collection:
    """Open a collection to ask it. Close it afterwards, or use it in a `with`.

    Args:
        name: of the collection; data: the folder of the pipeline's data; config_file: settings in TOML. What is left
            out comes from where the commands take it: PIPELINE_* variables, ./pipeline.toml, the user's own file.

    Raises:
        ConfigError: the settings are wrong. NoIndex: nothing is published in it.
        ModelError: its embedding model cannot be reached.
    """
    flags = {"collection": name, "data": None if data is None else str(data)}
    named = None if config_file is None else str(config_file)
    project = config_load.find_project_file(named, os.environ, Path.cwd())
    loaded = config_load.load(flags, os.environ, project, config_load.find_user_file())
    return Collection(loaded.settings)


class Collection:
    """An open collection. Its methods may be called from several threads."""

    def __init__(self, settings: config.Settings) -> None:
        """See `open_collection`."""
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pipeline", daemon=True)
        self._thread.start()
        self._shelf = Shelf(settings, Meter())
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the model and the index. May be called twice."""
        if self._loop.is_closed():
            return
        self._wait(self._shelf.aclose())
        self._wait(self._loop.shutdown_asyncgens())
        self._wait(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def name(self) -> str:
        return self._settings.collection

    @property
    def model(self) -> str:
        """The embedding model that the collection was built with."""
        return self._open().spec.model

    def search(
        self,
        question: str,
        *,
        top_k: int | None = None,
        mode: Literal["hybrid", "vector", "text"] | None = None,
        where: Sequence[str] = (),
    ) -> list[search.Hit]:
        """The passages that fit `question` best, best first.

        Args:
            where: filters as after `--where`, such as "path=minutes/" or "type=pdf"; all must hold.

        Raises:
            UsageError: an empty question, or a filter that is none. ModelError: the question cannot be embedded.
        """
        wanted = _filters(where)
        return list(self._wait(self._shelf.find(self.name, question, top_k=top_k, mode=mode, where=wanted)).hits)

    def ask(self, question: str, *, where: Sequence[str] = ()) -> answer.Answer:
        """The answer to `question` from the documents: its text, its citations, its sources, and whether there is one
        (`abstained`).

        Raises:
            UsageError: as `search`. ModelError: the question cannot be embedded, or nobody answers.
        """
        *_, ending = self.stream(question, where=where)
        assert isinstance(ending, answer.Answer)
        if ending.error is not None:
            raise ending.error
        return ending

    def stream(self, question: str, *, where: Sequence[str] = ()) -> Iterator[str | answer.Answer]:
        """The same as it is written: pieces of text, and the Answer at last; its `error` says what ended it early."""
        events = answers(self._shelf, self.name, question, _filters(where))
        try:
            while (event := self._wait(anext(events, None))) is not None:
                yield event
        finally:
            self._wait(events.aclose())

    def documents(self) -> Iterator[Document]:
        """Every document that is published, in order of path, a shard of them in memory at a time."""
        opened = self._open()
        snapshot = opened.collection.snapshot(opened.standing.note.snapshot or None)
        if snapshot is None:
            raise errors.StoreError("The list of the published documents is gone.", errors.MEND)
        alive = snapshot.table.filter(pc.is_valid(snapshot.table["doc_id"]))
        columns = ["doc_id", "title", "media_type", "text"]
        shard, rows = "", dict[str, dict[str, Any]]()
        for file in alive.to_pylist():
            if file["shard"] != shard:
                shard = file["shard"]
                rows = {row["doc_id"]: row for row in opened.collection.read_documents(shard, columns).to_pylist()}
            row = rows[file["doc_id"]]
            modified = datetime.fromtimestamp(file["mtime_ns"] / 1e9, UTC)
            yield Document(
                path=file["uri"], title=row["title"], media_type=row["media_type"], modified=modified, text=row["text"]
            )

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of texts exactly as given, by the collection's model, shape (len(texts), dims).

        Raises:
            TextRejected: one is empty or too long. ModelError: the model cannot be reached.
        """
        return self._wait(self._shelf.embed(self.name, texts)).vectors

    def _open(self) -> Opened:
        return self._wait(self._shelf.open(self.name))

    def _wait(self, work: Awaitable[T]) -> T:
        """The result of `work`, done in the thread of the models."""

        async def awaited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(awaited(), self._loop).result()


def _filters(where: Sequence[str]) -> filters.Filters | None:
    return filters.parse(where, datetime.now()) if where else None
