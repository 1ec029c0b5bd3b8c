"""Every run leaves a report, also one that fails: on real folders, against the fake Ollama behind a real socket.

Whole runs show that the parts are joined; what becomes of a report is shown with runs that only return or raise.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from msgspec.structs import replace

import pipeline
from pipeline import config, errors, record, run, run_report, tasks
from pipeline.progress import Pace, Silent
from pipeline.report import Failure, Report
from pipeline.run_report import Outcome
from pipeline.store import Collection
from pipeline.store.runs import Entry, Runs
from tests.fake_ollama.client import FakeOllama

ALL = frozenset(run.STAGES)
CLOSED = "http://127.0.0.1:9"  # refused at once


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


class Nights:
    """A folder, a collection, and one run after another."""

    def __init__(self, tmp_path: Path, host: str = CLOSED) -> None:
        self.docs = tmp_path / "docs"
        self.docs.mkdir()
        self.settings = config.Settings(
            data=str(tmp_path / "data"),
            embed=config.EmbedSettings(provider="ollama", flush_s=0.2),
            ollama=config.OllamaSettings(hosts=(host,)),
            readers=config.ReaderSettings(workers=1),
        )

    def write(self, *names: str) -> None:
        for name in names:
            (self.docs / f"{name}.md").write_text(f"# {name}\n\nOne sentence about {name}, and no more.\n")

    def set(self, section: str, **changes: Any) -> None:
        self.settings = replace(self.settings, **{section: replace(getattr(self.settings, section), **changes)})

    def run(self, **options: Any) -> Report:
        return run.execute(self.settings, run.Request(stages=ALL, folders=(self.docs,), **options), Silent())

    def begin(self) -> None:
        """Make the collection, empty."""
        with self.collection.writing():
            pass

    def report(self, work: Callable[[], Report], outcome: Outcome | None = None) -> Report:
        return run_report.reported(self.settings, outcome or Outcome(stages=ALL), work)

    def good(self, **fields: Any) -> Report:
        """A night in which nothing was done, and went well."""
        return self.report(lambda: Report(collection="default", stages=("ingest",), **fields))

    def bad(self, error: BaseException) -> None:
        """A night that `error` ended."""

        def work() -> Report:
            raise error

        with pytest.raises(type(error)) as caught:
            self.report(work)
        assert caught.value is error

    @property
    def collection(self) -> Collection:
        return Collection(Path(self.settings.data), self.settings.collection)

    @property
    def entries(self) -> list[Entry]:
        return self.collection.runs.newest()

    def kept(self) -> Report:
        """The newest report, as it lies on disk."""
        return msgspec.json.decode(self.entries[0].read(), type=Report)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    made = Nights(tmp_path)
    made.begin()
    return made


# --- whole runs


def check_first_night(nights: Nights, told: Report) -> None:
    """Record and page of a run that read, embedded and published four new files."""
    detail = told.detail
    assert nights.kept() == told
    assert (told.exit_code, told.error, told.version) == (0, "", pipeline.__version__)
    assert told.last_success_at >= told.started_at > "2026"
    assert told.disk_bytes > 10_000
    page = nights.entries[0].page.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "mxbai-embed-large" in page
    assert not list((nights.collection.root / "tmp").iterdir())
    assert detail is not None
    assert detail.folders == (str(nights.docs),)
    assert detail.named == {"new": ("a.md", "b.md", "c.md", "d.md")}
    assert {slow.uri for slow in detail.slowest} == {"a.md", "b.md", "c.md", "d.md"}
    assert all(slow.seconds > 0 and slow.bytes > 30 for slow in detail.slowest)
    assert sum(detail.lengths) == 4  # each chunk is counted once, though its shard is named twice
    assert {"files", "chunks", "texts", "rows"} <= set(detail.stage_seconds)
    made_by = dict(detail.provenance)
    assert (made_by["model"], made_by["server"]) == ("mxbai-embed-large", nights.settings.ollama.hosts[0])
    assert made_by["server_version"]
    assert detail.before is None


def test_one_night_after_another(tmp_path: Path, server: FakeOllama) -> None:
    nights = Nights(tmp_path, server.url)
    nights.write("a", "b", "c", "d")
    first = nights.run()
    check_first_night(nights, first)
    (nights.docs / "a.md").write_text("# a\n\nAnother sentence altogether.\n")
    (nights.docs / "b.md").rename(nights.docs / "z.md")
    (nights.docs / "c.md").unlink()
    nights.write("e")
    (nights.docs / "f.pdf").write_bytes(b"%PDF-1.7 and no more")
    second = nights.run(max_delete=1.0)
    detail = second.detail
    assert second.exit_code == 3
    assert detail is not None
    assert detail.named == {
        "new": ("e.md",),
        "changed": ("a.md",),
        "moved": ("b.md → z.md",),
        "deleted": ("c.md",),
    }
    assert {fate: len(names) for fate, names in detail.named.items()}.items() <= second.files.items()
    assert detail.before is not None
    assert (detail.before.documents, detail.before.chunks) == (first.documents, first.chunks)
    assert (detail.before.started_at, detail.before.disk_bytes) == (first.started_at, first.disk_bytes)
    assert detail.new_failures == 1
    third = nights.run().detail  # nothing changed
    assert third is not None
    assert (third.named, third.lengths, third.new_failures, third.mended) == ({}, (), 0, ())
    nights.write("g")
    nights.set("ollama", hosts=(CLOSED,))
    with pytest.raises(errors.ServerUnreachable) as caught:
        nights.run()
    kept = nights.kept()
    assert (kept.exit_code, kept.error, kept.remedy) == (5, caught.value.message, caught.value.remedy)
    assert (kept.documents, kept.chunks, kept.model) == (second.documents, second.chunks, second.model)
    assert "Failed with exit code 5" in nights.entries[0].page.read_text(encoding="utf-8")


def test_a_night_that_finds_the_collection_locked_leaves_a_report(nights: Nights) -> None:
    nights.write("a")
    with nights.collection.writing(), pytest.raises(errors.Locked):
        nights.run()
    assert nights.kept().exit_code == 11
    assert not list((nights.collection.root / "tmp").iterdir())  # nothing of it lay where the lock's owner sweeps


def test_a_vanished_folder_leaves_a_report(nights: Nights) -> None:
    nights.docs.rmdir()
    with pytest.raises(errors.SourceError):
        nights.run()
    assert (nights.kept().exit_code, nights.kept().files) == (1, {})


def test_a_first_run_that_was_mistyped_leaves_nothing(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.docs.rmdir()
    with pytest.raises(errors.SourceError):
        nights.run()
    assert not Path(nights.settings.data).exists()


# --- nights that fail


def test_what_a_failed_night_knows_it_knows_from_the_one_before(nights: Nights) -> None:
    failures = (Failure(uri="f.pdf", stage="ingest", kind="damaged", reason="no"),)
    first = nights.good(documents=12, chunks=40, vectors=39, rejects=1, model="m", failures=failures, exit_code=3)
    nights.bad(errors.DiskFull("no space left to write x", "Free some space."))
    kept = nights.kept()
    assert (kept.exit_code, kept.error, kept.remedy) == (1, "no space left to write x", "Free some space.")
    assert (kept.documents, kept.chunks, kept.vectors, kept.rejects, kept.model) == (12, 40, 39, 1, "m")
    assert kept.last_success_at == first.last_success_at
    assert kept.detail is not None
    assert (kept.detail.new_failures, kept.detail.mended) == (0, ())


def test_what_was_done_before_a_night_failed_is_told(nights: Nights) -> None:
    outcome = Outcome(stages=ALL)
    outcome.fates = {"new": 3}
    outcome.notes.append("A note.")

    def work() -> Report:
        outcome.embedding.texts, outcome.embedding.tokens, outcome.embedding.seconds = 7, 700, 1.5
        outcome.record.message("One server was slow.")
        raise errors.TransientFault("It keeps failing.", "Try later.")

    with pytest.raises(errors.TransientFault):
        nights.report(work, outcome)
    kept = nights.kept()
    assert (kept.embedded_texts, kept.embedded_tokens, kept.embed_seconds) == (7, 700, 1.5)
    assert (kept.files, kept.notes) == ({"new": 3}, ("A note.",))
    assert kept.detail is not None
    assert kept.detail.messages == ("One server was slow.",)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(KeyboardInterrupt(), 130, "Interrupted."), (TypeError("oh"), 1, "unexpected TypeError: oh")],
)
def test_whatever_ends_a_run_is_in_its_report(nights: Nights, error: BaseException, code: int, told: str) -> None:
    nights.bad(error)
    kept = nights.kept()
    assert (kept.exit_code, kept.error) == (code, told)
    assert any("defect" in note for note in kept.notes) == (code == 1)


def test_a_failing_report_does_not_hide_why_the_run_failed(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    (nights.collection.root / "runs").write_text("a file where the folder should be")
    nights.bad(errors.Locked("somebody else", "wait"))
    assert "No report can be written" in caplog.text
    with pytest.raises(errors.StoreError):  # after a run that went well the disk's failure is the news
        nights.good()


def test_a_damaged_report_of_the_night_before_decides_nothing(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    nights.good()
    nights.entries[0].record.write_text('{"documents": "half a fi')
    report = nights.good()
    assert report.detail is not None
    assert report.detail.before is None
    assert "cannot be read" in caplog.text


def test_a_report_of_an_older_program_is_read(nights: Nights) -> None:
    nights.good()
    nights.entries[0].record.write_text(
        '{"message_type": "summary", "collection": "default", "documents": 3, "old": 1}'
    )
    report = nights.good()
    assert report.detail is not None
    assert report.detail.before is not None
    assert report.detail.before.documents == 3


def test_a_failure_is_new_only_once_and_is_mended_by_name(nights: Nights) -> None:
    failures = tuple(Failure(uri=f"{n}.pdf", stage="ingest", kind="damaged", reason="no") for n in range(2))
    told = [nights.good(failures=failed, exit_code=3).detail for failed in (failures, failures, failures[1:])]
    assert [(detail.new_failures, detail.mended) for detail in told if detail] == [(2, ()), (0, ()), (0, ("0.pdf",))]


# --- the metrics and who is told


def test_metrics_are_written_after_a_good_and_after_a_bad_night(nights: Nights, tmp_path: Path) -> None:
    nights.set("report", metrics_file=str(tmp_path / "prom" / "pipeline-{collection}.prom"))
    path = tmp_path / "prom" / "pipeline-default.prom"
    nights.good(files={"new": 4})
    text = path.read_text()
    assert 'pipeline_run_exit_code{collection="default"} 0\n' in text
    assert 'pipeline_run_files{collection="default",fate="new"} 4.0\n' in text
    success = next(line for line in text.splitlines() if line.startswith("pipeline_last_success"))
    nights.bad(errors.ServerUnreachable("no answer", "start it"))
    text = path.read_text()
    assert 'pipeline_run_exit_code{collection="default"} 5\n' in text
    assert success in text.splitlines()


def test_a_metrics_file_that_cannot_be_written_is_said_and_no_more(
    nights: Nights, caplog: pytest.LogCaptureFixture
) -> None:
    nights.set("report", metrics_file=str(nights.collection.root / "VERSION" / "x.prom"))
    assert nights.good().exit_code == 0
    assert "metrics file" in caplog.text


def test_the_notify_command_gets_the_report_of_a_failed_night(nights: Nights, tmp_path: Path) -> None:
    script = tmp_path / "tell.sh"
    script.write_text('#!/bin/sh\ncat > "$1"; echo >> "$1"; echo "$2" >> "$1"; test -f "$3"; echo $? >> "$1"\n')
    script.chmod(0o755)
    nights.set("notify", command=f"'{script}' '{tmp_path / 'told'}' {{exit_code}} {{report}}")
    nights.good()
    assert not (tmp_path / "told").exists()  # a good night is no news
    nights.bad(errors.SourceError("the folder is gone", "Mount it."))
    lines = (tmp_path / "told").read_text().splitlines()
    assert lines == ["default: failed with exit code 1: the folder is gone", "Mount it.", "1", "0"]


def test_a_notify_command_that_fails_changes_nothing(nights: Nights, caplog: pytest.LogCaptureFixture) -> None:
    nights.set("notify", command="false", when="always")
    assert nights.good().exit_code == 0
    nights.bad(errors.Locked("somebody else", "wait"))
    assert caplog.text.count("notify.command ended with 1") == 2


def test_a_notify_command_with_an_open_quote_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    nights = Nights(tmp_path)
    nights.set("notify", command="mail 'me")
    with pytest.raises(errors.ConfigError):
        nights.run()
    assert not Path(nights.settings.data).exists()


# --- the folder of reports


def test_only_the_newest_reports_are_kept(nights: Nights) -> None:
    nights.set("report", keep=2)
    for _ in range(4):
        nights.good()
    left = sorted(path.name for path in (nights.collection.root / "runs").iterdir())
    stems = {Path(name).stem for name in left}
    assert len(left) == 4
    assert len(stems) == 2


def entry(folder: Path, stem: str) -> Entry:
    return Entry(record=folder / f"{stem}.json", page=folder / f"{stem}.html")


def test_drafts_of_killed_runs_go_after_a_day_and_a_page_being_written_stays(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    old, young = tmp_path / "20250101T000000.000-aaaa.json.12ab", tmp_path / "20250101T000000.000-bbbb.json.12ab"
    page = tmp_path / "20260101T000000.000-ffff.html"
    for path in (old, young, page):
        path.write_text("draft")
    os.utime(old, (1, 1))
    for number in range(3):
        runs.write(entry(tmp_path, f"2026010{number + 1}T000000.000-0000"), b"{}", b"<!doctype html>", keep=2)
    assert not old.exists()
    assert young.exists()
    assert page.exists()
    assert [found.record.stem for found in runs.newest()] == ["20260103T000000.000-0000", "20260102T000000.000-0000"]


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.json"
    notes.write_text("mine")
    os.utime(notes, (1, 1))
    runs = Runs(tmp_path)
    runs.write(runs.name(), b"{}", b"", keep=1)
    assert notes.read_text() == "mine"
    assert len(runs.newest()) == 1


def test_the_time_of_a_report_is_in_its_name(tmp_path: Path) -> None:
    assert entry(tmp_path, "20260102T030405.678-abcd").at_s == 1767323045.678
    assert entry(tmp_path, "20260102T030405-abcd").at_s == 1767323045  # of an older program
    assert entry(tmp_path, "notes").at_s == 0


def test_the_last_report_is_the_last_also_after_the_clock_was_set_back(tmp_path: Path) -> None:
    runs = Runs(tmp_path)
    future = time.strftime("%Y%m%dT%H%M%S", time.gmtime(time.time() + 86_400 * 365))
    runs.write(entry(tmp_path, f"{future}.999-ffff"), b"{}", b"", keep=9)
    written = []
    for _ in range(3):
        name = runs.name()
        runs.write(name, b"{}", b"", keep=9)
        written.append(name.record)
    assert [found.record for found in runs.newest(3)] == written[::-1]


# --- the recorder


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Heard(Silent):
    """Whoever shows the progress, with what was passed on."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, task: str, total: int | None, unit: str) -> None:
        self.calls.append(("start", task, total, unit))

    def advance(self, task: str, n: int = 1) -> None:
        self.calls.append(("advance", task, n))

    def message(self, text: str) -> None:
        self.calls.append(("message", text))


