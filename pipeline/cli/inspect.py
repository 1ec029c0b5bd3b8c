"""The command that shows what becomes of one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, color, complain, put_json

if TYPE_CHECKING:
    from pipeline.inspection import Inspection

FAILED_FILE = 3  # exit code, as of a run in which a file failed


@options.command("inspect")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--blocks", is_flag=True, help="Show the blocks that were read, instead of the chunks.")
@click.option("--html", "page", type=click.Path(path_type=Path), metavar="PAGE", help="Write a page to look at: PAGE.")
@options.json_output
@click.pass_obj
def inspect(state: State, file: Path, blocks: bool, page: Path | None) -> int:
    """Show how FILE is read, cut into chunks and sent to the model.

    Writes nothing to the collection, and FILE need not be in it. Exit code 3: the file cannot be read.
    """
    settings = state.load().settings
    from pipeline import inspection

    found = inspection.inspect(settings, file)
    if found.note:
        state.say(found.note)
    if state.json:
        put_json(asdict(found))
    elif found.kind != "ok":
        from pipeline.cli.render import plain

        complain(f"{plain(found.file)}: {found.kind}: {plain(found.reason)}")
    else:
        for line in _blocks(found) if blocks else _chunks(found):
            if not state.quiet:
                click.echo(line, color=color())
    if page is not None and found.kind == "ok":
        _write(page, found)
        state.say(f"Page: {page.absolute().as_uri()}")
    return 0 if found.kind == "ok" else FAILED_FILE


def _write(page: Path, found: Inspection) -> None:
    from pipeline import errors, inspection_page

    try:
        page.write_text(inspection_page.render(found), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise errors.UsageError(f"{page}: {error.strerror}.", "Name a file that can be written.") from error


def _head(found: Inspection) -> Iterator[str]:
    from pipeline.cli.render import plain

    yield f"{plain(found.file)}: {found.media_type}, read by {found.reader}"
    if found.title:
        yield f"title: {plain(found.title)}"


def _blocks(found: Inspection) -> Iterator[str]:
    from pipeline.answer_text import terminal_safe
    from pipeline.cli.render import plain

    yield from _head(found)
    for block in found.blocks:
        page = f" p.{block.page}" if block.page is not None else ""
        yield ""
        yield f"{block.kind}{page} {block.start}-{block.end} {plain(' > '.join(block.heading_path))}".rstrip()
        yield from (f"  {line}" for line in terminal_safe(found.text[block.start : block.end]).split("\n"))


def _chunks(found: Inspection) -> Iterator[str]:
    from pipeline.answer_text import terminal_safe
    from pipeline.cli.render import plain
    from pipeline.inspection_page import describe

    yield from _head(found)
    tokens = sum(chunk.tokens for chunk in found.chunks)
    yield f"{len(found.text):,} characters, {len(found.chunks):,} chunks, {tokens:,} tokens for {found.model}"
    for number, chunk in enumerate(found.chunks, 1):
        yield ""
        yield f"{number}. {plain(describe(chunk))}"
        yield from (f"   {line}" for line in terminal_safe(chunk.sent).split("\n"))
