"""Names of things: every hash in the program is made here.

An id says *where* (`doc_id`, `chunk_id`), *what* (`content_hash`, `embed_key`, `shard_name`) or *who made it*
(`fingerprint`), never two of these. All are BLAKE2b-128 in 32 hexadecimal digits; each kind has its own
personalisation, so that equal bytes of two kinds never collide, and every field is length-prefixed, so that ("ab",
"c") and ("a", "bc") differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

LENGTH = 32  # hexadecimal digits of every id


def _digest(kind: bytes, fields: Iterable[bytes]) -> str:
    state = hashlib.blake2b(digest_size=LENGTH // 2, person=kind)
    for field in fields:
        state.update(len(field).to_bytes(8, "little"))
        state.update(field)
    return state.hexdigest()


def content_hash(data: bytes) -> str:
    """What a file holds: the hash of its bytes."""
    return hashlib.blake2b(data, digest_size=LENGTH // 2).hexdigest()


def doc_id(uri: str, text: str) -> str:
    """Where an extracted text stands: the same text under two names is two documents."""
    return _digest(b"doc", (uri.encode(), text.encode()))


def doc_hash(doc: str, title: str, media_type: str, blocks: str) -> str:
    """What was read from a file, structure included: equal hashes need no new shard. `blocks`: their canonical JSON."""
    return _digest(b"dochash", (doc.encode(), title.encode(), media_type.encode(), blocks.encode()))


def chunk_id(doc: str, start: int, end: int) -> str:
    """Where a chunk stands: document and code-point offsets."""
    return _digest(b"chunk", (doc.encode(), str(start).encode(), str(end).encode()))


def embed_key(text: str) -> str:
    """What is embedded: exactly the text sent to the model, template and heading path included."""
    return _digest(b"embed", (text.encode(),))


def row_hash(fields: Iterable[object]) -> str:
    """What an index row holds beside its vector: a row is replaced when this differs."""
    return _digest(b"row", (json.dumps(list(fields), ensure_ascii=False).encode(),))


def shard_name(doc_hashes: Iterable[str]) -> str:
    """What a document shard holds: made from its members, in order."""
    return _digest(b"shard", (value.encode() for value in doc_hashes))


def live_hash(pairs: Sequence[str]) -> str:
    """What is live: hash of "shard/doc_id" pairs, sorted. All have one length, so that all are hashed in one piece."""
    length = (2 * LENGTH + 1).to_bytes(8, "little").decode()
    return hashlib.blake2b(length.join(("", *pairs)).encode(), digest_size=LENGTH // 2, person=b"live").hexdigest()


def fingerprint(stage: str, version: int, parameters: Mapping[str, Any], upstream: str = "") -> str:
    """Who made an output: stage, its VERSION, the parameters that change the *output*, and the upstream fingerprint.

    Tuning (batch size, concurrency, workers) must not be passed. Parameters must be JSON values.
    """
    canonical = json.dumps(parameters, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return _digest(b"fingerprint", (stage.encode(), str(version).encode(), canonical.encode(), upstream.encode()))[:16]
