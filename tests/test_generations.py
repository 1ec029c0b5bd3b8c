"""History, diff and rollback on real folders and tables: what is shown again is what was, and nothing is embedded."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline import config, errors, history, kept, lance, live, query, rollback
from pipeline.models import EmbedderSpec
from pipeline.progress import Silent
from pipeline.store import Collection, Migration, Published
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents

HOUR_MS = 3_600_000


class Nights(World):
    """A collection of three nights: 1: four files; 2: edited, added, moved and deleted; 3: one edited again."""

    def rows(self) -> dict[str, tuple[str, str]]:
        """chunk_id → uri and text of what a search sees now."""
        return rows_of(query.open_reader(query.open_collection(self.settings)))

    def history(self) -> list[history.Entry]:
        return history.entries(self.settings)

    def rollback(self, number: int | None = None) -> rollback.Rollback:
        return rollback.execute(self.settings, number, Silent())

    def chunk(self, size: int) -> None:
        self.settings = replace(self.settings, chunk=replace(self.settings.chunk, size=size))

    def keep(self, count: int) -> None:
        self.settings = replace(self.settings, run=replace(self.settings.run, keep=count))


def rows_of(reader: lance.Reader) -> dict[str, tuple[str, str]]:
    found = reader.text("the " * 3 + "document section " + " ".join(map(str, range(10))), 1_000).to_pylist()
    found += reader.vector(unit(reader.dims), 10_000).to_pylist()
    rows = {row["chunk_id"]: (row["uri"], row["text"]) for row in found}
    assert len(rows) == reader.count()
    return rows


def unit(dims: int) -> Any:
    import numpy as np

    return np.ones(dims, np.float32)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as started:
        yield started


Made = tuple[Path, list[dict[str, tuple[str, str]]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: FakeOllama) -> Made:
    """The folder of three nights, and what each of them published."""
    folder = tmp_path_factory.mktemp("nights")
    world, shown = Nights(folder, server), []
    write_documents(world.docs, files=4, sections=2, paragraphs=2)
    world.run()
    shown.append(world.rows())
    (world.docs / "0.md").write_text((world.docs / "0.md").read_text() + f"\n## More\n\n{sentence('more')}\n")
    (world.docs / "new.md").write_text(f"# New\n\n{sentence('new')}\n")
    (world.docs / "1.md").rename(world.docs / "moved.md")
    (world.docs / "2.md").unlink()
    world.run(max_delete=0.5)
    shown.append(world.rows())
    (world.docs / "3.md").write_text(f"# Other\n\n{sentence('other')}\n")
    world.run()
    shown.append(world.rows())
    return folder, shown


@pytest.fixture
def nights(made: Made, tmp_path: Path, server: FakeOllama) -> Nights:
    """A copy, with the files' times: the snapshots know them, but not their inodes."""
    server.reset()
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    return Nights(tmp_path, server)


def test_history_tells_what_changed(nights: Nights) -> None:
    found = nights.history()
    assert [entry.number for entry in found] == [1, 2, 3]
    assert [entry.published for entry in found] == [False, False, True]
    assert found[0].files is None
    second, third = found[1].files, found[2].files
    assert second is not None
    assert third is not None
    assert second.counts() == {"added": 1, "removed": 1, "changed": 1, "moved": 1, "failed": 0}
    assert third.counts() == {"added": 0, "removed": 0, "changed": 1, "moved": 0, "failed": 0}
    assert {entry.model for entry in found} == {"mxbai-embed-large"}
    assert found[0].at_ms < found[1].at_ms < found[2].at_ms <= time.time() * 1000
    assert [entry.chunks for entry in found] == [entry.vectors for entry in found]


def test_a_rollback_shows_what_was_and_embeds_nothing(nights: Nights, made: Made) -> None:
    server, nights.server = nights.server, None  # type: ignore[assignment]
    nights.settings = replace(nights.settings, ollama=config.OllamaSettings(hosts=("http://127.0.0.1:9",)))
    done = nights.rollback(1)
    assert nights.rows() == made[1][0]
    assert (done.before, done.after, done.snapshot, done.changed) == (3, 1, 4, True)
    assert done.to_json()["embedded_texts"] == 0
    found = nights.history()
    assert [(entry.number, entry.rollback_of) for entry in found] == [(1, 0), (2, 0), (3, 0), (4, 1)]
    assert found[-1].published
    assert found[-1].remarks == ("rollback to 1",)
    first, again = (nights.collection.snapshot(number) for number in (1, 4))
    assert first is not None
    assert again is not None
    assert again.table.equals(first.table)
    assert (again.sources, again.scanned_ns, again.mounts) == (first.sources, first.scanned_ns, first.mounts)
    assert server.texts() == []


