"""The collection's own threshold for "not in your documents", from questions that its documents answer and questions
that they do not: asked as `pipeline ask` asks, weighed by calibration.py, kept with the collection.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline import asking, calibration, config, evaluate, quality, query
from pipeline.calibration import Fitted, Sample
from pipeline.placing import LeftOut
from pipeline.progress import Progress
from pipeline.query import Standing
from pipeline.question_sets import Question
from pipeline.store import Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What was kept, one scale for each kind of question of which there were enough, and what was not asked."""

    kept: Calibration
    fitted: tuple[Fitted, ...]
    left_out: tuple[LeftOut, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "calibration": msgspec.to_builtins(self.kept),
            "left_out": [one.to_json() for one in self.left_out],
        }


def calibrate(settings: config.Settings, questions: Sequence[Question], progress: Progress) -> Calibrated:
    """Ask the questions, fit, and keep the result in the collection; the next `pipeline ask` uses it.

    Raises:
        NoIndex: nothing is published. UsageError: too few questions of either sort. Locked: a run is at work.
    """
    standing = query.open_collection(settings)
    placed = evaluate.place(standing, questions)
    asked = [(question.text, True) for question, _ in placed.questions]
    asked += [(question.text, False) for question in placed.unanswerable]
    fitted = calibration.calibrate(_samples(settings, standing, asked, progress))
    answerable, unanswerable = (sum(getattr(one, name) for one in fitted) for name in ("answerable", "unanswerable"))
    kept = Calibration(
        spec=standing.spec,
        mode=settings.search.mode,
        scales={one.kind: one.scale for one in fitted},
        answerable=answerable,
        unanswerable=unanswerable,
        refused=sum(one.held_out.refused * one.unanswerable for one in fitted) / unanswerable,
        lost=sum(one.held_out.lost * one.answerable for one in fitted) / answerable,
        at_ms=time.time_ns() // 1_000_000,
    )
    with standing.collection.writing(settings.run.wait_lock_s):
        standing.collection.calibrations.append(kept)
    return Calibrated(kept=kept, fitted=tuple(fitted), left_out=placed.left_out)


def _samples(
    settings: config.Settings, standing: Standing, asked: Sequence[tuple[str, bool]], progress: Progress
) -> list[Sample]:
    spec, vectors = standing.spec, None
    if settings.search.mode != "text":
        vectors = asyncio.run(quality.embed_questions(settings, spec, [text for text, _ in asked], None))
    depth = asking.pool(settings.ask.passages)
    samples = []
    progress.start("questions", len(asked), "question")
    with evaluate.Searcher(settings, standing) as searcher:
        for number, (text, answerable) in enumerate(asked):
            hits = searcher.hits(text, vectors[number] if vectors is not None else None, depth)
            found = calibration.signals(text, hits, rows=standing.note.rows, languages=spec.languages)
            samples.append(Sample(found=found, answerable=answerable))
            progress.advance("questions")
    progress.finish("questions")
    return samples
