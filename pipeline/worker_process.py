"""The far end of a worker's pipe: how a worker process answers calls, and what it costs; `workers` has the near end."""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pipeline import errors

LINUX = sys.platform == "linux"
MEGABYTE = 1 << 20
MORE_TIME = b"+"  # begins a message that is no reply yet: the call may take so many seconds more

_parent: Connection | None = None  # in a worker


def cpu_s(pid: int | None) -> float:
    """Processor seconds that a process has used; 0 where it is gone."""
    import psutil

    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


def resident(pid: int | None) -> int:
    """Resident bytes of a process, 0 if it is gone."""
    import psutil

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def more_time(seconds: float) -> None:
    """Ask for a later deadline of the call under way, which has found how much there is; nothing outside a worker."""
    if _parent is not None:
        _parent.send_bytes(MORE_TIME + str(seconds).encode())


def serve(pipe: Connection, memory_mb: int) -> None:
    """Answer calls until the pipe ends (the parent closed it or is gone)."""
    global _parent  # one call at a time, in a process of its own
    _parent = pipe
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all: the parent decides
    _silence()
    if LINUX:
        _bind_to_parent(parent)
        _limit(memory_mb)
    else:
        threading.Thread(target=_watch_parent, daemon=True).start()
    pipe.send_bytes(b"ready")
    for function, payload in _calls(pipe):
        pipe.send_bytes(_answer(function, payload))


def _calls(pipe: Connection) -> Iterator[tuple[str, bytes]]:
    while True:
        try:
            call = pipe.recv()
        except (EOFError, OSError):
            return
        yield call


def _answer(function: str, payload: bytes) -> bytes:
    """Run one call; the pickled reply: status, value or error, resident bytes, CPU seconds since the process began."""
    status: str
    value: Any
    try:
        module, _, name = function.partition(":")
        status, value = "done", getattr(importlib.import_module(module), name)(*pickle.loads(payload))  # noqa: S301
        return pickle.dumps((status, value, _own_resident(), time.process_time()), pickle.HIGHEST_PROTOCOL)
    except MemoryError:
        status, value = "memory", None
    except BaseException as error:
        status, value = "error", _portable(error)
    return pickle.dumps((status, value, _own_resident(), time.process_time()), pickle.HIGHEST_PROTOCOL)


def _portable(error: BaseException) -> BaseException:
    """`error` if it survives the way to the parent, else a WorkerCrash that describes it (see errors.

    Not every class pickles).
    """
    if not isinstance(error, errors.PipelineError):
        error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return errors.WorkerCrash(repr(error))
    # SystemExit and its like are no result of a call: as an exception of the Future they would end the parent.
    return error if isinstance(copy, Exception) else errors.WorkerCrash(repr(error))


def _own_resident() -> int:
    if not LINUX:
        return resident(os.getpid())
    pages = Path("/proc/self/statm").read_bytes().split()[1]  # psutil takes 20 times as long to say so
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _silence() -> None:
    """Parsers in C write to the terminal; so do warnings."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)


def _limit(memory_mb: int) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = memory_mb * MEGABYTE
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _bind_to_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends, busy in a parser or not."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def _watch_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
