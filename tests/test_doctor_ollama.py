"""What doctor finds out about Ollama's servers: against fake ones of every era, healthy and broken."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import config, doctor_ollama
from pipeline.doctor_check import Check
from pipeline.doctor_ollama import Findings, Wanted
from pipeline.models import EmbedderSpec, ollama_exposure
from pipeline.models.ollama_client import Loaded
from tests import command_line
from tests.fake_ollama.client import FakeOllama

MXBAI = "mxbai-embed-large"
DIGEST = "468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8"


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOllama]:
    with FakeOllama(models=[MXBAI, "llama3.2", "bge-m3", "elsewhere:4b-cloud"]) as server:
        yield server


@pytest.fixture
def ollama(shared: FakeOllama) -> FakeOllama:
    shared.reset()
    return shared


def settings(*urls: str, **generate: Any) -> config.Settings:
    return config.Settings(ollama=config.OllamaSettings(hosts=urls), generate=config.GenerateSettings(**generate))


def look(
    *urls: str,
    provider: config.Provider = "ollama",
    model: str = MXBAI,
    recorded: EmbedderSpec | None = None,
    env: dict[str, str] | None = None,
    patience_s: float = 10.0,
    given: config.Settings | None = None,
) -> Findings:
    wanted = Wanted(provider=provider, model=model, recorded=recorded)
    chosen = given or config.Settings(
        ollama=config.OllamaSettings(hosts=urls),
        embed=config.EmbedSettings(provider=provider, model="" if model == MXBAI or recorded else model),
    )
    found = asyncio.run(doctor_ollama.examine(chosen, wanted, env or {}, patience_s))
    for check in found.checks:
        assert bool(check.remedy) == (check.level != "pass"), check
    return found


def named(found: Findings, name: str) -> list[Check]:
    return [check for check in found.checks if check.name == name]


def one(found: Findings, name: str) -> Check:
    (check,) = named(found, name)
    return check


# --- a good server


def test_a_good_server_passes_everything_and_is_measured(ollama: FakeOllama) -> None:
    found = look(ollama.url)
    names = ["ollama", "embedding model", "self-test", "speed", "in memory", "answering model"]
    assert [(check.name, check.level) for check in found.checks] == [(name, "pass") for name in names]
    assert one(found, "ollama").detail == f"0.32.15 answers at {ollama.url}"
    assert "1024 dimensions, unit length, 5 pairs" in one(found, "self-test").detail
    assert one(found, "in memory").detail == f"{MXBAI}:latest on the GPU"
    assert found.tokens_per_s > 0
    assert (found.model_usable, found.asked_locally) == (True, True)


def test_it_only_loads_the_model_and_embeds_sentences(ollama: FakeOllama) -> None:
    look(ollama.url)
    assert {entry.endpoint for entry in ollama.requests()} == {"/api/embed", "/v1/embeddings"}
    assert {text.model for text in ollama.received()} == {MXBAI}
    assert sum(text.tokens for text in ollama.received()) < 3000
    assert ollama.counters()["loads"] == 1


def test_the_speed_is_the_servers() -> None:
    with FakeOllama(cost_us_per_token=200) as server:
        rate = look(server.url).tokens_per_s
    assert 2500 < rate <= 5050  # 5,000 at most; its clock runs a little ahead of the count


@pytest.mark.parametrize("version", ["0.3.12", "0.9.0", "0.13.5", "0.32.15"])
def test_every_era_passes_the_self_test(version: str) -> None:
    with FakeOllama(version=version) as server:
        found = look(server.url)
    assert one(found, "self-test").level == "pass"
    assert bool(named(found, "ollama version")) == (version != "0.32.15")


def test_a_multilingual_model_is_tried_in_chinese(ollama: FakeOllama) -> None:
    assert "7 pairs" in one(look(ollama.url, model="bge-m3"), "self-test").detail


# --- version


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("0.3.12", ["CVE-2026-7482"]),
        ("0.5.0", ["result buffer", "CVE-2026-7482"]),
        ("0.12.6", ["long inputs", "CVE-2026-7482"]),
        ("0.13.5", ["CVE-2026-7482", "[UNK]"]),
        ("0.29.9", ["[UNK]"]),
        ("0.30.0", []),
    ],
)
def test_what_is_wrong_with_a_version_is_told(ollama: FakeOllama, version: str, said: list[str]) -> None:
    ollama.configure(version=version)
    try:
        checks = named(look(ollama.url), "ollama version")
    finally:
        ollama.configure(version="0.32.15")
    assert len(checks) == len(said)
    assert all(words in check.detail for words, check in zip(said, checks, strict=True))
    assert all(check.level == "warn" and "ollama.com/download" in check.remedy for check in checks)


def test_the_engine_is_no_matter_for_a_model_without_wordpiece() -> None:
    with FakeOllama(version="0.20.0", models=["bge-m3"]) as server:
        assert not named(look(server.url, model="bge-m3"), "ollama version")


@pytest.mark.parametrize(("provider", "level"), [("ollama", "fail"), ("auto", "warn")])
def test_a_version_that_shuffles_batches_is_not_tried(provider: config.Provider, level: str) -> None:
    with FakeOllama(version="0.3.6") as server:
        found = look(server.url, provider=provider)
        assert server.texts() == []
    assert {check.level for check in named(found, "ollama version")} == {level}
    assert not found.model_usable


# --- models


@pytest.mark.parametrize(("provider", "level"), [("ollama", "fail"), ("auto", "warn")])
def test_a_missing_model_comes_with_the_command(provider: config.Provider, level: str) -> None:
    with FakeOllama(models=[]) as server:
        found = look(server.url, provider=provider)
        at_home = look(provider=provider, env={"OLLAMA_HOST": server.url})
    command = f"OLLAMA_HOST={server.url} ollama pull {MXBAI}"
    assert (one(found, "embedding model").level, one(found, "embedding model").remedy) == (level, command)
    assert one(found, "answering model").level == "warn"
    assert one(at_home, "embedding model").remedy == f"ollama pull {MXBAI}"
    assert not named(found, "self-test")


def test_an_answering_model_that_was_asked_for_by_provider_must_be_there(ollama: FakeOllama) -> None:
    found = look(given=settings(ollama.url, provider="ollama", model="qwen3"))
    assert one(found, "answering model").level == "fail"
    assert one(found, "answering model").remedy.endswith("ollama pull qwen3")
    assert not named(look(given=settings(ollama.url, provider="none")), "answering model")


def test_a_model_that_runs_elsewhere_is_not_tried(ollama: FakeOllama) -> None:
    found = look(ollama.url, model="elsewhere:4b-cloud")
    check = one(found, "embedding model")
    assert (check.level, "leave this machine" in check.detail) == ("fail", True)
    assert ollama.texts() == []


def test_another_digest_than_the_collections_fails(ollama: FakeOllama) -> None:
    spec = EmbedderSpec(
        provider="ollama", model=MXBAI, digest="f" * 64, dims=1024, limit=510, tokenizer="t", languages=("en",)
    )
    check = one(look(ollama.url, recorded=spec), "self-test")
    assert (check.level, "ffffffffffff" in check.detail) == ("fail", True)
    assert "pipeline migrate" in check.remedy


# --- where it computes


def loaded(share: float, name: str = MXBAI, context: int = 512) -> Loaded:
    return Loaded(name=f"{name}:latest", size=1000, size_vram=int(1000 * share), context_length=context)


@pytest.mark.parametrize(
    ("share", "gpu", "level", "said"),
    [
        (1.0, "NVIDIA", "pass", "on the GPU"),
        (0.5, "NVIDIA", "warn", "50% GPU"),
        (0.0, "", "pass", "on the CPU"),
        (0.0, "NVIDIA", "warn", "has a GPU (NVIDIA)"),
        (0.0, "AMD", "warn", "has a GPU (AMD)"),
        (0.0, "Metal", "warn", "has a GPU (Metal)"),
    ],
)
def test_where_a_model_computes(share: float, gpu: str, level: str, said: str) -> None:
    (check,) = doctor_ollama.memory([loaded(share)], MXBAI, gpu)
    assert (check.level, said in check.detail, bool(check.remedy)) == (level, True, level == "warn")


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_the_server_tells_of_its_memory_is_read(share: float) -> None:
    with FakeOllama(vram_share=share) as server:
        detail = one(look(server.url), "in memory").detail
    assert {0.0: "on the CPU", 0.5: "on 50% GPU", 1.0: "on the GPU"}[share] in detail


def test_a_chat_model_with_a_huge_window_may_crowd_the_embedder_out() -> None:
    chat, embedder = doctor_ollama.memory([loaded(1, "llama3.2", 131_072), loaded(1, context=32_768)], MXBAI, "")
    assert (chat.level, "131,072" in chat.detail, embedder.level) == ("warn", True, "pass")


# --- exposure


def test_a_guarded_server_is_not_exposed(ollama: FakeOllama) -> None:
    opened = asyncio.run(ollama_exposure.probe(ollama.url))
    assert opened == ollama_exposure.Exposure(any_origin=False, any_host=False)


def test_a_server_open_to_the_network_and_to_pages_is_warned_of() -> None:
    with FakeOllama(host="0.0.0.0", any_origin=True) as server:
        found = look(f"127.0.0.1:{server.port}")
    assert ["OLLAMA_ORIGINS" in check.remedy for check in named(found, "exposure")] == [True, False]
    assert {check.level for check in named(found, "exposure")} == {"warn"}


# --- broken servers


@pytest.mark.parametrize("kind", ["zeros", "nan", "duplicate", "wrong_dim", "short", "wrong_count", "eof", "http500"])
def test_a_model_that_answers_wrongly_fails_the_self_test(ollama: FakeOllama, kind: str) -> None:
    ollama.set_fault(kind)
    found = look(ollama.url)
    check = one(found, "self-test")
    assert check.level == "fail"
    assert "Run `pipeline doctor`." not in check.remedy  # that is where the reader is
    assert found.tokens_per_s == 0


def test_vectors_in_another_order_fail_the_self_test(ollama: FakeOllama) -> None:
    ollama.set_fault("swapped", count=1)
    assert "not in their order" in one(look(ollama.url), "self-test").detail


def test_zeros_name_the_way_to_a_fresh_runner(ollama: FakeOllama) -> None:
    ollama.set_fault("zeros")
    assert f"ollama stop {MXBAI}" in one(look(ollama.url), "self-test").remedy


def test_a_runner_that_hangs_is_a_failed_line(ollama: FakeOllama) -> None:
    ollama.set_fault("hang")
    check = one(look(ollama.url, patience_s=0.5), "self-test")
    assert (check.level, "no answer within 0.5 s" in check.detail) == ("fail", True)


def test_a_runner_that_hung_before_is_called_stuck(ollama: FakeOllama) -> None:
    ollama.set_fault("hang")
    hanging = threading.Thread(target=_ask_in_vain, args=(ollama,))
    hanging.start()
    while not ollama.get("/api/ps")["models"]:
        time.sleep(0.01)
    check = one(look(ollama.url, patience_s=0.5), "self-test")
    hanging.join()
    assert "its runner is stuck" in check.detail
    assert "systemctl restart ollama" in check.remedy


def _ask_in_vain(server: FakeOllama) -> None:
    with contextlib.suppress(TimeoutError):
        server.request("POST", "/api/embed", {"model": MXBAI, "input": "Anybody there?"}, timeout_s=1.5)


@pytest.mark.parametrize("provider", ["auto", "ollama"])
def test_a_server_that_hangs_altogether_is_a_failed_line(ollama: FakeOllama, provider: config.Provider) -> None:
    ollama.set_fault("hang", endpoint="/api/version")
    check = one(look(ollama.url, provider=provider, patience_s=0.3), "ollama")
    assert (check.level, "no answer" in check.detail) == ("fail", True)


def test_something_else_on_the_port_is_a_failed_line(ollama: FakeOllama) -> None:
    ollama.set_fault("garbage", endpoint="/api/tags")
    assert one(look(ollama.url), "ollama").level == "fail"


@pytest.mark.parametrize(("provider", "level"), [("ollama", "fail"), ("auto", "warn"), ("builtin", "warn")])
def test_a_server_that_is_off(provider: config.Provider, level: str) -> None:
    found = look(command_line.NOWHERE, provider=provider)
    check = one(found, "ollama")
    assert (check.level, "ollama serve" in check.remedy) == (level, True)
    assert not found.asked_locally


def test_an_address_that_is_none_is_a_failed_line() -> None:
    assert one(look("http://[::1"), "ollama").level == "fail"


# --- several servers


def test_servers_to_be_started_need_the_program(ollama: FakeOllama, tmp_path: Path) -> None:
    given = config.Settings(ollama=config.OllamaSettings(hosts=(ollama.url,), local_servers=2))
    check = one(look(given=given, env={"PATH": str(tmp_path)}), "local servers")
    assert (check.level, "ollama.local_servers = 0" in check.remedy) == ("fail", True)
    (tmp_path / "ollama").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "ollama").chmod(0o755)
    found = look(given=given, env={"PATH": str(tmp_path)})
    assert (one(found, "local servers").level, one(found, "self-test").level) == ("pass", "pass")  # and none started


def test_two_like_servers_are_compared_and_their_speed_added(ollama: FakeOllama) -> None:
    with FakeOllama() as second:
        found = look(ollama.url, second.url)
    assert (one(found, "servers").level, DIGEST[:12] in one(found, "servers").detail) == ("pass", True)
    assert "cosine 1.0000" in one(found, "servers").detail
    assert [
        url in check.detail for url, check in zip((ollama.url, second.url), named(found, "speed"), strict=True)
    ] == [
        True,
        True,
    ]
    assert len(named(found, "answering model")) == 1


def test_two_digests_are_refused(ollama: FakeOllama) -> None:
    with FakeOllama(models=[f"{MXBAI}=abc"]) as second:
        check = one(look(ollama.url, second.url), "servers")
    assert (check.level, "abcabcabcabc" in check.detail, DIGEST[:12] in check.detail) == ("fail", True, True)
    assert check.remedy.startswith(f"Run `ollama pull {MXBAI}` on each")


def test_other_vectors_under_the_same_digest_are_refused(ollama: FakeOllama) -> None:
    with FakeOllama(vectors="minilm") as second:
        check = one(look(ollama.url, second.url), "servers")
    assert (check.level, "different vectors" in check.detail) == ("fail", True)


def test_one_of_two_that_is_off_is_a_warning(ollama: FakeOllama) -> None:
    found = look(ollama.url, command_line.NOWHERE)
    assert [check.level for check in named(found, "ollama")] == ["pass", "warn"]
    assert "goes on with the other" in named(found, "ollama")[1].remedy
    assert found.tokens_per_s > 0
    assert not named(found, "servers")
