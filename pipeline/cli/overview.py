"""The commands that look and change nothing: status and doctor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, color, put_json

if TYPE_CHECKING:
    from pipeline.doctor_check import Check

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

    Loads the embedding model and has it embed a few sentences; changes nothing else. Exit code 1 if a check fails; a
    warning does not count.
    """
    found: list[Check] = []
    for check in _checks(state):
        found.append(check)
        if not state.json and (check.level == "fail" or not state.quiet):
            _print(check.level, check.name, check.detail, check.remedy)
    failed = any(check.level == "fail" for check in found)
    if state.json:
        put_json({"ok": not failed, "checks": [check.to_json() for check in found]})
    return int(failed)


def _checks(state: State) -> Iterator[Check]:
    """Each check as it is known: a cold model takes seconds, and what is known already is shown."""
    from pipeline import doctor as checks

    try:
        loaded = state.load()
    except errors.ConfigError as error:
        yield from checks.broken_settings(error)
    else:
        yield from checks.examine(loaded, os.environ)


def _print(level: str, name: str, detail: str, remedy: str) -> None:
    click.echo(f"{click.style(level, fg=_COLORS[level])}  {name}: {detail}", color=color())
    if remedy:
        click.echo(f"      {remedy}")
