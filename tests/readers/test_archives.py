"""What is inside archives: names, kinds, limits. Nothing here is written to a disk."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors, readers
from pipeline.readers import containers, unpack
from tests.readers import samples
from tests.readers.boxes import gzipped, mail, tarred, zipped

OPTIONS = readers.ReaderOptions(archives=True)


def walk(data: bytes, name: str = "box.zip", options: readers.ReaderOptions = OPTIONS) -> list[containers.Found]:
    """Everything in a file; raises what refuses all of it."""
    result = readers.read_member(data, name, options)
    assert result.kind == "", (result.kind, result.reason)
    return list(readers.inside(result, name, options, containers.Turn())[1])


def inside(data: bytes, name: str = "box.zip", options: readers.ReaderOptions = OPTIONS) -> dict[str, str]:
    """Path → text, or the kind of the refusal."""
    return {
        one.path: one.error.kind if one.error is not None else one.data.decode("utf-8", "replace")
        for one in walk(data, name, options)
    }


def refusal(data: bytes, name: str = "box.zip") -> errors.DocumentError:
    with pytest.raises(errors.DocumentError) as caught:
        walk(data, name)
    return caught.value


FILES = {"a.md": "Text a.", "folder/b.txt": "Text b."}


# -- kinds


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("name", ["box.tar", "box.tgz", "whatever.zip"])
def test_tar_by_content_whatever_its_compression(mode: str, name: str) -> None:
    assert inside(tarred(FILES, mode=mode), name) == FILES


def test_zip_by_content() -> None:
    for packed in (True, False):
        for name in ("box.zip", "box.tar", "box.docx"):
            assert inside(zipped(FILES, packed=packed), name) == FILES


def test_a_compressed_file_holds_one() -> None:
    assert inside(gzipped("A note."), "folder/note.md.gz") == {"note.md": "A note."}
    assert inside(gzipped("A log."), "a.log.gz") == {"a.log": "A log."}
    assert inside(gzipped("?"), "data.bin.gz") == {}
    assert inside(gzipped("?"), "strange.gz") == {}


def test_documents_that_are_zip_files_are_read_as_such() -> None:
    for name, data in (
        ("a.docx", samples.docx()),
        ("b.epub", samples.epub(["<p>Text.</p>"])),
        ("c.odt", samples.odt("<text:p>Text.</text:p>")),
    ):
        for given_name in (name, "box.zip"):
            result = readers.read_member(data, given_name, OPTIONS)
            assert (result.holds, result.document is not None) == ("", True)
        assert list(inside(zipped({name: data}))) == [name]


def test_what_is_no_archive_is_none() -> None:
    for data, name in ((b"Plain text.", "a.txt"), (b"BZh is how it begins", "b.txt"), (b"x" * 600, "c.txt")):
        assert readers.read_member(data, name, OPTIONS).document is not None
    assert refusal_of(b"not at all", "a.zip") == "ok", "text under such a name is read as text"
    assert refusal_of(b"PK\x03\x04" + b"\0" * 40, "a.docx") == "damaged"
    assert refusal(b"PK\x03\x04" + b"\0" * 40, "a.zip").kind == "damaged"


def refusal_of(data: bytes, name: str) -> str:
    return readers.read_member(data, name, OPTIONS).kind or "ok"


def test_archives_are_left_alone_unless_asked_for() -> None:
    plain = readers.ReaderOptions()
    assert not readers.known("box.zip", plain)
    assert readers.known("box.tar.gz", OPTIONS)
    result = readers.read_member(zipped(FILES), "box.zip", plain)
    assert (result.kind, result.holds) == ("unknown_type", "")
    assert "readers.archives" in result.remedy
    assert inside(mail("S", attached={"box.zip": zipped(FILES)}), "a.eml", plain) == {}


# -- names


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ["财务报告/2024年总结.txt", "财务报告/附件.txt"]),
        ("cp932", ["資料/議事録.txt", "資料/テスト.txt"]),
        ("big5", ["會議記錄.txt", "附件/說明.txt"]),
        ("cp949", ["보고서.txt"]),
        ("utf-8", ["报告.txt", "Müller.txt"]),
        ("cp437", ["Müller.txt", "Größe.txt"]),
    ],
)
def test_names_in_the_encoding_of_whoever_made_it(encoding: str, names: list[str]) -> None:
    """A zip that does not say its names are UTF-8, and a tar whose are not."""
    raw = {f"{n}{'x' * 40}"[: len(name.encode(encoding))]: name.encode(encoding) for n, name in enumerate(names)}
    data = zipped(dict.fromkeys(raw, "Text."))
    for placeholder, name in raw.items():
        data = data.replace(placeholder.encode(), name)
    assert list(inside(data)) == names
    tar = tarred({name.encode(encoding).decode("utf-8", "surrogateescape"): "Text." for name in names})
    assert list(inside(tar, "box.tar")) == names


def test_a_unicode_name_beside_that_of_the_code_page() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        info = zipfile.ZipInfo("x.md")
        body = struct.pack("<BI", 1, zlib.crc32(b"x.md")) + "灯塔.md".encode()
        info.extra = struct.pack("<HH", 0x7075, len(body)) + body
        archive.writestr(info, "Text.")
    assert list(inside(out.getvalue())) == ["灯塔.md"]


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/root/a.md", "root/a.md"),
        ("C:\\Users\\a.md", "Users/a.md"),
        ("a//b/./c.md", "a/b/c.md"),
        ("..", ""),
        ("", ""),
        ("a\nb\x1b[31m.md", "a_b_[31m.md"),
        ("e!/x.md", "e_/x.md"),
        ("wow!", "wow!"),
        ("lone\ud800.md", "lone_.md"),
        ("x" * 500 + ".md", "x" * 180 + ".md"),
        ("/".join("abcdefghij" * 5) + "/z.md", "/".join(("abcdefghij" * 5)[-31:]) + "/z.md"),
    ],
)
def test_safe_names(name: str, safe: str) -> None:
    assert containers.safe_name(name) == safe


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from(["a", "a (2)", "b/a", "../a"])))
def test_any_names_become_safe_and_different(names: list[str]) -> None:
    members = [containers.Member(name=name, size=0, load=bytes) for name in names]
    found = [one.name for one in containers.named(members)]
    assert len(found) == len(set(found)) == sum(containers.safe_name(name) != "" for name in names)
    for name in found:
        assert containers.SEPARATOR not in name
        assert not {"", ".", ".."} & set(name.split("/"))
        assert containers.split(f"file.zip!/{name}") == ("file.zip", name)


def test_hidden_files_and_litter_are_passed_over() -> None:
    names = [".git/a.md", "a/.b.md", "__MACOSX/._a.md", ".DS_Store", "ok.md", "folder/"]
    result = readers.read_member(zipped(dict.fromkeys(names, "x")), "box.zip", OPTIONS)
    found, documents = readers.inside(result, "box.zip", OPTIONS, containers.Turn())
    assert [one.path for one in documents] == ["ok.md"]
    assert found.passed == 4


# -- members that are none


def test_links_and_devices_of_a_tar_are_nothing() -> None:
    specials = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        info = tarfile.TarInfo(f"special{kind.decode()}.md")
        info.type, info.linkname = kind, "/etc/passwd"
        specials.append(info)
    assert inside(tarred(FILES, specials=specials), "box.tar") == FILES


def test_a_link_in_a_zip_is_nothing() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        link = zipfile.ZipInfo("link.md")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("a.md", "Text.")
    assert inside(out.getvalue()) == {"a.md": "Text."}


def flagged(data: bytes, name: str, flag: int = 1) -> bytes:
    """`data`, a zip, with a flag set on one member, in both of its headers."""
    out = bytearray(data)
    for signature, name_at, flags_at in ((b"PK\x03\x04", 30, 6), (b"PK\x01\x02", 46, 8)):
        at = out.find(signature)
        while at >= 0:
            if out[at + name_at :].startswith(name.encode()):
                out[at + flags_at] |= flag
            at = out.find(signature, at + 4)
    return bytes(out)


def test_encrypted_members_are_named_and_the_others_read() -> None:
    data = flagged(zipped({"a.md": "Open.", "secret.md": "Closed.", "z.md": "Open too."}), "secret.md")
    assert inside(data) == {"a.md": "Open.", "secret.md": "encrypted", "z.md": "Open too."}


def test_damaged_members_are_named_and_the_others_read() -> None:
    data = bytearray(
        zipped({"a.md": "Open.", "b.md": "Some words that are not compressed.", "c.md": "x"}, packed=False)
    )
    data[data.index(b"Some words")] ^= 0xFF
    assert inside(bytes(data)) == {"a.md": "Open.", "b.md": "damaged", "c.md": "x"}


@pytest.mark.parametrize("name", ["box.zip", "box.tar", "box.tar.gz", "box.tar.bz2", "box.tar.xz"])
def test_a_cut_archive_is_damaged(name: str) -> None:
    files = {f"{n}.md": f"Text {n}. " * 200 for n in range(20)}
    mode = "w:" + name.rpartition(".")[2]
    data = zipped(files) if name.endswith("zip") else tarred(files, mode=mode if name.count(".") == 2 else "w")
    assert len(inside(data, name)) == 20
    assert refusal(data[: len(data) * 2 // 5], name).kind == "damaged"


@given(st.binary(max_size=300), st.sampled_from(["zip", "tar", "gz", "bz2", "xz"]))
def test_any_bytes_under_such_a_name(data: bytes, ending: str) -> None:
    signatures = {"zip": b"PK\x03\x04", "tar": b"", "gz": b"\x1f\x8b\x08", "bz2": b"BZh9", "xz": b"\xfd7zXZ\x00"}
    assert outcome(signatures[ending] + data, f"a.{ending}") in ("", "damaged", "zip_bomb")


def outcome(data: bytes, name: str) -> str:
    """Of opening all that is in it: the refusal's kind, "" for none."""
    result = readers.read_member(data, name, OPTIONS)
    try:
        list(readers.inside(result, name, OPTIONS, containers.Turn())[1] if result.holds else ())
    except errors.DocumentError as error:
        return error.kind
    return ""


