"""The index on disk: rows in and out, publication, power loss, and writers killed at random moments."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import errors, ids, lance, lance_disk, models
from tests import lance_night, passages
from tests.lance_night import GONE, NAME, NEW, OLD, opened
from tests.passages import DIMS, MADE_BY, Passage

FROM = 50_000  # vector_index_from


def chunk_ids(numbers: range) -> list[str]:
    return [passage.chunk_id for passage in passages.numbered(numbers)]


def add(table: lance.Table, numbers: range) -> None:
    table.add(passages.rows(passages.numbered(numbers)).to_reader())


def published(folder: Path) -> set[str]:
    """Texts that a reader sees now."""
    reader = lance.Reader.open(folder, NAME)
    found = reader.vector(passages.direction(1.0), 10_000)
    assert len(found) == reader.count()
    return set(found.column("text").to_pylist())


def texts(*numbers: range) -> set[str]:
    return {passage.text for some in numbers for passage in passages.numbered(some)}


def versions(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / f"{NAME}.lance" / "_versions").glob("*.manifest"))


def newest_manifest(folder: Path) -> Path:
    return folder / f"{NAME}.lance" / "_versions" / versions(folder)[0]  # named 2**64 - 1 - version


# --- rows and provenance


def test_rows_come_back_as_they_were_added(tmp_path: Path) -> None:
    table = opened(tmp_path)
    wanted = passages.rows(passages.numbered(range(5)))
    table.add(wanted.to_reader())
    by_id = table.rows().sort_by("chunk_id")
    assert by_id.equals(wanted.select(["chunk_id", "row_hash"]).sort_by("chunk_id"))
    assert table.count() == 5


def test_row_hash_covers_every_column_but_the_vector() -> None:
    base = Passage(text="one", uri="a.md")
    others = [
        Passage(text="two", uri="a.md"),
        Passage(text="one", uri="b.md"),
        Passage(text="one", title="T"),
        Passage(text="one", page=1),
        Passage(text="one", heading="H"),
        Passage(text="one", start=1),
        Passage(text="one", context="C"),
        Passage(text="one", vector=(0.0, 1.0)),
    ]
    hashes = passages.rows([base, *others]).column("row_hash").to_pylist()
    assert hashes[-1] == hashes[0]
    assert len(set(hashes)) == len(others)
    first = passages.rows([base]).select(lance.HASHED).to_pylist()[0]
    assert hashes[0] == ids.row_hash(first.values())


def test_delete_takes_more_ids_than_one_predicate_holds(tmp_path: Path) -> None:
    table = opened(tmp_path)
    add(table, range(2_300))
    table.delete([*chunk_ids(range(2_250)), "absent", "quote'd"])
    assert set(table.rows().column("chunk_id").to_pylist()) == set(chunk_ids(range(2_250, 2_300)))


def test_nothing_to_do_makes_no_version(tmp_path: Path) -> None:
    table = opened(tmp_path)
    before = versions(tmp_path)
    table.delete([])
    table.add(passages.rows([]).to_reader())
    assert versions(tmp_path) == before


def test_provenance_is_kept_and_compared(tmp_path: Path) -> None:
    reader = passages.publish(tmp_path, passages.numbered(range(3)))
    assert reader.provenance == MADE_BY
    assert reader.dims == DIMS
    opened(tmp_path)
    with pytest.raises(errors.IndexMismatch, match="digest '0', not '1'"):
        lance.Table.open(tmp_path, NAME, DIMS, {**MADE_BY, "digest": "1"})
    lance.Table.open(tmp_path, NAME, DIMS, {**MADE_BY, "template": "{text}"})  # a key younger than the table
    with pytest.raises(errors.IndexMismatch, match="other columns"):
        lance.Table.open(tmp_path, NAME, DIMS, MADE_BY, storage="float16")
    with pytest.raises(errors.IndexMismatch, match="16 dimensions"):
        lance.Table.open(tmp_path, NAME, 16, MADE_BY)


def test_a_new_table_keeps_a_record_that_is_never_compared(tmp_path: Path) -> None:
    lance.Table.open(tmp_path, NAME, DIMS, MADE_BY, record={"server_version": "0.9.0"})
    again = lance.Table.open(tmp_path, NAME, DIMS, MADE_BY, record={"server_version": "0.32.15"})
    assert again.provenance == MADE_BY | {"server_version": "0.9.0"}


def with_vector(value: float | None) -> pa.Table:
    table = passages.rows(passages.numbered(range(3)))
    numbers = table.column("vector").combine_chunks().flatten().to_pylist()
    numbers[DIMS + 2] = value
    kind = pa.list_(pa.float32(), DIMS)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers, pa.float32()), type=kind)
    return table.set_column(table.column_names.index("vector"), pa.field("vector", kind), vectors)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_a_bad_number_in_a_vector_is_refused(tmp_path: Path, value: float | None) -> None:
    table = opened(tmp_path)
    with pytest.raises(errors.CorruptStore, match=passages.numbered([1])[0].chunk_id):
        table.add(with_vector(value).to_reader())
    assert table.count() == 0


def test_a_zero_vector_is_refused(tmp_path: Path) -> None:
    with pytest.raises(errors.CorruptStore, match="zero"):
        opened(tmp_path).add(passages.rows([Passage(text="x", vector=(0.0,))]).to_reader())


def test_other_columns_and_nulls_are_refused(tmp_path: Path) -> None:
    table = opened(tmp_path)
    rows = passages.rows(passages.numbered(range(3)))
    with pytest.raises(errors.CorruptStore, match="columns"):
        table.add(rows.drop_columns(["title"]).to_reader())
    with pytest.raises(errors.CorruptStore, match="columns"):
        table.add(passages.rows([Passage(text="x")], dims=16).to_reader())
    nameless = rows.set_column(0, pa.field("chunk_id", pa.string()), pa.array(["a", None, "c"]))
    with pytest.raises(errors.CorruptStore, match="no chunk_id"):
        table.add(nameless.to_reader())
    assert table.count() == 0


def test_a_failing_source_adds_nothing_and_keeps_its_own_error(tmp_path: Path) -> None:
    def source() -> Iterator[pa.RecordBatch]:
        yield from passages.rows(passages.numbered(range(100))).to_batches()
        raise errors.Interrupted("stopped")

    table = opened(tmp_path)
    reader = pa.RecordBatchReader.from_batches(lance.index_schema(DIMS), source())
    with pytest.raises(errors.Interrupted, match="stopped"):
        table.add(reader)
    assert table.count() == 0


# --- publication


def test_readers_see_only_what_was_published(tmp_path: Path) -> None:
    table = opened(tmp_path)
    with pytest.raises(errors.NoIndex):
        lance.Reader.open(tmp_path, NAME)
    add(table, range(10))
    with pytest.raises(errors.NoIndex):
        lance.Reader.open(tmp_path, NAME)
    table.finish(vector_index_from=FROM)
    before = lance.Reader.open(tmp_path, NAME)
    table.delete(chunk_ids(range(4)))
    add(table, range(10, 13))
    assert published(tmp_path) == texts(range(10))
    table.finish(vector_index_from=FROM)
    assert published(tmp_path) == texts(range(4, 13))
    assert before.count() == 10  # a reader that was open keeps its state


def test_a_missing_index_is_named_and_nothing_is_created(tmp_path: Path) -> None:
    with pytest.raises(errors.NoIndex) as caught:
        lance.Reader.open(tmp_path / "index", NAME)
    assert "pipeline run" in caught.value.remedy
    assert not (tmp_path / "index").exists()


def test_finish_does_nothing_the_second_time(tmp_path: Path) -> None:
    table = opened(tmp_path)
    add(table, range(10))
    first = table.finish(vector_index_from=FROM)
    before = versions(tmp_path)
    again = opened(tmp_path).finish(vector_index_from=FROM)
    assert first.changed
    assert not again.changed
    assert (again.version, again.rows) == (first.version, 10)
    assert versions(tmp_path) == before


def test_the_tag_is_on_the_newest_version_after_every_night(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for night in range(5):
        add(table, range(night * 10, night * 10 + 10))
        table.delete(chunk_ids(range(night * 10, night * 10 + 2)))
        assert table.finish(vector_index_from=FROM).changed
        assert not table.finish(vector_index_from=FROM).changed


def test_an_empty_index_can_be_published_and_searched(tmp_path: Path) -> None:
    assert opened(tmp_path).finish(vector_index_from=FROM).rows == 0
    reader = lance.Reader.open(tmp_path, NAME)
    assert len(reader.vector(passages.direction(1.0), 5)) == 0
    assert len(reader.text("anything", 5, near=passages.direction(1.0))) == 0


def test_old_versions_are_freed_only_after_their_time(tmp_path: Path) -> None:
    table = opened(tmp_path)
    for night in range(4):
        add(table, range(night * 10, night * 10 + 10))
        table.finish(vector_index_from=FROM)
    kept = len(versions(tmp_path))
    add(table, range(40, 50))
    newest = table.finish(vector_index_from=FROM).version
    lance.Reader.open(tmp_path, NAME, newest - 1)
    table.clean(1)
    assert len(versions(tmp_path)) > kept > 4
    table.clean(newest)
    assert len(versions(tmp_path)) > kept  # all are younger than the slack
    table.clean(newest, slack=timedelta(0))
    assert len(versions(tmp_path)) == 1
    assert published(tmp_path) == texts(range(50))
    with pytest.raises(errors.NoIndex, match="not there any more"):
        lance.Reader.open(tmp_path, NAME, newest - 1)


def test_a_reader_keeps_its_version_through_publications_and_clean_ups(tmp_path: Path) -> None:
    table = opened(tmp_path)
    add(table, range(10))
    first = table.finish(vector_index_from=FROM).version
    reader = lance.Reader.open(tmp_path, NAME, first)
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            words = reader.text("ledger", 100).num_rows
            seen.append((words, reader.vector(passages.direction(1.0), 100).num_rows, reader.count()))

    watching = threading.Thread(target=read)
    watching.start()
    try:
        for night in range(1, 6):
            table.delete(chunk_ids(range(night)))
            add(table, range(night * 10, night * 10 + 10))
            table.finish(vector_index_from=FROM)
            table.clean(first, slack=timedelta(0))
    finally:
        stop.set()
        watching.join()
    assert set(seen) == {(10, 10, 10)}
    assert published(tmp_path) == texts(range(5, 60))
    table.clean(table.publish().version, slack=timedelta(0))
    assert len(versions(tmp_path)) == 1


def test_many_small_publications_do_not_grow_the_disk(tmp_path: Path) -> None:
    table = opened(tmp_path)
    add(table, range(300))
    previous = table.finish(vector_index_from=FROM).version
    sizes = []
    for night in range(12):
        table.delete(chunk_ids(range(night * 5, night * 5 + 5)))
        add(table, range(300 + night * 5, 305 + night * 5))
        newest = table.finish(vector_index_from=FROM).version
        table.clean(previous, slack=timedelta(0))
        previous = newest
        sizes.append(sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()))
    assert max(sizes[2:]) < 1.3 * min(sizes[2:])
    assert published(tmp_path) == texts(range(60, 360))


def test_the_indexes_cover_every_row_that_was_published(tmp_path: Path) -> None:
    some = clustered(700, 32)
    table = lance.Table.open(tmp_path, NAME, 32, MADE_BY)
    for start, end in ((0, 500), (500, 520), (520, 521)):
        table.add(passages.rows(some[start:end], 32).to_reader())
        table.finish(vector_index_from=300)
        reader = table.reader()
        assert {index.num_unindexed_rows for index in lance.indices(reader._table).values()} == {0}
        assert set(lance.indices(reader._table)) == {"words", "vector"}
        last = some[end - 1]
        published_ = lance.Reader.open(tmp_path, NAME)
        assert published_.text(f"row {end - 1}", 3).column("text")[0].as_py() == last.text
        assert last.uri in published_.vector(passages.direction(*last.vector, dims=32), 10).column("uri").to_pylist()


def hours(*ago: float) -> dict[int, datetime]:
    """Versions 1, 2, ... and when they were made."""
    return {number: NOW - timedelta(hours=hour) for number, hour in enumerate(ago, start=1)}


NOW = datetime(2026, 3, 1, 2, 30)


@pytest.mark.parametrize(
    ("made", "oldest", "age"),
    [
        (hours(9, 5, 1), 2, 5.0),
        (hours(9, 5, 1), 3, 1.0),
        (hours(9, 5, 1), 1, None),
        (hours(9, 5, 1), 0, None),
        (hours(9, 5, 1), 50, 1.0),  # a number from before the table was built anew
        (hours(9, 5, 7, 1), 2, 7.0),  # the clock was set back: 3 came after 2, and must stay
        (hours(5, 9, 1), 2, None),
        (hours(-1, -2, 0), 3, None),  # those that may go are of a time to come
        (hours(0, -3, -4), 2, None),
        (hours(1), 1, None),
    ],
)
def test_versions_go_by_their_age(made: dict[int, datetime], oldest: int, age: float | None) -> None:
    found = lance_disk.age_to_free(made, oldest, NOW, timedelta(0))
    assert found == (None if age is None else timedelta(hours=age))
    if found is not None:
        stay = {number for number, moment in made.items() if moment >= NOW - found}
        assert {number for number in made if number >= min(oldest, max(made))} <= stay
        later = lance_disk.age_to_free(made, oldest, NOW, timedelta(seconds=30))
        assert later == found + timedelta(seconds=30)


def test_the_newest_version_can_be_looked_at_before_it_is_published(tmp_path: Path) -> None:
    table = opened(tmp_path)
    add(table, range(10))
    table.finish(vector_index_from=FROM)
    add(table, range(10, 12))
    assert table.prepare(vector_index_from=FROM)
    assert table.reader().count() == 12
    assert published(tmp_path) == texts(range(10))
    assert table.publish().changed
    assert published(tmp_path) == texts(range(12))
    assert not table.prepare(vector_index_from=FROM)


def test_a_version_is_known_without_opening_anything(tmp_path: Path) -> None:
    assert not lance.is_published(tmp_path, NAME)
    table = opened(tmp_path)
    assert not lance.is_published(tmp_path, NAME)
    version = table.finish(vector_index_from=FROM).version
    assert lance.is_published(tmp_path, NAME)
    assert lance.is_published(tmp_path, NAME, version)
    assert not lance.is_published(tmp_path, NAME, version + 1)


def test_two_tables_share_a_folder(tmp_path: Path) -> None:
    passages.publish(tmp_path, passages.numbered(range(3)), name="one")
    passages.publish(tmp_path, passages.numbered(range(5)), name="two")
    assert lance.Reader.open(tmp_path, "one").count() == 3
    assert lance.Reader.open(tmp_path, "two").count() == 5


def test_odd_folder_names_work(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c%20d?e ü 索引"
    passages.publish(folder, passages.numbered(range(3)))
    assert published(folder) == texts(range(3))


# --- vector search


def test_nearest_rows_with_their_cosine(tmp_path: Path) -> None:
    some = [
        Passage(text="along", uri="1", vector=(3.0, 0.0)),
        Passage(text="across", uri="2", vector=(0.0, 2.0)),
        Passage(text="between", uri="3", vector=(1.0, 1.0)),
        Passage(text="against", uri="4", vector=(-1.0,)),
    ]
    found = passages.publish(tmp_path, some).vector(passages.direction(5.0), 4)
    assert found.column("text").to_pylist() == ["along", "between", "across", "against"]
    assert found.column("similarity").to_pylist() == pytest.approx([1.0, 0.5**0.5, 0.0, -1.0], abs=1e-6)
    assert found.column_names == [*lance.FOUND, "similarity"]


def test_a_vector_of_another_length_is_refused(tmp_path: Path) -> None:
    reader = passages.publish(tmp_path, passages.numbered(range(3)))
    with pytest.raises(errors.IndexMismatch, match="8 dimensions"):
        reader.vector(np.ones(16, np.float32), 3)
    with pytest.raises(errors.IndexMismatch):
        reader.text("ledger", 3, near=np.ones(16, np.float32))


def test_where_filters_before_the_search(tmp_path: Path) -> None:
    reader = passages.publish(tmp_path, passages.numbered(range(50)))
    where = f"uri = {lance.quote('7.md')}"
    assert reader.vector(passages.direction(1.0), 5, where).column("uri").to_pylist() == ["7.md"]
    assert reader.text("ledger", 5, where).column("uri").to_pylist() == ["7.md"]


def test_get_returns_what_is_there(tmp_path: Path) -> None:
    reader = passages.publish(tmp_path, passages.numbered(range(5)))
    assert set(reader.get([*chunk_ids(range(2)), "it's absent"]).column("text").to_pylist()) == texts(range(2))
    assert len(reader.get([])) == 0


def clustered(rows: int, dims: int) -> list[Passage]:
    """Passages around 40 centres: on uniform noise no index of this kind finds anything."""
    generator = np.random.default_rng(7)
    centres = generator.normal(size=(40, dims))
    noise = generator.normal(scale=0.3, size=(rows, dims))
    return [Passage(text=f"row {n}", uri=f"{n}", vector=tuple(centres[n % 40] + noise[n])) for n in range(rows)]


@pytest.mark.parametrize("storage", ["float32", "float16"])
@pytest.mark.parametrize("dims", [32, 36])  # 36: not whole bytes of sign bits
def test_the_vector_index_finds_what_the_exact_search_finds(tmp_path: Path, dims: int, storage: models.Storage) -> None:
    some = clustered(2_000, dims)
    table = lance.Table.open(tmp_path, NAME, dims, MADE_BY, storage=storage)
    layout = lance.index_schema(dims, storage)
    table.add(passages.rows(some, dims).cast(layout).to_reader())
    assert not table.finish(vector_index_from=FROM).vector_index
    query = passages.direction(*some[3].vector, dims=dims)
    exact = lance.Reader.open(tmp_path, NAME).vector(query, 10)
    assert table.finish(vector_index_from=1_000).vector_index
    assert not table.finish(vector_index_from=1_000).changed
    close = lance.Reader.open(tmp_path, NAME).vector(query, 10)
    assert len(set(close.column("uri").to_pylist()) & set(exact.column("uri").to_pylist())) >= 9
    assert close.column("similarity")[0].as_py() == pytest.approx(1.0, abs=1e-5 if storage == "float32" else 1e-3)


def test_rows_added_after_the_vector_index_are_found(tmp_path: Path) -> None:
    some = clustered(1_500, 32)
    table = lance.Table.open(tmp_path, NAME, 32, MADE_BY)
    for part in (some[:1_000], some[1_000:1_050], some[1_050:]):  # the third is more than a fifth: trained again
        table.add(passages.rows(part, 32).to_reader())
        table.finish(vector_index_from=1_000)
        found = lance.Reader.open(tmp_path, NAME).vector(passages.direction(*part[-1].vector, dims=32), 10)
        assert (
            found.column("uri").to_pylist()[0] == part[-1].uri
        )  # of ten: one bit a dimension needs some to choose from
    table.delete([passage.chunk_id for passage in some[:700]])
    assert table.finish(vector_index_from=1_000).rows == 800
    found = lance.Reader.open(tmp_path, NAME).vector(passages.direction(*some[0].vector, dims=32), 800)
    assert len(found) == 800


# --- full text

LIBRARY = [
    Passage(text="The lending library opens at nine.", uri="en", heading="Opening hours"),
    Passage(text="北京大学图书馆每天八点开放,周末休息。", uri="zh"),
    Passage(text="東京都立図書館は月曜日が休館日です。", uri="ja"),
    Passage(text="Das Verfassungsgericht liegt an der Straße, naïve Besucher überrascht das.", uri="de"),
    Passage(text="Error E-1042 in foo_bar.baz(): see RFC 9110.", uri="code"),
    Passage(text="Returns are accepted within thirty days.", uri="heading", heading="Warranty > Refunds"),
    Passage(text="Ｍｏｄｅｌ ＡＢ１２ 対応ケーブル", uri="wide"),
    Passage(text="Profit rose by a tenth.", uri="notes/q3-report.txt", title="Third Quarter"),
]


@pytest.mark.parametrize(
    ("question", "uri"),
    [
        ("图书馆 几点 开放", "zh"),
        ("图书馆周末开放吗?", "zh"),
        ("図書館の休館日はいつですか", "ja"),
        ("Verfassungsgericht", "de"),
        ("strasse", "de"),
        ("NAIVE", "de"),
        ("E-1042", "code"),
        ("foo_bar", "code"),
        ("rfc 9110", "code"),
        ("warranty", "heading"),
        ("opening hours", "en"),
        ("libraries lend", "en"),
        ("AB12", "wide"),
        ("ＲＦＣ ９１１０", "code"),
        ("q3-report", "notes/q3-report.txt"),
        ("third quarter", "notes/q3-report.txt"),
    ],
)
def test_words_of_many_languages_are_found(tmp_path_factory: pytest.TempPathFactory, question: str, uri: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "library"
    reader = lance.Reader.open(folder, NAME) if folder.exists() else passages.publish(folder, LIBRARY)
    assert reader.text(question, 3).column("uri").to_pylist()[0] == uri


@pytest.mark.parametrize(
    "question",
    [
        '"lending library"',
        "lending AND +library",
        "text:library^2",
        "(library OR",
        "library* ~ \\ [a TO b] {x} && ||",
        "library NOT nine -lending",
        "' OR 1=1 --library",
    ],
)
def test_a_question_is_plain_words(tmp_path: Path, question: str) -> None:
    reader = passages.publish(tmp_path, LIBRARY)
    assert reader.text(question, 1).column("uri").to_pylist() == ["en"]


@pytest.mark.parametrize("question", ["?!", '"', "*", "()", "-", "zebra"])
def test_a_question_without_known_words_finds_nothing(tmp_path: Path, question: str) -> None:
    reader = passages.publish(tmp_path, LIBRARY)
    assert len(reader.text(question, 5)) == 0


def test_a_very_long_question_is_answered(tmp_path: Path) -> None:
    reader = passages.publish(tmp_path, LIBRARY)
    assert reader.text("library " * 20_000, 1).column("uri").to_pylist() == ["en"]


def test_text_hits_have_the_cosine_too(tmp_path: Path) -> None:
    some = [Passage(text="apple", uri="1", vector=(1.0, 1.0)), Passage(text="apple pie", uri="2", vector=(0.0, 1.0))]
    found = passages.publish(tmp_path, some).text("apple", 5, near=passages.direction(1.0))
    by_uri = dict(zip(found.column("uri").to_pylist(), found.column("similarity").to_pylist(), strict=True))
    assert by_uri == pytest.approx({"1": 0.5**0.5, "2": 0.0}, abs=1e-6)
    scores = found.column("score").to_pylist()
    assert scores == sorted(scores, reverse=True)
    assert min(scores) > 0


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = passages.publish(tmp_path, LIBRARY)
        reader.vector(passages.direction(1.0), 3)
        reader.text("library", 3, near=passages.direction(1.0))
    assert capfd.readouterr() == ("", "")


def test_the_library_writes_no_warnings(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lance.preload()
    import lancedb

    lancedb.connect(tmp_path).create_table(
        "t", data=pa.table({"a": [1]}), mode="overwrite"
    )  # Rust warns here by default
    assert capfd.readouterr() == ("", "")


# --- a folder that was damaged


def test_a_torn_head_is_undone_by_the_writer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passages.publish(tmp_path, passages.numbered(range(10)))
    add(opened(tmp_path), range(10, 12))
    newest_manifest(tmp_path).write_bytes(b"")
    with pytest.raises(errors.StoreError):
        lance.Reader.open(tmp_path, NAME)
    table = opened(tmp_path)
    assert "torn" in caplog.text
    assert table.count() == 10
    assert published(tmp_path) == texts(range(10))
    add(table, range(10, 12))
    table.finish(vector_index_from=FROM)
    assert published(tmp_path) == texts(range(12))


def test_a_torn_head_bars_no_reader_of_what_is_published(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The machine is up again and the next night is far: questions are answered, and nothing is written for them."""
    passages.publish(tmp_path, passages.numbered(range(10)))
    table = opened(tmp_path)
    version = table.finish(vector_index_from=FROM).version
    add(table, range(10, 12))
    newest_manifest(tmp_path).write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    reader = lance.Reader.open(tmp_path, NAME, version)
    found = reader.vector(passages.direction(1.0), 100)
    assert set(found.column("text").to_pylist()) == texts(range(10))
    assert reader.text("passage", 100).num_rows == 10
    assert "what is published can be read" in caplog.text
    assert sorted(tmp_path.rglob("*")) == before


