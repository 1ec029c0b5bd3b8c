"""How good the search is, on public question sets with the embedded model: beside other libraries' defaults, which of
our settings helped, and each mode in English, Chinese and German. Prints the tables of docs/retrieval.md.

    python -m benchmarks.search_quality --evaluation DIR --peers-python PYTHON [--work DIR] [--only peers,xquad]

DIR holds `chunking_evaluation/` (five corpora and questions_df.csv; brandonstarxel/chunking_evaluation, MIT) and
`xquad/xquad.<language>.json` (google-deepmind/xquad, CC BY-SA 4.0). PYTHON has langchain-text-splitters and
llama-index-core. WORK keeps the collections for the next time.

Documents are indexed by `pipeline run`, and asked through what `pipeline evaluate` asks through. The other libraries
cut the same texts; their passages are embedded by the same model, of which it reads the first 510 tokens, as it would
for them, and ranked by exact cosine. Systems read different amounts of text for a question, so they are compared at
equal budgets too: passages in their order until so many tokens are read, the last one cut there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from benchmarks.common import pipeline, table
from pipeline import config, config_load, evaluate, evaluate_sweep, placing, quality, query, question_sets, scoring
from pipeline.models import Vectors, builtin, tokens
from pipeline.progress import Silent
from pipeline.search import Hit

SHOWN = 5  # passages, as chunking_evaluation's published table
DEEP = 40  # passages that a budget may need
BUDGETS = (500, 1_250, 2_500, 5_000)  # tokens
EQUAL = 1_250  # what five of our passages hold
OVERLAP = 40  # tokens before a passage, 15 % of its size
MODES = ("hybrid", "vector", "text")
LANGUAGES = {"en": "English", "zh": "Chinese", "de": "German"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    uri: str
    start: int
    end: int
    text: str


Rankings = Sequence[Sequence[Passage]]  # of each question, best first


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


@cache
def ends(text: str) -> tuple[int, ...]:
    """Where each token of a passage ends."""
    return tuple(tokens.builtin().offsets(text)[:, 1].tolist())


def within(ranking: Sequence[Passage], budget: int) -> Iterator[Passage]:
    """The first passages that hold `budget` tokens together, the last one cut there."""
    for one in ranking:
        if budget <= 0:
            return
        held = ends(one.text)
        end = one.end if len(held) <= budget else one.start + held[budget - 1]
        budget -= len(held)
        yield Passage(uri=one.uri, start=one.start, end=end, text=one.text)


# --- the collections


class World:
    """A collection with its questions, embedded once."""

    def __init__(self, data: Path, docs: Path, questions: Path) -> None:
        env_settings = config.EmbedSettings(provider="builtin")
        self.settings = config.Settings(data=str(data), embed=env_settings)
        if not data.exists():
            pipeline("--data", str(data), "--provider", "builtin", "-q", "run", str(docs))
        self.standing = query.open_collection(self.settings)
        self.questions = question_sets.load(questions)
        self.placed = evaluate.place(self.standing, self.questions).questions
        self.texts = [question.text for question, _ in self.placed]
        self.vectors = asyncio.run(quality.embed_questions(self.settings, self.standing.spec, self.texts, None))

    def wanted(self, number: int) -> scoring.Read:
        spots: tuple[placing.Spot, ...] = self.placed[number][1]
        return scoring.Read(spans=tuple((spot.uri, spot.region) for spot in spots if spot.region))

    def ask(self, settings: config.Settings, depth: int = DEEP) -> Rankings:
        standing = query.open_collection(settings)
        whole = replace(settings, search=replace(settings.search, top_k=depth))
        with evaluate.Searcher(whole, standing) as searcher:
            pairs = zip(self.texts, self.vectors, strict=True)
            return [_passages(searcher.find(text, vector, by_document=False).shown) for text, vector in pairs]


def _passages(hits: Sequence[Hit]) -> list[Passage]:
    return [Passage(uri=hit.path, start=hit.start, end=hit.end, text=hit.text) for hit in hits]


def with_choice(settings: config.Settings, choice: evaluate_sweep.Choice) -> config.Settings:
    flags = {"data": settings.data, "embed.provider": "builtin", **choice}
    return config_load.load(flags, {}, None, None).settings


def chunking_evaluation(evaluation: Path, work: Path) -> World:
    source, docs = evaluation / "chunking_evaluation", work / "corpora"
    docs.mkdir(exist_ok=True)
    for path in source.glob("*.md"):
        if path.name != "README.md":
            (docs / path.name).write_bytes(path.read_bytes())
    return World(work / "chunking_evaluation", docs, source / "questions_df.csv")


def xquad(evaluation: Path, work: Path, language: str) -> World:
    """Each article a document, its title the heading."""
    questions, docs = evaluation / "xquad" / f"xquad.{language}.json", work / f"articles-{language}"
    docs.mkdir(exist_ok=True)
    for article in json.loads(questions.read_text(encoding="utf-8"))["data"]:
        paragraphs = [paragraph["context"] for paragraph in article["paragraphs"]]
        text = "\n\n".join([f"# {article['title'].replace('_', ' ')}", *paragraphs])
        (docs / f"{article['title']}.md").write_text(text + "\n", encoding="utf-8")
    return World(work / f"xquad-{language}", docs, questions)


# --- what rankings are worth


def shown(world: World, rankings: Rankings, cut: Callable[[Sequence[Passage]], Sequence[Passage]]) -> scoring.Values:
    """Recall, precision and IoU of characters of each question: shape (questions, 3)."""
    read = [scoring.Read(spans=tuple((one.uri, (one.start, one.end)) for one in cut(found))) for found in rankings]
    return np.array([scoring.characters(world.wanted(number), one) for number, one in enumerate(read)])


def first(found: Sequence[Passage]) -> Sequence[Passage]:
    return found[:SHOWN]


def read_tokens(rankings: Rankings) -> float:
    return float(np.mean([sum(len(ends(one.text)) for one in first(found)) for found in rankings]))


def at_budget(world: World, rankings: Rankings, budget: int) -> scoring.Values:
    """Recall of each question."""
    return shown(world, rankings, lambda found: list(within(found, budget)))[:, 0]


def percent(values: scoring.Values) -> str:
    found = scoring.estimate(values)
    return f"{100 * found.mean:.1f} ±{100 * max(found.high - found.mean, found.mean - found.low):.1f}"


def compared(values: scoring.Values, other: scoring.Values) -> str:
    """A difference with a star where its 95 % interval leaves out zero."""
    found = scoring.estimate(values - other)
    half = 100 * max(found.high - found.mean, found.mean - found.low)
    return f"{100 * found.mean:+.1f} ±{half:.1f}{'*' if found.is_better or found.is_worse else ''}"


# --- beside other libraries


def peers(world: World, corpora: Path, python: str, model: Model) -> dict[str, Rankings]:
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(corpora.glob("*.md"))}
    script = Path(__file__).with_name("splitters.py")
    done = subprocess.run(
        [python, str(script)], input=json.dumps(texts), capture_output=True, text=True, check=True, encoding="utf-8"
    )
    found = {}
    for name, spans in json.loads(done.stdout).items():
        passages = [
            Passage(uri=uri, start=start, end=end, text=texts[uri][start:end])
            for uri, cut in spans.items()
            for start, end in cut
        ]
        found[name] = nearest(world, passages, [one.text for one in passages], model)
    return found


def nearest(world: World, passages: Sequence[Passage], sent: Sequence[str], model: Model) -> Rankings:
    """By exact cosine."""
    scores = world.vectors @ model(sent).T
    order = np.argsort(-scores, axis=1, kind="stable")[:, :DEEP]
    return [[passages[at] for at in row] for row in order.tolist()]


def beside_others(world: World, corpora: Path, python: str, model: Model) -> None:
    own = {f"ours, {mode}": world.ask(with_choice(world.settings, {"search.mode": mode})) for mode in MODES}
    systems = own | peers(world, corpora, python, model)
    rows, budgets = [], []
    best = {budget: at_budget(world, own["ours, hybrid"], budget) for budget in BUDGETS}
    for name, rankings in systems.items():
        values = shown(world, rankings, first)
        rows.append([name, *(percent(column) for column in values.T), f"{read_tokens(rankings):,.0f}"])
        cells = []
        for budget in BUDGETS:
            recall = at_budget(world, rankings, budget)
            star = "" if not name.startswith(("Lang", "Llama")) else f" ({compared(recall, best[budget])})"
            cells.append(f"{percent(recall)}{star}")
        budgets.append([name, *cells])
    print("## Beside other libraries' defaults: chunking_evaluation\n")
    print(
        f"{len(world.texts)} questions whose answers are {sum(len(s) for _, s in world.placed)} spans of five corpora; "
    )
    print(f"recall, precision and intersection over union of characters in the {SHOWN} best passages, in percent.\n")
    print(table(("", "recall", "precision", "IoU", "tokens read"), rows))
    print("\nRecall where each may read only so many tokens (in brackets: less ours, hybrid):\n")
    print(table(("", *(f"{budget:,} tokens" for budget in BUDGETS)), budgets), flush=True)


# --- which setting helped

CHOICES: Mapping[str, evaluate_sweep.Choice] = {
    "the defaults": {},
    "vectors alone": {"search.mode": "vector"},
    "words alone": {"search.mode": "text"},
    "reciprocal ranks (k = 60)": {"search.fusion": "ranks"},
    "vector_weight 0.2": {"search.vector_weight": "0.2"},
    "vector_weight 0.6": {"search.vector_weight": "0.6"},
    "chunks of 128 tokens (at most 200)": {"chunk.size": "128", "chunk.max": "200"},
    "chunks of 192 tokens (at most 300)": {"chunk.size": "192", "chunk.max": "300"},
    "chunks of 400 tokens (at most 500)": {"chunk.size": "400", "chunk.max": "500"},
    "each grown to 400 tokens (expand)": {"search.expand": "400"},
}


def ablation(world: World, model: Model) -> None:
    found: dict[str, Rankings] = {}
    with evaluate_sweep.workshop(world.settings, world.standing, Silent()) as shop:
        for name, choice in CHOICES.items():
            fitted = shop.fit(with_choice(world.settings, choice), choice)
            found[name] = world.ask(fitted, SHOWN if "search.expand" in choice else DEEP)
            print(f"asked: {name}", file=sys.stderr, flush=True)
    found[f"vectors alone, {OVERLAP} tokens of overlap"] = overlapping(world, model)
    recalls = {name: at_budget(world, rankings, EQUAL) for name, rankings in found.items()}
    rows = []
    for name, rankings in found.items():
        values = shown(world, rankings, first)
        base = "vectors alone" if "overlap" in name else "the defaults"
        less = compared(recalls[name], recalls[base]) + (" (less vectors alone)" if "overlap" in name else "")
        cells = [percent(column) for column in values.T]
        rows.append(
            [name, *cells, f"{read_tokens(rankings):,.0f}", percent(recalls[name]), less if name != base else ""]
        )
    print("\n## Which setting helped: chunking_evaluation\n")
    print(f"One setting at a time. The last two columns are at equal cost: {EQUAL:,} tokens read. A star: the 95 %")
    print("interval of the difference (paired bootstrap over the questions) leaves out zero.\n")
    header = ("", "recall", "precision", "IoU", "tokens read", f"recall at {EQUAL:,} tokens", "less the defaults")
    print(table(header, rows), flush=True)


def overlapping(world: World, model: Model) -> Rankings:
    """Our chunks, each with the end of the one before it: there is no such setting."""
    passages = []
    for uri, text, chunk in chunks(world):
        start, end = _earlier(text, chunk["start"]), chunk["end"]
        passages.append(Passage(uri=uri, start=start, end=end, text=text[start:end]))
    return nearest(world, passages, [one.text for one in passages], model)


def chunks(world: World) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """The uri and text of a document with each of its chunks."""
    collection, note = world.standing.collection, world.standing.note
    snapshot = collection.snapshot(note.snapshot)
    assert snapshot is not None
    for row in snapshot.table.to_pylist():
        documents = collection.read_documents(row["shard"], ["doc_id", "text"]).to_pylist()
        text = next(one["text"] for one in documents if one["doc_id"] == row["doc_id"])
        columns = ["doc_id", "start", "end", "embed_key"]
        for chunk in collection.read_chunks(note.chunks_fp, row["shard"], columns).to_pylist():
            if chunk["doc_id"] == row["doc_id"]:
                yield row["uri"], text, chunk


def _earlier(text: str, start: int) -> int:
    window = text[max(0, start - 12 * OVERLAP) : start]
    offsets = tokens.builtin().offsets(window)
    return start - len(window) + int(offsets[-min(OVERLAP, len(offsets)), 0]) if len(offsets) else start


# --- XQuAD


def modes(world: World, language: str) -> list[list[str]]:
    variants = [
        evaluate.Variant(settings=with_choice(world.settings, choice), choice=choice)
        for choice in ({"search.mode": mode} for mode in MODES)
    ]
    found = evaluate.evaluate(world.settings, world.questions, variants, Silent())
    base = max(found.rows[1:], key=lambda row: float(row.values["nDCG@10"].mean()))
    rows = []
    for row in found.rows:
        cells = [percent(row.values[name]) for name in ("recall@5", "recall@10", "nDCG@10")]
        less = compared(row.values["nDCG@10"], base.values["nDCG@10"]) if row.name == "hybrid" else ""
        rows.append([LANGUAGES[language], row.name, str(len(found.questions)), *cells, less])
    return rows


def headings(world: World) -> list[list[str]]:
    """The heading path before the text that is embedded, or not."""
    choices: list[evaluate_sweep.Choice] = [
        {"search.mode": mode, "chunk.context": context}
        for mode in ("vector", "hybrid")
        for context in ("true", "false")
    ]
    variants = [evaluate.Variant(settings=with_choice(world.settings, one), choice=one) for one in choices]
    found = evaluate.evaluate(world.settings, world.questions, variants, Silent())
    rows = []
    for row, other in zip(found.rows[::2], found.rows[1::2], strict=True):
        for one, name in ((row, "yes"), (other, "no")):
            cells = [percent(one.values[measure]) for measure in ("recall@5", "nDCG@10")]
            less = compared(row.values["nDCG@10"], other.values["nDCG@10"]) if one is row else ""
            rows.append([one.choice["search.mode"], name, *cells, less])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True, metavar="DIR")
    parser.add_argument("--peers-python", metavar="PYTHON")
    parser.add_argument("--work", type=Path, metavar="DIR")
    parser.add_argument("--only", default="peers,ablation,xquad")
    parser.add_argument("--languages", default="en,zh,de")
    given = parser.parse_args()
    parts = given.only.split(",")
    with contextlib.ExitStack() as stack:
        work = given.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(exist_ok=True, parents=True)
        model = Model()
        if {"peers", "ablation"} & set(parts):
            world = chunking_evaluation(given.evaluation, work)
            if "peers" in parts and given.peers_python:
                beside_others(world, work / "corpora", given.peers_python, model)
            if "ablation" in parts:
                ablation(world, model)
        if "xquad" in parts:
            show_xquad({one: xquad(given.evaluation, work, one) for one in given.languages.split(",")})


def show_xquad(worlds: Mapping[str, World]) -> None:
    rows = [row for language, world in worlds.items() for row in modes(world, language)]
    print("\n## Modes and languages: XQuAD\n")
    print(
        "Each article is a document; a passage is right if it holds the answer at its place. The embedded model knows "
    )
    print("English only, so hybrid ranks Chinese by words alone; German it takes for English. In percent.\n")
    header = ("", "mode", "questions", "recall@5", "recall@10", "nDCG@10", "less the better single one, nDCG@10")
    print(table(header, rows))
    if "en" in worlds:
        print("\nTitle and headings before the text that is embedded (`chunk.context`), XQuAD English:\n")
        print(table(("mode", "headings", "recall@5", "nDCG@10", "gain, nDCG@10"), headings(worlds["en"])), flush=True)


if __name__ == "__main__":
    main()
