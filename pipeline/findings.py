"""What `pipeline check` finds, as data: where, what, what mends it. Knows no files and mends nothing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline import errors
from pipeline.models import EmbedderSpec
from pipeline.store import Published, Snapshot
from pipeline.store.keys import KeySet

Act = Literal["", "drop", "salvage", "forget", "rows", "publish", "rebuild"]

NEXT_RUN = "the next `pipeline run` sees to it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        what: what is wrong; mends: what becomes of it, and what it costs.
        act: what `--fix` does: "drop" the files, "salvage" what can be read of a part, "forget" shards or files so that
            their documents are read again, replace "rows" of the table, "publish" it again, "rebuild" it. "": nothing.
        paths, names: what it does it to (files; shards, uris or chunk ids).
        damage: False for what the next run or `gc` puts right by itself.
    """

    kind: str
    where: str
    what: str
    mends: str = ""
    act: Act = ""
    paths: tuple[Path, ...] = ()
    names: frozenset[str] = frozenset()
    damage: bool = True

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("kind", "where", "what", "mends", "damage")}

    def line(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.mends})" if self.mends else "")


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a check has read and believes, and what it found on the way.

    Attributes:
        notes: publications by number; specs: every embedder that is recorded, by embedding fingerprint.
        embedder: who embeds the collection.
        snapshots: those that can be read, by number.
        broken_shards: documents that cannot be had; broken_chunks: (chunk fingerprint, shard).
        missing_chunks: due, not damaged.
        keys: by embedding fingerprint, those whose vector can be believed; broken_logs: those with parts that cannot.
        given_up: by embedding fingerprint, keys that its servers refused.
        counts: files, documents, chunks, vectors, rows that were looked at.
        due: texts that the next run has to embed.
    """

    findings: list[Finding] = field(default_factory=list)
    notes: dict[int, Published] = field(default_factory=dict)
    specs: dict[str, EmbedderSpec] = field(default_factory=dict)
    embedder: EmbedderSpec | None = None
    snapshots: dict[int, Snapshot] = field(default_factory=dict)
    broken_shards: set[str] = field(default_factory=set)
    broken_chunks: set[tuple[str, str]] = field(default_factory=set)
    missing_chunks: set[tuple[str, str]] = field(default_factory=set)
    keys: dict[str, KeySet] = field(default_factory=dict)
    broken_logs: set[str] = field(default_factory=set)
    given_up: dict[str, set[str]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    due: int = 0

    @property
    def newest(self) -> Snapshot | None:
        return self.snapshots[max(self.snapshots)] if self.snapshots else None

    @property
    def published(self) -> Published | None:
        return self.notes[max(self.notes)] if self.notes else None

    @property
    def damaged(self) -> bool:
        return any(finding.damage for finding in self.findings)

    def add(self, kind: str, where: str, what: str, mends: str = "", **more: Any) -> None:
        self.findings.append(Finding(kind=kind, where=where, what=what, mends=mends, **more))


def fault(error: errors.PipelineError, path: Path) -> str:
    """What an error says of a file whose name stands before it anyway."""
    told = error.message.removeprefix(f"{path} is ").removeprefix(f"{path}: ")
    return _SOURCE.sub("", told).partition(". ")[0]


_SOURCE = re.compile(r"Could not open Parquet input source '[^']*': ")


def counted(counts: Mapping[str, int]) -> str:
    """Such as "25 files, 1,200 chunks"."""
    return ", ".join(f"{number:,} {what}" for what, number in counts.items())