def test_the_recorder_passes_everything_on() -> None:
    heard = Heard()
    recorder = record.Recorder(heard)
    recorder.start("texts", 3, "text")
    recorder.advance("texts", 2)
    recorder.message("slow today")
    assert heard.calls == [("start", "texts", 3, "text"), ("advance", "texts", 2), ("message", "slow today")]
    assert recorder.messages == ["slow today"]


def test_a_long_night_keeps_as_many_samples_as_a_short_one_over_its_whole_length() -> None:
    clock = Clock()
    recorder = record.Recorder(clock=clock)
    for second in range(40_000):
        clock.now = 100.0 + second
        recorder.pace("texts", Pace(tokens_per_s=float(second)))
    times = [sample.at_s for sample in recorder.samples]
    assert record.SAMPLES / 2 <= len(times) <= record.SAMPLES
    assert times[0] == 0
    assert times[-1] > 39_000
    steps = {after - before for before, after in itertools.pairwise(times)}
    assert len(steps) == 1  # evenly spread
    assert all(sample.tokens_per_s == sample.at_s for sample in recorder.samples)


def test_the_slowest_files_are_kept_and_no_others() -> None:
    recorder = record.Recorder()
    for number in range(1000):
        recorder.file_read(f"{number}.md", (number * 7919) % 1000 / 1000, number)
    assert [slow.seconds for slow in recorder.slowest] == [n / 1000 for n in range(999, 999 - record.SLOWEST, -1)]


