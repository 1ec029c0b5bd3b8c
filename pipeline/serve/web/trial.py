"""The retrieval test: how a question was searched for, step by step, and what a model would receive.

Reads the notes of a search (explain.Trace), which `pipeline search --explain` prints; knows nothing of how it is done.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from fastapi.responses import HTMLResponse

from pipeline import answer, answer_prompt, answer_text, config, errors, explain
from pipeline.explain import Dropped, Trace
from pipeline.models import Generator, Message, Piece
from pipeline.report_markup import Child, Element, el
from pipeline.search import Hit
from pipeline.serve import answering, faults
from pipeline.serve.shelf import Shelf
from pipeline.serve.web import form, layout, notes, refusals, results, searching
from pipeline.serve.web.fields import Asked
from pipeline.serve.web.layout import View


async def respond(shelf: Shelf, view: View, asked: Asked) -> HTMLResponse:
    """The view."""
    body, status = await _body(shelf, view, asked)
    named = view.say("trial")
    title = f"{asked.question} · {named}" if asked.question else named
    found = el("div", *body, id="results")
    heading = el("h1", named, class_="hidden")
    return layout.respond(view, title, heading, form.form(view, asked, "trial"), found, tab="trial", status=status)


async def _body(shelf: Shelf, view: View, asked: Asked) -> tuple[list[Element], int]:
    if (missing := searching.nothing(view, shelf.settings)) is not None:
        return missing
    if asked.faults:
        return [form.faults(view, asked)], 400
    if not asked.question:
        return [el("div", el("p", view.say("start_trial")), class_="start")], 200
    trace = explain.Trace()
    try:
        found = await shelf.find(
            view.collection, asked.question, top_k=asked.top_k, mode=asked.mode, where=asked.where, trace=trace
        )
        received = await _received(shelf, view, asked)
    except errors.PipelineError as error:
        return refusals.told(view, error, heading="h2"), faults.of(error, "/").status
    parts = [_question(view, trace), _ranking(view, trace, found.hits), *_dropped(view, trace), received]
    return [*form.active(view, asked), *parts, _times(view, trace)], 200


# -- the search


def _section(title: str, *parts: Child) -> Element:
    return el("section", el("h2", title), *parts, class_="panel")


def _facts(rows: Sequence[tuple[str, Sequence[Child]]]) -> Element:
    cells = [cell for name, value in rows if value for cell in (el("dt", name), el("dd", *value))]
    return el("dl", *cells, class_="facts")


def _question(view: View, trace: Trace) -> Element:
    embedded = view.say("as_it_is") if trace.query == trace.question else trace.query
    rows: list[tuple[str, Sequence[Child]]] = [
        (view.say("embedded"), [el("bdi", embedded)] if trace.query else []),
        (view.say("tokens"), _tokens(trace.tokens)),
        (view.say("words"), [child for word in trace.words for child in (el("span", word, class_="token"), " ")]),
        (view.say("used_mode"), [_mode(view, trace)]),
        (view.say("model"), [el("bdi", trace.model)]),
        (view.say("filters"), [_filters(view, trace)] if trace.where else []),
        (view.say("candidates"), [_candidates(view, trace)]),
        (view.say("copies"), [view.say("copies_n", n=trace.copies)] if trace.copies else []),
        (
            view.say("reranked"),
            [view.say("reranked_n", model=trace.reranker, n=trace.reranked)] if trace.reranker else [],
        ),
    ]
    return _section(view.say("question_step"), _facts(rows))


def _tokens(tokens: Sequence[str]) -> list[Child]:
    if not tokens:
        return []
    return [f"{len(tokens)}: ", *(child for token in tokens for child in (el("span", token, class_="token"), " "))]


def _mode(view: View, trace: Trace) -> str:
    said = view.say(f"mode_{trace.asked}")
    return said if trace.used == trace.asked else f"{said} → {view.say('used_words', model=trace.model)}"


def _filters(view: View, trace: Trace) -> Element:
    said = ", ".join(trace.where)
    if trace.left is None:
        return el("bdi", said)
    return el("bdi", view.say("filters_left", said=said, left=trace.left, rows=trace.rows))


def _candidates(view: View, trace: Trace) -> str:
    parts = [view.say("candidates_by", n=count, by=view.say(f"by_{name}")) for name, count in trace.found.items()]
    return ", ".join(parts)


def _ranking(view: View, trace: Trace, found: Sequence[Hit]) -> Element:
    """Both ranks and scores of each hit, and how they became one."""
    if not found:
        return _section(view.say("ranking"), el("p", view.say("found_none")))
    reranked = any(hit.rerank is not None for hit in found)
    heads = [view.say("meaning_col"), view.say("words_col"), view.say("fused")]
    heads += [view.say("reranker")] if reranked else []
    head = [el("th", "", scope="col"), el("th", view.say("passage"), scope="col")]
    head += [el("th", name, class_="number", scope="col") for name in heads]
    head.append(el("th", view.say("score"), class_="number", scope="col", title=view.say("score_hint")))
    rows = [el("tr", *_row(view, number, hit, reranked=reranked)) for number, hit in enumerate(found, start=1)]
    table = el("table", el("thead", el("tr", *head)), el("tbody", *rows))
    return _section(view.say("ranking"), el("p", _formula(view, trace), class_="quiet"), _wide(view, table))


def _row(view: View, number: int, hit: Hit, *, reranked: bool) -> list[Element]:
    values = [_part(hit.vector_rank, hit.similarity, ".3f"), _part(hit.text_rank, hit.bm25, ".1f"), f"{hit.fused:.4f}"]
    values += ["–" if hit.rerank is None else f"{hit.rerank:.3f}"] if reranked else []
    values.append(f"{hit.score:.2f}")
    link = el("a", el("bdi", results.title(hit)), href=view.source(hit.chunk_id))
    named = el("td", link, results.place(view, hit), class_="named")
    return [el("td", str(number), class_="number"), named, *(el("td", value, class_="number") for value in values)]


def _part(rank: int | None, value: float | None, form_: str) -> str:
    """Such as "#3 · 0.812"; a cosine without a rank: it is not among the candidates by meaning."""
    said = "" if value is None else format(value, form_)
    return " · ".join(part for part in (f"#{rank}" if rank is not None else "–", said) if part)


def _formula(view: View, trace: Trace) -> str:
    parts = []
    for name, weight in trace.weights.items():
        by = view.say(f"by_{name}")
        parts.append(
            f"{weight:g} / ({trace.rrf_k} + {view.say('rank_by', by=by)})" if trace.rrf_k else f"{weight:g} × {by}"
        )
    return view.say("formula_ranks" if trace.rrf_k else "formula_scores", formula=" + ".join(parts))


def _dropped(view: View, trace: Trace) -> list[Element]:
    """What is no hit, and why not."""
    if not trace.dropped:
        return []
    rows = [
        el("tr", el("td", _why(view, one), class_="number why"), el("td", _named(view, one))) for one in trace.dropped
    ]
    more = trace.below - sum(one.reason == "below" for one in trace.dropped)
    head = [el("th", view.say(name), scope="col") for name in ("why", "passage")]
    table = el("table", el("thead", el("tr", *head)), el("tbody", *rows))
    rest = [el("p", view.say("more_below", n=more), class_="quiet")] if more > 0 else []
    return [_section(view.say("left_out"), _wide(view, table), *rest)]


def _why(view: View, one: Dropped) -> str:
    if one.reason == "folded":
        return view.say("why_folded", n=one.into) if one.into else view.say("why_folded_other")
    return view.say(f"why_{one.reason}", fused=f"{one.fused:.4f}")


def _named(view: View, one: Dropped) -> Element:
    page = f" · {view.say('page_n', n=one.page)}" if one.page is not None else ""
    heading = f" · {answer_text.headings_shown(one.heading)}" if one.heading else ""
    return el("a", el("bdi", f"{one.path}{page}{heading}"), href=view.source(one.chunk_id))


def _times(view: View, trace: Trace) -> Element:
    """What each step took; steps may run beside each other."""
    longest = max(trace.ms.values(), default=0.0)
    cells: list[Child] = []
    for step, ms in trace.ms.items():
        bar = el("meter", min="0", max=f"{max(longest, 0.01):.2f}", value=f"{ms:.2f}", aria_hidden="true")
        cells += [el("span", view.say(f"step_{step}")), bar, el("span", f"{ms:,.1f} ms", class_="number")]
    return _section(view.say("times"), el("div", *cells, class_="bars"))


def _wide(view: View, table: Element) -> Element:
    """A table that is wider than a phone scrolls by itself, by keyboard too."""
    return el("div", table, class_="wide", tabindex="0", role="region", aria_label=view.say("passage"))


# -- what a model would receive


@dataclass(frozen=True, slots=True)
class _Away:
    """Stands for an answering model that is not there: so much would it be sent. It answers nothing."""

    settings: config.Settings

    @property
    def model(self) -> str:
        return self.settings.generate.model

    @property
    def context_tokens(self) -> int:
        return self.settings.generate.num_ctx

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[Piece]:
        raise errors.ServerUnreachable("No answering model is reachable.")

    async def aclose(self) -> None:
        """Nothing is open."""


async def _received(shelf: Shelf, view: View, asked: Asked) -> Element:
    """The conversation that a model is sent for this question, as `ask` makes it."""
    prepared = await answering.prepare(shelf, view.collection, asked.question, asked.where)
    async with aclosing(prepared):
        if prepared.generator is None:
            prepared = await answering.surrounded(replace(prepared, generator=_Away(shelf.settings)))
        judgement = answer.judge(asked.question, prepared.hits, prepared.params)
        messages = _messages(prepared)
    parts: list[Child] = []
    if judgement is not None:
        said = view.say("evidence_n", n=f"{judgement.evidence:.2f}", by=notes.reason(judgement.by, view.language))
        parts.append(_facts([(view.say("evidence"), [said])]))
    if judgement is not None and judgement.refused:
        parts.append(el("p", view.say("receives_nothing")))
    else:
        parts += _prompt(view, prepared, messages)
    return _section(view.say("receives"), *parts)


def _fitting(prepared: answering.Prepared, generator: Generator) -> list[str]:
    return answer_prompt.fitting(
        prepared.question,
        prepared.shown,
        context_tokens=prepared.params.context_tokens,
        window=generator.context_tokens,
        max_tokens=prepared.params.max_tokens,
    )


def _messages(prepared: answering.Prepared) -> list[Message]:
    assert prepared.generator is not None  # one stands for it
    return answer_prompt.messages(prepared.question, _fitting(prepared, prepared.generator))


def _prompt(view: View, prepared: answering.Prepared, messages: Sequence[Message]) -> list[Element]:
    assert prepared.generator is not None
    passages = len(_fitting(prepared, prepared.generator))
    tokens = sum(answer_prompt.estimate(message.content) for message in messages)
    told = view.say("receives_n", n=passages, tokens=tokens, window=prepared.generator.context_tokens)
    parts = [el("p", f"{prepared.generator.model}: ", told)]
    for message in messages:
        shown = el("pre", message.content, class_="prompt", tabindex="0", dir="auto")
        opened = {"open": "open"} if message.role == "user" else {}
        summary = el("summary", view.say(f"role_{message.role}"))
        parts.append(el("details", summary, shown, class_="more", **opened))
    return parts
