"""How much a client may ask, of what, and for how long: on real sockets, with limits that a test can reach."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import httpx
import msgspec
import pytest

from pipeline import config
from pipeline.serve import keys, patience
from pipeline.serve.limits import Rates
from tests import served
from tests.fake_ollama.client import FakeOllama
from tests.served import Served

ALL, WIKI, SLOW = "key-of-all", "key-of-the-wiki", "key-of-the-slow"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.with_wiki(tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def service(data: Path) -> Iterator[Served]:
    clients = {
        "all": config.ClientSettings(key=keys.digest(ALL)),
        "wiki": config.ClientSettings(key=keys.digest(WIKI), collections=("wiki",)),
        "slow": config.ClientSettings(key=keys.digest(SLOW), rate=2),
    }
    with Served(msgspec.structs.replace(served.settings(data), clients=clients)) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


# --- collections


def test_a_key_opens_its_own_collections_alone(service: Served) -> None:
    own = service.retrieve("roof", "wiki", headers=bearer(WIKI))
    assert [record["metadata"]["path"] for record in own.json()["records"]] == ["roof.md"]
    foreign = service.retrieve("roof", "default", headers=bearer(WIKI))
    missing = service.retrieve("roof", "nonesuch", headers=bearer(WIKI))
    assert (foreign.status_code, foreign.json()["error_code"]) == (400, 2001)
    assert foreign.json()["error_msg"].replace("default", "nonesuch") == missing.json()["error_msg"], "tells nothing"
    assert service.retrieve("roof", "default", headers=bearer(ALL)).status_code == 200


def test_other_ways_to_a_collection_are_closed_as_well(service: Served) -> None:
    found = service.retrieve("roof", headers=bearer(ALL)).json()["records"][0]["metadata"]
    passage = httpx.URL(found["url"]).path
    assert service.client.get(passage, headers=bearer(ALL)).status_code == 200
    assert service.client.get(passage, headers=bearer(WIKI)).status_code == 404
    models = service.client.get("/v1/models", headers=bearer(WIKI)).json()["data"]
    assert [model["id"] for model in models] == ["pipeline/wiki"]
    for path, more in (
        ("/v1/embeddings", {"input": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
    ):
        asked: dict[str, Any] = {"model": "pipeline/default", **more}
        assert service.client.post(path, json=asked, headers=bearer(WIKI)).status_code == 404
        assert service.client.post(path, json=asked, headers=bearer(ALL)).status_code in (200, 503)


# --- rates


def test_a_client_that_asks_too_often_is_told_when_to_come_again(service: Served) -> None:
    statuses = [service.client.get("/v1/models", headers=bearer(SLOW)) for _ in range(3)]
    assert [reply.status_code for reply in statuses] == [200, 200, 429]
    assert 1 <= int(statuses[-1].headers["Retry-After"]) <= 30
    assert statuses[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert service.client.get("/v1/models", headers=bearer(ALL)).status_code == 200, "the others go on"


def test_a_rate_is_a_minutes_worth_that_fills_evenly() -> None:
    now = [100.0]
    rates, client = Rates(lambda: now[0]), keys.Client(digest="d", rate=6)
    assert [rates.wait_s(client) for _ in range(8)] == [0] * 6 + [10, 10]
    now[0] += 10
    assert [rates.wait_s(client), rates.wait_s(client)] == [0, 10]
    now[0] += 3600
    assert [rates.wait_s(client) for _ in range(7)] == [0] * 6 + [10], "no more than a minute's"
    assert rates.wait_s(keys.Client(digest="other", rate=1)) == 0
    assert [rates.wait_s(keys.Client(digest="free")) for _ in range(99)] == [0] * 99


# --- how many at once, and how long


def test_a_server_that_is_busy_says_so_and_its_health_still_answers(data: Path) -> None:
    with FakeOllama(models=["mxbai-embed-large", "llama3.2"]) as ollama:
        given = served.settings(data, ollama=ollama.url, concurrency=1, request_s=1.5)
        with Served(given) as running:
            running.retrieve("roof")  # opened and warm
            ollama.set_fault("hang", endpoint="/api/chat")
            asked = {"model": "pipeline/default", "messages": [{"role": "user", "content": "When is the roof tarred?"}]}
            url, replies = f"{running.url}/v1/chat/completions", list[httpx.Response]()
            first = threading.Thread(
                target=lambda: replies.append(httpx.post(url, json=asked, timeout=30, trust_env=False))
            )
            first.start()
            while not ollama.faults()[0]["fired"]:
                assert first.is_alive()
            busy = running.client.get("/v1/models")
            assert (busy.status_code, busy.headers["Retry-After"]) == (503, "1")
            assert running.client.get("/healthz").status_code == 200
            first.join()
            assert replies[0].status_code == 503
            assert "within 1.5 s" in replies[0].json()["error"]["message"]
            assert running.client.get("/v1/models").status_code == 200


class Hurried(patience.ImpatientProtocol):
    head_s = 0.3


def test_a_request_that_does_not_come_to_its_end_is_not_waited_for(tmp_path: Path) -> None:
    with Served(served.settings(tmp_path), protocol=Hurried) as running:
        address = ("127.0.0.1", int(running.url.rpartition(":")[2]))
        for begun in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"):
            with socket.create_connection(address, timeout=20) as connection:
                connection.sendall(begun)
                assert connection.recv(1000) == b"", "closed by the server"
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(1000).startswith(b"HTTP/1.1 200")
            connection.sendall(b"GET /heal")
            while (last := connection.recv(1000)) != b"":
                assert b"ok" in last, "the rest of the first answer, and nothing of the second"


# --- other origins, and figures


class Prompt(patience.ImpatientProtocol):
    """Notes of each connection whether its packets are sent at once."""

    noted: ClassVar[list[int]] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        self.noted.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def test_no_packet_of_an_answer_waits_for_the_one_before(tmp_path: Path) -> None:
    """Without this every answer on a connection that is kept takes 40 ms longer."""
    with Served(served.settings(tmp_path), Prompt) as running:
        assert running.client.get("/healthz").status_code == 200
    assert Prompt.noted
    assert all(Prompt.noted)


def test_pages_of_named_origins_may_read_and_others_may_not(data: Path) -> None:
    wiki = "https://wiki.example.org"
    with Served(served.settings(data, origins=(wiki,), keys=(keys.digest(ALL),))) as running:
        asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        allowed = running.client.options("/v1/models", headers={"Origin": wiki, **asking})
        assert (allowed.status_code, allowed.headers["Access-Control-Allow-Origin"]) == (200, wiki)
        other = running.client.options("/v1/models", headers={"Origin": "https://evil.example", **asking})
        assert "Access-Control-Allow-Origin" not in other.headers
        read = running.client.get("/v1/models", headers={"Origin": wiki, **bearer(ALL)})
        assert read.headers["Access-Control-Allow-Origin"] == wiki
        assert running.client.get("/v1/models", headers={"Origin": wiki}).status_code == 401


def test_metrics_tell_routes_and_refusals_and_no_text(service: Served) -> None:
    assert service.client.get("/metrics").status_code == 401
    service.retrieve("a very secret question", headers=bearer(ALL))
    service.client.get("/passages/default/0123456789abcdef", headers=bearer(ALL))
    reply = service.client.get("/metrics", headers=bearer(ALL))
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    figures = {name: float(value) for name, value in re.findall(r"^(pipeline_\S+) (\S+)$", reply.text, re.MULTILINE)}
    assert figures['pipeline_http_requests_total{method="POST",route="/retrieval",status="200"}'] >= 1
    assert (
        figures['pipeline_http_requests_total{method="GET",route="/passages/{collection}/{chunk_id}",status="404"}']
        >= 1
    )
    assert figures['pipeline_http_refused_total{reason="key"}'] >= 1
    assert figures["pipeline_http_requests_under_way"] == 1
    assert figures['pipeline_collection_passages{collection="default"}'] == len(served.DOCUMENTS)
    assert figures['pipeline_collection_snapshot{collection="default"}'] >= 1
    assert "secret" not in reply.text
