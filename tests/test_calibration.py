"""Evidence that documents answer a question, and the thresholds that are made of questions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import asking, calibration, errors
from pipeline.calibration import Kind, Sample, Signals
from pipeline.models import EmbedderSpec, builtin
from pipeline.search import Hit
from pipeline.store import Calibration, Collection, Scale
from tests.test_answer import CANTEEN, CHINESE, LEAVE, hit

MINILM = {"rows": 100, "model": "all-minilm-l6-v2", "languages": ("en",)}
FOREIGN = "Who won the football championship?"
LEAVES = "How many days of annual leave does an employee have?"


def signals(question: str, hits: Sequence[Hit], languages: Sequence[str] = ("en",)) -> Signals:
    return calibration.signals(question, hits, rows=100, languages=languages)


# --- signals


def test_the_kind_says_which_signals_count() -> None:
    worded = {"text_rank": 1, "bm25": 5.0}
    assert signals(LEAVES, [hit(LEAVE)]).kind == "meaning"
    assert signals(LEAVES, [hit(LEAVE, similarity=None, **worded)]).kind == "words"
    assert signals("年假有几天?", [hit(CHINESE, **worded)]).kind == "words"  # an English model
    assert signals("年假有几天?", [hit(CHINESE, **worded)], languages=()).kind == "meaning"  # one of many languages
    assert signals("年假有几天?", [hit(CHINESE)]).kind == "coverage"  # searched by vectors alone


def test_coverage_is_the_share_of_the_question_in_one_passage() -> None:
    assert signals("annual leave", [hit(LEAVE)]).coverage == 1.0
    assert signals("penguins harbour", [hit(LEAVE)]).coverage == 0.0
    assert 0 < signals("annual penguins", [hit(LEAVE)]).coverage < 0.5  # the word that is nowhere weighs more
    assert signals("What is it?", [hit(LEAVE)]).coverage == 1.0  # nothing that could be missing


def test_common_words_weigh_less_than_rare_ones() -> None:
    common = [hit(f"The leave form number {n} lies there.", path=f"{n}.md") for n in range(20)]
    rare = hit("Penguins rule.", path="penguin.md")
    question = "leave penguins"
    assert signals(question, [*common[:4], rare, *common[4:]]).coverage > 0.6
    assert signals(question, common).coverage < 0.2


def test_only_the_nearest_passages_count() -> None:
    far = [hit("Nothing of it.", path=f"{n}.md", heading="", similarity=0.1) for n in range(calibration.NEAREST)]
    assert signals("annual leave", [*far, hit(LEAVE)]).coverage == 0.0
    assert signals("annual leave", [*far, hit(LEAVE)]).similarity == pytest.approx(0.1)


def test_strength_is_the_best_bm25_for_each_word_whatever_the_size_of_the_collection() -> None:
    found = [hit(LEAVE, text_rank=1, bm25=9.0), hit(CANTEEN, text_rank=2, bm25=4.0)]
    small = calibration.signals("annual leave", found, rows=100, languages=("en",)).strength
    large = calibration.signals("annual leave", found, rows=100_000, languages=("en",)).strength
    assert small == pytest.approx(9 / 2 / 4.625, rel=1e-3)
    assert large < small
    assert signals("annual leave", [hit(LEAVE)]).strength == 0.0


@given(st.text(max_size=40), st.lists(st.text(max_size=60), max_size=8), st.floats(-1, 1))
def test_signals_stay_in_their_ranges(question: str, texts: list[str], similarity: float) -> None:
    found = signals(question, [hit(text, path=str(n), similarity=similarity) for n, text in enumerate(texts)])
    assert 0 <= found.coverage <= 1 + 1e-9
    assert found.strength >= 0
    assert -1 <= found.similarity <= 1


# --- judging


def test_the_threshold_lies_at_a_half() -> None:
    near = calibration.judge(LEAVES, [hit(LEAVE, similarity=0.7)], **MINILM)  # type: ignore[arg-type]
    far = calibration.judge(FOREIGN, [hit(LEAVE, similarity=0.1)], **MINILM)  # type: ignore[arg-type]
    assert near.evidence > 0.9
    assert not near.refused
    assert far.evidence < 0.1
    assert far.refused
    assert "built-in calibration" in near.by


def test_nothing_found_is_no_answer() -> None:
    assert calibration.judge("Who?", [], **MINILM).refused  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "similarity", "refused"),
    [
        ("mxbai-embed-large", 0.44, True),
        ("mxbai-embed-large:latest", 0.46, False),
        ("library/mxbai-embed-large:335m", 0.44, True),
        ("something-else", 0.44, False),
        ("something-else", 0.29, True),
        ("all-minilm:latest", 0.44, True),  # calibrated: here the words count too
        ("all-minilm", 0.50, False),
    ],
)
def test_a_model_that_was_never_measured_refuses_little(model: str, similarity: float, refused: bool) -> None:
    found = calibration.judge(
        FOREIGN,
        [hit(LEAVE, similarity=similarity)],
        rows=9,
        model=model,
        languages=("en",),
    )
    assert found.refused is refused
    assert ("not calibrated" in found.by) is not model.startswith("all-minilm")


def test_half_of_the_words_are_enough_for_a_model_that_was_never_measured() -> None:
    given_ = {"rows": 9, "model": "other", "languages": ()}
    assert not calibration.judge(LEAVES, [hit(LEAVE, similarity=0.1)], **given_).refused  # type: ignore[arg-type]


def test_a_threshold_of_the_user_goes_before_all() -> None:
    own = calibrated_as("meaning", Scale(threshold=-9.0))
    found = calibration.judge(FOREIGN, [hit(LEAVE, similarity=0.5)], **MINILM, own=own, min_score=0.6)  # type: ignore[arg-type]
    assert found.refused
    assert "ask.min_score" in found.by


def test_a_collections_own_calibration_goes_before_the_built_in_one() -> None:
    hits = [hit(LEAVE, similarity=0.9)]
    strict = calibrated_as("meaning", Scale(threshold=5.0, similarity=1.0))
    found = calibration.judge(LEAVES, hits, **MINILM, own=strict)  # type: ignore[arg-type]
    assert found.refused
    assert "on this collection" in found.by
    other_kind = calibrated_as("words", Scale(threshold=5.0))
    assert not calibration.judge(LEAVES, hits, **MINILM, own=other_kind).refused  # type: ignore[arg-type]


SPEC = builtin.spec("tokenizer")


def calibrated_as(kind: Kind, scale: Scale, spec: EmbedderSpec = SPEC) -> Calibration:
    return Calibration(
        spec=spec,
        mode="hybrid",
        scales={kind: scale},
        answerable=50,
        unanswerable=50,
        refused=0.9,
        lost=0.04,
        at_ms=1,
    )


# --- calibrating


def samples(count: int, *, kind: Kind = "meaning", apart: float = 0.4, seed: int = 1) -> list[Sample]:
    """Answerable questions lie `apart` from the others, with noise."""
    dice = random.Random(seed)

    def one(answerable: bool) -> Sample:
        shift = apart if answerable else 0.0
        found = Signals(
            kind=kind,
            similarity=dice.gauss(0.3 + shift, 0.1),
            coverage=dice.gauss(0.3 + shift, 0.2),
            strength=dice.gauss(0.3 + shift, 0.2),
        )
        return Sample(found=found, answerable=answerable)

    return [one(bool(n % 2)) for n in range(count)]


def test_calibrating_refuses_most_and_loses_few() -> None:
    (fitted,) = calibration.calibrate(samples(400))
    assert (fitted.kind, fitted.answerable, fitted.unanswerable) == ("meaning", 200, 200)
    assert fitted.point.lost <= calibration.LOST
    assert fitted.point.refused > 0.9
    assert fitted.held_out.lost <= calibration.LOST + 0.02
    assert fitted.held_out.refused > 0.9
    assert fitted.scale.strength == 0.0  # no signal of this kind


def test_the_rule_is_the_share_that_may_be_lost() -> None:
    mixed = samples(400, apart=0.1)
    points = {
        aimed: calibration.measured(calibration.fit(mixed, "meaning", aimed), mixed) for aimed in (0.01, 0.04, 0.2)
    }
    assert [round(point.lost, 2) <= aimed for aimed, point in points.items()] == [True, True, True]
    assert points[0.01].refused < points[0.04].refused < points[0.2].refused


def test_no_signal_ever_counts_against_an_answer() -> None:
    turned = [
        Sample(
            found=Signals(kind="meaning", similarity=one.found.similarity, coverage=-one.found.coverage, strength=0),
            answerable=one.answerable,
        )
        for one in samples(200)
    ]
    scale = calibration.fit(turned, "meaning")
    assert scale.similarity > 0
    assert scale.coverage == 0.0


def test_each_kind_is_calibrated_by_its_own_questions() -> None:
    both = [*samples(100), *samples(100, kind="words"), *samples(10, kind="coverage")]
    assert [fitted.kind for fitted in calibration.calibrate(both)] == ["meaning", "words"]


@pytest.mark.parametrize("given_", [samples(20), [one for one in samples(400) if one.answerable]])
def test_too_few_questions_are_refused(given_: list[Sample]) -> None:
    with pytest.raises(errors.UsageError, match="too few") as caught:
        calibration.calibrate(given_)
    assert str(calibration.LEAST) in caught.value.remedy


def test_the_curve_runs_from_nothing_refused_to_almost_all() -> None:
    known = samples(200)
    points = calibration.curve(calibration.fit(known, "meaning"), known)
    assert (points[0].refused, points[0].lost) == (0.0, 0.0)
    assert points[-1].lost > 0.9
    assert all(a.refused <= b.refused and a.lost <= b.lost for a, b in itertools.pairwise(points))


def test_the_curve_agrees_with_the_scale_at_its_threshold() -> None:
    known = samples(200)
    scale = calibration.fit(known, "meaning")
    there = min(calibration.curve(scale, known), key=lambda point: abs(point.threshold - scale.threshold))
    point = calibration.measured(scale, known)
    assert (there.refused, there.lost) == pytest.approx((point.refused, point.lost), abs=0.011)


# --- kept in a collection


def test_a_calibration_is_for_the_embedder_that_it_was_made_with(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "default")
    assert asking.calibrated(collection, SPEC) is None
    kept = calibrated_as("meaning", Scale(threshold=1.5, similarity=2.0))
    with collection.writing():
        collection.calibrations.append(kept)
    assert asking.calibrated(collection, SPEC) == kept
    other = builtin.spec("another tokenizer")
    assert asking.calibrated(collection, other) is None


def test_a_damaged_calibration_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    collection = Collection(tmp_path, "default")
    (tmp_path / "default" / "calibrations").mkdir(parents=True)
    (tmp_path / "default" / "calibrations" / "00000001.json").write_text('{"spec": 1}')
    assert asking.calibrated(collection, SPEC) is None
    assert "built-in calibration" in caplog.text
