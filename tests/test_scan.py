"""The scan: which names count, in what order, and what becomes of names that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline import errors, scan


def rules(**changes: object) -> scan.Rules:
    return scan.Rules(known=lambda name: name.endswith((".md", ".txt")), **changes)  # type: ignore[arg-type]


def uris(folder: Path | list[Path], **changes: object) -> list[str]:
    folders = folder if isinstance(folder, list) else [folder]
    return [file.uri for file in scan.scan(folders, rules(**changes)).files]


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_files_come_in_order_with_what_the_directory_says(tmp_path: Path) -> None:
    write(tmp_path, "b.md", "a/z.txt", "a/b/c.md", "picture.png", "a.md")
    found = scan.scan([tmp_path], rules())
    assert [file.uri for file in found.files] == ["a.md", "a/b/c.md", "a/z.txt", "b.md"]
    assert found.unknown == 1
    status = (tmp_path / "a" / "z.txt").stat()
    file = found.files[2]
    assert (file.size, file.mtime_ns, file.inode) == (status.st_size, status.st_mtime_ns, status.st_ino)
    assert file.path == os.fsencode(tmp_path / "a" / "z.txt")


def test_hidden_names_are_left_out_unless_wanted(tmp_path: Path) -> None:
    write(tmp_path, ".git/a.md", ".hidden.md", "a.md")
    assert uris(tmp_path) == ["a.md"]
    assert uris(tmp_path, hidden=True) == [".git/a.md", ".hidden.md", "a.md"]


def test_includes_and_excludes_are_gitignore_patterns(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "a.txt", "drafts/b.md", "keep/c.md", "keep/drafts/d.md")
    assert uris(tmp_path, include=("*.md",)) == ["a.md", "drafts/b.md", "keep/c.md", "keep/drafts/d.md"]
    assert uris(tmp_path, exclude=("drafts/",)) == ["a.md", "a.txt", "keep/c.md"]
    assert uris(tmp_path, exclude=("/drafts", "*.txt")) == ["a.md", "keep/c.md", "keep/drafts/d.md"]


def test_pipelineignore_counts_from_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md", "sub/a.md", "sub/b.md", "sub/deep/b.md", "other/b.md")
    (tmp_path / ".pipelineignore").write_text("# a comment\n/a.md\nother/\n")
    (tmp_path / "sub" / ".pipelineignore").write_text("b.md\n")
    assert uris(tmp_path) == ["b.md", "sub/a.md"]


def test_links_are_followed_by_choice_and_loops_refused(tmp_path: Path) -> None:
    write(tmp_path / "docs", "a/b.md")
    write(tmp_path / "outside", "c.md")
    (tmp_path / "docs" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "docs" / "a" / "up").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / "self.md").symlink_to("self.md")
    (tmp_path / "docs" / "broken.md").symlink_to("nowhere.md")
    assert uris(tmp_path / "docs") == ["a/b.md"]
    found = scan.scan([tmp_path / "docs"], rules(follow_symlinks=True))
    assert [file.uri for file in found.files] == ["a/b.md", "link/c.md"]
    assert {(item.uri, item.kind) for item in found.refused} == {
        ("a/up", "loop"),
        ("self.md", "loop"),
        ("broken.md", "vanished"),
    }


def test_names_that_are_not_utf8_have_a_uri_of_their_own(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"\xff.md", b"caf\xe9.md", "café.md".encode()):
        Path(os.fsdecode(folder + b"/" + name)).write_text("text")
    found = scan.scan([tmp_path], rules())
    assert [file.uri for file in found.files] == ["\\xff.md", "caf\\xe9.md", "café.md"]
    assert found.files[0].path == folder + b"/\xff.md"


def test_special_files_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "folder.md").mkdir()
    write(tmp_path, "a.md")
    assert uris(tmp_path) == ["a.md"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "closed/b.md")
    (tmp_path / "closed").chmod(0)
    try:
        found = scan.scan([tmp_path], rules())
    finally:
        (tmp_path / "closed").chmod(0o755)
    assert [file.uri for file in found.files] == ["a.md"]
    assert [(item.uri, item.kind, item.folder) for item in found.refused] == [("closed", "permission", True)]


def test_several_folders_are_told_apart_by_name(tmp_path: Path) -> None:
    write(tmp_path, "work/a.md", "home/a.md", "x/home/b.md")
    assert uris([tmp_path / "work", tmp_path / "home"]) == ["home/a.md", "work/a.md"]
    with pytest.raises(errors.SourceError, match="same name: home"):
        uris([tmp_path / "home", tmp_path / "x" / "home"])


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    with pytest.raises(errors.SourceError, match="does not exist") as caught:
        uris(tmp_path / "nothing")
    assert "nothing was changed" in caught.value.remedy
    with pytest.raises(errors.SourceError, match="is not a folder"):
        uris(tmp_path / "a.md")


def test_a_deep_tree_meets_no_recursion_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1000):  # deeper than Python's stack, below the longest path that the system takes
        Path("d").mkdir()
        os.chdir("d")
    Path("a.md").write_text("text")
    os.chdir(tmp_path)
    try:
        assert uris(tmp_path) == ["d/" * 1000 + "a.md"]
    finally:  # pytest's own clean-up recurses: a tree left here ends a later session with RecursionError
        Path("d/" * 1000, "a.md").unlink()
        os.removedirs("d/" * 1000)