def test_a_second_rollback_goes_further_back(nights: Nights, made: Made) -> None:
    assert nights.rollback().after == 2
    assert nights.rows() == made[1][1]
    done = nights.rollback()
    assert (done.before, done.after, done.snapshot) == (4, 1, 5)
    with pytest.raises(errors.UsageError, match="before 1"):
        nights.rollback()
    assert nights.rollback(3).snapshot == 6
    assert nights.rows() == made[1][2]
    assert nights.rollback().after == 2


def test_the_next_run_indexes_the_folder_as_it_is(nights: Nights, made: Made) -> None:
    nights.rollback(2)
    report = nights.run()
    assert report.files["changed"] == 1
    assert nights.server.texts() == []  # nothing is embedded twice: the log has it
    assert nights.rows() == made[1][2]
    assert [entry.rollback_of for entry in nights.history()] == [0, 0, 0, 2, 0]
    assert nights.rollback().after == 4  # what was published before, though it was a rollback itself


def test_a_rollback_does_not_get_around_the_guard_against_deletions(nights: Nights) -> None:
    """Half the folder vanished and somebody let it pass; the index is rolled back, the folder is not mended."""
    (nights.docs / "3.md").write_text(f"# Third\n\n{sentence('third')}\n")
    nights.run()  # in this folder: another one would be a wish, and no accident
    for name in ("0.md", "new.md"):
        (nights.docs / name).unlink()
    nights.run(max_delete=1.0)
    nights.rollback()
    before = nights.rows()
    with pytest.raises(errors.TooManyDeletions):
        nights.run()
    assert nights.rows() == before


def test_what_is_shown_already_is_not_published_again(nights: Nights) -> None:
    before = nights.collection.published()
    done = nights.rollback(3)
    assert (done.changed, done.snapshot) == (False, 3)
    assert nights.collection.published() == before
    assert nights.collection.snapshots() == [1, 2, 3]


def test_a_rollback_without_its_vectors_is_refused(nights: Nights, made: Made) -> None:
    shutil.rmtree(nights.data / "default" / "vectors")
    with pytest.raises(errors.StoreError, match=r"of its \d+ vectors") as caught:
        nights.rollback(1)
    assert "pipeline history" in caught.value.remedy
    assert nights.rows() == made[1][2]
    assert nights.collection.snapshots() == [1, 2, 3]


def test_a_rollback_without_its_documents_or_chunks_is_refused(nights: Nights) -> None:
    chunks = nights.data / "default" / "chunks"
    chunks.rename(nights.data / "aside")
    with pytest.raises(errors.StoreError, match=r"the chunks of \d+ of its \d+ document shards"):
        nights.rollback(1)
    (nights.data / "aside").rename(chunks)
    shutil.rmtree(nights.data / "default" / "documents")
    with pytest.raises(errors.StoreError, match="document shards"):
        nights.rollback(1)


def test_numbers_that_are_not_kept_are_named(nights: Nights) -> None:
    with pytest.raises(errors.UsageError, match="these are: 1, 2, 3"):
        nights.rollback(9)
    with pytest.raises(errors.UsageError, match="Snapshot 7"):
        history.compare(nights.settings, 7, 1)
    with pytest.raises(errors.UsageError, match="before 1"):
        history.compare(nights.settings, after=1)


def test_nothing_published_is_said(tmp_path: Path) -> None:
    settings = config.Settings(data=str(tmp_path))
    for ask in (history.entries, history.compare, lambda given: rollback.execute(given, None, Silent())):
        with pytest.raises(errors.NoIndex):
            ask(settings)
    assert not list(tmp_path.iterdir())


def test_other_chunks_of_the_same_files_get_a_number_of_their_own(nights: Nights, made: Made) -> None:
    nights.chunk(32)
    nights.run()
    smaller = nights.rows()
    assert len(smaller) > len(made[1][2])
    assert [entry.number for entry in nights.history()] == [1, 2, 3, 4]
    assert nights.history()[-1].remarks == ("cut into other chunks",)
    sent = len(nights.server.texts())
    assert nights.rollback().after == 3
    assert nights.rows() == made[1][2]
    nights.run()  # the settings ask for the smaller ones
    assert nights.rows() == smaller
    assert len(nights.server.texts()) == sent


def test_touched_files_are_no_generation(nights: Nights) -> None:
    for path in nights.docs.iterdir():
        path.touch()
    nights.run()
    assert [entry.number for entry in nights.history()] == [1, 2, 3]
    assert nights.collection.snapshots()[-1] > 3
    assert nights.rollback().after == 2


def test_so_many_are_kept_as_is_set(nights: Nights) -> None:
    nights.keep(2)
    for number in range(3):
        (nights.docs / "new.md").write_text(f"# New\n\n{sentence('again', number)}\n")
        nights.run()
    assert [entry.number for entry in nights.history()] == [5, 6]
    assert nights.collection.snapshots() == [5, 6]
    with pytest.raises(errors.UsageError, match="these are: 5, 6"):
        nights.rollback(3)
    assert nights.rollback().after == 5


