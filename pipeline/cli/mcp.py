"""`pipeline mcp`: the collections as tools of an agent that runs on this machine."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli import options
from pipeline.cli.state import State, put_json

if TYPE_CHECKING:
    from pipeline import config

NAME = "documents"  # of the server, in a host's settings


@options.command("mcp")
@click.option("--print-config", is_flag=True, help="Print what to put into the settings of a host, and end.")
@options.json_output
@click.pass_obj
def mcp(state: State, print_config: bool) -> int:
    """Serve the collections to an agent over stdin and stdout (Model Context Protocol).

    Its tools search, fetch, ask, list_documents and index_status only read. A host starts this command by itself: see
    --print-config. `pipeline serve` has the same tools at /mcp.
    """
    loaded = state.load()
    if print_config:
        stdio, http = _entries(state, loaded.settings)
        if state.json:
            put_json({"stdio": stdio, "http": http})
            return 0
        state.say("Most hosts read an object mcpServers, some (VS Code) one named servers with the same entry.\n")
        put_json({"mcpServers": {NAME: stdio}})
        state.say("\nWith `pipeline serve` running, hosts that speak HTTP take:\n")
        put_json({"mcpServers": {NAME: http}})
        return 0
    from pipeline.serve import mcp_stdio

    mcp_stdio.serve(loaded.settings)
    return 0


def _entries(state: State, settings: config.Settings) -> tuple[dict[str, Any], dict[str, Any]]:
    """By absolute paths: a host starts the command in a folder and an environment of its own."""
    from pipeline import config_load

    called = shutil.which(sys.argv[0])
    command = [str(Path(called).absolute())] if called else [sys.executable, "-m", "pipeline"]
    project = config_load.find_project_file(state.config, os.environ, Path.cwd())
    told = ["--config", str(project.absolute())] if project is not None else []
    told += ["--data", str(Path(settings.data).absolute()), "--collection", settings.collection]
    url = f"http://{settings.serve.host}:{settings.serve.port}/mcp"
    return {"command": command[0], "args": [*command[1:], *told, "mcp"]}, {"type": "http", "url": url}
