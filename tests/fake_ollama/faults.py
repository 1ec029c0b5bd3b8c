"""Failures on demand, by name: at the start (`--fault`), or while the server runs (`POST /__fake__/faults`).

| kind | what the client sees |
|---|---|
| eof, refused, terminated | the runner died: 500, from 0.13.3 on 400 (#16582); the next request loads the model anew |
| poison | the same, always, if a text holds `match` (default POISON): one bad input loses its whole batch |
| error_object | 500 `{"error":{}}`, as 0.3.5 to 0.6.0 answer every embedding failure |
| http500 | 500 with a plain message |
| busy503 | 503 with the message of a full queue |
| missing_model | 404, as if the model had been removed |
| garbage | 502 with an HTML page, as from a proxy |
| zeros | 200 with zero vectors (#17878); `sticky`: all vectors are zeros until the model is unloaded |
| nan | by version: 500, 400, or 200 with zeros |
| wrong_dim | half the dimensions |
| short | one vector too few |
| duplicate | the first vector for every text |
| swapped | the first two vectors change places |
| wrong_count | prompt_eval_count is 3 too high for each text |
| hang | no answer, ever (#17428); /api/version still answers, /api/ps shows `expires_at` in the past |
| slow | the answer comes `seconds` later |
| slow_load | the next load takes `seconds`, and load_duration says so |
| load_error | 500: the model cannot be loaded |
| reset | the connection closes before any answer |
| disconnect | the connection closes in the middle of the body |
| truncated_json | a complete answer with half a JSON document |
| digest_change | /api/tags and /api/ps name another digest |
| chat_error | an `{"error"}` line in the middle of the stream |
| chat_cut | the stream stops in the middle of a sentence and the connection closes |
| chat_stall | the stream stops in the middle of a sentence and the connection stays open |
| pull_error | progress, then an `{"error"}` line with status 200 |

Each has `rate` (chance for a request that could have it), `count` (how often at most), `after` (requests to let pass
first), `match` (only requests whose text holds this), `endpoint` (only this path), `seconds` and `sticky`. Without
`endpoint` a fault meets its own kind of request only.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import msgspec

EMBED = frozenset({"/api/embed", "/api/embeddings", "/v1/embeddings"})
CHAT = frozenset({"/api/chat", "/v1/chat/completions"})
INFERENCE = EMBED | CHAT | {"/api/generate"}
SCOPES: dict[str, frozenset[str]] = {
    **dict.fromkeys(("eof", "refused", "terminated", "poison", "error_object"), EMBED),
    **dict.fromkeys(("zeros", "nan", "wrong_dim", "short", "duplicate", "swapped", "wrong_count"), EMBED),
    **dict.fromkeys(("http500", "busy503", "missing_model", "garbage", "hang", "slow", "reset"), INFERENCE),
    **dict.fromkeys(("disconnect", "truncated_json", "slow_load", "load_error"), INFERENCE),
    "digest_change": frozenset({"/api/tags", "/api/ps"}),
    "chat_error": CHAT,
    "chat_cut": CHAT,
    "chat_stall": CHAT,
    "pull_error": frozenset({"/api/pull"}),
}
POISON = "POISON"


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=False):
    """One failure to play; `fired` counts how often it was."""

    kind: str
    rate: float = 1.0
    count: int | None = None
    after: int = 0
    match: str | None = None
    endpoint: str | None = None
    seconds: float = 1.0
    sticky: bool = False
    fired: int = 0
    passed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in SCOPES:
            raise ValueError(f"no fault is called {self.kind!r}; there are: {', '.join(sorted(SCOPES))}")
        if self.kind == "poison" and self.match is None:
            self.match = POISON

    def meets(self, path: str, texts: Iterable[str]) -> bool:
        """Whether a request to `path` with `texts` is one that this fault could strike."""
        if path != self.endpoint and (self.endpoint is not None or path not in SCOPES[self.kind]):
            return False
        return self.match is None or any(self.match in text for text in texts)

    def hits(self, text: str) -> bool:
        """Whether this one text is struck, once the request is."""
        return self.match is None or self.match in text


def parse(spec: str) -> Fault:
    """The fault that `kind[:rate[:count]][,name=value…]` describes, for instance `eof:0.1`, `slow:1:3,seconds=0.2` or
    `zeros,match=bad`.
    """
    head, *pairs = spec.split(",")
    values: dict[str, object] = dict(zip(("kind", "rate", "count"), head.split(":"), strict=False))
    for pair in pairs:
        name, _, value = pair.partition("=")
        values[name] = value
    return msgspec.convert(values, Fault, strict=False)


class Faults:
    """The faults that are set, and the dice for their rates (`seed` makes them repeat)."""

    def __init__(self, seed: int = 0) -> None:
        self._dice = random.Random(seed)
        self._set: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        self._set.extend(faults)

    def clear(self, kind: str | None = None) -> None:
        self._set = [fault for fault in self._set if kind not in (None, fault.kind)]

    def all(self) -> list[Fault]:
        return self._set

    def take(self, kinds: Iterable[str], path: str, texts: Iterable[str] = ()) -> Fault | None:
        """The first set fault among `kinds` that strikes this request; what is taken counts as fired."""
        if not self._set:
            return None
        return next(
            (fault for fault in self._set if fault.kind in kinds and fault.meets(path, texts) and self._strikes(fault)),
            None,
        )

    def _strikes(self, fault: Fault) -> bool:
        if fault.count is not None and fault.fired >= fault.count:
            return False
        fault.passed += 1
        if fault.passed <= fault.after or (fault.rate < 1 and self._dice.random() >= fault.rate):
            return False
        fault.fired += 1
        return True