@given(st.integers(0, 400), st.integers(1, 255))
def test_any_flipped_byte(at: int, by: int) -> None:
    for data, name in ((zipped(FILES), "a.zip"), (tarred(FILES), "a.tar"), (tarred(FILES, mode="w:gz"), "a.tgz")):
        changed = bytearray(data)
        changed[at % len(data)] ^= by
        assert outcome(bytes(changed), name) in ("", "damaged", "zip_bomb", "too_large")


# -- limits


ZEROS = bytes(40_000_000)


def test_bombs_are_refused_before_they_go_off() -> None:
    bombs = {
        "a.zip": zipped({"a.md": ZEROS}),
        "a.tar.gz": tarred({"a.md": ZEROS}, mode="w:gz"),
        "a.md.gz": gzipped(ZEROS),
    }
    for name, data in bombs.items():
        assert refusal(data, name).kind == "zip_bomb"
    nested = {"good.md": "Text.", **bombs, "z.md": "Text."}
    assert inside(zipped(nested, packed=False)) == {"good.md": "Text."} | dict.fromkeys(bombs, "zip_bomb") | {
        "z.md": "Text."
    }


def test_what_is_never_unpacked_does_not_count() -> None:
    assert inside(zipped({"a.md": "Text.", "disk.img": ZEROS})) == {"a.md": "Text."}


