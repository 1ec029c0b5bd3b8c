"""Options of more than one command. Each global option has its variable and may stand before or after the command.

click does not read the variables: `config_load` does, so that precedence and origin are decided in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from pipeline.cli import state

PROVIDERS = ("auto", "ollama", "openai", "builtin")  # config.Provider, repeated: importing it costs --help 30 ms

# option strings, dotted key, help, further arguments for click.Option
_SETTINGS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("--data", "data", "Folder for what the pipeline writes.  [PIPELINE_DATA; data]", {"metavar": "DIR"}),
    ("--collection", "collection", "Collection to use.  [PIPELINE_COLLECTION; default]", {"metavar": "NAME"}),
    (
        "--provider",
        "embed.provider",
        "Who embeds.  [PIPELINE_PROVIDER; auto]",
        {"type": click.Choice(PROVIDERS)},
    ),
    ("--model", "embed.model", "Embedding model.  [PIPELINE_MODEL; the provider's]", {"metavar": "NAME"}),
    (
        "--ollama-host",
        "ollama.hosts",
        "Ollama server; may be repeated.  [OLLAMA_HOST]",
        {"metavar": "URL", "multiple": True},
    ),
)


def _keep_setting(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and value != ():
        ctx.ensure_object(state.State).flags[_KEYS[str(param.name)]] = value


def _keep_attribute(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value:
        setattr(ctx.ensure_object(state.State), str(param.name), value)


_KEYS = {option.removeprefix("--").replace("-", "_"): key for option, key, _, _ in _SETTINGS}


def global_options(*, hidden: bool) -> list[click.Option]:
    """New instances, for the group (shown) or for a command (accepted, not shown: its own options are the news)."""
    settings = [
        click.Option([name], help=text, callback=_keep_setting, expose_value=False, hidden=hidden, **more)
        for name, _, text, more in _SETTINGS
    ]
    return [
        *settings,
        _switch(["--config"], "Settings in TOML.  [PIPELINE_CONFIG; pipeline.toml]", hidden, metavar="FILE"),
        _switch(["-q", "--quiet"], "Print nothing unless something fails.", hidden, is_flag=True),
        _switch(["-v", "--verbose"], "Print what is done, and tracebacks.", hidden, is_flag=True),
    ]


def _switch(names: Sequence[str], text: str, hidden: bool, **more: Any) -> click.Option:
    return click.Option(names, help=text, callback=_keep_attribute, expose_value=False, hidden=hidden, **more)


class Command(click.Command):
    """A command that takes the global options as well. `shown`: names of those that its help tells, and of what."""

    def __init__(self, *args: Any, shown: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        kwargs.setdefault("epilog", "Global options (pipeline --help) may stand here too.")
        super().__init__(*args, **kwargs)
        common = global_options(hidden=True)
        for option in common:
            if option.name in (shown or {}):
                option.hidden, option.help = False, (shown or {})[option.name]
        first = [option for option in common if not option.hidden]
        self.params = [*first, *self.params, *(option for option in common if option.hidden)]


class Group(Command, click.Group):
    """A command that has commands below it, and takes the global options as well."""


def command(name: str, shown: Mapping[str, str] | None = None) -> Callable[[Callable[..., Any]], Command]:
    """Decorator: a command of this program. Its docstring is its help; it returns its exit code."""
    return click.command(name, cls=Command, shown=shown)


def json_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--json`: one object on stdout, an error too."""
    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=_keep_attribute, help="Print one JSON object."
    )
    return option(function)


WHERE = ("path=", "path~", "type=", "title~", "heading~", "page=", "page<=", "page>=", "modified>", "modified<")


def where(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--where`, repeatable: to be read by `filters.parse`, as `where: tuple[str, ...]`."""
    option = click.option(
        "--where",
        multiple=True,
        metavar="FILTER",
        shell_complete=lambda _ctx, _param, typed: [name for name in WHERE if name.startswith(typed)],
        help="Only passages of: path=docs/2026/, path=*.pdf, type=pdf, heading~leave, 'page<=3', 'modified>7d'. "
        "May be repeated; all must hold.",
    )
    return option(function)


def reranker(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--rerank` and `--no-rerank`, kept as the setting."""
    chosen = click.option(
        "--rerank",
        metavar="MODEL",
        expose_value=False,
        callback=_keep_reranker,
        help="Let a cross-encoder order the best passages: a folder with model.onnx, or a server's URL.",
    )
    none = click.option(
        "--no-rerank", is_flag=True, expose_value=False, callback=_keep_reranker, help="Leave it out where one is set."
    )
    return chosen(none(function))


def _keep_reranker(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and value is not False:
        ctx.ensure_object(state.State).flags["search.rerank"] = "" if value is True else value
