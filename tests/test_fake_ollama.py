"""The fake Ollama behaves as Ollama is known to: shapes, versions, faults, the clock, the life of the process."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fake_ollama import catalog, chat, engine, faults, tokens, vectors
from tests.fake_ollama.client import ROOT, FakeOllama

MODEL = "mxbai-embed-large"
DIGEST = "468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8"
LONG = "word " * 600


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama() as started:
        yield started


@pytest.fixture
def ollama(server: FakeOllama) -> FakeOllama:
    server.reset()
    server.configure(version="0.32.15", vectors="words", cost_us_per_token=0)
    return server


def embed(ollama: FakeOllama, *texts: str, **more: Any) -> tuple[int, Any]:
    return ollama.request("POST", "/api/embed", {"model": MODEL, "input": list(texts), **more})


def ask(ollama: FakeOllama, content: str, **more: Any) -> tuple[int, Any]:
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": content}], **more}
    return ollama.request("POST", "/api/chat", body)


def until(condition: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Return as soon as `condition` holds."""
    ends = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < ends, "it never came true"
        time.sleep(0.001)


PASSAGES = """Use the passages.

[1] Paris is the capital of France. It lies on the Seine.

[2] Bern is the capital of Switzerland. Zurich is larger.

Question: What is the capital of Switzerland?"""


# --- what is there


def test_root_and_version(ollama: FakeOllama) -> None:
    assert ollama.request("GET", "/") == (200, "Ollama is running")
    assert ollama.request("HEAD", "/") == (200, "")
    assert ollama.get("/api/version") == {"version": "0.32.15"}
    assert ollama.request("GET", "/api/nothing") == (404, "404 page not found")


def test_tags_have_digests(ollama: FakeOllama) -> None:
    models = {model["name"]: model for model in ollama.get("/api/tags")["models"]}
    assert models["mxbai-embed-large:latest"]["digest"] == DIGEST
    assert models["mxbai-embed-large:latest"]["capabilities"] == ["embedding"]
    assert models["llama3.2:latest"]["digest"].startswith("a80c4f17acd5")
    assert all(len(model["digest"]) == 64 for model in models.values())
    ollama.configure(version="0.9.0")
    assert "capabilities" not in ollama.get("/api/tags")["models"][0]


def test_show_gives_the_shape_of_the_model(ollama: FakeOllama) -> None:
    shown = ollama.post("/api/show", {"model": MODEL})
    info = shown["model_info"]
    assert (info["bert.context_length"], info["bert.embedding_length"]) == (512, 1024)
    assert info["general.architecture"] == "bert"
    assert info["tokenizer.ggml.tokens"] is None
    assert shown["capabilities"] == ["embedding"]
    assert ollama.request("POST", "/api/show", {"model": "none"}) == (404, {"error": "model 'none' not found"})


def test_show_verbose_gives_the_vocabulary_in_gguf_form(ollama: FakeOllama) -> None:
    found = ollama.post("/api/show", {"model": MODEL, "verbose": True})["model_info"]["tokenizer.ggml.tokens"]
    assert len(found) == 30522
    assert found[:2] == ["[PAD]", "[unused0]"]
    assert found[100:104] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = tokens.load().get_vocab()
    assert found[vocabulary["the"]] == "\u2581the"
    assert found[vocabulary["##ing"]] == "ing"
    assert found[vocabulary["["]] == "\u2581["


def test_a_model_may_have_another_digest_or_be_unknown_or_remote() -> None:
    assert catalog.model_for("mxbai-embed-large=ab").digest == "ab" * 32
    assert catalog.model_for("own-model").dims == 768
    assert catalog.model_for("gpt-oss:120b-cloud").remote_host
    assert catalog.model_for("all-minilm:33m").dims == 384
    assert catalog.model_for("all-minilm:33m").digest != catalog.model_for("all-minilm").digest


# --- embedding


