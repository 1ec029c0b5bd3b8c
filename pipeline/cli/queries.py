"""The commands that ask: search and ask."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import failures, options
from pipeline.cli.state import State, color, put_json

if TYPE_CHECKING:
    from pipeline import answer, config

MODES = ("hybrid", "vector", "text")

_question = click.argument("question", nargs=-1, required=True)
_top_k = click.option("--top-k", metavar="N", help="So many passages.")


@options.command("search")
@_question
@_top_k
@click.option("--mode", type=click.Choice(MODES), help="By words and meaning (hybrid), by one of them.")
@options.json_output
@click.pass_obj
def search(state: State, question: tuple[str, ...], top_k: str | None, mode: str | None) -> int:
    """Show the passages that match a question best.

    The score lies between 0 and 1 and falls with the rank.
    """
    settings = state.load(search__top_k=top_k, search__mode=mode).settings
    from pipeline import query
    from pipeline.cli import render

    hits = query.find(settings, " ".join(question))
    if state.json:
        put_json({"question": " ".join(question), "hits": [hit.to_json() for hit in hits]})
        return 0
    for line in render.hits(hits, shutil.get_terminal_size((100, 24)).columns):
        click.echo(line, color=color())
    if not hits:
        state.say("No passage matches.")
    else:
        state.suggest(shlex.join(["ask", *question]))
    return 0


@options.command("ask")
@_question
@_top_k
@options.json_output
@click.pass_obj
def ask(state: State, question: tuple[str, ...], top_k: str | None) -> int:
    """Answer a question from the documents, with citations.

    Exit code 4: the documents do not answer it.
    """
    settings = state.load(ask__passages=top_k).settings
    import asyncio

    from pipeline.cli import render

    found = asyncio.run(_stream(settings, " ".join(question), show=not state.json))
    if state.json:
        put_json({"question": " ".join(question), **found.to_json()})
    else:
        click.echo("\n" + "\n".join(["", *render.sources(found)]))
        for note in found.notes:
            state.say(note)
    if found.error is not None:  # after the words that came before it
        failures.complain_of(found.error)
        return found.error.exit_code
    if found.abstained:
        state.suggest(shlex.join(["search", *question]))
    return errors.NoAnswer.exit_code if found.abstained else 0


async def _stream(settings: config.Settings, question: str, *, show: bool) -> answer.Answer:
    """Print the pieces of an answer as they come; return its end."""
    from pipeline import answer, query

    async for event in query.ask(settings, question):
        if isinstance(event, answer.Answer):
            return event
        if show:
            click.echo(event, nl=False)
    raise AssertionError("a stream of answer events ends with an Answer")
