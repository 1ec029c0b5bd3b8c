"""Text formats: structure found by scanning, offsets those of the source."""

from __future__ import annotations

import json

import pytest

from tests.readers.helpers import page_of, path_of, paths, read, refusal, texts

MARKDOWN = """\
---
title: "The observer's guide"
tags: [snow]
---
# Observing snow

First paragraph
over two lines.

## Depth *in* [centimetres](http://example.org/cm) ##

- three stakes
- nearest centimetre

  still the same item

1) read
2) write

```python
# not a heading

def f(): ...
```

| year | depth |
|------|-------|
| 2025 | 40    |

> quoted

    indented code

Rime
----

last
"""


def test_markdown_structure() -> None:
    made = read(MARKDOWN.encode(), "guide.md")
    assert made.text == MARKDOWN
    assert made.title == "The observer's guide"
    assert made.media_type == "text/markdown"
    assert paths(made) == [
        ("Observing snow",),
        ("Observing snow", "Depth in centimetres"),
        ("Observing snow", "Rime"),
    ]
    assert [block.kind for block in made.blocks] == [
        *("code", "heading", "paragraph", "heading", "list", "code", "table", "quote", "code", "heading", "paragraph")
    ]
    assert texts(made, "table") == ["| year | depth |\n|------|-------|\n| 2025 | 40    |"]
    assert texts(made, "heading")[2] == "Rime\n----"
    assert path_of(made, "last") == ("Observing snow", "Rime")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# A\n## B\n#### D\n## C\n", [("A",), ("A", "B"), ("A", "B", "D"), ("A", "C")]),
        ("### Deep first\n# Then one\n", [("Deep first",), ("Then one",)]),
        ("#hashtag\n\n#\n\n####### seven\n", []),
        ("text\n===\n\nmore\n\n---\n", [("text",)]),
        ("~~~\n# in a fence\n```\n# still\n~~~\n# out\n", [("out",)]),
        ("- item\n\n  ```\n  # code in an item\n  ```\n# out\n", [("out",)]),
        ("```never closed\n# code\n", []),
        ("# `code` and **bold** {#anchor}\n", [("code and bold",)]),
        ("# 青螺岭 #\n", [("青螺岭",)]),
        ("a | b\n--|--\n1 | 2\n", []),
    ],
)
def test_markdown_headings(text: str, expected: list[tuple[str, ...]]) -> None:
    assert paths(read(text.encode(), "a.md")) == expected


def test_markdown_year_at_line_start_is_no_list() -> None:
    assert texts(read(b"It snowed in\n2025. Then it melted.\n", "a.md"), "list") == []


def test_markdown_thematic_break_is_no_front_matter() -> None:
    made = read(b"---\n\ntitle: no\n\n---\n", "a.md")
    assert made.title == ""


RST = """\
PEP: 8
Title: Style Guide

==========
 Overview
==========

Text of the overview::

    literal = 1

    more

Details
=======

- one
- two

Finer
-----

+---+---+
| a | b |
+---+---+

Details again
=============
end
"""


def test_rst_structure() -> None:
    made = read(RST.encode(), "pep.rst")
    assert made.text == RST
    assert made.title == "Style Guide"
    assert paths(made) == [
        ("Overview",),
        ("Overview", "Details"),
        ("Overview", "Details", "Finer"),
        ("Overview", "Details again"),
    ]
    assert texts(made, "code") == ["literal = 1\n\n    more"]
    assert texts(made, "table") == ["+---+---+\n| a | b |\n+---+---+"]
    assert texts(made, "list") == ["- one\n- two"]


def test_asciidoc() -> None:
    made = read(b"= Guide\n\nintro\n\n== Snow\n\n----\n== not a heading\n----\n\n* one\n* two\n", "a.adoc")
    assert made.title == "Guide"
    assert paths(made) == [("Guide",), ("Guide", "Snow")]
    assert texts(made, "code") == ["----\n== not a heading\n----"]


def test_org() -> None:
    made = read(b"#+TITLE: Notes\n* TODO Snow :tag:\ntext\n** Deep\n#+BEGIN_SRC py\n* no\n#+END_SRC\n- a\n", "a.org")
    assert made.title == "Notes"
    assert paths(made) == [("Snow",), ("Snow", "Deep")]
    assert texts(made, "code") == ["#+BEGIN_SRC py\n* no\n#+END_SRC"]


def test_tex() -> None:
    made = read(
        b"\\title{On ice}\n\\section{Rime and {\\em ice}}\ntext\n\\begin{verbatim}\n\\section{no}\n\\end{verbatim}\n"
        b"\\subsection*{More}\n",
        "a.tex",
    )
    assert made.title == "On ice"
    assert paths(made) == [("Rime and ice",), ("Rime and ice", "More")]


def test_plain_text_believes_only_marked_headings() -> None:
    lines = ("MINUTES OF THE BOARD", "Short line", "1. Why we met", "The chair spoke.", "2. Money", "It is gone.")
    text = "\n\n".join((*lines, "2.1 Dues", "x"))
    made = read(text.encode(), "minutes.txt")
    assert made.title == "MINUTES OF THE BOARD"
    assert paths(made) == [("1. Why we met",), ("2. Money",), ("2. Money", "2.1 Dues")]


def test_plain_numbered_list_is_no_headings() -> None:
    assert paths(read(b"Steps\n\n1. Switch off\n\n2. Wait\n\n3. Open\n", "a.txt")) == []


