"""How good the search is, and how well "not in your documents" is told: numbers on public question sets.

    python -m benchmarks.search_quality --evaluation DIR [--languages en,zh] [--every 1]

DIR holds `xquad/xquad.<language>.json` (SQuAD format; google-deepmind/xquad, CC BY-SA 4.0) and
`chunking_evaluation/questions_df.csv` (brandonstarxel/chunking_evaluation, MIT). Paragraphs are indexed as they are
(the vector of one over 510 tokens is that of its beginning) in a real LanceDB table, with the embedded model, and asked
through `pipeline.search` and `pipeline.answer`.

1. recall@5, recall@10 and nDCG@10 of each mode on XQuAD; a question has one right paragraph.
2. Abstention, English: half of the articles is indexed and asked its own questions, then those of the other half, and
   the questions of another collection. Printed is what share of each is refused at each threshold of the cosine.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import answer, ids, lance, search
from pipeline.models import Vectors, builtin, tokens

MODES: tuple[search.Mode, ...] = ("text", "vector", "hybrid")
LANGUAGES = ("en",)  # of the embedded model
THRESHOLDS = (0.20, 0.25, 0.30, 0.35, 0.40, 0.45, 0.50, 0.60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    article: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    text: str
    right: int  # index of its paragraph; -1: another collection's
    vector: Vectors


class Model:
    """The embedded model; what is too long for it is cut at a token."""

    def __init__(self) -> None:
        self._tokenizer = tokens.builtin()
        self._embedder = builtin.BuiltinEmbedder(builtin.spec(self._tokenizer.identity))

    def __call__(self, texts: Sequence[str]) -> Vectors:
        return self._embedder.embed_sync([self._cut(text) for text in texts])

    def _cut(self, text: str) -> str:
        offsets = self._tokenizer.offsets(text)
        return text if len(offsets) <= builtin.LIMIT else text[: offsets[builtin.LIMIT - 1, 1]]


class Corpus:
    """Paragraphs and questions of XQuAD in one language, embedded once."""

    def __init__(self, path: Path, embed: Callable[[Sequence[str]], Vectors], every: int) -> None:
        self.paragraphs: list[Paragraph] = []
        asked: list[tuple[str, int]] = []
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
            for paragraph in article["paragraphs"]:
                asked += [(qa["question"], len(self.paragraphs)) for qa in paragraph["qas"]]
                self.paragraphs.append(Paragraph(article=article["title"], text=paragraph["context"]))
        self.vectors = embed([paragraph.text for paragraph in self.paragraphs])
        asked = asked[::every]
        vectors = embed([text for text, _ in asked])
        self.questions = [
            Question(text=text, right=right, vector=vector)
            for (text, right), vector in zip(asked, vectors, strict=True)
        ]

    def index(self, folder: Path, chosen: Sequence[int]) -> lance.Reader:
        """A published table of the chosen paragraphs; `uri` is the paragraph's number."""
        table = lance.Table.open(folder, "paragraphs", builtin.DIMS, {"model": builtin.MODEL})
        table.add(pa.Table.from_batches([self._rows(chosen)]).to_reader())
        table.finish(vector_index_from=50_000)
        return lance.Reader.open(folder, "paragraphs")

    def _rows(self, chosen: Sequence[int]) -> pa.RecordBatch:
        schema = lance.index_schema(builtin.DIMS)
        given = pa.Table.from_pylist(
            [self._row(n) for n in chosen], schema=pa.schema([schema.field(n) for n in lance.HASHED])
        )
        flat = pa.array(self.vectors[list(chosen)].ravel(), pa.float32())
        vectors = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
        columns = [*given.combine_chunks().columns, lance.row_hashes(given), vectors]
        return pa.table(columns, schema=schema).combine_chunks().to_batches()[0]

    def _row(self, number: int) -> dict[str, object]:
        text = self.paragraphs[number].text
        chunk = ids.chunk_id(str(number), 0, len(text))
        return {
            "chunk_id": chunk,
            "doc_id": str(number),
            "uri": str(number),
            "title": "",
            "media_type": "text/plain",
            "page": None,
            "heading": "",
            "start": 0,
            "end": len(text),
            "text": text,
            "context": "",
            "embed_key": ids.embed_key(text),
        }


