"""The trial of a model: the known order holds for real and for computed vectors, and what is wrong is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline import doctor_selftest, errors
from pipeline.doctor_selftest import CHINESE, PAIRS
from pipeline.models import EmbedderSpec, EmbedReply, Limits, Vectors, builtin, resolve, tokens
from tests.fake_ollama import vectors as computed

ALL = [*PAIRS, *CHINESE]
SPEC = builtin.spec(tokens.builtin().identity)


def halves(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [first for first, _ in pairs] + [second for _, second in pairs]


def words(texts: Sequence[str], dims: int) -> Vectors:
    return np.array([computed.words_vector(text, dims) for text in texts])


class Scripted:
    """An Embedder whose vectors share words, that spends `seconds` a request and fails at request `fails_at`."""

    def __init__(self, spec: EmbedderSpec = SPEC, *, seconds: float = 0.0, fails_at: int = 0) -> None:
        self.spec = spec
        self.limits = Limits()
        self.requests: list[tuple[list[str], int]] = []
        self.closed = False
        self._seconds = seconds
        self._fails_at = fails_at

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        self.requests.append((list(texts), tokens))
        if len(self.requests) == self._fails_at:
            raise errors.TransientFault("It gave up.")
        await asyncio.sleep(self._seconds)
        return EmbedReply(vectors=words(texts, self.spec.dims))

    async def aclose(self) -> None:
        self.closed = True


def tried(embedder: Scripted, patience_s: float = 5.0) -> doctor_selftest.Outcome:
    async def open_() -> resolve.Choice:
        return resolve.Choice(embedder=embedder)

    return asyncio.run(
        doctor_selftest.run(open_, model=embedder.spec.model, server="The test's", patience_s=patience_s)
    )


# --- the sentences


def test_the_order_holds_for_the_embedded_model_with_room_between() -> None:
    vectors = builtin.BuiltinEmbedder(SPEC).embed_sync(halves(PAIRS))
    assert doctor_selftest.judge("m", vectors).level == "pass"
    steps = -np.diff(np.einsum("ij,ij->i", vectors[:5], vectors[5:]))
    assert (steps > 0.08).all()  # another build or processor changes the last digits, not these


@pytest.mark.parametrize("dims", [128, 256, 384, 512, 768, 1024])
def test_the_order_holds_for_vectors_of_shared_words(dims: int) -> None:
    assert doctor_selftest.judge("m", words(halves(ALL), dims)).level == "pass"


@pytest.mark.parametrize("places", [(0, 1), (5, 6), (3, 9), (1, 4)])
def test_vectors_that_changed_places_are_out_of_order(places: tuple[int, int]) -> None:
    a, b = places
    vectors = builtin.BuiltinEmbedder(SPEC).embed_sync(halves(PAIRS))
    vectors[[a, b]] = vectors[[b, a]]
    check = doctor_selftest.judge("m", vectors)
    assert (check.level, "not in their order" in check.detail, "pull" in check.remedy) == ("fail", True, True)


def test_vectors_without_meaning_are_out_of_order() -> None:
    hashed = np.array([computed.hash_vector(text, 1024) for text in halves(PAIRS)])
    assert doctor_selftest.judge("m", hashed).level == "fail"


def test_a_multilingual_model_must_know_chinese_too() -> None:
    both = words(halves(ALL), 768)
    assert "7 pairs" in doctor_selftest.judge("m", both).detail
    both[-1] = both[len(ALL) - 1]  # the two unrelated Chinese sentences are one
    assert doctor_selftest.judge("m", both).level == "fail"


@pytest.mark.parametrize(
    ("model", "languages", "texts"), [("bge-m3", (), 14), ("my-own", (), 10), ("all-minilm", ("en",), 10)]
)
def test_chinese_is_asked_of_models_that_are_known_to_read_it(
    model: str, languages: tuple[str, ...], texts: int
) -> None:
    embedder = Scripted(replace(SPEC, model=model, languages=languages))
    assert tried(embedder).checks[0].level == "pass"
    assert len(embedder.requests[0][0]) == texts


# --- speed


@pytest.mark.parametrize("limit", [1, 100, 254, 510])
def test_the_texts_differ_and_fit(limit: int) -> None:
    texts = doctor_selftest.speed_texts(limit)
    assert len(set(texts)) == 9
    assert set(tokens.builtin().count(texts)) == {min(limit, doctor_selftest.SPEED_TOKENS)}
    assert texts == doctor_selftest.speed_texts(limit)


def test_the_speed_is_tokens_over_time() -> None:
    embedder = Scripted(seconds=0.05)  # 4 texts of 250 tokens a request, two requests at a time
    outcome = tried(embedder)
    assert 2000 / 0.05 * 0.4 < outcome.tokens_per_s <= 2000 / 0.05
    assert [len(texts) for texts, _ in embedder.requests] == [10, 1, 4, 4]
    assert f"{outcome.tokens_per_s:,.0f} tokens/s" in outcome.checks[1].detail


def test_counts_are_sent_where_they_are_exact() -> None:
    exact, other = Scripted(), Scripted(replace(SPEC, tokenizer="another"))
    tried(exact)
    tried(other)
    assert exact.requests[1] == (doctor_selftest.speed_texts(510)[:1], 250)
    assert {count for _, count in other.requests} == {0}


def test_a_slow_machine_is_measured_by_little() -> None:
    embedder = Scripted(seconds=0.03)
    counted, seconds = asyncio.run(doctor_selftest.measure(embedder, budget_s=0.01))
    assert (counted, len(embedder.requests)) == (250, 1)
    assert 0.03 <= seconds < 0.2


def test_a_measurement_ends_when_its_time_is_over() -> None:
    embedder = Scripted(seconds=0.51)  # so slow that texts are sent one by one, two at a time
    counted, seconds = asyncio.run(doctor_selftest.measure(embedder, budget_s=1.1))
    assert (counted, len(embedder.requests)) == (1500, 7)
    assert 1.5 <= seconds < 1.9


# --- failures


def test_no_answer_in_time_is_a_failure_with_a_way_out() -> None:
    embedder = Scripted(seconds=60)
    outcome = tried(embedder, patience_s=0.05)
    (check,) = outcome.checks
    assert (check.level, check.name, outcome.vectors, outcome.tokens_per_s) == ("fail", "self-test", None, 0.0)
    assert "no answer within 0.05 s" in check.detail
    assert "restart" in check.remedy
    assert embedder.closed


@pytest.mark.parametrize("request_", [1, 2, 3, 4])
def test_a_failure_at_any_request_is_told(request_: int) -> None:
    embedder = Scripted(fails_at=request_)
    outcome = tried(embedder)
    assert [(check.level, check.detail) for check in outcome.checks] == [("fail", "It gave up.")]
    assert isinstance(outcome.error, errors.TransientFault)
    assert embedder.closed


def test_a_model_that_cannot_be_opened_is_told_with_its_remedy() -> None:
    async def open_() -> resolve.Choice:
        raise errors.ModelMissing("It is not there.", "ollama pull it")

    outcome = asyncio.run(doctor_selftest.run(open_, model="it", server="S", patience_s=1))
    assert [(check.detail, check.remedy) for check in outcome.checks] == [("It is not there.", "ollama pull it")]


# --- several servers


def test_vectors_of_servers_are_compared_text_by_text() -> None:
    one = words(halves(PAIRS), 256)
    other = one.copy()
    other[3] = one[4]
    assert doctor_selftest.same_vectors([]) == doctor_selftest.same_vectors([one]) == 1.0
    assert doctor_selftest.same_vectors([one, one]) == pytest.approx(1.0, abs=1e-5)
    assert doctor_selftest.same_vectors([one, one, other]) < 0.5
