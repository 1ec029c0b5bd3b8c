"""PDF: pages, mended words and lines, headings from the outline, and every way to have no text."""

from __future__ import annotations

import pytest

from pipeline import readers
from pipeline.readers import pdf_headings, pdf_lines
from tests.readers import pages, samples
from tests.readers.helpers import page_of, path_of, paths, read, refusal, texts


def test_pages_title_and_outline() -> None:
    pages = [["1 Rime", "Rime is ice."], ["It grows", "to windward."], ["2 Snow", "Snow is deep."]]
    made = read(samples.pdf(pages, title="On ice", outline=[("Rime", 0), ("2 Snow", 2)]), "ice.pdf")
    assert (made.reader, made.title, made.media_type) == ("pdfium/3", "On ice", "application/pdf")
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


TEXT = [
    "The station on the ridge lost ten hours of its records in one night, for",
    "the fuse that had been put in was rated at four amperes and not at six.",
    "Rime had grown to windward, a hand deep, and nobody could leave the hut.",
]


def body(number: int) -> list[str]:
    """A page's text: no line is that of another page."""
    return [f"{line} ({'abcdefghij'[number] * (at + 1)})" for at, line in enumerate(TEXT * 2)]


def running(head: str, foot: str, body: list[pages.Text]) -> list[pages.Text]:
    return [pages.Text(text=head, y=50, size=8), *body, pages.Text(text=foot, y=760, size=8)]


def test_running_heads_are_dropped() -> None:
    made = read(
        pages.pdf(
            [
                running("Handbook of the hut", f"Page {n} of 4", pages.text([f"About {word}.", *TEXT]))
                for n, word in enumerate(("snow", "rime", "fog", "wind"), 1)
            ]
        ),
        "a.pdf",
    )
    assert "Handbook" not in made.text
    assert "Page" not in made.text
    assert page_of(made, "fog") == 3
    assert made.text.count("four amperes") == 4


def test_page_numbers_that_begin_anew_are_dropped() -> None:
    made = read(pages.pdf([running("", f"{n} HUT", pages.text(body(n))) for n in (7, 8, 9, 1, 2, 3, 4, 5)]), "a.pdf")
    assert "HUT" not in made.text


def test_the_head_of_a_table_that_goes_on_is_kept() -> None:
    rows = [[f"2026-01-{day:02}  {hour:02}:00  {day * hour} cm" for hour in range(1, 9)] for day in (1, 2, 3, 4)]
    made = read(pages.pdf([pages.text(["Day  Hour  Depth of snow", *lines]) for lines in rows]), "a.pdf")
    assert made.text.count("Depth of snow") == 4


def test_chapters_of_a_page_each_are_kept() -> None:
    """Their numbers grow with the pages, but they stand large."""
    made = read(
        pages.pdf([[pages.Text(text=f"Chapter {n}", y=60, size=16), *pages.text(body(n))] for n in (1, 2, 3, 4)]),
        "a.pdf",
    )
    assert paths(made) == [("Chapter 1",), ("Chapter 2",), ("Chapter 3",), ("Chapter 4",)]


def test_numbers_that_are_not_those_of_pages_are_kept() -> None:
    made = read(pages.pdf([running("", f"Depth {depth} cm", pages.text(TEXT)) for depth in (31, 7, 100, 64)]), "a.pdf")
    assert "Depth 7 cm" in made.text


def test_pages_that_are_nothing_but_repetition_are_kept() -> None:
    assert len(texts(read(samples.pdf([["Same"], ["Same"], ["Same"]]), "a.pdf"))) == 3


def mended(*lines: str) -> list[str]:
    return [line.text for line in pdf_lines.cleaned([[pdf_lines.Line(text=line) for line in lines]])[0]]


def test_mending() -> None:
    assert mended("e\ufb00ect \uf0b7 \u2f00", "exam\ufffeple") == ["effect • 一", "example"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["exam-", "ple here"], ["example", "here"]),
        (["exam\ufffe", "ple, here"], ["example,", "here"]),
        (["Anglo-", "Saxon law"], ["Anglo-Saxon", "law"]),
        (["N-", "methyl groups"], ["N-methyl", "groups"]),
        (["a state-", "owned mine", "the mine is owned by the state"], ["a state-owned", "mine"]),
        (["a well-", "known word", "a well-known word"], ["a well-known", "word"]),
        (["in-", "put and output", "the input"], ["input", "and output"]),
        (["1990-", "1995"], ["1990-", "1995"]),
        (["a dash -", "and text"], ["a dash -", "and text"]),
    ],
)
def test_broken_words(lines: list[str], expected: list[str]) -> None:
    assert mended(*lines)[: len(expected)] == expected


