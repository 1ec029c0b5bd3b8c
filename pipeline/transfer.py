"""Vectors out of a collection and into another: embed on the machine with the GPU, search on the laptop.

An export is one Parquet file, or a folder of them: embed_key and vector as in the log, and in each file's metadata who
made them (the embedder's record whole, its tokenizer, the canary). Keys are hashes of the texts, so that documents
need not lie in the same place, nor be all the same: what finds its key is not embedded again.

What must agree is what decides a vector: the model's digest (its provider and name where no digest is told), the
length, the document template and how numbers are kept. Who serves the model may differ: the same weights give the same
vectors. Knows no server.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

import pipeline
from pipeline import config, errors, live, opening, schema
from pipeline.models import EmbedderSpec, canary, identity, profiles
from pipeline.progress import Progress
from pipeline.store import Collection, VectorLog, files, keys, prune
from pipeline.store.vectors import ROW_GROUP

FORMAT = "1"
FILE_ROWS = 262_144  # of a file in a folder: one gigabyte at 1024 dimensions
PART_ROWS = 131_072  # as compaction makes them
_RECORDED = ("server_version", "canary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    texts: int
    files: int
    bytes: int
    provider: str
    model: str
    dims: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """`texts`: in the export; `added`: of these, what the log lacked. `notes`: what to know before the next run."""

    texts: int
    added: int
    provider: str
    model: str
    dims: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who made the vectors of an export, and how the texts were cut."""

    spec: EmbedderSpec
    tokenizer: str | None  # tokenizer.json; None: the program's own counts for this model
    recorded: dict[str, str]
    chunk: dict[str, Any]


# -- export


def export(
    settings: config.Settings, target: Path, progress: Progress, *, force: bool = False, file_rows: int = FILE_ROWS
) -> Exported:
    """Write every vector of the collection's embedder to the file `target`; where that is a folder, to files of
    `file_rows` in it.

    Raises:
        NoIndex: there is nothing to export. UsageError: `target` is there already. Locked: a run is writing.
    """
    collection = opening.collection_of(settings)
    spec = collection.embedder() if collection.exists else None
    if spec is None:
        raise opening.nothing(settings)
    _refuse_overwriting(target, force)
    with collection.writing(settings.run.wait_lock_s):
        log = live.vector_log(collection, spec)
        if not len(log):
            raise errors.NoIndex("No text has been embedded yet.", "Run `pipeline run DOCS` first.")
        metadata = _metadata(settings, collection, spec, log)
        made = _write(log, spec, target, metadata, progress, file_rows)
    return Exported(
        texts=len(log),
        files=len(made),
        bytes=sum(path.stat().st_size for path in made),
        provider=spec.provider,
        model=spec.model,
        dims=spec.dims,
    )


def _refuse_overwriting(target: Path, force: bool) -> None:
    there = sorted(target.glob("*.parquet")) if target.is_dir() else [target] if target.exists() else []
    if there and not force:
        raise errors.UsageError(f"{there[0]} is there already.", "Give another name, or --force to write over it.")
    if not target.parent.is_dir():
        raise errors.UsageError(f"There is no folder {target.parent}.", "Make it, or give another name.")


def _metadata(settings: config.Settings, collection: Collection, spec: EmbedderSpec, log: VectorLog) -> dict[str, str]:
    file = live.tokenizer_path(collection, spec)
    tokenizer = file.read_bytes() if file is not None else b""
    chunk = {"size": settings.chunk.size, "max": settings.chunk.max, "context": settings.chunk.context}
    return live.provenance(spec) | {
        "pipeline.export": FORMAT,
        "pipeline.version": pipeline.__version__,
        "pipeline.embedder": msgspec.json.encode(spec).decode(),
        "pipeline.tokenizer": base64.b64encode(zlib.compress(tokenizer)).decode() if tokenizer else "",
        "pipeline.chunk": msgspec.json.encode(chunk).decode(),
        "pipeline.recorded": msgspec.json.encode({key: "".join(log.recorded(key)[:1]) for key in _RECORDED}).decode(),
    }


