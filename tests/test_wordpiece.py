"""How servers read text: what a real Ollama 0.13.5 (its own engine) counted, and what llama.cpp's rules come to."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models import tokens, vocabulary, wordpiece

READINGS = wordpiece.readings(msgspec.json.decode(vocabulary.packaged()))
UNK = wordpiece.UNKNOWN

# prompt_eval_count without the two specials, of `ollama serve` 0.13.5 built from source and a model of this vocabulary.
COUNTED = {
    "the harbour gate opens at seven": 6,
    "Ships wait — for the pilot!": 8,
    "港口七点开门": 6,
    "Überraschung naïve café 🙂": 4,
    "Tab\tand\nnewline  spaces": 5,
    "龘靐": 2,
    'foo_bar(baz)[1:2] == "x"; $9.99 50% a@b.co https://e.x/y?q=1': 42,
}


@pytest.mark.parametrize(("text", "count"), COUNTED.items())
def test_the_engine_as_a_server_counted(text: str, count: int) -> None:
    assert len(READINGS.engine(text)) == count


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("“Hello” there", [UNK, UNK, UNK, UNK, "there"]),  # the word after the quote is lost
        ("a—b", ["a", UNK, UNK]),
        ("a-b", ["a", "-", "b"]),
        ("café", [UNK]),
        ("cafe", ["cafe"]),
        ("中。", ["中", UNK, UNK]),
        ("…", [UNK, UNK]),
        ("", []),
        (" \n\t ", []),
    ],
)
def test_the_engine_by_eye(text: str, pieces: list[str]) -> None:
    assert READINGS.engine(text) == pieces


@pytest.mark.parametrize(
    ("text", "pieces", "with_marks"),
    [
        ("“Hello”", ["“", "hello", "”"], None),
        ("café naïve", ["cafe", "naive"], None),
        ("cafe\u0301", ["cafe"], [UNK]),
        ("a\u200bb", ["ab"], None),
        ("中国", ["中", "国"], None),
        ("x=1", ["x", "=", "1"], None),
        ("harbourmaster", ["harbour", "##master"], None),
    ],
)
def test_llama_cpp_by_eye(text: str, pieces: list[str], with_marks: list[str] | None) -> None:
    assert READINGS.llama_cpp(text) == pieces
    assert READINGS.llama_cpp_with_marks(text) == (with_marks or pieces)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="[]$+<=>^`|~"), max_size=80))
def test_plain_text_is_read_alike_by_all(text: str) -> None:
    """Square brackets can spell a special token to the reference; the other marks are not marks to Go."""
    assert set(READINGS.totals([text])) == set(tokens.builtin().count([text]))


@given(st.text(max_size=60))
def test_any_text_has_a_reading_and_is_like_itself(text: str) -> None:
    assert all(total >= 0 for total in READINGS.totals([text]))
    assert READINGS.alike(text, text)
    assert UNK not in READINGS.llama_cpp("gate")


def test_texts_that_a_server_cannot_tell_apart() -> None:
    assert READINGS.alike("“tide", "“pilot")
    assert not READINGS.alike("tide", "pilot")


def test_a_word_of_any_length_is_read_whole() -> None:
    word = "ab" * 400
    assert len(READINGS.engine(word)) == len(READINGS.llama_cpp(word)) > 100
