"""The command that stays: serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, put_json

if TYPE_CHECKING:
    from pipeline import config


@options.command("serve")
@click.option("--host", metavar="ADDRESS", help="Where to listen; beyond this machine only with a key.  [127.0.0.1]")
@click.option("--port", metavar="N", help="0: any free one.  [8765]")
@click.option("--key", "keys", multiple=True, metavar="KEY", help="Accept this API key; may be repeated.")
@click.option("--new-key", is_flag=True, help="Print a fresh key and its line for the settings, and end.")
@click.option("--dify", is_flag=True, help="Print what to type into Dify, and end.")
@options.json_output
@click.pass_obj
def serve(state: State, host: str | None, port: str | None, keys: tuple[str, ...], new_key: bool, dify: bool) -> int:
    """Serve the collections to Dify and to OpenAI-compatible clients.

    A key given with --key can be seen in the list of processes: better keep its hash in the settings (--new-key).
    """
    settings = with_keys(state.load(serve__host=host, serve__port=port).settings, keys)
    if new_key:
        return _new_key(state, settings)
    if dify:
        from pipeline.serve import instructions

        click.echo(instructions.dify(settings, *keys[:1]), nl=False)
        return 0
    return _serve(state, settings)


def with_keys(settings: config.Settings, keys: Sequence[str]) -> config.Settings:
    """The settings with the hashes of `keys` among theirs."""
    import msgspec

    from pipeline.serve import keys as api_keys

    hashes = (*settings.serve.keys, *map(api_keys.digest, keys))
    return msgspec.structs.replace(settings, serve=msgspec.structs.replace(settings.serve, keys=hashes))


def _new_key(state: State, settings: config.Settings) -> int:
    from pipeline.cli.settings import toml
    from pipeline.serve import keys as api_keys

    key = api_keys.new()
    if state.json:
        put_json({"key": key, "sha256": api_keys.digest(key)})
        return 0
    click.echo(key)
    state.say("This key is shown only now. Put its hash into pipeline.toml (or PIPELINE_SERVE_KEYS):\n")
    state.say(f"[serve]\nkeys = {toml((*settings.serve.keys, api_keys.digest(key)))}")
    return 0


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
