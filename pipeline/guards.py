"""What keeps a run from doing harm: how long it may work, and whether what it will write fits on the disk.

The third guard, the share of the files that one run may drop, is `changes.guard`: it needs the comparison of the
folders with the last snapshot.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from pipeline import config, errors, live
from pipeline.deadline import NEVER, Deadline, TimeLimit
from pipeline.models import EmbedderSpec
from pipeline.store import Collection

HISTORY = 5  # reports looked at for how long publishing takes
PUBLISH_S = 60.0  # kept back where there is no history
PUBLISH_SHARE = 0.2  # of the time there is, at most

MARGIN = 1.2  # files that are no rows: manifests, footers, reports
_PLAIN = re.compile(r"\.(md|txt|rst|org|adoc|tex|csv|tsv|jsonl?|ya?ml|log|srt|vtt|ini|toml)")
TEXT_SHARE = {"plain": 1.0, ".pdf": 0.05, ".html": 0.3, ".htm": 0.3}  # of a file's bytes; pictures and markup are not
OTHER_SHARE = 0.2  # office files: compressed, with pictures
BYTES_PER_TOKEN = 4.0  # of text
TEXT_COPIES = 2.5  # documents, chunks and the table, compressed; the table's copy is not


class _Past(msgspec.Struct):
    publish_seconds: float = 0.0


def time_limit(collection: Collection, end: Deadline) -> TimeLimit:
    """When a run that has to be over at `end` begins nothing new, and when it waits no longer for what is in flight.

    What lies between the last wait and the end is for publishing: one and a half times what that took in earlier runs,
    or a minute, but never more than a fifth of the time there is.
    """
    left = end.left()
    if left is None:
        return NEVER
    longest = max((past.publish_seconds for past in collection.runs.past(HISTORY, _Past)), default=0.0)
    publish_s = min(1.5 * longest or PUBLISH_S, PUBLISH_SHARE * left)
    return TimeLimit(begin=end.earlier_by(1.5 * publish_s), wait=end.earlier_by(publish_s))


# --- space


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What a run is going to write. `files`: names and sizes in bytes of the files to be read; `chunks`: cut already,
    without their vector.
    """

    files: tuple[tuple[str, int], ...] = ()
    chunks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Bytes that a run needs at most for a while: what it adds, and the search table once more."""

    added: int
    table: int

    @property
    def total(self) -> int:
        return self.added + self.table


def text_bytes(files: Iterable[tuple[str, int]]) -> int:
    """About how much text files of these names and sizes hold."""
    return int(sum(size * _share(PurePosixPath(name).suffix.lower()) for name, size in files))


def _share(suffix: str) -> float:
    return TEXT_SHARE["plain"] if _PLAIN.fullmatch(suffix) else TEXT_SHARE.get(suffix, OTHER_SHARE)


def vector_bytes(spec: EmbedderSpec) -> int:
    """A vector in the log and in the table."""
    return 2 * spec.dims * (2 if spec.storage == "float16" else 4)


def need(due: Due, spec: EmbedderSpec, chunk_tokens: int, table_bytes: int) -> Need:
    """What writing `due` takes. `chunk_tokens`: of a chunk on average; `table_bytes`: the search table as it is.

    A night's optimisation may write the whole table anew beside the old one: LanceDB joins small fragments with large
    ones up to a million rows.
    """
    text = text_bytes(due.files)
    chunks = due.chunks + text / BYTES_PER_TOKEN / chunk_tokens
    added = MARGIN * (TEXT_COPIES * text + chunks * vector_bytes(spec))
    return Need(added=int(added), table=table_bytes if added else 0)


def check_space(folder: Path, needed: Need, files: int) -> None:
    """Refuse to begin what will not fit where `folder` lies; the folder need not exist.

    Raises:
        DiskFull: with the figures.
    """
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed.total <= free:
        return
    table = f" and {size(needed.table)} for the search table while it is optimised" if needed.table else ""
    raise errors.DiskFull(
        f"This run needs about {size(needed.total)} and {size(free)} are free where {folder} lies: "
        f"{size(needed.added)} for {files:,} new or changed files and what is left of earlier runs{table}. "
        "Nothing was changed.",
        f"Free {size(needed.total - free)}, or put the data elsewhere (--data). If the estimate is wrong for your "
        "files: PIPELINE_RUN_DISK_CHECK=false.",
    )


def size(count: float) -> str:
    """Bytes for people, as df -H counts: "3.1 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count / 1e3:,.0f} kB"


def check_run(
    settings: config.Settings,
    collection: Collection,
    spec: EmbedderSpec,
    files: Sequence[tuple[str, int]],
    left: live.Live,
) -> None:
    """Refuse a run that reads `files` (name, bytes) and has the documents `left` of earlier runs to look through.

    Raises:
        DiskFull: it will not fit.
    """
    files = [(name, size) for name, size in files if size <= settings.source.max_file_mb * 1_000_000]  # others: unread
    chunks = 0
    if left:
        counts = live.count(collection, settings, spec, left)
        chunks = counts.chunks - counts.vectors
    if not files and not chunks:
        return
    table = collection.index_folder / f"{live.table_name(spec)}.lance"
    there = sum(path.lstat().st_size for path in table.rglob("*") if path.is_file())
    tokens = max(1, min(settings.chunk.size, spec.limit) // 2)  # sections end where they end: 137 of 256 in the samples
    check_space(collection.root, need(Due(files=tuple(files), chunks=chunks), spec, tokens, there), len(files))
