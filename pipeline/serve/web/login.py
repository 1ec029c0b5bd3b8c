"""Signing in with a key, and out again. Where the server asks for no key there is nothing to do here."""

from __future__ import annotations

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from pipeline.report_markup import Element, el
from pipeline.serve.web import layout, refusals, session
from pipeline.serve.web.session import Sessions

MOST_KEY = 500  # characters


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form as a browser sends it, the last of each name. Bytes that are no UTF-8 become U+FFFD."""
    text = (await request.body()).decode("ascii", "replace")
    return {name: values[-1] for name, values in parse_qs(text, keep_blank_values=True, max_num_fields=50).items()}


def router(sessions: Sessions) -> APIRouter:
    api = APIRouter(include_in_schema=False)

    @api.get("/login")
    def ask(request: Request, next: str = "/") -> Response:  # noqa: A002  # the parameter's name in the address
        """The form, unless there is nothing to sign in to."""
        if not sessions.required or sessions.of(request.scope) is not None:
            return RedirectResponse(session.inside(next), 303, layout.NO_STORE)
        return _page(layout.view_of_request(request), next)

    @api.post("/login")
    async def enter(request: Request) -> Response:
        """Begin a session, and go where the reader came from."""
        view = layout.view_of_request(request)
        if session.is_foreign(request.scope):
            return refusals.foreign(view)
        fields = await form_of(request)
        wanted = session.inside(fields.get("next", "/"))
        token = sessions.begin(fields.get("key", "")[:MOST_KEY])
        if token is None:
            return _page(view, wanted, wrong=True)
        return _moved(request, wanted, token)

    @api.post("/logout")
    async def leave(request: Request) -> Response:
        """End the session, on this side and in the browser."""
        if session.is_foreign(request.scope):
            return refusals.foreign(layout.view_of_request(request))
        if (known := sessions.of(request.scope)) is not None:
            sessions.end(known[1])
        return _moved(request, "/login" if sessions.required else "/", "")

    return api


def _moved(request: Request, address: str, token: str) -> Response:
    headers = {**layout.NO_STORE, "Set-Cookie": session.cookie(request.scope, token)}
    return RedirectResponse(address, 303, headers)


def _page(view: layout.View, wanted: str, *, wrong: bool = False) -> Response:
    marks = {"aria_invalid": "true", "aria_describedby": "key-fault"} if wrong else {}
    typed = el(
        "input",
        type="password",
        id="key",
        name="key",
        required="required",
        autocomplete="current-password",
        autofocus="autofocus",
        maxlength=str(MOST_KEY),
        **marks,
    )
    fault = [el("p", view.say("key_wrong"), id="key-fault", class_="fault", role="alert")] if wrong else []
    field = el("div", el("label", view.say("key"), **{"for": "key"}), typed, *fault, class_="field")
    hidden = el("input", type="hidden", name="next", value=session.inside(wanted))
    address = "/login" + (f"?lang={view.language}" if view.asked else "")
    form = el("form", hidden, field, el("button", view.say("sign_in")), class_="signin", method="post", action=address)
    hint: list[Element] = [el("p", view.say("key_hint")), layout.command("pipeline serve key add NAME")]
    kept = el("p", view.say("key_kept"), class_="quiet")
    section = el("section", el("h1", view.say("sign_in")), form, *hint, kept, class_="panel")
    headers = {"WWW-Authenticate": "Bearer"} if wrong else {}
    return layout.bare(view, view.say("sign_in"), section, status=401 if wrong else 200, headers=headers)
