"""Two rankings as one: by scores and by ranks, in figures worked out by hand, and through a real search."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config, lance, search
from pipeline.fusion import Fusion
from tests import passages
from tests.passages import Passage, direction


def test_scores_are_stretched_from_their_last_to_their_best() -> None:
    how = Fusion(vector_weight=0.4)
    assert how.weights(foreign=False) == pytest.approx((0.4, 0.6))
    assert how.worth([12.0, 6.0, 4.0], 0.6, floor=None) == pytest.approx([0.6, 0.15, 0.0])
    assert how.worth([12.0, 6.0, 4.0], 0.6, floor=0.0) == pytest.approx([0.6, 0.3, 0.2])


def test_ranks_know_no_distance() -> None:
    how = Fusion(kind="ranks", rrf_k=60)
    assert how.weights(foreign=False) == (1.0, 1.0)
    assert how.worth([12.0, 6.0], 1.0, floor=None) == how.worth([12.0, 11.9], 1.0, floor=None) == [1 / 61, 1 / 62]


def test_a_model_that_cannot_read_the_question_has_no_say() -> None:
    assert Fusion().weights(foreign=True)[0] == 0.0
    assert Fusion(kind="ranks").weights(foreign=True) == (0.0, 1.0)


def test_a_ranking_of_one_or_of_equals_is_the_best_there_is() -> None:
    assert Fusion().worth([3.0], 0.6, floor=None) == [0.6]
    assert Fusion().worth([3.0, 3.0], 0.6, floor=None) == [0.6, 0.6]
    assert Fusion().worth([], 0.6, floor=None) == []


@given(st.lists(st.floats(-1, 50), min_size=1, max_size=40), st.sampled_from(["scores", "ranks"]))
def test_a_better_place_is_never_worth_less(scores: list[float], kind: str) -> None:
    how = Fusion(kind="ranks" if kind == "ranks" else "scores")
    worth = how.worth(sorted(scores, reverse=True), 1.0, floor=None)
    assert all(first >= second for first, second in pairwise(worth))
    assert all(0.0 <= one <= 1.0 for one in worth)


# --- through a search: by meaning (1, 0) finds near, middle, far; by words the first holds both, the second one

ROWS = [
    Passage(text="the northern buoy blinks every four seconds", uri="both.md", vector=(0.2, 1.0)),
    Passage(text="a buoy", uri="one.md", vector=(1.0, 0.5)),
    Passage(text="pears ripen in autumn sun", uri="near.md", vector=(1.0, 0.1)),
    Passage(text="ink dries slowly on wet paper", uri="middle.md", vector=(1.0, 0.4)),
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> lance.Reader:
    return passages.publish(tmp_path_factory.mktemp("rows"), ROWS)


def find(reader: lance.Reader, **params: object) -> list[search.Hit]:
    given_ = search.SearchParams(fuse_by="scores", **params)  # type: ignore[arg-type]
    return search.search(reader, "northern buoy", direction(1.0), given_)


def test_each_hit_is_the_weighted_sum_of_both(reader: lance.Reader) -> None:
    by_path = {hit.path: hit for hit in find(reader, vector_weight=0.4)}
    cosines = {path: hit.similarity or 0.0 for path, hit in by_path.items()}
    low, high = min(cosines.values()), max(cosines.values())
    best = max(hit.bm25 or 0.0 for hit in by_path.values())
    for path, hit in by_path.items():
        # Fewer passages hold the words than were asked for: what holds none of them has a BM25 of 0.
        expected = 0.4 * (cosines[path] - low) / (high - low) + 0.6 * (hit.bm25 or 0.0) / best
        assert hit.fused == pytest.approx(expected), path
    assert by_path["both.md"].fused == pytest.approx(0.6), "the best by words, the last by meaning"
    assert by_path["near.md"].fused == pytest.approx(0.4)


@pytest.mark.parametrize(("weight", "first"), [(0.0, "both.md"), (0.4, "one.md"), (1.0, "near.md")])
def test_the_weight_moves_the_order_from_words_over_both_to_meaning(
    reader: lance.Reader, weight: float, first: str
) -> None:
    assert find(reader, vector_weight=weight)[0].path == first


def test_a_foreign_question_is_ranked_by_its_words(reader: lance.Reader) -> None:
    params = search.SearchParams(fuse_by="scores", languages=("en",))
    hits = search.search(reader, "浮标 northern buoy 浮标浮标浮标浮标", direction(1.0), params)
    assert [hit.path for hit in hits[:2]] == ["both.md", "one.md"]
    assert [hit.fused for hit in hits[2:]] == [0.0, 0.0]
    assert [hit.path for hit in hits[2:]] == ["near.md", "middle.md"], "vectors fill up"


def test_a_single_ranking_keeps_its_order(reader: lance.Reader) -> None:
    assert [hit.path for hit in find(reader, mode="text")] == ["both.md", "one.md"]
    assert [hit.path for hit in find(reader, mode="vector")] == ["near.md", "middle.md", "one.md", "both.md"]


def test_the_settings_decide() -> None:
    params = search.SearchParams.of(config.SearchSettings(), ("en",))
    assert (params.fuse_by, params.vector_weight, params.languages, params.offered) == ("scores", 0.4, ("en",), 0)
    other = config.SearchSettings(fusion="ranks", vector_weight=0.7, rerank="folder", rerank_top=9, per_document=2)
    params = search.SearchParams.of(other, ())
    assert (params.fuse_by, params.vector_weight, params.offered, params.per_document) == ("ranks", 0.7, 9, 2)
