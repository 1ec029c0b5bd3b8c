"""Settings written as TOML; and clients with their keys put into a settings file and taken out, without touching what
else stands in it.

A file of the user is edited as text, since its comments and order are his: a table is put at its end, or its lines are
taken out. The result is read again before it replaces the file: it says what it should, or nothing is changed.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline import errors

_HEADER = re.compile(r"""^\s*\[""")


def toml(value: Any) -> str:
    """A setting's value as TOML. JSON's escapes are TOML's, but for DEL."""
    if isinstance(value, tuple | list):
        return f"[{', '.join(toml(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_name(name: str) -> str:
    """A name as a key of TOML: quoted where it has to be."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml(name)


def clients(path: Path) -> dict[str, dict[str, Any]]:
    """The clients that the file names; none where there is no file.

    Raises:
        ConfigError: it cannot be read.
    """
    found = _parse(path, _text(path)).get("clients", {})
    assert isinstance(found, dict)  # config_load has read the same file
    return found


def add_client(path: Path, name: str, digest: str, collections: Sequence[str], rate: int) -> None:
    """Put a client into the file, which is made where there is none, readable for its owner alone.

    Raises:
        UsageError: the name is taken. ConfigError: the file cannot be read or written.
    """
    before = _text(path)
    tree = _parse(path, before)
    if name in tree.get("clients", {}):
        raise errors.UsageError(
            f"{path} has a client {name!r} already.", f"Another name, or first: pipeline serve key remove {name}"
        )
    wanted: dict[str, Any] = {"key": digest}
    wanted |= {"collections": list(collections)} if collections else {}
    wanted |= {"rate": rate} if rate else {}
    table = "".join(f"{key} = {toml(value)}\n" for key, value in wanted.items())
    gap = "" if not before else "\n" if before.endswith("\n") else "\n\n"
    tree["clients"] = {**tree.get("clients", {}), name: wanted}
    _replace(path, f"{before}{gap}[clients.{toml_name(name)}]\n{table}", tree)


def remove_client(path: Path, name: str) -> None:
    """Take a client out of the file.

    Raises:
        UsageError: there is none of this name, or it is written in a way that this program does not edit.
    """
    before = _text(path)
    tree = _parse(path, before)
    if name not in tree.get("clients", {}):
        raise errors.UsageError(f"{path} has no client {name!r}.", "`pipeline serve key list` names them.")
    del tree["clients"][name]
    if not tree["clients"]:
        del tree["clients"]
    _replace(path, "".join(_without(before.splitlines(keepends=True), name)), tree)


def _without(lines: Sequence[str], name: str) -> list[str]:
    """The lines but those of [clients.NAME], and the blank ones before it."""
    head = re.compile(rf"""^\s*\[\s*clients\s*\.\s*["']?{re.escape(name)}["']?\s*\]""")
    kept: list[str] = []
    inside = False
    for line in lines:
        if head.match(line):
            inside = True
            while kept and not kept[-1].strip():
                kept.pop()
        elif inside and _HEADER.match(line):
            inside = False
            kept.append("\n")
        if not inside:
            kept.append(line)
    return kept


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(
            f"Cannot read {path}: {error}", "Correct the file, or name another: --config."
        ) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise errors.ConfigError(f"{path}: not valid TOML: {error}", "Correct it by hand first.") from error


def _replace(path: Path, text: str, expected: dict[str, Any]) -> None:
    """Put `text` in the place of the file, whole, if it says what is expected."""
    try:
        same = tomllib.loads(text) == expected
    except tomllib.TOMLDecodeError:
        same = False
    if not same:
        raise errors.UsageError(f"{path} is written in a way that this program does not edit.", "Edit it by hand.")
    target = path.resolve()  # a link stays one
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o600
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, delete=False) as draft:
            draft.write(text)
            draft.flush()
            os.fsync(draft.fileno())
        os.chmod(draft.name, mode)  # noqa: PTH101
        os.replace(draft.name, target)  # noqa: PTH105
    except OSError as error:
        raise errors.ConfigError(f"Cannot write {path}: {error.strerror}", "Choose another file: --config.") from error
