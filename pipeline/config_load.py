"""Where settings come from: flags, PIPELINE_* variables, project file, user file, defaults, in this order.

Every source is flattened to dotted keys ("chunk.size"), checked value by value against the structs of `config`, and
merged key by key, so that each setting knows its origin and an error names the file or variable it came from. Every
refusal is a ConfigError. Knows nothing of the command line but the names of its flags.
"""

from __future__ import annotations

import functools
import os
import tomllib
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipeline import config, errors

PREFIX = "PIPELINE_"
CONFIG_VARIABLE = "PIPELINE_CONFIG"
PROJECT_FILE = "pipeline.toml"

# Short names beside PIPELINE_<SECTION>_<KEY>, for the settings that are global options.
SHORT_VARIABLES = {"PIPELINE_PROVIDER": "embed.provider", "PIPELINE_MODEL": "embed.model"}

FLAGS = {
    "data": "--data",
    "collection": "--collection",
    "embed.provider": "--provider",
    "embed.model": "--model",
    "ollama.hosts": "--ollama-host",
    "run.max_delete": "--max-delete",
    "run.wait_lock_s": "--wait-lock",
    "run.max_duration": "--max-duration",
    "run.until": "--until",
    "search.top_k": "--top-k",
    "search.mode": "--mode",
    "search.per_document": "--per-document",
    "search.expand": "--expand",
    "search.rerank": "--rerank",
    "ask.passages": "--top-k",
    "serve.host": "--host",
    "serve.port": "--port",
}


# Sections of which there is one for each name that the user gives: [profiles.NAME].
TABLES: Mapping[str, type[config.Section]] = {"profiles": config.ProfileSettings, "clients": config.ClientSettings}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Settings and where each came from.

    Attributes:
        origins: dotted key -> "default", "--model", "PIPELINE_MODEL", or the path of a file; every key is there.
        ignored: PIPELINE_* variables that are nobody's here (a CI system has its own): for `doctor` to mention.
    """

    settings: config.Settings
    origins: Mapping[str, str]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Value:
    raw: Any
    origin: str
    text: bool  # written as text (variable or flag): "320" is a number


def load(flags: Mapping[str, Any], env: Mapping[str, str], project_file: Path | None, user_file: Path | None) -> Loaded:
    """Settings from all sources.

    Args:
        flags: dotted key -> value as given on the command line; None means not given.
        project_file: must exist. user_file: may be absent.

    Raises:
        ConfigError: an unknown key or variable, a wrong value, a file that cannot be read; exit code 2.
    """
    ignored = _refuse_unknown_variables(env)
    values: dict[str, _Value] = {}
    if host := env.get("OLLAMA_HOST", "").strip():
        values["ollama.hosts"] = _Value(raw=[host], origin="OLLAMA_HOST", text=True)
    if user_file is not None and user_file.exists():
        values.update(_file_values(user_file))
    if project_file is not None:
        values.update(_file_values(project_file))
    values.update(_variable_values(env))
    for key, raw in flags.items():
        if raw is not None:
            values[key] = _Value(raw=raw, origin=FLAGS.get(key, key), text=True)
    _check_named(values)
    settings = _build({key: _convert(key, value) for key, value in values.items()})
    origins = {key: values[key].origin if key in values else "default" for key in flatten(settings)}
    _check_together(settings, origins)
    return Loaded(settings=settings, origins=origins, ignored=ignored)


def find_project_file(flag: str | None, env: Mapping[str, str], folder: Path) -> Path | None:
    """`--config`, else PIPELINE_CONFIG, else `pipeline.toml` in `folder` if it is there."""
    if named := flag or env.get(CONFIG_VARIABLE, ""):
        return Path(named).expanduser()
    default = folder / PROJECT_FILE
    return default if default.exists() else None


def find_user_file() -> Path:
    """The user's own file for all projects, in the place the system has for it; it need not exist."""
    import platformdirs  # costs 10 ms that --help does not need

    return platformdirs.user_config_path("embed-pipeline") / PROJECT_FILE


