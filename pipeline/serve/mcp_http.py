"""The agents' tools at /mcp, for hosts that speak HTTP: stateless, a JSON answer to each request.

Stateless, so that a request is answered with its own key's rights, by a server that may have been started since the
one before. The guard has looked at key, Host and size already. Without the package `mcp` the route says what to
install.
"""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from starlette.datastructures import URL
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline import errors
from pipeline.serve import citing
from pipeline.serve.shelf import Opened, Shelf

if TYPE_CHECKING:
    from mcp.server import MCPServer

PATH = "/mcp"
INSTALL = f"Agents' tools need the package mcp. {errors.install_extra('mcp')}"

_base: ContextVar[str] = ContextVar("base", default="")  # of this server as the client of the request sees it


class Tools(Protocol):
    """What the application mounts."""

    @property
    def route(self) -> Route: ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """While the server lives."""
        ...


def is_installed() -> bool:
    return importlib.util.find_spec("mcp") is not None


def create(shelf: Shelf) -> Tools:
    """The tools over these collections, as far as they can be had."""
    return _Http(shelf) if is_installed() else Missing()


@dataclass(frozen=True, slots=True)
class Missing:
    """Where the package is not installed."""

    @property
    def route(self) -> Route:
        async def missing(request: Request) -> Response:
            return JSONResponse({"error": INSTALL}, status_code=501)

        return Route(PATH, missing, methods=["GET", "POST", "DELETE"])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield


class _Http:
    def __init__(self, shelf: Shelf) -> None:
        from mcp.server.transport_security import TransportSecuritySettings

        from pipeline.serve import tools

        self._server: MCPServer[None] = tools.create(shelf, _link)
        app = self._server.streamable_http_app(
            streamable_http_path=PATH,
            stateless_http=True,
            json_response=True,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self.route = Route(PATH, _Based(app))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self._server.session_manager.run():
            yield


def _link(opened: Opened, chunk_id: str, uri: str, page: int | None) -> str:
    return citing.passage_url(_base.get(), opened.settings.collection, chunk_id, page)


class _Based:
    """Remembers how the client reached this server, for the links in its answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _base.set(str(URL(scope=scope).replace(path="/", query="")))
        try:
            await self._app(scope, receive, send)
        finally:
            _base.reset(token)
