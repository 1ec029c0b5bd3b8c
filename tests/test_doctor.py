"""Preflight as a whole: this machine, the collection, who embeds it, what is due, and the command."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import config_load, doctor, run
from pipeline.doctor_check import Check
from pipeline.models import builtin
from pipeline.progress import Silent
from tests import command_line, served
from tests.fake_ollama.client import FakeOllama

MXBAI = "mxbai-embed-large"


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(models=[MXBAI, "llama3.2"]) as server:
        yield server


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collections: `default` is complete; `chunked` waits for its vectors; `remote` was embedded by Ollama."""
    base = tmp_path_factory.mktemp("doctor")
    given = served.settings(base / "data")
    docs = served.write(base / "docs")
    served.build(given, docs)
    chunked = msgspec.structs.replace(given, collection="chunked")
    run.execute(chunked, run.Request(stages=frozenset({"ingest", "chunk"}), folders=(docs,)), Silent())
    with FakeOllama(models=[MXBAI]) as server:
        served.build(served.settings(base / "data", ollama=server.url), docs, "remote", "ollama")
    return base / "data"


def examine(data: Path, env: dict[str, str] | None = None, patience_s: float = 10.0, **flags: Any) -> list[Check]:
    given = {"data": str(data), "ollama.hosts": (command_line.NOWHERE,)}
    given |= {name.replace("__", "."): value for name, value in flags.items()}
    checks = list(doctor.examine(config_load.load(given, {}, None, None), env or {}, patience_s=patience_s))
    for check in checks:
        assert bool(check.remedy) == (check.level != "pass"), check
    return checks


def named(checks: list[Check], name: str) -> list[Check]:
    return [check for check in checks if check.name == name]


def one(checks: list[Check], name: str) -> Check:
    (found,) = named(checks, name)
    return found


# --- this machine


def test_a_bare_machine_passes_with_warnings_and_is_left_as_it_was(tmp_path: Path) -> None:
    checks = examine(tmp_path / "data")
    assert {check.level for check in checks} == {"pass", "warn"}
    assert one(checks, "collection default").remedy == "pipeline run FOLDER"
    assert one(checks, "ollama").level == "warn"
    assert builtin.MODEL in one(checks, "embedded model").detail
    assert one(checks, "self-test").detail.startswith(f"{builtin.MODEL}: 384 dimensions, unit length, 5 pairs")
    assert not named(checks, "due")
    assert list(tmp_path.iterdir()) == []


def test_what_is_known_comes_before_a_server_is_asked(tmp_path: Path) -> None:
    given = {"data": str(tmp_path), "ollama.hosts": (command_line.NOWHERE,)}
    checks = doctor.examine(config_load.load(given, {}, None, None), {})
    assert next(checks).name == "python"
    names = [check.name for check in checks]
    assert names.index("embedded model") < names.index("ollama") < names.index("self-test")


