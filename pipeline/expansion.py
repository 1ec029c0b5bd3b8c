"""Hits grown by what stands around them under the same heading, to a budget of tokens, and no text shown twice.

A chunk is cut for its vector; a reader, and a model that answers, often need the sentence before it or the table's
first rows. Growth is by whole units of the document (sentences, list items, a table group with its header row), on
both sides in turn, the best hit first. It ends at the headings around the hit, at another passage, where the budget
ends, and at text that another document shows already (copies and versions repeat whole sections). Two passages that
come to touch under one heading become one.

Knows documents' text and blocks, and hits; not where texts are stored (`texts.py`), nor how tokens are counted: the
caller says by whose measure.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.document import Block
from pipeline.search import Hit
from pipeline.stages import chunk_bounds, chunk_sections

UNLIMITED = 1 << 30
WHOLE_TABLE = 2_000  # characters of a table block that is never taken apart; readers make groups of half of that
REPEATED = 80  # characters from which a unit that another document shows ends growth; "Yes." may well come twice
REACH = 20_000  # characters on either side of a hit that are looked at: text without headings is one section

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One document's text and structure, exactly as it was when its chunks were cut."""

    text: str
    blocks: Sequence[Block]


class Source(Protocol):
    """Where texts come from: of what is published, never of anything newer."""

    def texts(self, doc_ids: Collection[str]) -> Mapping[str, Text]:
        """The documents that are there; what is not is left out."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A run of a document's text with the hits in it.

    Attributes:
        hits: at least one, best first; each lies within [start, end).
        start, end: code points into the document's text, of which `text` is exactly that slice.
        tokens: of `text`, as counted in parts: rather too many.
    """

    hits: tuple[Hit, ...]
    start: int
    end: int
    text: str
    tokens: int

    @property
    def hit(self) -> Hit:
        """The best one, whose page, heading and score stand for the passage."""
        return self.hits[0]

    @property
    def chunk_ids(self) -> tuple[str, ...]:
        return tuple(hit.chunk_id for hit in self.hits)

    def to_json(self) -> dict[str, object]:
        """For `--json`: the best hit's place, and what the passage says."""
        place = {"path": self.hit.path, "page": self.hit.page, "heading": self.hit.heading, "doc_id": self.hit.doc_id}
        told = {"start": self.start, "end": self.end, "text": self.text, "tokens": self.tokens}
        return {**place, **told, "chunk_ids": list(self.chunk_ids)}

    def as_hit(self) -> Hit:
        """The best hit with the passage's text and range, for whoever shows or quotes hits."""
        return replace(self.hit, start=self.start, end=self.end, text=self.text)


def expand(
    source: Source, hits: Sequence[Hit], *, budget_tokens: int, each_tokens: int = UNLIMITED, count: Count
) -> list[Passage]:
    """`hits` with their surroundings, ordered by their best hit. A hit whose document is not there stays as it is.

    Args:
        budget_tokens: of all passages together. Hits are never cut: where they alone take more, nothing grows.
        each_tokens: to which one hit may grow; 0: no growth, but neighbours under one heading are joined.
        count: tokens of a text. Texts are counted in parts, so it should not be less for two parts than for the whole.
    """
    found = source.texts({hit.doc_id for hit in hits})
    grounds = {doc_id: _Ground(text, count) for doc_id, text in found.items()}
    growing = [_seed(grounds.get(hit.doc_id), hit, rank, count) for rank, hit in enumerate(hits)]
    room = budget_tokens - sum(one.tokens for one in growing)
    shown = {unit: one.ground for one in growing if one.ground for unit in one.ground.units(one.start, one.end)}
    for one in growing:
        if one.ground is not None:
            others = [other for other in growing if other is not one and other.ground is one.ground]
            room -= _grow(one, one.ground, others, min(room, each_tokens - one.tokens), shown)
    joined = [one for group in _by_document(growing) for one in _joined(group, count)]
    return [_passage(one) for one in sorted(joined, key=lambda one: one.rank)]


