"""The contract with Dify, held byte by byte: requests exactly as its program sends them, and of our answers exactly
what it reads.

From its published source, where it was run against this server first: `ssrf_proxy.make_request` (a fresh connection,
five seconds, redirects followed, no body at registration), `external_knowledge_service.py`
(`check_endpoint_and_api_key`, `fetch_external_knowledge_retrieval`), `metadata_entities.py`, and what
`dataset_retrieval.py` and the retrieval node of workflows make of the records. `Dify` here is written from those, and
is none of its code.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import httpx
import msgspec
import pytest
from pydantic import BaseModel, ConfigDict

from pipeline import config
from pipeline.serve import conditions, faults, keys
from tests import served
from tests.fake_ollama.client import FakeOllama
from tests.served import Served

KEY, WIKI = "key-of-dify", "key-of-the-wiki"
RETRIED = frozenset({429, 500, 502, 503, 504})
# `SupportedComparisonOperator`, in its order.
OPERATORS = (
    "contains", "not contains", "start with", "end with", "is", "is not", "empty", "not empty", "in", "not in",
    "=", "≠", ">", "<", "≥", "≤", "before", "after",
)  # fmt: skip


class Metadata(BaseModel):
    """What it reads of a record's metadata. It writes score, title, dataset_id and dataset_name into it."""

    model_config = ConfigDict(extra="allow", strict=True)
    document_id: str


class Record(BaseModel):
    """`content` becomes the text of a prompt, `title` the name that its user sees."""

    model_config = ConfigDict(extra="forbid", strict=True)
    content: str
    score: float
    title: str
    metadata: Metadata


@dataclass(frozen=True)
class Dify:
    """Its calls. `endpoint` and `key`: as its user typed them."""

    endpoint: str
    key: str = KEY

    def post(self, **more: Any) -> httpx.Response:
        with httpx.Client(timeout=httpx.Timeout(5), trust_env=False) as client:  # a new one for each request
            return client.post(f"{self.endpoint}/retrieval", **more)

    def register(self) -> str:
        """What its user is told; any other status is success."""
        reply = self.post(headers={"Authorization": f"Bearer {self.key}"})
        assert reply.status_code not in RETRIED
        return {502: "Bad Gateway", 404: "Not Found", 403: "Forbidden"}.get(reply.status_code, "accepted")

    def ask(
        self,
        query: str,
        knowledge_id: str = "default",
        model: dict[str, Any] | None = None,
        condition: dict[str, Any] | None = None,
    ) -> httpx.Response:
        """`model`: its `external_retrieval_model`, as its page stores it."""
        chosen = model if model is not None else {"top_k": 4, "score_threshold": 0.5, "score_threshold_enabled": False}
        enabled = chosen.get("score_threshold_enabled") or False
        setting = {
            "top_k": chosen.get("top_k"),
            "score_threshold": chosen.get("score_threshold", 0.0) if enabled else 0.0,
        }
        sent: dict[str, Any] = {"retrieval_setting": setting, "query": query, "knowledge_id": knowledge_id}
        if condition:
            sent["metadata_condition"] = condition
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        # httpx's `data=` with a text sends it as it is; json.dumps escapes all but ASCII.
        return self.post(content=json.dumps(sent).encode(), headers=headers, follow_redirects=True)

    def records(self, *asked: Any, **more: Any) -> list[Record]:
        reply = self.ask(*asked, **more)
        assert reply.status_code == 200, reply.text
        assert set(reply.json()) == {"records"}
        return [Record.model_validate(record) for record in reply.json()["records"]]

    def paths(self, query: str, *conditions: tuple[str, str, Any], logical: str | None = "and") -> list[str]:
        listed = [
            {"name": name, "comparison_operator": operator, "value": value} for name, operator, value in conditions
        ]
        found = self.records(query, condition={"logical_operator": logical, "conditions": listed}, model={"top_k": 50})
        return [record.metadata.model_dump()["path"] for record in found]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("contract")
    docs = served.write(home / "docs")
    shutil.copy(served.MANUAL, docs / "manual.pdf")
    served.build(served.settings(home / "data"), docs)
    return home / "data"


@pytest.fixture(scope="module")
def service(data: Path) -> Iterator[Served]:
    clients = {
        "dify": config.ClientSettings(key=keys.digest(KEY)),
        "wiki": config.ClientSettings(key=keys.digest(WIKI), collections=("wiki",)),
    }
    with Served(msgspec.structs.replace(served.settings(data), clients=clients)) as running:
        yield running.warm(headers={"Authorization": f"Bearer {KEY}"})