def variable(key: str) -> str:
    """The variable that sets a dotted key: "chunk.size" -> "PIPELINE_CHUNK_SIZE"."""
    return PREFIX + key.replace(".", "_").upper()


@functools.cache
def keys() -> Mapping[str, Any]:
    """Every dotted key but those of TABLES, with its declared type, in the order of the structs."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(config.Settings):
        if field.name in _sections():
            found.update({f"{field.name}.{leaf.name}": leaf.type for leaf in msgspec.structs.fields(field.type)})
        elif field.name not in TABLES:
            found[field.name] = field.type
    return found


def flatten(settings: config.Settings) -> dict[str, Any]:
    """Dotted key -> value of all settings, those of TABLES included, in the order of the structs."""
    flat = {key: functools.reduce(getattr, key.split("."), settings) for key in keys()}
    for kind in TABLES:
        for name, table in getattr(settings, kind).items():
            flat.update({f"{kind}.{name}.{leaf}": getattr(table, leaf) for leaf in _leaf_types(kind)})
    return flat


@functools.cache
def _sections() -> Mapping[str, type[config.Section]]:
    fields = msgspec.structs.fields(config.Settings)
    return {field.name: field.type for field in fields if isinstance(field.default, config.Section)}


@functools.cache
def _leaf_types(kind: str) -> Mapping[str, Any]:
    return {field.name: field.type for field in msgspec.structs.fields(TABLES[kind])}


def _type_of(key: str) -> Any:
    kind, _, rest = key.partition(".")
    return _leaf_types(kind)[rest.rpartition(".")[2]] if kind in TABLES else keys()[key]


# --- files


def _file_values(path: Path) -> dict[str, _Value]:
    tree = _read(path)
    return {key: _Value(raw=raw, origin=str(path), text=False) for key, raw in _leaves(tree, str(path))}


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise errors.ConfigError(
            f"Cannot read the configuration file {path}: {error.strerror}", "Check --config and PIPELINE_CONFIG."
        ) from error
    except (UnicodeDecodeError, ValueError) as error:  # ValueError: a NUL in the path itself
        raise errors.ConfigError(f"{path}: not UTF-8 text: {error}", "Save the file as UTF-8.") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = str(error).replace("at end of document", f"at line {len(text.splitlines())}, the end of the file")
        raise errors.ConfigError(
            f"{path}: not valid TOML: {where}", "See configs/default.toml for examples."
        ) from error
    except RecursionError as error:
        raise errors.ConfigError(f"{path}: values nested too deeply", "No setting nests deeper than a list.") from error


def _leaves(tree: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if name in TABLES:
            yield from _named_leaves(name, _table(name, value, where), where)
        elif name in _sections():
            for leaf, raw in _table(name, value, where).items():
                yield _known(f"{name}.{leaf}", keys(), where), raw
        else:
            yield _known(name, keys(), where), value


def _named_leaves(kind: str, tables: Mapping[str, Any], where: str) -> Iterator[tuple[str, Any]]:
    for name, table in tables.items():
        valid = {f"{kind}.{name}.{leaf}" for leaf in _leaf_types(kind)}
        for leaf, raw in _table(f"{kind}.{name}", table, where).items():
            yield _known(f"{kind}.{name}.{leaf}", valid, where), raw


def _check_named(values: Mapping[str, _Value]) -> None:
    """Refuse a named table without what it must have, in whichever file that may stand."""
    for key, value in values.items():
        kind, table = key.partition(".")[0], key.rpartition(".")[0]
        for field in msgspec.structs.fields(TABLES[kind]) if kind in TABLES else ():
            if field.required and f"{table}.{field.name}" not in values:
                raise errors.ConfigError(
                    f"{value.origin}: {table} has no {field.name}", f"Give it one, or take [{table}] out."
                )


def _table(name: str, value: object, where: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    raise errors.ConfigError(
        f"{where}: {name} = {_show(value)}: must be a table", f"Write [{name}] and its keys below."
    )


def _known(key: str, valid: Iterable[str], where: str) -> str:
    if key in valid:
        return key
    raise errors.ConfigError(f"{where}: unknown key {key}", _suggestion(key, list(valid)))


def _suggestion(key: str, valid: list[str]) -> str:
    first = [] if "." in key else [*_sections(), *(name for name in valid if "." not in name)]
    near = nearest(key, first) or nearest(key, valid)
    listing = "`pipeline config show` lists every key."
    return f"Did you mean {near}? {listing}" if near else listing


def nearest(name: str, valid: list[str]) -> str:
    """The valid name most like `name`, "" if none is: by all of it, else by its last part."""
    import difflib

    last = {candidate.rpartition(".")[2]: candidate for candidate in reversed(valid)}
    own = name.rpartition(".")[2]
    if own in last:  # the right key in the wrong section
        return last[own]
    if close := difflib.get_close_matches(name, valid, n=1, cutoff=0.6):
        return close[0]
    close = difflib.get_close_matches(own, list(last), n=1, cutoff=0.6)
    return last[close[0]] if close else ""


# --- variables


@functools.cache
def _variables() -> Mapping[str, str]:
    return {variable(key): key for key in keys()} | SHORT_VARIABLES


def _variable_values(env: Mapping[str, str]) -> dict[str, _Value]:
    """Settings from variables; an empty variable counts as not set."""
    values: dict[str, _Value] = {}
    for name, key in _variables().items():
        if not (text := env.get(name, "")):
            continue
        if key in values and values[key].raw != text:
            raise errors.ConfigError(
                f"{values[key].origin}={_show(values[key].raw)} and {name}={_show(text)} contradict each other",
                f"They are the same setting, {key}: unset one.",
            )
        values[key] = _Value(raw=text, origin=name, text=True)
    return values


def _refuse_unknown_variables(env: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse what looks like ours and is not; return the other PIPELINE_* names.

    Ours: begins with one of our sections, or is much like a variable of ours. Others (Azure's PIPELINE_WORKSPACE) are
    left alone, as a tool must not fail for what a CI system puts into its environment.
    """
    ignored = []
    sections = tuple(f"{PREFIX}{name.upper()}_" for name in _sections())
    for name in sorted(env):
        if not name.startswith(PREFIX) or name == CONFIG_VARIABLE or name in _variables() or not env[name]:
            continue
        for kind in TABLES:
            if name.startswith(f"{PREFIX}{kind.upper()}"):
                raise errors.ConfigError(f"{name}: {kind} cannot be set by variables", "Put them into a file.")
        near = _nearest_variable(name)
        if not near and not name.startswith(sections):
            ignored.append(name)
            continue
        hint = f"Did you mean {near}? " if near else ""
        raise errors.ConfigError(
            f"Unknown variable {name}", f"{hint}If it is not meant for this program: env -u {name}"
        )
    return tuple(ignored)


