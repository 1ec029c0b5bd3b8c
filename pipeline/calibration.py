"""Whether the documents answer a question, told by its hits before any model is asked; and how that is calibrated.

Small models seldom refuse. So a number, the evidence, is made of what the search found: how near the nearest passage
is, how much of what the question says stands in one passage, and how strongly the words speak for it. Below a threshold
the answer is "not in your documents". Weights and threshold come from questions that the documents answer and questions
that they do not: the threshold is the one that refuses most of the latter and loses at most LOST of the former.

Knows questions and hits; nothing of how hits are found, of models, or of where a calibration is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import answer_text, errors, scripts
from pipeline.search import Hit
from pipeline.store import Calibration, Scale

Kind = Literal["meaning", "words", "coverage"]

POOL = 30  # hits that the evidence is made of: how rare a word is shows in how many of them hold it
NEAREST = 5  # hits of which one must speak for an answer
LOST = 0.05  # share of the answerable questions that may be refused
AIMED_AT = 0.04  # of those calibrated with, so that others stay below LOST
LEAST = 30  # questions of either sort; with fewer, 5 % of them is no question at all
RIDGE = 0.01  # on standardised signals: two that say the same share their weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """What the hits say about a question.

    Attributes:
        kind: which of them count: "meaning" (cosine and coverage) in a language that the embedding model knows, "words"
            (coverage and BM25) where it does not or was not asked, "coverage" where there is no BM25 either.
        similarity: the best cosine; 0 where there is none.
        coverage: share of the question's words that the best of the NEAREST hits holds, rare words counting more.
        strength: the best BM25 per word of the question, by the logarithm of the number of passages, which it grows
            with; 0 where there is none.
    """

    kind: Kind
    similarity: float
    coverage: float
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`evidence` from 0 to 1: below 0.5 the question is refused. `by`: what decided, for people."""

    evidence: float
    by: str

    @property
    def refused(self) -> bool:
        return self.evidence < 0.5


# Fitted by `python -m benchmarks.abstention` on XQuAD and chunking_evaluation with all-minilm-l6-v2, and rounded. The
# cosine's weight is this model's own; coverage was fitted as 6.24 and the threshold as 6.12, with which one of the
# English collections loses 11 % of its answerable questions: both were lowered until none of the three loses more than
# 5 %. "words" and "coverage" come from Chinese questions, and know no model.
_MEANING = Scale(similarity=11.2, coverage=5.5, threshold=5.5)
_WORDS = Scale(coverage=11.9, strength=13.1, threshold=3.96)
_COVERAGE = Scale(coverage=17.1, threshold=2.27)
_BUILT_IN: Mapping[str, Scale] = {"all-minilm-l6-v2": _MEANING, "all-minilm": _MEANING}

# Models whose cosines were never measured here: refused only if the best cosine and the share of the words are both
# below these. 0.45 for mxbai-embed-large is a careful choice; 0.30 refuses little.
_CAREFUL = {"mxbai-embed-large": 0.45}
_CAREFUL_OTHERS = 0.30
_CAREFUL_COVERAGE = 0.51  # half of the question's words in one passage, or fewer


def signals(question: str, hits: Sequence[Hit], *, rows: int, languages: Sequence[str]) -> Signals:
    """What the first POOL hits say.

    Args:
        rows: passages that were searched.
        languages: that the embedding model knows; empty: many.
    """
    pool = hits[:POOL]
    known = [hit.similarity for hit in pool if hit.similarity is not None]
    scores = [hit.bm25 for hit in pool if hit.bm25 is not None]
    wanted = answer_text.units(question)
    kind: Kind = "meaning" if known and not scripts.is_foreign(question, languages) else "words"
    if kind == "words" and not any(hit.text_rank for hit in pool):
        kind = "coverage"
    return Signals(
        kind=kind,
        similarity=max((hit.similarity or 0.0 for hit in pool[:NEAREST]), default=0.0),
        coverage=_coverage(wanted, [answer_text.units(_words(hit)) for hit in pool]),
        strength=max(scores, default=0.0) / max(len(wanted), 1) / math.log(rows + 2),
    )


def _words(hit: Hit) -> str:
    return " ".join((hit.title, hit.heading, hit.text))


