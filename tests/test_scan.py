"""The scan: which names count, in what order, and what becomes of names that cannot be read."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import errors, ignore, scan


def rules(**changes: object) -> scan.Rules:
    return scan.Rules(known=lambda name: name.endswith((".md", ".txt")), **changes)  # type: ignore[arg-type]


def uris(folder: Path | list[Path], **changes: object) -> list[str]:
    folders = folder if isinstance(folder, list) else [folder]
    return sorted(scan.scan(folders, rules(**changes)).files.uris)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_files_come_with_what_the_directory_says(tmp_path: Path) -> None:
    write(tmp_path, "b.md", "a/z.txt", "a/b/c.md", "picture.png", "a.md")
    found = scan.scan([tmp_path], rules())
    assert sorted(found.files.uris) == ["a.md", "a/b/c.md", "a/z.txt", "b.md"]
    assert (found.unknown, len(found.files), [file.uri for file in found.files[1:3]]) == (1, 4, found.files.uris[1:3])
    status = (tmp_path / "a" / "z.txt").stat()
    file = found.files[found.files.uris.index("a/z.txt")]
    assert (file.size, file.mtime_ns, file.inode) == (status.st_size, status.st_mtime_ns, status.st_ino)
    assert file.path == os.fsencode(tmp_path / "a" / "z.txt")


def test_hidden_names_are_left_out_unless_wanted(tmp_path: Path) -> None:
    write(tmp_path, ".git/a.md", ".hidden.md", "a.md")
    assert uris(tmp_path) == ["a.md"]
    assert uris(tmp_path, hidden=True) == [".git/a.md", ".hidden.md", "a.md"]


def test_includes_and_excludes_are_gitignore_patterns(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "a.txt", "drafts/b.md", "keep/c.md", "keep/drafts/d.md")
    assert uris(tmp_path, include=("*.md",)) == ["a.md", "drafts/b.md", "keep/c.md", "keep/drafts/d.md"]
    assert uris(tmp_path, include=("keep/", "!*.txt")) == ["keep/c.md", "keep/drafts/d.md"]
    assert uris(tmp_path, exclude=("drafts/",)) == ["a.md", "a.txt", "keep/c.md"]
    assert uris(tmp_path, exclude=("/drafts", "*.txt")) == ["a.md", "keep/c.md", "keep/drafts/d.md"]


def test_pipelineignore_counts_from_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md", "sub/a.md", "sub/b.md", "sub/deep/b.md", "other/b.md")
    (tmp_path / ".pipelineignore").write_text("# a comment\n/a.md\nother/\n")
    (tmp_path / "sub" / ".pipelineignore").write_text("b.md\n")
    assert uris(tmp_path) == ["b.md", "sub/a.md"]


def test_a_deeper_ignore_file_decides_over_one_above_it_and_the_settings_over_both(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "sub/a.md", "sub/b.md", "out/a.md")
    (tmp_path / ".pipelineignore").write_text("*.md\nout/\n!b.md\n")
    (tmp_path / "sub" / ".pipelineignore").write_text("!a.md\n")
    (tmp_path / "out" / ".pipelineignore").write_text("!a.md\n")
    assert uris(tmp_path) == ["sub/a.md", "sub/b.md"], "what lies in a folder that is left out is not taken in again"
    assert uris(tmp_path, exclude=("b.md", "!/a.md")) == ["a.md", "sub/a.md"]


def test_each_source_folder_has_its_own_rules(tmp_path: Path) -> None:
    write(tmp_path, "one/a.md", "one/b.md", "two/a.md", "two/b.md")
    (tmp_path / "one" / ".pipelineignore").write_text("/a.md\n")
    (tmp_path / "two" / ".pipelineignore").write_text("/b.md\n")
    assert uris([tmp_path / "one", tmp_path / "two"]) == ["one/b.md", "two/a.md"]


def test_ignore_files_of_other_editors(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md", "c d.md", "e.md")
    (tmp_path / ".pipelineignore").write_bytes(b"\xef\xbb\xbfa.md\r\n\r\n# b.md\r\nc d.md\r\n/caf\xe9.md")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.md")).write_text("Latin-1")
    assert uris(tmp_path) == ["b.md", "e.md"]
    assert ignore.lines(b"a\x0bb\rc\x85") == ["a\x0bb\rc\\\\x85"], "only a line feed ends a line"


@pytest.mark.parametrize("made", ["folder", "fifo", "nowhere", "large"])
def test_an_ignore_file_that_cannot_be_read_keeps_its_folder_shut(tmp_path: Path, made: str) -> None:
    write(tmp_path, "a.md", "sub/secret.md", "sub/deep/b.md")
    path = tmp_path / "sub" / ".pipelineignore"
    if made == "folder":
        path.mkdir()
    elif made == "fifo":
        os.mkfifo(path)
    elif made == "nowhere":
        path.symlink_to("nowhere")
    else:
        path.write_text("x\n" * (ignore.MAX_BYTES // 2 + 1))
    found = scan.scan([tmp_path], rules())
    assert found.files.uris == ["a.md"]
    (refused,) = found.refused
    assert (refused.uri, refused.kept) == ("sub", True)
    assert ".pipelineignore: " in refused.reason
    shutil.move(path, tmp_path / ".pipelineignore")
    with pytest.raises(errors.SourceError, match=r"\.pipelineignore"):
        uris(tmp_path)


def test_patterns_that_are_none_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "sub/b.md")
    with pytest.raises(errors.ConfigError, match=r"source\.exclude"):
        uris(tmp_path, exclude=("!",))
    (tmp_path / "sub" / ".pipelineignore").write_text("!\n")
    assert [item.uri for item in scan.scan([tmp_path], rules()).refused] == ["sub"]


NAMES = st.sampled_from(("a", "b", "c.md", "d.txt", "build", "keep"))
PATTERNS = (
    "a b/ *.md !*.md /a !a !b/ a/b /a/* !/a/c.md **/b a/** !a/**/c.md keep/ !keep * !*/ build/* !build/keep a* [ab] "
    "d.t?t # b/**/c.md /*/b a/b/ /** !b/c.md /b/ **/a/** */"
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    paths=st.lists(st.lists(NAMES, min_size=1, max_size=4), min_size=1, max_size=12),
    ignores=st.dictionaries(
        st.integers(0, 5), st.lists(st.sampled_from(PATTERNS.split()), min_size=1, max_size=4), min_size=1, max_size=3
    ),
)
@pytest.mark.skipif(shutil.which("git") is None, reason="git is the reference")
def test_what_is_left_out_is_what_git_leaves_out(
    tmp_path_factory: pytest.TempPathFactory, paths: list[list[str]], ignores: dict[int, list[str]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for parts in paths:
        with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
            root.joinpath(*parts[:-1]).mkdir(parents=True, exist_ok=True)
            root.joinpath(*parts).write_text("text")
    folders = [root, *sorted(path for path in root.rglob("*") if path.is_dir())]
    for number, patterns in ignores.items():
        (folders[number % len(folders)] / ".pipelineignore").write_text("\n".join(patterns) + "\n")
    subprocess.run(["git", "init", "-q", "."], cwd=root, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-per-directory=.pipelineignore", "-z"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    expected = [name for name in listed.stdout.decode().split("\0") if name and not name.endswith(".pipelineignore")]
    found = scan.scan([root], scan.Rules(known=lambda name: True))
    assert sorted(found.files.uris) == sorted(expected)


def test_links_are_followed_by_choice_and_loops_refused(tmp_path: Path) -> None:
    write(tmp_path / "docs", "a/b.md")
    write(tmp_path / "outside", "c.md")
    (tmp_path / "docs" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "docs" / "a" / "up").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / "self.md").symlink_to("self.md")
    (tmp_path / "docs" / "broken.md").symlink_to("nowhere.md")
    assert uris(tmp_path / "docs") == ["a/b.md"]
    found = scan.scan([tmp_path / "docs"], rules(follow_symlinks=True))
    assert sorted(found.files.uris) == ["a/b.md", "link/c.md"]
    assert {(item.uri, item.kind) for item in found.refused} == {
        ("a/up", "loop"),
        ("self.md", "loop"),
        ("broken.md", "vanished"),
    }


def test_a_broken_link_is_said_only_where_a_document_was_meant(tmp_path: Path) -> None:
    for name in ("program", "picture.png", "left-out.md"):
        (tmp_path / name).symlink_to("nowhere")
    (tmp_path / ".pipelineignore").write_text("left-out.md\n")
    assert scan.scan([tmp_path], rules(follow_symlinks=True)).refused == ()


def test_two_ways_to_the_same_folder_are_two_places(tmp_path: Path) -> None:
    write(tmp_path, "docs/a.md", "outside/sub/b.md")
    (tmp_path / "docs" / "one").symlink_to("../outside")
    (tmp_path / "docs" / "two").symlink_to("../outside/sub")
    assert uris(tmp_path / "docs", follow_symlinks=True) == ["a.md", "one/sub/b.md", "two/b.md"]


def test_names_that_are_not_utf8_have_a_uri_of_their_own(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    for name in (b"\xff.md", b"caf\xe9.md", "café.md".encode()):
        Path(os.fsdecode(folder + b"/" + name)).write_text("text")
    found = scan.scan([tmp_path], rules())
    assert sorted(found.files.uris) == ["\\xff.md", "caf\\xe9.md", "café.md"]
    assert {file.uri: file.path for file in found.files}["\\xff.md"] == folder + b"/\xff.md"


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
    assert found.files.uris == ["a.md"]
    assert [(item.uri, item.kind, item.kept) for item in found.refused] == [("closed", "permission", True)]


class Device:
    """A folder listing like os.scandir's that fails in some folders: at once, half-way, or when an entry is asked."""

    def __init__(
        self, code: int, *, closed: Iterable[str] = (), half: Iterable[str] = (), dead: Iterable[str] = ()
    ) -> None:
        self._code = code
        self._closed, self._half, self._dead = (tuple(map(os.fsencode, names)) for names in (closed, half, dead))

    def _failure(self) -> OSError:
        return OSError(self._code, os.strerror(self._code))

    @contextlib.contextmanager
    def __call__(self, folder: bytes) -> Iterator[Iterator[os.DirEntry[bytes]]]:
        if folder.endswith(self._closed or (b"\0",)):
            raise self._failure()
        with os.scandir(folder) as listing:
            yield self._entries(folder, listing)

    def _entries(self, folder: bytes, listing: Iterable[os.DirEntry[bytes]]) -> Iterator[os.DirEntry[bytes]]:
        for entry in listing:
            yield DeadEntry(entry, self._failure()) if entry.name in self._dead else entry  # type: ignore[misc]
            if folder.endswith(self._half or (b"\0",)):
                raise self._failure()


