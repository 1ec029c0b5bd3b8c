"""What every request passes before the application sees it: Host header, API key, the client's rate, how many are
under way, size and time of its body; and the access log.

Plain ASGI around the application, so that nothing is parsed, and no route chosen, for a request that is refused.
Knows no collection. The access log has no query string, no body and no header: nothing of a document or a question.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.serve import faults, keys
from pipeline.serve.faults import Refusal
from pipeline.serve.keys import ANYBODY, Client, Keys
from pipeline.serve.limits import Rates
from pipeline.serve.meter import Meter
from pipeline.serve.web import refusals, session
from pipeline.serve.web.session import Sessions

log = logging.getLogger(__name__)
access = logging.getLogger(f"{__name__}.access")

BODY_BYTES = 1_000_000
BODY_S = 10.0  # for all of a body to arrive
OPEN = frozenset({"/", "/healthz", "/readyz"})  # need no key: they say that a server is there, and no more
# Of every answer, unless a route has its own: what a browser shows loads from this server alone and runs nothing that
# stands in a page, no other site frames or embeds it, and none is told its address.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]", "host.docker.internal"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Who may come in. `hosts`: names that a Host header may have; empty: any. `most`: requests at once; `request_s`:
    for a whole answer; `body_s`: for all of a body to arrive.
    """

    keys: Keys
    hosts: frozenset[str] = frozenset()
    most: int = 64
    request_s: float = 600.0
    body_s: float = BODY_S


class Guard:
    """ASGI middleware around `app`."""

    def __init__(self, app: ASGIApp, door: Door, meter: Meter, sessions: Sessions) -> None:
        self._app = app
        self._door = door
        self._sessions = sessions
        self._meter = meter
        self._rates = Rates()
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, told = time.monotonic(), 500, False

        def tell() -> None:
            nonlocal told
            if told:
                return
            told, seconds = True, time.monotonic() - started
            path = scope["raw_path"].decode("ascii", "replace")  # still encoded: no line break can come out of it
            access.info("%s %s %d %.0f ms", scope["method"], path, status, 1000 * seconds)
            self._meter.answered(scope["method"], getattr(scope.get("route"), "path", "none"), status, seconds)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            elif message["type"] == "http.response.body" and not message.get("more_body", False):
                tell()  # before its end leaves: who has the whole answer finds it in the log
            await send(message)

        try:
            await self._pass(scope, receive, watched)
        finally:
            tell()

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        client = self._admit(scope, path)
        if isinstance(client, Refusal):
            await refusals.reply(scope, client)(scope, receive, send)
            return
        self._under_way += 1
        token = keys.asking.set(client)
        try:
            with self._meter.under_way.track_inprogress():
                await self._answer(scope, receive, send)
        finally:
            self._under_way -= 1
            keys.asking.reset(token)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application's answer, in the time that it may take; what was begun before that is cut off."""
        body = await _body(scope, receive, self._door.body_s)
        if isinstance(body, Refusal):
            self._meter.refused("body")
            await refusals.reply(scope, body)(scope, receive, send)
            return
        if body is None:
            return
        begun = False

        async def begins(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with asyncio.timeout(self._door.request_s):
                await self._app(scope, _replay(body, receive), begins)
        except TimeoutError:
            log.warning("An answer took longer than %g s and was ended.", self._door.request_s)
            if not begun:
                late = Refusal(status=503, message=f"There was no answer within {self._door.request_s:g} s.")
                await refusals.reply(scope, late)(scope, receive, send)

    def _admit(self, scope: Scope, path: str) -> Client | Refusal:
        if self._door.hosts and _host(scope) not in self._door.hosts:
            # A page of another site that makes its own name point here (DNS rebinding) still sends that name.
            self._meter.refused("host")
            return Refusal(status=421, message="This server answers to localhost and the names it was given only.")
        if path in OPEN and not (path == "/" and session.wants_html(scope)):
            return ANYBODY
        client = self._client(scope, path)
        if isinstance(client, Refusal):
            self._meter.refused("key")
            return client
        if wait_s := self._rates.wait_s(client):
            self._meter.refused("rate")
            message = f"{client.rate} requests a minute are this key's limit."
            return Refusal(status=429, message=message, code="rate_limit_exceeded", retry_s=wait_s)
        if self._under_way >= self._door.most:
            self._meter.refused("busy")
            return Refusal(status=503, message="The server is busy: try again.", code="overloaded", retry_s=1)
        return client

    def _client(self, scope: Scope, path: str) -> Client | Refusal:
        """Who asks: by a session, where a page of ours is asked for, else by the key itself."""
        if not self._door.keys.required or session.is_open(path):
            return ANYBODY
        if session.is_page(path) and not _only(scope, b"authorization"):
            found = self._sessions.of(scope)
            if found is not None:
                client, scope[session.MARK] = found
                return client
        return self._check_key(scope, path)

    def _check_key(self, scope: Scope, path: str) -> Client | Refusal:
        # Dify's registration takes a 401 for success, and tells the user of a wrong key at 403 alone.
        status = 403 if faults.is_dify(path) else 401
        scheme, _, key = _only(scope, b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            message = "The Authorization header must be: Bearer KEY"
            return Refusal(status=status, message=message, dify=faults.MALFORMED, code="invalid_api_key")
        client = self._door.keys.admit(key.strip())
        if client is None:
            message = "This key is not one of the server's."
            return Refusal(status=status, message=message, dify=faults.NOT_AUTHORISED, code="invalid_api_key")
        return client


def _only(scope: Scope, name: bytes) -> str:
    """The value of a header that must be there once; else ""."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def _host(scope: Scope) -> str:
    """The name in the Host header, without its port."""
    host = _only(scope, b"host").lower()
    return host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]


async def _body(scope: Scope, receive: Receive, within_s: float) -> bytes | Refusal | None:
    """The whole body; None when the client went away before it was sent."""
    too_large = Refusal(status=413, message=f"A request may have {BODY_BYTES} bytes.")
    length = _only(scope, b"content-length")
    if length.isdecimal() and int(length) > BODY_BYTES:
        return too_large
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > BODY_BYTES:
                    return too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return Refusal(status=408, message=f"The request did not arrive within {within_s:g} s.")


def _replay(body: bytes, receive: Receive) -> Receive:
    """`receive` for the application: the body at once, then whatever comes (that the client went away)."""
    pending = [body]

    async def replayed() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replayed
