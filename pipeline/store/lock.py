"""One writer per collection: an advisory lock that the kernel drops with its owner, its owner's name inside.

`flock` needs no rule about stale locks: a killed owner has lost it, whatever the file still says.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from pipeline import errors
from pipeline.store import files

_POLL_S = 0.1


class Owner(TypedDict):
    pid: int
    host: str
    since: str  # local time, ISO 8601


def _read_owner(descriptor: int) -> Owner | None:
    data = os.pread(descriptor, 4096, 0)
    try:
        owner = json.loads(data)
        return Owner(pid=int(owner["pid"]), host=str(owner["host"]), since=str(owner["since"]))
    except (ValueError, KeyError, TypeError):
        return None


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _refusal(path: Path, owner: Owner | None) -> errors.Locked:
    who = f"process {owner['pid']} on {owner['host']} since {owner['since']}" if owner else "another process"
    return errors.Locked(
        f"{path.parent} is being written by {who}",
        "Wait for it to finish, or give --wait-lock SECONDS. `search` and `ask` are not blocked.",
    )


@contextlib.contextmanager
def hold(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock at `path` for the length of the block.

    Raises:
        Locked: another process holds it, still after `wait_s` seconds.
    """
    with files.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while not _try(descriptor):
            if time.monotonic() >= deadline:
                raise _refusal(path, _read_owner(descriptor))
            time.sleep(_POLL_S)
        owner = Owner(pid=os.getpid(), host=socket.gethostname(), since=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        with files.disk_errors(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(owner).encode() + b"\n", 0)
        yield
    finally:
        os.close(descriptor)
