"""What all pages share: who looks at which collection in which language (View), header, footer, and the document
around them (respond).

Knows HTML and addresses; nothing of searching. Whoever adds a page: `view = await layout.view(shelf, request)`, then
`layout.respond(view, title, el(...), tab="map", scripts=("map.js",))`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, Response

from pipeline import errors
from pipeline.report_markup import Child, Element, el, markup
from pipeline.serve.shelf import Shelf
from pipeline.serve.web import assets, health, session, words
from pipeline.serve.web.words import Language

TABS = ("search", "ask", "trial", "map")
SHARED = ("q", "mode", "top_k", "path", "type", "modified", "page", "heading")  # kept from one view to another
NO_STORE = {"Cache-Control": "no-store"}  # what documents say is not for a browser's disk


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Who looks at what.

    Attributes:
        collection: whose passages are shown; collections: all that this client may see, sorted.
        home: the collection that is shown where an address names none.
        words: of `language`, see `say`. asked: whether the address named the language.
        path: of the page; query: its parameters, in order.
        health: how the collection stands; None where nothing is published.
        signed_in: by a session, which can be ended.
    """

    collection: str = ""
    collections: tuple[str, ...] = ()
    home: str = ""
    language: Language = "en"
    asked: bool = False
    words: Mapping[str, str] = field(default_factory=lambda: words.of("en"))
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)
    health: health.Health | None = None
    signed_in: bool = False

    def say(self, key: str, **values: object) -> str:
        """A word of ours in the reader's language; numbers with their thousands apart."""
        told = {name: f"{value:,}" if isinstance(value, int) else value for name, value in values.items()}
        return self.words[key].format(**told)

    def count(self, key: str, n: int) -> str:
        """`say` of so many."""
        return self.say(f"{key}_one" if n == 1 else key, n=n)

    @property
    def kept(self) -> dict[str, str]:
        """The parameters that go along to every page: the collection and the language, where they were chosen."""
        kept = {"collection": self.collection} if self.collection != self.home else {}
        return kept | ({"lang": self.language} if self.asked else {})

    def address(self, path: str, /, **parameters: str) -> str:
        """An address of this server in the same collection and language; parameters that are "" are left out.

        `path`: as it is to stand in the address: parts of it that are not ours are to be quoted before.
        """
        wanted = {name: value for name, value in {**parameters, **self.kept}.items() if value}
        return f"{path}?{urlencode(wanted)}" if wanted else path

    def source(self, chunk_id: str) -> str:
        """Where a passage is shown in its document."""
        wanted = {"lang": self.language} if self.asked else {}
        path = f"/sources/{quote(self.collection, safe='')}/{quote(chunk_id, safe='')}"
        return f"{path}?{urlencode(wanted)}" if wanted else path

    def here(self, /, **changed: str) -> str:
        """This page's own address with other parameters; one that is "" is taken out."""
        wanted = {name: value for name, value in {**self.query, **changed}.items() if value}
        return f"{self.path}?{urlencode(wanted)}" if wanted else self.path


async def view(shelf: Shelf, request: Request, collection: str = "") -> View:
    """What this request looks at. `collection`: by the page's path; else its parameter `collection`, else the server's
    own, else the first that the client may see.

    Nothing is raised for a collection that is not there or not for this client: it has no health, and whatever is asked
    of it is refused by the Shelf.
    """
    names = await asyncio.to_thread(shelf.names)
    own = shelf.settings.collection
    home = own if own in names or not names else names[0]
    shown = view_of_request(request)
    name = collection or shown.query.get("collection", "") or home
    found = await asyncio.to_thread(_health, shelf, name)
    return replace(shown, collection=name, collections=tuple(names), home=home, health=found)


watch = health.Watch()


def _health(shelf: Shelf, name: str) -> health.Health | None:
    try:
        return watch.of(shelf.standing(name))
    except errors.NoIndex:
        return None


def view_of_request(request: Request) -> View:
    """The part of a View that needs no collection: for pages of errors, and for signing in."""
    query = {name: value for name, value in request.query_params.items() if name != "part"}
    asked = query.get("lang", "")
    language = next((known for known in words.LANGUAGES if known == asked), None)
    chosen = language or words.preferred(request.headers.get("accept-language", ""))
    return View(
        language=chosen,
        asked=language is not None,
        words=words.of(chosen),
        path=quote(request.scope["path"]),
        query=query,
        signed_in=session.MARK in request.scope,
    )


# -- the document


def respond(
    view: View,
    title: str,
    *body: Child,
    tab: str = "",
    scripts: Sequence[str] = (),
    styles: Sequence[str] = (),
    status: int = 200,
) -> HTMLResponse:
    """A whole page.

    Args:
        title: what is shown of which collection, such as "Search".
        tab: the view that it is, of TABS; "" for none.
        scripts, styles: of static/, beside page.js and page.css.
    """
    main = el("main", *body, id="content", tabindex="-1")
    inner = [el("a", view.say("skip"), href="#content", class_="skip"), _header(view, tab), main, _footer(view)]
    return HTMLResponse(document(view, title, *inner, scripts=scripts, styles=styles), status, NO_STORE)


