"""What a reader hands on: the text of one document with its structure. Knows nothing of files, formats or Arrow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A run of `Document.text[start:end]` of one kind (see schema.BLOCK_KINDS), under one heading path, on one page."""

    start: int
    end: int
    kind: str
    heading_path: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document as read.

    Attributes:
        title: from inside the document (metadata or first heading), never from the file's name; "" where it has none.
        media_type: such as "application/pdf".
        text: the whole text, NFC, newlines as "\\n".
        blocks: in order and not overlapping; only white space lies between them.
        reader: name/version of the reader that made it, such as "pdfium/1".
        left_out: which pages could not be read, and why, in words; "" for none.
    """

    title: str
    media_type: str
    text: str
    blocks: tuple[Block, ...]
    reader: str
    left_out: str = ""
