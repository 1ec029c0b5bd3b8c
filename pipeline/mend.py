"""What `pipeline check --fix` does about findings: drop what is damaged, keep all that is not, and leave things so that
the next run makes again what is missing. Nothing is embedded here.

The order is that of a crash-safe edit: first the note of the publication is made to say "compare everything", so that
a kill at any later point cannot leave a run that believes itself done; then files go; a table that must be built anew
goes last, and is published again where all it needs is there.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from pipeline import check_content, config, errors, lance, lance_check, live, publish, schema
from pipeline.findings import Act, Finding, Seen
from pipeline.models import EmbedderSpec
from pipeline.progress import Progress
from pipeline.store import Collection, VectorLog, keys, prune
from pipeline.store.inventory import Inventory
from pipeline.store.keys import KeySet

logger = logging.getLogger(__name__)


def mend(collection: Collection, settings: config.Settings, seen: Seen, progress: Progress) -> None:
    """Mend every finding that says how.

    Raises:
        StoreError: the disk refused.
    """
    _drop(collection, _of(seen, "drop", kind="record"))
    _compare_all(collection)
    _drop(collection, (finding for finding in _of(seen, "drop") if finding.kind != "record"))
    for finding in _of(seen, "salvage"):
        for part in finding.paths:
            prune.salvage(part, collection.temporary, prune.layout(part))
    lost = seen.due or seen.missing_chunks or any(one.kind == "vectors" for one in seen.findings)
    if lost:
        _recover(collection, seen)
    _forget(collection, seen)
    _mend_table(collection, settings, seen, progress)


def _of(seen: Seen, act: Act, kind: str = "") -> list[Finding]:
    return [one for one in seen.findings if one.act == act and kind in ("", one.kind)]


def _drop(collection: Collection, findings: Iterable[Finding]) -> None:
    Inventory(collection).remove(path for finding in findings for path in finding.paths)


def _compare_all(collection: Collection) -> None:
    """Readers see what they saw, but no run takes the note for a proof that all is done."""
    note = collection.published()
    if note is not None and note.live:
        collection.set_published(dataclasses.replace(note, live=""))


# -- vectors that the table still has


def _recover(collection: Collection, seen: Seen) -> None:
    """Copy back into the log what it lost and the published table holds: the same numbers, under the same keys."""
    note = seen.published
    spec = note.spec if note is not None else None
    if note is None or spec is None:
        return
    log = live.vector_log(collection, spec)
    try:
        reader = lance_check.Inspector.inspect(collection.index_folder, live.table_name(spec), note.version)
        stored = reader.provenance
        log.record(**{key: stored[key] for key in ("server_version", "canary") if stored.get(key)})
        lost = _lost(reader, log, schema.vectors(spec.dims, spec.storage))
        first = next(lost, None)
        if first is not None:
            log.adopt(itertools.chain((first,), lost))
    except (errors.NoIndex, errors.CorruptStore) as error:
        logger.info("no vector was recovered from the table: %s", error.message)
        return
    log.refresh()
    good = seen.keys.setdefault(note.vectors_fp, KeySet())
    for batch in log.batches():
        good.add(keys.of_column(batch.column("embed_key")))


def _lost(reader: lance_check.Inspector, log: VectorLog, expected: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Rows of the table whose key the log lacks, each once, and only vectors that can be believed."""
    seen = KeySet()
    for batch in reader.batches():
        table = pa.Table.from_batches([batch]).select(expected.names).cast(expected).combine_chunks()
        for rows in table.to_batches():
            found = keys.of_column(rows.column("embed_key"))
            fresh = ~log.has(found) & ~prune.faults(rows, expected)
            fresh[fresh] = seen.add(found[fresh])
            if fresh.any():
                yield rows.filter(pa.array(fresh))


# -- documents that must be read again


def _forget(collection: Collection, seen: Seen) -> None:
    """Take them out of the newest snapshot, so that the next run finds them new; older snapshots that name a damaged
    shard go: they could never be shown whole again.
    """
    findings = _of(seen, "forget")
    if not findings:
        return
    shards = {name for finding in findings if finding.kind == "documents" for name in finding.names}
    uris = {name for finding in findings if finding.kind == "file" for name in finding.names}
    newest = seen.newest
    if newest is not None:
        rows = newest.table.select(["shard", "uri", "container"]).to_pylist()
        # A document inside a file is found again only where the file itself is new.
        uris |= {row["container"] for row in rows if row["shard"] in shards and row["container"]}
        keep = [row["shard"] not in shards and row["uri"] not in uris for row in rows]
        if not all(keep):
            collection.write_again(newest, newest.table.filter(pa.array(keep, pa.bool_())))
    paths = dict(Inventory(collection).snapshots())
    naming = (number for number, one in seen.snapshots.items() if shards & live.of_snapshot(one).keys())
    doomed: list[Path] = [paths[number] for number in naming if number in paths]
    doomed += [path for finding in findings for path in finding.paths]
    Inventory(collection).remove(doomed)


# -- the table


def _mend_table(collection: Collection, settings: config.Settings, seen: Seen, progress: Progress) -> None:
    """Replace rows, or the whole table; and publish, where that shows what was shown before."""
    note = seen.published
    spec = note.spec or seen.specs.get(note.vectors_fp) if note is not None else None
    rows = frozenset[str]().union(*(finding.names for finding in _of(seen, "rows")))
    anew = bool(_of(seen, "rebuild"))
    if spec is None or not (rows or anew or _of(seen, "publish")):
        return
    if anew:
        name = live.table_name(spec)
        Inventory(collection).remove(path for table, path in Inventory(collection).tables().items() if table == name)
    elif rows:
        _delete(collection, spec, sorted(rows))
    target = _target(collection, settings, seen, spec)
    if target is not None and (anew or _is_whole(collection, seen, target)):
        publish.publish_target(collection, settings, target, progress, anew=True)


def _delete(collection: Collection, spec: EmbedderSpec, rows: list[str]) -> None:
    """Delete rows from the version to come. Readers keep theirs until the next publication."""
    table = lance.Table.open(
        collection.index_folder, live.table_name(spec), spec.dims, live.provenance(spec), storage=spec.storage
    )
    table.delete(rows)


def _target(collection: Collection, settings: config.Settings, seen: Seen, spec: EmbedderSpec) -> publish.Target | None:
    """What to publish: the newest snapshot, or where that is not ready what was published before."""
    newest, note = collection.snapshot(), seen.published
    if newest is None:
        return None
    chunks_fp = live.chunk_params(settings, spec).fingerprint()
    target = publish.Target.of(newest, chunks_fp, spec)
    before = collection.snapshot(note.snapshot) if note is not None and note.snapshot else None
    if note is None or before is None or _is_whole(collection, seen, target):
        return target
    older = publish.Target.of(before, note.chunks_fp, spec)
    return older if _is_whole(collection, seen, older) else target


def _is_whole(collection: Collection, seen: Seen, target: publish.Target) -> bool:
    """Whether every chunk of it can be read, and has its vector."""
    snapshot = collection.snapshot(target.snapshot)
    if snapshot is None or not all(collection.has_chunks(target.chunks_fp, shard) for shard in target.live):
        return False
    if not check_content.is_whole(seen, snapshot, target.chunks_fp):
        return False
    seen.snapshots[snapshot.number] = snapshot
    use = (snapshot.number, target.chunks_fp, live.vectors_fp(target.spec))
    return len(check_content.lacking(collection, seen, use)) == 0
