"""What the benchmarks share: running the command line as a user would, and reading what a collection then holds."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-m", "pipeline")


def pipeline(*arguments: str, accept: Sequence[int] = (0, 3)) -> str:
    """Run `pipeline ARGUMENTS`; returns its stdout. Another exit code ends the benchmark with its messages."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in accept:
        sys.exit(f"pipeline {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def run(*arguments: str) -> dict[str, Any]:
    """`pipeline … --json` as an object."""
    result: dict[str, Any] = json.loads(pipeline(*arguments, "--json"))
    return result


def content(data: Path, collection: str = "default") -> dict[str, Any]:
    """All that a collection holds for its readers, in an order that two runs share.

    Returns live documents, chunks (every column), rows of the published table without their vectors, and the vectors
    by key.
    """
    from pipeline import config, lance, live
    from pipeline.store import Collection

    settings = config.Settings(data=str(data), collection=collection)
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
    reader = lance.Reader.open(store.index_folder, live.table_name(spec))
    rows = reader.get([row["chunk_id"] for row in chunks]).to_pylist()
    rows.sort(key=lambda row: str(row["chunk_id"]))
    return {
        "documents": sorted(row["doc_id"] for row in snapshot.table.to_pylist() if row["doc_id"]),
        "chunks": chunks,
        "rows": rows,
        "row_count": reader.count(),
        "keys": keys,
        "vectors": log.take(keys),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows as a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)