def _coverage(wanted: set[str], passages: Sequence[set[str]]) -> float:
    """The best weighted share; 1.0 for a question without a word that says anything. The weight is BM25's idf within
    the passages: one that none of them holds weighs most.
    """
    if not wanted:
        return 1.0
    holding = Counter(unit for passage in passages for unit in wanted & passage)
    count = max(len(passages), POOL)  # in a small collection a word that stands nowhere would outweigh all others
    weights = {unit: math.log(1 + (count - holding[unit] + 0.5) / (holding[unit] + 0.5)) for unit in wanted}
    best = max((sum(weights[unit] for unit in wanted & passage) for passage in passages[:NEAREST]), default=0.0)
    return best / sum(weights.values())


def judge(
    question: str,
    hits: Sequence[Hit],
    *,
    rows: int,
    model: str,
    languages: Sequence[str],
    min_score: float = 0.0,
    own: Calibration | None = None,
) -> Judgement:
    """Whether the hits answer the question.

    Args:
        model: the embedding model, with or without Ollama's tag.
        min_score: a cosine of the user's choice; 0: calibrated.
        own: the collection's calibration; it goes before the built-in one.
    """
    if not hits:
        return Judgement(evidence=0.0, by="nothing was found")
    found = signals(question, hits, rows=rows, languages=languages)
    scale = None if min_score else _scale(found.kind, model, own)
    if scale is not None:
        where = "calibrated on this collection" if scale in _scales(own) else "built-in calibration"
        return Judgement(evidence=_sigmoid(excess(scale, found)), by=f"{_NAMES[found.kind]}, {where}")
    limit = min_score or _CAREFUL.get(_short(model), _CAREFUL_OTHERS)
    covered = answer_text.coverage(question, map(_words, hits))
    near = max(found.similarity - limit, (covered - _CAREFUL_COVERAGE) / 2)
    why = f"cosine {limit:g} or half of the words; {'set by ask.min_score' if min_score else 'not calibrated'}"
    return Judgement(evidence=_sigmoid(10 * near), by=why)


_NAMES: Mapping[Kind, str] = {
    "meaning": "nearness and words",
    "words": "words alone, as the model does not know the language",
    "coverage": "words alone",
}


def excess(scale: Scale, found: Signals) -> float:
    """The evidence on its own scale, less the threshold: below 0 the question is refused."""
    weighed = scale.similarity * found.similarity + scale.coverage * found.coverage + scale.strength * found.strength
    return weighed - scale.threshold


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, value))))


def _short(model: str) -> str:
    return model.partition(":")[0].rpartition("/")[2]


def _scales(own: Calibration | None) -> tuple[Scale, ...]:
    return tuple(own.scales.values()) if own is not None else ()


def _scale(kind: Kind, model: str, own: Calibration | None) -> Scale | None:
    """None: nobody ever measured this model."""
    if own is not None and kind in own.scales:
        return own.scales[kind]
    if kind == "meaning":
        return _BUILT_IN.get(_short(model))
    return _WORDS if kind == "words" else _COVERAGE


