"""Progress: bars on a terminal, lines elsewhere, nothing with -q. The clock is the test's own."""

from __future__ import annotations

import dataclasses
import fcntl
import logging
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from pipeline import progress
from pipeline.cli import log_handler, progress_bars
from tests import command_line


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lines(clock: Clock) -> tuple[progress_bars.Lines, list[str]]:
    written: list[str] = []
    return progress_bars.Lines(clock=clock, write=written.append), written


def test_the_right_kind_is_chosen() -> None:
    assert isinstance(progress_bars.choose(quiet=True, terminal=True), progress.Silent)
    assert isinstance(progress_bars.choose(quiet=False, terminal=True), progress_bars.Bars)
    assert isinstance(progress_bars.choose(quiet=False, terminal=False), progress_bars.Lines)


def test_every_kind_accepts_every_call(capsys: pytest.CaptureFixture[str]) -> None:
    for shown in (progress_bars.Quiet(), progress_bars.Bars(), progress_bars.Lines(), progress.Silent()):
        for unit in ("files", "B"):
            shown.start("files", None, unit)
            shown.start("files", 3, unit)
            shown.grow("files", 2)
            shown.advance("files")
            shown.pace("files", progress.Pace())
            shown.message("said")
            shown.finish("files")
            shown.finish("files")
            shown.pace("files", progress.Pace())  # told a moment too late
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("said\n") == 4  # bars and lines, twice each


def test_what_was_said_is_remembered_but_not_by_quiet() -> None:
    clock = Clock()
    shown, written = lines(clock)
    shown.message("a note")
    assert (shown.said, written) == ({"a note"}, ["a note"])
    quiet = progress_bars.Quiet()
    quiet.message("a note")
    assert quiet.said == set()


def test_lines_come_at_most_every_ten_seconds() -> None:
    clock = Clock()
    shown, written = lines(clock)
    shown.start("files", 10, "files")
    for second in range(25):
        clock.now = 100.0 + second
        shown.advance("files", 0)
    assert len(written) == 2


PACE = progress.Pace(tokens_per_s=512.4, average=1480, left_s=95, servers=1, known_servers=1)


def test_a_line_tells_all_running_tasks_their_rates_and_the_time_left() -> None:
    clock = Clock()
    shown, written = lines(clock)
    shown.start("files", None, "file")
    shown.start("rows", None, "row")  # not begun: not told
    shown.start("texts", None, "texts")
    shown.grow("texts", 60)
    shown.grow("texts", 60)
    shown.advance("files", 1)
    shown.advance("texts", 20)
    clock.now += 10
    shown.pace("texts", PACE)
    assert written == ["reading: 1 file; embedding: 20 of 120 texts, at least 1:35 left, 512 tokens/s (avg 1,480)"]
    shown.finish("files")
    clock.now += 10
    shown.advance("texts", 1)
    assert written[1:] == ["embedding: 21 of 120 texts, 1:35 left, 512 tokens/s (avg 1,480)"]
    shown.finish("texts")


