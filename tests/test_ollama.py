"""The Ollama client against a fake Ollama behind a real socket, in four of its eras."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from pipeline import errors
from pipeline.models import (
    EmbedderSpec,
    EmbedReply,
    Message,
    Piece,
    ollama,
    ollama_chat,
    resolve_ollama,
    tokens,
    vectors,
)
from pipeline.models.ollama_client import Server
from tests.fake_ollama import vectors as fake_vectors
from tests.fake_ollama.client import FakeOllama

VERSIONS = ("0.3.12", "0.9.0", "0.13.3", "0.32.15")
OLD, TODAY = VERSIONS[0], VERSIONS[-1]
DIGEST = "468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8"
SPEC = EmbedderSpec(
    provider="ollama",
    model="mxbai-embed-large",
    digest=DIGEST,
    dims=1024,
    limit=510,
    tokenizer=tokens.builtin().identity,
)
EXACT = ollama.Counting(exact=True, wordpiece=True)
TEXTS = ["the harbour gate opens at seven", "ships wait for the pilot", "港口七点开门"]
T = TypeVar("T")


@pytest.fixture
def fake(shared: FakeOllama) -> FakeOllama:
    shared.reset()
    shared.configure(version=TODAY, vectors="hash", cost_us_per_token=0)
    return shared


@pytest.fixture(params=VERSIONS)
def era(request: pytest.FixtureRequest, fake: FakeOllama) -> FakeOllama:
    """The fake, as each version."""
    fake.configure(version=request.param)
    return fake


def count(texts: Sequence[str]) -> int:
    return sum(tokens.builtin().count(texts))


def with_server(url: str, work: Callable[[Server], Awaitable[T]]) -> T:
    async def main() -> T:
        async with contextlib.aclosing(Server(url)) as server:
            return await work(server)

    return asyncio.run(main())


def with_embedder(
    fakes: FakeOllama | Sequence[FakeOllama],
    work: Callable[[ollama.OllamaEmbedder], Awaitable[T]],
    *,
    spec: EmbedderSpec = SPEC,
    counting: ollama.Counting = EXACT,
) -> T:
    async def main() -> T:
        servers = [Server(one.url) for one in ([fakes] if isinstance(fakes, FakeOllama) else fakes)]
        async with contextlib.aclosing(ollama.OllamaEmbedder(servers, spec, counting=counting)) as embedder:
            return await work(embedder)

    return asyncio.run(main())


def embed(
    fake: FakeOllama, texts: Sequence[str], *, warm: bool = False, timeout_s: float | None = 10.0, **options: object
) -> EmbedReply:
    """One batch. `warm`: the server has answered before, so that it comes as base64 where the version has that."""

    async def work(embedder: ollama.OllamaEmbedder) -> EmbedReply:
        if warm:
            await embedder.embed(["warm"], tokens=count(["warm"]))
        return await embedder.embed(texts, tokens=count(texts), timeout_s=timeout_s)

    return with_embedder(fake, work, **options)  # type: ignore[arg-type]


def expected(texts: Sequence[str], dims: int = 1024) -> np.ndarray:
    return np.stack([fake_vectors.hash_vector(text, dims) for text in texts])


# --- the server's endpoints


def test_the_server_tells_version_models_and_shape(era: FakeOllama) -> None:
    async def work(server: Server) -> None:
        version = await server.version()
        assert version.supported
        tags = {tag.name: tag for tag in await server.tags()}
        assert tags["mxbai-embed-large:latest"].digest == DIGEST
        assert tags["mxbai-embed-large:latest"].remote_host == ""
        show = await server.show("mxbai-embed-large")
        assert (show.number("embedding_length"), show.number("context_length")) == (1024, 512)
        assert show.number("nothing_of_the_kind") == 0
        assert len((await server.show("mxbai-embed-large", verbose=True)).model_info["tokenizer.ggml.tokens"]) == 30522

    with_server(era.url, work)


def test_the_version_is_asked_once_and_again_on_request(fake: FakeOllama) -> None:
    async def work(server: Server) -> list[str]:
        first = await server.version()
        await asyncio.to_thread(fake.configure, version="0.9.0")
        return [version.text for version in (first, await server.version(), await server.version(fresh=True))]

    assert with_server(fake.url, work) == [TODAY, TODAY, "0.9.0"]


def test_load_and_unload_show_in_memory(era: FakeOllama) -> None:
    async def work(server: Server) -> None:
        assert await server.ps() == []
        await server.load("mxbai-embed-large", keep_alive="10m")
        (loaded,) = await server.ps()
        assert loaded.name == "mxbai-embed-large:latest"
        assert loaded.size_vram == loaded.size > 0
        await server.unload("mxbai-embed-large")
        assert await server.ps() == []

    with_server(era.url, work)
    assert era.texts() == []


def test_a_model_is_pulled_with_progress(fake: FakeOllama) -> None:
    async def work(server: Server) -> tuple[list[str], int]:
        steps = [step async for step in server.pull("bge-m3")]
        assert "bge-m3:latest" in {tag.name for tag in await server.tags()}
        return [step.status for step in steps], max(step.total for step in steps)

    statuses, total = with_server(fake.url, work)
    assert statuses[-1] == "success"
    assert total > 0


def test_a_pull_that_fails_says_why(fake: FakeOllama) -> None:
    fake.set_fault("pull_error")

    async def work(server: Server) -> None:
        async for _ in server.pull("bge-m3"):
            pass

    with pytest.raises(errors.ModelError, match="cannot pull bge-m3"):
        with_server(fake.url, work)


# --- vectors


@pytest.mark.parametrize("warm", [False, True])
def test_vectors_are_the_servers_in_order(era: FakeOllama, warm: bool) -> None:
    reply = embed(era, TEXTS, warm=warm)
    assert reply.vectors.dtype == np.float32
    np.testing.assert_allclose(reply.vectors, expected(TEXTS), atol=1e-6)
    assert reply.server == era.url
    specials = 2 if era.get("/api/version")["version"] in ("0.13.3", TODAY) else 0
    assert reply.prompt_tokens == count(TEXTS) + specials * len(TEXTS)


def test_what_is_sent(era: FakeOllama) -> None:
    embed(era, TEXTS, warm=True)
    first, second = era.requests()
    assert first.endpoint == "/api/embed"
    assert first.fields == {"model": "mxbai-embed-large", "truncate": False, "keep_alive": "30m"}
    if era.get("/api/version")["version"] in ("0.13.3", TODAY):
        assert second.endpoint == "/v1/embeddings"
        assert second.fields == {"model": "mxbai-embed-large", "encoding_format": "base64"}
    else:
        assert second.fields == first.fields
    assert era.texts() == ["warm", *TEXTS]
    assert era.counters()["loads"] == 1  # two ways to ask, one window: the model is not loaded anew


def test_both_ways_give_the_same_vectors(fake: FakeOllama) -> None:
    plain, base64 = embed(fake, TEXTS).vectors, embed(fake, TEXTS, warm=True).vectors
    assert {entry.endpoint for entry in fake.requests()} == {"/api/embed", "/v1/embeddings"}
    assert np.einsum("ij,ij->i", plain, base64).min() > 0.9999


def test_one_connection_serves_many_requests(fake: FakeOllama) -> None:
    async def work(embedder: ollama.OllamaEmbedder) -> None:
        for text in TEXTS:
            await embedder.embed([text], tokens=count([text]))

    fake.reset()
    before = fake.counters()["connections"]
    with_embedder(fake, work)
    assert fake.counters()["connections"] - before <= 2  # the client's, and the one that asks here


def test_numbers_where_base64_was_asked_for_are_taken_and_base64_is_not_asked_again(fake: FakeOllama) -> None:
    """A proxy or a fork may call itself a newer version than it is."""

    async def work(embedder: ollama.OllamaEmbedder) -> list[EmbedReply]:
        await embedder.embed(["warm"], tokens=count(["warm"]))
        await asyncio.to_thread(fake.configure, version="0.9.0")  # ignores encoding_format, as 0.9.0 does
        return [await embedder.embed(TEXTS, tokens=count(TEXTS)) for _ in range(2)]

    for reply in with_embedder(fake, work):
        np.testing.assert_allclose(reply.vectors, expected(TEXTS), atol=1e-6)
    assert [entry.endpoint for entry in fake.requests()] == ["/api/embed", "/v1/embeddings", "/api/embed"]


@pytest.mark.parametrize(("exact", "counted"), [(False, True), (True, False)])
def test_without_exact_counts_nothing_goes_where_it_could_be_cut(fake: FakeOllama, exact: bool, counted: bool) -> None:
    async def work(embedder: ollama.OllamaEmbedder) -> None:
        for _ in range(2):
            await embedder.embed(TEXTS, tokens=count(TEXTS) + 40 if counted else 0)

    with_embedder(fake, work, counting=ollama.Counting(exact=exact))
    assert [entry.endpoint for entry in fake.requests()] == ["/api/embed"] * 2


def test_a_matryoshka_cut_is_the_front_at_unit_length(era: FakeOllama) -> None:
    reply = embed(era, TEXTS, spec=replace(SPEC, dims=128, native_dims=1024))
    front = expected(TEXTS)[:, :128]
    np.testing.assert_allclose(reply.vectors, front / np.linalg.norm(front, axis=1, keepdims=True), atol=1e-6)
    assert vectors.cut(reply.vectors, 128) is reply.vectors


def test_texts_that_read_alike_may_share_a_vector(fake: FakeOllama) -> None:
    fake.configure(vectors="words")
    reply = embed(fake, ["Oslo harbour", "oslo  harbour"])
    np.testing.assert_array_equal(*reply.vectors)


# --- faults


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("zeros", "all zeros"),
        ("nan", "zeros|NaN|without a reason"),
        ("short", "2 vectors for 3 texts"),
        ("wrong_dim", "512 dimensions where 1024"),
        ("duplicate", "same vector"),
    ],
)
@pytest.mark.parametrize("warm", [False, True])
def test_a_vector_that_cannot_be_right_is_never_returned(era: FakeOllama, fault: str, said: str, warm: bool) -> None:
    era.set_fault(fault, after=int(warm))
    with pytest.raises(errors.TransientFault, match=said):
        embed(era, TEXTS, warm=warm)


@pytest.mark.parametrize(
    "fault", ["eof", "refused", "terminated", "error_object", "http500", "busy503", "garbage", "load_error"]
)
def test_an_answer_that_another_try_may_mend(era: FakeOllama, fault: str) -> None:
    era.set_fault(fault, count=1)
    with pytest.raises(errors.TransientFault):
        embed(era, TEXTS)
    assert len(embed(era, TEXTS).vectors) == 3


@pytest.mark.parametrize("fault", ["reset", "disconnect", "truncated_json"])
def test_an_answer_that_breaks_off(era: FakeOllama, fault: str) -> None:
    era.set_fault(fault, count=1)
    with pytest.raises(errors.TransientFault, match=r"cut|cannot be read"):
        embed(era, TEXTS)
    assert len(embed(era, TEXTS).vectors) == 3


def test_a_stuck_runner_meets_the_deadline_and_the_request_is_given_up(fake: FakeOllama) -> None:
    fake.set_fault("hang", count=1)
    with pytest.raises(errors.TransientFault, match=r"no answer within 0\.3 s"):
        embed(fake, TEXTS, timeout_s=0.3)
    assert fake.requests()[0].cancelled


def test_a_text_that_is_too_long_is_refused_and_not_cut(era: FakeOllama) -> None:
    with pytest.raises(errors.TextRejected) as caught:
        embed(era, ["short", "gate " * 600])
    assert caught.value.kind == "too_long"


def test_what_is_cut_in_silence_shows_in_the_count_and_is_refused(fake: FakeOllama) -> None:
    """/v1/embeddings truncates and only the counts tell; /api/embed then says whose fault it is."""
    with pytest.raises(errors.TextRejected) as caught:
        embed(fake, ["fine", "gate " * 600], warm=True)
    assert caught.value.kind == "too_long"
    assert [entry.endpoint for entry in fake.requests()] == ["/api/embed", "/v1/embeddings", "/api/embed"]


@pytest.mark.parametrize("warm", [False, True])
def test_a_count_that_drifts_stops_the_run_when_it_is_seen_again(era: FakeOllama, warm: bool) -> None:
    async def work(embedder: ollama.OllamaEmbedder) -> errors.ModelMismatch:
        if warm:
            await embedder.embed(["warm"], tokens=1)
        era.set_fault("wrong_count")
        with pytest.raises(errors.TransientFault, match=r"where (17|23) are expected"):
            await embedder.embed(TEXTS, tokens=count(TEXTS))
        with pytest.raises(errors.ModelMismatch, match="tokenizer") as caught:
            await embedder.embed(TEXTS, tokens=count(TEXTS))
        return caught.value

    found = with_embedder(era, work)
    assert "doctor" in found.remedy
    assert found.exit_code == 12


def test_a_server_that_counts_wrongly_again_and_again_is_not_asked_for_ever(fake: FakeOllama) -> None:
    async def work(embedder: ollama.OllamaEmbedder) -> None:
        fake.set_fault("wrong_count")
        for i in range(2):
            with pytest.raises(errors.TransientFault):
                await embedder.embed([f"text {i}"], tokens=2)
        with pytest.raises(errors.ModelMismatch):
            await embedder.embed(["text 2"], tokens=2)

    with_embedder(fake, work)


def test_one_wrong_count_is_a_fault_like_others(era: FakeOllama) -> None:
    async def work(embedder: ollama.OllamaEmbedder) -> None:
        for _ in range(3):
            era.set_fault("wrong_count", count=1)
            with contextlib.suppress(errors.TransientFault):  # none where /api/embed was asked at once after base64
                await embedder.embed(TEXTS, tokens=count(TEXTS))
            assert len((await embedder.embed(TEXTS, tokens=count(TEXTS))).vectors) == len(TEXTS)

    with_embedder(era, work)
    assert [fault["fired"] for fault in era.faults()] == [1, 1, 1]


def test_an_update_of_the_server_between_two_batches_is_no_drift(fake: FakeOllama) -> None:
    fake.configure(version="0.9.0")

    async def work(embedder: ollama.OllamaEmbedder) -> list[int | None]:
        first = await embedder.embed(TEXTS, tokens=count(TEXTS))
        await asyncio.to_thread(fake.configure, version=TODAY)
        second = await embedder.embed(TEXTS, tokens=count(TEXTS))
        return [first.prompt_tokens, second.prompt_tokens]

    n = count(TEXTS)
    assert with_embedder(fake, work) == [n, n + 6]


def test_specials_of_an_unknown_tokenizer_are_learned_once_and_must_then_hold(fake: FakeOllama) -> None:
    async def work(embedder: ollama.OllamaEmbedder) -> None:
        await embedder.embed(TEXTS, tokens=count(TEXTS))
        for kind in (errors.TransientFault, errors.ModelMismatch):
            with pytest.raises(kind):
                await embedder.embed(TEXTS, tokens=count(TEXTS) + 1)

    with_embedder(fake, work, counting=ollama.Counting(exact=True))


def test_a_long_word_is_no_drift(fake: FakeOllama) -> None:
    """Words above 100 characters are counted in pieces here, and as one [UNK] by the reference, as the fake does."""
    texts = ["token " + "qZ9" * 60, "another"]
    assert count(texts) > 5
    assert len(embed(fake, texts, counting=resolve_ollama.counting(SPEC.tokenizer)).vectors) == 2


def test_a_missing_model_is_told_with_the_command(era: FakeOllama) -> None:
    with pytest.raises(errors.ModelMissing) as caught:
        embed(era, TEXTS, spec=replace(SPEC, model="bge-m3"))
    assert "ollama pull bge-m3" in caught.value.remedy


def test_an_empty_text_is_refused_before_it_is_sent(fake: FakeOllama) -> None:
    with pytest.raises(errors.TextRejected) as caught:
        embed(fake, ["fine", ""])
    assert caught.value.kind == "empty"
    assert fake.texts() == []


def test_half_a_surrogate_pair_is_one_texts_fault(fake: FakeOllama) -> None:
    with pytest.raises(errors.TextRejected) as caught:
        with_embedder(fake, lambda embedder: embedder.embed(["fine", "broken \ud83d"], tokens=0))
    assert caught.value.kind == "not_unicode"


def test_no_server_is_told_with_what_to_start() -> None:
    with socket.socket() as unused:  # bound and not listening: nobody else can take the port
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(errors.ServerUnreachable, match=url) as caught:
            with_server(url, lambda server: server.version())
    assert "ollama serve" in caught.value.remedy


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "http://\x00"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(errors.ModelError):
        with_server(url, lambda server: server.version())


def test_a_proxy_never_captures_loopback(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nothing answers
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert with_server(fake.url, lambda server: server.version()).text == TODAY


def test_a_poisoned_runner_is_mended_by_a_reset(fake: FakeOllama) -> None:
    fake.set_fault("zeros", count=1, sticky=True)

    async def work(embedder: ollama.OllamaEmbedder) -> EmbedReply:
        for _ in range(2):
            with pytest.raises(errors.BadVectors):
                await embedder.embed(TEXTS, tokens=count(TEXTS))
        await embedder.reset()
        return await embedder.embed(TEXTS, tokens=count(TEXTS))

    np.testing.assert_allclose(with_embedder(fake, work).vectors, expected(TEXTS), atol=1e-6)
    assert fake.counters()["loads"] == 2


def test_several_servers_share_the_work(fake: FakeOllama) -> None:
    batches = [[f"text {i} {j}" for j in range(4)] for i in range(8)]

    async def work(embedder: ollama.OllamaEmbedder) -> list[EmbedReply]:
        return await asyncio.gather(*(embedder.embed(texts, tokens=count(texts)) for texts in batches))

    with FakeOllama(vectors="hash") as second:
        replies = with_embedder([fake, second], work)
        assert {reply.server for reply in replies} == {fake.url, second.url}
        assert len(fake.texts()) == len(second.texts()) == 16
    for texts, reply in zip(batches, replies, strict=True):
        np.testing.assert_allclose(reply.vectors, expected(texts), atol=1e-6)


def test_a_server_that_died_is_left_alone_while_another_works(fake: FakeOllama) -> None:
    async def work(embedder: ollama.OllamaEmbedder) -> list[str]:
        with pytest.raises(errors.ServerUnreachable):
            await embedder.embed(["first"], tokens=count(["first"]))
        return [(await embedder.embed([text], tokens=count([text]))).server for text in TEXTS]

    with FakeOllama() as dead:
        dead.stop()
        assert with_embedder([dead, fake], work) == [fake.url] * len(TEXTS)


# --- answers

QUESTION = [Message(role="user", content="[1] The harbour gate opens at seven.\nWhen does the harbour gate open?")]


def answer(url: str, *, max_tokens: int = 100, num_ctx: int = 8192, messages: list[Message] = QUESTION) -> list[Piece]:
    async def main() -> list[Piece]:
        generator = ollama_chat.OllamaGenerator(Server(url), "llama3.2", num_ctx=num_ctx)
        async with contextlib.aclosing(generator):
            return [piece async for piece in generator.stream(messages, max_tokens=max_tokens)]

    return asyncio.run(main())


def test_an_answer_comes_in_pieces_and_ends_with_its_counts(era: FakeOllama) -> None:
    pieces = answer(era.url)
    assert "".join(piece.text for piece in pieces) == "The harbour gate opens at seven [1]."
    assert len(pieces) > 2
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert pieces[-1].done_reason == "stop"
    assert pieces[-1].prompt_tokens
    assert pieces[-1].answer_tokens


def test_what_is_asked_of_the_answering_model(fake: FakeOllama) -> None:
    answer(fake.url, max_tokens=33)
    (sent,) = fake.requests()
    assert sent.fields["options"] == {"num_ctx": 8192, "num_predict": 33, "temperature": 0.0, "seed": 1}
    assert (sent.fields["truncate"], sent.fields["shift"], sent.fields["stream"]) == (False, False, True)
    assert sent.fields["keep_alive"] == "30m"
    assert "think" not in sent.fields


def test_an_answer_that_ran_into_its_limit_says_so(era: FakeOllama) -> None:
    assert answer(era.url, max_tokens=2)[-1].done_reason == "length"


def test_a_conversation_that_is_too_long_is_refused_where_the_server_can(fake: FakeOllama) -> None:
    with pytest.raises(errors.TextRejected) as caught:
        answer(fake.url, num_ctx=64, messages=[Message(role="user", content="[1] gate\n" * 200 + "gate?")])
    assert caught.value.kind == "too_long"


@pytest.mark.parametrize(
    ("fault", "said"), [("chat_error", "unexpected EOF"), ("chat_cut", "cut|middle"), ("busy503", "503")]
)
def test_an_answer_that_fails_on_the_way(era: FakeOllama, fault: str, said: str) -> None:
    era.set_fault(fault)
    with pytest.raises(errors.TransientFault, match=said):
        answer(era.url)


def test_an_answer_may_be_left_in_the_middle(fake: FakeOllama) -> None:
    async def main() -> str:
        generator = ollama_chat.OllamaGenerator(Server(fake.url), "llama3.2")
        async with (
            contextlib.aclosing(generator),
            contextlib.aclosing(generator.stream(QUESTION, max_tokens=9)) as all_,
        ):
            async for piece in all_:
                return piece.text
        return ""

    assert asyncio.run(main())


def test_the_generator_says_what_it_is(fake: FakeOllama) -> None:
    generator = ollama_chat.OllamaGenerator(Server(fake.url), "llama3.2", num_ctx=4096)
    assert (generator.model, generator.context_tokens, generator.server.url) == ("llama3.2", 4096, fake.url)
    asyncio.run(generator.aclose())
