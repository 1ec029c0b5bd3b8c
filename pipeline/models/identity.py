"""What a collection was built with, against what the settings ask for and what a server has now. Exit code 12 where
they differ."""

from __future__ import annotations

from pipeline import config, errors
from pipeline.models import EmbedderSpec, profiles


def refuse_another(settings: config.Settings, recorded: EmbedderSpec) -> None:
    """Refuse settings that name another provider, model or vector length than the collection was built with.

    Raises:
        ModelMismatch: with the command that builds another collection.
    """
    embed = settings.embed
    model = embed.model or (settings.openai.model if recorded.provider == "openai" else "")
    if embed.provider not in ("auto", recorded.provider):
        raise _differs(settings, "provider", embed.provider, recorded.provider, f"--provider {embed.provider}")
    if model and profiles.canonical(model) != profiles.canonical(recorded.model):
        raise _differs(settings, "model", model, recorded.model, f"--provider {recorded.provider} --model {model}")
    if embed.dims and embed.dims != recorded.dims:
        raise _differs(
            settings,
            "embed.dims",
            embed.dims,
            recorded.dims,
            f"--provider {recorded.provider} --model {recorded.model}",
            more=f" --dims {embed.dims}",
        )


def _differs(
    settings: config.Settings, what: str, asked: object, has: object, options: str, more: str = ""
) -> errors.ModelMismatch:
    return errors.ModelMismatch(
        f"Collection {settings.collection!r} was built with {what} {has}; {asked} was asked for.",
        f"Leave that out to go on with it. To change it for good: {change(settings, options + more)}. "
        f"For another collection beside it: {rebuild(settings, options)}",
    )


def rebuild(settings: config.Settings, options: str) -> str:
    """The command that builds a collection beside this one."""
    return f"pipeline --collection {settings.collection}-new {options} run DOCS"


def change(settings: config.Settings, options: str) -> str:
    """The command that changes the model of this collection."""
    other = "" if settings.collection == "default" else f"--collection {settings.collection} "
    return f"pipeline {other}migrate {options}"


def same_digest(settings: config.Settings, recorded: EmbedderSpec, digest: str, where: str) -> None:
    """Refuse other weights under the same name: their vectors do not belong together.

    Raises:
        ModelMismatch: with the commands that mend it.
    """
    if digest == recorded.digest:
        return
    options = f"--provider {recorded.provider} --model {recorded.model}"
    raise errors.ModelMismatch(
        f"{recorded.model} of {where} is not the model that collection {settings.collection!r} was built with "
        f"(digest {digest[:12]}, then {recorded.digest[:12]}).",
        f"Bring that model back, or change to this one: {change(settings, options)}",
    )
