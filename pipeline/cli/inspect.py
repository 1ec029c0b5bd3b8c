"""The command that shows what becomes of one file."""

from __future__ import annotations

import itertools
import shlex
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

    What a mail or an archive holds is listed; each of it is a FILE too: mail.eml!/report.pdf, box.zip!/notes/a.md.
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
        shown = _blocks(found) if blocks else _chunks(found)
        for line in itertools.chain(shown, _inside(found, file)):
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


def _inside(found: Inspection, file: Path) -> Iterator[str]:
    from pipeline.cli.render import plain

    if not found.inside:
        return
    yield ""
    yield f"{len(found.inside):,} {'document' if len(found.inside) == 1 else 'documents'} inside:"
    for entry in found.inside:
        size = f"{entry.bytes:,} bytes" if entry.kind == "ok" else f"{entry.kind}: {plain(entry.reason)}"
        yield f"  {plain(entry.path)} · {size}"
    first = next((entry for entry in found.inside if entry.kind == "ok"), None)
    if first is not None:
        yield f"One of them: pipeline inspect {shlex.quote(plain(f'{file}!/{first.path}'))}"


def _head(found: Inspection) -> Iterator[str]:
    from pipeline import readers
    from pipeline.cli.render import plain

    media_type = f"{found.media_type}, " if found.media_type else ""
    yield f"{plain(found.file)}: {media_type}read by {found.reader}"
    if media_type and (promised := readers.promised(found.file)) not in ("", found.media_type):
        yield f"its name says {promised}: read as what it is"
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
    if not found.text:
        return
    tokens = sum(chunk.tokens for chunk in found.chunks)
    yield f"{len(found.text):,} characters, {len(found.chunks):,} chunks, {tokens:,} tokens for {found.model}"
    for number, chunk in enumerate(found.chunks, 1):
        yield ""
        yield f"{number}. {plain(describe(chunk))}"
        yield from (f"   {line}" for line in terminal_safe(chunk.sent).split("\n"))
