"""The service on a real socket over real collections: Dify's contract, the OpenAI-compatible interface, new
generations, and a model server that goes away."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from pipeline import errors
from pipeline.models import builtin, tokens
from pipeline.serve import faults, shelf
from pipeline.serve.meter import Meter
from pipeline.store import Collection
from tests import served
from tests.fake_ollama.client import FakeOllama
from tests.served import Served

SNOW = "snow on the roof of the hut"


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(models=["mxbai-embed-large", "llama3.2"]) as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, ollama: FakeOllama) -> Path:
    """Collections "default" (embedded model), "remote" (Ollama's) and an empty folder."""
    home = tmp_path_factory.mktemp("served")
    docs = served.write(home / "docs")
    shutil.copy(served.MANUAL, docs / "manual.pdf")
    given = served.settings(home / "data", ollama=ollama.url)
    served.build(given, docs)
    served.build(given, served.write(home / "few", {"leave.md": served.DOCUMENTS["leave.md"]}), "remote", "ollama")
    (home / "data" / "empty").mkdir()
    return home / "data"


@pytest.fixture(scope="module")
def service(data: Path, ollama: FakeOllama) -> Iterator[Served]:
    with Served(served.settings(data, ollama=ollama.url)) as running:
        yield running


# --- Dify: what its external_knowledge_service.py does with us, in our words


class Dify:
    """Dify as a client: how it registers an endpoint, asks it and treats what comes back."""

    RETRIED = (429, 500, 502, 503, 504)

    def __init__(self, endpoint: str, key: str) -> None:
        self._url = f"{endpoint}/retrieval"  # joined, not trimmed
        self._headers = {"Authorization": f"Bearer {key}"}

    def register(self) -> str:
        """What its user is told; "" for success."""
        reply = httpx.post(self._url, headers=self._headers, timeout=5, trust_env=False)
        return {404: "not found", 502: "bad gateway", 403: "forbidden"}.get(reply.status_code, "")

    def retrieve(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The records in the order in which it shows them to the model."""
        headers = {"Content-Type": "application/json", **self._headers}
        reply = httpx.post(self._url, content=json.dumps(body), headers=headers, timeout=5, trust_env=False)
        assert reply.status_code not in self.RETRIED
        records = reply.json().get("records", []) if reply.status_code == 200 else []
        for record in records:
            for own in ("score", "title", "dataset_id", "dataset_name"):
                assert own not in record["metadata"]
            record["metadata"]["score"] = record["score"]
        return sorted(records, key=lambda record: record["metadata"].get("score") or 0.0, reverse=True)


def body(**more: Any) -> dict[str, Any]:
    asked = {"top_k": 4, "score_threshold": 0.0}
    return {"retrieval_setting": asked, "query": SNOW, "knowledge_id": "default", **more}


@pytest.mark.parametrize("slash", ["", "/"])
def test_dify_registers_and_retrieves(service: Served, slash: str) -> None:
    dify = Dify(service.url + slash, "whatever was typed")
    assert dify.register() == ""
    records = dify.retrieve(body())
    assert len(records) == 4
    assert records == sorted(records, key=lambda record: -record["score"])
    for record in records:
        assert set(record) == {"content", "score", "title", "metadata"}
        assert 0 <= record["score"] <= 1
        assert record["title"]
        assert isinstance(record["metadata"]["document_id"], str)
        assert record["content"].startswith(f"[{record['metadata']['path'].rpartition('/')[2]}")


def test_scores_fall_in_our_order_though_cosines_do_not(service: Served) -> None:
    records = service.retrieve(SNOW, top_k=8).json()["records"]
    cosines = [record["metadata"]["similarity"] for record in records]
    assert cosines != sorted(cosines, reverse=True), "choose a question whose fused order is not that of the cosines"
    assert all(before["score"] >= after["score"] for before, after in pairwise(records))
    ceiling = 1.0
    for record, cosine in zip(records, cosines, strict=True):
        ceiling = min(ceiling, max(cosine, 0.0))
        assert record["score"] == pytest.approx(ceiling, abs=1e-5)


def test_a_record_names_its_source(service: Served) -> None:
    (leave,) = service.retrieve("days of annual leave", top_k=1).json()["records"]
    assert leave["content"].splitlines()[0] == "[leave.md › Leave › Annual leave]"
    assert "twenty-five days" in leave["content"]
    assert (leave["title"], leave["metadata"]["heading"]) == ("leave.md", "Leave > Annual leave")
    condition = {"conditions": [{"name": "path", "comparison_operator": "is", "value": "manual.pdf"}]}
    (page,) = service.retrieve("rain gauge", top_k=1, condition=condition).json()["records"]
    number = page["metadata"]["page"]
    assert page["title"] == f"manual.pdf · p.{number}"
    assert page["content"].startswith(f"[manual.pdf p.{number}")
    assert page["metadata"]["url"].endswith(f"#page={number}")


def test_a_records_link_shows_the_passage(service: Served) -> None:
    (record,) = service.retrieve("days of annual leave", top_k=1).json()["records"]
    shown = httpx.get(record["metadata"]["url"], trust_env=False)
    assert shown.text == record["content"] + "\n"
    assert shown.headers["content-type"] == "text/plain; charset=utf-8"
    assert shown.headers["x-content-type-options"] == "nosniff"


def test_top_k_and_threshold(service: Served) -> None:
    everything = service.retrieve(SNOW, top_k=100).json()["records"]
    assert len(service.retrieve(SNOW, top_k=2).json()["records"]) == 2
    assert len(service.retrieve(SNOW, top_k=None, score_threshold=None).json()["records"]) == 5  # search.top_k
    limit = everything[2]["score"]
    kept = service.retrieve(SNOW, top_k=100, score_threshold=limit).json()["records"]
    assert [record["score"] for record in kept] == [r["score"] for r in everything if r["score"] >= limit]


@pytest.mark.parametrize(
    ("name", "operator", "value", "kept"),
    [
        ("path", "contains", "2026", {"minutes/2026-03-01.md"}),
        ("path", "start with", "minutes/", {"minutes/2025-11-02.md", "minutes/2026-03-01.md"}),
        ("path", "after", "minutes/2026", {"minutes/2026-03-01.md", "plain.txt", "safety.md"}),
        ("title", "is", "Safety", {"safety.md"}),
        ("media_type", "=", "text/plain", {"plain.txt"}),
        ("heading", "empty", None, {"plain.txt"}),
        ("page", "≥", 1, {"manual.pdf"}),
    ],
)
def test_filters(service: Served, name: str, operator: str, value: object, kept: set[str]) -> None:
    condition = {
        "logical_operator": "and",
        "conditions": [{"name": name, "comparison_operator": operator, "value": value}],
    }
    assert set(service.paths(SNOW, top_k=100, condition=condition)) == kept


def test_a_filter_by_document_and_a_combination(service: Served) -> None:
    (found,) = service.retrieve("annual leave", top_k=1).json()["records"]
    by_id = {"name": "document_id", "comparison_operator": "is", "value": found["metadata"]["document_id"]}
    by_path = {"name": "path", "comparison_operator": "is", "value": "plain.txt"}
    for logic, expected in (("and", []), ("or", ["leave.md", "plain.txt"]), (None, [])):
        condition = {"logical_operator": logic, "conditions": [by_id, by_path]}
        assert sorted(service.paths(SNOW, condition=condition)) == expected
    assert service.paths("annual leave", condition=None) == service.paths("annual leave")
    assert service.paths("annual leave", condition={"conditions": []}) == service.paths("annual leave")


def test_a_knowledge_may_say_how_it_is_searched(service: Served) -> None:
    text = service.retrieve(SNOW, "default?mode=text&rerank=0").json()["records"]
    assert text
    assert all("vector_rank" not in record["metadata"] for record in text)
    assert service.client.get(text[0]["metadata"]["url"]).status_code == 200
    vector = service.retrieve(SNOW, "default?mode=vector").json()["records"]
    assert all("text_rank" not in record["metadata"] for record in vector)


@pytest.mark.parametrize("query", ["mode=all", "mode=", "rerank=yes", "colour=red", "mode"])
def test_a_way_to_search_that_is_none_is_a_400(service: Served, query: str) -> None:
    reply = service.retrieve(SNOW, f"default?{query}")
    assert (reply.status_code, reply.json()["error_code"]) == (400, 400)
    assert "mode=hybrid" in reply.json()["error_msg"]


@pytest.mark.parametrize("knowledge", ["nowhere", "empty", "../served", "", "\x00", "a" * 300, "nowhere?mode=text"])
def test_an_unknown_knowledge_is_2001(service: Served, knowledge: str) -> None:
    reply = service.retrieve(SNOW, knowledge)
    assert reply.status_code == 400
    assert set(reply.json()) == {"error_code", "error_msg"}
    assert reply.json()["error_code"] == faults.NO_SUCH_KNOWLEDGE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"{}",
        json.dumps(body(query=" ")).encode(),
        json.dumps(body(query="\ud800")).encode(),
        json.dumps(body(retrieval_setting={"top_k": 0})).encode(),
        json.dumps(body(metadata_condition={"conditions": [{"name": "path", "comparison_operator": "~"}]})).encode(),
        json.dumps(
            body(metadata_condition={"conditions": [{"name": "x", "comparison_operator": "is", "value": 1}]})
        ).encode(),
        json.dumps(
            body(metadata_condition={"conditions": [{"name": "page", "comparison_operator": ">", "value": "a"}]})
        ).encode(),
    ],
)
def test_what_is_wrong_with_a_request_is_a_4xx_that_dify_does_not_repeat(service: Served, content: bytes) -> None:
    reply = service.client.post("/retrieval", content=content, headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 422)
    assert isinstance(reply.json()["error_code"], int)
    assert reply.json()["error_msg"]


def test_a_question_longer_than_the_model_is_cut_by_us(service: Served) -> None:
    letter = "How many days of annual leave does an employee get? " + "Kind regards, and many of them. " * 400
    assert tokens.builtin().count([letter])[0] > 2 * builtin.LIMIT
    assert service.paths(letter)


# --- a model server that goes away, a generation that comes


def test_a_model_server_that_is_down_is_503_until_it_is_back(service: Served, ollama: FakeOllama) -> None:
    assert service.paths("days of annual leave", knowledge="remote") == ["leave.md"]
    ollama.kill()
    try:
        down = service.retrieve("days of annual leave", "remote")
        assert (down.status_code, down.json()["error_code"]) == (503, 503)
        assert "Ollama" in down.json()["error_msg"]
        assert service.paths("days of annual leave", top_k=1) == ["leave.md"]  # of another collection
        asked = {"model": "pipeline/remote", "input": "x"}
        assert service.client.post("/v1/embeddings", json=asked).status_code == 503
    finally:
        ollama.start()
    assert service.paths("days of annual leave", knowledge="remote") == ["leave.md"]


def test_the_remote_collection_gets_its_query_prefix(service: Served, ollama: FakeOllama) -> None:
    service.retrieve("how much leave", "remote")
    assert ollama.texts()[-1] == "Represent this sentence for searching relevant passages: how much leave"


def test_what_takes_too_long_goes_on_for_the_next_request(tmp_path: Path) -> None:
    """Dify gives up after five seconds; a model that is being loaded for it must not have to begin again."""

    async def ask() -> str:
        loaded, done = asyncio.Event(), asyncio.Event()

        async def work() -> str:
            await loaded.wait()
            done.set()
            return "result"

        shelves = shelf.Shelf(served.settings(tmp_path), Meter())
        with pytest.raises(errors.TransientFault, match="within 0 s"):
            await shelves.within(0.01, work())
        loaded.set()
        await done.wait()
        return await shelves.within(1, work())

    assert asyncio.run(ask()) == "result"


def test_a_new_generation_is_picked_up(service: Served, data: Path, tmp_path: Path) -> None:
    docs = served.write(tmp_path / "docs", {"old.md": "# Old\n\nThe lamp on the pass burns paraffin.\n"})
    given = served.settings(data)
    assert service.retrieve("lamp", "moving").json()["error_code"] == faults.NO_SUCH_KNOWLEDGE
    served.build(given, docs, "moving")
    assert service.paths("the lamp on the pass", knowledge="moving") == ["old.md"]
    served.write(docs, {"new.md": "# New\n\nSince May the lamp on the pass has been electric.\n"})
    served.build(given, docs, "moving")
    assert sorted(service.paths("the lamp on the pass", knowledge="moving")) == ["new.md", "old.md"]


def test_an_index_that_was_replaced_is_opened_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when a backup is put back: the same note, other files; or when a version's files were freed at last."""
    docs = served.write(tmp_path / "docs")
    for name in ("one", "two"):
        served.build(served.settings(tmp_path / name), docs)
    index = tmp_path / "one" / "default" / "index"
    with Served(served.settings(tmp_path / "one")) as running:
        before = running.paths(SNOW)
        shutil.rmtree(index)
        gone = running.retrieve(SNOW)
        shutil.copytree(tmp_path / "two" / "default" / "index", index)
        assert running.paths(SNOW) == before
    assert gone.status_code in (400, 500)
    assert "opened anew" in caplog.text


def test_a_failure_that_nobody_waits_for_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async def end(error: Exception) -> None:
        task = asyncio.create_task(fail(error))
        task.add_done_callback(shelf.tell_failure)
        await asyncio.wait([task])

    asyncio.run(end(errors.ModelMissing("no model here", "pull it")))
    asyncio.run(end(ZeroDivisionError("a defect")))
    missing, defect = caplog.records
    assert (missing.levelname, missing.getMessage()) == ("WARNING", "no model here\npull it")
    assert (defect.levelname, defect.exc_info is not None) == ("ERROR", True)


def test_the_servers_own_collection_is_warm_before_it_is_asked(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.serve")
    with Served(served.settings(data)) as running:
        assert running.client.get("/readyz").status_code == 200
    assert [record.getMessage() for record in caplog.records if "Opened collection" in record.getMessage()] == [
        f"Opened collection default: {chunks(data)} passages"
    ]
    with Served(served.settings(data / "nothing")) as empty:
        empty.client.get("/readyz")
    assert "There is no collection 'default'" in caplog.text


def chunks(data: Path) -> int:
    note = Collection(data, "default").published()
    assert note is not None
    return note.rows


# --- OpenAI-compatible


def chat(service: Served, question: str, **more: Any) -> httpx.Response:
    asked = {"model": "pipeline/default", "messages": [{"role": "user", "content": question}], **more}
    return service.client.post("/v1/chat/completions", json=asked)


def events(reply: httpx.Response) -> list[dict[str, Any]]:
    """The chunks of a stream, which must end with [DONE]."""
    *told, end = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
    assert end == "[DONE]"
    return [json.loads(line) for line in told]


def test_models_are_the_collections(service: Served) -> None:
    listed = service.client.get("/v1/models").json()
    assert listed["object"] == "list"
    assert {"pipeline/default", "pipeline/remote"} <= {model["id"] for model in listed["data"]}
    assert "pipeline/empty" not in {model["id"] for model in listed["data"]}
    assert all((model["object"], model["owned_by"]) == ("model", "pipeline") for model in listed["data"])


def test_a_chat_answers_with_citations(service: Served) -> None:
    reply = chat(service, "How many days of annual leave does every employee get?").json()
    (choice,) = reply["choices"]
    message = choice["message"]
    assert (reply["object"], reply["model"], choice["finish_reason"]) == ("chat.completion", "pipeline/default", "stop")
    assert "twenty-five days" in message["content"]
    (annotation,) = message["annotations"]
    cited = annotation["url_citation"]
    assert annotation["type"] == "url_citation"
    assert message["content"][cited["start_index"] : cited["end_index"]] == "[1]"
    assert cited["title"] == "leave.md"
    assert "twenty-five days" in httpx.get(cited["url"], trust_env=False).text


def test_a_streamed_chat_is_the_same_answer(service: Served) -> None:
    question = "How many days of annual leave does every employee get?"
    reply = chat(service, question, stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    chunks = events(reply)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    whole = chat(service, question).json()["choices"][0]["message"]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["content"]
    assert [delta["annotations"] for delta in deltas if "annotations" in delta] == [whole["annotations"]]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_the_last_message_of_the_user_is_the_question(service: Served) -> None:
    parts = [{"type": "text", "text": "How many days of annual leave does every employee get?"}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who tarred the roof?"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": parts},
    ]
    reply = chat(service, "", messages=messages, temperature=1, tools=[]).json()
    assert "twenty-five days" in reply["choices"][0]["message"]["content"]


def test_a_follow_up_question_is_made_to_stand_alone(service: Served, ollama: FakeOllama) -> None:
    messages = [
        {"role": "user", "content": "How many days of annual leave does every employee get?"},
        {"role": "assistant", "content": "Twenty-five days [1]."},
        {"role": "user", "content": "And who gets them?"},
    ]
    rewritten = "Which employees get twenty-five days of annual leave a year?"
    ollama.reset()
    ollama.configure(says=[rewritten, "Every employee [1]."])
    try:
        reply = chat(service, "", messages=messages).json()
        asked, answered = [entry.fields for entry in ollama.requests() if entry.endpoint == "/api/chat"]
    finally:
        ollama.configure(says=[])
    assert reply["choices"][0]["message"]["content"].startswith("Every employee [1].")
    assert "And who gets them?" in asked["messages"][-1]["content"]
    told = [message["content"] for message in answered["messages"]]
    assert rewritten in told[-1], "what is searched for is what is asked"
    assert "Twenty-five days." in told, "the answer before is sent along, without its citations"


def test_what_the_documents_do_not_answer_is_said_plainly(service: Served) -> None:
    message = chat(service, "Which orbit does the moon Phobos follow?").json()["choices"][0]["message"]
    assert "do not seem to answer" in message["content"]
    assert message["annotations"] == []


def test_without_an_answering_model_the_passages_are_marked_as_such(data: Path) -> None:
    with Served(served.settings(data)) as alone:
        content = chat(alone, "How many days of annual leave?").json()["choices"][0]["message"]["content"]
    assert "twenty-five days of annual leave a year. [1]" in content
    assert content.endswith("(No answering model: these are the passages that fit best, word for word.)")


def test_a_model_that_fails_before_its_first_word_has_a_status(service: Served, ollama: FakeOllama) -> None:
    ollama.set_fault("http500", count=1, endpoint="/api/chat")
    try:
        reply = chat(service, "How many days of annual leave?", stream=True)
    finally:
        ollama.clear_faults()
    assert reply.status_code == 503
    assert reply.json()["error"]["type"] == "server_error"


def test_a_model_that_breaks_off_ends_the_stream_with_an_error(service: Served, ollama: FakeOllama) -> None:
    ollama.set_fault("chat_cut", count=1, endpoint="/api/chat")
    try:
        chunks = events(chat(service, "How many days of annual leave?", stream=True))
    finally:
        ollama.clear_faults()
    assert "error" in chunks[-1]
    assert any("content" in chunk["choices"][0]["delta"] for chunk in chunks[:-1])


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
@pytest.mark.parametrize("model", ["pipeline/nowhere", "default", "gpt-4o", "pipeline/"])
def test_an_unknown_model_is_404_in_openais_words(service: Served, path: str, model: str) -> None:
    asked = {"model": model, "messages": [{"role": "user", "content": "x"}], "input": "x"}
    reply = service.client.post(path, json=asked)
    assert reply.status_code == 404
    assert reply.json()["error"]["code"] == "model_not_found"


def test_embeddings_are_of_the_texts_as_given(service: Served) -> None:
    texts = ["annual leave", "snow on the roof"] * 20
    asked = {"model": "pipeline/default", "input": texts}
    reply = service.client.post("/v1/embeddings", json=asked).json()
    expected = builtin.BuiltinEmbedder(builtin.spec(tokens.builtin().identity)).embed_sync(texts)
    assert [datum["index"] for datum in reply["data"]] == list(range(40))
    assert np.array([datum["embedding"] for datum in reply["data"]], np.float32) == pytest.approx(expected)
    assert reply["usage"]["prompt_tokens"] == sum(tokens.builtin().count(texts))
    asked = {"model": "pipeline/default", "input": texts[0], "encoding_format": "base64"}
    (datum,) = service.client.post("/v1/embeddings", json=asked).json()["data"]
    assert np.frombuffer(base64.b64decode(datum["embedding"]), "<f4") == pytest.approx(expected[0])


def test_embeddings_add_no_prefix(service: Served, ollama: FakeOllama) -> None:
    asked = {"model": "pipeline/remote", "input": ["a passage as given"], "dimensions": 1024}
    (datum,) = service.client.post("/v1/embeddings", json=asked).json()["data"]
    assert len(datum["embedding"]) == 1024
    assert ollama.texts()[-1] == "a passage as given"


@pytest.mark.parametrize(
    "fields", [{"input": []}, {"input": [[1, 2]]}, {"input": "word " * 900}, {"input": "x", "dimensions": 7}]
)
def test_what_cannot_be_embedded_is_refused(service: Served, fields: dict[str, Any]) -> None:
    reply = service.client.post("/v1/embeddings", json={"model": "pipeline/default", **fields})
    assert reply.status_code in (400, 422)
    assert reply.json()["error"]["type"] == "invalid_request_error"


# --- the rest


def test_health_readiness_and_what_is_served(service: Served, data: Path) -> None:
    assert service.client.get("/healthz").json() == {"status": "ok"}
    assert service.client.get("/readyz").json() == {"status": "ready"}
    assert service.client.get("/").json()["service"] == "embed-pipeline"
    with Served(served.settings(data / "nothing")) as unready:
        assert unready.client.get("/healthz").status_code == 200
        reply = unready.client.get("/readyz")
    assert (reply.status_code, reply.json()) == (503, {"status": "not ready", "reason": "NoIndex"})


def test_the_openapi_document_describes_the_interfaces(service: Served) -> None:
    paths = service.client.get("/openapi.json").json()["paths"]
    assert {"/retrieval", "/v1/models", "/v1/chat/completions", "/v1/embeddings"} <= set(paths)
    assert service.client.get("/docs").status_code == 404


def test_a_passage_that_is_not_there(service: Served) -> None:
    for path in ("/passages/default/x", "/passages/default/' OR 1=1 --", "/passages/..%2f/x", "/passages/nowhere/x"):
        assert service.client.get(path).status_code == 404


def test_a_damaged_index_is_500_without_its_path(data: Path, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    for file in (copy / "default" / "index").rglob("*.manifest"):
        file.write_bytes(b"damaged")
    with Served(served.settings(copy)) as damaged:
        reply = damaged.retrieve(SNOW)
    assert reply.status_code == 500
    assert str(tmp_path) not in reply.text


def test_the_log_holds_no_text(service: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "pipeline"):
        service.client.post("/retrieval?secret=1", json=body(query="a very private question"))
        service.client.get("/healthz")  # a line is written after its answer, and before the connection's next request
    told = caplog.text
    assert "POST /retrieval 200" in told
    assert "private" not in told
    assert "secret" not in told
    assert "roof" not in told


def test_every_error_of_ours_has_a_status() -> None:
    """Dify repeats 503 and shows it; a 4xx it takes for "nothing found": only for what the request itself did."""
    expected = {
        errors.NoIndex: 400,
        errors.UsageError: 400,
        errors.ServerUnreachable: 503,
        errors.TransientFault: 503,
        errors.ModelMissing: 503,
        errors.ModelMismatch: 503,
        errors.ServerRefused: 503,
        errors.IndexMismatch: 503,
        errors.CorruptStore: 500,
    }
    assert {kind: faults.of(kind("m", "r"), "/retrieval").status for kind in expected} == expected
    assert faults.of(errors.TextRejected("too_long", "m"), "/v1/embeddings").status == 400