class DeadEntry:
    """A name in a listing of which nothing can be told."""

    def __init__(self, entry: os.DirEntry[bytes], error: OSError) -> None:
        self.name, self.path, self._error = entry.name, entry.path, error

    def is_symlink(self) -> bool:
        return False

    def stat(self) -> os.stat_result:
        raise self._error


LOST = (errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ETIMEDOUT)


@pytest.mark.parametrize("code", LOST)
def test_a_device_that_is_lost_half_way_takes_nothing_with_it(tmp_path: Path, code: int) -> None:
    write(tmp_path, "a.md", "closed/b.md", "half/c.md", "half/d.md", "dead/e.md", "dead/f.md")
    device = Device(code, closed=["/closed"], half=["/half"], dead=["e.md"])
    found = scan.scan([tmp_path], rules(), list_folder=device)
    assert sorted(found.files.uris) == ["a.md", "dead/f.md"], "half a folder is no folder"
    told = [(item.uri, item.kind, item.kept) for item in found.refused]
    assert told == [("closed", "io", True), ("dead/e.md", "io", True), ("half", "io", True)]
    assert {item.reason for item in found.refused} == {os.strerror(code)}


@pytest.mark.parametrize("code", LOST)
def test_a_source_folder_that_is_lost_is_an_error(tmp_path: Path, code: int) -> None:
    write(tmp_path, "docs/a.md")
    for device in (Device(code, closed=["/docs"]), Device(code, half=["/docs"])):
        with pytest.raises(errors.SourceError) as caught:
            scan.scan([tmp_path / "docs"], rules(), list_folder=device)
        assert os.strerror(code) in caught.value.message
        assert "mount it again; nothing was changed" in caught.value.remedy


