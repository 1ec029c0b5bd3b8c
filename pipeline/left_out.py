"""Which rule leaves a file out, in words. The rules are `scan`'s and `ignore`'s; what is asked here is one path.

A rule's own line is found by asking the lines of its list one by one: slower than a scan, which has thousands of files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pipeline import ignore, scan


def rule(rules: scan.Rules, folder: Path, relative: str) -> str:
    """What keeps the path `relative` below the source `folder` out, such as '".pipelineignore", line 3: "*.tmp"';
    "" where nothing does.
    """
    parts = PurePosixPath(relative).parts
    for depth in range(1, len(parts) + 1):
        name = "/".join(parts[:depth])
        if reason := _of_name(rules, folder, name) or _of_patterns(rules, folder, name, is_folder=depth < len(parts)):
            return reason if depth == len(parts) else f"its folder {name}/ is left out: {reason}"
    wanted = ignore.wanted(rules.include)
    if wanted is not None and not wanted(relative):
        return f"no pattern of source.include matches it: {', '.join(rules.include)}"
    if not rules.known(relative):
        suffix = PurePosixPath(relative).suffix
        return f"no reader knows *{suffix} files" if suffix else "no reader knows files of this name"
    return ""


def _of_name(rules: scan.Rules, folder: Path, name: str) -> str:
    if _identity(folder / name) in rules.own:
        return "the pipeline keeps its own data there"
    if PurePosixPath(name).name.startswith(".") and not rules.hidden:
        return "its name begins with a dot (source.hidden = false)"
    if (folder / name).is_symlink() and not rules.follow_symlinks:
        return "it is a symbolic link (source.follow_symlinks = false)"
    return ""


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:  # a name that is asked about need not be there
        return None
    return status.st_dev, status.st_ino


def _of_patterns(rules: scan.Rules, folder: Path, name: str, *, is_folder: bool) -> str:
    """The last line that decides, of the first list that says anything: the settings, then the files from below up."""
    path = f"{name}/" if is_folder or (folder / name).is_dir() else name
    for where, start, lines in _lists(rules, folder, name):
        decided = ignore.Rules(lines).decide(path[start:])
        if decided is None:
            continue
        if not decided:
            return ""
        number = _deciding(lines, path[start:])
        return (
            f'{where}, line {number}: "{lines[number - 1]}"'
            if where != _SETTINGS
            else f'{where}: "{lines[number - 1]}"'
        )
    return ""


_SETTINGS = "source.exclude"


def _lists(rules: scan.Rules, folder: Path, name: str) -> Iterator[tuple[str, int, Sequence[str]]]:
    """Each list of patterns that counts for `name`: what it is called, where the path it sees begins, its lines."""
    if rules.exclude:
        yield _SETTINGS, 0, rules.exclude
    parents = PurePosixPath(name).parents
    for parent in parents:
        base = "" if str(parent) == "." else f"{parent}/"
        path = folder / base / os.fsdecode(ignore.FILE)
        if path.is_file():
            yield f"{base}{os.fsdecode(ignore.FILE)}", len(base), ignore.lines(path.read_bytes())


def _deciding(lines: Sequence[str], path: str) -> int:
    """The number, from 1, of the last line that says anything of `path`."""
    return max(number for number, line in enumerate(lines, start=1) if ignore.Rules([line]).decide(path) is not None)
