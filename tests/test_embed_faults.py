"""The embed engine through real sockets: after each failure that Ollama is known for, each text has its right vector.

The vectors are computed here a second time (`tests.fake_ollama.vectors`), so that one which belongs to another text is
seen. Every fault that the fake can play, and where it is played (`test_each_fault_has_its_test` compares):

| fault | tests |
|---|---|
| eof, refused, terminated | test_embed_faults: test_a_fault_that_passes_rejects_nothing |
| poison | test_embed_faults: test_a_poison_text_is_found_and_costs_no_neighbour |
| error_object | test_embed_faults: test_a_fault_that_passes_rejects_nothing |
| http500, busy503, garbage | test_embed_faults: test_a_fault_that_passes_rejects_nothing |
| missing_model | test_embed_faults: test_a_missing_model_ends_the_run_at_once |
| missing_model | test_ollama_servers: test_a_404_of_one_server_ends_no_run_while_the_other_is_being_restarted |
| zeros | test_embed_faults: test_a_poisoned_runner_is_reloaded_and_everything_embedded |
| zeros | test_embed_faults: test_a_runner_that_stays_poisoned_ends_the_run_with_what_to_do |
| nan | test_embed_faults: test_a_text_that_makes_nan_is_rejected_as_such |
| wrong_dim, short, duplicate | test_embed_faults: test_a_fault_that_passes_rejects_nothing |
| wrong_dim, short, duplicate | test_ollama: test_a_vector_that_cannot_be_right_is_never_returned |
| swapped (cannot be seen) | test_ollama_errors: test_a_server_that_is_too_old_is_refused |
| wrong_count | test_embed_faults: test_one_wrong_count_costs_nothing |
| wrong_count | test_embed_faults: test_a_count_that_drifts_ends_the_run_with_an_explanation |
| hang | test_embed_faults: test_a_server_that_hangs_is_left_at_the_deadline |
| hang | test_ollama_servers: test_a_server_that_hangs_at_the_start_is_named_within_a_minute |
| slow | test_embed_faults: test_a_slow_answer_is_waited_for |
| slow_load | test_embed_faults: test_a_slow_load_is_waited_for |
| load_error | test_embed_faults: test_a_fault_that_passes_rejects_nothing |
| reset, disconnect, truncated_json | test_embed_faults: test_a_fault_that_passes_rejects_nothing |
| digest_change | test_ollama_servers: test_a_tag_that_is_pulled_again_under_a_run_ends_it |
| digest_change | test_run: test_another_digest_under_the_same_tag_is_refused |
| chat_error, chat_cut | test_ollama: test_an_answer_that_fails_on_the_way |
| chat_stall | test_fake_ollama: test_chat_faults |
| pull_error | test_ollama: test_a_pull_that_fails_says_why |
| killed, started again | test_embed_faults: test_a_server_that_is_killed_and_started_again_loses_nothing |
| a silent cut | test_ollama: test_what_is_cut_in_silence_shows_in_the_count_and_is_refused |
| another canary vector | test_ollama_servers: test_servers_with_another_canary_are_refused |
| another program's options | test_ollama_servers: test_a_model_that_is_loaded_again_and_again_is_warned_of_once |
| an update under the run | test_ollama: test_an_update_of_the_server_between_two_batches_is_no_drift |
| a model that runs elsewhere | test_resolve: test_a_model_that_runs_elsewhere_is_refused |
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import errors, models
from pipeline.models import ollama, tokens
from pipeline.models.ollama_client import Server
from pipeline.stages import embed
from tests.fake_ollama import faults, vectors
from tests.fake_ollama.client import FakeOllama

DIMS = 1024
VERSIONS = ("0.3.12", "0.9.0", "0.13.3", "0.32.15")
DEATHS = ("eof", "refused", "terminated")
CUTS = ("reset", "disconnect", "truncated_json")
WRONG_VECTORS = ("zeros", "nan", "wrong_dim", "short", "duplicate")
OPTIONS = embed.EngineOptions(backoff_base_s=0.001, backoff_max_s=0.01, patience_s=5.0)
SPEC = models.EmbedderSpec(
    provider="ollama", model="mxbai-embed-large", digest="", dims=DIMS, limit=510, tokenizer=tokens.builtin().identity
)
Results = tuple[dict[str, np.ndarray], dict[str, embed.Rejected]]


@pytest.fixture
def fake(shared: FakeOllama) -> FakeOllama:
    shared.reset()
    shared.configure(version="0.32.15", cost_us_per_token=0.0)
    return shared


def numbered(n: int, bad: Iterable[int] = ()) -> list[str]:
    return [f"passage number {i} of the fault tests" + (" POISON" if i in set(bad) else "") for i in range(n)]


async def stream(texts: Sequence[str]) -> AsyncGenerator[embed.Item]:
    for text, n in zip(texts, tokens.builtin().count(texts), strict=True):
        yield embed.Item(key=text, text=text, tokens=n)


def connect(*fakes: FakeOllama) -> ollama.OllamaEmbedder:
    servers = [Server(fake.url, connect_timeout_s=0.5) for fake in fakes]
    return ollama.OllamaEmbedder(servers, SPEC, counting=ollama.Counting(exact=True, wordpiece=True))


async def collect(
    embedder: ollama.OllamaEmbedder, items: AsyncGenerator[embed.Item], options: embed.EngineOptions = OPTIONS
) -> Results:
    found: dict[str, np.ndarray] = {}
    rejects: dict[str, embed.Rejected] = {}
    known = embed.canaries(tokens.builtin())
    results = embed.embed_stream(items, embedder, options, canaries=known, dice=random.Random(1))
    async with contextlib.aclosing(results):
        async for result in results:
            if isinstance(result, embed.Rejected):
                assert result.key not in rejects
                rejects[result.key] = result
            else:
                assert not found.keys() & set(result.keys)
                found.update(zip(result.keys, result.vectors, strict=True))
    return found, rejects


def check(texts: Sequence[str], results: Results) -> dict[str, embed.Rejected]:
    found, rejects = results
    assert found.keys() | rejects.keys() == set(texts)
    assert not found.keys() & rejects.keys()
    for text, vector in found.items():
        np.testing.assert_allclose(vector, vectors.hash_vector(text, DIMS), atol=1e-6)
    return rejects


def embed_all(
    fake: FakeOllama, texts: Sequence[str], options: embed.EngineOptions = OPTIONS
) -> dict[str, embed.Rejected]:
    async def main() -> Results:
        async with contextlib.aclosing(connect(fake)) as embedder:
            return await collect(embedder, stream(texts), options)

    return check(texts, asyncio.run(main()))


def fired(fake: FakeOllama) -> int:
    return sum(int(fault["fired"]) for fault in fake.faults())


@pytest.mark.parametrize("version", VERSIONS)
def test_without_faults_each_text_is_sent_once(fake: FakeOllama, version: str) -> None:
    fake.configure(version=version)
    texts = numbered(300)
    assert not embed_all(fake, texts)
    assert sorted(fake.texts()) == sorted(texts)
    assert max(request.texts for request in fake.requests()) <= 50


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "kind",
    [*DEATHS, "error_object", "http500", "busy503", "garbage", *CUTS, *WRONG_VECTORS, "load_error"],
)
def test_a_fault_that_passes_rejects_nothing(fake: FakeOllama, version: str, kind: str) -> None:
    fake.configure(version=version)
    fake.set_fault(kind, count=2, after=0 if kind == "load_error" else 1)
    texts = numbered(120)
    assert not embed_all(fake, texts)
    assert fired(fake) == 2
    assert set(fake.texts()) >= set(texts)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_poison_text_is_found_and_costs_no_neighbour(fake: FakeOllama, version: str) -> None:
    fake.configure(version=version)
    fake.set_fault("poison")
    texts = numbered(120, bad=[5, 77, 78])
    rejects = embed_all(fake, texts)
    assert set(rejects) == {text for text in texts if "POISON" in text}
    assert {reject.kind for reject in rejects.values()} == {"fault"}
    assert all("answered" in reject.reason for reject in rejects.values())


@pytest.mark.parametrize("version", VERSIONS)
def test_a_text_that_makes_nan_is_rejected_as_such(fake: FakeOllama, version: str) -> None:
    """0.32 sends zeros with status 200, 0.9 and 0.13 an error that names NaN, 0.3.12 an error that names nothing."""
    fake.configure(version=version)
    fake.set_fault("nan", match="POISON")
    rejects = embed_all(fake, numbered(100, bad=[42]))
    assert [reject.kind for reject in rejects.values()] == ["fault" if version == "0.3.12" else "bad_vector"]


def test_a_text_over_the_limit_is_found_when_the_count_was_wrong(fake: FakeOllama) -> None:
    """The engine is told 510 tokens where the server counts 600: /api/embed refuses the text for that."""
    fake.configure(version="0.9.0")  # has no base64, so all goes to /api/embed, which may refuse
    texts, long = numbered(60), "word " * 600

    async def miscounted() -> AsyncGenerator[embed.Item]:
        async for item in stream(texts):
            yield item
        yield embed.Item(key=long, text=long, tokens=510)

    async def main() -> Results:
        async with contextlib.aclosing(connect(fake)) as embedder:
            return await collect(embedder, miscounted())

    rejects = check([*texts, long], asyncio.run(main()))
    assert [(key, reject.kind) for key, reject in rejects.items()] == [(long, "too_long")]


def test_a_poisoned_runner_is_reloaded_and_everything_embedded(fake: FakeOllama) -> None:
    fake.set_fault("zeros", sticky=True, count=1, after=1)
    assert not embed_all(fake, numbered(200))
    assert fake.counters()["loads"] == 2


def test_a_text_that_poisons_the_runner_is_found(fake: FakeOllama) -> None:
    fake.set_fault("zeros", sticky=True, match="POISON")
    rejects = embed_all(fake, numbered(150, bad=[99]))
    assert [(reject.key[-6:], reject.kind) for reject in rejects.values()] == [("POISON", "bad_vector")]
    assert fake.counters()["loads"] > 2


def test_a_runner_that_stays_poisoned_ends_the_run_with_what_to_do(fake: FakeOllama) -> None:
    fake.set_fault("zeros")

    with pytest.raises(errors.TransientFault, match="reloaded 3 times") as raised:
        embed_all(fake, numbered(50))
    assert raised.value.exit_code == 5
    assert "Restart" in raised.value.remedy


def test_a_server_that_hangs_is_left_at_the_deadline(fake: FakeOllama) -> None:
    fake.set_fault("hang", count=2, after=3)
    assert not embed_all(fake, numbered(200), replace(OPTIONS, shortest_deadline_s=0.3))
    assert fired(fake) == 2


def test_a_slow_load_is_waited_for(fake: FakeOllama) -> None:
    fake.set_fault("slow_load", seconds=0.5, count=1)
    began = time.monotonic()
    assert not embed_all(fake, numbered(50))
    assert time.monotonic() - began > 0.5


def test_a_missing_model_ends_the_run_at_once(fake: FakeOllama) -> None:
    fake.set_fault("missing_model", after=2)
    with pytest.raises(errors.ModelMissing, match="mxbai") as raised:
        embed_all(fake, numbered(300))
    assert "ollama pull" in raised.value.remedy


def test_a_count_that_drifts_ends_the_run_with_an_explanation(fake: FakeOllama) -> None:
    fake.set_fault("wrong_count", after=2)
    with pytest.raises(errors.ModelMismatch, match="counted"):
        embed_all(fake, numbered(300))


@pytest.mark.parametrize("version", VERSIONS)
def test_one_wrong_count_costs_nothing(fake: FakeOllama, version: str) -> None:
    fake.configure(version=version)
    fake.set_fault("wrong_count", count=1, after=1)
    assert not embed_all(fake, numbered(200))
    assert fired(fake) == 1


def test_a_slow_answer_is_waited_for(fake: FakeOllama) -> None:
    fake.set_fault("slow", seconds=0.3, count=2, after=2)
    assert not embed_all(fake, numbered(100))
    assert sorted(fake.texts()) == sorted(numbered(100))  # none was sent twice


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("other", ["busy503", "reset", "disconnect", "garbage"])
def test_a_reject_says_what_the_text_does_and_not_what_happened_besides(
    fake: FakeOllama, version: str, other: str
) -> None:
    """Every third request meets another fault, which is none of the text's."""
    fake.configure(version=version)
    fake.set_fault("poison")
    fake.set_fault(other, rate=0.33)
    rejects = embed_all(fake, numbered(60, bad=[33]))
    (reason,) = [reject.reason for reject in rejects.values()]
    said = "without a reason" if version == "0.3.12" else "EOF"  # {"error":{}} then
    assert said in reason