def _write(
    log: VectorLog, spec: EmbedderSpec, target: Path, metadata: dict[str, str], progress: Progress, file_rows: int
) -> list[Path]:
    progress.start("vectors", len(log), "vector")
    batches = _counted(log.batches(), progress)
    expected = schema.vectors(spec.dims, spec.storage)
    write = functools.partial(files.write_batches, expected=expected, metadata=metadata, row_group=ROW_GROUP)
    if not target.is_dir():
        write(target.parent, target, batches)
        progress.finish("vectors")
        return [target]
    made: list[Path] = []
    for number, part in enumerate(_groups(batches, file_rows), start=1):
        made.append(target / f"vectors-{number:04d}.parquet")
        write(target, made[-1], part)
    for path in set(target.glob("vectors-*.parquet")) - set(made):  # of a longer export before this one
        path.unlink()
    progress.finish("vectors")
    return made


def _counted(batches: Iterable[pa.RecordBatch], progress: Progress) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        progress.advance("vectors", batch.num_rows)
        yield batch


def _groups(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[Iterator[pa.RecordBatch]]:
    """Batches in groups of at least `rows` rows, each to be used up before the next is asked for."""
    source = iter(batches)
    ahead = next(source, None)

    def group() -> Iterator[pa.RecordBatch]:
        nonlocal ahead
        count = 0
        while ahead is not None and count < rows:
            batch, ahead = ahead, next(source, None)
            count += batch.num_rows
            yield batch

    while ahead is not None:
        yield group()


# -- import


def load(settings: config.Settings, source: Path, progress: Progress) -> Imported:
    """Take the vectors of an export into the collection; one that does not exist takes its embedder from the export.

    Everything is checked before anything is written: checksums, keys, and that every vector is finite and of length 1.

    Raises:
        ModelMismatch: the collection's vectors, or the settings, are another model's. CorruptStore: the export is
            damaged. UsageError: it is none.
    """
    exported = _files(source)
    origins = [_origin(path) for path in exported]
    origin = origins[0]
    for path, other in zip(exported[1:], origins[1:], strict=True):
        _compare(other.spec, origin.spec, f"{path}", f"{exported[0]}")
    identity.refuse_another(settings, origin.spec)
    expected = schema.vectors(origin.spec.dims, origin.spec.storage)
    collection = opening.collection_of(settings)
    recorded = collection.embedder() if collection.exists else None
    if recorded is not None:
        _compare(origin.spec, recorded, f"{source}", f"collection {settings.collection!r}")
    texts = _verify(exported, expected, progress)
    with collection.writing(settings.run.wait_lock_s):
        spec = _adopt(collection, origin)
        log = live.vector_log(collection, spec)
        canary.check_canary("".join(log.recorded("canary")[:1]), origin.recorded.get("canary", ""))
        log.record(**{key: value for key, value in origin.recorded.items() if value})
        added = _append(log, exported, expected, progress)
    notes = _notes(settings, origin)
    return Imported(
        texts=texts, added=added, provider=spec.provider, model=spec.model, dims=spec.dims, notes=tuple(notes)
    )


def _files(source: Path) -> list[Path]:
    found = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    if not found or not found[0].exists():
        raise errors.UsageError(f"There is no export at {source}.", "Make one: pipeline export FILE")
    return found


def _origin(path: Path) -> Origin:
    """Who made the vectors of a file, by its metadata."""
    with _of_export(path):
        metadata = files.parquet_metadata(path)
    if metadata.get("pipeline.export") != FORMAT:
        raise errors.UsageError(
            f"{path} is not an export of vectors that this version reads.", "Make one: pipeline export FILE"
        )
    packed = metadata.get("pipeline.tokenizer", "")
    try:
        return Origin(
            spec=msgspec.json.decode(metadata["pipeline.embedder"], type=EmbedderSpec),
            tokenizer=zlib.decompress(base64.b64decode(packed)).decode() if packed else None,
            recorded=msgspec.json.decode(metadata["pipeline.recorded"], type=dict[str, str]),
            chunk=msgspec.json.decode(metadata["pipeline.chunk"], type=dict[str, Any]),
        )
    except (KeyError, ValueError, zlib.error) as error:
        raise _damaged(path, str(error)) from error


@contextlib.contextmanager
def _of_export(path: Path) -> Iterator[None]:
    """A damaged export is copied again: `check` knows nothing of it."""
    try:
        yield
    except errors.CorruptStore as error:
        raise _damaged(path, error.message) from error


def _damaged(path: Path, what: str) -> errors.CorruptStore:
    return errors.CorruptStore(
        f"The export {path} is damaged: {what}", "Copy it again, or make it anew: pipeline export FILE"
    )


def _compare(theirs: EmbedderSpec, ours: EmbedderSpec, where: str, here: str) -> None:
    """Refuse vectors that do not belong together. The digest says who the model is; a name does only without one."""
    pairs: list[tuple[str, object, object]] = [
        ("model digest", theirs.digest, ours.digest),
        ("dims", theirs.dims, ours.dims),
        ("document template", theirs.document_template, ours.document_template),
        ("storage", theirs.storage, ours.storage),
    ]
    if not theirs.digest and not ours.digest:
        pairs.append(("provider", theirs.provider, ours.provider))
        pairs.append(("model", profiles.canonical(theirs.model), profiles.canonical(ours.model)))
    for what, found, wanted in pairs:
        if found != wanted:
            raise errors.ModelMismatch(
                f"The vectors of {where} ({theirs.model}) do not belong to those of {here} ({ours.model}): "
                f"{what} {found!r}, not {wanted!r}.",
                "Import them into a collection of their own: pipeline --collection NAME import FILE",
            )


def _verify(exported: list[Path], expected: pa.Schema, progress: Progress) -> int:
    """Read all of it once, and believe nothing unseen; returns how many vectors there are."""
    progress.start("checked", None, "vector")
    texts = 0
    for path in exported:
        with _of_export(path):
            for batch in files.read_batches(path, expected, ROW_GROUP):
                keys.of_column(batch.column("embed_key"))
                wrong = int(prune.faults(batch, expected).sum())
                if wrong:
                    raise errors.CorruptStore(f"{wrong} vectors are not finite or not of length 1")
                texts += batch.num_rows
                progress.advance("checked", batch.num_rows)
    progress.finish("checked")
    return texts


def _adopt(collection: Collection, origin: Origin) -> EmbedderSpec:
    """The collection's embedder: its own, or that of the export where it has none."""
    recorded = collection.embedder()
    if recorded is not None:
        return recorded
    if origin.tokenizer is not None:
        collection.keep_tokenizer(origin.spec.tokenizer, origin.tokenizer)
    collection.set_embedder(origin.spec)
    return origin.spec


def _append(log: VectorLog, exported: list[Path], expected: pa.Schema, progress: Progress) -> int:
    progress.start("vectors", None, "vector")
    added = 0
    for part in _groups(_missing(log, exported, expected), PART_ROWS):
        added += log.adopt(_counted(part, progress))
    log.refresh()
    log.compact()
    progress.finish("vectors")
    return added


def _missing(log: VectorLog, exported: list[Path], expected: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows whose key the log lacks, each once."""
    seen = keys.KeySet()
    for path in exported:
        for batch in files.read_batches(path, expected, ROW_GROUP):
            found = keys.of_column(batch.column("embed_key"))
            fresh = ~log.has(found)
            fresh[fresh] = seen.add(found[fresh])
            if fresh.any():
                yield batch.filter(pa.array(fresh))


def _notes(settings: config.Settings, origin: Origin) -> Iterator[str]:
    ours = {"size": settings.chunk.size, "max": settings.chunk.max, "context": settings.chunk.context}
    for key, value in origin.chunk.items():
        if key in ours and ours[key] != value:
            yield (
                f"The texts of the export were cut with chunk.{key} = {value}, here it is {ours[key]}: most of them "
                f"will be other texts, without a vector. Set it to the same for 0 embeddings."
            )
    if origin.spec.provider != "builtin":
        yield (
            "A run whose texts are all here needs no model server. A question does: "
            f"{origin.spec.model}, the same that embedded ({origin.spec.provider}); or --mode text."
        )
