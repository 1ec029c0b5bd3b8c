"""Nights over one collection without chunks and vectors: what a changed folder leaves due, and what is never dropped.

Files are read by the functions that a worker runs, in this process; everything else is as in a run.
"""

from __future__ import annotations

import asyncio
import errno
import importlib
import os
import shutil
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline import changes, config, errors, executor, left_out, live, run_fates, scan
from pipeline.progress import Silent
from pipeline.stages import ingest
from pipeline.store import Collection, Snapshot
from tests.test_scan import LOST, Device

HOUR_NS = 3_600_000_000_000


def test_the_programs_own_data_is_no_document(tmp_path: Path) -> None:
    """`pipeline run .` where `data` lies too: its reports are JSON and HTML."""
    (tmp_path / "a.md").write_text("text")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "b.md").write_text("text")
    for data in (tmp_path / "data", tmp_path):
        with Collection(data, "default").writing():
            (data / "default" / "report.json").write_text("{}")
        given = config.Settings(data=str(data), source=config.SourceSettings(follow_symlinks=True))
        assert changes.look(given, Collection(data, "default"), [tmp_path]).found.files.uris == ["a.md", "other/b.md"]
        assert left_out.rule(changes.scan_rules(given), tmp_path, f"{data.relative_to(tmp_path)}/default/report.json")
        shutil.rmtree(data / "default")


class AtOnce:
    """A pool whose one worker is this process."""

    def submit(self, function: str, *args: Any, timeout_s: float, **_: Any) -> Future[Any]:
        module, _, name = function.partition(":")
        done: Future[Any] = Future()
        done.set_result(getattr(importlib.import_module(module), name)(*args))
        return done


class World:
    """Source folders, a collection, and the nights over them."""

    def __init__(self, tmp_path: Path, *names: str) -> None:
        self.folders = [tmp_path / name for name in names or ("docs",)]
        self.docs = self.folders[0]
        for folder in self.folders:
            folder.mkdir()
        self.settings = config.Settings(data=str(tmp_path / "data"))
        self.collection = Collection(tmp_path / "data", "default")
        self.opened: list[str] = []
        self.failures: list[dict[str, Any]] = []
        self.notes: list[str] = []

    def source(self, **options: Any) -> None:
        self.settings = replace(self.settings, source=replace(self.settings.source, **options))

    def write(self, *names: str, folder: Path | None = None) -> None:
        """Files with a text of their own, older than any clock's granularity."""
        for name in names:
            path = (folder or self.docs) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"The text of {name}.")
            age(path)

    def look(self, **options: Any) -> changes.Scanned:
        return changes.look(self.settings, self.collection, self.folders, **options)

    def night(self, max_delete: float = 0.2, reached: int | None = None, **options: Any) -> dict[str, int]:
        """Look, read what is due (the first `reached` files of it), and commit; returns the files' fates."""
        self.settings = replace(self.settings, run=replace(self.settings.run, max_delete=max_delete))
        with self.collection.writing():
            scanned = self.look(**options)
            due = scanned.plan.due[:reached]
            done = asyncio.run(executor.ingest_files(self._context(), scanned.found.files, due, asyncio.Queue()))
            self.opened = [item.uri for item in due]
            self.failures = done.rejects
            fates, self.notes = changes.commit(self.collection, scanned, done, max_delete)
        return {fate: count for fate, count in fates.items() if count}

    def _context(self) -> executor.Context:
        return executor.Context(
            collection=self.collection,
            settings=self.settings,
            options=changes.reader_options(self.settings),
            pool=AtOnce(),  # type: ignore[arg-type]
            progress=Silent(),
        )

    @property
    def snapshot(self) -> Snapshot:
        found = self.collection.snapshot()
        assert found is not None
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["uri"]: row for row in self.snapshot.table.to_pylist()}

    def live(self) -> list[str]:
        """The files of which a document is searchable."""
        return sorted(uri for uri, row in self.rows().items() if row["doc_id"])

    def failing(self) -> list[tuple[str, str]]:
        """What a report names as failed."""
        found = live.failures(self.collection, self.settings, None, self.snapshot)
        return [(failure.uri, failure.kind) for failure in found]


def age(path: Path, hours: int = 10) -> None:
    """Make a file, or a whole folder's files, some hours old."""
    for file in [path] if path.is_file() else path.rglob("*"):
        status = file.lstat()
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - hours * HOUR_NS), follow_symlinks=False)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.write(*(f"{n}.md" for n in range(6)), "sub/a.md", "sub/b.md")
    assert made.night() == {"new": 8}
    return made


