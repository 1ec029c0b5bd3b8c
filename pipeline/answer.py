"""A question and its hits to an answer with citations, streamed; or, honestly, to none.

Before any model is asked: when neither the cosine nor the words of the best passage speak for it, the documents do
not answer the question. Small models seldom refuse. Without an answering model the best passages are the answer, and
say so. Knows the order of things; not how passages are found (search.py), worded (answer_prompt.py) or cited
(answer_citations.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeAlias

from pipeline import answer_citations, answer_prompt, answer_stream, answer_text, errors, scripts
from pipeline.answer_citations import Citation
from pipeline.answer_text import terminal_safe
from pipeline.models import Generator
from pipeline.search import Hit

__all__ = ["Answer", "AnswerEvent", "AskParams", "Citation", "Source", "answer", "calibrated", "terminal_safe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """When a question is taken for unanswerable: the best cosine below `similarity` and the best coverage below
    `coverage`.
    """

    similarity: float
    coverage: float = 0.51  # half of the question's words in one passage, or fewer


# all-minilm-l6-v2 measured on XQuAD English: 24 of its articles indexed, asked their own questions and those of the
# other 24 (312 and 284), and all 48 with 595 of their own and 472 of chunking_evaluation's questions:
#
# | refuse when                        | own refused  | foreign refused |
# |------------------------------------|--------------|-----------------|
# | cosine < 0.40                      | 6.7 %, 8.6 % | 94.7 %, 94.1 %  |
# | cosine < 0.40 and coverage < 0.45  | 1.6 %, 1.2 % | 81.3 %, 90.0 %  |
# | cosine < 0.40 and coverage < 0.51  | 2.6 %, 3.4 % | 92.3 %, 93.4 %  |   <- taken
# | cosine < 0.42 and coverage < 0.6   | 3.2 %, 4.2 % | 94.0 %, 95.8 %  |
#
# German questions about German text, which this model hardly knows: 10.9 % of their own refused, 69 % of the foreign.
# mxbai-embed-large could not be measured without its weights: 0.45 is a careful choice. Other models get 0.30, which
# refuses little.
_CALIBRATED = {
    "all-minilm-l6-v2": Calibration(similarity=0.40),
    "all-minilm": Calibration(similarity=0.40),
    "mxbai-embed-large": Calibration(similarity=0.45),
}
_UNKNOWN_MODEL = Calibration(similarity=0.30)
# A cosine says nothing about a language the model never learned (Chinese questions to MiniLM: area under the curve
# 0.63), so words alone decide: at 0.2, 1.9 % of Chinese XQuAD's own questions and 75 % of the foreign ones are refused.
_WORDS_ALONE = Calibration(similarity=2.0, coverage=0.2)


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
    """

    passages: int = 5
    context_tokens: int = 2500
    min_score: float = 0.0
    max_tokens: int = 512
    model: str = ""
    languages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A passage that the answer may cite as `[number]`."""

    number: int
    hit: Hit
    cited: bool

    def to_json(self) -> dict[str, object]:
        return {"number": self.number, "cited": self.cited, **self.hit.to_json()}


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
    question: str, hits: Sequence[Hit], generator: Generator | None, params: AskParams
) -> AsyncGenerator[AnswerEvent, None]:
    """Stream the answer to `question` from `hits`: pieces of text, safe for a terminal, then one Answer.

    Without a generator the best passages are the answer (`generated` False). A generator that fails after its first
    words ends the stream with an Answer that holds them and the error.

    Raises:
        UsageError: an empty question, or one that leaves no room for passages.
        ModelError: the generator failed before it said anything.
    """
    if not question.strip():
        raise errors.UsageError("The question is empty.", 'Type it in quotes: pipeline ask "...".')
    kept = list(hits[: params.passages])
    if is_unanswerable(question, hits, params):
        ending = _abstained(question, kept, generated=False)
    elif generator is None:
        ending = _passages(question, kept)
    else:
        async with aclosing(_generated(question, kept, generator, params)) as events:
            async for event in events:
                yield event
        return
    yield ending.text
    yield ending


def calibrated(model: str, question: str, languages: Sequence[str] = ()) -> Calibration:
    """The thresholds for an embedding model (with or without Ollama's tag) and the question's script."""
    if scripts.is_foreign(question, languages):
        return _WORDS_ALONE
    return _CALIBRATED.get(model.partition(":")[0].rpartition("/")[2], _UNKNOWN_MODEL)


def is_unanswerable(question: str, hits: Sequence[Hit], params: AskParams) -> bool:
    """Whether the documents seem not to answer the question: no hit, or none that is near it or shares its words."""
    if params.min_score < 0 or not hits:
        return not hits
    known = [hit.similarity for hit in hits if hit.similarity is not None]
    limits = calibrated(params.model, question, params.languages) if known else _WORDS_ALONE
    similarity = params.min_score or limits.similarity
    return max(known, default=0.0) < similarity and _coverage(question, hits) < limits.coverage


def _coverage(question: str, hits: Sequence[Hit]) -> float:
    return answer_text.coverage(question, (" ".join((hit.title, hit.heading, hit.text)) for hit in hits))


def _sources(hits: Sequence[Hit], cited: set[int]) -> tuple[Source, ...]:
    return tuple(Source(number=n, hit=hit, cited=n in cited) for n, hit in enumerate(hits, start=1))


def _abstained(question: str, hits: Sequence[Hit], *, generated: bool) -> Answer:
    note = "The nearest passages are listed as sources." if hits else "Nothing in the index resembles the question."
    return Answer(
        text=_NOT_FOUND[scripts.language(question)],
        sources=_sources(hits, set()),
        abstained=True,
        generated=generated,
        notes=(note,),
    )


def _passages(question: str, hits: Sequence[Hit]) -> Answer:
    marks = answer_citations.Marks(len(hits))
    paragraphs = []
    for number, hit in enumerate(hits[:PASSAGES_AS_ANSWER], start=1):
        excerpt = answer_text.excerpt(question, answer_prompt.harmless(hit.text), EXCERPT)
        paragraphs.append(f"{excerpt} [{number}]")
    text = marks.feed("\n\n".join(paragraphs)) + marks.close()
    return Answer(
        text=text,
        citations=tuple(marks.citations),
        sources=_sources(hits, {citation.number for citation in marks.citations}),
        notes=("No answering model: these are the passages that fit best, word for word.",),
    )


async def _generated(
    question: str, hits: Sequence[Hit], generator: Generator, params: AskParams
) -> AsyncGenerator[AnswerEvent, None]:
    shown = answer_prompt.fitting(
        question,
        hits,
        context_tokens=params.context_tokens,
        window=generator.context_tokens,
        max_tokens=params.max_tokens,
    )
    stream = answer_stream.Stream(len(shown))
    pieces = generator.stream(answer_prompt.messages(question, shown), max_tokens=params.max_tokens)
    async with aclosing(stream.shown(pieces)) as texts:
        async for text in texts:
            yield text
    ending = _ending(question, hits[: len(shown)], stream, generator.context_tokens)
    if stream.refused:
        yield ending.text
    yield ending


def _ending(question: str, hits: Sequence[Hit], stream: answer_stream.Stream, window: int) -> Answer:
    if stream.refused:
        return _abstained(question, hits, generated=True)
    citations = tuple(stream.marks.citations)
    return Answer(
        text=stream.text,
        citations=citations,
        sources=_sources(hits, {citation.number for citation in citations}),
        generated=True,
        incomplete=stream.ending is None or stream.ending.done_reason == "length",
        invalid_citations=stream.marks.invalid,
        notes=tuple(_notes(stream, window)),
        error=stream.error,
    )


def _notes(stream: answer_stream.Stream, window: int) -> Iterator[str]:
    ending = stream.ending
    if ending is None:
        yield "The model stopped in the middle of its answer."
    elif ending.done_reason == "length":
        yield "The answer was cut at its limit of tokens (generate.max_tokens)."
    if ending is not None and (ending.prompt_tokens or 0) + (ending.answer_tokens or 0) >= window:
        yield f"The model's window of {window} tokens was full: it may not have seen every passage."
    if stream.marks.invalid:
        yield f"{stream.marks.invalid} citation(s) of passages that do not exist were removed."
    if not stream.text.strip():
        yield "The model wrote nothing."
    elif not stream.marks.citations:
        yield "The answer cites no passage: check it against the sources."