def test_plain_underlined_headings() -> None:
    made = read("手册\n====\n\n文字。\n\nParts\n-----\n\nmore\n".encode(), "a.txt")
    assert paths(made) == [("手册",), ("手册", "Parts")]
    assert made.title == "手册"


def test_data_formats_have_neither_title_nor_headings() -> None:
    made = read(b"version: 2\n\nservices:\n  web: {}\n", "compose.yaml")
    assert (made.title, paths(made), made.reader) == ("", [], "text/1")


def test_code_blocks_are_top_level_groups() -> None:
    source = '"""Check the month.\n\nMore."""\n\nimport os\n\n\ndef f():\n    a = 1\n\n    return a\n\n\n'
    source += "class C:\n    pass\n"
    made = read(source.encode(), "check.py")
    assert made.title == "Check the month."
    assert texts(made)[-2:] == ["def f():\n    a = 1\n\n    return a", "class C:\n    pass"]
    assert {block.kind for block in made.blocks} == {"code"}


def test_csv_repeats_the_header() -> None:
    rows = "\n".join(f'2026-01-{day:02},{day * 0.5},"rime, and\nfog {"x" * 40}"' for day in range(1, 29))
    made = read(f"date,depth,remark\n{rows}\n".encode(), "snow.csv")
    assert len(made.blocks) > 1
    assert all(text.startswith("date\tdepth\tremark\n2026-01-") for text in texts(made, "table"))
    assert "2026-01-28\t14.0\trime, and fog x" in made.text
    assert made.text.count("2026-01-13") == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiter(delimiter: str) -> None:
    text = "\n".join(delimiter.join(row) for row in (("name", "height"), ("Wether Pike", "812"), ("茶坡", "1980")))
    assert texts(read(text.encode(), "a.csv")) == ["name\theight\nWether Pike\t812\n茶坡\t1980"]


def test_csv_of_numbers_has_no_header() -> None:
    made = read("\n".join(f"{n},{n * n},{'9' * 30}" for n in range(60)).encode(), "a.csv")
    assert len(made.blocks) > 1
    assert made.text.count("0\t0") == 1


def test_tsv() -> None:
    assert texts(read(b"a\tb, c\n1\t2\n", "a.tsv")) == ["a\tb, c\n1\t2"]


def test_json() -> None:
    value = {
        "title": "Thresholds",
        "big": 12345678901234567890123,
        "share": 0.10,
        "on": True,
        "none": None,
        "stations": [{"code": "WP1", "names": ["Wether Pike", "韦瑟峰"]}, {"code": "QL1", "at": {"lat": 25.7}}],
    }
    made = read(json.dumps(value).encode(), "a.json")
    assert made.title == "Thresholds"
    assert len(made.blocks) == 3
    assert "big: 12345678901234567890123" in made.text
    assert "share: 0.1" in made.text
    assert texts(made)[1].split() == ["stations:", "code:", "WP1", "names:", "Wether", "Pike,", "韦瑟峰"]


def test_json_lone_surrogate_is_mended() -> None:
    assert "\ufffd" in read(b'{"text": "a lone \\ud800 surrogate"}', "a.json").text


def test_json_with_comments_is_read_as_text() -> None:
    made = read(b'{\n// why\n"a": 1,\n}\n', "tsconfig.json")
    assert "// why" in made.text


def test_json_lines() -> None:
    made = read(b'{"a": 1}\n\nnot json\n{"a": {"b": [2, 3]}}\n', "a.jsonl")
    assert texts(made) == ["a: 1", "not json", "a:\n  b: 2, 3"]


def test_notebook_without_outputs() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Snow\n", "\n", "text *here*\n", "## Depth"]},
        {"cell_type": "code", "source": "print(1)", "outputs": [{"data": {"image/png": "iVBORw0KGgo"}}]},
    ]
    made = read(json.dumps({"cells": cells, "nbformat": 4}).encode(), "a.ipynb")
    assert made.title == "Snow"
    assert [block.kind for block in made.blocks] == ["heading", "paragraph", "heading", "code"]
    assert path_of(made, "print(1)") == ("Snow", "Depth")
    assert "iVBOR" not in made.text
    assert refusal(b"{", "a.ipynb").kind == "damaged"


def test_subtitles() -> None:
    srt = (
        "1\n00:00:01,000 --> 00:00:02,000\n<i>It snows.</i>\n\n2\n00:00:02,500 --> 00:00:04,000\nAll night.\n\n"
        "3\n00:01:00,000 --> 00:01:02,000\nMorning.\n"
    )
    assert texts(read(srt.encode(), "a.srt")) == ["It snows.\nAll night.", "Morning."]
    vtt = "WEBVTT\n\nNOTE made by hand\n\n00:01.000 --> 00:02.000 align:start\nHello\n"
    assert texts(read(vtt.encode(), "a.vtt")) == ["Hello"]
    assert page_of(read(vtt.encode(), "a.vtt"), "Hello") is None


def test_rtf() -> None:
    made = read(
        rb"{\rtf1\ansi\ansicpg1252{\info{\title Caf\'e9}}Snow \b deep\b0\par Rime \'e9t\'e9 \u38634?\par}", "a.rtf"
    )
    assert texts(made) == ["Snow deep", "Rime été 雪"]
