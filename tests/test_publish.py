"""Publishing a night: only what changed is compared, with the outcome of comparing everything."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import lance, live, publish
from pipeline.progress import Silent
from pipeline.store import Collection
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash", record=False) as started:
        yield started


@pytest.fixture
def world(tmp_path: Path, server: FakeOllama) -> World:
    made = World(tmp_path, server)
    write_documents(made.docs, files=8, sections=1, paragraphs=2)
    made.run()
    return made


class Told(Collection):
    """A collection that tells which shards were read."""

    def __init__(self, data: Path, name: str) -> None:
        super().__init__(data, name)
        self.read: set[str] = set()

    def read_chunks(self, fingerprint: str, shard: str, columns: Sequence[str] | None = None) -> pa.Table:
        self.read.add(shard)
        return super().read_chunks(fingerprint, shard, columns)


def published(world: World, *, anew: bool = False) -> tuple[publish.Publication, set[str]]:
    """Publish the newest snapshot; what that was, and the shards that were looked at."""
    collection = Told(world.data, "default")
    spec = collection.embedder()
    assert spec is not None
    live_ = live.of_snapshot(collection.snapshot())
    with collection.writing():
        done = publish.publish(collection, world.settings, spec, live_, Silent(), anew=anew)
    return done, collection.read


def table_of(world: World) -> lance.Table:
    spec = world.collection.embedder()
    assert spec is not None
    return lance.Table.open(
        world.collection.index_folder, live.table_name(spec), spec.dims, live.provenance(spec), storage=spec.storage
    )


def edit(docs: Path) -> None:
    (docs / "0.md").write_text(f"# Edited\n\n{sentence('edited')}\n\n{(docs / '0.md').read_text()}")


def move_and_swap(docs: Path) -> None:
    (docs / "1.md").rename(docs / "moved.md")
    (docs / "2.md").rename(docs / "third")
    (docs / "3.md").rename(docs / "2.md")
    (docs / "third").rename(docs / "3.md")


def replace_most(docs: Path) -> None:
    shutil.copyfile(docs / "2.md", docs / "copy.md")
    (docs / "3.md").unlink()
    for number in range(4, 8):
        (docs / f"{number}.md").write_text(f"# New {number}\n\n{sentence('new', number)}\n")


NIGHTS: tuple[Callable[[Path], None], ...] = (edit, move_and_swap, replace_most)


def test_comparing_what_changed_is_comparing_everything(world: World) -> None:
    for night in NIGHTS:
        night(world.docs)
        world.run("ingest", "chunk", "embed", max_delete=1.0)
        before = live.of_snapshot(world.collection.snapshot(world.collection.published().snapshot))  # type: ignore[union-attr]
        new = live.of_snapshot(world.collection.snapshot()).without(before)
        done, read = published(world)
        assert done.changed
        assert read == set(new), "no shard is read but those with new documents"
        assert len(world.table()) == done.note.rows == done.note.chunks
        again, everything = published(world, anew=True)
        assert (again.added, again.deleted, again.note.rows) == (0, 0, done.note.rows), "nothing was missed"
        assert everything == set(live.of_snapshot(world.collection.snapshot()))


def test_a_table_that_somebody_wrote_to_is_compared_whole(world: World) -> None:
    rows = world.table()
    table_of(world).delete(sorted(rows)[:3])
    edit(world.docs)
    world.run()
    assert len(world.table()) > len(rows)
    assert set(world.table().values()) == {f"{n}.md" for n in range(8)}


def test_a_text_that_was_refused_is_compared_until_it_is_in(world: World) -> None:
    (world.docs / "bad.md").write_text("# Bad\n\nThis text has POISON in it.\n")
    world.server.set_fault("poison", match="POISON")
    try:
        first = world.run()
        assert first.vectors == first.chunks - 1
        edit(world.docs)
        second = world.run()
        assert len(world.table()) == second.vectors == second.chunks - 1
    finally:
        world.server.clear_faults()
    third = world.run(retry=True)
    assert len(world.table()) == third.vectors == third.chunks


def test_a_night_without_changes_opens_no_document_chunk_or_vector(world: World) -> None:
    first, root = world.run(), world.data / "default"
    for kind in ("documents", "chunks", "vectors"):
        (root / kind).rename(world.data / kind)
    second = world.run()
    assert (second.files["unchanged"], second.documents, second.chunks, second.vectors) == (
        8,
        8,
        first.chunks,
        first.chunks,
    )
    assert (second.embedded_texts, second.rows_added, second.snapshot) == (0, 0, first.snapshot)
