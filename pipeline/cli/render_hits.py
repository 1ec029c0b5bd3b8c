"""What people read of a search: hits, with the words that were looked for marked, and how they were found.

Data in, lines out; prints nothing. The lines hold ANSI sequences (bold), which click takes away where none are wanted.
Names, headings and texts come from the documents, so none reaches a terminal without `render.plain`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from pipeline import answer_text, scripts
from pipeline.cli import cells, render

if TYPE_CHECKING:
    from pipeline.expansion import Passage
    from pipeline.explain import Dropped, Trace
    from pipeline.search import Hit

SNIPPET_LINES = 3
ALL_LINES = 10_000  # of one line of a passage that is shown whole
COPIES = 3  # paths of other documents with the same passage that are named


def hits(found: Sequence[Hit], columns: int, question: str, *, terminal: bool = False) -> Iterator[str]:
    """Numbered hits: where each stands, its score, and the part of its text that says most of the question.

    `terminal`: a place that is longer than a line is continued on the next; else it stays one line, for `grep`.
    """
    for number, hit in enumerate(found, start=1):
        indent = " " * len(f"{number}. ")
        yield from _placed(f"{number}. ", hit, columns if terminal else 0)
        yield from (indent + marked(line, question) for line in snippet(hit.text, columns - len(indent), question))
        if hit.also_in:
            named = ", ".join(render.plain(path) for path in hit.also_in[:COPIES])
            more = f" and {len(hit.also_in) - COPIES:,} more" if len(hit.also_in) > COPIES else ""
            yield f"{indent}also in {named}{more}"


def passages(grown: Sequence[Passage], found: Sequence[Hit], columns: int, question: str) -> Iterator[str]:
    """Hits with their surroundings, whole, an empty line between two. Hits that grew together are numbered together."""
    numbers = {hit.chunk_id: str(number) for number, hit in enumerate(found, start=1)}
    for one in grown:
        if one is not grown[0]:
            yield ""
        yield f"{', '.join(numbers[chunk_id] for chunk_id in one.chunk_ids)}. {render.place(one.hit)}"
        for line in answer_text.terminal_safe(one.text).splitlines():
            yield from ("   " + marked(part, question) for part in cells.wrap(line, max(columns - 3, 20), ALL_LINES))


def _placed(number: str, hit: Hit, columns: int) -> Iterator[str]:
    place = render.place(hit)
    lines = cells.wrap(place, max(columns - len(number), 20), ALL_LINES) if columns else [place]
    yield f"{number}{lines[0]}"
    yield from (" " * len(number) + line for line in lines[1:])


def snippet(text: str, columns: int, question: str = "") -> list[str]:
    """The sentences of `text` that hold most of the question's words, on at most SNIPPET_LINES lines of `columns`."""
    flat = answer_text.terminal_safe(text)
    columns = max(columns, 20)
    room = SNIPPET_LINES * columns
    scale = 2 if scripts.language(flat) else 1
    if cells.width(flat) > room:
        flat = answer_text.excerpt(question, flat, room // scale)
    return cells.wrap(flat, columns, SNIPPET_LINES)


def marked(line: str, question: str) -> str:
    """`line` with the question's words in bold (answer_text.marked)."""
    parts = answer_text.marked(line, question)
    return "".join(click.style(text, bold=True) if wanted else text for text, wanted in parts)


# -- how they were found


def explained(trace: Trace, found: Sequence[Hit], columns: int) -> Iterator[str]:
    """The search step by step, then each hit's ranks and scores, then what was left out."""
    yield ""
    for name, value in _facts(trace):
        lines = cells.wrap(render.plain(value), max(columns - 11, 20), 4)
        yield f"{name:11}{lines[0] if lines else ''}"
        yield from (f"{'':11}{line}" for line in lines[1:])
    if found:
        yield ""
        yield from _table(trace, found, columns)
    if trace.dropped:
        yield ""
        yield "Left out:"
        yield from (f"  {_why(one):26}{cells.cut_start(_where(one), max(columns - 28, 12))}" for one in trace.dropped)
        more = trace.below - sum(one.reason == "below" for one in trace.dropped)
        if more > 0:
            yield f"  and {more:,} more below"


def _facts(trace: Trace) -> Iterator[tuple[str, str]]:
    yield "question", trace.question
    if trace.query:
        yield "embedded", trace.query if trace.query != trace.question else "as it is"
        yield "tokens", f"{len(trace.tokens)}: {' | '.join(trace.tokens)}"
    if trace.words:
        yield "words", " ".join(trace.words)
    yield "mode", trace.used if trace.used == trace.asked else f"{trace.asked}; {trace.why}"
    yield "model", f"{trace.model}; snapshot {trace.publication}, {trace.rows:,} passages"
    if trace.where:
        left = "" if trace.left is None else f": {trace.left:,} of {trace.rows:,} passages"
        yield "filters", f"{' and '.join(trace.where)}{left}"
    counts = ", ".join(
        f"{count} by {'meaning' if name == 'vector' else 'words'}" for name, count in trace.found.items()
    )
    copies = f"; {trace.copies} named as copies" if trace.copies else ""
    yield "found", f"{counts} (of {trace.candidates} asked for){copies}"
    if trace.reranker:
        yield "reranker", f"{trace.reranker}, {trace.reranked} passages"
    yield "took", ", ".join(f"{step} {ms:.1f} ms" for step, ms in trace.ms.items())


_BY = {"vector": "meaning", "text": "words"}


def _table(trace: Trace, found: Sequence[Hit], columns: int) -> Iterator[str]:
    reranked = any(hit.rerank is not None for hit in found)
    header = f"{'':>3}  {'meaning':>13}  {'words':>13}  {'fused':>7}" + (f"  {'rerank':>7}" if reranked else "")
    yield f"{header}  passage"
    for number, hit in enumerate(found, start=1):
        line = f"{number:>3}  {_part(hit.vector_rank, hit.similarity, '.3f'):>13}"
        line += f"  {_part(hit.text_rank, hit.bm25, '.1f'):>13}  {hit.fused:>7.4f}"
        if reranked:
            line += f"  {'-' if hit.rerank is None else f'{hit.rerank:.3f}':>7}"
        page = f" p.{hit.page}" if hit.page is not None else ""
        yield f"{line}  {cells.cut_start(render.plain(hit.path) + page, max(columns - len(line) - 2, 12))}"
    first, *more = cells.wrap(f"fused = {_formula(trace)}", max(columns - 7, 20), 3)
    yield from (f"     {line}" for line in (first, *(f"  {line}" for line in more)))


def _formula(trace: Trace) -> str:
    if trace.rrf_k:
        parts = [f"{weight:g} / ({trace.rrf_k} + rank by {_BY[name]})" for name, weight in trace.weights.items()]
        return " + ".join(parts)
    parts = [f"{weight:g} x {_BY[name]}" for name, weight in trace.weights.items()]
    return f"{' + '.join(parts)}, each from 1 (its best score) to 0 (its last candidate's)"


def _part(rank: int | None, value: float | None, form: str) -> str:
    """Such as "#3   0.812"; a cosine without a rank: it is not among the candidates by meaning."""
    said = "" if value is None else format(value, form)
    return f"#{rank} {said:>6}" if rank is not None else f"- {said:>6}" if said else "-"


def _why(one: Dropped) -> str:
    match one.reason:
        case "folded":
            return f"says the same as {one.into}" if one.into else "says the same as another"
        case "per_document":
            return "its document has enough"
        case "filtered":
            return "the filters leave it out"
    return f"ranks below, {one.fused:.4f}"


def _where(one: Dropped) -> str:
    page = f" p.{one.page}" if one.page is not None else ""
    heading = f" · {render.plain(one.heading)}" if one.heading else ""
    return f"{render.plain(one.path)}{page}{heading}"
