"""What must be done to a Lance table's files by hand: make them durable, sweep what killed writers left, undo a torn
version.

Knows the folder of one table (`<name>.lance`: `data/`, `_versions/`, `_indices/`, `_deletions/`, `_refs/tags/`) and
that Lance closes its files with a magic word; nothing of rows, queries or the lancedb package. Only the writer, under
the collection's lock, changes anything; readers look.

Lance never calls fsync. Therefore the order of a publication is: write, `sync`, move the tag, `sync_tag`. What is
older than the tag is durable; what is younger may be torn after a power loss, and then every version after the
published one is dropped: the next comparison of desired with actual rows makes it again.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

log = logging.getLogger(__name__)

# last bytes of a complete file
_MAGIC = {".lance": b"LANC", ".idx": b"LANC", ".manifest": b"LANC", ".arrow": b"ARROW1"}
_CLOCK_SLACK_NS = 2_000_000_000  # coarsest time stamp of a file system in use (FAT)
SLACK = timedelta(seconds=30)  # of a clean-up: what may pass between our look at the clock and Lance's
_LARGEST = 2**64 - 1  # manifests of today's layout are named _LARGEST - version, so that the newest lists first


def tag_file(folder: Path, tag: str) -> Path:
    return folder / "_refs" / "tags" / f"{tag}.json"


@contextmanager
def scratch(folder: Path) -> Iterator[None]:
    """Let index builds put their temporary files below `folder` (Lance takes TMPDIR): same disk, and swept after a
    kill.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = str(folder.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path, scratch_folder: Path) -> None:
    """Remove what killed writers left: Lance itself never does."""
    shutil.rmtree(scratch_folder, ignore_errors=True)
    for path in folder.rglob(".tmp*"):
        log.info("removing %s, left by a killed run", path)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def sync(folder: Path, tag: str) -> None:
    """fsync every file written since the tag was last moved, and the folders that name them."""
    files = list(_younger_than(folder, tag_file(folder, tag)))
    for path in files:
        _fsync(path)
    for parent in sorted(
        {parent for path in files for parent in _folders_up_to(path.parent, folder.parent)}, reverse=True
    ):
        _fsync(parent)


def sync_tag(folder: Path, tag: str) -> None:
    path = tag_file(folder, tag)
    for one in (path, *_folders_up_to(path.parent, folder)):
        _fsync(one)


def mend(folder: Path, tag: str) -> None:
    """Undo what a power loss did: drop every version after the published one if a file written since then is torn.

    A torn file is empty or lacks its closing magic: what is left of a file that nobody called fsync for. Without a
    published version the whole table goes: it is made anew from the vector log.
    """
    published = _published_version(tag_file(folder, tag))
    torn = [path for path in _younger_than(folder, tag_file(folder, tag)) if _is_torn(path)]
    if not torn:
        return
    log.warning("%s: %d file(s) torn by a crash of the machine; going back to what was published", folder, len(torn))
    if published is None:
        shutil.rmtree(folder)
        return
    for path in (folder / "_versions").glob("*.manifest"):
        if _version(path) > published:
            path.unlink()
    _fsync(folder / "_versions")


def _published_version(tag: Path) -> int | None:
    """The version a tag names; a tag that is torn itself is removed (readers find no index until the next
    publication).
    """
    if not tag.exists():
        return None
    try:
        return int(json.loads(tag.read_bytes())["version"])
    except (ValueError, KeyError, TypeError):
        log.warning("%s: torn by a crash of the machine; the index has to be published again", tag)
        tag.unlink()
        return None


def age_to_free(made: Mapping[int, datetime], oldest: int, now: datetime, slack: timedelta = SLACK) -> timedelta | None:
    """The age from which on versions may go, so that `oldest` and those after it stay; None: none is to go.

    Lance frees by age, not by number. Where the clock was set back, a version that must stay can be older by it than
    one that may go, and then that one stays too.

    Args:
        made: when each version was made. oldest: may be above all of them, in a table that was built anew.
    """
    until = min(moment for number, moment in made.items() if number >= min(oldest, max(made))) - slack
    return now - until if until < now and any(moment < until for moment in made.values()) else None


def has_version(folder: Path, version: int) -> bool:
    """Whether the table at `folder` holds this version (that its files are whole is another question)."""
    names = (f"{_LARGEST - version:020d}.manifest", f"{version}.manifest")
    return any((folder / "_versions" / name).exists() for name in names)


def _version(manifest: Path) -> int:
    number = int(manifest.stem)
    return _LARGEST - number if len(manifest.stem) == 20 else number


def readable(folder: Path, name: str, version: int) -> Path:
    """Where a reader opens this version of the table `name` below `folder`: there, unless a newer one is torn.

    Lance reads the newest manifest before it goes to another version, so that one torn by a power loss bars all of
    them until the next writer mends the table. Who only asks a question must not wait for that, nor write there: it
    gets a folder of links, outside, in which the version asked for is the newest. It goes with the process.
    """
    path = folder / f"{name}.lance"
    manifests = sorted((path / "_versions").glob("*.manifest"), key=_version)
    if not version or not manifests or _version(manifests[-1]) <= version or not _is_torn(manifests[-1]):
        return folder
    log.warning("%s: torn by a crash of the machine; the next run mends it, what is published can be read", path)
    apart = Path(tempfile.mkdtemp(prefix="pipeline-"))
    atexit.register(shutil.rmtree, apart, ignore_errors=True)
    (apart / path.name / "_versions").mkdir(parents=True)
    linked = [path / part for part in ("data", "_indices", "_deletions")]
    for target in (*linked, *(manifest for manifest in manifests if _version(manifest) == version)):
        link = apart / path.name / target.relative_to(path)
        link.symlink_to(target.absolute(), target_is_directory=target.is_dir())
    return apart


def torn(paths: Iterable[Path]) -> list[Path]:
    """Which of these are empty or lack their closing magic."""
    return [path for path in sorted(paths) if _is_torn(path)]


def _is_torn(path: Path) -> bool:
    magic = _MAGIC.get(path.suffix)
    if magic is None:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(magic)))
        return file.read() != magic


def _younger_than(folder: Path, mark: Path) -> Iterator[Path]:
    """Files changed since `mark` was (all, without one). Too many, by the clock's slack, is harmless."""
    since = mark.stat().st_mtime_ns - _CLOCK_SLACK_NS if mark.exists() else 0
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mtime_ns >= since:
            yield path


def _folders_up_to(folder: Path, top: Path) -> Iterable[Path]:
    return (folder, *(parent for parent in folder.parents if parent.is_relative_to(top)))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
