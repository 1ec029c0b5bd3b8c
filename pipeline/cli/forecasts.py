"""The commands that say what would be done: plan (other settings) and why (one file)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, color, put_json

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.settings_plan import SettingsPlan
    from pipeline.why import Why


@options.command("plan")
@click.option(
    "--set", "assignments", metavar="KEY=VALUE", multiple=True, required=True, help="A setting; may be repeated."
)
@options.json_output
@click.pass_obj
def plan(state: State, assignments: tuple[str, ...]) -> int:
    """Show what changed settings would cost.

    Such as `pipeline plan --set chunk.size=320`: how many vectors survive, what would be read, cut and embedded again,
    and how long that takes. Every document is really cut for this, in memory; nothing is written or embedded.
    """
    now = state.load().settings
    asked = _assignments(assignments)
    new = state.load(**{key.replace(".", "__"): value for key, value in asked.items()}).settings
    from pipeline import settings_plan

    changed = _changed(now, new, asked)
    if not changed:
        raise errors.UsageError("These settings are what they are asked to be.", "See `pipeline config show`.")
    found = settings_plan.plan(now, new, changed, state.progress())
    if state.json:
        put_json(found.to_json())
    for line in plan_lines(found):
        state.tell(line)
    return 0


def _assignments(words: Sequence[str]) -> dict[str, str]:
    from pipeline import config_load

    asked, known = dict[str, str](), list(config_load.keys())
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise errors.UsageError(f"--set {word}: write KEY=VALUE.", "Such as --set chunk.size=320.")
        if key not in known:
            near = config_load.nearest(key, known)
            hint = f"Did you mean {near}? " if near else ""
            raise errors.UsageError(
                f"--set {word}: there is no setting {key}.", f"{hint}`pipeline config show` lists all."
            )
        asked[key] = value
    return asked


def _changed(now: Settings, new: Settings, asked: dict[str, str]) -> dict[str, tuple[str, str]]:
    from pipeline import config_load

    before, after = config_load.flatten(now), config_load.flatten(new)
    return {key: (_shown(before[key]), _shown(after[key])) for key in asked if before[key] != after[key]}


def _shown(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return (text.lower() if isinstance(value, bool) else text) or "(none)"


def plan_lines(found: SettingsPlan) -> Iterator[str]:
    """What `pipeline plan` prints."""
    from pipeline.cli.progress_bars import clock_time
    from pipeline.cli.render import plain

    for key, before, after in found.changed:
        yield f"{key}: {plain(before)} -> {plain(after)}"
    yield f"{'documents':11}{found.documents:,}: {found.to_read:,} to read, {found.to_chunk:,} to cut again"
    if found.to_drop:
        yield f"{'':11}{found.to_drop:,} would go"
    share = f" ({found.surviving / found.chunks:.0%})" if found.chunks else ""
    yield f"{'chunks':11}{found.chunks:,} instead of {found.chunks_now:,}"
    yield f"{'vectors':11}{found.surviving:,} of {found.chunks:,} survive{share}"
    took = f", about {clock_time(found.seconds)} by earlier runs" if found.seconds is not None and found.texts else ""
    yield f"{'to embed':11}{found.texts:,} texts, {found.tokens:,} tokens with {found.model}{took}"
    if found.other_table:
        yield "Another model needs `pipeline migrate`: it builds a new table beside the one that serves."
    yield "Nothing was written."


@options.command("why")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
@options.json_output
@click.pass_obj
def why(state: State, file: Path) -> int:
    """Show what a run would do with one file, and why.

    FILE is a path, or a name as `pipeline search` shows it. Says whether it is unchanged, changed, rejected (for which
    reason) or left out (by which rule), and which of its chunks would be embedded; with -v each of them.
    """
    settings = state.load().settings
    from pipeline import why as reasons

    found = reasons.explain(settings, file)
    if state.json:
        put_json(found.to_json())
        return 0
    for line in why_lines(found, every=state.verbose):
        click.echo(line, color=color())
    return 0


def why_lines(found: Why, *, every: bool) -> Iterator[str]:
    """What `pipeline why` prints; `every`: with each chunk."""
    from pipeline.cli.render import plain

    verdict = "" if found.verdict in ("unchanged", "touched") else f"{found.verdict}: "
    yield f"{plain(found.uri)}: {verdict}{plain(found.summary)}"
    yield from (f"  {plain(cause)}" for cause in found.causes)
    if found.chunks:
        due = f"{found.to_embed:,} to embed, {found.tokens:,} tokens" if found.to_embed else "all have their vector"
        yield f"  {len(found.chunks):,} chunk{'' if len(found.chunks) == 1 else 's'}: {due}"
    for number, chunk in enumerate(found.chunks if every else (), start=1):
        heading = f" {plain(' > '.join(chunk.heading_path))}" if chunk.heading_path else ""
        state = "has its vector" if chunk.embedded else f"embed: {chunk.reason}"
        yield f"  {number:3}. {chunk.start}-{chunk.end}{heading}, {chunk.tokens} tokens: {plain(state)}"
        yield f"       {plain(chunk.text)}"
