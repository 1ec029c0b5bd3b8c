"""How a command ends badly: what is printed and which exit code a program sees. Nothing is swallowed here.

The codes are those of `errors`; beside them 2 for what click refuses, 130 for Ctrl-C, 1 for a defect of ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

from pipeline import errors
from pipeline.cli import state


def guard(command: Callable[[], object], options: state.State) -> int:
    """Run a command and return its exit code, with every failure told on stderr (and as JSON, where that was asked)."""
    try:
        code = command()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        state.complain("Interrupted. What a run has finished is kept; the same command continues there.")
        return errors.Interrupted.exit_code
    except errors.PipelineError as error:
        return _tell(error, options)
    except Exception as error:
        return _report_defect(error, options)


def _tell(error: errors.PipelineError, options: state.State) -> int:
    if options.verbose:
        state.complain(_traceback(error).rstrip())
    complain_of(error)
    _tell_json(error.message, error.remedy, error.exit_code, options)
    return error.exit_code


def _report_defect(error: Exception, options: state.State) -> int:
    text = _traceback(error)
    summary = f"unexpected {type(error).__name__}: {error}"
    if options.verbose:
        state.complain(text.rstrip())
        where = "with the lines above"
    else:
        where = _keep(text)
    state.complain(f"{click.style('error:', fg='red')} {summary}. This is a defect: please report it, {where}.")
    _tell_json(summary, "", 1, options)
    return 1


def complain_of(error: errors.PipelineError) -> None:
    """What happened, and what to type or change."""
    state.complain(f"{click.style('error:', fg='red')} {error.message}")
    if error.remedy:
        state.complain(error.remedy)


def _traceback(error: BaseException) -> str:
    import traceback

    return "".join(traceback.format_exception(error))


def _keep(text: str) -> str:
    """Append a traceback to the log in the user's state folder; where that cannot be written, print it."""
    import platformdirs

    log = platformdirs.user_log_path("embed-pipeline") / "errors.log"
    try:
        _append(log, f"{' '.join(sys.argv)}\n{text}\n")
    except OSError:
        state.complain(text.rstrip())
        return "with the lines above"
    return f"with {log} (or -v)"


def _append(path: Path, text: str) -> None:
    import time

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")


def _tell_json(message: str, remedy: str, code: int, options: state.State) -> None:
    if options.json:
        state.put_json({"error": message, "remedy": remedy, "exit_code": code})
