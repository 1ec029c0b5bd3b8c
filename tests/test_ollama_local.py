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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from pipeline import config, errors, models
from pipeline.models import ollama, ollama_growth, ollama_local, resolve, tokens
from pipeline.models.ollama_client import Server
from pipeline.stages import embed
from tests.fake_ollama.client import ROOT, FakeOllama
from tests.moving_clock import later, run

FAKE = f"""
echo "models in $OLLAMA_MODELS, noprune $OLLAMA_NOPRUNE" >&2
cd {ROOT} && PYTHONPATH={ROOT} exec {sys.executable} -m tests.fake_ollama --vectors hash --port "${{OLLAMA_HOST##*:}}" \
"""


SPEC = models.EmbedderSpec(
    provider="ollama",
    model="mxbai-embed-large",
    digest="468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8",
    dims=1024,
    limit=510,
    tokenizer=tokens.builtin().identity,
)


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
    with pytest.raises(errors.ConfigError, match="local_servers is set") as caught:
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


def settings(local: int, *hosts: str) -> config.Settings:
    return config.Settings(
        embed=config.EmbedSettings(provider="ollama"),
        ollama=config.OllamaSettings(local_servers=local, hosts=hosts),
    )


async def one(embedder: models.Embedder, text: str = "the harbour gate") -> str:
    """The server that embedded it."""
    return (await embedder.embed([text], tokens=0)).server


async def used(embedder: ollama.OllamaEmbedder, servers: int) -> set[str]:
    """Embed until so many servers have done so."""
    found: set[str] = set()
    async with asyncio.timeout(30):
        while len(found) < servers:
            found |= set(await asyncio.gather(*(one(embedder) for _ in range(2 * servers))))
    return found


def opened(local: int, *hosts: str, busy: bool, servers: int = 1, bulk: bool = True) -> tuple[set[str], int]:
    """Which servers embed, `busy`: when there is much to do; and requests at a time."""

    async def main() -> tuple[set[str], int]:
        choice = await resolve.open_embedder(settings(local, *hosts), None, bulk=bulk)
        async with contextlib.aclosing(choice.embedder) as embedder:
            assert isinstance(embedder, ollama.OllamaEmbedder)
            await embedder.describe()
            if busy:
                await worked(embedder)
            urls = await used(embedder, servers)
            assert len(embedder.servers) == servers or busy
            return urls, embedder.limits.concurrency

    return run(main())


async def worked(embedder: models.Embedder) -> None:
    """Let a request take as long as starts the other servers."""
    request = asyncio.create_task(one(embedder, "a request that takes long"))
    await asyncio.sleep(0)
    later(ollama_growth.AFTER_S)
    await request


