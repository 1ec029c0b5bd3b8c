"""What an enemy sends, and what comes back: each refused as it should be, on a real socket, by a server that goes on.

Keys, rates, Host headers and sizes one by one are in test_serve_guard.py and test_serve_limits.py. Here is what reaches
for other people's documents by every address at once, and what is no request at all.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from pipeline import config
from pipeline.serve import guard, keys, server
from pipeline.serve.meter import Meter
from pipeline.serve.patience import ImpatientProtocol
from pipeline.serve.web.session import Sessions
from tests import served
from tests.served import Served

ALL, WIKI = "key-of-all", "key-of-the-wiki"
SECRET = "the-safe-opens-at-4711"
ASKED = "office"  # finds it
SCRIPT = "<script>alert('x')</script>"
HOSTILE = {
    "note.md": f"# Heading {SCRIPT}\n\n{SCRIPT} <img src=x onerror=alert(1)> [a](javascript:alert(2)) zebra.\n",
    'a"b<script>x</script>\r\nSet-Cookie: stolen=1.md': "# Zebra\n\nA name that tries to be a header: zebra stripes.\n",
    "private.md": f"# Private\n\nIn the office: {SECRET}.\n",
}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hostile")
    given = served.settings(home / "data")
    served.build(given, served.write(home / "docs", HOSTILE))
    served.build(given, served.write(home / "wiki", {"roof.md": "# Roof\n\nThe roof is tarred in spring.\n"}), "wiki")
    for place in (home / "data", home):
        (place / "secret.txt").write_text(SECRET)
    return home / "data"


@pytest.fixture(scope="module")
def service(data: Path) -> Iterator[Served]:
    clients = {
        "all": config.ClientSettings(key=keys.digest(ALL)),
        "wiki": config.ClientSettings(key=keys.digest(WIKI), collections=("wiki",)),
    }
    with Served(msgspec.structs.replace(served.settings(data), clients=clients)) as running:
        yield running.warm(headers=bearer(ALL))


Private = tuple[str, str]  # the id of the passage that nobody but ALL may read, the name of its collection's report


@pytest.fixture(scope="module")
def private(service: Served, data: Path) -> Private:
    (record,) = service.retrieve(SECRET, top_k=1, headers=bearer(ALL)).json()["records"]
    assert SECRET in record["content"]
    (report,) = (data / "default" / "runs").glob("*.html")
    assert service.client.get(f"/reports/default/{report.name}", headers=bearer(ALL)).status_code == 200
    return str(record["metadata"]["chunk_id"]), report.name


@pytest.fixture(autouse=True)
def goes_on(service: Served) -> Iterator[None]:
    """Whatever was sent, the server answers the next request."""
    yield
    assert service.client.get("/healthz").json() == {"status": "ok"}


def addresses(private: Private) -> list[tuple[str, str, dict[str, Any]]]:
    """Every way to something of collection "default": method, address, what to send."""
    chunk, report = private
    asked = {"knowledge_id": "default", "query": ASKED}
    call = {"name": "search", "arguments": {"query": ASKED, "collection": "default"}}
    told = {"Accept": "application/json, text/event-stream"}
    return [
        ("POST", "/retrieval", {"json": asked}),
        ("POST", "//retrieval", {"json": asked}),
        ("POST", "/v1/embeddings", {"json": {"model": "pipeline/default", "input": "x"}}),
        ("POST", "/v1/rerank", {"json": {"model": "pipeline/default", "query": "x", "documents": ["y"]}}),
        ("POST", "/v1/chat/completions", {"json": {"model": "pipeline/default", "messages": [said(ASKED)]}}),
        (
            "POST",
            "/mcp",
            {"json": {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}, "headers": told},
        ),
        ("GET", f"/passages/default/{chunk}", {}),
        ("GET", f"/sources/default/{chunk}", {"headers": {"Accept": "text/html"}}),
        ("GET", f"/sources/default/{chunk}/page.png", {}),
        ("GET", f"/reports/default/{report}", {}),
        ("GET", "/map?collection=default", {"headers": {"Accept": "text/html"}}),
        ("GET", "/map/data/default/0", {}),
        ("GET", f"/?collection=default&q={ASKED}", {"headers": {"Accept": "text/html"}}),
        ("GET", "/metrics", {}),
        ("GET", "/openapi.json", {}),
    ]


def said(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def send(service: Served, method: str, address: str, more: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
    more = {**more, "headers": {**more.get("headers", {}), **headers}}
    return service.client.request(method, service.url + address, follow_redirects=False, **more)


# --- keys


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("wrong"),
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {ALL}"},
        {"Cookie": f"pipeline-1={ALL}; key={ALL}"},
        {"X-Api-Key": ALL, "Proxy-Authorization": f"Bearer {ALL}"},
    ],
)
def test_without_a_key_no_address_tells_anything(service: Served, private: Private, headers: dict[str, str]) -> None:
    for method, address, more in addresses(private):
        reply = send(service, method, address, more, headers)
        assert reply.status_code in (401, 403, 303), (address, reply.status_code)
        assert SECRET not in reply.text, address
        if reply.status_code == 303:
            assert reply.headers["location"].startswith("/login?")


def test_a_key_in_the_address_opens_nothing(service: Served) -> None:
    for address in (f"/v1/models?key={ALL}", f"/v1/models?api_key={ALL}&access_token={ALL}"):
        assert service.client.get(address).status_code == 401


def test_another_collections_key_finds_nothing_anywhere(service: Served, private: Private) -> None:
    for method, address, more in addresses(private):
        reply = send(service, method, address, more, bearer(WIKI))
        if address in ("/metrics", "/openapi.json"):
            continue  # of the server as a whole: no document
        assert reply.status_code in (200, 400, 404), (address, reply.status_code)
        assert SECRET not in reply.text, address
        assert "private.md" not in reply.text, address
        if re.match("/(passages|sources|reports|map/data)", address):
            assert reply.status_code == 404, address


def test_a_session_opens_pages_and_no_interface_of_programs(service: Served, private: Private) -> None:
    with httpx.Client(base_url=service.url, trust_env=False) as browser:
        entered = browser.post("/login", data={"key": ALL, "next": "/"}, headers={"Origin": service.url})
        assert entered.status_code == 303
        assert re.search("; HttpOnly; SameSite=Strict", entered.headers["set-cookie"])
        assert ALL not in entered.headers["set-cookie"]
        for method, address, more in addresses(private):
            reply = browser.request(method, service.url + address, **more)
            if re.match("//?(retrieval|v1|mcp|metrics|openapi)", address):
                assert reply.status_code in (401, 403), address
            else:
                assert reply.status_code in (200, 404), (address, reply.status_code)
        foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert browser.post("/ask", content=b"{}", headers=foreign).status_code == 403
        assert browser.post("/logout", headers=foreign).status_code == 403


# --- paths and names


TRAVERSALS = (
    "..", "../wiki", "../../secret.txt", "..%2fsecret.txt", "..%2f..%2fsecret.txt", "%2e%2e%2fsecret.txt",
    "..%5csecret.txt", "..%252fsecret.txt", "%2fetc%2fpasswd", "secret.txt", "secret.txt%00.css", "%00", "%ff",
    "%ed%a0%80", "....//secret.txt", "default%0d%0aSet-Cookie:%20stolen=1", "%0aX", "a" * 3000, "*", "'%20OR%201=1--",
    "~root", "CON", "é", "%E2%80%AE",
)  # fmt: skip
FILES = (
    "/static/{}",
    "/static/../{}",
    "/passages/{}/x",
    "/passages/default/{}",
    "/sources/{}/x",
    "/sources/default/{}",
    "/sources/default/{}/page.png",
    "/reports/{}/x",
    "/reports/default/{}",
    "/map/data/{}/0",
    "/map/data/default/{}",
    "/{}",
)


@pytest.mark.parametrize("route", FILES)
def test_no_address_leads_out_of_its_folder(service: Served, route: str) -> None:
    for name in TRAVERSALS:
        if route == "/{}" and name in ("..", "....//secret.txt", "../wiki"):
            continue  # the page itself, or nothing of the file system
        target = route.format(name)
        got = exchange(service, request(f"GET {target} HTTP/1.1", authorization=ALL))
        status, head, body = parts(got)
        assert status in (400, 404, 405, 422), (target, status, body[:200])
        assert SECRET.encode() not in body
        assert b"root:" not in body
        assert b"\nset-cookie: stolen" not in head.lower()


@pytest.mark.parametrize(
    "name", ["../default", "..", "/etc", "default/../default", "default\x00", "default\r\n", "", "x" * 999]
)
def test_collections_are_names_and_never_paths(service: Served, name: str) -> None:
    replies = [
        service.retrieve("x", name, headers=bearer(ALL)),
        *(
            service.client.post(path, json={"model": f"pipeline/{name}", **more}, headers=bearer(ALL))
            for path, more in (
                ("/v1/embeddings", {"input": "x"}),
                ("/v1/chat/completions", {"messages": [said("x")]}),
                ("/v1/rerank", {"query": "x", "documents": ["y"]}),
            )
        ),
    ]
    assert {reply.status_code for reply in replies} <= {400, 404}
    for reply in replies:
        assert "set-cookie" not in reply.headers


# --- what is in documents and questions


class Markup(HTMLParser):
    """What of a page could run or lead elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("iframe", "object", "embed", "base", "style") or (tag == "script" and not given.get("src")):
            self.found.append(tag)
        self.found += [f"{tag} {name}" for name in given if name.startswith("on") or name in ("style", "srcdoc")]
        for name in ("href", "src", "action", "formaction"):
            address = given.get(name) or "/"
            if not re.match(r"[/?#]|\.\.?/|data:image/", address) or address.startswith("//"):
                self.found.append(f"{tag} {name}={address}")


