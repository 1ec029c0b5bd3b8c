"""The notify command: real commands, hostile texts, and failures that stay its own."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pipeline import errors, notify
from pipeline.report import Detail, Report
from tests.report_samples import FAILED, FULL, HOSTILE

SAY = """
import json, os, pathlib, sys
own = {name: value for name, value in os.environ.items() if name.startswith("EMBED_PIPELINE_")}
pathlib.Path(sys.argv[1]).write_text(json.dumps([sys.argv[2:], sys.stdin.read(), own]))
"""


@pytest.fixture
def say(tmp_path: Path) -> str:
    """The beginning of a command that writes down what it was given to `said`."""
    script = tmp_path / "a script.py"
    script.write_text(SAY)
    return f"'{sys.executable}' '{script}' '{tmp_path / 'said'}'"


def said(tmp_path: Path) -> tuple[list[str], str, dict[str, str]]:
    arguments, stdin, own = json.loads((tmp_path / "said").read_text())
    return arguments, stdin, own


def fields(report: Report = FULL) -> dict[str, str]:
    return notify.fields(report, Path("/runs/a b.json"), Path("/runs/a b.html"))


def test_fields_arguments_variables_and_stdin(tmp_path: Path, say: str) -> None:
    words = notify.words(f"{say} '{{collection}}: exit {{exit_code}}' {{report}} --file={{json}}")
    notify.send(words, fields(), 10)
    arguments, stdin, own = said(tmp_path)
    assert arguments == ["Dienst & Wiki: exit 3", "/runs/a b.html", "--file=/runs/a b.json"]
    assert stdin.startswith("Dienst & Wiki: 212 new, 31 changed")
    assert own["EMBED_PIPELINE_REPORT"] == "/runs/a b.html"
    assert own["EMBED_PIPELINE_JSON"] == "/runs/a b.json"
    assert own["EMBED_PIPELINE_EXIT_CODE"] == "3"
    assert own["EMBED_PIPELINE_SUMMARY"] == stdin


def test_no_shell_sees_what_a_report_says(tmp_path: Path, say: str) -> None:
    evil = dataclasses.replace(FULL, collection=f"$(touch {tmp_path}/no) `touch {tmp_path}/no`; touch {tmp_path}/no")
    notify.send(notify.words(f"{say} {{collection}}"), fields(evil), 10)
    assert said(tmp_path)[0] == [evil.collection]
    assert not (tmp_path / "no").exists()


def test_a_field_in_a_value_is_not_filled_again(tmp_path: Path, say: str) -> None:
    notify.send(notify.words(f"{say} {{collection}}"), fields(dataclasses.replace(FULL, collection="{report}")), 10)
    assert said(tmp_path)[0] == ["{report}"]


def test_a_null_byte_in_an_error_does_no_harm(tmp_path: Path, say: str) -> None:
    notify.send(notify.words(f"{say} {{summary}}"), fields(dataclasses.replace(FAILED, error=HOSTILE)), 10)
    assert "\x00" in HOSTILE
    assert 'onerror="alert(1)"' in said(tmp_path)[0][0]


def test_a_command_that_fails_is_said_with_its_last_words(caplog: pytest.LogCaptureFixture) -> None:
    notify.send(notify.words("sh -c 'echo no route to host >&2; exit 7'"), fields(), 10)
    talk = "sh -c 'seq 10000; echo no route to host >&2; exit 8'"
    notify.send(notify.words(talk), fields(), 10)
    first, second = (record.getMessage() for record in caplog.records)
    assert first == "notify.command ended with 7: no route to host"
    assert second.startswith("notify.command ended with 8: ")
    assert second.endswith("9999\n10000\nno route to host"), "of a long output, the end"
    assert caplog.records[0].levelno == logging.ERROR  # said with -q as well


def test_a_command_that_is_not_there_is_said(caplog: pytest.LogCaptureFixture) -> None:
    notify.send(("/nowhere/at all",), fields(), 10)
    assert "cannot be run" in caplog.text


def test_a_command_that_does_not_end_is_ended_with_what_it_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = notify.words(f"sh -c 'sleep 600 & echo $! > \"{tmp_path}/pid\"; wait'")
    notify.send(words, fields(), 1)
    assert "took longer than 1 s" in caplog.text
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while _runs(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    """Whether a process is there and no zombie: init may take its time to reap."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(") ")[2].startswith("Z"))


def test_what_a_command_leaves_running_does_not_hold_up_the_run(tmp_path: Path) -> None:
    notify.send(notify.words(f"sh -c 'sleep 300 & echo $! > \"{tmp_path}/pid\"'"), fields(), 30)
    left = int((tmp_path / "pid").read_text())
    assert _runs(left)
    os.kill(left, signal.SIGKILL)


def test_a_command_that_reads_nothing_may_do_so(caplog: pytest.LogCaptureFixture) -> None:
    notify.send(("true",), {**fields(), "summary": "x" * 100_000}, 10)
    assert caplog.text == ""


def test_a_summary_fits_into_an_argument() -> None:
    long = dataclasses.replace(FAILED, error="x" * 1_000_000)
    notify.send(("true", fields(long)["summary"]), fields(long), 10)
    assert len(fields(long)["summary"]) == 8_000


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match=r"notify\.command cannot be split"):
        notify.words("mail -s 'a subject me")
    assert notify.words("") == ()


@pytest.mark.parametrize(
    ("code", "new", "when", "wanted"),
    [
        (0, 0, "failure", False),
        (0, 0, "always", True),
        (3, 0, "failure", False),  # broken last night as well: no news
        (3, 1, "failure", True),
        (5, 0, "failure", True),
        (11, 0, "failure", True),
        (130, 0, "failure", True),
    ],
)
def test_who_is_told_when(code: int, new: int, when: str, wanted: bool) -> None:
    report = dataclasses.replace(FULL, exit_code=code, detail=Detail(new_failures=new))
    assert notify.is_wanted(report, when) is wanted


def test_the_summary_of_a_failed_night_says_why_and_what_to_do() -> None:
    assert notify.summary(FAILED).splitlines() == [
        "Dienst & Wiki: failed with exit code 5: http://127.0.0.1:11434 does not answer: connection refused",
        FAILED.remedy,
    ]


def test_the_summary_names_what_cannot_be_read() -> None:
    first, *named = notify.summary(FULL).splitlines()
    assert first.endswith("1,319 texts embedded in 192.6 s; 3 cannot be read or embedded:")
    assert named[0] == "scans/1998 Bericht.pdf: encrypted: The PDF needs a password."
    quiet = dataclasses.replace(FULL, rejects=0, files={})
    assert notify.summary(quiet) == "Dienst & Wiki: no files; 1,319 texts embedded in 192.6 s"
