"""A question to hits: two rankings of the index, fused by reciprocal ranks, copies folded, with a score that means
something.

Knows rankings; nothing of models (the caller embeds the question), of LanceDB's queries (lance.py) or of answers.

Two numbers of a hit must not be confused. `fused` decides the order: the sum of 1 / (rrf_k + rank) over both rankings
(Cormack, Clarke and Büttcher 2009), near 0.03 at best. `score` is for people and thresholds: the cosine between
question and passage, from 0 to 1, lowered where needed so that it falls with the rank (clients such as Dify sort by
it again).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from pipeline import errors, lance, scripts
from pipeline.models import Vectors

Mode = Literal["hybrid", "vector", "text"]

MOST_CANDIDATES = 3_200  # of one ranking, where copies crowd out everything else
HALF_BM25 = 8.0  # BM25 that scores 0.5 where there is no vector: about one rare word found


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchParams:
    """How to search.

    Attributes:
        top_k: hits wanted.
        candidates: rows taken from each ranking.
        rrf_k: the constant of reciprocal rank fusion.
        per_document: most hits of one document; 0: no limit.
        languages: that the embedding model knows, such as ("en",); empty: many. A question in a script of none of them
            is ranked by its words, and vectors only fill up (XQuAD Chinese with an English model, nDCG@10: words 0.961,
            fused with equal weights 0.535; with a tenth of the weight 0.825).
        where: an SQL predicate over the index's columns, made by the program (`lance.quote`), never by a user.
    """

    mode: Mode = "hybrid"
    top_k: int = 5
    candidates: int = 50
    rrf_k: int = 60
    per_document: int = 0
    languages: tuple[str, ...] = ()
    where: str | None = None


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
        }


Row = Mapping[str, Any]  # one row of a Reader's table


@dataclass(frozen=True, slots=True, kw_only=True)
class _Passage:
    """Rows with the same text: the first by path stands for all of them."""

    row: Row
    also_in: tuple[str, ...]
    strength: float  # what its ranking sorts by


def search(reader: lance.Reader, question: str, vector: Vectors | None, params: SearchParams) -> list[Hit]:
    """The passages that fit the question best, best first; at most `params.top_k`, fewer where the index has no more.

    Args:
        question: as typed by a person; nothing in it is syntax.
        vector: of the question after the model's query template, shape (dims,); may be None for mode "text".

    Raises:
        UsageError: an empty question, or no vector where the mode needs one.
        IndexMismatch: the vector does not fit the index.
    """
    if not question.strip():
        raise errors.UsageError("The question is empty.", 'Type it in quotes: pipeline search "...".')
    if not _is_unicode(question):
        raise errors.UsageError(
            "The question is not valid text in this terminal's encoding.", "Set LANG to a UTF-8 locale."
        )
    if vector is None and params.mode != "text":
        raise errors.UsageError(f"A {params.mode} search needs the question's vector.", "Use --mode text.")
    candidates = max(params.candidates, params.top_k)
    weights = {"similarity": 0.0 if scripts.is_foreign(question, params.languages) else 1.0, "score": 1.0}
    while True:
        rankings, exhausted = _rank(reader, question, vector, params, candidates)
        hits = _limit(_fuse(rankings, weights, params.rrf_k), params)
        if len(hits) == params.top_k or exhausted or candidates >= MOST_CANDIDATES:
            return _scored(hits)
        candidates *= 4  # copies, or the limit per document, ate the candidates


def _is_unicode(text: str) -> bool:
    """False for bytes that Python could not decode from the command line: it smuggles them in as lone surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _rank(
    reader: lance.Reader, question: str, vector: Vectors | None, params: SearchParams, k: int
) -> tuple[dict[str, list[_Passage]], bool]:
    """Each ranking of the mode, best first; and whether the index has nothing more for any of them."""
    found: dict[str, pa.Table] = {}
    if vector is not None and params.mode != "text":
        found["similarity"] = reader.vector(vector, k, params.where)
    if params.mode != "vector":
        found["score"] = reader.text(question, k, params.where, near=vector)
    rankings = {column: _fold(table.to_pylist(), column) for column, table in found.items()}
    return rankings, all(len(table) < k for table in found.values())


def _fold(rows: Sequence[Row], column: str) -> list[_Passage]:
    """Rows with equal text made one. Ties go by path and position: Lance returns equal scores in any order."""
    groups: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (-row[column], *_place(row))):
        groups.setdefault(row["text"].strip(), []).append(row)
    passages = [_passage(group, column) for group in groups.values()]
    return sorted(passages, key=lambda passage: (-passage.strength, *_place(passage.row)))


def _passage(copies: Sequence[Row], column: str) -> _Passage:
    first = min(copies, key=_place)
    others = {row["uri"] for row in copies} - {first["uri"]}
    return _Passage(row=first, also_in=tuple(sorted(others)), strength=copies[0][column])


def _place(row: Row) -> tuple[str, int, str]:
    return row["uri"], row["start"], row["chunk_id"]


def _fuse(rankings: Mapping[str, Sequence[_Passage]], weights: Mapping[str, float], rrf_k: int) -> list[Hit]:
    """All passages of all rankings, best first, not yet scored."""
    merged: dict[str, dict[str, tuple[int, _Passage]]] = {}
    for column, passages in rankings.items():
        for rank, passage in enumerate(passages, start=1):
            merged.setdefault(passage.row["text"].strip(), {})[column] = (rank, passage)
    hits = [_hit(found, weights, rrf_k) for found in merged.values()]
    return sorted(hits, key=lambda hit: (-hit.fused, -(hit.similarity or 0.0), hit.path, hit.start, hit.chunk_id))


def _hit(found: Mapping[str, tuple[int, _Passage]], weights: Mapping[str, float], rrf_k: int) -> Hit:
    ranks = {column: rank for column, (rank, _) in found.items()}
    row = min((passage.row for _, passage in found.values()), key=_place)
    paths = {path for _, passage in found.values() for path in (passage.row["uri"], *passage.also_in)}
    similarity = row.get("similarity")
    return Hit(
        **{name: row[name] for name in lance.FOUND if name != "uri"},
        path=row["uri"],
        score=_saturate(row["score"]) if similarity is None else min(max(similarity, 0.0), 1.0),
        similarity=similarity,
        vector_rank=ranks.get("similarity"),
        text_rank=ranks.get("score"),
        fused=sum(weights[column] / (rrf_k + rank) for column, rank in ranks.items()),
        also_in=tuple(sorted(paths - {row["uri"]})),
    )


def _saturate(bm25: float) -> float:
    """A BM25 score as a number from 0 to 1 that grows with it: s / (s + HALF_BM25). For display, not for thresholds."""
    return bm25 / (bm25 + HALF_BM25)


def _limit(hits: Sequence[Hit], params: SearchParams) -> list[Hit]:
    """The first `top_k`, at most `per_document` of each document."""
    kept: list[Hit] = []
    of: dict[str, int] = {}
    for hit in hits:
        of[hit.doc_id] = of.get(hit.doc_id, 0) + 1
        if not params.per_document or of[hit.doc_id] <= params.per_document:
            kept.append(hit)
    return kept[: params.top_k]


def _scored(hits: Sequence[Hit]) -> list[Hit]:
    """The same hits with scores that fall: score_i = min(score_{i-1}, its own)."""
    ceiling = 1.0
    scored = []
    for hit in hits:
        ceiling = min(ceiling, hit.score)
        scored.append(replace(hit, score=ceiling))
    return scored
