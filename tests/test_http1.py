"""Our HTTP client against real sockets: what it sends, which connections it keeps, and how it fails."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import shutil
import socket
import ssl
import subprocess
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline
from pipeline import errors
from pipeline.models import http1

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Script:
    """A server that answers the nth request, of all connections together, with the nth entry.

    An entry is bytes, a list of bytes sent one by one, or None: close unanswered. After the last entry, silence.
    `closing`: the requests (from 1) after whose answer the connection is closed.
    """

    answers: list[bytes | list[bytes] | None]
    closing: tuple[int, ...] = ()
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)  # a client closed its connection
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
            if not writer.is_closing() and len(self.requests) > len(self.answers):
                await reader.read()
        self.gone.set()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        self.requests.append(head + await reader.readexactly(int(length[0].split(b":")[1]) if length else 0))
        number = len(self.requests)
        answer = self.answers[number - 1] if number <= len(self.answers) else None
        for piece in [answer] if isinstance(answer, bytes) else answer or []:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return answer is not None and number not in self.closing

    @contextlib.asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        async with await asyncio.start_server(self.handle, host, 0, ssl=tls) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield
        await asyncio.gather(*self._tasks)


@contextlib.asynccontextmanager
async def client(url: str, **options: object) -> AsyncIterator[http1.Client]:
    found = http1.Client(url, name="S", remedy="Start it.", **{"connect_timeout_s": 2.0} | options)  # type: ignore[arg-type]
    try:
        yield found
    finally:
        await found.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until what it was told has arrived."""
    while not condition():  # noqa: ASYNC110  what is waited for is the loop itself
        await asyncio.sleep(0)


def play(script: Script, work: Callable[[http1.Client], Awaitable[None]], **options: object) -> None:
    """Have `work` use a client of a server that follows the script."""

    async def main() -> None:
        async with script.listening(), client(f"http://127.0.0.1:{script.port}", **options) as found:
            async with asyncio.timeout(10):
                await work(found)

    asyncio.run(main())


def asked(*answers: bytes | list[bytes] | None, **options: object) -> http1.Reply:
    """The reply to one request."""
    replies: list[http1.Reply] = []

    async def work(found: http1.Client) -> None:
        replies.append(await found.ask("GET", "/x"))

    script = Script(list(answers))
    try:
        play(script, work, **options)
    finally:
        assert len(script.requests) == 1, "a fresh connection's request is sent once, whatever happens"
    return replies[0]


# --- what is sent


def test_a_request_byte_by_byte() -> None:
    script = Script([OK, OK])

    async def work(found: http1.Client) -> None:
        await found.ask("GET", "/api/version")
        await found.ask("POST", "/v1/embeddings", b'{"input": "\xe6"}')

    play(script, work, headers={"Authorization": "Bearer key"})
    common = (
        b"Host: 127.0.0.1:%d\r\nUser-Agent: embed-pipeline/%s\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        b"Authorization: Bearer key\r\n"
    ) % (script.port, pipeline.__version__.encode())
    assert script.requests == [
        b"GET /api/version HTTP/1.1\r\n" + common + b"\r\n",
        b"POST /v1/embeddings HTTP/1.1\r\n"
        + common
        + b'Content-Type: application/json\r\nContent-Length: 14\r\n\r\n{"input": "\xe6"}',
    ]


@pytest.mark.parametrize(
    ("url", "host", "header", "path", "credentials"),
    [
        ("http://127.0.0.1:11434", ("127.0.0.1", 11434, False), "127.0.0.1:11434", "", ""),
        ("http://box", ("box", 80, False), "box", "", ""),
        ("http://box:80/", ("box", 80, False), "box", "", ""),
        ("https://box", ("box", 443, True), "box", "", ""),
        ("https://box:80", ("box", 80, True), "box:80", "", ""),
        ("http://Box.Local./a/v1/", ("box.local.", 80, False), "box.local.", "/a/v1", ""),
        ("http://[::1]:11434", ("::1", 11434, False), "[::1]:11434", "", ""),
        ("http://[fe80::1%25eth0]:1", ("fe80::1%eth0", 1, False), "[fe80::1]:1", "", ""),
        ("http://höhle.example/ä b", ("xn--hhle-5qa.example", 80, False), "xn--hhle-5qa.example", "/%C3%A4%20b", ""),
        ("http://me:p%40ss@box", ("box", 80, False), "box", "", "me:p@ss"),
    ],
)
def test_addresses(url: str, host: tuple[str, int, bool], header: str, path: str, credentials: str) -> None:
    found = http1.Address.parse(url)
    assert (found.host, found.port, found.tls) == host
    assert (found.header, found.path, found.credentials) == (header, path, credentials)


@pytest.mark.parametrize(
    "url",
    ["http://", "ftp://x", "x:11434", "", "http://x:99999", "http://x:y", "http://[::1", "http://[::g]", "http://a b",
     "http://a..b", "http:///path", "http://-x", "http://" + "a" * 70],
)  # fmt: skip
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(errors.ServerRefused, match="not a server's address"):
        http1.Client(url, name="S", remedy="", connect_timeout_s=1)


