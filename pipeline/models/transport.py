"""HTTP clients, and what httpx raises in the words of `pipeline.errors`. Knows no model server's API.

Proxy variables (HTTP_PROXY, ALL_PROXY) never capture a call to loopback: a model server on this machine is not behind a
proxy, and a proxy that is asked for 127.0.0.1 answers for itself. For other hosts httpx honours them, and NO_PROXY.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import httpx
import msgspec

from pipeline import errors

REQUEST_DEADLINE_S = 600.0  # where the caller gives none: Ollama itself gives a stalled load 5 minutes
LOOPBACK_CONNECT_S = 1.0  # loopback answers or refuses at once; longer means a full backlog
T = TypeVar("T")


def is_loopback(url: str) -> bool:
    """Whether `url` names this machine by a loopback address or `localhost`."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def client(url: str, *, connect_timeout_s: float, headers: dict[str, str] | None = None) -> httpx.AsyncClient:
    """A keep-alive client for one server. Only connecting has a time-out here: a whole request has a `deadline`.

    Raises:
        ServerRefused: `url` cannot be a server's address.
    """
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


def decode(body: bytes, kind: type[T], server: str) -> T:
    """`body` as `kind`; unknown fields are ignored.

    Raises:
        TransientFault: it is not JSON or not of that shape (cut short, or a proxy's page).
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        start = body[:80].decode("utf-8", "replace")
        raise errors.TransientFault(f"{server} sent an answer that cannot be read ({error}): {start!r}") from error
