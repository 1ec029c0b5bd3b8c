"""Watching: real changes of real folders. Each test ends by an attempt that raises `Enough`: nothing waits for a clock
but where a wait is what is tested.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import errors, watching
from pipeline.watching import Options
from tests.command_line import environment, invoke
from tests.fake_ollama.client import FakeOllama

QUICK = Options(quiet_s=0.1, most_s=5.0)


class Enough(Exception):
    pass


class Runs:
    """Attempts, each doing the next of `steps` and returning what it returns; after the last `Enough` is raised."""

    def __init__(self, *steps: Callable[[], float | None]) -> None:
        self._steps = list(steps)
        self.times: list[float] = []

    def attempt(self) -> float | None:
        self.times.append(time.monotonic())
        if not self._steps:
            raise Enough
        return self._steps.pop(0)()

    def follow(self, folder: Path, options: Options = QUICK) -> list[float]:
        """Returns the seconds between the attempts."""
        with pytest.raises(Enough):
            watching.follow([folder], self.attempt, options)
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "deep" / "er").mkdir(parents=True)
    return folder


def write(path: Path, text: str = "new") -> None:
    path.write_text(text)


def test_a_change_during_a_run_is_not_missed(docs: Path) -> None:
    gaps = Runs(lambda: write(docs / "a.md"), lambda: write(docs / "deep" / "er" / "b.md")).follow(docs)
    assert len(gaps) == 2


def test_many_changes_are_one_run(docs: Path) -> None:
    def burst() -> None:
        for number in range(50):
            write(docs / f"{number}.md")

    gaps = Runs(burst, lambda: 0.8).follow(docs)
    assert gaps[1] >= 0.8  # no change was left over: the third came only when it was time to try again


def test_deleting_and_moving_count(docs: Path) -> None:
    write(docs / "a.md")
    write(docs / "b.md")
    runs = Runs(lambda: (docs / "a.md").unlink(), lambda: (docs / "b.md").rename(docs / "c.md") and None)
    assert len(runs.follow(docs)) == 2


def test_what_the_run_writes_itself_does_not_count(docs: Path) -> None:
    data = docs / "data"
    data.mkdir()
    (docs / "data2").mkdir()
    options = Options(quiet_s=0.1, ignored=(data,))

    def own() -> float:
        write(data / "x.parquet")
        (data / "sub").mkdir()
        return 0.8

    gaps = Runs(own, lambda: write(docs / "data2" / "a.md")).follow(docs, options)
    assert gaps[0] >= 0.8
    assert len(gaps) == 2


def hidden(docs: Path) -> float:
    (docs / ".git").mkdir()
    write(docs / ".git" / "HEAD")
    write(docs / ".a.md.swp")
    return 0.8


def test_hidden_files_count_only_where_they_are_read(docs: Path) -> None:
    assert Runs(lambda: hidden(docs)).follow(docs)[0] >= 0.8
    shutil.rmtree(docs / ".git")
    assert Runs(lambda: hidden(docs)).follow(docs, Options(quiet_s=0.1, hidden=True))[0] < 0.8


def test_a_hidden_parent_of_the_folder_hides_nothing(tmp_path: Path) -> None:
    docs = tmp_path / ".private" / "docs"
    docs.mkdir(parents=True)
    assert len(Runs(lambda: write(docs / "a.md")).follow(docs)) == 1


def test_the_ignore_file_counts(docs: Path) -> None:
    assert len(Runs(lambda: write(docs / "deep" / ".pipelineignore")).follow(docs)) == 1


def test_a_run_waits_until_it_is_quiet(docs: Path) -> None:
    gaps = Runs(lambda: write(docs / "a.md")).follow(docs, Options(quiet_s=0.7))
    assert gaps[0] >= 0.7


def test_changes_without_end_do_not_put_a_run_off_for_ever(docs: Path) -> None:
    over = threading.Event()

    def scribble() -> None:
        number = 0
        while not over.wait(0.05):
            number += 1
            write(docs / "log.md", str(number))

    writer = threading.Thread(target=scribble)
    writer.start()
    try:
        gaps = Runs(lambda: None).follow(docs, Options(quiet_s=30.0, most_s=0.5))
    finally:
        over.set()
        writer.join()
    assert 0.5 <= gaps[0] < 20


def test_a_failure_is_tried_again_after_its_time_or_at_the_next_change(docs: Path) -> None:
    def failing_then_changed() -> float:
        write(docs / "a.md")
        return 60.0

    gaps = Runs(lambda: 0.5, failing_then_changed).follow(docs)
    assert gaps[0] >= 0.5
    assert gaps[1] < 30


def test_a_folder_that_went_and_came_back_is_watched_again(docs: Path) -> None:
    def replaced() -> float:
        shutil.rmtree(docs)
        docs.mkdir()
        return 0.3

    write_one = lambda: write(docs / "a.md")  # noqa: E731
    assert len(Runs(replaced, lambda: 0.3, write_one).follow(docs)) == 3


def test_polling_finds_changes_too(docs: Path) -> None:
    assert len(Runs(lambda: write(docs / "a.md")).follow(docs, Options(quiet_s=0.1, poll=True))) == 1


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.SourceError, match="dcos"):
        watching.follow([tmp_path / "dcos"], lambda: None, QUICK)


def test_ctrl_c_is_heard_while_waiting(docs: Path) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        watching.follow([docs], timer.start, QUICK)
    timer.join()
    assert time.monotonic() - began < 20


# --- the command


class Watcher:
    """`pipeline watch` as a process; its lines are read as they come."""

    def __init__(self, tmp_path: Path, *words: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "--data", str(tmp_path / "data"), "watch", "--quiet-for", "0.2", *words],
            env=environment(tmp_path) | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONUNBUFFERED": "1"},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, words: str) -> str:
        """Read lines until one has `words`; the timer ends a watcher that never says them."""
        assert self.process.stdout
        timer = threading.Timer(60, self.process.kill)
        timer.start()
        try:
            for line in self.process.stdout:
                if words in line:
                    return line
        finally:
            timer.cancel()
        raise AssertionError(f"never said: {words}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.until("Stopped.")
        return self.process.wait(30)


def test_the_command_runs_at_once_and_at_each_change_and_outlives_a_server_that_is_down(
    tmp_path: Path, docs: Path
) -> None:
    write(docs / "a.md", "# A\n\nFirst sentence.\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    host = f"http://127.0.0.1:{port}"
    with Watcher(tmp_path, "--provider", "ollama", "--ollama-host", host, str(docs)) as watcher:
        assert "Ctrl-C ends it" in watcher.until("Watching")
        watcher.until("error:")
        watcher.until("Tried again at the next change, or in 15 s.")
        with FakeOllama(vectors="hash", port=port):
            write(docs / "b.md", "# B\n\nSecond sentence.\n")
            assert "2 chunks, 2 embedded" in watcher.until("Index: 2 rows added.")
            write(docs / "c.md", "# C\n\nThird sentence.\n")
            assert "3 files: 1 new, 2 unchanged." in watcher.until("Index: 1 row added.")
            assert watcher.stop() == 0


def test_what_no_waiting_mends_ends_the_watching(tmp_path: Path, docs: Path) -> None:
    mistyped = invoke(tmp_path, "watch", str(tmp_path / "dcos"))
    assert (mistyped.exit_code, "dcos is not a folder" in mistyped.stderr) == (1, True)
    none = invoke(tmp_path, "--data", str(tmp_path / "data"), "watch")
    assert (none.exit_code, "Which documents?" in none.stderr) == (2, True)
    unknown = invoke(tmp_path, "--data", str(tmp_path / "data"), "--provider", "openai", "watch", str(docs))
    assert unknown.exit_code == 2  # openai.url is not set: somebody has to set it
