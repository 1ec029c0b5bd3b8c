"""Which boundaries become cuts: content-defined chunking of units of unequal worth. Knows weights and priorities alone.

A boundary whose priority is the smallest of all nearer than `least` on either side is an anchor and always a cut. Gaps
between anchors that are wider than `most` are cut again, at the smallest priority inside the range that leaves a piece
of at most `most` and no crumb. So a cut depends on its neighbourhood alone: what an edit moves ends at the next anchor
that it did not touch.

The idea is that of Muthitacharoen, Chen and Mazières ("A Low-bandwidth Network File System", 2001) with the rule of
local minima of Teodosiu and others ("Optimizing File Replication over Limited-Bandwidth Networks", 2006) in place of a
mask: it bounds sizes from below by itself. Taking anchors greedily until no room is left (a maximal independent set)
gave evener sizes and changed more than three chunks in 1 % of edits, against 0.03 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def choose(ends: Sequence[int], priorities: Sequence[int], *, least: int, most: int, aim: int) -> list[int]:
    """Indices of the boundaries to cut at, ascending.

    Args:
        ends: running weight: `ends[i]` before boundary i, `ends[0]` 0, `ends[-1]` the whole. Boundaries are 1 … n-1.
        priorities: of each boundary; entries 0 and n are not looked at.
        least: anchors are at least this far from each other and from both ends.
        most: no piece weighs more unless it is a single unit.
        aim: which of equal priorities is taken in a gap.
    """
    anchors = [0, *_anchors(ends, priorities, least), len(ends) - 1]
    cuts: list[int] = []
    for left, right in pairwise(anchors):
        if left:
            cuts.append(left)
        cuts.extend(_gap(ends, priorities, left, right, least=least, most=most, aim=aim))
    return cuts


def _anchors(ends: Sequence[int], priorities: Sequence[int], least: int) -> list[int]:
    total = ends[-1]
    found: list[int] = []
    for at in range(1, len(ends) - 1):
        here = ends[at]
        if here < least or total - here < least:
            continue
        if _smallest_before(ends, priorities, at, least) and _smallest_after(ends, priorities, at, least):
            found.append(at)
    return found


def _smallest_before(ends: Sequence[int], priorities: Sequence[int], at: int, least: int) -> bool:
    near, mine = ends[at] - least, priorities[at]
    at -= 1
    while at > 0 and ends[at] > near:
        if priorities[at] <= mine:  # of equals the first wins
            return False
        at -= 1
    return True


def _smallest_after(ends: Sequence[int], priorities: Sequence[int], at: int, least: int) -> bool:
    near, mine, last = ends[at] + least, priorities[at], len(ends) - 1
    at += 1
    while at < last and ends[at] < near:
        if priorities[at] < mine:
            return False
        at += 1
    return True


def _gap(
    ends: Sequence[int], priorities: Sequence[int], left: int, right: int, *, least: int, most: int, aim: int
) -> list[int]:
    """Cuts that leave no piece of (left, right) above `most`, nor below half of `least` where units are fine enough."""
    cuts: list[int] = []
    crumb = max(1, least // 2)
    while ends[right] - ends[left] > most and right - left > 1:
        low, high = ends[left] + crumb, min(ends[left] + most, ends[right] - crumb)
        if ends[right] - ends[left] <= 2 * most:
            low = max(low, min(ends[right] - most, high))
        left = _best(ends, priorities, left, right, low=low, high=high, aim=aim)
        cuts.append(left)
    return cuts


def _best(
    ends: Sequence[int], priorities: Sequence[int], left: int, right: int, *, low: int, high: int, aim: int
) -> int:
    """The boundary of smallest priority with its weight in [low, high]; else the last before `high`; else the next."""
    best, goal, last = 0, ends[left] + aim, left + 1
    for at in range(left + 1, right):
        here = ends[at]
        if here > high:
            break
        last = at
        if here >= low:
            key = (priorities[at], abs(here - goal))
            if not best or key < (priorities[best], abs(ends[best] - goal)):
                best = at
    return best or last