def test_vectors_are_the_ones_a_test_can_compute(ollama: FakeOllama) -> None:
    status, found = embed(ollama, "hello world", "the capital of France")
    assert status == 200
    assert found["model"] == MODEL
    for text, vector in zip(("hello world", "the capital of France"), found["embeddings"], strict=True):
        assert np.allclose(vector, vectors.words_vector(text, 1024), atol=1e-6)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    assert found["total_duration"] >= found["load_duration"] > 0


@pytest.mark.parametrize("given", ["", [], None])
def test_no_text_gives_no_vector(ollama: FakeOllama, given: Any) -> None:
    assert ollama.post("/api/embed", {"model": MODEL, "input": given}) == {"model": MODEL, "embeddings": []}


def test_an_empty_text_in_a_list_gives_one(ollama: FakeOllama) -> None:
    assert len(embed(ollama, "")[1]["embeddings"]) == 1
    assert len(ollama.post("/api/embed", {"model": MODEL, "input": "one"})["embeddings"]) == 1


@pytest.mark.parametrize(("version", "count"), [("0.3.12", 5), ("0.9.0", 5), ("0.13.3", 9), ("0.32.15", 9)])
def test_prompt_eval_count_by_version(ollama: FakeOllama, version: str, count: int) -> None:
    ollama.configure(version=version)
    assert embed(ollama, "one two", "one two three")[1]["prompt_eval_count"] == count


@pytest.mark.parametrize(
    ("version", "limit", "message"),
    [
        ("0.3.12", 512, "input length exceeds maximum context length"),
        ("0.9.0", 512, "input length exceeds maximum context length"),
        ("0.13.3", 510, "the input length exceeds the context length"),
        ("0.32.15", 510, "the input length exceeds the context length"),
    ],
)
def test_over_the_limit(ollama: FakeOllama, version: str, limit: int, message: str) -> None:
    ollama.configure(version=version)
    assert embed(ollama, "word " * limit, truncate=False)[0] == 200
    assert embed(ollama, "fine", "word " * (limit + 1), truncate=False) == (400, {"error": message})
    status, found = embed(ollama, LONG)
    assert status == 200
    assert found["prompt_eval_count"] == 512
    assert np.allclose(found["embeddings"][0], vectors.words_vector("word " * 510, 1024), atol=1e-6)


def test_dimensions_cut_and_normalise(ollama: FakeOllama) -> None:
    vector = embed(ollama, "hello world", dimensions=256)[1]["embeddings"][0]
    assert np.allclose(vector, vectors.unit(vectors.words_vector("hello world", 1024)[:256]), atol=1e-6)
    ollama.configure(version="0.9.0")
    assert len(embed(ollama, "hello world", dimensions=256)[1]["embeddings"][0]) == 1024


def test_the_legacy_endpoint_does_not_normalise(ollama: FakeOllama) -> None:
    vector = ollama.post("/api/embeddings", {"model": MODEL, "prompt": "hello"})["embedding"]
    assert np.linalg.norm(vector) == pytest.approx(vectors.raw_length("hello"), rel=1e-5)
    assert ollama.post("/api/embeddings", {"model": MODEL, "input": "hello"}) == {"embedding": []}


def test_a_missing_model_and_bad_requests(ollama: FakeOllama) -> None:
    missing = 'model "none" not found, try pulling it first'
    assert ollama.request("POST", "/api/embed", {"model": "none", "input": "x"}) == (404, {"error": missing})
    assert ollama.request("POST", "/api/embed") == (400, {"error": "missing request body"})
    assert embed(ollama, input=[1]) == (400, {"error": "invalid input type"})
    assert embed(ollama, "x", keep_alive="soon")[0] == 400
    assert ollama.request("POST", "/v1/embeddings", {"model": "none", "input": "x"})[1]["error"]["message"] == missing


