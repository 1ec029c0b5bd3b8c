"""Hits with what stands around them, for people who search and for the model that answers.

Puts together what each knows: the publication's texts (texts.py), how far a hit may grow (expansion.py), and by whose
measure: the collection's own tokens for people, the careful estimate of prompts for an answering model.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline import answer, answer_prompt, config, expansion, live, tasks, texts
from pipeline.models import EmbedderSpec, Generator
from pipeline.search import Hit
from pipeline.store import Collection, Published


def shown(
    settings: config.Settings, collection: Collection, note: Published, spec: EmbedderSpec, hits: Sequence[Hit]
) -> list[expansion.Passage]:
    """The hits grown to `search.expand` tokens each, counted by the collection's own tokenizer."""
    tokenizer = tasks.tokenizer(spec.tokenizer, live.tokenizer_path(collection, spec))
    return expansion.expand(
        texts.of(collection.root, note.snapshot),
        hits,
        budget_tokens=expansion.UNLIMITED,
        each_tokens=settings.search.expand,
        count=lambda text: tokenizer.count([text])[0],
    )


def for_answer(
    settings: config.Settings,
    collection: Collection,
    note: Published | None,
    question: str,
    hits: Sequence[Hit],
    generator: Generator | None,
    params: answer.AskParams,
) -> list[Hit] | None:
    """What to show the model of the first `params.passages` hits: each grown to `ask.expand` tokens, all of them within
    its prompt, so that no hit loses its place to the surroundings of another. None where nothing is to be grown.
    """
    if not settings.ask.expand or generator is None or note is None:
        return None
    kept = hits[: params.passages]
    room = answer_prompt.room_for_texts(
        question,
        kept,
        context_tokens=params.context_tokens,
        window=generator.context_tokens,
        max_tokens=params.max_tokens,
        history=params.history,
    )
    passages = expansion.expand(
        texts.of(collection.root, note.snapshot),
        kept,
        budget_tokens=room,
        each_tokens=settings.ask.expand,
        count=lambda text: answer_prompt.estimate(answer_prompt.harmless(text)),
    )
    return [passage.as_hit() for passage in passages]
