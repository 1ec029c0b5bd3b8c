"""OLLAMA_HOST: the cases of Ollama's own envconfig tests (TestHost and TestConnectableHost), seen by a client."""

from __future__ import annotations

import logging

import pytest

from pipeline import config
from pipeline.models import ollama_host

# Value and what envconfig.Host gives for it; ConnectableHost then turns the unspecified addresses into loopback, and a
# URL without a host (":1234"), which Go dials as loopback, has 127.0.0.1 here.
CASES = {
    "empty": ("", "http://127.0.0.1:11434"),
    "only address": ("1.2.3.4", "http://1.2.3.4:11434"),
    "only port": (":1234", "http://127.0.0.1:1234"),
    "address and port": ("1.2.3.4:1234", "http://1.2.3.4:1234"),
    "hostname": ("example.com", "http://example.com:11434"),
    "hostname and port": ("example.com:1234", "http://example.com:1234"),
    "zero port": (":0", "http://127.0.0.1:0"),
    "too large port": (":66000", "http://127.0.0.1:11434"),
    "too small port": (":-1", "http://127.0.0.1:11434"),
    "ipv6 localhost": ("[::1]", "http://[::1]:11434"),
    "ipv6 world open": ("[::]", "http://[::1]:11434"),
    "ipv6 no brackets": ("::1", "http://[::1]:11434"),
    "ipv6 + port": ("[::1]:1337", "http://[::1]:1337"),
    "extra space": (" 1.2.3.4 ", "http://1.2.3.4:11434"),
    "extra quotes": ('"1.2.3.4"', "http://1.2.3.4:11434"),
    "extra space+quotes": (' " 1.2.3.4 " ', "http://1.2.3.4:11434"),
    "extra single quotes": ("'1.2.3.4'", "http://1.2.3.4:11434"),
    "http": ("http://1.2.3.4", "http://1.2.3.4:80"),
    "http port": ("http://1.2.3.4:4321", "http://1.2.3.4:4321"),
    "https": ("https://1.2.3.4", "https://1.2.3.4:443"),
    "https port": ("https://1.2.3.4:4321", "https://1.2.3.4:4321"),
    "proxy path": ("https://example.com/ollama", "https://example.com:443/ollama"),
    "ollama.com": ("ollama.com", "https://ollama.com:443"),
    "localhost": ("127.0.0.1", "http://127.0.0.1:11434"),
    "ipv4 unspecified": ("0.0.0.0", "http://127.0.0.1:11434"),
    "ipv4 unspecified + port": ("0.0.0.0:1234", "http://127.0.0.1:1234"),
    "ipv6 unspecified + port": ("[::]:1234", "http://[::1]:1234"),
    "https unspecified + port": ("https://0.0.0.0:4321", "https://127.0.0.1:4321"),
    "trailing slash": ("http://127.0.0.1:11434/", "http://127.0.0.1:11434"),
    "path and slash": ("http://box:1/ollama/", "http://box:1/ollama"),
    "text for a port": ("box:many", "http://box:11434"),
}


@pytest.mark.parametrize(("value", "url"), CASES.values(), ids=CASES.keys())
def test_as_ollama_reads_it(value: str, url: str) -> None:
    assert ollama_host.server_url(value) == url


def test_a_url_is_read_as_itself() -> None:
    for _, url in CASES.values():
        assert ollama_host.server_url(url) == url


def test_a_wrong_port_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ollama_host.server_url(":66000")
    assert "66000" in caplog.text


def test_settings_go_before_the_variable_and_the_variable_before_the_default() -> None:
    hosts = config.OllamaSettings(hosts=("a", "b:1", "http://a:11434"))
    assert ollama_host.server_urls(hosts, {"OLLAMA_HOST": "c"}) == ("http://a:11434", "http://b:1")
    assert ollama_host.server_urls(config.OllamaSettings(), {"OLLAMA_HOST": "c"}) == ("http://c:11434",)
    assert ollama_host.server_urls(config.OllamaSettings(), {}) == ("http://127.0.0.1:11434",)
