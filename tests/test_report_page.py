"""The report's page: complete in itself, harmless whatever a document is called, and honest about what it was given."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import report_charts, report_page, report_words
from pipeline.report import Detail, Failure, Report
from pipeline.report_markup import el, page
from tests.report_samples import FAILED, FAILURES, FULL

VOID = {"meta", "link", "br", "img", "input"}
_TAGS = """
html head meta title link style body header main section footer h1 h2 p div span bdi b i small code ul li dl dt dd
details summary table thead tbody tr th td figure figcaption svg rect polygon polyline
"""
TAGS = set(_TAGS.split())


class Parsed(HTMLParser):
    """The page as a browser would see it: tags, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.style = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.style += data
        else:
            self.text += data

    @property
    def balanced(self) -> bool:
        return not self._open


@pytest.mark.parametrize("report", [FULL, FAILED, Report(collection="c", stages=())], ids=["full", "failed", "empty"])
def test_the_page_is_well_formed_and_made_of_known_tags(report: Report) -> None:
    text = report_page.render(report)
    parsed = Parsed(text)
    assert text.startswith("<!doctype html>\n")
    assert parsed.balanced
    assert set(parsed.tags) <= TAGS


@pytest.mark.parametrize("report", [FULL, FAILED])
def test_the_page_asks_for_nothing_and_runs_nothing(report: Report) -> None:
    parsed = Parsed(report_page.render(report))
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        assert name not in ("src", "action", "srcset", "style")
        assert name != "href" or value == "data:,"  # the icon, so that no browser asks for one
    assert "url(" not in parsed.style
    assert "@import" not in parsed.style


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    parsed = Parsed(report_page.render(FULL))
    policy = next(value for name, value in parsed.attributes if value and value.startswith("default-src"))
    digest = base64.b64encode(hashlib.sha256(parsed.style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        f"style-src 'sha256-{digest}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]


def test_a_hostile_name_stays_text_and_loses_what_misleads() -> None:
    text = report_page.render(FULL)
    assert "<img" not in text
    assert "</script>" not in text
    assert '<img src=x onerror="alert(1)">&amp;</script>gpj.' in Parsed(text).text
    assert not re.search("[\u202e\x00\x1b]", text)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80))
def test_no_text_becomes_markup(text: str) -> None:
    report = dataclasses.replace(
        FULL,
        collection=text,
        error=text,
        notes=(text,),
        failures=(Failure(uri=text, stage=text, kind=text, reason=text),),
        detail=Detail(named={"new": (text,)}, messages=(text,), provenance=((text, text),)),
    )
    parsed = Parsed(report_page.render(report))
    assert parsed.balanced
    assert set(parsed.tags) <= TAGS
    report_page.render(report).encode()  # a lone surrogate would not be UTF-8


def test_attributes_are_escaped_as_well() -> None:
    made = page("t", "", el("p", aria_label='" onclick="x'))
    assert 'aria-label="&quot; onclick=&quot;x"' in made


def test_a_child_after_an_element_stays_in_its_place() -> None:
    made = page("t", "", el("p", "one ", el("b", "two"), " three", " four"))
    assert "<p>one <b>two</b> three four</p>" in made


def test_the_page_tells_what_the_report_says() -> None:
    text = Parsed(report_page.render(FULL)).text
    for told in (
        "Dienst & Wiki",
        "Finished; 3 cannot be read or embedded",
        "3 min 13 s",
        "36,319",
        "1,281 a second",
        "6.3 MB more",
        "2 of 3 are new",
        "scans/1998 Bericht.pdf",
        "old/a.md → new/a.md",
        "and 200 more",
        "468836162de7",
        "+1,108",
        "No text is ever truncated",
        "Of 40 golden questions, 90.0% find their passage among the first five; what was published before finds 95.0%.",
        "That is more than 2.0% less, so it was not published.",
        "gone.md",
        "2.1 MB",
        "Last success: Sun 22 Nov 2026",
    ):
        assert told in text, told
    assert FAILURES[1].uri in text


def test_a_failed_night_says_why_and_what_to_do() -> None:
    text = Parsed(report_page.render(FAILED)).text
    assert "Failed with exit code 5" in text
    assert "connection refused" in text
    assert "ollama serve" in text
    assert "Last success: Sat 21 Nov 2026" in text
    assert "are new" not in text


def test_an_incomplete_night_says_what_is_left() -> None:
    left = dataclasses.replace(FULL, incomplete=True, files_left=12, chunks_left=3400, documents_held=7)
    text = Parsed(report_page.render(left)).text
    assert "Incomplete: the time was over; 3 cannot be read or embedded" in text
    assert "12 files to read, 3,400 chunks to embed; of 7 documents" in text


def test_long_lists_are_cut_and_say_so() -> None:
    many = tuple(Failure(uri=f"{n}.md", stage="ingest", kind="io", reason="x") for n in range(report_page.FAILURES + 5))
    text = Parsed(report_page.render(dataclasses.replace(FULL, failures=many))).text
    assert f"{report_page.FAILURES - 1}.md" in text
    assert f"{report_page.FAILURES}.md" not in text
    assert f"The first {report_page.FAILURES} are shown" in text


def test_the_record_reads_back_as_it_was() -> None:
    for report in (FULL, FAILED):
        assert msgspec.json.decode(msgspec.json.encode(report.to_json()), type=Report) == report


# --- charts and words


def test_a_line_reaches_from_edge_to_edge_and_from_nothing_to_the_top() -> None:
    made = report_charts.line("t", [(10.0, 0.0), (15.0, 5.0), (20.0, 10.0)], "a", "b")
    (curve,) = made.iter("polyline")
    assert curve.get("points") == "0.0,150.0 300.0,78.0 600.0,6.0"


def test_a_flat_line_of_nothing_is_drawn_at_the_bottom() -> None:
    made = report_charts.line("t", [(0.0, 0.0), (0.0, 0.0)], "a", "b")
    assert next(iter(made.iter("polyline"))).get("points") == "0.0,150.0 0.0,150.0"


def test_bars_are_as_high_as_their_counts() -> None:
    made = report_charts.bars("t", [1, 0, 4], ["x", "y", "z"], "a", "b")
    assert [float(rect.get("height", "")) for rect in made.iter("rect")] == [36.5, 0.0, 146.0]
    assert [title.text for title in made.iter("title")] == ["x", "y", "z"]


def test_a_share_of_one_in_a_million_can_still_be_seen() -> None:
    made = report_charts.shares([("unchanged", 999_999), ("failed", 1), ("new", 0)])
    assert [float(rect.get("width", "")) >= 3 for rect in made.iter("rect")] == [True, True, False]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.007, "7 ms"), (1.26, "1.3 s"), (9.97, "10 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert report_words.duration(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (2.5e15, "2,500.0 TB")])
def test_sizes(count: float, words: str) -> None:
    assert report_words.size(count) == words


@pytest.mark.parametrize(
    ("code", "level", "words"),
    [
        (0, "good", "Finished"),
        (3, "warn", "Finished; 3 cannot be read or embedded"),
        (130, "warn", "Interrupted"),
        (11, "bad", "Failed with exit code 11"),
    ],
)
def test_endings(code: int, level: str, words: str) -> None:
    assert report_words.ending(dataclasses.replace(FULL, exit_code=code)) == (level, words)


def test_changes_in_words() -> None:
    assert [report_words.change(now, 10) for now in (10, 22, 7)] == ["=", "+12", "−3"]
