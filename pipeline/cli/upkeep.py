"""The commands that keep a collection sound and small: check and gc."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, complain, put_json

if TYPE_CHECKING:
    from pipeline.check import Checked
    from pipeline.garbage import Collected

_wait_lock = click.option("--wait-lock", metavar="SECONDS", help="Wait so long for another run to end.")
_fix = click.option("--fix", is_flag=True, help="Mend what can be mended without losing anything sound.")
_dry_run = click.option("-n", "--dry-run", is_flag=True, help="Show what would be freed; change nothing.")


@options.command("check")
@_fix
@_wait_lock
@options.json_output
@click.pass_obj
def check(state: State, fix: bool, wait_lock: str | None) -> int:
    """Check everything that is stored against everything else.

    Reads it all: the folder of documents, snapshots, documents, chunks, vectors, the search table row by row, and its
    indexes. Questions are answered meanwhile; a run has to wait. Exit code 1 if something is damaged.

    With --fix, what is damaged is dropped and nothing else. The next `pipeline run` makes it again, mostly from what is
    left; texts whose vectors were lost are counted, and are embedded then.
    """
    settings = state.load(run__wait_lock_s=wait_lock).settings
    from pipeline import check as checks

    found = checks.check(settings, state.progress(), fix=fix)
    if state.json:
        put_json(found.to_json())
    else:
        _tell(state, found)
    if not found.ok:
        state.suggest("check --fix")
    elif found.mended or found.due:
        state.suggest("run")
    return 0 if found.ok else 1


def _tell(state: State, found: Checked) -> None:
    from pipeline import findings

    for one in found.mended:
        state.tell(f"mended  {one.line()}")
    for one in found.findings:
        if one.damage:
            complain(f"DAMAGED {one.line()}")
        else:
            state.tell(f"note    {one.line()}")
    damaged = sum(one.damage for one in found.findings)
    verdict = f"{damaged} damaged" if damaged else "Mended" if found.mended else "All is well"
    state.tell(f"{verdict}: {findings.counted(found.counts)} checked in {found.seconds:.1f} s.")
    if found.due and found.ok:
        state.tell(f"{found.due:,} texts are to be embedded by the next run.")


@options.command("gc")
@_dry_run
@_wait_lock
@options.json_output
@click.pass_obj
def gc(state: State, dry_run: bool, wait_lock: str | None) -> int:
    """Free the disk space of what nothing needs any more.

    Kept are the last published snapshots (run.keep, 7 by default) with all they need to be shown again. What goes:
    older snapshots, their documents, chunks and vectors, tables of former models. Shards of which most documents are
    gone are packed again. Nothing is embedded.
    """
    settings = state.load(run__wait_lock_s=wait_lock).settings
    from pipeline import garbage

    done = garbage.collect(settings, state.progress(), dry_run=dry_run)
    if state.json:
        put_json(done.to_json())
    _show(state, done)
    for note in dict.fromkeys(done.notes):
        state.say(note)
    return 0


def _show(state: State, done: Collected) -> None:
    from pipeline import report_words

    would = "would be " if done.dry_run else ""
    for kind, freed in done.freed.items():
        if freed.bytes > 0:
            rows = f", {done.dropped_vectors:,} vectors" if kind == "vectors" else ""
            state.tell(f"{kind:<10} {report_words.size(freed.bytes):>9} {would}freed ({freed.files:,} files{rows})")
    if done.emptied:
        into = "" if done.dry_run else f" into {done.made}"
        state.tell(f"{done.emptied} document shards {would}packed again{into}.")
    before, after = report_words.size(done.before_bytes), report_words.size(done.after_bytes)
    state.tell(f"On disk: {before} before, {'about ' if done.dry_run else ''}{after} after.")
