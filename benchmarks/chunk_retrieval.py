"""What the anchored boundaries cost in retrieval, and what the context line gains: by vectors alone, embedded model.

    python -m benchmarks.chunk_retrieval --evaluation DIR [--sizes 128,256,400]

DIR holds `chunking_evaluation/` (brandonstarxel/chunking_evaluation, MIT): five corpora and 472 questions whose answers
are spans of text; and `xquad/xquad.en.json` (google-deepmind/xquad, CC BY-SA 4.0) for the gain of the title as context.

Printed are recall, precision and intersection over union of the characters in the 5 nearest chunks of all corpora,
averaged over questions, as chunking_evaluation defines them. `greedy` packs the same units in order: what the anchors,
which spare most chunks at an edit, cost in retrieval. Other libraries: benchmarks.chunking (speed, edits).
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.common import table
from pipeline import schema
from pipeline.document import Block
from pipeline.models import Vectors, builtin, tokens
from pipeline.stages import chunk, chunk_fit, chunk_sections

TOP = 5
_HEADING = re.compile(r"^ (?P<marks>(?:= )+)(?P<text>.+?) (?:= )*=? *$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    name: str
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    corpus: str
    answers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """text[start:end] of its corpus, and what is embedded for it."""

    corpus: str
    start: int
    end: int
    sent: str


Chunker = Callable[[Corpus], list[Passage]]


def main() -> None:
    options = _options()
    corpora = _corpora(options.evaluation)
    chunkers = _own([int(size) for size in options.sizes.split(",")])
    vectors = _Vectors()
    questions = _questions(options.evaluation)
    rows = [_quality(name, chunker, corpora, questions, vectors) for name, chunker in chunkers.items()]
    print(table(("chunker", "recall", "precision", "IoU", "characters read"), rows))
    print("\n" + table(("XQuAD, title as context", "recall@1", "recall@5"), _titles(options.evaluation, vectors)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--sizes", default="128,256,400")
    return parser.parse_args()


def _corpora(folder: Path) -> list[Corpus]:
    paths = sorted((folder / "chunking_evaluation").glob("*.md"))
    return [Corpus(name=path.stem, text=path.read_text(encoding="utf-8")) for path in paths]


def _questions(folder: Path) -> list[Question]:
    with (folder / "chunking_evaluation" / "questions_df.csv").open(encoding="utf-8", newline="") as file:
        return [
            Question(
                text=row["question"],
                corpus=row["corpus_id"],
                answers=tuple((part["start_index"], part["end_index"]) for part in json.loads(row["references"])),
            )
            for row in csv.DictReader(file)
        ]


# --- chunkers ----------------------------------------------------------------------------------------------------


def _own(sizes: Sequence[int]) -> dict[str, Chunker]:
    made: dict[str, Chunker] = {}
    for size in sizes:
        most = max(400, size) if size != 128 else 200
        made[f"ours {size} (max {most})"] = _made_by(chunk_fit.Fitter, chunk.ChunkParams(size=size, max=most))
        made[f"greedy {size}"] = _made_by(_Greedy, chunk.ChunkParams(size=size, max=most))
    made["ours 256, no context"] = _made_by(chunk_fit.Fitter, chunk.ChunkParams(context=False))
    return made


def documents(corpus: Corpus) -> pa.Table:
    """The corpus as ingest would leave it: paragraphs, and headings as WikiText writes them (` = Title = `)."""
    blocks: list[dict[str, Any]] = []
    path: tuple[str, ...] = ()
    at = 0
    for line in corpus.text.splitlines(keepends=True):
        text = line.strip()
        if text:
            start = at + line.index(text)
            heading = _HEADING.match(line.rstrip("\n")) if line.startswith(" = ") else None
            if heading:
                path = (*path[: heading["marks"].count("=") - 1], heading["text"])
            kind = "heading" if heading else "paragraph"
            blocks.append({"start": start, "end": start + len(text), "kind": kind, "heading_path": list(path)})
        at += len(line)
    row = {"doc_id": corpus.name, "doc_hash": "", "uri": "", "media_type": "", "title": corpus.title}
    return pa.Table.from_pylist([{**row, "text": corpus.text, "blocks": blocks}], schema=schema.DOCUMENTS)


def _outline(corpus: Corpus, cap: int) -> chunk_sections.Outline:
    row = documents(corpus).to_pylist()[0]
    blocks = [Block(**{**block, "heading_path": tuple(block["heading_path"])}) for block in row["blocks"]]
    return chunk_sections.outline(corpus.text, corpus.title, blocks, tokens.builtin(), cap)


def _made_by(fitter: type[chunk_fit.Fitter], params: chunk.ChunkParams) -> Chunker:
    def chunked(corpus: Corpus) -> list[Passage]:
        found = fitter(_outline(corpus, params.cap), params, tokens.builtin()).chunks()
        return [Passage(corpus=corpus.name, start=one.start, end=one.end, sent=one.sent) for one in found]

    return chunked


class _Greedy(chunk_fit.Fitter):
    """The same units, sections and contexts, packed in order up to `size` tokens."""

    def _cut(self, start: int, end: int, room: int) -> list[tuple[int, int]]:
        room = min(room, self._params.size)
        at, _, ends = self._refined(*self._units(start, end), room)
        edges = [0]
        for number in range(1, len(at)):
            if ends[number] - ends[edges[-1]] > room:
                edges.append(number - 1)
        return list(pairwise([*(at[edge] for edge in edges), end]))


def _count(text: str) -> int:
    return tokens.builtin().count([text])[0]


# --- retrieval ---------------------------------------------------------------------------------------------------


class _Vectors:
    """The embedded model, each text once."""

    def __init__(self) -> None:
        self._model = builtin.BuiltinEmbedder(builtin.spec(tokens.builtin().identity))
        self._known: dict[str, Vectors] = {}

    def of(self, texts: Sequence[str]) -> Vectors:
        new = sorted({text for text in texts if text not in self._known})
        if new:
            self._known.update(zip(new, self._model.embed_sync(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def _nearest(questions: Sequence[str], texts: Sequence[str], vectors: _Vectors, top: int) -> list[list[int]]:
    scores = vectors.of(questions) @ vectors.of(texts).T
    ranked: list[list[int]] = np.argsort(-scores, axis=1, kind="stable")[:, :top].tolist()
    return ranked


def _quality(
    name: str, chunker: Chunker, corpora: Sequence[Corpus], questions: Sequence[Question], vectors: _Vectors
) -> list[str]:
    passages = [passage for corpus in corpora for passage in chunker(corpus)]
    passages = [passage for passage in passages if _count(passage.sent) <= builtin.LIMIT]
    found = _nearest([question.text for question in questions], [p.sent for p in passages], vectors, TOP)
    scores = [_score(question, [passages[n] for n in row]) for question, row in zip(questions, found, strict=True)]
    read = statistics.mean(sum(passages[n].end - passages[n].start for n in row) for row in found)
    return [name, *(f"{100 * mean:.1f}" for mean in np.mean(scores, axis=0)), f"{read:.0f}"]


def _score(question: Question, passages: Sequence[Passage]) -> tuple[float, float, float]:
    """Recall, precision and intersection over union, in characters."""
    answer = {at for start, end in question.answers for at in range(start, end)}
    hits: set[int] = set()
    for passage in passages:
        if passage.corpus == question.corpus:
            hits |= answer.intersection(range(passage.start, passage.end))
    read = sum(passage.end - passage.start for passage in passages)
    return len(hits) / len(answer), len(hits) / read, len(hits) / (read + len(answer) - len(hits))


def _titles(folder: Path, vectors: _Vectors) -> list[list[str]]:
    """How often the paragraph with the answer is among the nearest, the article's title before it or not."""
    data = json.loads((folder / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]
    with_title: list[str] = []
    bare: list[str] = []
    questions: list[str] = []
    right: list[int] = []
    for article in data:
        for paragraph in article["paragraphs"]:
            questions += [answer["question"] for answer in paragraph["qas"]]
            right += [len(bare)] * len(paragraph["qas"])
            bare.append(paragraph["context"])
            with_title.append(chunk.embed_text(article["title"].replace("_", " "), bare[-1], "", "{text}"))
    rows = []
    for name, texts in (("no", bare), ("yes", with_title)):
        fitting = [text if _count(text) <= builtin.LIMIT else text[:1500] for text in texts]
        found = _nearest(questions, fitting, vectors, TOP)
        shares = [np.mean([n in row[:top] for n, row in zip(right, found, strict=True)]) for top in (1, TOP)]
        rows.append([name, *(f"{100 * share:.1f}" for share in shares)])
    return rows


if __name__ == "__main__":
    main()