def rank_of(reader: lance.Reader, question: Question, mode: search.Mode) -> int | None:
    """From 0; None when the right paragraph is not among the first ten."""
    vector = None if mode == "text" else question.vector
    hits = search.search(reader, question.text, vector, search.SearchParams(mode=mode, top_k=10, languages=LANGUAGES))
    paths = [hit.path for hit in hits]
    return paths.index(str(question.right)) if str(question.right) in paths else None


def retrieval(name: str, corpus: Corpus, folder: Path) -> None:
    reader = corpus.index(folder, range(len(corpus.paragraphs)))
    for mode in MODES:
        began = time.perf_counter()
        ranks = [rank_of(reader, question, mode) for question in corpus.questions]
        ms = (time.perf_counter() - began) / len(ranks) * 1e3
        found = [rank for rank in ranks if rank is not None]
        recall5, recall10 = (sum(rank < k for rank in found) / len(ranks) for k in (5, 10))
        ndcg = sum(1 / np.log2(2 + rank) for rank in found) / len(ranks)
        print(
            f"| {name} | {mode:6} | {len(ranks)} | {recall5:.3f} | {recall10:.3f} | {ndcg:.3f} | {ms:.1f} |", flush=True
        )


def refused(reader: lance.Reader, questions: Sequence[Question]) -> list[float]:
    """Share of the questions that are refused, for each threshold."""
    params = search.SearchParams(top_k=5, languages=LANGUAGES)
    found = [(question.text, search.search(reader, question.text, question.vector, params)) for question in questions]
    shares = []
    for threshold in THRESHOLDS:
        ask = answer.AskParams(model=builtin.MODEL, languages=LANGUAGES, min_score=threshold)
        shares.append(sum(answer.is_unanswerable(text, hits, ask) for text, hits in found) / len(found))
    return shares


def abstention(corpus: Corpus, foreign: Sequence[Question], folder: Path) -> None:
    articles = sorted({paragraph.article for paragraph in corpus.paragraphs})
    indexed = set(articles[::2])
    chosen = [n for n, paragraph in enumerate(corpus.paragraphs) if paragraph.article in indexed]
    reader = corpus.index(folder, chosen)
    inside = set(chosen)
    curves = [
        refused(reader, [question for question in corpus.questions if question.right in inside]),
        refused(reader, [question for question in corpus.questions if question.right not in inside]),
        refused(reader, foreign),
    ]
    print("\n| refuse below | its own questions | the other articles' | another collection's |\n|---|---|---|---|")
    for threshold, *shares in zip(THRESHOLDS, *curves, strict=True):
        print(f"| {threshold:.2f} | " + " | ".join(f"{share:.1%}" for share in shares) + " |")
    print(f"\nDefault: {answer.calibrated(builtin.MODEL, 'Who?')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True, metavar="DIR")
    parser.add_argument("--languages", default="en,zh")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth question only")
    given = parser.parse_args()
    embed = Model()
    with tempfile.TemporaryDirectory() as folder:
        print(
            "| XQuAD | mode | questions | recall@5 | recall@10 | nDCG@10 | ms/question |\n|---|---|---|---|---|---|---|"
        )
        corpora = {}
        for language in given.languages.split(","):
            path = given.evaluation / "xquad" / f"xquad.{language}.json"
            corpora[language] = Corpus(path, embed, given.every)
            retrieval(language, corpora[language], Path(folder) / language)
        if "en" in corpora:
            with (given.evaluation / "chunking_evaluation" / "questions_df.csv").open(encoding="utf-8") as file:
                texts = [row["question"] for row in csv.DictReader(file)][:: given.every]
            foreign = [Question(text=t, right=-1, vector=v) for t, v in zip(texts, embed(texts), strict=True)]
            abstention(corpora["en"], foreign, Path(folder) / "half")


if __name__ == "__main__":
    main()
