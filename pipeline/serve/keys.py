"""API keys and whose they are. The settings hold their SHA-256 alone: a key has 256 random bits, so nothing slower is
needed.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass

from pipeline import config

PREFIX = "pipe-"  # so that a leaked one is recognised for what it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who asks.

    Attributes:
        name: as in the settings; "" for a key of `serve.keys`, and where no key is asked for.
        digest: of its key.
        collections: that it may ask; empty: all.
        rate: requests a minute; 0: no limit.
    """

    name: str = ""
    digest: str = ""
    collections: frozenset[str] = frozenset()
    rate: int = 0

    def may_ask(self, collection: str) -> bool:
        """Whether this collection is one of its own."""
        return not self.collections or collection in self.collections


ANYBODY = Client()

# Of the request under way: what a route may show is decided below it, where a collection is opened.
asking: ContextVar[Client] = ContextVar("asking", default=ANYBODY)


def new() -> str:
    """A fresh key."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """What the settings hold of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Keys:
    """The keys that are accepted. Without any, whoever reaches the address is admitted."""

    def __init__(self, clients: Iterable[Client]) -> None:
        self._clients = tuple(clients)

    @classmethod
    def of(cls, settings: config.Settings) -> Keys:
        """The keys that the settings name."""
        plain = [Client(digest=known) for known in settings.serve.keys]
        named = [
            Client(name=name, digest=client.key, collections=frozenset(client.collections), rate=client.rate)
            for name, client in settings.clients.items()
        ]
        return cls([*plain, *named])

    @property
    def required(self) -> bool:
        return bool(self._clients)

    def admit(self, key: str) -> Client | None:
        """Whose key this is, in a time that tells nothing of which it is, nor of how much of it is right."""
        given = digest(key)
        found = [client for client in self._clients if hmac.compare_digest(given, client.digest)]  # never stops early
        return found[0] if found else None
