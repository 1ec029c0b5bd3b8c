"""XML: its text as it stands, under the headings of its sections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import document, readers
from pipeline.readers import xml
from tests.readers.helpers import OPTIONS, check, path_of, paths, read

JATS = """<?xml version="1.0"?>
<!DOCTYPE article PUBLIC "-//NLM//DTD JATS" "JATS.dtd">
<article><front><title-group><article-title>On <italic>rime</italic> &amp; ice</article-title></title-group></front>
<body><p>Rime is ice.</p>
<sec id="s1"><title>Causes</title><p>the wind</p>
<sec><title><bold>Of  the</bold> wind</title><!-- <title>not this</title> --><p>a storm</p>
<fig><caption><title>A mast</title><p>leaning</p></caption></fig>
<p>all night</p></sec>
<p>and the cold</p></sec>
<p>at last</p></body></article>
"""


def test_sections_and_the_text_between_them() -> None:
    made = read(JATS.encode(), "a.xml")
    assert (made.text, made.title, made.reader) == (JATS, "On rime & ice", "xml/1")
    assert made.media_type == "application/xml"
    assert paths(made) == [("Causes",), ("Causes", "Of the wind")]
    found = {piece: path_of(made, piece) for piece in ("Rime is", "the wind<", "a storm", "leaning", "all night")}
    inner = ("Causes", "Of the wind")
    assert found == {"Rime is": (), "the wind<": ("Causes",), "a storm": inner, "leaning": inner, "all night": inner}
    assert (path_of(made, "and the cold"), path_of(made, "at last")) == (("Causes",), ())


def test_a_heading_begins_where_its_section_does() -> None:
    made = read(JATS.encode(), "a.nxml")
    (block,) = [block for block in made.blocks if block.heading_path == ("Causes",) and block.kind == "heading"]
    assert made.text[block.start : block.end] == '<sec id="s1"><title>Causes</title>'


def test_levels_of_headings_that_follow_one_another() -> None:
    """Patents: no section is around a heading and its text, or one is around every heading by itself."""
    source = (
        '<description><heading level="1">CLAIMS</heading><p>one</p><heading level="2">Of snow</heading><p>two</p>'
        '<drawings><heading level="1">DRAWINGS</heading><p>three</p></drawings>'
        '<H LVL="1"><PDAT>FIELD</PDAT></H><p>four</p></description>'
    )
    made = read(source.encode(), "a.xml")
    assert [path_of(made, f"<p>{word}") for word in ("one", "two", "three", "four")] == [
        ("CLAIMS",),
        ("CLAIMS", "Of snow"),
        ("DRAWINGS",),
        ("FIELD",),
    ]


def test_docbook_says_its_title_in_info() -> None:
    made = read(
        b"<book><info><title>Ice</title></info><chapter><title>Rime</title><para>x</para></chapter></book>", "a.xml"
    )
    assert (made.title, path_of(made, "<para>")) == ("Ice", ("Ice", "Rime"))


def test_items_of_a_feed() -> None:
    items = "".join(f"<item><title>{name}</title><link>x</link></item>\n" for name in ("Snow", "Rime"))
    feed = f"<rss><channel><title>Hut</title><image><title>logo</title></image>{items}</channel></rss>"
    made = read(feed.encode(), "a.xml")
    assert made.title == "Hut"
    assert paths(made) == [("Hut",), ("Hut", "Snow"), ("Hut", "Rime")]


@pytest.mark.parametrize(
    "source",
    [
        "<project><name>hut</name>\n\n<title/></project>",
        f"<a><title>{'long ' * 100}</title>x</a>",
        "<a><title> </title>x</a>",
        "<!-- <a><title>x</title>",
        "<![CDATA[<a><title>x</title>]]>",
        "<table><title>x</title></table>",
        "</title></a>text",
    ],
)
def test_what_has_no_heading_stays_as_it_is(source: str) -> None:
    made = read(source.encode(), "a.xml")
    assert (made.text, paths(made), made.title) == (source, [], "")


def test_html_under_such_a_name_is_html() -> None:
    assert read(b"<!DOCTYPE html><html><p>x</p></html>", "a.xml").reader.startswith("html/")


@pytest.mark.parametrize("piece", ["<a>", "<!", "<!--", "</a>", "<a", "<title>", "<a><title>x</title>", "<a b"])
def test_a_megabyte_of_one_thing_is_no_work(piece: str) -> None:
    """Quadratic in any of them takes hours."""
    text = piece * (1_000_000 // len(piece))
    assert readers.read_bytes(text.encode(), "a.xml", OPTIONS).text == text


_TAGS = "<a> </a> <sec> </sec> <title> </title> <h|lvl='2'> </h> <info> </info> <!-- --> <?x <![CDATA[ ]]> <b/> < > x"
_PIECES = [tag.replace("|", " ") for tag in _TAGS.split()]


@given(st.lists(st.sampled_from([*_PIECES, " ", "\n", "\n\n", "雪", "&amp;"]), max_size=60).map("".join))
def test_any_order_of_tags(text: str) -> None:
    made = xml.read(text.encode(), "a.xml")
    check(
        document.Document(title=made.title, media_type="application/xml", text=text, blocks=made.blocks, reader="xml/1")
    )
