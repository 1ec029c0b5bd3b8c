"""The HTTP layer below the model clients, against sockets that misbehave on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import msgspec
import pytest

from pipeline import errors
from pipeline.models import transport

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


def ask(serve: Serve, *, timeout_s: float = 5.0) -> bytes:
    """The body of a GET from `serve`, with the errors of the model clients."""

    async def work(url: str) -> bytes:
        async with transport.client(url, connect_timeout_s=1.0) as client, transport.deadline("S", timeout_s):
            with transport.translated("S", "Start it."):
                return (await client.get("/x")).content

    found = outcome(serve, work)
    if isinstance(found, errors.PipelineError):
        raise found
    return found


@pytest.mark.parametrize("serve", [rude, gibberish, short])
def test_a_connection_that_breaks_may_be_tried_again(serve: Serve) -> None:
    with pytest.raises(errors.TransientFault, match="connection to S was cut") as caught:
        ask(serve)
    assert caught.value.retry_helps
    assert caught.value.remedy == "Start it."


def test_silence_meets_the_deadline() -> None:
    with pytest.raises(errors.TransientFault, match=r"S gave no answer within 0\.1 s"):
        ask(silent, timeout_s=0.1)


def test_nobody_there_is_told_in_the_systems_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> None:
            async with transport.client(url, connect_timeout_s=1.0) as client:
                with transport.translated("S", "Start it."):
                    await client.get("/")

        with pytest.raises(errors.ServerUnreachable, match=r"S does not answer \(Connection refused\)"):
            asyncio.run(main())


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999", "http://[::1", "ftp://x", "nothing at all"])
def test_an_address_that_is_none(url: str) -> None:
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