@pytest.mark.parametrize(
    "question", ["zebra", SCRIPT, '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "{{7*7}}"]
)
def test_pages_never_take_text_for_markup(service: Served, question: str) -> None:
    for view in ("search", "ask", "trial"):
        asked = {"view": view, "q": question, "path": question, "heading": question, "lang": question, "mode": question}
        for query in ({"view": view, "q": question}, asked):
            reply = service.client.get("/", params=query, headers={"Accept": "text/html", **bearer(ALL)})
            assert reply.status_code in (200, 400)
            assert Markup(reply.text).found == [], (view, query)
            assert reply.headers["content-security-policy"].startswith("default-src 'self'")
            assert reply.headers["x-content-type-options"] == "nosniff"


def test_a_hostile_document_is_shown_and_does_nothing(service: Served) -> None:
    records = service.retrieve("zebra", top_k=3, headers=bearer(ALL)).json()["records"]
    assert {SCRIPT in record["content"] for record in records} == {True, False}, "told as it is to programs"
    for record in records:
        assert "\n" not in record["title"]
        assert "\r" not in record["title"]
        collection, chunk = "default", record["metadata"]["chunk_id"]
        page = service.client.get(f"/sources/{collection}/{chunk}", headers={"Accept": "text/html", **bearer(ALL)})
        assert page.status_code == 200
        assert Markup(page.text).found == []
        for reply in (page, service.client.get(f"/passages/{collection}/{chunk}", headers=bearer(ALL))):
            assert "stolen" not in reply.headers.get("set-cookie", "")
            assert "\n" not in "".join(reply.headers.values())
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "address", ["/login?next=//evil.example", "/login?next=javascript:alert(1)", "/login?next=%0d%0aX:y"]
)
def test_signing_in_leads_nowhere_else(service: Served, address: str) -> None:
    wanted = httpx.URL(address).params["next"]
    shown = service.client.get(address, headers={"Accept": "text/html"})
    assert Markup(shown.text).found == []
    entered = service.client.post("/login", data={"key": ALL, "next": wanted}, headers={"Origin": service.url})
    assert entered.headers["location"] == "/"
    service.client.cookies.clear()


