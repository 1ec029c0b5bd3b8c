"""The store: what is written is whole or absent, what is read is checked, the vector log gives back what went in."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors, ids, schema
from pipeline.models import EmbedderSpec
from pipeline.store import Collection, Published, VectorLog, files, keys, lock

PROVENANCE = {"model": "m", "digest": "d"}


def log_at(folder: Path, dims: int = 4, provenance: dict[str, str] = PROVENANCE) -> VectorLog:
    return VectorLog(folder / "vectors", folder / "tmp", dims, provenance)


def vector_of(number: int, dims: int = 4) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.arange(number, number + dims, dtype=np.float32)


# -- files


def test_a_failed_write_leaves_neither_file_nor_draft(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(errors.DiskFull, match="no space left") as caught:
        files.write_once(tmp_path / "tmp", tmp_path / "a" / "file", fail)
    assert "run the same command again" in caught.value.remedy
    assert list((tmp_path / "a").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    table = pa.table({"stage": ["a"] * 5000})
    path = tmp_path / "file.parquet"
    files.write_parquet(tmp_path / "tmp", path, table)
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(errors.CorruptStore, match=r"file\.parquet"):
        files.read_parquet(path, pa.schema([("stage", pa.string())]))
    path.write_bytes(bytes(data[: len(data) // 2]))
    with pytest.raises(errors.CorruptStore, match=r"file\.parquet"):
        files.read_parquet(path, pa.schema([("stage", pa.string())]))
    path.unlink()
    with pytest.raises(errors.CorruptStore, match="missing"):
        files.read_parquet(path, pa.schema([("stage", pa.string())]))


def test_a_table_of_another_schema_is_refused() -> None:
    with pytest.raises(errors.CorruptStore, match="columns"):
        schema.check(pa.table({"x": [1]}), schema.REJECTS, "rejects")
    row = dict.fromkeys(("stage", "uri", "key", "made_by", "kind", "reason"), "")
    nothing = pa.Table.from_pylist([row | {"at_ms": None}], schema=schema.REJECTS)
    with pytest.raises(errors.CorruptStore, match="null in column at_ms"):
        schema.check(nothing, schema.REJECTS, "rejects")


# -- the lock


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "c")
    with collection.writing():
        with pytest.raises(errors.Locked, match=f"process {os.getpid()} ") as caught, collection.writing():
            pass
        assert "--wait-lock" in caught.value.remedy
    with collection.writing():
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom pipeline.store import lock\n"
        "with lock.hold(pathlib.Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.read()"
    )
    path = tmp_path / "LOCK"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(errors.Locked, match=f"process {process.pid} "), lock.hold(path):
            pass
        process.kill()
        process.wait()
        with lock.hold(path):
            assert str(os.getpid()) in path.read_text()


def test_waiting_for_the_lock_ends_when_it_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom pipeline.store import lock\n"
        "with lock.hold(pathlib.Path(sys.argv[1])):\n print('held', flush=True)\n sys.stdin.readline()"
    )
    path = tmp_path / "LOCK"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"held\n"
        process.stdin.write(b"\n")
        process.stdin.flush()
        with lock.hold(path, wait_s=30):
            pass


# -- the collection


def test_tmp_is_swept_by_the_next_writer(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "c")
    with collection.writing():
        (collection.temporary / "half").write_bytes(b"x")
        (collection.temporary / "folder").mkdir()
        (collection.temporary / "folder" / "half").write_bytes(b"x")
    with collection.writing():
        assert list(collection.temporary.iterdir()) == []


def test_another_layout_is_refused(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "c")
    with collection.writing():
        pass
    (collection.root / "VERSION").write_text("99\n")
    with pytest.raises(errors.StoreError, match="layout '99'"), collection.writing():
        pass


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a\0b"])
def test_names_that_leave_the_data_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.ConfigError):
        Collection(tmp_path, name)


def snapshot_row(uri: str) -> dict[str, object]:
    numbers = {"size": 1, "mtime_ns": 2, "inode": 3}
    names = {"content_hash": "c", "doc_id": "d", "doc_hash": "h", "shard": "s", "reader": "text/1", "status": "ok"}
    return {"uri": uri} | numbers | names


def test_the_newest_snapshot_counts_and_seven_are_kept(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "c")
    assert collection.snapshot() is None
    with collection.writing():
        for number in range(1, 11):
            table = pa.Table.from_pylist([snapshot_row(f"{number}.md")], schema=schema.SNAPSHOT)
            assert collection.write_snapshot(table, ["/docs"], number) == number
    found = collection.snapshot()
    assert found is not None
    assert (found.number, found.sources, found.scanned_ns) == (10, ("/docs",), 10)
    assert found.table["uri"].to_pylist() == ["10.md"]
    assert len(list((collection.root / "snapshots").iterdir())) == 7


def test_records_are_appended_and_an_equal_one_is_not(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "c")
    spec = EmbedderSpec(
        provider="builtin", model="m", digest="d", dims=4, limit=510, tokenizer="t", languages=("en", "zh")
    )
    with collection.writing():
        assert collection.embedder() is None
        collection.set_embedder(spec)
        collection.set_embedder(spec)
        assert collection.embedder() == spec
        assert len(list((collection.root / "embedders").iterdir())) == 1
        note = Published(live="l", chunks_fp="a", vectors_fp="b", documents=1, chunks=2, rows=2)
        collection.set_published(note)
        assert collection.published() == note
    (collection.root / "published" / "00000002.json").write_text('{"another": "layout"}\n')
    with pytest.raises(errors.CorruptStore, match=r"00000002\.json"):
        collection.published()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_of_torn_records_the_one_before_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture, share: float) -> None:
    collection = Collection(tmp_path, "c")
    note = Published(live="l", chunks_fp="a", vectors_fp="b", documents=1, chunks=2, rows=2)
    with collection.writing():
        collection.set_published(note)
        whole = (collection.root / "published" / "00000001.json").read_bytes()
        (collection.root / "published" / "00000002.json").write_bytes(whole[: int(share * len(whole))])
        assert collection.published() == note
        assert [number for number, _ in collection.publications.all()] == [1]
        assert "torn" in caplog.text
        collection.set_published(note)
    assert [number for number, _ in collection.publications.all()] == [1, 3]
    for path in (collection.root / "published").iterdir():
        path.write_bytes(b"")
    with pytest.raises(errors.CorruptStore, match=r"00000001\.json") as caught:
        collection.published()
    assert "check --fix" in caught.value.remedy


def test_rejects_come_back_in_order(tmp_path: Path) -> None:
    collection = Collection(tmp_path, "c")
    base = {"stage": "ingest", "key": "k", "made_by": "m", "kind": "damaged", "reason": "r"}
    with collection.writing():
        assert collection.rejects().num_rows == 0
        for number in range(3):
            collection.add_rejects([base | {"uri": f"{number}.pdf", "at_ms": number}])
    assert sorted(collection.rejects()["uri"].to_pylist()) == ["0.pdf", "1.pdf", "2.pdf"]


# -- the vector log


def test_a_part_is_a_plain_column_of_lists_whatever_it_was_written_from(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    rows = np.stack([vector_of(n) for n in range(5)])
    log.append([ids.embed_key(str(n)) for n in range(5)], rows[:2], rows[2:3], rows[3:])
    (part,) = tmp_path.rglob("*.parquet")
    file = pq.ParquetFile(part)
    assert file.read()["vector"].to_pylist() == rows.tolist()
    chunk = file.metadata.row_group(0).column(1)
    assert (chunk.physical_type, chunk.path_in_schema) == ("FLOAT", "vector.list.element")
    assert (chunk.compression, chunk.is_stats_set, "PLAIN" in chunk.encodings) == ("UNCOMPRESSED", False, True)


numbers = st.lists(st.integers(0, 40), max_size=12)


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(numbers, max_size=12), compact=st.booleans())
def test_the_log_gives_back_what_went_in(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], compact: bool
) -> None:
    log = log_at(tmp_path_factory.mktemp("log"))
    for part in parts:
        vectors = np.stack([vector_of(n) for n in part]) if part else np.empty((0, 4), np.float32)
        log.append([ids.embed_key(str(n)) for n in part], vectors)
    log.refresh()
    if compact:
        log.compact()
    known = sorted({n for part in parts for n in part})
    assert len(log) == len(known)
    keys = [ids.embed_key(str(n)) for n in range(42)]
    assert log.contains(keys).tolist() == [n in known for n in range(42)]
    taken = log.take([ids.embed_key(str(n)) for n in reversed(known)])
    assert taken.tolist() == [vector_of(n).tolist() for n in reversed(known)]


def test_an_unknown_key_is_an_error(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.append([ids.embed_key("a")], vector_of(1).reshape(1, 4))
    log.refresh()
    with pytest.raises(KeyError):
        log.take([ids.embed_key("a"), ids.embed_key("b")])


def test_keys_that_end_in_zero_bytes_are_found(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    keys = ["ab" * 8 + "00" * 8, "ab" * 8 + "00" * 7 + "01", "00" * 16]
    log.append(keys, np.stack([vector_of(n) for n in range(3)]))
    log.refresh()
    assert log.take(keys[::-1]).tolist() == [vector_of(n).tolist() for n in (2, 1, 0)]


def test_vectors_spread_over_row_groups_and_parts_are_found(tmp_path: Path) -> None:
    log = log_at(tmp_path, dims=2)
    for start in (0, 3000):
        part = range(start, start + 3000)
        log.append([ids.embed_key(str(n)) for n in part], np.stack([vector_of(n, 2) for n in part]))
    log.refresh()
    wanted = [5999, 0, 1024, 1023, 2999, 3000, 4096]
    assert log.take([ids.embed_key(str(n)) for n in wanted])[:, 0].tolist() == wanted


def test_compaction_joins_parts_and_drops_doubles(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    for number in range(12):
        log.append([ids.embed_key(str(number)), ids.embed_key("same")], np.stack([vector_of(number), vector_of(99)]))
    log.refresh()
    assert log.compact() == 12
    (part,) = (tmp_path / "vectors").iterdir()
    assert pq.read_metadata(part).num_rows == 13
    assert files.parquet_metadata(part)["digest"] == "d"
    assert log.take([ids.embed_key("7")]).tolist() == [vector_of(7).tolist()]
    assert log.compact() == 0


def test_vectors_of_another_model_are_refused(tmp_path: Path) -> None:
    log_at(tmp_path).append([ids.embed_key("a")], vector_of(1).reshape(1, 4))
    with pytest.raises(errors.ModelMismatch, match="digest 'd'"):
        log_at(tmp_path, provenance={"model": "m", "digest": "other"})


def test_a_torn_part_is_named(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.append([ids.embed_key("a")], vector_of(1).reshape(1, 4))
    (part,) = (tmp_path / "vectors").iterdir()
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(errors.CorruptStore, match=part.name):
        log.refresh()


def test_a_part_that_lacks_a_key_is_older_than_the_key(tmp_path: Path) -> None:
    log_at(tmp_path).append([ids.embed_key("a")], vector_of(1).reshape(1, 4))
    assert len(log_at(tmp_path, provenance=PROVENANCE | {"storage": "float32"})) == 1


def test_joined_parts_keep_full_row_groups_and_say_all_that_their_parts_said(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    for number in range(9):
        log.record(server_version=f"0.{number // 5}", canary="c")
        rows = range(600 * number, 600 * number + 700)  # 100 of each are in the next part as well
        log.append([ids.embed_key(str(n)) for n in rows], np.stack([vector_of(n) for n in rows]))
    log.refresh()
    assert log.recorded("server_version") == ["0.0", "0.1"]
    assert log.compact(part_rows=100_000) == 9
    (part,) = (tmp_path / "vectors").iterdir()
    metadata = pq.read_metadata(part)
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [1024] * 5 + [5500 - 5 * 1024]
    assert (log.recorded("server_version"), log.recorded("canary"), log.recorded("none")) == (["0.0", "0.1"], ["c"], [])
    assert log.take([ids.embed_key(str(n)) for n in range(5500)])[:, 0].tolist() == list(range(5500))


def test_half_precision_takes_half_and_comes_out_rounded(tmp_path: Path) -> None:
    log = VectorLog(tmp_path / "vectors", tmp_path / "tmp", 4, PROVENANCE, storage="float16")
    vectors = np.array([[1 / 3, -2 / 3, 1e-5, 0.5]], np.float32)
    log.append([ids.embed_key("a")], vectors)
    log.refresh()
    (part,) = (tmp_path / "vectors").iterdir()
    assert pq.read_schema(part).field("vector").type.value_type == pa.float16()
    found = log.take([ids.embed_key("a")])
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors.astype(np.float16).astype(np.float32))


# -- keys


def test_keys_are_read_from_arrow_as_from_text() -> None:
    texts = [ids.embed_key(str(n)) for n in range(50)]
    column = pa.chunked_array([pa.array(texts[:20]), pa.array([], pa.string()), pa.array(texts[20:])])
    for start, length in ((0, 50), (3, 40), (25, 5), (7, 0)):
        part = column.slice(start, length)
        assert keys.of_column(part).tolist() == keys.packed(texts[start : start + length]).tolist()
    assert keys.of_column(pa.array(texts).slice(5, 7)).tolist() == keys.packed(texts[5:12]).tolist()


@pytest.mark.parametrize("bad", ["", "ab", "g" * 32, "AB" * 16, "ab" * 17])
def test_what_is_no_key_is_refused(bad: str) -> None:
    with pytest.raises(errors.CorruptStore, match="hexadecimal"):
        keys.of_column(pa.array([ids.embed_key("a"), bad]))


@given(batches=st.lists(st.lists(st.integers(0, 60), max_size=20), max_size=20))
def test_a_key_set_is_a_set(batches: list[list[int]]) -> None:
    found, known = keys.KeySet(), set[int]()
    for batch in batches:
        fresh = found.add(keys.packed([f"{n:032x}" for n in batch])).tolist()
        expected = [n not in known and n not in batch[:at] for at, n in enumerate(batch)]
        known |= set(batch)
        assert fresh == expected
        assert len(found) == len(known)
    everything = found.contains(keys.packed([f"{n:032x}" for n in range(62)]))
    assert everything.tolist() == [n in known for n in range(62)]
