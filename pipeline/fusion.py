"""Two rankings as one: what a place, or a score, in each of them is worth.

By scores (the default): each ranking's scores are stretched to the range from 0 to 1, and added with weights (a convex
combination: Bruch, Gai and Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"). A clear winner of one
ranking stays clear, which ranks forget: a passage with every rare word of the question counts for more than the first
of fifty that share one word with it. By ranks: reciprocal ranks (Cormack, Clarke and Büttcher 2009).

`python -m benchmarks.search_quality` compares them: docs/retrieval.md. Knows numbers, and nothing of passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["scores", "ranks"]
VECTOR_WEIGHT = 0.4  # with 0.2 and 0.6 nothing differs beyond doubt, as docs/retrieval.md has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Fusion:
    """How to fuse. `vector_weight`: of the scores of the vector ranking, from 0 to 1; the words have the rest.
    `rrf_k`: the constant of reciprocal ranks.
    """

    kind: Kind = "scores"
    vector_weight: float = VECTOR_WEIGHT
    rrf_k: int = 60

    def weights(self, *, foreign: bool) -> tuple[float, float]:
        """Of the vectors and of the words. `foreign`: the model cannot read the question."""
        by_vector, by_words = (1.0, 1.0) if self.kind == "ranks" else (self.vector_weight, 1 - self.vector_weight)
        return (0.0 if foreign else by_vector), by_words

    def worth(self, strengths: Sequence[float], weight: float, *, floor: float | None) -> list[float]:
        """What each place of a ranking adds to its passage.

        Args:
            strengths: the ranking's scores, best first.
            floor: the score of what is not in the ranking, where that is known; else that of its last place.
        """
        if self.kind == "ranks":
            return [weight / (self.rrf_k + rank) for rank in range(1, len(strengths) + 1)]
        if not strengths:
            return []
        low, high = strengths[-1] if floor is None else floor, strengths[0]
        return [weight * ((one - low) / (high - low) if high > low else 1.0) for one in strengths]
