"""Vectors as points of a plane, and in groups: the one module that knows openTSNE and scikit-learn (the extra `map`).

Principal components, then the exact nearest neighbours in them, then t-SNE with a little exaggeration, which keeps the
islands apart and the picture small (Böhm, Berens and Kobak 2022). Measured on 50,000 vectors on two cores by
`python -m benchmarks.map_speed`; UMAP took 159 s and PaCMAP 44 s with 290 and 350 MB installed (numba and LLVM), and
kept fewer neighbours. Knows numbers: nothing of texts, files or collections.

Equal input gives equal output on one machine: seeds are fixed, and the sums that k-means would take in the order of
its threads are taken by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import errors

VERSION = 1  # a change of the picture; in the names of maps
SEED = 1
COMPONENTS = 50
NEIGHBOURS = 15
FEW = 50  # distinct vectors that are drawn by their principal components, which keep more neighbours of so few
EARLY, LATE = 150, 250  # iterations; the first pull neighbours together
TOLD_EVERY = 25  # iterations
STEPS = (EARLY + LATE) // TOLD_EVERY + 3  # how often `tell` is called, about: also after components, neighbours, groups
TREE = 5_000  # points, below which forces are summed by Barnes and Hut's tree: of 500 in 1 s instead of 12
EXAGGERATION = 2.0
MOST_GROUPS = 16  # colours that can be told apart, with some care
_GROUP = 10  # distinct vectors per squared group: 500 make 7 groups, 2,560 the most
_BAND = 0.05  # of the picture's side, and three times a point's share of it: so wide may a band be without a point
_GOLDEN = np.pi * (3 - np.sqrt(5))  # turns of a sunflower

Numbers = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """Points in the order of the vectors.

    Attributes:
        points: shape (n, 2), from -1 to 1, the middle of the picture at 0.
        groups: shape (n,), from 0, the largest first.
        distances: shape (n,), to the middle of the group in the principal components: what is typical is near.
    """

    points: Numbers
    groups: NDArray[np.int16]
    distances: Numbers


def check() -> None:
    """Refuse to begin without the libraries.

    Raises:
        ConfigError: they are not installed.
    """
    try:
        import openTSNE  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        raise errors.ConfigError(f"A map needs the package {error.name}.", errors.install_extra("map")) from None


def project(vectors: Numbers, tell: Callable[[], None] = lambda: None) -> Projection:
    """Place `vectors`, shape (n, dims), on a plane. Equal ones lie around one place, as seeds in a sunflower.

    Args:
        tell: called now and then, at most STEPS times; what it raises ends the work.
    """
    distinct, places = _distinct(vectors)
    components = principal(distinct, COMPONENTS)
    tell()
    points = _spread(components, tell) if len(distinct) > FEW else _plain(components)
    groups, distances = group(components)
    tell()
    return Projection(points=_apart(_framed(points)[places]), groups=groups[places], distances=distances[places])


def _distinct(vectors: Numbers) -> tuple[Numbers, NDArray[np.int64]]:
    """Each vector once, in the order of their first rows, and of every row where it is among them."""
    rows = np.ascontiguousarray(vectors, np.float32)
    whole = rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel()
    _, first, places = np.unique(whole, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rows[first[order]], rank[places]


def principal(vectors: Numbers, most: int) -> Numbers:
    """The first principal components of `vectors`, at most `most`, each with its largest number above 0: an eigenvector
    has no sign of its own.
    """
    centred = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, directions = np.linalg.eigh((centred.T @ centred).astype(np.float64))
    found: Numbers = np.ascontiguousarray(centred @ directions[:, ::-1][:, :most].astype(np.float32))
    if len(found):
        largest = found[np.abs(found).argmax(axis=0), np.arange(found.shape[1])]
        found *= np.where(largest < 0, np.float32(-1), np.float32(1))
    return found


def _plain(components: Numbers) -> Numbers:
    """The first two components; 0 where there are fewer."""
    found = np.zeros((len(components), 2), np.float32)
    found[:, : components.shape[1]] = components[:, :2]
    return found


def _spread(components: Numbers, tell: Callable[[], None]) -> Numbers:
    """t-SNE, beginning at the first two components (Kobak and Berens 2019)."""
    import openTSNE
    from openTSNE import affinity, nearest_neighbors

    near, far = _neighbours(components)
    tell()
    index = nearest_neighbors.PrecomputedNeighbors(near, far)
    affinities = affinity.Uniform(knn_index=index, k_neighbors=near.shape[1], symmetrize="mean")
    begin = _plain(components).astype(np.float64)
    begin = begin / (begin[:, 0].std() or 1.0) * 1e-4
    begin += np.random.default_rng(SEED).normal(scale=1e-6, size=begin.shape)  # points in one place would never part

    few = len(components) < TREE

    def told(*_: object) -> bool:
        tell()
        return False  # True would end it

    embedding: Any = openTSNE.TSNEEmbedding(
        begin,
        affinities,
        negative_gradient_method="bh" if few else "fft",
        n_jobs=1 if few else cores(),  # a thread would wait for another longer than it works
        random_state=SEED,
        callbacks=told,
        callbacks_every_iters=TOLD_EVERY,
    )
    embedding.optimize(EARLY, exaggeration=12, momentum=0.5, learning_rate="auto", inplace=True)
    embedding.optimize(LATE, exaggeration=EXAGGERATION, momentum=0.8, learning_rate="auto", inplace=True)
    return np.asarray(embedding, np.float32)


def _neighbours(components: Numbers) -> tuple[NDArray[np.int64], Numbers]:
    """Of each row the nearest others, exactly: 7 s for 50,000, where the approximate index took 21 s to be built."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(components) // 5)
    search = NearestNeighbors(n_neighbors=count, algorithm="brute", n_jobs=cores()).fit(components)
    far, near = search.kneighbors()  # of the rows themselves: without each row itself
    return near, far


