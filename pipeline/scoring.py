"""What a ranking is worth: measures of single questions, and how sure their means are.

recall@k, nDCG@10 and the reciprocal rank come from ir-measures (Macdonald, Tonellotto, Ounis 2021), an optional
dependency: with the numpy and scipy it needs it weighs 140 MB, more than a search has a use for. Recall, precision and
intersection over union of characters are those of chunking_evaluation (Smith and Troynikov 2024; its
`_scores_from_dataset_and_retrievals`): a passage that repeats what another has shown counts twice as read, once as
found.

Knows ranks, spans and numbers; knows nothing of hits, documents or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import errors
from pipeline.quotes import Span

DEEPEST = 10  # ranks that nDCG and the reciprocal rank look at
RESAMPLES = 2_000
SEED = 20_240_701
LEVEL = 0.95
ROUNDING = 1e-6  # differences as small come from rounding, and from nothing else

Values = NDArray[np.float64]  # of one measure, a number for each question


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """What a question found, seen from what it asked for.

    Attributes:
        grades: of each thing asked for, from 1.
        ranks: of the hit that shows it first, from 1; None: no hit does.
    """

    grades: tuple[int, ...]
    ranks: tuple[int | None, ...]


def check_installed() -> None:
    """Raises UsageError where ir-measures is missing: before a long evaluation, not after it."""
    _library()


def _library() -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise errors.UsageError(
            "ir-measures, which counts recall, nDCG and MRR, is not installed.",
            f"{errors.install_extra('evaluate')} (scipy comes with it, 140 MB).",
        ) from error
    return ir_measures


def rank_measures(rankings: Sequence[Ranking], depths: Sequence[int]) -> dict[str, Values]:
    """recall@k for each depth, nDCG@10 and MRR of each question.

    Several answers may stand in one hit, so recall is that of a set: the share of what was asked for that the first k
    hits show. For the other two a hit is as good as the sum of the grades of what it is the first to show; what no hit
    shows is missing from the ranking.

    Raises:
        UsageError: ir-measures is not installed.
    """
    library = _library()
    shown = [_shown(ranking) for ranking in rankings]
    missing = [_missing(ranking) for ranking in rankings]
    qrels = {str(n): {**shown[n], **missing[n]} for n in range(len(rankings))}
    runs = {str(n): {str(rank): float(DEEPEST - rank) for rank in range(1, DEEPEST + 1)} for n in range(len(rankings))}
    measured = {f"recall@{k}": _recall(library, rankings, k) for k in sorted(set(depths))}
    ndcg, mrr = library.nDCG @ DEEPEST, library.RR @ DEEPEST
    found = _calculated(library, [ndcg, mrr], qrels, runs)
    return {**measured, f"nDCG@{DEEPEST}": found[str(ndcg)], "MRR": found[str(mrr)]}


def _shown(ranking: Ranking) -> dict[str, int]:
    """Rank of a hit → how good it is."""
    good: dict[str, int] = {}
    for grade, rank in zip(ranking.grades, ranking.ranks, strict=True):
        if rank is not None:
            good[str(rank)] = good.get(str(rank), 0) + grade
    return good


def _missing(ranking: Ranking) -> dict[str, int]:
    pairs = enumerate(zip(ranking.grades, ranking.ranks, strict=True))
    return {f"missing {n}": grade for n, (grade, rank) in pairs if rank is None}


def _recall(library: Any, rankings: Sequence[Ranking], k: int) -> Values:
    qrels = {str(n): {str(at): 1 for at in range(len(one.ranks))} for n, one in enumerate(rankings)}
    runs = {
        str(n): {str(at): 1.0 for at, rank in enumerate(one.ranks) if rank is not None and rank <= k}
        for n, one in enumerate(rankings)
    }
    return _calculated(library, [library.SetR], qrels, runs)[str(library.SetR)]


def _calculated(
    library: Any, measures: Sequence[Any], qrels: Mapping[str, Any], runs: Mapping[str, Any]
) -> dict[str, Values]:
    """Of each question, in their order. A question whose run is empty is not told by the library: it is worth 0."""
    values = {str(measure): np.zeros(len(qrels)) for measure in measures}
    for metric in library.iter_calc(list(measures), qrels, runs):
        values[str(metric.measure)][int(metric.query_id)] = metric.value
    return values


# --- characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """Spans of the documents, by uri: what a question asks for, or what its passages show."""

    spans: tuple[tuple[str, Span], ...]


def characters(wanted: Read, read: Read) -> tuple[float, float, float]:
    """Recall, precision and intersection over union, each from 0 to 1."""
    asked = {uri: _union([span for at, span in wanted.spans if at == uri]) for uri, _ in wanted.spans}
    shown = {uri: _union([span for at, span in read.spans if at == uri]) for uri, _ in read.spans}
    hit = sum(_overlap(spans, shown.get(uri, [])) for uri, spans in asked.items())
    most = sum(map(_length, asked.values()))
    cost = sum(end - start for _, (start, end) in read.spans)
    union = cost + most - hit
    return hit / most if most else 0.0, hit / cost if cost else 0.0, hit / union if union else 0.0


def _union(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _length(spans: Sequence[Span]) -> int:
    return sum(end - start for start, end in spans)


def _overlap(one: Sequence[Span], other: Sequence[Span]) -> int:
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in one for b in other)


# --- how sure


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over questions, and where it lies with 95 % confidence, as far as other questions of the same kind go."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        return {"mean": round(self.mean, 6), "low": round(self.low, 6), "high": round(self.high, 6)}

    @property
    def is_worse(self) -> bool:
        """Of a difference: whether it is below zero beyond doubt."""
        return self.high < -ROUNDING

    @property
    def is_better(self) -> bool:
        return self.low > ROUNDING


def estimate(values: Values) -> Estimate:
    """Mean and percentile interval of a bootstrap over the questions (Efron 1979). The same values, the same interval.

    Given the differences of two systems on the same questions it is the paired bootstrap (Sakai 2006).
    """
    means = np.concatenate(list(_resampled(values)))
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean=float(values.mean()), low=float(low), high=float(high))


def _resampled(values: Values) -> Iterator[Values]:
    """Means of RESAMPLES samples with replacement, in parts of at most 32 MB."""
    rng, count = np.random.default_rng(SEED), len(values)
    part = max(1, (32 << 20) // (16 * count))
    for begin in range(0, RESAMPLES, part):
        rows = min(part, RESAMPLES - begin)
        yield values[rng.integers(0, count, size=(rows, count))].mean(axis=1)
