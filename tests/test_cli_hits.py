"""What people read of a search: hits that fit their terminal, wide characters included, and how they were found."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import cells, render_hits
from pipeline.explain import Dropped, Trace
from pipeline.search import Hit

CHINESE = "积雪超过三十厘米时，屋顶的负荷必须由值班员在两小时之内检查。" * 20


def hit(**fields: Any) -> Hit:
    base: dict[str, Any] = {
        "chunk_id": "c", "doc_id": "d", "path": "handbook.pdf", "title": "Handbook", "media_type": "application/pdf",
        "page": 3, "heading": "Leave > Annual", "start": 0, "end": 9, "text": "Twenty-five days.", "score": 0.834,
        "similarity": 0.834, "vector_rank": 1, "text_rank": 2, "fused": 0.0325, "bm25": 12.34,
    }  # fmt: skip
    return Hit(**(base | fields))


def plain(lines: Any) -> list[str]:
    return [click.unstyle(line) for line in lines]


# --- cells


@pytest.mark.parametrize(
    ("text", "expected"), [("abc", 3), ("积雪", 4), ("ｶﾞ", 2), ("e\u0301", 1), ("１", 2), ("", 0), ("한국", 4)]
)
def test_width_in_cells(text: str, expected: int) -> None:
    assert cells.width(text) == expected


def test_cutting_keeps_whole_characters() -> None:
    assert cells.cut("积雪超过", 5) == "积雪"
    assert cells.cut("abc", 5) == "abc"
    assert cells.cut_start("docs/2026/handbook.pdf", 15) == "...handbook.pdf"
    assert cells.cut_start("文档/手册.pdf", 10) == "...册.pdf"


TEXTS = st.text("ab 积雪。，é\n\t-", max_size=200) | st.text(max_size=80)


@given(text=TEXTS, columns=st.integers(8, 60), most=st.integers(1, 4))
def test_wrapped_lines_fit_and_lose_nothing_without_saying_so(text: str, columns: int, most: int) -> None:
    lines = cells.wrap(text, columns, most)
    assert len(lines) <= most
    assert all(cells.width(line) <= columns for line in lines)
    if not (lines and lines[-1].endswith(cells.MORE)):
        assert "".join("".join(lines).split()) == "".join(text.split())


def test_latin_lines_end_between_words_and_chinese_anywhere() -> None:
    assert cells.wrap("one two three four", 9, 5) == ["one two", "three", "four"]
    assert cells.wrap("积雪超过三十", 6, 5) == ["积雪超", "过三十"]
    assert cells.wrap("one two three four", 9, 2) == ["one two", "three ..."]


# --- hits


def test_hits_are_numbered_with_place_and_score() -> None:
    other = hit(path="notes.txt", page=None, heading="", score=0.5, also_in=("b.txt", "c.txt"))
    assert plain(render_hits.hits([hit(), other], 80, "days?")) == [
        "1. handbook.pdf · p.3 · Leave > Annual · 0.83",
        "   Twenty-five days.",
        "2. notes.txt · 0.50",
        "   Twenty-five days.",
        "   also in b.txt, c.txt",
    ]


def test_a_long_place_is_continued_on_a_terminal_only() -> None:
    deep = hit(path="文档/" * 12 + "手册.pdf", heading="Work > Leave > Annual leave")
    (place, _) = plain(render_hits.hits([deep], 60, "x"))
    assert place == "1. " + "文档/" * 12 + "手册.pdf · p.3 · Work > Leave > Annual leave · 0.83"
    lines = plain(render_hits.hits([deep], 60, "x", terminal=True))
    assert max(map(cells.width, lines)) <= 60
    assert [line[:3] for line in lines] == ["1. ", "   ", "   "]


def test_of_many_copies_three_are_named() -> None:
    lines = plain(render_hits.hits([hit(also_in=tuple("abcde"))], 80, "x"))
    assert lines[-1] == "   also in a, b, c and 2 more"


@pytest.mark.parametrize("text", ["word " * 200, CHINESE, "x" * 5000, "积雪 snow " * 200])
@pytest.mark.parametrize("columns", [30, 60, 77])
def test_a_snippet_is_three_lines_that_fit(text: str, columns: int) -> None:
    lines = render_hits.snippet(text, columns, "snow")
    assert 1 <= len(lines) <= render_hits.SNIPPET_LINES
    assert all(cells.width(line) <= columns for line in lines)
    assert max(cells.width(line) for line in lines) > columns / 2


def test_a_snippet_shows_the_sentence_that_matches() -> None:
    text = "The weather is fine. " * 40 + "Annual leave is twenty-five days. " + "The weather is fine. " * 40
    assert "Annual leave is twenty-five days." in " ".join(render_hits.snippet(text, 60, "How long is annual leave?"))
    assert "两小时" in "".join(
        render_hits.snippet("天气晴朗。" * 80 + "检查须在两小时之内完成。", 40, "几小时之内检查？")
    )


def test_a_snippet_is_safe_and_on_its_own_lines() -> None:
    assert render_hits.snippet("a\x1b[31mred\n\n\tb\x07", 60) == ["ared b"]


def test_the_words_of_the_question_are_bold() -> None:
    line = render_hits.marked("Leave is 25 days; the leaves fall.", "how long is annual LEAVE, 25?")
    assert click.unstyle(line) == "Leave is 25 days; the leaves fall."
    words = ("Leave", "25", "days", "leaves", "fall")
    assert [word for word in words if click.style(word, bold=True) in line] == ["Leave", "25", "leaves"]
    chinese = render_hits.marked("年假天数为二十五天", "年假有几天？")
    assert chinese == f"{click.style('年假', bold=True)}天数为二十五天"
    assert render_hits.marked("anything", "?") == "anything"


@given(line=st.text(max_size=40), question=st.text(max_size=20))
def test_marking_changes_nothing_but_the_look(line: str, question: str) -> None:
    if "\x1b" not in line:
        assert click.unstyle(render_hits.marked(line, question)) == line


# --- how they were found

TRACE = Trace(
    question="how long is annual leave",
    query="Represent this sentence for searching relevant passages: how long is annual leave",
    tokens=("represent", "this", "sentence"),
    words=("how", "long", "is", "annual", "leave"),
    model="mxbai-embed-large",
    publication=12,
    asked="hybrid",
    used="hybrid",
    where=("type=pdf", "page<=3"),
    rows=200_000,
    left=1_200,
    candidates=50,
    rrf_k=60,
    found={"vector": 50, "text": 31},
    weights={"vector": 1.0, "text": 1.0},
    copies=2,
    dropped=[
        Dropped(path="old.pdf", page=3, heading="Leave", chunk_id="x", fused=0.03, reason="folded", into=1),
        Dropped(path="book.pdf", page=None, heading="", chunk_id="y", fused=0.02, reason="per_document"),
        Dropped(path="rest.pdf", page=None, heading="", chunk_id="z", fused=0.01, reason="below"),
        Dropped(path="notes.md", page=None, heading="", chunk_id="n", fused=0.03, reason="filtered"),
    ],
    below=38,
    ms={"embed": 12.34, "vector": 8.0, "text": 5.0, "fuse": 1.25},
)


def test_an_explanation_says_everything() -> None:
    lines = plain(render_hits.explained(TRACE, [hit(), hit(vector_rank=None, bm25=3.0, rerank=0.5)], 100))
    text = "\n".join(lines)
    for said in (
        "tokens     3: represent | this | sentence",
        "words      how long is annual leave",
        "mode       hybrid",
        "model      mxbai-embed-large; snapshot 12, 200,000 passages",
        "filters    type=pdf and page<=3: 1,200 of 200,000 passages",
        "found      50 by meaning, 31 by words (of 50 asked for); 2 named as copies",
        "took       embed 12.3 ms, vector 8.0 ms, text 5.0 ms, fuse 1.2 ms",
        "fused = 1 / (60 + rank by meaning) + 1 / (60 + rank by words)",
        "says the same as 1        old.pdf p.3 · Leave",
        "its document has enough   book.pdf",
        "ranks below, 0.0100       rest.pdf",
        "the filters leave it out  notes.md",
        "and 37 more below",
    ):
        assert said in text
    assert "  1      #1  0.834      #2   12.3   0.0325        -  handbook.pdf p.3" in lines
    assert "  2       -  0.834      #2    3.0   0.0325    0.500  handbook.pdf p.3" in lines


def test_a_fusion_by_scores_and_a_foreign_script_are_told() -> None:
    trace = Trace(asked="hybrid", used="text", why="minilm knows en only: words decide", weights={"text": 0.6})
    text = "\n".join(render_hits.explained(trace, [hit()], 80))
    assert "mode       hybrid; minilm knows en only: words decide" in text
    assert "fused = 0.6 x words" in text


@pytest.mark.parametrize("columns", [80, 120])
def test_an_explanation_fits_the_terminal(columns: int) -> None:
    deep = "部门/人力资源/" * 12 + "手册.pdf"
    for trace in (TRACE, dataclasses.replace(TRACE, rrf_k=0)):
        lines = plain(render_hits.explained(trace, [hit(path=deep), hit(rerank=0.1)], columns))
        assert max(map(cells.width, lines)) <= columns
