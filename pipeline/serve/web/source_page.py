"""The page of a source as HTML: what is known of a passage put into words, its document's text, the picture beside it.

Knows no routes and reads nothing.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from fastapi.responses import HTMLResponse

from pipeline import origin, search
from pipeline.answer_text import headings_shown, terminal_safe
from pipeline.expansion import Text
from pipeline.readers.pdf_page import Picture
from pipeline.report_markup import Child, Element, el
from pipeline.serve.web import layout, source_text
from pipeline.serve.web.layout import View

PDF = "application/pdf"
WHOLE = 0.9  # of a passage's letters: with fewer marked, the reader is told so
_SHARP = 2  # pixels of a picture for one of the page


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A passage with what it comes from. `address`: of its page; `text`: None where the document is not there."""

    address: str
    row: search.Row
    text: Text | None
    origin: origin.Origin


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What became of the picture of a page.

    Attributes:
        marked: whether some of the passage stands on this page.
        picture: None where it is being drawn, or where there is none, and then:
        fault: a kind of DocumentError or WorkerError, or "busy".
    """

    page: int
    marked: bool
    picture: Picture | None = None
    fault: str = ""


def gone(view: View) -> HTMLResponse:
    """Of a passage that the collection does not hold (any more)."""
    words = [el("h1", view.say("source_gone")), el("p", view.say("source_gone_why"))]
    back = el("p", el("a", view.say("back"), href=view.address("/")))
    return layout.respond(view, view.say("source"), el("section", *words, class_="panel warn"), back, status=404)


def respond(view: View, found: Passage, drawn: Drawn | None, *, start: int | None, path: str) -> HTMLResponse:
    """The page. `start`: where the part of the text is that was asked for; `path`: of the file, where it is shown."""
    row = found.row
    name = posixpath.basename(row["uri"]) or row["uri"]
    title = row["title"] or name
    parts: list[Child] = [_back(view), el("h1", el("bdi", title)), _about(view, found, path)]
    parts += _notices(view, found)
    columns = [_text(view, found, start, go=drawn is None)]  # whoever sees a picture is to see that first
    if drawn is not None:
        columns.insert(0, _figure(view, found, drawn))
    parts.append(el("div", *columns, class_="columns" if drawn is not None else "column"))
    return layout.respond(
        view, name, el("article", *parts, class_="source"), styles=("source.css",), scripts=("source.js",)
    )


def _back(view: View) -> Element:
    """To where the reader came from, which only the browser knows: the script shows it."""
    link = el("a", f"← {view.say('source_results')}", href=view.address("/"))
    return el("p", link, class_="back", hidden="hidden")


# -- what is known of it


def _about(view: View, found: Passage, path: str) -> Element:
    """Where the passage stands, and where its file is: a line each."""
    row = found.row
    where: list[Child] = [el("bdi", row["uri"], class_="path")]
    if row["page"] is not None:
        where.append(view.say("source_page_n", page=str(row["page"])))
    if row["heading"]:
        where.append(el("bdi", headings_shown(row["heading"])))
    lies: list[Child] = []
    if found.origin.member:
        lies.append(el("span", view.say("source_inside"), " ", el("bdi", found.origin.uri, class_="path")))
    if path:
        lies.append(el("span", view.say("source_path"), " ", *_path(view, path)))
    if can_be_saved(found):
        lies.append(el("a", view.say("source_download"), href=f"{found.address}/file", download=""))
    lines = [el("p", *[piece for part in line for piece in (" · ", part)][1:]) for line in (where, lies) if line]
    return el("div", *lines, class_="about")


def can_be_saved(found: Passage) -> bool:
    """Whether the file may be downloaded: see source.py."""
    return bool(found.row["media_type"] == PDF and found.origin.fate == "same" and not found.origin.member)


def _path(view: View, path: str) -> list[Child]:
    """With a button that the script shows: without one it could do nothing. A name that is not text as it is, or holds
    what this page leaves out, is not offered to be copied: it would be another."""
    shown: list[Child] = [el("code", path.encode("utf-8", "replace").decode(), class_="path")]
    if terminal_safe(path) == path:
        button = el("button", view.say("source_copy"), type="button", hidden="hidden", class_="plain copy")
        button.set("data-copy", path)
        button.set("data-copied", view.say("source_copied"))
        shown += [" ", button]
    return shown


def _notices(view: View, found: Passage) -> list[Element]:
    notices = []
    if found.origin.fate != "same":
        fate = "lost" if found.origin.fate == "gone" else found.origin.fate
        notices.append(view.say(f"source_{fate}"))
    if found.text is None:
        notices.append(view.say("source_no_text"))
    return [el("p", notice, class_="panel warn", role="note") for notice in notices]


# -- the picture


def _figure(view: View, found: Passage, drawn: Drawn) -> Element:
    picture = drawn.picture
    parts: list[Child] = [el("h2", view.say("source_page_n", page=str(drawn.page)))]
    if not drawn.fault:
        address = f"{found.address}/page.png?page={drawn.page}"
        size = {"width": str(picture.width // _SHARP), "height": str(picture.height // _SHARP)} if picture else {}
        image = el("img", src=address, alt=view.say("source_picture", page=str(drawn.page)), **size)
        parts.append(el("a", image, href=address, class_="sheet"))
    parts.append(el("figcaption", _said(view, drawn), *_elsewhere(view, found, drawn)))
    pages = picture.pages if picture is not None else None
    return el("div", el("figure", *parts), _steps(view, drawn.page, pages), class_="picture")


def _said(view: View, drawn: Drawn) -> str:
    """What is to be seen on the picture."""
    if drawn.fault:
        known = {"changed": "changed", "no_page": "no_page", "busy": "busy"}
        return view.say(f"source_picture_{known.get(drawn.fault, 'fault')}")
    if drawn.picture is None:
        return view.say("source_drawing")
    if not drawn.marked:
        return view.say("source_not_here")
    if not drawn.picture.letters:
        return view.say("source_scan")
    if not drawn.picture.share:
        return view.say("source_not_found")
    return view.say("source_marked" if drawn.picture.share >= WHOLE else "source_partly")


def _elsewhere(view: View, found: Passage, drawn: Drawn) -> list[Child]:
    """Links to the other pages that the passage stands on."""
    own = source_text.pages(found.text, found.row["start"], found.row["end"]) if found.text else [found.row["page"]]
    links: list[Child] = []
    for page in own:
        if page != drawn.page:
            label = view.say("source_also", page=str(page))
            links += [" ", el("a", label, href=view.here(page=str(page)))]
    return links


def _steps(view: View, page: int, pages: int | None) -> Element:
    """To the page before and after."""
    links: list[Child] = []
    if page > 1:
        links.append(el("a", view.say("source_before"), href=view.here(page=str(page - 1)), rel="prev"))
    if pages:
        links.append(el("span", view.say("source_of", page=str(page), pages=str(pages))))
    if pages is None or page < pages:
        links.append(el("a", view.say("source_after"), href=view.here(page=str(page + 1)), rel="next"))
    return el("nav", *links, aria_label=view.say("source_pages"), class_="steps")


# -- the text


def _text(view: View, found: Passage, start: int | None, *, go: bool) -> Element:
    """`go`: there is no picture, and the browser goes to the passage."""
    row, text = found.row, found.text
    heading = el("h2", view.say("source_text"))
    if text is None:
        mark = el("mark", row["text"], id=source_text.ANCHOR, tabindex="-1")
        return el("section", heading, el("p", mark, class_="paragraph"), class_="text")
    at = (row["start"], row["end"]) if start is None else (min(start, len(text.text)),) * 2
    seen = source_text.window(text, *at)
    labels = source_text.page_labels(seen.blocks)
    shown: list[Child] = []
    for number, element in source_text.Shown(text, seen, row["start"], row["end"], go=go).elements():
        if number in labels:
            shown.append(_leaf(view, labels[number], linked=not go))
        shown.append(element)
    first, last = seen.start > text.blocks[0].start, seen.end < text.blocks[-1].end
    before = [_more(view, "source_earlier", max(0, seen.start - source_text.WINDOW))] if first else []
    after = [_more(view, "source_later", seen.end + source_text.WINDOW)] if last else []
    back = [el("p", el("a", view.say("source_back"), href=view.here(**{"from": ""}) + f"#{source_text.ANCHOR}"))]
    body = el("div", *before, *shown, *after, class_="document", tabindex="0")
    return el("section", heading, *(back if start is not None else []), body, class_="text")


def _leaf(view: View, page: int, *, linked: bool) -> Element:
    """Where a page begins; with a link to its picture."""
    label = view.say("source_page_n", page=str(page))
    return el("p", el("a", label, href=view.here(page=str(page))) if linked else label, class_="leaf")


def _more(view: View, key: str, at: int) -> Element:
    return el("p", el("a", view.say(key), href=view.here(**{"from": str(at)})), class_="more")
