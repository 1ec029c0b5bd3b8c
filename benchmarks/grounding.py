"""How well a wrong citation is told from a right one, by the words and numbers of the sentence alone.

    python -m benchmarks.grounding --evaluation DIR

DIR holds `xquad/xquad.<language>.json` (google-deepmind/xquad, CC BY-SA 4.0). A model answers a question in the
question's words and the passage's: so each question with its answer is taken for a sentence of an answer. It is cited
to its own paragraph (a check that objects is a false alarm), to another paragraph of the same article, which shares
its names and subject (hard to tell), and to one of another article. Printed is what share is called unsupported, and
how often the paragraph that fits is named instead.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import common
from pipeline import answer_grounding
from pipeline.answer_citations import Citation

LANGUAGES = ("en", "zh", "de")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A sentence with its own paragraph, another of the same article, and one of another article."""

    question: str
    sentence: str
    own: str
    near: str
    far: str


def cases(path: Path) -> list[Case]:
    dice = random.Random(1)
    articles = [
        [paragraph["context"] for paragraph in article["paragraphs"]]
        for article in json.loads(path.read_text("utf-8"))["data"]
    ]
    asked = [
        (number, at, qa["question"].rstrip("?？ "), qa["answers"][0]["text"])
        for number, article in enumerate(json.loads(path.read_text("utf-8"))["data"])
        for at, paragraph in enumerate(article["paragraphs"])
        for qa in paragraph["qas"]
    ]
    found = []
    for number, at, question, answer in asked:
        near = dice.choice([text for other, text in enumerate(articles[number]) if other != at])
        far = dice.choice(dice.choice([article for other, article in enumerate(articles) if other != number]))
        found.append(
            Case(question=question, sentence=f"{question} {answer}", own=articles[number][at], near=near, far=far)
        )
    return found


def judged(case: Case, cited: str, others: Sequence[str]) -> tuple[bool, bool]:
    """Whether the sentence is called unsupported by `cited`, and whether the first of `others` is named instead."""
    end = len(case.sentence)
    mark = Citation(number=1, start=end + 1, end=end + 4)
    found = answer_grounding.statements(f"{case.sentence} [1].", [mark], [cited, *others], case.question)
    return any(one.supported is False for one in found), any(one.better == 2 for one in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluation", type=Path, required=True, metavar="DIR")
    given = parser.parse_args()
    rows = []
    for language in LANGUAGES:
        known = cases(given.evaluation / "xquad" / f"xquad.{language}.json")
        own = [judged(one, one.own, (one.near, one.far))[0] for one in known]
        near = [judged(one, one.near, (one.own, one.far)) for one in known]
        far = [judged(one, one.far, (one.own, one.near)) for one in known]
        shares = [own, [told for told, _ in near], [told for told, _ in far], [named for told, named in near if told]]
        rows.append([language, len(known), *(f"{sum(one) / len(one):.1%}" for one in shares)])
    header = ["XQuAD", "sentences", "own paragraph", "same article", "other article", "right one named"]
    print("Called unsupported, by what is cited:\n\n" + common.table(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
