"""Ollama servers that the program starts itself: they answer, they end with the run, and with a program that is killed.

`ollama` is a script on PATH that becomes the fake Ollama at OLLAMA_HOST, as `ollama serve` would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil
import pytest

from pipeline import config, errors
from pipeline.models import ollama, ollama_local, resolve
from pipeline.models.ollama_client import Server
from tests.fake_ollama.client import ROOT, FakeOllama

FAKE = f"""
echo "models in $OLLAMA_MODELS, noprune $OLLAMA_NOPRUNE" >&2
cd {ROOT} && PYTHONPATH={ROOT} exec {sys.executable} -m tests.fake_ollama --vectors hash --port "${{OLLAMA_HOST##*:}}" \
"""


def program(folder: Path, text: str) -> dict[str, str]:
    """An environment in which `ollama` is this shell script."""
    folder.mkdir(exist_ok=True)
    script = folder / "ollama"
    script.write_text(f'#!/bin/sh\ntest "$1" = serve || exit 64\n{text}\n', encoding="utf-8")
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return program(tmp_path / "bin", FAKE)


def listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def eventually(what: Callable[[], bool], seconds: float = 20.0) -> bool:
    """Whether `what` comes true: another process does it, and nothing tells when."""
    until_s = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < until_s:
        time.sleep(0.02)
    return found


def guards() -> list[psutil.Process]:
    living = [one for one in psutil.Process().children() if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in living if str(ollama_local.GUARD) in " ".join(one.cmdline())]


# --- start and stop


def test_servers_answer_at_ports_of_their_own_and_are_gone_after(environment: Mapping[str, str]) -> None:
    async def main() -> tuple[str, ...]:
        servers = await ollama_local.start(3, environment)
        urls = servers.urls
        for url in urls:
            async with contextlib.aclosing(Server(url)) as server:
                assert {tag.name for tag in await server.tags()} >= {"mxbai-embed-large:latest"}
        assert len(guards()) == 3
        await servers.aclose()
        await servers.aclose()  # a second time does nothing
        return urls

    urls = asyncio.run(main())
    assert len(set(urls)) == 3
    assert not any(listens(url) for url in urls)
    assert guards() == []


def test_without_the_program_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="local_servers = 2") as caught:
        asyncio.run(ollama_local.start(2, {"PATH": str(tmp_path)}))
    assert "https://ollama.com/download" in caught.value.remedy
    assert caught.value.exit_code == 2


def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path: Path) -> None:
    broken = program(tmp_path / "bin", "seq 1 9 >&2; echo 'no such driver' >&2; exit 3")
    with pytest.raises(errors.ServerUnreachable, match="no such driver") as caught:
        asyncio.run(ollama_local.start(2, broken))
    assert caught.value.message.endswith("6\n7\n8\n9\nno such driver")
    assert guards() == []


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    stuck = program(tmp_path / "bin", f"echo 'discovering GPUs'; echo $$ > {tmp_path}/pid; exec sleep 600")
    with pytest.raises(errors.ServerUnreachable, match=r"within 0\.5 s(?s:.*)discovering GPUs"):
        asyncio.run(ollama_local.start(1, stuck, start_s=0.5))
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_one_that_fails_stops_the_others(tmp_path: Path) -> None:
    """The script can be the fake once only: `mkdir` succeeds for one of the two."""
    once = program(tmp_path / "bin", f"mkdir {tmp_path}/once || exit 3\n{FAKE}")
    with pytest.raises(errors.ServerUnreachable):
        asyncio.run(ollama_local.start(2, once))
    assert guards() == []


def test_a_port_that_was_taken_in_between_is_replaced(tmp_path: Path) -> None:
    text = f"mkdir {tmp_path}/once && echo 'bind: address already in use' && exit 1\n{FAKE}"
    once = program(tmp_path / "bin", text)

    async def main() -> None:
        servers = await ollama_local.start(1, once)
        assert listens(servers.urls[0])
        await servers.aclose()

    asyncio.run(main())


def test_servers_get_the_users_environment(tmp_path: Path) -> None:
    spoken = program(tmp_path / "bin", 'echo "$OLLAMA_MODELS $OLLAMA_NOPRUNE $OLLAMA_HOST"; exit 1')
    with pytest.raises(errors.ServerUnreachable, match=r"\n/srv/models 1 127\.0\.0\.1:\d+\n"):
        asyncio.run(ollama_local.start(1, {**spoken, "OLLAMA_MODELS": "/srv/models", "OLLAMA_HOST": "0.0.0.0:1"}))


# --- the end of the program


KILLED = """
import asyncio, os, sys
from pipeline.models import ollama_local

async def main():
    servers = await ollama_local.start(2, os.environ)
    print(*servers.urls, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_survives_the_program(environment: Mapping[str, str], number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED], cwd=ROOT, env=environment, stdout=subprocess.PIPE) as ours:
        assert ours.stdout is not None
        urls = ours.stdout.readline().decode().split()
        started = psutil.Process(ours.pid).children(recursive=True)
        assert len(started) >= 4  # guards and servers
        assert all(listens(url) for url in urls)
        ours.send_signal(number)
        ours.wait()
        assert eventually(lambda: not any(listens(url) for url in urls))
        assert eventually(lambda: not any(one.is_running() and one.status() != "zombie" for one in started))


