"""The addresses of the page: `/` with its views, signing in and out. Sources, reports and the map have their own
modules, with a `router(shelf)` each and a line in `routers`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from pipeline.serve.shelf import Shelf
from pipeline.serve.web import (
    asked,
    assets,
    fields,
    layout,
    login,
    refusals,
    searching,
    session,
    source,
    source_reports,
    trial,
)
from pipeline.serve.web import map as map_page
from pipeline.serve.web.session import Sessions

About = Callable[[], Mapping[str, Any]]


def routers(shelf: Shelf, sessions: Sessions, about: About) -> list[APIRouter]:
    """All routes of the page. `about`: what programs are told that ask for `/`."""
    shown = [source.router(shelf), source_reports.router(shelf), map_page.router(shelf)]
    return [assets.router(), login.router(sessions), _router(shelf, about), *shown]


def _router(shelf: Shelf, about: About) -> APIRouter:
    api = APIRouter()

    @api.get("/", response_model=None)
    async def root(request: Request) -> Response:
        """What is served here; for a browser the page itself."""
        if not session.wants_html(request.scope):
            return JSONResponse(dict(about()), headers={"Vary": "Accept"})
        view = await layout.view(shelf, request)
        wanted = fields.read(view.query, datetime.now())
        tab = view.query.get("view", "search")
        if tab == "ask":
            foreign = session.is_foreign(request.scope)
            return await asked.respond(shelf, view, wanted, whole="whole" in view.query, foreign=foreign)
        if tab == "trial":
            return await trial.respond(shelf, view, wanted)
        return await searching.respond(shelf, view, wanted, part=request.query_params.get("part", ""))

    @api.post("/ask", include_in_schema=False)
    async def ask(request: Request) -> Response:
        """An answer as it is written, for the page's script: the question in the body, the rest as in the address."""
        if session.is_foreign(request.scope, strict=True):
            return refusals.foreign(layout.view_of_request(request))
        view = await layout.view(shelf, request)
        question = (await login.form_of(request)).get("q", "")
        wanted = fields.read({**view.query, "q": question}, datetime.now())
        lines = asked.stream(shelf, view, wanted)
        return StreamingResponse(lines, media_type="application/x-ndjson", headers=layout.NO_STORE)

    return api
