"""Word, PowerPoint and Outlook files by the unstructured library, kept off the network.

Its tokenizer module fetches a spaCy model at first use. Everything that module is for here is to tell a sentence from a
title, so another stands in its place before unstructured is imported: no download, 49 MB at import instead of 119, an
eighth of the CPU time. Tried on 0.16.25 to 0.27.32. Telemetry is switched off by its own variables.
"""

from __future__ import annotations

import functools
import importlib
import io
import os
import re
import sys
import types
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lxml import etree

from pipeline import errors
from pipeline.readers import archives, build, containers, decode, html, mail, ooxml, tables, xmltree

if TYPE_CHECKING:
    from pipeline.readers.ocr import Recognition

# "true": 0.18 takes no other word.
_ENVIRONMENT = {
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "UNSTRUCTURED_DISABLE_NOTICE": "1",
    "AUTO_DOWNLOAD_NLTK": "false",
}
_TOKENIZER = "unstructured.nlp.tokenize"
_WORDS = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
_SENTENCE_GAP = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
_VERB_ENDING = re.compile(r"\w{2,}(?:ed|ing|ize|ify|ise)$")
_VERB_LIST = (
    "am is are was were be been being do does did have has had can could may might must shall should will would make "
    "makes made use uses get gets got go goes went say says said see sees take takes took give gives gave find finds "
    "found know knows think show shows need needs come comes came want keep let put set run hold"
)
_VERBS = frozenset(_VERB_LIST.split())
_KINDS = {
    "ListItem": "list",
    "Table": "table",
    "Header": "header",
    "Footer": "header",
    "FigureCaption": "caption",
    "CodeSnippet": "code",
}
_DEFAULT_TITLES = frozenset(
    ("powerpoint presentation", "powerpoint-präsentation", "word document", "untitled", "title")
)
_OPTIONS: dict[str, Any] = {"strategy": "fast", "languages": [""]}  # "": no language detection


class _Tokenizer(types.ModuleType):
    """Stands in for unstructured.nlp.tokenize: the three functions that decide on labels."""

    @staticmethod
    def word_tokenize(text: str) -> list[str]:
        return _WORDS.findall(text)

    @staticmethod
    def sent_tokenize(text: str) -> list[str]:
        return [sentence for sentence in _SENTENCE_GAP.split(text) if sentence]

    @staticmethod
    def pos_tag(text: str) -> list[tuple[str, str]]:
        return [(word, "VB" if _is_verb(word.lower()) else "NN") for word in _WORDS.findall(text)]


def _is_verb(word: str) -> bool:
    return word in _VERBS or _VERB_ENDING.match(word) is not None


@functools.cache
def _partitioner(name: str) -> Any:
    """unstructured's partition function for a format; the library is prepared before its first import."""
    os.environ.update(_ENVIRONMENT)
    sys.modules.setdefault(_TOKENIZER, _Tokenizer(_TOKENIZER))
    importlib.import_module("unstructured.nlp").tokenize = sys.modules[_TOKENIZER]  # type: ignore[attr-defined]
    return getattr(importlib.import_module(f"unstructured.partition.{name}"), f"partition_{name}")


def read_docx(data: bytes, name: str) -> build.Draft:
    title = _checked(data)
    data = ooxml.prepared(data)
    builder = build.Builder()
    seen: set[str] = set()
    _add(builder, _fresh(_partitioner("docx")(file=io.BytesIO(data), **_OPTIONS), seen), believed=_docx_level)
    return builder.draft(title)


def _fresh(elements: Iterable[Any], seen: set[str]) -> Iterable[Any]:
    """Page heads and feet once each: they come again with every section."""
    for element in elements:
        if element.category in ("Header", "Footer"):
            if element.text in seen:
                continue
            seen.add(element.text)
        yield element


def _docx_level(element: Any) -> int:
    return (element.metadata.category_depth or 0) + 1 if element.category == "Title" else 0