def test_a_lost_index_is_built_again_by_the_next_run(nights: Nights, made: Made) -> None:
    shutil.rmtree(nights.data / "default" / "index")
    with pytest.raises(errors.NoIndex):
        nights.rows()
    nights.run()
    assert nights.rows() == made[1][2]
    assert nights.server.texts() == []


def test_a_note_without_the_newer_fields_is_read(nights: Nights, made: Made) -> None:
    """As a collection of an earlier version has it: it is searched, and its next run begins the history."""
    folder = nights.data / "default" / "published"
    note = nights.collection.published()
    assert note is not None
    old = {name: getattr(note, name) for name in ("live", "chunks_fp", "vectors_fp", "documents", "chunks", "rows")}
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "00000001.json").write_text(json.dumps(old))
    assert nights.rows() == made[1][2]
    with pytest.raises(errors.NoIndex, match="by number"):
        nights.history()
    found = kept.referenced(nights.collection, nights.settings)
    assert found.vectors == {old["vectors_fp"]}
    nights.run()
    assert [entry.number for entry in nights.history()] == nights.collection.snapshots()[-1:]
    assert nights.server.texts() == []


# -- readers


def test_a_reader_keeps_its_version_while_others_are_published(nights: Nights, made: Made) -> None:
    reader = query.open_reader(query.open_collection(nights.settings))
    for number in (1, 2, 1):
        nights.rollback(number)
        assert rows_of(reader) == made[1][2]


def test_searches_during_a_run_see_one_state_or_the_other(nights: Nights, made: Made) -> None:
    (nights.docs / "0.md").write_text(f"# Written anew\n\n{sentence('anew')}\n")
    stop, seen, failed = threading.Event(), [], []

    def watch() -> None:
        while not stop.is_set():
            try:
                seen.append(nights.rows())
            except Exception as error:
                failed.append(error)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        nights.run()
    finally:
        stop.set()
        watching.join()
    assert failed == []
    after = nights.rows()
    assert after != made[1][2]
    assert seen[0] == made[1][2]
    assert all(rows in (made[1][2], after) for rows in seen)


def test_a_note_and_its_embedder_are_one(nights: Nights) -> None:
    """What is newest in embedders/ is not what serves: a search uses what the publication names."""
    standing = query.open_collection(nights.settings)
    other = dataclasses.replace(standing.spec, model="another", digest="1" * 64)
    with nights.collection.writing():
        nights.collection.set_embedder(other)
    assert query.open_collection(nights.settings).spec == standing.spec
    assert nights.collection.embedder() == standing.spec


# -- what must stay


def test_what_kept_generations_need_is_named(nights: Nights) -> None:
    nights.chunk(32)
    nights.run("chunk")
    found = kept.referenced(nights.collection, nights.settings)
    assert found.snapshots == {1, 2, 3}
    root = nights.data / "default"
    assert set(found.documents) == {path.stem for path in (root / "documents").iterdir()}
    assert set(found.chunks) == {path.name for path in (root / "chunks").iterdir()}
    for chunks_fp, shards in found.chunks.items():
        assert {path.stem for path in (root / "chunks" / chunks_fp).iterdir()} <= shards
    assert found.tables == {path.stem for path in (root / "index").glob("*.lance")}
    (vectors_fp,) = found.vectors
    log = nights.log()
    needed = kept.needed_keys(nights.collection, found, vectors_fp)
    assert log.has(needed).sum() == len(log)  # of three nights all are needed, and the new chunks have none yet
    assert len(needed) > len(log)


def test_a_dropped_generation_needs_nothing(nights: Nights) -> None:
    nights.keep(1)
    found = kept.referenced(nights.collection, nights.settings)
    (vectors_fp,) = found.vectors
    needed = kept.needed_keys(nights.collection, found, vectors_fp)
    assert len(needed) < len(nights.log())
    newest = live.of_snapshot(nights.collection.snapshot())
    assert found.documents == dict(newest)


def spec_of(model: str) -> EmbedderSpec:
    return EmbedderSpec(provider="ollama", model=model, digest=model, dims=4, limit=510, tokenizer=f"of {model}")


def test_a_migration_under_way_needs_what_it_has(nights: Nights) -> None:
    serving = nights.collection.embedder()
    assert serving is not None
    moving = Migration(spec=spec_of("next"), before=serving, state="building", began_ms=1)
    with nights.collection.writing():
        nights.collection.migrations.append(moving)
    found = kept.referenced(nights.collection, nights.settings)
    assert live.vectors_fp(moving.spec) in found.vectors
    assert live.table_name(moving.spec) in found.tables
    assert "of next" in found.tokenizers
    with nights.collection.writing():
        nights.collection.migrations.append(dataclasses.replace(moving, state="aborted"))
    assert live.vectors_fp(moving.spec) not in kept.referenced(nights.collection, nights.settings).vectors


