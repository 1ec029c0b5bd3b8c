"""Pictures of PDF pages: what is marked and what is not, on pages of many makes; and PDFs that mean harm."""

from __future__ import annotations

import asyncio
import io
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import pypdfium2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import highlight
from pipeline import errors, ids, origin
from pipeline.origin import Origin
from pipeline.readers import pdf_match, pdf_picture
from pipeline.readers.pdf_page import Picture, Wanted
from pipeline.serve.web.source_pictures import Pictures
from tests.readers import pages, samples
from tests.readers.helpers import read
from tests.served import MANUAL

CHINESE = MANUAL.parent.parent / "中文" / "青螺岭观测站手册.pdf"
LINES = ["Rime is ice that grows.", "It grows to windward.", "Snow is another thing."]


def under(data: bytes, wanted: Wanted) -> tuple[str, pdf_picture.Marks]:
    """What stands under the marks, words apart by one space, as pdfium says by the place of each letter."""
    pdf = pypdfium2.PdfDocument(data)
    try:
        marks = pdf_picture.find(pdf[wanted.page - 1], wanted)
        return " ".join(highlight.under(pdf[wanted.page - 1], marks).split()), marks
    finally:
        pdf.close()


def pixels(picture: Picture) -> np.ndarray:
    image = PIL.Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height)
    return np.asarray(image)


def tinted(found: np.ndarray) -> np.ndarray:
    """Where the picture is not grey: these pages are black on white."""
    return np.asarray(found[:, :, 0].astype(int) - found[:, :, 2] > 20)


# --- what is marked


def test_a_passage_and_nothing_else() -> None:
    data = samples.pdf([LINES])
    said, marks = under(data, Wanted(page=1, before=LINES[0], marked=LINES[1], after=LINES[2]))
    assert said == "It grows to windward."
    assert (marks.share, len(marks.boxes)) == (1.0, 1)


def test_the_picture_shows_it() -> None:
    picture = pdf_picture.draw(samples.pdf([LINES, ["Second"]]), Wanted(page=1, marked=LINES[1]))
    found = pixels(picture)
    (left, top, right, bottom), *_ = under(samples.pdf([LINES]), Wanted(page=1, marked=LINES[1]))[1].boxes
    rows, columns = np.nonzero(tinted(found))
    assert (abs(columns.min() - left) <= 3, abs(columns.max() - right) <= 3) == (True, True)
    assert (abs(rows.min() - top) <= 3, abs(rows.max() - bottom) <= 3) == (True, True)
    assert tuple(found[top + 1, left + 1]) == pdf_picture.MARK
    assert (found[top:bottom, left:right].max(axis=2) < 60).any(), "its letters are to be read"
    assert (picture.width, picture.pages, picture.share) == (pdf_picture.WIDTH, 2, 1.0)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_same_words_are_told_apart_by_where_they_stand(which: int) -> None:
    lines = ["The hut is open.", "Ring the bell.", "The hut is open.", "Wait.", "The hut is open."]
    at = 2 * which
    before, after = "\n".join(lines[:at]), "\n".join(lines[at + 1 :])
    marks = under(samples.pdf([lines]), Wanted(page=1, before=before, marked=lines[at], after=after))[1]
    tops = [
        under(samples.pdf([lines]), Wanted(page=1, marked=line))[1].boxes[0][1] for line in ("Ring the bell.", "Wait.")
    ]
    assert sum(top < marks.boxes[0][1] for top in tops) == which
    assert (marks.share, len(marks.boxes)) == (1.0, 1)


def marked_blocks(data: bytes) -> list[tuple[str, str, float]]:
    """Of each block: its words, those that are marked for it, and the share."""
    made = read(data, "a.pdf")
    found = []
    for page, blocks in itertools.groupby(made.blocks, lambda block: block.page or 0):
        texts = [made.text[block.start : block.end] for block in blocks]
        for at, text in enumerate(texts):
            wanted = Wanted(page=page, before="\n".join(texts[:at]), marked=text, after="\n".join(texts[at + 1 :]))
            said, marks = under(data, wanted)
            found.append((" ".join(text.split()), said, marks.share))
    return found