class _Ground:
    """A document to grow in: its sections, and the offsets at which its units begin."""

    def __init__(self, of: Text, count: Count) -> None:
        self.text = of.text
        self.count = count
        self._blocks = chunk_sections.cover(of.text, of.blocks)
        self._starts = [block.start for block in self._blocks]
        self._known: dict[tuple[int, int], list[int]] = {}

    def holds(self, hit: Hit) -> bool:
        """Whether it is the text that the hit was cut from."""
        return bool(self._blocks) and self.text[hit.start : hit.end] == hit.text

    def section(self, start: int, end: int) -> tuple[int, int]:
        """How far text[start:end] may grow: back to its first heading, on to where its last section ends."""
        blocks, first, last = self._blocks, self._block_at(start), self._block_at(end - 1)
        while first and _continues(blocks[first - 1], blocks[first]):
            first -= 1
        while last + 1 < len(blocks) and _continues(blocks[last], blocks[last + 1]):
            last += 1
        low, high = min(blocks[first].start, start), max(blocks[last].end, end)
        return max(low, start - REACH), min(high, end + REACH)

    def cuts_table(self, start: int) -> bool:
        """Whether the rows before `start` belong to the same table group: its header row is among them."""
        block = self._blocks[self._block_at(start)]
        return block.kind == "table" and block.start < start

    def _block_at(self, offset: int) -> int:
        return max(0, bisect_right(self._starts, offset) - 1)

    def next_cut(self, at: int, low: int, high: int) -> int:
        """Where the unit ends that begins at `at`, white space apart; `high` where the last one does."""
        for index in range(self._block_at(at), len(self._blocks)):
            if self._blocks[index].start >= high:
                break
            for cut in self._cuts(index, low, high):
                if at < cut < high and self.text[at:cut].strip():
                    return cut
        return max(at, high)

    def last_cut(self, at: int, low: int, high: int) -> int:
        """Where the unit begins that ends at `at`, white space apart; `low` where the first one does."""
        for index in range(self._block_at(at), -1, -1):
            for cut in reversed(self._cuts(index, low, high)):
                if low < cut < at and self.text[cut:at].strip():
                    return cut
            if self._blocks[index].start <= low:
                break
        return min(at, low)

    def _cuts(self, index: int, low: int, high: int) -> list[int]:
        """Where the units of a block begin, as far as it lies in [low, high]."""
        block = self._blocks[index]
        start, end = max(block.start, low), min(block.end, high)
        if (start, end) not in self._known:
            found = [start]
            if start < end and (block.kind != "table" or block.end - block.start > WHOLE_TABLE):
                inside = chunk_bounds.inside(self.text, replace(block, start=start, end=end))
                found += [at for at, _ in inside if at < end]
            self._known[start, end] = found
        return self._known[start, end]

    def units(self, start: int, end: int) -> Iterator[str]:
        """The long units of text[start:end]."""
        at = start
        while at < end:
            cut = self.next_cut(at, start, end)
            unit = self.text[at:cut].strip()
            if len(unit) >= REPEATED:
                yield unit
            at = cut


def _continues(before: Block, after: Block) -> bool:
    """Whether `after` stands under the same heading; paths can be equal under two headings of the same words."""
    return after.kind != "heading" and before.heading_path == after.heading_path


@dataclass(slots=True, kw_only=True)
class _Growing:
    """A passage in the making. `low`, `high`: how far it may grow; `ground` None: not at all."""

    ground: _Ground | None
    hits: dict[int, Hit]  # by rank
    start: int
    end: int
    low: int
    high: int
    tokens: int

    @property
    def rank(self) -> int:
        return min(self.hits)


def _seed(ground: _Ground | None, hit: Hit, rank: int, count: Count) -> _Growing:
    ground = ground if ground is not None and ground.holds(hit) else None
    low, high = (hit.start, hit.end) if ground is None else ground.section(hit.start, hit.end)
    # Two more line breaks: what stands between two passages that are joined was counted by neither.
    tokens = count(hit.text) + count("\n\n")
    return _Growing(ground=ground, hits={rank: hit}, start=hit.start, end=hit.end, low=low, high=high, tokens=tokens)


def _grow(one: _Growing, ground: _Ground, others: Sequence[_Growing], room: int, shown: dict[str, _Ground]) -> int:
    """Take units on either side while there is room; returns the tokens that they took."""
    low = max([one.low, *(other.end for other in others if other.start < one.start)])
    high = min([one.high, *(other.start for other in others if other.start >= one.end)])
    first, taken = room, {"after": 0, "before": -1 if ground.cuts_table(one.start) else 0}
    while taken:
        side = min(taken, key=taken.__getitem__)  # of equals "after": more is explained after it is named than before
        if side == "after":
            start, end = one.end, ground.next_cut(one.end, low, high)
        else:
            start, end = ground.last_cut(one.start, low, high), one.start
        unit = ground.text[start:end].strip()
        cost = ground.count(ground.text[start:end])
        if not unit or cost > room or shown.get(unit, ground) is not ground:
            del taken[side]
            continue
        one.start, one.end = min(one.start, start), max(one.end, end)
        room -= cost
        taken[side] += cost
        if len(unit) >= REPEATED:
            shown.setdefault(unit, ground)
    one.tokens += first - room
    return first - room


def _by_document(growing: Sequence[_Growing]) -> list[list[_Growing]]:
    """The passages of each document, in the order of its text; one that cannot grow is alone."""
    groups: dict[int, list[_Growing]] = {}
    for one in growing:
        groups.setdefault(id(one if one.ground is None else one.ground), []).append(one)
    return [sorted(group, key=lambda one: one.start) for group in groups.values()]


def _joined(group: Sequence[_Growing], count: Count) -> Iterator[_Growing]:
    """Passages that touch under one heading as one."""
    before = group[0]
    for one in group[1:]:
        ground = before.ground
        touching = ground is not None and one.start < before.high and not ground.text[before.end : one.start].strip()
        if ground is None or not (touching or one.start < before.end):
            yield before
            before = one
            continue
        before = replace(
            before,
            hits=before.hits | one.hits,
            end=max(before.end, one.end),
            high=max(before.high, one.high),
            tokens=before.tokens + one.tokens,
        )
    yield before


def _passage(one: _Growing) -> Passage:
    """Without the white space at its ends, unless a hit begins or ends with it."""
    hits = tuple(hit for _, hit in sorted(one.hits.items()))
    if one.ground is None:
        return Passage(hits=hits, start=one.start, end=one.end, text=hits[0].text, tokens=one.tokens)
    first, last = min(hit.start for hit in hits), max(hit.end for hit in hits)
    before, after = one.ground.text[one.start : first], one.ground.text[last : one.end]
    start = first - len(before.lstrip()) if before.strip() else first
    end = last + len(after.rstrip())
    return Passage(hits=hits, start=start, end=end, text=one.ground.text[start:end], tokens=one.tokens)
