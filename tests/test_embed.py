"""The embed engine against an embedder in this process, on a clock that jumps: its logic, request by request.

`test_embed_faults` has the same through real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors, models
from pipeline.stages import embed, embed_batches, embed_control, embed_gate
from tests.fake_embedder import (
    CANARIES,
    DIMS,
    WHOLE,
    Answer,
    FakeEmbedder,
    Outcome,
    Unmendable,
    collect,
    doubled,
    embed_all,
    fault,
    half,
    hang,
    items,
    not_a_number,
    numbered,
    one_zero,
    refuse,
    right,
    run,
    short,
    silence,
    sticky_zeros,
    stream,
    vector,
    zeros,
)


def test_every_text_is_sent_once_and_gets_its_vector() -> None:
    fake = FakeEmbedder()
    texts = numbered(500)
    outcome = embed_all(texts, fake)
    assert sorted(fake.texts) == sorted(texts)
    assert not outcome.rejects


def test_batches_keep_to_texts_and_tokens() -> None:
    fake = FakeEmbedder(limits=models.Limits(batch_texts=64, batch_tokens=1000, concurrency=1))
    embed_all(numbered(300), fake, tokens=30)
    assert max(map(len, fake.batches)) == 33
    by_texts = FakeEmbedder(limits=models.Limits(batch_texts=20, batch_tokens=16_000, concurrency=1))
    embed_all(numbered(300), by_texts, tokens=30)
    assert max(map(len, by_texts.batches)) == 20


def test_a_text_above_the_batch_limit_goes_alone() -> None:
    fake = FakeEmbedder(limits=models.Limits(batch_tokens=100))
    embed_all(numbered(3), fake, tokens=300)
    assert [len(batch) for batch in fake.batches] == [1, 1, 1]


def test_no_more_than_a_hundred_texts_are_in_flight() -> None:
    fake = FakeEmbedder(parallel=8)
    embed_all(numbered(3000), fake)
    assert fake.peak_texts <= 100
    assert fake.peak > 2


def test_the_first_requests_are_small() -> None:
    fake = FakeEmbedder()
    embed_all(numbered(200), fake, embed.EngineOptions())
    assert [len(batch) for batch in fake.batches[:3]] == [8, 8, 50]


@pytest.mark.parametrize("text", ["", "  \n\t ", "\u3000"])
def test_an_empty_text_is_never_sent(text: str) -> None:
    fake = FakeEmbedder()
    outcome = embed_all([text, "full"], fake)
    assert fake.texts == ["full"]
    assert outcome.rejects[f"k:{text}"].kind == "empty"


def test_a_text_over_the_models_limit_is_never_sent() -> None:
    fake = FakeEmbedder()
    outcome = run(collect(stream([*items(["long"], 511), *items(["fits"], 510)]), fake))
    assert fake.texts == ["fits"]
    assert outcome.rejects["k:long"].kind == "too_long"


def test_no_texts_need_no_request() -> None:
    fake = FakeEmbedder()
    assert not embed_all([], fake).vectors
    assert not fake.batches


def test_an_idle_server_gets_what_there_is() -> None:
    """A source of one text a second must not be waited for until a batch is full."""
    fake = FakeEmbedder()
    outcome = run(collect(stream(items(numbered(10)), every_s=1.0), fake))
    assert [len(batch) for batch in fake.batches] == [1] * 10
    assert outcome.seconds < 10.5


def test_a_source_that_is_a_little_slower_does_not_make_batches_of_one() -> None:
    fake = FakeEmbedder(s_per_token=0.0)
    run(collect(stream(items(numbered(400)), every_s=0.001), fake))
    assert len(fake.batches) <= 400 / 15


def test_the_last_batches_are_shared_out() -> None:
    fake = FakeEmbedder(limits=models.Limits(concurrency=4), parallel=4)
    embed_all(numbered(60), fake)
    assert max(map(len, fake.batches)) == 15


@pytest.mark.parametrize("answer", [zeros, one_zero, not_a_number, short, doubled, half, fault, hang])
@pytest.mark.parametrize("times", [1, 3])
def test_a_passing_fault_costs_nothing_but_time(answer: Answer, times: int) -> None:
    fake = FakeEmbedder(answers=[answer] * times)
    outcome = embed_all(numbered(200), fake)
    assert not outcome.rejects
    assert sum(event.kind == "retry" for event in outcome.events) >= 1


def test_a_wrong_vector_is_never_handed_out_even_if_the_server_never_mends() -> None:
    fake = Unmendable(poison=zeros, sick=True)
    outcome = Outcome()
    with pytest.raises(errors.TransientFault, match="reloaded 3 times") as raised:
        run(collect(stream(items(numbered(200))), fake, outcome=outcome))
    assert (raised.value.exit_code, fake.resets) == (5, 3)
    assert not outcome.vectors
    assert not outcome.rejects


def test_a_poisoned_runner_is_reloaded_and_the_rest_is_embedded() -> None:
    fake = FakeEmbedder(answers=[right, right, sticky_zeros])
    outcome = embed_all(numbered(400), fake)
    assert fake.resets == 1
    assert not outcome.rejects


def test_a_text_that_poisons_the_runner_each_time_is_found() -> None:
    fake = FakeEmbedder(poison=sticky_zeros)
    outcome = embed_all(numbered(300, bad=[137]), fake)
    assert list(outcome.rejects) == ["k:text 137 POISON"]
    assert outcome.rejects["k:text 137 POISON"].kind == "bad_vector"


def test_one_vector_for_all_texts_is_not_believed_although_each_text_alone_would_be() -> None:
    class Constant(Unmendable):
        def _answer(self, answer: Answer | None, texts: list[str]) -> models.Vectors:
            return np.stack([vector("constant")] * len(texts))

    fake = Constant()
    outcome = Outcome()
    with pytest.raises(errors.TransientFault, match="same vector for different texts"):
        run(collect(stream(items(numbered(100))), fake, outcome=outcome))
    assert not outcome.vectors
    assert not outcome.rejects


@pytest.mark.parametrize("position", [0, 1, 31, 32, 40, 63])
def test_a_refused_text_costs_log2_requests_and_no_neighbour(position: int) -> None:
    fake = FakeEmbedder(poison=refuse, limits=models.Limits(concurrency=1))
    outcome = embed_all(numbered(64, bad=[position]), fake)
    assert list(outcome.rejects) == [f"k:text {position} POISON"]
    assert outcome.rejects[f"k:text {position} POISON"].reason == "the model cannot read this"
    assert len(fake.batches) - 1 in (
        7,
        8,
    )  # log2(64) to find it, the rest in one, and itself alone where it was only inferred


@pytest.mark.parametrize(("answer", "kind"), [(refuse, "poison"), (fault, "fault"), (one_zero, "bad_vector")])
def test_several_culprits_in_one_batch_are_all_found(answer: Answer, kind: str) -> None:
    bad = [3, 4, 20, 63]
    outcome = embed_all(numbered(64, bad), FakeEmbedder(poison=answer))
    assert set(outcome.rejects) == {f"k:text {i} POISON" for i in bad}
    assert {reject.kind for reject in outcome.rejects.values()} == {kind}


def test_a_batch_of_nothing_but_culprits_is_rejected_when_the_server_is_well() -> None:
    outcome = embed_all(numbered(5, range(5)), FakeEmbedder(poison=fault))
    assert len(outcome.rejects) == 5


def test_without_a_known_text_a_server_that_never_succeeded_is_not_believed() -> None:
    outcome = Outcome()
    with pytest.raises(errors.TransientFault, match="has not embedded a single text"):
        run(collect(stream(items(numbered(3, range(3)))), FakeEmbedder(poison=fault), outcome=outcome, known=()))
    assert not outcome.rejects


def test_the_first_texts_embedded_serve_as_known_ones() -> None:
    fake = FakeEmbedder(poison=fault)
    outcome = embed_all(numbered(100, bad=[90]), fake, replace(WHOLE, first_texts=8), known=())
    assert list(outcome.rejects) == ["k:text 90 POISON"]


@pytest.mark.parametrize(("answer", "kind"), [(fault, errors.TransientFault), (silence, errors.ServerUnreachable)])
def test_a_dead_server_ends_the_run_and_rejects_nothing(answer: Answer, kind: type[errors.ModelError]) -> None:
    outcome = Outcome()
    fake = FakeEmbedder(answers=[right, right] + [answer] * 10_000)

    async def main() -> float:
        with pytest.raises(kind) as raised:
            await collect(stream(items(numbered(400))), fake, outcome=outcome)
        assert raised.value.exit_code == 5
        assert raised.value.remedy
        return asyncio.get_running_loop().time()

    assert 120 <= run(main()) <= 300
    assert len(outcome.vectors) == 100
    assert not outcome.rejects


def test_a_server_that_comes_back_in_time_loses_nothing() -> None:
    class Rebooting(FakeEmbedder):
        def _answer(self, answer: Answer | None, texts: list[str]) -> models.Vectors:
            away = 5 < asyncio.get_running_loop().time() < 100
            return silence(self, texts) if away else right(self, texts)

    outcome = embed_all(numbered(2000), Rebooting())
    assert not outcome.rejects
    assert outcome.seconds > 100


@pytest.mark.parametrize("kind", [errors.ModelMissing, errors.ModelMismatch, errors.ServerRefused])
def test_what_no_retry_mends_ends_the_run_after_handing_out_what_was_finished(kind: type[errors.ModelError]) -> None:
    def fatal(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
        raise kind("no", "do this")

    outcome = Outcome()
    fake = FakeEmbedder(answers=[*[right] * 4, fatal])
    with pytest.raises(kind, match="do this"):
        run(collect(stream(items(numbered(2000))), fake, outcome=outcome))
    assert len(outcome.vectors) == 200
    assert sum(event.texts for event in outcome.events if event.kind == "finished") == 200


def test_an_error_of_the_source_reaches_the_consumer() -> None:
    async def broken() -> AsyncGenerator[embed.Item]:
        for item in items(numbered(10)):
            yield item
        raise errors.DiskFull("no space left", "Free some.")

    with pytest.raises(errors.DiskFull):
        run(collect(broken(), FakeEmbedder()))


def test_leaving_early_cancels_what_is_in_flight_and_closes_the_source() -> None:
    ended: list[str] = []

    async def endless() -> AsyncGenerator[embed.Item]:
        try:
            for i in range(10**9):
                yield embed.Item(key=str(i), text=f"text {i}", tokens=10)
        finally:
            ended.append("source")

    async def main() -> FakeEmbedder:
        fake = FakeEmbedder(s_per_token=0.01)
        async with contextlib.aclosing(embed.embed_stream(endless(), fake, WHOLE)) as results:
            async for _ in results:
                break
        assert fake.in_flight == 0
        assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
        return fake

    fake = run(main())
    assert ended == ["source"]
    assert fake.cancelled >= 1


def test_a_slow_consumer_holds_up_the_source() -> None:
    read = 0

    async def counted() -> AsyncGenerator[embed.Item]:
        nonlocal read
        for item in items(numbered(20_000)):
            read += 1
            yield item

    async def main() -> None:
        fake = FakeEmbedder(s_per_token=0.0)
        async with contextlib.aclosing(embed.embed_stream(counted(), fake, WHOLE)) as results:
            await anext(results)
            await asyncio.sleep(1000)

    run(main())
    assert read < 4000


def test_cancelling_the_consumer_is_a_cancellation() -> None:
    async def main() -> FakeEmbedder:
        fake = FakeEmbedder(s_per_token=1.0)
        task = asyncio.create_task(collect(stream(items(numbered(500))), fake))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return fake

    fake = run(main())
    assert (fake.in_flight, fake.cancelled) == (0, 2)


@settings(deadline=None, max_examples=60)
@given(
    script=st.lists(
        st.sampled_from([right, fault, silence, zeros, one_zero, short, doubled, half, not_a_number, hang]), max_size=12
    ),
    bad=st.sets(st.integers(0, 79), max_size=6),
    poison=st.sampled_from([refuse, fault, one_zero, short, zeros, sticky_zeros]),
    n=st.integers(1, 80),
    seed=st.integers(0, 99),
)
def test_every_key_ends_as_one_thing_and_only_poison_is_rejected(
    script: list[Answer], bad: set[int], poison: Answer, n: int, seed: int
) -> None:
    failing = [i for i, answer in enumerate(script) if answer is not right]
    allowed = set(failing[:5])  # fewer than max_tries: a text may be unlucky that often and must not be given up
    answers = [answer if i in allowed else right for i, answer in enumerate(script)]
    texts = numbered(n, bad)
    random.Random(seed).shuffle(texts)
    outcome = embed_all(texts, FakeEmbedder(answers=answers, poison=poison))
    assert set(outcome.rejects) == {f"k:{text}" for text in texts if "POISON" in text}


# Who the server is


class Telling(FakeEmbedder):
    """Says what it runs; `faults` come before that, one for each time it is asked."""

    def __init__(self, *faults: errors.ModelError, mends_by_reset: bool = False) -> None:
        super().__init__()
        self.faults = list(faults)
        self.mends_by_reset = mends_by_reset

    async def describe(self) -> models.Description:
        if self.faults and not (self.mends_by_reset and self.resets):
            raise self.faults.pop(0)
        return models.Description(server_version="1.2.3", canary="c")


def test_who_the_server_is_is_asked_through_passing_faults() -> None:
    found = run(embed.describe(Telling(errors.ServerUnreachable("down"), errors.TransientFault("EOF"))))
    assert found == models.Description(server_version="1.2.3", canary="c")
    assert run(embed.describe(FakeEmbedder())) == models.Description()


def test_a_poisoned_server_is_reloaded_before_it_says_who_it_is() -> None:
    telling = Telling(*[errors.BadVectors("zeros")] * 99, mends_by_reset=True)
    assert run(embed.describe(telling)).server_version == "1.2.3"
    assert (telling.resets, len(telling.faults)) == (1, 97)


@pytest.mark.parametrize("kind", [errors.ServerUnreachable, errors.TransientFault, errors.ModelMissing])
def test_a_server_that_does_not_say_who_it_is_ends_the_run(kind: type[errors.ModelError]) -> None:
    with pytest.raises(kind) as caught:
        run(embed.describe(Telling(*[kind("no")] * 999)))
    assert "no" in caught.value.message


# The parts


def gate(found: models.Vectors, texts: Sequence[str] = ("one", "two")) -> str | None:
    return embed_gate.violation(found, texts, DIMS)


def test_the_gate_passes_right_vectors() -> None:
    assert gate(np.stack([vector("one"), vector("two")])) is None


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (np.ones((2, DIMS), np.float64), "not float32"),
        ([[1.0] * DIMS] * 2, "not float32"),
        (np.ones((1, DIMS), np.float32), "shape"),
        (np.ones((2, DIMS + 1), np.float32), "shape"),
        (np.full((2, DIMS), np.nan, np.float32), "NaN or infinity (2 of 2)"),
        (np.full((2, DIMS), np.inf, np.float32), "NaN or infinity"),
        (np.stack([vector("one"), np.zeros(DIMS, np.float32)]), "zeros (1 of 2)"),
        (np.stack([vector("one"), vector("two") * np.float32(1.0021)]), "length 1.0021"),
        (np.stack([vector("one"), vector("one")]), "the same vector for different texts"),
    ],
)
def test_the_gate_names_what_is_wrong(found: models.Vectors, reason: str) -> None:
    assert reason in (gate(found) or "")


@pytest.mark.parametrize(("one", "other"), [("Résumé", "resume"), ("a  b", "a b\n"), ("ÅNGSTRÖM", "angstrom")])
def test_texts_that_an_uncased_model_reads_alike_may_share_a_vector(one: str, other: str) -> None:
    assert gate(np.stack([vector("x"), vector("x")]), (one, other)) is None


def test_vectors_that_differ_late_are_not_the_same() -> None:
    one, other = vector("one"), vector("one").copy()
    other[-1] = -other[-1]
    assert gate(np.stack([one, other])) is None


def climb(rate: Callable[[int], float], requests: int, *, start: int = 2) -> list[int]:
    """Levels after each of `requests` of 100 tokens, on a server that does `rate(level)` tokens per second."""
    climber = embed_control.Climber(start=start, most=8)
    now_s, levels = 0.0, []
    for _ in range(requests):
        now_s += 100 / rate(climber.level)
        climber.finished(100, now_s)
        levels.append(climber.level)
    return levels


def test_concurrency_grows_while_throughput_grows() -> None:
    assert climb(lambda level: 100.0 * min(level, 5), 400)[-1] in (5, 6)
    assert max(climb(lambda level: 100.0 * level, 400)) == 8


def test_concurrency_returns_when_one_more_brings_nothing_and_tries_ever_more_rarely() -> None:
    levels = climb(lambda level: 100.0, 4000)
    assert set(levels) == {2, 3}
    tries = [i for i in range(1, len(levels)) if (levels[i - 1], levels[i]) == (2, 3)]
    assert tries[1] - tries[0] < tries[2] - tries[1]
    assert levels.count(3) < 0.1 * len(levels)


def test_concurrency_halves_once_per_burst_of_failures_and_recovers_without_proof() -> None:
    climber = embed_control.Climber(start=4, most=8)
    for now_s in (0.0, 0.1, 0.2):
        climber.failed(now_s)
    assert climber.level == 2
    climber.failed(6.0)
    climber.failed(12.0)
    assert climber.level == 1
    for i in range(200):
        climber.finished(100, 13.0 + i)
    assert climber.level >= 4


def test_with_several_servers_none_goes_idle_because_one_fails() -> None:
    climber = embed_control.Climber(start=8, most=16, least=4)
    for second in range(0, 100, 10):
        climber.failed(float(second))
    assert climber.level == 4


@pytest.mark.parametrize(
    ("asked", "servers", "expected"),
    [(2, 1, (2, 8, 1, 100)), (8, 4, (8, 16, 4, 400)), (1, 1, (1, 8, 1, 100)), (4, 4, (4, 8, 4, 200))],
)
def test_several_servers_have_their_shares_together(
    asked: int, servers: int, expected: tuple[int, int, int, int]
) -> None:
    options = embed.EngineOptions().within(models.Limits(concurrency=asked, servers=servers))
    found = (options.concurrency, options.max_concurrency, options.servers, options.in_flight_texts)
    assert found == expected


def test_a_slow_source_is_no_reason_to_grow() -> None:
    climber = embed_control.Climber(start=2, most=8)
    for i in range(500):
        climber.disturbed()
        climber.finished(100, float(i))
    assert climber.level == 2


def test_deadlines_are_generous_until_something_was_measured_and_follow_the_measure() -> None:
    deadlines = embed_control.Deadlines(30.0)
    assert deadlines.limit(1000, 0) > 60
    for _ in range(50):
        deadlines.finished(1000, 10.0)
    assert deadlines.limit(2000, 0) == pytest.approx(30 + 4 * 20, rel=0.01)
    assert deadlines.limit(2000, 2) == pytest.approx(4 * deadlines.limit(2000, 0))
    assert deadlines.limit(2000, 50) == 3600


def test_a_request_gets_a_deadline_from_what_is_in_flight() -> None:
    fake = FakeEmbedder(s_per_token=0.01)
    embed_all(numbered(400), fake, tokens=100)
    limits_s = [limit for limit in fake.timeouts_s if limit is not None]
    assert len(limits_s) == len(fake.batches)
    assert limits_s[0] > 60
    assert 30 < limits_s[-1] < 30 + 4 * 2 * 50 * 100 * 0.01


def test_one_who_wants_to_be_alone_is_let_in_first_and_alone() -> None:
    order: list[str] = []

    async def hold(permits: embed_control.Permits, name: str, *, alone: bool = False) -> None:
        async with permits.hold(1, alone=alone):
            order.append(f"+{name}")
            await asyncio.sleep(1)
            order.append(f"-{name}")

    async def main() -> None:
        permits = embed_control.Permits(level=lambda: 2, texts=100)
        async with asyncio.TaskGroup() as group:
            for name in ("a", "b", "c"):
                group.create_task(hold(permits, name))
            await asyncio.sleep(0.5)
            group.create_task(hold(permits, "alone", alone=True))

    run(main())
    assert order == ["+a", "+b", "-a", "-b", "+alone", "-alone", "+c", "-c"]


def test_stats_count_what_the_events_say() -> None:
    stats = embed.Stats()
    for second in range(20):
        stats.add(embed.Event(kind="started", texts=10, tokens=100, seconds=0, at_s=float(second)))
        stats.add(embed.Event(kind="finished", texts=10, tokens=100, seconds=1, at_s=second + 1.0))
    stats.add(embed.Event(kind="started", texts=10, tokens=100, seconds=0, at_s=20.0))
    stats.add(embed.Event(kind="retry", texts=10, tokens=100, seconds=1, at_s=20.0, reason="EOF"))
    stats.add(embed.Event(kind="rejected", texts=1, tokens=10, seconds=0, at_s=20.0, reason="EOF"))
    stats.add(embed.Event(kind="reset", texts=0, tokens=0, seconds=0, at_s=20.0))
    assert (stats.requests, stats.in_flight, stats.texts, stats.tokens) == (21, 0, 200, 2000)
    assert (stats.retries, stats.rejected, stats.resets) == (1, 1, 1)
    assert stats.tokens_per_s(20.0) == pytest.approx(100)
    assert stats.tokens_per_s(25.0) == pytest.approx(50)
    assert stats.average(40.0) == pytest.approx(50)


def timed(*finished: tuple[float, int], server: str = "a") -> embed.Stats:
    """Stats of requests from 0 s on that finished at these times, with so many tokens each."""
    stats = embed.Stats()
    for at_s, tokens in finished:
        stats.add(embed.Event(kind="started", texts=1, tokens=tokens, seconds=0, at_s=0.0))
        stats.add(embed.Event(kind="finished", texts=1, tokens=tokens, seconds=1, at_s=at_s, server=server))
    return stats


def test_the_time_left_is_that_of_the_tokens_at_the_rate_of_the_last_minute() -> None:
    steady = timed(*((float(second), 100) for second in range(1, 121)))
    assert steady.left_s(1000, 120.0) == pytest.approx(10.0)
    slower = timed(*((float(second), 100) for second in range(1, 61)), *((60.0 + 2 * n, 100) for n in range(1, 31)))
    assert slower.left_s(1000, 120.0) == pytest.approx(20.0, rel=0.05)


def test_the_time_left_does_not_count_the_wait_for_the_model() -> None:
    """The first answer came after a load of 30 s; the next ones a second apart."""
    loaded = timed((30.0, 100), (31.0, 100), (32.0, 100))
    assert loaded.left_s(1000, 32.0) == pytest.approx(10.0)
    assert timed((30.0, 100)).left_s(1000, 30.0) == pytest.approx(300.0), "there is nothing better to go by"


def test_no_time_is_promised_where_nothing_comes() -> None:
    assert embed.Stats().left_s(1000, 5.0) is None
    stalled = timed((1.0, 100), (2.0, 100))
    assert stalled.left_s(1000, 30.0) == pytest.approx(290.0), "it grows while nothing comes"
    assert stalled.left_s(1000, 63.0) is None


def test_servers_in_use_are_those_that_answered_within_a_minute() -> None:
    stats = timed((1.0, 100), (50.0, 100))
    stats.add(embed.Event(kind="finished", texts=1, tokens=9, seconds=1, at_s=20.0, server="b"))
    assert (stats.servers_in_use(60.0), stats.servers_in_use(100.0), len(stats.servers)) == (2, 1, 2)


def test_the_memory_of_rates_is_bounded() -> None:
    stats = timed(*((n / 1000, 1) for n in range(1, 200_000)))
    assert stats.tokens_per_s(200.0) == pytest.approx(1000, rel=0.05)
    assert len(stats._recent) <= 60 / 0.25 + 1


def test_the_totals_of_a_run_with_faults_are_those_of_its_texts() -> None:
    fake = FakeEmbedder(poison=sticky_zeros, answers=[fault, right, zeros])
    engine = embed.Engine(fake, WHOLE, canaries=CANARIES, dice=random.Random(1))

    async def main() -> None:
        async with contextlib.aclosing(engine.run(stream(items(numbered(200, bad=[60]))))) as results:
            async for _ in results:
                pass

    run(main())
    assert (engine.stats.texts, engine.stats.tokens, engine.stats.rejected) == (199, 1990, 1)
    assert engine.stats.in_flight == 0
    assert engine.stats.resets == fake.resets >= 2


def test_a_batcher_gives_nothing_away_and_loses_nothing() -> None:
    async def main() -> list[list[str]]:
        batcher = embed_batches.Batcher(texts=4, tokens=100, linger_s=0.02, room=2)
        taken: list[list[str]] = []

        async def fill() -> None:
            for item in items(numbered(30), tokens=30):
                await batcher.put(item)
            batcher.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(fill())
            while batch := await batcher.take(texts=4, share=1):
                taken.append([item.text for item in batch])
                await asyncio.sleep(1)
        return taken

    taken = run(main())
    assert [text for batch in taken for text in batch] == numbered(30)
    assert {len(batch) for batch in taken} == {3}
