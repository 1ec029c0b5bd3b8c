"""The search view: the form, how many passages were found, and their cards; or why there are none."""

from __future__ import annotations

import asyncio
import shlex
import time

from fastapi.responses import HTMLResponse

from pipeline import config, errors
from pipeline.report_markup import Element, el, markup
from pipeline.serve import faults, keys
from pipeline.serve.shelf import Shelf
from pipeline.serve.web import form, layout, refusals, results
from pipeline.serve.web.fields import Asked
from pipeline.serve.web.layout import View


async def respond(shelf: Shelf, view: View, asked: Asked, *, part: str = "") -> HTMLResponse:
    """The view. `part` "results": what is below the form alone, for a script that searches at once."""
    tally, body, status = await _found(shelf, view, asked)
    named = view.say("search")
    title = f"{asked.question} · {named}" if asked.question else named
    marks = {"data_tally": tally, "data_title": layout.title(view, title), "data_broken_off": view.say("broken_off")}
    found = el("div", *body, id="results", **marks)
    if part == "results":  # a field that cannot be read yet is no error of a script's that sends it
        return HTMLResponse(markup(found), 200 if asked.faults else status, layout.NO_STORE)
    shown = el("p", tally, id="tally", class_="tally", role="status")
    heading = el("h1", named, class_="hidden")
    return layout.respond(
        view, title, heading, form.form(view, asked, "search"), shown, found, _keys(view), tab="search", status=status
    )


async def _found(shelf: Shelf, view: View, asked: Asked) -> tuple[str, list[Element], int]:
    """What is said of the result, what is shown of it, and the status."""
    if (missing := nothing(view, shelf.settings)) is not None:
        return "", *missing
    if asked.faults:
        return "", [form.faults(view, asked)], 400
    if not asked.question:
        return "", [*form.active(view, asked), await _start(shelf, view)], 200
    began = time.perf_counter()
    try:
        found = await shelf.find(view.collection, asked.question, top_k=asked.top_k, mode=asked.mode, where=asked.where)
    except errors.PipelineError as error:
        return "", refusals.told(view, error, heading="h2"), faults.of(error, "/").status
    if not found.hits:
        said = view.say("found_none_filtered" if asked.filtered else "found_none")
        return said, form.active(view, asked), 200
    took = _duration(time.perf_counter() - began)
    said = view.say("found_one" if len(found.hits) == 1 else "found", n=len(found.hits), time=took)
    return said, [*form.active(view, asked), results.cards(view, found.hits, asked.question)], 200


async def _start(shelf: Shelf, view: View) -> Element:
    """Where nothing is asked yet: what the box is for, and where one may look."""
    found = await asyncio.to_thread(lambda: layout.watch.folders(shelf.standing(view.collection)))
    items = []
    for name, count in found:
        link = el("a", el("bdi", f"{name}/"), href=view.address("/", path=f"{name}/"))
        items.append(el("li", link, " ", el("span", view.count("documents", count), class_="number")))
    where = [el("h2", view.say("folders")), el("ul", *items, class_="folders")] if items else []
    return el("div", el("p", view.say("start_search")), *where, class_="start")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"


def nothing(view: View, settings: config.Settings) -> tuple[list[Element], int] | None:
    """Where there is nothing to search: what to type, or that there is no such collection; and the status."""
    own = view.collection == settings.collection and keys.asking.get().may_ask(view.collection)
    if view.health is None and not own:
        return refusals.panel(view, view.say("no_passage"), heading="h2"), 404
    if view.health is None:
        return [_told(view, "nothing_published", "build_first", _line(settings, "run FOLDER"), "then_reload")], 200
    if not view.health.passages:
        return [_told(view, "empty_index", "see_status", _line(settings, "status"))], 200
    return None


def _told(view: View, what: str, then: str, typed: str, after: str = "") -> Element:
    parts = [el("h2", view.say(what)), el("p", view.say(then)), layout.command(typed)]
    parts += [el("p", view.say(after), class_="quiet")] if after else []
    return el("section", *parts, class_="panel")


def _line(settings: config.Settings, words: str) -> str:
    """A command line for the server's own collection."""
    chosen = "" if settings.collection == "default" else f"--collection {shlex.quote(settings.collection)} "
    return f"pipeline {chosen}{words}"


def _keys(view: View) -> Element:
    """For who uses the keyboard; hidden until the script, which makes them work, shows it."""
    rows = [(("/",), "key_box"), (("j", "k"), "key_cards"), (("Enter",), "key_open"), (("Esc",), "key_leave")]
    parts: list[Element | str] = [view.say("keys_hint")]
    for typed, word in rows:
        parts += [" ", *(el("kbd", key) for key in typed), " ", view.say(word)]
    return el("p", *parts, class_="keys", hidden="", id="keys")