def test_a_data_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    check = one(examine(tmp_path / "data"), "data folder")
    assert (check.level, "not a folder" in check.detail) == ("fail", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_without_permission_fails(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    check = one(examine(tmp_path / "locked" / "data"), "data folder")
    assert check.level == "fail"
    assert str(tmp_path / "locked") in check.remedy


def test_foreign_variables_are_mentioned(tmp_path: Path) -> None:
    given = {"data": str(tmp_path), "generate.provider": "none", "embed.provider": "builtin"}
    loaded = config_load.load(given, {"PIPELINE_WORKSPACE": "x"}, None, None)
    checks = named(list(doctor.examine(loaded, {})), "settings")
    assert any("PIPELINE_WORKSPACE" in check.detail for check in checks)


def test_variables_are_looked_at_where_the_server_itself_cannot_be_asked(tmp_path: Path, ollama: FakeOllama) -> None:
    env = {"OLLAMA_ORIGINS": "*", "OLLAMA_NUM_PARALLEL": "4", "HTTP_PROXY": "http://proxy:1"}
    off, on = examine(tmp_path, env), examine(tmp_path, env, ollama__hosts=(ollama.url,))
    assert (len(named(off, "exposure")), len(named(on, "exposure"))) == (1, 0)  # it was asked, and is not open
    assert all(named(checks, name) for checks in (off, on) for name in ("proxy", "parallel"))


# --- who embeds


def test_a_new_collection_takes_ollama_where_it_has_the_model(tmp_path: Path, ollama: FakeOllama) -> None:
    checks = examine(tmp_path, ollama__hosts=(ollama.url,))
    assert {check.level for check in checks if check.name != "collection default"} == {"pass"}
    assert MXBAI in one(checks, "self-test").detail


def test_a_new_collection_falls_back_to_the_embedded_model(tmp_path: Path) -> None:
    with FakeOllama(models=["llama3.2"]) as server:
        checks = examine(tmp_path, ollama__hosts=(server.url,))
    assert one(checks, "embedding model").level == "warn"
    assert builtin.MODEL in one(checks, "self-test").detail


@pytest.mark.parametrize("flags", [{"embed__provider": "ollama"}, {"embed__model": "bge-m3"}])
def test_what_was_asked_for_by_name_must_be_there(tmp_path: Path, ollama: FakeOllama, flags: dict[str, str]) -> None:
    check = one(examine(tmp_path, **flags), "ollama")
    assert (check.level, "ollama serve" in check.remedy) == ("fail", True)
    there = examine(tmp_path, ollama__hosts=(ollama.url,), **flags)
    assert named(there, "embedding model")[0].level == ("fail" if "embed__model" in flags else "pass")


@pytest.mark.parametrize("flags", [{"embed__provider": "builtin"}, {"embed__model": builtin.MODEL}])
def test_the_embedded_model_needs_no_server(tmp_path: Path, flags: dict[str, str]) -> None:
    checks = examine(tmp_path, generate__provider="none", **flags)
    assert not named(checks, "ollama")
    assert builtin.MODEL in one(checks, "self-test").detail
    assert "tokens/s" in one(checks, "speed").detail


def test_a_collection_is_tried_with_its_own_model(data: Path, ollama: FakeOllama) -> None:
    checks = examine(data, collection="remote", ollama__hosts=(ollama.url,))
    assert one(checks, "collection remote").level == "pass"
    assert MXBAI in one(checks, "self-test").detail
    down = examine(data, collection="remote")
    assert one(down, "ollama").level == "fail"  # no other model may stand in
    assert not named(down, "self-test")


def test_another_model_under_the_collections_name_fails(data: Path) -> None:
    with FakeOllama(models=[f"{MXBAI}=abc"]) as server:
        check = one(examine(data, collection="remote", ollama__hosts=(server.url,)), "self-test")
    assert (check.level, "abcabcabcabc" in check.detail) == ("fail", True)


def test_settings_that_the_collection_was_not_built_with_fail_once(data: Path, ollama: FakeOllama) -> None:
    checks = examine(data, embed__model="bge-m3", embed__provider="ollama", ollama__hosts=(ollama.url,))
    failing = [check for check in checks if check.level == "fail"]
    assert [check.name for check in failing] == ["collection default"]
    assert "was built with" in failing[0].detail
    assert builtin.MODEL in one(checks, "self-test").detail  # still tried with its own


# --- what is due


def test_nothing_due_says_nothing(data: Path) -> None:
    checks = examine(data)
    assert one(checks, "collection default").level == "pass"
    assert not named(checks, "due")


def test_work_that_waits_is_told_with_its_time(data: Path) -> None:
    checks = examine(data, collection="chunked")
    assert (one(checks, "collection chunked").level, one(checks, "collection chunked").remedy) == (
        "warn",
        "pipeline run",
    )
    detail = one(checks, "due").detail
    assert re.fullmatch(r"5 passages to embed \((\d+) tokens\), about 1 s at the speed above", detail)


def test_the_time_comes_from_the_texts_that_lack_their_vector(tmp_path: Path) -> None:
    """Long new texts after a tiny first run, one of them twice, at a fixed cost per token."""
    docs = served.write(tmp_path / "docs", {"first.md": "# First\n\nA few words.\n"})
    with FakeOllama(cost_us_per_token=100) as server:
        given = served.settings(tmp_path / "data", ollama=server.url)
        served.build(given, docs, provider="ollama")
        text = "\n\n".join(f"Paragraph {n} tells of the river and bridge number {n}." for n in range(4000))
        served.write(docs, {"a.md": text, "b.md": text})
        run.execute(given, run.Request(stages=frozenset({"ingest", "chunk"}), folders=(docs,)), Silent())
        checks = examine(tmp_path / "data", ollama__hosts=(server.url,))
    found = re.search(r"\(([\d,]+) tokens\), about (\d+) s", one(checks, "due").detail)
    assert found is not None
    tokens, seconds = int(found[1].replace(",", "")), int(found[2])
    assert 40_000 < tokens < 60_000  # 12 a paragraph, once
    assert 4 <= seconds <= 9  # at most 10,000 tokens/s


def test_documents_that_the_model_cannot_read_are_a_warning(tmp_path: Path, data: Path) -> None:
    docs = served.write(tmp_path / "docs", {"手册.md": "# 手册\n\n" + "港口的大门在早上六点打开，晚上十点关闭。" * 9})
    served.build(served.settings(tmp_path / "data"), docs)
    check = one(examine(tmp_path / "data"), "language")
    assert check.level == "warn"
    assert "knows English only" in check.detail
    assert check.remedy.startswith("bge-m3")
    assert named(examine(data), "language") == []


def test_new_files_are_told_as_uncounted(data: Path) -> None:
    new = data.parent / "docs" / "new.md"
    new.write_text("# New\n\nNobody has read this yet.\n")
    try:
        detail = one(examine(data), "due").detail
    finally:
        new.unlink()
    assert detail.startswith("1 file not read or cut yet")
    assert "--dry-run" in detail


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.01, "1 s"), (42.4, "42 s"), (90, "2 min"), (3600, "60 min"), (12_240, "3.4 h")]
)
def test_times_are_written_no_finer_than_they_are_known(seconds: float, text: str) -> None:
    assert doctor.duration(seconds) == text