def test_mended_words_and_dropped_heads() -> None:
    body = [["The station on the ridge is an exam-", "ple of a well-built hut."], ["Nobody can see it."], ["Fog."]]
    lines = [
        [
            pages.Text(text="Handbook of the hut", y=30, size=8),
            *pages.text(text),
            pages.Text(text=f"{n}", y=775, size=8),
        ]
        for n, text in enumerate(body, 1)
    ]
    first, *others = marked_blocks(pages.pdf(lines))
    assert first[0] == "The station on the ridge is an example of a well-built hut."
    assert highlight.words(first[1]) == highlight.words(first[0])
    assert [(text, said) for text, said, _ in others] == [("Nobody can see it.",) * 2, ("Fog.",) * 2]
    assert {share for *_, share in (first, *others)} == {1.0}


def test_two_columns() -> None:
    left = [f"Left {word} of the first column stands here." for word in ("one", "two", "three", "four")]
    right = [f"Right {word} of the other column." for word in ("one", "two", "three", "four")]
    data = pages.pdf([[*pages.text(left, size=8), *pages.text(right, x=330, size=8)]])
    wanted = Wanted(page=1, before=left[0], marked=" ".join(left[1:3]), after=" ".join([left[3], *right]))
    said, marks = under(data, wanted)
    assert said == " ".join(left[1:3])
    assert max(box[2] for box in marks.boxes) < 330 / 612 * pdf_picture.WIDTH


def test_columns_that_were_read_in_another_order() -> None:
    left, right = (
        [f"{side} {word} of a column of words to be read." for word in ("one", "two", "three")]
        for side in ("Left", "Right")
    )
    data = pages.pdf([[*pages.text(right, x=330, size=8), *pages.text(left, size=8)]])  # the right one is written first
    said, marks = under(data, Wanted(page=1, marked=" ".join(left), after=" ".join(right)))
    assert (said, marks.share) == (" ".join(left), 1.0)


def test_every_passage_of_the_sample_documents() -> None:
    for path in (MANUAL, CHINESE):
        found = highlight.measure(path)
        print(path.name, found)
        assert (found.exact, found.unmarked) == (found.passages, 0)
        assert found.passages >= 4


# --- pages of every kind


def changed(data: bytes, *, rotation: int = 0, crop: tuple[float, float, float, float] | None = None) -> bytes:
    pdf = pypdfium2.PdfDocument(data)
    pdf[0].set_rotation(rotation)
    if crop is not None:
        pdf[0].set_cropbox(*crop)
    out = io.BytesIO()
    pdf.save(out)
    pdf.close()
    return out.getvalue()


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("crop", [None, (30.0, 300.0, 500.0, 780.0)])
def test_turned_and_cropped_pages(rotation: int, crop: tuple[float, float, float, float] | None) -> None:
    text = "All the ink of this page is in one line."
    data = changed(pages.pdf([[pages.Text(text=text, y=200, size=14)]]), rotation=rotation, crop=crop)
    picture = pdf_picture.draw(data, Wanted(page=1, marked=text))
    found = pixels(picture)
    ink, marked = found.max(axis=2) < 100, tinted(found)
    assert ink.sum() > 1000
    boxes = under(data, Wanted(page=1, marked=text))[1].boxes
    inside = np.zeros_like(ink)
    for left, top, right, bottom in boxes:
        inside[top - 2 : bottom + 2, left - 2 : right + 2] = True
    assert (ink & ~inside).sum() == 0, "a letter stands outside of the marks"
    assert (marked & ~inside).sum() == 0
    assert inside.mean() < 0.1
    assert (picture.height > picture.width) == (rotation in (0, 180))


def test_a_page_without_text() -> None:
    picture = pdf_picture.draw(
        pages.pdf([pages.picture(samples.pdf([LINES]), dpi=50)]), Wanted(page=1, marked=LINES[0])
    )
    assert (picture.letters, picture.share, tinted(pixels(picture)).any()) == (0, 0.0, False)


