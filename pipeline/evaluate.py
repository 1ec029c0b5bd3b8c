"""How well a collection is searched: questions with known answers, asked in one way or in several, and compared.

What counts as found: a hit shows a quote if it holds it, or half of a longer one (quotes.holds); where the quote's
place is known (SQuAD), the hit must hold that very place; a document as a whole is shown by any hit of it, and then
ranks are of documents. Of the characters that a question asks for, the hits' own are counted as they lie in their
documents; a copy of a passage in another document is found by its rank, but its characters are not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline import (
    config,
    errors,
    live,
    placing,
    quality,
    query,
    quotes,
    reranking,
    scoring,
    search,
    surroundings,
    tasks,
)
from pipeline.evaluate_sweep import Choice, Workshop, workshop
from pipeline.models import Vectors, rerank
from pipeline.placing import LeftOut, Placed, Spot
from pipeline.progress import Progress
from pipeline.query import Standing
from pipeline.question_sets import Question
from pipeline.scoring import Estimate, Ranking, Values

CHARACTERS = ("char recall", "precision", "IoU")  # of characters, all three


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to ask. `choice`: what it was chosen by, for its name; `settings`: all of them."""

    settings: config.Settings
    choice: Choice

    @property
    def name(self) -> str:
        return ", ".join(_named(key, value) for key, value in self.choice.items()) or "as it is"


def _named(key: str, value: str) -> str:
    """A mode says what it is; other values need the last part of their key."""
    last = key.rpartition(".")[2]
    return value if key == "search.mode" else f"{last} {value}" if value else f"no {last}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one variant is worth.

    Attributes:
        values: measure → its value for each question, in the questions' order; what cannot be said of these questions
            is left out.
        tokens: of the passages that a question is shown, on average, by the model's own tokenizer.
        milliseconds: of a search, on average, without the embedding of the question.
    """

    name: str
    choice: Choice
    values: Mapping[str, Values]
    tokens: float
    milliseconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "settings": dict(self.choice),
            "measures": {name: scoring.estimate(values).to_json() for name, values in self.values.items()},
            "tokens": round(self.tokens, 1),
            "milliseconds": round(self.milliseconds, 2),
            "values": {name: [round(float(value), 9) for value in values] for name, values in self.values.items()},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Rows for the same questions, the one that others are compared with first.

    Attributes:
        at: passages that a user is shown: the k of recall@k, and what characters are counted of.
        unanswerable: questions without an answer: not asked here.
    """

    collection: str
    model: str
    at: int
    questions: tuple[Question, ...]
    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]
    unanswerable: int

    @property
    def keys(self) -> list[str]:
        """Of the questions, in their order: by these another evaluation is compared."""
        return [question.key for question in self.questions]

    def to_json(self) -> dict[str, Any]:
        first = self.rows[0]
        return {
            "collection": self.collection,
            "model": self.model,
            "at": self.at,
            "questions": len(self.questions),
            "unanswerable": self.unanswerable,
            "left_out": [one.to_json() for one in self.left_out],
            "rows": [
                row.to_json() | {"less_first": {name: one.to_json() for name, one in difference(row, first).items()}}
                for row in self.rows
            ],
            "keys": self.keys,
        }


def difference(row: Row, other: Row) -> dict[str, Estimate]:
    """Of each measure that both have, `row` less `other` on the same questions."""
    both = [name for name in row.values if name in other.values]
    return {name: scoring.estimate(row.values[name] - other.values[name]) for name in both}


def evaluate(
    settings: config.Settings, questions: Sequence[Question], variants: Sequence[Variant], progress: Progress
) -> Evaluation:
    """Ask the questions of the collection that `settings` name, once for each variant.

    Raises:
        NoIndex: nothing is published. UsageError: no question can be asked, or ir-measures is not installed.
        ModelError: the questions cannot be embedded.
    """
    scoring.check_installed()
    standing = query.open_collection(settings)
    placed = place(standing, questions)
    with workshop(settings, standing, progress) as shop:
        asking = _Asking(placed=placed, at=settings.search.top_k, progress=progress, shop=shop)
        rows = [asking.row(variant) for variant in variants]
    return Evaluation(
        collection=settings.collection,
        model=standing.spec.model,
        at=settings.search.top_k,
        questions=tuple(question for question, _ in placed.questions),
        rows=tuple(rows),
        left_out=placed.left_out,
        unanswerable=len(placed.unanswerable),
    )


def place(standing: Standing, questions: Sequence[Question]) -> Placed:
    """Where the answers stand in what is searched now.

    Raises:
        UsageError: nowhere, for every one of them.
    """
    collection = standing.collection
    placed = placing.place(collection, collection.snapshot(standing.note.snapshot) or collection.snapshot(), questions)
    if not placed.questions:
        raise errors.UsageError(
            f"None of the {len(questions)} questions can be asked: {_why(placed)}.", _remedy(placed)
        )
    return placed


def _why(placed: Placed) -> str:
    counts: dict[str, int] = {"no answer is given": len(placed.unanswerable)} if placed.unanswerable else {}
    for one in placed.left_out:
        counts[one.why] = counts.get(one.why, 0) + 1
    return ", ".join(f"{why} ({count})" for why, count in counts.items())


