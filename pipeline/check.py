"""`pipeline check`: everything that a collection holds against everything else it holds, from the folder of documents
to the index that readers see, and `--fix`, which drops what is damaged so that the next run makes it again.

Reads all of it: some minutes for a million chunks, in bounded memory. Knows the order of the layers; what each must be
is known by check_records, check_content and check_index, and what is done about it by mend.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import check_content, check_index, check_records, config, mend, opening
from pipeline.findings import Finding, Seen
from pipeline.progress import Progress
from pipeline.store import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a check found.

    Attributes:
        findings: with `--fix`, what is left after it.
        mended: what was damaged before.
        counts: how many of each kind were looked at.
        due: texts that the next run has to embed.
    """

    findings: tuple[Finding, ...]
    mended: tuple[Finding, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    due: int = 0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not any(finding.damage for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "findings": [finding.to_json() for finding in self.findings],
            "mended": [finding.to_json() for finding in self.mended],
            "checked": dict(self.counts),
            "texts_to_embed": self.due,
            "seconds": round(self.seconds, 3),
        }


def check(settings: config.Settings, progress: Progress, *, fix: bool = False) -> Checked:
    """Look at all of a collection, under its lock; with `fix`, mend it and look once more.

    Raises:
        NoIndex: there is no such collection. Locked: a run is writing. StoreError: the disk refused.
    """
    collection, began = opening.collection_of(settings), time.monotonic()
    if not collection.exists:
        raise opening.nothing(settings)
    with collection.writing(settings.run.wait_lock_s):
        seen = look(collection, settings, progress)
        mended: tuple[Finding, ...] = ()
        if fix and (seen.damaged or seen.due or seen.missing_chunks):  # due: perhaps what a killed fix had dropped
            mended = tuple(finding for finding in seen.findings if finding.damage)
            mend.mend(collection, settings, seen, progress)
            seen = look(collection, settings, progress)
    return Checked(
        findings=tuple(seen.findings),
        mended=mended,
        counts=dict(seen.counts),
        due=seen.due,
        seconds=time.monotonic() - began,
    )


def look(collection: Collection, settings: config.Settings, progress: Progress) -> Seen:
    """From what names to what is named: each layer believes only what the one before it could read."""
    seen = Seen()
    check_records.records(collection, seen)
    check_records.snapshots(collection, seen)
    check_records.side_files(collection, seen)
    check_records.folder(settings, seen)
    check_content.shards(collection, settings, seen, progress)
    check_content.logs(collection, seen, progress)
    check_content.generations(collection, settings, seen)
    check_index.table(collection, seen, progress)
    check_records.orphans(collection, seen)
    return seen