# -- what is opened


def test_an_unchanged_night_opens_nothing_and_writes_nothing(world: World) -> None:
    assert world.night() == {"unchanged": 8}
    assert (world.opened, world.snapshot.number) == ([], 1)


def test_touched_files_are_hashed_once(world: World) -> None:
    for path in world.docs.rglob("*.md"):
        os.utime(path, ns=(1, 1))
    before = world.rows()
    assert world.night() == {"unchanged": 8}
    assert (len(world.opened), world.snapshot.number) == (8, 2)
    assert world.rows() == {uri: row | {"mtime_ns": 1} for uri, row in before.items()}
    world.night()
    assert (world.opened, world.snapshot.number) == ([], 2)


def test_a_young_file_is_hashed_until_it_is_old_enough(world: World) -> None:
    path = world.docs / "0.md"
    path.write_text("A text of tonight.")
    assert world.night() == {"changed": 1, "unchanged": 7}
    assert world.night() == {"unchanged": 8}
    assert (world.opened, world.snapshot.number) == (["0.md"], 2), "still young: no new snapshot either"
    status = path.stat()
    path.write_text("Another of tonight")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert world.night() == {"changed": 1, "unchanged": 7}, "an edit that shows in nothing but the text"


def test_a_new_text_under_an_old_name_is_found_by_its_inode(world: World) -> None:
    status = (world.docs / "0.md").stat()
    (world.docs / "new").write_text("THE TEXT OF 0.MD.")
    (world.docs / "new").rename(world.docs / "0.md")
    os.utime(world.docs / "0.md", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert world.night() == {"changed": 1, "unchanged": 7}


def test_moved_copied_and_swapped(world: World) -> None:
    (world.docs / "0.md").rename(world.docs / "moved.md")
    shutil.copy2(world.docs / "1.md", world.docs / "copied.md")
    (world.docs / "2.md").rename(world.docs / "third")
    (world.docs / "3.md").rename(world.docs / "2.md")
    (world.docs / "third").rename(world.docs / "3.md")
    assert world.night() == {"moved": 1, "new": 1, "changed": 2, "unchanged": 5}
    assert world.opened == ["2.md", "3.md", "copied.md", "moved.md"]


def test_what_changed_is_named(world: World) -> None:
    before = world.snapshot
    (world.docs / "0.md").rename(world.docs / "moved.md")
    (world.docs / "1.md").write_text("Edited.")
    (world.docs / "2.md").unlink()
    os.utime(world.docs / "3.md")
    world.write("new.md")
    world.night()
    assert run_fates.named(before, world.snapshot) == {
        "new": ("new.md",),
        "changed": ("1.md",),
        "moved": ("0.md → moved.md",),
        "deleted": ("2.md",),
    }
    assert run_fates.named(world.snapshot, world.snapshot) == {}


def test_a_newer_reader_that_reads_the_same_writes_no_shard(world: World) -> None:
    old = ingest.snapshot_table({**row, "reader": "markdown/0"} for row in world.rows().values())
    world.collection.write_snapshot(old, world.snapshot.sources, world.snapshot.scanned_ns)
    shards = {row["shard"] for row in world.rows().values()}
    assert world.night() == {"unchanged": 8}
    assert len(world.opened) == 8
    assert {row["shard"] for row in world.rows().values()} == shards
    world.night()
    assert world.opened == []


# -- rules that change


def test_a_changed_ignore_file_takes_effect_the_same_night(world: World) -> None:
    rules = world.docs / ".pipelineignore"
    rules.write_text("0.md\n")
    assert world.night() == {"deleted": 1, "unchanged": 7}
    assert "0.md" not in world.live()
    rules.write_text("1.md\n")
    assert world.night() == {"new": 1, "deleted": 1, "unchanged": 6}
    rules.unlink()
    assert world.night() == {"new": 1, "unchanged": 7}
    assert len(world.live()) == 8


def test_what_is_newly_left_out_counts_as_deleted(world: World) -> None:
    (world.docs / ".pipelineignore").write_text("*.md\n!sub/**\n")
    with pytest.raises(errors.TooManyDeletions, match=r"6 of 8 files .* or left out now"):
        world.night()
    assert len(world.live()) == 8
    assert world.night(max_delete=1.0) == {"deleted": 6, "unchanged": 2}


def test_settings_that_leave_out_and_take_in(world: World) -> None:
    world.write(".hidden.md")
    world.source(hidden=True, exclude=("5.md",))
    assert world.night() == {"new": 1, "deleted": 1, "unchanged": 7}
    world.source(hidden=False, exclude=())
    assert world.night() == {"new": 1, "deleted": 1, "unchanged": 7}


# -- folders and devices that go


@pytest.mark.parametrize("code", LOST)
def test_a_device_lost_in_the_walk_costs_nothing_that_was_known(world: World, code: int) -> None:
    world.write("sub/new.md")
    device = Device(code, half=["/sub"], dead=["0.md"])
    assert world.night(max_delete=0.01, list_folder=device) == {"unchanged": 7, "failed": 2}
    assert len(world.live()) == 8
    assert world.failing() == [("0.md", "io"), ("sub", "io")]
    assert world.night(list_folder=device) == {"unchanged": 7, "failed": 2}
    assert world.collection.rejects().num_rows == 2, "recorded once"
    assert world.night() == {"new": 1, "unchanged": 8}
    assert (world.opened, world.failing()) == (["0.md", "sub/new.md"], [])


@pytest.mark.skipif(sys.platform != "linux", reason="a file that is listed and whose reading fails: /proc/self/mem")
def test_a_file_that_cannot_be_read_keeps_its_document(world: World) -> None:
    world.source(follow_symlinks=True)
    (world.docs / "0.md").unlink()
    (world.docs / "0.md").symlink_to("/proc/self/mem")  # a regular file; reading its first byte is EIO
    assert world.night() == {"unchanged": 7, "failed": 1}
    assert (world.failing(), len(world.live())) == ([("0.md", "io")], 8)
    (world.docs / "0.md").unlink()
    world.write("0.md")
    assert world.night() == {"unchanged": 8}
    assert world.failing() == []


def test_a_source_that_is_lost_or_empty_changes_nothing(world: World) -> None:
    for code in LOST:
        with pytest.raises(errors.SourceError):
            world.night(list_folder=Device(code, closed=["/docs"]))
    world.docs.rename(world.docs.with_name("elsewhere"))
    with pytest.raises(errors.SourceError, match="does not exist"):
        world.night()
    world.docs.mkdir()
    with pytest.raises(errors.TooManyDeletions, match="8 of 8") as caught:
        world.night()
    assert (caught.value.exit_code, "mount it" in caught.value.remedy) == (1, True)
    assert (world.snapshot.number, len(world.live())) == (1, 8)


def test_one_of_several_sources_is_not_lost_for_being_small(tmp_path: Path) -> None:
    world = World(tmp_path, "work", "nas")
    world.write(*(f"{n}.md" for n in range(20)))
    world.write("a.md", "b.md", folder=world.folders[1])
    world.night()
    for name in ("a.md", "b.md"):
        (world.folders[1] / name).unlink()
    with pytest.raises(errors.TooManyDeletions, match=r"None of the 2 files of \S+/nas is there"):
        world.night()
    assert len(world.live()) == 22
    world.write("a.md", folder=world.folders[1])
    assert world.night() == {"deleted": 1, "unchanged": 21}
    (world.folders[1] / "a.md").rename(world.docs / "a.md")
    assert world.night() == {"moved": 1, "unchanged": 20}, "moved to the other source, not lost"
    shutil.rmtree(world.folders[1])
    with pytest.raises(errors.SourceError, match="nas does not exist"):
        world.night()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_file_system_within_a_source_that_is_not_mounted(world: World) -> None:
    if Path("/dev/shm").stat().st_dev == world.docs.stat().st_dev:
        pytest.skip("it is the same one")
    disk = Path("/dev/shm", f"pipeline-changes-{os.getpid()}")
    world.source(follow_symlinks=True)
    try:
        world.write("x.md", folder=disk)
        (world.docs / "disk").symlink_to(disk)
        assert world.night() == {"new": 1, "unchanged": 8}
        assert world.snapshot.mounts == ("disk/",)
        (world.docs / "disk").unlink()
        (world.docs / "disk").mkdir()
        for _ in range(2):
            assert world.night() == {"unchanged": 9, "failed": 1}
            assert world.failing() == [("disk", "unmounted")]
        (world.docs / "disk").rmdir()
        assert world.night() == {"unchanged": 9, "failed": 1}
        (world.docs / "disk").symlink_to(disk)
        assert world.night() == {"unchanged": 9}
        assert world.failing() == []
        (world.docs / "disk").unlink()
        assert world.night(max_delete=1.0) == {"deleted": 1, "unchanged": 8}, "asked for"
        assert world.snapshot.mounts == ()
    finally:
        shutil.rmtree(disk)


def test_links_that_lead_nowhere_count_as_deleted(world: World, tmp_path: Path) -> None:
    world.source(follow_symlinks=True)
    world.write("x.md", folder=tmp_path / "outside")
    (world.docs / "link.md").symlink_to(tmp_path / "outside" / "x.md")
    world.night()
    (tmp_path / "outside" / "x.md").unlink()
    assert world.night() == {"deleted": 1, "unchanged": 8, "failed": 1}
    assert (world.failing(), "link.md" in world.live()) == ([("link.md", "vanished")], False)


# -- a run that did not get round to everything


def test_what_was_not_reached_stays_as_it_was_and_is_due_again(world: World) -> None:
    before = world.rows()
    for name in ("0.md", "1.md"):
        (world.docs / name).write_text("Written tonight.")
    world.write("new.md")
    assert world.night(reached=1) == {"changed": 1, "unchanged": 7}
    assert world.opened == ["0.md"]
    assert world.rows()["1.md"]["doc_id"] == before["1.md"]["doc_id"]
    assert "new.md" not in world.rows()
    assert world.night() == {"changed": 1, "new": 1, "unchanged": 7}
    assert {"1.md", "new.md"} <= set(world.opened)


# -- any night after any other

NAMES = [f"{folder}{name}.md" for folder in ("", "one/", "two/deep/") for name in "abc"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("write", "touch", "delete", "move", "copy", "swap", "empty", "ignore", "lose")),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
    ),
    max_size=6,
)


