"""Said before it is done: a dry run, what other settings would cost, and what would happen to one file and why."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline import changes, config, errors, left_out, run, settings_plan, why
from pipeline.progress import Silent
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents


@pytest.fixture
def world(tmp_path: Path, shared: FakeOllama) -> World:
    shared.reset()
    made = World(tmp_path, shared)
    write_documents(made.docs)
    return made


def files_of(world: World) -> dict[str, int]:
    """Every file of the collection but what a run leaves in any case, with its size."""
    root = world.data / "default"
    return {str(path.relative_to(root)): path.stat().st_size for path in root.rglob("*") if path.is_file()}


# -- dry run


def test_a_dry_run_names_what_the_run_then_does(world: World) -> None:
    world.run()
    (world.docs / "0.md").rename(world.docs / "moved.md")
    (world.docs / "1.md").unlink()
    (world.docs / "2.md").write_text("Another text.\n")
    (world.docs / "new.md").write_text("A new text.\n")
    (world.docs / "bad.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    before = files_of(world)
    planned = world.plan()
    assert files_of(world) == before, "nothing was written"
    assert planned.planned is not None
    assert dict(planned.planned.fates) == {
        "1.md": "deleted",
        "2.md": "changed",
        "bad.pdf": "damaged",
        "moved.md": "moved",
        "new.md": "new",
    }
    assert planned.planned.seconds is not None
    sent = len(world.sent())
    report = world.run()
    assert report.files == planned.files
    assert (report.embedded_texts, report.embedded_tokens) == (planned.planned.chunks, planned.planned.tokens)
    assert report.chunks == planned.chunks
    assert len(world.sent()) == sent + 2


def test_a_dry_run_after_ingest_alone_counts_what_was_read(world: World) -> None:
    whole = world.plan()
    world.run("ingest")
    again = world.plan()
    assert whole.planned is not None
    assert again.planned is not None
    assert (again.chunks, again.planned.chunks) == (whole.chunks, whole.planned.chunks)
    assert again.chunks > 0


def test_a_dry_run_cuts_what_other_settings_ask_for_and_says_what_would_stop_it(world: World) -> None:
    world.run()
    world.settings = replace(world.settings, chunk=config.ChunkSettings(size=64, max=128))
    planned = world.plan().planned
    report = world.run()
    assert planned is not None
    assert planned.chunks == report.embedded_texts > 0
    assert planned.tokens == report.embedded_tokens
    for number in range(4):
        (world.docs / f"{number}.md").unlink()
    assert any(note.startswith("The run would stop: 4 of 6 files are no longer in") for note in world.plan().notes)


# -- plan


def planned(world: World, **sections: config.Section) -> settings_plan.SettingsPlan:
    new = replace(world.settings, **sections)
    before, after = config_flat(world.settings), config_flat(new)
    changed = {key: (str(before[key]), str(after[key])) for key in after if before[key] != after[key]}
    return settings_plan.plan(world.settings, new, changed, Silent())


def config_flat(settings: config.Settings) -> dict[str, object]:
    from pipeline import config_load

    return config_load.flatten(settings)


def test_a_plan_counts_what_the_run_then_does(world: World) -> None:
    first = world.run()
    before = files_of(world)
    found = planned(world, chunk=config.ChunkSettings(size=96, max=160))
    assert files_of(world) == before, "nothing was written"
    assert len(world.sent()) == first.embedded_texts, "nothing was embedded"
    assert (found.documents, found.to_read, found.to_chunk, found.chunks_now) == (6, 0, 6, first.chunks)
    world.settings = replace(world.settings, chunk=config.ChunkSettings(size=96, max=160))
    report = world.run()
    assert found.chunks == report.chunks
    assert (found.texts, found.tokens) == (report.embedded_texts, report.embedded_tokens)
    assert found.surviving == report.chunks - report.embedded_texts
    assert found.seconds is not None


def test_each_kind_of_setting_costs_what_it_must(world: World) -> None:
    (world.docs / "page.html").write_text(f"<html><body><h1>Title</h1><p>{sentence('page')}</p></body></html>")
    (world.docs / ".hidden.md").write_text(f"{sentence('hidden')}\n")
    first = world.run()
    (world.docs / "3.md").write_text("Changed since: due anyway, and not counted.\n")
    tuning = planned(world, embed=replace(world.settings.embed, batch_texts=7), search=config.SearchSettings(top_k=9))
    assert (tuning.texts, tuning.to_chunk, tuning.surviving) == (0, 0, first.chunks)
    reader = planned(world, readers=replace(world.settings.readers, html="unstructured"))
    assert (reader.documents, reader.to_read, reader.other_table) == (7, 1, False)
    assert reader.to_chunk <= 1
    fewer = planned(world, source=config.SourceSettings(exclude=("0.md", "1.md")))
    assert (fewer.to_drop, fewer.to_read, fewer.texts) == (2, 0, 0)
    assert fewer.chunks < first.chunks
    more = planned(world, source=config.SourceSettings(hidden=True))
    assert (more.to_drop, more.to_read, more.texts) == (0, 1, 1)
    model = planned(world, embed=config.EmbedSettings(provider="builtin"))
    assert (model.other_table, model.model, model.surviving) == (True, "all-minilm-l6-v2", 0)
    assert model.texts > 0
    assert model.seconds is None, "it never ran here"


def test_the_plan_command(world: World, tmp_path: Path) -> None:
    words = ("--data", str(world.data), "plan")
    assert invoke(tmp_path, *words, "--set", "chunk.size=96").exit_code == 10, "there is no collection yet"
    world.run()
    result = invoke(tmp_path, *words, "--set", "chunk.size=96", "--set", "chunk.max=160")
    assert result.exit_code == 0
    assert "chunk.size: 256 -> 96\nchunk.max: 400 -> 160\n" in result.stdout
    assert "survive" in result.stdout
    found = json.loads(invoke(tmp_path, *words, "--set", "chunk.size=96", "--json").stdout)
    assert found["changed"] == [["chunk.size", "256", "96"]]
    assert found["texts"] + found["surviving"] >= found["chunks"]
    for wrong, said in (
        ("chunk.sise=3", "Did you mean chunk.size?"),
        ("chunk.size", "write KEY=VALUE"),
        ("chunk.size=0", "chunk.size"),
        ("chunk.size=256", "are what they are asked to be"),
    ):
        result = invoke(tmp_path, *words, "--set", wrong)
        assert (result.exit_code, said in result.stderr) == (2, True), wrong


# -- why


def ask(world: World, name: str) -> why.Why:
    return why.explain(world.settings, world.docs / name)


def test_each_fate_of_a_file_is_told_with_its_cause(world: World) -> None:
    (world.docs / "bad.pdf").write_bytes(b"%PDF-1.7\nnothing more")
    world.run()
    (world.docs / "1.md").write_text("Another text.\n")
    world.run()
    old, new = ask(world, "0.md"), ask(world, "1.md")
    assert (old.verdict, old.to_embed) == ("unchanged", 0)
    assert old.summary.startswith("nothing: unchanged since snapshot 1 (20")
    assert new.summary.startswith("nothing: unchanged since snapshot 2 (20")
    assert len(old.chunks) > 3
    assert all(chunk.embedded and not chunk.reason for chunk in old.chunks)
    bad = ask(world, "bad.pdf")
    assert (bad.verdict, bad.summary[:9]) == ("rejected", "damaged: ")
    assert "`pipeline retry`" in bad.causes[0]
    path = world.docs / "3.md"
    path.write_text(path.read_text() + f"\n\n## One more\n\n{sentence('more')} {sentence('and more')}\n")
    (world.docs / "new.md").write_text("A new text.\n")
    (world.docs / "0.md").rename(world.docs / "moved.md")
    os.utime(world.docs / "2.md", ns=(1, 1))
    (world.docs / "4.md").unlink()
    changed, fresh, moved, touched, gone = (ask(world, f"{n}.md") for n in ("3", "new", "moved", "2", "4"))
    assert (changed.verdict, changed.summary) == ("changed", "its content changed")
    assert [chunk.reason for chunk in changed.chunks if not chunk.embedded] == ["the text is new to this model"]
    assert (fresh.verdict, fresh.to_embed) == ("new", 1)
    assert (moved.verdict, moved.summary, moved.to_embed) == ("moved", "it was 0.md", 0)
    assert (touched.verdict, touched.to_embed) == ("touched", 0)
    assert (gone.verdict, gone.causes) == ("deleted", ("it was searchable until now: its rows would be dropped",))
    with pytest.raises(errors.UsageError, match="There is no file"):
        ask(world, "never.md")
    assert world.run().embedded_texts == changed.to_embed + fresh.to_embed


def test_what_changed_besides_the_file_is_named(world: World) -> None:
    (world.docs / "page.html").write_text(f"<html><body><h1>Title</h1><p>{sentence('page')}</p></body></html>")
    world.run("ingest")
    world.run("chunk")
    found = ask(world, "0.md")
    assert found.to_embed == len(found.chunks) > 0
    assert found.causes == ("an earlier run did not get to it",)
    world.run()
    world.settings = replace(
        world.settings,
        chunk=config.ChunkSettings(size=96, max=400),
        readers=replace(world.settings.readers, html="unstructured"),
    )
    found = ask(world, "0.md")
    assert (found.verdict, found.summary[:16]) == ("unchanged", "unchanged since ")
    assert found.to_embed > 0
    assert found.causes == ("the chunk settings changed since the last publication: size 256 -> 96",)
    page = ask(world, "page.html")
    assert re.search(r"its reader changed: html/\d+ -> unstructured-html/\d+", page.summary)


def test_several_folders_and_names_as_search_shows_them(world: World, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(world.docs, other)
    run.execute(world.settings, run.Request(stages=frozenset(run.STAGES), folders=(world.docs, other)), Silent())
    assert why.explain(world.settings, other / "1.md").uri == "other/1.md"
    assert why.explain(world.settings, Path("docs/1.md")).uri == "docs/1.md"
    for nowhere in (Path("/etc/passwd"), Path("1.md")):
        with pytest.raises(errors.UsageError, match="in none of this collection's folders"):
            why.explain(world.settings, nowhere)


def test_the_why_command(world: World, tmp_path: Path) -> None:
    words = ("--data", str(world.data), "why")
    assert invoke(tmp_path, *words, "x.md").exit_code == 10
    world.run()
    path = world.docs / "0.md"
    result = invoke(tmp_path, *words, str(path))
    assert result.stdout.startswith("0.md: nothing: unchanged since snapshot 1 (")
    assert "all have their vector" in result.stdout
    path.write_text("Another text.\n")
    result = invoke(tmp_path, *words, "-v", str(path))
    assert "0.md: changed: its content changed\n  1 chunk: 1 to embed, " in result.stdout
    assert "embed: the text is new to this model\n       Another text." in result.stdout
    found = json.loads(invoke(tmp_path, *words, "--json", str(path)).stdout)
    assert (found["verdict"], found["to_embed"], len(found["chunks"])) == ("changed", 1, 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (".hidden.md", "its name begins with a dot (source.hidden = false)"),
        ("link.md", "it is a symbolic link (source.follow_symlinks = false)"),
        ("x.bin", "no reader knows *.bin files"),
        ("draft.md", 'source.exclude: "draft*"'),
        ("sub/secret.md", 'sub/.pipelineignore, line 2: "secret.md"'),
        ("sub/kept.md", ""),
        ("off/a.md", 'its folder off/ is left out: .pipelineignore, line 1: "off/"'),
        ("0.md", ""),
    ],
)
def test_the_rule_that_leaves_a_file_out_is_named_and_is_the_scan_s(world: World, name: str, said: str) -> None:
    for text in (".hidden.md", "x.bin", "draft.md", "sub/secret.md", "sub/kept.md", "off/a.md"):
        path = world.docs / text
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{sentence(text)}\n")
    (world.docs / "link.md").symlink_to(world.docs / "0.md")
    (world.docs / ".pipelineignore").write_text("off/\nkept.md\n")
    (world.docs / "sub" / ".pipelineignore").write_text("# ours\nsecret.md\n!kept.md\n")
    world.settings = replace(world.settings, source=config.SourceSettings(exclude=("draft*",)))
    rules = changes.scan_rules(world.settings)
    assert left_out.rule(rules, world.docs, name) == said
    scanned = changes.look(world.settings, world.collection, [world.docs])
    assert (name in scanned.found.files.uris) is (said == "")


def test_no_pattern_of_include_matches(world: World) -> None:
    rules = changes.scan_rules(replace(world.settings, source=config.SourceSettings(include=("*.txt", "*.pdf"))))
    assert left_out.rule(rules, world.docs, "0.md") == "no pattern of source.include matches it: *.txt, *.pdf"
