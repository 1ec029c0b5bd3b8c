"""`FakeOllama`: start, steer, ask and stop a fake server from a test.

    with FakeOllama(cost_us_per_token=50) as ollama:
        ollama.set_fault("eof", count=1)
        …point the code under test at ollama.url…
        assert ollama.texts() == ["…"]

The server ends with this process however that ends: it holds the other end of its stdin.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Received:
    """One text that was sent to be embedded; `request` numbers the requests from 1, `tokens` are content tokens."""

    request: int
    endpoint: str
    model: str
    text: str
    tokens: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One request to a model: its fields but the input, and its status (None: in flight; 499: the client went away)."""

    number: int
    endpoint: str
    model: str
    texts: int
    fields: dict[str, Any]
    status: int | None
    cancelled: bool


class FakeOllama:
    """One server process. Faults, models and the rest are as on its command line (`python -m tests.fake_ollama
    --help`).
    """

    def __init__(
        self,
        *,
        version: str = "0.32.15",
        models: Iterable[str] | None = None,
        faults: Iterable[str] = (),
        cost_us_per_token: float = 0.0,
        load_s: float = 0.0,
        vectors: str = "words",
        minilm: Path | None = None,
        tokenizer: Path | None = None,
        vram_share: float = 1.0,
        seed: int = 0,
        state: Path | None = None,
        log: Path | None = None,
        record: bool = True,
        any_origin: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._arguments = [
            "--exit-with-stdin",
            f"--host={host}",
            f"--version={version}",
            f"--vectors={vectors}",
            f"--seed={seed}",
        ]
        self._arguments += [
            f"--cost-us-per-token={cost_us_per_token}",
            f"--load-s={load_s}",
            f"--vram-share={vram_share}",
        ]
        if models is not None:
            self._arguments += [f"--model={model}" for model in models] or ["--no-models"]
        self._arguments += [f"--fault={fault}" for fault in faults]
        paths = {"minilm": minilm, "tokenizer": tokenizer, "state": state, "log": log}
        self._arguments += [f"--{name}={path.absolute()}" for name, path in paths.items() if path is not None]
        self._arguments += [] if record else ["--no-record"]
        self._arguments += ["--any-origin"] if any_origin else []
        self._process: subprocess.Popen[bytes] | None = None
        self.host = host
        self.port = port
        self.url = ""

    def start(self) -> Self:
        """Start the process and return when it listens. RuntimeError with its exit status if it does not."""
        command = [sys.executable, "-m", "tests.fake_ollama", *self._arguments, f"--port={self.port}"]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=pipe, stdout=pipe, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.stop()
            raise RuntimeError(f"the fake server did not start: {' '.join(command)}")
        said = json.loads(line)
        self.port, self.url = said["port"], said["url"]
        return self

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """SIGTERM, and wait; nothing if it does not run."""
        self._end(kill=False)

    def kill(self) -> None:
        """SIGKILL, and wait: open connections break."""
        self._end(kill=True)

    def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        (process.kill if kill else process.terminate)()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def restart(self) -> Self:
        """Kill it and start another on the same port; only `state` and `log` files are remembered."""
        self.kill()
        return self.start()

    def request(self, method: str, path: str, value: Any = None, timeout_s: float = 30.0) -> tuple[int, Any]:
        """One request by hand: the status, and the decoded JSON body (text, where it is not JSON)."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)
        try:
            connection.request(method, path, None if value is None else json.dumps(value))
            answer = connection.getresponse()
            body = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        try:
            return answer.status, json.loads(body)
        except ValueError:
            return answer.status, body

    def get(self, path: str) -> Any:
        """The JSON of a GET that must succeed."""
        return self._checked("GET", path)

    def post(self, path: str, value: Any = None) -> Any:
        """The JSON of a POST that must succeed."""
        return self._checked("POST", path, {} if value is None else value)

    def _checked(self, method: str, path: str, value: Any = None) -> Any:
        status, found = self.request(method, path, value)
        if status != 200:
            raise RuntimeError(f"{method} {path} answered {status}: {found}")
        return found

    def received(self) -> list[Received]:
        """Every text to embed, in the order of arrival."""
        return [Received(**text) for text in self.get("/__fake__/requests")["texts"]]

    def texts(self) -> list[str]:
        """The same, the texts alone."""
        return [text.text for text in self.received()]

    def requests(self) -> list[Entry]:
        """Every request to embed or to chat."""
        return [Entry(**entry) for entry in self.get("/__fake__/requests")["requests"]]

    def counters(self) -> dict[str, Any]:
        """texts, tokens, requests, connections, peak_in_flight, loads, busy_s and the rest."""
        found: dict[str, Any] = self.get("/__fake__/counters")
        return found

    def set_fault(
        self,
        kind: str,
        *,
        rate: float = 1.0,
        count: int | None = None,
        after: int = 0,
        match: str | None = None,
        endpoint: str | None = None,
        seconds: float = 1.0,
        sticky: bool = False,
    ) -> None:
        """Add a fault (see `tests.fake_ollama.faults`)."""
        fault = {"kind": kind, "rate": rate, "count": count, "after": after, "match": match}
        self.post("/__fake__/faults", {**fault, "endpoint": endpoint, "seconds": seconds, "sticky": sticky})

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are set; `fired` says how often each struck."""
        found: list[dict[str, Any]] = self.get("/__fake__/faults")
        return found

    def clear_faults(self, kind: str | None = None) -> None:
        """Take back all faults, or those of one kind."""
        self._checked("DELETE", f"/__fake__/faults?kind={kind}" if kind else "/__fake__/faults")

    def configure(
        self,
        *,
        version: str | None = None,
        vectors: str | None = None,
        cost_us_per_token: float | None = None,
        says: Sequence[str] | None = None,
    ) -> None:
        """Change these while it runs. `says`: the answers of the chat model, one after the other, the last one for all
        that follow; `{prompt}` in one is the last message it was sent. Empty: as it answers by itself.
        """
        wanted = {"version": version, "vectors": vectors, "cost_us_per_token": cost_us_per_token}
        self.post("/__fake__/config", {**wanted, "says": None if says is None else list(says)})

    def reset(self) -> None:
        """Forget requests and faults, unload all models, put back those of the start: for a server that several tests
        share.
        """
        self.post("/__fake__/reset")
