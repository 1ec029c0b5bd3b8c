"""How well "not in your documents" is told before any model is asked: answerable and unanswerable questions, refused.

    python -m benchmarks.abstention --evaluation DIR [--svg docs/abstention.svg] [--every 1] [--work DIR]

DIR holds `xquad/xquad.<language>.json` (google-deepmind/xquad, CC BY-SA 4.0) and `chunking_evaluation/` (its corpora
and questions_df.csv; brandonstarxel/chunking_evaluation, MIT). The documents are indexed by `pipeline run` with the
embedded model and searched as `pipeline ask` does. Each world is asked what its documents answer, and what others do:

- XQuAD English, German, Chinese: half of the articles, and the questions of the other half; English also all of
  chunking_evaluation's.
- chunking_evaluation, in two parts: each is asked the questions of both.

Printed are, for each world, what the program's own thresholds do; what thresholds do that were calibrated on one half
of the world's questions, for the other half (the mean of ten splits, with its least and most); and what the English
ones do that were fitted to the other English worlds. The plot is the curve of each world, held out in the same way.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import common
from pipeline import calibration, config, query, search
from pipeline.calibration import Point, Sample
from pipeline.models import builtin, tokens

LANGUAGES = {"en": "English", "de": "German", "zh": "Chinese"}
PARTS = {"part A": ("wikitexts", "chatlogs", "pubmed"), "part B": ("state_of_the_union", "finance")}
MOST_OTHERS = 700  # unanswerable questions of a world
SPLITS = 10
COLOURS = ("#1f5fa8", "#c0392b", "#2e8b57", "#8e44ad", "#c77f0a")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Documents, what is asked of them, and whether they answer it."""

    name: str
    language: str
    documents: dict[str, str]
    asked: list[tuple[str, bool]]


def worlds(folder: Path, every: int) -> list[World]:
    with (folder / "chunking_evaluation" / "questions_df.csv").open(encoding="utf-8") as file:
        questions = [(row["question"], row["corpus_id"]) for row in csv.DictReader(file)]
    found = [_xquad(folder, language, [text for text, _ in questions]) for language in LANGUAGES]
    for name, corpora in PARTS.items():
        texts = {f"{c}.md": (folder / "chunking_evaluation" / f"{c}.md").read_text("utf-8") for c in corpora}
        asked = [(text, corpus in corpora) for text, corpus in questions]
        found.append(World(name=f"chunking_evaluation, {name}", language="en", documents=texts, asked=asked))
    return [
        World(name=one.name, language=one.language, documents=one.documents, asked=one.asked[::every]) for one in found
    ]


