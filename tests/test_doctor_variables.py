"""What doctor reads out of variables and settings without asking a server."""

from __future__ import annotations

import pytest

from pipeline import config, doctor_variables
from tests import command_line

LOCAL = config.Settings()


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
def test_a_server_open_to_the_network_is_warned_of(value: str, open_: bool) -> None:
    assert bool(list(doctor_variables.exposure({"OLLAMA_HOST": value}))) == open_


def test_open_origins_are_warned_of() -> None:
    (check,) = doctor_variables.exposure({"OLLAMA_ORIGINS": "http://a, *"})
    assert "any web page" in check.detail
    assert not list(doctor_variables.exposure({"OLLAMA_ORIGINS": "http://*.lan"}))


@pytest.mark.parametrize(
    ("env", "captured"),
    [
        ({"HTTP_PROXY": "http://proxy:3128"}, True),
        ({"all_proxy": "http://proxy:3128", "NO_PROXY": "example.org"}, True),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "localhost, 127.0.0.1"}, False),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "*"}, False),
        ({"HTTPS_PROXY": "http://proxy:3128"}, False),
        ({"HTTP_PROXY": "http://proxy:3128", "OLLAMA_HOST": "gpu.lan"}, False),
        ({}, False),
    ],
)
def test_a_proxy_before_loopback_is_warned_of(env: dict[str, str], captured: bool) -> None:
    assert bool(list(doctor_variables.proxies(LOCAL, env))) == captured


def keeping(duration: str) -> config.Settings:
    return config.Settings(ollama=config.OllamaSettings(keep_alive=duration, hosts=(command_line.NOWHERE,)))


@pytest.mark.parametrize(
    ("name", "env", "keep_alive"),
    [
        ("keep alive", {}, "5m"),
        ("keep alive", {}, "1m30s"),
        ("keep alive", {}, "0"),
        ("parallel", {"OLLAMA_NUM_PARALLEL": "4"}, "30m"),
        ("context length", {"OLLAMA_CONTEXT_LENGTH": "131072"}, "30m"),
    ],
)
def test_settings_that_cost_speed_are_warned_of(name: str, env: dict[str, str], keep_alive: str) -> None:
    (check,) = doctor_variables.settings_of_ollama(keeping(keep_alive), env)
    assert (check.name, check.level) == (name, "warn")
    assert check.remedy


@pytest.mark.parametrize("keep_alive", ["30m", "1h", "-1", "3600"])
def test_good_settings_are_not(keep_alive: str) -> None:
    env = {"OLLAMA_NUM_PARALLEL": "1", "OLLAMA_CONTEXT_LENGTH": "8192"}
    assert not list(doctor_variables.settings_of_ollama(keeping(keep_alive), env))