def test_openai_embeddings_as_base64_from_0_12_7(ollama: FakeOllama) -> None:
    body = {"model": MODEL, "input": ["hello world", LONG], "encoding_format": "base64", "dimensions": 512}
    found = ollama.post("/v1/embeddings", body)
    vector = np.frombuffer(base64.b64decode(found["data"][0]["embedding"]), dtype="<f4")
    assert np.array_equal(vector, vectors.unit(vectors.words_vector("hello world", 1024)[:512]))
    assert found["usage"] == {"prompt_tokens": 516, "total_tokens": 516}
    assert [entry["index"] for entry in found["data"]] == [0, 1]
    ollama.configure(version="0.9.0")
    assert isinstance(ollama.post("/v1/embeddings", body)["data"][0]["embedding"], list)


def test_openai_embeddings_refuse_what_ollama_refuses(ollama: FakeOllama) -> None:
    status, found = ollama.request("POST", "/v1/embeddings", {"model": MODEL, "input": []})
    assert (status, found["error"]["type"]) == (400, "invalid_request_error")
    body = {"model": MODEL, "input": "x", "encoding_format": "hex"}
    assert ollama.request("POST", "/v1/embeddings", body)[0] == 400
    assert [model["id"] for model in ollama.get("/v1/models")["data"]] == [
        "mxbai-embed-large:latest",
        "llama3.2:latest",
    ]


# --- loading


def test_the_first_request_loads_and_a_changed_option_loads_again(ollama: FakeOllama) -> None:
    assert ollama.get("/api/ps") == {"models": []}
    first = embed(ollama, "x", options={"num_ctx": 512})[1]["load_duration"]
    second = embed(ollama, "x", options={"num_ctx": 512})[1]["load_duration"]
    assert first >= 0.25e9 > second
    assert embed(ollama, "x", options={"num_ctx": 512, "num_batch": 1024})[1]["load_duration"] >= 0.25e9
    assert ollama.counters()["loads"] == 2
    (shown,) = ollama.get("/api/ps")["models"]
    assert (shown["context_length"], shown["size_vram"]) == (512, shown["size"])
    assert shown["digest"] == DIGEST


def test_from_0_30_num_ctx_is_compared_after_it_is_cut(ollama: FakeOllama) -> None:
    embed(ollama, "x", options={"num_ctx": 512})
    embed(ollama, "x", options={"num_ctx": 8192})
    assert ollama.counters()["loads"] == 1
    ollama.reset()
    ollama.configure(version="0.9.0")
    embed(ollama, "x", options={"num_ctx": 512})
    embed(ollama, "x")
    assert ollama.counters()["loads"] == 2


def test_keep_alive_unloads(ollama: FakeOllama) -> None:
    embed(ollama, "x", keep_alive=0)
    assert ollama.get("/api/ps") == {"models": []}
    embed(ollama, "x", keep_alive=-1)
    assert ollama.get("/api/ps")["models"][0]["expires_at"].startswith("2318")
    found = ollama.post("/api/generate", {"model": MODEL, "keep_alive": 0})
    assert (found["done_reason"], ollama.get("/api/ps")) == ("unload", {"models": []})
    assert ollama.post("/api/generate", {"model": "llama3.2"})["done_reason"] == "load"


@pytest.mark.parametrize(("given", "expected"), [("30m", 1800), ("1h30m", 5400), (20, 20), (None, 300), ("0", 0)])
def test_keep_alive_notation(given: Any, expected: float) -> None:
    assert engine.seconds(given) == expected
    assert engine.seconds("-1m") == engine.seconds(-1) == engine.FOREVER_S


# --- the queue


def test_the_clock_is_exact_and_inputs_wait_for_each_other(ollama: FakeOllama) -> None:
    embed(ollama, "warm")
    ollama.configure(cost_us_per_token=200)
    body = json.dumps({"model": MODEL, "input": ["one two three"] * 20})  # 20 × 5 tokens × 0.2 ms = 20 ms
    connections = [http.client.HTTPConnection("127.0.0.1", ollama.port) for _ in range(4)]
    began = time.monotonic()
    for connection in connections:
        connection.request("POST", "/api/embed", body)
    for connection in connections:
        assert connection.getresponse().read()
        connection.close()
    took = time.monotonic() - began
    counters = ollama.counters()
    assert counters["busy_s"] == pytest.approx(0.08)
    assert took >= 0.08
    assert counters["peak_in_flight"] > 1
    assert counters["peak_in_flight_texts"] > 20