@pytest.mark.parametrize(
    ("line", "after", "glue"),
    [("天" * 30, "地", ""), ("天" * 30, "a", ""), ("가" * 30, "나", " "), ("a" * 30, "b", " "), ("short", "b", "\n")],
)
def test_lines_are_glued_as_their_script_wants(line: str, after: str, glue: str) -> None:
    assert pdf_lines._glue(pdf_lines.Line(text=line), after, 30) == glue


# --- headings ---------------------------------------------------------------------------------------------------------


def chapter(number: int, title: str) -> list[pages.Text]:
    return [
        pages.Text(text=f"{number} {title}", y=100, size=16, bold=True),
        *pages.text(TEXT, y=130),
        pages.Text(text=f"{number}.1 What was {title.lower()}", y=200, size=12),
        *pages.text(TEXT, y=220),
    ]


def test_large_letters_are_headings() -> None:
    title = pages.Text(text="On the loss of records", y=60, size=24)
    made = read(pages.pdf([[title, *chapter(1, "Seen")], chapter(2, "Heard"), chapter(3, "Done")]), "a.pdf")
    assert made.title == "On the loss of records"
    assert paths(made)[:3] == [(made.title,), (made.title, "1 Seen"), (made.title, "1 Seen", "1.1 What was seen")]
    assert paths(made)[-1] == (made.title, "3 Done", "3.1 What was done")
    assert made.blocks[-1].heading_path == paths(made)[-1]
    assert made.blocks[-1].page == 3


def test_a_heading_of_two_lines_is_one() -> None:
    lines = [pages.Text(text="A long heading that goes on", y=100, size=16), pages.Text(text="below", y=118, size=16)]
    made = read(pages.pdf([[*lines, *pages.text(TEXT * 3, y=150)]]), "a.pdf")
    assert paths(made) == [("A long heading that goes on below",)]


def run_on(*pieces: tuple[str, float, bool]) -> list[pages.Text]:
    """A line at the head of a page whose letters change their size: text, size in points, bold."""
    x, line = 72.0, []
    for text, size, bold in pieces:
        line.append(pages.Text(text=text, y=60, x=x, size=size, bold=bold))
        x += 0.62 * size * len(text)
    return line


@pytest.mark.parametrize(
    ("pieces", "path"),
    [
        (
            (("Depth of snow on the ridge ", 16, False), ("(2 of 4)", 8, False)),
            ("Depth of snow on the ridge (2 of 4)",),
        ),
        ((("Summary ", 16, False), ("of what was seen on the ridge by night", 10, False)), ()),
        ((("S", 30, False), ("now lay on the ridge, a hand deep and more", 10, False)), ()),
    ],
    ids=["small letters after a heading", "a heading that runs into its text", "an initial"],
)
def test_most_letters_of_a_line_tell_its_size(pieces: tuple[tuple[str, float, bool], ...], path: tuple[str]) -> None:
    made = read(pages.pdf([[*run_on(*pieces), *pages.text(TEXT * 4, y=130)]]), "a.pdf")
    assert path_of(made, "four amperes") == path


def test_a_table_of_contents_is_nobodys_parent() -> None:
    first = [pages.Text(text="On the loss of records", y=60, size=24), pages.Text(text="Contents", y=100, size=20)]
    chapters = [*chapter(1, "Seen"), *pages.text(TEXT, y=400)]
    made = read(pages.pdf([[*first, *pages.text(["Seen 2", "Heard 3"], y=130)], chapters]), "a.pdf")
    assert path_of(made, "Heard 3") == ("On the loss of records", "Contents")
    assert path_of(made, "four amperes")[:2] == ("On the loss of records", "1 Seen")


def test_a_short_document_may_be_a_third_headings() -> None:
    """A table under each heading; but names in a diagram, of fewer letters still, are none."""
    heads = [pages.Text(text=f"Table of depths in winter {n}", y=60 + 80 * n, size=16) for n in range(8)]
    rows = [
        row
        for n in range(8)
        for row in pages.text(
            ["Snow of the year, deep", "rime and fog, seldom", "thaw in the May after it"], y=80 + 80 * n
        )
    ]
    lines = sorted([*heads, *rows], key=lambda line: line.y)
    assert len(paths(read(pages.pdf([lines]), "a.pdf"))) == 8
    names = [
        pages.Text(text=f"Station {word}", y=60 + 80 * n, size=16) for n, word in enumerate(("one", "two", "three"))
    ]
    marks = pages.text(["40 cm", "7 cm", "12 cm"], y=80, step=80)
    lines = sorted([*names, *marks, *pages.text(TEXT, y=600)], key=lambda line: line.y)
    assert paths(read(pages.pdf([lines]), "a.pdf")) == [("Station one",)]


