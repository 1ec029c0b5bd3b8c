"""Ollama servers of our own: N `ollama serve` on free loopback ports, for as long as a run lasts.

One server embeds one text at a time, whatever is asked of it (ollama/ollama#8778), so that a machine with room for
several models is kept busy by several servers only. They share the user's models folder (OLLAMA_MODELS, as in the
environment). Each has a guard (ollama_local_guard.py) which ends it when this process ends, in whatever way.

Knows processes and ports; knows no model.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from pipeline import errors
from pipeline.models.ollama_client import Server

log = logging.getLogger(__name__)
GUARD = Path(__file__).with_name("ollama_local_guard.py")
START_S = 30.0  # discovering GPUs takes a few seconds, ten on a slow driver
STOP_S = 10.0  # the guard itself gives the server 5 s
LOOK_S = 0.05
TRIES = 3  # somebody else may take a port between our look and the server's
LOG_LINES = 5
HOST = "127.0.0.1"


class LocalServers:
    """Running servers; `urls` in order. Made by `start`, ended by `aclose` (or by the end of this process)."""

    def __init__(self, running: list[_Local]) -> None:
        self._running = running

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(one.url for one in self._running)

    async def aclose(self) -> None:
        """Stop them all, and return when they are gone."""
        running, self._running = self._running, []
        for one in running:
            one.let_go()
        for one in running:
            await asyncio.to_thread(one.wait)


async def start(count: int, environment: Mapping[str, str], *, start_s: float = START_S) -> LocalServers:
    """`count` servers that answer.

    Args:
        environment: theirs, with OLLAMA_HOST replaced.
        start_s: how long one may take until it answers.

    Raises:
        ConfigError: there is no `ollama` on PATH.
        ServerUnreachable: one did not answer in time, or ended; with the last lines of its log.
    """
    program = shutil.which("ollama", path=environment.get("PATH"))
    if program is None:
        raise errors.ConfigError(
            "ollama.local_servers is set, but there is no program `ollama` on PATH.",
            "Install Ollama (https://ollama.com/download), or set ollama.local_servers = 0.",
        )
    made: list[_Local] = []
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_start(program, environment, start_s, made)) for _ in range(count)]
    except BaseException as error:
        await LocalServers(made).aclose()
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from None
        raise
    return LocalServers([task.result() for task in tasks])


async def _start(program: str, environment: Mapping[str, str], start_s: float, made: list[_Local]) -> _Local:
    """One server. Whatever was made is noted in `made` first: a cancelled task must not leave a process behind."""
    for _ in range(TRIES):
        one = _Local(program, environment)
        made.append(one)
        if await one.answers(start_s):
            log.info("Started an Ollama server at %s", one.url)
            return one
        one.let_go()
        said = await asyncio.to_thread(one.wait)
        if "address already in use" not in said:
            break
    raise errors.ServerUnreachable(
        f"`ollama serve` at {one.url} did not answer within {start_s:g} s, or ended. It said:\n{said or '(nothing)'}",
        "Run `ollama serve` by hand to see what it lacks, or set ollama.local_servers = 0.",
    )


class _Local:
    """One server process with its guard and its log (a file without a name: nothing is left after a crash)."""

    def __init__(self, program: str, environment: Mapping[str, str]) -> None:
        port = _free_port()
        self.url = f"http://{HOST}:{port}"
        self._waiting = threading.Lock()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `wait`
        self._guard = subprocess.Popen(  # noqa: S603 - the user's own `ollama`
            [sys.executable, "-I", "-S", str(GUARD), program, "serve"],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            # Pruning at the start would delete what another server of the same folder is pulling.
            env={**environment, "OLLAMA_HOST": f"{HOST}:{port}", "OLLAMA_NOPRUNE": "1"},
            start_new_session=True,
        )

    async def answers(self, start_s: float) -> bool:
        """Wait until it does; False when it ended, or has not answered within `start_s`."""
        clock = asyncio.get_running_loop().time
        until_s = clock() + start_s
        server = Server(self.url)
        try:
            while clock() < until_s and self._guard.poll() is None:
                try:
                    async with asyncio.timeout_at(until_s):
                        await server.version()
                except (errors.ServerUnreachable, errors.TransientFault, TimeoutError):
                    await asyncio.sleep(LOOK_S)
                    continue
                return self._guard.poll() is None  # else it was somebody else's server that answered
        finally:
            await server.aclose()
        return False

    def let_go(self) -> None:
        """Have the guard end the server."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()

    def wait(self) -> str:
        """The last lines of the log, once both are gone; "" the second time. Blocks for up to STOP_S."""
        with self._waiting:
            if self._log.closed:
                return ""
            try:
                self._guard.wait(STOP_S)
            except subprocess.TimeoutExpired:
                log.warning("The guard of %s did not end within %g s and was killed", self.url, STOP_S)
                self._guard.kill()
                self._guard.wait()
            with self._log:
                self._log.seek(0)
                text = self._log.read().decode("utf-8", "replace")
            return "\n".join(text.splitlines()[-LOG_LINES:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
