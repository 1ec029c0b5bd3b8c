"""The commands that write: run, and each of its four stages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, complain, put_json

if TYPE_CHECKING:
    from pipeline import config
    from pipeline.progress import Progress
    from pipeline.report import Report
    from pipeline.run import Request

FAILED_FILES = 3  # exit code: finished, but not with every file
ALL = frozenset({"ingest", "chunk", "embed", "index"})

_docs = click.argument("docs", nargs=-1, type=click.Path(path_type=Path), metavar="[DOCS]...")
_dry_run = click.option("-n", "--dry-run", is_flag=True, help="Show what would be done and what it would cost.")
_retry = click.option("--retry", is_flag=True, help="Try again what was rejected before.")
_pull = click.option("--pull", is_flag=True, help="Let Ollama fetch the model if it lacks it.")
_max_delete = click.option(
    "--max-delete", metavar="SHARE", help="Stop if more of the files would be dropped, such as 20%."
)
_wait_lock = click.option("--wait-lock", metavar="SECONDS", help="Wait so long for another run to end.")


def _with(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Decorators as one, in the order that help shows them."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


@options.command("run")
@_with(_docs, _dry_run, _pull, _retry, _max_delete, _wait_lock, options.json_output, click.pass_obj)
def run(state: State, docs: tuple[Path, ...], max_delete: str | None, wait_lock: str | None, **switches: bool) -> int:
    """Ingest, chunk, embed and index what changed in DOCS.

    DOCS are folders; left out, those of the settings (source.folders) or of the run before. What is unchanged costs
    nothing, what is gone leaves the index. Exit code 3: finished, but some files could not be read.
    """
    return _execute(state, ALL, docs, switches, run__max_delete=max_delete, run__wait_lock_s=wait_lock)


@options.command("retry")
@_with(_dry_run, _pull, _wait_lock, options.json_output, click.pass_obj)
def retry(state: State, wait_lock: str | None, **switches: bool) -> int:
    """Try again what was rejected before.

    As `pipeline run --retry` with the folders of the run before: files that could not be read, documents that could not
    be chunked, passages that could not be embedded. What is new or changed is done as well.
    """
    return _execute(state, ALL, (), {**switches, "retry": True}, run__wait_lock_s=wait_lock)


@options.command("ingest")
@_with(_docs, _dry_run, _retry, _max_delete, _wait_lock, options.json_output, click.pass_obj)
def ingest(
    state: State, docs: tuple[Path, ...], max_delete: str | None, wait_lock: str | None, **switches: bool
) -> int:
    """Read new and changed files of DOCS.

    DOCS are folders; left out, those of the settings (source.folders) or of the run before.
    """
    only = frozenset({"ingest"})
    return _execute(state, only, docs, switches, run__max_delete=max_delete, run__wait_lock_s=wait_lock)


@options.command("chunk")
@_with(_dry_run, _wait_lock, options.json_output, click.pass_obj)
def chunk(state: State, wait_lock: str | None, **switches: bool) -> int:
    """Cut what was ingested into passages."""
    return _execute(state, frozenset({"chunk"}), (), switches, run__wait_lock_s=wait_lock)


@options.command("embed")
@_with(_dry_run, _pull, _retry, _wait_lock, options.json_output, click.pass_obj)
def embed(state: State, wait_lock: str | None, **switches: bool) -> int:
    """Embed the passages that have no vector yet."""
    return _execute(state, frozenset({"embed"}), (), switches, run__wait_lock_s=wait_lock)


@options.command("index")
@_with(_dry_run, _wait_lock, options.json_output, click.pass_obj)
def index(state: State, wait_lock: str | None, **switches: bool) -> int:
    """Bring the search index up to date."""
    return _execute(state, frozenset({"index"}), (), switches, run__wait_lock_s=wait_lock)


def _execute(
    state: State, stages: frozenset[str], docs: tuple[Path, ...], switches: dict[str, bool], **flags: str | None
) -> int:
    settings = state.load(**flags).settings
    from pipeline import run as runner
    from pipeline.cli import render

    planned = switches.pop("dry_run")
    request = runner.Request(
        stages=stages,
        folders=_folders(settings, docs) if "ingest" in stages else (),
        max_delete=settings.run.max_delete,
        **switches,
    )
    progress = state.progress()
    report = _planned(settings, request, progress) if planned else runner.execute(settings, request, progress)
    if state.json:
        put_json(report.to_json())
    for line in render.report(report):
        state.tell(line)
    for note in report.notes:
        if note not in progress.said:
            state.say(note)
    for line in render.failures(report.failures):
        complain(line)
    state.suggest(render.next_command(report))
    return FAILED_FILES if report.failures else 0


def _planned(settings: config.Settings, request: Request, progress: Progress) -> Report:
    from pipeline import dry_run

    return dry_run.plan(settings, request, progress)


def _folders(settings: config.Settings, docs: tuple[Path, ...]) -> tuple[Path, ...]:
    """DOCS as typed, else of the settings, else of the run before."""
    if docs:
        return tuple(folder.expanduser() for folder in docs)  # `make embed DOCS=~/x` in zsh leaves the ~
    if settings.source.folders:
        return tuple(Path(folder) for folder in settings.source.folders)
    from pipeline import opening

    before = opening.last_folders(settings)
    if not before:
        raise errors.UsageError(
            "Which documents? No folder was named, and this collection has none yet.",
            "Name one: pipeline run ~/Documents (or set source.folders in pipeline.toml).",
        )
    return before