def test_the_sum_of_all_that_is_nested_counts() -> None:
    part = zipped({"a.csv": bytes(29_000_000)})
    found = inside(zipped({f"{n:02}.zip": part for n in range(12)} | {"z.md": "Text."}, packed=False))
    assert [kind for path, kind in found.items() if path.endswith(".zip")] == ["zip_bomb"] * 2
    assert (found["z.md"], len(found)) == ("Text.", 13)


def test_more_members_than_there_may_be() -> None:
    data = zipped({f"{n}.md": "x" for n in range(containers.MEMBERS + 1)}, packed=False)
    assert refusal(data).kind == "too_large"
    unknown = zipped({f"{n}.bin": "x" for n in range(containers.MEMBERS + 1)} | {"a.md": "Text."}, packed=False)
    assert inside(unknown) == {"a.md": "Text."}


def test_a_member_over_the_size_of_a_file() -> None:
    options = replace(OPTIONS, max_file_mb=1)
    found = [
        readers.read_member(one.data, one.path, options) for one in walk(zipped({"a.md": "x " * 600_000, "b.md": "x"}))
    ]
    assert [one.kind for one in found] == ["too_large", ""]


def test_a_size_that_is_a_lie() -> None:
    data = bytearray(zipped({"a.md": "Text. " * 100}))
    at = data.index(b"PK\x01\x02") + 24
    data[at : at + 4] = struct.pack("<I", 10)
    assert inside(bytes(data)) == {"a.md": "damaged"}
    data[at : at + 4] = struct.pack("<I", 400_000_000)
    assert refusal(bytes(data)).kind == "zip_bomb"