# --- calibrating


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A question that was asked of a collection, and whether its documents answer it."""

    found: Signals
    answerable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One threshold: what share of the unanswerable questions it refuses, and of the answerable ones it loses."""

    threshold: float
    refused: float
    lost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A scale for one kind of question, from so many of either sort.

    Attributes:
        point: of the questions that it was fitted to.
        held_out: the same for questions that it was not fitted to: the mean of FOLDS splits in halves.
    """

    kind: Kind
    scale: Scale
    answerable: int
    unanswerable: int
    point: Point
    held_out: Point


FOLDS = 10
_FEATURES: Mapping[Kind, tuple[str, ...]] = {
    "meaning": ("similarity", "coverage"),
    "words": ("coverage", "strength"),
    "coverage": ("coverage",),
}
_Matrix = NDArray[np.float64]


def calibrate(samples: Sequence[Sample], *, aimed_at: float = AIMED_AT) -> list[Fitted]:
    """A scale for each kind of question of which there are at least LEAST answerable and LEAST unanswerable ones.

    Raises:
        UsageError: there is no such kind.
    """
    kinds = [kind for kind in _FEATURES if min(_counts(samples, kind)) >= LEAST]
    if not kinds:
        yes, no = max((_counts(samples, kind) for kind in _FEATURES), key=min)
        raise errors.UsageError(
            f"{yes} questions that the documents answer and {no} that they do not are too few to calibrate by.",
            f"Give at least {LEAST} of either sort; a line without path and quote is a question without an answer.",
        )
    return [_fitted([one for one in samples if one.found.kind == kind], kind, aimed_at) for kind in kinds]


def _counts(samples: Sequence[Sample], kind: Kind) -> tuple[int, int]:
    of_kind = [one.answerable for one in samples if one.found.kind == kind]
    return sum(of_kind), len(of_kind) - sum(of_kind)


def _fitted(samples: Sequence[Sample], kind: Kind, aimed_at: float) -> Fitted:
    scale = fit(samples, kind, aimed_at)
    answerable, unanswerable = _counts(samples, kind)
    return Fitted(
        kind=kind,
        scale=scale,
        answerable=answerable,
        unanswerable=unanswerable,
        point=measured(scale, samples),
        held_out=held_out(samples, kind, aimed_at),
    )


def held_out(samples: Sequence[Sample], kind: Kind, aimed_at: float = AIMED_AT) -> Point:
    """What a scale is worth for questions that it has not seen: fitted to one half, measured on the other."""
    points = []
    for fold in range(FOLDS):
        chosen = np.random.default_rng(fold).permutation(len(samples))
        fitted_to = [samples[at] for at in chosen[: len(samples) // 2]]
        points.append(measured(fit(fitted_to, kind, aimed_at), [samples[at] for at in chosen[len(samples) // 2 :]]))
    means = np.mean([(point.threshold, point.refused, point.lost) for point in points], axis=0)
    return Point(threshold=float(means[0]), refused=float(means[1]), lost=float(means[2]))


def fit(samples: Sequence[Sample], kind: Kind, aimed_at: float = AIMED_AT) -> Scale:
    """The weights by logistic regression, both sorts counting the same; the threshold by the rule of this module."""
    names = _FEATURES[kind]
    signals_ = np.array([[getattr(one.found, name) for name in names] for one in samples], dtype=np.float64)
    answerable = np.array([one.answerable for one in samples])
    weights = np.maximum(_logistic(signals_, answerable), 0.0)  # no signal speaks against an answer
    evidence = np.sort((signals_ @ weights)[answerable])
    # Of n values the k-th smallest lies, on average, above k / (n + 1) of those to come.
    rank = max(int(aimed_at * (len(evidence) + 1)), 1)
    threshold = float(evidence[rank - 1]) if len(evidence) else 0.0
    return Scale(**dict(zip(names, map(float, weights), strict=True)), threshold=threshold)


def _logistic(signals_: _Matrix, answerable: NDArray[np.bool_]) -> _Matrix:
    """Weights of ridge logistic regression, by Newton's method; both classes have the same weight together."""
    mean, spread = signals_.mean(axis=0), signals_.std(axis=0) + 1e-9
    given = np.column_stack([np.ones(len(signals_)), (signals_ - mean) / spread])
    shares = np.where(answerable, 0.5 / max(answerable.sum(), 1), 0.5 / max((~answerable).sum(), 1))
    ridge = RIDGE * np.diag([1e-6, *np.ones(signals_.shape[1])])
    weights = np.zeros(given.shape[1])
    for _ in range(50):
        chance = 1 / (1 + np.exp(-given @ weights))
        slope = given.T @ (shares * (chance - answerable)) + ridge @ weights
        curve = (given.T * (shares * chance * (1 - chance))) @ given + ridge
        step = np.linalg.solve(curve, slope)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    found: _Matrix = weights[1:] / spread
    return found


def measured(scale: Scale, samples: Sequence[Sample]) -> Point:
    """What the scale does with these questions."""
    low = [(excess(scale, one.found) < 0, one.answerable) for one in samples]
    lost = [refused for refused, answerable in low if answerable]
    refused = [refused for refused, answerable in low if not answerable]
    return Point(
        threshold=scale.threshold,
        refused=sum(refused) / max(len(refused), 1),
        lost=sum(lost) / max(len(lost), 1),
    )


def curve(scale: Scale, samples: Sequence[Sample]) -> list[Point]:
    """Every threshold that makes a difference, from the one that refuses nothing on."""
    excesses = np.array([excess(scale, one.found) for one in samples])
    answerable = np.array([one.answerable for one in samples])
    own, others = np.sort(excesses[answerable]), np.sort(excesses[~answerable])
    limits = np.unique(excesses)
    lost = np.searchsorted(own, limits) / max(len(own), 1)
    refused = np.searchsorted(others, limits) / max(len(others), 1)
    return [
        Point(threshold=float(limit + scale.threshold), refused=float(right), lost=float(wrong))
        for limit, right, wrong in zip(limits, refused, lost, strict=True)
    ]
