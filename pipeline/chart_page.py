"""A map as a browser reads it: columns in one JSON object, the elements around the picture, and all of it as one page
that works from a file.

The script is serve/web/static/map.js in both cases; with a server it asks for texts when they are looked at, in a file
they lie beside the points. Knows elements and words; nothing of addresses, which are handed in.
"""

from __future__ import annotations

import base64
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import query, report_markup, schema
from pipeline.answer_text import headings_shown, terminal_safe
from pipeline.chart import Chart, Group
from pipeline.report_markup import Child, Element, el

FOLDERS = 11  # with a colour of their own; the last colour is for the rest
EXCERPT = 400  # characters of a passage in a page that works from a file
_STEPS = 65_535  # of a coordinate, 16 bits: finer than any screen
_BLANK_LINES = re.compile(r"\n\s*\n")
# What the script says; the rest is in elements that are there from the beginning.
SPOKEN = (
    "map_page", "map_no_name", "map_other", "map_shown", "map_found", "map_asking", "map_outside", "map_open",
    "map_gone", "map_failed", "map_top",
)  # fmt: skip

Say = Callable[..., str]
Address = Callable[[str], str]  # of a passage, by its chunk_id


def columns(chart: Chart) -> dict[str, Any]:
    """The map for the script: numbers as base64 of little-endian arrays, each file once."""
    rows = chart.rows
    files, pages = pc.unique(rows["uri"]), np.nan_to_num(rows["page"].to_numpy())  # null: nan
    titles = dict(zip(schema.strings(rows["uri"]), schema.strings(rows["title"]), strict=True))
    folders, of_file = _folders(schema.strings(files), schema.strings(rows["uri"]))
    return {
        "name": chart.entry.name,
        "count": rows.num_rows,
        "x": _packed(_scaled(rows["x"]), "<u2"),
        "y": _packed(_scaled(rows["y"]), "<u2"),
        "group": _packed(rows["group"].to_numpy(), "u1"),
        "file": _packed(pc.index_in(rows["uri"], files).to_numpy(), "<u4"),
        "page": _packed(pages, "<u4"),
        "files": [terminal_safe(uri) for uri in schema.strings(files)],
        "titles": [terminal_safe(titles[uri]) for uri in schema.strings(files)],
        "folders": [terminal_safe(folder) for folder in folders],
        "folder": of_file,
        "groups": [{"words": list(map(terminal_safe, group.words)), "size": group.size} for group in chart.note.groups],
    }


def _scaled(column: Any) -> Any:
    return np.clip(np.rint((column.to_numpy() + 1) / 2 * _STEPS), 0, _STEPS)


def _packed(values: Any, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()


def _folders(files: Sequence[str], uris: Sequence[str]) -> tuple[list[str], list[int]]:
    """The folders with most passages, and of each file which it lies in: FOLDERS for any other.

    A folder is the first one below what all paths have in common; what is inside a file lies where that file does.
    """
    above = {uri: posixpath.dirname(uri.partition("!/")[0]) for uri in files}
    shared = posixpath.commonpath(above.values()) if above else ""  # all are relative paths
    first = {uri: _below(folder, shared) for uri, folder in above.items()}
    counts = Counter(first[uri] for uri in uris)
    named = [folder for folder, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:FOLDERS]]
    numbers = {folder: number for number, folder in enumerate(named)}
    return named, [numbers.get(first[uri], FOLDERS) for uri in files]


def _below(folder: str, shared: str) -> str:
    part = folder[len(shared) :].strip("/").partition("/")[0]
    return posixpath.join(shared, part) if part else shared or "."


# -- elements


def body(chart: Chart, say: Say, address: Address | None, sources: Mapping[str, str]) -> list[Element]:
    """The map and, for who sees or uses no picture, its groups with typical passages.

    Args:
        address: of a passage; None: nothing is linked.
        sources: attributes that tell the script where it gets what: `data-…`.
    """
    spoken = msgspec.json.encode({key: say(key, n="{n}") for key in SPOKEN}).decode()
    picture = el("canvas", tabindex="0", role="img", aria_label=_alternative(chart, say), aria_describedby="map-keys")
    tip = el("div", class_="map-tip", hidden="hidden")
    stage = el("div", picture, _zoom(say), tip, class_="map-stage")
    legend = el("div", class_="map-legend", role="group", aria_label=say("map_legend"))
    hits = el("ol", class_="map-hits")
    state = el("p", class_="map-state quiet", role="status")
    keys = el("p", say("map_keys"), id="map-keys", class_="quiet")
    parts = (_tools(say, asks="data-hits" in sources), state, stage, keys, legend, hits)
    shown = el("section", *parts, id="map", class_="map", hidden="hidden")
    for name, value in {**sources, "data-words": spoken}.items():
        shown.set(name, value)
    return [shown, el("noscript", el("p", say("map_script"), class_="panel warn")), groups(chart, say, address)]


