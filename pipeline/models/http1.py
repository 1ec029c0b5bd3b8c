"""HTTP/1.1 to one server: whole requests, whole replies, connections kept. Knows sockets, TLS and pipeline.errors;
nothing of models, streams, proxies or redirects.

Written here because embedding is what this program is for. Against a server that answers at once, a vector of 1024
numbers took an embedder over httpx, httpcore and h11 about 54 us of CPU, and over a prototype of this 20, of which 12
are the decoding (benchmarks/client_cost.py has the whole). What is not on that path (streams, hosts behind a proxy)
stays with httpx: see transport.py.

A request is sent a second time in one case only: a connection that had been idle was closed before a single byte of a
reply came. A server may close such a one at any moment, so also in the one in which it is used again. Where the last
reply came just before, this is a fault like others, and the caller's to judge: the request itself may be its cause.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import ipaddress
import os
import re
import socket
import ssl
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import pipeline
from pipeline import errors
from pipeline.models.http1_reply import MAX_BODY, ReplyReader

READ = 256 << 10  # bytes per read of a socket
IDLE_S = 60.0  # a connection that was idle for longer is not used again
STALE_S = (
    1.0  # no server closes one that was idle for less (gunicorn waits 2 s, uvicorn and llama.cpp 5 s, Go for ever)
)
MAX_IDLE = 32
NEXT_ADDRESS_S = 0.25  # until another address of the host is tried beside the first (RFC 8305)
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")  # of a header: what any server takes
_PATH_SAFE = "/%:@!$&'()*+,;=~"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """`body` as it was meant, without the framing of chunks."""

    status: int
    body: bytes | bytearray


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a server is, taken from its URL. `path`: before every target, without a slash at its end."""

    host: str
    port: int
    tls: bool
    path: str
    credentials: str  # user:password, "" for none

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ValueError: `url` is not http://HOST:PORT/PATH or the same with https."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("it does not begin with http:// or https:// and a host")
        user, password = (urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        return cls(
            host=_host(parts.hostname),
            port=_PORTS[parts.scheme] if parts.port is None else parts.port,
            tls=parts.scheme == "https",
            path=urllib.parse.quote(parts.path.rstrip("/"), safe=_PATH_SAFE),
            credentials=f"{user}:{password}" if user or password else "",
        )

    @property
    def is_number(self) -> bool:
        """Whether no name has to be looked up."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True

    @property
    def header(self) -> str:
        """The value of Host."""
        host = f"[{self.host.partition('%')[0]}]" if ":" in self.host else self.host
        return host if self.port == _PORTS["https" if self.tls else "http"] else f"{host}:{self.port}"


def _host(name: str) -> str:
    if ":" in name:
        return str(ipaddress.IPv6Address(name.replace("%25", "%")))  # RFC 6874: the zone's sign is escaped
    host = name.encode("idna").decode()
    if _HOST.fullmatch(host) is None:
        raise ValueError(f"{name!r} is no host's name")
    return host


class Client:
    """Asks one server, as many requests at a time as there are callers; connections are kept for the next.

    Args:
        url: http://HOST:PORT, with a path before all others where it has one, or https.
        name: the server's, in messages: such as "Ollama at http://127.0.0.1:11434". `remedy`: what to do about it.
        headers: sent with every request.
        stale_s: seconds after which a kept connection may have been closed for being idle.

    Raises:
        ServerRefused: `url` or a header cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        remedy: str,
        connect_timeout_s: float,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        max_body: int = MAX_BODY,
        stale_s: float = STALE_S,
    ) -> None:
        try:
            self._address = Address.parse(url)
        except ValueError as error:
            raise errors.ServerRefused(
                f"{url!r} is not a server's address: {error}", "Write http://HOST:PORT."
            ) from error
        self._name, self._remedy = name, remedy
        self._connect_timeout_s = connect_timeout_s
        self._head = self._common_head(headers or {})
        self._tls = tls
        self._max_body = max_body
        self._stale_s = stale_s
        self._idle: list[_Connection] = []  # the last one used is the first to be used again
        self._open: set[_Connection] = set()
        self._closed = False

    def _common_head(self, headers: Mapping[str, str]) -> bytes:
        """The lines that all requests share."""
        lines = {
            "Host": self._address.header,
            "User-Agent": f"embed-pipeline/{pipeline.__version__}",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        if self._address.credentials:
            lines["Authorization"] = f"Basic {base64.b64encode(self._address.credentials.encode()).decode()}"
        lines |= headers
        for name, value in lines.items():
            if _VALUE.fullmatch(value) is None:
                raise errors.ServerRefused(
                    f"{self._name} cannot be asked: {name} has characters that HTTP cannot carry."
                )
        return "".join(f"{name}: {value}\r\n" for name, value in lines.items()).encode("ascii")

    async def aclose(self) -> None:
        """Close every connection; requests in flight fail, and no other may be made."""
        self._closed = True
        for connection in tuple(self._open):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop tells the transports so in its next turn

    async def ask(self, method: str, target: str, content: bytes | None = None) -> Reply:
        """One request, JSON where it has content; its whole reply, whatever its status.

        Cancelling this closes the connection, which tells the server. There is no time limit but the one for
        connecting: put a deadline around it.

        Raises:
            ServerUnreachable: there is no connection to be had.
            TransientFault: it was cut, or what came is not HTTP.
        """
        request = self._request(method, target, content)
        if self._closed:
            raise RuntimeError(f"{self._name} is asked through a client that was closed")
        reply = None
        while reply is None:
            connection, stale = self._kept() or (await self._connect(), False)
            reply = await self._exchange(connection, request, again=stale)
        return reply

    def _request(self, method: str, target: str, content: bytes | None) -> bytes:
        path = f"{self._address.path}/{target.lstrip('/')}"
        length = b"" if content is None else b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(content)
        return b"".join((f"{method} {path} HTTP/1.1\r\n".encode("ascii"), self._head, length, b"\r\n", content or b""))

    def _kept(self) -> tuple[_Connection, bool] | None:
        """A connection to use again, and whether it was idle for long."""
        now_s = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            idle_s = now_s - connection.idle_since_s
            if connection.usable and idle_s <= IDLE_S:
                return connection, idle_s >= self._stale_s
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        loop, address = asyncio.get_running_loop(), self._address
        context = (self._tls or default_tls()) if address.tls else None
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self._open),
                    address.host,
                    address.port,
                    ssl=context,
                    # A race that is cancelled just when it is won loses an open socket (CPython 3.11 to 3.13), and an
                    # address that is written as a number has nobody to race with.
                    happy_eyeballs_delay=None if address.is_number else NEXT_ADDRESS_S,
                )
        except TimeoutError as error:
            why = os.strerror(error.errno) if error.errno else f"no connection within {self._connect_timeout_s:.3g} s"
            raise self._unreachable(why) from error
        except (OSError, UnicodeError) as error:
            raise self._unreachable(reason(error)) from error
        if self._closed:
            connection.abort()
        return connection

    def _unreachable(self, why: str) -> errors.ServerUnreachable:
        return errors.ServerUnreachable(f"{self._name} does not answer ({why}).", self._remedy)

    async def _exchange(self, connection: _Connection, request: bytes, *, again: bool) -> Reply | None:
        """None: it was closed unanswered, and the request may be sent on another one (`again`)."""
        reader = ReplyReader(max_body=self._max_body)
        try:
            await connection.exchange(request, reader)
        except (OSError, ValueError) as error:
            if again and not reader.started:
                return None
            what = f"The connection to {self._name} was cut ({reason(error)})."
            raise errors.TransientFault(what, self._remedy) from error
        finally:
            self._put_back(connection, keep=reader.done and reader.keep_alive)
        return Reply(status=reader.status, body=reader.body)

    def _put_back(self, connection: _Connection, *, keep: bool) -> None:
        if keep and connection.usable and len(self._idle) < MAX_IDLE:
            connection.idle_since_s = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()