def test_ctrl_c_in_the_terminal_is_not_for_the_servers(environment: Mapping[str, str]) -> None:
    """The terminal sends it to the whole foreground group; a run still finishes what is in flight."""
    with subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=ROOT, env=environment, stdout=subprocess.PIPE, start_new_session=True
    ) as ours:
        assert ours.stdout is not None
        urls = ours.stdout.readline().decode().split()
        groups = {os.getpgid(one.pid) for one in psutil.Process(ours.pid).children(recursive=True)}
        assert os.getpgid(ours.pid) not in groups
        ours.kill()
    assert eventually(lambda: not any(listens(url) for url in urls))


# --- the guard


def guard(folder: Path, *command: str, **constants: float) -> subprocess.Popen[bytes]:
    """A guard whose times are shortened, in a copy of its file: no run waits for seconds here."""
    source = ollama_local.GUARD.read_text(encoding="utf-8")
    for name, value in constants.items():
        (line,) = [line for line in source.splitlines() if line.startswith(f"{name} = ")]
        source = source.replace(line, f"{name} = {value}")
    copy = folder / "guard.py"
    copy.write_text(source, encoding="utf-8")
    run = [sys.executable, "-I", "-S", str(copy), *command]
    return subprocess.Popen(run, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_the_guard_ends_a_command_that_will_not_and_its_children(tmp_path: Path) -> None:
    script = f"trap '' TERM; sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/pid; while :; do wait; done"
    with guard(tmp_path, "sh", "-c", script, GRACE_S=0.2) as process:
        assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0
    for name in ("pid", "child"):
        pid = int((tmp_path / name).read_text())
        assert eventually(lambda pid=pid: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


@pytest.mark.skipif(sys.platform != "linux", reason="no other system tells a child that its parent died")
def test_no_server_survives_its_guard(tmp_path: Path) -> None:
    with guard(tmp_path, "sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 600") as process:
        assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip() != "")
        process.kill()
    pid = int((tmp_path / "pid").read_text())
    assert eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_the_guard_keeps_the_end_of_what_was_said_alone(tmp_path: Path) -> None:
    with guard(tmp_path, "sh", "-c", "seq 1 100000; echo last; exit 7") as process:
        assert process.stdout is not None
        said = process.stdout.read()
        assert process.wait(20) == 7
    assert said.endswith(b"99999\n100000\nlast\n")
    assert len(said) == 4096


def test_a_server_that_dies_after_a_while_is_started_again(tmp_path: Path) -> None:
    lives = tmp_path / "lives"
    with guard(tmp_path, "sh", "-c", f"echo x >> {lives}; exit 1", LIVED_S=0.0) as process:
        assert eventually(lambda: lives.exists() and len(lives.read_text().split()) >= 3)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


# --- as a setting


def opened(local: int, *hosts: str, bulk: bool = True) -> tuple[list[str], int, str]:
    """The servers of an embedder, requests at a time, and which of the servers embedded a text."""
    given = config.Settings(
        embed=config.EmbedSettings(provider="ollama"),
        ollama=config.OllamaSettings(local_servers=local, hosts=hosts),
    )

    async def main() -> tuple[list[str], int, str]:
        choice = await resolve.open_embedder(given, None, bulk=bulk)
        async with contextlib.aclosing(choice.embedder) as embedder:
            assert isinstance(embedder, ollama.OllamaEmbedder)
            reply = await embedder.embed(["the harbour gate"], tokens=0)
            return [server.url for server in embedder.servers], embedder.limits.concurrency, reply.server

    return asyncio.run(main())


@pytest.fixture
def on_path(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    monkeypatch.delenv("OLLAMA_HOST", raising=False)


@pytest.mark.usefixtures("on_path")
def test_a_run_embeds_on_the_servers_that_it_starts() -> None:
    urls, concurrency, used = opened(2)
    assert (len(urls), concurrency) == (2, 4)
    assert used in urls
    assert not any(listens(url) for url in urls)
    assert guards() == []


@pytest.mark.usefixtures("on_path")
def test_named_hosts_take_part_beside_them() -> None:
    with FakeOllama(vectors="hash") as other:
        urls, concurrency, _ = opened(1, other.url)
        assert (urls[1:], concurrency) == ([other.url], 4)
        assert listens(other.url)
    assert not listens(urls[0])


@pytest.mark.usefixtures("on_path")
def test_a_named_host_with_another_model_is_refused_and_they_are_stopped() -> None:
    with (
        FakeOllama(vectors="hash", models=["mxbai-embed-large=abc"]) as other,
        pytest.raises(errors.ModelMismatch, match=other.url),
    ):
        opened(1, other.url)
    assert guards() == []


@pytest.mark.usefixtures("on_path")
def test_a_question_starts_no_server_where_one_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOllama(vectors="hash") as other:
        monkeypatch.setenv("OLLAMA_HOST", other.url)
        assert opened(4, bulk=False)[2] == other.url


@pytest.mark.usefixtures("on_path")
def test_a_question_starts_one_where_none_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:  # bound and not listening
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{unused.getsockname()[1]}")
        urls, _, used = opened(4, bulk=False)
    assert urls == [used]
    assert guards() == []


@pytest.mark.usefixtures("on_path")
def test_a_model_that_lies_in_another_folder_is_explained(tmp_path: Path) -> None:
    program(
        tmp_path / "bin", f"{FAKE} --no-models".replace("\\\n", "").replace('"  --', '" --').replace("\n --", " --")
    )
    with pytest.raises(errors.ModelMissing) as caught:
        opened(1)
    assert "OLLAMA_MODELS" in caught.value.remedy
    assert "ollama pull mxbai-embed-large" in caught.value.remedy
    assert guards() == []