def note_at(hours_ago: float, version: int, vectors_fp: str = "v") -> Published:
    at_ms = int(time.time() * 1000 - hours_ago * HOUR_MS)
    return Published(
        live="l", chunks_fp="c", vectors_fp=vectors_fp, documents=1, chunks=1, rows=1, version=version, at_ms=at_ms
    )


def test_versions_stay_as_long_as_they_may_be_read(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "c")
    assert kept.oldest_version(collection, "v", 1.0) == 0
    with collection.writing():
        for note in (note_at(9, 10), note_at(5, 20), note_at(0.5, 30), note_at(0.1, 40)):
            collection.set_published(note)
    assert kept.oldest_version(collection, "v", 1.0) == 20  # it was in force an hour ago, and replaced since
    assert kept.oldest_version(collection, "v", 6.0) == 10
    assert kept.oldest_version(collection, "v", 24.0) == 10
    assert kept.oldest_version(collection, "v", 0.0) == 40
    assert kept.oldest_version(collection, "other", 1.0) == 0
    with collection.writing():
        collection.set_published(note_at(0.05, 41, "other"))
        collection.set_published(note_at(0.04, 42))
    assert kept.oldest_version(collection, "v", 1.0) == 20
    assert kept.oldest_version(collection, "v", 24.0) == 20  # the fourth of the last
    assert kept.oldest_version(collection, "other", 1.0) == 41
    with collection.writing():
        collection.set_published(note_at(-3, 50))  # the clock was set back since
        collection.set_published(note_at(0, 60))
    assert kept.oldest_version(collection, "v", 1.0) == 40


def test_records_of_what_is_not_kept_are_forgotten(nights: Nights) -> None:
    folder = nights.data / "default" / "published"
    for number in (1, 2, 1, 2, 1):
        nights.rollback(number)
    assert len(list(folder.iterdir())) == 8  # all are younger than an hour
    with nights.collection.writing():
        kept.trim(nights.collection, 7, 0.0)
    assert len(list(folder.iterdir())) == 7
    assert [generation.number for generation in kept.generations(nights.collection, 7)] == [2, 3, 4, 5, 6, 7, 8]
    with nights.collection.writing():
        kept.trim(nights.collection, 2, 0.0)
    assert len(list(folder.iterdir())) == 2
    assert nights.collection.snapshots() == [7, 8]


# -- the commands


def command(nights: Nights, *arguments: str) -> Any:
    return invoke(nights.data.parent, "--data", str(nights.data), *arguments)


def test_the_commands_speak_to_people(nights: Nights) -> None:
    table = command(nights, "history")
    assert table.exit_code == 0
    lines = table.stdout.splitlines()
    assert lines[0].split()[:3] == ["number", "published", "at"]
    assert [line.startswith("*") for line in lines[1:]] == [False, False, True]
    assert "1 added, 1 removed, 1 changed, 1 moved" in lines[2]
    told = command(nights, "diff", "1", "2").stdout.splitlines()
    assert told[:5] == [
        "Snapshot 1 to 2: 1 added, 1 removed, 1 changed, 1 moved.",
        "  + new.md",
        "  - 2.md",
        "  ~ 0.md",
        "  > 1.md is now moved.md",
    ]
    done = command(nights, "rollback")
    assert "Snapshot 2 is published again, as number 4" in done.stdout
    assert "the next run indexes their present state again" in done.stdout
    assert "rollback 3" in done.stderr
    assert "rollback to 2" in command(nights, "history").stdout
    assert command(nights, "rollback", "99").exit_code == 2


def test_the_commands_speak_to_scripts(nights: Nights) -> None:
    found = json.loads(command(nights, "history", "--json").stdout)
    assert [entry["number"] for entry in found["snapshots"]] == [1, 2, 3]
    assert found["snapshots"][1]["files"]["moved"] == 1
    compared = json.loads(command(nights, "diff", "--json").stdout)
    assert (compared["before"], compared["after"]) == (2, 3)
    assert compared["files"]["changed"] == ["3.md"]
    assert compared["texts"]["kept"] > 0
    assert compared["texts"]["added"] == compared["chunks"]["added"] == 1
    back = json.loads(command(nights, "rollback", "1", "--json").stdout)
    assert (back["after"], back["snapshot"], back["embedded_texts"]) == (1, 4, 0)
    refused = command(nights, "rollback", "99", "--json")
    assert json.loads(refused.stdout)["exit_code"] == 2
    assert command(nights, "--collection", "nobody", "history").exit_code == 10
