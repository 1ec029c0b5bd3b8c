"""What the options of one invocation said, and how the program speaks: data on stdout, the rest on stderr.

Knows no command and no colour beyond NO_COLOR. Heavy imports stay inside functions: `--help` comes through here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipeline import config_load
    from pipeline.cli import progress_bars


@dataclass(slots=True, kw_only=True)
class State:
    """Filled while click parses; one per invocation (click's `ctx.obj`)."""

    flags: dict[str, Any] = field(default_factory=dict)  # dotted key -> value as typed
    config: str | None = None
    quiet: bool = False
    verbose: bool = False
    json: bool = False

    def load(self, **flags: Any) -> config_load.Loaded:
        """Settings of this invocation; `flags`: the command's own, with "__" for the dot. Sets up logging as well.

        Raises:
            ConfigError: see `config_load.load`.
        """
        from pipeline import config_load

        set_up_logging(quiet=self.quiet, verbose=self.verbose)
        own = {name.replace("__", "."): value for name, value in flags.items()}
        project = config_load.find_project_file(self.config, os.environ, Path.cwd())
        return config_load.load(self.flags | own, os.environ, project, config_load.find_user_file())

    def progress(self) -> progress_bars.Shown:
        """Bars on a terminal, else a line every ten seconds, with -q nothing."""
        from pipeline.cli import progress_bars

        return progress_bars.choose(quiet=self.quiet, terminal=_is_terminal(sys.stderr))

    def tell(self, text: str = "") -> None:
        """A result for people, on stdout; not with -q or --json."""
        if not self.quiet and not self.json:
            click.echo(text, color=color())

    def say(self, text: str) -> None:
        """A message, on stderr; not with -q."""
        if not self.quiet:
            complain(text)

    def suggest(self, command: str) -> None:
        """The next command to type, with the options that this one was told; not with -q or --json."""
        if not self.quiet and not self.json:
            complain(f"Next: {' '.join([program(), *self._repeat(), command])}")

    def _repeat(self) -> list[str]:
        """The options without which the next command would look elsewhere, as to be typed."""
        import shlex

        given = [("--config", self.config), *((f"--{key}", self.flags.get(key)) for key in ("data", "collection"))]
        return [shlex.quote(word) for option, value in given if value for word in (option, str(value))]


def program() -> str:
    """How this program was called, so that a suggestion can be typed: "pipeline", ".venv/bin/pipeline"."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return "python -m pipeline"
    import shutil

    if called.parent == Path() or str(called) == shutil.which("pipeline"):
        return "pipeline"
    try:
        return str(called.relative_to(Path.cwd()))
    except ValueError:
        return str(called)


def complain(text: str) -> None:
    """A line on stderr, whatever the options."""
    click.echo(text, err=True, color=color())


def put_json(value: Mapping[str, Any]) -> None:
    """One JSON object on stdout, in UTF-8 whatever the locale; what UTF-8 cannot hold stays an escape."""
    import json

    text = json.dumps(value, ensure_ascii=False, indent=2)
    click.echo(text.encode("utf-8", "backslashreplace"))


def color() -> bool | None:
    """False where NO_COLOR is set (no-color.org: to anything but ""), else None: click decides by the terminal."""
    return False if os.environ.get("NO_COLOR") else None


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()


def set_up_logging(*, quiet: bool, verbose: bool) -> None:
    """The program's own log to stderr: warnings, with -v all, with -q errors; libraries' warnings only with -v."""
    import logging

    from pipeline.cli import log_handler

    own = logging.getLogger("pipeline")
    own.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    own.handlers[:] = [log_handler.StderrHandler(verbose=verbose)]
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").handlers[:] = [
        log_handler.StderrHandler(verbose=True) if verbose else logging.NullHandler()
    ]
