"""HTML: what is text, what is structure, what is left out."""

from __future__ import annotations

import pytest

from pipeline import readers
from tests.readers.helpers import path_of, paths, read, refusal, texts

PAGE = """<!DOCTYPE html><html><head><title>Data  policy</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav><script>var x = "<p>no</p>";</script>
<h1>Data <em>policy</em></h1>
<p>All records are <a href="https://example.org/licence">free</a>,<br>even the bad ones.</p>
<ul><li>first<ul><li>inner</li></ul></li><li>second</li></ul>
<h2>Quality</h2>
<blockquote><p>Never estimate.</p></blockquote>
<pre>flag = "M"
  kept</pre>
<table><caption>Flags</caption><tr><th>flag</th><th>meaning</th></tr><tr><td>G</td><td>good<p>really</p></td></tr></table>
<div hidden>unseen</div><div aria-hidden="true">unheard</div>
<footer>All rights reserved</footer></body></html>"""


def test_structure() -> None:
    made = read(PAGE.encode(), "policy.html")
    assert made.title == "Data policy"
    assert paths(made) == [("Data policy",), ("Data policy", "Quality")]
    assert [(block.kind, text) for block, text in zip(made.blocks, texts(made), strict=True)] == [
        ("heading", "Data policy"),
        ("paragraph", "All records are free,\neven the bad ones."),
        ("list", "- first\n  - inner\n- second"),
        ("heading", "Quality"),
        ("quote", "Never estimate."),
        ("code", 'flag = "M"\n  kept'),
        ("caption", "Flags"),
        ("table", "flag\tmeaning\nG\tgood really"),
    ]


@pytest.mark.parametrize("absent", ["example.org", "var x", "color", "Home", "unseen", "unheard", "All rights"])
def test_left_out(absent: str) -> None:
    assert absent not in read(PAGE.encode(), "policy.html").text


def test_boilerplate_is_kept_when_there_is_nothing_else() -> None:
    assert texts(read(b"<nav><ul><li>Snow</li><li>Rime</li></ul></nav>", "a.html")) == ["- Snow\n- Rime"]


def test_footer_of_an_article_is_kept() -> None:
    assert "by Grace" in read(b"<article><p>Fog.</p><footer>by Grace</footer></article>", "a.html").text


def test_layout_table_is_transparent() -> None:
    page = b"<table><tr><td><h1>Snow</h1>deep</td><td><table><tr><td>a</td><td>b</td></tr></table></td></tr></table>"
    made = read(page, "a.html")
    assert [block.kind for block in made.blocks] == ["heading", "paragraph", "table"]


def test_code_and_table_inside_a_list_keep_their_order() -> None:
    page = b"<ol><li>one<pre>x = 1</pre>after</li><li>two<table><tr><td>a</td><td>b</td></tr></table></li></ol>"
    assert texts(read(page, "a.html")) == ["- one", "x = 1", "- after\n- two", "a\tb"]


def test_unclosed_tags() -> None:
    assert texts(read(b"<p>one<p>two<b>bold<p>three", "a.html")) == ["one", "twobold", "three"]


@pytest.mark.parametrize(
    ("page", "word"),
    [
        ('<meta charset="gb2312"><p>青螺岭观测站的记录</p>'.encode("gb18030"), "青螺岭观测站的记录"),
        (
            '<meta http-equiv="Content-Type" content="text/html; charset=Shift_JIS"><p>雪の記録</p>'.encode("cp932"),
            "雪の記録",
        ),
        ('<?xml version="1.0" encoding="iso-8859-1"?><html><p>Hütte</p></html>'.encode("latin-1"), "Hütte"),
        ('<meta charset="latin-1"><p>Hütte in UTF-8</p>'.encode(), "Hütte in UTF-8"),
        ("\ufeff<p>青螺岭</p>".encode("utf-16-le"), "青螺岭"),
    ],
)
def test_encodings(page: bytes, word: str) -> None:
    assert read(page, "a.html").text == word


def test_entities_and_soft_hyphens() -> None:
    assert read(b"<p>Wet&shy;ter &amp; Schnee &#x96EA;&nbsp;!</p>", "a.html").text == "Wetter & Schnee 雪 !"


def test_no_text_is_empty() -> None:
    assert refusal(b"<html><body><img src=x></body></html>", "a.html").kind == "empty"
    assert refusal(b"<!-- nothing -->", "a.html").kind == "empty"


def test_by_unstructured() -> None:
    options = readers.ReaderOptions(html="unstructured")
    made = read(PAGE.encode(), "policy.html", options)
    assert made.reader == "unstructured-html/1"
    assert "Never estimate." in made.text
    assert path_of(made, "Never estimate.")[-1] == "Quality"


@pytest.mark.parametrize("tag", ["b", "font", "div", "blockquote"])
def test_what_follows_300_tags_that_nobody_closed_is_there(tag: str) -> None:
    page = f"<p>start</p>{f'<{tag}>' * 300}<p>the end</p>"
    assert "the end" in read(page.encode(), "a.html").text


def test_what_follows_a_picture_of_12_mb_is_there() -> None:
    """Saved pages hold their pictures in attributes; libxml2 ends there unless it is told not to."""
    page = f"<p>start</p><img src='data:image/png;base64,{'A' * 12_000_000}'><p>the end</p>"
    assert texts(read(page.encode(), "a.html")) == ["start", "the end"]


def test_a_page_that_is_cut_by_its_depth_is_refused() -> None:
    error = refusal(b"<p>start</p>" + b"<div>" * 3000 + b"<p>the end</p>", "a.html")
    assert (error.kind, "nested too deeply" in error.message) == ("damaged", True)
