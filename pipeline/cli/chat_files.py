"""What `chat` has to do with files: its history of typed lines, and a source opened in the program that shows it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import render
from pipeline.cli.state import color, complain

if TYPE_CHECKING:
    from pipeline.query import Standing
    from pipeline.search import Hit

LINES = 1_000  # typed lines that are remembered


@contextlib.contextmanager
def history(interactive: bool) -> Iterator[None]:
    """Line editing for the length of the block; what was typed is kept in the user's own state folder, for no one else
    to read. A history that cannot be kept costs a warning, and nothing else.
    """
    if not interactive or importlib.util.find_spec("readline") is None:  # some builds of Python have none
        yield
        return
    import readline

    path = history_path()
    with contextlib.suppress(OSError):  # there is none yet
        readline.read_history_file(path)
    readline.set_history_length(LINES)
    try:
        yield
    finally:
        _keep(path)


def history_path() -> Path:
    import platformdirs

    return platformdirs.user_state_path("embed-pipeline") / "chat_history"


def _keep(path: Path) -> None:
    import readline

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        path.chmod(0o600)  # one that was there before
        readline.write_history_file(path)
    except OSError as error:
        complain(f"What was typed is not remembered: {path}: {error.strerror or error}")


def open_source(standing: Standing, hit: Hit) -> None:
    """Show the file of a passage: in its program on a desktop, in $PAGER if it is plain text, else by its path. The
    file is one argument of a program, and no shell reads its name.

    Raises:
        SourceError: it is not there any more. StoreError: the program cannot be started.
    """
    from pipeline import freshness

    snapshot = standing.collection.snapshot(standing.note.snapshot or None)
    path = freshness.place(snapshot.sources, freshness.file_of(snapshot, hit.path)) if snapshot is not None else None
    if path is None or not os.path.lexists(path):
        raise errors.SourceError(f"{render.plain(hit.path)} is not there any more.", "`pipeline run` takes note of it.")
    name = os.fsdecode(path)
    click.echo(render.plain(name), color=color())
    words = opener(os.environ, sys.platform, text=hit.media_type.startswith("text/") and sys.stdout.isatty())
    if words:
        _start([*words, name], wait=words[0] not in _DESKTOP)


_DESKTOP = ("open", "xdg-open")


def opener(environment: Mapping[str, str], platform: str, *, text: bool) -> list[str]:
    """The program and its options, to which a file is one more argument; [] where there is none.

    `text`: a pager would show it.
    """
    if platform == "darwin" and not environment.get("SSH_CONNECTION"):
        return ["open"]
    if (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")) and shutil.which("xdg-open"):
        return ["xdg-open"]
    try:
        return shlex.split(environment.get("PAGER", "")) if text else []
    except ValueError:
        return []


def _start(command: Sequence[str], *, wait: bool) -> None:
    """Run a program. One that shows the file in a window of its own is not waited for."""
    try:
        if wait:
            subprocess.run(command, check=False)  # noqa: S603  # the user's own $PAGER
        else:
            nowhere = subprocess.DEVNULL
            subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)  # noqa: S603
    except OSError as error:
        raise errors.StoreError(
            f"{command[0]} cannot be started: {error.strerror or error}", "Set $PAGER, or open the path yourself."
        ) from error
