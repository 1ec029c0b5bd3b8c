"""Documents inside files: archives, mails with attachments, mailboxes, through nights over one collection.

Files are read by the functions that a worker runs, in this process, but where a worker has to die.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline import changes, errors, executor, run_fates, schema, tasks
from pipeline.deadline import TimeLimit
from pipeline.models import tokens
from pipeline.stages import chunk, ingest
from pipeline.store import Collection
from pipeline.workers import WorkerPool
from tests import test_ingest as nights
from tests.readers.boxes import gzipped, mail, mailbox, message, tarred, zipped
from tests.test_changes import AtOnce, World, age


class Boxes(World):
    """A world with archives read, in which a test also writes bytes."""

    def __init__(self, tmp_path: Path, *names: str) -> None:
        super().__init__(tmp_path, *names)
        self.readers(archives=True)

    def readers(self, **options: Any) -> None:
        self.settings = replace(self.settings, readers=replace(self.settings.readers, **options))

    def put(self, name: str, data: bytes) -> None:
        path = self.docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        age(path)

    def texts(self) -> dict[str, str]:
        """The text of each document that is live, by uri."""
        found: dict[str, str] = {}
        for row in self.snapshot.table.to_pylist():
            if row["doc_id"]:
                table = self.collection.read_documents(row["shard"])
                (text,) = table.filter(pc.equal(table["doc_id"], pa.scalar(row["doc_id"])))["text"].to_pylist()
                found[row["uri"]] = str(text)
        return found

    def shards(self) -> set[str]:
        return {path.name for path in (self.collection.root / "documents").glob("*")}


@pytest.fixture
def world(tmp_path: Path) -> Boxes:
    made = Boxes(tmp_path)
    made.write(*(f"{n}.md" for n in range(4)))
    made.put("box.zip", zipped({"a.md": "# A\n\nText a.", "b/c.txt": "Text c.", "picture.png": b"\x89PNG\r\n\x1a\n"}))
    made.put("mail.eml", mail("Lamp", "About a lamp.", {"report.md": "The report."}))
    assert made.night() == {"new": 8}
    return made


INSIDE = ["box.zip!/a.md", "box.zip!/b/c.txt", "mail.eml!/report.md"]


# -- what is there


def test_each_document_has_a_row_that_names_its_file(world: Boxes) -> None:
    rows = world.rows()
    assert [uri for uri, row in rows.items() if row["container"]] == INSIDE
    assert rows["box.zip!/a.md"]["container"] == rows["box.zip!/b/c.txt"]["container"] == "box.zip"
    box, mail_ = rows["box.zip"], rows["mail.eml"]
    assert (box["status"], box["doc_id"], box["reader"]) == ("ok", None, "archive/1")
    assert (mail_["doc_id"] is not None, mail_["reader"]) == (True, "eml/3+inner/1")
    for uri in INSIDE[:2]:
        assert {name: rows[uri][name] for name in ("size", "mtime_ns", "inode")} == {
            name: box[name] for name in ("size", "mtime_ns", "inode")
        }
    assert world.texts()["box.zip!/b/c.txt"] == "Text c."
    assert "Attachments: report.md" in world.texts()["mail.eml"]
    assert world.notes == ["1 files of unknown kinds in archives and mails were left out."]


def test_an_unchanged_file_is_not_opened(world: Boxes) -> None:
    assert world.night() == {"unchanged": 8}
    assert (world.opened, world.snapshot.number) == ([], 1)


def test_a_touched_file_is_hashed_and_nothing_in_it_is_read(world: Boxes) -> None:
    before = world.rows()
    os.utime(world.docs / "box.zip", ns=(1, 1))
    assert world.night() == {"unchanged": 8}
    assert (world.opened, world.failures) == (["box.zip"], [])
    after = world.rows()
    assert {uri for uri in after if after[uri] != before[uri]} == {"box.zip", *INSIDE[:2]}
    assert all(after[uri] == before[uri] | {"mtime_ns": 1} for uri in ("box.zip", *INSIDE[:2]))


def test_a_changed_file_keeps_what_is_the_same_in_it(world: Boxes) -> None:
    before, shards = world.rows(), world.shards()
    world.put("box.zip", zipped({"a.md": "# A\n\nText a.", "b/c.txt": "Another.", "new.md": "New."}))
    assert world.night() == {"new": 1, "changed": 1, "unchanged": 7}
    after = world.rows()
    same = ("doc_id", "doc_hash", "shard", "content_hash")
    assert [before["box.zip!/a.md"][name] for name in same] == [after["box.zip!/a.md"][name] for name in same]
    assert after["box.zip!/b/c.txt"]["doc_id"] != before["box.zip!/b/c.txt"]["doc_id"]
    assert len(world.shards() - shards) == 1, "one shard, of the two documents that are new"
    world.put("box.zip", zipped({"new.md": "New."}))
    assert world.night(max_delete=1.0) == {"deleted": 2, "unchanged": 7}


def test_a_moved_file_moves_what_is_in_it(world: Boxes) -> None:
    before = world.snapshot
    (world.docs / "sub").mkdir()
    (world.docs / "box.zip").rename(world.docs / "sub" / "case.zip")
    assert world.night() == {"moved": 2, "unchanged": 6}
    assert run_fates.named(before, world.snapshot) == {
        "moved": ("box.zip!/a.md → sub/case.zip!/a.md", "box.zip!/b/c.txt → sub/case.zip!/b/c.txt"),
    }
    (world.docs / "a.md").write_text("# A\n\nText a.")
    world.put("sub/case.zip", zipped({"b/c.txt": "Text c."}))
    assert world.night() == {"moved": 1, "unchanged": 7}, "taken out of the archive"


def test_a_deleted_file_deletes_what_is_in_it(world: Boxes) -> None:
    (world.docs / "box.zip").unlink()
    assert world.night() == {"deleted": 2, "unchanged": 6}, "one file of six: more than a fifth, and only one"
    (world.docs / "mail.eml").unlink()
    assert world.night() == {"deleted": 2, "unchanged": 4}
    assert [row["container"] for row in world.rows().values()] == [None] * 4


# -- what must not get lost


def test_the_guard_counts_documents(world: Boxes) -> None:
    world.put("box.zip", zipped({"other.md": "Text."}))
    with pytest.raises(errors.TooManyDeletions, match="2 of 8 documents are no longer"):
        world.night()
    assert len(world.live()) == 8
    for name in ("box.zip", "mail.eml"):
        (world.docs / name).unlink()
    with pytest.raises(errors.TooManyDeletions, match="4 of 8 documents"):
        world.night()


def test_files_put_into_an_archive_are_not_lost(world: Boxes) -> None:
    texts = {f"{n}.md": (world.docs / f"{n}.md").read_bytes() for n in range(4)}
    for name in texts:
        (world.docs / name).unlink()
    world.put("all.zip", zipped(texts))
    changes.early_guard(world.look(), 0.01)
    assert world.night(max_delete=0.01) == {"moved": 4, "unchanged": 4}


def test_a_file_that_cannot_be_looked_at_keeps_what_is_in_it(world: Boxes) -> None:
    before = world.rows()
    scanned = world.look()
    (world.docs / "box.zip").rename(world.docs / "away")  # between the scan and the reading
    os.utime(world.docs / "mail.eml")
    scanned = world.look(retry=True)
    files, due = scanned.found.files, scanned.plan.due
    (world.docs / "away").rename(world.docs / "box.zip")
    assert [item.uri for item in due] == ["mail.eml"]
    assert [row["uri"] for row in scanned.plan.gone] == INSIDE[:2]
    os.utime(world.docs / "box.zip")
    scanned = world.look()
    (world.docs / "box.zip").unlink()
    with world.collection.writing():
        done = asyncio.run(
            executor.ingest_files(world._context(), scanned.found.files, scanned.plan.due, asyncio.Queue())
        )
        fates, _ = changes.commit(world.collection, scanned, done, 0.01)
    assert (fates["failed"], fates["unchanged"], fates["deleted"]) == (1, 8, 0)
    after = world.rows()
    assert after["box.zip"]["status"] == "vanished"
    assert [after[uri] for uri in INSIDE[:2]] == [before[uri] for uri in INSIDE[:2]]
    assert files is not None


def test_a_file_below_an_unreadable_folder_keeps_what_is_in_it(tmp_path: Path) -> None:
    from tests.test_scan import LOST, Device

    world = Boxes(tmp_path)
    world.write("a.md")
    world.put("sub/box.zip", zipped({"a.md": "Text."}))
    world.night()
    device = Device(LOST[0], half=["/sub"])
    assert world.night(max_delete=0.01, list_folder=device) == {"unchanged": 2, "failed": 1}
    assert "sub/box.zip!/a.md" in world.live()
    device = Device(LOST[0], dead=["box.zip"])
    assert world.night(max_delete=0.01, list_folder=device) == {"unchanged": 2, "failed": 1}
    assert (world.rows()["sub/box.zip"]["status"], "sub/box.zip!/a.md" in world.live()) == ("io", True)
    assert world.night() == {"unchanged": 2}
    assert world.failing() == []


def test_what_was_not_reached_stays_as_it_was(world: Boxes) -> None:
    before = world.rows()
    world.put("box.zip", zipped({"a.md": "Other."}))
    world.put("new.zip", zipped({"a.md": "New."}))
    assert world.night(reached=0) == {"unchanged": 8}
    assert {uri: world.rows()[uri] for uri in INSIDE} == {uri: before[uri] for uri in INSIDE}
    assert world.night(max_delete=1.0) == {"changed": 1, "new": 1, "deleted": 1, "unchanged": 6}


# -- what is wrong with one


def test_a_bad_document_costs_itself(world: Boxes) -> None:
    world.put("bad.zip", zipped({"a.md": "Good.", "b.pdf": b"%PDF-1.4 nothing", "c.md": "", "d.md": "Good too."}))
    assert world.night() == {"new": 2, "unchanged": 8, "failed": 2}
    assert world.failing() == [("bad.zip!/b.pdf", "damaged"), ("bad.zip!/c.md", "empty")]
    assert {"bad.zip!/a.md", "bad.zip!/d.md"} <= set(world.live())
    count = world.collection.rejects().num_rows
    assert world.night() == {"unchanged": 10, "failed": 2}
    assert world.opened == []
    assert world.night(retry=True) == {"unchanged": 10, "failed": 2}
    assert (world.opened, world.collection.rejects().num_rows) == (["bad.zip"], count), "said once"


def test_a_bad_file_is_a_failure_of_its_own(world: Boxes) -> None:
    world.put("bad.zip", zipped({"a.md": "Text."})[:40])
    assert world.night() == {"unchanged": 8, "failed": 1}
    assert world.failing() == [("bad.zip", "damaged")]
    world.put("bad.zip", zipped({"a.md": "Text."}))
    assert world.night() == {"new": 1, "unchanged": 8}
    assert world.failing() == []


def test_documents_inside_are_named_once_and_safely(tmp_path: Path) -> None:
    world = Boxes(tmp_path)
    names = ["../../up.md", "/abs.md", "C:\\dir\\win.md", "a.md", "a.md", "a (2).md", "x\x07y\n.md", "e!/f.md", ".h.md"]
    with pytest.warns(UserWarning, match="Duplicate name"):
        world.put("box.zip", zipped([(name, f"Text {n}.") for n, name in enumerate(names)]))
    world.night()
    found = ["a (2) (2).md", "a (2).md", "a.md", "abs.md", "dir/win.md", "e_/f.md", "up.md", "x_y_.md"]
    assert world.live() == [f"box.zip!/{name}" for name in found]
    assert world.texts()["box.zip!/a (2).md"] == "Text 4."
    assert sorted(path.name for path in tmp_path.rglob("*.md")) == [], "nothing is unpacked to the disk"


# -- settings and readers


def test_archives_are_read_by_choice(world: Boxes) -> None:
    world.readers(archives=False)
    assert world.night(max_delete=1.0) == {"deleted": 2, "unchanged": 6}
    assert "box.zip" not in world.rows()
    assert world.notes == ["1 files of unknown kinds were left out."]
    world.readers(archives=True)
    assert world.night() == {"new": 2, "unchanged": 6}


def test_attachments_may_be_left_out(world: Boxes) -> None:
    world.put("in.mbox", mailbox(mail("One"), mail("Two", attached={"two.txt": "Inside."})))
    assert world.night() == {"new": 3, "unchanged": 8}
    assert world.live()[6:9] == ["in.mbox!/0001.eml", "in.mbox!/0002.eml", "in.mbox!/0002.eml!/two.txt"]
    world.readers(attachments=False)
    assert world.night(max_delete=1.0) == {"changed": 1, "deleted": 4, "unchanged": 7}
    assert world.opened == ["in.mbox", "mail.eml"]
    assert [uri for uri in world.live() if "eml" in uri or "mbox" in uri] == ["in.mbox", "mail.eml"]
    world.readers(attachments=True)
    assert world.night(max_delete=0.01) == {"new": 4, "unchanged": 7}, (
        "a mailbox that becomes its messages loses nothing"
    )


def test_a_newer_reader_of_what_is_inside_opens_the_file(world: Boxes) -> None:
    old = [row | {"reader": "markdown/0"} if row["uri"] == INSIDE[0] else row for row in world.rows().values()]
    table = pa.Table.from_pylist(old, schema=schema.SNAPSHOT)
    world.collection.write_snapshot(table, world.snapshot.sources, world.snapshot.scanned_ns)
    shards = world.shards()
    assert world.night() == {"unchanged": 8}
    assert (world.opened, world.shards()) == (["box.zip"], shards)
    assert world.rows()[INSIDE[0]]["reader"] == "markdown/1"
    world.night()
    assert world.opened == []


def test_a_snapshot_without_the_column_is_read(world: Boxes) -> None:
    path = world.collection.root / "snapshots" / "00000001.parquet"
    table = pq.read_table(path)
    before = table.filter(pc.is_null(table["container"])).drop_columns(["container"])
    path.unlink()
    pq.write_table(before, path)
    assert world.snapshot.table["container"].null_count == world.snapshot.table.num_rows
    assert world.snapshot.table.schema.equals(schema.SNAPSHOT)
    assert world.night() == {"unchanged": 5}, "what an older version has read holds"


# -- mails


def test_a_mailbox_that_grows_reads_on(tmp_path: Path) -> None:
    world = Boxes(tmp_path)
    letters = [mail(f"Subject {n}", f"Body {n}.") for n in range(3)]
    world.put("in.mbox", mailbox(*letters))
    world.night()
    before = world.rows()
    world.put("in.mbox", mailbox(*letters, mail("Subject 3", "Body 3.", {"x.txt": "Attached."})))
    assert world.night() == {"new": 2, "unchanged": 3}
    after = world.rows()
    for n in (1, 2, 3):
        uri = f"in.mbox!/{n:04}.eml"
        assert after[uri]["doc_id"] == before[uri]["doc_id"]
    assert "in.mbox!/0004.eml!/x.txt" in after


def test_mails_within_mails_and_archives_within_archives(tmp_path: Path) -> None:
    world = Boxes(tmp_path)
    inner = message("Inner", "Of the inner one.", {"deep.txt": "Deep."})
    world.put("a.eml", mail("Outer", "Of the outer one.", {"x": inner}))
    nested = zipped(
        {
            "one.md": "1",
            "2.zip": zipped({"two.md": "2", "3.zip": zipped({"three.md": "3", "4.zip": zipped({"four.md": "4"})})}),
        }
    )
    world.put("nest.zip", nested)
    world.night()
    assert world.live() == [
        "a.eml",
        "a.eml!/Inner.eml",
        "a.eml!/Inner.eml!/deep.txt",
        "nest.zip!/2.zip!/3.zip!/three.md",
        "nest.zip!/2.zip!/two.md",
        "nest.zip!/one.md",
    ]
    assert world.failing() == [("nest.zip!/2.zip!/3.zip!/4.zip", "too_deep")]


# -- workers that do not come back


class Perilous(AtOnce):
    """A pool in which a document that holds `word` costs its worker: there is no answer, only the note. Members are
    named by their place in the file.
    """

    def __init__(self, error: type[errors.WorkerError], word: str) -> None:
        self._error = error
        self._word = word
        self.calls = 0

    def submit(self, function: str, *args: Any, timeout_s: float, **_: Any) -> Future[Any]:
        self.calls += 1
        done: Future[Any] = Future()
        answer = super().submit(function, *args, timeout_s=timeout_s).result()
        note: Path | None = args[5]
        for read in (answer, *answer.inside):
            if read.row is not None and self._word in read.row["text"]:
                path = read.seen.uri.partition("!/")[2]
                if note is not None:
                    note.write_text(f"{int(Path(path).stem)} 0 {path}\n" if path else "")
                done.set_exception(self._error("it did not come back"))
                return done
        done.set_result(answer)
        return done


def night_with(world: Boxes, pool: AtOnce | WorkerPool, max_delete: float = 0.2) -> dict[str, int]:
    """As World.night, with another pool."""
    context = world._context()
    with world.collection.writing():
        scanned = world.look()
        files, due = scanned.found.files, scanned.plan.due
        peril = executor.Context(
            collection=context.collection,
            settings=context.settings,
            options=context.options,
            pool=pool,  # type: ignore[arg-type]
            progress=context.progress,
        )
        done = asyncio.run(executor.ingest_files(peril, files, due, asyncio.Queue()))
        fates, _ = changes.commit(world.collection, scanned, done, max_delete)
    return {fate: count for fate, count in fates.items() if count}


def test_a_document_that_costs_its_worker_costs_itself(world: Boxes) -> None:
    world.put("new.zip", zipped({"0.md": "Good.", "1.md": "POISON", "2.md": "Good too.", "3.md": "POISON again"}))
    pool = Perilous(errors.WorkerTimeout, "POISON")
    assert night_with(world, pool) == {"new": 2, "unchanged": 8, "failed": 2}
    assert pool.calls == 3
    assert world.failing() == [("new.zip!/1.md", "timeout"), ("new.zip!/3.md", "timeout")]
    assert {"new.zip!/0.md", "new.zip!/2.md"} <= set(world.live())


def test_a_file_of_nothing_but_such_documents_is_given_up(world: Boxes) -> None:
    world.put("new.zip", zipped({f"{n:03}.md": "POISON" for n in range(100)}))
    pool = Perilous(errors.WorkerCrash, "POISON")
    assert night_with(world, pool) == {"unchanged": 8, "failed": 21}
    assert world.rows()["new.zip"]["status"] == "crash"


def test_a_file_that_costs_its_worker_keeps_what_was_in_it(world: Boxes) -> None:
    """A mail whose own text is the poison: what was attached to it, and what is in an archive, stays."""
    world.put("mail.eml", mail("Lamp", "POISON", {"report.md": "Another report."}))
    assert night_with(world, Perilous(errors.WorkerMemory, "POISON")) == {"unchanged": 7, "failed": 1}
    assert world.failing() == [("mail.eml", "memory")]
    assert "mail.eml!/report.md" in world.live()


def test_a_document_that_hangs_a_worker(tmp_path: Path) -> None:
    """lxml takes minutes for an element of 200,000 attributes; a real worker is killed after a second."""
    world = Boxes(tmp_path)
    world.readers(timeout_s=1.0)
    hanging = b"<html><p " + b" ".join(b"a%d=1" % n for n in range(200_000)) + b">x</p></html>"
    world.put("box.zip", zipped({"a.md": "Before it.", "b.html": hanging, "c.md": "After it."}))
    with WorkerPool(1, memory_mb=1024) as pool:
        assert night_with(world, pool) == {"new": 2, "failed": 1}
    assert world.failing() == [("box.zip!/b.html", "timeout")]


def test_a_large_archive_is_read_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With turns of 100 characters: the same documents, shards and order as in one."""
    letters = mailbox(*(mail(f"S {n}", "Body. " * 9, {f"{n}.txt": f"Note {n}. " * 5}) for n in range(5)))
    members = {f"{n:02}.md": f"Text {n}. " * 8 for n in range(12)} | {"in.mbox": letters, "z.md": "Last."}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = Boxes(tmp_path / "whole")
    data = tarred(members, mode="w:gz")
    whole.put("box.tar.gz", data)
    whole.night()
    monkeypatch.setattr(tasks, "TURN_CHARS", 100)
    parts = Boxes(tmp_path / "parts")
    parts.put("box.tar.gz", data)
    parts.night()
    names = ["uri", "doc_id", "doc_hash", "shard", "status", "container", "content_hash"]
    assert parts.snapshot.table.select(names).equals(whole.snapshot.table.select(names))
    assert len(whole.live()) == 23
    assert whole.live()[12] == "box.tar.gz!/in.mbox!/0001.eml"


