"""What the benchmarks share: running the command line as a user would, and reading what a collection then holds."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "pipeline")


def environment(**changed: object) -> dict[str, str]:
    """This process's, with `changed`: `embed_flush_s=0.5` is PIPELINE_EMBED_FLUSH_S."""
    return os.environ | {f"PIPELINE_{name.upper()}": str(value) for name, value in changed.items()}


def pipeline(*arguments: str, accept: Sequence[int] = (0, 3), env: Mapping[str, str] | None = None) -> str:
    """Run `pipeline ARGUMENTS`; returns its stdout. Another exit code ends the benchmark with its messages."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False, env=env)
    if done.returncode not in accept:
        sys.exit(f"pipeline {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def run(*arguments: str, env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`pipeline … --json` as an object."""
    result: dict[str, Any] = json.loads(pipeline(*arguments, "--json", env=env))
    return result


def content(data: Path, collection: str = "default", **sections: Any) -> dict[str, Any]:
    """All that a collection holds for its readers, in an order that two runs share.

    Returns live documents, chunks (every column), rows of the published table without their vectors, and the vectors
    by key. `sections`: of the settings, where they are not the defaults: `chunk=config.ChunkSettings(size=320)`.
    """
    from pipeline import config, live, query
    from pipeline.store import Collection

    settings = config.Settings(data=str(data), collection=collection, **sections)
    store = Collection(data, collection)
    spec, snapshot = store.embedder(), store.snapshot()
    if spec is None or snapshot is None:
        raise SystemExit(f"{data} holds no finished collection")
    chunks_fp = live.chunk_params(settings, spec).fingerprint()
    chunks = [
        row
        for shard, docs in live.of_snapshot(snapshot).items()
        for row in store.read_chunks(chunks_fp, shard).to_pylist()
        if row["doc_id"] in docs
    ]
    chunks.sort(key=lambda row: str(row["chunk_id"]))
    log = live.vector_log(store, spec)
    keys = sorted({row["embed_key"] for row in chunks})
    keys = [key for key, there in zip(keys, log.contains(keys), strict=True) if there]
    reader = query.open_reader(query.open_collection(settings))
    return {
        "model": spec.model,
        "documents": sorted(row["doc_id"] for row in snapshot.table.to_pylist() if row["doc_id"]),
        "chunks": chunks,
        "rows": published_rows(reader),
        "row_count": reader.count(),
        "keys": keys,
        "vectors": log.take(keys),
    }


def published_rows(reader: Any) -> list[dict[str, Any]]:
    """Every row that a `lance.Reader` sees, doubles included, without the vectors, in order of chunk_id."""
    from pipeline import lance

    # Past the Reader, which only answers questions: a row too many must be seen here.
    rows = reader._table.search(None).select(list(lance.FOUND)).to_arrow().to_pylist()
    return sorted(rows, key=lambda row: str(row["chunk_id"]))


def digest(rows: Iterable[Mapping[str, Any]]) -> str:
    """One word for what a table holds: where each passage stands and what it says."""
    found = hashlib.blake2b(digest_size=8)
    for row in rows:
        found.update(json.dumps([row["chunk_id"], row["uri"], row["heading"], row["text"]]).encode())
    return found.hexdigest()


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
