"""`pipeline schedule`: a run every night, by the scheduler that the system has."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, complain, put_json

if TYPE_CHECKING:
    from pipeline import config_load
    from pipeline.schedule import Kind, Written
    from pipeline.schedule_formats import Job

WAIT_S = 1800.0  # for another run, where the settings name no time
_KINDS = ("auto", "systemd", "launchd", "cron")
_OPTIONS = {"embed.provider": "--provider", "embed.model": "--model", "ollama.hosts": "--ollama-host"}


@click.group("schedule")
def schedule() -> None:
    """Start a run every night."""


@options.command("install")
@click.argument("docs", nargs=-1, type=click.Path(path_type=Path), metavar="[DOCS]...")
@click.option("--at", "at", required=True, metavar="HH:MM", help="When, such as 02:30, by this machine's clock.")
@click.option("--with", "kind", type=click.Choice(_KINDS), default="auto", help="By what.  [auto]")
@click.option("--wait-lock", metavar="SECONDS", help="Wait so long for another run to end.  [the settings', else 1800]")
@click.option("--until", metavar="HH:MM", help="Stop by then; the next night goes on.  [the settings']")
@click.option("--max-duration", metavar="TIME", help="Stop after so long, such as 3h.  [the settings']")
@click.option("--log", "log", type=click.Path(path_type=Path), metavar="FILE", help="Append what it prints there.")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
@click.pass_obj
def install(
    state: State,
    docs: tuple[Path, ...],
    at: str,
    kind: str,
    wait_lock: str | None,
    until: str | None,
    max_duration: str | None,
    log: Path | None,
    dry_run: bool,
) -> int:
    """Write the entry that starts `pipeline run` every night.

    A systemd timer of yours, a launchd agent on macOS, or else a line in your crontab. It holds absolute paths, the
    options given here, and the PIPELINE_ variables set now. DOCS are folders; left out, those of the settings or of
    the run before. Installing again replaces the entry.
    """
    loaded = state.load(run__wait_lock_s=wait_lock, run__until=until, run__max_duration=max_duration)
    from pipeline import schedule as schedulers
    from pipeline import schedule_formats

    chosen: Kind = schedulers.choose() if kind == "auto" else kind  # type: ignore[assignment]  # click has checked it
    limits = ["--until", until] if until else []
    limits += ["--max-duration", max_duration] if max_duration else []
    job = schedule_formats.check(_job(state, loaded, docs, at, log, limits))
    if dry_run:
        _print(schedulers.scheduler(chosen).plan(job))
        return 0
    schedulers.scheduler(chosen).plan(job)  # refusals come before anything is written
    schedulers.install(chosen, job)
    state.tell(f"Every night at {at} by {chosen}. What it prints: {job.log}")
    state.tell("See it: pipeline schedule show; how a night went: pipeline report")
    _warn(state, loaded, chosen)
    return 0


@options.command("show")
@options.json_output
@click.pass_obj
def show(state: State) -> int:
    """Print the entry that is installed, to the letter."""
    from pipeline import schedule as schedulers

    found = schedulers.installed(_job(state, state.load(), (), "00:00", known=True))
    if state.json:
        rows = [{"with": kind, "where": one.where, "text": one.text} for kind, all_ in found.items() for one in all_]
        put_json({"installed": rows})
        return 0
    for written in found.values():
        _print(written)
    if not found:
        state.say("Nothing is scheduled for this collection. To do so: pipeline schedule install --at 02:30 DOCS")
    return 0


@options.command("remove")
@click.pass_obj
def remove(state: State) -> int:
    """Remove the entry; nothing else is touched."""
    from pipeline import schedule as schedulers

    removed = schedulers.remove(_job(state, state.load(), (), "00:00", known=True))
    state.tell(f"Removed from {' and '.join(removed)}." if removed else "Nothing was scheduled for this collection.")
    return 0


for _command in (install, show, remove):
    schedule.add_command(_command)


def _print(written: list[Written]) -> None:
    for one in written:
        click.echo(f"# {one.where}")
        click.echo(one.text)


def _job(
    state: State,
    loaded: config_load.Loaded,
    docs: tuple[Path, ...],
    at: str,
    log: Path | None = None,
    limits: Sequence[str] = (),
    *,
    known: bool = False,
) -> Job:
    """The job of this collection. `known`: only to find what is installed, so no documents need be named."""
    import platformdirs

    from pipeline.cli import stages
    from pipeline.schedule_formats import Job

    time = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)", at)
    if time is None:
        raise errors.UsageError(f"--at {at}: not a time of day", "Give hours and minutes, such as --at 02:30.")
    settings = loaded.settings
    folders = () if known else tuple(_folder(doc) for doc in docs) or _checked(stages.folders_of(settings, ()))
    data = _absolute(Path(settings.data))
    ident = hashlib.sha256(f"{data}\0{settings.collection}".encode(errors="surrogateescape")).hexdigest()[:10]
    default = platformdirs.user_log_path("embed-pipeline") / f"nightly-{settings.collection}-{ident}.log"
    wait = f"{settings.run.wait_lock_s or WAIT_S:g}"
    words = [*_program(), *_globals(state, data, settings.collection), "-q", "run", "--wait-lock", wait]
    words += limits
    return Job(
        ident=ident,
        collection=settings.collection,
        words=(*words, *(str(folder) for folder in folders if docs)),
        folder=Path.cwd(),
        hour=int(time[1]),
        minute=int(time[2]),
        log=_absolute(log) if log is not None else default,
        environment=_environment(loaded),
    )


def _checked(folders: tuple[Path, ...]) -> tuple[Path, ...]:
    for folder in folders:
        _folder(folder)
    return folders


def _folder(folder: Path) -> Path:
    found = _absolute(folder)
    if not found.is_dir():
        raise errors.UsageError(f"{found} is not a folder.", "Check the path, or mount it first.")
    return found


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100  # links stay: they may lead elsewhere tomorrow


def _program() -> list[str]:
    """This program, with the Python of its environment (whose own links must stay unresolved)."""
    script = Path(sys.executable).with_name("pipeline")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pipeline"]


def _globals(state: State, data: Path, collection: str) -> list[str]:
    """The global options that a run at night needs: where, and what was given to this command."""
    from pipeline import config_load

    config = config_load.find_project_file(state.config, os.environ, Path.cwd())
    words = ["--config", str(_absolute(config))] if config is not None else []
    words += ["--data", str(data), "--collection", collection]
    for key, option in _OPTIONS.items():
        given = state.flags.get(key, ())
        words += [word for value in ((given,) if isinstance(given, str) else given) for word in (option, value)]
    return words


def _environment(loaded: config_load.Loaded) -> dict[str, str]:
    """The variables that settings come from now, and the search path where programs of the user's are to be found."""
    settings, own = loaded.settings, ("data", "collection")
    origins = {origin for key, origin in loaded.origins.items() if key not in own}
    names = {origin for origin in origins if origin in os.environ and not origin.startswith("-")}
    if settings.notify.command or settings.ollama.local_servers:
        names.add("PATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def _warn(state: State, loaded: config_load.Loaded, kind: Kind) -> None:
    from pipeline import schedule as schedulers

    key = loaded.settings.openai.api_key_env
    if "openai" in (loaded.settings.embed.provider, loaded.settings.generate.provider) and key in os.environ:
        state.say(f"{key} is a secret and was not written down: set it where {kind} starts things.")
    if kind == "systemd" and (hint := schedulers.linger_hint()):
        complain(hint)
