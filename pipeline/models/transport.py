"""HTTP to model servers, deadlines and JSON, every failure in the words of `pipeline.errors`. Knows no server's API.

Two clients stand behind one door: http1.py, which takes a fraction of the CPU, for requests answered as a whole, which
embedding is; httpx for answers that stream, and for hosts that a proxy may stand before.

Proxy variables (HTTP_PROXY, ALL_PROXY) never capture a call to loopback: a model server on this machine is not behind a
proxy, and a proxy that is asked for 127.0.0.1 answers for itself. For other hosts httpx honours them, and NO_PROXY.

httpx is imported where it is used: a run that only embeds starts without it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import urllib.parse
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec

from pipeline import errors
from pipeline.models import http1
from pipeline.models.http1 import Reply

if TYPE_CHECKING:
    import httpx

OK = 200
REQUEST_DEADLINE_S = 600.0  # where the caller gives none: Ollama itself gives a stalled load 5 minutes
LOOPBACK_CONNECT_S = 1.0  # loopback answers or refuses at once; longer means a full backlog
T = TypeVar("T")


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine by a loopback address or `localhost`."""
    try:
        host = urllib.parse.urlsplit(url).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class Http:
    """Requests to one server over connections that are kept. Only connecting has a time limit of its own.

    Args:
        name: the server's, in messages: such as "Ollama at http://127.0.0.1:11434". `remedy`: what to do about it.
        headers: sent with every request.

    Raises:
        ServerRefused: `url` cannot be a server's address.
    """

    def __init__(
        self, url: str, *, name: str, remedy: str, connect_timeout_s: float, headers: dict[str, str] | None = None
    ) -> None:
        self._url, self._headers = url, headers
        self._name, self._remedy = name, remedy
        self._connect_timeout_s = min(connect_timeout_s, LOOPBACK_CONNECT_S) if is_loopback(url) else connect_timeout_s
        self._plain = http1.Client(
            url, name=name, remedy=remedy, connect_timeout_s=self._connect_timeout_s, headers=headers
        )
        self._proxied = may_be_proxied(url)
        self._httpx: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        await self._plain.aclose()
        if self._httpx is not None:
            await self._httpx.aclose()

    async def ask(
        self, method: str, path: str, content: bytes | None = None, *, timeout_s: float | None = None
    ) -> Reply:
        """One request, JSON where it has content, and its whole answer, whatever its status; see `deadline`.

        Raises:
            ServerUnreachable: there is no connection to be had. TransientFault: it was cut, is no HTTP, took too long.
        """
        async with deadline(self._name, timeout_s):
            if not self._proxied:
                return await self._plain.ask(method, path, content)
            with translated(self._name, self._remedy):
                headers = None if content is None else _JSON
                reply = await self._streaming().request(method, path, content=content, headers=headers)
                return Reply(status=reply.status_code, body=reply.content)

    @asynccontextmanager
    async def stream(self, path: str, content: bytes, *, stall_s: float) -> AsyncIterator[httpx.Response]:
        """The answer to a POST of JSON, as it comes: see `lines`. `stall_s`: for its headers.

        Raises:
            ServerUnreachable, TransientFault: as `ask`, also inside the block.
        """
        http = self._streaming()
        request = http.build_request("POST", path, content=content, headers=_JSON)
        with translated(self._name, self._remedy):
            async with deadline(self._name, stall_s):
                reply = await http.send(request, stream=True)
            try:
                yield reply
            finally:
                await reply.aclose()

    def _streaming(self) -> httpx.AsyncClient:
        if self._httpx is None:
            self._httpx = client(self._url, connect_timeout_s=self._connect_timeout_s, headers=self._headers)
        return self._httpx


_JSON = {"Content-Type": "application/json"}


def may_be_proxied(url: str) -> bool:
    """Whether the environment (on macOS and Windows also the system) names a proxy that `url` could be asked through.

    Which hosts are exempt is httpx's to know.
    """
    if is_loopback(url):
        return False
    import urllib.request

    return bool(urllib.request.getproxies().keys() & {urllib.parse.urlsplit(url).scheme, "all"})