def test_messages_beyond_the_limit_are_counted() -> None:
    recorder = record.Recorder()
    for number in range(record.MESSAGES + 7):
        recorder.message(str(number))
    assert (len(recorder.messages), recorder.unkept) == (record.MESSAGES, 7)


def test_spans_reach_from_the_first_to_the_last_sign() -> None:
    clock = Clock()
    recorder = record.Recorder(clock=clock)
    recorder.start("files", 2, "file")
    clock.now += 3
    recorder.advance("files")
    clock.now += 4
    recorder.finish("files")
    recorder.chunked([0] * (record.BINS - 1) + [2], split=1)
    recorder.chunked([1] + [0] * (record.BINS - 1), split=2)
    assert recorder.stage_seconds == {"files": 7.0}
    assert recorder.split == 3
    assert recorder.lengths == (1, *([0] * (record.BINS - 2)), 2)


def test_chunks_are_counted_by_length_and_by_how_they_end() -> None:
    text = "A sentence ends here. 这是一句。A line ends here\nand a long one is cut somewhere in the middle, so"
    cuts = [0, text.index("这"), text.index("A line"), text.index("and"), text.index("cut"), len(text)]
    rows = [
        {"doc_id": "d", "start": begin, "end": len(text[:end].rstrip()), "tokens": tokens}
        for (begin, end), tokens in zip(itertools.pairwise(cuts), (5, 31, 32, 500, 9_999), strict=True)
    ]
    chunks = pa.Table.from_pylist([*rows, {"doc_id": "e", "start": 0, "end": 3, "tokens": 40}])
    documents = pa.Table.from_pylist([{"doc_id": "d", "text": text}, {"doc_id": "e", "text": "one"}])
    assert tasks._split(documents, chunks) == 1  # only before "cut"; another document is another matter
    lengths = tasks._lengths(chunks)
    assert {number: count for number, count in enumerate(lengths) if count} == {0: 2, 1: 2, 15: 1, record.BINS - 1: 1}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@host:11434/v1", "http://host:11434/v1"),
        ("http://host:11434", "http://host:11434"),
        ("me:secret@host", "host"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_no_password_of_a_url_is_written_down(url: str, shown: str) -> None:
    assert run_report._without_password(url) == shown


def test_the_record_is_json_for_scripts(nights: Nights) -> None:
    outcome = Outcome(stages=ALL)
    outcome.record.file_read("a.md", 0.5, 12)
    nights.report(lambda: Report(collection="default", stages=()), outcome)
    data = json.loads(nights.entries[0].read())
    assert data["message_type"] == "summary"
    assert data["detail"]["slowest"] == [{"uri": "a.md", "seconds": 0.5, "bytes": 12}]
