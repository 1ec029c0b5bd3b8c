"""The measures, against figures worked out by hand, and the bootstrap."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors, scoring
from pipeline.scoring import Ranking, Read

LOG3, LOG4 = math.log2(3), math.log2(4)


def measured(*rankings: Ranking, at: int = 5) -> dict[str, list[float]]:
    found = scoring.rank_measures(rankings, [at])
    return {name: values.tolist() for name, values in found.items()}


def ranked(*ranks: int | None, grades: tuple[int, ...] = ()) -> Ranking:
    return Ranking(ranks=ranks, grades=grades or (1,) * len(ranks))


@pytest.mark.parametrize(
    ("ranking", "recall", "ndcg", "mrr"),
    [
        (ranked(1), 1.0, 1.0, 1.0),
        (ranked(2), 1.0, 1 / LOG3, 1 / 2),
        (ranked(3), 1.0, 1 / LOG4, 1 / 3),
        (ranked(6), 0.0, 1 / math.log2(7), 1 / 6),  # below the five that are shown, within ten
        (ranked(None), 0.0, 0.0, 0.0),
        (ranked(1, 2), 1.0, 1.0, 1.0),
        (ranked(2, None), 0.5, (1 / LOG3) / (1 + 1 / LOG3), 1 / 2),
        (ranked(1, 1), 1.0, 1.0, 1.0),  # one passage that answers both
        (ranked(2, 2, None), 2 / 3, (2 / LOG3) / (2 + 1 / LOG3), 1 / 2),
        (ranked(2, 1, grades=(3, 1)), 1.0, (1 + 3 / LOG3) / (3 + 1 / LOG3), 1.0),
    ],
)
def test_a_ranking_is_worth_what_the_formulas_say(ranking: Ranking, recall: float, ndcg: float, mrr: float) -> None:
    found = measured(ranking)
    assert found["recall@5"] == pytest.approx([recall])
    assert found["nDCG@10"] == pytest.approx([ndcg], abs=1e-6)
    assert found["MRR"] == pytest.approx([mrr], abs=1e-6)


def test_each_question_keeps_its_place() -> None:
    found = measured(ranked(None), ranked(1), ranked(4, None), at=3)
    assert found["recall@3"] == [0.0, 1.0, 0.0]
    assert found["MRR"] == pytest.approx([0.0, 1.0, 0.25], abs=1e-6)
    assert list(found) == ["recall@3", "nDCG@10", "MRR"]


def test_more_than_ten_questions_are_not_sorted_as_words() -> None:
    ranks = [rank if rank <= 10 else None for rank in range(1, 13)]
    found = measured(*(ranked(rank) for rank in ranks), at=10)
    assert found["recall@10"] == [1.0] * 10 + [0.0] * 2
    assert found["MRR"] == pytest.approx([1 / rank if rank else 0.0 for rank in ranks], abs=1e-6)


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)  # as Python marks what cannot be imported
    with pytest.raises(errors.UsageError, match=r"pip install -e '\.\[evaluate\]'"):
        scoring.check_installed()


# --- characters


def spans(*pairs: tuple[int, int], uri: str = "a") -> Read:
    return Read(spans=tuple((uri, pair) for pair in pairs))


@pytest.mark.parametrize(
    ("wanted", "read", "recall", "precision", "iou"),
    [
        (spans((0, 10)), spans((0, 10)), 1.0, 1.0, 1.0),
        (spans((0, 10)), spans((5, 15)), 0.5, 0.5, 5 / 15),
        (spans((0, 10)), spans((20, 30)), 0.0, 0.0, 0.0),
        (spans((0, 10)), spans((0, 10), uri="b"), 0.0, 0.0, 0.0),  # the same place of another document
        (spans((0, 10)), spans((0, 10), (0, 10)), 1.0, 0.5, 0.5),  # read twice, found once
        (spans((0, 10)), spans((0, 6), (4, 10)), 1.0, 10 / 12, 10 / 12),
        (spans((0, 10), (5, 20)), spans((0, 20)), 1.0, 1.0, 1.0),  # answers that overlap are asked for once
        (spans((0, 10), (90, 100)), spans((0, 40)), 0.5, 0.25, 10 / 50),
        (spans((0, 10)), spans(), 0.0, 0.0, 0.0),
    ],
)
def test_characters_are_counted_as_chunking_evaluation_does(
    wanted: Read, read: Read, recall: float, precision: float, iou: float
) -> None:
    assert scoring.characters(wanted, read) == pytest.approx((recall, precision, iou))


SPAN = st.tuples(st.integers(0, 60), st.integers(1, 30)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(wanted=st.lists(SPAN, min_size=1, max_size=4), read=st.lists(SPAN, max_size=5))
def test_spans_are_counted_as_sets_of_characters_are(
    wanted: list[tuple[int, int]], read: list[tuple[int, int]]
) -> None:
    asked = {at for start, end in wanted for at in range(start, end)}
    shown = {at for start, end in read for at in range(start, end)}
    cost = sum(end - start for start, end in read)
    hit = len(asked & shown)
    expected = (hit / len(asked), hit / cost if cost else 0.0, hit / (cost + len(asked) - hit))
    assert scoring.characters(spans(*wanted), spans(*read)) == pytest.approx(expected)


# --- how sure


def test_the_same_values_have_the_same_interval() -> None:
    values = np.random.default_rng(3).random(200)
    assert scoring.estimate(values) == scoring.estimate(values.copy())


def test_the_interval_is_that_of_the_normal_distribution_where_there_are_many() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.2, size=4_000)
    found, half = scoring.estimate(values), 1.96 * 0.2 / math.sqrt(4_000)
    assert found.mean == pytest.approx(values.mean())
    assert (found.mean - found.low, found.high - found.mean) == pytest.approx((half, half), rel=0.1)


def test_differences_of_the_same_questions_are_told_where_the_means_alone_would_not() -> None:
    rng = np.random.default_rng(3)
    one = rng.random(300)
    other = one - rng.random(300) * 0.02  # each a little less, while questions differ by far more
    first, second = scoring.estimate(one), scoring.estimate(other)
    assert first.low < second.high, "the intervals of the means overlap"
    assert scoring.estimate(other - one).is_worse
    assert scoring.estimate(one - other).is_better


def test_no_difference_is_neither_better_nor_worse() -> None:
    for values in (np.zeros(50), np.full(50, -1e-9)):
        found = scoring.estimate(values)
        assert (found.is_better, found.is_worse) == (False, False)


def test_one_question_says_nothing_of_others_but_has_an_interval() -> None:
    found = scoring.estimate(np.array([0.25]))
    assert (found.mean, found.low, found.high) == (0.25, 0.25, 0.25)
