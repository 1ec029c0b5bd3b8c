"""The form above search, answer and test: box, settings, filters; all of it kept in the address.

Knows HTML and what was asked (fields.py); nothing of searching.
"""

from __future__ import annotations

from pipeline.report_markup import Child, Element, el
from pipeline.serve.web import fields
from pipeline.serve.web.fields import Asked
from pipeline.serve.web.layout import View

_SEARCHING = ("mode", "top_k")  # how it is searched, where that can be chosen


def form(view: View, asked: Asked, tab: str) -> Element:
    """A form that works by itself: GET, everything in the address. A script may send it without a reload."""
    hidden = {"view": tab if tab != "search" else "", **view.kept}
    if tab == "ask":  # has no use for them, and keeps them for the other views
        hidden |= {name: asked.given.get(name, "") for name in _SEARCHING}
    parts = [el("input", type="hidden", name=name, value=value) for name, value in hidden.items() if value]
    if tab == "ask":  # without a script the answer is written whole; with one it is asked for by the script
        parts.append(el("noscript", el("input", type="hidden", name="whole", value="1")))
    box = [_box(view, asked, tab), *_fault(view, asked, "q"), _options(view, asked, tab)]
    role = {} if tab == "ask" else {"role": "search"}
    return el("form", *parts, *box, method="get", action="/", id="form", data_view=tab, **role)


def _box(view: View, asked: Asked, tab: str) -> Element:
    label = el("label", view.say(f"{tab}_label"), **{"for": "q"}, class_="hidden")
    marks = _marks(asked, "q")
    common = {"id": "q", "name": "q", "placeholder": view.say(f"{tab}_label"), "autocomplete": "off"}
    common |= {"maxlength": str(fields.LONGEST), "autocapitalize": "none" if tab != "ask" else "sentences", **marks}
    if not asked.question:
        common["autofocus"] = "autofocus"
    if tab == "ask":
        typed = el("textarea", asked.question, rows="1", enterkeyhint="send", **common)
    else:
        typed = el("input", type="search", value=asked.question, enterkeyhint="search", **common)
    button = el("button", view.say({"search": "search", "ask": "ask"}.get(tab, "test")), type="submit", id="go")
    stop = (
        [el("button", view.say("stop"), type="button", id="stop", class_="second", hidden="")] if tab == "ask" else []
    )
    return el("div", label, typed, button, *stop, class_="box")


def _options(view: View, asked: Asked, tab: str) -> Element:
    count = len(asked.given.keys() - (_SEARCHING if tab == "ask" else ()))
    summary: list[Child] = [
        view.say("options"),
        el("span", f" ({count})" if count else "", class_="active number", id="chosen"),
    ]
    settings = [_mode(view, asked), _field(view, asked, "top_k", inputmode="numeric")] if tab != "ask" else []
    filters = [_field(view, asked, name) for name in fields.FILTERS]
    opened = {"open": "open"} if asked.faults else {}
    return el(
        "details", el("summary", *summary), el("div", *filters, *settings, class_="grid"), class_="options", **opened
    )


def _field(view: View, asked: Asked, name: str, **attributes: str) -> Element:
    label = el("label", view.say(name), **{"for": name})
    typed = el(
        "input",
        id=name,
        name=name,
        value=asked.given.get(name, ""),
        placeholder=view.say(f"{name}_example"),
        autocomplete="off",
        spellcheck="false",
        **{**attributes, **_marks(asked, name)},
    )
    return el("div", label, typed, *_fault(view, asked, name), class_="field")


def _mode(view: View, asked: Asked) -> Element:
    chosen = asked.given.get("mode", "")
    options = [el("option", view.say("mode_default"), value="")]
    for name in fields.MODES:
        mark = {"selected": "selected"} if name == chosen else {}
        options.append(el("option", view.say(f"mode_{name}"), value=name, **mark))
    label = el("label", view.say("mode"), **{"for": "mode"})
    select = el("select", *options, id="mode", name="mode", **_marks(asked, "mode"))
    return el("div", label, select, *_fault(view, asked, "mode"), class_="field")


def _marks(asked: Asked, name: str) -> dict[str, str]:
    return {"aria_invalid": "true", "aria_describedby": f"{name}-fault"} if name in asked.faults else {}


def _fault(view: View, asked: Asked, name: str) -> list[Element]:
    if name not in asked.faults:
        return []
    return [el("p", view.say(asked.faults[name]), id=f"{name}-fault", class_="fault")]


def active(view: View, asked: Asked) -> list[Element]:
    """The filters that hold, in a line, with a way out of them; to stand above what was found with them."""
    if not asked.filtered:
        return []
    cleared = dict.fromkeys((*fields.FILTERS, "whole"), "")
    clear = el("a", view.say("clear"), href=view.here(**cleared))
    return [el("p", view.say("only"), " ", el("bdi", ", ".join(asked.said)), " ", clear, class_="filtered")]


def faults(view: View, asked: Asked) -> Element:
    """What cannot be read of what was asked, field by field: nothing was searched for."""
    items = []
    for name, key in asked.faults.items():
        field = view.say("question_step") if name == "q" else view.say(name)
        items.append(el("li", el("strong", field), ": ", view.say(key)))
    return el("section", el("p", view.say("mend_fields")), el("ul", *items), class_="panel bad", role="alert")