def _nearest_variable(name: str) -> str:
    import difflib

    ends = [known.removeprefix(PREFIX) for known in (*_variables(), CONFIG_VARIABLE)]
    close = difflib.get_close_matches(name.removeprefix(PREFIX), ends, n=1, cutoff=0.75)
    return PREFIX + close[0] if close else ""


# --- values


def _convert(key: str, value: _Value) -> Any:
    declared = _type_of(key)
    try:
        converted = msgspec.convert(_parse(value, declared), declared, strict=not value.text)
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise errors.ConfigError(
            f"{value.origin}: {key} = {_show(value.raw)} is not accepted", f"Give {expected(declared)}."
        ) from error
    if "\0" in str(converted):
        raise errors.ConfigError(f"{value.origin}: {key} holds a NUL character", "Take it out.")
    return _expand(key, converted)


def _parse(value: _Value, declared: Any) -> Any:
    """A percentage where a share is asked for; a comma-separated list where a list is asked for and text was given."""
    raw = value.raw
    if declared == config.Share and isinstance(raw, str):
        return float(raw[:-1]) / 100 if raw.endswith("%") else float(raw)
    if value.text and isinstance(raw, str) and typing.get_origin(declared) is tuple:
        return [part for part in (piece.strip() for piece in raw.split(",")) if part]
    return list(raw) if isinstance(raw, tuple) else raw


