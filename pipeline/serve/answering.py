"""A question to an open collection, answered: what every interface that answers calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from pipeline import answer, asking, explain, filters, surroundings
from pipeline.conversation import Exchange, sent_along, standalone
from pipeline.models import Generator, resolve
from pipeline.search import Hit
from pipeline.serve.shelf import Opened, Shelf


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A question that was searched for, and not yet answered.

    Attributes:
        passages: the hits with what stands around them, for the model; None: as they are.
        generator: who answers; None: nobody. Whoever prepared it closes it.
    """

    question: str
    opened: Opened
    hits: Sequence[Hit]
    passages: Sequence[Hit] | None
    generator: Generator | None
    params: answer.AskParams

    @property
    def shown(self) -> Sequence[Hit]:
        """What the model is shown, as far as it fits."""
        return list(self.passages if self.passages is not None else self.hits)[: self.params.passages]

    async def aclose(self) -> None:
        if self.generator is not None:
            await self.generator.aclose()


async def prepare(
    shelf: Shelf,
    collection: str,
    question: str,
    where: filters.Filters | None = None,
    trace: explain.Trace | None = None,
    said: Sequence[Exchange] = (),
) -> Prepared:
    """Search. `where`: which passages may be found; `trace`: is told how; `said`: before, oldest first: the question is
    made to stand alone, and the model reads it along.

    Raises:
        NoIndex, UsageError, ModelError: as `Shelf.find`; ModelError: nobody answers.
    """
    settings = shelf.settings
    pool = asking.pool(settings.ask.passages)
    generator = None
    try:
        if said:
            await shelf.open(collection)  # whether there is one at all is told before anything of a model
            generator = await resolve.open_generator(settings)
            question = await standalone(question, said, generator, settings.ask.wait_s)
        found = await shelf.find(collection, question, top_k=pool, where=where, trace=trace)
        opened = found.opened
        params = asking.params(settings, opened.collection, opened.note, opened.spec)
        params = replace(params, history=sent_along(said, settings.ask.history_tokens))
        generator = generator or await resolve.open_generator(settings)
        prepared = Prepared(
            question=question, opened=opened, hits=found.hits, passages=None, generator=generator, params=params
        )
        return await surrounded(prepared)
    except BaseException:
        if generator is not None:
            await generator.aclose()
        raise


async def surrounded(prepared: Prepared) -> Prepared:
    """The same with what stands around its hits, as much as its generator can take."""
    opened = prepared.opened
    around = (opened.settings, opened.collection, opened.note, prepared.question, prepared.hits)
    passages = await asyncio.to_thread(surroundings.for_answer, *around, prepared.generator, prepared.params)
    return replace(prepared, passages=passages)


async def write(prepared: Prepared) -> AsyncGenerator[answer.AnswerEvent, None]:
    """The answer as it is written; what goes wrong before its first word is raised by the first event.

    Raises:
        ModelError: the model failed before it said anything.
    """
    opened = prepared.opened
    written = answer.answer(
        prepared.question, prepared.hits, prepared.generator, prepared.params, passages=prepared.passages
    )
    async with aclosing(written) as events:
        async for event in events:
            yield event if isinstance(event, str) else await asking.looked_at(event, opened.collection, opened.note)


async def answers(
    shelf: Shelf,
    collection: str,
    question: str,
    where: filters.Filters | None = None,
    said: Sequence[Exchange] = (),
) -> AsyncGenerator[answer.AnswerEvent, None]:
    """`prepare` and `write`: the answer as it is written; what goes wrong before its first word is raised by the first
    event. `where`: from which passages; `said`: before.

    Raises:
        NoIndex, UsageError, ModelError: as `prepare`.
    """
    prepared = await prepare(shelf, collection, question, where, said=said)
    async with aclosing(prepared), aclosing(write(prepared)) as events:
        async for event in events:
            yield event
