"""What lies in the source folders now: names, sizes and times, no contents. Knows no formats and nothing of the store.

Paths are bytes, since a name need not be UTF-8; a `uri` is text: the path below its source folder with "/" between,
bytes that are no UTF-8 written as `\\xNN`. With several source folders each uri begins with its folder's name.

A night without changes is mostly this module: per file it costs one `stat` and as little beside as Python allows, so
what is found is kept in columns, and an object is made only of a file that somebody asks for.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import errors, ignore, schema

_DOT = ord(".")
_GONE = (errno.ENOENT, errno.ENOTDIR)
_FORBIDDEN = (errno.EACCES, errno.EPERM)

ListFolder = Callable[[bytes], AbstractContextManager[Iterable[os.DirEntry[bytes]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One regular file as the directory showed it."""

    uri: str
    path: bytes
    size: int
    mtime_ns: int
    inode: int


class Files(Sequence[File]):
    """Files in columns, in the order in which the folders showed them."""

    def __init__(
        self, uris: list[str], paths: list[bytes], sizes: list[int], mtimes_ns: list[int], inodes: list[int]
    ) -> None:
        self.uris = uris
        self._paths = paths
        self._sizes = _integers(sizes)
        self._mtimes_ns = _integers(mtimes_ns)
        self._inodes = _integers(inodes)

    def __len__(self) -> int:
        return len(self.uris)

    @overload
    def __getitem__(self, index: int) -> File: ...

    @overload
    def __getitem__(self, index: slice) -> list[File]: ...

    def __getitem__(self, index: int | slice) -> File | list[File]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return File(
            uri=self.uris[index],
            path=self._paths[index],
            size=int(self._sizes[index]),
            mtime_ns=int(self._mtimes_ns[index]),
            inode=int(self._inodes[index]),
        )

    def table(self) -> pa.Table:
        """As a table of schema.SCAN, in the same order."""
        numbers = (pa.array(column) for column in (self._sizes, self._mtimes_ns, self._inodes))
        return pa.Table.from_arrays([pa.array(self.uris, pa.string()), *numbers], schema=schema.SCAN)