def bare(view: View, title: str, *body: Child, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A page that tells nothing of any collection: to sign in, and where a request was refused before it was read."""
    home = el("a", *_brand(), href=view.address("/"), class_="brand")
    brand = el("header", el("div", home, el("div", _switch(view), class_="tools"), class_="bar"))
    inner = [brand, el("main", *body, id="content", class_="narrow")]
    return HTMLResponse(document(view, title, *inner), status, {**NO_STORE, **(headers or {})})


def document(view: View, named: str, *body: Child, scripts: Sequence[str] = (), styles: Sequence[str] = ()) -> str:
    """The HTML around a page's body."""
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title(view, named)),
        el("link", rel="icon", href=assets.address("icon.svg"), type="image/svg+xml"),
        *(el("link", rel="stylesheet", href=assets.address(name)) for name in ("page.css", *styles)),
        *(el("script", src=assets.address(name), defer="defer") for name in ("page.js", *scripts)),
    )
    lang = "zh-Hans" if view.language == "zh" else "en"
    return "<!doctype html>\n" + markup(el("html", head, el("body", *body), lang=lang)) + "\n"


def title(view: View, named: str) -> str:
    """The document's title: what is shown, of which collection, by what."""
    return " · ".join(part for part in (named, view.collection, "embed-pipeline") if part)


def _brand() -> tuple[Element, Element]:
    return el("img", src=assets.address("icon.svg"), alt="", width="20", height="20"), el("span", "embed-pipeline")


def _header(view: View, tab: str) -> Element:
    brand = el("a", *_brand(), href=view.address("/"), class_="brand")
    tools = [part for part in (_chooser(view), _switch(view), _sign_out(view)) if part is not None]
    return el("header", el("div", brand, _tabs(view, tab), el("div", *tools, class_="tools"), class_="bar"))


def _tabs(view: View, tab: str) -> Element:
    shared = {name: view.query[name] for name in SHARED if view.query.get(name)} if tab in TABS[:3] else {}
    links = []
    for name in TABS:
        address = view.address("/map") if name == "map" else view.address("/", view=name, **shared)
        current = {"aria_current": "page"} if name == tab else {}
        links.append(el("a", view.say(name), href=address, data_tab=name, **current))
    return el("nav", *links, aria_label=view.say("views"))


def _chooser(view: View) -> Element | None:
    """The collections that this client may see; nothing where there is no choice."""
    if len(view.collections) < 2 and view.collection in (*view.collections, ""):
        return el("span", view.collection, class_="only") if view.collection else None
    lang = {"lang": view.language} if view.asked else {}
    shared = {name: view.query[name] for name in ("view", "q", "mode", "top_k") if view.query.get(name)}
    items = []
    for name in view.collections:
        chosen = {"collection": name} if name != view.home else {}
        path = "/map" if view.path == "/map" else "/"
        wanted = {**(shared if path == "/" else {}), **chosen, **lang}
        current = {"aria_current": "true"} if name == view.collection else {}
        items.append(el("li", el("a", name, href=f"{path}?{urlencode(wanted)}" if wanted else path, **current)))
    summary = el("summary", el("span", f"{view.say('collection')}: ", class_="hidden"), view.collection)
    return el("details", summary, el("ul", *items), class_="menu")


def _switch(view: View) -> Element:
    """A link for each other language, named in itself."""
    other: Language = "zh" if view.language == "en" else "en"
    lang = "zh-Hans" if other == "zh" else "en"
    return el("a", words.NAMES[other], href=view.here(lang=other), lang=lang, hreflang=lang, class_="lang")


def _sign_out(view: View) -> Element | None:
    if not view.signed_in:
        return None
    return el("form", el("button", view.say("sign_out"), class_="plain"), method="post", action="/logout")


# -- the foot of the page


def _footer(view: View) -> Element:
    found = view.health
    if found is None:
        return el("footer", el("p", view.say("nothing_published")))
    parts: list[Child] = [view.count("documents", found.documents), view.count("passages", found.passages)]
    parts.append(el("span", found.model, class_="model"))
    if found.at_ms:
        parts.append(el("span", *_when(view, found.at_ms)))
    parts.append(view.say("generation", n=found.generation))
    line = el("p", *_dotted(parts))
    return el("footer", line, *_run(view, found))


def _when(view: View, at_ms: int) -> tuple[Child, ...]:
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    local = moment.astimezone().strftime("%Y-%m-%d %H:%M")
    before, _, after = view.words["published"].partition("{when}")
    return before, el("time", local, datetime=moment.isoformat(timespec="seconds")), after


def _run(view: View, found: health.Health) -> list[Element]:
    """How the newest run ended, and what is not as it should be."""
    parts: list[Child] = []
    if found.ending:
        mark = {"good": "good", "bad": "bad"}.get(found.ending, "warn")
        parts.append(el("span", view.say(f"last_run_{found.ending}"), class_=f"mark {mark}"))
    if found.report:
        path = f"/reports/{quote(view.collection, safe='')}/{quote(found.report, safe='')}"
        parts.append(el("a", view.say("report"), href=path, target="_blank", rel="noopener"))
    if found.rollback_of:
        parts.append(view.say("rolled_back", n=found.rollback_of))
    if found.stale:
        parts.append(el("span", view.say("stale"), class_="mark warn"))
    return [el("p", *_dotted(parts))] if parts else []


def _dotted(parts: Sequence[Child]) -> list[Child]:
    """With a dot between two."""
    joined: list[Child] = []
    for part in parts:
        joined += [" · ", part] if joined else [part]
    return joined


def command(text: str) -> Element:
    """What to type into a terminal."""
    return el("pre", el("code", text), class_="command", tabindex="0")