# --- OpenAI-compatible servers


@pytest.mark.parametrize(
    ("flags", "env", "level"),
    [
        ({}, {}, "fail"),
        ({"openai__url": "http://127.0.0.1:9/v1"}, {}, "pass"),
        ({"openai__url": "http://models.invalid/v1"}, {}, "warn"),
        ({"openai__url": "http://models.invalid/v1"}, {"OPENAI_API_KEY": "k-123"}, "pass"),
    ],
)
def test_an_openai_server_needs_a_url_and_perhaps_a_key(
    tmp_path: Path, flags: dict[str, str], env: dict[str, str], level: str
) -> None:
    checks = examine(tmp_path, env, embed__provider="openai", generate__provider="none", patience_s=2, **flags)
    assert one(checks, "openai").level == level
    assert "k-123" not in str(checks)
    assert [check.level for check in named(checks, "self-test")] == (["fail"] if flags else [])


def test_an_openai_server_is_tried_and_measured(tmp_path: Path, ollama: FakeOllama) -> None:
    checks = examine(
        tmp_path,
        embed__provider="openai",
        generate__provider="openai",
        openai__url=ollama.url,
        openai__model=f"{MXBAI}:latest",
        openai__generate_model="llama3.2:latest",
    )
    assert "1024 dimensions" in one(checks, "self-test").detail
    assert "tokens/s" in one(checks, "speed").detail
    assert one(checks, "answering model").detail.startswith("llama3.2:latest of ")
    assert not named(checks, "ollama")


def test_an_openai_server_without_the_models_fails(tmp_path: Path, ollama: FakeOllama) -> None:
    flags = {"openai__url": ollama.url, "openai__model": "other", "openai__generate_model": "another"}
    checks = examine(tmp_path, embed__provider="openai", generate__provider="openai", **flags)
    assert {(check.name, check.level) for check in checks} >= {("answering model", "fail"), ("self-test", "fail")}


# --- the command


def test_the_command_is_0_with_warnings_and_1_with_a_failure(tmp_path: Path) -> None:
    warned = command_line.invoke(tmp_path, "--data", str(tmp_path / "d"), "doctor")
    assert (warned.exit_code, warned.stderr) == (0, "")
    assert any(line.startswith("warn  ollama: ") for line in warned.stdout.splitlines())
    failed = command_line.invoke(tmp_path, "--data", str(tmp_path / "d"), "--provider", "ollama", "-q", "doctor")
    assert failed.exit_code == 1
    assert [line[:4] for line in failed.stdout.splitlines() if line[0] != " "] == ["fail"]


def test_the_command_gives_one_object(tmp_path: Path) -> None:
    told = json.loads(command_line.invoke(tmp_path, "--data", str(tmp_path / "d"), "doctor", "--json").stdout)
    assert told["ok"] is True
    assert {"level", "name", "detail", "remedy"} == set(told["checks"][0])


def test_broken_settings_are_a_failed_check(tmp_path: Path) -> None:
    result = command_line.invoke(tmp_path, "doctor", env={"PIPELINE_CHUNK_SIZE": "x"})
    assert result.exit_code == 1
    assert "fail  settings: PIPELINE_CHUNK_SIZE" in result.stdout


def test_a_damaged_collection_is_a_failed_check(tmp_path: Path) -> None:
    (tmp_path / "data" / "default").mkdir(parents=True)
    (tmp_path / "data" / "default" / "VERSION").write_text("999\n")
    check = one(examine(tmp_path / "data"), "collection default")
    assert (check.level, "999" in check.detail) == ("fail", True)