def test_text_that_is_not_on_the_page() -> None:
    said, marks = under(samples.pdf([LINES]), Wanted(page=1, marked="Xylophones jump quickly over zebras."))
    assert (said, marks.share, marks.boxes) == ("", 0.0, [])


def test_a_page_whose_own_text_is_garbled() -> None:
    """It was recognised as a picture: what it says itself is something else, a word or two aside."""
    text = "It grows to windward, and the hut is closed by the keeper when the rime is a hand deep."
    said, marks = under(samples.pdf([["qzx jvk hut wqp", "xkcd zzz rime qqq"]]), Wanted(page=1, marked=text))
    assert (said, marks.share, marks.letters > 0) == ("", 0.0, True)


@pytest.mark.parametrize("box", [b"[0 0 14400 14400]", b"[0 0 200000 200000]", b"[0 0 2 2]", b"[0 0 612 7]"])
def test_pages_of_any_size_have_pictures_of_a_bounded_one(box: bytes) -> None:
    data = samples.pdf([LINES]).replace(b"[0 0 612 792]", box)
    picture = pdf_picture.draw(data, Wanted(page=1))
    assert picture.width * picture.height <= pdf_picture.MAX_PIXELS * 1.01


@pytest.mark.parametrize(
    ("data", "page", "kind"),
    [
        (samples.pdf([LINES]), 2, "no_page"),
        (samples.pdf([LINES]), 0, "no_page"),
        (b"%PDF-1.4\nnothing of the kind", 1, "damaged"),
        (samples.pdf([LINES], encrypted=True), 1, "damaged"),
        (samples.pdf([LINES]).replace(b"[0 0 612 792]", b"[0 0 .01 14400]"), 1, "damaged"),
    ],
)
def test_what_cannot_be_drawn(data: bytes, page: int, kind: str) -> None:
    with pytest.raises(errors.DocumentError) as caught:
        pdf_picture.draw(data, Wanted(page=page))
    assert caught.value.kind == kind


# --- letters


def test_forms_of_letters_are_one() -> None:
    ours, theirs = pdf_match.letters("efﬁcient café ガ 〇⼀"), pdf_match.letters("efficient cafe\u0301 カ\u3099 〇一")
    assert ours.text == theirs.text
    assert [ours.places[at] for at in (2, 3)] == [2, 2], "both halves of the ligature are one character"


def test_hyphens_and_signs_count_for_nothing() -> None:
    assert pdf_match.letters("ex-am\ufffe\nple, (1)").text == "example1"


WORDS = st.lists(st.sampled_from("the of snow rime hut 1 12 ice".split()), max_size=60)  # noqa: SIM905


@given(kept=st.lists(st.tuples(WORDS, st.booleans()), max_size=8))
def test_what_was_left_out_is_passed_over(kept: Sequence[tuple[list[str], bool]]) -> None:
    """Each letter is joined with an equal one, none twice, and in order where parts were only left out."""
    theirs = "".join("".join(part) for part, _ in kept)
    ours = "".join("".join(part) for part, stays in kept if stays)
    found = pdf_match.align(ours, theirs)
    assert len(found) == len(ours)
    joined = [(at, place) for at, place in enumerate(found) if place >= 0]
    assert all(ours[at] == theirs[place] for at, place in joined)
    assert len({place for _, place in joined}) == len(joined)


@given(parts=st.permutations([f"part{n}" + chr(97 + n) * 3 + "x".join("abcdefghij"[n:]) * 3 for n in range(6)]))
def test_parts_in_another_order_are_found(parts: list[str]) -> None:
    theirs = "".join(sorted(parts))
    found = pdf_match.align("".join(parts), theirs)
    assert sum(place >= 0 for place in found) >= 0.95 * len(theirs)


# --- PDFs that mean harm, in the process that draws


