"""What a run did, put together from the store and from what its stages returned; also of a run that failed.

`reported` is around every run: whatever comes, a report lies in the collection's runs/ afterwards, the metrics file is
new and who wants to be told is told. Nothing of this changes how the run ends.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

import pipeline
from pipeline import config, embedding, errors, live, metrics, notify, opening, publish, report_page, run_fates
from pipeline.models import EmbedderSpec
from pipeline.record import BIN_TOKENS, Recorder
from pipeline.report import FAILED_FILES, Before, Detail, Failure, Quality, Report
from pipeline.store import Collection, Snapshot
from pipeline.store.runs import Entry

log = logging.getLogger(__name__)

STAGES = ("ingest", "chunk", "embed", "index")


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What is known only while a run goes on: gathered by it, read once at its end. Times are in seconds."""

    stages: frozenset[str]
    record: Recorder = field(default_factory=Recorder)
    began: float = field(default_factory=time.monotonic)
    started_at: float = field(default_factory=time.time)
    spec: EmbedderSpec | None = None
    server_version: str = ""
    before: Snapshot | None = None
    after: Snapshot | None = None
    fates: dict[str, int] = field(default_factory=dict)
    embedding: embedding.Embedding = field(default_factory=embedding.Embedding)
    publication: publish.Publication | None = None
    publish_seconds: float = 0.0
    quality: Quality | None = None
    disk_before_bytes: int = 0
    freed_bytes: int = 0
    notes: list[str] = field(default_factory=list)


def build(collection: Collection, settings: config.Settings, outcome: Outcome) -> Report:
    """The report of a run that came to its end, without what `reported` adds."""
    done, publication = outcome.embedding, outcome.publication
    spec = outcome.spec or collection.embedder()
    snapshot = outcome.after = collection.snapshot()
    counts = live.count(collection, settings, spec, live.of_snapshot(snapshot))
    failures = live.failures(collection, settings, spec, snapshot)
    return Report(
        collection=collection.name,
        stages=tuple(stage for stage in STAGES if stage in outcome.stages),
        provider=spec.provider if spec else "",
        model=spec.model if spec else "",
        dims=spec.dims if spec else 0,
        files=outcome.fates,
        documents=counts.documents,
        chunks=counts.chunks,
        vectors=counts.vectors,
        rows_added=publication.added if publication else 0,
        rows_deleted=publication.deleted if publication else 0,
        embedded_texts=done.texts,
        embedded_tokens=done.tokens,
        embed_seconds=done.seconds if done.texts else 0.0,
        reused=max(0, counts.vectors - done.texts) if "embed" in outcome.stages else 0,
        rejects=len(failures),
        publish_seconds=outcome.publish_seconds,
        quality=outcome.quality,
        seconds=time.monotonic() - outcome.began,
        snapshot=snapshot.number if snapshot else 0,
        notes=tuple(outcome.notes),
        failures=failures,
        exit_code=FAILED_FILES if failures else 0,
    )


# --- around a run


class Past(msgspec.Struct):
    """What a report is read back for; other fields, and those that an older one lacks, do not matter."""

    exit_code: int = 0
    started_at: str = ""
    last_success_at: str = ""
    provider: str = ""
    model: str = ""
    dims: int = 0
    documents: int = 0
    chunks: int = 0
    vectors: int = 0
    rejects: int = 0
    embedded_texts: int = 0
    embedded_tokens: int = 0
    embed_seconds: float = 0.0
    seconds: float = 0.0
    disk_bytes: int = 0
    snapshot: int = 0
    failures: tuple[Failure, ...] = ()


def past(collection: Collection) -> Past | None:
    """The last report; None where there is none, or none that can be read."""
    return next(iter(collection.runs.past(1, Past)), None)


def reported(settings: config.Settings, outcome: Outcome, work: Callable[[], Report]) -> Report:
    """Run `work` and report on it, whatever comes: an error, Ctrl-C, a defect of ours. Returns the full report.

    Raises:
        ConfigError: the notify command cannot be split into words; nothing was run.
    """
    notify.words(settings.notify.command)
    collection = opening.collection_of(settings)
    before, outcome.disk_before_bytes = past(collection), collection.disk_bytes()
    try:
        report = work()
    except BaseException as error:
        try:
            outcome.after = collection.snapshot() if collection.exists else None
            _keep(failed(collection, outcome, error, before), settings, collection, outcome, before)
        except Exception as again:  # what went wrong first is what must be told
            log.error("No report can be written of this run: %s", again)
            log.debug("Writing the report ended with", exc_info=True)
        raise
    return _keep(report, settings, collection, outcome, before)