def _remedy(placed: Placed) -> str:
    if not placed.left_out:
        return "Add questions that the documents answer: with a path and a quote."
    one = placed.left_out[0]
    what = one.wanted.document or one.wanted.passage[:60]
    return f"The first is {one.question.where}: {what!r}. `pipeline search` shows the paths as the collection has them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a question found. `ranked`: deep enough for every measure; `shown`: what a user sees, grown where the
    settings ask for that.
    """

    ranked: list[search.Hit]
    shown: list[search.Hit]


@dataclass(slots=True, kw_only=True)
class _Asking:
    placed: Placed
    at: int
    progress: Progress
    shop: Workshop
    _vectors: dict[str, Vectors] = field(default_factory=dict)  # of the questions, by embedding fingerprint

    def row(self, variant: Variant) -> Row:
        where = self.shop.fit(variant.settings, variant.choice)
        standing = query.open_collection(where)
        self.progress.start("questions", len(self.placed.questions), "question")
        with Searcher(where, standing) as searcher:
            vectors = self._embedded(where, standing) if where.search.mode != "text" else None
            began = time.perf_counter()
            found = [self._ask(searcher, number, vectors) for number in range(len(self.placed.questions))]
            seconds = time.perf_counter() - began
        self.progress.finish("questions")
        return Row(
            name=variant.name,
            choice=variant.choice,
            values=self._values(found),
            tokens=_tokens(standing, [one.shown for one in found]),
            milliseconds=1e3 * seconds / len(found),
        )

    def _ask(self, searcher: Searcher, number: int, vectors: Vectors | None) -> Found:
        question, spots = self.placed.questions[number]
        by_document = all(not spot.quote for spot in spots)
        vector = vectors[number] if vectors is not None else None
        found = searcher.find(question.text, vector, by_document=by_document)
        self.progress.advance("questions")
        return found

    def _embedded(self, settings: config.Settings, standing: Standing) -> Vectors:
        key = live.vectors_fp(standing.spec)
        if key not in self._vectors:
            texts = [question.text for question, _ in self.placed.questions]
            self._vectors[key] = asyncio.run(quality.embed_questions(settings, standing.spec, texts, None))
        return self._vectors[key]

    def _values(self, found: Sequence[Found]) -> dict[str, Values]:
        pairs = [(spots, one) for (_, spots), one in zip(self.placed.questions, found, strict=True)]
        rankings = [ranking(spots, one.ranked) for spots, one in pairs]
        values = scoring.rank_measures(rankings, [self.at, scoring.DEEPEST])
        if all(spot.region for spots, _ in pairs for spot in spots):
            columns = zip(*(_characters(spots, one.shown) for spots, one in pairs), strict=True)
            values |= {name: np.array(column) for name, column in zip(CHARACTERS, columns, strict=True)}
        return values


class Searcher:
    """Asks a collection as `pipeline search` would, again and again: its index and its reranker stay open."""

    def __init__(self, settings: config.Settings, standing: Standing) -> None:
        self._settings = settings
        self._standing = standing
        self._params = query.search_params(settings, standing.spec)
        self._reader = query.open_reader(standing)
        self._reranker = rerank.create(settings)
        self._loop = asyncio.Runner()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if self._reranker is not None:
                self._loop.run(self._reranker.aclose())
        finally:
            self._loop.close()

    def hits(self, question: str, vector: Vectors | None, top_k: int, per_document: int = 0) -> list[search.Hit]:
        """The first `top_k`. `per_document`: most of one document; 0: as the settings say."""
        params = replace(self._params, top_k=top_k, per_document=per_document or self._params.per_document)
        reorder = None
        if self._reranker is not None:
            reorder = reranking.of(self._settings, self._reranker, question, self._loop.run)
        return search.search(self._reader, question, vector, params, reorder=reorder)

    def find(self, question: str, vector: Vectors | None, *, by_document: bool) -> Found:
        """`by_document`: one hit of each document, since documents are judged."""
        count = self._params.top_k
        hits = self.hits(question, vector, max(scoring.DEEPEST, count), per_document=1 if by_document else 0)
        shown, rest = hits[:count], hits[count:]
        if not self._settings.search.expand or not shown:
            return Found(ranked=hits, shown=shown)
        standing = self._standing
        grown = surroundings.shown(self._settings, standing.collection, standing.note, standing.spec, shown)
        passages = [one.as_hit() for one in grown]
        filled = [*passages, *passages[-1:] * (len(shown) - len(passages))]  # hits that were joined leave no gap
        return Found(ranked=[*filled, *rest], shown=passages)


def ranking(spots: Sequence[Spot], hits: Sequence[search.Hit]) -> Ranking:
    """At which rank, from 1, each spot is shown first."""
    return Ranking(
        grades=tuple(spot.grade for spot in spots),
        ranks=tuple(next((rank for rank, hit in enumerate(hits, start=1) if shows(hit, spot)), None) for spot in spots),
    )


def shows(hit: search.Hit, spot: Spot) -> bool:
    """Whether this is the document, and the quote is in the passage; see the module."""
    if spot.uri not in (hit.path, *hit.also_in):
        return False
    if spot.at is not None and hit.path == spot.uri:
        return hit.start <= spot.at[0] and spot.at[1] <= hit.end
    return quotes.holds(hit.text, spot.quote)


def _characters(spots: Sequence[Spot], hits: Sequence[search.Hit]) -> tuple[float, float, float]:
    wanted = scoring.Read(spans=tuple((spot.uri, spot.region) for spot in spots if spot.region))
    return scoring.characters(wanted, scoring.Read(spans=tuple((hit.path, (hit.start, hit.end)) for hit in hits)))


def _tokens(standing: Standing, shown: Sequence[Sequence[search.Hit]]) -> float:
    """Of the passages of a question, on average; each passage is counted once, however often it was shown."""
    tokenizer = tasks.tokenizer(standing.spec.tokenizer, live.tokenizer_path(standing.collection, standing.spec))
    texts = list(dict.fromkeys(hit.text for hits in shown for hit in hits))
    counts = dict(zip(texts, tokenizer.count(texts), strict=True))
    return float(np.mean([sum(counts[hit.text] for hit in hits) for hits in shown]))