def test_a_line_comes_while_a_server_says_nothing() -> None:
    clock = Clock()
    shown, written = lines(clock)
    shown.start("texts", None, "text")
    shown.grow("texts", 1)
    for second in range(1, 21):
        clock.now = 100.0 + second
        shown.pace("texts", progress.Pace(retries=second // 10))
    assert written == ["embedding: 0 of 1 text, 1 retry", "embedding: 0 of 1 text, 2 retries"]


@pytest.mark.parametrize(
    ("more", "end"),
    [
        ({}, "(avg 1,480)"),
        ({"left_s": None}, "embedding: 1 of 9 texts, 512 tokens/s (avg 1,480)"),
        ({"servers": 3, "known_servers": 4}, "(avg 1,480), 3 of 4 servers"),
        ({"servers": 4, "known_servers": 4}, "(avg 1,480), 4 servers"),
        ({"retries": 1200, "rejected": 1}, ", 1 rejected, 1,200 retries"),
    ],
)
def test_what_a_pace_says(more: dict[str, int], end: str) -> None:
    clock = Clock()
    shown, written = lines(clock)
    shown.start("texts", 9, "text")
    shown.advance("texts")
    clock.now += 10
    shown.pace("texts", dataclasses.replace(PACE, **more))  # type: ignore[arg-type]
    assert written[0].endswith(end)


def test_a_download_is_told_in_mebibytes() -> None:
    clock = Clock()
    shown, written = lines(clock)
    shown.start("pull", None, "B")
    shown.grow("pull", 640 << 20)
    clock.now += 16
    shown.advance("pull", 320 << 20)
    assert written == ["pulling: 320 MiB of 640 MiB, 0:16 left"]


def test_the_rate_forgets_what_is_long_ago() -> None:
    clock = Clock()
    rate = progress_bars.Rate(clock)
    clock.now += 10
    rate.add(10_000)
    assert rate.per_second() == pytest.approx(1000)
    for _ in range(30):
        clock.now += 1
        rate.add(10)
    assert rate.per_second() == pytest.approx(10, rel=0.1)
    assert rate.total == 10_300


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (750, "12:30"), (3723, "1:02:03")]
)
def test_clock_time(seconds: float, text: str) -> None:
    assert progress_bars.clock_time(seconds) == text


def test_a_bar_shows_name_amount_and_pace(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress_bars.Bars()
    shown.start("texts", 0, "text")
    shown.grow("texts", 16)
    shown.advance("texts", 2)
    shown.pace("texts", PACE)
    drawn = capsys.readouterr().err.split("\r")[-1]
    assert drawn.startswith("embedding:  12%|")
    assert drawn.rstrip().endswith("2/16 [00:00, 1:35 left, 512 tokens/s (avg 1,480)]")
    shown.start("files", 3, "file")  # more texts may come
    shown.pace("texts", dataclasses.replace(PACE, retries=2))
    shown.finish("files")
    shown.finish("texts")
    err = capsys.readouterr().err
    assert "at least 1:35 left, 512 tokens/s (avg 1,480), 2 retries]" in err
    assert err.split("\r")[-1].strip() == ""  # gone: the report says it


def test_log_lines_do_not_tear_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress_bars.Bars()
    shown.start("files", 10, "files")
    handler = log_handler.StderrHandler(verbose=False)
    handler.emit(logging.LogRecord("pipeline.x", logging.WARNING, "", 0, "slow %s", ("disk",), None))
    err = capsys.readouterr().err
    shown.finish("files")
    assert "warning: slow disk\n" in err.replace("\r", "\n").splitlines(keepends=True)


def test_verbose_log_lines_name_their_module(capsys: pytest.CaptureFixture[str]) -> None:
    handler = log_handler.StderrHandler(verbose=True)
    handler.emit(logging.LogRecord("pipeline.x", logging.DEBUG, "", 0, "hm", (), None))
    assert capsys.readouterr().err.rstrip().endswith("DEBUG pipeline.x: hm")


def test_a_terminal_gets_bars(tmp_path: Path) -> None:
    """Through a pseudo-terminal, as a person sees it."""
    code = (
        "import sys; from pipeline.cli import state\n"
        "shown = state.State().progress(); shown.start('files', 2, 'files'); shown.grow('files', 1)\n"
        "shown.message('hello'); shown.advance('files', 3); shown.finish('files')"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # new ones have no width
    subprocess.run(
        [sys.executable, "-c", code],
        env=command_line.environment(tmp_path),
        cwd=Path(__file__).parent.parent,
        stdin=subprocess.DEVNULL,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    seen = b""
    try:
        while part := os.read(ours, 4096):
            seen += part
    except OSError:  # Linux says EIO where the other end is closed
        pass
    os.close(ours)
    assert b"reading" in seen
    assert b"0/3" in seen
    assert b"hello\r\n" in seen
