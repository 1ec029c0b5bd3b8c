"""Ollama's versions and what its error answers mean: one table, by version era, status and message.

Read from Ollama's source at tags from 0.3.12 to 0.33 (server/routes.go, server/sched.go, llm/server.go). Knows no HTTP
client.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import total_ordering
from typing import Any

import msgspec

from pipeline import errors

MINIMUM = "0.3.12"  # before 0.3.7 batches came back shuffled; 0.3.12 is the oldest that this program is tested against


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """An Ollama version. "0.0.0" is what a build from source calls itself: taken for the newest."""

    text: str

    @property
    def triple(self) -> tuple[int, int, int]:
        found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", self.text)
        if found is None or not any(map(int, found.groups("0"))):
            return (999, 0, 0)
        return int(found[1]), int(found[2]), int(found[3] or 0)

    def __lt__(self, other: Version) -> bool:
        return self.triple < other.triple

    def since(self, *triple: int) -> bool:
        return self.triple >= triple

    @property
    def supported(self) -> bool:
        return self >= Version(MINIMUM)

    @property
    def has_base64(self) -> bool:
        """/v1/embeddings honours `encoding_format: base64` (before, it sends lists)."""
        return self.since(0, 12, 7)

    @property
    def counts_specials(self) -> bool:
        """prompt_eval_count includes [CLS] and [SEP] of each text (before, content tokens alone)."""
        return self.since(0, 13, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownBad:
    """Versions from `first` to `last`, both included, and what is wrong with them."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]
    what: str


KNOWN_BAD = (
    KnownBad(first=(0, 2, 6), last=(0, 3, 6), what="gives the vectors of a batch in the wrong order"),
    KnownBad(
        first=(0, 4, 0),
        last=(0, 5, 7),
        what="reuses its result buffer: two texts can get one vector (refused here, and asked again)",
    ),
    KnownBad(first=(0, 12, 6), last=(0, 12, 6), what="fails on long inputs to mxbai-embed-large"),
    KnownBad(
        first=(0, 0, 0),
        last=(0, 17, 0),
        what="lets anyone who reaches it read its memory (CVE-2026-7482, mended in 0.17.1)",
    ),
)


def version_warnings(version: Version) -> list[str]:
    """What is known to be wrong with a server's version, one line each; empty when nothing is."""
    lines = [f"Ollama {version.text} {bad.what}" for bad in KNOWN_BAD if bad.first <= version.triple <= bad.last]
    if not version.supported:
        lines.insert(0, f"Ollama {version.text} is older than {MINIMUM}, the oldest that this program works with")
    return lines


def require_supported(version: Version, url: str) -> None:
    """Refuse a server that is too old to be trusted with a batch.

    Raises:
        ServerRefused: it is older than MINIMUM.
    """
    if not version.supported:
        raise errors.ServerRefused(
            f"Ollama at {url} is version {version.text}; {MINIMUM} is the oldest that can be used.",
            "Update Ollama: https://ollama.com/download",
        )


class _Body(msgspec.Struct):
    error: Any = None  # a string; an object from 0.3.5 to 0.6.0, and `{"message"}` under /v1


def message(body: bytes) -> str:
    """The error text of an answer; "" for `{"error":{}}` (0.3.5 to 0.6.0) and for an answer without one."""
    try:
        found = msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "" if body.lstrip()[:1] == b"<" else body[:200].decode("utf-8", "replace").strip()
    if isinstance(found, dict):
        found = found.get("message", "")
    return found if isinstance(found, str) else ""


Make = Callable[[str, str], errors.ModelError]


