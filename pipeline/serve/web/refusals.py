"""Why a request was not answered, for people: a page with what happened and what to type, or the way to sign in.

Programs get what faults.py says; so does whoever asks for no page. Which status an error has is decided there.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import RedirectResponse, Response

from pipeline import errors
from pipeline.report_markup import Child, Element, el
from pipeline.serve import faults
from pipeline.serve.faults import Refusal
from pipeline.serve.web import layout, session

_WORDS = {
    401: "sign_in",
    404: "not_found",
    405: "not_found",
    408: "busy",
    413: "too_large",
    429: "too_many",
    503: "busy",
}


def reply(scope: Any, refusal: Refusal) -> Response:
    """For a request that was refused before anything of it was read."""
    if not _wanted(scope):
        return faults.reply(scope["path"], refusal)
    if refusal.status == 401 and scope["method"] in ("GET", "HEAD") and not session.header(scope, b"authorization"):
        return RedirectResponse(session.login_address(scope), 303, layout.NO_STORE)
    headers = {"Retry-After": str(refusal.retry_s)} if refusal.retry_s else {}
    view = layout.view_of_request(Request(scope))
    key = _WORDS.get(refusal.status, "wrong_request" if refusal.status < 500 else "defect")
    shown = [*panel(view, view.say(key), said="" if key == "not_found" else refusal.message), _way_back(view)]
    return layout.bare(view, view.say("error"), *shown, status=refusal.status, headers=headers)


def _wanted(scope: Any) -> bool:
    return session.wants_html(scope) and not session.is_for_programs(scope["path"])


def of(request: Request, error: errors.PipelineError) -> Response | None:
    """A page that tells this error; None for who asked for no page."""
    if not _wanted(request.scope):
        return None
    view = layout.view_of_request(request)
    status = faults.of(error, request.scope["path"]).status
    body = [*told(view, error), _way_back(view)]
    return layout.bare(view, view.say("error"), *body, status=status)


def other(request: Request, refusal: Refusal) -> Response | None:
    """The same of what is no error of ours: an address that there is none of, a defect."""
    return reply(request.scope, refusal) if _wanted(request.scope) else None


def foreign(view: layout.View) -> Response:
    """For what another site's page made a browser send."""
    shown = [*panel(view, view.say("foreign")), _way_back(view)]
    return layout.bare(view, view.say("error"), *shown, status=403)


def told(view: layout.View, error: errors.PipelineError, heading: str = "h1") -> list[Element]:
    """What happened, and what to type: in words of ours, with what the program says beneath."""
    key, typed = _explained(view, error)
    # What a file of the data folder is called is nobody's business who reads this through a network.
    said = "" if isinstance(error, errors.StoreError) else error.message
    return panel(view, view.say(key), typed, said, heading=heading)


def panel(view: layout.View, what: str, typed: str = "", said: str = "", *, heading: str = "h1") -> list[Element]:
    """`typed`: a command that helps. `said`: the program's own words, which are English."""
    parts: list[Child] = [el(heading, view.say("error")), el("p", what)]
    parts += [layout.command(typed)] if typed else []
    parts += [el("p", view.say("said"), ": ", el("span", said, lang="en"), class_="quiet")] if said else []
    return [el("section", *parts, class_="panel bad", role="alert")]


def _way_back(view: layout.View) -> Element:
    return el("p", el("a", view.say("back"), href="/" + (f"?lang={view.language}" if view.asked else "")))


def _explained(view: layout.View, error: errors.PipelineError) -> tuple[str, str]:
    """The word of ours for an error, and what to type."""
    match error:
        case errors.NoIndex():
            return "no_passage", ""
        case errors.UsageError() | errors.TextRejected():
            return "wrong_request", ""
        case errors.ModelMissing():
            return "model_missing", "pipeline doctor"
        case errors.ModelMismatch() | errors.IndexMismatch():
            return "model_mismatch", "pipeline doctor"
        case errors.ServerUnreachable():
            return "model_down", "ollama serve"
        case errors.ServerRefused():
            return "model_refused", "pipeline doctor"
        case errors.ModelError():
            return "model_late", ""
        case errors.StoreError():
            return "unreadable", "pipeline check"
    return "defect", ""