def test_a_folder_that_may_not_be_entered_is_no_loss_of_the_device(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "closed/b.md")
    (refused,) = scan.scan([tmp_path], rules(), list_folder=Device(errno.EACCES, closed=["/closed"])).refused
    assert (refused.uri, refused.kind, refused.kept) == ("closed", "permission", True)
    with pytest.raises(errors.SourceError, match="cannot be read") as caught:
        scan.scan([tmp_path], rules(), list_folder=Device(errno.EACCES, closed=[tmp_path.name]))
    assert "permissions" in caught.value.remedy


def test_what_goes_between_listing_and_asking_was_deleted(tmp_path: Path) -> None:
    write(tmp_path, "a.md", "b.md", "sub/c.md")
    device = Device(errno.ENOENT, closed=["/sub"], dead=["b.md"])
    found = scan.scan([tmp_path], rules(), list_folder=device)
    assert [(item.uri, item.kind, item.kept) for item in found.refused] == [
        ("b.md", "vanished", False),
        ("sub", "vanished", True),
    ]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_file_system_within_is_noted(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    other = Path("/dev/shm", f"pipeline-{os.getpid()}")
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("it is the same one")
    try:
        write(other, "b.md", "sub/c.md")
        (tmp_path / "nas").symlink_to(other)
        found = scan.scan([tmp_path], rules(follow_symlinks=True))
    finally:
        shutil.rmtree(other)
    assert (sorted(found.files.uris), found.mounts) == (["a.md", "nas/b.md", "nas/sub/c.md"], ("nas/",))


def test_numbers_beyond_what_a_column_holds(tmp_path: Path) -> None:
    files = scan.Files(["a.md"], [b"a.md"], [1], [1 << 70], [(1 << 64) - 1])
    assert files.table().to_pylist() == [
        {"uri": "a.md", "size": 1, "mtime_ns": files[0].mtime_ns, "inode": (1 << 63) - 1}
    ]
    assert files[0:1] == [files[0]]


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