def test_a_client_that_leaves_gives_up_its_queued_inputs(ollama: FakeOllama) -> None:
    embed(ollama, "warm")
    ollama.configure(cost_us_per_token=5_000)
    connection = http.client.HTTPConnection("127.0.0.1", ollama.port)
    connection.request("POST", "/api/embed", json.dumps({"model": MODEL, "input": ["one two three"] * 1000}))
    until(lambda: ollama.counters()["in_flight"] == 1)
    connection.close()
    until(lambda: bool(ollama.counters()["cancelled"] == 1))
    ollama.configure(cost_us_per_token=0)
    assert embed(ollama, "next")[0] == 200
    assert ollama.counters()["busy_s"] < 1  # of the 25 s that were asked for
    assert [entry.status for entry in ollama.requests()] == [200, 499, 200]


def test_connections_are_kept(ollama: FakeOllama) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ollama.port)
    for _ in range(3):
        connection.request("GET", "/api/version")
        assert connection.getresponse().read() == b'{"version":"0.32.15"}'
    connection.close()
    counters = ollama.counters()
    assert (counters["connections"], counters["http_requests"]) == (1, 3)


def test_what_is_not_http_closes_the_connection(ollama: FakeOllama) -> None:
    with socket.create_connection(("127.0.0.1", ollama.port)) as raw:
        raw.sendall(b"no such protocol\r\n\r\n")
        assert raw.recv(100) == b""


# --- what was received


def test_what_was_received_is_told(ollama: FakeOllama) -> None:
    embed(ollama, "one", "two two", options={"num_ctx": 512}, keep_alive="30m")
    ollama.post("/v1/embeddings", {"model": MODEL, "input": "three"})
    ask(ollama, PASSAGES, stream=False)
    assert ollama.texts() == ["one", "two two", "three"]
    assert [(text.request, text.endpoint, text.tokens) for text in ollama.received()] == [
        (1, "/api/embed", 1),
        (1, "/api/embed", 2),
        (2, "/v1/embeddings", 1),
    ]
    first, _, last = ollama.requests()
    assert first.fields == {"model": MODEL, "options": {"num_ctx": 512}, "keep_alive": "30m"}
    assert last.fields["messages"][0]["content"] == PASSAGES
    counters = ollama.counters()
    assert (counters["texts"], counters["tokens"], counters["requests"]) == (3, 4, 3)
    ollama.reset()
    assert ollama.texts() == []


def test_the_log_outlives_kill_and_the_state_a_restart(tmp_path: Path) -> None:
    log, state = tmp_path / "log", tmp_path / "state"
    with FakeOllama(models=[MODEL], log=log, state=state, record=False) as ollama:
        port = ollama.port
        embed(ollama, "first", "中文")
        assert ollama.request("POST", "/api/pull", {"model": "all-minilm", "stream": False})[0] == 200
        assert ollama.texts() == []
        ollama.restart()
        assert ollama.port == port
        assert [model["name"] for model in ollama.get("/api/tags")["models"]] == [
            "mxbai-embed-large:latest",
            "all-minilm:latest",
        ]
        embed(ollama, "second")
    assert [json.loads(line)["text"] for line in log.read_text("utf-8").splitlines()] == ["first", "中文", "second"]


# --- faults

EOF_MESSAGE = 'do embedding request: Post "http://127.0.0.1:40213{}": EOF'


