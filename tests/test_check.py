"""`pipeline check`: each kind of damage done to a real collection is found, mended without loss, and made good by the
next run; what is sound stays."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import executor, lance, lance_disk, live, schema
from pipeline.store import Calibration, files
from pipeline.store.vectors import ROW_GROUP
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.upkeep_world import World, three_nights, write_document

Damage = Callable[[World], object]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


@pytest.fixture(scope="module")
def base(server: FakeOllama, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("base"), server)
    three_nights(world)
    return world


@pytest.fixture
def world(base: World, tmp_path: Path) -> World:
    return base.copy(tmp_path)


# -- damage


def newest_snapshot(world: World) -> Path:
    return world.inventory.snapshots()[-1][1]


def a_shard(world: World) -> Path:
    """Of the newest snapshot: the one with most documents."""
    shards = live.of_snapshot(world.collection.snapshot())
    return world.inventory.documents()[max(shards, key=lambda shard: len(shards[shard]))]


def a_chunk_file(world: World) -> Path:
    (there,) = world.inventory.chunkings().values()
    return there[a_shard(world).stem]


def a_part(world: World) -> Path:
    (parts,) = world.inventory.logs().values()
    return max(parts, key=lambda part: part.stat().st_size)


def table_folder(world: World) -> Path:
    (folder,) = world.inventory.tables().values()
    return folder


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """Change one bit in the middle of the first data page."""
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0x10
    path.write_bytes(bytes(data))


def rewrite(path: Path, table: pa.Table, metadata: dict[str, str] | None = None) -> None:
    """Put a whole and readable file with other contents in its place."""
    path.unlink()
    files.write_parquet(path.parent, path, table, metadata=metadata, row_group=ROW_GROUP)


def other_text(path: Path) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index("text")
    texts = table["text"].to_pylist()
    texts[0] = f"X{str(texts[0])[1:]}"
    rewrite(path, table.set_column(at, table.schema.field(at), pa.array(texts, table.schema.field(at).type)))


def other_key(path: Path) -> None:
    table = pq.read_table(path)
    at = table.schema.get_field_index("embed_key")
    given = ["0" * 32, *table["embed_key"].to_pylist()[1:]]
    rewrite(path, table.set_column(at, table.schema.field(at), pa.array(given, pa.string())))


def scale_vector(world: World, factor: float) -> None:
    """Multiply the first vector of a part."""
    part, spec = a_part(world), world.spec
    metadata = files.parquet_metadata(part)
    table = files.read_parquet(part, schema.vectors(spec.dims))
    matrix = schema.matrix(table["vector"].combine_chunks(), spec.dims).copy()
    matrix[0] *= factor
    column = schema.vector_column(matrix, table.schema.field("vector"))
    rewrite(part, table.set_column(1, table.schema.field("vector"), column), metadata)


def open_table(world: World) -> lance.Table:
    spec = world.spec
    return lance.Table.open(world.collection.index_folder, live.table_name(spec), spec.dims, live.provenance(spec))


def publish_as_is(world: World, table: lance.Table) -> None:
    """Let readers see what was done to the table behind the pipeline's back."""
    version = table.finish(vector_index_from=1_000_000).version
    note = world.collection.published()
    assert note is not None
    world.collection.set_published(dataclasses.replace(note, version=version))


def lose_a_row(world: World) -> None:
    table = open_table(world)
    table.delete([table.rows()["chunk_id"][0].as_py()])
    publish_as_is(world, table)


def forge_a_row(world: World) -> None:
    """A row with another text and vector under its own id and hash."""
    table, spec = open_table(world), world.spec
    layout = lance.index_schema(spec.dims)
    every = table._table.to_arrow().select(layout.names)
    row = every.slice(3, 1).to_pylist()[0] | {"text": "forged"}
    table.delete([row["chunk_id"]])
    forged = pa.Table.from_pylist([row], schema=layout)
    table.add(pa.RecordBatchReader.from_batches(layout, forged.to_batches()))
    publish_as_is(world, table)


def turn_a_vector(world: World) -> None:
    table, spec = open_table(world), world.spec
    layout = lance.index_schema(spec.dims)
    row = table._table.to_arrow().select(layout.names).slice(5, 1).to_pylist()[0]
    row["vector"] = list(reversed(row["vector"]))
    table.delete([row["chunk_id"]])
    table.add(pa.RecordBatchReader.from_batches(layout, pa.Table.from_pylist([row], schema=layout).to_batches()))
    publish_as_is(world, table)


