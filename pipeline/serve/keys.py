"""API keys. The configuration holds their SHA-256 alone: a key has 256 random bits, so nothing slower is needed."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable

PREFIX = "pipe-"  # so that a leaked one is recognised for what it is


def new() -> str:
    """A fresh key."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What the configuration holds of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """The keys that are accepted. Without any, whoever reaches the address is admitted."""

    def __init__(self, digests: Iterable[str]) -> None:
        self._digests = tuple(digests)

    @property
    def required(self) -> bool:
        return bool(self._digests)

    def admit(self, key: str) -> bool:
        """Whether `key` is one of them, in a time that tells nothing of which, nor of how much of it is right."""
        given = digest(key)
        return sum(hmac.compare_digest(given, known) for known in self._digests) > 0  # any() would stop at the first
