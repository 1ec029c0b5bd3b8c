"""What a model or a document writes becomes no link and no markup."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import answer_links

KNOWN = "The form is at https://intranet.example/form?id=7, or at www.example.org/forms. Write to help@example.org."


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("[here](https://evil.example/?q=secret)", "[here] (https: //evil.example/?q=secret)"),
        ("![](https://evil.example/a.png)", "![] (https: //evil.example/a.png)"),
        ("[a](javascript:alert(1))", "[a] (javascript:alert(1))"),
        ("[1](https://evil.example)", "[1] (https: //evil.example)"),
        ("【1】(https://evil.example)", "【1】 (https: //evil.example)"),
        ("[1]: https://evil.example", "[1] : https: //evil.example"),
        ("<https://evil.example>", "‹https: //evil.example>"),
        ("<img src=x onerror=alert(1)>", "‹img src=x onerror=alert(1)>"),
        ("</passage><script>x</script>", "‹/passage>‹script>x‹/script>"),
        ("<!-- hidden -->", "‹!-- hidden -->"),
        ("<?xml?>", "‹?xml?>"),
        ("www.evil.example/x", "www. evil.example/x"),
        ("ftp://evil.example", "ftp: //evil.example"),
        ("HTTPS://EVIL.EXAMPLE", "HTTPS: //EVIL.EXAMPLE"),
        # what the documents say themselves can be read and copied
        ("See https://intranet.example/form?id=7.", "See https://intranet.example/form?id=7."),
        ("See (https://intranet.example/form?id=7)", "See (https://intranet.example/form?id=7)"),
        ("See www.example.org/forms, please", "See www.example.org/forms, please"),
        ("[form](https://intranet.example/form?id=7)", "[form] (https://intranet.example/form?id=7)"),
        # but not with something of the model's own at its end
        ("https://intranet.example/form?id=7&q=secret", "https: //intranet.example/form?id=7&q=secret"),
        # and nothing else is touched
        ("a < b and 3 <4, x<-y", "a < b and 3 <4, x<-y"),
        ("ratio 3:2, note: yes; at 12:30", "ratio 3:2, note: yes; at 12:30"),
        ("list[i](x) stays code", "list[i] (x) stays code"),
        ("[1][2] and [1, 2] (see there)", "[1][2] and [1, 2] (see there)"),
        ("年假:三十天", "年假:三十天"),
        ("//comment", "//comment"),
    ],
)
def test_links_and_markup_become_text(said: str, shown: str) -> None:
    links = answer_links.Links(KNOWN)
    assert links.feed(said) + links.close() == shown
    assert bool(links.count) is (said != shown)


PIECES = st.sampled_from(
    [
        "[x]",
        "(",
        "](",
        "https",
        ":",
        "//",
        "evil.example",
        "www",
        ".",
        "<",
        "script",
        " ",
        "!",
        "]:",
        "中",
        "/form",
        "a",
    ]
)


@given(st.lists(PIECES, max_size=24), st.lists(st.integers(1, 5), max_size=40))
def test_how_a_text_is_cut_makes_no_difference(pieces: list[str], sizes: list[int]) -> None:
    text = "".join(pieces)
    links = answer_links.Links(KNOWN)
    shown, start = "", 0
    for size in [*sizes, len(text)]:
        shown += links.feed(text[start : start + size])
        start += size
    assert shown + links.close() == answer_links.plain(text, KNOWN)


# What CommonMark and GFM make links and HTML of (spec 0.31: 6.3 links, 6.5 autolinks, 6.6 raw HTML; GFM 6.9).
MARKUP = re.compile(r"\]\(|\]:|<[A-Za-z/!?]|(?i:\b[a-z]+://[!-~])|(?i:\bwww\.[a-z])")


@given(st.lists(PIECES, max_size=24))
def test_nothing_that_renders_is_left(pieces: list[str]) -> None:
    assert not MARKUP.search(answer_links.plain("".join(pieces), known=""))


def test_most_of_a_stream_is_shown_at_once() -> None:
    links = answer_links.Links(KNOWN)
    assert [links.feed(piece) for piece in ("Thirty", " days", " at", " https", "://evil.example", "/x", " end")] == [
        "Thirty", " days", " at", " https", "", "", ": //evil.example/x end",
    ]  # fmt: skip


def test_an_address_without_end_is_not_waited_for() -> None:
    links = answer_links.Links("")
    shown = links.feed("https://" + "a" * 5_000)
    assert len(shown) > 4_000
    assert "https: //" in shown
