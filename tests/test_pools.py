"""Pools that one run lends to the next: the same processes for the same wishes, and never a pool that is at work."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import errors, pools


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    with pools.kept():
        yield


def worker(workers: int = 1, memory_mb: int = 1024) -> int:
    """The process that serves a run."""
    with pools.opened(workers, memory_mb) as pool:
        found: int = pool.submit("os:getpid", timeout_s=60.0).result()
    return found


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_next_run_has_the_same_process_until_the_end() -> None:
    with pools.kept():
        first = worker()
        assert first != os.getpid()
        assert worker() == worker() == first
        assert is_alive(first)
    assert not is_alive(first)


def test_outside_of_it_a_pool_ends_with_its_run() -> None:
    code = "from tests import test_pools; pid = test_pools.worker(); assert not test_pools.is_alive(pid)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


def test_other_wishes_and_another_folder_get_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker has limit, folder and variables from its start."""
    first = worker()
    assert worker(memory_mb=1100) != first
    assert worker() == first
    monkeypatch.setenv("PATH", str(tmp_path))
    assert worker() != first
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert worker() != first


def test_no_more_than_two_are_kept() -> None:
    first, second = worker(), worker(memory_mb=1100)
    third = worker(memory_mb=1200)
    assert [is_alive(pid) for pid in (first, second, third)] == [False, True, True]


def test_two_runs_at_once_have_a_pool_each() -> None:
    with pools.opened(1, 1024) as one, pools.opened(1, 1024) as other:
        assert one is not other
        found = {pool.submit("os:getpid", timeout_s=60.0).result() for pool in (one, other)}
    assert len(found) == 2
    assert worker() in found


def test_a_pool_with_calls_left_is_closed() -> None:
    with pools.opened(1, 1024) as pool:
        first = pool.submit("os:getpid", timeout_s=60.0).result()
        left = pool.submit("time:sleep", 60.0, timeout_s=120.0)
    assert left.cancelled() or isinstance(left.exception(), errors.Interrupted)
    assert not is_alive(first)
    assert worker() != first


def test_after_an_exception_it_is_closed() -> None:
    first = worker()
    with pytest.raises(KeyError), pools.opened(1, 1024):
        raise KeyError
    assert not is_alive(first)
    assert worker() != first


def test_a_pool_that_was_closed_is_not_lent() -> None:
    with pools.opened(1, 1024) as pool:
        first = pool.submit("os:getpid", timeout_s=60.0).result()
        pool.close()
    assert worker() != first