def _integers(values: list[int]) -> NDArray[np.int64]:
    """Numbers of a `stat`, as the snapshot can hold them."""
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError:  # inodes of 64 bits; times beyond the year 2262
        return np.array([schema.to_int64(value) for value in values], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A name that cannot be scanned: kind as in DocumentError ("permission", "io", "vanished", "loop").

    Attributes:
        kept: whether something lies there as far as one can tell: what was known of it, or below it, must not be taken
            for deleted.
    """

    uri: str
    kind: str
    reason: str
    kept: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was found.

    Attributes:
        unknown: how many files were left out because no reader knows their kind.
        prefixes: what the uris of each source folder begin with.
        mounts: folders (uri with "/" at the end) on another file system than the folder that they lie in.
    """

    files: Files
    refused: tuple[Refused, ...] = ()
    unknown: int = 0
    prefixes: tuple[str, ...] = ("",)
    mounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which names count.

    Attributes:
        known: whether a reader knows such a name. Asked once for each ending (from the last dot on) and for each name
            without one.
        include, exclude: gitignore patterns.
        own: folders (device, inode) that are never walked: what the program itself writes.
    """

    known: Callable[[str], bool]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_symlinks: bool = False
    own: frozenset[tuple[int, int]] = frozenset()


def text_name(path: bytes) -> str:
    """`path` as text: UTF-8, other bytes as `\\xNN` (and then a backslash doubled, so that no two names become one)."""
    try:
        return path.decode()
    except UnicodeDecodeError:
        return path.replace(b"\\", b"\\\\").decode(errors="backslashreplace")


def scan(folders: Sequence[Path], rules: Rules, *, list_folder: ListFolder = os.scandir) -> Scan:
    """List the files below `folders`. `list_folder`: as os.scandir, which it is.

    Raises:
        SourceError: a folder does not exist, is no folder or cannot be listed; nothing is known about its files then.
        ConfigError: a rule is no gitignore pattern.
    """
    walker = _Walker(rules, list_folder)
    prefixes_ = prefixes(folders)
    for folder, prefix in zip(folders, prefixes_, strict=True):
        walker.walk(os.fsencode(folder), prefix)
    return walker.result(prefixes_)


def prefixes(folders: Sequence[Path]) -> list[str]:
    """What the uris of each source folder begin with.

    Raises:
        SourceError: two of the folders have the same name.
    """
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


def _lost(folder: bytes, error: OSError) -> errors.SourceError:
    """A source folder itself cannot be used."""
    name = os.fsdecode(folder)
    if error.errno == errno.ENOENT:
        return errors.SourceError(f"{name} does not exist", "Check the path, or mount it first; nothing was changed.")
    if error.errno == errno.ENOTDIR:
        return errors.SourceError(f"{name} is not a folder", "Name the folder that it lies in; nothing was changed.")
    if error.errno in _FORBIDDEN:
        remedy = "Check the permissions of it and of the folders above; nothing was changed."
    else:
        remedy = "If it is a network folder or a removable disk, mount it again; nothing was changed."
    return errors.SourceError(f"{name} cannot be read: {error.strerror or error}", remedy)


def _kind(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "loop"
    if error.errno in _GONE:
        return "vanished"
    return "permission" if error.errno in _FORBIDDEN else "io"


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder to be walked. `start`: where the path below the source begins in `uri` ("" or with "/" at the end)."""

    path: bytes
    uri: str
    start: int
    above: tuple[tuple[int, int], ...]  # (device, inode) of the folders above it and of itself
    ignores: ignore.Chain


@dataclass(slots=True)
class _Walker:
    rules: Rules
    list_folder: ListFolder
    refused: list[Refused] = field(default_factory=list)
    mounts: list[str] = field(default_factory=list)
    unknown: int = 0
    _uris: list[str] = field(default_factory=list)
    _paths: list[bytes] = field(default_factory=list)
    _sizes: list[int] = field(default_factory=list)
    _mtimes_ns: list[int] = field(default_factory=list)
    _inodes: list[int] = field(default_factory=list)
    _known: dict[bytes, bool] = field(default_factory=dict)
    _wanted: Callable[[str], bool] | None = None
    _exclude: ignore.Chain = field(default_factory=ignore.Chain)

    def __post_init__(self) -> None:
        self._wanted = ignore.wanted(self.rules.include)
        self._exclude = ignore.left_out(self.rules.exclude)

    def result(self, prefixes: Sequence[str]) -> Scan:
        return Scan(
            files=Files(self._uris, self._paths, self._sizes, self._mtimes_ns, self._inodes),
            refused=tuple(sorted(self.refused, key=lambda item: item.uri)),
            unknown=self.unknown,
            prefixes=tuple(prefixes),
            mounts=tuple(sorted(self.mounts)),
        )

    def walk(self, root: bytes, prefix: str) -> None:
        """Depth first with a stack of our own: a deep tree must not meet Python's recursion limit."""
        try:
            status = os.stat(root)  # noqa: PTH116  (bytes)
        except OSError as error:
            raise _lost(root, error) from error
        here = (status.st_dev, status.st_ino)
        stack = [_Folder(root, prefix, len(prefix), (here,), ignore.Chain())]
        while stack:
            folder = stack.pop()
            try:
                with self.list_folder(folder.path) as listing:
                    entries = list(listing)
                ignores = self._ignores(folder, entries)
            except OSError as error:
                self._refuse_folder(folder, error)
                continue
            self._take(folder, entries, ignores, stack)

    def _refuse_folder(self, folder: _Folder, error: OSError) -> None:
        if len(folder.uri) == folder.start:
            raise _lost(folder.path, error) from error
        self._refuse(folder.uri.rstrip("/"), error, kept=True)

    def _refuse(self, uri: str, error: OSError, *, kept: bool) -> None:
        reason = error.strerror or str(error)
        self.refused.append(Refused(uri=uri, kind=_kind(error), reason=reason, kept=kept))

    def _ignores(self, folder: _Folder, entries: Sequence[os.DirEntry[bytes]]) -> ignore.Chain:
        """The rules in `folder`.

        Raises:
            OSError: its own cannot be read. Then nothing in it is taken: it might be what they are to keep out.
            SourceError: the same, of a source folder.
        """
        if not any(entry.name == ignore.FILE for entry in entries):
            return folder.ignores
        path = os.path.join(folder.path, ignore.FILE)  # noqa: PTH118  (bytes)
        try:
            return folder.ignores.below(folder.uri[folder.start :], ignore.read(path))
        except (OSError, ValueError) as error:
            reason = f"{os.fsdecode(ignore.FILE)}: {getattr(error, 'strerror', None) or error}"
            if len(folder.uri) == folder.start:
                message = f"{os.fsdecode(path)} cannot be read: {reason}"
                raise errors.SourceError(message, "Mend it or remove it; nothing was changed.") from error
            code = error.errno if isinstance(error, PermissionError) else errno.EIO
            raise OSError(code, reason) from error

    def _take(
        self, folder: _Folder, entries: Sequence[os.DirEntry[bytes]], ignores: ignore.Chain, stack: list[_Folder]
    ) -> None:
        """Record the files of a folder, and put the folders in it on the stack."""
        hidden, follow = self.rules.hidden, self.rules.follow_symlinks
        filtered = bool(ignores or self._exclude or self._wanted)
        for entry in entries:
            name = entry.name
            if name[0] == _DOT and not hidden:
                continue
            uri = folder.uri + text_name(name)
            try:
                if not follow and entry.is_symlink():
                    continue
                status = entry.stat()
            except OSError as error:
                self._refuse_entry(folder, entry, uri, ignores, error)
                continue
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFREG:
                if not filtered or not self._left_out(uri[folder.start :], ignores):
                    self._file(entry, uri, status)
            elif kind == stat.S_IFDIR:
                self._folder(folder, entry, uri, ignores, status, stack)

    def _file(self, entry: os.DirEntry[bytes], uri: str, status: os.stat_result) -> None:
        if not self._is_known(entry.name):
            self.unknown += 1
            return
        self._uris.append(uri)
        self._paths.append(entry.path)
        self._sizes.append(status.st_size)
        self._mtimes_ns.append(status.st_mtime_ns)
        self._inodes.append(status.st_ino)

    def _is_known(self, name: bytes) -> bool:
        dot = name.rfind(b".")
        ending = name[dot:] if dot > 0 else name
        known = self._known.get(ending)
        if known is None:
            known = self._known[ending] = self.rules.known(text_name(name))
        return known

    def _folder(
        self,
        parent: _Folder,
        entry: os.DirEntry[bytes],
        uri: str,
        ignores: ignore.Chain,
        status: os.stat_result,
        stack: list[_Folder],
    ) -> None:
        if self._ignored(f"{uri[parent.start :]}/", ignores):
            return
        here = (status.st_dev, status.st_ino)
        if here in self.rules.own:
            return
        if here in parent.above:
            self.refused.append(Refused(uri=uri, kind="loop", reason="a link to a folder that contains it"))
            return
        if status.st_dev != parent.above[-1][0]:
            self.mounts.append(f"{uri}/")
        stack.append(_Folder(entry.path, f"{uri}/", parent.start, (*parent.above, here), ignores))

    def _ignored(self, path: str, ignores: ignore.Chain) -> bool:
        decided = self._exclude.decide(path)
        return bool(ignores.decide(path) if decided is None else decided)

    def _left_out(self, path: str, ignores: ignore.Chain) -> bool:
        return (self._wanted is not None and not self._wanted(path)) or self._ignored(path, ignores)

    def _refuse_entry(
        self, folder: _Folder, entry: os.DirEntry[bytes], uri: str, ignores: ignore.Chain, error: OSError
    ) -> None:
        """A name of which the system tells nothing: a link to nothing or to itself, or a device that has gone.

        What has gone is said only where a document could have been: nobody wants to hear of every broken link. Where
        the device fails, even a folder may be meant.
        """
        kept = _kind(error) in ("permission", "io")
        path = uri[folder.start :]
        meant = kept or (self._is_known(entry.name) and not self._left_out(path, ignores))
        if meant and not self._ignored(path, ignores) and not self._ignored(f"{path}/", ignores):
            self._refuse(uri, error, kept=kept)
