"""`pipeline watch`: the same run, whenever something changes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import failures, options
from pipeline.cli.state import State, complain

if TYPE_CHECKING:
    from pipeline import config, run, watching
    from pipeline.report import Report

BACK_OFF_S = 15.0  # before a failed run is tried again; doubled each time, up to BACK_OFF_MOST_S
BACK_OFF_MOST_S = 600.0
# What no waiting mends: somebody has to type or change something, and start again.
_FINAL = (errors.UsageError, errors.ModelMismatch, errors.IndexMismatch, errors.CorruptStore)


@options.command("watch")
@click.argument("docs", nargs=-1, type=click.Path(path_type=Path), metavar="[DOCS]...")
@click.option(
    "--quiet-for",
    type=click.FloatRange(0, 3600),
    default=2.0,
    metavar="SECONDS",
    help="Run when nothing has changed for so long.  [2]",
)
@click.option(
    "--every",
    type=click.FloatRange(1, 86_400),
    default=30.0,
    metavar="SECONDS",
    help="Run so often while changes go on.  [30]",
)
@click.option("--poll", is_flag=True, help="Look instead of being told: for network folders.")
@click.option("--max-delete", metavar="SHARE", help="Stop if more of the files would be dropped, such as 20%.")
@click.option("--wait-lock", metavar="SECONDS", help="Wait so long for another run to end.  [the settings', else 60]")
@click.pass_obj
def watch(
    state: State,
    docs: tuple[Path, ...],
    quiet_for: float,
    every: float,
    poll: bool,
    max_delete: str | None,
    wait_lock: str | None,
) -> int:
    """Run now, and again whenever something changes in DOCS.

    DOCS are folders; left out, those of the settings (source.folders) or of the run before. A run that fails is said
    and tried again: at the next change, or after a while. Each leaves a report, as `pipeline run` does. Ctrl-C ends it.
    """
    settings = state.load(run__max_delete=max_delete, run__wait_lock_s=wait_lock).settings
    import msgspec

    from pipeline import run, watching
    from pipeline.cli import stages

    if not settings.run.wait_lock_s:
        settings = msgspec.structs.replace(settings, run=msgspec.structs.replace(settings.run, wait_lock_s=60.0))
    folders = stages.folders_of(settings, docs)
    request = run.Request(stages=stages.ALL, folders=folders, max_delete=settings.run.max_delete)
    runs = _Runs(state, settings, request)
    chosen = watching.Options(
        quiet_s=quiet_for,
        most_s=every,
        poll=poll,
        hidden=settings.source.hidden,
        ignored=(Path(settings.data),),
    )
    state.say(f"Watching {', '.join(str(folder) for folder in folders)}; Ctrl-C ends it.")
    while not _followed(folders, runs, chosen):
        pass
    state.say("Stopped.")
    return 0


def _followed(folders: tuple[Path, ...], runs: _Runs, chosen: watching.Options) -> bool:
    """Watch until Ctrl-C (True), or until a folder is not there any more and some time has passed (False)."""
    from pipeline import watching

    try:
        watching.follow(folders, runs.attempt, chosen)
    except errors.SourceError as error:
        if not runs.begun:  # mistyped
            raise
        try:
            time.sleep(runs.failed(error))
        except KeyboardInterrupt:
            return True
        return False
    except KeyboardInterrupt:
        if runs.running:
            raise
        return True


class _Runs:
    """Run after run of one request, and what is said about each."""

    def __init__(self, state: State, settings: config.Settings, request: run.Request) -> None:
        self._state = state
        self._settings = settings
        self._request = request
        self._back_off_s = BACK_OFF_S
        self._said = False  # whether the failures have been named once
        self.begun = self.running = False

    def attempt(self) -> float | None:
        """One run; returns the seconds after which to try again, None when it went well.

        Raises:
            PipelineError: one that no waiting mends.
        """
        from pipeline import run

        self.begun = self.running = True
        try:
            report = run.execute(self._settings, self._request, self._state.progress())
            self.running = False
        except _FINAL:
            raise
        except errors.PipelineError as error:
            self.running = False
            return self.failed(error)
        self._back_off_s = BACK_OFF_S
        self._tell(report)
        return None

    def failed(self, error: errors.PipelineError) -> float:
        """Say it; returns the seconds after which to try again."""
        failures.complain_of(error)
        if isinstance(error, errors.TooManyDeletions):  # perhaps a mount that comes back; said often, it is no news
            self._back_off_s = BACK_OFF_MOST_S
        wait_s, self._back_off_s = self._back_off_s, min(2 * self._back_off_s, BACK_OFF_MOST_S)
        self._state.say(f"Tried again at the next change, or in {wait_s:g} s.")
        return wait_s

    def _tell(self, report: Report) -> None:
        from pipeline.cli import render

        self._state.tell(f"{time.strftime('%H:%M:%S')}  {' '.join(render.report(report))}")
        for note in report.notes:
            self._state.say(note)
        if report.failures and (not self._said or (report.detail is not None and report.detail.new_failures)):
            for line in render.failures(report.failures):
                complain(line)
        self._said = True
