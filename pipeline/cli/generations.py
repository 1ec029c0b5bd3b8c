"""The commands about what was published before: history, diff and rollback."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, color, put_json

if TYPE_CHECKING:
    from pipeline.difference import Files
    from pipeline.history import Difference, Entry
    from pipeline.rollback import Rollback

SHOWN = 20  # files of a kind that `diff` names

_wait_lock = click.option("--wait-lock", metavar="SECONDS", help="Wait so long for another run to end.")


@options.command("history")
@options.json_output
@click.pass_obj
def history(state: State) -> int:
    """Show the snapshots that can be published again.

    Each run that changes something publishes a snapshot; the last seven are kept (run.keep). What changed is told
    against the snapshot above; * marks the one that `search` and `ask` see.
    """
    settings = state.load().settings
    from pipeline import history as kept

    found = kept.entries(settings)
    if state.json:
        put_json({"collection": settings.collection, "snapshots": [entry.to_json() for entry in found]})
        return 0
    for line in _table(found):
        click.echo(line, color=color())
    if len(found) > 1:
        state.suggest("diff")
    return 0


def _table(found: Sequence[Entry]) -> Iterator[str]:
    rows = [("", "number", "published at", "documents", "chunks", "model", "what changed"), *map(_row, found)]
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        numbers = [row[column].rjust(widths[column]) for column in (1, 3, 4)]
        cells = [row[0].ljust(1), numbers[0], row[2].ljust(widths[2]), *numbers[1:], row[5].ljust(widths[5]), row[6]]
        yield "  ".join(cells).rstrip()


def _row(entry: Entry) -> tuple[str, ...]:
    changes = [_files(entry.files)] if entry.files is not None else ["the oldest that is kept"]
    return (
        "*" if entry.published else "",
        str(entry.number),
        _when(entry.at_ms),
        f"{entry.documents:,}",
        f"{entry.chunks:,}",
        entry.model or "unknown",
        "; ".join([*entry.remarks, *(change for change in changes if change)]) or "nothing but times",
    )


def _files(files: Files) -> str:
    return ", ".join(f"{count:,} {fate}" for fate, count in files.counts().items() if count)


def _when(at_ms: int) -> str:
    """Local time, to the minute: what a person remembers of a night."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_ms / 1000)) if at_ms else "unknown"


@options.command("diff")
@click.argument("before", type=int, required=False, metavar="[A]")
@click.argument("after", type=int, required=False, metavar="[B]")
@options.json_output
@click.pass_obj
def diff(state: State, before: int | None, after: int | None) -> int:
    """Show what differs between two snapshots.

    A and B are numbers of `pipeline history`. B left out: what is published; A left out as well: what was published
    before it. Chunks are rows of the index; texts are what was embedded: a moved file has new chunks and no new text.
    """
    settings = state.load().settings
    from pipeline import history as kept

    found = kept.compare(settings, before, after)
    if state.json:
        put_json(found.to_json())
        return 0
    for line in _difference(found):
        click.echo(line, color=color())
    return 0


def _difference(found: Difference) -> Iterator[str]:
    from pipeline.cli.render import plain

    yield f"Snapshot {found.before} to {found.after}: {_files(found.files) or 'the same files'}."
    yield from (f"{remark[0].upper()}{remark[1:]}." for remark in found.remarks)
    signs = {"added": "+", "removed": "-", "changed": "~", "failed": "!"}
    for fate, sign in signs.items():
        uris: tuple[str, ...] = getattr(found.files, fate)
        yield from (f"  {sign} {plain(uri)}" for uri in uris[:SHOWN])
        yield from _more(len(uris), fate)
    yield from (f"  > {plain(old)} is now {plain(new)}" for old, new in found.files.moved[:SHOWN])
    yield from _more(len(found.files.moved), "moved")
    for name, amounts in (("Chunks", found.chunks), ("Texts", found.texts)):
        yield f"{name}: {amounts.kept:,} in both, {amounts.added:,} added, {amounts.removed:,} removed."


def _more(count: int, fate: str) -> Iterator[str]:
    if count > SHOWN:
        yield f"    and {count - SHOWN:,} more {fate} (--json names all)"


@options.command("rollback")
@click.argument("number", type=int, required=False, metavar="[N]")
@_wait_lock
@options.json_output
@click.pass_obj
def rollback(state: State, number: int | None, wait_lock: str | None) -> int:
    """Publish an older snapshot again.

    N is a number of `pipeline history`; left out, the one before what is published. Nothing is embedded and no model
    server is asked. What it holds is published under a new number, so a rollback can itself be rolled back.

    The files in the folders stay as they are: the next run finds what differs from them and indexes their present state
    again (without embedding, as far as the vectors are kept). To keep what you rolled back to, mend the folder first.
    """
    settings = state.load(run__wait_lock_s=wait_lock).settings
    from pipeline import rollback as back

    done = back.execute(settings, number, state.progress())
    if state.json:
        put_json(done.to_json())
    for line in _rolled(done):
        state.tell(line)
    if done.changed:
        state.suggest(f"rollback {done.before}   (to undo it)")
    return 0


def _rolled(done: Rollback) -> Iterator[str]:
    if not done.changed:
        yield f"What snapshot {done.after} holds is published already. Nothing was done."
        return
    yield (
        f"Snapshot {done.after} is published again, as number {done.snapshot}: {done.documents:,} documents, "
        f"{done.chunks:,} chunks of {done.model}. Nothing was embedded."
    )
    differences = [text for text in (_files(done.files), *done.remarks) if text]
    yield f"Against snapshot {done.before}: {'; '.join(differences) or 'the same files'}."
    yield "The folders are as they were: the next run indexes their present state again."