def head_manifest(world: World) -> Path:
    return min((table_folder(world) / "_versions").glob("*.manifest"))  # the newest lists first


def tag(world: World) -> Path:
    return lance_disk.tag_file(table_folder(world), lance.LIVE)


def halve_the_table(world: World) -> None:
    for path in (table_folder(world) / "data").glob("*.lance"):
        halve(path)


def record(kind: str) -> Damage:
    return lambda world: empty(world.inventory.records(kind)[-1][1])


def vectors_and_table(world: World) -> None:
    """The part and the table that could have given its vectors back."""
    empty(a_part(world))
    halve_the_table(world)


def torn_calibration(world: World) -> None:
    found = Calibration(
        spec=world.spec, mode="hybrid", scales={}, answerable=0, unanswerable=0, refused=0.0, lost=0.0, at_ms=1
    )
    world.collection.calibrations.append(found)
    assert world.check().ok
    record("calibrations")(world)


def torn_reject(world: World) -> None:
    world.collection.add_rejects([executor.reject("embed", "0.md", "0" * 32, "somebody 1.0", "poison", "NaN")])
    empty(world.inventory.rejects()[0])


# name, what is done, kind of the finding, texts that the next run embeds again (None: some)
DAMAGES: list[tuple[str, Damage, str, int | None]] = [
    ("vectors and table", vectors_and_table, "vectors", None),
    ("snapshot empty", lambda world: empty(newest_snapshot(world)), "snapshot", 0),
    ("snapshot half", lambda world: halve(newest_snapshot(world)), "snapshot", 0),
    ("every snapshot empty", lambda world: [empty(p) for _, p in world.inventory.snapshots()], "snapshot", 0),
    ("documents empty", lambda world: empty(a_shard(world)), "documents", 0),
    ("documents half", lambda world: halve(a_shard(world)), "documents", 0),
    ("documents flipped", lambda world: flip(a_shard(world)), "documents", 0),
    ("documents gone", lambda world: a_shard(world).unlink(), "documents", 0),
    ("documents with another text", lambda world: other_text(a_shard(world)), "documents", 0),
    ("chunks empty", lambda world: empty(a_chunk_file(world)), "chunks", 0),
    ("chunks half", lambda world: halve(a_chunk_file(world)), "chunks", 0),
    ("chunks with another text", lambda world: other_text(a_chunk_file(world)), "chunks", 0),
    ("chunks with another key", lambda world: other_key(a_chunk_file(world)), "chunks", 0),
    ("vectors empty", lambda world: empty(a_part(world)), "vectors", 0),
    ("vectors half", lambda world: halve(a_part(world)), "vectors", 0),
    ("vectors flipped", lambda world: flip(a_part(world)), "vectors", 0),
    ("a vector of NaN", lambda world: scale_vector(world, np.nan), "vectors", 0),
    ("a vector of zeros", lambda world: scale_vector(world, 0.0), "vectors", 0),
    ("a vector too long", lambda world: scale_vector(world, 1.01), "vectors", 0),
    ("publication empty", record("published"), "record", 0),
    ("embedder empty", record("embedders"), "record", 0),
    ("calibration empty", torn_calibration, "record", 0),
    ("rejects empty", torn_reject, "rejects", 0),
    ("head manifest empty", lambda world: empty(head_manifest(world)), "index", 0),
    ("every manifest empty", lambda world: [empty(p) for p in table_folder(world).rglob("*.manifest")], "index", 0),
    ("tag empty", lambda world: empty(tag(world)), "index", 0),
    ("tag gone", lambda world: tag(world).unlink(), "index", 0),
    ("table half", halve_the_table, "index", 0),
    ("table gone", lambda world: shutil.rmtree(table_folder(world)), "index", 0),
    ("a row lost", lose_a_row, "index", 0),
    ("a row forged", forge_a_row, "index", 0),
    ("a vector turned", turn_a_vector, "index", 0),
]


def test_a_sound_collection_has_no_finding(world: World) -> None:
    found = world.check()
    assert found.ok
    assert found.findings == ()
    assert found.counts["rows"] == len(world.rows()) > 40
    assert found.counts["vectors"] > found.counts["rows"]  # those of the older generations as well
    assert (found.counts["snapshots"], found.counts["files"], found.due) == (3, 7, 0)


