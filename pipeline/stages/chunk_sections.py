"""A document as sections and units: what belongs together, what it weighs, and under which headings it stands.

Knows blocks and the tokenizer; knows nothing of where cuts fall in a section or of tables.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from pipeline.document import Block
from pipeline.models import Tokenizer
from pipeline.stages import chunk_bounds

MAX_CHARS = 8_000  # of a chunk: sparse text (runs of spaces, dots) would else make chunks of any length


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A run of text that no chunk crosses the ends of, and the heading path of each section in it."""

    start: int
    end: int
    paths: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """One document, ready to be cut.

    Attributes:
        blocks: as read, stretched so that they cover the text without gaps.
        at: offset of every unit, ascending, then len(text).
        ranks: of the boundary at each of these offsets.
        ends: running weight before each of these offsets, tokens or (for sparse text) characters scaled down.
    """

    text: str
    title: str
    blocks: Sequence[Block]
    starts: Sequence[int]  # of the blocks
    at: Sequence[int]
    ranks: Sequence[int]
    ends: Sequence[int]

    def weight(self, start: int, end: int) -> int:
        """Of the units in [start, end); both must be offsets in `at`."""
        return self.ends[bisect_left(self.at, end)] - self.ends[bisect_left(self.at, start)]


def outline(text: str, title: str, blocks: Sequence[Block], tokenizer: Tokenizer, cap: int) -> Outline:
    """The units of a document and their weights. `cap`: see weigh."""
    covered = cover(text, blocks)
    found = list(_boundaries(text, covered))
    at = [offset for offset, _ in found]
    return Outline(
        text=text,
        title=title,
        blocks=covered,
        starts=[block.start for block in covered],
        at=[*at, len(text)],
        ranks=[*(rank for _, rank in found), chunk_bounds.SECTION],
        ends=weigh(text, [*at, len(text)], tokenizer, cap),
    )


def weigh(text: str, at: Sequence[int], tokenizer: Tokenizer, cap: int) -> list[int]:
    """Running weight before each offset of `at`; the first is 0.

    A unit weighs its tokens, or its share of 8,000 characters in terms of `cap` (the most tokens of a chunk) where that
    is more: sparse text. A unit of over 8,000 characters is too heavy for any chunk and not counted, but taken apart.
    """
    pieces = [text[start:end] for start, end in pairwise(at)]
    counts = tokenizer.count([piece if len(piece) <= MAX_CHARS else "" for piece in pieces])
    weights = (max(n, -(-len(piece) * cap // MAX_CHARS)) for n, piece in zip(counts, pieces, strict=True))
    return list(accumulate(weights, initial=0))


def cover(text: str, blocks: Sequence[Block]) -> list[Block]:
    """`blocks` without the empty ones; text that no block claims (only white space should be) becomes paragraphs."""
    covered: list[Block] = []
    done = 0
    for block in blocks:
        if text[done : block.start].strip():
            covered.append(_stray(text, done, block.start, covered))
        if text[block.start : block.end].strip():
            covered.append(block)
        done = block.end
    if text[done:].strip():
        covered.append(_stray(text, done, len(text), covered))
    return covered


def _stray(text: str, start: int, end: int, before: Sequence[Block]) -> Block:
    inner = text[start:end]
    start += len(inner) - len(inner.lstrip())
    path, page = (before[-1].heading_path, before[-1].page) if before else ((), None)
    return Block(start=start, end=start + len(inner.strip()), kind="paragraph", heading_path=path, page=page)


def _boundaries(text: str, blocks: Sequence[Block]) -> Iterator[tuple[int, int]]:
    """(offset, rank) of every unit; none between a heading and what follows, nor before headings without content."""
    last_content = max((n for n, block in enumerate(blocks) if block.kind != "heading"), default=-1)
    before: Block | None = None
    for number, block in enumerate(blocks):
        if before is None:
            yield 0, chunk_bounds.SECTION
        elif before.kind != "heading" and number <= last_content:
            # A path can change without a heading in the text: sheets of a workbook.
            new = block.kind == "heading" or block.heading_path != before.heading_path
            yield block.start, chunk_bounds.SECTION if new else chunk_bounds.between(text, before, block)
        if block.kind != "heading":
            yield from (found for found in chunk_bounds.inside(text, block) if found[0] < block.end)
        before = block


def spans(doc: Outline, tiny: int) -> list[Span]:
    """The document's sections; neighbours of one parent that both weigh less than `tiny` become one span.

    Whether two neighbours join is decided by these two alone, so that an edit cannot ripple through a chapter.
    """
    joined: list[list[Span]] = []
    for section in _sections(doc):
        if joined and _join(doc, joined[-1][-1], section, tiny):
            joined[-1].append(section)
        else:
            joined.append([section])
    return [
        Span(start=run[0].start, end=run[-1].end, paths=tuple(path for section in run for path in section.paths))
        for run in joined
    ]


def _join(doc: Outline, left: Span, right: Span, tiny: int) -> bool:
    before, after = left.paths[0], right.paths[0]
    if not after or after[:-1] not in (before[:-1], before):
        return False
    return max(doc.weight(left.start, left.end), doc.weight(right.start, right.end)) < tiny


def _sections(doc: Outline) -> Iterator[Span]:
    edges = [at for at, rank in zip(doc.at, doc.ranks, strict=True) if rank == chunk_bounds.SECTION]
    for start, end in pairwise(edges):
        path = doc.blocks[content(doc, start, end)].heading_path
        yield Span(start=start, end=end, paths=(path,))


def holding(doc: Outline, offset: int) -> int:
    """Index of the block that holds `offset`, or of the last before it."""
    return max(0, bisect_right(doc.starts, offset) - 1)


def content(doc: Outline, start: int, end: int) -> int:
    """Index of the first block in [start, end) that is not a heading; of the last heading where there is no other."""
    at = holding(doc, start)
    while doc.blocks[at].kind == "heading" and at + 1 < len(doc.blocks) and doc.blocks[at + 1].start < end:
        at += 1
    return at


def headings(doc: Outline, start: int, end: int) -> set[str]:
    """The headings that a chunk begins with."""
    run = doc.blocks[holding(doc, start) : content(doc, start, end) + 1]
    return {block.heading_path[-1] for block in run if block.kind == "heading" and block.heading_path}