def test_a_torn_vector_index_after_the_tag_goes_back_to_the_tag(tmp_path: Path) -> None:
    passages.publish(tmp_path, passages.numbered(range(300)))
    table = opened(tmp_path)
    add(table, range(300, 310))
    table.prepare(vector_index_from=256)
    torn = list((tmp_path / f"{NAME}.lance" / "_indices").rglob("*.idx"))
    for path in torn:
        path.write_bytes(path.read_bytes()[:100])
    assert torn
    again = opened(tmp_path)
    assert again.count() == 300
    add(again, range(300, 310))
    again.finish(vector_index_from=256)
    assert published(tmp_path) == texts(range(310))


def test_a_torn_data_file_after_the_tag_goes_back_to_the_tag(tmp_path: Path) -> None:
    passages.publish(tmp_path, passages.numbered(range(10)))
    data = tmp_path / f"{NAME}.lance" / "data"
    before = set(data.iterdir())
    add(opened(tmp_path), range(10, 12))
    (new,) = set(data.iterdir()) - before
    new.write_bytes(b"\0" * new.stat().st_size)
    table = opened(tmp_path)
    assert table.count() == 10
    assert len(table.rows()) == 10


def test_a_torn_first_build_starts_over(tmp_path: Path) -> None:
    add(opened(tmp_path), range(10))
    newest_manifest(tmp_path).write_bytes(b"")
    assert opened(tmp_path).count() == 0


