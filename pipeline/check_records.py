"""Check the small files that say what everything else is: records, snapshots, tokenizers, rejects; and the folder
itself.

Each file is opened for itself, so that one that is torn hides none of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from pipeline import changes, config, errors, live, scan, schema, tasks
from pipeline.findings import NEXT_RUN, Seen, fault
from pipeline.models import EmbedderSpec, tokens
from pipeline.store import Calibration, Collection, Migration, Published, files
from pipeline.store.inventory import Inventory, size_of

_KINDS: dict[str, type[Published | EmbedderSpec | Migration | Calibration]] = {
    "embedders": EmbedderSpec,
    "published": Published,
    "migrations": Migration,
    "calibrations": Calibration,
}
_LOSES = {
    "embedders": "dropped; the newest one left counts",
    "published": "dropped; the next `pipeline run` publishes again",
    "migrations": "dropped; `pipeline migrate` begins again, with the vectors that are there",
    "calibrations": "dropped; the one before it counts, or what is built in: `pipeline evaluate --calibrate`",
}


def relative(collection: Collection, path: Path) -> str:
    return str(path.relative_to(collection.root))


def records(collection: Collection, seen: Seen) -> None:
    """Read every record; what can be read becomes `seen.notes` and `seen.specs`."""
    chosen: list[EmbedderSpec] = []
    for kind, made_of in _KINDS.items():
        for number, path in Inventory(collection).records(kind):
            seen.counts["records"] += 1
            try:
                found = msgspec.json.decode(path.read_bytes(), type=made_of)
            except (msgspec.DecodeError, OSError) as error:
                seen.add(
                    "record", relative(collection, path), f"damaged: {error}", _LOSES[kind], act="drop", paths=(path,)
                )
                continue
            if isinstance(found, Calibration):
                continue  # of a model that may be gone: it says nothing of what is needed
            if isinstance(found, Published):
                seen.notes[number] = found
            chosen += [found] if isinstance(found, EmbedderSpec) else [found.spec] if found.spec is not None else []
            if isinstance(found, EmbedderSpec):
                seen.embedder = found
    seen.specs = {live.vectors_fp(spec): spec for spec in chosen}
    if seen.published is not None and seen.published.spec is not None:
        seen.embedder = seen.published.spec


def snapshots(collection: Collection, seen: Seen) -> None:
    for number, path in Inventory(collection).snapshots():
        seen.counts["snapshots"] += 1
        try:
            found = collection.snapshot(number)
        except (errors.StoreError, KeyError, ValueError) as error:
            what = (
                fault(error, path) if isinstance(error, errors.PipelineError) else f"its metadata is damaged: {error!r}"
            )
            mends = "dropped; the one before it counts, and the next `pipeline run` finds out the rest"
            seen.add("snapshot", relative(collection, path), what, mends, act="drop", paths=(path,))
            continue
        if found is not None:
            seen.snapshots[number] = found


def side_files(collection: Collection, seen: Seen) -> None:
    """Rejects, sentences, tokenizers, and files that the layout does not know."""
    inventory = Inventory(collection)
    for path in inventory.sentences():
        seen.counts["sentences"] += _sentences(collection, path, seen)
    for path in inventory.rejects():
        try:
            rows = files.read_parquet(path, schema.REJECTS, ["stage", "key", "made_by"]).to_pylist()
        except errors.StoreError as error:
            mends = "dropped; what it names is tried once more"
            seen.add("rejects", relative(collection, path), fault(error, path), mends, act="drop", paths=(path,))
            continue
        for row in rows:
            if row["stage"] == "embed":
                seen.given_up.setdefault(row["made_by"].split(" ")[0], set()).add(row["key"])
    for identity, path in inventory.tokenizers().items():
        if not _is_tokenizer(identity, path):
            mends = "dropped; `pipeline run` asks the model server for it"
            seen.add("tokenizer", relative(collection, path), "damaged", mends, act="drop", paths=(path,))
    for path in inventory.strangers():
        seen.add("stranger", relative(collection, path), "not a file of this program; it is not touched", damage=False)


def _sentences(collection: Collection, path: Path, seen: Seen) -> int:
    """How many a part of the log holds."""
    try:
        return files.read_parquet(path, schema.SENTENCES).num_rows
    except errors.StoreError as error:
        mends = "dropped; the next `pipeline run` asks the model for its sentences again"
        seen.add("sentences", relative(collection, path), fault(error, path), mends, act="drop", paths=(path,))
        return 0


def _is_tokenizer(identity: str, path: Path) -> bool:
    try:
        return tokens.load(path).identity == identity
    except (errors.PipelineError, OSError, ValueError):
        return False


def folder(settings: config.Settings, seen: Seen) -> None:
    """The documents on disk against the newest snapshot: a file that seems unchanged must hold what was read then."""
    snapshot = seen.newest
    if snapshot is None:
        return
    folders = [Path(source) for source in snapshot.sources]
    if absent := [str(one) for one in folders if not one.is_dir()]:
        seen.add("folder", ", ".join(absent), "not there: its files were not compared", damage=False)
        return
    found = scan.scan(folders, changes.scan_rules(settings))
    there = {file.uri: file for file in found.files}
    rows = {row["uri"]: row for row in snapshot.table.to_pylist() if row["status"] == "ok" and not row["container"]}
    due = len(rows.keys() ^ there.keys())
    seen.counts["files"] = len(there)
    stale = []
    for uri in sorted(rows.keys() & there.keys()):
        row, file = rows[uri], there[uri]
        if (row["size"], row["mtime_ns"], row["inode"]) != (file.size, file.mtime_ns, file.inode):
            due += 1
        elif tasks.hash_file(file.path, file.size) not in ("", row["content_hash"]):  # "": the next run tells why
            stale.append(uri)
    for uri in stale:
        what = "changed without a new date: no run would notice"
        seen.add("file", uri, what, "forgotten; the next `pipeline run` reads it", act="forget", names=frozenset({uri}))
    if due:
        seen.add("folder", ", ".join(snapshot.sources), f"{due} files may have changed since", NEXT_RUN, damage=False)


def orphans(collection: Collection, seen: Seen) -> None:
    """What no snapshot names: never wrong, only in the way."""
    inventory = Inventory(collection)
    named = {shard for one in seen.snapshots.values() for shard in live.of_snapshot(one)}
    groups: list[tuple[str, list[Path]]] = [
        ("document shards", [path for shard, path in inventory.documents().items() if shard not in named]),
        ("chunk files", [p for there in inventory.chunkings().values() for s, p in there.items() if s not in named]),
        ("vector logs", list(_others(inventory.fingerprint_folders("vectors"), seen))),
        (
            "tables",
            [path for name, path in inventory.tables().items() if name.removeprefix("chunks_") not in seen.specs],
        ),
    ]
    for what, paths in groups:
        if paths:
            size = size_of(paths).bytes / 1e3
            seen.add(
                "orphans",
                what,
                f"{len(paths)} that nothing needs ({size:,.0f} kB)",
                "`pipeline gc` frees them",
                damage=False,
            )


def _others(folders: dict[str, Path], seen: Seen) -> Iterator[Path]:
    for vectors_fp, path in folders.items():
        if vectors_fp not in seen.specs:
            yield path
