"""A run's figures in Prometheus' text format, for node_exporter's textfile collector.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4). All are gauges, since each run writes the
file anew. The collector may read at any moment, so a file is replaced whole, and it must be readable for other users.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from pipeline import errors
from pipeline.report import Report

_Value = tuple[dict[str, str], float]


def text(report: Report) -> str:
    """The whole file. What a run cannot know (a first one that failed has no last success) is left out."""
    return "".join(_lines(report))


def _lines(report: Report) -> Iterator[str]:
    for name, what, values in _metrics(report):
        if values:
            yield f"# HELP {name} {what}\n# TYPE {name} gauge\n"
        for labels, value in values:
            told = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
            yield f"{name}{{{told}}} {value!r}\n"


def _metrics(report: Report) -> Iterator[tuple[str, str, list[_Value]]]:
    own = {"collection": report.collection}

    def one(value: float | None) -> list[_Value]:
        return [] if value is None else [(own, value)]

    yield "pipeline_run_exit_code", "How the last run ended.", one(report.exit_code)
    yield "pipeline_run_incomplete", "1: the time limit ended the last run.", one(int(report.incomplete))
    yield "pipeline_run_timestamp_seconds", "When the last run began, Unix time.", one(_unix(report.started_at))
    yield "pipeline_run_duration_seconds", "How long the last run took.", one(report.seconds)
    last = one(_unix(report.last_success_at))
    yield "pipeline_last_success_timestamp_seconds", "End of the last run with exit code 0 or 3, Unix time.", last
    fates = [({**own, "fate": fate}, float(count)) for fate, count in report.files.items()]
    yield "pipeline_run_files", "Files of the last run by fate.", fates
    yield "pipeline_run_embedded_texts", "Texts embedded by the last run.", one(report.embedded_texts)
    yield "pipeline_run_embedded_tokens", "Tokens embedded by the last run.", one(report.embedded_tokens)
    yield "pipeline_run_embed_duration_seconds", "How long the last run embedded.", one(report.embed_seconds)
    yield "pipeline_run_rows_added", "Rows that the last run added to the index.", one(report.rows_added)
    yield "pipeline_run_rows_deleted", "Rows that the last run removed from the index.", one(report.rows_deleted)
    yield "pipeline_rejects", "Files and passages that cannot be read or embedded.", one(report.rejects)
    yield "pipeline_documents", "Documents in the collection.", one(report.documents)
    yield "pipeline_chunks", "Chunks in the collection.", one(report.chunks)
    yield "pipeline_vectors", "Chunks that have their vector.", one(report.vectors)
    if report.quality is not None:
        yield "pipeline_run_recall_ratio", "Golden questions that find their passage.", one(report.quality.recall)
    yield "pipeline_run_freed_bytes", "What the last run freed on disk.", one(report.freed_bytes)
    yield "pipeline_disk_bytes", "Size of the collection on disk.", one(report.disk_bytes)


def _escape(label: str) -> str:
    return label.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _unix(iso: str) -> float | None:
    return datetime.fromisoformat(iso).timestamp() if iso else None


def write(path: Path, report: Report) -> None:
    """Replace the file at `path`.

    Raises:
        StoreError: the system refused.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # the collector reads *.prom only
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_text(text(report), encoding="utf-8")
            draft.chmod(0o644)
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise errors.StoreError(
            f"The metrics file {path} cannot be written: {error.strerror or error}", "Check report.metrics_file."
        ) from error
