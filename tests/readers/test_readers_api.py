"""The door to the readers: which reader, which files, what a failure is called."""

from __future__ import annotations

import os
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from pipeline import config, errors, ids, readers
from pipeline.readers import formats, hi_res
from tests.readers import samples
from tests.readers.helpers import OPTIONS, check, read, refusal

WORDS = {
    "gb18030": "你好，世界。青螺岭观测站的记录从二〇一六年开始，每天两次。",
    "big5": "你好，世界。這是一個用來測試編碼的句子，記錄每天兩次。",
    "shift_jis": "こんにちは世界。雪の深さを毎日二回観測して記録します。",
    "euc-jp": "こんにちは世界。雪の深さを毎日二回観測して記録します。",
    "iso2022_jp": "こんにちは世界。雪の深さを観測します。",
    "euc-kr": "안녕하세요 세계. 눈의 깊이를 매일 두 번 기록합니다.",
    "latin-1": "Das Café in München öffnet früh, die Gäste frühstücken draußen. Schöne Grüße!",
    "cp1251": "Привет мир, глубина снега измеряется каждый день.",
    "utf-16": "Snow 雪 with a mark",
    "utf-16-le": "Snow without a mark, in the manner of Windows",
    "utf-16-be": "Snow without a mark, the other way round",
    "utf-32": "Snow 雪 in four bytes",
    "utf-8-sig": "Snow 雪 with a mark",
}


@pytest.mark.parametrize("encoding", WORDS)
def test_encodings(encoding: str) -> None:
    assert read(WORDS[encoding].encode(encoding), "a.txt").text == WORDS[encoding]


def test_damaged_utf8_stays_utf8() -> None:
    text = "青螺岭观测站的记录" * 40
    assert read(text.encode()[:-1], "a.txt").text == text[:-1] + "\ufffd"


def test_text_is_normalised() -> None:
    made = read("e\u0301te\u0301\r\nsoft\u00adhyphen\rnul\x00\x1b[0m\u2028end\ufeff".encode(), "a.txt")
    assert made.text == "été\nsofthyphen\nnul[0m\nend"


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.pdf", "pdfium/3"),
        ("A.PDF", "pdfium/3"),
        ("dir/b.docx", "unstructured-docx/1"),
        ("notes.md", "markdown/1"),
        ("data.TSV", "csv/1"),
        ("README", "text/1"),
        ("docs/LICENSE", "text/1"),
        ("what.xyz", "text/1"),
        (".env", "text/1"),
    ],
)
def test_reader_of(name: str, reader: str) -> None:
    assert readers.reader_of(name, OPTIONS) == reader


@pytest.mark.parametrize("name", ["a.pdf", "b/README", "c.tar.md", "x.ipynb", "茶.docx"])
def test_known(name: str) -> None:
    assert readers.known(name)


@pytest.mark.parametrize("name", ["a.png", "a", ".md", "b.pdf/x", "archive.zip", "x.exe", ""])
def test_not_known(name: str) -> None:
    assert not readers.known(name)


def test_settings_name_readers_that_exist() -> None:
    """The Literals of config.ReaderSettings and the table of formats agree."""
    for name in ("pdf", "docx", "html"):
        choices = typing.get_args(typing.get_type_hints(config.ReaderSettings)[name])
        # hi_res follows from another setting: see hi_res.chosen
        assert set(choices) == set(formats.FORMATS[name].readers) - {hi_res.NAME}
        for choice in choices:
            readers.reader_of(f"a.{name}", readers.ReaderOptions(**{name: choice}))
    defaults = config.ReaderSettings()
    assert (OPTIONS.pdf, OPTIONS.docx, OPTIONS.html) == (defaults.pdf, defaults.docx, defaults.html)
    assert config.SourceSettings().max_file_mb == OPTIONS.max_file_mb


def test_an_unknown_choice_is_a_configuration_error() -> None:
    with pytest.raises(errors.ConfigError, match=r"readers\.pdf"):
        readers.reader_of("a.pdf", readers.ReaderOptions(pdf="magic"))


def test_is_current() -> None:
    other = readers.ReaderOptions(pdf="unstructured")
    assert readers.is_current("pdfium/3", "a.pdf", OPTIONS)
    assert readers.is_current("pdfium/3", "really-a-pdf.txt", OPTIONS)
    assert not readers.is_current("pdfium/3", "a.pdf", other)
    assert not readers.is_current("pdfium/3", "really-a-pdf.txt", other)
    assert readers.is_current("unstructured-pdf/2", "a.pdf", other)
    assert not readers.is_current("pdfium/0", "a.pdf", OPTIONS)
    assert not readers.is_current("long-gone/3", "a.pdf", OPTIONS)
    assert not readers.is_current("", "a.pdf", OPTIONS)


@pytest.mark.parametrize(
    ("data", "name", "reader"),
    [
        (samples.pdf([["text"]]), "a.txt", "pdfium/3"),
        (b"\n\xef\xbb\xbf " + samples.pdf([["text"]]), "a.pdf", "pdfium/3"),
        (samples.docx(), "a.zip", "unstructured-docx/1"),
        (samples.docx(), "a.pdf", "unstructured-docx/1"),
        (samples.xlsx({"S": [["a", "b"]]}), "a.csv", "xlsx/2"),
        (b"<!DOCTYPE html><p>hello", "a.txt", "html/2"),
        (b"<?xml version='1.0'?>\n<html><p>hello</p></html>", "a.pdf", "html/2"),
        (b"plain words", "a.pdf", "text/1"),
        (b"plain words", "a.docx", "text/1"),
        (b"plain words", "a.unheard-of", "text/1"),
        (rb"{\rtf1 hello}", "a.doc", "rtf/2"),
        (b"A PDF file begins with %PDF-1.7, see the standard.", "a.md", "markdown/1"),
        (b"<html><p>a page in Markdown", "a.md", "markdown/1"),
    ],
)
def test_content_goes_before_name(data: bytes, name: str, reader: str) -> None:
    assert read(data, name).reader == reader


