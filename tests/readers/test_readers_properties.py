"""What holds for any input at all."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors, readers
from pipeline.readers import decode, formats, markdown, plain, tables
from tests.readers import samples
from tests.readers.helpers import OPTIONS, check

# Mostly markup: random Unicode seldom makes a table or a fence.
MARKS = st.text(st.sampled_from("#*-=`~|>:.,;\"'<>/!&[](){}\\\n\n\n \t12ab茶é\r\u2028\u0301"), max_size=300)
ANY = st.text(max_size=200)
TAG_WORDS = (
    "<p> </p> <ul> </ul> <li> </li> <table> <tr> <td> </td> </table> <h1> </h1> <h2> <pre> </pre> <br> <blockquote> "
    "</blockquote> <nav> </nav> <div|hidden> </div> <!-- --> <caption> <script> </script> "
    "text 雪 &amp; &#0; &#xD800; ]]>"
)
TAGS = st.lists(st.sampled_from([tag.replace("|", " ") for tag in TAG_WORDS.split()]), max_size=60).map("".join)


def read_or_refuse(data: bytes, name: str) -> None:
    kind = ""
    try:
        check(readers.read_bytes(data, name, OPTIONS))
    except errors.DocumentError as error:
        kind = error.kind
    assert kind in {"", *KINDS}


KINDS = {"empty", "too_large", "encrypted", "needs_ocr", "garbled", "damaged", "unknown_type", "zip_bomb"}
TEXT_NAMES = [
    "a.txt",
    "a.md",
    "a.rst",
    "a.adoc",
    "a.org",
    "a.tex",
    "a.py",
    "a.xml",
    "a.html",
    "a.csv",
    "a.tsv",
    "a.json",
    "a.jsonl",
    "a.srt",
    "a.eml",
    "a.rtf",
    "a.ipynb",
]


@pytest.mark.parametrize("name", TEXT_NAMES)
@given(text=MARKS | ANY | TAGS)
@settings(max_examples=60, deadline=None)
def test_blocks_cover_the_text(name: str, text: str) -> None:
    read_or_refuse(text.encode(), name)


@pytest.mark.parametrize("extension", sorted({entry.extensions[0] for entry in formats.FORMATS.values()}))
@given(data=st.binary(max_size=300))
@settings(max_examples=25, deadline=None)
def test_random_bytes_raise_nothing_else(extension: str, data: bytes) -> None:
    read_or_refuse(data, f"a.{extension}")


SOUND = {
    "a.pdf": samples.pdf([["Some text", "more"], ["page"]], title="T", outline=[("Some text", 0)]),
    "a.docx": samples.docx(),
    "a.pptx": samples.pptx(),
    "a.xlsx": samples.xlsx({"S": [["a", "b"], [1, 2]]}),
    "a.epub": samples.epub(["<p>one", "<p>two"]),
    "a.odt": samples.odt("<text:p>x</text:p>"),
    "a.msg": samples.msg("s", "body"),
    "a.eml": samples.eml(plain="x", html="<p>y"),
}


@pytest.mark.parametrize("name", SOUND)
def test_damaged_documents_raise_nothing_else(name: str) -> None:
    """Forty copies of a sound document, each with some bytes changed, cut out or cut off."""
    chance = random.Random(name)
    for _ in range(40):
        data = bytearray(SOUND[name])
        for _ in range(chance.choice((1, 5, 50))):
            data[chance.randrange(len(data))] = chance.randrange(256)
        start = chance.randrange(len(data))
        if chance.random() < 0.3:
            del data[start : start + chance.randrange(1, 200)]
        if chance.random() < 0.2:
            del data[start + 1 :]
        read_or_refuse(bytes(data), name)


@given(text=st.text())
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = decode.clean(text)
    assert decode.clean(once) == once


@given(text=MARKS)
def test_text_formats_keep_the_text(text: str) -> None:
    cleaned = decode.clean(text)
    if not cleaned.strip() or decode.unreadable_share(cleaned) > decode.GARBLED_SHARE:
        return
    for module in (plain, markdown):
        assert module.read(text.encode(), "a.md").text == cleaned


@given(
    rows=st.lists(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=6), max_size=60),
    header=st.booleans(),
)
def test_tables_lose_no_cell(rows: list[list[str]], header: bool) -> None:
    found = "\n".join(tables.grouped(rows, header=header)).split()
    for row in rows:
        for word in " ".join(row).split():
            assert word in found


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.html", "a.csv"])
def test_chunks_of_whatever_was_read_are_spans_of_it(name: str) -> None:
    """Few inputs here; many more: python -m benchmarks.fuzz_readers."""
    from benchmarks import fuzz_readers

    assert fuzz_readers.fuzz(name, 40).total() >= 40


@pytest.mark.parametrize("folder", ["sample_docs", "docs"])
def test_passages_of_real_files_are_spans_of_their_text(folder: str) -> None:
    """Of a corpus: python -m benchmarks.reading_sample --docs DIR --offsets."""
    from benchmarks import reading_sample

    root = Path(__file__).parents[2] / folder
    read = [reading_sample.passages(str(path)) for path in sorted(root.rglob("*.*")) if readers.known(path.name)]
    assert sum(map(len, read)) > 20


def test_a_false_offset_is_seen() -> None:
    from benchmarks import reading_sample

    made = readers.read_bytes(b"# A\n\none\n\ntwo\n", "a.md", OPTIONS)
    (chunk,) = reading_sample._chunks(made)
    reading_sample.check(made, [chunk])
    with pytest.raises(AssertionError, match="is not its text"):
        reading_sample.check(made, [chunk | {"text": "other"}])
    with pytest.raises(AssertionError, match="leave out"):
        reading_sample.check(made, [])


@pytest.mark.parametrize(
    "judged", ["heading: ok\npage: -\nheading: wrong (its parent)\npage: ok\nheading: ok\npage: ok\n"]
)
def test_verdicts_are_counted(judged: str) -> None:
    from benchmarks import reading_sample

    lines = reading_sample.score(judged).split("\n")
    assert lines[-2:] == ["| heading | 3 | 2 | 66.7% |", "| page | 2 | 2 | 100.0% |"]
