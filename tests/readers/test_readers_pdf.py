"""PDF: pages, mended words and lines, headings from the outline, and every way to have no text."""

from __future__ import annotations

import pytest

from pipeline import readers
from pipeline.readers import pdf
from tests.readers import samples
from tests.readers.helpers import page_of, path_of, paths, read, refusal, texts


def test_pages_title_and_outline() -> None:
    pages = [["1 Rime", "Rime is ice."], ["It grows", "to windward."], ["2 Snow", "Snow is deep."]]
    made = read(samples.pdf(pages, title="On ice", outline=[("Rime", 0), ("2 Snow", 2)]), "ice.pdf")
    assert (made.reader, made.title, made.media_type) == ("pdfium/1", "On ice", "application/pdf")
    assert paths(made) == [("1 Rime",), ("2 Snow",)]
    assert [page_of(made, piece) for piece in ("Rime is", "windward", "Snow is")] == [1, 2, 3]
    assert path_of(made, "windward") == ("1 Rime",)


@pytest.mark.parametrize("title", ["Microsoft Word - report.doc", "untitled", "paper.dvi", "  ", "12"])
def test_titles_that_programs_make_up(title: str) -> None:
    assert read(samples.pdf([["text"]], title=title), "a.pdf").title == ""


def test_hyphens_at_line_ends() -> None:
    made = read(
        samples.pdf(
            [["A well-known word. It is an exam-", "ple of a well-", "known thing, says Anglo-", "Saxon law."]]
        ),
        "a.pdf",
    )
    assert made.text == "A well-known word. It is an example of a well-known thing, says Anglo-Saxon law."


def test_lines_are_joined_and_paragraphs_kept() -> None:
    full = "This line is as long as the text is wide, so that it goes on"
    made = read(samples.pdf([[full, "below it and ends here.", full, "here too.", "• a point", "• another"]]), "a.pdf")
    assert texts(made) == [f"{full} below it and ends here.", f"{full} here too.", "• a point", "• another"]


def test_running_heads_are_dropped() -> None:
    pages = [
        ["Co-operative handbook", f"Chapter about {word}.", "More text.", f"Page {n} of 4"]
        for n, word in enumerate(("snow", "rime", "fog", "wind"), 1)
    ]
    made = read(samples.pdf(pages), "a.pdf")
    assert "handbook" not in made.text
    assert "Page" not in made.text
    assert page_of(made, "fog") == 3


def test_pages_that_are_nothing_but_repetition_are_kept() -> None:
    assert len(texts(read(samples.pdf([["Same"], ["Same"], ["Same"]]), "a.pdf"))) == 3


def test_mending() -> None:
    vocabulary = {"effect"}
    assert pdf._mend("e\ufb00ect \uf0b7 \u2f00\r\nexam\ufffeple", vocabulary) == "effect • 一\nexample"
    assert pdf._glue("天" * 30, "地", 30) == ""
    assert pdf._glue("a" * 30, "b", 30) == " "
    assert pdf._glue("short", "b", 30) == "\n"


def test_encrypted() -> None:
    error = refusal(samples.pdf([["secret"]], encrypted=True), "a.pdf")
    assert error.kind == "encrypted"
    assert "password" in error.remedy


def test_the_kind_does_not_depend_on_what_was_read_before() -> None:
    """pdfium keeps the error code of an earlier document where one opens but has no pages."""
    without_pages, locked = samples.pdf([]), samples.pdf([["secret"]], encrypted=True)
    kinds = [refusal(data, "a.pdf").kind for data in (without_pages, locked, without_pages, b"%PDF-1.4", locked)]
    assert kinds == ["damaged", "encrypted", "damaged", "damaged", "encrypted"]


def test_pictures_only() -> None:
    error = refusal(samples.pdf([[], []]), "scan.pdf")
    assert error.kind == "needs_ocr"
    assert "2 pages" in error.message


def test_one_page_of_pictures_is_no_failure() -> None:
    assert page_of(read(samples.pdf([[], ["text"]]), "a.pdf"), "text") == 2


NOISE = {letter: 0xE000 + number for number, letter in enumerate("abcdefgh")}


def test_garbled() -> None:
    assert refusal(samples.pdf([["abcdefgh"]], to_unicode=NOISE), "a.pdf").kind == "garbled"


def test_garbled_page_is_left_out() -> None:
    mapping = {**{letter: ord(letter) for letter in "XYZ"}, **NOISE}
    assert read(samples.pdf([["abcdefgh"], ["XYZ"]], to_unicode=mapping), "a.pdf").text == "XYZ"


@pytest.mark.parametrize("cut", [9, 60, 200])
def test_broken(cut: int) -> None:
    assert refusal(samples.pdf([["text"]])[:cut], "a.pdf").kind == "damaged"


def test_by_unstructured() -> None:
    options = readers.ReaderOptions(pdf="unstructured")
    made = read(samples.pdf([["First page here."], ["Second page there."]], title="On ice"), "a.pdf", options)
    assert (made.reader, made.title) == ("unstructured-pdf/1", "On ice")
    assert page_of(made, "Second page") == 2
    assert refusal(samples.pdf([["x"]], encrypted=True), "a.pdf", options).kind == "encrypted"