def failed(collection: Collection, outcome: Outcome, error: BaseException, before: Past | None) -> Report:
    """The report of a run that `error` ended. What the collection holds is told by the report before it."""
    known = before or Past()
    told = isinstance(error, errors.PipelineError)
    code, message, remedy = 1, f"unexpected {type(error).__name__}: {error}", ""
    if isinstance(error, errors.PipelineError):
        code, message, remedy = error.exit_code, error.message, error.remedy
    elif isinstance(error, KeyboardInterrupt):
        code, message, told = errors.Interrupted.exit_code, "Interrupted.", True
    return Report(
        collection=collection.name,
        stages=tuple(stage for stage in STAGES if stage in outcome.stages),
        provider=outcome.spec.provider if outcome.spec else known.provider,
        model=outcome.spec.model if outcome.spec else known.model,
        dims=outcome.spec.dims if outcome.spec else known.dims,
        files=outcome.fates,
        documents=known.documents,
        chunks=known.chunks,
        vectors=known.vectors,
        embedded_texts=outcome.embedding.texts,
        embedded_tokens=outcome.embedding.tokens,
        embed_seconds=outcome.embedding.seconds,
        rejects=known.rejects,
        seconds=time.monotonic() - outcome.began,
        snapshot=known.snapshot,
        notes=(*outcome.notes, *(() if told else ("This is a defect of the program: please report it.",))),
        failures=known.failures,
        quality=outcome.quality,
        exit_code=code,
        error=message,
        remedy=remedy,
    )


def _keep(
    report: Report, settings: config.Settings, collection: Collection, outcome: Outcome, before: Past | None
) -> Report:
    """Write report, page and metrics, and tell who wants to be told; a collection that is not there keeps nothing."""
    report = _complete(report, collection, settings, outcome, before)
    entry = collection.runs.name() if collection.exists else None
    if entry is not None:
        record = msgspec.json.format(msgspec.json.encode(report.to_json()), indent=1)
        collection.runs.write(
            entry, record, report_page.render(report).encode("utf-8", "replace"), settings.report.keep
        )
    if settings.report.metrics_file:
        path = settings.report.metrics_file.replace("{collection}", collection.name)
        try:
            metrics.write(Path(path).expanduser(), report)
        except errors.StoreError as error:
            log.error("%s", error)
    _notify(report, settings.notify, entry)
    return report


def _notify(report: Report, settings: config.NotifySettings, entry: Entry | None) -> None:
    words = notify.words(settings.command)
    if words and notify.is_wanted(report, settings.when):
        record, page = (entry.record.absolute(), entry.page.absolute()) if entry is not None else (None, None)
        notify.send(words, notify.fields(report, record, page), settings.timeout_s)


def _complete(
    report: Report, collection: Collection, settings: config.Settings, outcome: Outcome, before: Past | None
) -> Report:
    """The report with what all of them say: when, where, how much disk, the detail, the run before."""
    success = report.exit_code in (0, FAILED_FILES)
    last = iso(time.time()) if success else before.last_success_at if before else ""
    return dataclasses.replace(
        report,
        started_at=iso(outcome.started_at),
        last_success_at=last,
        host=socket.gethostname(),
        version=pipeline.__version__,
        disk_before_bytes=outcome.disk_before_bytes,
        freed_bytes=outcome.freed_bytes,
        disk_bytes=collection.disk_bytes() if collection.exists else 0,
        detail=_detail(report, collection, settings, outcome, before),
    )


def iso(at_s: float) -> str:
    """Unix time as ISO 8601 in local time with its offset."""
    return datetime.fromtimestamp(at_s, UTC).astimezone().isoformat(timespec="seconds")


def _detail(
    report: Report, collection: Collection, settings: config.Settings, outcome: Outcome, before: Past | None
) -> Detail:
    record, pace = outcome.record, outcome.record.pace_now
    known = {(failure.uri, failure.stage, failure.kind) for failure in (before.failures if before else ())}
    now = {(failure.uri, failure.stage, failure.kind) for failure in report.failures}
    after = outcome.after
    return Detail(
        folders=after.sources if after else (),
        provenance=_provenance(collection, settings, outcome),
        named=run_fates.named(outcome.before, after) if "ingest" in outcome.stages else {},
        slowest=record.slowest,
        stage_seconds=record.stage_seconds,
        samples=tuple(record.samples),
        lengths=record.lengths,
        bin_tokens=BIN_TOKENS,
        split=record.split,
        servers=pace.known_servers,
        retries=pace.retries,
        new_failures=len(now - known),
        mended=tuple(sorted({uri for uri, _, _ in known - now}))[: run_fates.NAMED],
        messages=tuple(record.messages),
        unkept=record.unkept,
        before=_before(before) if before else None,
    )


def _before(past_: Past) -> Before:
    return Before(**{field.name: getattr(past_, field.name) for field in dataclasses.fields(Before)})


def _provenance(collection: Collection, settings: config.Settings, outcome: Outcome) -> tuple[tuple[str, str], ...]:
    """Who made chunks and vectors, and where: as far as it is known without opening the log."""
    spec = outcome.spec or (collection.embedder() if collection.exists else None)
    if spec is None:
        return ()
    servers = {"ollama": settings.ollama.hosts, "openai": (settings.openai.url,)}.get(spec.provider, ())
    rows = live.record(spec) | live.provenance(spec)
    rows |= {"server": ", ".join(map(_without_password, servers)), "server_version": outcome.server_version}
    rows |= {"tokenizer": spec.tokenizer, "chunks": f"{settings.chunk.size} tokens, at most {settings.chunk.max}"}
    return tuple((name, value) for name, value in rows.items() if value)


def _without_password(url: str) -> str:
    """A URL such as "https://user:secret@host/v1" without what stands before the @."""
    scheme, separator, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
