"""A question to hits: two rankings of the index, fused, copies and near-copies folded, with a score that means
something.

Knows rankings; nothing of models (the caller embeds the question), of LanceDB's queries (lance.py) or of answers.

Two numbers of a hit must not be confused. `fused` decides the order: what both rankings say (fusion.py), from 0 to 1 by
scores, near 0.03 at best by reciprocal ranks. `score` is for people and thresholds: the cosine between
question and passage, from 0 to 1, lowered where needed so that it falls with the rank (clients such as Dify sort by
it again).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from pipeline import config, errors, explain, fusion, lance, likeness, scripts
from pipeline.models import Vectors

Mode = Literal["hybrid", "vector", "text"]

MOST_CANDIDATES = 3_200  # of one ranking, where copies crowd out everything else
LOOKED_AT = 2  # times the hits wanted: so many candidates are compared for near-copies, more where they are needed
HALF_BM25 = 8.0  # BM25 that scores 0.5 where there is no vector: about one rare word found


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """How to search.

    Attributes:
        top_k: hits wanted.
        candidates: rows taken from each ranking.
        fuse_by, vector_weight, rrf_k: how the rankings are fused: see fusion.Fusion.
        per_document: most hits of one document; 0: no limit.
        offered: hits that are offered to a reranker, where there is one.
        languages: that the embedding model knows, such as ("en",); empty: many. A question in a script of none of them
            is ranked by its words, and vectors only fill up (XQuAD Chinese with an English model, nDCG@10: words 0.961,
            fused with equal weights 0.535; with a tenth of the weight 0.825).
        where: a predicate over the index's columns, made by `filters`, never by a user; applied before anything is
            ranked.
        keep: the same, of files (`changed.Files`).
    """

    mode: Mode = "hybrid"
    top_k: int = 5
    candidates: int = 50
    fuse_by: fusion.Kind = "scores"
    vector_weight: float = fusion.VECTOR_WEIGHT
    rrf_k: int = 60
    per_document: int = 0
    offered: int = 0
    languages: tuple[str, ...] = ()
    where: lance.Predicate | None = None
    keep: lance.Keep | None = None

    @classmethod
    def of(cls, settings: config.SearchSettings, languages: tuple[str, ...]) -> SearchParams:
        """How the settings want a collection to be searched whose model knows these languages."""
        return cls(
            mode=settings.mode,
            top_k=settings.top_k,
            candidates=settings.candidates,
            fuse_by=settings.fusion,
            vector_weight=settings.vector_weight,
            rrf_k=settings.rrf_k,
            per_document=settings.per_document,
            offered=settings.rerank_top if settings.rerank else 0,
            languages=languages,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A passage that was found.

    Attributes:
        path: uri of its document.
        heading: path of headings, joined by " > "; "" where there is none.
        start, end: code points into the document's text.
        score: from 0 to 1, never above that of the hit before.
        similarity: cosine with the question; None where the question has no vector.
        vector_rank, text_rank: from 1, in each ranking; None where it is not among its candidates.
        also_in: paths of other documents with the same passage, sorted.
        rerank: what a reranker says of it, in the reranker's own scale; None where none was asked.
        bm25: its score in the text ranking, without an upper end; None where it is not among its candidates.
    """

    chunk_id: str
    doc_id: str
    path: str
    title: str
    media_type: str
    page: int | None
    heading: str
    start: int
    end: int
    text: str
    score: float
    similarity: float | None
    vector_rank: int | None
    text_rank: int | None
    fused: float
    also_in: tuple[str, ...] = ()
    rerank: float | None = None
    bm25: float | None = None

    def to_json(self) -> dict[str, object]:
        """For `--json` and the service: plain values, numbers to six digits."""
        return {
            "path": self.path,
            "page": self.page,
            "heading": self.heading,
            "title": self.title,
            "text": self.text,
            "score": round(self.score, 6),
            "chunk_id": self.chunk_id,
            "doc_id": self.doc_id,
            "media_type": self.media_type,
            "start": self.start,
            "end": self.end,
            "similarity": None if self.similarity is None else round(self.similarity, 6),
            "vector_rank": self.vector_rank,
            "text_rank": self.text_rank,
            "fused": round(self.fused, 6),
            "also_in": list(self.also_in),
            "rerank": None if self.rerank is None else round(self.rerank, 6),
        }