@pytest.mark.parametrize(
    ("version", "status", "error"),
    [
        ("0.3.12", 500, {}),
        ("0.9.0", 500, EOF_MESSAGE.format("/embedding")),
        ("0.13.3", 400, EOF_MESSAGE.format("/embedding")),
        ("0.32.15", 400, EOF_MESSAGE.format("/v1/embeddings")),
    ],
)
def test_eof_by_version(ollama: FakeOllama, version: str, status: int, error: Any) -> None:
    ollama.configure(version=version)
    ollama.set_fault("eof", count=1)
    assert embed(ollama, "x") == (status, {"error": error})
    assert embed(ollama, "x")[0] == 200
    assert ollama.counters()["loads"] == 2  # the runner died
    assert ollama.faults()[0]["fired"] == 1


@pytest.mark.parametrize(
    ("version", "status", "error"),
    [
        ("0.3.12", 500, {}),
        ("0.9.0", 500, "failed to encode response: json: unsupported value: NaN"),
        ("0.14.0", 400, "embedding contains NaN or Inf values"),
    ],
)
def test_nan_by_version(ollama: FakeOllama, version: str, status: int, error: Any) -> None:
    ollama.configure(version=version)
    ollama.set_fault("nan")
    assert embed(ollama, "x") == (status, {"error": error})


def test_from_0_30_nan_is_zeros_for_the_text_it_struck(ollama: FakeOllama) -> None:
    ollama.set_fault("nan", match="bad")
    status, found = embed(ollama, "good", "bad")
    assert status == 200
    assert [any(vector) for vector in found["embeddings"]] == [True, False]


def test_a_poisoned_runner_gives_zeros_until_it_is_loaded_anew(ollama: FakeOllama) -> None:
    ollama.set_fault("zeros", match="bad", sticky=True)
    assert any(embed(ollama, "good")[1]["embeddings"][0])
    embed(ollama, "bad")
    assert not any(embed(ollama, "good")[1]["embeddings"][0])
    ollama.post("/api/generate", {"model": MODEL, "keep_alive": 0})
    assert any(embed(ollama, "good")[1]["embeddings"][0])


def test_poison_loses_the_whole_batch_always(ollama: FakeOllama) -> None:
    ollama.set_fault("poison")
    for _ in range(2):
        assert embed(ollama, "good", "a POISON pill")[0] == 400
    assert embed(ollama, "good")[0] == 200


@pytest.mark.parametrize(
    ("kind", "status", "piece"),
    [
        ("refused", 400, "connection refused"),
        ("terminated", 400, "terminated"),
        ("error_object", 500, "{}"),
        ("http500", 500, "internal"),
        ("busy503", 503, "server busy, please try again.  maximum pending requests exceeded"),
        ("missing_model", 404, "not found"),
        ("load_error", 500, "llama-server process has terminated"),
        ("garbage", 502, "<html>"),
    ],
)
def test_faults_with_an_answer(ollama: FakeOllama, kind: str, status: int, piece: str) -> None:
    ollama.set_fault(kind, count=1)
    found = embed(ollama, "x")
    assert found[0] == status
    assert piece in str(found[1])
    assert embed(ollama, "x")[0] == 200


def test_faults_in_the_vectors(ollama: FakeOllama) -> None:
    texts = ("one", "two", "three")
    right = embed(ollama, *texts)[1]
    found = {}
    for kind in ("zeros", "wrong_dim", "short", "duplicate", "swapped", "wrong_count"):
        ollama.set_fault(kind, count=1)
        found[kind] = embed(ollama, *texts)[1]
    assert not np.any(found["zeros"]["embeddings"])
    assert {len(vector) for vector in found["wrong_dim"]["embeddings"]} == {512}
    assert found["short"]["embeddings"] == right["embeddings"][:2]
    assert found["duplicate"]["embeddings"] == right["embeddings"][:1] * 3
    assert found["swapped"]["embeddings"] == [right["embeddings"][i] for i in (1, 0, 2)]
    assert found["wrong_count"]["prompt_eval_count"] == right["prompt_eval_count"] + 9
    assert found["wrong_count"]["embeddings"] == right["embeddings"]