class Calls:
    """A deadline that is over after it was asked so many times."""

    def __init__(self, calls: int) -> None:
        self._calls = calls

    def over(self) -> bool:
        self._calls -= 1
        return self._calls < 0

    def left(self) -> None:
        return None


def test_a_file_that_is_not_read_to_its_end_in_time_stays_as_it_was(
    world: Boxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what was read of it only the shards are kept: the next night finds it due, and those there."""
    monkeypatch.setattr(tasks, "TURN_CHARS", 10)
    before = world.rows()
    world.put("box.zip", zipped({"a.md": "# A\n\nText a, edited.", "b/c.txt": "Text c, edited.", "d.pdf": b"%PDF-1.4"}))
    world.put("new.zip", zipped({"a.md": "Some text.", "b.md": "More text."}))
    for calls in (3, 4):  # after the first turn of box.zip, and after its second
        limit = TimeLimit(begin=Calls(calls), wait=Calls(99))  # type: ignore[arg-type]
        context = dataclasses.replace(world._context(), limit=limit)
        with world.collection.writing():
            scanned = world.look()
            files, due = scanned.found.files, scanned.plan.due
            done = asyncio.run(executor.ingest_files(context, files, due, asyncio.Queue()))
            fates, _ = changes.commit(world.collection, scanned, done, 0.01)
        assert (fates["deleted"], fates["failed"], fates["new"]) == (0, 0, 0)
        assert {uri: world.rows()[uri] for uri in INSIDE} == {uri: before[uri] for uri in INSIDE}
        assert (world.rows()["box.zip"]["inode"], "new.zip" in world.rows()) == (-1, False)
        assert world.failing() == []
    assert world.night() == {"changed": 2, "new": 2, "unchanged": 6, "failed": 1}


# -- what is due, against an obvious rule


@st.composite
def insides(draw: st.DrawFn) -> list[ingest.Row]:
    """Rows of documents inside files of test_ingest's nights, some of which are not there at all."""
    count = draw(st.integers(0, 8))
    rows = []
    for number in range(count):
        container = draw(st.sampled_from((*nights.PLACES, "absent.zip")))
        file = ingest.Seen(uri=f"{container}!/{number}.md", size=1, mtime_ns=1, inode=1)
        made = nights.row(file, status=draw(st.sampled_from(("ok", "ok", "damaged"))))
        rows.append(made | {"container": container, "reader": draw(st.sampled_from(nights.READERS))})
    return rows


@settings(max_examples=100, deadline=None)
@given(
    night=nights.nights(),
    inner=insides(),
    current=st.sets(st.sampled_from(nights.READERS)),
    unreadable=st.lists(st.sampled_from(("closed", "z", "b.md")), unique=True),
    retry=st.booleans(),
)
def test_what_is_inside_goes_with_its_file(
    night: tuple[list[ingest.Seen], list[ingest.Row]],
    inner: list[ingest.Row],
    current: set[str],
    unreadable: list[str],
    retry: bool,
) -> None:
    files, own = night
    hidden = tuple(f"{folder}/" for folder in unreadable)
    files = [file for file in files if file.uri not in unreadable and not file.uri.startswith(hidden)]
    options: dict[str, Any] = {"is_current": current.__contains__, "unreadable": unreadable, "retry": retry}
    alone, found = nights.plan(files, own, **options), nights.plan(files, [*own, *inner], **options)
    outdated = {
        row["container"] for row in inner if row["reader"] not in current or (retry and row["status"] != "ok")
    } & {file.uri for file in files}
    due = {item.uri for item in alone.due} | outdated
    assert {item.uri for item in found.due} == due
    assert all(item.known_hash == "" for item in found.due if item.uri in outdated)
    stays = {row["uri"] for row in alone.keep.to_pylist()} - outdated
    withheld = {row["uri"] for row in alone.withheld}
    by_fate = {
        "keep": [row for row in inner if row["container"] in stays | withheld],
        "due": [row for row in inner if row["container"] in due],
    }
    rest = [row for row in inner if row not in by_fate["keep"] and row not in by_fate["due"] and row["doc_id"]]
    names = nights.names
    assert names(found.keep.to_pylist()) == sorted([*stays, *names(by_fate["keep"])])
    assert names(row for item in found.due for row in item.inside) == names(by_fate["due"])
    assert all(row["container"] == item.uri for item in found.due for row in item.inside)
    assert names(found.gone) == sorted([*names(alone.gone), *names(rest)])
    uris = schema.strings(found.keep["uri"])
    assert uris == sorted(uris)


# -- any night after any other

BOXES = ("box.zip", "two.tar.gz", "note.gz", "a.eml", "in.mbox", "sub/b.zip")
TEXTS = tuple(
    f"# Heading {n}\n\nThe text of document number {n}, which is about {word}."
    for n, word in enumerate(("rivers", "lamps", "stars", "bridges", "tunnels"))
)
CONTENTS = st.dictionaries(st.sampled_from(("a.md", "b.md", "d/c.txt")), st.sampled_from(TEXTS), max_size=3)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("write", "touch", "delete", "move", "copy", "cut")),
        st.sampled_from(BOXES),
        st.sampled_from(BOXES),
        CONTENTS,
    ),
    max_size=4,
)