Row = Mapping[str, Any]  # one row of a Reader's table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Passage:
    """Rows with the same text: the first by path stands for all of them."""

    row: Row
    also_in: tuple[str, ...]
    strength: float  # what its ranking sorts by


Reorder = Callable[[Sequence[Hit]], Sequence[Hit]]  # the same hits, better ones first: what a reranker does


def search(
    reader: lance.Reader,
    question: str,
    vector: Vectors | None,
    params: SearchParams,
    *,
    reorder: Reorder | None = None,
    trace: explain.Trace | None = None,
) -> list[Hit]:
    """The passages that fit the question best, best first; at most `params.top_k`, fewer where the index has no more.

    Args:
        question: as typed by a person; nothing in it is syntax.
        vector: of the question after the model's query template, shape (dims,); may be None for mode "text".
        reorder: called once, with at least the first `params.offered` distinct hits (fewer where there are no more),
            before the limit per document and `top_k` are applied.
        trace: is told what was done and why.

    Raises:
        UsageError: an empty question, or no vector where the mode needs one.
        IndexMismatch: the vector does not fit the index.
    """
    _check(question, vector, params)
    candidates = max(params.candidates, params.top_k, params.offered)
    while True:
        fused, exhausted = _fused(reader, question, vector, params, candidates, trace)
        distinct = _Distinct(fused, params)
        if distinct.enough or exhausted or candidates >= MOST_CANDIDATES:
            break
        candidates *= 4  # copies, or the limit per document, ate the candidates
    hits = distinct.kept
    if reorder is not None:
        with explain.timed(trace, "rerank"):
            hits = list(reorder(hits))
    chosen = _scored(_limit(hits, params))
    if trace is not None:
        explain.tell(trace, distinct.folded, [*hits, *map(_hit, distinct.rest)], chosen)
        if params.where or params.keep:
            everything = replace(params, where=None, keep=None)
            unfiltered, _ = _fused(reader, question, vector, everything, candidates, None)
            explain.tell_filtered(trace, [_hit(one) for one in unfiltered], [_hit(one) for one in fused], chosen)
    return chosen


def _check(question: str, vector: Vectors | None, params: SearchParams) -> None:
    if not question.strip():
        raise errors.UsageError("The question is empty.", 'Type it in quotes: pipeline search "...".')
    if not _is_unicode(question):
        raise errors.UsageError(
            "The question is not valid text in this terminal's encoding.", "Set LANG to a UTF-8 locale."
        )
    if vector is None and params.mode != "text":
        raise errors.UsageError(f"A {params.mode} search needs the question's vector.", "Use --mode text.")


