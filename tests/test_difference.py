"""What differs between two snapshots: every file has one fate, and the fates lead from the one to the other."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline import difference, ids, schema
from pipeline.store import keys

Contents = dict[str, str | None]  # uri → content; None: cannot be read

names = st.sampled_from([f"{n}.md" for n in range(8)])
contents = st.dictionaries(names, st.one_of(st.none(), st.sampled_from("abcd")))


def snapshot(files: Contents) -> pa.Table:
    rows = [_row(uri, content) for uri, content in files.items()]
    return pa.Table.from_pylist(rows, schema=schema.SNAPSHOT)


def _row(uri: str, content: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"uri": uri, "size": 1, "mtime_ns": 1, "inode": 1, "reader": "text/1"}
    if content is None:
        return row | {"content_hash": "", "doc_id": None, "doc_hash": None, "shard": None, "status": "damaged"}
    made = {"content_hash": content, "doc_id": uri + content, "doc_hash": content, "shard": "s", "status": "ok"}
    return row | made


def test_each_kind_of_change_is_told_apart() -> None:
    before: Contents = {"same": "a", "edited": "b", "old": "c", "gone": "d", "broke": "e", "bad": None}
    after: Contents = {"same": "a", "edited": "B", "new": "c", "more": "f", "broke": None, "bad": "g"}
    found = difference.files(snapshot(before), snapshot(after))
    assert found == difference.Files(
        added=("bad", "more"), removed=("gone",), changed=("edited",), moved=(("old", "new"),), failed=("broke",)
    )
    assert found.counts() == {"added": 2, "removed": 1, "changed": 1, "moved": 1, "failed": 1}


def test_a_copy_is_added_and_only_one_of_two_takers_is_the_move() -> None:
    copied = difference.files(snapshot({"a": "x"}), snapshot({"a": "x", "b": "x"}))
    assert (copied.added, copied.moved) == (("b",), ())
    split = difference.files(snapshot({"a": "x"}), snapshot({"b": "x", "c": "x"}))
    assert (split.added, split.moved) == (("c",), (("a", "b"),))


def test_a_file_that_a_newer_reader_reads_otherwise_has_changed() -> None:
    before, after = _row("a", "x"), _row("a", "x") | {"doc_hash": "other"}
    tables = [pa.Table.from_pylist([row], schema=schema.SNAPSHOT) for row in (before, after)]
    assert difference.files(*tables).changed == ("a",)


@given(contents, contents)
def test_the_fates_lead_from_one_snapshot_to_the_other(before: Contents, after: Contents) -> None:
    found = difference.files(snapshot(before), snapshot(after))
    readable = {uri for uri, content in before.items() if content is not None}
    left, came = ({pair[side] for pair in found.moved} for side in (0, 1))
    assert not set(found.added) & came
    assert len({*found.removed, *found.failed, *left}) == len(found.removed) + len(found.failed) + len(left)
    then = (readable - set(found.removed) - set(found.failed) - left) | set(found.added) | came
    assert then == {uri for uri, content in after.items() if content is not None}
    assert all(before[old] == after[new] for old, new in found.moved)
    assert set(found.changed) == {uri for uri in then & readable if before[uri] != after[uri]}


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_amounts_count_each_key_once(before: list[int], after: list[int]) -> None:
    parts = [[keys.packed([ids.embed_key(str(n))]) for n in numbers] for numbers in (before, after)]
    found = difference.amounts(*parts)
    assert found.kept == len(set(before) & set(after))
    assert found.added == len(set(after) - set(before))
    assert found.removed == len(set(before) - set(after))
