"""Rerankers: a real ONNX graph with countable scores, servers in each of their shapes, and what is not believed."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline import config, errors, reranking
from pipeline.models import rerank, rerank_onnx, rerank_server
from tests import fake_reranker, tiny_onnx
from tests.fake_reranker import Asked, FakeReranker
from tests.test_expansion import hit

QUESTION = "who feeds the cat"
TEXTS = ["nobody is here", "she feeds the cat", "the cat sleeps"]


def scored(
    reranker: rerank.Reranker, texts: Sequence[str] = TEXTS, question: str = QUESTION, **limits: Any
) -> rerank.Scores:
    async def ask() -> rerank.Scores:
        try:
            return await reranker.score(question, texts, **{"timeout_s": 20.0, **limits})
        finally:
            await reranker.aclose()

    return asyncio.run(ask())


def logit(value: float) -> float:
    return math.log(value / (1 - value))


# --- a folder


def onnx(folder: Path, model: bytes | None = None, **options: Any) -> rerank_onnx.OnnxReranker:
    return rerank_onnx.OnnxReranker(tiny_onnx.write(folder, model), **options)


@pytest.mark.parametrize("kind", [tiny_onnx.INT64, tiny_onnx.INT32])
@pytest.mark.parametrize("logits", [1, 2])
def test_scores_are_those_of_the_graph(tmp_path: Path, logits: int, kind: int) -> None:
    found = scored(onnx(tmp_path, tiny_onnx.overlap(logits=logits, kind=kind)))
    # Shared words and the [SEP]: 1, 3 + 1, 2 + 1; in tenths.
    assert [logit(value) for value in found.values] == pytest.approx([0.1, 0.4, 0.3], abs=1e-6)
    assert found.cut == 0


def test_a_score_depends_on_its_pair_alone(tmp_path: Path) -> None:
    many = TEXTS * 10
    whole = scored(onnx(tmp_path / "a", threads=4), many).values
    assert whole == tuple(scored(onnx(tmp_path / "b", threads=1), TEXTS).values * 10)


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx", "model_quantized.onnx", "onnx/model_int8.onnx"])
def test_a_folder_may_lie_as_hubs_lay_it_out(tmp_path: Path, place: str) -> None:
    reranker = rerank_onnx.OnnxReranker(tiny_onnx.write(tmp_path, name=place))
    assert reranker.name == tmp_path.name
    assert len(scored(reranker).values) == 3


def test_no_passages_are_no_work(tmp_path: Path) -> None:
    assert scored(onnx(tmp_path), []) == rerank.Scores(values=())


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({}, 512),
        ({"config.json": {"max_position_embeddings": 128}}, 128),
        ({"config.json": {"max_position_embeddings": 514, "model_type": "xlm-roberta"}}, 512),
        ({"config.json": {"max_position_embeddings": 512}, "tokenizer_config.json": {"model_max_length": 256}}, 256),
        ({"tokenizer_config.json": {"model_max_length": 1e30}}, 512),
        ({"config.json": {"max_position_embeddings": 1_000_000 - 1}}, rerank_onnx.LONGEST),
        ({"config.json": []}, 512),
    ],
)
def test_the_limit_is_what_the_files_say(tmp_path: Path, files: dict[str, Any], limit: int) -> None:
    tiny_onnx.write(tmp_path)
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert rerank_onnx.look(tmp_path).limit == limit


def test_a_passage_too_long_loses_its_end_and_is_counted(tmp_path: Path) -> None:
    (tiny_onnx.write(tmp_path) / "config.json").write_text('{"max_position_embeddings": 20}')
    fits, cut = "the cat " + "so " * 4, "so " * 400 + "feeds the cat"
    found = scored(rerank_onnx.OnnxReranker(tmp_path), [fits, cut, cut])
    assert found.cut == 2
    assert [logit(value) for value in found.values] == pytest.approx([0.3, 0.1, 0.1], abs=1e-6)


def test_a_question_too_long_leaves_half_of_the_room_to_the_passage(tmp_path: Path) -> None:
    (tiny_onnx.write(tmp_path) / "config.json").write_text('{"max_position_embeddings": 20}')
    found = scored(rerank_onnx.OnnxReranker(tmp_path), ["cat cat"], question="cat " * 600)
    assert logit(found.values[0]) == pytest.approx(0.1 * (10 * 2 + 1), abs=1e-6)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (tiny_onnx.overlap(scale=math.nan), "3 of 3 passages a score that is no number"),
        (tiny_onnx.overlap(scale=math.inf), "3 of 3 passages a score that is no number"),
        (tiny_onnx.overlap(logits=3), r"shape \(1, 3\) for a pair, not one or two logits"),
        (tiny_onnx.overlap(rank=3, logits=5), r"shape \(1, 1, 5\) for a pair"),
        (tiny_onnx.overlap(extra="pixel_values"), "wants the input 'pixel_values'"),
        (tiny_onnx.overlap(kind=tiny_onnx.FLOAT), "cannot load|wants the input"),
        (b"not a graph", "onnxruntime cannot load"),
    ],
)
def test_what_is_no_cross_encoder_is_refused(tmp_path: Path, model: bytes, said: str) -> None:
    with pytest.raises(errors.ModelError, match=said) as raised:
        scored(onnx(tmp_path, model))
    assert raised.value.exit_code == 5
    assert "--no-rerank" in raised.value.remedy


def test_a_folder_without_a_model_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(errors.ModelMissing, match="is not a folder"):
        rerank_onnx.look(tmp_path / "absent")
    with pytest.raises(errors.ModelMissing, match=r"has no model\.onnx and no tokenizer\.json"):
        rerank_onnx.look(tmp_path)
    (tiny_onnx.write(tmp_path) / "tokenizer.json").unlink()
    with pytest.raises(errors.ModelMissing, match=r"has no tokenizer\.json") as raised:
        rerank_onnx.look(tmp_path)
    assert raised.value.exit_code == 6
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(errors.ModelError, match=r"tokenizer\.json cannot be read"):
        scored(rerank_onnx.OnnxReranker(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(errors.ModelError, match=r"config\.json cannot be read"):
        rerank_onnx.look(tmp_path)


def test_a_folder_that_changed_is_noticed(tmp_path: Path) -> None:
    reranker = onnx(tmp_path)
    assert not reranker.changed
    (tmp_path / "model.onnx").write_bytes(tiny_onnx.overlap(logits=2))
    assert reranker.changed
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(errors.ModelMissing):
        _ = reranker.changed


def test_time_ends_it(tmp_path: Path) -> None:
    begun_s = time.process_time()
    with pytest.raises(errors.TransientFault, match=r"did not read 3000 passages within 0\.2 s") as raised:
        scored(onnx(tmp_path, threads=1), ["the cat " * 250] * 3_000, timeout_s=0.2)
    assert time.process_time() - begun_s < 3  # pairs that were not begun are dropped; all of them take 10 s
    assert "rerank_top" in raised.value.remedy


# --- a server


def server(url: str, **options: Any) -> rerank_server.ServerReranker:
    return rerank_server.ServerReranker(url, **options)


@pytest.mark.parametrize(
    ("behaviour", "paths"),
    [
        (fake_reranker.jina, ["/v1/rerank"]),
        (fake_reranker.tei, ["/v1/rerank", "/rerank", "/rerank"]),
        (fake_reranker.infinity, ["/v1/rerank", "/rerank"]),
    ],
)
def test_each_shape_is_found_and_kept(behaviour: Any, paths: list[str]) -> None:
    async def twice(url: str) -> list[rerank.Scores]:
        reranker = server(url)
        await reranker.open()
        try:
            return [await reranker.score(QUESTION, TEXTS, timeout_s=20) for _ in range(2)]
        finally:
            await reranker.aclose()

    with FakeReranker(behaviour) as fake:
        found = asyncio.run(twice(fake.url))
    assert [one.values for one in found] == [(0.0, 0.3, 0.2)] * 2
    assert [asked.path for asked in fake.asked] == [*paths, paths[-1]]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("", "/v1/rerank"),
        ("/", "/v1/rerank"),
        ("/v1", "/v1/rerank"),
        ("/v2/rerank", "/v2/rerank"),
        ("/some/where/v1/", "/some/where/v1/rerank"),
    ],
)
def test_an_address_with_a_path_is_taken_at_its_word(given: str, path: str) -> None:
    with FakeReranker() as fake:
        scored(server(fake.url + given))
    assert [asked.path for asked in fake.asked] == [path]


def test_what_is_sent() -> None:
    with FakeReranker() as fake:
        reranker = server(fake.url, model="bge", key="secret")
        scored(reranker)
    (asked,) = fake.asked
    assert asked.body == {"model": "bge", "query": QUESTION, "documents": TEXTS, "top_n": 3}
    assert asked.key == "Bearer secret"
    assert reranker.name == "bge"
    assert server(fake.url).name == fake.url
    assert scored(server(fake.url), []) == rerank.Scores(values=())  # no request: nobody listens there any more


def results(*pairs: tuple[int, float | None]) -> tuple[int, Any]:
    return 200, {"results": [{"index": index, "relevance_score": score} for index, score in pairs]}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (results((0, 0.1), (1, 0.2)), "ranks 2 of 3 passages"),
        (results((0, 0.1), (1, 0.2), (1, 0.3)), "ranks passage 1 twice"),
        (results((0, 0.1), (1, 0.2), (3, 0.3)), "ranks passage 3 of 3"),
        (results((0, 0.1), (1, 0.2), (-1, 0.3)), "ranks passage -1 of 3"),
        (results((0, 0.1), (1, 0.2), (2, None)), "1 of 3 passages a score that is no number"),
        ((200, {"data": []}), "sent no results"),
    ],
)
def test_an_order_that_cannot_be_right_is_refused(reply: tuple[int, Any], said: str) -> None:
    with FakeReranker(queue=[reply]) as fake, pytest.raises(errors.ModelError, match=said) as raised:
        scored(server(fake.url))
    assert raised.value.exit_code == 5
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        ((401, {"message": "no key"}), errors.ServerRefused, "401: no key"),
        ((404, {}), errors.ServerRefused, "has no /v1/rerank and no /rerank"),
        ((400, {"error": "model 'x' not found"}), errors.ModelMissing, "model 'x' not found"),
        ((422, {"error": "batch size 40 > maximum allowed batch size 32"}), errors.ServerRefused, "batch size 40"),
        ((500, {"error": "input is too large to process"}), errors.ServerRefused, "too large to process"),
        ((501, {"error": {"message": "This server does not support reranking."}}), errors.ServerRefused, "support"),
        ((424, {"error": "model is not a re-ranker model"}), errors.ServerRefused, "not a re-ranker"),
        ((200, b"<html>"), errors.TransientFault, "cannot be read"),
        ((400, {"error": '"query" must be provided'}), errors.ServerRefused, "must be provided"),
    ],
)
def test_a_refusal_is_told_in_our_words(reply: tuple[int, Any], kind: type[errors.ModelError], said: str) -> None:
    with FakeReranker(lambda _: reply) as fake, pytest.raises(kind, match=said) as raised:
        scored(server(fake.url, key_name="RERANK_API_KEY"))
    assert raised.value.remedy
    assert len(fake.asked) <= 4  # once in each way


def test_a_server_that_loads_its_model_is_asked_again() -> None:
    with FakeReranker(queue=[(503, {"error": {"message": "Loading model"}})]) as fake:
        assert scored(server(fake.url)).values == (0.0, 0.3, 0.2)
    assert len(fake.asked) == 2


def test_a_server_that_hangs_costs_its_deadline() -> None:
    with FakeReranker() as fake:
        fake.behaviour = fake.hang
        with pytest.raises(errors.TransientFault, match=r"no answer within 0\.3 s") as raised:
            scored(server(fake.url), timeout_s=0.3)
    assert (raised.value.exit_code, "--no-rerank" in raised.value.remedy) == (5, True)


def test_a_server_that_is_not_there() -> None:
    with FakeReranker() as fake:
        url = fake.url
    with pytest.raises(errors.ServerUnreachable, match="does not answer") as raised:
        scored(server(url))
    assert "--no-rerank" in raised.value.remedy


# --- which of the two


def settings(**search: Any) -> config.Settings:
    return config.Settings(search=config.SearchSettings(**search))


def test_the_setting_says_which(tmp_path: Path) -> None:
    assert rerank.create(settings()) is None
    assert isinstance(rerank.create(settings(rerank=str(tiny_onnx.write(tmp_path)))), rerank_onnx.OnnxReranker)
    with pytest.raises(errors.ModelMissing):
        rerank.create(settings(rerank=str(tmp_path / "nowhere")))
    with FakeReranker() as fake:
        named = settings(rerank=fake.url, rerank_model="bge", rerank_key_env="KEY")
        found = rerank.create(named, {"KEY": "secret"})
        assert found is not None
        scored(found)
    assert (fake.asked[0].key, fake.asked[0].body["model"]) == ("Bearer secret", "bge")


# --- hits


class ByLength:
    """A reranker that likes long passages, and two of one length equally."""

    name = "by length"
    changed = False

    def __init__(self) -> None:
        self.read: list[str] = []

    async def open(self) -> None: ...

    async def score(self, question: str, texts: Sequence[str], *, timeout_s: float) -> rerank.Scores:
        self.read += texts
        return rerank.Scores(values=tuple(float(len(text)) for text in texts), cut=1)

    async def aclose(self) -> None: ...


def test_hits_are_put_in_its_order_and_the_rest_follows() -> None:
    hits = [hit("d", n, n + len(text), text) for n, text in enumerate(["aa", "bbbb", "cc", "dddd", "e", "ffffff"])]
    by_length = ByLength()
    reordering = reranking.Reordering(by_length, QUESTION, top=5, timeout_s=1, run=asyncio.run)
    found = reordering(hits)
    assert [one.text for one in found] == ["bbbb", "dddd", "aa", "cc", "e", "ffffff"]
    assert [one.rerank for one in found] == [4.0, 4.0, 2.0, 2.0, 1.0, None]
    assert {one.score for one in found} == {0.5}
    assert len(by_length.read) == 5
    assert reordering.work is not None
    assert reordering.work.to_json() | {"seconds": 0} == {"model": "by length", "passages": 5, "cut": 1, "seconds": 0}


def test_nothing_found_is_nothing_to_read() -> None:
    reordering = reranking.Reordering(ByLength(), QUESTION, top=5, timeout_s=1, run=asyncio.run)
    assert (reordering([]), reordering.work) == ([], None)


def test_the_model_reads_the_heading_with_the_passage() -> None:
    from dataclasses import replace

    plain = hit("d", 0, 4, "text")
    assert reranking.passage(plain) == "text"
    assert reranking.passage(replace(plain, heading="Leave > Annual")) == "Leave > Annual\ntext"


def test_what_was_asked_is_seen() -> None:
    asked = Asked(path="/rerank", body={"query": "a b", "texts": ["b c", "d"]}, key="")
    assert fake_reranker.scores(asked) == [0.1, 0.0]
