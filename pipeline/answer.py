"""A question and its hits to an answer with citations, streamed; or, honestly, to none.

Before any model is asked, the hits are judged: where they do not speak for it, the documents do not answer the
question. Small models seldom refuse. Without an answering model the best passages are the answer, and say so. What a
model wrote is checked, never believed: its citations, its sentences, its language, and whether it saw the whole prompt.

Knows the order of things; not how passages are found (search.py), judged (calibration.py), worded (answer_prompt.py),
cited (answer_citations.py) or compared with what was made of them (answer_grounding.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from pipeline import (
    answer_citations,
    answer_grounding,
    answer_links,
    answer_prompt,
    answer_stream,
    answer_text,
    calibration,
    errors,
    scripts,
)
from pipeline.answer_citations import Citation
from pipeline.answer_grounding import Statement
from pipeline.answer_text import terminal_safe
from pipeline.calibration import Judgement
from pipeline.models import Generator, Message
from pipeline.search import Hit
from pipeline.store import Calibration

__all__ = ["Answer", "AnswerEvent", "AskParams", "Citation", "Source", "answer", "terminal_safe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskParams:
    """How to answer.

    Attributes:
        passages: most passages shown to the model.
        context_tokens: most tokens of them together (estimated, rather too many).
        min_score: cosine below which a question may be refused; 0: calibrated for `model`; below 0: never refuse.
        max_tokens: of the answer.
        model: the embedding model, for the calibration.
        languages: that the embedding model knows, such as ("en",); empty: many.
        rows: passages that were searched, for the calibration.
        own: the collection's own calibration.
        history: of a conversation: what was asked and answered before, oldest first.
    """

    passages: int = 5
    context_tokens: int = 2500
    min_score: float = 0.0
    max_tokens: int = 512
    model: str = ""
    languages: tuple[str, ...] = ()
    rows: int = 0
    own: Calibration | None = None
    history: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A passage that the answer may cite as `[number]`. `stale`: what became of its file since it was indexed,
    "changed" or "gone"; "" where it is as it was, or nobody looked.
    """

    number: int
    hit: Hit
    cited: bool
    stale: str = ""

    def to_json(self) -> dict[str, object]:
        return {"number": self.number, "cited": self.cited, "stale": self.stale, **self.hit.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The end of a stream.

    Attributes:
        text: all pieces of the stream together.
        citations: each `[n]` in the text, in order; every n is the number of a source.
        sources: the passages shown to the model, or the nearest ones where it was not asked.
        abstained: the documents do not answer the question.
        generated: written by a model; False: passages, or our own words.
        incomplete: it breaks off (the limit of tokens, or `error`).
        invalid_citations: numbers without a passage that were removed.
        statements: the sentences that say something, each compared with the passages that it cites.
        judgement: what the search said about the question; None where it was not asked (`--force`).
        notes: what the reader should know about this answer, a sentence each.
        error: what ended the stream early; what came before is kept.
    """

    text: str
    citations: tuple[Citation, ...] = ()
    sources: tuple[Source, ...] = ()
    abstained: bool = False
    generated: bool = False
    incomplete: bool = False
    invalid_citations: int = 0
    statements: tuple[Statement, ...] = ()
    judgement: Judgement | None = None
    notes: tuple[str, ...] = ()
    error: errors.PipelineError | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "answer": self.text,
            "citations": [{"number": c.number, "start": c.start, "end": c.end} for c in self.citations],
            "sources": [source.to_json() for source in self.sources],
            "abstained": self.abstained,
            "generated": self.generated,
            "incomplete": self.incomplete,
            "invalid_citations": self.invalid_citations,
            "statements": [one.to_json() for one in self.statements],
            "unsupported": sum(one.supported is False for one in self.statements),
            "uncited": sum(not one.cites for one in self.statements),
            "evidence": None if self.judgement is None else round(self.judgement.evidence, 4),
            "notes": list(self.notes),
            "error": None if self.error is None else self.error.message,
        }


AnswerEvent: TypeAlias = str | Answer  # pieces of text as they come, then the Answer, once

_NOT_FOUND = {
    "": "The documents do not seem to answer this question.",
    "ja": "文書の中にこの質問への答えは見つかりませんでした。",
    "ko": "문서에서 이 질문에 대한 답을 찾지 못했습니다.",
    "zh": "文档中似乎没有这个问题的答案。",
}
PASSAGES_AS_ANSWER = 3  # shown without a generator
EXCERPT = 900  # characters of each: most passages whole, so that a row of a table is not cut off


async def answer(
    question: str,
    hits: Sequence[Hit],
    generator: Generator | None,
    params: AskParams,
    *,
    passages: Sequence[Hit] | None = None,
) -> AsyncGenerator[AnswerEvent, None]:
    """Stream the answer to `question` from `hits`: pieces of text, safe for a terminal, then one Answer.

    Without a generator the best passages are the answer (`generated` False). A generator that fails after its first
    words ends the stream with an Answer that holds them and the error.

    Args:
        hits: best first, at least `calibration.POOL` where there are so many: the question is judged by them.
        passages: what is shown to the model, where that is more than the first hits say (expansion.py).

    Raises:
        UsageError: an empty question, or one that leaves no room for passages.
        ModelError: the generator failed before it said anything.
    """
    if not question.strip():
        raise errors.UsageError("The question is empty.", 'Type it in quotes: pipeline ask "...".')
    kept = list(passages if passages is not None else hits)[: params.passages]
    judgement = judge(question, hits, params)
    if not hits or (judgement is not None and judgement.refused):
        ending = _abstained(question, kept, judgement, generated=False)
    elif generator is None:
        ending = _passages(question, kept, judgement)
    else:
        async with aclosing(_generated(question, kept, generator, params, judgement)) as events:
            async for event in events:
                yield event
        return
    yield ending.text
    yield ending


def judge(question: str, hits: Sequence[Hit], params: AskParams) -> Judgement | None:
    """What the hits say; None where nobody wants to know."""
    if params.min_score < 0:
        return None
    return calibration.judge(
        question,
        hits,
        rows=params.rows,
        model=params.model,
        languages=params.languages,
        min_score=params.min_score,
        own=params.own,
    )


def _sources(hits: Sequence[Hit], cited: set[int]) -> tuple[Source, ...]:
    return tuple(Source(number=n, hit=hit, cited=n in cited) for n, hit in enumerate(hits, start=1))


def _abstained(question: str, hits: Sequence[Hit], judgement: Judgement | None, *, generated: bool) -> Answer:
    note = "The nearest passages are listed as sources." if hits else "Nothing in the index resembles the question."
    return Answer(
        text=_NOT_FOUND[scripts.language(question)],
        sources=_sources(hits, set()),
        abstained=True,
        generated=generated,
        judgement=judgement,
        notes=(note,),
    )


def _passages(question: str, hits: Sequence[Hit], judgement: Judgement | None) -> Answer:
    marks = answer_citations.Marks(len(hits))
    paragraphs = []
    for number, hit in enumerate(hits[:PASSAGES_AS_ANSWER], start=1):
        excerpt = answer_text.excerpt(question, answer_prompt.harmless(hit.text), EXCERPT)
        paragraphs.append(f"{excerpt} [{number}]")
    plain = answer_links.plain("\n\n".join(paragraphs), "\n".join(hit.text for hit in hits))
    text = marks.feed(plain) + marks.close()
    return Answer(
        text=text,
        citations=tuple(marks.citations),
        sources=_sources(hits, {citation.number for citation in marks.citations}),
        judgement=judgement,
        notes=("No answering model: these are the passages that fit best, word for word.",),
    )


async def _generated(
    question: str, hits: Sequence[Hit], generator: Generator, params: AskParams, judgement: Judgement | None
) -> AsyncGenerator[AnswerEvent, None]:
    shown = answer_prompt.fitting(
        question,
        hits,
        context_tokens=params.context_tokens,
        window=generator.context_tokens,
        max_tokens=params.max_tokens,
        history=params.history,
    )
    messages = answer_prompt.messages(question, shown, params.history)
    stream = answer_stream.Stream(len(shown), "\n".join([question, *shown]))
    pieces = generator.stream(messages, max_tokens=params.max_tokens)
    async with aclosing(stream.shown(pieces)) as texts:
        async for text in texts:
            yield text
    used = hits[: len(shown)]
    if stream.refused:
        ending = _abstained(question, used, judgement, generated=True)
        yield ending.text
    else:
        ending = _ending(question, used, stream, judgement, _Sent(messages, shown, generator.context_tokens))
    yield ending


@dataclass(frozen=True, slots=True)
class _Sent:
    """What went to the model, and the size of the window that was asked for."""

    messages: Sequence[Message]
    passages: Sequence[str]
    window: int


def _ending(
    question: str, hits: Sequence[Hit], stream: answer_stream.Stream, judgement: Judgement | None, sent: _Sent
) -> Answer:
    citations = tuple(stream.marks.citations)
    statements = answer_grounding.statements(stream.text, citations, sent.passages, question)
    return Answer(
        text=stream.text,
        citations=citations,
        sources=_sources(hits, {citation.number for citation in citations}),
        generated=True,
        incomplete=stream.ending is None or stream.ending.done_reason == "length",
        invalid_citations=stream.marks.invalid,
        statements=statements,
        judgement=judgement,
        notes=(*_notes(stream, sent), *_findings(question, stream, statements)),
        error=stream.error,
    )


def _notes(stream: answer_stream.Stream, sent: _Sent) -> Iterator[str]:
    """How the model ended, and whether it saw all that it was sent."""
    ending = stream.ending
    if ending is None:
        yield "The model stopped in the middle of its answer."
    elif ending.done_reason == "length":
        yield "The answer was cut at its limit of tokens (generate.max_tokens)."
    if ending is None:
        return
    if (ending.prompt_tokens or 0) + (ending.answer_tokens or 0) >= sent.window:
        yield f"The model's window of {sent.window} tokens was full: it may not have seen every passage."
    elif answer_prompt.was_cut(sent.messages, ending.prompt_tokens):
        yield (
            f"The model saw {ending.prompt_tokens:,} tokens of at least {answer_prompt.least(sent.messages):,} that it "
            "was sent: the server cut the prompt, and passages are missing from this answer. Give the server a larger "
            "window (OLLAMA_CONTEXT_LENGTH), or set ask.context_tokens lower."
        )


def _findings(question: str, stream: answer_stream.Stream, statements: Sequence[Statement]) -> Iterator[str]:
    """What the answer itself shows."""
    if stream.marks.invalid:
        yield f"{stream.marks.invalid} citation(s) of passages that do not exist were removed."
    if stream.disarmed:
        yield f"{stream.disarmed} link(s) or other markup in the answer were made plain text."
    if not stream.text.strip():
        yield "The model wrote nothing."
        return
    if not stream.marks.citations and stream.ending is not None:
        yield "The answer cites no passage: check it against the sources."
    yield from answer_grounding.notes(stream.text, statements)
    if not scripts.same_script(question, stream.text):
        yield "The answer is not in the language of the question."
