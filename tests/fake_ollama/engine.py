"""The scheduler and the runner: which models are loaded with which options, one queue of inputs, and the clock that
makes inputs take time.

As in Ollama: embedding models run one input at a time (since 0.3.7, #8778), first come first served over all requests;
a request that is cancelled gives up its queued inputs at once; a runner option that changes between requests reloads
the model; a model leaves when its keep_alive has passed since its last request. Simplified: one clock for the whole
server and not one for each model, chat takes no time, and a load that takes no time reports a quarter of a second all
the same, so that a client can tell a load from none.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from tests.fake_ollama.catalog import Model
from tests.fake_ollama.faults import Faults
from tests.fake_ollama.versions import Version

KEEP_ALIVE_S = 300.0
FOREVER_S = 100 * 365 * 86400.0
REPORTED_LOAD_S = 0.25
RUNNER_OPTIONS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h)")


def seconds(keep_alive: Any) -> float:
    """keep_alive in seconds: a number, or Go's notation (`30m`, `1h30m`); negative is for ever. ValueError where Ollama
    answers 400.
    """
    if keep_alive is None:
        return KEEP_ALIVE_S
    if isinstance(keep_alive, int | float):
        return float(keep_alive) if keep_alive >= 0 else FOREVER_S
    if not isinstance(keep_alive, str):
        raise ValueError(f"Unable to convert keep_alive {keep_alive!r}")
    text = keep_alive.removeprefix("-")
    if text != "0" and not re.fullmatch(f"(?:{_PART.pattern})+", text):
        raise ValueError(f'time: invalid duration "{keep_alive}"')
    total = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
    return FOREVER_S if keep_alive.startswith("-") and total > 0 else total


class LoadError(Exception):
    """The model could not be loaded: 500."""


@dataclass(slots=True)
class Runner:
    """A loaded model."""

    model: Model
    profile: tuple[Any, ...]
    num_ctx: int
    expires_at: float  # seconds since the epoch
    keep_alive_s: float = KEEP_ALIVE_S
    in_flight: int = 0
    poisoned: bool = False  # answers zeros until it is loaded anew (#17878)
    dead: bool = False  # died in the middle of an input; the next request loads another


@dataclass(slots=True)
class _Job:
    costs_s: deque[float]
    queued_at: float
    done: asyncio.Future[None]


@dataclass
class Clock:
    """One permit. Inputs are done at `busy until` + cost, so the total is exact whatever the precision of the event
    loop's timer.
    """

    busy_until: float = 0.0
    busy_s: float = 0.0
    _jobs: deque[_Job] = field(default_factory=deque)
    _worker: asyncio.Task[None] | None = None

    async def spend(self, costs_s: list[float]) -> None:
        """Return when all these inputs have had their turn. Cancelled: those still queued are given up, the one under
        way is not.
        """
        if not any(costs_s):
            return
        job = _Job(deque(costs_s), time.monotonic(), asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            await job.done
        finally:
            job.costs_s.clear()

    async def _work(self) -> None:
        while self._jobs:
            job = self._jobs[0]
            while job.costs_s:
                cost = job.costs_s.popleft()
                self.busy_until = max(self.busy_until, job.queued_at) + cost
                self.busy_s += cost
                if (ahead := self.busy_until - time.monotonic()) > 0:
                    await asyncio.sleep(ahead)
            self._jobs.popleft()
            if not job.done.done():
                job.done.set_result(None)


class Engine:
    """The models present and the ones loaded. `load_s`: how long a load takes."""

    def __init__(self, *, version: Version, models: list[Model], faults: Faults, load_s: float = 0.0) -> None:
        self.version = version
        self.models = {model.name: model for model in models}
        self.clock = Clock()
        self.loads = 0
        self._faults = faults
        self._load_s = load_s
        self._runners: dict[str, Runner] = {}
        self._loading: dict[str, asyncio.Lock] = {}

    def running(self) -> list[Runner]:
        """The loaded models, after those whose time has come were unloaded."""
        now = time.time()
        for name, runner in list(self._runners.items()):
            if runner.dead or (runner.expires_at <= now and not runner.in_flight):
                del self._runners[name]
        return list(self._runners.values())

    def unload(self, model: Model | None = None) -> None:
        """Unload one model, or all."""
        for name in [model.name] if model else list(self._runners):
            self._runners.pop(name, None)

    def profile(self, model: Model, options: dict[str, Any], shift: bool) -> tuple[Any, ...]:
        """What a loaded model is compared with: another profile is another load. A negative num_gpu is the default."""
        values = {name: options.get(name) for name in RUNNER_OPTIONS}
        values["num_ctx"] = self.num_ctx(model, options)
        if isinstance(values["num_gpu"], int) and values["num_gpu"] < 0:
            values["num_gpu"] = None
        return (*values.values(), shift if self.version.shift_reloads and not model.embeds else True)

    def num_ctx(self, model: Model, options: dict[str, Any]) -> int:
        asked = options.get("num_ctx")
        wanted = asked if isinstance(asked, int) and asked > 0 else self.version.default_num_ctx
        return min(wanted, model.context) if self.version.clamps_num_ctx else wanted

    async def acquire(
        self, model: Model, *, path: str, options: dict[str, Any], keep_alive: Any, shift: bool = True
    ) -> tuple[Runner, float, bool]:
        """A runner for this request (give it back with `release`), the load_duration to report in seconds, and whether
        there was a load.
        """
        keep_s = seconds(keep_alive)
        began = time.monotonic()
        async with self._loading.setdefault(model.name, asyncio.Lock()):
            self.running()
            runner = self._runners.get(model.name)
            wanted = self.profile(model, options, shift)
            loaded = runner is None or runner.profile != wanted
            if runner is None or loaded:
                runner = await self._load(model, wanted, self.num_ctx(model, options), path)
        runner.in_flight += 1
        runner.keep_alive_s = keep_s
        runner.expires_at = time.time() + keep_s
        took = time.monotonic() - began
        return runner, max(took, REPORTED_LOAD_S) if loaded else took, loaded

    async def _load(self, model: Model, profile: tuple[Any, ...], num_ctx: int, path: str) -> Runner:
        if self._faults.take(("load_error",), path):
            raise LoadError("llama-server process has terminated: exit status 1")
        slow = self._faults.take(("slow_load",), path)
        wait_s = self._load_s + (slow.seconds if slow else 0.0)
        if wait_s:
            await asyncio.sleep(wait_s)
        self.loads += 1
        runner = Runner(model, profile, num_ctx, expires_at=time.time() + KEEP_ALIVE_S)
        self._runners[model.name] = runner
        return runner

    def release(self, runner: Runner) -> None:
        """The request is over: its keep_alive starts to run, and 0 unloads now."""
        runner.in_flight -= 1
        runner.expires_at = time.time() + runner.keep_alive_s
        if not runner.keep_alive_s and not runner.in_flight and self._runners.get(runner.model.name) is runner:
            del self._runners[runner.model.name]