def test_depth() -> None:
    data = zipped({"d.md": "x"})
    for _ in range(3):
        data = zipped({"in.zip": data, "x.md": "x"})
    assert inside(data) == {
        "in.zip!/in.zip!/in.zip": "too_deep",
        "in.zip!/in.zip!/x.md": "x",
        "in.zip!/x.md": "x",
        "x.md": "x",
    }


# -- turns


def test_a_turn_goes_on_where_the_last_one_ended() -> None:
    """Two documents a turn, through archives in archives: together the same as in one turn."""
    letter = mail("S", attached={"x.txt": "X", "y.txt": "Y"})
    data = zipped(
        {"a.md": "A", "one.zip": zipped({"b.md": "B", "c.eml": letter, "d.md": "D"}), "e.eml": letter, "f.md": "F"}
    )
    whole = [one.path for one in walk(data)]
    result = readers.read_member(data, "box.zip", OPTIONS)
    turn: containers.Turn | None = containers.Turn()
    found: list[str] = []
    turns = 0
    while turn is not None:
        taken: list[str] = []

        def over(size: int, taken: list[str] = taken) -> bool:
            return len(taken) >= 2

        place, documents = readers.inside(result, "box.zip", OPTIONS, turn, over=over)
        for one in documents:  # one by one: `over` looks at what is taken
            taken += [one.path]
        found += taken
        turn, turns = place.rest, turns + 1
    assert (found, len(whole), turns) == (whole, 10, 5)


def test_what_is_to_be_skipped_is_not_opened() -> None:
    data = zipped({"a.md": "A", "b.zip": zipped({"c.md": "C"}), "d.md": "D"})
    result = readers.read_member(data, "box.zip", OPTIONS)
    entered: list[str] = []

    def enter(at: containers.At, path: str) -> bool:
        entered.append(path)
        return True

    turn = containers.Turn(skip=frozenset({(1, 0)}))
    assert [one.path for one in readers.inside(result, "box.zip", OPTIONS, turn, enter)[1]] == ["a.md", "d.md"]
    assert entered == ["a.md", "d.md"]


def test_kinds_are_told_without_unpacking() -> None:
    assert unpack.kind(gzipped("x"), "x") == "gz"
    assert unpack.kind(b"", "a.zip") == ""
    assert unpack.kind(b"\0" * 1024, "a.bin") == ""