def _is_unicode(text: str) -> bool:
    """False for bytes that Python could not decode from the command line: it smuggles them in as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _fused(
    reader: lance.Reader,
    question: str,
    vector: Vectors | None,
    params: SearchParams,
    k: int,
    trace: explain.Trace | None,
) -> tuple[list[_Found], bool]:
    """All passages that the rankings of the mode have among their first `k` rows; and whether there are no more."""
    found = _rank(reader, question, vector, params, k, trace)
    how = fusion.Fusion(kind=params.fuse_by, vector_weight=params.vector_weight, rrf_k=params.rrf_k)
    by_vector, by_words = how.weights(foreign=scripts.is_foreign(question, params.languages))
    weights = {"similarity": by_vector, "score": by_words}
    with explain.timed(trace, "fuse"):
        rankings = {column: _fold(table.to_pylist(), column) for column, table in found.items()}
        # What holds no word of the question has a BM25 of 0: the rest, where fewer were found than asked for.
        floor = 0.0 if "score" in found and len(found["score"]) < k else None
        fused = _fuse(rankings, how, weights, {"score": floor})
    if trace is not None:
        trace.candidates, trace.copies = k, sum(len(_hit(one).also_in) for one in fused)
        trace.rrf_k = params.rrf_k if params.fuse_by == "ranks" else 0
        trace.weights = {_NAMES[column]: weights[column] for column in found}
        trace.found = {_NAMES[column]: len(table) for column, table in found.items()}
    return fused, all(len(table) < k for table in found.values())


_NAMES = {"similarity": "vector", "score": "text"}  # of the rankings, by the column that they sort by
# For the second ranking of each search. Kept: to start a thread costs a search in fifteen under load.
_threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="search-words")


def _rank(
    reader: lance.Reader,
    question: str,
    vector: Vectors | None,
    params: SearchParams,
    k: int,
    trace: explain.Trace | None,
) -> dict[str, pa.Table]:
    """The first `k` rows of each ranking of the mode, by the column that it sorts by; both are made at once."""

    def by_vector() -> pa.Table:
        assert vector is not None
        with explain.timed(trace, "vector"):
            return reader.vector(vector, k, params.where, params.keep)

    def by_words() -> pa.Table:
        with explain.timed(trace, "text"):
            return reader.text(question, k, params.where, vector, params.keep)

    if params.mode == "text":
        return {"score": by_words()}
    if params.mode == "vector":
        return {"similarity": by_vector()}
    words = _threads.submit(by_words)
    try:
        return {"similarity": by_vector(), "score": words.result()}
    finally:
        wait([words])  # where the other failed: nothing of a search goes on behind its caller


def _fold(rows: Sequence[Row], column: str) -> list[_Passage]:
    """Rows with equal text made one. Ties go by path and position: Lance returns equal scores in any order."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (-row[column], *_place(row))):
        groups.setdefault(row["text"].strip(), []).append(row)
    passages = [_passage(group, column) for group in groups.values()]
    if len(passages) == len(rows):
        return passages
    return sorted(passages, key=lambda passage: (-passage.strength, *_place(passage.row)))


def _passage(copies: Sequence[Row], column: str) -> _Passage:
    if len(copies) == 1:
        return _Passage(row=copies[0], also_in=(), strength=copies[0][column])
    first = min(copies, key=_place)
    others = {row["uri"] for row in copies} - {first["uri"]}
    return _Passage(row=first, also_in=tuple(sorted(others)), strength=copies[0][column])


def _place(row: Row) -> tuple[str, int, str]:
    return row["uri"], row["start"], row["chunk_id"]


def _fuse(
    rankings: Mapping[str, Sequence[_Passage]],
    how: fusion.Fusion,
    weights: Mapping[str, float],
    floors: Mapping[str, float | None],
) -> list[_Found]:
    """All passages of all rankings, best first."""
    merged: dict[str, dict[str, _Placed]] = {}
    for column, passages in rankings.items():
        strengths = [passage.strength for passage in passages]
        worth = how.worth(strengths, weights[column], floor=floors.get(column))
        for rank, passage in enumerate(passages, start=1):
            placed = _Placed(rank=rank, passage=passage, worth=worth[rank - 1])
            merged.setdefault(passage.row["text"].strip(), {})[column] = placed
    return sorted(merged.values(), key=_order)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """A passage in one ranking: its rank, from 1, and what that is worth."""

    rank: int
    passage: _Passage
    worth: float


_Found = Mapping[str, _Placed]  # a passage in each ranking that has it, by the column that this sorts by


def _order(found: _Found) -> tuple[float, float, str, int, str]:
    row = _first(found)
    return (-_worth(found), -(row.get("similarity") or 0.0), *_place(row))


def _worth(found: _Found) -> float:
    return sum(placed.worth for placed in found.values())