@pytest.fixture(scope="module")
def dify(service: Served) -> Dify:
    return Dify(service.url)


# --- registration


@pytest.mark.parametrize(
    ("typed", "key", "told"),
    [
        ("", KEY, "accepted"),
        ("/", KEY, "accepted"),
        ("", "wrong", "Forbidden"),
        ("/", "wrong", "Forbidden"),
        ("", KEY.upper(), "Forbidden"),
        ("", f"{KEY} {KEY}", "Forbidden"),
        ("/retrieval", KEY, "Not Found"),  # the whole address typed in, as it stands in many guides
        ("/retrieval", "wrong", "Forbidden"),
        ("/v1", KEY, "Not Found"),
        ("/v1", "wrong", "Forbidden"),
    ],
)
def test_registration(service: Served, typed: str, key: str, told: str) -> None:
    assert Dify(service.url + typed, key).register() == told


def test_a_key_of_other_collections_registers_and_finds_nothing(service: Served) -> None:
    """Registration names no collection, so the key alone decides."""
    wiki = Dify(service.url, WIKI)
    assert wiki.register() == "accepted"
    reply = wiki.ask("snow")
    assert (reply.status_code, reply.json()["error_code"]) == (400, faults.NO_SUCH_KNOWLEDGE)


# --- records


def test_records_are_what_dify_reads_in_the_order_that_it_makes_of_them(dify: Dify) -> None:
    found = dify.records("snow on the roof of the hut", model={"top_k": 20})
    assert len(found) == 20
    assert all(0.0 <= record.score <= 1.0 and record.title and record.metadata.document_id for record in found)
    assert [record.score for record in found] == sorted((record.score for record in found), reverse=True)
    for record in found:
        shown = record.metadata.model_dump()
        assert not {"score", "title", "dataset_id", "dataset_name"} & set(shown), "it writes these itself"
        name = shown["path"].rpartition("/")[2]
        assert record.title.startswith(name)
        assert record.content.startswith(f"[{name}"), "the only trace of the source in the prompt"
        assert None not in shown.values(), "a null is shown as a value in its page"


def test_the_answer_is_json_in_one_piece(dify: Dify) -> None:
    reply = dify.ask("雪")
    assert reply.headers["content-type"] == "application/json"
    assert int(reply.headers["content-length"]) == len(reply.content)
    assert not reply.history


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ({"top_k": 2, "score_threshold_enabled": False, "score_threshold": 0.99}, 2),
        ({"top_k": 2}, 2),
        ({"top_k": 2.0}, 2),
        ({}, 5),  # null: as the server's settings say
        ({"top_k": 4, "score_threshold_enabled": True, "score_threshold": None}, 4),
        ({"top_k": 4, "score_threshold_enabled": True, "score_threshold": 1.0}, 0),
        ({"top_k": 4, "score_threshold_enabled": True, "score_threshold": 0.5}, 2),
    ],
)
def test_retrieval_settings(dify: Dify, model: dict[str, Any], count: int) -> None:
    assert len(dify.records("When was the roof tarred?", model=model)) == count


def test_more_than_there_is_to_give_is_given_as_far_as_it_goes(dify: Dify) -> None:
    """A refusal would be shown as "no records"."""
    everything = dify.records("roof", model={"top_k": 100})
    assert len(everything) > 20
    assert dify.records("roof", model={"top_k": 100_000}) == everything


def test_quotation_marks_of_its_retrieval_test_are_marks_again(dify: Dify) -> None:
    """`HitTestingService.escape_query_for_search` puts a backslash before each, its chat does not."""
    question = 'What is "annual leave"?'
    assert dify.records(question.replace('"', '\\"')) == dify.records(question)


# --- filters


def test_our_operators_are_its_operators() -> None:
    assert set(OPERATORS) <= set(get_args(conditions.Operator))