def test_faults_of_the_connection(ollama: FakeOllama) -> None:
    ollama.set_fault("reset", count=1)
    with pytest.raises(http.client.RemoteDisconnected):
        embed(ollama, "x")
    ollama.set_fault("disconnect", count=1)
    with pytest.raises(http.client.IncompleteRead):
        embed(ollama, "x")
    ollama.set_fault("truncated_json", count=1)
    status, found = embed(ollama, "x")
    assert (status, type(found)) == (200, str)
    assert embed(ollama, "x")[0] == 200


def test_a_hanging_request_leaves_the_rest_alive(ollama: FakeOllama) -> None:
    ollama.set_fault("hang", count=1)
    connection = http.client.HTTPConnection("127.0.0.1", ollama.port)
    connection.request("POST", "/api/embed", json.dumps({"model": MODEL, "input": "x"}))
    until(lambda: bool(ollama.get("/api/ps")["models"]))
    assert ollama.get("/api/ps")["models"][0]["expires_at"] < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
    assert ollama.get("/api/version")
    connection.close()
    until(lambda: bool(ollama.counters()["cancelled"] == 1))


def test_slow_and_slow_load(ollama: FakeOllama) -> None:
    ollama.set_fault("slow_load", count=1, seconds=0.3)
    assert embed(ollama, "x")[1]["load_duration"] >= 0.3e9
    ollama.set_fault("slow", count=1, seconds=0.05)
    began = time.monotonic()
    assert embed(ollama, "x")[0] == 200
    assert time.monotonic() - began >= 0.05


def test_the_digest_changes(ollama: FakeOllama) -> None:
    ollama.set_fault("digest_change", after=1)
    digests = [ollama.get("/api/tags")["models"][0]["digest"] for _ in range(2)]
    assert digests == [DIGEST, DIGEST[::-1]]
    ollama.clear_faults("digest_change")
    assert ollama.get("/api/tags")["models"][0]["digest"] == DIGEST


def test_a_fault_may_be_aimed_at_an_endpoint(ollama: FakeOllama) -> None:
    ollama.set_fault("garbage", endpoint="/api/version")
    assert ollama.request("GET", "/api/version")[0] == 502
    assert embed(ollama, "x")[0] == 200
    ollama.clear_faults()
    assert ollama.faults() == []


def test_rates_repeat_with_their_seed() -> None:
    def struck(seed: int) -> list[bool]:
        found = faults.Faults(seed)
        found.add(faults.parse("eof:0.3"))
        return [found.take(("eof",), "/api/embed") is not None for _ in range(200)]

    assert struck(1) == struck(1) != struck(2)
    assert 30 < sum(struck(1)) < 90


def test_fault_notation() -> None:
    fault = faults.parse("slow:1:3,seconds=0.2,match=bad,endpoint=/api/chat")
    assert (fault.kind, fault.rate, fault.count, fault.seconds) == ("slow", 1.0, 3, 0.2)
    assert (fault.match, fault.endpoint) == ("bad", "/api/chat")
    assert faults.parse("zeros,sticky=true").sticky
    with pytest.raises(ValueError, match="no fault is called"):
        faults.parse("nonsense")


def test_unknown_faults_are_refused(ollama: FakeOllama) -> None:
    assert ollama.request("POST", "/__fake__/faults", {"kind": "nonsense"})[0] == 400
    assert ollama.request("GET", "/__fake__/nothing")[0] == 404


# --- chat


def test_chat_answers_from_the_passages(ollama: FakeOllama) -> None:
    status, found = ask(ollama, PASSAGES, stream=False)
    assert status == 200
    assert found["message"] == {"role": "assistant", "content": "Bern is the capital of Switzerland [2]."}
    assert (found["done"], found["done_reason"]) == (True, "stop")
    assert found["prompt_eval_count"] > 30
    assert found["eval_count"] == len(tokens.rough_tokens("Bern is the capital of Switzerland [2]."))