def _expand(key: str, value: Any) -> Any:
    """`~` in a path, as no shell expands it in a file."""
    if key in ("data", "search.rerank"):
        return os.path.expanduser(value)  # noqa: PTH111  stays text: Settings holds text
    if key == "source.folders":
        return tuple(os.path.expanduser(folder) for folder in value)  # noqa: PTH111
    return value


def expected(declared: Any) -> str:
    """What a type accepts, in words: "a whole number from 1 to 64", "one of auto, ollama"."""
    from msgspec import inspect

    if typing.get_origin(declared) is typing.Literal:  # in the order declared, which inspect does not keep
        return "one of " + ", ".join(typing.get_args(declared))
    return _describe(inspect.type_info(declared))


def _describe(info: Any) -> str:
    from msgspec import inspect

    match info:
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return words
        case inspect.Metadata(type=inner):
            return _describe(inner)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _range(info)
        case inspect.FloatType(gt=0, le=1):
            return 'a share above 0, at most 1, or a text such as "20%"'
        case inspect.FloatType():
            return "a number" + _range(info)
        case inspect.VarTupleType(item_type=item):
            return f"a list, each item {_describe(item)}"
        case inspect.StrType(min_length=1):
            return "a text that is not empty"
    return "a text"


def _range(info: Any) -> str:
    low = f" above {info.gt}" if info.gt is not None else f" from {info.ge}"
    return f"{low} to {info.le}"


def _show(value: object) -> str:
    text = (
        str(value).lower() if isinstance(value, bool) else repr(value) if not isinstance(value, str) else f'"{value}"'
    )
    safe = "".join(char if char.isprintable() else "?" for char in text)
    return safe if len(safe) <= 80 else safe[:77] + "..."


# --- the whole


def _build(values: Mapping[str, Any]) -> config.Settings:
    tree: dict[str, Any] = {}
    tables: dict[str, dict[str, dict[str, Any]]] = {kind: {} for kind in TABLES}
    sections: dict[str, dict[str, Any]] = {name: {} for name in _sections()}
    for key, value in values.items():
        head, _, leaf = key.partition(".")
        if head in TABLES:
            name, _, leaf = leaf.rpartition(".")  # a model's name may hold dots, a leaf does not
            tables[head].setdefault(name, {})[leaf] = value
        elif leaf:
            sections[head][leaf] = value
        else:
            tree[head] = value
    tree |= {name: section(**sections[name]) for name, section in _sections().items()}
    for kind in TABLES:
        tree[kind] = {name: TABLES[kind](**leaves) for name, leaves in tables[kind].items()}
    return config.Settings(**tree)


def _check_together(settings: config.Settings, origins: Mapping[str, str]) -> None:
    """Rules between two settings; a value by itself is checked by its type."""
    _at_most("chunk.size", "chunk.max", settings, origins)
    _at_most("chunk.max", "embed.batch_tokens", settings, origins)
    answer, context, window = "generate.max_tokens", "ask.context_tokens", "generate.num_ctx"
    flat = flatten(settings)
    if flat[answer] + flat[context] >= flat[window]:
        told = [f"{key} = {flat[key]} ({origins[key]})" for key in (context, answer, window)]
        raise errors.ConfigError(
            f"{told[0]} and {told[1]} do not fit into {told[2]}",
            "A server would cut the passages silently: raise generate.num_ctx or lower the others.",
        )


def _at_most(low: str, high: str, settings: config.Settings, origins: Mapping[str, str]) -> None:
    flat = flatten(settings)
    if flat[low] > flat[high]:
        raise errors.ConfigError(
            f"{low} = {flat[low]} ({origins[low]}) is above {high} = {flat[high]} ({origins[high]})",
            f"Set {high} to at least {flat[low]}, or {low} to at most {flat[high]}.",
        )
