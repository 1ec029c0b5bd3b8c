"""The folders against the last snapshot: what is due, what one run may drop, and the new snapshot.

Reads no document, and knows nothing of chunks, vectors and the index.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import config, errors, executor, readers, scan
from pipeline.stages import ingest
from pipeline.store import Collection, Snapshot

GRACE = 1  # files that may always go, as long as others stay: one of four is more than 20 %


def reader_options(settings: config.Settings) -> readers.ReaderOptions:
    chosen = settings.readers
    return readers.ReaderOptions(
        pdf=chosen.pdf, docx=chosen.docx, html=chosen.html, max_file_mb=settings.source.max_file_mb
    )


def scan_rules(settings: config.Settings) -> scan.Rules:
    source = settings.source
    return scan.Rules(
        known=readers.known,
        include=source.include,
        exclude=source.exclude,
        hidden=source.hidden,
        follow_symlinks=source.follow_symlinks,
    )


@dataclass(slots=True, kw_only=True)
class Scanned:
    """The folders as they are now, against the last snapshot."""

    found: scan.Scan
    plan: ingest.Plan
    before: Snapshot | None
    sources: tuple[str, ...]
    scanned_ns: int


def look(settings: config.Settings, collection: Collection, folders: Sequence[Path], *, retry: bool = False) -> Scanned:
    """Scan `folders` and say which files are due; reads no file.

    Raises:
        SourceError: a folder is not there, or cannot be listed.
    """
    options, scanned_ns = reader_options(settings), time.time_ns()
    found = scan.scan(folders, scan_rules(settings))
    before = collection.snapshot() if collection.exists else None
    plan = ingest.plan(
        [executor.seen(file) for file in found.files],
        before.table.to_pylist() if before else [],
        before.scanned_ns if before else 0,
        is_current=lambda reader, uri: readers.is_current(reader, uri, options),
        unreadable=[f"{refused.uri}/" for refused in found.refused if refused.folder],
        retry=retry,
    )
    sources = tuple(str(folder.resolve()) for folder in folders)
    return Scanned(found=found, plan=plan, before=before, sources=sources, scanned_ns=scanned_ns)


def guard(scanned: Scanned, dropped: int, max_delete: float) -> None:
    """Refuse to drop more of the files than allowed: an unmounted folder must never empty the index.

    Raises:
        TooManyDeletions: `dropped` is a larger share of the known files than `max_delete`, 0 to 1.
    """
    if scanned.before is None:
        return
    known = sum(row["status"] == "ok" for row in scanned.before.table.to_pylist())
    if dropped <= max_delete * known or (scanned.found.files and _others(scanned)):
        return
    if dropped <= GRACE and dropped < known and max_delete > 0:
        return
    raise errors.TooManyDeletions(
        f"{dropped} of {known} files are no longer in {', '.join(scanned.sources)}: "
        f"more than the {max_delete:.0%} that one run may drop. Nothing was changed.",
        "If the folder is not mounted, mount it. If they are meant to go, give --max-delete 100%; "
        "for another set of documents, give --collection NAME.",
    )


def commit(
    collection: Collection, scanned: Scanned, done: executor.Ingested, max_delete: float
) -> tuple[dict[str, int], list[str]]:
    """Write the snapshot, unless it would say what the last one says; returns the files' fates, and notes for people.

    Raises:
        TooManyDeletions: as `guard`; counted again, since a file that is gone may turn out to be one that moved.
    """
    notes: list[str] = []
    refused = {item.uri: _refused_row(item) for item in scanned.found.refused}
    rows = {row["uri"]: row for row in scanned.plan.keep} | done.rows | refused
    fresh = [uri for uri, row in done.rows.items() if row["status"] == "ok"]
    found = {done.rows[uri]["content_hash"] for uri in fresh}
    lost = sum(row["status"] == "ok" and row["content_hash"] not in found for row in scanned.plan.gone)
    guard(scanned, lost, max_delete)
    before = {row["uri"]: row for row in scanned.before.table.to_pylist()} if scanned.before else {}
    rejects = done.rejects + [
        executor.reject("ingest", item.uri, "", "scan", item.kind, item.reason) for item in scanned.found.refused
    ]
    collection.add_rejects([row for row in rejects if not _known(row, before.get(row["uri"]))])
    table = ingest.snapshot_table(rows.values())
    same = scanned.before is not None and scanned.before.sources == scanned.sources
    if not same or scanned.plan.stale or rows != before:
        collection.write_snapshot(table, scanned.sources, scanned.scanned_ns)
    if _others(scanned) and scanned.before is not None and scanned.plan.gone:
        notes.append(
            f"This collection held {', '.join(scanned.before.sources)} and now holds {', '.join(scanned.sources)} "
            "instead. For both, name both; or give each its own --collection NAME."
        )
    if not rows:
        notes.append(f"No documents found in {', '.join(scanned.sources)}.")
    if scanned.found.unknown:
        notes.append(f"{scanned.found.unknown} files of unknown kinds were left out.")
    return ingest.fates(scanned.plan, rows), notes


def _others(scanned: Scanned) -> bool:
    """Whether other folders were named than last time: a wish, not a mount that failed."""
    return scanned.before is not None and scanned.before.sources != scanned.sources


def _refused_row(item: scan.Refused) -> ingest.Row:
    seen = ingest.Seen(uri=item.uri, size=0, mtime_ns=0, inode=0)
    return ingest.snapshot_row(seen, content_hash="", reader="scan/1", status=item.kind, documents=None, shard="")


def _known(reject: ingest.Row, before: ingest.Row | None) -> bool:
    """Whether the last snapshot holds this failure already: then its row in the log stands."""
    return before is not None and (before["status"], before["content_hash"]) == (reject["kind"], reject["key"])
