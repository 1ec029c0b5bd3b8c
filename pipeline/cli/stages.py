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

ALL = frozenset({"ingest", "chunk", "embed", "index"})

_docs = click.argument("docs", nargs=-1, type=click.Path(path_type=Path), metavar="[DOCS]...")
_dry_run = click.option("-n", "--dry-run", is_flag=True, help="Show what would be done and what it would cost.")
_retry = click.option("--retry", is_flag=True, help="Try again what was rejected before.")
_pull = click.option("--pull", is_flag=True, help="Let Ollama fetch the model if it lacks it.")
_max_delete = click.option(
    "--max-delete", "run__max_delete", metavar="SHARE", help="Stop if more of the files would be dropped, such as 20%."
)
_wait_lock = click.option(
    "--wait-lock", "run__wait_lock_s", metavar="SECONDS", help="Wait so long for another run to end."
)
_max_duration = click.option(
    "--max-duration", "run__max_duration", metavar="TIME", help="Stop by then, such as 6h or 90m; the next run goes on."
)
_until = click.option("--until", "run__until", metavar="HH:MM", help="The same by the clock: the next 06:00.")


def _with(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Decorators as one, in the order that help shows them."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


@options.command("run")
@_with(_docs, _dry_run, _pull, _retry, _max_delete, _max_duration, _until, _wait_lock)
@_with(options.json_output, click.pass_obj)
def run(state: State, docs: tuple[Path, ...], **given: Any) -> int:
    """Ingest, chunk, embed and index what changed in DOCS.

    DOCS are folders; left out, those of the settings (source.folders) or of the run before. What is unchanged costs
    nothing, what is gone leaves the index. Exit code 3: finished, but some files could not be read.

    With --max-duration or --until the newest files come first, and what is finished by then is published, each document
    whole; the last version of the others goes on. The exit code is 0, and the next run does the rest.
    """
    return _execute(state, ALL, docs, given)


@options.command("retry")
@_with(_dry_run, _pull, _max_duration, _until, _wait_lock, options.json_output, click.pass_obj)
def retry(state: State, **given: Any) -> int:
    """Try again what was rejected before.

    As `pipeline run --retry` with the folders of the run before: files that could not be read, documents that could not
    be chunked, passages that could not be embedded. What is new or changed is done as well.
    """
    return _execute(state, ALL, (), given | {"retry": True})


@options.command("ingest")
@_with(_docs, _dry_run, _retry, _max_delete, _max_duration, _until, _wait_lock, options.json_output, click.pass_obj)
def ingest(state: State, docs: tuple[Path, ...], **given: Any) -> int:
    """Read new and changed files of DOCS.

    DOCS are folders; left out, those of the settings (source.folders) or of the run before.
    """
    return _execute(state, frozenset({"ingest"}), docs, given)


@options.command("chunk")
@_with(_dry_run, _max_duration, _until, _wait_lock, options.json_output, click.pass_obj)
def chunk(state: State, **given: Any) -> int:
    """Cut what was ingested into passages."""
    return _execute(state, frozenset({"chunk"}), (), given)


@options.command("embed")
@_with(_dry_run, _pull, _retry, _max_duration, _until, _wait_lock, options.json_output, click.pass_obj)
def embed(state: State, **given: Any) -> int:
    """Embed the passages that have no vector yet."""
    return _execute(state, frozenset({"embed"}), (), given)


@options.command("index")
@_with(_dry_run, _wait_lock, options.json_output, click.pass_obj)
def index(state: State, **given: Any) -> int:
    """Bring the search index up to date."""
    return _execute(state, frozenset({"index"}), (), given)


def _execute(state: State, stages: frozenset[str], docs: tuple[Path, ...], given: dict[str, Any]) -> int:
    """`given`: settings by their key, "__" for the dot, as typed; everything else is a switch of the request."""
    settings = state.load(**{name: value for name, value in given.items() if "__" in name}).settings
    switches: dict[str, Any] = {name: value for name, value in given.items() if "__" not in name}
    from pipeline import run as runner
    from pipeline.cli import render

    planned = switches.pop("dry_run")
    request = runner.Request(
        stages=stages,
        folders=folders_of(settings, docs) if "ingest" in stages else (),
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
    return report.exit_code


def _planned(settings: config.Settings, request: Request, progress: Progress) -> Report:
    from pipeline import dry_run

    return dry_run.plan(settings, request, progress)


def folders_of(settings: config.Settings, docs: tuple[Path, ...]) -> tuple[Path, ...]:
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
