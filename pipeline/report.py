"""What a run did, what a dry run would do, and how a collection stands: plain data for people, cron and scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A file that could not be read, or a chunk of it that could not be embedded."""

    uri: str
    stage: str
    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a run would embed. `seconds`: by this machine's history with the same model; None where there is none."""

    chunks: int
    tokens: int
    seconds: float | None
    fates: tuple[tuple[str, str], ...] = ()  # (uri, "new" | "changed" | "moved" | "deleted" | kind of failure)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run.

    Attributes:
        files: how many are new, changed, moved, deleted, unchanged, failed.
        documents, chunks, vectors: what the collection holds after it (vectors: chunks that have theirs).
        embedded_texts, embedded_tokens, embed_seconds: what this run sent to the model.
        reused: chunks that had their vector already.
        rejects: files and chunks that still cannot be read or embedded; `failures` names them.
    """

    collection: str
    stages: tuple[str, ...]
    provider: str = ""
    model: str = ""
    dims: int = 0
    files: dict[str, int] = field(default_factory=dict)
    documents: int = 0
    chunks: int = 0
    vectors: int = 0
    rows_added: int = 0
    rows_deleted: int = 0
    embedded_texts: int = 0
    embedded_tokens: int = 0
    embed_seconds: float = 0.0
    reused: int = 0
    rejects: int = 0
    seconds: float = 0.0
    snapshot: int = 0
    dry_run: bool = False
    notes: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()
    planned: Planned | None = None

    def to_json(self) -> dict[str, Any]:
        return {"message_type": "summary", **asdict(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What the next run has to do, as far as it is known without opening a file."""

    files: int | None  # new, changed or gone since the last ingest; None where a folder cannot be listed
    documents: int  # to be chunked
    chunks: int  # to be embedded
    index: bool  # the search table is behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a collection stands. `vectors`: chunks that have their vector; `indexed_rows`: rows that are searched now."""

    collection: str
    documents: int
    chunks: int
    vectors: int
    rejects: int
    provider: str
    model: str
    digest: str
    dims: int
    snapshot: int
    indexed_rows: int
    pending: Pending
    folders: tuple[str, ...]
    failures: tuple[Failure, ...]
    disk_bytes: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