def read_pptx(data: bytes, name: str) -> build.Draft:
    """Each slide a page: its title as heading, its text, its notes."""
    title = _checked(data)
    data = ooxml.prepared(data)
    elements = _partitioner("pptx")(file=io.BytesIO(data), include_slide_notes=False, **_OPTIONS)
    notes = _notes(data)
    slides: dict[int, list[Any]] = {number: [] for number in notes}
    for element in elements:
        slides.setdefault(element.metadata.page_number or 1, []).append(element)
    untitled = {number for number, found in slides.items() if not any(map(_slide_level, found))}
    titles = _title_shapes(data, untitled) if untitled else {}
    builder = build.Builder()
    for number in sorted(slides):
        if lines := titles.get(number, []):
            builder.add(" ".join(lines), page=number, level=1)
            slides[number] = [element for element in slides[number] if not _taken(element.text, lines)]
        # The title shape first, wherever it stands on the slide: all else is under it.
        _add(builder, sorted(slides[number], key=lambda element: not _slide_level(element)), believed=_slide_level)
        if number in notes:
            builder.add(f"Notes: {notes[number]}", page=number)
        builder.end_slide()
    return builder.draft(title)


def _slide_level(element: Any) -> int:
    """1 for a slide's title shape; "Title" elements of other depth are short lines of text."""
    return 1 if element.category == "Title" and element.metadata.category_depth == 0 else 0


def _taken(text: str, lines: list[str]) -> bool:
    """Whether it is the next of the lines, which then is no more."""
    found = text.strip() in lines
    if found:
        lines.remove(text.strip())
    return found


def _title_shapes(data: bytes, wanted: Collection[int]) -> dict[int, list[str]]:
    """Lines of what serves as title on each of these slides, which have none: the topmost text, alone at its height.

    What fills the layout's place for text is none.
    """
    import pptx

    made = pptx.Presentation(io.BytesIO(data))
    found = {}
    for number, slide in enumerate(made.slides, 1):
        if number not in wanted:
            continue
        placed = sorted((one for one in slide.shapes if one.top is not None), key=lambda one: one.top)
        shapes = [one for one in placed if not one.has_text_frame or one.text_frame.text.strip()]
        first = next((one for one in shapes if one.has_text_frame), None)
        if first is None or first.is_placeholder or len(placed) < 2 or first.top > (made.slide_height or 0) / 4:
            continue
        beside = [one for one in shapes if one is not first and one.top < first.top + (first.height or 0) / 2]
        text = first.text_frame.text.replace("\v", "\n").strip()
        if build.like_title(text) and not any(one.has_text_frame or one.has_table for one in beside):
            found[number] = [line.strip() for line in text.split("\n") if line.strip()]
    return found


def _notes(data: bytes) -> dict[int, str]:
    """Speaker's notes by slide number: unstructured gives them before the slide's title, as text like any other."""
    with archives.opened(data) as archive:
        if not any(name.startswith("ppt/notesSlides/") for name in archive.namelist()):
            return {}
    import pptx

    found = {}
    for number, slide in enumerate(pptx.Presentation(io.BytesIO(data)).slides, 1):
        frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        if frame is not None and frame.text.strip():
            found[number] = frame.text.strip()
    return found


def read_msg(data: bytes, name: str) -> build.Draft:
    import oxmsg

    message = oxmsg.Message.load(io.BytesIO(data))
    headers = {
        "Subject": message.subject or "",
        "From": message.sender or "",
        "To": ", ".join(f"{person.name} <{person.email_address}>" for person in message.recipients),
        "Date": message.sent_date.isoformat(" ", "minutes") if message.sent_date else "",
    }
    attachments = [attachment.file_name or "" for attachment in message.attachments]
    builder = build.Builder()
    builder.add(mail.header_text(headers, [name for name in attachments if name]), "header")
    elements = _partitioner("msg")(file=io.BytesIO(data), process_attachments=False, **_OPTIONS)
    _add(builder, elements, believed=lambda element: 0)
    return builder.draft(headers["Subject"])