# --- filters


INJECTIONS = (
    "' OR '1'='1", "'; DROP TABLE x; --", "x' UNION SELECT text FROM t --", "\\' OR 1=1 --", "%", "_", "*",
    "') OR (true", "\" OR \"\"=\"", "0x27 OR 1", "/*", "$1", "1; SELECT 1", "NULL", "true", "uri", "＇ OR 1=1",
)  # fmt: skip


@pytest.mark.parametrize("operator", ["contains", "start with", "end with", "is", "=", "in"])
def test_a_filter_is_never_syntax(service: Served, operator: str) -> None:
    """One of all of these would have to hold."""
    names = ("path", "title", "heading", "media_type", "document_id")
    tried = [{"name": name, "comparison_operator": operator, "value": value} for name in names for value in INJECTIONS]
    reply = service.retrieve("zebra", condition={"logical_operator": "or", "conditions": tried}, headers=bearer(ALL))
    assert (reply.status_code, reply.json()) == (200, {"records": []})
    no_text = {"conditions": [{"name": "path", "comparison_operator": operator, "value": "a\x00b"}]}
    assert not service.retrieve("zebra", condition=no_text, headers=bearer(ALL)).json().get("records")
    assert len(service.retrieve("zebra", headers=bearer(ALL)).json()["records"]) == 3, "all is still there"


def test_names_and_operators_are_no_way_in_either(service: Served) -> None:
    for name, operator in (
        ("path = '' OR 1=1 --", "is"),
        ("chunk_id", "is"),
        ("path", "is' OR '1'='1"),
        ("text", "contains"),
    ):
        condition = {"conditions": [{"name": name, "comparison_operator": operator, "value": "a"}]}
        assert service.retrieve("zebra", condition=condition, headers=bearer(ALL)).status_code in (400, 422)


