"""Which passages say the same: layout does not count, most words must agree, numbers and negations decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import likeness

LEAVE = """Every member of staff has a right to paid leave. It is taken in agreement with the head of the section, who
answers within a week. Leave that was not taken moves to the following year and is lost at the end of March. Whoever
falls ill during leave brings a certificate, and the days are given back. In the first year leave is counted by months.
"""
CHINESE = 2 * (
    "员工享有带薪年假，具体安排须与部门负责人商定，负责人应在一周之内答复。未休的假期转入下一年度，逾期作废。"
    "休假期间生病的，凭证明补休。入职当年按月计算。"
)


def alike(one: str, other: str) -> bool:
    prints = likeness.of(one), likeness.of(other)
    assert likeness.alike(*prints) is likeness.alike(*reversed(prints))
    return likeness.alike(*prints)


@pytest.mark.parametrize(
    "changed",
    [
        LEAVE.replace("\n", " "),
        LEAVE.upper(),
        LEAVE.replace(".", ";").replace(",", ""),
        LEAVE.replace("certificate", "ｃertificate"),
        LEAVE.replace("within a week", "within one week"),
        f"Handbook 2025, page 12\n{LEAVE}",
        f"{LEAVE}Page 12 of 40\n",
        f"3\n{LEAVE}\n- 12 -",
    ],
)
def test_layout_a_word_and_page_numbers_do_not_count(changed: str) -> None:
    assert alike(LEAVE, changed)


@pytest.mark.parametrize(
    "changed",
    [
        LEAVE.replace("It is taken", "It is not taken"),
        LEAVE.replace("a week", "2 weeks"),
        f"{LEAVE}Parents have more of it, as the law of the country in which they work says, and may take it in parts.",
        LEAVE[: len(LEAVE) // 2],
        "".join(reversed(LEAVE)),
        "",
    ],
)
def test_a_number_a_negation_and_a_sentence_do(changed: str) -> None:
    assert not alike(LEAVE, changed)


def test_numbers_in_two_versions() -> None:
    old, new = (f"{LEAVE}There are {days} days of it in every year of service for all.\n" for days in (25, 30))
    assert alike(old, old.replace("\n", "  \n"))
    assert not alike(old, new)
    assert not alike(f"{new}Page 3", f"{old}Page 3")


def test_chinese() -> None:
    assert alike(CHINESE, CHINESE.replace("，", ", ").replace("须与", "应与", 1))
    assert not alike(CHINESE, CHINESE.replace("一周", "三周"))
    assert not alike(CHINESE, CHINESE.replace("凭证明", "不凭证明"))
    assert not alike(CHINESE, CHINESE[: len(CHINESE) // 2])


def test_short_texts_are_alike_when_their_words_are() -> None:
    assert alike("Page 3", "page  3.")
    assert not alike("Page 3", "Page 4")  # a footer is one only above or below something
    assert not alike("Yes", "No")
    assert alike("", " \n")


@given(text=st.text(), other=st.text())
def test_any_text_is_like_itself(text: str, other: str) -> None:
    assert alike(text, text)
    assert alike(text, f"\n  {text}\n")
    alike(text, other)  # symmetric, and never an error
