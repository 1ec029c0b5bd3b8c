"""What a run did, what a dry run would do, and how a collection stands: plain data for people, cron and scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

FAILED_FILES = 3  # exit code of a run that finished, but not with every file


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
class SlowFile:
    """A file and the seconds that it kept a worker busy."""

    uri: str
    seconds: float
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The pace of embedding, so many seconds after the run began."""

    at_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """What the report of the run before said, for the differences. `started_at`: ISO 8601."""

    started_at: str = ""
    exit_code: int = 0
    model: str = ""
    documents: int = 0
    chunks: int = 0
    rejects: int = 0
    embedded_texts: int = 0
    embedded_tokens: int = 0
    embed_seconds: float = 0.0
    seconds: float = 0.0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """What only the full report shows.

    Attributes:
        folders: the source folders. provenance: who made the vectors, and with which settings, as (what, value).
        named: files of each fate by name, the first of them; `files` of the report counts them all.
        slowest: the slowest first. stage_seconds: by task; tasks overlap, so they add up to more than the run.
        samples: the pace of embedding over time. lengths: chunks made in this run, by `bin_tokens` tokens.
        split: chunks that had to end inside a sentence or line longer than a chunk. Nothing is ever truncated.
        servers, retries: model servers that answered; requests sent again.
        new_failures: failures that the run before did not have; mended: names of its failures that are gone.
        messages: lines said during the run; unkept: how many more there were.
    """

    folders: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    named: dict[str, tuple[str, ...]] = field(default_factory=dict)
    slowest: tuple[SlowFile, ...] = ()
    stage_seconds: dict[str, float] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    lengths: tuple[int, ...] = ()
    bin_tokens: int = 32
    split: int = 0
    servers: int = 0
    retries: int = 0
    new_failures: int = 0
    mended: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()
    unkept: int = 0
    before: Before | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """What golden questions said of a new index. Recall is the share found among the first five passages, 0 to 1.

    Attributes:
        questions: asked; left_out: paths of those whose quote no document holds any more.
        published_recall: of what was published then; None: nothing was. refused: the new index was not published.
    """

    questions: int
    left_out: tuple[str, ...]
    recall: float
    published_recall: float | None
    max_drop: float
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One run.

    Attributes:
        exit_code, error, remedy: how it ended; 3: finished, but not with every file. A run that failed knows what the
            collection holds (documents to vectors, rejects) from the report before it.
        started_at, last_success_at: ISO 8601 in local time; the end of the last run that ended with 0 or 3.
        files: how many are new, changed, moved, deleted, unchanged, failed.
        documents, chunks, vectors: what the collection holds after it (vectors: chunks that have theirs).
        embedded_texts, embedded_tokens, embed_seconds: what this run sent to the model.
        reused: chunks that had their vector already.
        disk_before_bytes, disk_bytes: the collection on disk as the run found and left it; freed_bytes: of snapshots,
            shards and vectors that are not kept any more.
        publish_seconds: what bringing the index up to date took; a time limit leaves as much for it.
        incomplete: the time limit ended the run before all was done; the next one goes on. files_left: not read.
            documents_held: read, and not yet embedded whole, so that their last version (if any) is what is searched.
            chunks_left: without their vector.
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
    exit_code: int = 0
    error: str = ""
    remedy: str = ""
    started_at: str = ""
    last_success_at: str = ""
    host: str = ""
    version: str = ""
    disk_before_bytes: int = 0
    disk_bytes: int = 0
    freed_bytes: int = 0
    detail: Detail | None = None
    quality: Quality | None = None
    publish_seconds: float = 0.0
    incomplete: bool = False
    files_left: int = 0
    documents_held: int = 0
    chunks_left: int = 0

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
