"""Token counts of an Ollama server against the caller's own: a free check for a cut text and for another tokenizer.

One wrong count may be one answer's. It is a fault like others the first time, and the end of the run when the same
texts come back with one (asked again in a request of its own, of another server where there is one), or when a server
sends nothing else. Knows counts and versions; sends nothing but the question for the version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from pipeline import errors
from pipeline.models import vectors
from pipeline.models.ollama_errors import Version
from pipeline.models.ollama_pool import Lane

log = logging.getLogger(__name__)
DRIFTS = 3  # wrong counts in a row from one server, of whatever texts
SPECIALS = (0, 1, 2)  # tokens that a model may add to a text
SameInput = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counting:
    """How far the caller's token counts can be trusted against the server's.

    Attributes:
        exact: counts come from the model's own vocabulary, so they must agree; else they are bounds and nothing is
            compared.
        wordpiece: [CLS] and [SEP] are two per text; the version says whether the server counts them.
        readings: what other totals an honest server may come to for these texts (see wordpiece.py).
        same_input: whether two texts are the same token ids, so that one vector for both is right.
    """

    exact: bool
    wordpiece: bool = False
    readings: Callable[[Sequence[str]], Iterable[int]] = field(default=lambda texts: ())
    same_input: SameInput = field(default=lambda a, b: vectors.fold(a) == vectors.fold(b))


class Counts:
    """What was found so far, for one embedder."""

    def __init__(self, counting: Counting, model: str) -> None:
        self._counting = counting
        self._model = model
        self._drifted: set[int] = set()  # batches whose count was wrong the last time: as many as are being retried

    async def agree(self, lane: Lane, texts: Sequence[str], tokens: int, counted: int | None) -> bool:
        """Whether the server's count is ours, with the specials of each text where its version counts them."""
        if not self._counting.exact or not tokens or counted is None:
            return True
        known = await lane.server.version()
        if not self._explains(lane, known, texts, tokens, counted):
            version = await lane.server.version(fresh=True)
            if version == known:
                return False
            lane.specials = None  # it was updated under us
            if not self._explains(lane, version, texts, tokens, counted):
                return False
        lane.drifts = 0
        self._drifted.discard(_batch(texts))
        return True

    async def drift(self, lane: Lane, texts: Sequence[str], tokens: int, counted: int | None) -> errors.ModelError:
        """The error that a wrong count stands for: a TransientFault for the first time, else a ModelMismatch."""
        version = await lane.server.version()
        expected = tokens + len(texts) * self._specials(lane, version, len(texts), tokens, counted or 0)
        what = (
            f"{lane.server.name} (version {version.text}) counted {counted} tokens for {len(texts)} texts of "
            f"{self._model} where {expected} are expected"
        )
        lane.drifts += 1
        if _batch(texts) not in self._drifted and lane.drifts < DRIFTS:
            self._drifted.add(_batch(texts))
            log.info("%s: they are sent again.", what)
            return errors.TransientFault(f"{what}.")
        return errors.ModelMismatch(
            f"{what}, and not for the first time: it cuts texts, or its tokenizer is not the one that chunks were "
            "counted with. Nothing of this batch was kept.",
            "Run `pipeline doctor`. If the model was replaced there, pull it again, or build a new collection.",
        )

    def _explains(self, lane: Lane, version: Version, texts: Sequence[str], tokens: int, counted: int) -> bool:
        """Whether `counted` comes from our count, or from another way in which servers read these texts."""
        content = counted - len(texts) * self._specials(lane, version, len(texts), tokens, counted)
        if content == tokens:
            return True
        return any(content == total for total in self._counting.readings(texts))

    def _specials(self, lane: Lane, version: Version, texts: int, tokens: int, counted: int) -> int:
        """Specials per text in this server's counts: by version for WordPiece, else as its first answer showed."""
        if self._counting.wordpiece:
            return 2 if version.counts_specials else 0
        if lane.specials is None:
            lane.specials = next((n for n in SPECIALS if counted == tokens + n * texts), 0)
        return lane.specials


def _batch(texts: Sequence[str]) -> int:
    return hash(tuple(texts))