@pytest.mark.parametrize(
    ("data", "name", "kind", "word"),
    [
        (b"", "a.md", "empty", "0 bytes"),
        (b" \n\t\r\n\x0c", "a.md", "empty", "no text"),
        (b"\xef\xbb\xbf", "a.txt", "empty", "no text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "a.md", "unknown_type", "PNG"),
        (b"\x7fELF" + bytes(200), "README", "unknown_type", "program"),
        (bytes(range(256)) * 4, "a.bin", "unknown_type", "binary"),
        (bytes(range(256)) * 4, "a.pdf", "damaged", "pdfium"),
        (samples.packed({"a.txt": "hello"}), "a.zip", "unknown_type", "zip archive"),
        (samples.packed({"a.txt": "hello"})[:40], "a.docx", "damaged", "zip"),
        (
            samples.packed({"[Content_Types].xml": "x", "word/document.xml": "x"}),
            "a.docx",
            "damaged",
            "unstructured-docx",
        ),
        (("\ue000\ue001" * 40 + "ab").encode(), "a.txt", "garbled", "%"),
    ],
)
def test_refusals(data: bytes, name: str, kind: str, word: str) -> None:
    error = refusal(data, name)
    assert error.kind == kind
    assert word in error.message
    assert "\n" not in error.message


def test_size_limit() -> None:
    small = readers.ReaderOptions(max_file_mb=1)
    readers.read_bytes(b"a" * 1_000_000, "a.txt", small)
    assert refusal(b"a" * 1_000_001, "a.txt", small).kind == "too_large"


def test_import_is_light() -> None:
    """The scanner asks for names only: no parser may be loaded for that."""
    code = (
        "import sys; import pipeline.readers as r; r.known('a.pdf'); r.reader_of('a.docx', r.ReaderOptions());"
        "heavy = 'lxml pypdfium2 openpyxl unstructured chardet zipfile pyarrow email csv'.split();"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- files
# --------------------------------------------------------------------------------------------------------------


def test_read_file(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(b"# Snow\n")
    result = readers.read_file(os.fsencode(path), "a.md", OPTIONS)
    status = path.stat()
    assert result.document is not None
    check(result.document)
    assert result.content_hash == ids.content_hash(b"# Snow\n")
    assert (result.size, result.mtime_ns, result.inode) == (status.st_size, status.st_mtime_ns, status.st_ino)
    assert (result.reader, result.kind, result.reason) == ("markdown/1", "", "")


def test_failure_keeps_the_hash_and_the_reader_that_refused(tmp_path: Path) -> None:
    data = samples.pdf([["x"]], encrypted=True)
    (tmp_path / "a.txt").write_bytes(data)
    result = readers.read_file(os.fsencode(tmp_path / "a.txt"), "a.txt", OPTIONS)
    assert (result.document, result.kind, result.reader) == (None, "encrypted", "pdfium/3")
    assert result.content_hash == ids.content_hash(data)
    assert result.remedy


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.md").touch()
    result = readers.read_file(os.fsencode(tmp_path / "a.md"), "a.md", OPTIONS)
    assert (result.kind, result.content_hash) == ("empty", ids.content_hash(b""))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\xfe.md"
    try:
        Path(os.fsdecode(path)).write_bytes(b"hello")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    result = readers.read_file(path, Path(os.fsdecode(path)).name, OPTIONS)
    assert result.document is not None
    assert result.document.text == "hello"


def test_vanished(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none.md", tmp_path / "file" / "none.md"):
        result = readers.read_file(os.fsencode(path), "none.md", OPTIONS)
        assert (result.kind, result.content_hash, result.size) == ("vanished", "", 0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("secret")
    path.chmod(0)
    assert readers.read_file(os.fsencode(path), "a.md", OPTIONS).kind == "permission"


def test_permission_of_the_kernel() -> None:
    """As root too: a file that nobody may read."""
    path = Path("/proc/sysrq-trigger")
    if not path.exists() or os.access(path, os.R_OK):
        pytest.skip("no unreadable file on this system")
    assert readers.read_file(os.fsencode(path), "a.md", OPTIONS).kind in ("permission", "io")


def test_not_a_regular_file(tmp_path: Path) -> None:
    (tmp_path / "x.md").mkdir()
    os.mkfifo(tmp_path / "fifo.md")
    for path in (tmp_path / "x.md", tmp_path / "fifo.md", Path("/dev/zero")):
        result = readers.read_file(os.fsencode(path), path.name, OPTIONS)
        assert (result.kind, result.reason) == ("io", "not a regular file")


def test_sparse_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "sparse.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    result = readers.read_file(os.fsencode(path), "sparse.txt", OPTIONS)
    assert (result.kind, result.content_hash, result.size) == ("too_large", "", 1 << 40)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs a file that reads longer than it says")
def test_changing() -> None:
    """Files of /proc claim 0 bytes and give more, like one that grows while it is read."""
    result = readers.read_file(b"/proc/self/status", "status", OPTIONS)
    assert result.kind == "changing"