def _xquad(folder: Path, language: str, foreign: Sequence[str]) -> World:
    articles = json.loads((folder / "xquad" / f"xquad.{language}.json").read_text("utf-8"))["data"]
    random.Random(7).shuffle(articles)
    inside, outside = articles[: len(articles) // 2], articles[len(articles) // 2 :]
    texts = {
        f"{number:02}.md": "\n\n".join([f"# {one['title'].replace('_', ' ')}", *_paragraphs(one)])
        for number, one in enumerate(inside)
    }
    others = [question for one in outside for question in _questions(one)] + list(foreign) * (language == "en")
    random.Random(3).shuffle(others)
    asked = [(question, True) for one in inside for question in _questions(one)]
    asked += [(question, False) for question in others[:MOST_OTHERS]]
    return World(name=f"XQuAD {LANGUAGES[language]}", language=language, documents=texts, asked=asked)


def _paragraphs(article: dict[str, list[dict[str, str]]]) -> list[str]:
    return [paragraph["context"] for paragraph in article["paragraphs"]]


def _questions(article: dict[str, list[dict[str, list[dict[str, str]]]]]) -> list[str]:
    return [qa["question"] for paragraph in article["paragraphs"] for qa in paragraph["qas"]]


def samples_of(world: World, number: int, work: Path) -> list[Sample]:
    """Index the world's documents and search for each question as `pipeline ask` does."""
    docs = work / f"docs-{number}"
    docs.mkdir(parents=True, exist_ok=True)
    for name, text in world.documents.items():
        (docs / name).write_text(text, encoding="utf-8")
    where = ("--data", str(work / "data"), "--collection", f"world-{number}")
    common.pipeline(*where, "--provider", "builtin", "run", str(docs))
    settings = config.Settings(data=str(work / "data"), collection=f"world-{number}")
    standing = query.open_collection(settings)
    reader = query.open_reader(standing)
    params = query.search_params(settings, standing.spec, top_k=calibration.POOL)
    embedder = builtin.BuiltinEmbedder(builtin.spec(tokens.builtin().identity))
    vectors = embedder.embed_sync([text for text, _ in world.asked])
    found = []
    for (text, answerable), vector in zip(world.asked, vectors, strict=True):
        hits = search.search(reader, text, vector, params)
        signals = calibration.signals(text, hits, rows=standing.note.rows, languages=standing.spec.languages)
        found.append(Sample(found=signals, answerable=answerable))
    return found


# --- what is measured


def own_thresholds(samples: Sequence[Sample]) -> Point:
    """The program's built-in scales."""
    built_in = {"meaning": calibration._MEANING, "words": calibration._WORDS, "coverage": calibration._COVERAGE}
    low = [(calibration.excess(built_in[one.found.kind], one.found) < 0, one.answerable) for one in samples]
    return Point(
        threshold=0.5,
        refused=float(np.mean([refused for refused, answerable in low if not answerable])),
        lost=float(np.mean([refused for refused, answerable in low if answerable])),
    )


def splits(samples: Sequence[Sample], kind: calibration.Kind) -> list[tuple[Point, list[Point]]]:
    """For each split: what a scale fitted to one half does with the other, and its curve there."""
    found = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(samples))
        fitted_to, others = np.split(order, [len(order) // 2])
        scale = calibration.fit([samples[at] for at in fitted_to], kind)
        rest = [samples[at] for at in others]
        found.append((calibration.measured(scale, rest), calibration.curve(scale, rest)))
    return found


def at(curve: Sequence[Point], lost: float) -> float:
    """Share refused where at most `lost` of the answerable ones are lost."""
    return max((point.refused for point in curve if point.lost <= lost), default=0.0)


def kind_of(samples: Sequence[Sample]) -> calibration.Kind:
    kinds = [one.found.kind for one in samples]
    return max(set(kinds), key=kinds.count)


def report(known: dict[str, list[Sample]], english: Sequence[str]) -> dict[str, list[float]]:
    """Print the tables; returns each world's curve, at LOSSES."""
    rows, curves = [], {}
    for name, samples in known.items():
        kind = kind_of(samples)
        of_kind = [one for one in samples if one.found.kind == kind]
        found = splits(of_kind, kind)
        refused, lost = ([getattr(point, which) for point, _ in found] for which in ("refused", "lost"))
        own = own_thresholds(samples)
        answerable = sum(one.answerable for one in samples)
        rows.append(
            [
                name,
                kind,
                f"{answerable} / {len(samples) - answerable}",
                f"{own.refused:.1%} / {own.lost:.1%}",
                f"{np.mean(refused):.1%} ({min(refused):.1%} to {max(refused):.1%})",
                f"{np.mean(lost):.1%} ({min(lost):.1%} to {max(lost):.1%})",
                f"{np.mean([at(curve, calibration.LOST) for _, curve in found]):.1%}",
            ]
        )
        curves[name] = [float(np.mean([at(curve, loss) for _, curve in found])) for loss in LOSSES]
    header = ["world", "signals", "answerable / not", "built in: refused / lost", "calibrated: refused", "lost"]
    print(common.table([*header, "refused at 5 % lost"], rows))
    _transfer(known, english)
    return curves


def _transfer(known: dict[str, list[Sample]], english: Sequence[str]) -> None:
    rows = []
    for name in english:
        scale = calibration.fit([one for other in english if other != name for one in known[other]], "meaning")
        point = calibration.measured(scale, known[name])
        rows.append([name, f"{point.refused:.1%}", f"{point.lost:.1%}"])
    print("\nFitted to the other English worlds:\n" + common.table(["world", "refused", "lost"], rows))
    everything = {
        "meaning": [one for name in english for one in known[name]],
        "words": [one for samples in known.values() for one in samples if one.found.kind == "words"],
    }
    print("\nFitted to all (what the program's own, rounded, come from):")
    for kind, samples in everything.items():
        if samples:
            print(f"{kind}: {calibration.fit(samples, kind)}")  # type: ignore[arg-type]
    if everything["words"]:
        print(f"coverage: {calibration.fit(everything['words'], 'coverage')}")


# --- the plot

LOSSES = [step / 200 for step in range(41)]  # 0 to 20 %
_TITLE = "Unanswerable questions refused, by the share of answerable ones lost (held out)"
_WIDTH, _HEIGHT, _LEFT, _TOP = 480, 300, 60, 40


def svg(curves: dict[str, list[float]]) -> str:
    """Refused against lost, a line for each world; the issue's corner is shaded."""

    def x(lost: float) -> float:
        return _LEFT + lost / LOSSES[-1] * _WIDTH

    def y(refused: float) -> float:
        return _TOP + (1 - refused) * _HEIGHT

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 240} {_TOP + _HEIGHT + 50}">',
        '<g font-family="sans-serif" font-size="11" fill="#444">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<rect x="{x(0)}" y="{y(1)}" width="{x(0.05) - x(0):.1f}" height="{y(0.9) - y(1):.1f}" fill="#dff0d8"/>',
        f'<text x="{_LEFT}" y="{_TOP - 16}" font-size="13" fill="#111">{_TITLE}</text>',
    ]
    for step in range(6):
        share = step / 5
        line = f'x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{y(share):.1f}" y2="{y(share):.1f}" stroke="#ddd"'
        parts.append(f"<line {line}/>")
        parts.append(f'<text x="{_LEFT - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    below = f'y="{_TOP + _HEIGHT + 18}" text-anchor="middle"'
    parts += [f'<text x="{x(lost):.1f}" {below}>{lost:.0%}</text>' for lost in (0, 0.05, 0.1, 0.15, 0.2)]
    parts.append(f'<text x="{x(0.1):.1f}" y="{_TOP + _HEIGHT + 36}" text-anchor="middle">answerable ones lost</text>')
    for number, (name, refused) in enumerate(curves.items()):
        points = " L".join(f"{x(lost):.1f},{y(share):.1f}" for lost, share in zip(LOSSES, refused, strict=True))
        colour, place = COLOURS[number % len(COLOURS)], _TOP + 20 + 18 * number
        parts.append(f'<path d="M{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(f'<rect x="{_LEFT + _WIDTH + 14}" y="{place - 8}" width="14" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{_LEFT + _WIDTH + 34}" y="{place - 3}">{name}</text>')
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True, metavar="DIR")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth question only")
    parser.add_argument("--svg", type=Path, default=Path("abstention.svg"), help="where the plot goes")
    parser.add_argument("--work", type=Path, metavar="DIR", help="keep documents and collections here")
    given = parser.parse_args()
    found = worlds(given.evaluation, given.every)
    with tempfile.TemporaryDirectory() as scratch:
        work = given.work or Path(scratch)
        known: dict[str, list[Sample]] = {}
        for number, world in enumerate(found):
            known[world.name] = samples_of(world, number, work)
            print(f"{world.name}: {len(known[world.name])} questions", file=sys.stderr, flush=True)
    curves = report(known, [world.name for world in found if world.language == "en"])
    given.svg.parent.mkdir(parents=True, exist_ok=True)
    given.svg.write_text(svg(curves), encoding="utf-8")
    print(f"\nThe plot: {given.svg}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
