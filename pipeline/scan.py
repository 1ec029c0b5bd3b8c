"""What lies in the source folders now: names, sizes and times, no contents. Knows no formats and nothing of the store.

Paths are bytes, since a name need not be UTF-8; a `uri` is text: the path below its source folder with "/" between,
bytes that are no UTF-8 written as `\\xNN`. With several source folders each uri begins with its folder's name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pathspec

from pipeline import errors

IGNORE_FILE = b".pipelineignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One regular file as the directory showed it."""

    uri: str
    path: bytes
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A name that cannot be scanned: kind as in DocumentError ("permission", "loop", "name")."""

    uri: str
    kind: str
    reason: str
    folder: bool = False  # what was known below it must not be taken for deleted


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Files in order of uri, what was refused, and how many files were left out because no reader knows their kind."""

    files: tuple[File, ...]
    refused: tuple[Refused, ...]
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which names count. `known`: whether a reader knows such a name; `include`, `exclude`: gitignore patterns."""

    known: Callable[[str], bool]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_symlinks: bool = False


def text_name(path: bytes) -> str:
    """`path` as text: UTF-8, other bytes as `\\xNN` (and then a backslash doubled, so that no two names become one)."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return path.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def scan(folders: Sequence[Path], rules: Rules) -> Scan:
    """List the files below `folders`.

    Raises:
        SourceError: a folder does not exist, is no folder or cannot be listed; nothing is known about its files then.
    """
    walker = _Walker(rules)
    for folder, prefix in zip(folders, _prefixes(folders), strict=True):
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise errors.SourceError(f"{folder} {what}", "Check the path, or mount it first; nothing was changed.")
        walker.walk(os.fsencode(folder), prefix)
    files = sorted(walker.files, key=lambda file: file.uri)
    return Scan(files=tuple(files), refused=tuple(walker.refused), unknown=walker.unknown)


def _prefixes(folders: Sequence[Path]) -> list[str]:
    if len(folders) == 1:
        return [""]
    names = [folder.resolve().name for folder in folders]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise errors.SourceError(
            f"two source folders have the same name: {', '.join(double)}",
            "Give their common parent folder, or index them as two collections (--collection NAME).",
        )
    return [f"{name}/" for name in names]


def _patterns(lines: Sequence[str]) -> pathspec.GitIgnoreSpec | None:
    return pathspec.GitIgnoreSpec.from_lines(lines) if lines else None


# Of a folder being walked: (device, inode) of it and its parents; ignore files with the folder each counts from.
_Above = tuple[tuple[int, int], ...]
_Ignores = tuple[tuple[str, pathspec.GitIgnoreSpec], ...]
_Frame = tuple[bytes, str, _Above, _Ignores]


@dataclass(slots=True)
class _Walker:
    rules: Rules
    files: list[File] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    unknown: int = 0
    _include: pathspec.GitIgnoreSpec | None = None
    _exclude: pathspec.GitIgnoreSpec | None = None

    def __post_init__(self) -> None:
        self._include = _patterns(self.rules.include)
        self._exclude = _patterns(self.rules.exclude)

    def walk(self, root: bytes, prefix: str) -> None:
        """Depth first with a stack of our own: a deep tree must not meet Python's recursion limit."""
        status = Path(os.fsdecode(root)).stat()
        stack: list[_Frame] = [(root, "", ((status.st_dev, status.st_ino),), ())]
        while stack:
            folder, relative, above, ignores = stack.pop()
            try:
                with os.scandir(folder) as listing:
                    entries = list(listing)
            except OSError as error:
                if not relative:
                    raise errors.SourceError(
                        f"{os.fsdecode(folder)}: {error.strerror}", "Check its permissions."
                    ) from error
                self._refuse(prefix + relative, "permission", error.strerror or str(error), folder=True)
                continue
            ignores = self._with_ignore_file(folder, relative, entries, ignores)
            for entry in entries:
                child = self._visit(entry, relative, prefix, above, ignores)
                if child is not None:
                    stack.append(child)

    def _refuse(self, uri: str, kind: str, reason: str, *, folder: bool = False) -> None:
        self.refused.append(Refused(uri=uri, kind=kind, reason=reason, folder=folder))

    def _with_ignore_file(
        self, folder: bytes, relative: str, entries: Sequence[os.DirEntry[bytes]], ignores: _Ignores
    ) -> _Ignores:
        if not any(entry.name == IGNORE_FILE for entry in entries):
            return ignores
        lines = Path(os.fsdecode(folder), os.fsdecode(IGNORE_FILE)).read_text(errors="replace").splitlines()
        return (*ignores, (relative, pathspec.GitIgnoreSpec.from_lines(lines)))

    def _visit(
        self, entry: os.DirEntry[bytes], parent: str, prefix: str, above: _Above, ignores: _Ignores
    ) -> _Frame | None:
        """Record a file, or return the frame of a folder to walk."""
        relative = parent + text_name(entry.name)
        if entry.name.startswith(b".") and not self.rules.hidden:
            return None
        if entry.is_symlink() and not self.rules.follow_symlinks:
            return None
        try:
            status = entry.stat()
        except OSError as error:  # a link to nothing or to itself, a name that went
            self._refuse(
                prefix + relative, "loop" if error.errno == errno.ELOOP else "vanished", error.strerror or str(error)
            )
            return None
        if stat.S_ISDIR(status.st_mode):
            return self._folder(entry, relative + "/", prefix, above, ignores, status)
        if stat.S_ISREG(status.st_mode) and not self._left_out(relative, ignores):
            self._file(entry, prefix + relative, relative, status)
        return None

    def _folder(
        self,
        entry: os.DirEntry[bytes],
        relative: str,
        prefix: str,
        above: _Above,
        ignores: _Ignores,
        status: os.stat_result,
    ) -> _Frame | None:
        if self._ignored(relative, ignores):
            return None
        here = (status.st_dev, status.st_ino)
        if here in above:
            self._refuse(prefix + relative.rstrip("/"), "loop", "a link to a folder that contains it")
            return None
        return (entry.path, relative, (*above, here), ignores)

    def _ignored(self, relative: str, ignores: _Ignores) -> bool:
        if self._exclude and self._exclude.match_file(relative):
            return True
        return any(spec.match_file(relative[len(base) :]) for base, spec in ignores)

    def _left_out(self, relative: str, ignores: _Ignores) -> bool:
        if self._include and not self._include.match_file(relative):
            return True
        return self._ignored(relative, ignores)

    def _file(self, entry: os.DirEntry[bytes], uri: str, relative: str, status: os.stat_result) -> None:
        if not self.rules.known(relative):
            self.unknown += 1
            return
        self.files.append(
            File(
                uri=uri,
                path=entry.path,
                size=status.st_size,
                mtime_ns=status.st_mtime_ns,
                inode=status.st_ino & 0x7FFF_FFFF_FFFF_FFFF,
            )
        )