def _tools(say: Say, *, asks: bool) -> Element:
    def choice(value: str, **more: str) -> Element:
        return el("label", el("input", type="radio", name="colour", value=value, **more), say(f"map_by_{value}"))

    colours = el("fieldset", el("legend", say("map_colour")), choice("group", checked="checked"), choice("folder"))
    label = say("map_search" if asks else "map_search_names")
    search = el("input", type="search", name="q", placeholder=label, aria_label=label, autocomplete="off")
    ask = [el("button", say("map_ask"), class_="map-ask")] if asks else []
    return el("form", el("div", search, *ask, class_="map-search"), colours)


def _zoom(say: Say) -> Element:
    signs = (("+", "1.6", "map_in"), ("−", "0.625", "map_out"), ("⤢", "0", "map_whole"))
    made = [
        el("button", sign, type="button", data_zoom=factor, aria_label=say(word), title=say(word))
        for sign, factor, word in signs
    ]
    return el("div", *made, class_="map-zoom")


def _alternative(chart: Chart, say: Say) -> str:
    return say("map_alternative", n=chart.note.points, groups=len(chart.note.groups))


def told(chart: Chart, say: Say) -> str:
    """How many passages are drawn, and of how many."""
    note = chart.note
    key = "map_told" if note.points < note.passages else "map_all"
    return say(key, points=note.points, n=note.passages, groups=len(note.groups))


def groups(chart: Chart, say: Say, address: Address | None) -> Element:
    """The groups as a list, each with the passages that stand for it."""
    found = [_group(chart, say, number, group, address) for number, group in enumerate(chart.note.groups)]
    return el("section", el("h2", say("map_groups")), *found, class_="map-groups")


def _group(chart: Chart, say: Say, number: int, group: Group, address: Address | None) -> Element:
    words = label(group) or say("map_no_name")
    size = el("span", f" {group.size:,}", class_="quiet number")
    rows = chart.rows.take(list(group.typical)).to_pylist()
    passages = [el("li", *_passage(row, say, address)) for row in rows]
    mark = el("span", class_=f"map-dot c{number}", aria_hidden="true")
    return el("details", el("summary", mark, el("span", words), size), el("ul", *passages))


def _passage(row: Mapping[str, Any], say: Say, address: Address | None) -> list[Child]:
    place = [f" · {say('map_page', n=row['page'])}"] if row["page"] is not None else []
    name = row["title"] or posixpath.basename(row["uri"])
    linked = el("a", name, href=address(row["chunk_id"])) if address is not None else el("span", name)
    return [linked, *place, el("span", f" {row['uri']}", class_="quiet")]


def label(group: Group) -> str:
    """The name of a group; "" where no word tells it from the others."""
    return " · ".join(group.words)


# -- a page that works from a file


def page(chart: Chart, texts: pa.Table, say: Say, title: str, files: Mapping[str, str], language: str) -> str:
    """All in one, for a browser without a server; its policy allows this one script and these style sheets alone.

    Args:
        texts: chunk_id, heading and text of the passages of `chart`, as far as they are there.
        files: contents of page.css, map.css and map.js.
    """
    shown = body(chart, say, None, {"data-inside": "map-data"})
    data = msgspec.json.encode(columns(chart) | {"texts": _texts(chart, texts)}).decode()
    main = el("main", el("h1", title), el("p", told(chart, say), class_="quiet"), *shown)
    inside = el("div", data, id="map-data", hidden="hidden")
    style = files["page.css"] + files["map.css"]
    return report_markup.page(title, style, main, inside, script=files["map.js"], language=language)


def texts_of(standing: query.Standing, chart: Chart) -> pa.Table:
    """chunk_id, heading and text of what is published now; some passages of an older map may be missing."""
    rows = query.open_reader(standing).rows(["chunk_id", "heading", "text"])
    return rows.filter(pc.is_in(rows["chunk_id"], pc.unique(chart.rows["chunk_id"])))


def _texts(chart: Chart, texts: pa.Table) -> list[list[str]]:
    """Heading path and beginning of the text, by row."""
    known = {row["chunk_id"]: row for row in texts.to_pylist()}
    found = (known.get(chunk_id) for chunk_id in schema.strings(chart.rows["chunk_id"]))
    return [shown(row["heading"], row["text"]) if row is not None else ["", ""] for row in found]


def shown(heading: str, text: str) -> list[str]:
    """The heading path and the beginning of a passage, to be read in a small box."""
    text = _BLANK_LINES.sub("\n", text)
    cut = text[:EXCERPT].rstrip() + ("…" if len(text) > EXCERPT else "")
    return [headings_shown(terminal_safe(heading)), terminal_safe(cut)]
