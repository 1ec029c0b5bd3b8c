"""Where sentences end, by language: shown as the text with a stroke at each ending and a colon where one goes on."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages import chunk_sentences
from pipeline.stages.chunk_sentences import Ending


def shown(text: str) -> str:
    """`|` where a sentence has ended, `:` where a line has, or a sentence within a quote."""
    parts, done = [], 0
    for at, ending in chunk_sentences.endings(text, 0, len(text)):
        if at < len(text):
            parts += [text[done:at], "|" if ending is Ending.SENTENCE else ":"]
            done = at
    return "".join([*parts, text[done:]])


@pytest.mark.parametrize(
    "expected",
    [
        "雨が降った。|風も強い！|船は出ない？|はい。",
        "何？！|本当！？|うそ‼|はい",
        "これは本である．|また，3．5倍になる．|以上",  # a full-width point; not the one in a number
        "すごい!|でも残念?|はい",  # half-width marks without a space
        "雨です.|風です.|はい",
        "そう……。|でも……まだ。|はい",  # an ellipsis alone ends nothing
        "「今日は雨。:明日は晴れ。」:と彼は言った。|次の日。",
        "「行こう！」:と叫んだ。|彼は走った。",
        "「え？」|「はい。」|「そう。」",  # people take turns
        "『新聞（夕刊。:月曜）』を読む。|はい",
        "ﾊﾝｶｸ｡|｢ﾃｽﾄ｡｣:ﾄｲｳ｡|ｵﾜﾘ",
    ],
)
def test_japanese(expected: str) -> None:
    assert shown(expected.replace("|", "").replace(":", "")) == expected


@pytest.mark.parametrize(
    "expected",
    [
        "港口关闭。|天气很冷！|为什么？|因为有雨；|完",
        "他说“走吧！”。|然后走了。|完",  # a mark after the quote belongs to it
        "“今天不出海！:明天再说。”:船长说。|然后走了。",
        "“走吧。”|他走了。|完",
        "他很累……然后睡了。|我也……。|好",
        "价格是3.5元。|OK 了。|马克.吐温写的。|完",
        "第一。|（注：见下。）|第二。|完",
        "走！……|然后走了。|完",
    ],
)
def test_chinese(expected: str) -> None:
    assert shown(expected.replace("|", "").replace(":", "")) == expected


@pytest.mark.parametrize(
    "expected",
    [
        "यह है। |वह है॥ |अंत",
        "هل تعلم؟ |نعم. |حسنا۔ |اچھا",
        "ይህ ነው። |እሺ",
        "Բարեւ։ |Այո",
        "ข้อความ ไทย ยาว",  # no full stop: cut at spaces where a unit is too long
        "Dr. No came. |He left (at last.) |Nobody saw.",
        "He said 第一。|Then English. |End",
    ],
)
def test_other_scripts(expected: str) -> None:
    assert shown(expected.replace("|", "")) == expected


def test_a_quote_that_is_never_closed_holds_up_a_hundred_characters_and_no_more() -> None:
    text = "「" + "雨が降った。" * 60
    kinds = [ending for _, ending in chunk_sentences.endings(text, 0, len(text))]
    assert kinds[0] is Ending.LINE
    assert kinds[-1] is Ending.SENTENCE
    assert sum(kind is Ending.LINE for kind in kinds) <= 1 + chunk_sentences.QUOTE // 6


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    text=st.lists(st.sampled_from("雨あ。！？…」』「『（）”“.!? \nab1؟।．1１"), max_size=80).map("".join),
    cut=st.integers(0, 80),
)
def test_endings_lie_in_the_text_in_order_and_do_not_depend_on_what_is_far(text: str, cut: int) -> None:
    found = list(chunk_sentences.endings(text, 0, len(text)))
    places = [at for at, _ in found]
    assert places == sorted(set(places))
    assert all(0 < at <= len(text) for at in places)
    far = "雨" * (chunk_sentences.QUOTE + 30)
    moved = [(at - len(far), ending) for at, ending in chunk_sentences.endings(far + text, len(far), len(far + text))]
    assert [at for at, _ in moved] == places or text[:1] in ".!?"  # a mark at the start sees what stands before it


@pytest.mark.parametrize(
    "text",
    ["." * 400_000, "。」" * 200_000, "あ!" * 100_000, "「" * 200_000 + "。" * 100, "…" * 400_000, "!あ" * 90_000],
)
def test_no_run_of_marks_takes_long(text: str) -> None:
    began = time.process_time()
    sum(1 for _ in chunk_sentences.endings(text, 0, len(text)))
    assert time.process_time() - began < 5
