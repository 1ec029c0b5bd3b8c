"""A question to a collection, answered: searched for, judged, worded by a model, and its sources looked at once more.

Knows the order and the limits of time; a running job blocks nothing here, but a model server that is busy with it may
answer late.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from pipeline import answer, calibration, config, errors, filters, freshness, query, surroundings
from pipeline.models import EmbedderSpec, Generator, Message, resolve
from pipeline.query import Standing
from pipeline.store import Calibration, Collection, Published

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants of one answer, beside the settings.

    Attributes:
        top_k: passages shown to the model; 0: as the settings say.
        where: which passages may be found.
        force: answer even if the documents do not seem to.
        history: of the conversation, oldest first.
        generator: who answers; None: as the settings say, opened and closed here.
    """

    top_k: int = 0
    where: filters.Filters | None = None
    force: bool = False
    history: tuple[Message, ...] = ()
    generator: Generator | None = None


def params(
    settings: config.Settings, collection: Collection, note: Published | None, spec: EmbedderSpec
) -> answer.AskParams:
    """How the settings want questions to a collection to be answered, with the collection's own calibration."""
    return answer.AskParams(
        passages=settings.ask.passages,
        context_tokens=settings.ask.context_tokens,
        min_score=settings.ask.min_score,
        max_tokens=settings.generate.max_tokens,
        model=spec.model,
        languages=spec.languages,
        rows=note.rows if note is not None else 0,
        own=calibrated(collection, spec),
    )


def calibrated(collection: Collection, spec: EmbedderSpec) -> Calibration | None:
    """The collection's calibration for this embedder. One that cannot be read is passed over: it is a threshold."""
    try:
        found = collection.calibrations.newest()
    except errors.CorruptStore as error:
        log.warning("%s The built-in calibration is used.", error.message)
        return None
    return found if found is not None and found.spec == spec else None


def pool(passages: int) -> int:
    """Hits to search for where so many are shown: enough to judge the question by."""
    return max(passages, calibration.POOL)


async def ask(
    settings: config.Settings, question: str, wish: Wish | None = None, *, standing: Standing | None = None
) -> AsyncGenerator[answer.AnswerEvent, None]:
    """Search, then stream the answer; the last event is an `answer.Answer`.

    Raises:
        NoIndex: nothing is published. UsageError: an empty question.
        TransientFault: no word came within `ask.wait_s`. ModelError: the question cannot be embedded, or answered.
    """
    wish = wish or Wish()
    standing = standing or query.open_collection(settings)
    asked = params(settings, standing.collection, standing.note, standing.spec)
    asked = replace(
        asked,
        passages=wish.top_k or asked.passages,
        min_score=-1.0 if wish.force else asked.min_score,
        history=wish.history,
    )
    hits = await asyncio.to_thread(
        query.find, settings, question, top_k=pool(asked.passages), where=wish.where, standing=standing
    )
    generator = wish.generator or await resolve.open_generator(settings)
    try:
        around = (settings, standing.collection, standing.note, question, hits, generator, asked)
        passages = await asyncio.to_thread(surroundings.for_answer, *around)
        async with (
            aclosing(answer.answer(question, hits, generator, asked, passages=passages)) as events,
            aclosing(in_time(events, settings.ask.wait_s)) as timed,
        ):
            async for event in timed:
                yield event if isinstance(event, str) else await looked_at(event, standing.collection, standing.note)
    finally:
        if generator is not None and wish.generator is None:
            await generator.aclose()


async def in_time(
    events: AsyncGenerator[answer.AnswerEvent, None], wait_s: float
) -> AsyncGenerator[answer.AnswerEvent, None]:
    """The events, of which the first must come within `wait_s` seconds; 0: whenever it comes.

    Raises:
        TransientFault: it did not.
    """
    try:
        async with asyncio.timeout(wait_s or None):
            first = await anext(events)
    except TimeoutError:
        raise errors.TransientFault(
            f"The answering model said nothing within {wait_s:g} s (ask.wait_s).",
            "A run may keep the model server busy, or the model is being loaded: ask again later, set ask.wait_s "
            "higher, or read the passages themselves: pipeline search.",
        ) from None
    yield first
    async for event in events:
        yield event


async def looked_at(ending: answer.Answer, collection: Collection, note: Published | None) -> answer.Answer:
    """The same answer, which says of its sources whose file has changed since, or is gone."""
    uris = [source.hit.path for source in ending.sources]
    snapshot = note.snapshot if note is not None else 0
    stale = await asyncio.to_thread(freshness.stale, collection, snapshot, uris) if snapshot else {}
    sources = tuple(replace(source, stale=stale.get(source.hit.path, "")) for source in ending.sources)
    marked = [source for source in sources if source.stale and (source.cited or ending.abstained)]
    return replace(ending, sources=sources, notes=(*ending.notes, *map(_told, marked)))


def _told(source: answer.Source) -> str:
    what = "is gone" if source.stale == "gone" else "has changed since it was indexed"
    path = answer.terminal_safe(source.hit.path)
    return f"[{source.number}] {path} {what}: `pipeline run` brings the index up to date."
