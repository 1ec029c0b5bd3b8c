"""What smaller vectors cost in recall: float16 storage, and cuts to fewer dimensions, with the embedded model.

    python -m benchmarks.recall_options --evaluation DIR

DIR holds `xquad/xquad.en.json` (google-deepmind/xquad, CC BY-SA 4.0) and `chunking_evaluation/`
(brandonstarxel/chunking_evaluation, MIT). Each text is embedded once; every option is made from these vectors as the
pipeline makes it: cut, brought to unit length again, rounded to float16; then ranked by exact cosine. A question is cut
as the passages are, and not rounded.

The embedded model (all-MiniLM-L6-v2) was not trained to be cut, so the rows below 384 dimensions show what a cut costs
at worst; mxbai-embed-large was trained for 512, 256 and 128 of its 1,024. What float16 costs does not depend on the
model: it rounds a component by at most 2^-11 of itself.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import search_quality
from benchmarks.common import table
from benchmarks.search_quality import Model
from pipeline import live, scoring
from pipeline.models import Vectors, builtin, vectors

TOP = 10
PASSAGES = 5  # that chunking_evaluation reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """How vectors are kept. `dims` of the model's own, and the bytes of a number."""

    dims: int = builtin.DIMS
    half: bool = False

    @property
    def name(self) -> str:
        return f"{self.dims} x {'float16' if self.half else 'float32'}"

    @property
    def size(self) -> int:
        """Bytes of a vector."""
        return self.dims * (2 if self.half else 4)

    def query(self, rows: Vectors) -> Vectors:
        return vectors.cut(rows, self.dims)

    def passages(self, rows: Vectors) -> Vectors:
        cut = vectors.cut(rows, self.dims)
        return cut.astype(np.float16).astype(np.float32) if self.half else cut


OPTIONS = tuple(Option(dims=dims, half=half) for dims in (builtin.DIMS, 256, 128) for half in (False, True))
Ranks = NDArray[np.int64]  # for each question the nearest passages, nearest first: shape (questions, TOP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Passages and questions with the vectors of both, and what a ranking of them is worth."""

    name: str
    passages: Vectors
    questions: Vectors
    header: tuple[str, ...]
    score: Callable[[Ranks], list[float]]

    def rank(self, option: Option) -> Ranks:
        scores = option.query(self.questions) @ option.passages(self.passages).T
        return np.argsort(-scores, axis=1, kind="stable")[:, :TOP].astype(np.int64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True, metavar="DIR")
    folder = parser.parse_args().evaluation
    embed = Model()
    for build in (_xquad, _chunking_evaluation):
        _show(build(folder, embed))


def _show(collection: Collection) -> None:
    exact = collection.rank(OPTIONS[0])
    print(f"{collection.name}: {len(collection.passages)} passages, {len(collection.questions)} questions")
    rows = []
    for option in OPTIONS:
        ranks = collection.rank(option)
        shared = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(ranks.tolist(), exact.tolist(), strict=True)])
        figures = [f"{value:.3f}" for value in collection.score(ranks)]
        rows.append([option.name, option.size, *figures, f"{shared:.3f}", f"{np.mean(ranks[:, 0] == exact[:, 0]):.3f}"])
    print(table(("vectors", "bytes", *collection.header, f"same top {TOP}", "same first"), rows) + "\n", flush=True)


def _xquad(folder: Path, embed: Model) -> Collection:
    """One right paragraph per question."""
    paragraphs: list[str] = []
    questions: list[str] = []
    right: list[int] = []
    for article in json.loads((folder / "xquad" / "xquad.en.json").read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            questions += [asked["question"] for asked in paragraph["qas"]]
            right += [len(paragraphs)] * len(paragraph["qas"])
            paragraphs.append(paragraph["context"])

    def score(ranks: Ranks) -> list[float]:
        places = np.argwhere(ranks == np.array(right)[:, None])[:, 1]
        recall = [float((places < k).sum() / len(right)) for k in (1, 5, 10)]
        return [*recall, float((1 / np.log2(2 + places)).sum() / len(right))]

    header = ("recall@1", "recall@5", "recall@10", "nDCG@10")
    return Collection(
        name="XQuAD en", passages=embed(paragraphs), questions=embed(questions), header=header, score=score
    )


def _chunking_evaluation(folder: Path, embed: Model) -> Collection:
    """The characters of the answer in the nearest passages, as our chunker cuts them by default."""
    with tempfile.TemporaryDirectory() as work:
        world = search_quality.chunking_evaluation(folder, Path(work))
        chunks = list(search_quality.chunks(world))
        made = live.vector_log(world.standing.collection, world.standing.spec).take(
            [one["embed_key"] for *_, one in chunks]
        )
    spans = [(uri, (one["start"], one["end"])) for uri, _, one in chunks]

    def score(ranks: Ranks) -> list[float]:
        read = [scoring.Read(spans=tuple(spans[n] for n in row[:PASSAGES])) for row in ranks.tolist()]
        each = [scoring.characters(world.wanted(number), one) for number, one in enumerate(read)]
        return [statistics.mean(column) for column in zip(*each, strict=True)]

    return Collection(
        name=f"chunking_evaluation, {PASSAGES} passages read",
        passages=made,
        questions=world.vectors,
        header=("recall", "precision", "IoU"),
        score=score,
    )


if __name__ == "__main__":
    main()
