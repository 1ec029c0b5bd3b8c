"""HTTP/1.1 on asyncio and h11: keep-alive, one request at a time per connection, and answers that stop where a fault
says so.

As Go's server does, a body of up to 2,048 bytes has a Content-Length and a longer or streamed one is chunked. A client
that goes away cancels the handler of its request, as the request's context does in Ollama.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import h11
import msgspec

log = logging.getLogger(__name__)
JSON = "application/json; charset=utf-8"
SMALL_BODY = 2048  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str
    query: str
    body: bytes
    connection: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer. `cut`: half the body, then the connection closes."""

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    cut: bool = False
    allow_origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """An answer in pieces; a `HangUp` from `pieces` closes the connection there."""

    pieces: AsyncIterator[bytes]
    content_type: str = "application/x-ndjson"
    status: int = 200


class HangUp(Exception):
    """Close the connection now, without another byte."""


Handler = Callable[[Request], Awaitable[Reply | Stream]]


def reply(value: Any, status: int = 200) -> Reply:
    return Reply(status=status, body=msgspec.json.encode(value))


class Connection(asyncio.Protocol):
    """One client connection. `opened` gives it its number."""

    def __init__(self, handler: Handler, opened: Callable[[], int]) -> None:
        self._handler = handler
        self._opened = opened
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        self._task: asyncio.Task[None] | None = None
        self._head: h11.Request | None = None
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._number = self._opened()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        self._h11.receive_data(data)
        self._advance()

    def eof_received(self) -> bool:
        """A client that half-closes is gone, as for Go's server."""
        return False

    def _advance(self) -> None:
        """Collect what arrived; start the handler when a request is whole and none is being answered."""
        while self._task is None:
            try:
                event = self._h11.next_event()
            except h11.RemoteProtocolError as error:
                log.info("not HTTP: %s", error)
                self._transport.abort()
                return
            if isinstance(event, h11.Request):
                self._head, self._body = event, []
            elif isinstance(event, h11.Data):
                self._body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._task = asyncio.get_running_loop().create_task(self._answer())
            elif isinstance(event, h11.ConnectionClosed):
                self._transport.close()
                return
            else:
                return

    async def _answer(self) -> None:
        assert self._head is not None
        path, _, query = self._head.target.decode("ascii", "replace").partition("?")
        method = self._head.method.decode("ascii")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in self._head.headers}
        body = b"".join(self._body)
        request = Request(method=method, path=path, query=query, body=body, connection=self._number, headers=headers)
        try:
            await self._send(await self._handler(request), with_body=method != "HEAD")
        except HangUp:
            self._transport.close()  # what was written still leaves
        except Exception:
            log.exception("the fake server itself failed on %s %s", method, path)
            self._transport.abort()
        else:
            self._next()

    async def _send(self, answer: Reply | Stream, *, with_body: bool) -> None:
        if isinstance(answer, Stream):
            await self._send_stream(answer)
        elif answer.cut:
            self._begin(answer, chunked=True)
            self._write(h11.Data(answer.body[: len(answer.body) // 2]))
            raise HangUp
        else:
            self._send_whole(answer, with_body=with_body)

    def _send_whole(self, answer: Reply, *, with_body: bool) -> None:
        self._begin(answer, chunked=len(answer.body) > SMALL_BODY)
        if with_body:
            self._write(h11.Data(answer.body))
        self._write(h11.EndOfMessage())

    async def _send_stream(self, answer: Stream) -> None:
        self._begin(answer, chunked=True)
        async for piece in answer.pieces:
            self._write(h11.Data(piece))
            await asyncio.sleep(0)  # each piece leaves on its own
        self._write(h11.EndOfMessage())

    def _begin(self, answer: Reply | Stream, *, chunked: bool) -> None:
        headers = [("Content-Type", answer.content_type)]
        if chunked:
            headers.append(("Transfer-Encoding", "chunked"))
        elif isinstance(answer, Reply):
            headers.append(("Content-Length", str(len(answer.body))))
        if isinstance(answer, Reply) and answer.allow_origin:
            headers.append(("Access-Control-Allow-Origin", answer.allow_origin))
        self._write(h11.Response(status_code=answer.status, headers=headers))

    def _write(self, event: h11.Event) -> None:
        data = self._h11.send(event)
        if data:
            self._transport.write(data)

    def _next(self) -> None:
        self._task = None
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            self._advance()
        else:
            self._transport.close()