def _first(found: _Found) -> Row:
    return min((placed.passage.row for placed in found.values()), key=_place)


def _hit(found: _Found) -> Hit:
    """Made late, since of a hundred candidates ten become one."""
    ranks = {column: placed.rank for column, placed in found.items()}
    passages = [placed.passage for placed in found.values()]
    row = _first(found)
    paths = {path for passage in passages for path in (passage.row["uri"], *passage.also_in)}
    similarity = row.get("similarity")
    return Hit(
        **{name: row[name] for name in lance.FOUND if name != "uri"},
        path=row["uri"],
        score=_saturate(row["score"]) if similarity is None else min(max(similarity, 0.0), 1.0),
        similarity=similarity,
        vector_rank=ranks.get("similarity"),
        text_rank=ranks.get("score"),
        fused=_worth(found),
        also_in=tuple(sorted(paths - {row["uri"]})),
        bm25=found["score"].passage.strength if "score" in found else None,
    )


def _saturate(bm25: float) -> float:
    """A BM25 score as a number from 0 to 1 that grows with it: s / (s + HALF_BM25). For display, not for thresholds."""
    return bm25 / (bm25 + HALF_BM25)


class _Distinct:
    """Candidates as hits, near-copies folded: the best-ranked stands for those that say the same (likeness.alike).

    Looks no further down than it must: the print of a passage costs as much as a hundredth of a query.

    Attributes:
        kept: distinct hits, best first: as many as were wanted, if there are, and some more.
        folded: hit → the chunk_id of the one that stands for it.
        rest: candidates that nobody looked at.
        enough: whether `top_k` of `kept` are within the limit per document.
    """

    def __init__(self, fused: Sequence[_Found], params: SearchParams) -> None:
        self.kept: list[Hit] = []
        self.folded: list[tuple[Hit, str]] = []
        self._prints: dict[str, likeness.Print] = {}
        wanted = max(params.top_k, params.offered)
        self.rest: Sequence[_Found] = fused
        while self.rest and (len(fused) - len(self.rest) < LOOKED_AT * wanted or not self._enough(wanted, params)):
            self._take(_hit(self.rest[0]))
            self.rest = self.rest[1:]
        self.enough = self._enough(params.top_k, params)

    def _enough(self, wanted: int, params: SearchParams) -> bool:
        return len(self.kept) >= wanted and len(_limit(self.kept, params)) >= params.top_k

    def _take(self, hit: Hit) -> None:
        """Keep `hit`, or fold it into the hit that says the same."""
        for number, other in enumerate(self.kept):
            if likeness.may_be(hit.text, other.text) and likeness.alike(self._print(hit), self._print(other)):
                paths = {hit.path, *hit.also_in, *other.also_in} - {other.path}
                self.kept[number] = replace(other, also_in=tuple(sorted(paths)))
                self.folded.append((hit, other.chunk_id))
                return
        self.kept.append(hit)

    def _print(self, hit: Hit) -> likeness.Print:
        if hit.chunk_id not in self._prints:
            self._prints[hit.chunk_id] = likeness.of(hit.text)
        return self._prints[hit.chunk_id]


def _limit(hits: Sequence[Hit], params: SearchParams) -> list[Hit]:
    """The first `top_k`, at most `per_document` of each document."""
    if not params.per_document:
        return list(hits[: params.top_k])
    kept: list[Hit] = []
    of: dict[str, int] = {}
    for hit in hits:
        of[hit.doc_id] = of.get(hit.doc_id, 0) + 1
        if of[hit.doc_id] <= params.per_document:
            kept.append(hit)
            if len(kept) == params.top_k:
                break
    return kept


def _scored(hits: Sequence[Hit]) -> list[Hit]:
    """The same hits with scores that fall: score_i = min(score_{i-1}, its own)."""
    ceiling = 1.0
    scored = []
    for hit in hits:
        ceiling = min(ceiling, hit.score)
        scored.append(replace(hit, score=ceiling))
    return scored
