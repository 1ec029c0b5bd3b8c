"""`pipeline report`: the last, an older one, all of them; in the terminal, as data, in a browser that is a script."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import msgspec
import pytest
from click.testing import Result

from pipeline import report_page
from pipeline.report import Report
from pipeline.store import Collection
from pipeline.store.runs import Entry
from tests.command_line import invoke
from tests.report_samples import FAILED, FULL

GOOD = dataclasses.replace(FULL, exit_code=0, rejects=0, failures=(), notes=())
# Local times, whatever the time zone of this machine: what is typed is what the list shows.
TIMES = ("2026-11-20 02:30:05", "2026-11-21 02:30:07", "2026-11-22 02:31:00")


class Home:
    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.collection = Collection(tmp_path / "data", "default")
        with self.collection.writing():
            pass

    def keep(self, local: str, report: Report) -> Entry:
        at = time.mktime(time.strptime(local, "%Y-%m-%d %H:%M:%S"))
        stem = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(at))}.000-abcd"
        folder = self.collection.root / "runs"
        entry = Entry(record=folder / f"{stem}.json", page=folder / f"{stem}.html")
        page = report_page.render(report).encode()
        self.collection.runs.write(entry, msgspec.json.encode(report.to_json()), page, keep=99)
        return entry

    def call(self, *words: str, **env: str) -> Result:
        return invoke(self.path, "--data", str(self.path / "data"), "report", *words, env=env)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def kept(home: Home) -> list[Entry]:
    return [home.keep(at, report) for at, report in zip(TIMES, (GOOD, FULL, FAILED), strict=True)]


@pytest.mark.usefixtures("kept")
def test_the_last_report_is_shown(home: Home) -> None:
    shown = home.call()
    assert shown.exit_code == 0
    assert shown.stdout.startswith("Dienst & Wiki: Failed with exit code 5. ")
    assert "connection refused" in shown.stdout
    assert "ollama serve" in shown.stdout
    assert "Before that, 0 texts were embedded" in shown.stdout
    assert shown.stderr == ""


@pytest.mark.usefixtures("kept")
def test_a_report_in_the_terminal_tells_the_most_important(home: Home) -> None:
    shown = home.call("2").stdout
    for told in (
        "Finished; 3 cannot be read or embedded",
        "1,501 files: 212 new, 31 changed",
        "12 files of unknown kinds were left out.",
        "Slowest file: scan 0.pdf, 31 s.",
        "Requests sent again: 3.",
        "Failures: 2 new, 1 mended since the run before.",
        "On disk: 187.3 MB (+6.3 MB since the run before).",
        "scans/1998 Bericht.pdf: encrypted",
        "pipeline report --open",
    ):
        assert told in shown, told
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.mark.parametrize(
    ("which", "number"),
    [
        ("1", 2),
        ("3", 0),
        ("2026-11-21", 1),
        ("2026-11-20 02:30", 0),
        ("20261122T023100", 2),
        ("2026-11", 2),
        ("2026", 2),
    ],
)
def test_a_report_is_found_by_number_or_time(home: Home, kept: list[Entry], which: str, number: int) -> None:
    assert str(kept[number].page) in home.call(which).stdout


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("which", ["0", "4", "2031", "yesterday", "2026-11-23"])
def test_a_report_that_is_not_there(home: Home, which: str) -> None:
    done = home.call(which)
    assert done.exit_code == 2
    assert "pipeline report --list" in done.stderr


def test_the_list_has_the_newest_first_and_passes_over_a_damaged_one(home: Home, kept: list[Entry]) -> None:
    kept[1].record.write_text("{")
    done = home.call("--list")
    lines = done.stdout.splitlines()
    assert [line[5:24] for line in lines] == [TIMES[2], TIMES[0]]
    assert "Failed with exit code 5" in lines[0]
    assert "1,319 embedded  Finished" in lines[1]
    assert "is damaged" in done.stderr
    assert home.call("2").exit_code == 1


def test_json(home: Home, kept: list[Entry]) -> None:
    assert json.loads(home.call("2", "--json").stdout) == json.loads(kept[1].read())
    rows = json.loads(home.call("--list", "--json").stdout)["reports"]
    assert [(row["number"], row["exit_code"]) for row in rows] == [(1, 5), (2, 3), (3, 0)]
    assert rows[0]["page"] == str(kept[2].page)


def test_open_hands_the_page_to_the_browser_and_prints_its_path(home: Home, kept: list[Entry]) -> None:
    """webbrowser reads BROWSER when it is first used, so the command is a process of its own here."""
    from tests.command_line import start

    browser = home.path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > "$HOME/opened"\n')
    browser.chmod(0o755)
    done = start(home.path, "report", "--open", env={"BROWSER": str(browser)})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{kept[2].page}\n", "")
    assert (home.path / "opened").read_text().strip() == kept[2].page.as_uri()


def test_open_without_a_browser_prints_the_path(home: Home, kept: list[Entry]) -> None:
    done = home.call("--open", BROWSER="/nowhere/browser", PATH="/nowhere", DISPLAY="", WAYLAND_DISPLAY="")
    assert (done.exit_code, done.stdout) == (0, f"{kept[2].page}\n")
    kept[2].page.unlink()
    gone = home.call("--open")
    assert (gone.exit_code, "There is no page" in gone.stderr) == (2, True)


def test_before_the_first_run_there_is_none(home: Home, tmp_path: Path) -> None:
    done = home.call()
    assert (done.exit_code, "has no report yet" in done.stderr) == (2, True)
    nothing = invoke(tmp_path, "--data", str(tmp_path / "elsewhere"), "report")
    assert nothing.exit_code == 10
