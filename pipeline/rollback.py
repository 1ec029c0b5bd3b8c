"""Publish an older generation again: its documents, chunks and vectors are still there, so nothing is embedded and no
model server is asked.

It becomes a new snapshot with a number of its own, and is not the old one put back: history is only ever added to, and
the newest snapshot stays what should be searchable. So the next run compares the folders with it as with any other,
its guard against mass deletions included, and a file that an accident took from the index and that is gone from the
folder too is not dropped again in silence.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pipeline import config, difference, errors, history, kept, publish
from pipeline.difference import Files
from pipeline.kept import Generation
from pipeline.progress import Progress
from pipeline.store import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """What was done.

    Attributes:
        before: the generation that was published until now; after: the one that is shown again.
        snapshot: the number under which it is published now.
        files: what that does to the files that are searched.
        remarks: another model, other chunks.
        changed: False: it was published already.
    """

    before: int
    after: int
    snapshot: int
    documents: int
    chunks: int
    model: str
    files: Files
    remarks: tuple[str, ...] = ()
    rows_added: int = 0
    rows_deleted: int = 0
    changed: bool = True

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"files": self.files.counts(), "embedded_texts": 0}


def execute(settings: config.Settings, number: int | None, progress: Progress) -> Rollback:
    """Publish generation `number` again; left out: the one before the published one.

    Raises:
        NoIndex: nothing was published. UsageError: that number is not kept, or there is none before.
        StoreError: something that it needs is gone. Locked: a run is writing.
    """
    collection = history.opened(settings)
    with collection.writing(settings.run.wait_lock_s):
        found = kept.generations(collection, settings.run.keep)
        now = found[-1]
        then = history.previous(found, now) if number is None else history.pick(found, number)
        if lost := kept.lacking(collection, then):
            raise errors.StoreError(
                f"Snapshot {then.number} cannot be published again: what is missing is {lost}. Nothing was changed.",
                "Choose another one: pipeline history.",
            )
        return _publish(settings, collection, now, then, progress)


def _publish(
    settings: config.Settings, collection: Collection, now: Generation, then: Generation, progress: Progress
) -> Rollback:
    snapshots = [collection.snapshot(one.number) for one in (now, then)]
    assert snapshots[0] is not None and snapshots[1] is not None and then.note.spec is not None  # noqa: PT018
    target = publish.Target.of(snapshots[1], then.note.chunks_fp, then.note.spec)
    done = publish.publish_target(collection, settings, target, progress, rollback_of=then.number)
    return Rollback(
        before=now.number,
        after=then.number,
        snapshot=done.note.snapshot,
        documents=done.note.documents,
        chunks=done.note.chunks,
        model=then.note.spec.model,
        files=difference.files(snapshots[0].table, snapshots[1].table),
        remarks=history.remarks(now.note, dataclasses.replace(then.note, rollback_of=0)),
        rows_added=done.added,
        rows_deleted=done.deleted,
        changed=done.note != now.note,
    )
