"""`pipeline gc`: what nothing needs goes, what any kept generation needs stays, whatever the moment it is killed at."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline import config, executor, garbage, ids, kept, live, schema
from pipeline.models import EmbedderSpec
from pipeline.progress import Silent
from pipeline.stages import ingest
from pipeline.store import Collection, Published, VectorLog, keys, prune
from pipeline.store.inventory import Inventory
from tests import killing
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.upkeep_world import World, three_nights, write_document


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


def keep(world: World, generations: int) -> World:
    """Keep so many generations, and no version of the table but the last."""
    run = replace(world.settings.run, keep=generations)
    world.settings = replace(world.settings, run=run, index=config.IndexSettings(keep_versions_h=0.0))
    return world


def state(world: World) -> dict[str, int]:
    """Every file but the lock and the reports, with its size."""
    return {
        str(path.relative_to(world.root)): path.stat().st_size
        for path in world.root.rglob("*")
        if path.is_file() and path.name != "LOCK" and path.relative_to(world.root).parts[0] not in ("runs", "tmp")
    }


def test_nothing_that_is_kept_is_garbage(world: World) -> None:
    before, rows = state(world), world.rows()
    done = world.gc()
    assert (done.dropped_vectors, done.freed["documents"].files, done.freed["snapshots"].files) == (0, 0, 0)
    assert {name for name in before if not name.startswith("index/")} == {
        name for name in state(world) if not name.startswith("index/")
    }
    assert world.rows() == rows
    assert [kept.lacking(world.collection, one) for one in kept.generations(world.collection, 7)] == ["", "", ""]


def test_what_only_dropped_generations_need_goes(world: World) -> None:
    keep(world, 1)
    rows, log = world.rows(), world.check().counts["vectors"]
    planned = world.gc(dry_run=True)
    before = state(world)
    done = world.gc()
    after = state(world)
    assert done.dropped_vectors == log - len(rows) > 10
    assert sum(before.values()) - sum(after.values()) == pytest.approx(done.before_bytes - done.after_bytes, abs=2000)
    assert len(world.inventory.snapshots()) == 1
    for kind in ("snapshots", "documents", "chunks", "vectors"):
        assert planned.freed[kind].files == pytest.approx(done.freed[kind].files, abs=1), kind
        assert (planned.freed[kind].bytes > 0) == (done.freed[kind].bytes > 0), kind
    assert world.rows() == rows
    found = world.check()
    assert found.findings == ()
    assert found.counts["vectors"] == len(rows)
    assert world.texts() == 0


def test_a_dry_run_changes_nothing(world: World) -> None:
    keep(world, 1)
    before = state(world)
    done = world.gc(dry_run=True)
    assert done.after_bytes < done.before_bytes
    assert state(world) == before


def test_every_run_frees_the_shards_of_what_it_forgets(server: FakeOllama, tmp_path: Path) -> None:
    world = keep(World(tmp_path, server), 2)
    write_document(world.docs, "steady")
    for night in range(4):
        write_document(world.docs, "edited", night)
        report = world.night()
    assert len(world.inventory.snapshots()) == 2
    named = {s for number in world.collection.snapshots() for s in live.of_snapshot(world.collection.snapshot(number))}
    assert set(world.inventory.documents()) == named
    assert all(set(there) <= named for there in world.inventory.chunkings().values())
    assert report.freed_bytes > 0
    assert report.disk_before_bytes > 0


def scatter(world: World) -> None:
    """Give each document a shard of its own, as a year of nights with one new file each would."""
    snapshot = world.collection.snapshot()
    assert snapshot is not None
    names: dict[str, str] = {}
    with world.collection.writing():
        for shard in live.of_snapshot(snapshot):
            for row in world.collection.read_documents(shard).to_pylist():
                names[row["doc_id"]], table = ingest.shard([row])
                world.collection.write_documents(names[row["doc_id"]], table)
        rows = [row | {"shard": names[row["doc_id"]]} for row in snapshot.table.to_pylist()]
        world.collection.write_snapshot(ingest.snapshot_table(rows), snapshot.sources, snapshot.scanned_ns)


def test_worn_shards_are_packed_again_and_nothing_is_embedded(server: FakeOllama, tmp_path: Path) -> None:
    world = keep(World(tmp_path, server), 2)
    for number in range(12):
        write_document(world.docs, str(number), paragraphs=1)
    world.night()
    scatter(world)
    assert world.texts() == 0
    rows = world.rows()
    assert world.gc(dry_run=True).emptied == 12
    done = world.gc()
    assert (done.emptied, done.made) == (12, 1)
    assert world.rows() == rows
    assert world.texts() == 0
    write_document(world.docs, "0", "again", paragraphs=1)
    world.night()  # and the generation before the packing is forgotten
    assert world.gc().emptied == 0
    assert len(world.inventory.documents()) == 2
    assert world.check().findings == ()


def test_an_imported_log_is_not_garbage_before_the_first_run(world: World, tmp_path: Path) -> None:
    for folder in ("snapshots", "documents", "chunks", "published", "index"):
        shutil.rmtree(world.root / folder)
    rows = world.check().counts["vectors"]
    assert world.gc().dropped_vectors == 0
    assert world.check().counts["vectors"] == rows > 0


def test_tables_and_logs_of_former_models_go(world: World) -> None:
    for path in ("vectors/0123456789abcdef", "index/chunks_0123456789abcdef.lance", "chunks/0123456789abcdef"):
        (world.root / path).mkdir()
        (world.root / path / "left").write_bytes(b"x" * 1000)
    done = world.gc()
    assert all(done.freed[kind].bytes >= 1000 for kind in ("vectors", "index", "chunks"))
    assert not list(world.root.rglob("*0123456789abcdef*"))
    assert world.check().ok


def test_the_reject_log_is_joined(world: World) -> None:
    for number in range(10):
        world.collection.add_rejects([executor.reject("embed", "0.md", "k", "m", "poison", f"no. {number}")])
    world.collection.add_rejects([executor.reject("embed", "gone long ago.md", "k", "m", "poison", "")])
    world.gc()
    assert [row["reason"] for row in world.collection.rejects().to_pylist()] == ["no. 9"]


# -- whatever was kept can be shown again


SPEC = EmbedderSpec(provider="builtin", model="m", digest="d", dims=8, limit=100, tokenizer="t")


def vector_of(text: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    numbers = np.frombuffer(bytes.fromhex(ids.embed_key(text)), dtype=np.uint8)[:8].astype(np.float32) + 1
    return np.asarray(numbers / np.linalg.norm(numbers), dtype=np.float32)


def snapshot_rows(collection: Collection, chunks_fp: str, log: VectorLog, texts: dict[str, int]) -> list[ingest.Row]:
    """Write what a night would of documents {name: version}, all in one shard; the rows of its snapshot."""
    documents = []
    for name, version in sorted(texts.items()):
        text = f"{name} {version}"
        doc = ids.doc_id(name, text)
        documents.append({"doc_id": doc, "doc_hash": ids.doc_hash(doc, "", "", ""), "uri": name, "title": "",
                          "media_type": "text/plain", "text": text, "blocks": []})  # fmt: skip
    shard, table = ingest.shard(documents)
    collection.write_documents(shard, table)
    chunks = [
        {"chunk_id": ids.chunk_id(row["doc_id"], 0, len(row["text"])), "doc_id": row["doc_id"], "start": 0,
         "end": len(row["text"]), "page": None, "heading_path": [], "text": row["text"], "context": "", "title": "",
         "tokens": 2, "embed_key": ids.embed_key(row["text"])}
        for row in documents
    ]  # fmt: skip
    if not collection.has_chunks(chunks_fp, shard):
        collection.write_chunks(chunks_fp, shard, pa.Table.from_pylist(chunks, schema=schema.CHUNKS))
    new = [row["text"] for row in documents if not log.contains([ids.embed_key(row["text"])])[0]]
    log.append([ids.embed_key(text) for text in new], np.array([vector_of(text) for text in new], np.float32))
    log.refresh()
    return [
        {"uri": row["uri"], "size": 1, "mtime_ns": 1, "inode": 1, "content_hash": "", "doc_id": row["doc_id"],
         "doc_hash": row["doc_hash"], "shard": shard, "reader": "r/1", "status": "ok"}
        for row in documents
    ]  # fmt: skip


NIGHT = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 3), min_size=1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nights=st.lists(NIGHT, min_size=1, max_size=6), generations=st.integers(1, 4))
def test_gc_never_removes_what_a_kept_generation_needs(
    tmp_path_factory: pytest.TempPathFactory, nights: list[dict[str, int]], generations: int
) -> None:
    data = tmp_path_factory.mktemp("data")
    chosen = config.Settings(data=str(data), run=config.RunSettings(keep=generations))
    collection = Collection(data, "default")
    chunks_fp = live.chunk_params(chosen, SPEC).fingerprint()
    with collection.writing():
        collection.set_embedder(SPEC)
        log = live.vector_log(collection, SPEC)
        for texts in nights:
            table = ingest.snapshot_table(snapshot_rows(collection, chunks_fp, log, texts))
            number = collection.write_snapshot(table, ["docs"], 1)
            note = Published(live="?", chunks_fp=chunks_fp, vectors_fp=live.vectors_fp(SPEC), documents=len(texts),
                             chunks=len(texts), rows=len(texts), snapshot=number, version=1, spec=SPEC)  # fmt: skip
            collection.set_published(note)
    garbage.collect(chosen, Silent())
    there = kept.generations(collection, generations)
    assert len(there) == min(generations, len(nights))
    assert [kept.lacking(collection, one) for one in there] == [""] * len(there)
    needed = {ids.embed_key(f"{k} {v}") for night in nights[-generations:] for k, v in night.items()}
    log = live.vector_log(collection, SPEC)
    assert len(log) == len(needed), "what nobody needs is gone"
    for night in nights[-generations:]:
        texts_ = [f"{k} {v}" for k, v in night.items()]
        found = log.take([ids.embed_key(text) for text in texts_])
        assert np.array_equal(found, np.array([vector_of(text) for text in texts_]))
    shards = {s for one in there for s in live.of_snapshot(collection.snapshot(one.number))}
    assert set(Inventory(collection).documents()) == shards
    shutil.rmtree(data)


# -- kill -9 and memory


@pytest.mark.parametrize(("command", "changes"), [("gc", (4, 9, 15)), ("fix", (7, 12, 14))])
def test_killed_while_it_changes_the_disk_the_collection_stays_whole(
    base: World, tmp_path: Path, command: str, changes: Sequence[int]
) -> None:
    worlds = {n: keep(base.copy(tmp_path / str(n)), 1) for n in changes}
    for world in worlds.values() if command == "fix" else ():
        next(itertools.chain(*world.inventory.logs().values())).write_bytes(b"")
        next(iter(next(iter(world.inventory.chunkings().values())).values())).write_bytes(b"torn")
    rows, own = base.rows(), next(iter(worlds.values())).settings
    ends = killing.kill_all(command, {n: tmp_path / str(n) for n in changes}, own)
    assert ends.count("killed") >= len(changes) - 1
    assert "failed" not in ends
    for world in worlds.values():
        if command == "gc":
            assert world.check().ok
            assert world.rows() == rows
            world.gc()
        assert world.check(fix=True).ok
    assert world.texts() == 0  # of the last one: a night takes ten times as long as a check
    assert world.rows() == rows


def test_pruning_takes_a_row_group_at_a_time(tmp_path: Path) -> None:
    """100,000 vectors of 64 dimensions are 25 MB; of each key 16 bytes are remembered, twice."""
    rows, dims = 50_000, 64
    log = VectorLog(tmp_path / "log", tmp_path / "tmp", dims, {})
    chosen = random.Random(3)
    names = [f"{chosen.getrandbits(128):032x}" for _ in range(2 * rows)]
    for half in (names[:rows], names[rows:]):
        log.append(half, np.full((rows, dims), dims**-0.5, dtype=np.float32))
    wanted = keys.KeySet()
    wanted.add(keys.packed(names[::3]))
    parts = sorted((tmp_path / "log").glob("*.parquet"))
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    tracemalloc.start()
    done = prune.prune(parts, tmp_path / "tmp", wanted)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert done == 2 * rows - len(names[::3])
    assert peak < 12_000_000
    assert pool.bytes_allocated() - before < 2_000_000
    log.refresh()
    assert len(log) == len(names[::3])
    assert log.contains(names[::3]).all()


def test_the_command(world: World, tmp_path: Path) -> None:
    data = ["--data", str(world.data)]
    env = {"PIPELINE_RUN_KEEP": "1"}
    planned = invoke(tmp_path, *data, "gc", "-n", env=env)
    assert planned.exit_code == 0
    assert "would be freed" in planned.stdout
    assert ", about " in planned.stdout.splitlines()[-1]
    done = json.loads(invoke(tmp_path, *data, "gc", "--json", env=env).stdout)
    assert done["freed"]["vectors"]["bytes"] > 0
    assert done["before_bytes"] - done["after_bytes"] > 0
    again = invoke(tmp_path, *data, "gc", env=env).stdout
    assert again.startswith("On disk: "), "nothing was left to free"
    with world.collection.writing():
        assert invoke(tmp_path, *data, "gc").exit_code == 11
    assert invoke(tmp_path, "--data", str(tmp_path / "none"), "gc").exit_code == 10


def test_a_collection_that_was_only_read_into(server: FakeOllama, tmp_path: Path) -> None:
    world = World(tmp_path, server)
    write_document(world.docs, "a")
    world.night("ingest")
    assert world.gc().dropped_vectors == 0
    found = world.check(fix=True)
    assert found.ok
    assert found.counts["documents"] == 1
    shard = next(iter(world.inventory.documents().values()))
    shard.write_bytes(b"torn")
    assert not world.check().ok
    assert world.check(fix=True).ok
    world.night("ingest")
    assert world.check().findings == ()
