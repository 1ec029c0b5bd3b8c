"""Whether the files behind passages are as they were."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest

from pipeline import config, freshness
from pipeline.store import Collection
from tests import served


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    return served.write(tmp_path / "docs", {"a.md": "# A\n\nOne.\n", "sub/b.md": "# B\n\nTwo.\n", "c.txt": "Three.\n"})


def build(tmp_path: Path, *folders: Path, readers: config.ReaderSettings | None = None) -> Collection:
    from pipeline import run
    from pipeline.progress import Silent

    base = served.settings(tmp_path / "data")
    given = msgspec.structs.replace(base, readers=readers or base.readers)
    run.execute(given, run.Request(stages=frozenset({"ingest"}), folders=folders), Silent())
    return Collection(tmp_path / "data", "default")


def stale(collection: Collection, *uris: str) -> dict[str, str]:
    snapshot = collection.snapshot()
    assert snapshot is not None
    return dict(freshness.stale(collection, snapshot.number, uris))


def test_what_changed_and_what_is_gone_is_told(tmp_path: Path, docs: Path) -> None:
    collection = build(tmp_path, docs)
    assert stale(collection, "a.md", "sub/b.md", "c.txt") == {}
    (docs / "a.md").write_text("# A\n\nNow something else.\n")
    (docs / "sub" / "b.md").unlink()
    assert stale(collection, "a.md", "sub/b.md", "c.txt") == {"a.md": "changed", "sub/b.md": "gone"}
    assert stale(collection, "c.txt", "never/seen.md") == {}


def test_a_file_that_was_only_touched_is_as_it_was(tmp_path: Path, docs: Path) -> None:
    collection = build(tmp_path, docs)
    os.utime(docs / "a.md", (1, 1))
    assert stale(collection, "a.md") == {}
    (docs / "a.md").write_text("# A\n\nSix.\n")  # of the same length
    assert stale(collection, "a.md") == {"a.md": "changed"}


def test_a_folder_that_is_not_there_says_nothing_of_its_files(tmp_path: Path, docs: Path) -> None:
    collection = build(tmp_path, docs)
    docs.rename(tmp_path / "away")
    assert stale(collection, "a.md") == {}
    assert stale(collection) == {}


def test_a_file_below_one_that_is_no_folder_any_more_is_gone(tmp_path: Path, docs: Path) -> None:
    collection = build(tmp_path, docs)
    shutil.rmtree(docs / "sub")
    (docs / "sub").write_text("a file now")
    assert stale(collection, "sub/b.md") == {"sub/b.md": "gone"}


def test_several_folders_have_their_names_before_the_path(tmp_path: Path, docs: Path) -> None:
    other = served.write(tmp_path / "more", {"a.md": "# Other\n\nText.\n"})
    collection = build(tmp_path, docs, other)
    (other / "a.md").write_text("changed, and longer than before\n")
    assert stale(collection, "docs/a.md", "more/a.md") == {"more/a.md": "changed"}
    snapshot = collection.snapshot()
    assert snapshot is not None
    assert freshness.place(snapshot.sources, "more/a.md") == os.fsencode(other / "a.md")


def test_a_name_that_is_not_utf_8_is_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    name = os.fsencode(tmp_path / "docs") + b"/caf\xe9.md"
    try:
        with open(name, "w") as file:  # noqa: PTH123
            file.write("# Cafe\n\nText.\n")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    collection = build(tmp_path, tmp_path / "docs")
    uri = "caf\\xe9.md"
    snapshot = collection.snapshot()
    assert snapshot is not None
    assert freshness.place(snapshot.sources, uri) == name
    assert stale(collection, uri) == {}
    os.unlink(name)  # noqa: PTH108
    assert stale(collection, uri) == {uri: "gone"}


def test_a_document_inside_a_file_stands_and_falls_with_it(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    box = tmp_path / "docs" / "box.zip"
    with zipfile.ZipFile(box, "w") as file:
        file.writestr("notes.md", "# Notes\n\nInside.\n")
    collection = build(tmp_path, tmp_path / "docs", readers=config.ReaderSettings(workers=1, archives=True))
    snapshot = collection.snapshot()
    assert snapshot is not None
    assert freshness.file_of(snapshot, "box.zip!/notes.md") == "box.zip"
    assert freshness.file_of(snapshot, "plain.md") == "plain.md"
    assert stale(collection, "box.zip!/notes.md") == {}
    os.utime(box, (1, 1))
    assert stale(collection, "box.zip!/notes.md") == {}
    with zipfile.ZipFile(box, "w") as file:
        file.writestr("notes.md", "# Notes\n\nInside, and changed.\n")
    assert stale(collection, "box.zip!/notes.md") == {"box.zip!/notes.md": "changed"}
    box.unlink()
    assert stale(collection, "box.zip!/notes.md") == {"box.zip!/notes.md": "gone"}


def test_a_snapshot_that_is_gone_says_nothing(tmp_path: Path, docs: Path) -> None:
    collection = build(tmp_path, docs)
    assert freshness.stale(collection, 99, ["a.md"]) == {}
