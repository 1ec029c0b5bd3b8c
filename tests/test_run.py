"""The whole graph on real folders, against the fake Ollama behind a real socket: costs of changes, and failures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from pipeline import config, dry_run, errors, ids, lance, live, run, run_report, status
from pipeline.models import canary
from pipeline.progress import Pace, Silent
from pipeline.report import Report
from pipeline.store import Collection, VectorLog, files
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama

ALL = frozenset(run.STAGES)
PREFIX = "Represent this sentence for searching relevant passages:"


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

    def sent(self) -> list[str]:
        """What the server was sent of the documents: all but the known text by which a run knows it again."""
        return [text for text in self.server.texts() if text != canary.TEXT]

    def texts(self, *stages: str, **options: Any) -> int:
        """How many texts of the documents a run sends to the server."""
        before = len(self.sent())
        self.run(*stages, **options)
        return len(self.sent()) - before

    def parts(self) -> list[dict[str, str]]:
        """The metadata of the parts of the vector log."""
        return [files.parquet_metadata(part) for part in sorted((self.data / "default" / "vectors").rglob("*.parquet"))]

    def log(self) -> VectorLog:
        spec = self.collection.embedder()
        assert spec is not None
        return live.vector_log(self.collection, spec)

    def reader(self) -> lance.Reader:
        spec = self.collection.embedder()
        assert spec is not None
        return lance.Reader.open(self.collection.index_folder, live.table_name(spec))

    def embed(self, **changes: Any) -> None:
        """Change the settings of the embed stage."""
        self.settings = replace(self.settings, embed=replace(self.settings.embed, **changes))

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
    assert texts.count(canary.TEXT) == 1
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
        texts = world.sent()
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


def test_documents_that_the_model_cannot_read_are_told_once(tmp_path: Path, server: FakeOllama) -> None:
    world = World(tmp_path, server)
    world.docs.mkdir()
    for number in range(3):
        (world.docs / f"{number}.md").write_text(
            f"# 手册 {number}\n\n" + "港口的大门在早上六点打开，晚上十点关闭。" * 9
        )
    told = [note for note in world.run().notes if "Chinese" in note]
    assert len(told) == 1
    assert "mxbai-embed-large knows English only" in told[0]
    assert "bge-m3" in told[0]
    (world.docs / "3.md").write_text("港口的大门在早上六点打开。")
    assert [note for note in world.run().notes if "Chinese" in note] == [], "said when the model was chosen"


def test_a_night_that_fails_tells_what_it_embedded(world: World) -> None:
    world.run()
    write_documents(world.docs, files=8)
    (world.docs / "last.md").write_text("The server has lost its model now. " * 20)
    world.embed(batch_texts=1, concurrency=1)
    before = len(world.log())
    world.server.set_fault("missing_model", match="lost its model")
    with pytest.raises(errors.ModelMissing):
        world.run()
    report = run_report.past(world.collection)
    assert report is not None
    assert report.embedded_texts == len(world.log()) - before > 0
    assert report.embedded_tokens > report.embedded_texts
    assert 0 < report.embed_seconds < report.seconds


def test_a_night_without_news_needs_no_server(world: World) -> None:
    before = world.run()
    world.settings = config.Settings(data=str(world.data), ollama=config.OllamaSettings(hosts=("http://127.0.0.1:9",)))
    report = world.run()
    assert (report.vectors, report.embedded_texts) == (before.vectors, 0)


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


def test_a_rejected_text_is_tried_again_on_another_version_and_when_asked(world: World, tmp_path: Path) -> None:
    (world.docs / "bad.md").write_text("# Bad\n\nThis text has POISON in it.\n")
    with FakeOllama(vectors="hash", version="0.24.0") as server:
        world.server = server
        world.settings = replace(world.settings, ollama=config.OllamaSettings(hosts=(server.url,)))
        server.set_fault("poison", match="POISON")
        report = world.run()
        (failure,) = report.failures
        assert (failure.uri, failure.stage) == ("bad.md", "embed")
        assert report.vectors == report.chunks - 1 == len(world.table()), "it costs itself only"
        (first,) = world.collection.rejects().to_pylist()
        assert first["made_by"].endswith(" 0.24.0")
        assert world.texts() == 0, "it is not tried again every night"
        server.configure(version="0.32.15")
        assert world.texts() > 0
        assert [row["made_by"].split()[1] for row in world.collection.rejects().to_pylist()] == ["0.24.0", "0.32.15"]
        server.clear_faults()
        assert world.texts() == 0, "the server is the same"
        options = ("--data", str(world.data), "--ollama-host", server.url)
        done = invoke(tmp_path, *options, "retry", "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rejects"], found["embedded_texts"], found["vectors"]) == (0, 1, found["chunks"])


# -- who made the vectors


def test_every_part_and_the_table_say_who_made_their_vectors(world: World) -> None:
    world.run()
    spec = world.collection.embedder()
    assert spec is not None
    expected = {
        "provider": "ollama",
        "model": spec.model,
        "digest": spec.digest,
        "server_version": "0.32.15",
        "dims": "1024",
        "document_template": spec.document_template,
        "storage": "float32",
    }
    for found in (*world.parts(), world.reader().provenance):
        assert canary.decode(found.pop("canary")).shape == (1024,)
        assert found == expected


def test_the_servers_version_may_change_and_stands_beside_the_new_vectors(world: World) -> None:
    world.run()
    (world.docs / "new.md").write_text("Something new.")
    world.server.configure(version="0.24.0")
    try:
        world.run()
    finally:
        world.server.configure(version="0.32.15")
    assert {found["server_version"] for found in world.parts()} == {"0.32.15", "0.24.0"}
    assert len({found["canary"] for found in world.parts()}) == 1, "all are held against the first"


def test_other_vectors_under_the_same_digest_are_refused(world: World) -> None:
    world.run()
    parts = world.parts()
    (world.docs / "new.md").write_text("Something new.")
    world.server.configure(vectors="words")
    try:
        with pytest.raises(errors.ModelMismatch, match="makes other vectors") as caught:
            world.run()
    finally:
        world.server.configure(vectors="hash")
    assert caught.value.exit_code == 12
    assert "pipeline" in caught.value.remedy
    assert world.parts() == parts


def test_a_collection_from_before_the_canary_is_still_read(world: World) -> None:
    world.run()
    for part in (world.data / "default" / "vectors").rglob("*.parquet"):
        table = pq.read_table(part)
        kept = {b"provider", b"model", b"digest", b"dims", b"document_template"}
        metadata = {key: value for key, value in table.schema.metadata.items() if key in kept}
        pq.write_table(table.replace_schema_metadata(metadata), part, row_group_size=1024)
    (world.docs / "new.md").write_text("Something new.")
    report = world.run()
    assert (report.embedded_texts, report.vectors) == (1, report.chunks)
    assert [found.get("server_version", "") for found in world.parts()].count("") == len(world.parts()) - 1


# -- what vectors are kept as


def test_shorter_vectors_are_cut_and_of_unit_length_to_the_end(world: World) -> None:
    world.embed(dims=512)
    report = world.run()
    assert report.dims == 512
    fingerprint = live.chunk_params(world.settings, world.collection.embedder()).fingerprint()  # type: ignore[arg-type]
    (shard,) = live.of_snapshot(world.collection.snapshot())
    keys = world.collection.read_chunks(fingerprint, shard, ["embed_key"])["embed_key"].to_pylist()
    found = world.log().take(keys)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    text = world.sent()[0]
    whole = np.array(world.server.post("/api/embed", {"model": "mxbai-embed-large", "input": text})["embeddings"][0])
    cut = whole[:512] / np.linalg.norm(whole[:512])
    np.testing.assert_allclose(world.log().take([ids.embed_key(text)])[0], cut, atol=1e-6)
    nearest = world.reader().vector(cut.astype(np.float32), 1)
    assert nearest["similarity"][0].as_py() == pytest.approx(1.0, abs=1e-5)
    assert world.texts() == 0


def test_half_precision_is_kept_in_log_and_table(world: World) -> None:
    world.embed(storage="float16")
    report = world.run()
    text = world.sent()[0]
    for part in (world.data / "default" / "vectors").rglob("*.parquet"):
        assert pq.read_schema(part).field("vector").type.value_type == pa.float16()
        group = pq.read_metadata(part).row_group(0)
        assert group.column(1).total_compressed_size < 1.1 * 2 * 1024 * group.num_rows
    whole = np.array(world.server.post("/api/embed", {"model": "mxbai-embed-large", "input": text})["embeddings"][0])
    kept = world.log().take([ids.embed_key(text)])[0]
    np.testing.assert_array_equal(kept, whole.astype(np.float32).astype(np.float16).astype(np.float32))
    nearest = world.reader().vector(whole.astype(np.float32), 1)
    assert nearest["similarity"][0].as_py() == pytest.approx(1.0, abs=1e-3)
    world.embed(storage="float32")  # the default: a collection keeps what it was begun with
    assert world.texts() == 0
    assert world.run().vectors == report.chunks


def test_half_precision_is_for_a_new_collection(world: World) -> None:
    world.run()
    world.embed(storage="float16")
    with pytest.raises(errors.ModelMismatch, match="float32") as caught:
        world.run()
    assert "-new run DOCS" in caught.value.remedy


# -- how far it is


class Seen(Silent):
    """Keeps what it is told of the texts."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []
        self.paces: list[Pace] = []

    def grow(self, task: str, n: int) -> None:
        self.told += [("grow", n)] * (task == "texts")

    def advance(self, task: str, n: int = 1) -> None:
        self.told += [("advance", n)] * (task == "texts")

    def pace(self, task: str, pace: Pace) -> None:
        self.paces.append(pace)


def test_all_that_is_due_is_known_before_it_is_embedded(world: World) -> None:
    """Two shards, and the engine has room for less than one."""
    write_documents(world.docs, files=24, sections=12, paragraphs=6)
    world.run("ingest")
    world.run("chunk")
    assert len(list((world.data / "default" / "documents").iterdir())) == 2
    world.embed(batch_texts=16)
    world.server.configure(cost_us_per_token=5.0)
    seen = Seen()
    try:
        report = run.execute(world.settings, run.Request(stages=frozenset({"embed"})), seen)
    finally:
        world.server.configure(cost_us_per_token=0.0)
    grown = [at for at, (what, _) in enumerate(seen.told) if what == "grow"]
    assert sum(n for what, n in seen.told if what == "grow") == report.embedded_texts
    assert sum(n for what, n in seen.told if what == "advance") == report.embedded_texts
    assert sum(n for what, n in seen.told[: grown[-1]] if what == "advance") < report.embedded_texts / 2
    assert seen.paces[-1].servers == 1
    assert seen.paces[-1].left_s is not None


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
    """A word of 480,000 characters takes seconds to tokenise: more than the time limit of the first run."""
    (world.docs / "slow.txt").write_text("Zm9v" * 120_000)
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