def packed(name: str, contents: dict[str, str]) -> bytes:
    if name.endswith(".zip"):
        return (
            zipped({**contents, "in.eml": mail("Inside", "Body.", contents)})
            if "a.md" in contents
            else zipped(contents)
        )
    if name.endswith(".tar.gz"):
        return tarred(contents, mode="w:gz")
    if name.endswith(".gz"):
        return gzipped(" ".join(contents.values()) or "nothing")
    if name.endswith(".eml"):
        return mail("Subject", " ".join(contents), contents)
    return mailbox(*(mail(key, value, {"x.md": value}) for key, value in contents.items())) or mailbox(mail("Empty"))


def change(world: Boxes, step: str, name: str, other: str, contents: dict[str, str]) -> None:
    one, two = world.docs / name, world.docs / other
    if step == "write":
        world.put(name, packed(name, contents))
    elif one.exists() and step == "touch":
        os.utime(one)
    elif one.exists() and step == "delete":
        one.unlink()
    elif one.exists() and step == "cut":
        one.write_bytes(one.read_bytes()[:-30])
    elif one.exists() and one.suffix == two.suffix and one != two:
        two.parent.mkdir(exist_ok=True)
        two.write_bytes(one.read_bytes())
        if step == "move":
            one.unlink()


def keys_of(world: Boxes) -> tuple[set[str], set[str]]:
    """chunk_ids and embed_keys of all that is live, cut as the chunk stage does."""
    params = chunk.ChunkParams(
        size=64, max=128, limit=256, context=True, document_template="{text}", tokenizer=tokens.builtin().identity
    )
    ids: set[str] = set()
    keys: set[str] = set()
    rows = [row for row in world.snapshot.table.to_pylist() if row["doc_id"]]
    for shard in {row["shard"] for row in rows}:
        table = chunk.chunk_documents(world.collection.read_documents(shard), params, tokens.builtin())
        live = [
            row
            for row in table.to_pylist()
            if row["doc_id"] in {one["doc_id"] for one in rows if one["shard"] == shard}
        ]
        ids |= {row["chunk_id"] for row in live}
        keys |= {row["embed_key"] for row in live}
    return ids, keys


