"""A question to an open collection, answered: what every interface that answers calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from pipeline import answer, asking, filters, surroundings
from pipeline.models import resolve
from pipeline.serve.shelf import Shelf


async def answers(
    shelf: Shelf, collection: str, question: str, where: filters.Filters | None = None
) -> AsyncGenerator[answer.AnswerEvent, None]:
    """The answer as it is written; what goes wrong before its first word is raised by the first event. `where`: from
    which passages.

    Raises:
        NoIndex, UsageError, ModelError: as `Shelf.find`; ModelError: nobody answers.
    """
    settings = shelf.settings
    found = await shelf.find(collection, question, top_k=asking.pool(settings.ask.passages), where=where)
    opened = found.opened
    params = asking.params(settings, opened.collection, opened.note, opened.spec)
    generator = await resolve.open_generator(settings)
    try:
        around = (opened.settings, opened.collection, opened.note, question, found.hits, generator, params)
        passages = await asyncio.to_thread(surroundings.for_answer, *around)
        async with aclosing(answer.answer(question, found.hits, generator, params, passages=passages)) as events:
            async for event in events:
                yield event if isinstance(event, str) else await asking.looked_at(event, opened.collection, opened.note)
    finally:
        if generator is not None:
            await generator.aclose()
