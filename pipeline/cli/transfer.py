"""The commands that carry vectors from one machine to another: export and import."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli import options
from pipeline.cli.state import State, put_json

_wait_lock = click.option("--wait-lock", metavar="SECONDS", help="Wait so long for another run to end.")
_force = click.option("--force", is_flag=True, help="Write over what is there.")
_target = click.argument("target", type=click.Path(path_type=Path), metavar="FILE")


@options.command("export")
@_target
@_force
@_wait_lock
@options.json_output
@click.pass_obj
def export(state: State, target: Path, force: bool, wait_lock: str | None) -> int:
    """Write the vectors to a file, for another machine.

    FILE is one Parquet file; an existing folder gets several of about a gigabyte. Inside stand the vectors under the
    hashes of their texts, and which model made them; no text. On the other machine: pipeline import FILE
    """
    settings = state.load(run__wait_lock_s=wait_lock).settings
    from pipeline import report_words, transfer

    done = transfer.export(settings, target.expanduser(), state.progress(), force=force)
    if state.json:
        put_json(done.to_json())
    size = report_words.size(done.bytes)
    state.tell(f"Exported {done.texts:,} vectors of {done.model} ({done.dims} dimensions), {size}.")
    if not (state.quiet or state.json):
        state.say(f"On the other machine: pipeline import {target.name}, then: pipeline run DOCS")
    return 0


@options.command("import")
@_target
@_wait_lock
@options.json_output
@click.pass_obj
def import_(state: State, target: Path, wait_lock: str | None) -> int:
    """Take in vectors that `pipeline export` wrote.

    FILE is a file or a folder of them. A new collection takes its embedding model from it; in one that exists, another
    model's vectors are refused (exit code 12). The next run embeds nothing whose text is in FILE. Importing twice adds
    nothing the second time.
    """
    settings = state.load(run__wait_lock_s=wait_lock).settings
    from pipeline import transfer

    done = transfer.load(settings, target.expanduser(), state.progress())
    if state.json:
        put_json(done.to_json())
    there = done.texts - done.added
    state.tell(
        f"Imported {done.added:,} vectors of {done.model} ({done.dims} dimensions); {there:,} were there already."
    )
    for note in done.notes:
        state.say(note)
    state.suggest("run DOCS")
    return 0
