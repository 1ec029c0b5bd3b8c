"""SIGKILL at random moments of whole nights, and what Ctrl-C leaves: nothing is lost, nothing is too much."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

from benchmarks import common, crash, incremental, onlooker
from pipeline import ids
from pipeline.models import canary
from tests.fake_ollama.client import FakeOllama


def test_killed_nights_end_like_undisturbed_ones(tmp_path: Path) -> None:
    """One night here, while somebody searches; many more, and torn files: python -m benchmarks.crash."""
    with FakeOllama(vectors="hash") as server:
        tally = crash.trial(tmp_path, server, 2, random.Random(5), per_night=2, most_gc=0, files=20, workers=1)
    assert tally.wrong == []
    assert tally.kills >= 1
    assert tally.nights >= 1
    assert tally.looks > tally.kills
    assert tally.sent > 0


def test_where_a_run_is_can_be_told_from_its_files(tmp_path: Path) -> None:
    """The marks that the kills are counted by, in the order in which a run leaves them."""
    for folder in ("documents", "chunks/f", "vectors/f", "tmp", "published", "index/t.lance/_refs/tags"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("data", "_versions", "_indices"):
        (tmp_path / "index" / "t.lance" / folder).mkdir()
    watch = crash.Watch(tmp_path, 17, "parse")
    assert watch.phase() == "start, scan"
    (tmp_path / "LOCK").write_text('{"pid": 17}')
    marks = [  # in chunks/ and the like the folder's time is what counts
        ("parse", "LOCK2"),
        ("chunk", "documents/a"),
        ("embed", "chunks/f/a"),
        ("table write", "index/t.lance/data/a"),
        ("index build", "index/t.lance/_indices/a"),
        ("optimise", "index/t.lance/_versions/a"),
        ("publish", "index/t.lance/_refs/tags/live.json"),
        ("after publication", "published/1.json"),
    ]
    began_ns = time.time_ns()
    for number, (phase, name) in enumerate(marks, start=1):
        path = tmp_path / name
        path.touch()
        for changed in (path, path.parent):  # a second later each: the file system's clock may be coarse
            os.utime(changed, ns=(began_ns, began_ns + number * 10**9))
        assert watch.phase() == phase
    assert [crash.resumes_at(phase) for phase in ("chunk", "embed", "publish")] == ["chunk", "embed", "compare"]


def test_an_onlooker_tells_what_fails(tmp_path: Path) -> None:
    look = onlooker.Eyes(tmp_path, "word").look()
    assert (look.rows, look.digest) == (0, "")
    assert look.error.startswith("NoIndex: ")


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    incremental.generate(tmp_path / "docs", files=20, paragraphs=10)
    with FakeOllama(vectors="hash", cost_us_per_token=300.0) as server:
        arguments = [*crash.options(tmp_path / "data", server), "run", str(tmp_path / "docs")]
        env = common.environment(readers_workers=1)
        process = subprocess.Popen([*common.COMMAND, *arguments], stderr=subprocess.PIPE, text=True, env=env)
        while server.counters()["texts"] < 20:  # well into the embedding
            assert process.poll() is None, "the run ended before it could be interrupted"
            time.sleep(0.02)  # what is asked without a pause takes the server's time from the run
        process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in messages
        done = server.counters()["texts"]
        server.configure(cost_us_per_token=0.0)
        common.pipeline(*arguments, env=env)
        texts = server.texts()
    held = common.content(tmp_path / "data")
    assert set(held["keys"]) == {ids.embed_key(text) for text in texts if text != canary.TEXT}
    assert len(texts) - len(set(texts)) <= min(done, incremental.IN_FLIGHT)
