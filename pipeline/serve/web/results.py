"""Hits as cards: where each stands, the part of its text that says most of the question, and how it was scored.

Data in, elements out. Names, headings and texts come from the documents: they are text here, whatever stands in them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Sequence

from pipeline import answer_text, scripts
from pipeline.report_markup import Child, Element, el
from pipeline.search import Hit
from pipeline.serve.web.layout import View

SNIPPET = 340  # characters; half of them in Chinese, Japanese and Korean, which say more with each
COPIES = 5  # other documents with the same passage that are named


def cards(view: View, found: Sequence[Hit], question: str) -> Element:
    """The hits in their order, best first."""
    items = [el("li", card(view, hit, question, number)) for number, hit in enumerate(found, start=1)]
    return el("ol", *items, class_="cards")


def card(
    view: View, hit: Hit, question: str, number: int, *, prefix: str = "hit", notes: Sequence[Element] = ()
) -> Element:
    """One passage. `prefix`: of its id, by which it is linked to; `notes`: said of it in this place alone."""
    name = el("span", f"{number}. " if prefix == "hit" else f"[{number}] ", class_="n")
    link = el("a", name, el("bdi", title(hit)), href=view.source(hit.chunk_id), class_="open")
    head = el("div", el("h2", link), _score(view, hit), class_="head")
    parts: list[Child] = [
        head,
        place(view, hit),
        snippet(hit, question),
        *_also(view, hit),
        _parts(view, hit),
        *notes,
    ]
    return el("article", *parts, class_="card", id=f"{prefix}-{number}", tabindex="-1")


def title(hit: Hit) -> str:
    """The document's title, else the file's name; never empty."""
    return " ".join(answer_text.terminal_safe(hit.title).split()) or posixpath.basename(hit.path) or hit.path


def place(view: View, hit: Hit) -> Element:
    """File, page and headings."""
    parts: list[Child] = [el("bdi", hit.path, class_="path")]
    if hit.page is not None:
        parts += [" · ", view.say("page_n", n=hit.page)]
    if hit.heading:
        parts += [" · ", el("bdi", answer_text.headings_shown(hit.heading), class_="heading")]
    return el("p", *parts, class_="place")


def snippet(hit: Hit, question: str) -> Element:
    """The sentences that hold most of the question's words, and these marked; without the file's line breaks, and
    without the headings that stand in the place above.
    """
    safe = "\n".join(_lines(answer_text.terminal_safe(hit.text), hit.heading))
    language = scripts.language(safe)
    cut = answer_text.excerpt(question, safe, SNIPPET // (2 if language else 1))
    return el("p", *marked(_on_one_line(cut), question), class_="snippet", dir="auto", lang=language)


_MARKUP = re.compile(r"^\s*#{1,6}\s+")
_EMPHASIS = re.compile(r"(?<![A-Za-z0-9*])\*\*(?=\S)(.+?)(?<=\S)\*\*(?![A-Za-z0-9*])")  # not **kwargs, not 2**3**4
_CJK = scripts.CJK_RUN.pattern.removesuffix("+")
_BREAK = re.compile(rf"(?<=[，。、；：！？]|{_CJK})\s*\n\s*(?={_CJK})")
_LETTER = re.compile(r"[^\W_]")


def _lines(text: str, heading: str) -> Iterator[str]:
    """The lines that say something: no rules and underlines, and at the beginning no heading that is known."""
    above = {part.strip().casefold() for part in answer_text.headings(heading)}
    begun = False
    for line in text.splitlines():
        plain = _MARKUP.sub("", line).strip()
        if _LETTER.search(plain) and (begun or plain.casefold() not in above):
            begun = True
            yield _EMPHASIS.sub(r"\1", line)


def _on_one_line(text: str) -> str:
    """Lines joined by a blank, in Chinese and Japanese by nothing."""
    return re.sub(r"\s+", " ", _BREAK.sub("", text))


def marked(text: str, question: str) -> list[Child]:
    """`text` with the words of the question in <mark>."""
    return [el("mark", part) if wanted else part for part, wanted in answer_text.marked(text, question)]


def _score(view: View, hit: Hit) -> Element:
    """The cosine with the question: what it means is the same in every search. Nothing where there is no vector."""
    if hit.similarity is None:
        return el("span", class_="score")
    bar = el("meter", min="0", max="1", value=f"{max(hit.similarity, 0.0):.3f}", aria_hidden="true")
    said = el("span", f"{view.say('cosine')} ", class_="hidden")
    return el("span", bar, said, f"{hit.similarity:.2f}", class_="score", title=view.say("cosine_hint"))


def _parts(view: View, hit: Hit) -> Element:
    """How the rank came about, as far as each part is there."""
    rows = [
        (view.say("cosine"), None if hit.similarity is None else f"{hit.similarity:.3f}", hit.vector_rank),
        (view.say("bm25"), None if hit.bm25 is None else f"{hit.bm25:.1f}", hit.text_rank),
        (view.say("fused"), f"{hit.fused:.3f}", None),
        (view.say("reranker"), None if hit.rerank is None else f"{hit.rerank:.3f}", None),
    ]
    pairs = [(name, value, rank) for name, value, rank in rows if value is not None]
    shown = [
        el("div", el("dt", name), el("dd", value if rank is None else f"{value} {view.say('rank', n=rank)}"))
        for name, value, rank in pairs
    ]
    return el("dl", *shown, class_="parts")


def _also(view: View, hit: Hit) -> list[Element]:
    if not hit.also_in:
        return []
    parts: list[Child] = [view.say("also_in"), " "]
    for path in hit.also_in[:COPIES]:
        parts += [", "] if len(parts) > 2 else []
        parts.append(el("bdi", path, class_="path"))
    more = len(hit.also_in) - COPIES
    return [el("p", *parts, *([" ", view.say("and_more", n=more)] if more > 0 else []), class_="also")]
