"""`config show` and `completion`: what the program thinks it was told, and how a shell completes it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli import options
from pipeline.cli.state import State, put_json

if TYPE_CHECKING:
    from pipeline import config_load

SHELLS = ("bash", "zsh", "fish")


@click.group("config")
def config() -> None:
    """Show the settings and where they come from."""


@options.command("show")
@click.option("--origin", is_flag=True, help="Name the flag, variable or file that each value comes from.")
@options.json_output
@click.pass_obj
def show(state: State, origin: bool) -> int:
    """Print every setting as TOML, as this command would use it."""
    from pipeline import config_edit, config_load

    loaded = state.load()
    values = config_load.flatten(loaded.settings)
    if state.json:
        put_json({"settings": values, "origins": dict(loaded.origins)})
        return 0
    if origin:
        click.echo("\n".join(_sources(state, loaded)))
    lines = {key: f"{_toml_key(key)} = {config_edit.toml(value)}" for key, value in values.items()}
    width = min(max(map(len, lines.values())), 60)
    for key, line in lines.items():
        click.echo(f"{line:{width}}  # {loaded.origins[key]}" if origin else line)
    return 0


config.add_command(show)


def _sources(state: State, loaded: config_load.Loaded) -> list[str]:
    """TOML comments that name the two files, there or not."""
    from pipeline import config_load

    project = config_load.find_project_file(state.config, os.environ, Path.cwd())
    user = config_load.find_user_file()
    lines = [
        f"# project file: {project or f'{config_load.PROJECT_FILE} (none here)'}",
        f"# user file:    {user}{'' if user.exists() else ' (not there)'}",
    ]
    return lines + [f"# not a setting: {name}" for name in loaded.ignored]


def _toml_key(key: str) -> str:
    """A dotted key with the name in it, of a model or a client, quoted."""
    from pipeline import config_edit, config_load

    kind, _, rest = key.partition(".")
    if kind not in config_load.TABLES:
        return key
    name, _, leaf = rest.rpartition(".")
    return f"{kind}.{config_edit.toml_name(name)}.{leaf}"


@options.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the completion script for a shell.

    \b
    bash: echo 'eval "$(pipeline completion bash)"' >> ~/.bashrc
    zsh:  echo 'eval "$(pipeline completion zsh)"' >> ~/.zshrc
    fish: pipeline completion fish > ~/.config/fish/completions/pipeline.fish
    """
    from click import shell_completion

    found = shell_completion.get_completion_class(shell)
    assert found is not None  # SHELLS are click's own
    click.echo(found(ctx.find_root().command, {}, "pipeline", "_PIPELINE_COMPLETE").source())
    return 0
