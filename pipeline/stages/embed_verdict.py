"""What is known against one text: which of its failures are its own. Knows failures; sends nothing.

A server that is busy, a connection that is cut, an answer that never comes say nothing of the text that was being
embedded, so they are neither counted as tries of it nor given as its reason, unless nothing but the same one ever comes
back for it from servers that are well. What does count is a reason that recurs: many faults meet a text once.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from pipeline import errors

RECURRENCES = 3  # of one reason, each alone on a server that embedded a known text rightly just before
CONFIRMED = 2  # times that one counts which made known texts fail too: two are enough
_CHANGING = re.compile(r"https?://[^\s\"]+|\d+(\.\d+)?")  # ports, seconds, places in a batch, the server's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt brought no vectors.

    Attributes:
        kind: as in Rejected.
        texts: how many the attempt was about.
        refused: the server says that no retry helps.
        poisons: on a server that was well, and with nothing else in flight, it made known texts fail too.
        shaken: known texts failed after it as well, if only at first.
    """

    kind: str
    error: errors.ModelError
    texts: int
    refused: bool = False
    poisons: bool = False
    shaken: bool = False

    @property
    def passing(self) -> bool:
        """It says nothing of the texts."""
        return not self.refused and not isinstance(self.error, errors.RunnerFault | errors.BadVectors)


class Evidence:
    """The failures of one text.

    Args:
        patience: how often one and the same passing fault must have come, and nothing else, to be the text's own.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._weights: Counter[str] = Counter()  # by reason; of those that may be the text's
        self._passing: Counter[str] = Counter()
        self._failures: dict[str, Failure] = {}
        self._tries = 0

    def add(self, failure: Failure) -> None:
        """One more try that failed, alone and on a server that was well."""
        reason = _CHANGING.sub("#", failure.error.message)
        self._failures[reason] = failure
        self._tries += 1
        if failure.passing:
            self._passing[reason] += not failure.shaken
        else:
            self._weights[reason] += CONFIRMED if failure.poisons else 1

    def verdict(self) -> Failure | None:
        """The failure that the text is to be given up for; None: nothing is certain yet."""
        own, passing = self._weights, self._passing
        endless = self._tries >= 4 * self._patience  # a text to which nothing certain happens must end as well
        if own:
            (reason, most), *_ = own.most_common(1)
            return self._failures[reason] if most >= RECURRENCES or own.total() >= 4 * RECURRENCES or endless else None
        if endless or (len(passing) == 1 and passing.total() >= self._patience):
            (reason, _), *_ = passing.most_common(1)
            return self._failures[reason]
        return None
