"""One document's outline cut into chunks that fit: rooms by context, cuts by `chunk_cuts`, a recount of what is sent.

Knows tokens and templates; knows nothing of Arrow or ids.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import errors
from pipeline.models import Tokenizer, templates
from pipeline.stages import chunk_bounds, chunk_cuts, chunk_sections
from pipeline.stages.chunk_context import Contexts
from pipeline.stages.chunk_sections import Outline, Span

CONTEXT_TOKENS = 64  # of title and heading path together
SMALLEST_ROOM = 16  # tokens left for text below which a limit is refused
LEAST_SHARE = 0.5  # of `size`: anchors' least distance; their mean distance is about twice as long
TINY_SHARE = 0.25  # of `size`: sections below are joined with a neighbour as small


class Params(Protocol):
    """What of ChunkParams matters here."""

    @property
    def size(self) -> int: ...
    @property
    def cap(self) -> int: ...
    @property
    def context(self) -> bool: ...
    @property
    def document_template(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A passage `doc.text[start:end]` and all that is sent to the model for it. `tokens`: of `sent`."""

    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    text: str
    context: str
    title: str
    sent: str
    tokens: int = 0


class Fitter:
    """Cuts one document, whose outline was weighed with the same cap."""

    def __init__(self, doc: Outline, params: Params, tokenizer: Tokenizer) -> None:
        self._doc = doc
        self._params = params
        self._tokenizer = tokenizer
        self._contexts = Contexts(doc, tokenizer, min(CONTEXT_TOKENS, params.cap // 4))
        self._costs: dict[str, int] = {}

    def chunks(self) -> list[Chunk]:
        """In order; what is not white space is covered exactly once.

        Raises:
            ConfigError: limit and template leave no room for text.
        """
        spans = chunk_sections.spans(self._doc, max(1, int(self._params.size * TINY_SHARE)))
        pieces = [piece for span in spans for piece in self._cut(span.start, span.end, self._room(span))]
        return self._fitted(pieces)

    def _room(self, span: Span) -> int:
        contexts = {self._contexts.of_path(path) if self._params.context else "" for path in span.paths}
        room = self._params.cap - max(self._cost(context) for context in contexts)
        if room < SMALLEST_ROOM:
            raise errors.ConfigError(
                f"a limit of {self._params.cap} tokens leaves {room} for text",
                "Raise chunk.max or shorten the document template.",
            )
        return room

    def _cost(self, context: str) -> int:
        if context not in self._costs:
            empty = templates.embed_text(context, "", self._contexts.title, self._params.document_template)
            self._costs[context] = self._tokenizer.count([empty])[0]
        return self._costs[context]

    def _cut(self, start: int, end: int, room: int) -> list[tuple[int, int]]:
        at, ranks, ends = self._units(start, end)
        if ends[-1] <= room:
            return [(start, end)]
        at, ranks, ends = self._refined(at, ranks, ends, room)
        text = self._doc.text[start:end]
        size = min(self._params.size, room)
        cuts = chunk_cuts.choose(
            ends,
            chunk_bounds.priorities(text, [offset - start for offset in at], ranks),
            least=max(1, int(size * LEAST_SHARE)),
            most=room,
            aim=size,
        )
        return list(pairwise([start, *(at[cut] for cut in cuts), end]))

    def _units(self, start: int, end: int) -> tuple[list[int], list[int], list[int]]:
        """Offsets (with both ends), ranks and running weights of the units in [start, end)."""
        doc = self._doc
        low, high = bisect_right(doc.at, start), bisect_left(doc.at, end)
        at = [start, *doc.at[low:high], end]
        ranks = [chunk_bounds.SECTION, *doc.ranks[low:high], chunk_bounds.SECTION]
        if doc.at[low - 1] == start and doc.at[high] == end:
            return at, ranks, [total - doc.ends[low - 1] for total in doc.ends[low - 1 : high + 1]]
        return at, ranks, chunk_sections.weigh(doc.text, at, self._tokenizer, self._params.cap)

    def _refined(
        self, at: Sequence[int], ranks: Sequence[int], ends: Sequence[int], room: int
    ) -> tuple[list[int], list[int], list[int]]:
        """The units with those above `room` taken apart."""
        new_at, new_ranks, weights = [at[0]], [ranks[0]], [0]
        for number, (start, end) in enumerate(pairwise(at)):
            weight = ends[number + 1] - ends[number]
            for inner, rank, part in self._taken_apart(start, end, weight, room):
                new_at.append(inner)
                new_ranks.append(ranks[number + 1] if inner == end else rank)
                weights.append(part)
        return new_at, new_ranks, list(accumulate(weights))

    def _taken_apart(self, start: int, end: int, weight: int, room: int) -> Iterator[tuple[int, int, int]]:
        """(end, rank of the boundary there, weight) of each part of a unit; of the unit itself if not above `room`."""
        parts = [(end, chunk_bounds.SECTION, weight)]
        if weight <= room:
            return iter(parts)
        for rank, offsets in chunk_bounds.within_unit(self._doc.text[start:end]):
            parts = self._finer(start, parts, rank, offsets + start, room)
            if all(part <= room for _, _, part in parts):
                break
        return iter(parts)

    def _finer(
        self, start: int, parts: list[tuple[int, int, int]], rank: int, offsets: NDArray[np.int64], room: int
    ) -> list[tuple[int, int, int]]:
        finer: list[tuple[int, int, int]] = []
        for end, old, weight in parts:
            low, high = np.searchsorted(offsets, (start + 1, end))
            if weight <= room or low == high:
                finer.append((end, old, weight))
            else:
                at = [start, *offsets[low:high].tolist(), end]
                ends = chunk_sections.weigh(self._doc.text, at, self._tokenizer, self._params.cap)
                inner = [rank] * (len(at) - 2) + [old]
                finer.extend(zip(at[1:], inner, (b - a for a, b in pairwise(ends)), strict=True))
            start = end
        return finer

    def _fitted(self, pieces: Sequence[tuple[int, int]]) -> list[Chunk]:
        """Chunks of the pieces, each counted as it is sent; what is above the cap all the same is cut again."""
        made = [self._made(start, end) for start, end in pieces]
        whole = [chunk for chunk in made if chunk is not None]
        counts = self._tokenizer.count([chunk.sent for chunk in whole])
        chunks: list[Chunk] = []
        for chunk, tokens in zip(whole, counts, strict=True):
            if tokens <= self._params.cap:
                chunks.append(replace(chunk, tokens=tokens))
            else:
                chunks.extend(self._smaller(chunk))
        return chunks

    def _made(self, start: int, end: int) -> Chunk | None:
        doc, template = self._doc, self._params.document_template
        text = doc.text[start:end]
        start += len(text) - len(text.lstrip())
        text = text.strip()
        if not text:
            return None
        end = start + len(text)
        context = self._contexts.of_chunk(start, end) if self._params.context else ""
        return Chunk(
            start=start,
            end=end,
            page=doc.blocks[chunk_sections.holding(doc, start)].page,
            heading_path=doc.blocks[chunk_sections.content(doc, start, end)].heading_path,
            text=text,
            context=context,
            title=self._contexts.title,
            sent=templates.embed_text(context, text, self._contexts.title, template),
        )

    def _smaller(self, chunk: Chunk) -> list[Chunk]:
        """Happens where counts do not add up: a word cut in two, a tokenizer that joins over a cut."""
        _, _, ends = self._units(chunk.start, chunk.end)
        pieces = self._cut(chunk.start, chunk.end, max(1, ends[-1] // 2))
        if len(pieces) == 1:  # the parts count so little that no cut seems needed: the whole says otherwise
            middle = (chunk.start + chunk.end) // 2
            pieces = [(chunk.start, middle), (middle, chunk.end)]
        return self._fitted(pieces)
