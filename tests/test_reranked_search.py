"""A reranker where people meet it: `search`, `ask`, the doctor and the service, over a real collection. Also passages
with their surroundings there, and what is seen when a reranker hangs, dies, lies or is replaced."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from click.testing import Result

from pipeline import answer, asking, config, doctor_rerank, query
from pipeline.models import Message, Piece
from tests import command_line, fake_reranker, served, tiny_onnx
from tests.fake_reranker import FakeReranker
from tests.served import Served

QUESTION = "may anybody work alone on the ridge in the snow"
# By meaning and by words the first is nearest; the reranker, which counts, finds most of the question in the second.
SECTION = "# Snow\n\n## Rules\n\n{}\n\nThe keeper of the hut writes down who goes, and when.\n\n{}\n"
DOCUMENTS = {
    "snow.md": SECTION.format("Below minus ten degrees nobody works alone on the ridge.", "Ropes are checked in May."),
    "list.txt": "may anybody work alone on the in the snow on the ridge in the snow on the ridge, the song goes",
    "pay.md": "# Pay\n\nWages are paid on the last working day of the month.\n",
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranked")
    served.build(served.settings(folder / "data"), served.write(folder / "docs", DOCUMENTS))
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx.write(tmp_path / "tiny")


def invoke(home: Path, *arguments: str, env: dict[str, str] | None = None) -> Result:
    return command_line.invoke(home, "--data", str(home / "data"), *arguments, env=env)


def found(home: Path, *arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    result = invoke(home, "search", QUESTION, "--json", *arguments, env=env)
    assert result.exit_code == 0, result.stderr
    told: dict[str, Any] = json.loads(result.stdout)
    return told


# --- search


def test_the_reranker_decides_the_order_and_its_time_is_told(home: Path, model: Path) -> None:
    told = found(home, "--rerank", str(model))
    hits = told["hits"]
    assert [hit["path"] for hit in hits] == ["list.txt", "snow.md", "pay.md"]
    assert all(a["rerank"] >= b["rerank"] and a["score"] >= b["score"] for a, b in pairwise(hits))
    assert told["rerank"] | {"seconds": 0} == {"model": "tiny", "passages": 3, "cut": 0, "seconds": 0}
    assert told["rerank"]["seconds"] > 0
    explained = invoke(home, "search", QUESTION, "--rerank", str(model), "--explain")
    assert "tiny, 3 passages" in explained.stdout
    assert "rerank " in explained.stdout
    assert "tiny read 3 passages in" in explained.stderr


def test_without_one_nothing_is_said_of_it(home: Path, model: Path) -> None:
    set_ = {"PIPELINE_SEARCH_RERANK": str(model)}
    assert "rerank" in found(home, env=set_)
    told = found(home, "--no-rerank", env=set_)
    assert "rerank" not in told
    assert {hit["rerank"] for hit in told["hits"]} == {None}


def test_only_the_best_are_read_and_the_others_follow(home: Path, model: Path) -> None:
    told = found(home, "--rerank", str(model), env={"PIPELINE_SEARCH_RERANK_TOP": "1"})
    assert told["rerank"]["passages"] == 1
    assert [hit["rerank"] is None for hit in told["hits"]] == [False, True, True]


@pytest.mark.parametrize("mode", ["vector", "text"])
def test_it_reads_what_any_mode_finds(home: Path, model: Path, mode: str) -> None:
    assert found(home, "--rerank", str(model), "--mode", mode)["hits"][0]["path"] == "list.txt"


def test_a_server_does_as_well(home: Path) -> None:
    with FakeReranker(fake_reranker.tei) as fake:
        told = found(home, "--rerank", fake.url)
    assert told["rerank"]["model"] == fake.url
    assert told["hits"][0]["path"] == "list.txt"
    assert any(text.startswith("Snow > Rules\n") for text in fake.asked[-1].texts)  # headings are read with the text


# --- what goes wrong: the search fails, with its cause and what to type


@pytest.mark.parametrize(
    ("reply", "code", "said"),
    [
        ((200, {"results": []}), 5, "ranks 0 of 3 passages"),
        ((200, {"results": [{"index": n, "relevance_score": None} for n in range(3)]}), 5, "no number"),
        ((400, {"error": "model 'bge' not found"}), 6, "not found"),
        ((401, {"error": "no"}), 1, "RERANK_API_KEY"),
    ],
)
def test_a_server_that_answers_wrongly(home: Path, reply: Any, code: int, said: str) -> None:
    with FakeReranker(lambda _: reply) as fake:
        result = invoke(home, "search", QUESTION, "--rerank", fake.url)
    assert (result.exit_code, result.stdout) == (code, "")
    assert said in result.stderr


def test_a_server_that_hangs_or_has_died(home: Path) -> None:
    soon = {"PIPELINE_SEARCH_RERANK_TIMEOUT_S": "0.3"}
    with FakeReranker() as fake:
        fake.behaviour = fake.hang
        hanging = invoke(home, "search", QUESTION, "--rerank", fake.url, env=soon)
    dead = invoke(home, "search", QUESTION, "--rerank", fake.url, env=soon)
    assert (hanging.exit_code, dead.exit_code) == (5, 5)
    assert "no answer within 0.3 s" in hanging.stderr
    assert "does not answer" in dead.stderr
    assert all("--no-rerank" in result.stderr for result in (hanging, dead))


def test_a_folder_that_is_gone_or_holds_something_else(home: Path, tmp_path: Path) -> None:
    gone = invoke(home, "search", QUESTION, "--rerank", str(tmp_path / "gone"))
    other = invoke(
        home, "search", QUESTION, "--rerank", str(tiny_onnx.write(tmp_path / "x", tiny_onnx.overlap(logits=7)))
    )
    assert (gone.exit_code, other.exit_code) == (6, 5)
    assert "is not a folder" in gone.stderr
    assert "it is no cross-encoder" in other.stderr


# --- surroundings


def test_expand_shows_the_whole_section(home: Path) -> None:
    told = found(home, "--expand", "200")
    assert len(told["hits"]) == 3
    grown = next(one for one in told["passages"] if one["path"] == "snow.md")
    assert "nobody works alone" in grown["text"]
    assert grown["text"].endswith("Ropes are checked in May.")
    shown = invoke(home, "search", QUESTION, "--expand", "200").stdout
    assert "Ropes are checked in May." in shown


class Repeating:
    """A generator that keeps what it was sent and cites the first passage."""

    model = "repeating"
    context_tokens = 4096

    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def stream(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[Piece]:
        self.sent = list(messages)
        yield Piece(text="Nobody works alone on the ridge [1].")
        yield Piece(text="", done=True, done_reason="stop")

    async def aclose(self) -> None: ...


def asked(home: Path, **ask: Any) -> tuple[str, answer.Answer]:
    """The prompt and the answer."""
    settings = msgspec.structs.replace(served.settings(home / "data"), ask=config.AskSettings(**ask))
    generator = Repeating()

    async def run() -> answer.Answer:
        events = [event async for event in asking.ask(settings, QUESTION, asking.Wish(force=True, generator=generator))]
        assert isinstance(events[-1], answer.Answer)
        return events[-1]

    ending = asyncio.run(run())
    return generator.sent[-1].content, ending


def test_the_model_is_shown_the_surroundings_and_sources_say_so(tmp_path: Path) -> None:
    long = SECTION.format(
        "Nobody works alone on the ridge in the snow. " + "It is cold there in winter. " * 60, "Ropes."
    )
    served.build(served.settings(tmp_path / "data"), served.write(tmp_path / "docs", {"snow.md": long}))
    bare, _ = asked(tmp_path, passages=1)
    prompt, ending = asked(tmp_path, passages=1, expand=1_000)
    assert "Ropes." not in bare
    assert "Ropes." in prompt
    source = ending.sources[0].hit
    assert source.text.endswith("Ropes.")
    assert long[source.start : source.end] == source.text
    assert ending.citations[0].number == 1


def test_no_hit_loses_its_place_to_the_surroundings_of_another(home: Path) -> None:
    for budget in (100, 150, 200, 400):
        bare, _ = asked(home, context_tokens=budget)
        grown, _ = asked(home, context_tokens=budget, expand=1_000)
        assert bare.count("<passage>") <= grown.count("<passage>")


# --- doctor


def doctor(**search: Any) -> list[Any]:
    settings = config.Settings(search=config.SearchSettings(**search))
    return asyncio.run(doctor_rerank.check(settings, {}, 5.0))


def test_doctor_tries_it(model: Path, tmp_path: Path) -> None:
    assert doctor() == []
    (good,) = doctor(rerank=str(model))
    assert (good.level, good.name) == ("pass", "reranker")
    assert "tells answers in English and Chinese" in good.detail
    assert "ms a passage" in good.detail
    (upside_down,) = doctor(rerank=str(tiny_onnx.write(tmp_path / "down", tiny_onnx.overlap(scale=-0.1))))
    assert (upside_down.level, "near misses above answers" in upside_down.detail) == ("fail", True)
    (absent,) = doctor(rerank=str(tmp_path / "absent"))
    assert absent.level == "fail"
    with FakeReranker(lambda _: (401, {})) as fake:
        (refused,) = doctor(rerank=fake.url)
    assert "RERANK_API_KEY" in refused.remedy


# --- the service


def serving(home: Path, **search: Any) -> Served:
    return Served(msgspec.structs.replace(served.settings(home / "data"), search=config.SearchSettings(**search)))


def ranked(service: Served, **body: Any) -> httpx.Response:
    return service.client.post("/v1/rerank", json={"query": "snow on the ridge", **body})


DOCS = ["wages are paid", "the snow lies on the ridge", "snow"]


def test_rerank_by_the_embedder_says_that_it_is_a_cosine(home: Path) -> None:
    with serving(home) as service:
        told = ranked(service, documents=[DOCS[0], {"text": DOCS[1]}, DOCS[2]], top_n=2, return_documents=True).json()
        assert told["model"] == "all-minilm-l6-v2 (cosine)"
        assert [one["index"] for one in told["results"]] == [1, 2]
        assert told["results"][0]["document"] == {"text": DOCS[1]}
        assert 1 >= told["results"][0]["relevance_score"] > told["results"][1]["relevance_score"] >= 0
        named = ranked(service, documents=DOCS, model="pipeline/default").json()
        assert len(named["results"]) == 3
        assert "document" not in named["results"][0]
        long = ranked(service, documents=["snow " * 2_000, "wages"])
        assert [one["index"] for one in long.json()["results"]] == [0, 1]
        for wrong in ({"documents": []}, {"documents": ["a", " "]}, {"documents": ["a"] * 1_001}):
            assert ranked(service, **wrong).status_code == 400
        assert ranked(service, documents=["a"], model="pipeline/none").status_code == 404
        assert ranked(service, documents=["a"], top_n=0).status_code == 422


def test_rerank_by_the_reranker_of_the_settings(home: Path, model: Path) -> None:
    with serving(home, rerank=str(model)) as service:
        told = ranked(service, documents=DOCS).json()
    assert told["model"] == "tiny"
    assert [one["index"] for one in told["results"]] == [1, 2, 0]


def test_our_own_service_is_a_reranking_server(home: Path, model: Path) -> None:
    with serving(home, rerank=str(model)) as service:
        told = found(home, "--rerank", service.url)
    assert told["hits"][0]["path"] == "list.txt"


def test_retrieval_is_reranked_by_many_at_once(home: Path, model: Path) -> None:
    with serving(home, rerank=str(model)) as service, ThreadPoolExecutor(24) as threads:
        replies = list(threads.map(lambda _: service.paths(QUESTION), range(48)))
        assert {tuple(paths) for paths in replies} == {("list.txt", "snow.md", "pay.md")}
        scores = [record["score"] for record in service.retrieve(QUESTION).json()["records"]]
        assert scores == sorted(scores, reverse=True)


def test_a_model_that_is_replaced_or_gone_while_the_service_runs(home: Path, model: Path) -> None:
    with serving(home, rerank=str(model)) as service:
        assert service.paths(QUESTION)[0] == "list.txt"
        (model / "model.onnx").write_bytes(tiny_onnx.overlap(scale=-0.1))
        assert service.paths(QUESTION)[-1] == "list.txt"
        shutil.move(model, model.with_name("away"))
        gone = service.retrieve(QUESTION)
        assert (gone.status_code, "is not a folder" in gone.text) == (503, True)
        shutil.move(model.with_name("away"), model)
        assert service.paths(QUESTION)[-1] == "list.txt"


def test_a_server_that_dies_and_comes_back_while_the_service_runs(home: Path) -> None:
    with FakeReranker() as fake, serving(home, rerank=fake.url, rerank_timeout_s=2.0) as service:
        assert service.paths(QUESTION)[0] == "list.txt"
        fake.behaviour = lambda _: (502, {"error": "upstream"})
        assert service.retrieve(QUESTION).status_code == 503
        fake.behaviour = fake_reranker.jina
        assert service.paths(QUESTION)[0] == "list.txt"


def test_a_search_offers_as_many_as_the_reranker_reads(home: Path) -> None:
    spec = query.open_collection(served.settings(home / "data")).spec
    wanted = config.Settings(search=config.SearchSettings(rerank="x", rerank_top=17))
    assert query.search_params(wanted, spec).offered == 17
    assert query.search_params(config.Settings(), spec).offered == 0
