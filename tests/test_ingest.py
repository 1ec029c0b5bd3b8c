"""The ingest stage: which files are due after which change, and what the shards and the snapshot say of them."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import document, schema
from pipeline.stages import ingest

SECOND = 1_000_000_000
SCANNED = 1_000 * SECOND


def seen(uri: str, **changes: int) -> ingest.Seen:
    return replace(ingest.Seen(uri=uri, size=10, mtime_ns=100 * SECOND, inode=1), **changes)  # type: ignore[arg-type]


def row(file: ingest.Seen, status: str = "ok", content: str = "c") -> ingest.Row:
    doc = {"doc_id": f"doc {file.uri}", "doc_hash": f"hash {file.uri}"} if status == "ok" else None
    return ingest.snapshot_row(file, content_hash=content, reader="text/1", status=status, documents=doc, shard="s")


def plan(files: list[ingest.Seen], previous: list[ingest.Row], **options: object) -> ingest.Plan:
    arguments: dict[str, object] = {"is_current": lambda reader, uri: reader == "text/1"} | options
    return ingest.plan(files, previous, SCANNED, **arguments)  # type: ignore[arg-type]


def test_an_unchanged_file_is_not_opened() -> None:
    file = seen("a.md")
    found = plan([file], [row(file)])
    assert (found.keep, found.due, found.gone) == ((row(file),), (), ())
    assert not found.stale


def test_a_changed_size_time_or_inode_is_hashed() -> None:
    before = row(seen("a.md"))
    for change in ({"size": 11}, {"mtime_ns": 101 * SECOND}, {"inode": 2}):
        (due,) = plan([seen("a.md", **change)], [before]).due
        assert due.known_hash == "c"


def test_an_edit_within_the_clock_s_granularity_is_not_missed() -> None:
    young = seen("a.md", mtime_ns=SCANNED - SECOND)
    found = plan([young], [row(young)])
    assert [due.known_hash for due in found.due] == ["c"]
    assert found.stale


def test_a_new_reader_reads_again() -> None:
    file = seen("a.md")
    (due,) = plan([file], [row(file)], is_current=lambda reader, uri: False).due
    assert due.known_hash == ""


def test_a_failed_file_waits_for_a_change_or_for_retry() -> None:
    file = seen("a.pdf")
    failed = row(file, status="damaged")
    assert plan([file], [failed]).keep == (failed,)
    assert [due.known_hash for due in plan([file], [failed], retry=True).due] == [""]
    passing = row(file, status="permission", content="")
    assert [due.known_hash for due in plan([file], [passing]).due] == [""]


def test_what_lies_below_an_unreadable_folder_is_not_gone() -> None:
    below, beside = row(seen("closed/a.md")), row(seen("closed.md"))
    found = plan([], [below, beside], unreadable=["closed/"])
    assert found.keep == (below,)
    assert found.gone == (beside,)


def test_fates() -> None:
    files = [seen(name) for name in ("changed.md", "moved-to.md", "new.md", "same.md", "touched.md")]
    names = ("changed.md", "gone.md", "moved-from.md", "same.md", "touched.md")
    contents = {name: f"content {name}" for name in names}
    previous = [row(seen(name, inode=1 if name == "same.md" else 9), content=contents[name]) for name in names]
    found = plan(files, previous)
    rows = {item["uri"]: item for item in found.keep}
    for due in found.due:
        content = {"moved-to.md": contents["moved-from.md"]}.get(due.uri, f"now {due.uri}")
        rows[due.uri] = row(files[due.index], content=content)
    rows["changed.md"]["doc_hash"] = "another"
    rows["bad.pdf"] = row(seen("bad.pdf"), status="damaged")
    assert ingest.fates(found, rows) == {
        "new": 1,
        "changed": 1,
        "moved": 1,
        "deleted": 1,
        "unchanged": 2,
        "failed": 1,
    }


def read(text: str, title: str = "", kind: str = "paragraph") -> document.Document:
    blocks = (document.Block(start=0, end=len(text), kind=kind, heading_path=("A",), page=2),)
    return document.Document(title=title, media_type="text/plain", text=text, blocks=blocks, reader="text/1")


def test_a_shard_is_named_by_what_it_holds() -> None:
    rows = [ingest.document_row(f"{n}.md", read(f"text {n}")) for n in range(3)]
    name, table = ingest.shard(rows)
    assert schema.check(table, schema.DOCUMENTS, "documents").num_rows == 3
    assert ingest.shard(rows)[0] == name
    assert ingest.shard(rows[:2])[0] != name
    other = [*rows[:2], ingest.document_row("2.md", read("text 2", kind="code"))]
    assert ingest.shard(other)[0] != name, "the same text with other blocks is another shard"
    assert other[2]["doc_id"] == rows[2]["doc_id"]


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=6))
def test_the_snapshot_is_in_order_of_uri(uris: list[str]) -> None:
    table = ingest.snapshot_table(row(seen(uri)) for uri in uris)
    assert table["uri"].to_pylist() == sorted(uris)
    assert isinstance(schema.check(table, schema.SNAPSHOT, "snapshot"), pa.Table)
