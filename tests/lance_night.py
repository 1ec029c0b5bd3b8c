"""A night of the index stage on a table of passages, alone: the process that tests/test_lance.py kills. It imports as
little as it can, since ten of them start at once.

    python -m tests.lance_night FOLDER      prints "ready", begins when it is sent a line, prints "done"
"""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pyarrow as pa

from pipeline import lance, lance_lean
from tests import passages
from tests.passages import DIMS, MADE_BY

NAME = "chunks"
OLD, GONE, NEW = range(400), range(150), range(400, 700)


def opened(folder: Path) -> lance.Table:
    return lance.Table.open(folder, NAME, DIMS, MADE_BY)


def night(folder: Path) -> None:
    """What the index stage does: the difference between desired and actual rows, then publish."""
    table = opened(folder)
    desired = passages.rows(passages.numbered(range(GONE.stop, NEW.stop)))
    wanted = dict(zip(desired.column("chunk_id").to_pylist(), desired.column("row_hash").to_pylist(), strict=True))
    actual = table.rows()
    have = dict(zip(actual.column("chunk_id").to_pylist(), actual.column("row_hash").to_pylist(), strict=True))
    table.delete([key for key, value in have.items() if wanted.get(key) != value])
    missing = [wanted[key] != have.get(key) for key in desired.column("chunk_id").to_pylist()]
    table.add(desired.filter(pa.array(missing)).to_reader(max_chunksize=20))
    before = lance._live_version(table._table)
    table.finish(vector_index_from=300)
    table.clean(before or 1, slack=timedelta(0))  # readers may be on the one that was published until now


def main(folder: Path) -> None:
    """Entry of the process that is killed: everything loaded first, so that the kill falls into the work."""
    lance_lean.install()
    lance.preload()
    opened(folder)
    print("ready", flush=True)
    sys.stdin.readline()
    night(folder)
    print("done", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
