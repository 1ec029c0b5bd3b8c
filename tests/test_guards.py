"""What keeps a run from harm: the estimate of disk space, two runs at once, searches beside a run, clocks set back."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline import errors, executor, guards, lance, live, query, run
from pipeline.models import EmbedderSpec
from pipeline.progress import Silent
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents

SPEC = EmbedderSpec(provider="ollama", model="m", digest="d", dims=1024, limit=510, tokenizer="t")
HOUR_NS = 3_600_000_000_000


@pytest.fixture
def world(tmp_path: Path, shared: FakeOllama) -> World:
    shared.reset()
    made = World(tmp_path, shared)
    write_documents(made.docs)
    return made


# -- disk space


def test_the_estimate_covers_what_a_run_writes_without_exaggeration(world: World) -> None:
    """Between what the run left on disk and six times that."""
    write_documents(world.docs, files=30)
    files = [(path.name, path.stat().st_size) for path in world.docs.iterdir()]
    world.run()
    spec = world.collection.embedder()
    assert spec is not None
    needed = guards.need(guards.Due(files=tuple(files)), spec, world.settings.chunk.size // 2, 0)
    assert world.collection.disk_bytes() < 1.3 * needed.total < 8 * world.collection.disk_bytes()


def test_what_is_no_text_counts_less() -> None:
    assert (
        guards.text_bytes([("a.md", 1000), ("b.PDF", 1000), ("c.docx", 1000), ("d.jsonl", 10)]) == 1000 + 50 + 200 + 10
    )


def test_half_floats_take_half() -> None:
    whole = guards.need(guards.Due(chunks=1000), SPEC, 256, 0)
    half = guards.need(guards.Due(chunks=1000), EmbedderSpec(**{**fields(SPEC), "storage": "float16"}), 256, 0)
    assert whole.added == 2 * half.added == int(1.2 * 1000 * 2 * 4 * 1024)


def fields(spec: EmbedderSpec) -> dict[str, object]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def test_the_table_counts_once_more_only_when_something_is_due() -> None:
    assert guards.need(guards.Due(), SPEC, 256, 10**9).total == 0
    assert guards.need(guards.Due(chunks=1), SPEC, 256, 10**9).table == 10**9


def test_more_than_there_is_is_refused_with_figures(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    guards.check_space(tmp_path / "not" / "there", guards.Need(added=1000, table=0), 1)
    with pytest.raises(errors.DiskFull) as caught:
        guards.check_space(tmp_path / "not" / "there", guards.Need(added=free, table=5_000_000_000), 12_345)
    assert "12,345 new or changed files" in caught.value.message
    assert "5.0 GB for the search table while it is optimised" in caught.value.message
    assert "PIPELINE_RUN_DISK_CHECK=false" in caught.value.remedy
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize(("count", "text"), [(0, "0 kB"), (1500, "2 kB"), (3_140_000, "3.1 MB"), (2e12, "2,000.0 GB")])
def test_bytes_for_people(count: float, text: str) -> None:
    assert guards.size(count) == text


# -- two runs at once, and searches beside one


def test_of_two_runs_at_once_the_second_says_who_is_at_work_or_waits(world: World) -> None:
    world.server.configure(cost_us_per_token=300)
    try:
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(world.run)
            lock = world.data / "default" / "LOCK"
            while not (lock.exists() and lock.read_text()):
                assert not first.done()
            with pytest.raises(errors.Locked, match=rf"process {os.getpid()} on \S+ since \d{{4}}-"):
                world.run()
            world.settings = replace(world.settings, run=replace(world.settings.run, wait_lock_s=60))
            second = threads.submit(world.run)
            done, after = first.result(60), second.result(60)
    finally:
        world.server.configure(cost_us_per_token=0)
    assert done.embedded_texts == done.chunks > 0
    assert (after.embedded_texts, after.files["unchanged"], after.rows_added) == (0, 6, 0)
    assert lock.read_text() == "", "nobody is at work"


def test_fifty_searches_a_second_beside_a_run_see_one_generation_each(world: World) -> None:
    """Every document changes its mark at once: a search that saw two marks would have seen two generations."""
    marks = ["firstmark", "secondmark"]

    def mark(word: str) -> None:
        for number in range(8):
            text = " ".join(sentence(word, number, n) for n in range(3))
            (world.docs / f"{number}.md").write_text(f"{word} here. {text}\n")

    mark(marks[0])
    world.run()
    seen: list[frozenset[str]] = []
    ended = threading.Event()

    def ask() -> None:
        while not ended.is_set() or len(seen) < 50:
            began = time.monotonic()
            found = query.find(world.settings, "firstmark secondmark", mode="text", top_k=100)
            seen.append(frozenset(word for hit in found for word in marks if word in hit.text))
            assert len(found) == 8, "all documents, each once"
            ended.wait(max(0.0, 0.02 - (time.monotonic() - began)))

    mark(marks[1])
    with ThreadPoolExecutor(1) as thread:
        asking = thread.submit(ask)
        try:
            for word in (marks[1], marks[0], marks[1]):
                mark(word)
                world.run()
        finally:
            ended.set()
        asking.result(60)
    assert all(len(words) == 1 for words in seen)
    assert {word for words in seen for word in words} == set(marks)


# -- clocks


def test_files_from_the_future_are_looked_into_and_not_trusted(world: World) -> None:
    ahead = time.time_ns() + 48 * HOUR_NS
    for path in world.docs.iterdir():
        os.utime(path, ns=(ahead, ahead))
    first = world.run()
    path = world.docs / "2.md"
    text = path.read_text()
    path.write_text(text.replace(text[-9:-2], "changed"))
    os.utime(path, ns=(ahead, ahead))  # the same size and the same time
    second = world.run()
    assert (first.documents, second.documents) == (6, 6)
    assert second.files["changed"] == 1
    assert second.embedded_texts > 0


def test_a_snapshot_from_the_future_is_not_trusted(world: World) -> None:
    """The clock was wrong by a day when it was written: a file's time says nothing against it."""
    path = world.docs / "2.md"
    hours_ago = time.time_ns() - 5 * HOUR_NS
    os.utime(path, ns=(hours_ago, hours_ago))
    world.run()
    snapshot = world.collection.snapshot()
    assert snapshot is not None
    tomorrow = snapshot.scanned_ns + 24 * HOUR_NS
    with world.collection.writing():
        world.collection.write_snapshot(snapshot.table, snapshot.sources, tomorrow, snapshot.mounts)
    text = path.read_text()
    with path.open("r+") as file:  # in place: the inode stays
        file.write(text[:-9] + "changed\n\n")
    os.utime(path, ns=(hours_ago, hours_ago))
    report = world.run()
    assert report.files["changed"] == 1
    assert report.embedded_texts > 0
    now = world.collection.snapshot()
    assert now is not None
    assert now.scanned_ns < tomorrow
    assert now.number > snapshot.number + 1, "numbers go up, whatever the clock says"
    assert world.run().embedded_texts == 0


