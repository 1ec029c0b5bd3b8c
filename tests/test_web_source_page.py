"""What the page of a source says: of the picture, of the file, of a document that is not there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lxml.html
import pytest

from pipeline.document import Block
from pipeline.expansion import Text
from pipeline.origin import Origin
from pipeline.readers.pdf_page import Picture
from pipeline.serve.web import layout, source_page, words
from pipeline.serve.web.source_page import Drawn, Passage

TEXT = "The hut is open.\n\nRing the bell."
ROW: dict[str, Any] = {
    "chunk_id": "0" * 32,
    "uri": "hut.pdf",
    "title": "The hut",
    "media_type": "application/pdf",
    "page": 1,
    "heading": "Hut > Rules",
    "start": 0,
    "end": len(TEXT),
    "text": TEXT,
}
BEHIND = Origin(uri="hut.pdf", member="", path=b"/hut.pdf", size=1, file_hash="a", content_hash="a", fate="same")
FOUND = Passage(
    address="/sources/c/0",
    row=ROW,
    text=Text(
        text=TEXT,
        blocks=[Block(start=0, end=16, kind="paragraph", page=1), Block(start=18, end=32, kind="paragraph", page=2)],
    ),
    origin=BEHIND,
)
PICTURE = Picture(png=b"", width=1600, height=2000, pages=3, letters=30, share=1.0)


def shown(found: Passage = FOUND, drawn: Drawn | None = None, language: words.Language = "en", path: str = "") -> str:
    view = layout.View(collection="c", language=language, words=words.of(language), path="/sources/c/0")
    reply = source_page.respond(view, found, drawn, start=None, path=path)
    page = lxml.html.document_fromstring(bytes(reply.body))
    return " ".join(page.xpath("//main")[0].text_content().split())


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (Drawn(page=1, marked=True, picture=PICTURE), "The passage is highlighted."),
        (Drawn(page=1, marked=True, picture=PICTURE), "hut.pdf · Page 1 · Hut › Rules"),
        (Drawn(page=1, marked=True, picture=PICTURE), "See page 2"),
        (Drawn(page=2, marked=True, picture=PICTURE), "See page 1"),
        (Drawn(page=1, marked=True, picture=PICTURE), "1 of 3Next page"),
        (Drawn(page=3, marked=False, picture=PICTURE), "The passage is not on this page. See page 1 See page 2"),
        (Drawn(page=1, marked=True, picture=replace(PICTURE, share=0.5)), "What could be found of the passage"),
        (
            Drawn(page=1, marked=True, picture=replace(PICTURE, share=0.0)),
            "could not be found in the text of this page",
        ),
        (Drawn(page=1, marked=True, picture=replace(PICTURE, share=0.0, letters=0)), "a picture without text (a scan)"),
        (Drawn(page=1, marked=True), "Where it could be found"),
        (Drawn(page=1, marked=True, fault="busy"), "many are being drawn"),
        (Drawn(page=1, marked=True, fault="changed"), "the file has changed since it was indexed"),
        (Drawn(page=9, marked=False, fault="no_page"), "the file has no such page"),
        (Drawn(page=1, marked=True, fault="timeout"), "this page could not be drawn"),
        (Drawn(page=1, marked=True, fault="crash"), "this page could not be drawn"),
    ],
)
def test_what_is_said_of_the_picture(drawn: Drawn, said: str) -> None:
    assert said in shown(drawn=drawn)


@pytest.mark.parametrize(
    ("fate", "said"),
    [
        ("changed", "has changed since it was indexed"),
        ("gone", "is gone since it was indexed"),
        ("away", "The folder of the documents is not there"),
        ("unreadable", "cannot be opened now"),
    ],
)
def test_what_is_said_of_the_file(fate: Any, said: str) -> None:
    page = shown(replace(FOUND, origin=replace(BEHIND, fate=fate)))
    assert said in page
    assert "The hut is open." in page
    assert "Download" not in page


def test_a_document_that_is_not_there() -> None:
    page = shown(replace(FOUND, text=None), Drawn(page=1, marked=True, picture=PICTURE))
    assert "the passage alone is shown" in page
    assert "Ring the bell." in page


def test_every_word_is_there_in_chinese() -> None:
    for fault in ("", "busy", "changed", "no_page", "memory"):
        page = shown(drawn=Drawn(page=1, marked=True, fault=fault), language="zh", path="/hut.pdf")
        assert "第 1 页" in page
        assert "下载 PDF" in page


def test_a_path_that_cannot_be_copied_as_it_is() -> None:
    assert "Copy path" in shown(path="/docs/hut.pdf")
    assert "Copy path" not in shown(path="/docs/hut\u202efdp.exe"), "it would be another"
    assert "Copy path" not in shown(path="/docs/hut\udcff.pdf")