def attachments(data: bytes) -> Iterator[containers.Member]:
    """The files attached to an Outlook message; an attached Outlook item has no bytes of its own, and no name."""
    import oxmsg

    for attachment in oxmsg.Message.load(io.BytesIO(data)).attachments:
        name = attachment.file_name or ""
        if name and attachment.mime_type not in mail.NO_DOCUMENT:
            yield containers.Member(
                name=mail.flat(name), size=attachment.size, load=functools.partial(_attached, attachment)
            )


def _attached(attachment: Any) -> bytes:
    return attachment.file_bytes or b""


def read_html(data: bytes, name: str) -> build.Draft:
    """The choice readers.html = "unstructured"; our own walk keeps more structure at a fraction of the time."""
    text = decode.text_of(data, html.declared(data))
    builder = build.Builder()
    _add(builder, _partitioner("html")(text=text, **_OPTIONS), believed=_docx_level)
    return builder.draft()


def read_pdf_hi_res(data: bytes, name: str, recognition: Recognition | None = None) -> build.Draft:
    """By a model that looks at each page; see hi_res. `recognition`: tells the languages, where it is tesseract's."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    languages = ["eng"]
    if recognition is not None and recognition.choice.startswith("tesseract/"):
        languages = recognition.choice.partition("(")[2].rstrip(")").split("+")
    builder = build.Builder()
    elements = _partitioner("pdf")(file=io.BytesIO(data), strategy="hi_res", languages=languages)
    _add(builder, elements, believed=_docx_level)
    return builder.draft()


def from_pages(pages: list[str], title: str) -> build.Draft:
    """Texts of pages, each cut into elements by partition_text, whose titles are not believed.

    Any short line is one to it.
    """
    builder = build.Builder()
    for page, text in enumerate(pages, 1):
        if text.strip():
            _add(builder, _partitioner("text")(text=text, **_OPTIONS), believed=lambda element: 0, page=page)
    return builder.draft(title)


def _add(builder: build.Builder, elements: Iterable[Any], *, believed: Any, page: int | None = None) -> None:
    """Elements to blocks; list items that follow each other become one. `believed`.

    An element's heading level, 0 for none.
    """
    items: list[str] = []
    items_page = page
    for element in elements:
        at = page or element.metadata.page_number
        if element.category == "ListItem" and (not items or items_page == at):
            items_page = at
            items.append("  " * min(element.metadata.category_depth or 0, 8) + "- " + element.text)
            continue
        builder.add("\n".join(items), "list", page=items_page)
        items.clear()
        if element.category == "ListItem":
            items_page = at
            items.append("- " + element.text)
        elif element.category == "Table":
            _add_table(builder, element, at)
        elif element.category != "PageBreak":
            kind = _KINDS.get(element.category, "paragraph")
            builder.add(element.text, kind, page=at, level=believed(element))
    builder.add("\n".join(items), "list", page=items_page)


def _add_table(builder: build.Builder, element: Any, page: int | None) -> None:
    markup = element.metadata.text_as_html
    rows = _rows(markup) if markup else [[element.text]]
    for text in tables.grouped(rows, header=tables.looks_like_header(rows)):
        builder.add(text, "table", page=page)


def _rows(markup: str) -> list[list[str]]:
    root = etree.fromstring(markup.encode(), etree.HTMLParser(encoding="utf-8", no_network=True))
    return [["".join(map(str, cell.itertext())) for cell in row.iterchildren("td", "th")] for row in root.iter("tr")]


def _checked(data: bytes) -> str:
    """Check an Office file's sizes (see archives.opened); its title from the core properties, "" for none."""
    with archives.opened(data) as archive:
        if "docProps/core.xml" not in archive.NameToInfo:
            return ""
        try:
            root = xmltree.parse(archives.member(archive, "docProps/core.xml"), "docProps/core.xml")
        except errors.DocumentError:
            return ""  # only a title is lost
    title = next((element.text or "" for element in root.iter("{http://purl.org/dc/elements/1.1/}title")), "")
    return "" if title.strip().lower() in _DEFAULT_TITLES else title
