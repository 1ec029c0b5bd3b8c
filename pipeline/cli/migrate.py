"""The command that changes the embedding model of a collection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, complain, put_json

if TYPE_CHECKING:
    from pipeline.migrate import Standing

FAILED_FILES = 3  # exit code: promoted, but the new model refused some chunks

_SHOWN = {"model": "The embedding model to change to.", "provider": "Who embeds with it; left out: as now."}


@options.command("migrate", shown=_SHOWN)
@click.option("--dims", type=click.IntRange(1, 65_536), metavar="N", help="Cut its vectors to this length.")
@click.option("--max-duration", metavar="TIME", help="Stop after so long, such as 6h; go on the next time.")
@click.option("--until", metavar="HH:MM", help="Stop at this time of day, such as 06:00.")
@click.option("--pull", is_flag=True, help="Let Ollama fetch the model if it lacks it.")
@click.option("--wait-lock", metavar="SECONDS", help="Wait so long for another run to end.")
@click.option("--status", "show", is_flag=True, help="Show how far it is, and do nothing.")
@click.option("--abort", is_flag=True, help="Give it up.")
@options.json_output
@click.pass_obj
def migrate(
    state: State,
    dims: int | None,
    max_duration: str | None,
    until: str | None,
    pull: bool,
    wait_lock: str | None,
    show: bool,
    abort: bool,
) -> int:
    """Change the embedding model, while the old one goes on serving.

    \b
    pipeline migrate --model bge-m3 --max-duration 6h    tonight
    pipeline migrate --max-duration 6h                   each night after it

    Embeds the same documents with the new model, over as many nights as it takes. Meanwhile search and ask use the old
    one, and `pipeline run` keeps it up to date: let both run each night, one after the other. When the new one is
    complete it takes the old one's place, at once and whole; `pipeline rollback` goes back.

    Exit code 0 also when the time was up before it was complete; 3: changed, but it refused some chunks.
    """
    from_flags = {key: state.flags.pop(f"embed.{key}", "") for key in ("provider", "model")}
    flags = {"run__max_duration": max_duration, "run__until": until, "run__wait_lock_s": wait_lock}
    settings = state.load(**{key: value for key, value in flags.items() if value is not None}).settings
    from pipeline import migrate as migration

    if show and abort:
        raise errors.UsageError("--status and --abort exclude each other.", "Give one of them.")
    if show:
        found = migration.status(settings)
    elif abort:
        found = migration.abort(settings)
    else:
        wish = migration.Wish(**from_flags, dims=dims or 0)
        found = migration.execute(settings, wish, state.progress(), pull=pull)
    return _tell(state, found)


def _tell(state: State, found: Standing) -> int:
    from pipeline.cli import render

    if state.json:
        put_json(found.to_json())
    for line in _lines(found):
        state.tell(line)
    for line in render.failures(found.failures):
        complain(line)
    if found.state == "building":
        state.suggest("migrate --max-duration 6h")
    if found.state == "promoted":
        state.suggest("history")
    return FAILED_FILES if found.state == "promoted" and found.failures else 0


def _lines(found: Standing) -> Iterator[str]:
    if found.state == "none":
        yield f"{found.before} ({found.dims} dimensions) serves; no other model is being built."
    elif found.state == "there already":
        yield f"The collection is embedded by {found.before} ({found.dims} dimensions) already. Nothing was done."
    elif found.state == "aborted":
        yield f"Gave up the change to {found.after}. {found.before} goes on serving."
        yield f"The {found.vectors:,} vectors of {found.after} are freed by `pipeline gc`."
    elif found.state == "promoted":
        yield f"Changed from {found.before} to {found.after} ({found.dims} dimensions), as snapshot {found.snapshot}."
        yield f"{found.vectors:,} of {found.chunks:,} chunks have their vector; {found.embedded_texts:,} made just now."
        yield "Take embed.model and embed.provider out of your settings where they name the old one."
    else:
        yield from _progress(found)


def _progress(found: Standing) -> Iterator[str]:
    from pipeline.cli.progress_bars import clock_time

    since = time.strftime("%Y-%m-%d", time.localtime(found.began_ms / 1000))
    share = f" ({found.vectors / found.chunks:.0%})" if found.chunks else ""
    yield f"From {found.before} to {found.after} ({found.dims} dimensions), since {since}."
    yield f"{found.vectors:,} of {found.chunks:,} chunks have their vector{share}, {found.texts_left:,} texts are left."
    if found.documents:
        yield f"{found.documents:,} documents are not cut for it yet."
    if found.seconds_left is not None:
        yield f"About {clock_time(found.seconds_left)} of embedding by the rate so far."
    yield f"Incomplete: {found.before} goes on serving."
