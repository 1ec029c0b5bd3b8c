"""The folders against the last snapshot: what is due, what one run may drop, and the new snapshot.

Reads no document, and knows nothing of chunks, vectors and the index.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import config, errors, executor, readers, scan, schema
from pipeline.readers import containers, doc, hi_res, ocr
from pipeline.stages import ingest
from pipeline.store import Collection, Snapshot, own_folders

GRACE = 1  # files that may always go, as long as others stay: one of four is more than 20 %
_UNMOUNTED = "it was a file system of its own and is empty or missing now: not mounted? What was known of it stays."


def reader_options(settings: config.Settings) -> readers.ReaderOptions:
    chosen = settings.readers
    return readers.ReaderOptions(
        pdf=hi_res.chosen(chosen.pdf, chosen.unstructured_strategy),
        docx=chosen.docx,
        html=chosen.html,
        doc=doc.available(),
        max_file_mb=settings.source.max_file_mb,
        attachments=chosen.attachments,
        archives=chosen.archives,
        ocr=ocr.chosen(chosen.ocr, chosen.ocr_languages),
        ocr_page_s=chosen.ocr_page_s,
        ocr_pages=chosen.ocr_pages,
    )


def scan_rules(settings: config.Settings) -> scan.Rules:
    source = settings.source
    return scan.Rules(
        known=functools.partial(readers.known, options=reader_options(settings)),
        include=source.include,
        exclude=source.exclude,
        hidden=source.hidden,
        follow_symlinks=source.follow_symlinks,
        own=own_folders(Path(settings.data)),  # `pipeline run .` must not read its own reports
    )


@dataclass(slots=True, kw_only=True)
class Scanned:
    """The folders as they are now, against the last snapshot. `mounts`: as scan.Scan.mounts, absent ones included."""

    found: scan.Scan
    plan: ingest.Plan
    before: Snapshot | None
    sources: tuple[str, ...]
    scanned_ns: int
    refused: tuple[scan.Refused, ...] = ()
    mounts: tuple[str, ...] = ()


def look(
    settings: config.Settings,
    collection: Collection,
    folders: Sequence[Path],
    *,
    retry: bool = False,
    list_folder: scan.ListFolder = os.scandir,
) -> Scanned:
    """Scan `folders` and say which files are due; reads no file. `list_folder`: as os.scandir, which it is.

    Raises:
        SourceError: a folder is not there, or cannot be listed.
    """
    options, scanned_ns = reader_options(settings), time.time_ns()
    found = scan.scan(folders, scan_rules(settings), list_folder=list_folder)
    before = collection.snapshot() if collection.exists else None
    sources = tuple(str(folder.resolve()) for folder in folders)
    absent = _absent(found, before) if settings.run.max_delete < 1 and before and before.sources == sources else ()
    refused = (*found.refused, *absent)
    plan = ingest.plan(
        found.files.table(),
        before.table if before else schema.SNAPSHOT.empty_table(),
        # A snapshot from the future tells that a clock was wrong: no time in it proves that a file did not change.
        before.scanned_ns if before and before.scanned_ns <= scanned_ns else 0,
        now_ns=scanned_ns,
        is_current=lambda reader: readers.is_current(reader, "", options),
        unreadable=[item.uri for item in refused if item.kept],
        retry=retry,
    )
    mounts = (*found.mounts, *(f"{item.uri}/" for item in absent))
    return Scanned(
        found=found,
        plan=plan,
        before=before,
        sources=sources,
        scanned_ns=scanned_ns,
        refused=refused,
        mounts=mounts,
    )


def _absent(found: scan.Scan, before: Snapshot) -> tuple[scan.Refused, ...]:
    """Folders that were file systems of their own, held documents, and are empty or missing: not mounted, it seems."""
    missing = [mount for mount in before.mounts if mount not in found.mounts]
    return tuple(
        scan.Refused(uri=mount.rstrip("/"), kind="unmounted", reason=_UNMOUNTED, kept=True)
        for mount in missing
        if _any_below(before.table["uri"], mount) and not any(uri.startswith(mount) for uri in found.files.uris)
    )


def _any_below(uris: Any, folder: str) -> bool:
    return bool(pc.any(pc.starts_with(uris, folder)).as_py())


def early_guard(scanned: Scanned, max_delete: float) -> None:
    """Refuse, before anything is read, what no file that is due can excuse: each new one may be one of those gone,
    moved, and one that holds documents may hold all of them.

    Raises:
        TooManyDeletions: as `guard`.
    """
    if not any(containers.may_hold(due.uri) for due in scanned.plan.due):
        unseen = sum(due.previous is None for due in scanned.plan.due)
        _guard(scanned, scanned.plan.gone, len(scanned.plan.gone) - unseen, max_delete)


def guard(scanned: Scanned, lost: Sequence[ingest.Row], max_delete: float) -> None:
    """Refuse to drop more of the documents than allowed: an unmounted folder must never empty the index.

    Raises:
        TooManyDeletions: `lost` is a larger share of the known documents than `max_delete`, 0 to 1.
    """
    _guard(scanned, lost, len(lost), max_delete)


def _guard(scanned: Scanned, lost: Sequence[ingest.Row], dropped: int, max_delete: float) -> None:
    if scanned.before is None:
        return
    known = len(scanned.before.table) - scanned.before.table["doc_id"].null_count
    if dropped <= max_delete * known or (len(scanned.found.files) and _others(scanned)):
        return
    if min(dropped, _files(scanned, lost)) <= GRACE and dropped < known and max_delete > 0:
        return
    what = "files" if _is_flat(scanned.before) else "documents"
    raise errors.TooManyDeletions(
        f"{dropped} of {known} {what} are no longer in {', '.join(scanned.sources)}, or left out now: "
        f"more than the {max_delete:.0%} that one run may drop. Nothing was changed.",
        "If the folder is not mounted, mount it. If they are meant to go, give --max-delete 100%; "
        "for another set of documents, give --collection NAME.",
    )


def _files(scanned: Scanned, lost: Sequence[ingest.Row]) -> int:
    """How many deletions these rows are: one for a file that is gone with all that was in it, but one for each document
    that is missing from a file that is still there.
    """
    there = {due.uri for due in scanned.plan.due}
    return len({row["container"] if row["container"] and row["container"] not in there else row["uri"] for row in lost})


def _is_flat(snapshot: Snapshot) -> bool:
    """Whether no file holds documents of its own."""
    return snapshot.table["container"].null_count == snapshot.table.num_rows


def check_lost(scanned: Scanned, rows: Mapping[str, ingest.Row], max_delete: float) -> None:
    """Refuse to drop more than allowed, now that `rows` (by uri) say what the due files hold: some may have moved.

    Raises:
        TooManyDeletions: as `guard`; also where one of several source folders, however small, holds nothing any more.
    """
    found = {row["content_hash"] for row in rows.values() if row["status"] == "ok"}
    lost = [row for row in ingest.settled(scanned.plan, rows).gone if row["content_hash"] not in found]
    guard(scanned, lost, max_delete)
    if scanned.before is None or max_delete >= 1 or _others(scanned) or len(scanned.sources) < 2:
        return
    known = scanned.before.table.filter(pc.is_valid(scanned.before.table["doc_id"]))["uri"]
    for prefix, source in zip(scanned.found.prefixes, scanned.sources, strict=True):
        gone = sum(row["uri"].startswith(prefix) for row in lost)
        if gone and gone == known.filter(pc.starts_with(known, prefix)).length():
            raise errors.TooManyDeletions(
                f"None of the {gone} files of {source} is there any more. Nothing was changed.",
                "If it is not mounted, mount it. If they are meant to go, give --max-delete 100%.",
            )


def commit(
    collection: Collection, scanned: Scanned, done: executor.Ingested, max_delete: float
) -> tuple[dict[str, int], list[str]]:
    """Write the snapshot, unless it would say what the last one says; returns the files' fates, and notes for people.

    Raises:
        TooManyDeletions: see `check_lost`.
    """
    check_lost(scanned, done.rows, max_delete)
    rows = _rows(scanned, done)
    before = {row["uri"]: row for row in scanned.plan.withheld}
    before |= {row["uri"]: row for due in scanned.plan.due for row in due.before}
    before |= _rows_of(scanned.before, [item.uri for item in scanned.refused])
    rejects = done.rejects + [
        executor.reject("ingest", item.uri, "", "scan", item.kind, item.reason) for item in scanned.refused
    ]
    collection.add_rejects([row for row in rejects if not _known(row, before.get(row["uri"]))])
    _write(collection, scanned, rows)
    notes = _notes(scanned, len(rows) + scanned.plan.keep.num_rows, done.passed)
    return ingest.fates(ingest.settled(scanned.plan, rows), rows), notes


def _rows(scanned: Scanned, done: executor.Ingested) -> dict[str, ingest.Row]:
    """What the new snapshot says of everything that was not kept as it was."""
    waiting = [due for due in scanned.plan.due if due.uri not in done.rows]
    unread = {due.uri: ingest.unread(due.previous) for due in waiting if due.previous is not None}
    unread |= {row["uri"]: row for due in waiting for row in due.inside}
    return unread | done.rows | unseen(scanned)


def unseen(scanned: Scanned) -> dict[str, ingest.Row]:
    """Rows, by uri, of what could not be looked at."""
    withheld = {row["uri"]: row for row in scanned.plan.withheld}
    return {item.uri: ingest.unseen(item.uri, item.kind, withheld.get(item.uri)) for item in scanned.refused}


def _rows_of(snapshot: Snapshot | None, uris: Sequence[str]) -> dict[str, ingest.Row]:
    if snapshot is None or not uris:
        return {}
    table = snapshot.table.filter(pc.is_in(snapshot.table["uri"], pa.array(uris, pa.string())))
    return {row["uri"]: row for row in table.to_pylist()}


def _write(collection: Collection, scanned: Scanned, rows: Mapping[str, ingest.Row]) -> None:
    """Write the new snapshot, if it differs from the last one."""
    before = scanned.before
    table = ingest.snapshot_table(rows.values(), scanned.plan.keep) if rows else scanned.plan.keep
    same = before is not None and (before.sources, before.mounts) == (scanned.sources, scanned.mounts)
    if not (same and before is not None and table.equals(before.table)) or scanned.plan.stale:
        collection.write_snapshot(table, scanned.sources, scanned.scanned_ns, scanned.mounts)


def _notes(scanned: Scanned, files: int, passed: int) -> list[str]:
    notes: list[str] = []
    if scanned.before is not None and _others(scanned) and scanned.plan.gone:
        notes.append(
            f"This collection held {', '.join(scanned.before.sources)} and now holds {', '.join(scanned.sources)} "
            "instead. For both, name both; or give each its own --collection NAME."
        )
    if not files:
        notes.append(f"No documents found in {', '.join(scanned.sources)}.")
    if scanned.found.unknown:
        notes.append(f"{scanned.found.unknown} files of unknown kinds were left out.")
    if passed:
        notes.append(f"{passed} files of unknown kinds in archives and mails were left out.")
    return notes


def _others(scanned: Scanned) -> bool:
    """Whether other folders were named than last time: a wish, not a mount that failed."""
    return scanned.before is not None and scanned.before.sources != scanned.sources


def _known(reject: ingest.Row, before: ingest.Row | None) -> bool:
    """Whether the last snapshot holds this failure already: then its row in the log stands."""
    return before is not None and (before["status"], before["content_hash"]) == (reject["kind"], reject["key"])
