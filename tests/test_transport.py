"""The HTTP layer below the model clients, against sockets that misbehave on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

import httpx
import msgspec
import pytest

from pipeline import errors
from pipeline.models import transport

BOTH = pytest.mark.parametrize("through", ["ask", "stream"])
T = TypeVar("T")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Shape(msgspec.Struct):
    ok: bool


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes the request and never answers."""
    await reader.read()


async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Closes in place of an answer."""
    await reader.readuntil(b"\r\n\r\n")


async def gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks another protocol."""
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    await writer.drain()


async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Announces more than it sends."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A line, an empty one, another, then silence."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\none\ntw\r\n4\r\no\n\n\n\r\n")
    await writer.drain()
    await reader.read()


def with_socket(serve: Serve, work: Callable[[str], Awaitable[T]]) -> T:
    """What `work` makes of the address at which `serve` answers, every connection closed again."""
    connections: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def main() -> T:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            found = await work(f"http://127.0.0.1:{port}")
        await asyncio.gather(*connections)
        return found

    return asyncio.run(main())


def outcome(serve: Serve, work: Callable[[str], Awaitable[T]]) -> T | errors.PipelineError:
    """The same; an error of ours is the result, so that the server is closed in order."""

    async def caught(url: str) -> T | errors.PipelineError:
        try:
            return await work(url)
        except errors.PipelineError as error:
            return error

    return with_socket(serve, caught)


def http(url: str) -> transport.Http:
    return transport.Http(url, name="S", remedy="Start it.", connect_timeout_s=1.0)


def ask(serve: Serve, *, through: str, timeout_s: float = 5.0) -> bytes:
    """The body of a request to `serve`, with the errors of the model clients."""

    async def work(url: str) -> bytes:
        async with aclosing(http(url)) as server:
            if through == "ask":
                return bytes((await server.ask("GET", "/x", timeout_s=timeout_s)).body)
            async with server.stream("/x", b"{}", stall_s=timeout_s) as reply:
                return await reply.aread()

    found = outcome(serve, work)
    if isinstance(found, errors.PipelineError):
        raise found
    return found


@BOTH
@pytest.mark.parametrize("serve", [rude, gibberish, short])
def test_a_connection_that_breaks_may_be_tried_again(serve: Serve, through: str) -> None:
    with pytest.raises(errors.TransientFault, match="connection to S was cut") as caught:
        ask(serve, through=through)
    assert caught.value.retry_helps
    assert caught.value.remedy == "Start it."


@BOTH
def test_silence_meets_the_deadline(through: str) -> None:
    with pytest.raises(errors.TransientFault, match=r"S gave no answer within 0\.1 s"):
        ask(silent, through=through, timeout_s=0.1)


@BOTH
def test_nobody_there_is_told_in_the_systems_words(through: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> None:
            async with aclosing(http(url)) as server:
                if through == "ask":
                    await server.ask("GET", "/")
                async with server.stream("/", b"{}", stall_s=1.0):
                    raise AssertionError

        with pytest.raises(errors.ServerUnreachable, match=r"S does not answer \(Connection refused\)"):
            asyncio.run(main())


ADDRESSES = ["http://127.0.0.1:99999", "http://[::1", "ftp://x", "nothing at all"]


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(errors.ServerRefused):
        http(url)


@pytest.mark.parametrize("url", ADDRESSES)
def test_an_address_that_is_none_for_httpx(url: str) -> None:
    async def main() -> None:
        async with transport.client(url, connect_timeout_s=0.2) as client:
            with transport.translated("S", ""):
                await client.get("/")

    with pytest.raises(errors.ServerRefused):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:11434", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:11434", True),
        ("http://localhost:1", True),
        ("http://ollama.localhost", True),
        ("http://192.168.1.5", False),
        ("https://example.com", False),
        ("http://localhost.example.com", False),
        ("http://[::1", False),
        ("nothing at all", False),
    ],
)
def test_loopback(url: str, local: bool) -> None:
    assert transport.is_loopback(url) is local


def test_a_path_before_the_endpoints_is_kept() -> None:
    client = transport.client("http://127.0.0.1:1/ollama", connect_timeout_s=1.0)
    assert client.build_request("GET", "/api/tags").url == "http://127.0.0.1:1/ollama/api/tags"
    asyncio.run(client.aclose())


def test_lines_come_one_by_one_and_silence_between_them_is_noticed() -> None:
    found: list[str] = []

    async def work(url: str) -> None:
        async with transport.client(url, connect_timeout_s=1.0) as client, client.stream("GET", "/x") as reply:
            async for line in transport.lines(reply, "S", 0.1):
                found.append(line)  # noqa: PERF401  what came before the error counts

    error = outcome(dripping, work)
    assert isinstance(error, errors.TransientFault)
    assert "no answer" in error.message
    assert found == ["one", "two"]


def test_what_cannot_be_decoded_is_shown() -> None:
    assert transport.decode(b'{"ok":true,"more":1}', Shape, "S") == Shape(ok=True)
    for body in (b'{"ok":', b"[]", b'{"ok":"yes"}', b"<html>", b"\xff", b""):
        with pytest.raises(errors.TransientFault, match="cannot be read"):
            transport.decode(body, Shape, "S")


def test_what_cannot_be_encoded_is_one_texts_fault() -> None:
    assert transport.encode({"input": ["港"]}) == '{"input":["港"]}'.encode()
    with pytest.raises(errors.TextRejected) as caught:
        transport.encode({"input": ["\udc80"]})
    assert caught.value.kind == "not_unicode"


def test_proxies_are_for_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    local = transport.client("http://127.0.0.1:1", connect_timeout_s=1.0)
    other = transport.client("http://192.0.2.1:1", connect_timeout_s=1.0)
    assert (local.trust_env, other.trust_env) == (False, True)
    assert isinstance(local, httpx.AsyncClient)
    asyncio.run(local.aclose())
    asyncio.run(other.aclose())


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the proxy that the environment names."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return lambda url: monkeypatch.setenv("HTTP_PROXY", url)


def test_a_host_behind_a_proxy_is_asked_through_it(proxy: Callable[[str], None]) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()

    async def work(url: str) -> None:
        proxy(url)
        for address in ("http://model.invalid:11434/base", url):
            async with aclosing(http(address)) as server:
                reply = await server.ask("GET", "/x")
                assert (reply.status, bytes(reply.body)) == (200, b"ok")

    with_socket(serve, work)
    assert asked == [b"GET http://model.invalid:11434/base/x HTTP/1.1\r\n", b"GET /x HTTP/1.1\r\n"]


def test_which_hosts_a_proxy_may_stand_before(proxy: Callable[[str], None]) -> None:
    assert not transport.may_be_proxied("http://model.invalid")
    proxy("http://127.0.0.1:9")
    found = [
        transport.may_be_proxied(url) for url in ("http://model.invalid", "https://model.invalid", "http://[::1]:1")
    ]
    assert found == [True, False, False]