@settings(max_examples=12, deadline=None)
@given(series=st.lists(STEPS, min_size=1, max_size=3))
def test_after_any_nights_all_is_as_after_a_first_night(
    tmp_path_factory: pytest.TempPathFactory, series: list[list[tuple[str, str, str, dict[str, str]]]]
) -> None:
    """Snapshot, chunks and keys; and no night writes a document that was there under its name."""
    root = tmp_path_factory.mktemp("world")
    world = Boxes(root)
    world.write("a.md")
    for name in BOXES[:3]:
        world.put(name, packed(name, {"a.md": TEXTS[0], "d/c.txt": TEXTS[1]}))
    world.night()
    for steps in series:
        before, shards = {row["doc_hash"] for row in world.rows().values()}, world.shards()
        for step in steps:
            change(world, *step)
        world.night(max_delete=1.0)
        written = [world.collection.read_documents(Path(name).stem) for name in world.shards() - shards]
        assert not before & {doc for table in written for doc in schema.strings(table["doc_hash"])}
    (root / "fresh").mkdir()
    fresh = Boxes(root / "fresh")
    fresh.folders = world.folders
    fresh.night()
    kept = [name for name in schema.SNAPSHOT.names if name != "shard"]
    assert world.snapshot.table.select(kept).equals(fresh.snapshot.table.select(kept))
    assert world.failing() == fresh.failing()
    assert keys_of(world) == keys_of(fresh)
    assert isinstance(world.collection, Collection)
