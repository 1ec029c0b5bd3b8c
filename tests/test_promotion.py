"""SIGKILL while one model takes the place of another, and on the way back: readers see the one or the other, whole."""

from __future__ import annotations

from pathlib import Path

from benchmarks import promotion
from tests.fake_ollama.client import FakeOllama


def test_a_killed_promotion_shows_one_model_or_the_other(tmp_path: Path) -> None:
    """Two narrow places here; many more, and random ones: python -m benchmarks.promotion."""
    with FakeOllama(vectors="hash", models=[promotion.OLD, promotion.NEW]) as server:
        made = promotion.prepare(tmp_path, server, files=4)
        kills = [("migrate", "index/*.lance/_refs/tags/*"), ("rollback", "snapshots/*")]
        begun = [promotion.start(what, made, tmp_path / what) for what, _ in kills]
        for (what, step), process in zip(kills, begun, strict=True):
            outcome, faults = promotion.strike(what, process, made, step, after_s=0.0)
            assert faults == []
            assert what in outcome
