"""Sentences of an answer against the passages that they cite."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import answer_grounding
from pipeline.answer_citations import Citation, Marks
from pipeline.answer_grounding import Statement

PASSAGES = (
    "Every employee has thirty days of annual leave. Unused leave lapses in March.",
    "The canteen opens at noon. It serves soup on Mondays. It has 1,250 seats.",
    "员工每年有三十天年假。食堂中午十二点开门。",
)


def judged(text: str) -> tuple[Statement, ...]:
    citations = [Citation(number=int(m[1]), start=m.start(), end=m.end()) for m in re.finditer(r"\[(\d)\]", text)]
    return answer_grounding.statements(text, citations, PASSAGES, "What does the canteen serve? 食堂星期五有什么?")


def said(text: str) -> list[str]:
    return [text[one.start : one.end] for one in judged(text)]


def test_sentences_take_their_citations_along() -> None:
    text = "Leave is thirty days [1]. The canteen opens at noon. [2] Soup is served on Mondays.[2]\n- Seats: 1,250 [2]"
    assert said(text) == [
        "Leave is thirty days [1].",
        "The canteen opens at noon. [2]",
        "Soup is served on Mondays.[2]",
        "- Seats: 1,250 [2]",
    ]
    assert [one.cites for one in judged(text)] == [(1,), (2,), (2,), (2,)]


def test_chinese_sentences_need_no_blank() -> None:
    text = "员工每年有三十天年假[3]。食堂十二点开门。[3]就这样。"
    assert said(text) == ["员工每年有三十天年假[3]。", "食堂十二点开门。[3]", "就这样。"]


@pytest.mark.parametrize(
    ("text", "supported"),
    [
        ("Employees have thirty days of annual leave [1].", True),
        ("Unused leave lapses in March [1].", True),
        ("Employees have 30 days of leave [1].", True),  # written out in the passage
        ("Employees have 31 days of leave [1].", False),  # a number that is nowhere
        ("The canteen has 1250 seats [2].", True),  # with a comma in the passage
        ("The canteen has 1,251 seats [2].", False),
        ("The canteen serves sushi to pilots [2].", False),  # made up
        ("Employees have thirty days of annual leave [2].", False),  # the wrong passage
        ("Leave is thirty days and the canteen opens at noon [1][2].", True),  # both together
        ("员工每年有三十天年假[3]。", True),
        ("员工每年有30天年假[3]。", True),
        ("食堂星期五有寿司[3]。", False),
        ("员工每年有年假[1]。", None),  # Chinese about an English passage: words cannot be compared
        ("Employees have leave each year [3].", None),
        ("员工每年有40天年假[1]。", False),  # but numbers can
        ("Employees have thirty days of annual leave.", None),  # nothing is cited
    ],
)
def test_what_a_passage_supports(text: str, supported: bool | None) -> None:
    (one,) = judged(text)
    assert one.supported is supported


def test_a_passage_that_fits_better_is_named() -> None:
    (one,) = judged("The canteen opens at noon [1].")
    assert (one.supported, one.better) == (False, 2)
    assert judged("Penguins rule the harbour [1].")[0].better is None


@pytest.mark.parametrize("text", ["Yes.", "In short:", "", "\n\n", "Here is what the passages say about leave:", "[1]"])
def test_what_says_nothing_needs_no_source(text: str) -> None:
    assert judged(text) == ()


def test_notes_name_what_does_not_hold_and_count_what_cites_nothing() -> None:
    text = (
        "The canteen opens at noon [1]. Penguins rule the harbour [2]. Leave is thirty days [1]. The harbour is closed."
    )
    notes = list(answer_grounding.notes(text, judged(text)))
    assert notes == [
        'Not supported by [1], which it cites: "The canteen opens at noon"; passage [2] fits better.',
        'Not supported by [2], which it cites: "Penguins rule the harbour".',
        "1 of 4 sentences cite no passage.",
    ]


def test_only_the_first_three_are_told_in_full() -> None:
    text = " ".join(f"Penguins rule harbour {number} [1]." for number in range(10, 15))
    assert list(answer_grounding.notes(text, judged(text)))[-1].startswith("2 more sentences")


def test_an_answer_that_cites_nothing_is_told_elsewhere() -> None:
    text = "Leave is thirty days. The canteen opens at noon."
    assert list(answer_grounding.notes(text, judged(text))) == []


def test_a_long_sentence_is_shortened_in_its_note() -> None:
    text = "Penguins " + "from the southern harbour " * 8 + "rule [1]."
    (note,) = answer_grounding.notes(text, judged(text))
    assert len(note) < 120
    assert " …" in note


def test_json_says_what_was_found() -> None:
    (one,) = judged("The canteen opens at noon [1].")
    assert one.to_json() == {"start": 0, "end": 30, "cites": [1], "share": 0.0, "supported": False, "better": 2}


@given(st.text(alphabet="ab .!?。[1]2\n中文：:", max_size=60))
def test_statements_lie_in_the_text_and_do_not_overlap(text: str) -> None:
    marks = Marks(3)
    shown = marks.feed(text) + marks.close()
    found = answer_grounding.statements(shown, marks.citations, PASSAGES)
    ends = [0, *(one.end for one in found)]
    assert all(before <= one.start < one.end <= len(shown) for before, one in zip(ends, found, strict=False))
    assert all(0 <= one.share <= 1 for one in found)


ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spelled(number: int) -> str:
    if number < 20:
        return [*ONES, *TEENS][number]
    return TENS[number // 10] + (f"-{ONES[number % 10]}" if number % 10 else "")


@given(st.integers(0, 99))
def test_numbers_written_out_are_the_same_numbers(number: int) -> None:
    text = f"The harbour has {number} penguins [1]."
    marks = [Citation(number=1, start=text.index("["), end=text.index("]") + 1)]
    (one,) = answer_grounding.statements(text, marks, [f"The harbour has {spelled(number)} penguins."])
    assert one.supported is True
