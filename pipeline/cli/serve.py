"""The command that stays: serve."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, put_json

if TYPE_CHECKING:
    from pipeline import config


def _check_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not re.fullmatch(r"\w[\w.-]{0,63}", value):  # as config.Name
        raise click.BadParameter("must be a name of letters, digits, '.', '_' and '-'")
    return value


@click.group("serve", cls=options.Group, invoke_without_command=True)
@click.option("--host", metavar="ADDRESS", help="Where to listen; beyond this machine only with a key.  [127.0.0.1]")
@click.option("--port", metavar="N", help="0: any free one.  [8765]")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Accept this API key; may be repeated.")
@click.option("--dify", is_flag=True, help="Print what to type into Dify, and end.")
@options.json_output
@click.pass_context
def serve(ctx: click.Context, host: str | None, port: str | None, keys: tuple[str, ...], dify: bool) -> int:
    """Serve the collections to a browser, to Dify, to OpenAI-compatible clients and to agents.

    A key given with --key can be seen in the list of processes: better make one with `serve key add`, which keeps its
    hash in the settings.
    """
    if ctx.invoked_subcommand is not None:
        return 0
    state: State = ctx.obj
    settings = with_keys(state.load(serve__host=host, serve__port=port).settings, keys)
    if dify:
        from pipeline.serve import instructions

        click.echo(instructions.dify(settings, *keys[:1]), nl=False)
        return 0
    return _serve(state, settings)


@click.group("key")
def key() -> None:
    """Keys of the clients that may ask."""


@options.command("add")
@click.argument("name", callback=_check_name)
@click.option(
    "--only", "only", multiple=True, metavar="COLLECTION", help="It may ask this alone; may be repeated.  [all]"
)
@click.option("--rate", type=click.IntRange(min=0), default=0, metavar="N", help="Requests a minute.  [no limit]")
@options.json_output
@click.pass_obj
def add(state: State, name: str, only: tuple[str, ...], rate: int) -> int:
    """Make a key for a client, such as dify, and keep its hash in the settings.

    The key is printed once. It goes into the file given with --config, else into pipeline.toml here, else into your
    own settings file. A server that is running takes it when it is started again.
    """
    from pipeline import config_edit
    from pipeline.serve import keys as api_keys

    state.load()  # a file that would be refused is told before it is changed
    made, path = api_keys.new(), _settings_file(state)
    config_edit.add_client(path, name, api_keys.digest(made), only, rate)
    if state.json:
        put_json({"name": name, "key": made, "sha256": api_keys.digest(made), "file": str(path)})
        return 0
    click.echo(made)
    state.say(f"This key is shown only now. Its hash is in {path}, as [clients.{config_edit.toml_name(name)}].")
    return 0


@options.command("list")
@options.json_output
@click.pass_obj
def list_(state: State) -> int:
    """Name the clients, what they may ask and how often."""
    clients = state.load().settings.clients
    if state.json:
        told = {name: {"collections": list(one.collections), "rate": one.rate} for name, one in clients.items()}
        put_json({"clients": told})
        return 0
    for name, one in clients.items():
        rate = f", {one.rate} requests a minute" if one.rate else ""
        state.tell(f"{name}: {', '.join(one.collections) or 'all collections'}{rate}")
    if not clients:
        state.say("No client has a key of its own.")
    return 0


@options.command("remove")
@click.argument("name")
@click.pass_obj
def remove(state: State, name: str) -> int:
    """Take a client's key out of the settings file."""
    from pipeline import config_edit

    path = _settings_file(state)
    config_edit.remove_client(path, name)
    state.tell(f"{name} is no longer in {path}. A server that is running forgets it when it is started again.")
    return 0


key.add_command(add)
key.add_command(list_)
key.add_command(remove)
serve.add_command(key)


def _settings_file(state: State) -> Path:
    """The file that the settings of this folder come from; the user's own where there is none."""
    from pipeline import config_load

    return config_load.find_project_file(state.config, os.environ, Path.cwd()) or config_load.find_user_file()


def with_keys(settings: config.Settings, keys: Sequence[str]) -> config.Settings:
    """The settings with the hashes of `keys` among theirs."""
    import msgspec

    from pipeline.serve import keys as api_keys

    hashes = (*settings.serve.keys, *map(api_keys.digest, keys))
    return msgspec.structs.replace(settings, serve=msgspec.structs.replace(settings.serve, keys=hashes))


def _serve(state: State, settings: config.Settings) -> int:
    import logging

    from pipeline.serve import server

    def announce(url: str) -> None:
        if state.json:
            put_json({"url": url})
        state.say(f"Listening on {url}")

    if not state.quiet:
        logging.getLogger("pipeline.serve").setLevel(logging.DEBUG if state.verbose else logging.INFO)
    try:
        server.serve(settings, announce)
    except KeyboardInterrupt:
        state.say("Stopped.")
    return 0
