"""How much may be asked: of each client in a minute, and of the server at once. Knows clocks; nothing of HTTP."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from pipeline.serve.keys import Client

MINUTE_S = 60.0


class Rates:
    """A token bucket for each client with a rate: it holds a minute's requests, and fills evenly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # digest -> requests left, at this time

    def wait_s(self, client: Client) -> int:
        """0 for a request that may pass, which counts; else in how many seconds one may."""
        if not client.rate:
            return 0
        now = self._clock()
        left, since = self._left.get(client.digest, (float(client.rate), now))
        left = min(client.rate, left + (now - since) * client.rate / MINUTE_S)
        passes = left >= 1
        self._left[client.digest] = (left - passes, now)
        return 0 if passes else math.ceil((1 - left) * MINUTE_S / client.rate)
