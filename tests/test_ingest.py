"""The ingest stage: which files are due after which change, and what the shards and the snapshot say of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import document, schema
from pipeline.stages import ingest

SECOND = 1_000_000_000
SCANNED = 1_000 * SECOND
NOW = 2_000 * SECOND


def seen(uri: str, **changes: int) -> ingest.Seen:
    return replace(ingest.Seen(uri=uri, size=10, mtime_ns=100 * SECOND, inode=1), **changes)  # type: ignore[arg-type]


def row(file: ingest.Seen, status: str = "ok", content: str = "c") -> ingest.Row:
    doc = {"doc_id": f"doc {file.uri}", "doc_hash": f"hash {file.uri}"} if status == "ok" else None
    return ingest.snapshot_row(file, content_hash=content, reader="text/1", status=status, documents=doc, shard="s")


def table(files: list[ingest.Seen]) -> pa.Table:
    return pa.Table.from_pylist([asdict(file) for file in files], schema=schema.SCAN)


def plan(files: list[ingest.Seen], previous: list[ingest.Row], **options: object) -> ingest.Plan:
    arguments: dict[str, object] = {"now_ns": NOW, "is_current": lambda reader: reader == "text/1"} | options
    return ingest.plan(table(files), ingest.snapshot_table(previous), SCANNED, **arguments)  # type: ignore[arg-type]


def kept(found: ingest.Plan) -> list[ingest.Row]:
    return found.keep.to_pylist()


def test_an_unchanged_file_is_not_opened() -> None:
    file = seen("a.md")
    found = plan([file], [row(file)])
    assert (kept(found), found.due, found.gone) == ([row(file)], (), ())
    assert not found.stale


def test_a_first_scan_has_nothing_to_compare_with() -> None:
    found = plan([seen("b.md"), seen("a.md")], [])
    assert [(due.index, due.uri, due.known_hash, due.previous) for due in found.due] == [
        (1, "a.md", "", None),
        (0, "b.md", "", None),
    ]
    assert (kept(found), found.gone, found.withheld, found.stale) == ([], (), (), False)
    assert plan([], []).keep.schema == schema.SNAPSHOT


def test_a_changed_size_time_or_inode_is_hashed() -> None:
    before = row(seen("a.md"))
    for change in ({"size": 11}, {"mtime_ns": 101 * SECOND}, {"inode": 2}):
        (due,) = plan([seen("a.md", **change)], [before]).due
        assert (due.known_hash, due.previous) == ("c", before)


def test_an_edit_within_the_clock_s_granularity_is_not_missed() -> None:
    young = seen("a.md", mtime_ns=SCANNED - SECOND)
    found = plan([young], [row(young)])
    assert [due.known_hash for due in found.due] == ["c"]
    assert found.stale


def test_a_file_from_the_future_is_hashed_every_night_and_makes_no_new_snapshot() -> None:
    file = seen("a.md", mtime_ns=NOW + 1_000 * SECOND)
    found = plan([file], [row(file)])
    assert [due.known_hash for due in found.due] == ["c"]
    assert not found.stale


def test_a_new_reader_reads_again() -> None:
    file = seen("a.md")
    (due,) = plan([file], [row(file)], is_current=lambda reader: False).due
    assert due.known_hash == ""


def test_a_failed_file_waits_for_a_change_or_for_retry() -> None:
    file = seen("a.pdf")
    failed = row(file, status="damaged")
    assert kept(plan([file], [failed])) == [failed]
    assert [due.known_hash for due in plan([file], [failed], retry=True).due] == [""]
    passing = row(file, status="permission", content="")
    assert [due.known_hash for due in plan([file], [passing]).due] == [""]


def test_what_lies_below_an_unreadable_folder_is_not_gone() -> None:
    below, beside = row(seen("closed/a.md")), row(seen("closed.md"))
    found = plan([], [below, beside], unreadable=["closed"])
    assert kept(found) == [below]
    assert found.gone == (beside,)


def test_an_unreadable_file_is_neither_kept_nor_gone() -> None:
    before = row(seen("a.md"))
    found = plan([], [before], unreadable=["a.md"])
    assert (kept(found), found.gone, found.withheld) == ([], (), (before,))
    now = ingest.unseen("a.md", "io", before)
    assert (now["doc_id"], now["shard"], now["status"], now["content_hash"]) == ("doc a.md", "s", "io", "")
    assert [due.known_hash for due in plan([seen("a.md")], [now]).due] == [""], "looked at again as soon as it is there"


def test_a_row_of_a_file_that_was_not_opened_is_due_again() -> None:
    young = seen("a.md", mtime_ns=SCANNED - SECOND)
    carried = ingest.unread(row(young))
    later = ingest.plan(
        table([young]),
        ingest.snapshot_table([carried]),
        SCANNED + 100 * SECOND,
        now_ns=SCANNED + 200 * SECOND,
        is_current=lambda reader: True,
    )
    assert [due.known_hash for due in later.due] == ["c"], "it was too young to trust, and nobody has looked since"


# -- against an obvious implementation

READERS = ("text/1", "text/0", "gone/3")
PLACES = ("a", "b.md", "closed", "closed.md", "closed/a.md", "closed/b/c.md", "ö.md", "z/a.md")


@dataclass(frozen=True)
class Plain:
    keep: list[str]
    due: list[tuple[str, str, bool]]
    gone: list[str]
    withheld: list[str]
    stale: bool


def plainly(
    files: list[ingest.Seen], previous: list[ingest.Row], current: set[str], unreadable: list[str], retry: bool
) -> Plain:
    """The plan, file by file."""
    rows = {item["uri"]: item for item in previous}
    keep, due, stale = [], [], False
    for file in sorted(files, key=lambda file: file.uri):
        before = rows.pop(file.uri, None)
        if before is None or before["reader"] not in current or before["status"] in ingest.PASSING:
            due.append((file.uri, "", before is not None))
        elif retry and before["status"] != "ok":
            due.append((file.uri, "", True))
        elif any(before[name] != getattr(file, name) for name in ("size", "mtime_ns", "inode")):
            due.append((file.uri, before["content_hash"], True))
        elif file.mtime_ns >= SCANNED - ingest.GRANULARITY_NS:
            due.append((file.uri, before["content_hash"], True))
            stale |= file.mtime_ns < NOW - ingest.GRANULARITY_NS
        else:
            keep.append(file.uri)
    withheld = [uri for uri in rows if uri in unreadable]
    hidden = [uri for uri in rows if any(uri.startswith(f"{folder}/") for folder in unreadable) and uri not in withheld]
    gone = [uri for uri, item in rows.items() if item["doc_id"] and uri not in hidden and uri not in withheld]
    return Plain(sorted(keep + hidden), due, sorted(gone), sorted(withheld), stale)


def names(rows: Iterable[ingest.Row]) -> list[str]:
    return sorted(item["uri"] for item in rows)


sights = st.builds(
    ingest.Seen,
    uri=st.sampled_from(PLACES),
    size=st.sampled_from((10, 11)),
    mtime_ns=st.sampled_from((-SECOND, 100 * SECOND, SCANNED - SECOND, SCANNED, NOW - SECOND, NOW + 9 * SECOND)),
    inode=st.sampled_from((0, 1, 2**62)),
)
trees = st.lists(sights, unique_by=lambda file: file.uri, max_size=len(PLACES))
statuses = st.sampled_from(("ok", "ok", "ok", "damaged", "permission", "io", "unmounted"))


@st.composite
def nights(draw: st.DrawFn) -> tuple[list[ingest.Seen], list[ingest.Row]]:
    """A snapshot and the tree a night later: files touched, edited, new, deleted, moved and swapped with others."""
    before = draw(trees)
    rows = [
        row(file, status=draw(statuses), content=draw(st.sampled_from("cd")))
        | {"reader": draw(st.sampled_from(READERS))}
        for file in before
    ]
    rows = [ingest.unread(item) if draw(st.integers(0, 9)) == 0 else item for item in rows]
    now = {file.uri: file for file in before if draw(st.booleans())}
    for file in draw(trees):
        now[file.uri] = file
    if before and draw(st.booleans()):  # a move, or a swap where both are there
        one, other = draw(st.sampled_from(before)), draw(st.sampled_from(PLACES))
        now[other] = replace(one, uri=other)
    return draw(st.permutations(list(now.values()))), rows


@settings(max_examples=400)
@given(
    night=nights(),
    current=st.sets(st.sampled_from(READERS)),
    unreadable=st.lists(st.sampled_from(("closed", "z", "b.md")), unique=True),
    retry=st.booleans(),
)
def test_the_plan_is_what_one_would_write_down_file_by_file(
    night: tuple[list[ingest.Seen], list[ingest.Row]], current: set[str], unreadable: list[str], retry: bool
) -> None:
    files, previous = night
    hidden = tuple(f"{folder}/" for folder in unreadable)
    files = [file for file in files if file.uri not in unreadable and not file.uri.startswith(hidden)]
    found = plan(files, previous, is_current=current.__contains__, unreadable=unreadable, retry=retry)
    expected = plainly(files, previous, current, unreadable, retry)
    assert names(kept(found)) == expected.keep
    assert [(due.uri, due.known_hash, due.previous is not None) for due in found.due] == expected.due
    assert (names(found.gone), names(found.withheld), found.stale) == (expected.gone, expected.withheld, expected.stale)
    rows = {item["uri"]: item for item in previous}
    assert all(files[due.index].uri == due.uri and due.previous == rows.get(due.uri) for due in found.due)
    assert all(item == rows[item["uri"]] for item in (*kept(found), *found.gone, *found.withheld))


def test_fates() -> None:
    files = [seen(name) for name in ("changed.md", "moved-to.md", "new.md", "same.md", "touched.md")]
    names_ = ("changed.md", "gone.md", "moved-from.md", "same.md", "touched.md", "bad-still.pdf")
    contents = {name: f"content {name}" for name in names_}
    previous = [row(seen(name, inode=1 if name == "same.md" else 9), content=contents[name]) for name in names_[:-1]]
    previous.append(row(seen("bad-still.pdf"), status="damaged"))
    found = plan([*files, seen("bad-still.pdf")], previous)
    rows = {}
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
        "failed": 2,
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


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=6), st.integers(0, 6))
def test_the_snapshot_is_in_order_of_uri(uris: list[str], kept_: int) -> None:
    rows = [row(seen(uri)) for uri in uris]
    snapshot = ingest.snapshot_table(rows[kept_:], ingest.snapshot_table(rows[:kept_]))
    assert snapshot["uri"].to_pylist() == sorted(uris)
    assert snapshot.equals(ingest.snapshot_table(rows))
    assert isinstance(schema.check(snapshot, schema.SNAPSHOT, "snapshot"), pa.Table)