def change(world: World, step: str, one: Path, other: Path) -> Device | None:
    """Do one thing to the folder; the device to look through, if that is what changed."""
    if step in ("write", "empty"):
        one.parent.mkdir(parents=True, exist_ok=True)
        one.write_text(f"{one.name} {os.urandom(4).hex()}" if step == "write" else "")
    elif step == "ignore":
        (world.docs / ".pipelineignore").write_text(f"/{one.relative_to(world.docs)}\n")
    elif step == "lose":
        return Device(errno.EIO, half=[f"/{one.parent.name}"] if one.parent != world.docs else ())
    elif not one.exists():
        return None
    elif step == "touch":
        os.utime(one)
    elif step == "delete":
        one.unlink()
    elif step == "swap" and one != other and other.exists():
        third = one.with_name("third")
        one.rename(third)
        other.rename(one)
        third.rename(other)
    elif step in ("move", "copy") and one != other:
        other.parent.mkdir(parents=True, exist_ok=True)
        (one.rename if step == "move" else lambda to: shutil.copyfile(one, to))(other)
    return None


@settings(max_examples=20, deadline=None)
@given(nights=st.lists(STEPS, min_size=1, max_size=3))
def test_after_any_nights_the_snapshot_is_that_of_a_first_night(
    tmp_path_factory: pytest.TempPathFactory, nights: list[list[tuple[str, str, str]]]
) -> None:
    """Whatever was done, and whatever could not be seen for a while: once all is seen, nothing tells the history."""
    root = tmp_path_factory.mktemp("world")
    world = World(root)
    world.write(*NAMES[:5])
    for steps in nights:
        known = world.live() if world.collection.exists and world.collection.snapshots() else []
        devices = [change(world, step, world.docs / one, world.docs / other) for step, one, other in steps]
        device = next((found for found in devices if found is not None), None)
        if device is not None:
            world.night(max_delete=1.0, list_folder=device)
            lost = tuple(f"{uri}/" for uri, _ in world.failing() if not uri.endswith(".md"))
            assert [uri for uri in known if uri.startswith(lost or ("\0",))] == [
                uri for uri in world.live() if uri.startswith(lost or ("\0",))
            ]
        world.night(max_delete=1.0)
    (root / "fresh").mkdir()
    fresh = World(root / "fresh")
    fresh.folders = world.folders
    fresh.night()
    kept = ("uri", "size", "mtime_ns", "inode", "content_hash", "doc_id", "doc_hash", "reader", "status")
    assert world.snapshot.table.select(list(kept)).equals(fresh.snapshot.table.select(list(kept)))
    assert [failure[0] for failure in world.failing()] == [failure[0] for failure in fresh.failing()]
    assert isinstance(world.look().found, scan.Scan)
