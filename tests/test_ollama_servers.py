"""Several Ollama servers: who gets the next request, what a server that dies or is poisoned costs (nothing), and which
one is refused. Real processes behind real sockets; the clock is moved, not waited for."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config, errors, models
from pipeline.models import builtin, canary, ollama, ollama_pool, openai, resolve, resolve_openai, tokens
from pipeline.models.ollama_client import Server
from pipeline.models.ollama_pool import FAILURES, LONGEST_PAUSE_S, PAUSE_S, Breaker
from pipeline.models.resolve import Choice
from pipeline.stages import embed
from tests.fake_ollama import vectors
from tests.fake_ollama.client import FakeOllama
from tests.moving_clock import later, run

DIGEST = "468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8"
SPEC = models.EmbedderSpec(
    provider="ollama",
    model="mxbai-embed-large",
    digest=DIGEST,
    dims=1024,
    limit=510,
    tokenizer=tokens.builtin().identity,
)
OPTIONS = embed.EngineOptions(backoff_base_s=0.01, backoff_max_s=0.05, patience_s=20.0, batch_texts=4, linger_s=0.001)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[FakeOllama, FakeOllama]]:
    with FakeOllama(vectors="hash") as first, FakeOllama(vectors="hash") as second:
        yield first, second


@pytest.fixture
def pair(both: tuple[FakeOllama, FakeOllama]) -> tuple[FakeOllama, FakeOllama]:
    for one in both:
        one.reset()
        one.configure(version="0.32.15", vectors="hash", cost_us_per_token=0)
    return both


@contextlib.asynccontextmanager
async def connected(
    *fakes: FakeOllama, absent: Sequence[FakeOllama] = (), eager: bool = True
) -> AsyncGenerator[ollama.OllamaEmbedder]:
    embedder = ollama.OllamaEmbedder(
        [Server(one.url) for one in fakes],
        SPEC,
        absent=[Server(one.url) for one in absent],
        counting=ollama.Counting(exact=True, wordpiece=True),
        eager=eager,
    )
    async with contextlib.aclosing(embedder):
        yield embedder


async def one(embedder: ollama.OllamaEmbedder, text: str = "the harbour gate") -> str:
    """The server that embedded `text`, rightly."""
    reply = await embedder.embed([text], tokens=tokens.builtin().count([text])[0])
    np.testing.assert_allclose(reply.vectors[0], vectors.hash_vector(text, 1024), atol=1e-6)
    return reply.server


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await what():  # noqa: ASYNC110 - another process is waited for
            await asyncio.sleep(0.01)


async def engine(
    embedder: models.Embedder,
    texts: Sequence[str],
    on_event: Callable[[embed.Event], None] = embed.ignore,
    *,
    bad: Sequence[str] = (),
) -> None:
    """All texts through the engine: each gets its right vector, none is rejected but the bad ones."""

    async def items() -> AsyncGenerator[embed.Item]:
        for text, n in zip(texts, tokens.builtin().count(texts), strict=True):
            yield embed.Item(key=text, text=text, tokens=n)

    found: dict[str, np.ndarray] = {}
    known = embed.canaries(tokens.builtin())
    dice = random.Random(1)
    async with contextlib.aclosing(
        embed.embed_stream(items(), embedder, OPTIONS, canaries=known, dice=dice, on_event=on_event)
    ) as results:
        async for result in results:
            if isinstance(result, embed.Rejected):
                assert result.key in bad, result
                continue
            found.update(zip(result.keys, result.vectors, strict=True))
    assert found.keys() == set(texts) - set(bad)
    for text, vector in found.items():
        np.testing.assert_allclose(vector, vectors.hash_vector(text, 1024), atol=1e-6)


def numbered(n: int) -> list[str]:
    return [f"passage number {i} of the tests with several servers" for i in range(n)]


# --- the breaker, by a clock of numbers


def test_a_breaker_opens_after_failures_in_a_row_and_only_then() -> None:
    breaker = Breaker()
    for _ in range(3):
        for _ in range(FAILURES - 1):
            breaker.failed(0.0)
        assert breaker.state(0.0) == "closed"
        breaker.succeeded()
    for _ in range(FAILURES):
        breaker.failed(10.0)
    assert breaker.state(10.0) == breaker.state(10.0 + 0.99 * PAUSE_S) == "open"
    assert breaker.state(10.0 + PAUSE_S) == "half-open"
    breaker.close()
    assert breaker.state(10.0) == "closed"


def test_pauses_double_until_a_request_succeeds() -> None:
    breaker, now_s, pauses = Breaker(), 0.0, []
    for _ in range(8):
        breaker.reopen(now_s)
        began_s = now_s
        while breaker.state(now_s) == "open":
            now_s += 0.25
        pauses.append(now_s - began_s)
        breaker.close()  # it passes each check, and fails again
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    breaker.succeeded()
    breaker.trip(0.0)
    assert breaker.state(PAUSE_S) == "half-open"


def test_a_burst_of_failures_is_one_reason() -> None:
    breaker = Breaker()
    for _ in range(10 * FAILURES):
        breaker.failed(0.0)
    assert breaker.state(PAUSE_S) == "half-open"


@given(st.lists(st.sampled_from(["failed", "trip", "reopen", "close", "succeeded"]), max_size=60))
def test_no_breaker_stays_open_longer_than_the_longest_pause(steps: list[str]) -> None:
    breaker = Breaker()
    for now_s, step in enumerate(steps):
        method = getattr(breaker, step)
        method(now_s) if step in ("failed", "trip", "reopen") else method()
        assert breaker.state(now_s + LONGEST_PAUSE_S) != "open"
        if step in ("close", "succeeded"):
            assert breaker.state(now_s) == "closed"
            assert breaker.failures == 0


# --- who is next


def test_work_goes_where_the_fewest_tokens_are_in_flight(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair
    first.set_fault("slow", count=1, seconds=0.6)

    async def main() -> list[str]:
        async with connected(*pair) as embedder:
            slow = asyncio.create_task(one(embedder, "a long text " * 40))
            await asyncio.sleep(0)
            others = [await one(embedder, f"short {i}") for i in range(5)]
            assert not slow.done()
            return [await slow, *others]

    assert run(main()) == [first.url] + [second.url] * 5


def test_a_server_that_refuses_everything_at_once_does_not_attract_the_work(
    pair: tuple[FakeOllama, FakeOllama],
) -> None:
    """It has never anything in flight: without the breaker all of 400 texts would be sent there first."""
    first, second = pair
    first.set_fault("http500")
    second.configure(cost_us_per_token=100)

    async def main() -> None:
        async with connected(*pair) as embedder:
            await engine(embedder, numbered(400))

    run(main())
    assert len(second.texts()) > 390
    assert 1 <= len(first.requests()) <= FAILURES + 3  # and what the checks ask


def test_a_server_that_is_full_of_errors_is_taken_back_when_it_is_well(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair
    first.set_fault("http500", count=FAILURES)

    async def main() -> None:
        async with connected(*pair) as embedder:
            for _ in range(FAILURES):
                await asyncio.gather(one(embedder), one(embedder), return_exceptions=True)
            assert set(await asyncio.gather(one(embedder), one(embedder))) == {second.url}
            later(PAUSE_S)
            await until(lambda: _both(embedder, pair))

    run(main())


async def _both(embedder: ollama.OllamaEmbedder, pair: tuple[FakeOllama, FakeOllama]) -> bool:
    return set(await asyncio.gather(one(embedder), one(embedder))) == {fake.url for fake in pair}


async def _is(found: Awaitable[str], wanted: str) -> bool:
    return await found == wanted


# --- a server that dies


def test_a_server_killed_and_restarted_in_mid_run_loses_nothing_and_is_taken_back() -> None:
    with (
        FakeOllama(vectors="hash", cost_us_per_token=120) as first,
        FakeOllama(vectors="hash", cost_us_per_token=120) as second,
    ):

        async def main() -> list[str]:
            served: list[str] = []

            async def mortal() -> None:
                await until(lambda: asyncio.to_thread(lambda: len(second.texts()) > 40))
                await asyncio.to_thread(second.kill)
                before = len(await asyncio.to_thread(first.texts))
                await until(lambda: asyncio.to_thread(lambda: len(first.texts()) > before + 40))
                await asyncio.to_thread(second.start)
                later(LONGEST_PAUSE_S)

            async with connected(first, second) as embedder:
                async with asyncio.TaskGroup() as group:
                    group.create_task(mortal())
                    await engine(embedder, numbered(2000), lambda event: served.append(event.kind))
                await until(lambda: _is(one(embedder), second.url))  # taken back; a slow machine may have been done
            return served

        kinds = run(main())
        assert "rejected" not in kinds
        assert "retry" in kinds
        assert second.texts()[0] == canary.TEXT  # it had to show who it is (a process started anew counts from 0)


def test_all_servers_down_is_told_as_such() -> None:
    with FakeOllama() as first, FakeOllama() as second:
        first.stop()
        second.stop()

        async def main() -> None:
            async with connected(first, second) as embedder:
                for _ in range(4):
                    with pytest.raises(errors.ServerUnreachable, match="does not answer") as caught:
                        await one(embedder)
                assert "ollama serve" in caught.value.remedy

        run(main())


def test_the_first_of_the_dead_that_is_back_gets_the_work(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, _ = pair
    with FakeOllama(vectors="hash") as second:
        second.stop()

        async def main() -> None:
            async with connected(second) as embedder:
                with pytest.raises(errors.ServerUnreachable):
                    await one(embedder)
                await asyncio.to_thread(second.start)
                assert await one(embedder) == second.url  # no pause is waited for where there is nobody else

        run(main())
    assert first.texts() == []


def test_a_server_that_comes_back_with_other_weights_is_refused(
    pair: tuple[FakeOllama, FakeOllama], caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = pair
    with FakeOllama(vectors="hash") as second:
        changed = FakeOllama(vectors="hash", models=["mxbai-embed-large=abc"], port=second.port)

        async def main() -> None:
            async with connected(first, second) as embedder:
                second.stop()
                for _ in range(2):
                    with contextlib.suppress(errors.ServerUnreachable):
                        await one(embedder)
                await asyncio.to_thread(changed.start)
                later(PAUSE_S)
                await until(lambda: _said(caplog, "takes no part", embedder))
                assert {await one(embedder) for _ in range(4)} == {first.url}
                await asyncio.to_thread(first.stop)
                with pytest.raises(errors.ServerUnreachable):
                    await one(embedder)

        try:
            run(main())
        finally:
            changed.stop()
            first.start()
    assert "ollama pull mxbai-embed-large" in caplog.text
    assert changed.url in caplog.text


async def _said(caplog: pytest.LogCaptureFixture, what: str, embedder: ollama.OllamaEmbedder) -> bool:
    await one(embedder)
    return what in caplog.text


def test_the_only_server_with_other_weights_ends_the_run(pair: tuple[FakeOllama, FakeOllama]) -> None:
    with FakeOllama(vectors="hash") as only:
        changed = FakeOllama(vectors="hash", models=["mxbai-embed-large=abc"], port=only.port)

        async def main() -> None:
            async with connected(only) as embedder:
                only.stop()
                with pytest.raises(errors.ServerUnreachable):
                    await one(embedder)
                await asyncio.to_thread(changed.start)
                for _ in range(2):
                    with pytest.raises(errors.ModelMismatch, match="has another mxbai-embed-large") as caught:
                        await one(embedder)
                assert caught.value.exit_code == 12

        try:
            run(main())
        finally:
            changed.stop()


def test_a_model_removed_from_one_server_does_not_end_the_run(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair
    second.set_fault("missing_model", count=1)

    async def main() -> None:
        async with connected(*pair) as embedder:
            await engine(embedder, numbered(60))

    run(main())

    async def alone() -> None:
        first.set_fault("missing_model")
        async with connected(first) as embedder:
            with pytest.raises(errors.ModelMissing):
                await one(embedder)

    run(alone())


def test_a_404_of_one_server_ends_no_run_while_the_other_is_being_restarted(
    pair: tuple[FakeOllama, FakeOllama],
) -> None:
    first, _ = pair
    with FakeOllama(vectors="hash") as mortal:

        async def main() -> None:
            async with connected(first, mortal, eager=False) as embedder:
                await asyncio.gather(one(embedder), one(embedder))
                await asyncio.to_thread(mortal.kill)
                await asyncio.gather(one(embedder), one(embedder), return_exceptions=True)
                first.set_fault("missing_model", count=1)
                with pytest.raises(errors.TransientFault, match="not found"):
                    await one(embedder)
                assert await one(embedder) == first.url  # its check found the model there

        run(main())


def test_a_model_that_all_servers_lack_ends_the_run_with_what_to_type() -> None:
    with FakeOllama(models=["llama3.2"]) as first, FakeOllama(models=["llama3.2"]) as second:

        async def main() -> None:
            async with connected(first, second) as embedder:
                with pytest.raises(errors.ModelMissing) as caught:
                    await engine(embedder, numbered(20))
                assert "ollama pull mxbai-embed-large" in caught.value.remedy

        run(main())


# --- one server for one caller


def test_a_server_that_is_kept_gets_nothing_else(pair: tuple[FakeOllama, FakeOllama]) -> None:
    async def main() -> None:
        async with connected(*pair) as embedder:
            async with embedder.alone() as kept:
                mine = (await kept.embed(["mine"], tokens=1)).server
                (other,) = {fake.url for fake in pair} - {mine}
                assert set(await asyncio.gather(*(one(embedder) for _ in range(10)))) == {other}
                assert (embedder.spare, embedder.taken) == (True, False)
                assert (await kept.embed(["mine too"], tokens=2)).server == mine
            assert set(await asyncio.gather(*(one(embedder) for _ in range(4)))) == {mine, other}

    run(main())


def test_whoever_wants_a_server_alone_waits_for_what_is_in_flight_there(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, _ = pair
    first.configure(cost_us_per_token=20_000)

    async def main() -> None:
        async with connected(first) as embedder:
            request = asyncio.create_task(one(embedder))
            while not first.requests():  # noqa: ASYNC110 - another process is waited for
                await asyncio.sleep(0.01)
            async with embedder.alone():
                assert request.done()
                assert (embedder.spare, embedder.taken) == (False, True)
                waiting = asyncio.create_task(one(embedder))
                _, still = await asyncio.wait({waiting}, timeout=0.1)
                assert still
            assert await waiting == first.url

    run(main())


def test_whoever_gives_up_waiting_for_a_server_keeps_none(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, _ = pair
    first.configure(cost_us_per_token=50_000)

    async def main() -> None:
        async with connected(first) as embedder:
            request = asyncio.create_task(one(embedder))
            await asyncio.sleep(0.05)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05), embedder.alone():
                    raise AssertionError("the request is still in flight")
            assert await request == first.url
            assert await one(embedder) == first.url

    run(main())


def test_a_kept_server_is_reloaded_alone(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair

    async def main() -> None:
        async with connected(*pair) as embedder:
            await embedder.agree()
            async with embedder.alone() as kept:
                server = (await kept.embed(["mine"], tokens=1)).server
                assert isinstance(kept, embed.Resettable)
                await kept.reset()
            loads = {fake.url: fake.counters()["loads"] for fake in (first, second)}
            assert loads.pop(server) == 2
            assert list(loads.values()) == [1]

    run(main())


def test_the_search_for_a_culprit_keeps_one_server_and_not_the_other(pair: tuple[FakeOllama, FakeOllama]) -> None:
    texts = numbered(400)
    texts[2] += " POISON"
    events: list[embed.Event] = []
    for fake in pair:
        fake.set_fault("poison")
        fake.configure(cost_us_per_token=200)

    async def main() -> None:
        async with connected(*pair) as embedder:
            await embedder.agree()
            await engine(embedder, texts, events.append, bad=[texts[2]])

    run(main())
    (rejected,) = [i for i, event in enumerate(events) if event.kind == "rejected"]
    failed = [i for i, event in enumerate(events) if event.kind == "retry"]
    searched = events[failed[1] : rejected]  # after the second failure of the batch
    by_server = {fake.url: sum(event.server == fake.url for event in searched) for fake in pair}
    assert min(by_server.values()) <= 4  # the halves without it; what was in flight
    assert max(by_server.values()) >= 5


def test_a_culprit_is_looked_for_on_another_server_when_the_first_dies(pair: tuple[FakeOllama, FakeOllama]) -> None:
    texts = numbered(100)
    texts[50] += " POISON"
    first, _ = pair
    with FakeOllama(vectors="hash") as mortal:
        for fake in (first, mortal):
            fake.set_fault("poison")

        async def main() -> None:
            async with connected(first, mortal) as embedder:
                await embedder.agree()

                def kill(event: embed.Event) -> None:
                    if event.kind == "retry" and mortal.url in event.reason:
                        mortal.kill()

                await engine(embedder, texts, kill, bad=[texts[50]])

        run(main())


# --- the opening


def test_a_server_that_hangs_at_the_start_is_named_within_a_minute(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, _ = pair
    first.set_fault("hang")

    async def main() -> None:
        async with connected(first) as embedder:
            asked = asyncio.create_task(embed.describe(embedder))
            await until(lambda: asyncio.to_thread(lambda: bool(first.requests())))
            assert not asked.done()
            later(ollama.LOAD_TIMEOUT_S)
            with pytest.raises(errors.TransientFault, match="has not embedded one sentence in 60 s") as caught:
                await asked
            assert caught.value.exit_code == 5
            assert "ollama.load_timeout_s" in caught.value.remedy

    run(main())
    assert len(first.requests()) == 1


def test_a_model_that_takes_long_to_load_is_waited_for(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, _ = pair
    first.set_fault("slow_load", seconds=0.5)

    async def main() -> models.Description:
        async with connected(first) as embedder:
            return await embed.describe(embedder)

    assert run(main()).server_version == "0.32.15"


# --- a server that is poisoned


async def poisoned(embedder: ollama.OllamaEmbedder, fake: FakeOllama) -> None:
    """The next request to `fake` brings zeros, as do all that follow."""
    found = await asyncio.gather(one(embedder), one(embedder), return_exceptions=True)
    (error,) = [error for error in found if isinstance(error, errors.BadVectors)]
    assert fake.url in error.message


def test_a_poisoned_server_is_mended_while_the_other_works(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair
    second.set_fault("zeros", count=1, sticky=True, match="number 37 ")

    async def main() -> list[embed.Event]:
        seen: list[embed.Event] = []
        async with connected(*pair) as embedder:
            await embedder.agree()
            await engine(embedder, numbered(300), seen.append)
        return seen

    for one_of in pair:
        one_of.configure(cost_us_per_token=20)
    seen = run(main())
    assert not [event for event in seen if event.kind == "rejected"]
    assert first.counters()["loads"] == 1  # it was well, and was left alone
    poisoned = bool(second.faults()[0]["fired"])
    assert second.counters()["loads"] == 1 + poisoned


def test_a_suspect_is_left_alone_until_its_own_canary_comes_out_right(
    pair: tuple[FakeOllama, FakeOllama], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair

    async def main() -> None:
        async with connected(*pair) as embedder:
            await embedder.agree()
            second.set_fault("zeros", count=1, sticky=True)
            await poisoned(embedder, second)
            assert second.counters()["loads"] == 1
            assert await one(embedder) == first.url
            await until(lambda: _is(one(embedder), second.url))

    run(main())
    assert second.counters()["loads"] == 2
    assert first.counters()["loads"] == 1
    assert f"Ollama at {second.url}" in caplog.text
    assert second.texts().count(canary.TEXT) == 3  # at the start, poisoned, and mended


def test_a_reset_concerns_the_server_that_sent_wrong_vectors(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair

    async def main() -> None:
        async with connected(*pair, eager=False) as embedder:
            await embedder.agree()
            second.set_fault("zeros", count=1, sticky=True)
            await poisoned(embedder, second)
            await embedder.reset()
            assert {await one(embedder) for _ in range(4)} <= {first.url, second.url}

    run(main())
    assert (first.counters()["loads"], second.counters()["loads"]) == (1, 2)


def test_a_reset_passes_over_a_server_that_is_dead(pair: tuple[FakeOllama, FakeOllama]) -> None:
    poisoned_, _ = pair
    poisoned_.set_fault("zeros", count=1, sticky=True, match="bad")
    with FakeOllama(vectors="hash") as dead:

        async def main() -> None:
            async with connected(dead, poisoned_, eager=False) as embedder:
                dead.set_fault("http500", count=1)
                with pytest.raises(errors.TransientFault):
                    await one(embedder)
                await asyncio.to_thread(dead.kill)
                with pytest.raises(errors.BadVectors):
                    await one(embedder, "bad")
                found = await asyncio.gather(*(one(embedder) for _ in range(2)), return_exceptions=True)
                assert all(isinstance(error, errors.BadVectors | errors.ServerUnreachable) for error in found)
                with contextlib.suppress(errors.ServerUnreachable, errors.BadVectors):
                    await one(embedder)
                await embedder.reset()
                assert await one(embedder) == poisoned_.url

        run(main())


def test_a_runner_that_stays_poisoned_stays_out(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair

    async def main() -> None:
        async with connected(*pair) as embedder:
            await embedder.agree()
            second.set_fault("zeros")
            await engine(embedder, numbered(100))

    run(main())
    assert not first.faults()
    assert len(first.texts()) > 96


def test_one_wrong_answer_on_every_server_stops_nobody(pair: tuple[FakeOllama, FakeOllama]) -> None:
    async def main() -> None:
        async with connected(*pair) as embedder:
            await embedder.agree()
            for one_of in pair:
                one_of.set_fault("zeros", count=1)
            await engine(embedder, numbered(100))

    run(main())


@pytest.mark.parametrize("fault", ["zeros", "nan", "poison"])
def test_a_text_that_brings_down_every_runner_costs_itself_alone(
    pair: tuple[FakeOllama, FakeOllama], fault: str
) -> None:
    texts = numbered(80)
    texts[33] += " POISON"

    async def main() -> None:
        async with connected(*pair) as embedder:
            await embedder.agree()
            for one_of in pair:
                one_of.set_fault(fault, match="POISON", sticky=True)
            await engine(embedder, texts, bad=[texts[33]])

    run(main())


def test_faults_at_random_on_one_of_two_servers_cost_nothing(pair: tuple[FakeOllama, FakeOllama]) -> None:
    for kind in ("eof", "zeros", "reset", "truncated_json", "busy503", "error_object", "wrong_dim", "load_error"):
        pair[1].set_fault(kind, rate=0.05)
    pair[1].set_fault("zeros", rate=0.02, sticky=True)

    async def main() -> None:
        async with connected(*pair) as embedder:
            await engine(embedder, numbered(400))

    run(main())


@pytest.mark.parametrize("servers", [1, 2])
def test_a_tag_that_is_pulled_again_under_a_run_ends_it(pair: tuple[FakeOllama, FakeOllama], servers: int) -> None:
    async def main() -> None:
        async with connected(*pair[:servers]) as embedder:
            for _ in range(servers):
                await one(embedder)
            pair[0].set_fault("digest_change")
            await one(embedder)
            later(ollama.PLAIN_EVERY_S)
            with pytest.raises(errors.ModelMismatch, match=f"{pair[0].url} has another mxbai-embed-large"):
                await asyncio.gather(*(one(embedder) for _ in range(servers)))

    run(main())


# --- who may take part


def settings(*hosts: FakeOllama | str, **embed_: str) -> config.Settings:
    urls = tuple(host if isinstance(host, str) else host.url for host in hosts)
    given_ = {"provider": "ollama", **embed_}
    return config.Settings(
        embed=config.EmbedSettings(**given_),  # type: ignore[arg-type]
        ollama=config.OllamaSettings(hosts=urls),
    )


def opened(
    given_: config.Settings,
    recorded: models.EmbedderSpec | None = None,
    work: Callable[[Choice], Awaitable[None]] | None = None,
    *,
    bulk: bool = True,
) -> Choice:
    async def main() -> Choice:
        choice = await resolve.open_embedder(given_, recorded, bulk=bulk)
        async with contextlib.aclosing(choice.embedder):
            if work is not None:
                await work(choice)
        return choice

    return run(main())


@pytest.mark.parametrize("recorded", [None, SPEC])
def test_servers_with_another_digest_are_refused(
    pair: tuple[FakeOllama, FakeOllama], recorded: models.EmbedderSpec | None
) -> None:
    first, _ = pair
    with (
        FakeOllama(vectors="hash", models=["mxbai-embed-large=abc"]) as other,
        pytest.raises(errors.ModelMismatch, match=other.url) as caught,
    ):
        opened(settings(first, other), recorded)
    assert caught.value.exit_code == 12
    assert "ollama pull mxbai-embed-large" in caught.value.remedy
    assert first.texts() == []


@pytest.mark.parametrize("recorded", [None, SPEC])
def test_servers_with_another_canary_are_refused(
    pair: tuple[FakeOllama, FakeOllama], recorded: models.EmbedderSpec | None
) -> None:
    first, second = pair
    second.configure(vectors="words")
    with pytest.raises(errors.ModelMismatch, match=r"cosine -?0\.[0-8]") as caught:
        opened(settings(first, second), recorded)
    assert caught.value.exit_code == 12
    assert second.url in caught.value.message
    assert first.url in caught.value.message
    assert f"OLLAMA_HOST={second.url} ollama pull mxbai-embed-large" in caught.value.remedy


def test_a_server_that_lacks_the_model_is_named(pair: tuple[FakeOllama, FakeOllama]) -> None:
    with FakeOllama(models=["llama3.2"]) as empty, pytest.raises(errors.ModelMissing, match=empty.url):
        opened(settings(pair[0], empty))


def test_a_server_that_is_late_takes_part_after_the_same_check(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, _ = pair
    with FakeOllama(vectors="hash") as late:
        late.stop()

        async def work(choice: Choice) -> None:
            assert f"Ollama at {late.url} does not answer" in choice.note
            assert "takes part as soon as it does" in choice.note
            assert isinstance(choice.embedder, ollama.OllamaEmbedder)
            assert choice.embedder.limits.concurrency == 4
            assert await one(choice.embedder) == first.url
            await asyncio.to_thread(late.start)
            later(LONGEST_PAUSE_S)
            await until(lambda: _is(one(choice.embedder), late.url))  # type: ignore[arg-type]

        opened(settings(late, first), SPEC, work)
        assert late.texts()[0] == canary.TEXT


def test_a_late_server_with_another_canary_takes_no_part(
    pair: tuple[FakeOllama, FakeOllama], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    second.configure(vectors="words")

    async def main() -> None:
        async with connected(first, absent=[second]) as embedder:
            await embedder.describe()
            await until(lambda: _said(caplog, "takes no part", embedder))
            assert {await one(embedder) for _ in range(4)} == {first.url}

    run(main())
    assert set(second.texts()) == {canary.TEXT}


def test_a_server_poisoned_at_the_start_is_mended(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair
    second.set_fault("zeros", count=1, sticky=True)

    async def work(choice: Choice) -> None:
        assert isinstance(choice.embedder, ollama.OllamaEmbedder)
        await until(lambda: _is(one(choice.embedder), second.url))  # type: ignore[arg-type]

    opened(settings(first, second), SPEC, work)
    assert second.counters()["loads"] == 2


def test_a_question_asks_one_server_and_the_others_when_it_fails(pair: tuple[FakeOllama, FakeOllama]) -> None:
    _, second = pair
    with FakeOllama(vectors="hash") as mortal:

        async def work(choice: Choice) -> None:
            assert isinstance(choice.embedder, ollama.OllamaEmbedder)
            for _ in range(3):
                assert await one(choice.embedder) == mortal.url
            assert second.texts() == []
            await asyncio.to_thread(mortal.kill)
            with pytest.raises(errors.ModelError):
                await one(choice.embedder)
            assert await one(choice.embedder) == second.url

        opened(settings(mortal, second), SPEC, work, bulk=False)


# --- provenance


def test_ollama_says_who_it_is(pair: tuple[FakeOllama, FakeOllama]) -> None:
    first, second = pair
    second.configure(version="0.9.0")

    async def main() -> tuple[models.Description, models.Description]:
        async with connected(first) as alone, connected(first, second) as two:
            assert isinstance(alone, models.Described)
            return await alone.describe(), await two.describe()

    alone, two = run(main())
    assert (alone.server_version, two.server_version) == ("0.32.15", "0.32.15, 0.9.0")
    assert alone.canary == two.canary
    found = canary.decode(alone.canary)
    assert canary.cosine(found, vectors.hash_vector(canary.TEXT, 1024)) > 1 - 1e-6
    assert len(alone.canary) < 2800


def test_the_embedded_model_and_openai_servers_say_who_they_are(pair: tuple[FakeOllama, FakeOllama]) -> None:
    async def main() -> tuple[models.Description, models.Description]:
        inside = builtin.BuiltinEmbedder(builtin.spec(tokens.builtin().identity))
        async with contextlib.aclosing(inside):
            mine = await inside.describe()
        given_ = config.Settings(openai=config.OpenAISettings(url=pair[0].url, model="mxbai-embed-large:latest"))
        choice = await resolve_openai.create(given_, {})
        async with contextlib.aclosing(choice.embedder) as other:
            assert isinstance(other, openai.OpenAIEmbedder)
            return mine, await other.describe()

    mine, other = run(main())
    assert mine.server_version.startswith("onnxruntime 1.")
    assert canary.decode(mine.canary).shape == (384,)
    assert other.server_version == ""
    canary.check_canary(canary.encode(vectors.hash_vector(canary.TEXT, 1024)), other.canary)


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 64, 1024]))
def test_noise_of_another_device_is_not_another_model(seed: int, dims: int) -> None:
    dice = np.random.default_rng(seed)
    vector = dice.normal(size=dims).astype(np.float32)
    vector /= np.linalg.norm(vector)
    noisy = vector + dice.normal(size=dims).astype(np.float32) * 1e-3 / np.sqrt(dims)
    canary.check_canary(canary.encode(vector), canary.encode(noisy))
    assert canary.cosine(vector, canary.decode(canary.encode(vector))) > 1 - 1e-6


@pytest.mark.parametrize("other", [vectors.hash_vector("another", 1024), vectors.hash_vector(canary.TEXT, 512)])
def test_another_models_canary_is_refused_with_what_to_type(other: np.ndarray) -> None:
    recorded = canary.encode(vectors.hash_vector(canary.TEXT, 1024))
    with pytest.raises(errors.ModelMismatch, match="cosine") as caught:
        canary.check_canary(recorded, canary.encode(other))
    assert "pipeline --collection NEW run DOCS" in caught.value.remedy
    assert caught.value.exit_code == 12


def test_what_was_never_recorded_refuses_nothing() -> None:
    canary.check_canary("", canary.encode(vectors.hash_vector("x", 8)))


@pytest.mark.parametrize("recorded", ["?", "AAA", "AAAA", "AA==", "AH4AfgB+"])  # no base64, half a number, zeros, NaN
def test_a_damaged_canary_is_told_as_damage(recorded: str) -> None:
    with pytest.raises(errors.CorruptStore):
        canary.check_canary(recorded, canary.encode(vectors.hash_vector("x", 8)))


# --- two programs that fight over a model


def test_a_model_that_is_loaded_again_and_again_is_warned_of_once(
    pair: tuple[FakeOllama, FakeOllama], caplog: pytest.LogCaptureFixture
) -> None:
    """Another program asks for the model with another window between our requests, each of which loads it anew."""
    first, _ = pair
    other = {"model": "mxbai-embed-large", "input": "theirs", "options": {"num_ctx": 256}}

    async def main() -> None:
        async with connected(first) as embedder:
            await one(embedder)
            later(ollama.PLAIN_EVERY_S)
            for i in range(4):
                await asyncio.to_thread(first.post, "/api/embed", other)
                await one(embedder, f"ours {i}")

    run(main())
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    for name in ("OLLAMA_KEEP_ALIVE", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_MAX_LOADED_MODELS", first.url):
        assert name in warnings[0]


def test_one_load_and_one_look_every_while_warn_of_nothing(
    pair: tuple[FakeOllama, FakeOllama], caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = pair

    async def main() -> None:
        async with connected(first) as embedder:
            for i in range(3):
                await asyncio.gather(*(one(embedder, f"text {i} {j}") for j in range(4)))
            later(ollama.PLAIN_EVERY_S)
            await asyncio.to_thread(
                first.post, "/api/generate", {"model": "mxbai-embed-large", "keep_alive": 0}
            )  # somebody unloads it, once
            await asyncio.gather(*(one(embedder, f"after {j}") for j in range(4)))
            for i in range(3):
                await one(embedder, f"again {i}")

    run(main())
    assert first.counters()["loads"] == 2
    assert not caplog.records
    endpoints = [entry.endpoint for entry in first.requests()]
    assert endpoints[-1] == "/v1/embeddings"  # it looked, and went back


def test_bugs_in_a_check_are_raised_and_not_lost() -> None:
    async def broken(lane: ollama_pool.Lane) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        servers = [Server("http://127.0.0.1:1"), Server("http://127.0.0.1:2")]
        lanes = [ollama_pool.Lane(servers[0]), ollama_pool.Lane(servers[1], away=True)]
        pool = ollama_pool.Pool(lanes, broken)
        assert await pool.take() is lanes[0]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(ZeroDivisionError):
            await pool.take()
        await pool.aclose()
        for server in servers:
            await server.aclose()

    run(main())


def test_a_cut_model_is_described_by_the_cut_vector(pair: tuple[FakeOllama, FakeOllama]) -> None:
    spec = replace(SPEC, dims=128, native_dims=1024)

    async def main() -> models.Description:
        embedder = ollama.OllamaEmbedder([Server(pair[0].url)], spec, counting=ollama.Counting(exact=False))
        async with contextlib.aclosing(embedder):
            return await embedder.describe()

    assert canary.decode(run(main()).canary).shape == (128,)
