"""How a collection stands, against its folders as they are now. Takes no lock and asks no model server."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline import changes, config, errors, live, opening
from pipeline.report import Pending, Status
from pipeline.store import Collection

log = logging.getLogger(__name__)


def examine(settings: config.Settings) -> Status:
    """How the collection stands, against its folders as they are now. Takes no lock and asks no model server.

    Raises:
        NoIndex: there is no such collection.
    """
    collection = opening.collection_of(settings)
    if not collection.exists:
        raise opening.nothing(settings)
    collection.check_version()
    snapshot, spec, note = collection.snapshot(), collection.embedder(), collection.published()
    live_ = live.of_snapshot(snapshot)
    counts = live.count(collection, settings, spec, live_)
    failures = live.failures(collection, settings, spec, snapshot)
    shown = (note.live, note.rows) if note is not None else (live.NOTHING.hash, 0)
    behind = shown != (live_.hash, counts.vectors)
    sources = snapshot.sources if snapshot else ()
    return Status(
        collection=collection.name,
        documents=counts.documents,
        chunks=counts.chunks,
        vectors=counts.vectors,
        rejects=len(failures),
        provider=spec.provider if spec else "",
        model=spec.model if spec else "",
        digest=spec.digest if spec else "",
        dims=spec.dims if spec else 0,
        snapshot=snapshot.number if snapshot else 0,
        indexed_rows=note.rows if note else 0,
        pending=Pending(
            files=_files_due(settings, collection, sources),
            documents=counts.unchunked,
            chunks=counts.chunks - counts.vectors,
            index=behind,
        ),
        folders=sources,
        failures=failures,
        disk_bytes=collection.disk_bytes(),
    )


def _files_due(settings: config.Settings, collection: Collection, sources: Sequence[str]) -> int | None:
    if not sources:
        return 0
    try:
        plan = changes.look(settings, collection, [Path(source) for source in sources]).plan
    except errors.SourceError as error:
        log.warning("%s", error.message)
        return None
    return sum(not due.known_hash for due in plan.due) + len(plan.gone)