def _too_long(text: str, remedy: str) -> errors.ModelError:
    return errors.TextRejected("too_long", text, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`pattern` is searched in the message, ignoring case; `statuses` empty means any."""

    pattern: str
    make: Make
    statuses: tuple[int, ...] = ()
    first: tuple[int, int, int] = (0, 0, 0)
    last: tuple[int, int, int] = (999, 999, 999)
    remedy: str = ""

    def fits(self, status: int, text: str, version: Version | None) -> bool:
        triple = version.triple if version else (999, 0, 0)
        in_era = self.first <= triple <= self.last
        return in_era and (not self.statuses or status in self.statuses) and bool(re.search(self.pattern, text, re.I))


_PULL = "Run `ollama pull {model}`, or give `--pull`."
_DIED = r"\bEOF\b|connection refused|connection reset|broken pipe|terminated|forcibly closed|no longer running"
_STALLED = r"timed out waiting|server (is )?not responding|unexpected server status|health resp"
_TOO_LONG = (
    r"input (length )?exceeds (the |maximum )?context (length|size)|exceeds (the )?(available|maximum|max) context"
    r"|input after truncation exceeds|cannot be truncated further|(is|input) too large to process"
    r"|(larger|longer) than the (max )?context"
)

# First match wins. A new message goes above the rule that would take it wrongly, with a line in the tests' table.
RULES = (
    Rule(pattern=r"model .*not found|try pulling it", make=errors.ModelMissing, remedy=_PULL),
    Rule(pattern=_TOO_LONG, make=_too_long),
    Rule(pattern=r"does not support (embed|generat|chat|completion)", make=errors.ServerRefused,
         remedy="{model} is another kind of model: choose one with --model."),
    Rule(pattern=r"invalid (input type|model name|options|duration)|cannot unmarshal|missing request body",
         statuses=(400,),
         make=errors.ServerRefused),
    Rule(pattern=r"remote inference|cloud", statuses=(400, 401, 402, 403), make=errors.ServerRefused,
         remedy="Choose a model that runs on your own machine."),
    Rule(pattern=r"", statuses=(401, 403, 407), make=errors.ServerRefused,
         remedy="The server or a proxy before it wants other credentials or another Host header."),
    Rule(pattern=r"NaN|\bInf\b", make=errors.BadVectors),
    Rule(pattern=_DIED, make=errors.RunnerFault),
    Rule(pattern=_STALLED, make=errors.TransientFault),
    Rule(pattern=r"more system memory|out of memory|cudaMalloc", make=errors.TransientFault,
         remedy="Free memory on the server, or take a smaller model."),
    Rule(pattern=r"", statuses=(404, 405), make=errors.ServerRefused,
         remedy="Check the address: this answer is not Ollama's."),
    Rule(pattern=r"", statuses=(408, 429, 499, 502, 503, 504), make=errors.TransientFault),
    Rule(pattern=r"", statuses=(500,), make=errors.RunnerFault),  # {"error":{}} too (0.3.5 to 0.6.0)
    Rule(pattern=r"", statuses=(413,), make=errors.ServerRefused,
         remedy="A proxy limits the size of requests: lower embed.batch_texts."),
    # Since 0.13.3 whatever goes wrong in the runner is a 400, so one that is not known may pass; before, it was ours.
    Rule(pattern=r"", statuses=(400,), first=(0, 13, 3), make=errors.RunnerFault),
    Rule(pattern=r"^$", statuses=(400,), last=(0, 6, 0), make=errors.RunnerFault),  # {"error":{}}
)  # fmt: skip


def classify(status: int, body: bytes, *, version: Version | None, model: str, server: str) -> errors.ModelError:
    """The error that an answer other than 200 stands for. `version` None: taken for the newest era.

    Args:
        model: as asked for, to name in the remedy.
        server: such as "Ollama at http://127.0.0.1:11434".
    """
    text = message(body)
    rule = next((rule for rule in RULES if rule.fits(status, text, version)), None)
    said = f"{server} answered {status}: {text or 'without a reason'}"
    if rule is not None:
        return rule.make(said, rule.remedy.format(model=model))
    if status >= 500:
        return errors.TransientFault(said)
    return errors.ServerRefused(said, "Check the address and the version of the server.")


def in_stream(text: str, *, version: Version | None, model: str, server: str) -> errors.ModelError:
    """The error that a line `{"error"}` inside a stream with status 200 stands for."""
    return classify(500, msgspec.json.encode({"error": text}), version=version, model=model, server=server)
