"""The command that answers: its words as they come, then its sources and what should be known about it."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import click

from pipeline import errors
from pipeline.cli import failures, options
from pipeline.cli.state import State, color, put_json

if TYPE_CHECKING:
    from pipeline import answer, asking, config

T = TypeVar("T")

PATIENCE_S = 8.0  # without a word, before the user is told what it waits for; a cold start takes two to four


@options.command("ask")
@click.argument("question", nargs=-1, required=True)
@click.option("--top-k", metavar="N", help="So many passages.")
@options.where
@options.reranker
@click.option("--force", is_flag=True, help="Answer even if the documents do not seem to.")
@options.json_output
@click.pass_obj
def ask(state: State, question: tuple[str, ...], top_k: str | None, where: tuple[str, ...], force: bool) -> int:
    """Answer a question from the documents, with citations.

    Each sentence is compared with the passage that it cites; what does not hold is told after the answer, and so is a
    file that has changed since.

    Exit code 4: the documents do not answer it, and no model was asked. 5: the model server does not answer in time.
    """
    settings = state.load(ask__passages=top_k).settings
    from pipeline import asking, filters
    from pipeline.cli import render

    asked = " ".join(question)
    wish = asking.Wish(where=filters.parse(where, datetime.now()) if where else None, force=force)
    found = asyncio.run(_answer(state, settings, asked, wish))
    if state.json:
        put_json({"question": asked, **found.to_json()})
    else:
        click.echo("\n" + "\n".join(["", *render.sources(found)]), color=color())
        for note in found.notes:
            state.say(note)
    if found.error is not None:  # after the words that came before it
        failures.complain_of(found.error)
        return found.error.exit_code
    if found.judgement is not None and found.judgement.refused:
        state.say(render.judgement(found.judgement))
    if found.abstained:
        state.suggest(shlex.join(["search", *question]) if force else shlex.join(["ask", "--force", *question]))
    return errors.NoAnswer.exit_code if found.abstained else 0


async def _answer(state: State, settings: config.Settings, question: str, wish: asking.Wish) -> answer.Answer:
    from pipeline import answer, asking

    async for event in Showing(lambda: state.say(waiting(settings))).events(asking.ask(settings, question, wish)):
        if isinstance(event, answer.Answer):
            return event
        if not state.json:
            put(event)
    raise AssertionError("a stream of answer events ends with an Answer")


def put(text: str) -> None:
    """A piece of an answer on stdout."""
    click.echo(text, nl=False, color=color())


@dataclass(frozen=True, slots=True)
class Showing:
    """A stream of events as it comes; `late` is called once if the first is long in coming."""

    late: Callable[[], None]
    patience_s: float = PATIENCE_S

    async def events(self, stream: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The same events. The stream is closed at the end, whatever it is."""
        async with aclosing(stream):
            first = asyncio.ensure_future(anext(stream))
            try:
                done, _ = await asyncio.wait({first}, timeout=self.patience_s)
                if not done:
                    self.late()
                yield await first
            finally:
                await _ended(first)
            async for event in stream:
                yield event


async def _ended(task: asyncio.Future[T]) -> None:
    """Wait for a task that is not wanted any more: a stream cannot be closed while somebody is in it."""
    task.cancel()
    await asyncio.wait({task})


def waiting(settings: config.Settings) -> str:
    """What an answer may be waiting for."""
    from pipeline import opening

    writer = opening.collection_of(settings).writer()
    run = f"a run is under way ({writer}) and may keep the model server busy"
    why = run if writer else "programs and models are still being loaded"
    limit = f"; the model has {settings.ask.wait_s:g} s (ask.wait_s)" if settings.ask.wait_s else ""
    return f"No word yet: {why}{limit}."
