"""What the chunker costs and what it gains: speed, fill, chunks changed by an edit, and retrieval by vectors alone.

    python -m benchmarks.chunking --evaluation DIR [--sizes 128,256,400] [--edits 200] [--no-retrieval]

DIR holds `chunking_evaluation/` (brandonstarxel/chunking_evaluation, MIT): five corpora and 472 questions whose answers
are spans of text; and `xquad/xquad.en.json` (google-deepmind/xquad, CC BY-SA 4.0) for the gain of the title as context.

1. For each chunker: MB/s, chunks, median of their tokens, how many are above the limit, and of how many chunks the text
   is new after a sentence in the middle of a corpus was replaced. Other libraries take part where they can be imported.
2. Recall, precision and intersection over union of the characters in the 5 nearest chunks of all corpora, averaged over
   questions, as chunking_evaluation defines them. `greedy` packs the same units in order: the price of the anchors.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
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
    sizes = [int(size) for size in options.sizes.split(",")]
    chunkers = {**_own(sizes), **_peers(options.peer_size)}
    print(table(_COST_HEADER, [_cost(name, chunker, corpora, options.edits) for name, chunker in chunkers.items()]))
    if options.retrieval:
        vectors = _Vectors()
        questions = _questions(options.evaluation)
        rows = [_quality(name, chunker, corpora, questions, vectors) for name, chunker in chunkers.items()]
        print("\n" + table(("chunker", "recall", "precision", "IoU", "characters read"), rows))
        print("\n" + table(("XQuAD, title as context", "recall@1", "recall@5"), _titles(options.evaluation, vectors)))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True)
    parser.add_argument("--sizes", default="128,256,400")
    parser.add_argument("--peer-size", type=int, default=256)
    parser.add_argument("--edits", type=int, default=200)
    parser.add_argument("--no-retrieval", dest="retrieval", action="store_false")
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


def _passage(corpus: Corpus, start: int, end: int) -> Passage:
    text = corpus.text[start:end]
    start += len(text) - len(text.lstrip())
    return Passage(corpus=corpus.name, start=start, end=start + len(text.strip()), sent=text.strip())


def _count(text: str) -> int:
    return tokens.builtin().count([text])[0]


def _peers(size: int) -> dict[str, Chunker]:
    """Other libraries' chunkers at `size` tokens without overlap, where they are installed."""
    makers: dict[str, Callable[[Any], Callable[[str], list[str]]]] = {
        "langchain_text_splitters": lambda module: (
            module.RecursiveCharacterTextSplitter(chunk_size=size, chunk_overlap=0, length_function=_count).split_text
        ),
        "llama_index.core.node_parser": lambda module: (
            module.SentenceSplitter(
                chunk_size=size, chunk_overlap=0, tokenizer=lambda text: list(tokens.builtin().offsets(text))
            ).split_text
        ),
        "semantic_text_splitter": lambda module: module.TextSplitter.from_callback(_count, size).chunks,
        "chonkie": lambda module: _texts(module.RecursiveChunker(_count, chunk_size=size, min_characters_per_chunk=1)),
    }
    found: dict[str, Chunker] = {}
    for name, make in makers.items():
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        found[f"{name.split('.')[0]} {size}"] = _placed(make(module))
    return found


def _texts(chunker: Any) -> Callable[[str], list[str]]:
    return lambda text: [found.text for found in chunker.chunk(text)]


def _placed(split: Callable[[str], list[str]]) -> Chunker:
    """Passages of the texts that a library returns; one that the corpus does not hold goes where the last one ended."""

    def chunked(corpus: Corpus) -> list[Passage]:
        passages, at = [], 0
        for text in split(corpus.text):
            start = corpus.text.find(text.strip(), at)
            start = start if start >= 0 else at
            passages.append(_passage(corpus, start, start + len(text)))
            at = start + 1
        return passages

    return chunked


# --- cost --------------------------------------------------------------------------------------------------------

_COST_HEADER = ("chunker", "MB/s", "chunks", "median tokens", "over 510", "new after an edit: mean", "most")


def _cost(name: str, chunker: Chunker, corpora: Sequence[Corpus], edits: int) -> list[str]:
    chunker(corpora[0])  # what is loaded or learnt once does not count
    started = time.process_time()
    passages = [passage for corpus in corpora for passage in chunker(corpus)]
    seconds = time.process_time() - started
    size = sum(len(corpus.text.encode()) for corpus in corpora)
    counts = tokens.builtin().count([passage.sent for passage in passages])
    changes = list(_changes(chunker, corpora, edits))
    return [
        name,
        f"{size / 1e6 / seconds:.2f}",
        str(len(passages)),
        f"{statistics.median(counts):.0f}",
        str(sum(count > builtin.LIMIT for count in counts)),
        f"{statistics.mean(changes):.2f}",
        str(max(changes)),
    ]


def _changes(chunker: Chunker, corpora: Sequence[Corpus], edits: int) -> Iterator[int]:
    """Chunks that are new after each of `edits` replacements of a run of words, on 40 kB of each corpus in turn."""
    rng = random.Random(1)
    parts = [Corpus(name=corpus.name, text=corpus.text[:40_000]) for corpus in corpora]
    before = [{passage.sent for passage in chunker(part)} for part in parts]
    for number in range(edits):
        part, known = parts[number % len(parts)], before[number % len(parts)]
        start = part.text.index(" ", rng.randrange(len(part.text) - 500))
        end = part.text.index(" ", start + rng.randint(1, 120))
        new = " ".join(rng.choices(("harbour", "tide", "ledger", "winter", "signal", "rope"), k=rng.randint(1, 25)))
        edited = Corpus(name=part.name, text=f"{part.text[:start]} {new}{part.text[end:]}")
        yield len({passage.sent for passage in chunker(edited)} - known)


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