@pytest.mark.parametrize(
    ("name", "operator", "value", "kept"),
    [
        ("path", "contains", "minutes/", {"minutes/2025-11-02.md", "minutes/2026-03-01.md"}),
        ("path", "not contains", "m", {"plain.txt"}),
        ("path", "start with", "minutes/2026", {"minutes/2026-03-01.md"}),
        ("path", "end with", ".txt", {"plain.txt"}),
        ("path", "is", "leave.md", {"leave.md"}),
        ("path", "in", "leave.md, plain.txt", {"leave.md", "plain.txt"}),
        ("path", "in", ["leave.md", "plain.txt"], {"leave.md", "plain.txt"}),
        ("page", "not empty", "", {"manual.pdf"}),  # its page sends "" where there is no value
        ("page", "=", 2, {"manual.pdf"}),
        ("page", "=", "2", {"manual.pdf"}),  # a variable of the conversation is text
        ("page", ">", 99, set()),
        ("page", "≥", 1.0, {"manual.pdf"}),
        ("title", "is", "Leave", {"leave.md"}),
        ("path", "before", "m", {"leave.md"}),
        ("path", "contains", "%", set()),
        ("path", "is", None, set(served.DOCUMENTS) | {"manual.pdf"}),  # without a value it restricts nothing
    ],
)
def test_filters(dify: Dify, name: str, operator: str, value: Any, kept: set[str]) -> None:
    assert set(dify.paths("roof", (name, operator, value))) == kept


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_takes_every_kind_of_value(dify: Dify, operator: str) -> None:
    """On text: a page compared with "" is refused, and told to be."""
    tried = [("path", operator, value) for value in ("2", 2, 2.0, ["1", "2"], [1, 2.5], "", None)]
    assert set(dify.paths("roof", *tried, logical="or")) <= {*served.DOCUMENTS, "manual.pdf"}
    assert set(dify.paths("roof", *tried)) <= set(dify.paths("roof", tried[0]))


@pytest.mark.parametrize(("logical", "count"), [("and", 0), ("or", 2), (None, 0)])
def test_conditions_are_joined(dify: Dify, logical: Literal["and", "or"] | None, count: int) -> None:
    both = (("path", "is", "leave.md"), ("path", "is", "plain.txt"))
    assert len(set(dify.paths("roof", *both, logical=logical))) == count


@pytest.mark.parametrize("condition", [{"logical_operator": "and", "conditions": None}, {"conditions": []}])
def test_no_condition_restricts_nothing(dify: Dify, condition: dict[str, Any]) -> None:
    assert dify.records("roof", condition=condition) == dify.records("roof")


# --- errors


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"key": "wrong"}, 403, faults.NOT_AUTHORISED),
        ({"knowledge_id": "nonesuch"}, 400, faults.NO_SUCH_KNOWLEDGE),
        ({"knowledge_id": ""}, 400, faults.NO_SUCH_KNOWLEDGE),
        ({"knowledge_id": "default?mode=magic"}, 400, 400),
        ({"query": ""}, 400, 400),
        ({"query": "\udc00"}, 400, 400),
        ({"model": {"top_k": 0}}, 422, 422),
        ({"condition": {"conditions": [{"name": "uploader", "comparison_operator": "is", "value": "x"}]}}, 400, 400),
        ({"condition": {"conditions": [{"name": "path", "comparison_operator": "like", "value": "x"}]}}, 422, 422),
    ],
)
def test_errors_are_told_in_its_words_and_not_tried_again(
    service: Served, change: dict[str, Any], status: int, code: int
) -> None:
    asked = {"query": "roof", **change}
    reply = Dify(service.url, asked.pop("key", KEY)).ask(asked.pop("query"), **asked)
    assert reply.status_code == status
    assert set(reply.json()) == {"error_code", "error_msg"}
    assert (reply.json()["error_code"], type(reply.json()["error_msg"])) == (code, str)


def test_what_an_operator_has_to_mend_is_seen_by_its_user(tmp_path: Path) -> None:
    """503 is tried again and then shown; a 4xx would pass for "no records". Registration goes on working."""
    docs = served.write(tmp_path / "docs", {"leave.md": served.DOCUMENTS["leave.md"]})
    with FakeOllama(models=["mxbai-embed-large"]) as ollama:
        base = served.settings(tmp_path / "data", ollama=ollama.url)
        served.build(base, docs, provider="ollama")
        with Served(
            msgspec.structs.replace(base, embed=msgspec.structs.replace(base.embed, provider="ollama"))
        ) as ours:
            assert Dify(ours.warm().url).records("leave")
            ollama.set_fault("http500", endpoint="/api/embed")
            reply = Dify(ours.url).ask("leave")
            assert reply.status_code in RETRIED
            assert set(reply.json()) == {"error_code", "error_msg"}
            assert Dify(ours.url).register() == "accepted"