def group(components: Numbers) -> tuple[NDArray[np.int16], Numbers]:
    """The group of each row, the largest first, and its distance from the middle of it."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    count = min(MOST_GROUPS, max(1, round((len(components) / _GROUP) ** 0.5)))
    if count == 1:
        return np.zeros(len(components), np.int16), _length(components - components.mean(axis=0))
    with threadpool_limits(1):
        fitted = KMeans(count, n_init=3, random_state=SEED).fit(components)
    labels = fitted.labels_
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    rank = np.empty(count, np.int16)
    rank[order] = np.arange(count)
    return rank[labels], _length(components - fitted.cluster_centers_[labels])


def _length(rows: Numbers) -> Numbers:
    lengths: Numbers = np.linalg.norm(rows, axis=1).astype(np.float32)
    return lengths


def _framed(points: Numbers) -> Numbers:
    """In the square from -1 to 1, the longer way across, each way on its own.

    Neither the turn of a picture by t-SNE has a meaning, nor how far its islands lie apart: bands without a point
    become narrow, and half of each place is the point's rank, which takes room from what is nearly empty.
    """
    framed = np.zeros_like(points)
    if len(points) < 2:
        return framed
    turned = principal(np.nan_to_num(points), 2)
    for way in range(2):
        values = turned[:, way].astype(np.float64)
        order = np.argsort(values, kind="stable")
        gaps = np.diff(values[order])
        for _ in range(3):  # each makes the whole narrower, and a band of it wider
            gaps = np.minimum(gaps, gaps.sum() * max(_BAND, 3 / len(points)))
        along, first = np.concatenate([[0.0], np.cumsum(gaps)]), np.concatenate([[True], gaps > 0])
        rank = np.maximum.accumulate(np.where(first, np.arange(len(points)), 0))  # equal values have one
        if along[-1] > 0:
            framed[order, way] = along / along[-1] + rank / rank[-1] - 1
    return framed


def _apart(points: Numbers) -> Numbers:
    """Rows with one place around it, so that each can be pointed at."""
    _, places = np.unique(points, axis=0, return_inverse=True)
    order = np.argsort(places, kind="stable")
    counts = np.bincount(places)
    turn = np.empty(len(places))
    turn[order] = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    radius = np.sqrt(turn) * (0.002 if len(counts) > 1 else 1 / np.sqrt(max(len(places), 1)))
    around = np.stack([np.cos(turn * _GOLDEN), np.sin(turn * _GOLDEN)], axis=1) * radius[:, None]
    return np.clip(points + around, -1, 1).astype(np.float32)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