def test_each_fault_has_its_test() -> None:
    assert __doc__ is not None
    rows = [line.strip("| ").split(" | ") for line in __doc__.splitlines() if "| test_" in line]
    named = {word for first, _ in rows for word in first.replace(",", " ").split()}
    assert named >= set(faults.SCOPES)
    for _, where in rows:
        module, name = where.split(": ")
        text = (Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        assert f"def {name}(" in text, where


def test_a_server_that_only_fails_rejects_nothing(fake: FakeOllama) -> None:
    fake.set_fault("eof", after=2)
    with pytest.raises(errors.TransientFault, match="kept failing") as raised:
        embed_all(fake, numbered(300), replace(OPTIONS, patience_s=0.5))
    assert raised.value.exit_code == 5


def test_a_server_that_dies_is_waited_for_and_then_named() -> None:
    options = replace(OPTIONS, patience_s=0.5)

    async def main(mortal: FakeOllama) -> None:
        async with contextlib.aclosing(connect(mortal)) as embedder:
            await embedder.embed(["warm"], tokens=1)
            mortal.kill()
            await collect(embedder, stream(numbered(100)), options)

    with (
        FakeOllama(vectors="hash") as mortal,
        pytest.raises(errors.ServerUnreachable, match="does not answer") as raised,
    ):
        asyncio.run(main(mortal))
    assert "ollama serve" in raised.value.remedy


def test_a_server_that_is_killed_and_started_again_loses_nothing() -> None:
    texts = numbered(1500)
    found: dict[str, np.ndarray] = {}

    async def main(mortal: FakeOllama) -> None:
        async with contextlib.aclosing(connect(mortal)) as embedder:
            async for result in embed.embed_stream(stream(texts), embedder, replace(OPTIONS, patience_s=20.0)):
                assert isinstance(result, embed.Embedded)
                before = len(found)
                found.update(zip(result.keys, result.vectors, strict=True))
                if before < 300 <= len(found):
                    mortal.restart()

    with FakeOllama(vectors="hash", cost_us_per_token=50) as mortal:
        asyncio.run(main(mortal))
    assert not check(texts, (found, {}))


def test_all_faults_at_random_together(fake: FakeOllama) -> None:
    """Each at 2 % of the requests, with texts that no server can embed among the others."""
    fake.set_fault("poison")
    for kind in (*DEATHS, "http500", "busy503", "garbage", *CUTS, *WRONG_VECTORS, "load_error"):
        fake.set_fault(kind, rate=0.02)
    texts = numbered(3000, bad=range(100, 3000, 400))
    rejects = embed_all(fake, texts)
    assert set(rejects) == {text for text in texts if "POISON" in text}
    assert fired(fake) > 20


def test_leaving_early_cancels_the_requests_in_the_server(fake: FakeOllama) -> None:
    fake.configure(cost_us_per_token=1000)

    async def main() -> None:
        embedder = connect(fake)
        results = embed.embed_stream(stream(numbered(500)), embedder, OPTIONS)
        async with contextlib.aclosing(embedder), contextlib.aclosing(results):
            await anext(results)

    asyncio.run(main())
    deadline = time.monotonic() + 5
    while any(request.status is None for request in fake.requests()) and time.monotonic() < deadline:
        pass
    first, *others = fake.requests()
    assert not first.cancelled
    assert [request.cancelled for request in others] == [True] * len(others)
    assert others


def test_two_requests_are_in_flight_while_more_bring_nothing(fake: FakeOllama) -> None:
    fake.configure(cost_us_per_token=100)
    embed_all(fake, numbered(2000))
    assert 2 <= fake.counters()["peak_in_flight"] < 8  # one more is tried now and then, others by a noisy measure
