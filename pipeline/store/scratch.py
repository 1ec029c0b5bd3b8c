"""Folders for trying things out beside the collections: gone afterwards, also those of a program that was killed.

They lie in the data folder, where there is room for an index (a system's /tmp may be memory), under a name that is
that of no collection.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pipeline import errors
from pipeline.store import files, lock

_PREFIX = ".scratch-"


@contextlib.contextmanager
def scratch(data: Path) -> Iterator[Path]:
    """A folder of one's own below `data`, for the length of the block. Collections may be made in it.

    Raises:
        StoreError, DiskFull: it cannot be made.
    """
    with files.disk_errors(data):
        data.mkdir(parents=True, exist_ok=True)
        _sweep(data)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=data))
    try:
        with lock.hold(folder / "LOCK"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what stays is swept by the next one


def _sweep(data: Path) -> None:
    """Drop the folders that nobody holds any more."""
    for folder in data.glob(f"{_PREFIX}*"):
        if not (folder / "LOCK").exists():
            continue  # being made this very moment
        with contextlib.suppress(errors.StoreError), lock.hold(folder / "LOCK"):
            shutil.rmtree(folder, ignore_errors=True)
