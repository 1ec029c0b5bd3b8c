"""The command that searches."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, color, put_json

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.expansion import Passage
    from pipeline.explain import Trace
    from pipeline.query import Standing
    from pipeline.search import Hit

MODES = ("hybrid", "vector", "text")

_question = click.argument("question", nargs=-1, required=True)
_top_k = click.option("--top-k", metavar="N", help="So many passages.")


@options.command("search")
@_question
@_top_k
@click.option("--mode", type=click.Choice(MODES), help="By words and meaning (hybrid), by one of them.")
@options.where
@click.option("--per-document", metavar="N", help="Most passages of one document; 0: no limit.")
@click.option("--expand", metavar="TOKENS", help="Show each with what stands around it under its heading, to so much.")
@options.reranker
@click.option("--explain", is_flag=True, help="Show how the passages were found, and what was left out.")
@options.json_output
@click.pass_obj
def search(
    state: State, /, question: tuple[str, ...], where: tuple[str, ...], explain: bool, **given: str | None
) -> int:
    """Show the passages that match a question best.

    The score lies between 0 and 1 and falls with the rank.
    """
    settings = state.load(**{f"search__{name}": value for name, value in given.items()}).settings
    from datetime import datetime

    from pipeline import filters, query, reranking
    from pipeline.explain import Trace

    trace = Trace() if explain else None
    asked, wanted = " ".join(question), filters.parse(where, datetime.now())
    standing, reordering = query.open_collection(settings), reranking.once(settings, asked)
    hits = query.find(settings, asked, where=wanted, standing=standing, reordering=reordering, trace=trace)
    passages = _grown(settings, standing, hits) if settings.search.expand else None
    work = None if reordering is None else reordering.work
    if state.json:
        told: dict[str, object] = {"rerank": work.to_json()} if work is not None else {}
        told |= {"passages": [one.to_json() for one in passages]} if passages is not None else {}
        told |= {"explain": trace.to_json()} if trace is not None else {}
        put_json({"question": asked, "hits": [hit.to_json() for hit in hits], **told})
        return 0
    _show(asked, hits, passages, trace)
    if work is not None:
        state.say(f"{work.model} read {work.passages} passages in {work.seconds:.2f} s.")
    if hits:
        state.suggest(shlex.join(["ask", *question]))
    else:
        state.say("No passage matches." if not where else "No passage matches within these filters.")
    return 0


def _grown(settings: Settings, standing: Standing, hits: Sequence[Hit]) -> list[Passage]:
    from pipeline import surroundings

    return surroundings.shown(settings, standing.collection, standing.note, standing.spec, hits)


def _show(question: str, hits: Sequence[Hit], passages: Sequence[Passage] | None, trace: Trace | None) -> None:
    from pipeline.cli import render_hits

    columns = shutil.get_terminal_size((100, 24)).columns
    lines = (
        render_hits.hits(hits, columns, question, terminal=sys.stdout.isatty())
        if passages is None
        else render_hits.passages(passages, hits, columns, question)
    )
    for line in lines:
        click.echo(line, color=color())
    if trace is not None:
        for line in render_hits.explained(trace, hits, columns):
            click.echo(line, color=color())
