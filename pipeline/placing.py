"""Where in a collection the answers to questions stand: which document, and which characters of it.

Knows questions and documents; knows nothing of searching. A document that is not there and a quote that its document
does not hold are told apart: the first is a wrong path or a file that was not read, the second a wrong quote or a
document that says something else now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline import question_sets, schema
from pipeline.question_sets import Question, Wanted
from pipeline.quotes import Span, Text
from pipeline.store import Collection, Snapshot

Why = Literal["no such document", "quote not found", "name is ambiguous"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """What a question asks for, found in a collection.

    Attributes:
        uri: of the document.
        quote: the words; "": the document as a whole.
        at: of the quote, where only this place counts; None: wherever in the document the quote stands.
        region: the characters that are relevant; None: of the document as a whole.
    """

    uri: str
    quote: str = ""
    at: Span | None = None
    region: Span | None = None
    grade: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A question that the collection cannot be asked fairly."""

    question: Question
    wanted: Wanted
    why: Why

    def to_json(self) -> dict[str, str]:
        place = self.wanted.document or self.wanted.passage[:80]
        return {"where": self.question.where, "question": self.question.text, "document": place, "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Questions with their spots, those that nothing answers, and those that cannot be asked."""

    questions: tuple[tuple[Question, tuple[Spot, ...]], ...]
    unanswerable: tuple[Question, ...]
    left_out: tuple[LeftOut, ...]


def place(collection: Collection, snapshot: Snapshot | None, questions: Sequence[Question]) -> Placed:
    """Look the answers up in the documents of a snapshot. Reads only the documents that are named, or all of them where
    a question knows its passage alone.
    """
    rows = snapshot.table.select(["uri", "shard", "doc_id"]).to_pylist() if snapshot is not None else []
    places = {row["uri"]: (row["shard"], row["doc_id"]) for row in rows if row["doc_id"]}
    found = _Finder(collection, places).find([one for question in questions for one in question.wanted])
    placed, unanswerable, left_out = [], [], []
    for question in questions:
        spots = [found[one] for one in question.wanted]
        lost = [
            LeftOut(question=question, wanted=one, why=why)
            for one, why in zip(question.wanted, spots, strict=True)
            if isinstance(why, str)
        ]
        if not question.wanted:
            unanswerable.append(question)
        elif lost:
            left_out.append(lost[0])
        else:
            placed.append((question, tuple(spot for spot in spots if isinstance(spot, Spot))))
    return Placed(questions=tuple(placed), unanswerable=tuple(unanswerable), left_out=tuple(left_out))


class _Finder:
    def __init__(self, collection: Collection, places: dict[str, tuple[str, str]]) -> None:
        self._collection = collection
        self._places = places  # uri → shard, doc_id
        self._names: dict[str, set[str]] = {}

    def find(self, wanted: Sequence[Wanted]) -> dict[Wanted, Spot | Why]:
        found: dict[Wanted, Spot | Why] = {}
        by_uri: dict[str, list[Wanted]] = {}
        anywhere: list[Wanted] = []
        for one in dict.fromkeys(wanted):
            uri = self._uri(one)
            if uri in self._places:
                by_uri.setdefault(uri, []).append(one)
            elif not one.document:
                anywhere.append(one)
            else:
                found[one] = "name is ambiguous" if uri == "?" else "no such document"
        for uri, whole in self._texts(list(self._places) if anywhere else list(by_uri)):
            text = Text(whole)
            found |= {one: _spot(uri, text, one) for one in by_uri.get(uri, ())}
            for one in anywhere:
                if one not in found and isinstance(spot := _spot(uri, text, one), Spot):
                    found[one] = spot
        for one in anywhere:
            found.setdefault(one, "quote not found")
        return found

    def _uri(self, wanted: Wanted) -> str:
        """The document that is meant; "?" where several may be, "" where none."""
        if wanted.document in self._places or not wanted.by_name:
            return wanted.document
        if not self._names:
            for uri in self._places:
                for name in question_sets.names_of(uri):
                    self._names.setdefault(name, set()).add(uri)
        candidates = self._names.get(wanted.document, set())
        return next(iter(candidates)) if len(candidates) == 1 else "?" if candidates else ""

    def _texts(self, uris: Sequence[str]) -> Iterator[tuple[str, str]]:
        """A shard at a time; only the documents that are asked for."""
        shards: dict[str, dict[str, list[str]]] = {}
        for uri in uris:
            shard, doc = self._places[uri]
            shards.setdefault(shard, {}).setdefault(doc, []).append(uri)
        for shard, docs in shards.items():
            table = self._collection.read_documents(shard, ["doc_id", "text"])
            ids, texts = schema.strings(table["doc_id"]), table["text"]
            for number, doc in enumerate(ids):
                text = str(texts[number]) if doc in docs else ""
                yield from ((uri, text) for uri in docs.get(doc, ()))


def _spot(uri: str, text: Text, wanted: Wanted) -> Spot | Why:
    if not wanted.quote:
        return Spot(uri=uri, grade=wanted.grade)
    if not wanted.passage:
        at = text.find(wanted.quote, near=wanted.start)
        return Spot(uri=uri, quote=wanted.quote, region=at, grade=wanted.grade) if at else "quote not found"
    region = text.find(wanted.passage)
    inside = Text(text.text[slice(*region)]).find(wanted.quote, near=wanted.start) if region else None
    if region is None or inside is None:
        return "quote not found"
    at = (region[0] + inside[0], region[0] + inside[1])
    return Spot(uri=uri, quote=wanted.quote, at=at, region=region, grade=wanted.grade)
