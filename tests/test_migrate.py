"""A change of model over several nights: the old one serves until the new one is whole, and then the new one does."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline import config, errors, history, ids, kept, live, migrate, query, rollback, search, status
from pipeline.migrate import Standing, Wish
from pipeline.models import EmbedderSpec, canary
from pipeline.progress import Silent
from pipeline.serve.meter import Meter
from pipeline.serve.shelf import Shelf
from pipeline.store import keys
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents

OLD, NEW, OTHER = "mxbai-embed-large", "bge-m3", "nomic-embed-text"


class Moving(World):
    def migrate(self, model: str = NEW, **wish: Any) -> Standing:
        return migrate.execute(self.settings, Wish(model=model, **wish), Silent())

    def go_on(self) -> Standing:
        return migrate.execute(self.settings, Wish(), Silent())

    def status(self) -> Standing:
        return migrate.status(self.settings)

    def serving(self) -> tuple[str, int]:
        """The model that a question goes to, and the rows that it is asked of."""
        standing = query.open_collection(self.settings)
        reader = query.open_reader(standing)
        assert reader.provenance["model"] == standing.spec.model
        assert reader.dims == standing.spec.dims
        return standing.spec.model, reader.count()

    def ask(self, question: str) -> list[search.Hit]:
        return query.find(self.settings, question, top_k=3)

    def sent_to(self, model: str) -> list[str]:
        mine = [text for text in self.server.received() if text.model.partition(":")[0] == model]
        return [text.text for text in mine if text.text != canary.TEXT]

    def limit(self, span: str) -> None:
        self.settings = replace(self.settings, run=replace(self.settings.run, max_duration=span))

    def spec(self) -> EmbedderSpec:
        spec = self.collection.embedder()
        assert spec is not None
        return spec

    def embed_batches_of(self, texts: int) -> None:
        self.settings = replace(self.settings, embed=replace(self.settings.embed, batch_texts=texts))

    def die_over(self, text: str) -> None:
        """Let every request with this text fail until the run gives up."""
        self.server.set_fault("missing_model", match=text)

    def command(self, *arguments: str) -> Any:
        more = {"PIPELINE_OLLAMA_HOSTS": self.server.url}
        return invoke(self.data.parent, "--data", str(self.data), *arguments, env=more)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash", models=[OLD, NEW, OTHER]) as started:
        yield started


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, server: FakeOllama) -> Path:
    folder = tmp_path_factory.mktemp("before")
    world = Moving(folder, server)
    write_documents(world.docs, files=3, sections=2, paragraphs=2)
    world.run()
    return folder


@pytest.fixture
def moving(made: Path, tmp_path: Path, server: FakeOllama) -> Moving:
    server.reset()
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return Moving(tmp_path, server)


def test_a_model_is_changed_in_one_go(moving: Moving) -> None:
    before = moving.serving()
    assert before[0] == OLD
    done = moving.migrate()
    assert (done.state, done.before, done.after, done.dims) == ("promoted", OLD, NEW, 1024)
    assert done.vectors == done.chunks == done.embedded_texts > 0
    assert moving.serving() == (NEW, done.chunks)
    assert moving.sent_to(OLD) == []
    sent = moving.sent_to(NEW)
    assert len(sent) == len(set(sent)) == done.embedded_texts
    assert moving.collection.embedder().model == NEW  # type: ignore[union-attr]
    entry = history.entries(moving.settings)[-1]
    assert (entry.number, entry.model, entry.remarks) == (done.snapshot, NEW, (f"{NEW} instead of {OLD}",))
    assert entry.files is not None
    assert not any(entry.files.counts().values())
    assert moving.ask(sentence(0, 0, 0, 0))
    assert moving.sent_to(OLD) == []


def test_the_old_one_serves_and_is_kept_up_meanwhile(moving: Moving) -> None:
    old_rows = moving.serving()[1]
    moving.limit("0s")
    first = moving.migrate()
    assert (first.state, first.after, first.embedded_texts, first.documents) == ("building", NEW, 0, 3)
    assert moving.serving() == (OLD, old_rows)
    assert moving.status().state == "building"
    (moving.docs / "fresh.md").write_text(f"# Fresh\n\n{sentence('fresh')}\n")
    moving.limit("")
    moving.run()
    assert moving.serving() == (OLD, old_rows + 1)
    assert moving.sent_to(NEW) == []
    last = moving.go_on()
    assert last.state == "promoted"
    assert moving.serving() == (NEW, last.chunks)
    assert any("Fresh" in text for text in moving.sent_to(NEW))
    assert moving.status().state == "none"
    again = moving.go_on()  # the command of the night after
    assert (again.state, again.before) == ("there already", NEW)
    assert moving.run().embedded_texts == 0


def test_a_night_that_fails_is_gone_on_with(moving: Moving) -> None:
    before = moving.serving()
    moving.die_over(sentence(2, 1, 1, 0))
    moving.embed_batches_of(1)
    with pytest.raises(errors.ModelError):
        moving.migrate()
    assert moving.serving() == before
    standing = moving.status()
    assert standing.state == "building"
    assert 0 < standing.vectors < standing.chunks
    moving.server.clear_faults()
    made_before = standing.vectors
    done = moving.go_on()
    assert done.state == "promoted"
    assert done.embedded_texts == done.chunks - made_before


def test_back_to_the_old_model_and_forward_again(moving: Moving) -> None:
    before = moving.serving()
    done = moving.migrate()
    moving.server.reset()
    back = rollback.execute(moving.settings, None, Silent())
    assert (back.after, back.model, back.remarks) == (1, OLD, (f"{OLD} instead of {NEW}",))
    assert moving.serving() == before
    assert moving.server.texts() == []
    assert moving.run().model == OLD
    again = moving.migrate()
    assert (again.state, again.embedded_texts) == ("promoted", 0)
    assert moving.serving() == (NEW, done.chunks)


def test_both_models_are_spared_as_long_as_they_are_kept(moving: Moving) -> None:
    done = moving.migrate()
    found = kept.referenced(moving.collection, moving.settings)
    assert len(found.vectors) == len(found.tables) == 2
    root = moving.data / "default"
    assert {path.name for path in (root / "vectors").iterdir()} == found.vectors
    moving.settings = replace(moving.settings, run=replace(moving.settings.run, keep=1))
    alone = kept.referenced(moving.collection, moving.settings)
    spec = moving.collection.embedder()
    assert spec is not None
    assert alone.vectors == {live.vectors_fp(spec)}
    assert len(kept.needed_keys(moving.collection, alone, live.vectors_fp(spec))) == done.chunks


def test_giving_up_leaves_everything_as_it_was(moving: Moving) -> None:
    before = moving.serving()
    moving.limit("0s")
    moving.migrate()
    gone = migrate.abort(moving.settings)
    assert (gone.state, gone.after) == ("aborted", NEW)
    assert moving.status().state == "none"
    assert moving.serving() == before
    with pytest.raises(errors.UsageError, match="No other model"):
        migrate.abort(moving.settings)
    with pytest.raises(errors.UsageError, match="Which model"):
        moving.go_on()
    assert moving.migrate(OTHER).state == "building"  # the time is still up


def test_what_cannot_be_begun_is_refused(moving: Moving, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="Which model"):
        moving.go_on()
    assert moving.migrate(OLD).state == "there already"
    with pytest.raises(errors.ModelMissing):
        moving.migrate("no-such-model")
    assert moving.collection.migrations.newest() is None
    moving.limit("0s")
    moving.migrate(NEW)
    with pytest.raises(errors.UsageError, match=f"changed to {NEW}"):
        moving.migrate(OTHER)
    empty = config.Settings(data=str(tmp_path / "none"))
    for ask in (migrate.status, migrate.abort, lambda given: migrate.execute(given, Wish(model=NEW), Silent())):
        with pytest.raises(errors.NoIndex):
            ask(empty)
    assert not (tmp_path / "none").exists()


def test_a_model_that_refuses_too_much_is_not_promoted(moving: Moving) -> None:
    before = moving.serving()
    moving.server.set_fault("nan", match="Section 1", sticky=True)
    with pytest.raises(errors.TooManyDeletions, match=f"{NEW} refused"):
        moving.migrate()
    assert moving.serving() == before
    standing = moving.status()
    assert standing.failures
    assert standing.texts_left == 0
    moving.server.clear_faults()
    moving.settings = replace(moving.settings, run=replace(moving.settings.run, max_delete=1.0))
    done = moving.go_on()
    assert done.state == "promoted"
    assert len(done.failures) == done.chunks - done.vectors == done.chunks - moving.serving()[1]


def test_the_golden_questions_speak_before_the_promotion(moving: Moving, tmp_path: Path) -> None:
    """The new model refuses the passages that answer one of the two questions."""
    golden = tmp_path / "golden.jsonl"
    asked = [{"question": sentence(0, n, 0, 0), "path": "0.md", "quote": sentence(0, n, 0, 0)} for n in (0, 1)]
    golden.write_text("\n".join(map(json.dumps, asked)))
    moving.settings = replace(
        moving.settings,
        quality=config.QualitySettings(questions=str(golden)),
        search=config.SearchSettings(mode="text"),
        run=replace(moving.settings.run, max_delete=1.0),
    )
    before = moving.serving()
    moving.server.set_fault("nan", match="Section 1", sticky=True)
    with pytest.raises(errors.QualityDropped, match="finds 1 of 2"):
        moving.migrate()
    assert moving.serving() == before
    assert moving.status().state == "building"


def test_a_kill_right_after_the_promotion_is_no_matter(moving: Moving) -> None:
    """The note decides, not the record of the migration that would have been written next."""
    done = moving.migrate()
    record = moving.collection.migrations.newest()
    assert record is not None
    assert record.state == "promoted"
    with moving.collection.writing():
        moving.collection.migrations.append(dataclasses.replace(record, state="building"))
    assert kept.under_way(moving.collection) is None
    assert moving.status().state == "none"
    assert moving.go_on().state == "there already"
    assert moving.serving() == (NEW, done.chunks)


def test_a_service_takes_the_new_model_with_the_new_table(moving: Moving) -> None:
    async def ask_before_and_after() -> list[tuple[str, str]]:
        shelf, answers = Shelf(moving.settings, Meter()), []
        try:
            for _ in range(2):
                opened = (await shelf.find("default", sentence(0, 0, 0, 0))).opened
                answers.append((opened.spec.model, opened.reader.provenance["model"]))
                await asyncio.to_thread(moving.migrate)
        finally:
            await shelf.aclose()
        return answers

    assert asyncio.run(ask_before_and_after()) == [(OLD, OLD), (NEW, NEW)]


def test_shorter_vectors_of_the_same_model(moving: Moving) -> None:
    done = moving.migrate(model="", dims=256)
    assert (done.state, done.after, done.dims) == ("promoted", OLD, 256)
    entry = history.entries(moving.settings)[-1]
    assert entry.remarks == (f"{OLD} otherwise: 256 dimensions as float32, before 1024 as float32",)
    assert moving.serving()[0] == OLD
    assert query.open_reader(query.open_collection(moving.settings)).dims == 256


def test_settings_that_name_the_old_model_do_not_stop_the_night_after(
    moving: Moving, caplog: pytest.LogCaptureFixture
) -> None:
    moving.embed(model=OLD)
    moving.migrate()
    assert moving.run().model == NEW
    assert moving.ask(sentence(0, 0, 0, 0))
    assert f"another embedding model ({OLD})" in caplog.text
    moving.embed(model=OTHER)
    with pytest.raises(errors.ModelMismatch):
        moving.run()
    caplog.clear()
    moving.embed(model=NEW)
    moving.run()
    assert caplog.text == ""


def test_settings_may_name_the_new_model_before_it_serves(moving: Moving) -> None:
    moving.limit("0s")
    moving.migrate()
    moving.limit("")
    moving.embed(model=NEW)
    assert moving.run().model == OLD


def test_the_vectors_are_those_of_the_new_model(moving: Moving) -> None:
    """What the new model's log holds is what was sent to it, and all that its generation needs."""
    moving.migrate()
    texts = [ids.embed_key(text) for text in moving.sent_to(NEW)]
    assert moving.log().contains(texts).all()
    assert len(moving.log()) == len(texts)
    needed = kept.needed_keys(
        moving.collection, kept.referenced(moving.collection, moving.settings), live.vectors_fp(moving.spec())
    )
    assert set(needed.tolist()) == set(keys.packed(texts).tolist())


def test_the_command(moving: Moving) -> None:
    assert f"{OLD} (1024 dimensions) serves" in moving.command("migrate", "--status").stdout
    assert moving.command("migrate").exit_code == 2
    assert moving.command("migrate", "--status", "--abort").exit_code == 2
    stopped = moving.command("migrate", "--model", NEW, "--max-duration", "0s")
    assert stopped.exit_code == 0
    assert f"Incomplete: {OLD} goes on serving." in stopped.stdout
    assert json.loads(moving.command("migrate", "--status", "--json").stdout)["state"] == "building"
    done = moving.command("migrate")
    assert done.exit_code == 0
    assert f"Changed from {OLD} to {NEW} (1024 dimensions), as snapshot 2." in done.stdout
    assert "already" in moving.command("migrate", "--model", NEW).stdout
    shown = moving.command("migrate", "--help").stdout
    assert "--model NAME" in shown
    assert "--data" not in shown
    assert status.examine(moving.settings).model == NEW