@pytest.mark.parametrize(
    "line",
    [
        pages.Text(text="This is a sentence that stands large.", y=60, size=16),
        pages.Text(text="goes on in small letters", y=60, size=16),
        pages.Text(text="17,81,841", y=60, size=16),
        pages.Text(text="A1", y=60, size=16),
        pages.Text(text="arXiv: 2004 stamp", y=400, x=20, size=20, upright=False),
        pages.Text(text="Name of the applicant", y=60, size=10, bold=True),
    ],
)
def test_what_is_no_heading(line: pages.Text) -> None:
    made = read(pages.pdf([[line, *pages.text(["a short line"], y=90), *pages.text(TEXT * 3, y=150)]]), "a.pdf")
    assert paths(made) == []


def test_an_icon_that_is_written_after_the_text_beside_it_is_no_heading() -> None:
    icon = pages.Text(text="TIP", y=140, x=20, size=12, bold=True)
    beside = [*chapter(1, "Seen"), *pages.text(TEXT, y=300), icon]
    made = read(pages.pdf([beside, chapter(2, "Heard"), pages.text(TEXT)]), "a.pdf")
    assert "TIP" in made.text
    assert not [path for path in paths(made) if "TIP" in path]


def test_bold_letters_of_the_text_are_headings_where_a_number_or_the_text_says_so() -> None:
    body = [
        pages.Text(text="2 Causes", y=100, bold=True),
        *pages.text(["A short line"], y=120),
        *pages.text(TEXT, y=150),
        pages.Text(text="What nobody saw", y=220, bold=True),
        *pages.text(TEXT, y=240),
        pages.Text(text="Name Depth", y=300, bold=True),
        *pages.text(["Ewan 7", "Tom 8"], y=314),
    ]
    assert paths(read(pages.pdf([body]), "a.pdf")) == [("2 Causes",), ("What nobody saw",)]


def test_text_that_is_all_large_has_no_headings() -> None:
    """A page of slides, a poster: half of it cannot be headings."""
    large = pages.text([f"Large line {n}" for n in range(20)], size=16, step=30)
    assert paths(read(pages.pdf([[*large, *pages.text(TEXT, y=720)]]), "a.pdf")) == []


def test_names_and_dates_under_a_title_are_no_headings() -> None:
    first = [
        pages.Text(text="On the loss of records", y=60, size=20),
        pages.Text(text="Ewan Brock and Tom Reed", y=90, size=13),
        *chapter(1, "Seen"),
    ]
    made = read(pages.pdf([first, chapter(2, "Heard"), chapter(3, "Done")]), "a.pdf")
    assert path_of(made, "Ewan Brock") == ("On the loss of records",)


def test_an_outline_says_of_which_level_the_sizes_are() -> None:
    """It names two of four headings; the others are of the level of those that look like them."""
    lines = [
        [pages.Text(text=f"{name} of snow", y=60, size=size), *pages.text(body(n), y=90)]
        for n, (name, size) in enumerate([("Kinds", 16), ("Depth", 13), ("Weight", 13), ("Loss", 16)])
    ]
    found = [[pdf_lines.Line(text=one.text, size=one.size, top=one.y / 792) for one in page] for page in lines]
    entries = {
        0: [pdf_headings.Entry(title="Kinds of snow", level=2)],
        1: [pdf_headings.Entry(title="Depth of snow", level=4)],
    }
    parts = pdf_headings.parts(found, entries)
    assert [part.level for page in parts for part in page if part.level] == [2, 4, 4, 2]


def test_a_title_of_the_outline_that_no_line_shows_is_entered_where_it_leads_to() -> None:
    lines = [pdf_lines.Line(text=text, size=10, top=top) for text, top in (("one", 0.1), ("two", 0.5), ("three", 0.6))]
    entries = {0: [pdf_headings.Entry(title="One", level=1), pdf_headings.Entry(title="A picture", level=2, top=0.48)]}
    (page,) = pdf_headings.parts([lines], entries)
    assert [(part.level, part.title, [line.text for line in part.lines]) for part in page] == [
        (1, "", ["one"]),
        (2, "A picture", []),
        (0, "", ["two", "three"]),
    ]


def test_an_outline_that_does_not_fit_is_passed_over() -> None:
    data = samples.pdf([["Rime", "is ice."]], outline=[(f"slide{n}.png", 0) for n in range(4)])
    assert paths(read(data, "a.pdf")) == []


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
    assert (made.reader, made.title) == ("unstructured-pdf/2", "On ice")
    assert page_of(made, "Second page") == 2
    assert refusal(samples.pdf([["x"]], encrypted=True), "a.pdf", options).kind == "encrypted"
