"""Runs one command for as long as this process's stdin is open, and ends it with everything that it started.

The program that wants a server holds the other end of stdin: however it ends, `kill -9` included, the pipe closes, and
no server is left behind. Run as a file, and with the standard library alone: it starts in 20 ms and takes 10 MB.

    python -I -S ollama_local_guard.py COMMAND [ARGUMENT ...]

A command that ends by itself after it has lived for LIVED_S is started again; sooner, this process ends with its
status. The command has a session of its own: Ctrl-C in the terminal is for the run, which still needs its servers to
finish what is in flight.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from typing import Any

PR_SET_PDEATHSIG = 1  # prctl(2)
prctl: Any = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
LIVED_S = 5.0
GRACE_S = 5.0  # from SIGTERM to SIGKILL
LOOK_S = 0.1
KEPT_BYTES = 4096


def main(command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        began_s = time.monotonic()
        status = run(command)
        if status is None:
            return 0
        if time.monotonic() - began_s < LIVED_S:
            return status if status >= 0 else 128 - status


def run(command: list[str]) -> int | None:
    """The status with which `command` ended by itself; None: stdin closed, and it was ended. What it said last goes to
    stdout then, and nothing before: the log of a long run must not fill a disk."""
    process = subprocess.Popen(  # noqa: S603 - what we exist for
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=end_with_guard if prctl is not None else None,  # no thread is there that could hold a lock
    )
    assert process.stdout is not None
    said = process.stdout.fileno()
    os.set_blocking(said, False)
    tail = b""
    try:
        while process.poll() is None:
            ready, _, _ = select.select([0, said], [], [], LOOK_S)
            if 0 in ready and not os.read(0, 4096):
                return None
            tail = more(said, tail)
        return process.returncode
    finally:
        end(process)
        os.write(1, more(said, tail))
        process.stdout.close()


def end_with_guard() -> None:
    """In the command, before it starts: SIGTERM when the guard dies, were it by `kill -9`. Linux alone can do that."""
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def more(said: int, tail: bytes) -> bytes:
    """`tail` with what can be read from `said` now: the last KEPT_BYTES."""
    try:
        while chunk := os.read(said, 65536):
            tail = (tail + chunk)[-KEPT_BYTES:]
    except BlockingIOError:
        pass  # read to where it is now
    return tail


def end(process: subprocess.Popen[bytes]) -> None:
    """The command and its children (Ollama's runners), which share its process group, are gone after this."""
    signalled = signal_group(process.pid, signal.SIGTERM)
    deadline_s = time.monotonic() + GRACE_S
    while signalled and process.poll() is None and time.monotonic() < deadline_s:
        time.sleep(0.02)
    signal_group(process.pid, signal.SIGKILL)
    process.wait()


def signal_group(group: int, number: signal.Signals) -> bool:
    """Whether there was anybody to get it. (macOS says PermissionError where only zombies are left.)"""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