# A night takes ten times as long as a check: of each kind of mending, one is followed to its end.
FOLLOWED = {
    "snapshot half", "every snapshot empty", "documents flipped", "chunks half", "vectors and table", "vectors half",
    "publication empty", "every manifest empty", "a row forged",
}  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "kind", "texts"), DAMAGES, ids=[d[0] for d in DAMAGES])
def test_damage_is_found_mended_and_made_good(
    world: World, base: World, name: str, damage: Damage, kind: str, texts: int | None
) -> None:
    damage(world)
    mended = world.check(fix=True)
    assert kind in {finding.kind for finding in mended.mended}
    assert mended.ok, mended.findings
    assert (mended.due == texts) if texts is not None else mended.due > 0
    if name in FOLLOWED:
        before = base.rows()
        assert world.texts() == mended.due, "check says how many texts the next run embeds"
        assert world.rows() == before
        after = world.check()
        assert after.ok
        assert after.due == 0


def test_a_check_alone_changes_nothing(world: World) -> None:
    halve(a_part(world))
    empty(newest_snapshot(world))

    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(world.root.rglob("*.parquet"))}

    before = state()
    assert not world.check().ok
    assert state() == before


def test_a_file_that_hides_its_change_is_found_and_read_again(server: FakeOllama, tmp_path: Path) -> None:
    world = World(tmp_path, server)
    for name in ("a", "b"):
        write_document(world.docs, name)
    past = 1_600_000_000
    for path in world.docs.iterdir():
        os.utime(path, (past, past))
    world.night()
    file = world.docs / "a.md"
    text = file.read_text()
    with file.open("r+") as opened:  # the same size and inode, and then the same date
        opened.write(text.replace("Document a", "Dokument a"))
    os.utime(file, (past, past))
    assert world.texts() == 0, "no run can see it"
    newest = world.collection.snapshot()
    assert newest is not None
    world.collection.write_again(dataclasses.replace(newest, mounts=("nas/",)))
    found = world.check()
    assert [finding.where for finding in found.findings if finding.damage] == ["a.md"]
    assert world.check(fix=True).ok
    mended = world.collection.snapshot()
    assert mended is not None
    assert mended.mounts == ("nas/",), "what was mounted is still known"
    world.night()
    assert any("Dokument a" in text for _, text in world.rows())
    assert world.check().findings == ()


def test_what_is_merely_due_is_no_damage(world: World) -> None:
    a_chunk_file(world).unlink()
    (world.root / "documents" / f"{'0' * 32}.parquet").write_bytes(b"left by nobody")
    (world.root / "documents" / "notes.txt").write_text("not ours")
    found = world.check()
    assert found.ok
    assert {finding.kind for finding in found.findings} >= {"pending", "orphans", "stranger"}
    assert not any(finding.damage for finding in found.findings)


# -- the command


def test_the_commands(world: World, tmp_path: Path) -> None:
    data = ["--data", str(world.data)]
    sound = invoke(tmp_path, *data, "check")
    assert sound.exit_code == 0
    assert sound.stdout.startswith("All is well: 4 records, 3 snapshots, 7 files")
    halve(a_part(world))
    damaged = invoke(tmp_path, *data, "check")
    assert damaged.exit_code == 1
    assert f"DAMAGED vectors/{a_part(world).parent.name}/{a_part(world).name}: damaged: " in damaged.stderr
    assert "check --fix" in damaged.stderr
    told = json.loads(invoke(tmp_path, *data, "check", "--json").stdout)
    assert (told["ok"], told["findings"][0]["damage"]) == (False, True)
    named = invoke(tmp_path, *data, "export", str(tmp_path / "x.parquet"))
    assert named.exit_code == 1
    assert "pipeline check --fix" in named.stderr
    mended = invoke(tmp_path, *data, "check", "--fix")
    assert mended.exit_code == 0
    assert mended.stdout.startswith("mended  vectors/")
    assert invoke(tmp_path, *data, "check", "-q").stdout == ""
    assert invoke(tmp_path, "--data", str(tmp_path / "none"), "check").exit_code == 10


@pytest.mark.parametrize("words", [["status"], ["run", "DOCS"], ["gc"]])
def test_a_command_that_meets_damage_names_the_remedy(world: World, tmp_path: Path, words: list[str]) -> None:
    empty(newest_snapshot(world))
    words = [str(world.docs) if word == "DOCS" else word for word in words]
    ended = invoke(tmp_path, "--data", str(world.data), *words)
    assert ended.exit_code == 1
    assert "pipeline check --fix" in ended.stderr