def test_a_torn_tag_is_published_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passages.publish(tmp_path, passages.numbered(range(10)))
    lance_disk.tag_file(tmp_path / f"{NAME}.lance", lance.LIVE).write_bytes(b"")
    assert opened(tmp_path).finish(vector_index_from=FROM).changed
    assert "published again" in caplog.text
    assert published(tmp_path) == texts(range(10))


def test_what_killed_writers_leave_is_swept(tmp_path: Path) -> None:
    passages.publish(tmp_path, passages.numbered(range(10)))
    left = [tmp_path / f"{NAME}.lance" / "data" / ".tmpA1b2", tmp_path / "tmp" / "shuffle" / "part"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"left")
    opened(tmp_path)
    assert not any(path.exists() for path in left)
    assert not (tmp_path / "tmp").exists()
    assert published(tmp_path) == texts(range(10))


def test_lost_data_files_are_an_error_of_ours(tmp_path: Path) -> None:
    reader = passages.publish(tmp_path, passages.numbered(range(10)))
    shutil.rmtree(tmp_path / f"{NAME}.lance" / "data")
    with pytest.raises(errors.StoreError) as caught:
        lance.Reader.open(tmp_path, NAME).vector(passages.direction(1.0), 3)
    assert "check --fix" in caught.value.remedy
    assert ".rs:" not in caught.value.message
    assert reader.count() == 10  # from the manifest


