"""Who is let in: keys, Host headers, sizes, addresses; on a real socket, and byte by byte where a client would not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline import config, errors
from pipeline.serve import faults, guard, instructions, keys, server
from tests import served
from tests.served import Served

KEY = "a-key-of-the-test"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with two keys, over no collection: what is let in gets as far as "no such knowledge"."""
    hashes = (keys.digest("another"), keys.digest(KEY))
    with Served(served.settings(tmp_path_factory.mktemp("locked"), keys=hashes)) as running:
        yield running


def authorization(value: str) -> dict[str, str]:
    return {"Authorization": value}


# --- keys


def test_a_new_key_is_long_and_only_its_hash_is_known() -> None:
    one, other = keys.new(), keys.new()
    assert one != other
    assert len(one) > 40
    client = keys.Client(digest=keys.digest(one))
    accepted = keys.Keys([client])
    assert accepted.required
    assert accepted.admit(one) == client
    assert not any(accepted.admit(wrong) for wrong in (other, "", one[:-1], f"{one}x", keys.digest(one)))
    assert not keys.Keys([]).required


def test_the_keys_of_the_settings_are_both_kinds() -> None:
    named = config.ClientSettings(key=keys.digest("named"), collections=("wiki",), rate=7)
    given = config.Settings(serve=config.ServeSettings(keys=(keys.digest("plain"),)), clients={"dify": named})
    accepted = keys.Keys.of(given)
    plain, client = accepted.admit("plain"), accepted.admit("named")
    assert plain is not None
    assert client is not None
    assert (plain.name, plain.rate, plain.may_ask("any")) == ("", 0, True)
    assert (client.name, client.rate, client.may_ask("wiki"), client.may_ask("any")) == ("dify", 7, True, False)


@pytest.mark.parametrize("path", ["/retrieval", "//retrieval"])
def test_registration_tells_good_keys_from_bad_ones(locked: Served, path: str) -> None:
    """Dify's probe: a header and no body. 401 it takes for success, 404 for a wrong address."""
    url = locked.url + path
    good = httpx.post(url, headers=authorization(f"Bearer {KEY}"), trust_env=False)
    bad = httpx.post(url, headers=authorization("Bearer wrong"), trust_env=False)
    assert good.status_code in (400, 422)
    assert (bad.status_code, bad.json()["error_code"]) == (403, faults.NOT_AUTHORISED)
    assert httpx.post(url, headers=authorization("Bearer another"), trust_env=False).status_code == good.status_code


@pytest.mark.parametrize("value", ["", "Bearer", "Basic abc", KEY, f"Token {KEY}"])
def test_a_malformed_header_is_1001(locked: Served, value: str) -> None:
    reply = locked.retrieve("x", headers=authorization(value) if value else {})
    assert (reply.status_code, reply.json()["error_code"]) == (403, faults.MALFORMED)


def test_two_headers_are_malformed(locked: Served) -> None:
    headers = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer wrong")]
    reply = locked.client.post("/retrieval", headers=headers)
    assert (reply.status_code, reply.json()["error_code"]) == (403, faults.MALFORMED)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/openapi.json", "/passages/a/b", "/nothing"])
def test_everything_else_is_401_without_a_key(locked: Served, path: str) -> None:
    for headers in ({}, authorization("Bearer wrong")):
        reply = locked.client.post(path, headers=headers)
        assert reply.status_code == 401
        assert reply.headers["www-authenticate"] == "Bearer"
    reply = locked.client.get("/v1/models", headers=authorization("Bearer wrong"))
    assert reply.json()["error"]["code"] == "invalid_api_key"
    assert locked.client.get("/v1/models", headers=authorization(f"bearer {KEY}")).json()["data"] == []


def test_health_needs_no_key_and_tells_nothing(locked: Served) -> None:
    assert locked.client.get("/healthz").status_code == 200
    assert locked.client.get("/readyz").json() == {"status": "not ready", "reason": "NoIndex"}


# --- Host headers, sizes, methods, origins


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8765", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8765", 200),
        ("host.docker.internal:8765", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:8765", 421),
        ("[::2]", 421),
        ("", 421),
    ],
)
def test_only_known_names_are_answered_on_loopback(locked: Served, host: str, status: int) -> None:
    assert locked.client.get("/healthz", headers={"Host": host}).status_code == status


