"""What several reader tests ask of a document."""

from __future__ import annotations

import unicodedata

import pytest

from pipeline import document, errors, readers, schema

OPTIONS = readers.ReaderOptions()


def read(data: bytes, name: str, options: readers.ReaderOptions = OPTIONS) -> document.Document:
    """Read and check what holds for every document."""
    made = readers.read_bytes(data, name, options)
    check(made)
    return made


def check(made: document.Document) -> None:
    """Blocks are trimmed, in order, not overlapping, and leave out nothing but white space; the text is clean."""
    position = 0
    for block in made.blocks:
        assert position <= block.start < block.end <= len(made.text)
        assert not made.text[position : block.start].strip()
        assert made.text[block.start : block.end] == made.text[block.start : block.end].strip()
        assert block.kind in schema.BLOCK_KINDS
        assert block.page is None or block.page >= 1
        assert block.kind != "heading" or block.heading_path
        position = block.end
    assert not made.text[position:].strip()
    assert unicodedata.is_normalized("NFC", made.text)
    assert not set(made.text) & set("\r\0\ufeff\u2028")
    made.text.encode()  # no lone surrogate
    made.title.encode()


def texts(made: document.Document, kind: str = "") -> list[str]:
    """Texts of the blocks (of one kind)."""
    return [made.text[block.start : block.end] for block in made.blocks if not kind or block.kind == kind]


def paths(made: document.Document) -> list[tuple[str, ...]]:
    """Heading paths of the headings."""
    return [block.heading_path for block in made.blocks if block.kind == "heading"]


def path_of(made: document.Document, piece: str) -> tuple[str, ...]:
    """Heading path of the block that holds `piece`."""
    place = made.text.index(piece)
    return next(block.heading_path for block in made.blocks if block.start <= place < block.end)


def page_of(made: document.Document, piece: str) -> int | None:
    place = made.text.index(piece)
    return next(block.page for block in made.blocks if block.start <= place < block.end)


def refusal(data: bytes, name: str, options: readers.ReaderOptions = OPTIONS) -> errors.DocumentError:
    with pytest.raises(errors.DocumentError) as caught:
        readers.read_bytes(data, name, options)
    return caught.value
