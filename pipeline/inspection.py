"""One file, as a run would read it, cut it and send it: for people who ask why something is not found.

Writes nothing. The file need not be in a collection; its model and tokenizer are those of the collection, or those that
a first run would choose.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline import changes, config, errors, executor, live, opening, pools, run_model, tasks
from pipeline.document import Block
from pipeline.models import EmbedderSpec, tokens
from pipeline.models.templates import embed_text
from pipeline.readers import containers
from pipeline.stages import ingest

UNSITUATED = (
    "Shown without the sentence that chunk.contextual puts before each passage: a run asks for it; until then, and "
    "without it, no passage counts as embedded."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectedChunk:
    """A passage `text[start:end]`. `sent`: exactly what the model gets; `tokens`: of that, special tokens left out.

    `embedded`: whether the collection has its vector already.
    """

    start: int
    end: int
    page: int | None
    heading_path: tuple[str, ...]
    tokens: int
    sent: str
    embedded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """`kind` is "ok", else why there is no text, with the `reason` in words. Offsets are code points of `text`.

    `inside`: the documents that the file holds, by their names in it; `inspect` shows each under "<file>!/<name>".
    """

    file: str
    reader: str
    kind: str
    reason: str = ""
    title: str = ""
    media_type: str = ""
    text: str = ""
    blocks: tuple[Block, ...] = ()
    chunks: tuple[InspectedChunk, ...] = ()
    model: str = ""
    note: str = ""
    inside: tuple[tasks.Entry, ...] = ()


def inspect(settings: config.Settings, path: Path) -> Inspection:
    """Read and chunk the file at `path` in a worker, under the limits of a run; or one document inside it, named as
    "box.zip!/notes.md".

    Raises:
        SourceError: there is no such file.
        WorkerError: reading it took more time or memory than a file may have, or killed the worker.
        PipelineError: as `resolve.open_embedder`, where the collection has no model yet.
    """
    path, member = _apart(path)
    try:
        status = path.stat()
    except OSError as error:
        raise errors.SourceError(f"{path}: {error.strerror}.", "Name a file that is there.") from error
    collection = opening.collection_of(settings)
    spec, note = asyncio.run(run_model.would_choose(settings, collection))
    if spec.situated_by:
        note = f"{note} {UNSITUATED}".strip()
    tokenizer = live.tokenizer_path(collection, spec) if collection.exists else None
    if tokenizer is None and spec.tokenizer not in (tokens.builtin().identity, tokens.conservative().identity):
        raise errors.UsageError(
            f"The tokens of {spec.model} cannot be counted before its tokenizer is kept.",
            "Run `pipeline ingest DOCS` and `pipeline chunk` first: they embed nothing.",
        )
    seen = ingest.Seen(uri=path.name, size=status.st_size, mtime_ns=0, inode=0)
    params, options = live.chunk_params(settings, spec), changes.reader_options(settings)
    timeout_s = 2 * executor.read_timeout_s(settings, status.st_size)
    words = (os.fsencode(path), seen, options)
    inside: tuple[tasks.Entry, ...] = ()
    with pools.opened(1, settings.readers.memory_mb) as pool:
        answer = pool.submit("pipeline.tasks:inspect", *words, params, tokenizer, member, timeout_s=timeout_s)
        read, rows = answer.result()
        if not member and containers.may_hold(path.name):
            listed = pool.submit("pipeline.tasks:contents", words[0], path.name, options, timeout_s=timeout_s)
            inside = listed.result()
    if read.row is None:
        name = read.seen.uri
        return Inspection(file=name, reader=read.reader, kind=read.kind, reason=read.reason, note=note, inside=inside)
    return replace(_inspection(settings, spec, read, rows, note), inside=inside)


def _apart(path: Path) -> tuple[Path, str]:
    """The file, and which document inside it is meant; "" for the file itself."""
    name = path.as_posix()
    at = name.find(containers.SEPARATOR)
    while at >= 0 and not path.exists():
        if Path(name[:at]).is_file():
            return Path(name[:at]), name[at + len(containers.SEPARATOR) :]
        at = name.find(containers.SEPARATOR, at + 1)
    return path, ""


def _inspection(
    settings: config.Settings, spec: EmbedderSpec, read: tasks.Read, rows: list[dict[str, Any]], note: str
) -> Inspection:
    document, collection = read.row, opening.collection_of(settings)
    assert document is not None
    has = [False] * len(rows)
    if collection.exists and collection.embedder() is not None:
        has = list(live.vector_log(collection, spec).contains([row["embed_key"] for row in rows]))
    return Inspection(
        file=read.seen.uri,
        reader=read.reader,
        kind="ok",
        title=document["title"],
        media_type=document["media_type"],
        text=document["text"],
        blocks=tuple(Block(**{**one, "heading_path": tuple(one["heading_path"])}) for one in document["blocks"]),
        chunks=tuple(_chunk(row, spec, bool(there)) for row, there in zip(rows, has, strict=True)),
        model=spec.model,
        note=note,
    )


def _chunk(row: dict[str, Any], spec: EmbedderSpec, embedded: bool) -> InspectedChunk:
    return InspectedChunk(
        start=row["start"],
        end=row["end"],
        page=row["page"],
        heading_path=tuple(row["heading_path"]),
        tokens=row["tokens"],
        sent=embed_text(row["context"], row["text"], row["title"], spec.document_template),
        embedded=embedded,
    )
