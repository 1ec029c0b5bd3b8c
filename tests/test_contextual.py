"""Contextual retrieval over real folders, against the fake Ollama: what is asked, how often, and what is then found."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline import check, config, errors, garbage, live, migrate
from pipeline.deadline import Deadline
from pipeline.models.templates import embed_text
from pipeline.progress import Silent
from pipeline.report import Report
from pipeline.stages import situate
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents

SAID = "It belongs to the zanzibar ledger of the harbour."


@pytest.fixture
def world(tmp_path: Path, server: FakeOllama) -> World:
    made = World(tmp_path, server)
    contextual(made)
    write_documents(made.docs, files=2, sections=2, paragraphs=2)
    server.configure(says=[SAID])
    return made


def contextual(world: World, **generate: Any) -> None:
    world.settings = replace(
        world.settings,
        chunk=config.ChunkSettings(size=64, max=100, contextual=True),
        generate=config.GenerateSettings(**generate),
    )


def asked(server: FakeOllama) -> int:
    return sum(entry.endpoint == "/api/chat" for entry in server.requests())


def rows(world: World) -> list[dict[str, Any]]:
    """Rows of the chunk files that are live."""
    spec = world.collection.embedder()
    assert spec is not None
    fingerprint = live.chunk_params(world.settings, spec).fingerprint()
    shards = live.of_snapshot(world.collection.snapshot())
    return [
        row
        for shard, docs in shards.items()
        for row in world.collection.read_chunks(fingerprint, shard).to_pylist()
        if row["doc_id"] in docs
    ]


def spec_of(world: World) -> Any:
    spec = world.collection.embedder()
    assert spec is not None
    return spec


def test_every_chunk_has_its_sentence_in_what_is_embedded_and_in_what_is_searched(world: World) -> None:
    report = world.run()
    made = rows(world)
    assert not report.notes
    assert asked(world.server) == len(made) == report.chunks == report.vectors > 4
    assert {situate.sentence_in(row["context"]) for row in made} == {SAID}
    spec = spec_of(world)
    sent = {embed_text(row["context"], row["text"], row["title"], spec.document_template) for row in made}
    assert sent == set(world.sent())
    assert all(SAID in text and not text.startswith("\n") for text in sent)
    assert all(row["tokens"] <= spec.limit for row in made)
    hits = world.reader().text("zanzibar", 5)  # no document says it: the sentence does
    assert len(hits) == 5
    assert not check.check(world.settings, Silent()).findings


def test_damaged_sentences_are_found_and_asked_for_again(world: World) -> None:
    world.run()
    made, before = rows(world), asked(world.server)
    part = max((world.collection.root / "contexts").glob("*/*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    (world.docs / "new.md").write_text("# News\n\nThe hut has a new door.\n")
    with pytest.raises(errors.CorruptStore) as refused:
        world.run()
    assert "check --fix" in refused.value.remedy
    found = check.check(world.settings, Silent(), fix=True)
    assert [finding.kind for finding in found.mended] == ["sentences"]
    assert found.ok
    world.run()
    assert len(rows(world)) == len(made) + 1
    assert asked(world.server) > before
    assert check.check(world.settings, Silent()).counts["sentences"] > 0


def test_another_model_gets_the_sentences_that_are_there(world: World) -> None:
    world.run()
    made, before = rows(world), asked(world.server)
    done = migrate.execute(world.settings, migrate.Wish(provider="builtin"), Silent())
    assert (done.state, done.chunks) == ("promoted", len(made))
    assert asked(world.server) == before
    assert {situate.sentence_in(row["context"]) for row in rows(world)} == {SAID}
    assert world.run().embedded_texts == 0
    assert not check.check(world.settings, Silent()).findings


def test_gc_frees_the_sentences_of_nobody_and_no_others(world: World) -> None:
    world.run()
    known = world.collection.root / "contexts" / spec_of(world).situated_by
    other = known.parent / "0123456789abcdef"
    shutil.copytree(known, other)
    freed = garbage.collect(world.settings, Silent()).freed["sentences"]
    assert (other.exists(), known.exists()) == (False, True)
    assert freed.files == len(list(known.iterdir()))
    before = asked(world.server)
    world.run()
    assert asked(world.server) == before


def test_what_was_said_is_never_asked_for_or_embedded_again(world: World) -> None:
    """Of a night without changes, a file that is moved, a copy, and the setting switched off and on again."""
    world.run()
    before, texts = asked(world.server), len(world.sent())
    world.run()
    (world.docs / "0.md").rename(world.docs / "moved.md")
    (world.docs / "copy.md").write_bytes((world.docs / "1.md").read_bytes())
    world.run()
    assert (asked(world.server), len(world.sent())) == (before, texts)
    on = world.settings
    world.settings = replace(on, chunk=replace(on.chunk, contextual=False))
    world.run()
    assert {situate.sentence_in(row["context"]) for row in rows(world)} == {""}
    texts = len(world.sent())
    world.settings = on
    world.run()
    assert (asked(world.server), len(world.sent())) == (before, texts)
    assert {situate.sentence_in(row["context"]) for row in rows(world)} == {SAID}


def test_sentences_come_before_vectors_so_that_models_do_not_take_turns(world: World) -> None:
    world.run()
    kinds = [
        entry.endpoint == "/api/chat" for entry in world.server.requests() if entry.texts or "chat" in entry.endpoint
    ]
    last_question = max(n for n, chat in enumerate(kinds) if chat)
    first_question = kinds.index(True)
    assert all(kinds[first_question : last_question + 1])


def test_stage_by_stage_is_the_same(world: World) -> None:
    for stage in ("ingest", "chunk", "embed", "index"):
        world.run(stage)
    assert {situate.sentence_in(row["context"]) for row in rows(world)} == {SAID}
    assert len(world.table()) == len(rows(world)) == asked(world.server)
    assert world.run().embedded_texts == 0


def test_replies_of_no_use_are_said_and_asked_for_again_by_retry_alone(world: World) -> None:
    world.server.configure(says=[" ", "\ufffd\ufffd", SAID])
    report = world.run()
    assert report.vectors == report.chunks  # what has no sentence is embedded without
    assert [note for note in report.notes if note.startswith("2 chunks have no sentence")]
    assert sum(not situate.sentence_in(row["context"]) for row in rows(world)) == 2
    before = asked(world.server)
    world.run()
    assert asked(world.server) == before
    world.run(retry=True)
    assert asked(world.server) - before == 2
    assert {situate.sentence_in(row["context"]) for row in rows(world)} == {SAID}


def test_a_fault_in_mid_answer_costs_another_try(world: World) -> None:
    world.server.set_fault("chat_error", count=1)
    report = world.run()
    assert {situate.sentence_in(row["context"]) for row in rows(world)} == {SAID}
    assert not any("no sentence" in note for note in report.notes)


def test_a_server_that_goes_away_ends_the_run_and_loses_nothing(world: World, tmp_path: Path) -> None:
    with FakeOllama(vectors="hash") as other:
        other.configure(says=[SAID])
        world.settings = replace(world.settings, ollama=replace(world.settings.ollama, hosts=(other.url,)))
        world.run()
        done = asked(other)
        write_documents(world.docs, files=3, sections=2, paragraphs=2)
        other.stop()
        with pytest.raises(errors.ServerUnreachable) as caught:
            world.run()
        assert caught.value.exit_code == 5
    assert world.reader().count() == done  # readers see what they saw
    world.settings = replace(world.settings, ollama=replace(world.settings.ollama, hosts=(world.server.url,)))
    world.run()
    assert asked(world.server) == len(rows(world)) - done > 0


def test_killed_in_the_middle_it_asks_for_the_rest(world: World, tmp_path: Path) -> None:
    write_documents(world.docs, files=6, sections=3, paragraphs=3)
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f'data = "{world.data}"\n[embed]\nprovider = "ollama"\nflush_s = 0.1\n'
        f'[ollama]\nhosts = ["{world.server.url}"]\n'
        "[chunk]\nsize = 64\nmax = 100\ncontextual = true\n[readers]\nworkers = 1\n"
    )
    world.server.set_fault("slow", seconds=0.05)
    words = [sys.executable, "-m", "pipeline", "--config", str(file), "-q", "run", str(world.docs)]
    process = subprocess.Popen(words, start_new_session=True)
    try:
        while asked(world.server) < 20 and process.poll() is None:
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    world.server.clear_faults()
    before = asked(world.server)
    world.run()
    total = len(rows(world))
    assert 20 <= before < total
    assert asked(world.server) - total <= 10  # what half a second of flushing and two requests in flight can hold
    assert {situate.sentence_in(row["context"]) for row in rows(world)} == {SAID}


def test_a_time_limit_leaves_the_rest_to_the_next_night_and_asks_nothing_twice(world: World) -> None:
    world.server.set_fault("slow", seconds=2.0)  # two at a time: four of the six in the 2.8 s that they may take
    report = world.run(end=Deadline.after(5))
    assert report.incomplete
    world.server.clear_faults()
    before = asked(world.server)
    report = world.run()
    assert before < asked(world.server) == report.chunks == report.vectors


# -- who writes them


def test_without_a_model_that_answers_it_says_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Rain.")
    for generate, ollama in (
        (config.GenerateSettings(provider="none"), config.OllamaSettings()),
        (config.GenerateSettings(), config.OllamaSettings(hosts=("http://127.0.0.1:9",))),
    ):
        world = World(tmp_path, FakeOllama())
        world.settings = replace(
            world.settings,
            embed=config.EmbedSettings(provider="builtin"),
            chunk=config.ChunkSettings(contextual=True),
            generate=generate,
            ollama=ollama,
        )
        with pytest.raises(errors.ConfigError, match=r"chunk\.contextual needs a model") as caught:
            world.run()
        assert "chunk.contextual = false" in caught.value.remedy


def test_a_model_that_is_missing_is_named(world: World) -> None:
    contextual(world, model="nobody")
    with pytest.raises(errors.ModelMissing, match="nobody"):
        world.run()


def test_the_embedded_model_takes_sentences_of_ollama(world: World) -> None:
    world.settings = replace(world.settings, embed=config.EmbedSettings(provider="builtin", flush_s=0.2))
    report = world.run()
    assert report.provider == "builtin"
    assert asked(world.server) == report.chunks == report.vectors
    assert not world.sent()


def test_a_night_without_news_needs_no_server(world: World) -> None:
    world.settings = replace(world.settings, embed=config.EmbedSettings(provider="builtin", flush_s=0.2))
    world.run()
    world.settings = replace(world.settings, ollama=config.OllamaSettings(hosts=("http://127.0.0.1:9",)))
    assert world.run().embedded_texts == 0


def test_who_writes_is_in_the_fingerprint_and_the_window_is_not(world: World) -> None:
    """The window decides how much of a long document the model sees: raising it does not cost every sentence."""
    world.run()
    spec = spec_of(world)
    assert spec.situated_by == situate.made_by(digest(world, "llama3.2")) != situate.made_by("another")
    before = asked(world.server)
    contextual(world, num_ctx=4096)
    world.run()
    assert asked(world.server) == before


def digest(world: World, model: str) -> str:
    tags = world.server.get("/api/tags")["models"]
    return str(next(tag["digest"] for tag in tags if tag["name"].split(":")[0] == model))


def test_an_edited_chunk_is_asked_about_and_no_other_and_a_dry_run_says_so(world: World) -> None:
    def calls(report: Report) -> list[str]:
        return [note.split(" ")[0] for note in report.notes if "sentences would be asked of llama3.2" in note]

    planned = world.plan()
    world.run()
    before, texts = asked(world.server), len(world.sent())
    assert calls(planned) == [str(before)]
    assert calls(world.plan()) == ["0"]
    path = world.docs / "0.md"
    path.write_text(path.read_text() + f"\n{sentence('a new end')}\n")
    planned = world.plan()
    world.run()
    assert 1 <= asked(world.server) - before <= 2
    assert len(world.sent()) - texts == asked(world.server) - before
    assert calls(planned) == [str(asked(world.server) - before)]
