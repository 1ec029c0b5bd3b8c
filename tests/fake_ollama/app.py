"""What the endpoints share: the state of the server, and the course of one request to a model (faults, record, errors
in the right shape).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec

from tests.fake_ollama import catalog, tokens, wire
from tests.fake_ollama.catalog import Model
from tests.fake_ollama.engine import Engine, LoadError
from tests.fake_ollama.faults import Faults
from tests.fake_ollama.record import Record
from tests.fake_ollama.versions import Version
from tests.fake_ollama.wire import Reply, Request, Stream

Answer = Reply | Stream
GATE = ("http500", "busy503", "missing_model", "garbage", "hang", "reset")
PROXY_PAGE = (
    b"<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body><h1>502 Bad Gateway</h1></body>\r\n</html>\r\n"
)
BUSY = "server busy, please try again.  maximum pending requests exceeded"


class Refusal(Exception):
    """An error answer. `error` is a message, or the empty object that 0.3.5 to 0.6.0 send."""

    def __init__(self, status: int, error: Any) -> None:
        super().__init__(status, error)
        self.status = status
        self.error = error


@dataclass(kw_only=True)
class App:
    version: Version
    engine: Engine
    faults: Faults
    record: Record
    vectors: str = "words"
    minilm: Path
    tokenizer: Path
    cost_us_per_token: float = 0.0
    says: list[str] = field(default_factory=list)  # by the chat model, where a test decides
    vram_share: float = 1.0
    any_origin: bool = False  # as with OLLAMA_ORIGINS=*
    any_host: bool = False  # as a server does that listens to more than loopback
    state: Path | None = None
    initial: list[Model] = field(default_factory=list)

    def find(self, name: str) -> Model | None:
        return self.engine.models.get(catalog.full_name(name)) if name else None

    @cached_property
    def _functions(self) -> dict[str, Callable[[str, int], Any]]:
        return {}

    def vector(self, text: str, dims: int) -> Any:
        """The unit vector for `text` (numpy is imported here, so that the server listens before that)."""
        if self.vectors not in self._functions:
            from tests.fake_ollama import vectors

            self._functions[self.vectors] = vectors.by_name(self.vectors, self.minilm)
        return self._functions[self.vectors](text, dims)

    def count(self, texts: list[str]) -> list[int]:
        return tokens.count(texts, self.tokenizer)

    def cut(self, text: str, limit: int) -> str:
        return tokens.cut(text, limit, self.tokenizer)

    def save(self) -> None:
        """Write which models are present, for a server that is started again with the same `--state`."""
        if self.state is not None:
            known = [f"{model.name}={model.digest}" for model in self.engine.models.values()]
            self.state.write_bytes(msgspec.json.encode({"models": known}))

    def reset(self) -> None:
        """Everything as at the start but the version, cost and kind of vectors."""
        self.faults.clear()
        self.says = []
        self.record.reset()
        self.engine.unload()
        self.engine.loads = 0
        self.engine.clock.busy_s = 0.0
        self.engine.models = {model.name: model for model in self.initial}
        self.save()


def fields_of(request: Request) -> dict[str, Any]:
    """The request's JSON object. Refusal 400 with Go's words where there is none."""
    if not request.body.strip():
        raise Refusal(400, "missing request body")
    try:
        found = msgspec.json.decode(request.body)
    except msgspec.DecodeError as error:
        raise Refusal(400, f"invalid request body: {error}") from None
    if not isinstance(found, dict):
        raise Refusal(400, "json: cannot unmarshal value into Go value of type api.Request")
    return found


def native_error(refusal: Refusal) -> Reply:
    return wire.reply({"error": refusal.error}, refusal.status)


def openai_error(refusal: Refusal) -> Reply:
    kind = {400: "invalid_request_error", 404: "not_found_error"}.get(refusal.status, "api_error")
    message = (
        refusal.error if isinstance(refusal.error, str) else msgspec.json.encode({"error": refusal.error}).decode()
    )
    return wire.reply({"error": {"message": message, "type": kind, "param": None, "code": None}}, refusal.status)


def error_shape(path: str) -> Callable[[Refusal], Reply]:
    return openai_error if path.startswith("/v1/") else native_error


def missing(name: str) -> Refusal:
    """The scheduler's words, for every endpoint that embeds; chat, generate and show have `model 'x' not found`."""
    return Refusal(404, f'model "{name}" not found, try pulling it first')


async def conduct(
    app: App,
    path: str,
    fields: dict[str, Any],
    texts: list[str],
    *,
    embeds: bool,
    work: Callable[[list[int]], Awaitable[Answer]],
) -> Answer:
    """One request to a model: noted, struck by the faults that are set, answered by `work`. `texts`: what a fault's
    `match` looks at.
    """
    counts = app.count(texts) if embeds else []
    entry = app.record.begin(path, fields, texts if embeds else [], counts)
    status: int | None = None
    try:
        try:
            answer = await _gate(app, path, fields, texts) or await work(counts)
        except Refusal as refusal:
            answer = error_shape(path)(refusal)
        except (LoadError, ValueError) as error:
            answer = error_shape(path)(Refusal(500 if isinstance(error, LoadError) else 400, str(error)))
        answer = _spoil(app, path, texts, answer)
        status = answer.status
        return answer
    finally:
        app.record.end(entry, status)


async def _gate(app: App, path: str, fields: dict[str, Any], texts: list[str]) -> Reply | None:
    if slow := app.faults.take(("slow",), path, texts):
        await asyncio.sleep(slow.seconds)
    fault = app.faults.take(GATE, path, texts)
    if fault is None:
        return None
    name = str(fields.get("model", ""))
    match fault.kind:
        case "http500":
            raise Refusal(500, "an internal error, made by the test")
        case "busy503":
            raise Refusal(503, BUSY)
        case "missing_model":
            raise missing(name)
        case "garbage":
            return Reply(status=502, body=PROXY_PAGE, content_type="text/html")
        case "hang":
            await _hang(app, path, name)
    raise wire.HangUp


async def _hang(app: App, path: str, name: str) -> None:
    """Never return; the model's time in /api/ps runs out while it is still there (#17428)."""
    model = app.find(name)
    if model is None:
        raise missing(name)
    runner, _, _ = await app.engine.acquire(model, path=path, options={}, keep_alive=None)
    runner.expires_at = time.time() - 60
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        app.engine.release(runner)


def _spoil(app: App, path: str, texts: list[str], answer: Answer) -> Answer:
    fault = app.faults.take(("disconnect", "truncated_json"), path, texts)
    if fault is None or not isinstance(answer, Reply):
        return answer
    if fault.kind == "disconnect":
        return Reply(status=answer.status, body=answer.body, content_type=answer.content_type, cut=True)
    return Reply(status=answer.status, body=answer.body[: len(answer.body) // 2], content_type=answer.content_type)
