"""Routes, and the life of the process: it says where it listens, and ends on SIGTERM, on SIGINT, or when its parent is
gone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from tests.fake_ollama import chat, control, embed, faults, manage, wire
from tests.fake_ollama.app import PROXY_PAGE, Answer, App, Refusal, error_shape
from tests.fake_ollama.wire import Reply, Request

Endpoint = Callable[[App, Request], Awaitable[Answer]]
ROUTES: dict[str, tuple[str, Endpoint]] = {
    "/": ("GET", manage.alive),
    "/api/version": ("GET", manage.version),
    "/api/tags": ("GET", manage.tags),
    "/api/ps": ("GET", manage.ps),
    "/api/show": ("POST", manage.show),
    "/api/pull": ("POST", manage.pull),
    "/api/embed": ("POST", embed.embed),
    "/api/embeddings": ("POST", embed.legacy),
    "/api/chat": ("POST", chat.chat),
    "/api/generate": ("POST", chat.generate),
    "/v1/models": ("GET", manage.openai_models),
    "/v1/embeddings": ("POST", embed.openai),
    "/v1/chat/completions": ("POST", chat.openai),
}


async def dispatch(app: App, request: Request) -> Answer:
    """The answer to any request. Unlike gin, a wrong method is a 404 here as well."""
    if request.path.startswith(control.PREFIX):
        return await _refusing(request, control.answer(app, request))
    app.record.saw(request.connection)
    if refusal := _unwelcome(app, request):
        return refusal
    method, endpoint = ROUTES.get(request.path, ("", None))
    if endpoint is None or request.method not in (method, "HEAD" if method == "GET" else method):
        return Reply(status=404, body=b"404 page not found", content_type="text/plain")
    elsewhere = await _struck_elsewhere(app, request)
    answer = elsewhere or await _refusing(request, endpoint(app, request))
    return replace(answer, allow_origin="*") if "origin" in request.headers and isinstance(answer, Reply) else answer


def _unwelcome(app: App, request: Request) -> Reply | None:
    """403 for a page of another site, and for another host's name (simplified: Ollama admits .local and the like)."""
    host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
    foreign_host = not app.any_host and host not in ("localhost", "127.0.0.1", "[::1]", "")
    foreign_page = not app.any_origin and request.headers.get("origin", "").rpartition("//")[2] not in ("", host)
    return Reply(status=403) if foreign_host or foreign_page else None


async def _struck_elsewhere(app: App, request: Request) -> Answer | None:
    """Faults that a test aims at an endpoint without a model (`endpoint="/api/version"`)."""
    if request.path in faults.INFERENCE:
        return None  # these have their own, in `app.conduct`
    fault = app.faults.take(("http500", "garbage", "slow", "hang", "reset"), request.path)
    match fault.kind if fault else "":
        case "http500":
            return wire.reply({"error": "an internal error, made by the test"}, 500)
        case "garbage":
            return Reply(status=502, body=PROXY_PAGE, content_type="text/html")
        case "slow" if fault:
            await asyncio.sleep(fault.seconds)
        case "hang":
            await asyncio.get_running_loop().create_future()
        case "reset":
            raise wire.HangUp
    return None


async def _refusing(request: Request, work: Awaitable[Answer]) -> Answer:
    try:
        return await work
    except Refusal as refusal:
        return error_shape(request.path)(refusal)
    except (TypeError, ValueError) as error:  # a field of the wrong type, as Go's decoder finds it
        return error_shape(request.path)(Refusal(400, str(error)))


async def serve(app: App, *, host: str, port: int, watch_stdin: bool) -> None:
    """Listen, print one JSON line with the port and the URL, and stay until told to end."""
    loop = asyncio.get_running_loop()
    numbers = itertools.count(1)
    ended = asyncio.Event()

    async def handler(request: Request) -> Answer:
        return await dispatch(app, request)

    server = await loop.create_server(lambda: wire.Connection(handler, lambda: next(numbers)), host, port, backlog=512)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if watch_stdin:
        _end_with_stdin(loop, ended)
    bound = server.sockets[0].getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    sys.stdout.write(msgspec.json.encode({"port": bound, "url": f"http://{shown}:{bound}"}).decode() + "\n")
    sys.stdout.flush()
    await ended.wait()
    server.close()


def _end_with_stdin(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    """End when stdin closes: the parent holds the other end, so this is seen even after `kill -9` of the parent."""

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, readable)