@pytest.mark.parametrize("value", ["", "a\r\nX: b", "a\n", "schlüssel", " a", "a\0"])
def test_a_header_that_http_cannot_carry(value: str) -> None:
    with pytest.raises(errors.ServerRefused, match="S cannot be asked: X"):
        http1.Client("http://x", name="S", remedy="", connect_timeout_s=1, headers={"X": value})


def test_credentials_of_the_address_are_sent() -> None:
    script = Script([OK])

    async def main() -> None:
        async with script.listening(), client(f"http://me:pa%20ss@127.0.0.1:{script.port}/base/") as found:
            await found.ask("GET", "x")

    asyncio.run(main())
    assert script.requests[0].startswith(b"GET /base/x HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Basic bWU6cGEgc3M=\r\n" in script.requests[0]


# --- connections


def test_a_connection_is_kept_and_a_second_opened_only_for_two_at_once() -> None:
    script = Script([OK] * 6)

    async def work(found: http1.Client) -> None:
        for _ in range(2):
            assert await found.ask("GET", "/") == http1.Reply(status=200, body=b"ok")
        assert script.connections == 1
        await asyncio.gather(found.ask("GET", "/"), found.ask("GET", "/"))
        await asyncio.gather(found.ask("GET", "/"), found.ask("GET", "/"))

    play(script, work)
    assert script.connections == 2


def test_a_server_that_closes_after_each_reply_is_asked_on_new_connections() -> None:
    said = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
    script = Script([said, OK, OK], closing=(1, 2))

    async def work(found: http1.Client) -> None:
        for _ in range(2):
            await found.ask("GET", "/")
        await asyncio.wait_for(script.gone.wait(), 5)
        await until(lambda: not any(connection.usable for connection in found._idle))
        await found.ask("GET", "/")

    play(script, work)
    assert script.connections == 3
    assert len(script.requests) == 3


def test_what_comes_unasked_is_not_taken_for_the_next_reply() -> None:
    script = Script([OK + OK, [OK, b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n"], OK])

    async def work(found: http1.Client) -> None:
        statuses = [(await found.ask("GET", "/")).status for _ in range(2)]
        await until(lambda: not any(connection.usable for connection in found._idle))
        assert [*statuses, (await found.ask("GET", "/")).status] == [200, 200, 200]

    play(script, work)
    assert script.connections == 3


def test_an_idle_connection_that_was_closed_costs_no_request() -> None:
    script = Script([OK, None, OK])

    async def work(found: http1.Client) -> None:
        await found.ask("GET", "/1")
        assert (await found.ask("GET", "/2")).status == 200

    play(script, work, stale_s=0.0)
    assert [request.split()[1] for request in script.requests] == [b"/1", b"/2", b"/2"]
    assert script.connections == 2


@pytest.mark.parametrize(("second", "stale_s"), [(None, 5.0), ([b"HTTP/1.1 2"], 0.0)])
def test_a_request_that_may_be_the_cause_is_not_sent_again(second: list[bytes] | None, stale_s: float) -> None:
    """Closed at once after a reply; or with a part of a reply."""
    script = Script([OK, second, OK], closing=(2,))

    async def work(found: http1.Client) -> None:
        await found.ask("GET", "/1")
        with pytest.raises(errors.TransientFault, match="connection to S was cut"):
            await found.ask("GET", "/2")
        assert len(script.requests) == 2
        await found.ask("GET", "/3")

    play(script, work, stale_s=stale_s)


def test_a_connection_that_was_idle_for_long_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "IDLE_S", -1.0)
    script = Script([OK, OK])

    async def work(found: http1.Client) -> None:
        await found.ask("GET", "/")
        await found.ask("GET", "/")

    play(script, work)
    assert script.connections == 2


def test_cancelling_closes_the_connection() -> None:
    script = Script([])

    async def work(found: http1.Client) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await found.ask("GET", "/")
        await asyncio.wait_for(script.gone.wait(), 5)

    play(script, work)


@pytest.mark.parametrize("turns", range(12))
def test_cancelling_while_it_connects_leaves_no_socket_open(turns: int) -> None:
    async def work(asked: http1.Client) -> None:
        task = asyncio.create_task(asked.ask("GET", "/"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with warnings.catch_warnings(record=True, action="always") as found:
        play(Script([]), work)
        gc.collect()
    assert not found


def test_closing_the_client_ends_what_is_in_flight() -> None:
    script = Script([])

    async def work(found: http1.Client) -> None:
        asking = asyncio.create_task(found.ask("GET", "/"))
        await until(lambda: bool(script.requests))
        await found.aclose()
        with pytest.raises(errors.TransientFault, match="cut"):
            await asking
        with pytest.raises(RuntimeError, match="closed"):
            await found.ask("GET", "/")

    play(script, work)


# --- failures


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", "length of a chunk"),
    ],
)
def test_what_is_no_reply_ends_at_once_though_the_server_goes_on(answer: bytes, said: str) -> None:
    with pytest.raises(errors.TransientFault, match=said) as caught:
        asked(answer, None)
    assert caught.value.message.startswith("The connection to S was cut (")
    assert caught.value.remedy == "Start it."


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"])
def test_a_connection_that_ends_too_early(answer: bytes | None) -> None:
    async def main() -> None:
        script = Script([answer], closing=(1,))
        async with script.listening(), client(f"http://127.0.0.1:{script.port}") as found:
            with pytest.raises(errors.TransientFault, match=r"connection to S was cut \(it was closed"):
                await found.ask("GET", "/")

    asyncio.run(main())


def test_a_reset_is_told_in_the_systems_words() -> None:
    over: list[asyncio.Task[None]] = []

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        over.append(asyncio.current_task())  # type: ignore[arg-type]
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()  # with unread data in the kernel's buffer this sends RST

    async def main() -> None:
        server = await asyncio.start_server(reset, "127.0.0.1", 0)
        async with server, client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as found:
            with pytest.raises(errors.TransientFault, match=r"\((Connection reset|Broken pipe|it was closed)"):
                await found.ask("POST", "/", b"x" * 3_000_000)
            await asyncio.gather(*over)

    asyncio.run(main())


def test_a_body_that_is_too_large() -> None:
    with pytest.raises(errors.TransientFault, match="a body of more than 1 bytes"):
        asked(OK, max_body=1)


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        urls = [f"http://{host}:{taken.getsockname()[1]}" for host in ("127.0.0.1", "localhost")]

        async def main() -> None:
            for url in urls:  # localhost is two addresses on most machines
                async with client(url) as found:
                    with pytest.raises(errors.ServerUnreachable, match=r"S does not answer \(Connection refused\)\."):
                        await found.ask("GET", "/")

        asyncio.run(main())


def test_a_name_that_nobody_has() -> None:
    async def main() -> None:
        async with client("http://nobody.invalid") as found:
            with pytest.raises(errors.ServerUnreachable, match=r"S does not answer \([A-Z]") as caught:
                await found.ask("GET", "/")
            assert "Errno" not in caught.value.message

    asyncio.run(main())


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_over_a_socket_too_it_makes_no_difference_how_the_bytes_arrive(data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=400))
    size = data.draw(st.integers(1, 100))
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    wire += b"".join(b"%X;a\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nT: 1\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(0, len(wire)), max_size=20)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert asked(pieces) == http1.Reply(status=200, body=body)


@given(st.binary(max_size=200), st.sampled_from([b"", b"HTTP/1.1 ", OK[:17], OK[:36]]))
@settings(max_examples=25, deadline=None)
def test_noise_is_a_reply_or_our_error_and_never_hangs(noise: bytes, start: bytes) -> None:
    script = Script([start + noise], closing=(1,))

    async def work(found: http1.Client) -> None:
        with contextlib.suppress(errors.TransientFault):
            assert 200 <= (await found.ask("GET", "/")).status < 600

    play(script, work)


# --- IPv6 and TLS


def test_ipv6() -> None:
    script = Script([OK])

    async def main() -> None:
        async with script.listening("::1"), client(f"http://[::1]:{script.port}") as found:
            assert (await found.ask("GET", "/")).body == b"ok"

    try:
        asyncio.run(main())
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert b"\r\nHost: [::1]:%d\r\n" % script.port in script.requests[0]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of "localhost", with its key, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "cert")]
    done = subprocess.run(["openssl", "req", "-x509", *kind, *name, *files], capture_output=True)
    if done.returncode:
        pytest.skip("this openssl makes no certificate")
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "cert").read_bytes())
    return folder / "both"


