"""What the server received: every text in order, every request, and the counters that tests and benchmarks ask for.

With `keep=False` only the counters grow, so that a benchmark of a million texts fits in memory. The log file gets one
line per text, written in one call before anything is computed: it survives `kill -9` of the server and of the client.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec


class Counters(msgspec.Struct):
    texts: int = 0
    tokens: int = 0  # content tokens, as counted before any cut
    requests: int = 0  # to the embedding and chat endpoints
    http_requests: int = 0  # to all endpoints but /__fake__/
    connections: int = 0  # that carried a request other than to /__fake__/
    in_flight: int = 0
    peak_in_flight: int = 0
    in_flight_texts: int = 0
    peak_in_flight_texts: int = 0
    cancelled: int = 0


class Received(msgspec.Struct):
    """One text to embed; `request` is the number of the request that brought it."""

    request: int
    endpoint: str
    model: str
    text: str
    tokens: int


class Entry(msgspec.Struct):
    """One request to an embedding or chat endpoint; `fields` are all its fields but the input. Status 499: the client
    went away.
    """

    number: int
    endpoint: str
    model: str
    texts: int
    fields: dict[str, Any]
    status: int | None = None
    cancelled: bool = False


class Record:
    def __init__(self, *, keep: bool = True, log: Path | None = None) -> None:
        self.counters = Counters()
        self.texts: list[Received] = []
        self.requests: list[Entry] = []
        self._keep = keep
        self._connections: set[int] = set()
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if log else None

    def saw(self, connection: int) -> None:
        """Any request to an endpoint of Ollama's."""
        self.counters.http_requests += 1
        if connection not in self._connections:
            self._connections.add(connection)
            self.counters.connections += 1

    def begin(self, endpoint: str, fields: dict[str, Any], texts: list[str], tokens: list[int]) -> Entry:
        """Note a request as it arrives; `tokens[i]` belongs to `texts[i]`."""
        counters = self.counters
        counters.requests += 1
        counters.texts += len(texts)
        counters.tokens += sum(tokens)
        counters.in_flight += 1
        counters.in_flight_texts += len(texts)
        counters.peak_in_flight = max(counters.peak_in_flight, counters.in_flight)
        counters.peak_in_flight_texts = max(counters.peak_in_flight_texts, counters.in_flight_texts)
        model = str(fields.get("model", ""))
        other = {name: value for name, value in fields.items() if name not in ("input", "prompt")} if self._keep else {}
        entry = Entry(counters.requests, endpoint, model, len(texts), other)
        self._note(
            entry, [Received(entry.number, endpoint, model, text, n) for text, n in zip(texts, tokens, strict=True)]
        )
        return entry

    def _note(self, entry: Entry, texts: list[Received]) -> None:
        if self._log is not None and texts:
            os.write(self._log, b"".join(msgspec.json.encode(text) + b"\n" for text in texts))
        if self._keep:
            self.requests.append(entry)
            self.texts.extend(texts)

    def end(self, entry: Entry, status: int | None) -> None:
        """Note the answer; None: the client went away before there was one."""
        entry.status = status if status is not None else 499
        entry.cancelled = status is None
        self.counters.cancelled += status is None
        self.counters.in_flight = max(0, self.counters.in_flight - 1)
        self.counters.in_flight_texts = max(0, self.counters.in_flight_texts - entry.texts)

    def reset(self) -> None:
        """Forget it all; requests in flight stay counted as that."""
        old = self.counters
        self.counters = Counters(
            in_flight=old.in_flight,
            peak_in_flight=old.in_flight,
            in_flight_texts=old.in_flight_texts,
            peak_in_flight_texts=old.in_flight_texts,
        )
        self.texts.clear()
        self.requests.clear()
        self._connections.clear()
