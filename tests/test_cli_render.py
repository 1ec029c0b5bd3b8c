"""What people read of a run, a status and a search. Reports are made by hand: each line is checked to the letter."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.answer import Answer, Source
from pipeline.cli import render
from pipeline.report import Failure, Pending, Planned, Report, Status
from pipeline.search import Hit

ALL = ("ingest", "chunk", "embed", "index")
MODEL: dict[str, Any] = {"provider": "builtin", "model": "all-minilm-l6-v2", "dims": 384}
BROKEN = Failure(uri="scans/broken.pdf", stage="ingest", kind="broken", reason="not a PDF")


def done(**fields: Any) -> Report:
    return Report(**({"collection": "default", "stages": ALL, "seconds": 3.14} | MODEL | fields))


def test_a_first_run() -> None:
    report = done(
        files={"new": 14},
        documents=14,
        chunks=52,
        vectors=52,
        rows_added=52,
        embedded_texts=50,
        embedded_tokens=9120,
        embed_seconds=2.0,
    )
    assert render.report(report) == [
        "14 files: 14 new.",
        "52 chunks, 50 embedded with all-minilm-l6-v2 (builtin, 384 dims), 9,120 tokens, 4,560 tokens/s.",
        "Index: 52 rows added. Done in 3.1 s.",
    ]


def test_a_run_that_had_nothing_to_do() -> None:
    report = done(files={"unchanged": 14, "new": 0}, documents=14, chunks=52, vectors=52)
    assert render.report(report) == [
        "14 files, nothing changed.",
        "52 chunks, all embedded before with all-minilm-l6-v2 (builtin, 384 dims). Done in 3.1 s.",
    ]


def test_what_is_gone_is_not_counted_among_the_files() -> None:
    files = {"new": 1, "changed": 2, "moved": 3, "deleted": 4, "unchanged": 1005, "failed": 1}
    first = render.report(done(files=files, chunks=1, rows_added=1, rows_deleted=1200))[0]
    assert first == "1,012 files: 1 new, 2 changed, 3 moved, 4 deleted, 1,005 unchanged, 1 failed."


def test_only_deletions_are_a_change() -> None:
    assert render.report(done(files={"deleted": 1, "unchanged": 3}))[0] == "3 files: 1 deleted, 3 unchanged."


def test_an_empty_folder() -> None:
    report = done(files={"new": 0}, provider="", model="", dims=0)
    assert render.report(report) == ["No files.", "0 chunks. Done in 3.1 s."]


@pytest.mark.parametrize(
    ("stage", "lines"),
    [
        ("ingest", ["1 file: 1 new. Done in 3.1 s."]),
        ("chunk", ["9 chunks of 2 documents. Done in 3.1 s."]),
        ("embed", ["9 chunks, 9 embedded with all-minilm-l6-v2 (builtin, 384 dims), 90 tokens. Done in 3.1 s."]),
        ("index", ["Index: 9 rows added, 1 row removed. Done in 3.1 s."]),
    ],
)
def test_a_stage_tells_its_own_part_only(stage: str, lines: list[str]) -> None:
    fields = {"files": {"new": 1}, "documents": 2, "chunks": 9, "embedded_texts": 9, "embedded_tokens": 90}
    rows = {"rows_added": 9, "rows_deleted": 1} if stage == "index" else {}
    assert render.report(done(stages=(stage,), **fields, **rows)) == lines


def test_an_index_that_was_up_to_date() -> None:
    assert render.report(done(stages=("index",))) == ["Nothing was due. Done in 3.1 s."]


def test_a_dry_run_names_fates_and_cost() -> None:
    fates = (("a.md", "new"), ("b.md", "deleted"), ("c.pdf", "encrypted"))
    planned = Planned(chunks=40, tokens=8000, seconds=95.0, fates=fates)
    assert render.report(done(files={"new": 1, "deleted": 1, "failed": 1}, planned=planned, dry_run=True)) == [
        "Dry run, nothing is written.",
        "2 files: 1 new, 1 deleted, 1 failed.",
        "  new        a.md",
        "  deleted    b.md",
        "  encrypted  c.pdf",
        "To embed: 40 chunks, 8,000 tokens with all-minilm-l6-v2 (builtin, 384 dims), about 1:35 by earlier runs.",
    ]


def test_a_dry_run_of_many_files_is_cut() -> None:
    fates = tuple((f"{n}.md", "new") for n in range(1500))
    lines = render.report(done(files={"new": 1500}, planned=Planned(chunks=1, tokens=9, seconds=None, fates=fates)))
    assert len(lines) == render.SHOWN + 4
    assert "  and 1,490 more (--json names all)" in lines
    assert lines[-1].startswith("To embed: 1 chunk, 9 tokens")


def test_a_dry_run_with_nothing_to_embed() -> None:
    report = done(files={"unchanged": 2}, planned=Planned(chunks=0, tokens=0, seconds=None))
    assert render.report(report)[1:] == ["2 files, nothing changed.", "Nothing to embed."]


def test_failures_are_named_and_counted() -> None:
    assert list(render.failures(())) == []
    lines = list(render.failures((BROKEN,) * 12))
    assert lines[0] == "12 failures:"
    assert lines[1] == "  scans/broken.pdf: broken: not a PDF"
    assert lines[-2] == "  and 2 more; all of them: pipeline status --json"
    assert "pipeline retry" in lines[-1]


def test_nothing_from_a_file_is_obeyed_by_the_terminal() -> None:
    evil = Failure(uri="a\x1b[2J\nb.pdf", stage="ingest", kind="broken", reason="x\x1b]0;t\x07\r\nerror: all lost")
    lines = list(render.failures((evil,)))
    assert len(lines) == 3
    assert not any(ord(char) < 32 for line in lines for char in line)


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"documents": 1}, 'ask "..."'),
        ({"documents": 0}, "run FOLDER"),
        ({"documents": 1, "stages": ("ingest",)}, "chunk"),
        ({"stages": ("chunk",)}, "embed"),
        ({"stages": ("embed",)}, "index"),
        ({"stages": ("index",)}, 'ask "..."'),
        ({"dry_run": True}, "run"),
        ({"dry_run": True, "stages": ("embed",)}, "embed"),
    ],
)
def test_the_next_command(fields: dict[str, Any], command: str) -> None:
    assert render.next_command(done(**fields)) == command


# --- status


def standing(**fields: Any) -> Status:
    base: dict[str, Any] = {
        "collection": "default", "documents": 14, "chunks": 52, "vectors": 52, "rejects": 0, "digest": "d",
        "snapshot": 3, "indexed_rows": 52, "pending": Pending(files=0, documents=0, chunks=0, index=False),
        "folders": ("/docs",), "failures": (), "disk_bytes": 2_345_678,
    }  # fmt: skip
    return Status(**(base | MODEL | fields))


def test_status_of_a_collection_that_is_up_to_date() -> None:
    assert list(render.status(standing())) == [
        "collection default, snapshot 3, 2.3 MB on disk",
        "folders    /docs",
        "model      all-minilm-l6-v2 (builtin, 384 dims)",
        "holds      14 documents, 52 chunks, 52 vectors, 52 rows searchable",
        "due        nothing",
    ]
    assert render.after_status(standing()) == 'ask "..."'


def test_status_tells_what_is_due_and_what_was_rejected() -> None:
    pending = Pending(files=2, documents=1, chunks=7, index=True)
    found = standing(pending=pending, rejects=1, failures=(BROKEN,))
    lines = list(render.status(found))
    assert (
        lines[4] == "due        2 files to read, 1 document to chunk, 7 chunks to embed, the index to bring up to date"
    )
    assert lines[5:7] == ["rejected   1", "    scans/broken.pdf: broken: not a PDF"]
    assert render.after_status(found) == "run"


def test_status_of_a_folder_that_is_not_there_and_of_an_empty_collection() -> None:
    gone = standing(pending=Pending(files=None, documents=0, chunks=0, index=False))
    assert list(render.status(gone))[4] == "due        a folder cannot be listed"
    empty = standing(folders=(), model="", indexed_rows=0)
    assert list(render.status(empty))[1:3] == ["folders    none yet", "model      none yet"]
    assert render.after_status(empty) == "run FOLDER"


# --- hits


def hit(**fields: Any) -> Hit:
    base: dict[str, Any] = {
        "chunk_id": "c", "doc_id": "d", "path": "handbook.pdf", "title": "Handbook", "media_type": "application/pdf",
        "page": 3, "heading": "Leave > Annual", "start": 0, "end": 9, "text": "Twenty-five days.", "score": 0.834,
        "similarity": 0.834, "vector_rank": 1, "text_rank": 1, "fused": 0.03,
    }  # fmt: skip
    return Hit(**(base | fields))


def test_sources_are_told_by_whether_the_answer_cites_them() -> None:
    passages = (Source(number=1, hit=hit(), cited=False), Source(number=2, hit=hit(path="b.md", page=None), cited=True))
    assert list(render.sources(Answer(text="x [2]", sources=passages))) == [
        "Sources:",
        "[2] b.md · Leave > Annual · 0.83",
        "Not cited:",
        "[1] handbook.pdf · p.3 · Leave > Annual · 0.83",
    ]
    assert next(render.sources(Answer(text="no", sources=passages, abstained=True))) == "Nearest passages:"
    assert list(render.sources(Answer(text="no"))) == []
