"""Facts about embedding models that no server tells: templates, limits, Matryoshka lengths, languages. The table is
`profiles.toml`.

Knows how model names are written (Ollama's tags and registry prefixes); knows no server and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TypeVar

import msgspec

from pipeline import config, errors

MULTILINGUAL = ("bge-m3", "qwen3-embedding:0.6b")  # to suggest, the smaller first
_REGISTRY = "registry.ollama.ai/"
T = TypeVar("T")


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model's facts. `max_tokens` counts the `specials` that the model adds to each text; `languages` empty means
    many."""

    base: str = ""  # in the table: another entry whose facts hold where this one says nothing
    dims: int = 0
    max_tokens: int = 0
    specials: int = 2
    query: str = "{text}"
    document: str = "{text}"
    matryoshka: tuple[int, ...] = ()
    languages: tuple[str, ...] = ()
    vocabulary: str = ""  # "bert-base-uncased": the packaged tokenizer counts for this model


def canonical(model: str) -> str:
    """One spelling for a model's name: lower case, without the default registry and namespace, with its tag.

    `registry.ollama.ai/library/Mxbai-Embed-Large`, `mxbai-embed-large` and `mxbai-embed-large:latest` are one model
    (Ollama
    compares names ignoring case: `model.Name.EqualFold`).
    """
    name = model.strip().casefold().removeprefix(_REGISTRY).removeprefix("library/")
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def short(model: str) -> str:
    """The name as people write it: `canonical` without `:latest`."""
    return canonical(model).removesuffix(":latest")


@cache
def table() -> Mapping[str, Profile]:
    """The profiles that come with the program, by model name (with a tag where a tag differs), `base` entries filled
    in."""
    raw = msgspec.toml.decode(resources.files("pipeline.models").joinpath("profiles.toml").read_bytes())
    merged = {name: {**raw.get(entry.get("base", ""), {}), **entry} for name, entry in raw.items()}
    return msgspec.convert(merged, dict[str, Profile])


def find(model: str, own: Mapping[str, config.ProfileSettings] | None = None) -> Profile | None:
    """The profile of `model`, or None: by name and tag, else by name. What the user's `own` profiles say goes first.

    Raises:
        ConfigError: a profile of the user has a template without `{text}`, or a negative number.
    """
    known = _lookup(table(), model)
    mine = _lookup({canonical_key(name): entry for name, entry in (own or {}).items()}, model)
    if mine is None:
        return known
    return _checked(model, _overlay(known or Profile(), mine))


def canonical_key(name: str) -> str:
    """A table's key: canonical, but without a tag where the writer gave none (it then stands for every tag)."""
    return canonical(name) if ":" in name.rpartition("/")[2] else short(name)


def _lookup(entries: Mapping[str, T], model: str) -> T | None:
    name = canonical(model)
    untagged, _, _ = name.rpartition(":")
    bare = untagged.rpartition("/")[2]  # a copy under somebody's namespace is still that model
    return next((entries[key] for key in (name, untagged, bare) if key in entries), None)


def _overlay(known: Profile, mine: config.ProfileSettings) -> Profile:
    """`known` with every field that the user set; a field left at its default says nothing."""
    default = config.ProfileSettings()
    changed = {
        field: getattr(mine, field)
        for field in mine.__struct_fields__
        if getattr(mine, field) != getattr(default, field)
    }
    return msgspec.structs.replace(known, **changed)


def _checked(model: str, profile: Profile) -> Profile:
    for field in ("query", "document"):
        if "{text}" not in getattr(profile, field):
            raise errors.ConfigError(
                f"profiles.{model}.{field} has no {{text}}", "Write the template with {text} where the text goes."
            )
    if profile.dims < 0 or profile.max_tokens < 0 or any(size <= 0 for size in profile.matryoshka):
        raise errors.ConfigError(
            f"profiles.{model} has a negative number", "dims, max_tokens and matryoshka are counts."
        )
    return profile


def cut_to(model: str, profile: Profile, native: int, wanted: int) -> int:
    """The length of the vectors to keep: `wanted` if the model was trained to be cut there, `native` for 0.

    Raises:
        ConfigError: it was not (any other cut throws meaning away), or the model's vectors are shorter.
    """
    if wanted in (0, native):
        return native
    if wanted not in profile.matryoshka or wanted > native:
        sizes = ", ".join(str(size) for size in profile.matryoshka if size < native) or f"only {native}"
        raise errors.ConfigError(
            f"embed.dims = {wanted}: vectors of {model} cannot be cut there ({sizes}).",
            f"Set embed.dims to one of these, to 0, or profiles.{model}.matryoshka if you know better.",
        )
    return wanted