def slow_pdf(groups: int = 200) -> bytes:
    """Read at once, and drawn for more than ten minutes: transparent layers, each of the whole page."""
    layer = b"0.9 g 0 0 612 792 re f"
    group = b"<</Type/XObject/Subtype/Form/BBox[0 0 612 792]/Group<</S/Transparency/I true>>/Length %d>>" % len(layer)
    group += b"stream\n%s\nendstream" % layer
    content = (
        b"BT /F 12 Tf 72 700 Td (The slow page tells of snow, and of how long it takes to fall.) Tj ET /G gs "
        + b"/X Do " * groups
    )
    resources = b"/Font<</F 5 0 R>>/XObject<</X 6 0 R>>/ExtGState<</G<</ca .5/BM/Multiply>>>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<<%s>>>>" % resources,
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        group,
    ]
    listed = b"".join(b"%d 0 obj\n%s\nendobj\n" % pair for pair in enumerate(objects, 1))
    return b"%PDF-1.4\n" + listed + b"trailer<</Root 1 0 R>>\n%%EOF"  # pdfium finds its objects without a table


def behind(path: Path) -> Origin:
    data = path.read_bytes()
    known = ids.content_hash(data)
    return Origin(
        uri=path.name,
        member="",
        path=bytes(path),
        size=len(data),
        file_hash=known,
        content_hash=known,
        fate="same",
    )


async def drawn(pictures: Pictures, path: Path) -> Picture | errors.PipelineError:
    try:
        return await pictures.get(behind(path), Wanted(page=1, marked="snow"))
    except errors.PipelineError as error:
        return error


def test_a_pdf_that_takes_for_ever_is_given_up_and_the_next_is_drawn(tmp_path: Path) -> None:
    slow, good = tmp_path / "slow.pdf", tmp_path / "good.pdf"
    slow.write_bytes(slow_pdf())
    good.write_bytes(samples.pdf([LINES]))

    async def go() -> None:
        pictures = Pictures(memory_mb=3072, most_mb=200, seconds=4)
        try:
            results = await asyncio.gather(*(drawn(pictures, path) for path in (slow, slow, good)))
            assert [type(result) for result in results] == [errors.WorkerTimeout, errors.WorkerTimeout, Picture]
            assert isinstance(await drawn(pictures, slow), errors.WorkerTimeout), "it is remembered"
            assert await drawn(pictures, good) is results[2], "so is a picture"
        finally:
            await pictures.aclose()

    asyncio.run(go())


def test_no_more_wait_than_there_is_room_for(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(samples.pdf([LINES] * 3))

    async def go() -> None:
        pictures = Pictures(memory_mb=3072, most_mb=200, waiting=2)
        wanted = [pictures.get(behind(tmp_path / "a.pdf"), Wanted(page=page)) for page in (1, 2, 3)]
        try:
            first, second, third = await asyncio.gather(*wanted, return_exceptions=True)
            assert (type(first), type(second), type(third)) == (Picture, Picture, errors.TransientFault)
        finally:
            await pictures.aclose()

    asyncio.run(go())


def test_as_many_pictures_are_kept_as_there_is_room_for(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(samples.pdf([LINES] * 2))

    async def go() -> None:
        pictures = Pictures(memory_mb=3072, most_mb=200, kept_bytes=1)
        try:
            first, second = [await pictures.get(behind(tmp_path / "a.pdf"), Wanted(page=page)) for page in (1, 2)]
            assert await pictures.get(behind(tmp_path / "a.pdf"), Wanted(page=2)) is second
            again = await pictures.get(behind(tmp_path / "a.pdf"), Wanted(page=1))
            assert (again is first, again == first) == (False, True)
        finally:
            await pictures.aclose()

    asyncio.run(go())


def test_a_file_that_is_not_what_was_indexed_is_not_drawn(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(samples.pdf([LINES]))
    known = behind(path)
    path.write_bytes(samples.pdf([LINES]).replace(b"windward", b"leeward!"))  # of the same size
    for change in ("other content", "a folder", "gone"):
        with pytest.raises(errors.DocumentError) as caught:
            origin.draw(known, Wanted(page=1), 1_000_000)
        assert caught.value.kind == {"other content": "changed"}.get(change, "vanished")
        path.unlink(missing_ok=True) if not path.is_dir() else path.rmdir()
        if change == "other content":
            path.mkdir()
