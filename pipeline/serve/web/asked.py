"""The ask view: an answer whole, or as it is written (a line of JSON for each event), with its sources.

The events of `POST /ask`, one of these keys each: `state` (what is being done), `sources` (HTML of the passages that
the model reads), `text` (a piece of the answer), `done` (HTML of the whole result in place of all that came before),
`error` (the same where there is no answer); `said` beside the last two is for a screen reader. All HTML is made here,
of elements: neither a document nor a model can put markup into it.
"""

from __future__ import annotations

import json
import logging
import shlex
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi.responses import HTMLResponse

from pipeline import answer, asking, config, errors
from pipeline.report_markup import Child, Element, el, markup
from pipeline.serve import answering, faults
from pipeline.serve.shelf import Shelf
from pipeline.serve.web import form, layout, notes, refusals, results, searching
from pipeline.serve.web.fields import Asked
from pipeline.serve.web.layout import View

log = logging.getLogger(__name__)


async def respond(shelf: Shelf, view: View, asked: Asked, *, whole: bool, foreign: bool) -> HTMLResponse:
    """The view. `whole`: with the answer in it, for a browser without a script; else a script asks for it.

    `foreign`: another site's page led here; it must not set the model to work.
    """
    body, status = await _body(shelf, view, asked, whole=whole and not foreign)
    ready = bool(asked.question) and not foreign and not body
    if ready:
        link = el("a", view.say("no_script_ask"), href=view.here(whole="1"))
        body = [el("noscript", el("p", link))]
    if foreign and asked.question:
        body = [el("p", view.say("foreign_ask"), class_="start")]
    named = view.say("ask")
    title = f"{asked.question} · {named}" if asked.question else named
    state = el("p", id="tally", class_="tally", role="status")
    marks = {"data_ask": "1"} if ready else {}
    marks |= {f"data_{name}": view.words[name] for name in ("stopped", "broken_off", "cite")}
    marks |= {"data_title": layout.title(view, named)}  # what follows the question
    found = el("div", *body, id="results", aria_live="polite", **marks)
    heading = el("h1", named, class_="hidden")
    return layout.respond(view, title, heading, form.form(view, asked, "ask"), state, found, tab="ask", status=status)


async def _body(shelf: Shelf, view: View, asked: Asked, *, whole: bool) -> tuple[list[Element], int]:
    if (missing := searching.nothing(view, shelf.settings)) is not None:
        return missing
    if asked.faults:
        return [form.faults(view, asked)], 400
    if not asked.question:
        return [el("div", el("p", view.say("start_ask")), class_="start")], 200
    if not whole:
        return [], 200
    try:
        prepared = await answering.prepare(shelf, view.collection, asked.question, asked.where)
        async with aclosing(prepared), aclosing(_timed(shelf, prepared)) as events:
            async for event in events:
                ending = event
    except errors.PipelineError as error:
        return refusals.told(view, error, heading="h2"), faults.of(error, "/").status
    assert isinstance(ending, answer.Answer)  # a stream of answer events ends with an Answer
    return [*form.active(view, asked), *answered(view, asked.question, ending, shelf.settings)], 200


def _timed(shelf: Shelf, prepared: answering.Prepared) -> AsyncGenerator[answer.AnswerEvent, None]:
    return asking.in_time(answering.write(prepared), shelf.settings.ask.wait_s)


# -- as it is written


async def stream(shelf: Shelf, view: View, asked: Asked) -> AsyncGenerator[str, None]:
    """The events, each a line of JSON."""
    missing = searching.nothing(view, shelf.settings)
    if missing is not None or asked.faults or not asked.question:
        shown = missing[0] if missing is not None else [form.faults(view, asked)] if asked.faults else []
        yield _line(error=_html(shown), said="")
        return
    yield _line(state=view.say("searching"))
    try:
        prepared = await answering.prepare(shelf, view.collection, asked.question, asked.where)
        async with aclosing(prepared), aclosing(_told(shelf, view, asked, prepared)) as lines:
            async for line in lines:
                yield line
    except errors.PipelineError as error:
        log.log(logging.WARNING if faults.of(error, "/").status >= 500 else logging.INFO, "%s", error)
        yield _line(error=_html(refusals.told(view, error, heading="h2")), said=error.message)


async def _told(shelf: Shelf, view: View, asked: Asked, prepared: answering.Prepared) -> AsyncGenerator[str, None]:
    judgement = answer.judge(prepared.question, prepared.hits, prepared.params)
    if prepared.generator is not None and prepared.hits and (judgement is None or not judgement.refused):
        read = prepared.shown
        sources = [answer.Source(number=n, hit=hit, cited=False) for n, hit in enumerate(read, start=1)]
        yield _line(
            state=view.count("reading", len(read)),
            sources=_html(_cards(view, prepared.question, "sources", sources)),
        )
    began = time.perf_counter()
    async with aclosing(_timed(shelf, prepared)) as events:
        async for event in events:
            if isinstance(event, str):
                yield _line(text=event)
            else:
                said = _summary(view, event, time.perf_counter() - began)
                shown = [*form.active(view, asked), *answered(view, prepared.question, event, shelf.settings)]
                yield _line(done=_html(shown), said=said)