class _Connection(asyncio.BufferedProtocol):
    """One connection, one request at a time. `open_`: it is a member as long as it lives."""

    def __init__(self, open_: set[_Connection]) -> None:
        self._buffer = memoryview(bytearray(READ))
        self._open = open_
        self._transport: asyncio.Transport | None = None
        self._reader: ReplyReader | None = None
        self._over: asyncio.Future[None] | None = None
        self.idle_since_s = 0.0

    @property
    def usable(self) -> bool:
        """Whether a request may be sent: open, and the one before was sent to its end (a reply may come earlier)."""
        transport = self._transport
        return transport is not None and not transport.is_closing() and not transport.get_write_buffer_size()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    async def exchange(self, request: bytes, reader: ReplyReader) -> None:
        """Send `request` and feed `reader` until it is done.

        Raises:
            OSError, ValueError: the connection was closed too early; what came is no reply.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("it was closed unanswered")
        self._reader, self._over = reader, asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            await self._over
        finally:
            self._reader = self._over = None

    def _finish(self, error: BaseException | None = None) -> None:
        if self._over is not None and not self._over.done():
            if error is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(error)

    # --- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._open.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._reader is None or self._over is None or self._over.done():
            self.abort()  # nothing was asked for: what comes belongs to no request
            return
        try:
            self._reader.feed(self._buffer[:nbytes])
        except ValueError as error:
            self._finish(error)
            self.abort()
        else:
            if self._reader.done:
                self._finish()

    def eof_received(self) -> bool:
        if self._reader is not None:
            try:
                self._reader.end()
            except ValueError as error:
                self._finish(error)
            else:
                self._finish()
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._finish(exc or ConnectionResetError("it was closed"))


@functools.cache
def default_tls() -> ssl.SSLContext:
    """The system's certificates, which take about 20 ms to read."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def reason(error: BaseException) -> str:
    """The system's own words ("Connection refused"), without numbers and addresses."""
    if isinstance(error, ssl.SSLError):
        return str(getattr(error, "verify_message", "") or error.reason or error).replace("_", " ").rstrip(".")
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    found = re.search(r"\[Errno (\d+)\]", str(error))  # asyncio's, where it tried several addresses
    if isinstance(error, OSError) and (error.errno or found):
        return os.strerror(error.errno or int(found[1] if found else 0))
    return str(error).strip().rstrip(".") or type(error).__name__
