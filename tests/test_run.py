"""The whole graph on real folders, against the fake Ollama behind a real socket: costs of changes, and failures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline import config, dry_run, errors, ids, lance, live, run, status
from pipeline.progress import Silent
from pipeline.report import Report
from pipeline.store import Collection
from tests.fake_ollama.client import FakeOllama

ALL = frozenset(run.STAGES)
PREFIX = "Represent this sentence for searching relevant passages:"


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


@pytest.fixture
def server(shared: FakeOllama) -> FakeOllama:
    shared.reset()
    return shared


def sentence(*seed: object) -> str:
    """A sentence of its own for each seed."""
    words = [ids.embed_key(repr((*seed, n)))[:6] for n in range(14)]
    return f"{' '.join(words).capitalize()}."


def write_documents(folder: Path, files: int = 6, sections: int = 3, paragraphs: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        lines = [f"# Document {number}"]
        for section in range(sections):
            lines.append(f"## Section {section}")
            lines.extend(
                " ".join(sentence(number, section, paragraph, n) for n in range(4)) for paragraph in range(paragraphs)
            )
        (folder / f"{number}.md").write_text("\n\n".join(lines) + "\n")


class World:
    """A folder, a collection and a server, with the calls that the tests make."""

    def __init__(self, tmp_path: Path, server: FakeOllama) -> None:
        self.docs = tmp_path / "docs"
        self.data = tmp_path / "data"
        self.server = server
        self.settings = config.Settings(
            data=str(self.data),
            embed=config.EmbedSettings(provider="ollama", flush_s=0.2),
            ollama=config.OllamaSettings(hosts=(server.url,)),
            readers=config.ReaderSettings(workers=1),
        )

    def run(self, *stages: str, **options: Any) -> Report:
        chosen = frozenset(stages) or ALL
        folders = (self.docs,) if "ingest" in chosen else ()
        return run.execute(self.settings, run.Request(stages=chosen, folders=folders, **options), Silent())

    def plan(self) -> Report:
        return dry_run.plan(self.settings, run.Request(stages=ALL, folders=(self.docs,)), Silent())

    def texts(self, *stages: str, **options: Any) -> int:
        """How many texts a run sends to the server."""
        before = self.server.counters()["texts"]
        self.run(*stages, **options)
        return int(self.server.counters()["texts"] - before)

    @property
    def collection(self) -> Collection:
        return Collection(self.data, "default")

    def table(self) -> dict[str, str]:
        """chunk_id → uri of what readers see."""
        spec = self.collection.embedder()
        assert spec is not None
        reader = lance.Reader.open(self.collection.index_folder, live.table_name(spec))
        chunks = [
            chunk
            for shard in live.of_snapshot(self.collection.snapshot())
            for chunk in self.collection.read_chunks(
                live.chunk_params(self.settings, spec).fingerprint(), shard, ["chunk_id"]
            )["chunk_id"].to_pylist()
        ]
        rows = reader.get(chunks).to_pylist()
        assert reader.count() == len(rows), "the table holds rows that no live document asks for"
        return {row["chunk_id"]: row["uri"] for row in rows}


@pytest.fixture
def world(tmp_path: Path, server: FakeOllama) -> World:
    made = World(tmp_path, server)
    write_documents(made.docs)
    return made


# -- what a change costs


def test_a_second_run_does_nothing(world: World) -> None:
    first = world.run()
    assert (first.files["new"], first.documents) == (6, 6)
    assert first.chunks == first.vectors == first.rows_added == first.embedded_texts > 6
    texts = world.server.texts()
    assert len(texts) == len(set(texts))
    second = world.run()
    assert (second.embedded_texts, second.rows_added, second.rows_deleted) == (0, 0, 0)
    assert (second.files["unchanged"], second.chunks, second.vectors) == (6, first.chunks, first.vectors)
    assert world.server.texts() == texts


def test_stage_by_stage_is_the_same_as_at_once(world: World, tmp_path: Path) -> None:
    world.run()
    other = World(tmp_path, world.server)
    other.data = tmp_path / "other"
    other.settings = config.Settings(
        data=str(other.data),
        embed=world.settings.embed,
        ollama=world.settings.ollama,
        readers=world.settings.readers,
    )
    for stage in run.STAGES:
        report = other.run(stage)
    assert other.table() == world.table()
    assert report.vectors == report.chunks


def test_touching_every_file_embeds_nothing(world: World) -> None:
    world.run()
    for path in world.docs.iterdir():
        os.utime(path, ns=(1, 1))
    report = world.run()
    assert (report.embedded_texts, report.rows_added, report.files["unchanged"]) == (0, 0, 6)


def test_small_edits_cost_little(world: World) -> None:
    world.run()
    path = world.docs / "3.md"
    text = path.read_text()
    path.write_text(text + "\nOne more paragraph.\n")
    assert world.texts() <= 2
    path.write_text("A line at the top.\n\n" + path.read_text())
    assert world.texts() <= 2
    middle = path.read_text()
    at = middle.index(" ", len(middle) // 2)
    path.write_text(middle[:at] + " quite" + middle[at:])
    assert world.texts() <= 3
    assert set(world.table().values()) == {f"{n}.md" for n in range(6)}


def test_moves_copies_swaps_and_deletions_embed_nothing(world: World) -> None:
    world.run()
    rows = len(world.table())
    (world.docs / "sub").mkdir()
    (world.docs / "0.md").rename(world.docs / "sub" / "zero.md")
    report = world.run()
    assert (report.embedded_texts, report.files["moved"], report.files["deleted"]) == (0, 1, 0)
    assert "0.md" not in world.table().values()
    assert "sub/zero.md" in world.table().values()
    assert len(world.table()) == rows
    shutil.copyfile(world.docs / "1.md", world.docs / "copy.md")
    assert world.texts() == 0
    assert len(world.table()) > rows
    (world.docs / "copy.md").unlink()
    one, two = (world.docs / "1.md").read_text(), (world.docs / "2.md").read_text()
    (world.docs / "1.md").write_text(two)
    (world.docs / "2.md").write_text(one)
    report = world.run()
    assert (report.embedded_texts, report.files["deleted"], report.files["changed"]) == (0, 1, 2)
    assert len(world.table()) == rows


def test_another_chunk_size_embeds_only_new_texts_in_the_same_table(world: World) -> None:
    world.run()
    tables = list((world.data / "default" / "index").glob("*.lance"))
    smaller = config.ChunkSettings(size=64, max=128)
    world.settings = config.Settings(
        data=str(world.data), chunk=smaller, embed=world.settings.embed, ollama=world.settings.ollama
    )
    report = world.run()
    assert report.files["unchanged"] == 6
    assert report.embedded_texts > 0
    assert len(world.table()) == report.chunks
    assert list((world.data / "default" / "index").glob("*.lance")) == tables


# -- what the model is sent


@pytest.mark.parametrize("version", ["0.3.12", "0.9.0", "0.13.3", "0.32.15"])
def test_every_version_gets_the_right_texts(tmp_path: Path, version: str) -> None:
    from tests.fake_ollama import tokens

    with FakeOllama(version=version) as server:
        world = World(tmp_path, server)
        write_documents(world.docs, files=2)
        (world.docs / "long.md").write_text(" ".join(sentence("long", n).rstrip(".") for n in range(200)))
        shutil.copyfile(world.docs / "0.md", world.docs / "same.md")
        report = world.run()
        texts = server.texts()
    assert report.dims == 1024
    assert report.vectors == report.chunks > len(texts)
    assert len(texts) == len(set(texts))
    assert not any(text.startswith(PREFIX) for text in texts)
    assert max(tokens.count(texts)) <= 510


# -- failures


def test_bad_files_cost_themselves_only(world: World) -> None:
    (world.docs / "broken.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    (world.docs / "empty.md").write_bytes(b"")
    report = world.run()
    assert {(failure.uri, failure.kind) for failure in report.failures} == {
        ("broken.pdf", "damaged"),
        ("empty.md", "empty"),
    }
    assert (report.documents, report.files["failed"], report.rejects) == (6, 2, 2)
    again = world.run()
    assert again.failures == report.failures, "a failure that stands is reported again"
    assert world.collection.rejects().num_rows == 2, "and recorded once"
    (world.docs / "broken.pdf").unlink()
    (world.docs / "empty.md").write_text("Now it says something.")
    mended = world.run()
    assert (mended.failures, mended.documents) == ((), 7)


def test_a_poison_text_costs_itself_only(world: World) -> None:
    (world.docs / "bad.md").write_text("# Bad\n\nThis text has POISON in it.\n")
    world.server.set_fault("poison", match="POISON")
    try:
        report = world.run()
        (failure,) = report.failures
        assert (failure.uri, failure.stage) == ("bad.md", "embed")
        assert report.vectors == report.chunks - 1 == len(world.table())
        world.server.reset()
        world.server.set_fault("poison", match="POISON")
        assert world.texts() == 0, "it is not tried again every night"
    finally:
        world.server.clear_faults()
    mended = world.run(retry=True)
    assert (mended.failures, mended.vectors) == ((), mended.chunks)


def test_files_that_vanish_in_masses_stop_the_run(world: World) -> None:
    world.run()
    before = world.table()
    for number in range(4):
        (world.docs / f"{number}.md").unlink()
    with pytest.raises(errors.TooManyDeletions, match="4 of 6") as caught:
        world.run()
    assert "--max-delete" in caught.value.remedy
    assert world.table() == before
    assert world.run(max_delete=1.0).documents == 2


def test_an_emptied_folder_never_empties_the_index(world: World) -> None:
    world.run()
    shutil.rmtree(world.docs)
    with pytest.raises(errors.SourceError, match="does not exist"):
        world.run()
    world.docs.mkdir()
    with pytest.raises(errors.TooManyDeletions, match="6 of 6"):
        world.run()


def test_a_renamed_folder_is_no_mass_deletion(world: World) -> None:
    shutil.move(world.docs, world.docs.parent / "moved")
    world.docs.mkdir()
    shutil.move(world.docs.parent / "moved", world.docs / "a")
    world.run()
    (world.docs / "a").rename(world.docs / "b")
    report = world.run()
    assert (report.files["moved"], report.files["deleted"], report.embedded_texts) == (6, 0, 0)


def test_naming_another_folder_is_a_wish_and_an_empty_one_is_not(world: World) -> None:
    world.run()
    first, world.docs = world.docs, world.docs.parent / "others"
    world.docs.mkdir()
    with pytest.raises(errors.TooManyDeletions):
        world.run()
    (world.docs / "other.md").write_text("Another document.")
    report = world.run()
    assert (report.documents, set(world.table().values())) == (1, {"other.md"})
    assert any("instead" in note for note in report.notes)
    world.docs = first
    assert world.texts() == 0, "the vectors of what was there before are kept"


def test_a_wrong_folder_leaves_nothing_behind(tmp_path: Path, server: FakeOllama) -> None:
    with pytest.raises(errors.SourceError):
        World(tmp_path, server).run()
    assert not (tmp_path / "data").exists()


def test_an_empty_folder_is_said(tmp_path: Path, server: FakeOllama) -> None:
    world = World(tmp_path, server)
    world.docs.mkdir()
    report = world.run()
    assert report.documents == 0
    assert any("No documents found" in note for note in report.notes)


def test_a_server_that_is_down_is_never_another_model(world: World) -> None:
    world.run()
    gone = config.OllamaSettings(hosts=("http://127.0.0.1:9",))
    world.settings = config.Settings(data=str(world.data), ollama=gone)
    (world.docs / "new.md").write_text("Something new.")
    with pytest.raises(errors.ServerUnreachable):
        world.run()
    assert world.collection.embedder().provider == "ollama"  # type: ignore[union-attr]


def test_another_digest_under_the_same_tag_is_refused(world: World) -> None:
    world.run()
    world.server.set_fault("digest_change")
    try:
        with pytest.raises(errors.ModelMismatch):
            world.run()
    finally:
        world.server.clear_faults()


def test_stages_without_a_collection_say_what_to_do_first(tmp_path: Path, server: FakeOllama) -> None:
    world = World(tmp_path, server)
    for stage in ("chunk", "embed", "index"):
        with pytest.raises(errors.NoIndex, match="no collection"):
            world.run(stage)


# -- looking without touching


def test_a_dry_run_foretells_the_run(world: World) -> None:
    before = world.plan()
    assert not world.data.exists()
    assert before.planned is not None
    done = world.run()
    assert (before.planned.chunks, before.planned.tokens) == (done.embedded_texts, done.embedded_tokens)
    assert before.files == done.files
    (world.docs / "0.md").unlink()
    (world.docs / "1.md").write_text("Another text.")
    foretold = world.plan()
    assert foretold.planned is not None
    assert set(foretold.planned.fates) == {("0.md", "deleted"), ("1.md", "changed")}
    assert foretold.planned.chunks == 1
    assert foretold.planned.seconds is not None
    assert world.run().embedded_texts == 1


def test_the_status_says_what_is_held_and_what_is_due(world: World) -> None:
    with pytest.raises(errors.NoIndex):
        status.examine(world.settings)
    report = world.run()
    found = status.examine(world.settings)
    assert (found.documents, found.chunks, found.vectors) == (6, report.chunks, report.chunks)
    assert (found.provider, found.dims, found.rejects) == ("ollama", 1024, 0)
    assert found.model.startswith("mxbai-embed-large")
    assert (found.pending.files, found.pending.chunks, found.pending.index) == (0, 0, False)
    (world.docs / "new.md").write_text("New.")
    (world.docs / "0.md").unlink()
    assert status.examine(world.settings).pending.files == 2
    world.run("ingest")
    pending = status.examine(world.settings).pending
    assert (pending.files, pending.documents, pending.index) == (0, 1, True)


def test_a_document_that_cannot_be_chunked_costs_itself_only(world: World) -> None:
    """A word of 360,000 characters takes seconds to tokenise: more than the time limit of the first run."""
    (world.docs / "slow.txt").write_text("Zm9v" * 90_000)
    world.settings = replace(world.settings, chunk=config.ChunkSettings(timeout_s=1.2))
    report = world.run()
    assert {(failure.uri, failure.stage, failure.kind) for failure in report.failures} == {
        ("slow.txt", "chunk", "timeout")
    }
    assert report.files["failed"] == 0
    assert report.vectors == report.chunks == len(world.table())
    assert set(world.table().values()) == {f"{n}.md" for n in range(6)}
    assert world.texts() == 0
    world.settings = replace(world.settings, chunk=config.ChunkSettings(timeout_s=300.0))
    mended = world.run(retry=True)
    assert mended.failures == ()
    assert "slow.txt" in world.table().values()
