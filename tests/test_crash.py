"""SIGKILL at random moments of whole runs, and what Ctrl-C leaves: nothing is lost, nothing is too much."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

import pytest

from benchmarks import common, crash, incremental
from pipeline.models import canary
from tests.fake_ollama.client import FakeOllama


def test_killed_runs_end_like_an_undisturbed_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Few rounds here; many more: python -m benchmarks.crash."""
    (tmp_path / "docs").mkdir()
    incremental.generate(tmp_path / "docs", files=20, paragraphs=10)
    with FakeOllama(vectors="hash", cost_us_per_token=60.0) as server:
        assert crash.rounds(tmp_path, tmp_path / "docs", server, 3, random.Random(5)) == 0, capsys.readouterr().out


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    incremental.generate(tmp_path / "docs", files=20, paragraphs=10)
    with FakeOllama(vectors="hash", cost_us_per_token=300.0) as server:
        arguments = [*crash.options(tmp_path / "data", server), "run", str(tmp_path / "docs")]
        process = subprocess.Popen([*common.COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
        while server.counters()["texts"] < 20:  # well into the embedding
            assert process.poll() is None, "the run ended before it could be interrupted"
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in messages
        done = server.counters()["texts"]
        server.configure(cost_us_per_token=0.0)
        common.pipeline(*arguments)
        texts = server.texts()
    held = common.content(tmp_path / "data")
    assert set(held["keys"]) == set(texts_to_keys([text for text in texts if text != canary.TEXT]))
    assert len(texts) - len(set(texts)) <= min(done, crash.IN_FLIGHT)


def texts_to_keys(texts: list[str]) -> list[str]:
    from pipeline import ids

    return [ids.embed_key(text) for text in texts]