@pytest.fixture
def on_path(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", environment["PATH"])
    monkeypatch.delenv("OLLAMA_HOST", raising=False)


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """OLLAMA_HOST names a port where nothing listens."""
    with socket.socket() as unused:  # bound and not listening
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{unused.getsockname()[1]}")
        yield


@pytest.mark.usefixtures("on_path", "nobody")
def test_a_run_with_much_to_do_embeds_on_all_the_servers_that_it_starts() -> None:
    urls, concurrency = opened(2, busy=True, servers=2)
    assert (len(urls), concurrency) == (2, 4)
    assert not any(listens(url) for url in urls)
    assert guards() == []


@pytest.mark.usefixtures("on_path", "nobody")
def test_for_a_changed_page_one_server_is_started_where_none_answers() -> None:
    urls, _ = opened(4, busy=False)
    assert len(urls) == 1
    assert guards() == []


@pytest.mark.usefixtures("on_path")
def test_for_a_changed_page_no_server_is_started_where_one_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOllama(vectors="hash") as other:
        monkeypatch.setenv("OLLAMA_HOST", other.url)
        assert opened(4, busy=False)[0] == {other.url}


@pytest.mark.usefixtures("on_path")
def test_a_server_that_answers_is_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOllama(vectors="hash") as other:
        monkeypatch.setenv("OLLAMA_HOST", other.url)
        urls, concurrency = opened(2, busy=True, servers=2)
        assert (other.url in urls, concurrency) == (True, 4)


@pytest.mark.usefixtures("on_path")
def test_named_hosts_take_part_beside_them() -> None:
    with FakeOllama(vectors="hash") as other:
        urls, concurrency = opened(1, other.url, busy=True, servers=2)
        assert (other.url in urls, concurrency) == (True, 4)
        assert listens(other.url)
    assert not any(listens(url) for url in urls)


@pytest.mark.usefixtures("on_path")
def test_a_run_on_named_hosts_goes_on_where_more_cannot_be_started(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(host: str) -> None:
        choice = await resolve.open_embedder(settings(1, host), None)
        async with contextlib.aclosing(choice.embedder) as embedder:
            await worked(embedder)
            monkeypatch.setenv("PATH", "")
            async with asyncio.timeout(20):
                while "goes on without more servers" not in caplog.text:
                    assert await one(embedder) == host

    with FakeOllama(vectors="hash") as other:
        run(main(other.url))


@pytest.mark.usefixtures("on_path")
def test_those_that_have_another_model_than_the_named_host_take_no_part(caplog: pytest.LogCaptureFixture) -> None:
    async def main(host: str) -> None:
        choice = await resolve.open_embedder(settings(1, host), None)
        async with contextlib.aclosing(choice.embedder) as embedder:
            await worked(embedder)
            async with asyncio.timeout(20):
                while "takes no part" not in caplog.text:
                    assert await one(embedder) == host

    with FakeOllama(vectors="hash", models=["mxbai-embed-large=abc"]) as other:
        run(main(other.url))
    assert guards() == []


@pytest.mark.usefixtures("on_path")
def test_a_run_that_ends_while_servers_start_stops_them() -> None:
    async def main(host: str) -> None:
        choice = await resolve.open_embedder(settings(3, host), None)
        async with contextlib.aclosing(choice.embedder) as embedder:
            await worked(embedder)
            await one(embedder)  # begins to start them
            async with asyncio.timeout(20):
                while not guards():  # noqa: ASYNC110 - another process is waited for
                    await asyncio.sleep(0.01)

    with FakeOllama(vectors="hash") as other:
        run(main(other.url))
    assert guards() == []


@pytest.mark.usefixtures("on_path")
def test_a_question_starts_no_server_where_one_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOllama(vectors="hash") as other:
        monkeypatch.setenv("OLLAMA_HOST", other.url)
        assert opened(4, busy=True, bulk=False)[0] == {other.url}


@pytest.mark.usefixtures("on_path", "nobody")
def test_a_question_starts_one_where_none_answers() -> None:
    urls, _ = opened(4, busy=True, bulk=False)
    assert len(urls) == 1
    assert guards() == []


@pytest.mark.usefixtures("on_path", "nobody")
def test_a_collection_that_needs_no_vector_asks_no_server() -> None:
    async def main(*, needed: bool) -> None:
        choice = await resolve.open_embedder(settings(2), SPEC, later=True)
        async with contextlib.aclosing(choice.embedder) as embedder:
            assert (embedder.spec.digest, embedder.limits.concurrency) == (SPEC.digest, 4)
            assert guards() == []
            if needed:
                assert (await embed.describe(embedder)).server_version == "0.32.15"
                assert await one(embedder)
                assert len(guards()) == 1
                assert isinstance(embedder, models.Divided)
                async with embedder.alone() as kept:
                    assert await one(kept)

    run(main(needed=False))
    run(main(needed=True))
    assert guards() == []


@pytest.mark.usefixtures("nobody")
def test_a_server_that_is_needed_and_not_there_is_missed_at_once() -> None:
    async def main() -> None:
        choice = await resolve.open_embedder(settings(0), SPEC, later=True)
        async with contextlib.aclosing(choice.embedder) as embedder, asyncio.timeout(10):
            with pytest.raises(errors.ServerUnreachable, match="ollama serve"):
                await embed.describe(embedder)

    run(main())


@pytest.mark.usefixtures("on_path", "nobody")
def test_a_model_that_lies_in_another_folder_is_explained(tmp_path: Path) -> None:
    program(
        tmp_path / "bin", f"{FAKE} --no-models".replace("\\\n", "").replace('"  --', '" --').replace("\n --", " --")
    )
    with pytest.raises(errors.ModelMissing) as caught:
        opened(1, busy=False)
    assert "OLLAMA_MODELS" in caught.value.remedy
    assert "ollama pull mxbai-embed-large" in caught.value.remedy
    assert guards() == []