def test_a_name_that_was_configured_is_known(tmp_path: Path) -> None:
    with Served(served.settings(tmp_path, host="localhost")) as running:
        assert running.client.get("/healthz").status_code == 200
        assert running.url.startswith("http://127.0.0.1:")


def exchange(running: Served, sent: bytes) -> bytes:
    """What comes back for these bytes, until the server closes."""
    host, port = running.client.base_url.host, running.client.base_url.port
    assert port is not None
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(sent)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_body_has_a_limit(locked: Served) -> None:
    headers = authorization(f"Bearer {KEY}") | {"Content-Type": "application/json"}
    fits = b'{"x": "' + b"a" * (guard.BODY_BYTES - 9) + b'"}'
    assert len(fits) == guard.BODY_BYTES
    assert locked.client.post("/retrieval", content=fits, headers=headers).status_code == 422
    too_large = locked.client.post("/retrieval", content=fits + b" ", headers=headers)
    assert (too_large.status_code, too_large.json()["error_code"]) == (413, 413)
    in_chunks = locked.client.post("/retrieval", content=iter([fits, b" "]), headers=headers)
    assert in_chunks.status_code == 413


def test_a_large_body_without_a_key_is_refused_for_the_key(locked: Served) -> None:
    assert locked.client.post("/retrieval", content=b"a" * 5_000_000).status_code == 403


def test_no_page_of_another_origin_may_read(locked: Served) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for reply in (locked.client.options("/retrieval", headers=asked), locked.client.get("/healthz", headers=asked)):
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_line_break_in_a_path_does_not_reach_the_log(locked: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "pipeline.serve"):
        exchange(locked, b"GET /a%0d%0aGET%20/forged HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    (line,) = [record.getMessage() for record in caplog.records if record.name.endswith("access")]
    assert line.startswith("GET /a%0d%0aGET%20/forged 401 ")


def test_a_client_that_goes_away_does_no_harm(locked: Served) -> None:
    host, port = locked.client.base_url.host, locked.client.base_url.port
    assert port is not None
    head = f"POST /retrieval HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 9\r\n\r\n{{"
    with socket.create_connection((host, port)) as connection:
        connection.sendall(head.encode())
    assert locked.client.get("/healthz").status_code == 200


# --- where to listen


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_loopback_a_key_is_needed(host: str) -> None:
    with pytest.raises(errors.UsageError, match="no API key") as refused:
        server.listen(config.Settings(serve=config.ServeSettings(host=host, port=0)))
    assert refused.value.exit_code == 2
    assert "pipeline serve key add" in refused.value.remedy


def test_with_a_key_any_address_and_any_host(tmp_path: Path) -> None:
    with Served(served.settings(tmp_path, host="0.0.0.0", keys=(keys.digest(KEY),))) as running:
        assert running.url.startswith("http://127.0.0.1:")
        headers = authorization(f"Bearer {KEY}") | {"Host": "library.example"}
        assert running.client.get("/v1/models", headers=headers).status_code == 200


def test_an_address_in_use_or_of_nobody_is_a_usage_error() -> None:
    with (
        server.listen(config.Settings(serve=config.ServeSettings(port=0))) as taken,
        pytest.raises(errors.UsageError, match="Cannot listen") as refused,
    ):
        server.listen(config.Settings(serve=config.ServeSettings(port=taken.getsockname()[1])))
    assert "--port" in refused.value.remedy
    with pytest.raises(errors.UsageError, match="not an address"):
        server.listen(config.Settings(serve=config.ServeSettings(host="no.such.name.invalid", port=0)))


# --- what to type into Dify


def test_instructions_name_everything_that_dify_asks_for() -> None:
    given = config.Settings(collection="wiki", serve=config.ServeSettings(port=9000))
    text = instructions.dify(given)
    for needed in (
        "http://host.docker.internal:9000\n",
        "wiki\n",
        "SSRF_PROXY_ALLOW_PRIVATE_IPS=",
        "SSRF_PROXY_ALLOW_PRIVATE_DOMAINS=host.docker.internal\n",
        "anything",
    ):
        assert needed in text
    assert "pipe-123" in instructions.dify(given, "pipe-123")
    assert "serve key add" in instructions.dify(config.Settings(serve=config.ServeSettings(keys=("0" * 64,))))
