"""The command line under test: in this process (fast) and as a process of its own (what a user starts).

Both get an environment without any PIPELINE_* variable, a home of their own and an Ollama that is not there.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from pipeline.cli import entry

NOWHERE = "http://127.0.0.1:9"  # the discard port: refused at once


def environment(home: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without what would change a result."""
    own = ("PIPELINE_", "OLLAMA_", "XDG_", "OPENAI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    kept.pop("NO_COLOR", None)
    return kept | {"HOME": str(home), "OLLAMA_HOST": NOWHERE} | dict(more or {})


@contextmanager
def _logging_restored() -> Iterator[None]:
    """The command line configures the program's loggers; other tests want them as they were."""
    loggers = [logging.getLogger(name) for name in ("pipeline", "py.warnings")]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger, (level, handlers) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            logger.handlers[:] = handlers


def invoke(home: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
    """Run a command here. An exception that reaches the top fails the test: `failures.guard` lets none through."""
    wanted: dict[str, str | None] = dict.fromkeys(os.environ)
    wanted.update(environment(home, env))
    with _logging_restored():
        result = CliRunner().invoke(entry.cli, arguments, env=wanted)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def start(
    home: Path, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as a process, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        env=environment(home, env) | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        cwd=cwd or home,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
