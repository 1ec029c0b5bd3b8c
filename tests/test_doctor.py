"""Preflight: what doctor sees of a machine, a server and the settings, and that it changes nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import config_load, doctor
from pipeline.models import builtin
from tests import command_line
from tests.fake_ollama.client import FakeOllama


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(models=["mxbai-embed-large", "llama3.2", "elsewhere:4b-cloud"], vram_share=0.5) as server:
        yield server


def examine(tmp_path: Path, env: dict[str, str] | None = None, **flags: Any) -> list[doctor.Check]:
    given = {"data": str(tmp_path / "data"), "ollama.hosts": (command_line.NOWHERE,)}
    given |= {name.replace("__", "."): value for name, value in flags.items()}
    loaded = config_load.load(given, {}, None, None)
    return doctor.examine(loaded, env or {})


def named(checks: list[doctor.Check], name: str) -> list[doctor.Check]:
    return [check for check in checks if check.name == name]


def one(checks: list[doctor.Check], name: str) -> doctor.Check:
    (found,) = named(checks, name)
    return found


def test_a_bare_machine_passes_with_warnings_and_is_left_as_it_was(tmp_path: Path) -> None:
    checks = examine(tmp_path)
    assert {check.level for check in checks} == {"pass", "warn"}
    assert one(checks, "collection default").remedy == "pipeline run FOLDER"
    assert one(checks, "ollama").level == "warn"
    assert builtin.MODEL in one(checks, "embedded model").detail
    assert list(tmp_path.iterdir()) == []


def test_every_warning_and_failure_has_a_remedy(tmp_path: Path) -> None:
    env = {"OLLAMA_HOST": "0.0.0.0", "OLLAMA_ORIGINS": "*", "HTTP_PROXY": "http://proxy:1"}
    for check in examine(tmp_path, env, embed__provider="ollama", ollama__keep_alive="0"):
        assert bool(check.remedy) == (check.level != "pass")


# --- the data folder


def test_a_data_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    check = one(examine(tmp_path), "data folder")
    assert (check.level, "not a folder" in check.detail) == ("fail", True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_data_folder_without_permission_fails(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    check = one(examine(tmp_path, data=str(tmp_path / "locked" / "data")), "data folder")
    assert check.level == "fail"
    assert str(tmp_path / "locked") in check.remedy


def test_the_free_space_is_told(tmp_path: Path) -> None:
    assert "GB free" in one(examine(tmp_path), "data folder").detail


# --- what can be seen of Ollama's own settings


@pytest.mark.parametrize(
    ("value", "open_"),
    [
        ("0.0.0.0", True),
        ("http://0.0.0.0:11434", True),
        ("[::]:11434", True),
        (":11434", True),
        ("127.0.0.1:11434", False),
        ("::1", False),
        ("gpu.lan:11434", False),
        ("", False),
    ],
)
def test_a_server_open_to_the_network_is_warned_of(tmp_path: Path, value: str, open_: bool) -> None:
    assert bool(named(examine(tmp_path, {"OLLAMA_HOST": value}), "exposure")) == open_


def test_open_origins_are_warned_of(tmp_path: Path) -> None:
    assert "any web page" in one(examine(tmp_path, {"OLLAMA_ORIGINS": "http://a, *"}), "exposure").detail
    assert not named(examine(tmp_path, {"OLLAMA_ORIGINS": "http://*.lan"}), "exposure")


@pytest.mark.parametrize(
    ("env", "captured"),
    [
        ({"HTTP_PROXY": "http://proxy:3128"}, True),
        ({"all_proxy": "http://proxy:3128", "NO_PROXY": "example.org"}, True),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "localhost, 127.0.0.1"}, False),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "*"}, False),
        ({"HTTPS_PROXY": "http://proxy:3128"}, False),
        ({}, False),
    ],
)
def test_a_proxy_before_loopback_is_warned_of(tmp_path: Path, env: dict[str, str], captured: bool) -> None:
    assert bool(named(examine(tmp_path, env), "proxy")) == captured


@pytest.mark.parametrize(
    ("name", "env", "flags"),
    [
        ("keep alive", {}, {"ollama__keep_alive": "5m"}),
        ("keep alive", {}, {"ollama__keep_alive": "1m30s"}),
        ("parallel", {"OLLAMA_NUM_PARALLEL": "4"}, {}),
        ("context length", {"OLLAMA_CONTEXT_LENGTH": "131072"}, {}),
    ],
)
def test_settings_that_cost_speed_are_warned_of(
    tmp_path: Path, name: str, env: dict[str, str], flags: dict[str, str]
) -> None:
    assert one(examine(tmp_path, env, **flags), name).level == "warn"


def test_good_settings_are_not(tmp_path: Path) -> None:
    env = {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_CONTEXT_LENGTH": "8192"}
    for keep_alive in ("30m", "1h", "-1", "3600"):
        names = {check.name for check in examine(tmp_path, env, ollama__keep_alive=keep_alive)}
        assert not names & {"keep alive", "parallel", "context length"}


def test_foreign_variables_are_mentioned(tmp_path: Path) -> None:
    loaded = config_load.load({"data": str(tmp_path)}, {"PIPELINE_WORKSPACE": "x"}, None, None)
    checks = named(doctor.examine(loaded, {}), "settings")
    assert any("PIPELINE_WORKSPACE" in check.detail for check in checks)


# --- servers


def test_a_good_server_passes(tmp_path: Path, ollama: FakeOllama) -> None:
    checks = examine(tmp_path, ollama__hosts=(ollama.url,))
    assert one(checks, "ollama").detail == f"0.32.15 answers at {ollama.url}"
    assert one(checks, "embedding model").level == "pass"
    assert one(checks, "answering model").level == "pass"
    assert not named(checks, "ollama version")


def test_missing_models_come_with_the_command(tmp_path: Path, ollama: FakeOllama) -> None:
    flags = {"ollama__hosts": (ollama.url,), "embed__model": "bge-m3", "generate__model": "qwen3"}
    for provider, level in (("auto", "warn"), ("ollama", "fail")):
        checks = examine(tmp_path, embed__provider=provider, **flags)
        check = one(checks, "embedding model")
        assert (check.level, check.remedy) == (level, "ollama pull bge-m3")
        assert one(checks, "answering model").remedy == "ollama pull qwen3"


def test_a_model_that_runs_elsewhere_is_warned_of(tmp_path: Path, ollama: FakeOllama) -> None:
    check = one(examine(tmp_path, ollama__hosts=(ollama.url,), embed__model="elsewhere:4b-cloud"), "embedding model")
    assert (check.level, "leave this machine" in check.detail) == ("warn", True)


def test_a_model_half_on_the_gpu_is_warned_of(tmp_path: Path, ollama: FakeOllama) -> None:
    ollama.post("/api/embed", {"model": "mxbai-embed-large", "input": "warm"})
    check = one(examine(tmp_path, ollama__hosts=(ollama.url,)), "in memory")
    assert (check.level, "50% GPU" in check.detail) == ("warn", True)


@pytest.mark.parametrize(("version", "level"), [("0.3.12", "warn"), ("0.12.6", "warn"), ("0.9.0", "warn")])
def test_old_versions_are_warned_of(tmp_path: Path, version: str, level: str) -> None:
    with FakeOllama(version=version, models=["mxbai-embed-large"]) as server:
        checks = named(examine(tmp_path, ollama__hosts=(server.url,)), "ollama version")
    assert {check.level for check in checks} == {level}
    assert all("ollama.com/download" in check.remedy for check in checks)


def test_a_server_that_is_needed_and_down_fails(tmp_path: Path) -> None:
    check = one(examine(tmp_path, embed__provider="ollama"), "ollama")
    assert (check.level, "ollama serve" in check.remedy) == ("fail", True)


def test_each_of_several_servers_is_looked_at(tmp_path: Path, ollama: FakeOllama) -> None:
    checks = named(examine(tmp_path, ollama__hosts=(ollama.url, command_line.NOWHERE)), "ollama")
    assert [check.level for check in checks] == ["pass", "warn"]


@pytest.mark.parametrize(
    ("flags", "env", "level"),
    [
        ({}, {}, "fail"),
        ({"openai__url": "http://127.0.0.1:8080/v1"}, {}, "pass"),
        ({"openai__url": "https://models.lan/v1"}, {}, "warn"),
        ({"openai__url": "https://models.lan/v1"}, {"OPENAI_API_KEY": "k"}, "pass"),
    ],
)
def test_an_openai_server_needs_a_url_and_perhaps_a_key(
    tmp_path: Path, flags: dict[str, str], env: dict[str, str], level: str
) -> None:
    check = one(examine(tmp_path, env, embed__provider="openai", **flags), "openai")
    assert check.level == level
    assert "k," not in check.detail  # the key is never shown


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
