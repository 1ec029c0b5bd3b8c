"""Export on one machine, import on another: nothing embedded there, nothing believed unseen, nothing mixed."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pipeline import config, errors, live, run, transfer
from pipeline.models import EmbedderSpec
from pipeline.progress import Silent
from pipeline.store import Collection
from tests.command_line import NOWHERE, invoke
from tests.fake_ollama.client import FakeOllama
from tests.upkeep_world import World, three_nights


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


@pytest.fixture(scope="module")
def base(server: FakeOllama, tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("base"), server)
    three_nights(world)
    transfer.export(world.settings, world.data.parent / "vectors.parquet", Silent())
    return world


@pytest.fixture
def file(base: World) -> Path:
    return base.data.parent / "vectors.parquet"


@pytest.fixture
def laptop(base: World, tmp_path: Path) -> World:
    """A machine with the same documents in another place, and no collection yet."""
    docs = tmp_path / "elsewhere"
    shutil.copytree(base.docs, docs)
    return World(tmp_path, base.server, docs)


def take(world: World, file: Path) -> transfer.Imported:
    return transfer.load(world.settings, file, Silent())


def vectors_of(collection: Collection) -> dict[str, bytes]:
    spec = collection.embedder()
    assert spec is not None
    found: dict[str, bytes] = {}
    for batch in live.vector_log(collection, spec).batches():
        vectors = batch.column("vector").to_numpy(zero_copy_only=False)
        found |= {key: row.tobytes() for key, row in zip(batch["embed_key"].to_pylist(), vectors, strict=True)}
    return found


# -- there and back


def test_a_run_after_an_import_embeds_nothing(base: World, laptop: World, file: Path) -> None:
    done = take(laptop, file)
    assert done.added == done.texts == len(vectors_of(base.collection)) > 50
    assert laptop.texts() == 0
    assert laptop.rows() == base.rows()
    assert laptop.check().ok
    assert vectors_of(laptop.collection) == vectors_of(base.collection)


def test_without_a_model_server_all_but_a_question_works(base: World, laptop: World, file: Path) -> None:
    take(laptop, file)
    laptop.settings = replace(laptop.settings, ollama=config.OllamaSettings(hosts=(NOWHERE,)))
    assert laptop.night().embedded_texts == 0
    assert laptop.rows() == base.rows()


def test_a_second_import_adds_nothing(laptop: World, file: Path) -> None:
    first = take(laptop, file)
    parts = laptop.inventory.logs()
    again = take(laptop, file)
    assert (again.texts, again.added) == (first.texts, 0)
    assert laptop.inventory.logs() == parts


def test_an_import_joins_what_is_there(base: World, laptop: World, file: Path) -> None:
    (laptop.docs / "0.md").unlink()
    embedded = laptop.texts()
    done = take(laptop, file)
    assert 0 < done.added == done.texts - embedded
    assert vectors_of(laptop.collection) == vectors_of(base.collection)
    shutil.copy(base.docs / "0.md", laptop.docs)
    assert laptop.texts() == 0


def test_a_folder_of_files(base: World, laptop: World, tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    done = transfer.export(base.settings, folder, Silent(), file_rows=10)
    assert done.files == len(list(folder.glob("*.parquet"))) > 1
    assert take(laptop, folder).added == done.texts


def test_an_export_says_who_made_it_and_holds_no_text(base: World, file: Path) -> None:
    metadata = {key.decode(): value.decode() for key, value in (pq.read_schema(file).metadata or {}).items()}
    assert metadata["digest"] == base.spec.digest
    assert json.loads(metadata["pipeline.embedder"])["model"] == "mxbai-embed-large"
    assert pq.read_schema(file).names == ["embed_key", "vector"]
    assert b"Document 1" not in file.read_bytes()


def test_the_tokenizer_travels_with_the_vectors(base: World, tmp_path: Path) -> None:
    """A model whose tokenizer is not in the program: its texts must be cut there as they were cut here."""
    from pipeline.models import tokens

    text = json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}})
    identity = tokens.from_json(text).identity
    world = base.copy(tmp_path / "server")
    spec = dataclasses.replace(world.spec, tokenizer=identity)
    note = world.collection.published()
    assert note is not None
    with world.collection.writing():
        world.collection.keep_tokenizer(identity, text)
        world.collection.set_embedder(spec)
        world.collection.set_published(dataclasses.replace(note, spec=spec))
    transfer.export(world.settings, tmp_path / "vectors.parquet", Silent())
    other = World(tmp_path / "laptop", base.server)
    take(other, tmp_path / "vectors.parquet")
    kept = other.collection.tokenizer_file(identity)
    assert kept is not None
    assert kept.read_text() == text


# -- refusals


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"digest": "f" * 64}, "model digest"),
        ({"document_template": "passage: {text}"}, "document template"),
        ({"dims": 512}, "dims"),
        ({"storage": "float16"}, "storage"),
    ],
)
def test_vectors_of_another_model_are_refused(
    laptop: World, file: Path, base: World, change: dict[str, object], what: str
) -> None:
    with laptop.collection.writing():
        laptop.collection.set_embedder(dataclasses.replace(base.spec, **change))  # type: ignore[arg-type]
    with pytest.raises(errors.ModelMismatch, match=what) as caught:
        take(laptop, file)
    assert "--collection NAME import" in caught.value.remedy
    assert laptop.inventory.logs() == {}


def test_the_same_weights_behind_another_provider_are_welcome(laptop: World, file: Path, base: World) -> None:
    with laptop.collection.writing():
        laptop.collection.set_embedder(dataclasses.replace(base.spec, provider="openai", model="mxbai"))
    assert take(laptop, file).added > 0
    assert laptop.spec.provider == "openai"


def test_without_a_digest_provider_and_name_must_agree(base: World) -> None:
    nameless = dataclasses.replace(base.spec, digest="")
    transfer._compare(nameless, dataclasses.replace(nameless, model="mxbai-embed-large:latest"), "a", "b")
    for other in ({"provider": "openai"}, {"model": "bge-m3"}):
        with pytest.raises(errors.ModelMismatch):
            transfer._compare(nameless, dataclasses.replace(nameless, **other), "a", "b")  # type: ignore[arg-type]


def test_settings_that_name_another_model_refuse_the_import(laptop: World, file: Path) -> None:
    laptop.settings = replace(laptop.settings, embed=replace(laptop.settings.embed, model="bge-m3"))
    with pytest.raises(errors.ModelMismatch):
        take(laptop, file)
    assert not laptop.collection.exists


def corrupt(file: Path, target: Path, factor: float) -> Path:
    table = pq.read_table(file)
    vectors = np.stack(table["vector"].to_numpy())
    vectors[7] *= factor
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=table.schema.field("vector").type)
    pq.write_table(table.set_column(1, table.schema.field("vector"), column), target)
    return target


@pytest.mark.parametrize("factor", [np.nan, np.inf, 0.0, 1.01])
def test_a_vector_that_no_model_makes_is_refused(laptop: World, file: Path, tmp_path: Path, factor: float) -> None:
    with pytest.raises(errors.CorruptStore, match="1 vectors"):
        take(laptop, corrupt(file, tmp_path / "bad.parquet", factor))
    assert not laptop.collection.exists, "nothing of it was taken"


def test_half_an_export_is_refused(laptop: World, file: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.parquet"
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(errors.CorruptStore, match="Copy it again"):
        take(laptop, half)
    assert not laptop.collection.exists


def test_what_is_no_export_is_refused(laptop: World, tmp_path: Path, base: World) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "absent.parquet", tmp_path / "empty"):
        with pytest.raises(errors.UsageError, match="no export"):
            take(laptop, path)
    other = base.inventory.snapshots()[-1][1]
    with pytest.raises(errors.UsageError, match="not an export"):
        take(laptop, other)


def test_nothing_is_written_over(base: World, file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(errors.UsageError, match="there already"):
        transfer.export(base.settings, file, Silent())
    assert file.read_bytes() == before
    transfer.export(base.settings, file, Silent(), force=True)
    with pytest.raises(errors.UsageError, match="no folder"):
        transfer.export(base.settings, tmp_path / "no" / "such" / "file", Silent())


def test_other_chunk_settings_are_said(laptop: World, file: Path) -> None:
    laptop.settings = replace(laptop.settings, chunk=config.ChunkSettings(size=200))
    assert any("chunk.size = 256" in note for note in take(laptop, file).notes)


def test_nothing_to_export(tmp_path: Path) -> None:
    settings = config.Settings(data=str(tmp_path))
    with pytest.raises(errors.NoIndex):
        transfer.export(settings, tmp_path / "file.parquet", Silent())


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 60))
def test_groups_hold_every_batch_once(sizes: list[int], rows: int) -> None:
    batches = [pa.RecordBatch.from_pydict({"a": list(range(size))}) for size in sizes]
    groups = [list(group) for group in transfer._groups(batches, rows)]
    assert [batch for group in groups for batch in group] == batches
    assert all(sum(batch.num_rows for batch in group) >= rows for group in groups[:-1])


# -- the commands


def test_the_commands(base: World, file: Path, tmp_path: Path) -> None:
    data = ["--data", str(base.data)]
    made = invoke(tmp_path, *data, "export", str(tmp_path / "a.parquet"), "--json")
    assert made.exit_code == 0
    texts = json.loads(made.stdout)["texts"]
    taken = invoke(tmp_path, "--data", str(tmp_path / "new"), "import", str(tmp_path / "a.parquet"))
    assert taken.exit_code == 0
    assert f"Imported {texts} vectors of mxbai-embed-large" in taken.stdout
    assert "needs no model server" in taken.stderr
    assert "Next: " in taken.stderr
    assert invoke(tmp_path, *data, "export", str(tmp_path / "a.parquet")).exit_code == 2
    assert invoke(tmp_path, "--data", str(tmp_path / "none"), "export", "x.parquet").exit_code == 10
    wrong = invoke(
        tmp_path, "--data", str(tmp_path / "new"), "--model", "bge-m3", "import", str(tmp_path / "a.parquet")
    )
    assert wrong.exit_code == 12


def test_an_export_waits_for_no_run(base: World, tmp_path: Path) -> None:
    with base.collection.writing(), pytest.raises(errors.Locked):
        transfer.export(base.settings, tmp_path / "x.parquet", Silent())


def test_the_request_of_a_run_needs_a_spec(laptop: World, file: Path) -> None:
    """The embedder that an import records is the one that the next run opens: no choice is left to it."""
    take(laptop, file)
    laptop.settings = replace(laptop.settings, embed=replace(laptop.settings.embed, provider="auto"))
    report = run.execute(laptop.settings, run.Request(stages=frozenset(run.STAGES), folders=(laptop.docs,)), Silent())
    assert (report.model, report.embedded_texts) == ("mxbai-embed-large", 0)
    assert isinstance(laptop.spec, EmbedderSpec)
