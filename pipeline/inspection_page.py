"""An inspected file as a page: its text with each chunk in a colour, beside what is known of the chunk.

Self-contained; loads and runs nothing.
"""

from __future__ import annotations

from pipeline.inspection import InspectedChunk, Inspection
from pipeline.report_markup import Element, el, page

COLOURS = 6  # then from the first again: neighbours never share one

_STYLE = """
body { margin: 0 auto; max-width: 60rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
section { margin: 0 0 .6rem; border-left: .4rem solid; padding: .3rem .8rem; border-radius: .2rem; }
section p { margin: 0; font-size: .8rem; opacity: .8; overflow-wrap: anywhere; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; }
.context { opacity: .65; font-style: italic; }
.c0 { border-color: #2a6fdb; background: #2a6fdb1a; } .c1 { border-color: #c2621b; background: #c2621b1a; }
.c2 { border-color: #2c8a4b; background: #2c8a4b1a; } .c3 { border-color: #9b3fb5; background: #9b3fb51a; }
.c4 { border-color: #b0303c; background: #b0303c1a; } .c5 { border-color: #6b7280; background: #6b72801a; }
"""


def render(found: Inspection) -> str:
    """The page, as HTML."""
    facts = [("Title", found.title), ("Read by", f"{found.reader}, {found.media_type}"), ("Model", found.model)]
    facts.append(("Text", f"{len(found.text):,} characters in {len(found.blocks):,} blocks"))
    facts.append(("Chunks", f"{len(found.chunks):,} with {sum(chunk.tokens for chunk in found.chunks):,} tokens"))
    rows = [cell for name, value in facts if value for cell in (el("dt", name), el("dd", value))]
    body = [_chunk(number, chunk, found) for number, chunk in enumerate(found.chunks, 1)]
    return page(found.file, _STYLE, el("main", el("h1", found.file), el("dl", *rows), *body), el("p"))


def _chunk(number: int, chunk: InspectedChunk, found: Inspection) -> Element:
    text = found.text[chunk.start : chunk.end]
    before, _, _ = chunk.sent.partition(text)
    label = el("p", f"{number} · {describe(chunk)}")
    context = [el("span", before, class_="context")] if before else []
    return el("section", label, el("pre", *context, text), class_=f"c{(number - 1) % COLOURS}")


def describe(chunk: InspectedChunk) -> str:
    """What is known of a chunk, on one line."""
    page_ = f"p.{chunk.page}" if chunk.page is not None else ""
    has = "has its vector" if chunk.embedded else "to be embedded"
    parts = (f"{chunk.tokens} tokens", page_, " > ".join(chunk.heading_path), has)
    return " · ".join(part for part in parts if part)
