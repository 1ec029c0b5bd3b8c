"""What a vector must be before it leaves a client, by numbers one can check by eye."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline import errors
from pipeline.models import vectors, wire

RIGHT = np.array([[1, 0, 0, 0], [0, 0.6, 0.8, 0]], dtype=np.float32)


def test_rows_of_both_kinds_are_stacked_in_order() -> None:
    rows = [RIGHT[0].tolist(), RIGHT[1].astype("<f4").tobytes()]
    found = vectors.stack(rows, texts=2, dims=4, server="S")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, RIGHT)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "0 vectors for 2 texts"),
        ([[1.0] * 4], "1 vectors for 2 texts"),
        ([[1.0] * 4] * 3, "3 vectors for 2 texts"),
        ([[1.0] * 4, [1.0] * 3], "3 dimensions where 4"),
        ([b"\0" * 16, b"\0" * 20], "5 dimensions where 4"),
        ([b"\0" * 16, b"\0" * 15], r"3\.75 dimensions where 4"),
    ],
)
def test_the_wrong_number_of_rows_or_numbers(rows: list[list[float] | bytes], said: str) -> None:
    with pytest.raises(errors.BadVectors, match=said):
        vectors.stack(rows, texts=2, dims=4, server="S")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([0, 0, 0, 0], "is all zeros"),
        ([np.nan, 0, 0, 1], "NaN or infinity"),
        ([np.inf, 0, 0, 0], "NaN or infinity"),
        ([1, 1, 0, 0], "not of unit length"),
        ([0.99, 0, 0, 0], "not of unit length"),
    ],
)
def test_a_row_that_cannot_be_right_is_named(row: list[float], said: str) -> None:
    matrix = np.concatenate([RIGHT, np.array([row], dtype=np.float32)])
    with pytest.raises(errors.BadVectors, match=said) as caught:
        vectors.verify(matrix, "S")
    assert "1 of 3 vectors" in caught.value.message
    assert "of text 2" in caught.value.message


def test_rows_within_the_tolerance_are_right() -> None:
    vectors.verify(RIGHT * np.float32(1.0009), "S")
    vectors.verify(RIGHT[:0], "S")


def test_twins_are_equal_vectors_of_different_texts() -> None:
    matrix = RIGHT[[0, 1, 0, 0, 1]]
    assert vectors.twins(matrix, ["a", "b", "c", "a", "b"]) == [(0, 2)]
    assert vectors.twins(RIGHT, ["a", "b"]) == []


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("Oslo", "OSLO", True),
        ("Straße", "strasse", True),
        ("café", "cafe\u0301", True),
        ("a\u200bb", "ab", True),
        ("one\n\ttwo ", " one two", True),
        ("one two", "onetwo", False),
        ("gate", "gates", False),
        ("港口", "港", False),
    ],
)
def test_folding(a: str, b: str, same: bool) -> None:
    assert (vectors.fold(a) == vectors.fold(b)) is same


@given(hnp.arrays(np.float32, (3, 8), elements=st.floats(-1, 1, width=32)))
def test_a_cut_is_the_front_at_unit_length(matrix: np.ndarray) -> None:
    matrix = matrix + np.eye(3, 8, dtype=np.float32) * 2
    unit = vectors.normalised(matrix)
    front = vectors.cut(unit, 4)
    vectors.verify(unit, "S")
    vectors.verify(front, "S")
    assert front.shape == (3, 4)
    assert front.dtype == np.float32
    cosine = np.einsum("ij,ij->i", front, unit[:, :4]) / np.linalg.norm(unit[:, :4], axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


def test_a_row_of_zeros_stays_one_and_is_refused() -> None:
    zeros = vectors.normalised(np.zeros((1, 4), dtype=np.float32))
    assert not zeros.any()
    with pytest.raises(errors.BadVectors):
        vectors.verify(zeros, "S")


def test_an_answer_in_any_order_is_read_in_the_texts_order() -> None:
    data = [wire.Datum(embedding=[2.0], index=1), wire.Datum(embedding=[1.0], index=0)]
    found = wire.EmbeddingList(data=data, usage=wire.Usage(prompt_tokens=9))
    assert list(found.rows) == [[1.0], [2.0]]
    assert (found.prompt_eval_count, found.is_base64) == (9, False)
    assert wire.EmbeddingList(data=[wire.Datum(embedding=b"\0\0\0\0")]).is_base64
    assert (wire.EmbeddingList().prompt_eval_count, wire.EmbeddingList().rows, wire.EmbeddingList().is_base64) == (
        None,
        [],
        False,
    )


def test_equal_beginnings_are_looked_at_to_their_end() -> None:
    long = np.zeros((3, 8), dtype=np.float32)
    long[:, 0] = 0.6
    long[[0, 1, 2], [4, 5, 4]] = 0.8
    assert not vectors.distinct(long)
    assert vectors.twins(long, ["a", "b", "c"]) == [(0, 2)]
    assert vectors.distinct(RIGHT)
    assert vectors.distinct(RIGHT[:0])


@pytest.mark.parametrize("length", [0.0, 0.99, 1.01, np.nan, np.inf, 1e20])
def test_the_quick_look_lets_nothing_wrong_pass(length: float) -> None:
    assert vectors.near_unit(RIGHT)
    assert not vectors.near_unit(np.concatenate([RIGHT, np.array([[0, 0, length, 0]], dtype=np.float32)]))