def _summary(view: View, ending: answer.Answer, seconds: float) -> str:
    """What came of it, in a line."""
    if ending.abstained:
        return view.say("refused")
    if not ending.generated:
        return view.say("no_answer")
    cited = sum(source.cited for source in ending.sources)
    return view.say("answered", n=len(ending.sources), cited=cited, time=f"{seconds:.1f} s")


def _line(**event: Any) -> str:
    return json.dumps(event, ensure_ascii=False) + "\n"


def _html(elements: Sequence[Element]) -> str:
    return "".join(map(markup, elements))


# -- whole


def answered(view: View, question: str, ending: answer.Answer, settings: config.Settings) -> list[Element]:
    """An answer with what is to be known about it, and its sources; or that there is none, and why."""
    if ending.abstained:
        return _refused(view, question, ending)
    if not ending.generated:
        return _unanswered(view, question, ending, settings)
    parts: list[Element] = [el("h2", view.say("answer"), class_="hidden")]
    parts.append(el("div", *text(view, ending), class_="answer", dir="auto"))
    if ending.error is not None:
        parts += refusals.told(view, ending.error, heading="h2")
    parts += _notes(view, ending)
    cited = [source for source in ending.sources if source.cited]
    others = [source for source in ending.sources if not source.cited]
    parts += _cards(view, question, "sources", cited)
    if others:
        summary = el("summary", f"{view.say('not_cited')} ({len(others)})")
        parts.append(el("details", summary, *_cards(view, question, "", others), class_="more"))
    return parts


def _refused(view: View, question: str, ending: answer.Answer) -> list[Element]:
    """Said plainly, with what came nearest."""
    why = "refused_empty" if not ending.sources else "refused_model" if ending.generated else "refused_why"
    panel = el("section", el("h2", view.say("refused")), el("p", view.say(why)), class_="panel warn", id="refused")
    return [panel, *_notes(view, ending), *_cards(view, question, "nearest", ending.sources)]


def _unanswered(view: View, question: str, ending: answer.Answer, settings: config.Settings) -> list[Element]:
    """Nobody is there to word an answer: what to type, and the passages that would have been read."""
    if settings.generate.provider == "none":
        told = [el("p", view.say("answers_off"))]
    else:
        remedy = "ollama serve\nollama pull " + shlex.quote(settings.generate.model)
        told = [el("p", view.say("no_model")), layout.command(remedy)]
    panel = el("section", el("h2", view.say("no_answer")), *told, class_="panel warn")
    return [panel, *_cards(view, question, "nearest", ending.sources)]


def _notes(view: View, ending: answer.Answer) -> list[Element]:
    kept = ending.notes if not ending.abstained else ending.notes[1:]  # the first says what the panel says
    items = [el("li", el("bdi", notes.of(note, view.language))) for note in kept]
    return [el("ul", *items, class_="notes")] if items else []


def _cards(view: View, question: str, title: str, sources: Sequence[answer.Source]) -> list[Element]:
    if not sources:
        return []
    heading = [el("h2", view.say(title), class_="sources")] if title else []
    items = [el("li", _card(view, question, source)) for source in sources]
    return [*heading, el("ol", *items, class_="cards")]


def _card(view: View, question: str, source: answer.Source) -> Element:
    stale = [el("p", view.say(f"stale_{source.stale}"), class_="stale")] if source.stale else []
    return results.card(view, source.hit, question, source.number, prefix="source", notes=stale)


def text(view: View, ending: answer.Answer) -> list[Child]:
    """The answer's words: each `[n]` a link to its card, each sentence that is not borne out underlined."""
    wrong = [(one.start, one.end) for one in ending.statements if one.supported is False]
    parts: list[Child] = []
    at = 0
    for start, end in wrong:
        parts += _cited(view, ending, at, start)
        parts.append(el("span", *_cited(view, ending, start, end), class_="unsupported", title=view.say("unsupported")))
        at = end
    return [*parts, *_cited(view, ending, at, len(ending.text))]


def _cited(view: View, ending: answer.Answer, start: int, end: int) -> list[Child]:
    """The text from `start` to `end`, with its links."""
    parts: list[Child] = []
    at = start
    for mark in (one for one in ending.citations if start <= one.start and one.end <= end):
        link = el(
            "a",
            f"[{mark.number}]",
            href=f"#source-{mark.number}",
            class_="cite",
            aria_label=view.say("cite", n=mark.number),
        )
        parts += [ending.text[at : mark.start], link]
        at = mark.end
    return [*parts, ending.text[at:end]]
