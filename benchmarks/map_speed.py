"""How long a map takes, and how many neighbours it keeps: `python -m benchmarks.map_speed`.

    --points 50000   vectors
    --dims 384 1024  numbers of each
    --data DIR       measure a collection's own vectors as well

Vectors are made: 60 topics, a document in one of them for every 20, and passages around it, with numbers that fall as
the components of text vectors do. Neighbours are those of the vectors (cosine) among the 15 nearest on the map, for
500 points; beside it the first two principal components, which is what a map would be without a library. Read the
seconds with the machine at rest; where it is not, those of the CPU, of all cores together, tell more.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import common
from pipeline import projection
from pipeline.projection import Numbers

NEAREST, ASKED = 15, 500


def made(count: int, dims: int) -> Numbers:
    random = np.random.default_rng(0)
    scale = (np.arange(1, dims + 1) ** -0.5).astype(np.float32)
    normal = lambda rows: random.standard_normal((rows, dims), dtype=np.float32) * scale  # noqa: E731
    topics, documents = normal(60), max(count // 20, 1)
    centres = topics[random.integers(0, 60, documents)] + 0.8 * normal(documents)
    return centres[random.integers(0, documents, count)] + 0.7 * normal(count)


def of_collection(data: Path) -> Numbers:
    from pipeline import chart, config, query

    standing = query.open_collection(config.Settings(data=str(data)))
    rows, _ = chart._published(query.open_reader(standing), chart.POINTS)
    return chart._matrix(rows)


def kept(vectors: Numbers, points: Numbers) -> float:
    """Share of the nearest NEAREST of each of ASKED vectors that are among the nearest of its point."""
    asked = np.random.default_rng(5).choice(len(vectors), min(ASKED, len(vectors)), replace=False)
    pairs = zip(nearest(vectors, asked), nearest(points, asked), strict=True)
    return float(np.mean([len(set(a) & set(b)) / NEAREST for a, b in pairs]))


def nearest(rows: Numbers, asked: np.ndarray) -> np.ndarray:
    far = (rows**2).sum(axis=1) - 2 * rows[asked] @ rows.T
    far[np.arange(len(asked)), asked] = np.inf
    return np.argpartition(far, NEAREST, axis=1)[:, :NEAREST]


def measure(name: str, vectors: Numbers) -> list[object]:
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    begin, worked = time.perf_counter(), time.process_time()
    placed = projection.project(vectors)
    seconds, worked = time.perf_counter() - begin, time.process_time() - worked
    plain = projection.principal(vectors, 2)
    digest = hashlib.sha256(placed.points.tobytes() + placed.groups.tobytes()).hexdigest()[:8]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    found = [f"{kept(vectors, points):.1%}" for points in (placed.points, plain)]
    return [name, len(vectors), f"{seconds:.1f}", f"{worked:.1f}", *found, f"{memory:.0f}", digest]


def rows(points: int, dims: Sequence[int], data: Path | None) -> Iterator[list[object]]:
    for length in dims:
        yield measure(f"{length} numbers", made(points, length))
    if data is not None:
        yield measure("the collection", of_collection(data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--dims", type=int, nargs="*", default=[384, 1024])
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    begin = time.perf_counter()
    import openTSNE  # noqa: F401
    import sklearn.cluster  # noqa: F401

    print(f"{projection.cores()} cores; the libraries are imported in {time.perf_counter() - begin:.1f} s\n")
    header = [
        "vectors",
        "points",
        "s",
        "CPU s",
        f"of {NEAREST} neighbours",
        "principal components",
        "MiB at most",
        "picture",
    ]
    print(common.table(header, list(rows(given.points, given.dims, given.data))))


if __name__ == "__main__":
    main()
