"""/__fake__/…: what a test says to the fake and asks of it. Ollama has nothing of this kind.

GET    /__fake__/requests   texts, requests and counters
GET    /__fake__/counters   counters alone
GET    /__fake__/faults     the faults that are set, with how often each fired
POST   /__fake__/faults     set one, or a list
DELETE /__fake__/faults     clear all, or with ?kind=… one kind
POST   /__fake__/config     version, vectors, cost_us_per_token, says
POST   /__fake__/reset      forget requests and faults, unload all, back to the models of the start
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

import msgspec

from tests.fake_ollama import wire
from tests.fake_ollama.app import App, Refusal
from tests.fake_ollama.faults import Fault
from tests.fake_ollama.versions import Version
from tests.fake_ollama.wire import Reply, Request

PREFIX = "/__fake__/"


async def answer(app: App, request: Request) -> Reply:
    """Any request below /__fake__/."""
    match request.method, request.path.removeprefix(PREFIX):
        case "GET", "requests":
            return wire.reply({"texts": app.record.texts, "requests": app.record.requests, "counters": _counters(app)})
        case "GET", "counters":
            return wire.reply(_counters(app))
        case "GET", "faults":
            return wire.reply(app.faults.all())
        case "POST", "faults":
            app.faults.add(*_faults(request.body))
            return wire.reply(app.faults.all())
        case "DELETE", "faults":
            app.faults.clear(next(iter(parse_qs(request.query).get("kind", [])), None))
            return wire.reply(app.faults.all())
        case "POST", "config":
            return wire.reply(_configure(app, request.body))
        case "POST", "reset":
            app.reset()
            return wire.reply({})
    return wire.reply({"error": f"no such control: {request.method} {request.path}"}, 404)


def _counters(app: App) -> dict[str, Any]:
    counters: dict[str, Any] = msgspec.to_builtins(app.record.counters)
    return counters | {"loads": app.engine.loads, "busy_s": app.engine.clock.busy_s}


def _faults(body: bytes) -> list[Fault]:
    try:
        return (
            msgspec.json.decode(body, type=list[Fault])
            if body.lstrip().startswith(b"[")
            else [msgspec.json.decode(body, type=Fault)]
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise Refusal(400, str(error)) from None


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """What may change while the server runs."""

    version: str | None = None
    vectors: str | None = None
    cost_us_per_token: float | None = None
    says: list[str] | None = None


def _configure(app: App, body: bytes) -> dict[str, Any]:
    try:
        asked = msgspec.json.decode(body, type=Config)
    except msgspec.DecodeError as error:
        raise Refusal(400, str(error)) from None
    if asked.version is not None:
        app.version = app.engine.version = Version(asked.version)
    app.vectors = asked.vectors or app.vectors
    if asked.says is not None:
        app.says = list(asked.says)
    if asked.cost_us_per_token is not None:
        app.cost_us_per_token = asked.cost_us_per_token
    return {"version": app.version.text, "vectors": app.vectors, "cost_us_per_token": app.cost_us_per_token}
