"""The commands that look and change nothing: status and doctor."""

from __future__ import annotations

import os

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, color, put_json

_COLORS = {"pass": "green", "warn": "yellow", "fail": "red"}


@options.command("status")
@options.json_output
@click.pass_obj
def status(state: State) -> int:
    """Show what the collection holds and what is due."""
    settings = state.load().settings
    from pipeline import status as collection
    from pipeline.cli import render

    found = collection.examine(settings)
    if state.json:
        put_json(found.to_json())
        return 0
    for line in render.status(found):
        click.echo(line, color=color())
    state.suggest(render.after_status(found))
    return 0


@options.command("doctor")
@options.json_output
@click.pass_obj
def doctor(state: State) -> int:
    """Check this machine, the model server and the settings.

    Changes nothing. Exit code 1 if a check fails; a warning does not count.
    """
    from pipeline import doctor as checks

    try:
        loaded = state.load()
    except errors.ConfigError as error:
        found = checks.broken_settings(error)
    else:
        found = checks.examine(loaded, os.environ)
    failed = any(check.level == "fail" for check in found)
    if state.json:
        put_json({"ok": not failed, "checks": [check.to_json() for check in found]})
        return int(failed)
    for check in found:
        if check.level == "fail" or not state.quiet:
            _print(check.level, check.name, check.detail, check.remedy)
    return int(failed)


def _print(level: str, name: str, detail: str, remedy: str) -> None:
    click.echo(f"{click.style(level, fg=_COLORS[level])}  {name}: {detail}", color=color())
    if remedy:
        click.echo(f"      {remedy}")