@pytest.mark.parametrize("field", ["path", "type", "heading", "page", "modified"])
def test_filters_of_the_page_are_no_syntax(service: Served, field: str) -> None:
    for value in INJECTIONS:
        if value in ("*", "/*"):
            continue  # patterns that fit every path
        asked = {"q": "zebra", field: value}
        reply = service.client.get("/", params=asked, headers={"Accept": "text/html", **bearer(ALL)})
        assert reply.status_code in (200, 400), (field, value)
        assert "note.md" not in reply.text, (field, value)


# --- bodies


def nested(depth: int) -> bytes:
    return b'{"query": ' + b"[" * depth + b"]" * depth + b"}"


BODIES = {
    "deep lists": nested(200_000),
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep and unfinished": b"[" * 900_000,
    "a long number": b'{"knowledge_id": "default", "query": "x", "retrieval_setting": {"top_k": 1'
    + b"0" * 9000
    + b"}}",
    "an infinite number": b'{"knowledge_id": "default", "query": "x", "retrieval_setting": {"top_k": 1e999}}',
    "no UTF-8": b'{"knowledge_id": "default", "query": "\xff\xfe"}',
    "an encoded surrogate": b'{"knowledge_id": "default", "query": "\xed\xa0\x80"}',
    "a lone surrogate": b'{"knowledge_id": "default", "query": "\\ud800"}',
    "a surrogate as a name": b'{"knowledge_id": "\\udfff", "query": "x"}',
    "UTF-16": '{"knowledge_id": "default"}'.encode("utf-16"),
    "two documents": b'{"knowledge_id": "default", "query": "x"}{"a": 1}',
    "compressed": gzip.compress(b'{"knowledge_id": "default", "query": "' + b" " * 5_000_000 + b'"}'),
    "not JSON": b"\x00" * 1000,
    "a form": b"knowledge_id=default&query=x",
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_none_is_the_clients_fault(service: Served, name: str) -> None:
    headers = {"Content-Type": "application/json", **bearer(ALL)}
    headers |= {"Content-Encoding": "gzip"} if name == "compressed" else {}
    for path in ("/retrieval", "/v1/embeddings", "/v1/chat/completions", "/v1/rerank", "/mcp"):
        reply = service.client.post(path, content=BODIES[name], headers=headers)
        assert reply.status_code in (400, 401, 403, 404, 406, 413, 415, 422), (path, reply.status_code)
        assert len(reply.content) < 10_000, "what was sent does not come back"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e308", "-1e308", "5e-324"])
def test_numbers_that_are_none_change_nothing(service: Served, number: str) -> None:
    setting = f'{{"score_threshold": {number}}}'
    body = f'{{"knowledge_id": "default", "query": "zebra", "retrieval_setting": {setting}, "x": {number}}}'
    headers = {"Content-Type": "application/json", **bearer(ALL)}
    reply = service.client.post("/retrieval", content=body.encode(), headers=headers)
    assert reply.status_code in (200, 400, 422)
    json.loads(reply.content, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_texts_that_no_vector_can_be_made_of_are_refused(service: Served) -> None:
    for path, more in (
        ("/v1/embeddings", {"input": ["\ud800"]}),
        ("/v1/rerank", {"query": "\udfff", "documents": ["y"]}),
        ("/v1/rerank", {"query": "x", "documents": ["\udfff"]}),
        ("/v1/chat/completions", {"messages": [said("\udfff")]}),
        ("/v1/chat/completions", {"messages": [said("x"), {"role": "user", "content": [{"type": "image_url"}]}]}),
    ):
        body = json.dumps({"model": "pipeline/default", **more}).encode()
        reply = service.client.post(path, content=body, headers={"Content-Type": "application/json", **bearer(ALL)})
        assert reply.status_code == 400, (path, reply.text)


# --- what is no request


def request(line: str, *headers: str, authorization: str = "", body: bytes = b"", host: str = "localhost") -> bytes:
    lines = [line, f"Host: {host}", *([f"Authorization: Bearer {authorization}"] if authorization else []), *headers]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body


def exchange(service: Served, sent: bytes) -> bytes:
    """What comes back for these bytes until the server closes."""
    address = (service.client.base_url.host, service.client.base_url.port or 80)
    with socket.create_connection(address, timeout=30) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it did not wait for all of it
            connection.sendall(sent)
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):  # it closed with some of what was sent unread
            while piece := connection.recv(65536):
                received += piece
        return bytes(received)


def parts(got: bytes) -> tuple[int, bytes, bytes]:
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASK = "POST /v1/embeddings HTTP/1.1"
SHAPES = {
    "two lengths": request(ASK, "Content-Length: 5", "Content-Length: 6", body=b"12345"),
    "a length that is none": request(ASK, "Content-Length: +5", body=b"12345"),
    "a negative length": request(ASK, "Content-Length: -1"),
    "a list of lengths": request(ASK, "Content-Length: 5, 6", body=b"12345"),
    "a hexadecimal length": request(ASK, "Content-Length: 0x5", body=b"12345"),
    "an unknown transfer coding": request(ASK, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a coding after chunked": request(ASK, "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
    "two codings": request(
        ASK, "Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "a blank before the colon": request(ASK, "Transfer-Encoding : chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a header without a name": request(ASK, ": x"),
    "a line break in a value": request(ASK, "X-A: b\rX-B: c"),
    "a zero byte in a value": request(ASK, "X-A: b\x00c"),
    "a chunk that is none": request(ASK, "Transfer-Encoding: chunked", authorization=ALL, body=b"zz\r\n\r\n"),
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no version": b"GET /v1/models\r\n\r\n",
    "no method": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 / HTTP/1.1\r\n\r\n",
    "a long address": request(f"GET /{'a' * 200_000} HTTP/1.1"),
    "many headers": request("GET / HTTP/1.1", *(f"X-{n}: {'y' * 50}" for n in range(3000))),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_no_request_gets_one_refusal_and_the_end_of_the_connection(service: Served, shape: str) -> None:
    got = exchange(service, SHAPES[shape])
    assert parts(got)[0] in (400, 401, 405, 421, 431), got[:200]
    assert got.count(b"HTTP/1.1 ") == 1, "what was smuggled in is no second request"


def test_a_length_beside_chunks_is_no_second_request(service: Served) -> None:
    """RFC 9112 6.1: chunks count; what lies behind them is not read as a request of another client."""
    body = b"5\r\n12345\r\n0\r\n\r\n" + SMUGGLED
    got = exchange(
        service, request(ASK, "Content-Length: 4", "Transfer-Encoding: chunked", authorization=ALL, body=body)
    )
    assert got.count(b"HTTP/1.1 ") == 1
    assert parts(got)[0] in (400, 422)


@pytest.mark.parametrize("target", ["http://evil.example/v1/models", "//evil.example/v1/models", "localhost:1", "*"])
def test_an_address_of_another_server_is_not_gone_to(service: Served, target: str) -> None:
    status, _, body = parts(exchange(service, request(f"GET {target} HTTP/1.1", authorization=ALL)))
    assert status in (400, 404, 405)
    assert b"pipeline/default" not in body


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"])
def test_other_methods_do_nothing(service: Served, method: str) -> None:
    for path in ("/", "/retrieval", "/v1/models", "/static/page.css", "/login"):
        status, _, body = parts(exchange(service, request(f"{method} {path} HTTP/1.1", authorization=ALL)))
        assert status in (400, 404, 405), (method, path, status)
        assert ALL.encode() not in body


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost@evil.example", "localhost#", "127.0.0.1.nip.io", "0.0.0.0", "[::]"]
)
def test_a_name_that_was_bent_to_this_machine_opens_nothing(service: Served, private: Private, host: str) -> None:
    """DNS rebinding, with a good key at that, at every address."""
    for method, address, more in addresses(private):
        reply = send(service, method, address, more, {"Host": host, **bearer(ALL)})
        assert reply.status_code == 421, (address, reply.status_code)
        assert SECRET not in reply.text


def test_too_much_in_chunks_is_refused_before_its_end(service: Served) -> None:
    """Without a length, and without an end."""
    piece = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
    got = exchange(service, request(ASK, "Transfer-Encoding: chunked", authorization=ALL, body=piece * 40))
    assert parts(got)[0] == 413


# --- those who take their time


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": message["body"][:2]})


def test_a_body_that_trickles_in_is_not_waited_for() -> None:
    """The guard itself, with a limit that a test can reach, around an application that is none."""
    nobody = keys.Keys([])
    door = guard.Door(keys=nobody, body_s=0.3)
    with server.listen(config.Settings(serve=config.ServeSettings(port=0))) as listening:
        running = uvicorn.Server(
            uvicorn.Config(guard.Guard(_echo, door, Meter(), Sessions(nobody)), http=ImpatientProtocol, log_config=None)
        )
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
            with socket.create_connection(listening.getsockname()[:2], timeout=30) as connection:
                connection.sendall(head + b"12")
                assert connection.recv(65536).startswith(b"HTTP/1.1 408 ")
            with socket.create_connection(listening.getsockname()[:2], timeout=30) as connection:
                connection.sendall(head + b"1234567890")
                assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        finally:
            running.should_exit = True
            thread.join()
