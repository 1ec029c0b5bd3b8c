"""The group: its table of commands is all that `pipeline --help` needs, so that help costs no heavy import."""

from __future__ import annotations

import importlib
import keyword
import sys
from typing import Any, NoReturn

import click

import pipeline
from pipeline.cli import failures, options, state

# command -> (module of this package, what it does); a command's function is named as the command. A test holds the
# texts equal to the commands' own.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("stages", "Ingest, chunk, embed and index what changed in DOCS."),
    "retry": ("stages", "Try again what was rejected before."),
    "search": ("queries", "Show the passages that match a question best."),
    "ask": ("ask", "Answer a question from the documents, with citations."),
    "chat": ("chat", "Ask questions one after the other; each may refer to what was said before."),
    "evaluate": ("evaluate", "Measure how well the collection is searched."),
    "status": ("overview", "Show what the collection holds and what is due."),
    "report": ("reports", "Show the report of the last run."),
    "history": ("generations", "Show the snapshots that can be published again."),
    "diff": ("generations", "Show what differs between two snapshots."),
    "rollback": ("generations", "Publish an older snapshot again."),
    "migrate": ("migrate", "Change the embedding model, while the old one goes on serving."),
    "ingest": ("stages", "Read new and changed files of DOCS."),
    "chunk": ("stages", "Cut what was ingested into passages."),
    "embed": ("stages", "Embed the passages that have no vector yet."),
    "index": ("stages", "Bring the search index up to date."),
    "why": ("forecasts", "Show what a run would do with one file, and why."),
    "plan": ("forecasts", "Show what changed settings would cost."),
    "inspect": ("inspect", "Show how FILE is read, cut into chunks and sent to the model."),
    "doctor": ("overview", "Check this machine, the model server and the settings."),
    "watch": ("watch", "Run now, and again whenever something changes in DOCS."),
    "map": ("map", "Draw a map of the collection."),
    "schedule": ("scheduling", "Start a run every night."),
    "serve": ("serve", "Serve the collections to a browser, to Dify, to OpenAI-compatible clients and to agents."),
    "mcp": ("mcp", "Serve the collections to an agent over stdin and stdout (Model Context Protocol)."),
    "check": ("upkeep", "Check everything that is stored against everything else."),
    "gc": ("upkeep", "Free the disk space of what nothing needs any more."),
    "export": ("transfer", "Write the vectors to a file, for another machine."),
    "import": ("transfer", "Take in vectors that `pipeline export` wrote."),
    "config": ("settings", "Show the settings and where they come from."),
    "completion": ("settings", "Print the completion script for a shell."),
}

EPILOG = 'Begin with: pipeline run FOLDER, then: pipeline ask "QUESTION"'


class Root(click.Group):
    """Imports a command's module when the command is asked for; ends every invocation through `failures.guard`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"pipeline.cli.{COMMANDS[cmd_name][0]}")
        found = getattr(module, f"{cmd_name}_" if keyword.iskeyword(cmd_name) else cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        given = state.State()
        kwargs.update(standalone_mode=False, obj=given)
        sys.exit(failures.guard(lambda: click.Group.main(self, *args, **kwargs), given))


@click.command(
    "pipeline",
    cls=Root,
    epilog=EPILOG,
    params=options.global_options(hidden=False),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(pipeline.__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Search and question your own documents, on your own machine: files in, answers with citations out."""
