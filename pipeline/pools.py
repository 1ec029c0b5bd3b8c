"""Worker pools for one run after another in one process.

A worker costs 0.4 s of a processor before its first file: numpy and pyarrow. A program that makes run after run (tests,
benchmarks) puts them inside `kept`: there a pool is not closed by the run that opened it, but lent to the next that
wants the same. Knows nothing of what the workers do.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipeline.workers import WorkerPool

MOST_KEPT = 2  # each holds about 100 MB a worker
# What a worker has from its start and readers look at: where programs and temporary files are, how text is written.
_ENVIRONMENT = ("PATH", "TMPDIR", "LANG", "LC_ALL", "LC_CTYPE", "TZ")

_Kind = tuple[object, ...]
_kept: list[tuple[_Kind, WorkerPool]] | None = None  # the one used last at the end; None outside `kept`


@contextmanager
def kept() -> Iterator[None]:
    """Lend the pools of one run to the next, until the end of the block, which ends their processes."""
    global _kept  # of the process, as the workers are
    before, _kept = _kept, []
    try:
        yield
    finally:
        pools, _kept = _kept, before
        for _, pool in pools:
            pool.close()


@contextmanager
def opened(workers: int, memory_mb: int) -> Iterator[WorkerPool]:
    """A pool as `WorkerPool` makes it. After an exception, and with calls left over, it is closed in any case."""
    kind = (workers, memory_mb, _folder(), *(os.environ.get(name) for name in _ENVIRONMENT))
    pool = _lent(kind) or WorkerPool(workers, memory_mb=memory_mb)
    try:
        yield pool
    except BaseException:
        pool.close()
        raise
    _give_back(kind, pool)


def _folder() -> str | None:
    """Relative paths are the worker's: it has the folder that its parent was in."""
    with suppress(FileNotFoundError):  # it is gone; so it is for the next worker
        return os.getcwd()  # noqa: PTH109  # compared, not used
    return None


def _lent(kind: _Kind) -> WorkerPool | None:
    for at, (its, pool) in enumerate(_kept or ()):
        if _kept is not None and its == kind:
            del _kept[at]
            return pool
    return None


def _give_back(kind: _Kind, pool: WorkerPool) -> None:
    if _kept is None or not pool.idle:
        pool.close()
        return
    _kept.append((kind, pool))
    if len(_kept) > MOST_KEPT:
        _kept.pop(0)[1].close()
