"""`pipeline report`: what the runs of a collection left behind."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, color, complain, put_json

if TYPE_CHECKING:
    from pipeline.report import Report
    from pipeline.store.runs import Entry

_COLORS = {"good": "green", "warn": "yellow", "bad": "red"}


@options.command("report")
@click.argument("which", required=False, metavar="[N|TIME]")
@click.option("--open", "show_page", is_flag=True, help="Open the page in the browser.")
@click.option("--list", "list_all", is_flag=True, help="List the reports that are kept.")
@options.json_output
@click.pass_obj
def report(state: State, which: str | None, show_page: bool, list_all: bool) -> int:
    """Show the report of the last run.

    N: the Nth from the end, 1 being the last. TIME: as the list shows it, or its beginning, such as 2026-11-22. How
    many are kept: report.keep in the settings.
    """
    entries = _entries(state)
    if list_all:
        return _list(state, entries)
    entry = _find(entries, which)
    if show_page:
        return _open(state, entry)
    found = _read(entry)
    if state.json:
        put_json(found.to_json())
        return 0
    for line in _lines(found, entry):
        click.echo(line, color=color())
    return 0


def _entries(state: State) -> list[Entry]:
    from pipeline import opening

    settings = state.load().settings
    collection = opening.collection_of(settings)
    if not collection.exists:
        raise opening.nothing(settings)
    entries = collection.runs.newest()
    if not entries:
        raise errors.UsageError(f"Collection {collection.name!r} has no report yet.", "A run leaves one: pipeline run")
    return entries


def _find(entries: Sequence[Entry], which: str | None) -> Entry:
    digits = re.sub(r"\D", "", which or "1")
    if which is None or (which.isdecimal() and len(which) < len("2026")):
        if 1 <= int(digits) <= len(entries):
            return entries[int(digits) - 1]
        raise errors.UsageError(f"Reports kept: {len(entries)}.", "Which are there: pipeline report --list")
    for entry in entries:
        if digits and re.sub(r"\D", "", _local(entry)).startswith(digits):
            return entry
    raise errors.UsageError(f"No report is of {which}.", "Which are there: pipeline report --list")


def _local(entry: Entry) -> str:
    """When it was written, by this machine's clock."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at_s))


def _read(entry: Entry) -> Report:
    import msgspec

    from pipeline.report import Report

    try:
        return msgspec.json.decode(entry.read(), type=Report)
    except msgspec.DecodeError as error:
        raise errors.CorruptStore(
            f"{entry.record} is damaged: {error}", "Delete it; the others: pipeline report --list"
        ) from error


def _list(state: State, entries: Sequence[Entry]) -> int:
    from pipeline import report_words

    rows = []
    for number, entry in enumerate(entries, start=1):
        try:
            found = _read(entry)
        except errors.CorruptStore as error:
            complain(f"warning: {error.message}")
            continue
        row = {"number": number, "time": _local(entry), "exit_code": found.exit_code, "seconds": found.seconds}
        rows.append(row | {"embedded_texts": found.embedded_texts, "rejects": found.rejects, "page": str(entry.page)})
        if not state.json:
            level, words = report_words.ending(found)
            took = report_words.duration(found.seconds)
            told = f"{number:>3}  {_local(entry)}  {took:>12}  {found.embedded_texts:>10,} embedded  "
            click.echo(told + click.style(words, fg=_COLORS[level]), color=color())
    if state.json:
        put_json({"reports": rows})
    return 0


def _open(state: State, entry: Entry) -> int:
    """The page in a browser; its path in any case, as a server has none."""
    import webbrowser

    if not entry.page.exists():  # of a run before there were pages, or deleted
        raise errors.UsageError(
            f"There is no page at {entry.page}.", "In the terminal: pipeline report; as data: pipeline report --json"
        )
    path = entry.page.absolute()
    if state.json:
        put_json({"page": str(path)})
    else:
        click.echo(str(path))
    try:
        opened = webbrowser.open(path.as_uri())
    except webbrowser.Error:
        opened = False
    if not opened:
        state.say("No browser was found here: open that file in one.")
    return 0


def _lines(found: Report, entry: Entry) -> Iterator[str]:
    from pipeline import report_words
    from pipeline.cli import render

    level, words = report_words.ending(found)
    when = report_words.moment(found.started_at) or _local(entry)
    yield f"{render.plain(found.collection)}: {click.style(words, fg=_COLORS[level])}. {when}, on {found.host or '?'}."
    if found.error:
        yield f"  {render.plain(found.error)}"
        yield f"  {render.plain(found.remedy)}"
        yield f"  Before that, {found.embedded_texts:,} texts were embedded; they are kept."
    else:
        yield from (f"  {line}" for line in render.report(found))
    yield from (f"  {render.plain(note)}" for note in found.notes)
    yield from (f"  {line}" for line in _detail(found))
    yield from render.failures(found.failures)
    yield f"Page: {entry.page.absolute()} (pipeline report --open)"


def _detail(found: Report) -> Iterator[str]:
    from pipeline import report_words
    from pipeline.cli import render

    detail = found.detail
    if detail is None:
        return
    if detail.slowest:
        slow = detail.slowest[0]
        yield f"Slowest file: {render.plain(slow.uri)}, {report_words.duration(slow.seconds)}."
    if detail.retries:
        yield f"Requests sent again: {detail.retries:,}."
    disk = f"On disk: {report_words.size(found.disk_bytes)}"
    if detail.before is not None:
        change = found.disk_bytes - detail.before.disk_bytes
        disk += f" ({'+' if change >= 0 else '−'}{report_words.size(abs(change))} since the run before)"
        if detail.new_failures or detail.mended:
            yield f"Failures: {detail.new_failures:,} new, {len(detail.mended):,} mended since the run before."
    yield f"{disk}."
