"""The OpenAI-compatible client: against the fake Ollama's /v1, and against answers as other servers write them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from pipeline import config, errors
from pipeline.models import EmbedderSpec, EmbedReply, Message, Piece, canary, openai_errors, resolve, tokens
from tests.fake_ollama import vectors as fake_vectors
from tests.fake_ollama.client import FakeOllama

DIMS = 16
Reply = tuple[int, Any]


class OtherServer:
    """A server that answers as the test says: `on["/v1/embeddings"]` takes the decoded request and gives status and
    body.

    A list for a body is sent as server-sent events, one item each. `seen`: path, Authorization header and body of each
    request.
    """

    def __init__(self) -> None:
        self.on: dict[str, Callable[[dict[str, Any]], Reply]] = {}
        self.seen: list[tuple[str, str | None, dict[str, Any]]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> OtherServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
                server.seen.append((self.path, self.headers.get("Authorization"), body))
                status, found = server.on.get(self.path, lambda _: (404, {"detail": "Not Found"}))(body)
                events = isinstance(found, list)
                data = "".join(f"data: {event}\n\n" for event in found) if events else json.dumps(found)
                self.send_response(status)
                self.send_header("Content-Type", "text/event-stream" if events else "application/json")
                self.send_header("Content-Length", str(len(data.encode())))
                self.end_headers()
                self.wfile.write(data.encode())

            def log_message(self, *_: object) -> None:
                """Quiet."""

        return Handler


def vector(text: str) -> np.ndarray:
    return fake_vectors.hash_vector(text, DIMS)


def as_lists(request: dict[str, Any], length: float = 1.0) -> Reply:
    """llama.cpp's way: numbers, here in reverse order with their index."""
    data = [{"index": i, "embedding": (vector(text) * length).tolist()} for i, text in enumerate(request["input"])]
    return 200, {"object": "list", "data": data[::-1], "usage": {"prompt_tokens": 7, "total_tokens": 7}}


def as_base64(request: dict[str, Any]) -> Reply:
    rows = [base64.b64encode(vector(text).astype("<f4").tobytes()).decode() for text in request["input"]]
    return 200, {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}


def models(*entries: dict[str, Any]) -> Callable[[dict[str, Any]], Reply]:
    return lambda _: (200, {"object": "list", "data": list(entries)})


@pytest.fixture
def other() -> Iterator[OtherServer]:
    with OtherServer() as server:
        server.on = {"/v1/embeddings": as_lists, "/v1/models": models({"id": "m"})}
        yield server


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


def settings(url: str, **openai_: Any) -> config.Settings:
    return config.Settings(
        embed=config.EmbedSettings(provider="openai"),
        generate=config.GenerateSettings(provider="openai"),
        openai=config.OpenAISettings(url=url, **openai_),
    )


def opened(given: config.Settings, texts: list[str], recorded: EmbedderSpec | None = None) -> tuple[Any, EmbedReply]:
    """The choice, and what its embedder makes of `texts`."""

    async def main() -> tuple[Any, EmbedReply]:
        choice = await resolve.open_embedder(given, recorded)
        async with contextlib.aclosing(choice.embedder):
            return choice, await choice.embedder.embed(texts, tokens=0)

    return asyncio.run(main())


TEXTS = ["the harbour gate", "ships", "港口"]


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
@pytest.mark.parametrize("answer", [as_lists, as_base64])
def test_vectors_come_in_order_whatever_their_form(other: OtherServer, answer: Any, path: str) -> None:
    other.on["/v1/embeddings"] = answer
    choice, reply = opened(settings(other.url + path), TEXTS)
    np.testing.assert_allclose(reply.vectors, np.stack([vector(text) for text in TEXTS]), atol=1e-6)
    assert reply.vectors.dtype == np.float32
    assert reply.prompt_tokens == (7 if answer is as_lists else None)
    spec = choice.embedder.spec
    assert (spec.provider, spec.model, spec.digest, spec.dims, spec.limit) == ("openai", "m", "", DIMS, 510)
    assert spec.tokenizer == tokens.conservative().identity


def test_what_is_sent(other: OtherServer) -> None:
    opened(settings(other.url), TEXTS)
    paths = [path for path, _, _ in other.seen]
    assert paths == ["/v1/models", "/v1/embeddings", "/v1/embeddings"]
    assert other.seen[1][2]["input"] == [canary.TEXT]
    assert other.seen[2] == ("/v1/embeddings", None, {"model": "m", "input": TEXTS, "encoding_format": "base64"})


def test_vectors_of_another_length_are_normalised_and_it_is_said(other: OtherServer) -> None:
    other.on["/v1/embeddings"] = lambda request: as_lists(request, length=13.0)
    choice, reply = opened(settings(other.url), TEXTS)
    np.testing.assert_allclose(reply.vectors, np.stack([vector(text) for text in TEXTS]), atol=1e-6)
    assert "normalised here" in choice.note


