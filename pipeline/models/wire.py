"""The answer of /v1/embeddings, which Ollama and the OpenAI-compatible servers share."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import msgspec


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a server's answer; fields that are not named are ignored."""


_INDEX = operator.attrgetter("index")


class Usage(Answer, frozen=True, kw_only=True):
    prompt_tokens: int | None = None


class Datum(Answer, frozen=True, kw_only=True):
    embedding: bytes | list[float]  # base64, as asked for, or the numbers that other servers send instead
    index: int = 0


class EmbeddingList(Answer, frozen=True, kw_only=True):
    data: list[Datum] | None = None
    usage: Usage | None = None
    load_duration: int = 0

    @property
    def prompt_eval_count(self) -> int | None:
        """Tokens of the batch; None where the server tells none (or 0, which no batch has)."""
        return (self.usage.prompt_tokens or None) if self.usage else None

    @property
    def rows(self) -> Sequence[Sequence[float] | bytes]:
        """In the order of the texts, whatever order they were sent in."""
        return [datum.embedding for datum in sorted(self.data or (), key=_INDEX)]

    @property
    def is_base64(self) -> bool:
        return bool(self.data) and all(isinstance(datum.embedding, bytes) for datum in self.data or ())
