"""A report with something in every part of it, and one of a night that failed."""

from __future__ import annotations

import dataclasses
import math

from pipeline.report import Before, Detail, Failure, Quality, Report, Sample, SlowFile

HOSTILE = '<img src=x onerror="alert(1)">&amp;</script>\u202egpj.\x1b[31m\x00'

FAILURES = (
    Failure(uri="scans/1998 Bericht.pdf", stage="ingest", kind="encrypted", reason="The PDF needs a password."),
    Failure(
        uri="logs/" + "very-long-name-" * 12 + ".txt", stage="embed", kind="poison", reason="The server refused it."
    ),
    Failure(uri=HOSTILE, stage="ingest", kind="damaged", reason=HOSTILE),
)

DETAIL = Detail(
    folders=("/srv/docs", "/srv/wiki & notes"),
    provenance=(
        ("model", "mxbai-embed-large"),
        ("provider", "ollama"),
        ("digest", "468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8"),
        ("server", "http://127.0.0.1:11434"),
        ("server_version", "0.12.3"),
    ),
    named={
        "new": tuple(f"minutes/2026-{month:02}.md" for month in range(1, 13)),
        "changed": ("handbook.md",),
        "moved": ("old/a.md → new/a.md",),
        "deleted": (HOSTILE,),
    },
    slowest=tuple(SlowFile(uri=f"scan {n}.pdf", seconds=31.2 / (n + 1), bytes=9_000_000 // (n + 1)) for n in range(8)),
    stage_seconds={"files": 61.2, "chunks": 64.0, "texts": 180.4, "rows": 2.1},
    samples=tuple(Sample(at_s=float(n), tokens_per_s=900 + 500 * math.sin(n / 9) + 7 * (n % 5)) for n in range(180)),
    lengths=(3, 20, 60, 140, 230, 300, 260, 150, 90, 40, 18, 6, 2),
    split=4,
    servers=2,
    retries=3,
    new_failures=2,
    mended=("was broken.docx",),
    messages=("One server was slow.", HOSTILE),
    unkept=5,
    before=Before(
        started_at="2026-11-21T02:30:01+01:00",
        model="mxbai-embed-large",
        documents=1490,
        chunks=36_000,
        rejects=1,
        embedded_texts=211,
        embedded_tokens=41_000,
        embed_seconds=40.0,
        seconds=61.0,
        disk_bytes=181_000_000,
    ),
)

FULL = Report(
    collection="Dienst & Wiki",
    stages=("ingest", "chunk", "embed", "index"),
    provider="ollama",
    model="mxbai-embed-large",
    dims=1024,
    files={"new": 212, "changed": 31, "moved": 4, "deleted": 9, "unchanged": 1251, "failed": 3},
    documents=1498,
    chunks=36_319,
    vectors=36_318,
    rows_added=1319,
    rows_deleted=203,
    embedded_texts=1319,
    embedded_tokens=231_004,
    embed_seconds=180.4,
    reused=34_999,
    rejects=3,
    seconds=192.6,
    snapshot=41,
    notes=("12 files of unknown kinds were left out.", HOSTILE),
    failures=FAILURES,
    exit_code=3,
    started_at="2026-11-22T02:30:05+01:00",
    last_success_at="2026-11-22T02:33:18+01:00",
    host="nas",
    version="0.1.0",
    disk_bytes=187_300_000,
    disk_before_bytes=181_000_000,
    freed_bytes=2_100_000,
    detail=DETAIL,
    quality=Quality(
        questions=40, left_out=("gone.md",), recall=0.9, published_recall=0.95, max_drop=0.02, refused=True
    ),
)

FAILED = dataclasses.replace(
    FULL,
    files={},
    rows_added=0,
    rows_deleted=0,
    embedded_texts=0,
    embedded_tokens=0,
    embed_seconds=0.0,
    exit_code=5,
    error="http://127.0.0.1:11434 does not answer: connection refused",
    remedy="Start Ollama (ollama serve), or name another server with --ollama-host.",
    last_success_at="2026-11-21T02:31:02+01:00",
    detail=Detail(before=DETAIL.before),
)
