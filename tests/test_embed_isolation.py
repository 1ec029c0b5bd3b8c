"""Which text is to blame: the search for it, what counts against it, and the reason that it is given up for."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from itertools import chain, cycle, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors, models
from pipeline.stages import embed
from pipeline.stages.embed_verdict import CONFIRMED, RECURRENCES, Evidence, Failure
from tests.fake_embedder import (
    WHOLE,
    Answer,
    FakeEmbedder,
    Outcome,
    busy,
    collect,
    embed_all,
    fault,
    items,
    numbered,
    one_zero,
    right,
    run,
    short,
    sticky_zeros,
    stream,
    zeros,
)

EOF = errors.RunnerFault("Ollama at http://127.0.0.1:1 answered 400: EOF")
CUT = errors.TransientFault("The connection to Ollama at http://127.0.0.1:1 was cut (Connection reset by peer).")
HUNG = errors.TransientFault("Ollama at http://127.0.0.1:1 gave no answer within 30.1 s.")
FULL = errors.TransientFault("Ollama at http://127.0.0.1:1 answered 503: server busy")
ZEROS = errors.BadVectors("The model server sent a vector of zeros (1 of 1).")
DIED = errors.RunnerFault("Ollama at http://127.0.0.1:1 answered 400: dial tcp 127.0.0.1:40213: connection refused")


def failure(error: errors.TransientFault, *, poisons: bool = False) -> Failure:
    kind = "bad_vector" if isinstance(error, errors.BadVectors) else "fault"
    return Failure(kind=kind, error=error, texts=1, poisons=poisons)


def verdict(found: Iterable[Failure], patience: int = 6) -> Failure | None:
    evidence = Evidence(patience)
    for one in found:
        evidence.add(one)
    return evidence.verdict()


# --- what counts


@pytest.mark.parametrize("error", [EOF, ZEROS, DIED])
def test_a_reason_that_recurs_is_the_texts_own(error: errors.TransientFault) -> None:
    assert verdict([failure(error)] * (RECURRENCES - 1)) is None
    found = verdict([failure(error)] * RECURRENCES)
    assert found is not None
    assert found.error is error


def test_two_confirmed_poisonings_are_enough() -> None:
    assert CONFIRMED < RECURRENCES <= 2 * CONFIRMED
    assert verdict([failure(ZEROS, poisons=True)]) is None
    assert verdict([failure(ZEROS, poisons=True)] * 2) is not None


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([CUT, HUNG, FULL]), max_size=12),
    st.lists(st.sampled_from([DIED, ZEROS]), max_size=2),
    st.randoms(use_true_random=False),
)
def test_whatever_comes_between_the_reason_is_the_one_that_recurs(
    passing: list[errors.TransientFault], once: list[errors.TransientFault], dice: random.Random
) -> None:
    noise = [failure(error) for error in (*passing, *once)]
    dice.shuffle(noise)
    found = verdict([*noise, *[failure(EOF)] * RECURRENCES])
    assert found is not None
    assert found.error is EOF


@given(st.lists(st.sampled_from([CUT, HUNG, FULL]), max_size=5))
def test_passing_faults_are_no_tries_of_the_text(passing: list[errors.TransientFault]) -> None:
    assert verdict(failure(error) for error in passing) is None


def test_nothing_but_the_same_passing_fault_is_the_texts_own_in_the_end() -> None:
    """A text over which the server hangs each time, while others before and after it are embedded."""
    hung = [failure(errors.TransientFault(f"S gave no answer within {30 + i}.5 s.")) for i in range(6)]
    assert verdict(hung[:5]) is None
    found = verdict(hung)
    assert found is not None
    assert "gave no answer" in found.error.message


def test_a_passing_fault_that_meets_known_texts_too_is_not_the_texts_own() -> None:
    """A server that others keep busy: 503 for this text, and for known ones now and then."""
    busy_ = [Failure(kind="fault", error=FULL, texts=1, shaken=True)] * 23
    assert verdict(busy_) is None
    found = verdict([*busy_, *busy_[:1]])  # but it must end
    assert found is not None
    assert found.error is FULL


def test_a_text_to_which_something_else_happens_each_time_ends_as_well() -> None:
    different = [failure(errors.RunnerFault(f"failure {'x' * i}")) for i in range(4 * RECURRENCES)]
    assert verdict(different[:-1]) is None
    assert verdict(different) is not None


# --- the search


class Moody(FakeEmbedder):
    """Plays `moods` to requests that hold POISON, one after the other."""

    moods: Iterator[Answer] = repeat(fault)

    def _answer(self, answer: Answer | None, texts: list[str]) -> models.Vectors:
        if any("POISON" in text for text in texts):
            return next(self.moods)(self, texts)
        return super()._answer(answer, texts)

    @property
    def hits(self) -> int:
        return sum(any("POISON" in text for text in batch) for batch in self.batches)


def died(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise DIED


def cut(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise CUT


def hung(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise HUNG


@pytest.mark.parametrize("noise", [[busy], [cut], [hung], [busy, cut], [hung, busy, cut], [busy, busy, busy]])
def test_a_reject_names_what_the_text_does_and_not_what_happened_besides(noise: list[Answer]) -> None:
    fake = Moody()
    fake.moods = cycle([fault, *noise])
    outcome = embed_all(numbered(64, bad=[40]), fake)
    assert [reject.reason for reject in outcome.rejects.values()] == ["EOF"]


@pytest.mark.parametrize("noise", [[busy], [cut, hung], [died]])
def test_a_reject_names_it_also_where_the_last_failure_was_another(noise: list[Answer]) -> None:
    """Two EOFs, something else, and the third EOF only after that."""
    fake = Moody()
    fake.moods = chain([fault] * 8, noise, repeat(fault))
    outcome = embed_all(numbered(16, bad=[3]), fake)
    assert [reject.reason for reject in outcome.rejects.values()] == ["EOF"]


def test_a_text_that_the_server_is_busy_for_again_and_again_is_no_culprit() -> None:
    fake = Moody()
    fake.moods = chain(cycle_n([busy, cut, hung], 15), repeat(right))
    outcome = embed_all(numbered(64, bad=[40]), fake)
    assert not outcome.rejects


def cycle_n(answers: list[Answer], n: int) -> Iterator[Answer]:
    return (answers[i % len(answers)] for i in range(n))


def test_a_text_over_which_a_well_server_always_hangs_does_not_hold_up_the_rest() -> None:
    fake = Moody()
    fake.moods = repeat(hung)
    outcome = embed_all(numbered(128, bad=[77]), fake)
    assert list(outcome.rejects) == ["k:text 77 POISON"]
    assert "gave no answer" in outcome.rejects["k:text 77 POISON"].reason


@pytest.mark.parametrize("position", [0, 17, 31, 63])
@pytest.mark.parametrize("answer", [fault, one_zero, short, zeros])
def test_a_culprit_costs_few_dead_runners(position: int, answer: Answer) -> None:
    """Each is a model to load again: two tries of the batch, one alone, at most one for each halving, three alone."""
    fake = Moody(limits=models.Limits(concurrency=1))
    fake.moods = repeat(answer)
    outcome = embed_all(numbered(64, bad=[position]), fake)
    assert len(outcome.rejects) == 1
    assert fake.hits <= 2 + 1 + 6 + RECURRENCES


def test_a_culprit_that_poisons_the_runner_costs_few_reloads() -> None:
    fake = Moody()
    fake.moods = repeat(sticky_zeros)
    outcome = embed_all(numbered(64, bad=[40]), fake)
    assert len(outcome.rejects) == 1
    assert fake.resets <= 10


def test_a_batch_that_failed_twice_by_others_fault_is_sent_whole_once_more() -> None:
    """A runner that dies takes all that is in flight with it: the neighbours are not cut up for that."""
    fake = FakeEmbedder(answers=[fault, fault], limits=models.Limits(concurrency=1))
    embed_all(numbered(50), fake)
    assert [len(batch) for batch in fake.batches] == [50, 50, 2, 50]  # the two are the known texts


def test_faults_of_a_server_that_is_ill_are_nobodys() -> None:
    """Every request fails for a minute, known texts too: whatever was tried in that time counts for nothing."""

    class Ill(FakeEmbedder):
        def _answer(self, answer: Answer | None, texts: list[str]) -> models.Vectors:
            return (fault if 1 < asyncio.get_running_loop().time() < 60 else right)(self, texts)

    outcome = embed_all(numbered(500), Ill())
    assert not outcome.rejects
    assert outcome.seconds > 60


def test_a_server_that_stays_ill_rejects_nothing_while_it_is_looked_for_a_culprit() -> None:
    outcome = Outcome()

    class Falling(FakeEmbedder):
        def _answer(self, answer: Answer | None, texts: list[str]) -> models.Vectors:
            return (fault if len(self.batches) > 5 else right)(self, texts)

    with pytest.raises(errors.TransientFault, match="kept failing"):
        run(collect(stream(items(numbered(200))), Falling(), WHOLE, outcome))
    assert not outcome.rejects


@settings(deadline=None, max_examples=20)
@given(
    bad=st.sets(st.integers(0, 63), max_size=5),
    moods=st.lists(st.sampled_from([fault, fault, fault, busy, cut, died]), min_size=1, max_size=9).filter(
        lambda found: found.count(fault) > 2 * found.count(died)
    ),
)
def test_each_culprit_is_named_whatever_else_happens_and_no_neighbour(bad: set[int], moods: list[Answer]) -> None:
    fake = Moody()
    fake.moods = cycle(moods)
    outcome = embed_all(numbered(64, bad), fake, embed.EngineOptions())
    assert set(outcome.rejects) == {f"k:text {i} POISON" for i in bad}
    assert all(reject.reason in ("EOF", DIED.message) for reject in outcome.rejects.values())
