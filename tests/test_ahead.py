"""How many files are given to the workers at once: few at first, many later, no more bytes than memory should hold."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import aclosing

import pytest

from pipeline import executor


class Workers:
    """Stands in for the pool: each call is done at once. `held`: given, and not asked for yet; `most` of them ever."""

    def __init__(self) -> None:
        self.held: list[int] = []

    def submit(self, job: int) -> asyncio.Future[int]:
        self.held.append(job)
        future = asyncio.get_running_loop().create_future()
        future.set_result(-job)
        return future


async def _windows(jobs: int, size: int) -> list[int]:
    """How many files of `size` bytes are held when each answer comes."""
    workers, windows = Workers(), []
    async with aclosing(executor.ordered(range(jobs), workers.submit, size=lambda job: size)) as answers:
        async for job, answer in answers:
            assert (job, answer) == (len(windows), -job)  # in order
            windows.append(len(workers.held))
            workers.held.remove(job)
    return windows


def test_few_before_the_first_answer_and_then_more() -> None:
    """The first shard must not wait for five hundred files; later on one slow file must not stop the others."""
    windows = asyncio.run(_windows(3_000, 1_000))
    assert windows[0] == executor.FIRST_AHEAD
    assert max(windows) == executor.AHEAD
    assert all(before <= after for before, after in itertools.pairwise(windows[:2000]))
    assert windows[-1] == 1


@pytest.mark.parametrize(
    ("size", "most"), [(executor.AHEAD_BYTES // 100, 100), (executor.AHEAD_BYTES, executor.FIRST_AHEAD)]
)
def test_large_files_are_fewer(size: int, most: int) -> None:
    assert max(asyncio.run(_windows(2_000, size))) == most
