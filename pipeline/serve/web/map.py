"""The map of a collection at /map: what `pipeline map` drew, and the texts and hits that its script asks for.

Nothing is drawn here: a request would take a minute. Points are told once, in columns; a passage is read from the index
when it is looked at, through the Shelf, so that other clients' collections stay closed.
"""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from pipeline import chart, chart_page, errors, query, schema, search
from pipeline.answer_text import terminal_safe
from pipeline.chart import Chart
from pipeline.report_markup import Element, el
from pipeline.serve.shelf import Opened, Shelf
from pipeline.serve.web import layout
from pipeline.serve.web.layout import View
from pipeline.store import Collection
from pipeline.store.charts import Entry

MOST_TEXTS = 50  # in one request
HITS = 15  # of a question, lit up
COMMAND = "pipeline map"


def router(shelf: Shelf) -> APIRouter:
    """The page, and below /map/data/ what its script asks for."""
    api = APIRouter(include_in_schema=False)

    @api.get("/map", response_model=None)
    async def shown(request: Request) -> Response:
        """The picture, and its groups as a list."""
        view = await layout.view(shelf, request)
        body = await asyncio.to_thread(_body, shelf, view)
        return layout.respond(view, view.say("map"), *body, tab="map", scripts=("map.js",), styles=("map.css",))

    @api.get("/map/data/{collection}/{name}", response_model=None)
    async def columns(collection: str, name: str) -> Response:
        """All points, see chart_page.columns."""
        return _json(await asyncio.to_thread(lambda: _encoded(_find(shelf.standing(collection), name))))

    @api.get("/map/data/{collection}/{name}/passages", response_model=None)
    async def passages(
        collection: str, name: str, i: Annotated[list[int], Query(min_length=1, max_length=MOST_TEXTS)]
    ) -> Response:
        """Heading, text and address of the points of these numbers; a text of null: not in the index any more."""
        opened = await shelf.open(collection)
        return _json(await asyncio.to_thread(_passages, opened, name, i))

    @api.get("/map/data/{collection}/{name}/hits", response_model=None)
    async def hits(collection: str, name: str, q: Annotated[str, Query(min_length=1, max_length=2_000)]) -> Response:
        """The hits of a question, best first; `i`: number of the point, null where it is not on this map."""
        places = await asyncio.to_thread(lambda: _places(_find(shelf.standing(collection), name)))
        found = await shelf.find(collection, q, top_k=HITS, rerank=False)
        told = [_hit(hit, places.get(hit.chunk_id), collection) for hit in found.hits]
        return _json(msgspec.json.encode({"hits": told}))

    return api


def _json(content: bytes) -> Response:
    return Response(content, media_type="application/json", headers=layout.NO_STORE)


def _address(collection: str, chunk_id: str) -> str:
    return f"/sources/{quote(collection, safe='')}/{quote(chunk_id, safe='')}"


def _hit(hit: search.Hit, number: int | None, collection: str) -> dict[str, Any]:
    told = {"path": terminal_safe(hit.path), "title": terminal_safe(hit.title), "page": hit.page}
    return told | {"i": number, "href": _address(collection, hit.chunk_id)}


def _passages(opened: Opened, name: str, numbers: list[int]) -> bytes:
    drawn = _loaded(_find(opened.standing, name)).rows["chunk_id"]
    if any(not 0 <= number < len(drawn) for number in numbers):
        raise errors.UsageError("The map has no such point.")
    ids = schema.strings(drawn.take(numbers))
    rows = {row["chunk_id"]: row for row in opened.reader.get(ids).to_pylist()}
    told = []
    for number, chunk_id in zip(numbers, ids, strict=True):
        row = rows.get(chunk_id)
        heading, text = chart_page.shown(row["heading"], row["text"]) if row is not None else ("", None)
        told.append(
            {"i": number, "heading": heading, "text": text, "href": _address(opened.settings.collection, chunk_id)}
        )
    return msgspec.json.encode({"passages": told})


# -- the page


def _body(shelf: Shelf, view: View) -> list[Element]:
    head = el("h1", view.say("map"))
    if view.health is None:
        return [head, _panel(view, "nothing_published", "pipeline run DOCS", kind="")]
    standing = shelf.standing(view.collection)
    command = COMMAND if view.collection == shelf.settings.collection else f"{COMMAND} --collection {view.collection}"
    found = chart.newest(standing.collection, standing.note)
    if found is None:
        return [head, _panel(view, "map_none", command, "map_needs", kind="")]
    entry, current = found
    try:
        drawn = _loaded(Kept(collection=standing.collection, entry=entry))
    except errors.CorruptStore:
        return [head, _panel(view, "map_damaged", f"{command} --again")]
    old = [] if current else [_panel(view, "map_old", command, when=_moment(drawn.note.published_ms))]
    return [head, _told(view, drawn), *old, *_picture(view, drawn)]


def _panel(view: View, key: str, command: str, *further: str, kind: str = "warn", **values: str) -> Element:
    said = [el("p", view.say(one)) for one in further]
    return el(
        "section", el("p", view.say(key, **values)), layout.command(command), *said, class_=f"panel {kind}".strip()
    )


def _told(view: View, drawn: Chart) -> Element:
    note = drawn.note
    words = chart_page.told(drawn, view.say)
    sample = f" · {view.say('map_sample')}" if note.points < note.passages else ""
    return el("p", words + sample, class_="quiet")


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M")


def _picture(view: View, drawn: Chart) -> list[Element]:
    base = f"/map/data/{quote(view.collection, safe='')}/{drawn.entry.name}"
    sources = {"data-columns": base, "data-passages": f"{base}/passages", "data-hits": f"{base}/hits"}
    return chart_page.body(drawn, view.say, view.source, sources)


# -- maps that are there


def _find(standing: query.Standing, name: str) -> Kept:
    """The map of this name.

    Raises:
        NoIndex: there is none, or it was replaced since the page was opened.
    """
    entry = standing.collection.charts.named(name)
    if entry is None:
        raise errors.NoIndex("There is no such map any more: open the page again.")
    return Kept(collection=standing.collection, entry=entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A map on disk, whose file is never changed: it is the same while its path is."""

    collection: Collection = field(compare=False)
    entry: Entry


@functools.lru_cache(maxsize=4)
def _loaded(kept: Kept) -> Chart:
    """The last few that were looked at: each point that is pointed at would read the file again."""
    return chart.read(kept.collection, kept.entry)


@functools.lru_cache(maxsize=4)
def _encoded(kept: Kept) -> bytes:
    return msgspec.json.encode(chart_page.columns(_loaded(kept)))


@functools.lru_cache(maxsize=4)
def _places(kept: Kept) -> dict[str, int]:
    """The number of each point, by chunk_id."""
    return {chunk_id: number for number, chunk_id in enumerate(schema.strings(_loaded(kept).rows["chunk_id"]))}
