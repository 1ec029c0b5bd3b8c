"""Fusion by hand-computed ranks, copies, scores, and the ways a question can be wrong."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import errors, explain, filters, lance, search
from tests import passages
from tests.passages import Passage, direction

# By eye: nearest to (1, 0) are near, middle, far; by the word "apple" it is far (twice), then middle (once, longer).
FRUIT = [
    Passage(text="pears ripen in autumn sun", uri="near.md", vector=(1.0, 0.1)),
    Passage(text="one apple among many other sorts of fruit", uri="middle.md", vector=(1.0, 0.5), heading="A > B"),
    Passage(text="apple upon apple", uri="far.md", vector=(0.2, 1.0), page=3, title="Orchard"),
]


@pytest.fixture(scope="module")
def fruit(tmp_path_factory: pytest.TempPathFactory) -> lance.Reader:
    return passages.publish(tmp_path_factory.mktemp("fruit"), FRUIT)


def find(reader: lance.Reader, question: str, **params: object) -> list[search.Hit]:
    by_ranks = search.SearchParams(**{"fuse_by": "ranks", **params})  # type: ignore[arg-type]
    return search.search(reader, question, direction(1.0), by_ranks)


def cosine(*vector: float) -> float:
    return vector[0] / float(np.linalg.norm(vector))


def paths(hits: list[search.Hit]) -> list[str]:
    return [hit.path for hit in hits]


def test_hybrid_adds_the_reciprocal_ranks(fruit: lance.Reader) -> None:
    hits = find(fruit, "apple")
    assert [(hit.path, hit.vector_rank, hit.text_rank) for hit in hits] == [
        ("far.md", 3, 1),
        ("middle.md", 2, 2),
        ("near.md", 1, None),
    ]
    assert [hit.fused for hit in hits] == pytest.approx([1 / 63 + 1 / 61, 2 / 62, 1 / 61])


def test_the_constant_of_the_fusion_matters(fruit: lance.Reader) -> None:
    assert [hit.fused for hit in find(fruit, "apple", rrf_k=0)] == pytest.approx([1 / 3 + 1, 1 / 2 + 1 / 2, 1])


def test_each_mode_uses_its_ranking_alone(fruit: lance.Reader) -> None:
    vector = find(fruit, "apple", mode="vector")
    assert paths(vector) == ["near.md", "middle.md", "far.md"]
    assert [(hit.vector_rank, hit.text_rank) for hit in vector] == [(1, None), (2, None), (3, None)]
    text = find(fruit, "apple", mode="text")
    assert paths(text) == ["far.md", "middle.md"]
    assert [(hit.vector_rank, hit.text_rank) for hit in text] == [(None, 1), (None, 2)]


def test_scores_are_cosines_that_fall_with_the_rank(fruit: lance.Reader) -> None:
    hits = find(fruit, "apple")
    assert [hit.similarity for hit in hits] == pytest.approx(
        [cosine(0.2, 1.0), cosine(1.0, 0.5), cosine(1.0, 0.1)], abs=1e-6
    )
    assert [hit.score for hit in hits] == pytest.approx([cosine(0.2, 1.0)] * 3, abs=1e-6)
    assert [hit.score for hit in find(fruit, "apple", mode="vector")] == pytest.approx(
        [cosine(1.0, 0.1), cosine(1.0, 0.5), cosine(0.2, 1.0)], abs=1e-6
    )


def test_a_cosine_below_zero_scores_zero(tmp_path: Path) -> None:
    reader = passages.publish(tmp_path, [Passage(text="against", vector=(-1.0,))])
    (hit,) = find(reader, "against")
    assert (hit.score, hit.similarity) == (0.0, pytest.approx(-1.0))


def test_text_without_a_vector_scores_by_its_words(fruit: lance.Reader) -> None:
    hits = search.search(fruit, "apple", None, search.SearchParams(mode="text"))
    assert [hit.similarity for hit in hits] == [None, None]
    assert 1 > hits[0].score > hits[1].score > 0
    bm25 = fruit.text("apple", 1).column("score")[0].as_py()
    assert hits[0].score == pytest.approx(bm25 / (bm25 + search.HALF_BM25))


def test_a_hit_says_where_it_stands(fruit: lance.Reader) -> None:
    first, second, _ = find(fruit, "apple")
    assert (first.title, first.page, first.heading, first.start, first.end) == ("Orchard", 3, "", 0, 16)
    assert (second.heading, second.page) == ("A > B", None)
    assert (first.chunk_id, first.doc_id, first.text) == (FRUIT[2].chunk_id, FRUIT[2].doc_id, FRUIT[2].text)


def test_json_is_plain(fruit: lance.Reader) -> None:
    said = json.loads(json.dumps(find(fruit, "apple")[0].to_json()))
    assert {"path", "page", "heading", "text", "score", "chunk_id"} <= said.keys()
    assert said["path"] == "far.md"
    assert said["score"] == round(cosine(0.2, 1.0), 6)
    assert said["also_in"] == []


def test_top_k_and_where_limit_the_hits(fruit: lance.Reader) -> None:
    assert paths(find(fruit, "apple", top_k=1)) == ["far.md"]
    assert paths(find(fruit, "apple", where="page IS NULL")) == ["middle.md", "near.md"]


def test_copies_are_one_hit_that_names_the_others(tmp_path: Path) -> None:
    copies = [Passage(text="the same apple", uri=uri, vector=(1.0, 1.0)) for uri in ("c.md", "a.md", "b.md")]
    twice = Passage(text="the same apple\n", uri="a.md", vector=(1.0, 1.0), start=100)
    hits = find(passages.publish(tmp_path, [*copies, twice, FRUIT[0]]), "apple")
    assert [(hit.path, hit.start, hit.also_in) for hit in hits] == [("a.md", 0, ("b.md", "c.md")), ("near.md", 0, ())]
    assert (hits[0].vector_rank, hits[0].text_rank) == (2, 1)


def test_copies_do_not_crowd_out_the_rest(tmp_path: Path) -> None:
    licence = [Passage(text="apple licence", uri=f"{n:03}.md", vector=(1.0,)) for n in range(120)]
    other = [Passage(text=f"apple number {n}", uri=f"x{n}.md", vector=(1.0, n)) for n in range(1, 4)]
    hits = find(passages.publish(tmp_path, [*licence, *other]), "apple", top_k=3, candidates=10)
    assert paths(hits) == ["000.md", "x1.md", "x2.md"]
    assert len(hits[0].also_in) == 119


def test_at_most_so_many_of_one_document(tmp_path: Path) -> None:
    book = [Passage(text=f"apple page {n}", uri="book.md", start=n * 100, vector=(1.0, n / 100)) for n in range(40)]
    leaf = Passage(text="a leaf", uri="leaf.md", vector=(1.0, 5.0))
    reader = passages.publish(tmp_path, [*book, leaf])
    assert paths(find(reader, "apple", per_document=2, top_k=3, candidates=5)) == ["book.md", "book.md", "leaf.md"]
    assert paths(find(reader, "apple", top_k=3)) == ["book.md"] * 3


STAFF = """Every member of staff has a right to paid leave. It is taken in agreement with the head of the section, who
answers within a week. Leave that was not taken moves to the following year. An apple a day is provided."""


def versions(tmp_path: Path) -> lance.Reader:
    """Two versions that differ in layout, one that differs in a number, and something else."""
    return passages.publish(
        tmp_path,
        [
            Passage(text=STAFF, uri="2026.md", vector=(1.0, 0.1)),
            Passage(text=f"{STAFF.upper()}\n\nPage 7 of 12", uri="2025.pdf", vector=(1.0, 0.2)),
            Passage(text=STAFF, uri="copy.md", vector=(1.0, 0.1)),
            Passage(text=STAFF.replace("a week", "2 weeks"), uri="2024.md", vector=(1.0, 0.3)),
            Passage(text="An apple", uri="apple.md", vector=(1.0, 2.0)),
        ],
    )


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_passages_that_say_the_same_are_one_hit(tmp_path: Path, mode: search.Mode) -> None:
    hits = find(versions(tmp_path), "the right to paid leave of staff, and apple", mode=mode)
    assert {hit.path: hit.also_in for hit in hits} == {
        "2026.md": ("2025.pdf", "copy.md"),
        "2024.md": (),
        "apple.md": (),
    }


def test_near_copies_do_not_crowd_out_the_rest(tmp_path: Path) -> None:
    near = [Passage(text=f"{STAFF}\n{n}", uri=f"{n:03}.md", vector=(1.0, n / 1000)) for n in range(90)]
    other = [Passage(text=f"apple number {n}", uri=f"x{n}.md", vector=(1.0, n)) for n in range(1, 4)]
    hits = find(passages.publish(tmp_path, [*near, *other]), "apple", mode="vector", top_k=3, candidates=10)
    assert paths(hits) == ["000.md", "x1.md", "x2.md"]
    assert len(hits[0].also_in) == 89


def test_a_reranker_gets_distinct_hits_and_decides_the_order(tmp_path: Path) -> None:
    reader = versions(tmp_path)
    offered: list[str] = []

    def backwards(hits: Sequence[search.Hit]) -> list[search.Hit]:
        offered.extend(hit.path for hit in hits)
        return [replace(hit, rerank=float(n)) for n, hit in enumerate(reversed(hits))]

    params = search.SearchParams(top_k=2, offered=3, mode="vector")
    hits = search.search(reader, "staff", direction(1.0), params, reorder=backwards)
    assert offered == ["2026.md", "2024.md", "apple.md"]
    assert [(hit.path, hit.rerank) for hit in hits] == [("apple.md", 0.0), ("2024.md", 1.0)]
    assert hits[0].score >= hits[1].score  # falls with the rank, whatever decided it


def test_the_limit_per_document_counts_after_the_reranker(tmp_path: Path) -> None:
    book = [Passage(text=f"apple page {n}", uri="book.md", start=n * 100, vector=(1.0, n / 100)) for n in range(9)]
    reader = passages.publish(tmp_path, [*book, Passage(text="a leaf", uri="leaf.md", vector=(1.0, 5.0))])
    params = search.SearchParams(top_k=2, offered=4, mode="vector", per_document=1)
    hits = search.search(reader, "x", direction(1.0), params, reorder=lambda hits: list(reversed(hits)))
    assert paths(hits) == ["leaf.md", "book.md"]


# --- what a search says of itself


def traced(reader: lance.Reader, question: str, **params: object) -> tuple[list[search.Hit], explain.Trace]:
    trace = explain.Trace()
    given = search.SearchParams(**params)  # type: ignore[arg-type]
    return search.search(reader, question, direction(1.0), given, trace=trace), trace


def test_a_trace_says_what_was_found_and_how_long_it_took(fruit: lance.Reader) -> None:
    hits, trace = traced(fruit, "apple", fuse_by="ranks")
    assert hits == find(fruit, "apple", fuse_by="ranks")
    assert (trace.candidates, trace.found, trace.weights) == (50, {"vector": 3, "text": 2}, {"vector": 1, "text": 1})
    assert set(trace.ms) == {"vector", "text", "fuse"}
    assert all(ms > 0 for ms in trace.ms.values())
    assert json.loads(json.dumps(trace.to_json()))["dropped"] == []


def test_a_trace_says_what_was_dropped_and_why(tmp_path: Path) -> None:
    _, trace = traced(versions(tmp_path), "paid leave of staff", top_k=1, mode="vector")
    assert [(one.path, one.reason, one.into) for one in trace.dropped] == [
        ("2025.pdf", "folded", 1),
        ("2024.md", "below", 0),
        ("apple.md", "below", 0),
    ]
    assert (trace.copies, trace.below) == (1, 2)


def test_a_trace_names_what_the_limit_per_document_left_out(tmp_path: Path) -> None:
    book = [Passage(text=f"apple page {n}", uri="book.md", start=n * 100, vector=(1.0, n / 100)) for n in range(3)]
    leaf = Passage(text="a leaf", uri="leaf.md", vector=(1.0, 5.0))
    reader = passages.publish(tmp_path, [*book, leaf])
    hits, trace = traced(reader, "apple", per_document=1, mode="vector", top_k=2)
    assert paths(hits) == ["book.md", "leaf.md"]
    assert [(one.path, one.reason) for one in trace.dropped] == [("book.md", "per_document")] * 2


def test_a_trace_names_what_only_the_filter_left_out(fruit: lance.Reader) -> None:
    where = filters.parse(["path=far.md"], datetime(2026, 1, 1)).predicate
    hits, trace = traced(fruit, "apple", mode="vector", where=where)
    assert paths(hits) == ["far.md"]
    assert [(one.path, one.reason) for one in trace.dropped] == [("near.md", "filtered"), ("middle.md", "filtered")]


def test_ties_go_by_path_and_position(tmp_path: Path) -> None:
    tied = [Passage(text=f"apple {n % 10}{n // 10}", uri=f"{n:02}.md", vector=(1.0,)) for n in range(30)]
    found = [
        paths(find(passages.publish(tmp_path / name, order), "apple", top_k=30))
        for name, order in (("forward", tied), ("backward", tied[::-1]))
    ]
    assert found[0] == found[1] == sorted(found[0])


@pytest.mark.parametrize("question", ["", "  \n\t", "　"])
def test_an_empty_question_is_refused(fruit: lance.Reader, question: str) -> None:
    with pytest.raises(errors.UsageError, match="empty"):
        find(fruit, question)


@pytest.mark.parametrize("mode", ["hybrid", "vector"])
def test_a_mode_that_needs_a_vector_says_so(fruit: lance.Reader, mode: search.Mode) -> None:
    with pytest.raises(errors.UsageError, match=mode):
        search.search(fruit, "apple", None, search.SearchParams(mode=mode))


def test_a_question_that_is_no_text_is_refused(fruit: lance.Reader) -> None:
    with pytest.raises(errors.UsageError, match="encoding"):
        find(fruit, "caf\udce9")


def test_a_script_that_the_model_does_not_know_is_ranked_by_words(tmp_path: Path) -> None:
    some = [
        Passage(text="苹果在秋天成熟", uri="words.md", vector=(0.1, 1.0)),
        Passage(text="苹果", uri="both.md", vector=(1.0, 0.05)),
        *(Passage(text=f"近{n}", uri=f"near{n}.md", vector=(1.0, n / 10)) for n in range(3)),
    ]
    reader = passages.publish(tmp_path, some)
    english = find(reader, "苹果什么时候成熟", languages=("en",))
    assert paths(english) == ["words.md", "both.md", "near0.md", "near1.md", "near2.md"]
    assert english[2].fused == 0.0
    assert [hit.score for hit in english] == sorted((hit.score for hit in english), reverse=True)
    assert paths(find(reader, "苹果什么时候成熟", languages=("en", "zh")))[0] == "both.md"
    assert paths(find(reader, "苹果什么时候成熟"))[0] == "both.md"


def test_a_vector_of_another_model_is_refused(fruit: lance.Reader) -> None:
    with pytest.raises(errors.IndexMismatch):
        search.search(fruit, "apple", np.ones(384, np.float32), search.SearchParams())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(question=st.text(min_size=1, max_size=60), mode=st.sampled_from(["hybrid", "vector", "text"]))
def test_any_question_gets_falling_scores(fruit: lance.Reader, question: str, mode: search.Mode) -> None:
    if not question.strip():
        return
    hits = find(fruit, question, mode=mode)
    scores = [hit.score for hit in hits]
    assert all(0 <= score <= 1 for score in scores)
    assert all(first >= second for first, second in pairwise(scores))
    assert all(first.fused >= second.fused for first, second in pairwise(hits))
    assert len({hit.chunk_id for hit in hits}) == len(hits)