def test_the_key_comes_from_the_variable_that_is_named(other: OtherServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    opened(settings(other.url, api_key_env="MY_KEY"), ["x"])
    assert {header for _, header, _ in other.seen} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        ({"id": "m"}, 510),
        ({"id": "m", "meta": {"n_ctx_train": 2048, "n_embd": 16}}, 2046),  # llama.cpp
        ({"id": "m", "max_model_len": 8192}, 8190),  # vLLM
        ({"id": "mxbai-embed-large", "max_model_len": 9999}, 510),  # the profile knows better
    ],
)
def test_the_limit_is_the_profiles_else_the_servers_else_careful(
    other: OtherServer, entry: dict[str, Any], limit: int
) -> None:
    other.on["/v1/models"] = models(entry)
    assert opened(settings(other.url), ["x"])[0].embedder.spec.limit == limit


def test_a_known_model_has_its_templates_and_an_unknown_one_a_note(other: OtherServer) -> None:
    other.on["/v1/models"] = models({"id": "nomic-embed-text"})
    choice, _ = opened(settings(other.url), ["x"])
    assert choice.embedder.spec.query("x") == "search_query: x"
    assert choice.embedder.spec.tokenizer == tokens.builtin().identity
    assert choice.note == ""
    other.on["/v1/models"] = models({"id": "m"})
    assert "No query and document templates are known for m" in opened(settings(other.url), ["x"])[0].note


def test_which_model(other: OtherServer) -> None:
    other.on["/v1/models"] = models({"id": "a"}, {"id": "b"})
    with pytest.raises(errors.ConfigError, match="a, b") as caught:
        opened(settings(other.url), ["x"])
    assert "openai.model" in caught.value.remedy
    assert opened(settings(other.url, model="b"), ["x"])[0].embedder.spec.model == "b"
    with pytest.raises(errors.ModelMissing, match="a, b"):
        opened(settings(other.url, model="c"), ["x"])


def test_a_server_without_a_list_is_believed_to_have_what_is_named(other: OtherServer) -> None:
    """TEI has no /v1/models."""
    del other.on["/v1/models"]
    assert opened(settings(other.url, model="whatever"), ["x"])[0].embedder.spec.model == "whatever"
    with pytest.raises(errors.ConfigError, match="lists none"):
        opened(settings(other.url), ["x"])


def test_no_url_is_told() -> None:
    with pytest.raises(errors.ConfigError, match="no server is named"):
        opened(settings(""), ["x"])


def test_no_server_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(errors.ServerUnreachable, match="Connection refused") as caught:
            opened(settings(f"http://127.0.0.1:{taken.getsockname()[1]}"), ["x"])
    assert caught.value.exit_code == 5


def test_a_collection_keeps_its_model_and_notices_another_length(other: OtherServer) -> None:
    given = settings(other.url)
    spec = opened(given, ["x"])[0].embedder.spec
    assert opened(given, TEXTS, spec)[0].embedder.spec == spec
    with pytest.raises(errors.ModelMismatch):
        opened(settings(other.url, model="another"), TEXTS, spec)
    other.on["/v1/embeddings"] = lambda request: (
        200,
        {"data": [{"index": i, "embedding": [1.0, 0.0]} for i in range(len(request["input"]))]},
    )
    with pytest.raises(errors.ModelMismatch, match="2 dimensions"):
        opened(given, TEXTS, spec)


def test_vectors_that_cannot_be_right_are_never_returned(other: OtherServer) -> None:
    def broken(rows: list[list[float]]) -> Callable[[dict[str, Any]], Reply]:
        def answer(request: dict[str, Any]) -> Reply:
            if request["input"] == [canary.TEXT]:
                return as_lists(request)
            return 200, {"data": [{"index": i, "embedding": row} for i, row in enumerate(rows)]}

        return answer

    good = vector("a").tolist()
    for rows, said in (
        ([good], "1 vectors for 2"),
        ([good, good], "same vector"),
        ([good, [0.0] * DIMS], "zeros"),
        ([good, [2.0] * DIMS], "unit length"),
        ([good, good[:-1]], "15 dimensions"),
    ):
        other.on["/v1/embeddings"] = broken(rows)
        with pytest.raises(errors.BadVectors, match=said):
            opened(settings(other.url), ["one", "two"])


def test_an_empty_text_is_refused_before_it_is_sent(other: OtherServer) -> None:
    with pytest.raises(errors.TextRejected):
        opened(settings(other.url), [""])
    assert all(body.get("input") != [""] for _, _, body in other.seen)


