"""The application: all routes, and errors in each client's own words. A new interface is a line in `create`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

import pipeline
from pipeline import config, errors
from pipeline.serve import citing, dify, faults, guard, mcp_http, openai, rerank
from pipeline.serve.faults import Refusal
from pipeline.serve.meter import CONTENT_TYPE, Meter
from pipeline.serve.shelf import Shelf, tell_failure
from pipeline.serve.web import refusals, routes, session
from pipeline.serve.web.session import Sessions

log = logging.getLogger(__name__)


def create(settings: config.Settings, door: guard.Door) -> ASGIApp:
    """The whole service behind its guard, as an ASGI application with a lifespan."""
    meter = Meter()
    shelf = Shelf(settings, meter)
    sessions = Sessions(door.keys)
    tools = mcp_http.create(shelf)
    # No interactive documentation: its pages load their scripts from elsewhere. /openapi.json is there.
    app = FastAPI(
        title="embed-pipeline",
        version=pipeline.__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lambda _: _living(shelf, tools),
    )
    app.include_router(dify.router(shelf), responses=faults.documented(faults.DifyError))
    for router in (openai.router(shelf), rerank.router(shelf)):
        app.include_router(router, responses=faults.documented(faults.OpenAIError))
    app.router.routes.append(tools.route)
    for router in routes.routers(shelf, sessions, _about):
        app.include_router(router)
    _add_own_routes(app, shelf, meter)
    _add_handlers(app)
    guarded = guard.Guard(app, door, meter, sessions)
    if not settings.serve.origins:
        return guarded
    # Outside of the guard: a browser asks for permission without the key.
    return CORSMiddleware(
        guarded,
        allow_origins=settings.serve.origins,
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type"],
    )


@asynccontextmanager
async def _living(shelf: Shelf, tools: mcp_http.Tools) -> AsyncIterator[None]:
    warming = asyncio.create_task(shelf.warm())  # a collection that is not there yet is a warning in the log
    warming.add_done_callback(tell_failure)
    try:
        async with tools.running():
            yield
    finally:
        warming.cancel()
        await asyncio.gather(warming, return_exceptions=True)
        await shelf.aclose()


def _about() -> dict[str, Any]:
    """What programs are told that ask for `/`; it needs no key, and names no collection."""
    openai_ = ["GET /v1/models", "POST /v1/chat/completions", "POST /v1/embeddings", "POST /v1/rerank", "POST /mcp"]
    interfaces = ["POST /retrieval", *openai_]
    return {"service": "embed-pipeline", "version": pipeline.__version__, "interfaces": interfaces}


def _add_own_routes(app: FastAPI, shelf: Shelf, meter: Meter) -> None:
    refused = faults.documented(faults.PlainError)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: {"description": "not yet, or not any more"}})
    async def readyz() -> JSONResponse:
        """Whether the server's own collection can be asked now. The kind of error alone: no key was asked for."""
        try:
            await shelf.open(shelf.settings.collection)
        except errors.PipelineError as error:
            return JSONResponse({"status": "not ready", "reason": type(error).__name__}, status_code=503)
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", response_class=PlainTextResponse, responses=refused)
    def metrics() -> Response:
        """What the service did, for Prometheus. Needs a key where the rest does."""
        return Response(meter.text(), media_type=CONTENT_TYPE)

    @app.get("/passages/{collection}/{chunk_id}", response_class=PlainTextResponse, responses=refused)
    async def passage(request: Request, collection: str, chunk_id: str) -> Response:
        """One passage with its source line: where the links of citations lead. A browser goes on to its page."""
        if session.wants_html(request.scope):
            return RedirectResponse(f"/sources/{quote(collection, safe='')}/{quote(chunk_id, safe='')}", 303)
        row = await shelf.passage(collection, chunk_id)
        text = f"{citing.source_line(row['uri'], row['page'], row['heading'])}\n{row['text']}\n"
        return PlainTextResponse(text, headers={"X-Content-Type-Options": "nosniff"})


def _add_handlers(app: FastAPI) -> None:
    @app.exception_handler(errors.PipelineError)
    async def ours(request: Request, error: errors.PipelineError) -> Response:
        refusal = faults.of(error, request.scope["path"])
        log.log(logging.WARNING if refusal.status >= 500 else logging.INFO, "%s: %s", type(error).__name__, error)
        return refusals.of(request, error) or faults.reply(request.scope["path"], refusal)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> JSONResponse:
        """What is wrong and where, without the value: it may be long."""
        told = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors()[:5])
        return faults.reply(request.scope["path"], Refusal(status=422, message=told, code="invalid_request"))

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        refusal = Refusal(status=error.status_code, message=error.detail)
        reply = refusals.other(request, refusal) or faults.reply(request.scope["path"], refusal)
        reply.headers.update(error.headers or {})
        return reply

    @app.exception_handler(Exception)
    async def defect(request: Request, error: Exception) -> Response:
        """Answered here without a word of it; Starlette raises it again, and the server logs its traceback."""
        refusal = Refusal(status=500, message="A defect of the server: see its log.")
        return refusals.other(request, refusal) or faults.reply(request.scope["path"], refusal)