def secure(certificate: Path, work: Callable[[Script, str], Awaitable[None]]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def main() -> None:
        script = Script([OK] * 4)
        async with script.listening(tls=context):
            await work(script, f"https://localhost:{script.port}")

    asyncio.run(main())


def test_tls_with_a_certificate_that_is_trusted(certificate: Path) -> None:
    async def work(script: Script, url: str) -> None:
        async with client(url, tls=ssl.create_default_context(cafile=str(certificate))) as found:
            for _ in range(2):
                assert (await found.ask("POST", "/", b"x" * 500_000)).body == b"ok"
        assert script.connections == 1

    secure(certificate, work)


def test_tls_without_trust(certificate: Path) -> None:
    async def work(script: Script, url: str) -> None:
        async with client(url) as found:
            with pytest.raises(errors.ServerUnreachable, match=r"self.signed certificate"):
                await found.ask("GET", "/")
        assert not script.requests

    secure(certificate, work)


def test_tls_to_a_server_that_says_nothing() -> None:
    async def main() -> None:
        script = Script([])
        async with script.listening(), client(f"https://127.0.0.1:{script.port}", connect_timeout_s=0.1) as found:
            with pytest.raises(errors.ServerUnreachable, match=r"\(no connection within 0\.1 s\)"):
                await found.ask("GET", "/")

    asyncio.run(main())
