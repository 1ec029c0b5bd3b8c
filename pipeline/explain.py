"""What a search noted about itself, for `--explain`: filled along the way by whoever knows, read by whoever shows it.

Knows names, numbers and times; nothing of how a search is done. Nobody who searches without it pays for it: every note
is taken only where a Trace was given.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

SHOWN = 5  # of the passages that just missed a place

Reason = Literal["folded", "per_document", "below", "filtered"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A passage that is no hit, and why not.

    Attributes:
        reason: "folded": the same text, or nearly, as hit `into`; "per_document": its document has its share of hits;
            "below": it ranks behind the last hit; "filtered": the filters leave it out, and it ranked before the last.
        into: number of the hit that stands for it, from 1; 0: none.
    """

    path: str
    page: int | None
    heading: str
    chunk_id: str
    fused: float
    reason: Reason
    into: int = 0


@dataclass(slots=True, kw_only=True)
class Trace:
    """One search, step by step.

    Attributes:
        query: the question as it was embedded, after the model's template; "" where it was not.
        tokens: of `query`, as the model reads them; empty where they are not known.
        words: what the text search looks for, before its stemming.
        publication: number of the snapshot that was searched.
        asked, used: the mode asked for and what it came to; `why`: where they differ.
        where: the filters as typed; `rows`: passages that there are, `left`: that the filters leave.
        candidates: taken from each ranking; `found`: what each gave ("vector", "text").
        weights: of each ranking in the fusion; `rrf_k`: the constant of reciprocal ranks, 0: it is by scores.
        copies: passages with the text of another hit, letter by letter, that are named in its `also_in`.
        ms: milliseconds of each step; steps may run beside each other.
    """

    question: str = ""
    query: str = ""
    tokens: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    model: str = ""
    publication: int = 0
    asked: str = ""
    used: str = ""
    why: str = ""
    where: tuple[str, ...] = ()
    rows: int = 0
    left: int | None = None
    candidates: int = 0
    rrf_k: int = 0
    found: dict[str, int] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    copies: int = 0
    dropped: list[Dropped] = field(default_factory=list)
    below: int = 0  # passages behind the last hit; the first SHOWN are in `dropped`
    reranker: str = ""
    reranked: int = 0  # passages that the reranker read
    ms: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For `--explain --json` and the service: plain values, milliseconds to the hundredth."""
        said = asdict(self)
        said["ms"] = {step: round(ms, 2) for step, ms in self.ms.items()}
        return said


@contextlib.contextmanager
def timed(trace: Trace | None, step: str) -> Iterator[None]:
    """Add the time of this block to `trace.ms[step]`."""
    if trace is None:
        yield
        return
    began = time.perf_counter()
    try:
        yield
    finally:
        trace.ms[step] = trace.ms.get(step, 0.0) + (time.perf_counter() - began) * 1e3


class Placed(Protocol):
    """What is told of a passage: a search.Hit is one."""

    @property
    def path(self) -> str: ...
    @property
    def page(self) -> int | None: ...
    @property
    def heading(self) -> str: ...
    @property
    def chunk_id(self) -> str: ...
    @property
    def fused(self) -> float: ...


def tell(
    trace: Trace, folded: Sequence[tuple[Placed, str]], ranked: Sequence[Placed], chosen: Sequence[Placed]
) -> None:
    """Note what is no hit, and why.

    Args:
        folded: passage → chunk_id of the one that stands for it.
        ranked: distinct passages, best first; `chosen`: the hits among them.
    """
    numbers = {hit.chunk_id: number for number, hit in enumerate(chosen, start=1)}
    last = max((at for at, one in enumerate(ranked) if one.chunk_id in numbers), default=-1)
    over = [one for one in ranked[: last + 1] if one.chunk_id not in numbers]
    trace.dropped = [_dropped(one, "folded", numbers.get(into, 0)) for one, into in folded]
    trace.dropped += [_dropped(one, "per_document") for one in over]
    trace.below = len(ranked) - last - 1
    trace.dropped += [_dropped(one, "below") for one in ranked[last + 1 : last + 1 + SHOWN]]


def tell_filtered(
    trace: Trace, unfiltered: Sequence[Placed], filtered: Sequence[Placed], chosen: Sequence[Placed]
) -> None:
    """Note what ranks before the last hit where nothing is filtered, the first few."""
    within, hits = {one.chunk_id for one in filtered}, {one.chunk_id for one in chosen}
    last = max((at for at, one in enumerate(unfiltered) if one.chunk_id in hits), default=len(unfiltered))
    out = [one for one in unfiltered[:last] if one.chunk_id not in within]
    trace.dropped += [_dropped(one, "filtered") for one in out[:SHOWN]]


def _dropped(one: Placed, reason: Reason, into: int = 0) -> Dropped:
    return Dropped(
        path=one.path,
        page=one.page,
        heading=one.heading,
        chunk_id=one.chunk_id,
        fused=one.fused,
        reason=reason,
        into=into,
    )