def test_chat_in_chinese_and_without_an_answer() -> None:
    passages = "[1] 上海是一座城市。\n[2] 北京是中国的首都。它很大。"
    assert chat.answer_to(passages, "中国的首都是哪里？") == "北京是中国的首都 [2]."
    assert chat.answer_to(passages, "quantum") == chat.answer_to("no passages", "x") == chat.NO_ANSWER


def test_chat_streams(ollama: FakeOllama) -> None:
    lines = [json.loads(line) for line in ask(ollama, PASSAGES)[1].splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == "Bern is the capital of Switzerland [2]."
    assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
    assert len(lines) > 3


def test_chat_stops_at_num_predict(ollama: FakeOllama) -> None:
    found = ask(ollama, PASSAGES, stream=False, options={"num_predict": 3})[1]
    assert (found["message"]["content"], found["done_reason"], found["eval_count"]) == ("Bern is the", "length", 3)


def test_a_prompt_over_num_ctx_loses_its_front_or_is_refused(ollama: FakeOllama) -> None:
    prompt = (
        "[1] Bern is the capital of Switzerland.\n[2] "
        + "Nothing here. " * 200
        + "\nWhat is the capital of Switzerland?"
    )
    options = {"num_ctx": 256}
    found = ask(ollama, prompt, stream=False, options=options)[1]
    assert (found["prompt_eval_count"], found["message"]["content"]) == (128, chat.NO_ANSWER)
    assert "exceeds the available context size" in ask(ollama, prompt, truncate=False, options=options)[1]["error"]
    assert ask(ollama, prompt, shift=False, options=options)[0] == 400


def test_chat_refuses(ollama: FakeOllama) -> None:
    assert ask(ollama, "hi", think=True) == (400, {"error": '"llama3.2" does not support thinking'})
    assert ask(ollama, "hi", model=MODEL) == (400, {"error": f'"{MODEL}" does not support chat'})
    assert ask(ollama, "hi", model="none") == (404, {"error": "model 'none' not found"})


def test_chat_faults(ollama: FakeOllama) -> None:
    ollama.set_fault("chat_error", count=1)
    status, found = ask(ollama, PASSAGES)
    assert status == 200
    assert list(json.loads(found.splitlines()[-1])) == ["error"]
    ollama.set_fault("chat_cut", count=1)
    with pytest.raises(http.client.IncompleteRead) as cut:
        ask(ollama, PASSAGES)
    assert cut.value.partial
    ollama.set_fault("chat_stall", count=1)
    with pytest.raises(TimeoutError):
        ollama.request("POST", "/api/chat", {"model": "llama3.2", "messages": [{"content": PASSAGES}]}, timeout_s=0.2)


def test_openai_chat(ollama: FakeOllama) -> None:
    body = {"model": "llama3.2", "messages": [{"role": "user", "content": PASSAGES}]}
    whole = ollama.post("/v1/chat/completions", body)
    assert whole["choices"][0]["message"]["content"] == "Bern is the capital of Switzerland [2]."
    assert whole["choices"][0]["finish_reason"] == "stop"
    events = ollama.request("POST", "/v1/chat/completions", {**body, "stream": True})[1].strip().split("\n\n")
    assert events[-1] == "data: [DONE]"
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Bern is the capital of Switzerland [2]."
    assert [delta.get("role") for delta in deltas][:2] == ["assistant", None]


# --- pulling


def test_pull_adds_a_model(ollama: FakeOllama) -> None:
    lines = [json.loads(line) for line in ollama.request("POST", "/api/pull", {"model": "bge-m3"})[1].splitlines()]
    assert (lines[0]["status"], lines[-1]["status"]) == ("pulling manifest", "success")
    digests = [line["digest"] for line in lines if "digest" in line]
    assert digests[:3] == [digests[0], digests[1], digests[0]]  # they interleave
    assert "bge-m3:latest" in [model["name"] for model in ollama.get("/api/tags")["models"]]


def test_pull_fails_with_status_200(ollama: FakeOllama) -> None:
    status, found = ollama.request("POST", "/api/pull", {"model": "none"})
    assert (status, json.loads(found.splitlines()[-1])) == (200, {"error": "pull model manifest: file does not exist"})
    ollama.set_fault("pull_error", count=1)
    status, found = ollama.request("POST", "/api/pull", {"model": "bge-m3"})
    assert status == 200
    assert "error" in json.loads(found.splitlines()[-1])
    assert len(ollama.get("/api/tags")["models"]) == 2


# --- vectors and tokens, in this process


def test_words_that_are_shared_bring_texts_together() -> None:
    def near(a: str, b: str) -> float:
        return float(vectors.words_vector(a, 1024) @ vectors.words_vector(b, 1024))

    query = vectors.PREFIXES[0] + "capital of Switzerland"
    assert near(query, "Bern is the capital of Switzerland") > 0.7
    assert near(query, "Apples grow on trees") < 0.2
    assert near("中国的首都是哪里", "北京是中国的首都") > 0.4 > near("中国的首都是哪里", "苹果长在树上")
    assert near("", "...") == pytest.approx(1)


def test_hash_vectors_are_unit_and_far_apart() -> None:
    found = np.stack([vectors.hash_vector(f"text {i}", 1024) for i in range(50)])
    products = found @ found.T
    assert np.allclose(np.diag(products), 1, atol=1e-5)
    assert np.abs(products - np.eye(50)).max() < 0.2


def test_minilm_vectors_know_meaning(server: FakeOllama) -> None:
    server.configure(vectors="minilm")
    status, found = embed(server, "a cat sleeps", "a kitten naps", "interest rates rose")
    assert status == 200
    cat, kitten, rates = np.array(found["embeddings"])
    assert len(cat) == 1024
    assert cat @ kitten > 0.5 > cat @ rates


@pytest.mark.parametrize(
    "text", ["", "don't stop", "[CLS] x", "a\x0bb\x1cc\x00 d", "naïve café 中文", "x" * 200, "a\n\tb"]
)
def test_counting_is_the_tokenizers(text: str) -> None:
    assert tokens.count([text]) == [len(tokens.load().encode(text, add_special_tokens=False).ids)]


def test_rough_tokens_join_to_the_text() -> None:
    text = "  Hello, it's 42%…\n北京 is  big "
    assert "".join(tokens.rough_tokens(text)) == text


def test_cut_keeps_the_first_tokens() -> None:
    assert tokens.cut("embedding vectors here", 3) == "embedding vectors"[: len("embedding")]
    assert tokens.cut("short", 10) == "short"


# --- the process


def test_a_bad_version_is_refused() -> None:
    command = [sys.executable, "-m", "tests.fake_ollama", "--version", "latest"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "not an Ollama version" in found.stderr


def test_it_ends_on_sigterm_even_with_a_request_hanging() -> None:
    with FakeOllama(faults=["hang"]) as ollama:
        connection = http.client.HTTPConnection("127.0.0.1", ollama.port)
        connection.request("POST", "/api/embed", json.dumps({"model": MODEL, "input": "x"}))
        until(lambda: bool(ollama.counters()["in_flight"]))
        pid = ollama.pid
        ollama.stop()
        connection.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_it_ends_with_its_parent() -> None:
    script = (
        "import os, signal; from tests.fake_ollama.client import FakeOllama; f = FakeOllama().start(); "
        "print(f.pid, f.port, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == -signal.SIGKILL
    port = int(found.stdout.split()[1])

    def is_gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    until(is_gone)


def test_lists_and_base64_are_the_same_vectors_to_the_last_bit() -> None:
    with FakeOllama(vectors="hash") as server:
        body = {"model": "mxbai-embed-large", "input": ["one text", "another"]}
        lists = server.post("/api/embed", body)["embeddings"]
        packed = server.post("/v1/embeddings", body | {"encoding_format": "base64"})["data"]
    for numbers, datum in zip(lists, packed, strict=True):
        assert struct.pack("<1024f", *numbers) == base64.b64decode(datum["embedding"])
