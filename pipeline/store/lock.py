"""One writer per collection: an advisory lock that the kernel drops with its owner, its owner's name inside.

`flock` needs no rule about stale locks: a killed owner has lost it, whatever the file still says. What the file says
is for people: who holds it since when, and, where the kernel says that it is held though its owner has ended, that.
A process is known by its number *and* its start, since numbers come round again. A file system that knows no locks is
refused: guessing by a file's age has cost other programs their data.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, TypedDict

from pipeline import errors
from pipeline.store import files

log = logging.getLogger(__name__)

LINUX = sys.platform == "linux"
_POLL_S = 0.1
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class Owner(TypedDict):
    pid: int
    host: str
    since: str  # local time, ISO 8601
    started: str  # what tells this process from another of the same number; "" where nothing does


def process_start(pid: int) -> str:
    """When the process `pid` of this machine began, in a form that no set clock changes on Linux; "" if it is gone."""
    if LINUX:
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return ""
        gone = after_name[0] in ("Z", "X")  # ended, and only not yet waited for
        return "" if gone else f"{boot}/{after_name[19]}"  # field 22 of proc(5), in ticks since the boot
    import psutil  # 15 ms, and only here

    try:
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return ""


def fate(owner: Owner) -> Literal["running", "ended", "elsewhere"]:
    """What has become of an owner, as far as this machine can tell."""
    if owner["host"] != socket.gethostname():
        return "elsewhere"
    started = process_start(owner["pid"])
    return "running" if started and owner["started"] in ("", started) else "ended"


def _read_owner(descriptor: int) -> Owner | None:
    data = os.pread(descriptor, 4096, 0)
    try:
        found = json.loads(data)
        return Owner(
            pid=int(found["pid"]),
            host=str(found["host"]),
            since=str(found["since"]),
            started=str(found.get("started", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None


def _try(path: Path, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno in _NO_LOCKS:
            raise errors.StoreError(
                f"{path.parent} lies on a file system that knows no locks: {error.strerror}",
                "Put the data on a local disk (--data): two runs at once would spoil it.",
            ) from error
        raise
    return True


def _name(owner: Owner | None) -> str:
    return f"process {owner['pid']} on {owner['host']} since {owner['since']}" if owner else "another process"


def holder(path: Path) -> str:
    """Who is writing, for people: "process 12 on box since 2026-01-02T03:04:05+0000"; "" where nobody says so. It takes
    no lock, and blocks nobody.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return ""
    try:
        owner = _read_owner(descriptor)
    finally:
        os.close(descriptor)
    return _name(owner) if owner is not None and fate(owner) != "ended" else ""


def _refusal(path: Path, owner: Owner | None) -> errors.Locked:
    if owner is not None and fate(owner) == "ended":
        return errors.Locked(
            f"{path.parent} was being written by {_name(owner)}; that process has ended, and one that it started, or "
            "another machine, still holds the lock.",
            f"Find and end it: fuser -v {path}",
        )
    return errors.Locked(
        f"{path.parent} is being written by {_name(owner)}",
        "Wait for it to finish, or give --wait-lock SECONDS. `search` and `ask` are not blocked.",
    )


def _wait(path: Path, descriptor: int, wait_s: float, tell: Callable[[str], None]) -> None:
    """Until the lock is ours."""
    deadline, told = time.monotonic() + wait_s, False
    while not _try(path, descriptor):
        if time.monotonic() >= deadline:
            raise _refusal(path, _read_owner(descriptor))
        if not told:
            tell(f"Waiting up to {wait_s:,.0f} s: {_refusal(path, _read_owner(descriptor)).message}.")
            told = True
        time.sleep(_POLL_S)


@contextlib.contextmanager
def hold(path: Path, wait_s: float = 0.0, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Hold the lock at `path` for the length of the block. `tell`: is told once for whom it waits.

    Raises:
        Locked: another process holds it, still after `wait_s` seconds.
        StoreError: the file system knows no locks, or refuses the file.
    """
    with files.disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _wait(path, descriptor, wait_s, tell or log.info)
        before = _read_owner(descriptor)
        if before is not None and fate(before) == "elsewhere":
            log.warning("%s was left behind by %s; nobody holds it now.", path, _name(before))
        with files.disk_errors(path):
            _write(descriptor, json.dumps(_ourselves()).encode() + b"\n")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # an empty file says that the run ended; nothing depends on it
                _write(descriptor, b"")
    finally:
        os.close(descriptor)


def _ourselves() -> Owner:
    pid = os.getpid()
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    return Owner(pid=pid, host=socket.gethostname(), since=now, started=process_start(pid))


def _write(descriptor: int, data: bytes) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data, 0)
