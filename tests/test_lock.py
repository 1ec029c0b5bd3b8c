"""Who holds a collection's lock, and what has become of them."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline import errors
from pipeline.store import lock

LEAVES_A_CHILD = """
import os, pathlib, subprocess, sys
from pipeline.store import lock
path = pathlib.Path(sys.argv[1])
with lock.hold(path):
    held = os.open(path, os.O_RDWR)  # the number after that of the lock itself
    child = subprocess.Popen(["sleep", "60"], pass_fds=[held - 1], stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    os._exit(0)
"""


def owner(**changes: object) -> lock.Owner:
    ours = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": "2026-11-20T02:30:00+0100",
        "started": lock.process_start(os.getpid()),
    }
    return lock.Owner(**{**ours, **changes})  # type: ignore[typeddict-item]


def test_a_process_is_known_by_its_number_and_its_start() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert lock.fate(owner()) == "running"
    assert lock.fate(owner(started="")) == "running", "a record older than the field"
    assert lock.fate(owner(started="another boot/12345")) == "ended", "the number came round again"
    assert lock.fate(owner(pid=ended.pid)) == "ended"
    assert lock.fate(owner(host="another.example", pid=1)) == "elsewhere"


def test_a_process_that_has_ended_and_was_not_waited_for_has_ended() -> None:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    started = lock.process_start(process.pid)
    assert lock.fate(owner(pid=process.pid, started=started)) == "running"
    assert process.stdin is not None
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and its entry stays
    assert lock.fate(owner(pid=process.pid, started=started)) == "ended"
    process.wait()


def test_a_lock_that_outlives_its_owner_says_so(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    words = [sys.executable, "-c", LEAVES_A_CHILD, str(path)]
    found = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    child = int(found.stdout)
    try:
        with pytest.raises(errors.Locked) as caught, lock.hold(path):
            pass
        assert "that process has ended, and one that it started" in caught.value.message
        assert f"fuser -v {path}" in caught.value.remedy
    finally:
        os.kill(child, signal.SIGKILL)


def test_what_another_machine_left_behind_is_said_and_does_not_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "LOCK"
    path.write_text(json.dumps(owner(host="another.example", pid=7)))
    with caplog.at_level(logging.WARNING, "pipeline"), lock.hold(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert "left behind by process 7 on another.example since 2026-11-20" in caplog.text
    assert path.read_text() == "", "the run has ended"


def test_waiting_says_once_for_whom(tmp_path: Path) -> None:
    path, told = tmp_path / "LOCK", list[str]()
    holding, free = threading.Event(), threading.Event()

    def first() -> None:
        with lock.hold(path):
            holding.set()
            free.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    holding.wait(10)

    def tell(text: str) -> None:
        told.append(text)
        free.set()

    with lock.hold(path, 30, tell):
        pass
    thread.join()
    (line,) = told
    assert line.startswith("Waiting up to 30 s: ")
    assert f"is being written by process {os.getpid()} on " in line


def test_a_run_that_fails_leaves_no_name_behind(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    with pytest.raises(errors.Interrupted), lock.hold(path):
        raise errors.Interrupted("stopped")
    assert path.read_text() == ""
