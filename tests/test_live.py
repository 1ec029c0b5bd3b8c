"""What is live: columns that behave as the plain dictionary of sets that they stand for."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config, executor, ids, live, schema
from pipeline.stages import ingest
from pipeline.store import Collection


def table(members: list[tuple[str, str]], failed: int = 0) -> pa.Table:
    """A snapshot of documents (shard, doc_id), and of files that failed."""
    rows = [row(f"{n:03d}.md", "ok", {"doc_id": doc, "doc_hash": doc}, shard) for n, (shard, doc) in enumerate(members)]
    rows += [row(f"failed-{n}.md", "damaged", None, "") for n in range(failed)]
    return ingest.snapshot_table(rows)


def row(uri: str, status: str, document: ingest.Row | None, shard: str) -> ingest.Row:
    seen = ingest.Seen(uri=uri, size=1, mtime_ns=1, inode=1)
    return ingest.snapshot_row(seen, content_hash="c", reader="text/1", status=status, documents=document, shard=shard)


members = st.lists(
    st.tuples(st.integers(0, 3).map(lambda n: ids.embed_key(f"shard {n}")), st.uuids().map(lambda u: u.hex)),
    unique_by=lambda member: member[1],
    max_size=12,
)


def plain(found: list[tuple[str, str]]) -> dict[str, frozenset[str]]:
    return {shard: frozenset(doc for of, doc in found if of == shard) for shard, _ in found}


@given(members, st.integers(0, 3))
def test_it_is_the_mapping_that_it_stands_for(found: list[tuple[str, str]], failed: int) -> None:
    shown = live.Live(table(found, failed))
    assert dict(shown) == plain(found)
    assert list(shown) == list(plain(found)), "in the order of the files"
    assert (len(shown), shown.documents) == (len(plain(found)), len(found))
    assert shown.names == [doc for _, doc in found]


@given(members, st.randoms())
def test_the_hash_knows_no_order_and_every_member(found: list[tuple[str, str]], dice: object) -> None:
    one = live.Live(table(found))
    assert one.hash == live.Live(table(found[::-1])).hash
    assert one.hash == ids.live_hash(sorted("/".join(member) for member in found))
    if found:
        assert one.hash != live.Live(table(found[1:])).hash


@given(members, st.integers(0, 12), st.integers(0, 12))
def test_what_one_has_and_the_other_lacks(found: list[tuple[str, str]], start: int, end: int) -> None:
    one, other = live.Live(table(found[:end])), live.Live(table(found[start:]))
    assert dict(one.without(other)) == plain([member for member in found[:end] if member not in found[start:]])
    assert one.without(one).documents == 0


def test_nothing_is_live_without_a_snapshot() -> None:
    assert live.of_snapshot(None) is live.NOTHING
    assert (dict(live.NOTHING), live.NOTHING.documents) == ({}, 0)
    assert live.NOTHING.hash == live.Live(schema.SNAPSHOT.empty_table()).hash


def test_a_failure_stands_while_the_file_is_as_it_was(tmp_path: Path) -> None:
    collection, settings = Collection(tmp_path, "default"), config.Settings()
    with collection.writing():
        collection.write_snapshot(table([("s" * 32, "d" * 32)], failed=2), ["/docs"], 1)
        collection.add_rejects(
            [
                executor.reject("ingest", uri, key, "text/1", kind, kind)
                for uri, key, kind in (
                    ("failed-0.md", "c", "damaged"),
                    ("failed-1.md", "another content", "damaged"),
                    ("failed-1.md", "c", "encrypted"),
                    ("long-gone.md", "c", "damaged"),
                    ("000.md", "c", "damaged"),
                )
            ]
        )
    found = live.failures(collection, settings, None, collection.snapshot())
    assert [(failure.uri, failure.kind) for failure in found] == [("failed-0.md", "damaged")]
    assert live.failures(collection, settings, None, None) == ()


def test_a_snapshot_is_read_once_and_a_new_one_is_seen(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "default")
    with collection.writing():
        collection.write_snapshot(table([("s" * 32, "d" * 32)]), ["/docs"], 1, ["nas/"])
        first = collection.snapshot()
        assert first is not None
        assert collection.snapshot() is first
        assert live.of_snapshot(first) is live.of_snapshot(collection.snapshot())
        assert (first.mounts, first.sources) == (("nas/",), ("/docs",))
        collection.write_snapshot(table([]), ["/docs"], 2)
    second = collection.snapshot()
    assert second is not None
    assert (second.number, second.mounts, live.of_snapshot(second).documents) == (2, (), 0)
