"""Pages that are pictures: named where nothing reads them, read by an engine where there is one."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline import errors, readers
from pipeline.readers import ocr, pdf
from pipeline.readers.pdf_lines import Line
from pipeline.workers import WorkerPool
from tests.readers import pages, samples
from tests.readers.helpers import OPTIONS, page_of, read, refusal, texts

BLANK = np.full((220, 170), 255, np.uint8)
SCAN = BLANK.copy()
SCAN[50:60, 20:150] = 0
WORDS = pages.text(["The station lost ten hours of records.", "The fuse was rated at four amperes."])


class Engine:
    """Reads the same from every picture, or fails the way it is told to."""

    def __init__(self, said: list[str], fault: Exception | None) -> None:
        self.said, self.fault = said, fault
        self.shapes: list[tuple[int, ...]] = []

    def recognise(self, picture: ocr.Picture) -> list[Line]:
        self.shapes.append(picture.shape)
        if self.fault is not None:
            raise self.fault
        return [Line(text=line) for line in self.said]


@dataclass(frozen=True, kw_only=True)
class Fake(ocr.Recognition):
    choice: str = "fake/1"
    said: tuple[str, ...] = ("Recognised words.",)
    fault: Exception | None = None

    def engine(self) -> Engine:
        return Engine(list(self.said), self.fault)


def test_a_scanned_page_of_many_is_named_and_the_others_are_read() -> None:
    made = read(pages.pdf([WORDS, SCAN, SCAN, WORDS, SCAN]), "a.pdf")
    assert made.left_out == "pages 2-3, 5 scanned: needs OCR"
    assert [block.page for block in made.blocks] == [1, 4]


def test_a_blank_page_with_its_number_is_no_scan() -> None:
    number = pages.pdf([[pages.Text(text="17", y=700)], WORDS])
    assert read(number, "a.pdf").left_out == ""


def test_a_scan_is_refused_with_what_to_install() -> None:
    error = refusal(pages.pdf([SCAN, SCAN]), "scan.pdf")
    assert (error.kind, error.message) == ("needs_ocr", "2 pages without any text: scanned: needs OCR")
    assert "readers.ocr" in error.remedy
    assert ocr.has_rapidocr() or ".[ocr]" in error.remedy


def test_recognised_pages_stand_in_their_place() -> None:
    made = pdf.read(pages.pdf([WORDS, SCAN, WORDS]), "a.pdf", Fake())
    assert made.left_out == ""
    place = made.text.index("Recognised words.")
    assert [block.page for block in made.blocks if block.start == place] == [2]
    assert made.text.count("four amperes") == 2


def test_a_document_of_pictures_is_read_whole() -> None:
    made = pdf.read(pages.pdf([SCAN, BLANK]), "a.pdf", Fake(said=("A first line that goes", "on.", "", "Second.")))
    assert [made.text[block.start : block.end] for block in made.blocks] == [
        "A first line that goes on.",
        "Second.",
    ] * 2


@pytest.mark.parametrize("fault", [TimeoutError("more than 60 s"), ValueError("ended with 1")])
def test_a_page_on_which_the_engine_fails_costs_that_page(fault: Exception) -> None:
    made = pdf.read(pages.pdf([WORDS, SCAN]), "a.pdf", Fake(fault=fault))
    assert made.left_out == f"page 2 not recognised: {fault}"
    assert "four amperes" in made.text


def test_pages_beyond_the_limit_are_named() -> None:
    made = pdf.read(pages.pdf([SCAN, WORDS, SCAN, SCAN]), "a.pdf", Fake(pages=1))
    assert made.left_out == "pages 3-4 scanned, beyond the 1 pages of readers.ocr_pages"
    assert made.text.startswith("Recognised words.")


def test_pictures_of_nothing() -> None:
    with pytest.raises(errors.DocumentError, match="by fake/1: pages 1-2 scanned") as caught:
        pdf.read(pages.pdf([BLANK, BLANK]), "a.pdf", Fake(said=()))
    assert caught.value.kind == "empty"


def test_what_is_recognised_as_noise_is_not_believed() -> None:
    """Upside down, tesseract reads letters that make no words."""
    noise = tuple(f"xq{a}{b}kvz wq{b}{a}jfx" for a in "bcdfghjkm" for b in "pqtvwxz")
    made = pdf.read(pages.pdf([WORDS, SCAN]), "a.pdf", Fake(said=noise))
    assert made.left_out == "page 2 not recognised: its letters make no words"


def test_a_garbled_page_is_read_from_its_picture() -> None:
    mapping = {**{letter: ord(letter) for letter in "XYZ"}, "a": 0xE000, "b": 0xE001}
    data = samples.pdf([["abab"], ["XYZ"]], to_unicode=mapping)
    assert pdf.read(data, "a.pdf").left_out == "page 1 garbled (100% of its characters are unreadable)"
    made = pdf.read(data, "a.pdf", Fake())
    assert (made.text, made.left_out) == ("Recognised words.\n\nXYZ", "")


# --- the choice -------------------------------------------------------------------------------------------------------


def test_the_engine_is_part_of_the_reader() -> None:
    with_ocr = readers.ReaderOptions(ocr="rapidocr/3.10.0")
    assert readers.reader_of("a.pdf", with_ocr) == readers.reader_of("a.pdf", OPTIONS) + "+rapidocr/3.10.0"
    assert readers.reader_of("a.md", with_ocr) == readers.reader_of("a.md", OPTIONS)
    assert readers.is_current(readers.reader_of("a.pdf", with_ocr), "a.pdf", with_ocr)
    assert not readers.is_current(readers.reader_of("a.pdf", OPTIONS), "a.pdf", with_ocr)
    assert not readers.is_current(readers.reader_of("a.pdf", with_ocr), "a.pdf", OPTIONS)


def test_off_is_off() -> None:
    assert ocr.chosen("off", "eng") == ""


def test_auto_is_the_extra_or_nothing() -> None:
    """Never a program that happens to be on one's PATH, and is not on cron's: the documents would be read anew."""
    found = ocr.chosen("auto", "eng")
    assert found.startswith("rapidocr/") if ocr.has_rapidocr() else found == ""


@pytest.mark.skipif(ocr.has_rapidocr(), reason="the extra is installed")
def test_rapidocr_without_the_extra() -> None:
    with pytest.raises(errors.ConfigError) as caught:
        ocr.chosen("rapidocr", "eng")
    assert ".[ocr]" in caught.value.remedy


def test_tesseract_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.ConfigError, match="no such program"):
        ocr.chosen("tesseract", "tlh")


def test_a_tesseract_that_lacks_a_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(tmp_path, "echo 'tesseract 5.3.0'; echo eng; echo chi_sim")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert ocr.chosen("tesseract", "eng+chi_sim") == "tesseract/5.3.0(eng+chi_sim)"
    with pytest.raises(errors.ConfigError) as caught:
        ocr.chosen("tesseract", "eng+tlh")
    assert "tlh" in caught.value.message
    assert "chi_sim" in caught.value.remedy


def _program(folder: Path, script: str) -> None:
    program = folder / "tesseract"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_tesseract_that_fails_or_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    _program(tmp_path, "cat > /dev/null; echo 'no memory' >&2; exit 3")
    with pytest.raises(ValueError, match="ended with 3: no memory"):
        ocr.engine("tesseract/1(eng)", 20.0).recognise(SCAN)
    _program(tmp_path, "exec sleep 20")
    with pytest.raises(TimeoutError):
        ocr.engine("tesseract/1(eng)", 0.2).recognise(SCAN)


# --- order ------------------------------------------------------------------------------------------------------------


def box(text: str, left: float, top: float, right: float, height: float = 20) -> ocr.Box:
    return ocr.Box(text=text, left=left, right=right, top=top, bottom=top + height)


def order(boxes: list[ocr.Box]) -> list[str]:
    return [line.text for line in ocr.in_reading_order(boxes, 1000, 1400) if line.text]


def test_columns_are_read_one_after_the_other() -> None:
    title = box("Title over both", 200, 100, 800)
    left = [box(f"left {n}", 100, 200 + 24 * n, 480) for n in range(4)]
    right = [box(f"right {n}", 520, 200 + 24 * n, 900) for n in range(4)]
    expected = ["Title over both", *(f"left {n}" for n in range(4)), *(f"right {n}" for n in range(4))]
    assert order([*right, title, *left]) == expected


def test_tables_are_read_by_rows() -> None:
    cells = [
        box(text, 100 + 250 * at, 200 + 24 * row, 180 + 250 * at) for row in range(3) for at, text in enumerate("abc")
    ]
    assert order(cells[::-1]) == ["a b c"] * 3


def test_nothing_on_the_picture() -> None:
    assert ocr.in_reading_order([], 100, 100) == []


# --- real engines -----------------------------------------------------------------------------------------------------

ENGINES = [
    pytest.param(
        "rapidocr", marks=pytest.mark.skipif(not ocr.has_rapidocr(), reason="the extra `ocr` is not installed")
    ),
    pytest.param(
        "tesseract", marks=pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
    ),
]


@pytest.mark.parametrize("name", ENGINES)
def test_a_scan_is_read_in_a_worker(name: str, tmp_path: Path) -> None:
    """Under a run's limit of memory, and with a time limit that is too short unless it grows with the pages."""
    scan = pages.picture(
        pages.pdf([pages.text(["Four amperes, said the electrician.", "Nobody believed him."], size=16)])
    )
    file = tmp_path / "scan.pdf"
    file.write_bytes(pages.pdf([scan, scan]))
    options = readers.ReaderOptions(ocr=ocr.chosen(name, "eng"), ocr_page_s=100.0)
    with WorkerPool(1, memory_mb=3072) as pool:
        pool.submit("importlib:import_module", "pipeline.readers.pdf", timeout_s=60).exception()  # is not what is timed
        found = pool.submit("pipeline.readers:read_file", bytes(file), "scan.pdf", options, timeout_s=2.0).result()
    assert found.document is not None, found.reason
    assert texts(found.document)[0].startswith("Four amperes, said the electrician.")
    assert page_of(found.document, "electrician") == 1
    assert found.document.text.count("believed") == 2