def test_tmpdir_is_put_back(tmp_path: Path) -> None:
    before = os.environ.get("TMPDIR")
    passages.publish(tmp_path, passages.numbered(range(3)))
    assert os.environ.get("TMPDIR") == before


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "index").write_text("not a folder")
    with pytest.raises(errors.StoreError):
        opened(tmp_path / "index")


# --- killed at random moments

KILLS = 10


def start(folder: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "tests.lance_night", str(folder)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def kill_during_the_night(process: subprocess.Popen[str], folder: Path, after_s: float) -> None:
    """Let it work, read what is published all the while, and kill it."""
    timer = threading.Timer(after_s, process.kill)
    let_go(process)
    timer.start()
    while process.poll() is None:
        assert published(folder) in (texts(OLD), texts(range(GONE.stop, NEW.stop)))
    timer.join()
    process.communicate()


def test_killed_writers_never_show_half_a_night(tmp_path: Path) -> None:
    table = opened(tmp_path / "0")
    add(table, OLD)
    table.finish(vector_index_from=300)
    for n in range(1, KILLS + 1):
        shutil.copytree(tmp_path / "0", tmp_path / str(n))
    processes = [start(tmp_path / str(n)) for n in range(KILLS + 1)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    let_go(processes[0])
    assert processes[0].stdout is not None
    assert processes[0].stdout.readline() == "done\n"
    took_s = time.monotonic() - began
    processes[0].communicate()
    moments = random.Random(1)
    for n in range(1, KILLS + 1):
        folder = tmp_path / str(n)
        kill_during_the_night(processes[n], folder, moments.uniform(0, took_s))
        assert published(folder) in (texts(OLD), texts(range(GONE.stop, NEW.stop)))
        lance_night.night(folder)
        assert published(folder) == texts(range(GONE.stop, NEW.stop))
        assert sorted(opened(folder).rows().column("chunk_id").to_pylist()) == sorted(
            chunk_ids(range(GONE.stop, NEW.stop))
        )
        assert not list(folder.rglob(".tmp*"))
