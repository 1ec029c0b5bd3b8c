"""What an edit changes, kind of text by kind: at most three chunks are new, wherever it falls.

No rule can promise it for any text at all (two anchors may both give way to others), so the seeds are fixed;
benchmarks/chunking.py counts how rare more than three are, over thousands of edits of real files.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.models import tokens
from pipeline.stages import chunk
from tests.test_chunk import WORDS, plain, sentence

HAN = "港口灯塔潮水船长风暴清晨渡轮石桥市场信号绳索冬天夜里远方"
KANA = ("です", "ました", "という", "しかし", "とても", "ところ", "から", "まで")


def keys(text: str, kind: str = "paragraph") -> set[str]:
    made = chunk.chunk_documents(plain(text, kind), chunk.ChunkParams(), tokens.builtin())
    return {str(key) for key in made["embed_key"].to_pylist()}


def chinese(rng: random.Random) -> str:
    return "".join(rng.choices(HAN, k=rng.randint(6, 40))) + rng.choice("。。。！？；")


def japanese(rng: random.Random) -> str:
    words = ("".join(rng.choices(HAN, k=2)) + rng.choice(KANA) for _ in range(rng.randint(2, 8)))
    said = "".join(words)
    return f"「{said}。」と言った。" if rng.random() < 0.2 else f"{said}。"


def row(rng: random.Random) -> str:
    return (
        f"{rng.choice(WORDS)}\t2026-{rng.randrange(10**5):05}\t{rng.random():.3f}\t{' '.join(rng.choices(WORDS, k=4))}"
    )


def line(rng: random.Random) -> str:
    return (
        " " * rng.choice((4, 4, 8)) + f"{rng.choice(WORDS)}_{rng.randrange(99)} = {rng.choice(WORDS)}({rng.random()})"
    )


def item(rng: random.Random) -> str:
    return f"- {sentence(rng)}"


@pytest.mark.parametrize(
    ("unit", "between", "kind"),
    [
        (sentence, " ", "paragraph"),
        (chinese, "", "paragraph"),
        (japanese, "", "paragraph"),
        (row, "\n", "table"),
        (line, "\n", "code"),
        (item, "\n", "list"),
    ],
    ids=["english", "chinese", "japanese", "table", "code", "list"],
)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), size=st.sampled_from([60, 200, 600]))
def test_an_edit_in_one_huge_section_changes_at_most_three_chunks(
    unit: Callable[[random.Random], str], between: str, kind: str, seed: int, size: int
) -> None:
    rng = random.Random(seed)
    units = [unit(rng) for _ in range(size)]
    before = keys(between.join(units), kind)
    for place in (0, rng.randrange(size), size):
        assert len(keys(between.join(edited(units, place, unit, rng)), kind) - before) <= 3


def edited(
    units: Sequence[str], at: int, unit: Callable[[random.Random], str], rng: random.Random, most: int = 5
) -> list[str]:
    """Some units put in at `at`, one taken out, or one written anew."""
    new = [unit(rng) for _ in range(rng.randint(0, most))]
    gone = rng.randint(0 if new else 1, 1)
    at = min(at, len(units) - gone)
    return [*units[:at], *new, *units[at + gone :]]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_a_word_more_in_the_middle_of_a_sentence_changes_one_or_two(seed: int) -> None:
    rng = random.Random(seed)
    for unit, word in ((sentence, "harbour "), (chinese, "港口")):
        text = " ".join(unit(rng) for _ in range(150))
        at = text.index(" ", rng.randrange(len(text) - 200)) + 1 + rng.randint(0, 3)
        assert len(keys(text[:at] + word + text[at:]) - keys(text)) <= 2


def test_a_quote_that_opens_changes_what_is_near_alone() -> None:
    rng = random.Random(6)
    text = "".join(japanese(rng) for _ in range(400))
    for _ in range(8):
        at = text.index("。", rng.randrange(len(text) - 300)) + 1
        assert len(keys(text[:at] + "「" + text[at:]) - keys(text)) <= 3


def test_what_is_appended_every_day_leaves_the_days_before_alone() -> None:
    rng = random.Random(9)
    log = [sentence(rng) for _ in range(40)]
    known = keys(" ".join(log))
    for _ in range(25):
        log += [sentence(rng) for _ in range(rng.randint(1, 12))]
        now = keys(" ".join(log))
        assert len(now - known) <= 3
        known = now