def client(url: str, *, connect_timeout_s: float, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    """httpx's keep-alive client for one server. Only connecting has a time-out here: a whole request has a `deadline`.

    Raises:
        ServerRefused: `url` cannot be a server's address.
    """
    import httpx

    try:
        if (httpx.URL(url).port or 0) > 65535:  # httpx finds out when it connects, by an OverflowError
            raise ValueError("a port is at most 65535")
        local = is_loopback(url)
        connect_s = min(connect_timeout_s, LOOPBACK_CONNECT_S) if local else connect_timeout_s
        return httpx.AsyncClient(
            base_url=url,
            headers=headers,
            trust_env=not local,
            timeout=httpx.Timeout(None, connect=connect_s),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=60.0),
            verify=_tls(url),
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise errors.ServerRefused(f"{url!r} is not a server's address: {error}", "Write http://HOST:PORT.") from error


def _tls(url: str) -> ssl.SSLContext:
    """Certificates are read (about 20 ms) only where the address asks for them; redirects are never followed."""
    return ssl.create_default_context() if url.startswith("https://") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def translated(server: str, remedy: str) -> Iterator[None]:
    """Turn what httpx raises into pipeline errors. `server`: such as "Ollama at http://127.0.0.1:11434"."""
    import httpx

    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as error:
        raise errors.ServerUnreachable(f"{server} does not answer ({_reason(error)}).", remedy) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError) as error:
        raise errors.ServerRefused(f"{server} cannot be asked: {_reason(error)}.", "Check the address.") from error
    except httpx.TimeoutException as error:
        raise errors.TransientFault(f"{server} stopped in mid-answer ({_reason(error)}).", remedy) from error
    except httpx.HTTPError as error:
        raise errors.TransientFault(f"The connection to {server} was cut ({_reason(error)}).", remedy) from error


def _reason(error: BaseException) -> str:
    """The system's own words ("Connection refused") where there are any below the library's."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.errno:
            return os.strerror(below.errno) if below.errno > 0 else str(below.strerror)  # negative: of name resolution
        below = below.__cause__ or below.__context__
    return str(error).strip().rstrip(".") or type(error).__name__


@asynccontextmanager
async def deadline(server: str, timeout_s: float | None) -> AsyncIterator[None]:
    """One deadline for everything inside: connecting, waiting in the server's queue, the answer to its last byte.

    Raises:
        TransientFault: it passed. The request is cancelled, which releases its place in the server's queue.
    """
    limit = REQUEST_DEADLINE_S if timeout_s is None else timeout_s
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError as error:
        raise errors.TransientFault(f"{server} gave no answer within {limit:.3g} s.") from error


async def lines(reply: httpx.Response, server: str, stall_s: float) -> AsyncGenerator[str]:
    """The lines of a streamed answer, empty ones left out; the deadline starts anew with each.

    Raises:
        TransientFault: nothing came for `stall_s` seconds.
    """
    source = reply.aiter_lines()
    while True:
        async with deadline(server, stall_s):
            line = await anext(source, None)
        if line is None:
            return
        if line.strip():
            yield line


def encode(body: Mapping[str, object]) -> bytes:
    """`body` as JSON.

    Raises:
        TextRejected: a text holds half of a surrogate pair, which no encoding of Unicode can carry.
    """
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:
        raise errors.TextRejected("not_unicode", f"A text is not valid Unicode ({error.reason}).") from error


def decode(body: bytes | bytearray, kind: type[T], server: str) -> T:
    """`body` as `kind`; unknown fields are ignored.

    Raises:
        TransientFault: it is not JSON or not of that shape (cut short, or a proxy's page).
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        start = body[:80].decode("utf-8", "replace")
        raise errors.TransientFault(f"{server} sent an answer that cannot be read ({error}): {start!r}") from error
