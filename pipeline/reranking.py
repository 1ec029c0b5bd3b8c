"""The best hits of a search, put into the order of a reranker that reads each of them together with the question.

Knows hits and the Protocol; not which model it is, nor how hits were found.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline import config
from pipeline.models import rerank
from pipeline.models.rerank import Reranker, Scores
from pipeline.search import Hit

log = logging.getLogger(__name__)

Run = Callable[[Coroutine[Any, Any, Scores]], Scores]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a reranking took.

    Attributes:
        model: name of the reranker.
        passages: that it read; cut: of these, too long for it and read in part.
    """

    model: str
    passages: int
    cut: int
    seconds: float

    def to_json(self) -> dict[str, object]:
        return {"model": self.model, "passages": self.passages, "cut": self.cut, "seconds": round(self.seconds, 3)}


class Reordering:
    """A `search.Reorder` by a reranker; afterwards `work` tells what it took, None where there was nothing to read.

    A hit keeps its `score`, the cosine: a reranker's scale says nothing across questions, and a threshold must not
    depend on which model is set. What the reranker says stands in `rerank`.

    Args:
        top: of so many hits the order is its own; the others follow as they were.
        run: from a thread without an event loop, where a search runs, to where the reranker's connections live.
    """

    def __init__(self, reranker: Reranker, question: str, *, top: int, timeout_s: float, run: Run) -> None:
        self.work: Work | None = None
        self._reranker = reranker
        self._question = question
        self._top = top
        self._timeout_s = timeout_s
        self._run = run

    def warm(self) -> None:
        """Load the model, while the question is being embedded. Raises ModelError."""
        asyncio.run(self._reranker.open())

    def __call__(self, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits; of two that the reranker likes equally the one that came first comes first.

        Raises:
            ModelError: of the reranker. There is no falling back to the order before: whoever set a reranker would take
                that for its work.
        """
        read, rest = hits[: self._top], hits[self._top :]
        if not read:
            return list(hits)
        begun_s = time.perf_counter()
        texts = [passage(hit) for hit in read]
        scores = self._run(self._reranker.score(self._question, texts, timeout_s=self._timeout_s))
        seconds = time.perf_counter() - begun_s
        self.work = Work(model=self._reranker.name, passages=len(read), cut=scores.cut, seconds=seconds)
        log.info("%s read %d passages (%d of them in part) in %.2f s", self.work.model, len(read), scores.cut, seconds)
        order = sorted(range(len(read)), key=lambda i: (-scores.values[i], i))
        return [*(replace(read[i], rerank=scores.values[i]) for i in order), *rest]


def once(settings: config.Settings, question: str) -> Reordering | None:
    """For one question, by the reranker that the settings name; it is closed afterwards. None where they name none.

    Raises:
        ModelMissing: there is no such folder, or no model in it.
    """
    reranker = rerank.create(settings)
    return (
        None
        if reranker is None
        else of(settings, reranker, question, lambda asked: asyncio.run(_closing(reranker, asked)))
    )


def of(settings: config.Settings, reranker: Reranker, question: str, run: Run) -> Reordering:
    """As `once`, by a reranker that is kept open."""
    wanted = settings.search
    return Reordering(reranker, question, top=wanted.rerank_top, timeout_s=wanted.rerank_timeout_s, run=run)


async def _closing(reranker: Reranker, asked: Coroutine[Any, Any, Scores]) -> Scores:
    try:
        return await asked
    finally:
        await reranker.aclose()


def passage(hit: Hit) -> str:
    """What the model reads: the headings above the text, in which the subject is often named, and the text."""
    return f"{hit.heading}\n{hit.text}" if hit.heading else hit.text
