"""`pipeline serve` as a user types it: a process, its address on stderr, its end."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from pipeline.serve import keys
from tests import command_line, served
from tests.command_line import invoke


def start(home: Path, *arguments: str) -> tuple[subprocess.Popen[str], str]:
    """A server process, and its address once it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "serve", "--port", "0", *arguments],
        env=command_line.environment(home) | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        cwd=home,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    found = re.fullmatch(r"Listening on (http://127\.0\.0\.1:\d+)\n", process.stderr.readline())
    assert found
    return process, found[1]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(tmp_path: Path, stop: signal.Signals) -> None:
    given = served.settings(tmp_path / "data")
    served.build(given, served.write(tmp_path / "docs", {"leave.md": served.DOCUMENTS["leave.md"]}))
    process, url = start(tmp_path, "--key", "sesame")
    try:
        body = {"knowledge_id": "default", "query": "annual leave"}
        headers = {"Authorization": "Bearer sesame"}
        assert httpx.get(f"{url}/readyz", timeout=60, trust_env=False).status_code == 200
        reply = httpx.post(f"{url}/retrieval", json=body, headers=headers, timeout=60, trust_env=False)
        assert reply.status_code == 200, reply.text
        assert reply.json()["records"][0]["metadata"]["path"] == "leave.md"
        assert httpx.post(f"{url}/retrieval", json=body, trust_env=False).status_code == 403
    finally:
        process.send_signal(stop)
        _, told = process.communicate(timeout=30)
    assert process.returncode == (0 if stop == signal.SIGINT else -signal.SIGTERM)
    assert "info: POST /retrieval 200" in told
    assert "Traceback" not in told
    assert ("Stopped." in told) == (stop == signal.SIGINT)


def test_beyond_loopback_without_a_key_is_2_with_the_remedy(tmp_path: Path) -> None:
    result = invoke(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "pipeline serve key add" in result.stderr


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    result = invoke(tmp_path, "serve", "--port", port)
    assert result.exit_code == 2
    assert "--port" in result.stderr


def test_a_clients_key_is_printed_once_and_its_hash_kept(tmp_path: Path) -> None:
    settings = tmp_path / "own.toml"
    settings.write_text("[chunk]\nsize = 200  # mine")
    given = ("--config", str(settings), "serve", "key")
    added = invoke(tmp_path, *given, "add", "dify", "--only", "wiki", "--rate", "60")
    key = added.stdout.strip()
    assert added.exit_code == 0
    assert key not in settings.read_text()
    assert settings.read_text() == (
        "[chunk]\nsize = 200  # mine\n\n"
        f'[clients.dify]\nkey = "{keys.digest(key)}"\ncollections = ["wiki"]\nrate = 60\n'
    )
    again = invoke(tmp_path, *given, "add", "dify")
    assert (again.exit_code, again.stdout) == (2, "")
    told = json.loads(invoke(tmp_path, *given, "add", "维基", "--json").stdout)
    assert told["sha256"] == keys.digest(told["key"])
    listed = invoke(tmp_path, *given, "list")
    assert listed.stdout == "dify: wiki, 60 requests a minute\n维基: all collections\n"
    assert invoke(tmp_path, *given, "remove", "dify").exit_code == 0
    assert "dify" not in settings.read_text()
    assert settings.read_text().startswith("[chunk]\nsize = 200  # mine\n")
    assert invoke(tmp_path, *given, "remove", "dify").exit_code == 2


def test_a_key_goes_into_the_users_own_file_where_there_is_no_other(tmp_path: Path) -> None:
    told = json.loads(invoke(tmp_path, "serve", "key", "add", "dify", "--json").stdout)
    path = Path(told["file"])
    assert path.is_relative_to(tmp_path)
    assert path.stat().st_mode & 0o077 == 0
    listed = json.loads(invoke(tmp_path, "serve", "key", "list", "--json").stdout)
    assert listed == {"clients": {"dify": {"collections": [], "rate": 0}}}


@pytest.mark.parametrize("name", ["", "a b", "../x", "[x]", 'x"', "-x"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    assert invoke(tmp_path, "serve", "key", "add", "--", name).exit_code == 2


def test_a_key_in_place_of_its_hash_is_refused(tmp_path: Path) -> None:
    result = invoke(tmp_path, "serve", "--dify", env={"PIPELINE_SERVE_KEYS": "sesame"})
    assert result.exit_code == 2
    assert "serve key add" in result.stderr


def test_dify_prints_what_to_type(tmp_path: Path) -> None:
    result = invoke(tmp_path, "--collection", "wiki", "serve", "--dify", "--port", "9000", "--key", "sesame")
    assert result.exit_code == 0
    assert re.search(r"API Endpoint +http://host\.docker\.internal:9000\n.*API Key +sesame\n", result.stdout)
    assert re.search(r"External Knowledge ID +wiki\n", result.stdout)