def test_a_reject_of_a_clock_set_back_is_the_newest_nevertheless(world: World) -> None:
    with world.collection.writing():
        for kind in ("timeout", "crash", "memory"):
            row = executor.reject("ingest", "a.md", "key", "reader/1", kind, "...")
            world.collection.add_rejects([row])
            if kind == "timeout":  # written tomorrow, says its name
                (part,) = (world.data / "default" / "rejects").glob("*.parquet")
                stamp, rest = part.name.split("-", 1)
                part.rename(part.with_name(f"{int(stamp) + 86_400_000:013d}-{rest}"))
    assert world.collection.rejects()["kind"].to_pylist() == ["timeout", "crash", "memory"]


def test_a_publication_of_tomorrow_disturbs_no_later_one(world: World) -> None:
    """Versions are numbered: with a note dated tomorrow the next one is published, and what readers are on stays."""
    world.run()
    note = world.collection.published()
    assert note is not None
    with world.collection.writing():
        world.collection.set_published(dataclasses.replace(note, at_ms=note.at_ms + 86_400_000))
    reader = world.reader()
    (world.docs / "0.md").write_text("Another text altogether.\n")
    world.run()
    now = world.collection.published()
    assert now is not None
    assert now.version > note.version
    assert reader.count() == note.rows, "who has it open goes on reading it"
    assert lance.Reader.open(world.collection.index_folder, live.table_name(note.spec)).count() == now.rows


# -- a folder that vanishes


def test_a_source_folder_that_vanishes_changes_nothing(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_documents(other, files=2)
    request = run.Request(stages=frozenset(run.STAGES), folders=(world.docs, other))
    run.execute(world.settings, request, Silent())
    rows = world.reader().count()
    other.rename(tmp_path / "away")
    with pytest.raises(errors.SourceError, match="other"):
        run.execute(world.settings, request, Silent())
    other.mkdir()  # the mount point of what is not mounted
    with pytest.raises(errors.TooManyDeletions):
        run.execute(world.settings, request, Silent())
    assert world.reader().count() == rows
    other.rmdir()
    (tmp_path / "away").rename(other)
    report = run.execute(world.settings, request, Silent())
    assert (report.files["unchanged"], report.embedded_texts) == (8, 0)