# Status, body as the server named writes it, what it means.
@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"error": {"message": "Invalid API Key", "type": "authentication_error"}}, errors.ServerRefused),
        (
            400,
            {
                "object": "error",
                "message": "This model's maximum context length is 512 tokens. However, you requested 600",
            },
            errors.TextRejected,
        ),  # vLLM
        (
            413,
            {
                "message": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
                "type": "Validation",
            },
            errors.TextRejected,
        ),  # TEI
        (
            500,
            {"error": {"code": 500, "message": "input is too large to process. increase the physical batch size"}},
            errors.TextRejected,
        ),  # llama.cpp
        (
            400,
            {
                "error": {
                    "code": 400,
                    "message": "input (513 tokens) is larger than the max context size (512 tokens). skipping",
                    "type": "x",
                }
            },
            errors.TextRejected,
        ),  # llama.cpp, by way of xllamacpp
        (
            422,
            {"error": "batch size 64 > maximum allowed batch size 32", "error_type": "Validation"},
            errors.ServerRefused,
        ),
        (404, {"object": "error", "message": "The model `x` does not exist."}, errors.ModelMissing),
        (404, {"error": {"message": "No models loaded. Please load a model first."}}, errors.ModelMissing),  # LM Studio
        (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, errors.TransientFault),
        (429, {"error": "Model is overloaded", "error_type": "overloaded"}, errors.TransientFault),
        (500, {"error": "anything"}, errors.RunnerFault),
        (502, {"error": "anything"}, errors.TransientFault),
        (404, {"detail": "Not Found"}, errors.ServerRefused),
        (400, {"error": {"message": "unsupported parameter"}}, errors.ServerRefused),
    ],
)
def test_what_errors_mean(status: int, body: dict[str, Any], kind: type[errors.ModelError]) -> None:
    found = openai_errors.classify(status, json.dumps(body).encode(), model="x", server="S", key_name="MY_KEY")
    assert type(found) is kind
    assert str(status) in found.message
    if status == 401:
        assert "MY_KEY" in found.remedy
    if isinstance(found, errors.TextRejected):
        assert found.kind == "too_long"


def test_a_page_instead_of_json(other: OtherServer) -> None:
    other.on["/v1/models"] = lambda _: (200, "just text")
    with pytest.raises(errors.TransientFault, match="cannot be read"):
        opened(settings(other.url), ["x"])


# --- answers

QUESTION = [Message(role="user", content="[1] The harbour gate opens at seven.\nWhen does the harbour gate open?")]


def answer(given: config.Settings, max_tokens: int = 50) -> list[Piece]:
    async def main() -> list[Piece]:
        generator = await resolve.open_generator(given)
        assert generator is not None
        async with contextlib.aclosing(generator):
            return [piece async for piece in generator.stream(QUESTION, max_tokens=max_tokens)]

    return asyncio.run(main())


def event(text: str | None = None, reason: str | None = None, **more: Any) -> str:
    delta = {} if text is None else {"content": text}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}], **more})


def test_an_answer_comes_in_pieces_and_ends_with_its_counts(other: OtherServer) -> None:
    usage = json.dumps({"choices": [], "usage": {"prompt_tokens": 20, "completion_tokens": 3}})
    other.on["/v1/chat/completions"] = lambda _: (
        200,
        [event(""), event("At "), event("seven [1]."), event(reason="length"), usage, "[DONE]"],
    )
    *pieces, last = answer(settings(other.url, generate_model="m"))
    assert [piece.text for piece in pieces] == ["At ", "seven [1]."]
    assert last == Piece(text="", done=True, done_reason="length", prompt_tokens=20, answer_tokens=3)
    _, _, body = other.seen[-1]
    assert (body["model"], body["max_tokens"], body["temperature"], body["stream"]) == ("m", 50, 0.0, True)
    assert body["messages"] == [{"role": "user", "content": QUESTION[0].content}]


def test_an_answer_may_end_without_done_and_without_counts(other: OtherServer) -> None:
    other.on["/v1/chat/completions"] = lambda _: (200, [event("Yes."), event(reason="stop")])
    assert answer(settings(other.url))[-1] == Piece(text="", done=True, done_reason="stop")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event("At ")], "middle"),
        ([event("At "), json.dumps({"error": {"message": "slot was lost"}})], "slot was lost"),
        ([event("At "), "{not json"], "cannot be read"),
    ],
)
def test_an_answer_that_breaks_off(other: OtherServer, events: list[str], said: str) -> None:
    other.on["/v1/chat/completions"] = lambda _: (200, events)
    with pytest.raises(errors.TransientFault, match=said):
        answer(settings(other.url))


def test_the_window_is_the_smaller_one(other: OtherServer) -> None:
    other.on["/v1/models"] = models({"id": "m", "max_model_len": 4096})

    async def main() -> int:
        generator = await resolve.open_generator(settings(other.url))
        assert generator is not None
        await generator.aclose()
        assert generator.model == "m"
        return generator.context_tokens

    assert asyncio.run(main()) == 4096


def test_ollamas_own_v1_serves_too(fake: FakeOllama) -> None:
    """The same model by the other door: order, vectors and an answer."""
    given = settings(f"{fake.url}/v1", model="mxbai-embed-large:latest", generate_model="llama3.2:latest")
    choice, reply = opened(given, TEXTS)
    np.testing.assert_allclose(reply.vectors, [fake_vectors.hash_vector(text, 1024) for text in TEXTS], atol=1e-6)
    assert choice.embedder.spec.limit == 510
    assert "".join(piece.text for piece in answer(given)) == "The harbour gate opens at seven [1]."
