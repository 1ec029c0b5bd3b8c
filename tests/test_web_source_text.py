"""A window of a document's text as elements: what is marked is exactly the passage, whatever its blocks are."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.document import Block
from pipeline.expansion import Text
from pipeline.serve.web import source_text
from tests.readers.helpers import read

MARKDOWN = """# Hut

One line of text.
Another line.

## Rules of the hut ##

- knock
- wait

| flag | name |
|------|:----:|
| G | good |
| D | doubtful |

```python
print("| no | table |")
```

> Said the keeper.
"""


def made(text: str, name: str = "a.md") -> Text:
    document = read(text.encode(), name)
    return Text(text=document.text, blocks=document.blocks)


def html(of: Text, start: int, end: int, *, go: bool = False) -> str:
    seen = source_text.window(of, start, end)
    shown = source_text.Shown(of, seen, start, end, go=go)
    return "".join(ElementTree.tostring(element, encoding="unicode", method="html") for _, element in shown.elements())


def marked(of: Text, start: int, end: int) -> str:
    return "".join(re.findall("<mark[^>]*>(.*?)</mark>", html(of, start, end), re.DOTALL))


def test_blocks_look_like_what_they_are() -> None:
    shown = html(made(MARKDOWN), 0, 0)
    assert "<h3>Hut</h3>" in shown
    assert "<h4>Rules of the hut</h4>" in shown
    assert '<p class="list">- knock\n- wait</p>' in shown
    assert "<thead><tr><th> flag </th><th> name </th></tr></thead>" in shown
    assert "<td> D </td><td> doubtful </td>" in shown
    assert "---" not in shown
    assert '<pre tabindex="0">' in shown
    assert 'print("| no | table |")' in shown
    assert "<blockquote>" in shown


def test_headings_of_other_markup() -> None:
    assert "<h3>Guide</h3>" in html(made("=====\nGuide\n=====\n\nText.\n\nPart\n----\n\nMore.\n", "a.rst"), 0, 0)
    assert "<h4>Part</h4>" in html(made("Guide\n=====\n\nText.\n\nPart\n----\n\nMore.\n", "a.rst"), 0, 0)
    assert "<h3>C# and F#</h3>" in html(made("# C# and F#\n\nText.\n"), 0, 0)


def test_a_table_of_tabs_and_one_that_is_none() -> None:
    shown = html(made("day,rime\n1,3\n2,4\n", "a.csv"), 0, 0)
    assert "<th>day</th><th>rime</th>" in shown
    assert "<td>2</td><td>4</td>" in shown
    text = "=====  =====\na      b\n=====  =====\n"
    grid = Text(text=text, blocks=[Block(start=0, end=len(text) - 1, kind="table")])
    assert html(grid, 0, 0).startswith("<pre")


@given(cut=st.tuples(st.integers(0, len(MARKDOWN)), st.integers(0, len(MARKDOWN))))
def test_what_is_marked_is_the_passage(cut: tuple[int, int]) -> None:
    """But for white space, and for the signs that are not shown: those of headings and of tables."""
    start, end = sorted(cut)
    of = made(MARKDOWN)

    def letters(text: str) -> str:
        return "".join(re.findall(r"\w", text))

    assert letters(marked(of, start, end).replace("&gt;", ">")) == letters(of.text[start:end])


def test_the_first_mark_can_be_gone_to() -> None:
    of = made(MARKDOWN)
    shown = html(of, 0, len(of.text), go=True)
    assert shown.count('id="passage"') == 1
    assert shown.index('id="passage"') < shown.index("<mark>")
    assert shown.count("autofocus=") == 1
    assert "autofocus" not in html(of, 0, len(of.text))


@pytest.mark.parametrize("at", [0, 40_000, 99_990])
def test_a_window_is_bounded(at: int) -> None:
    lines = Text(
        text="x" * 100_000, blocks=[Block(start=n, end=n + 99, kind="paragraph") for n in range(0, 100_000, 100)]
    )
    one = Text(text="x" * 100_000, blocks=[Block(start=0, end=100_000, kind="code")])
    for of in (lines, one):
        seen = source_text.window(of, at, at + 10, around=1_000)
        assert seen.start <= at
        assert seen.end >= min(at + 10, 99_999)
        assert seen.end - seen.start <= 4_010
        assert sum(len(text) for text in re.findall("x+", html(of, at, at + 10))) <= 4 * source_text.WINDOW + 50


def test_the_text_of_a_page_around_a_passage() -> None:
    text = "aaaa bbbb cccc dddd"
    blocks = [Block(start=at, end=at + 4, kind="paragraph", page=1 + at // 10) for at in (0, 5, 10, 15)]
    of = Text(text=text, blocks=blocks)
    assert source_text.on_page(of, 1, 5, 14, 99) == ("aaaa\n", "bbbb", "\n")
    assert source_text.on_page(of, 2, 5, 14, 99) == ("\n", "cccc", "\ndddd")
    assert source_text.on_page(of, 2, 5, 14, 3)[1:] == ("ccc", "\ndd")
    assert source_text.on_page(of, 3, 5, 14, 99) == ("", "", "")
    assert source_text.pages(of, 5, 14) == [1, 2]
    assert source_text.page_labels(blocks) == {0: 1, 2: 2}


@pytest.mark.parametrize(
    ("text", "wrapped"),
    [
        ("A line that is as long as an editor makes them, more or less so.\nAnd what follows it.", True),
        ("Roses are red,\nviolets are blue.", False),
        ("One line that is as long as an editor makes them, more or less so.", False),
    ],
)
def test_lines_that_an_editor_broke_are_broken_anew(text: str, wrapped: bool) -> None:
    assert ('class="wrapped"' in html(made(text, "a.txt"), 0, 0)) == wrapped
