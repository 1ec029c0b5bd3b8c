"""Where a text may be cut, how good each place is, and a number that depends on what stands around it alone.

Knows characters and block kinds; knows nothing of tokens, chunk sizes or tables. A boundary is the offset where the
next unit begins; the white space before it belongs to the unit that ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.document import Block
from pipeline.stages import chunk_sentences

# Ranks, best first. SECTION and BLOCK lie between blocks, the others inside one.
SECTION, BLOCK, SENTENCE, LINE, WORD, CHARACTER = range(6)

_LIST = re.compile(r"\n\s*(?P<item>(?:[-*+•◦▪‣–]|\(?(?:\d{1,3}|[A-Za-z])[.)])\s)?")
_CODE = re.compile(r"\n(?P<gap>\s*\n(?=\S))?\s*+")
_ROWS = re.compile(r"\n\s*")


def inside(text: str, block: Block) -> Iterator[tuple[int, int]]:
    """The boundaries inside a block as (offset, rank), in order: sentences, list items, table rows, lines."""
    if block.kind == "list":
        return _lines(_LIST, "item", text, block)
    if block.kind == "code":
        return _lines(_CODE, "gap", text, block)
    if block.kind == "table":
        return ((match.end(), SENTENCE) for match in _ROWS.finditer(text, block.start, block.end))
    return _prose(text, block)


def _lines(pattern: re.Pattern[str], better: str, text: str, block: Block) -> Iterator[tuple[int, int]]:
    for match in pattern.finditer(text, block.start, block.end):
        if match[better] is None:
            yield match.end(), LINE
        else:
            yield (match.start(better) if better == "item" else match.end()), SENTENCE


def _prose(text: str, block: Block) -> Iterator[tuple[int, int]]:
    for at, ending in chunk_sentences.endings(text, block.start, block.end):
        yield at, SENTENCE if ending is chunk_sentences.Ending.SENTENCE else LINE


def between(text: str, before: Block, after: Block) -> int:
    """Rank of the boundary between two blocks of one section, neither of them a heading."""
    last, first = text[before.end - 1 : before.end], text[after.start : after.start + 1]
    if before.kind == after.kind and after.kind in ("list", "table", "code"):
        return SENTENCE  # readers that make a block of each item or row
    if last in ":：" or (last not in '.!?。！？”"' and first.islower()):
        return LINE  # an introduction to a list; a sentence that goes on, most often over the end of a page
    if before.page != after.page and last not in ".!?。！？；｡؟۔।”」』\"'’)）":
        return LINE
    return BLOCK


NEIGHBOURHOOD = 24  # characters on either side that decide a boundary's number: an edit further away cannot move it
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_BATCH = 1 << 18  # offsets mixed at once: bounds the memory a 20 MB line takes
_IDEOGRAPHS = 0x2E80  # from here on scripts mostly do without spaces
_SPACES = np.array([9, 10, 11, 12, 13, 32, 0xA0, 0x3000], dtype=np.uint32)
_JOINER = 0x200D
_JOINING = np.array([*range(0x300, 0x370), _JOINER, *range(0xFE00, 0xFE10), *range(0x1F3FB, 0x1F400)], dtype=np.uint32)


def codes(text: str) -> NDArray[np.uint32]:
    """Code points of `text`."""
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)


def numbers(points: NDArray[np.uint32], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A well-mixed 60-bit number for each offset, from the 24 characters on either side alone (zeros beyond ends)."""
    padded = np.zeros(len(points) + 2 * NEIGHBOURHOOD, dtype=np.uint32)
    padded[NEIGHBOURHOOD:-NEIGHBOURHOOD] = points
    parts = [_mix(padded, at[low : low + _BATCH]) for low in range(0, len(at), _BATCH)]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.uint64)


def _mix(padded: NDArray[np.uint32], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    mixed = np.zeros(len(at), dtype=np.uint64)
    for step in range(2 * NEIGHBOURHOOD):
        mixed = mixed * _PRIME + padded[at + step].astype(np.uint64)
    for shift, prime in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finish
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(prime)
    return (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(4)


def within_unit(text: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Ever finer offsets at which a unit too long for a chunk may be cut, as (rank, offsets): lines, words, anywhere.

    Words and characters come thinned by their own numbers first, so that the choice is local and a line of 20 MB makes
    some 400,000 candidates; then every eighth, for text so regular that no number is ever chosen; then all.
    """
    points = codes(text)
    yield LINE, np.array([m.end() for m in _ROWS.finditer(text) if m.end() < len(text)], dtype=np.int64)
    space = np.isin(points, _SPACES)
    yield from _thinned(WORD, points, np.flatnonzero(space[:-1] & ~space[1:]) + 1, 7)
    anywhere = np.flatnonzero(~space[1:] & ~np.isin(points[1:], _JOINING) & (points[:-1] != _JOINER)) + 1
    own = (points[anywhere] >= _IDEOGRAPHS) | (points[anywhere - 1] >= _IDEOGRAPHS)
    yield from _thinned(WORD, points, anywhere[own], 15)
    yield from _thinned(CHARACTER, points, anywhere, 63)
    yield CHARACTER, np.arange(1, len(text), dtype=np.int64)  # a letter under a thousand accents


def _thinned(
    rank: int, points: NDArray[np.uint32], at: NDArray[np.int64], mask: int
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    yield rank, at[numbers(points, at) & np.uint64(mask) == 0]
    yield rank, at[::8]
    yield rank, at


def priorities(text: str, at: Sequence[int], ranks: Sequence[int]) -> list[int]:
    """One number for each offset into `text`, the smallest for the best boundary: rank first, then the local number."""
    local = numbers(codes(text), np.asarray(at, dtype=np.int64))
    both: list[int] = ((np.asarray(ranks, dtype=np.uint64) << np.uint64(60)) | local).tolist()
    return both
