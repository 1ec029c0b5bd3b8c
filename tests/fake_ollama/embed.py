"""/api/embed, the legacy /api/embeddings, and /v1/embeddings.

What a batch costs, when it fails and what it counts follows `EmbedHandler` at v0.3.12, v0.9.0, v0.13.3 and v0.32.15.
One bad input loses its whole batch, late: the handler waits for all siblings first. Simplified: the runner's own cut of
a text that the handler let through is at context - 2 tokens in every version; `truncate: true` always works (#14186,
#12710: really it does not always).
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass
from typing import Any

from tests.fake_ollama import wire
from tests.fake_ollama.app import Answer, App, Refusal, conduct, fields_of, missing
from tests.fake_ollama.catalog import Model
from tests.fake_ollama.engine import Runner
from tests.fake_ollama.faults import Fault
from tests.fake_ollama.wire import Reply, Request

SPECIALS = 2  # [CLS] and [SEP]
RUNNER_PORT = 40213
FATAL = ("eof", "refused", "terminated", "poison", "error_object")
VECTOR_FAULTS = ("zeros", "nan", "wrong_dim", "short", "duplicate", "swapped", "wrong_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, whatever the endpoint it came by."""

    path: str
    name: str
    texts: list[str]
    counts: list[int]  # content tokens of each
    truncate: bool = True
    dimensions: int = 0
    options: dict[str, Any]
    keep_alive: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    vectors: list[Any]  # float32 arrays
    tokens: int  # as prompt_eval_count has them
    load_s: float
    loaded: bool


async def embed(app: App, request: Request) -> Answer:
    """POST /api/embed."""
    fields = fields_of(request)
    texts = inputs(fields.get("input"))

    async def work(counts: list[int]) -> Reply:
        began = time.monotonic()
        batch = await _compute(app, _ask(request.path, fields, texts, counts))
        took = time.monotonic() - began
        total_s = batch.load_s + took if batch.loaded else took
        numbers = {
            "total_duration": int(total_s * 1e9),
            "load_duration": int(batch.load_s * 1e9),
            "prompt_eval_count": batch.tokens,
        }
        if not texts:
            numbers = {}
        body = {"model": fields.get("model", ""), "embeddings": _lists(batch.vectors)}
        return wire.reply(body | {name: value for name, value in numbers.items() if value})

    return await conduct(app, request.path, fields, texts, embeds=True, work=work)


async def legacy(app: App, request: Request) -> Answer:
    """POST /api/embeddings: one `prompt`, a vector that is not of unit length, and every failure a 500."""
    fields = fields_of(request)
    prompt = fields.get("prompt") or ""
    texts = [prompt] if prompt else []

    async def work(counts: list[int]) -> Reply:
        from tests.fake_ollama import vectors

        ask = _ask(
            request.path, {**fields, "dimensions": 0, "truncate": not app.version.counts_specials}, texts, counts
        )
        try:
            batch = await _compute(app, ask)
        except Refusal as refusal:
            raise Refusal(refusal.status if refusal.status == 404 else 500, refusal.error) from None
        raw = [vector * vectors.raw_length(prompt) for vector in batch.vectors]
        return wire.reply({"embedding": _lists(raw)[0] if raw else []})

    return await conduct(app, request.path, fields, texts, embeds=True, work=work)


async def openai(app: App, request: Request) -> Answer:
    """POST /v1/embeddings: forwards model, input and (from 0.11.11) dimensions; no truncate, options or keep_alive."""
    fields = fields_of(request)
    encoding = _encoding(app, fields)
    given = fields.get("input")
    if given is None or given == []:
        raise Refusal(400, "invalid input")
    texts = [""] if given == "" else inputs(given)

    async def work(counts: list[int]) -> Reply:
        known = {name: value for name, value in fields.items() if name in ("model", "dimensions")}
        batch = await _compute(app, _ask(request.path, known, texts, counts))
        shown = [_base64(vector) for vector in batch.vectors] if encoding == "base64" else _lists(batch.vectors)
        data = [{"object": "embedding", "embedding": vector, "index": i} for i, vector in enumerate(shown)]
        usage = {"prompt_tokens": batch.tokens, "total_tokens": batch.tokens}
        return wire.reply({"object": "list", "data": data, "model": fields.get("model", ""), "usage": usage})

    return await conduct(app, request.path, fields, texts, embeds=True, work=work)


def inputs(given: Any) -> list[str]:
    """The texts of `input`: an empty string and nothing at all are no texts, `[""]` is one."""
    if isinstance(given, str):
        return [given] if given else []
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(text, str) for text in given):
        raise Refusal(400, "invalid input type")
    return given


def _ask(path: str, fields: dict[str, Any], texts: list[str], counts: list[int]) -> Ask:
    return Ask(
        path=path,
        name=str(fields.get("model", "")),
        texts=texts,
        counts=counts,
        truncate=fields.get("truncate") is not False,
        dimensions=int(fields.get("dimensions") or 0),
        options=fields.get("options") or {},
        keep_alive=fields.get("keep_alive"),
    )


def _encoding(app: App, fields: dict[str, Any]) -> str:
    """The format to send. Before 0.12.7 the field is not read at all."""
    asked = str(fields.get("encoding_format") or "float").lower()
    if not app.version.has_base64:
        return "float"
    if asked not in ("float", "base64"):
        raise Refusal(400, f"Invalid value for 'encoding_format' = {asked}. Supported values: ['float', 'base64'].")
    return asked


async def _compute(app: App, ask: Ask) -> Batch:
    model = app.find(ask.name)
    if model is None:
        raise missing(ask.name)
    runner, load_s, loaded = await app.engine.acquire(
        model, path=ask.path, options=ask.options, keep_alive=ask.keep_alive
    )
    try:
        if not model.embeds and app.version.since(0, 30, 0):
            raise Refusal(501, "This server does not support embeddings. Start it with `--embeddings`")
        if not ask.texts:
            return Batch(vectors=[], tokens=0, load_s=load_s, loaded=loaded)
        vectors, counted = await _run(app, ask, model, runner)
        return Batch(vectors=vectors, tokens=counted, load_s=load_s, loaded=loaded)
    finally:
        app.engine.release(runner)


async def _run(app: App, ask: Ask, model: Model, runner: Runner) -> tuple[list[Any], int]:
    """The batch's vectors and its count. They are ready before the clock has run: what the client waits for is the
    clock alone.
    """
    context = min(runner.num_ctx, model.context)
    counts = ask.counts
    over = _over_limit(app, ask, counts, context)
    if over and not app.version.counts_specials:
        raise over  # these versions check all inputs before any is computed
    fatal = app.faults.take(FATAL, ask.path, ask.texts)
    fault = app.faults.take(VECTOR_FAULTS, ask.path, ask.texts)
    vectors = [] if fatal or over else _vectors(app, ask, model, runner, counts, context, fault)
    await app.engine.clock.spend(
        [(min(n, context - SPECIALS) + SPECIALS) * app.cost_us_per_token / 1e6 for n in counts]
    )
    if over:
        raise over
    if fatal:
        raise _death(app, runner, fatal)
    if fault is not None and fault.kind == "nan" and not app.version.nan_is_zeros:
        raise Refusal(*((500, {}) if app.version.empty_error_object else app.version.nan_error))
    return vectors, _counted(app, counts, context) + (
        3 * len(counts) if fault is not None and fault.kind == "wrong_count" else 0
    )


def _over_limit(app: App, ask: Ask, counts: list[int], context: int) -> Refusal | None:
    """From 0.13.3 the specials count too: 510 of content fit into 512. Before, the handler let 512 of content pass and
    the runner cut.
    """
    limit = context - SPECIALS if app.version.counts_specials else context
    if ask.truncate or max(counts) <= limit:
        return None
    return Refusal(400, app.version.over_limit_message)


def _counted(app: App, counts: list[int], context: int) -> int:
    """prompt_eval_count: what was left after the cut; 0.12.0 to 0.13.2 leave room for the specials when they cut, older
    ones do not.
    """
    if app.version.counts_specials:
        return sum(min(n, context - SPECIALS) + SPECIALS for n in counts)
    cut_to = context - SPECIALS if app.version.since(0, 12, 0) else context
    return sum(n if n <= context else cut_to for n in counts)


def _death(app: App, runner: Runner, fault: Fault) -> Refusal:
    """The answer when the runner dies in the middle of an input."""
    if fault.kind == "error_object":
        return Refusal(500, {})
    runner.dead = True
    if app.version.empty_error_object:
        return Refusal(500, {})
    where = f'do embedding request: Post "http://127.0.0.1:{RUNNER_PORT}{app.version.runner_path}"'
    program = "llama-server" if app.version.since(0, 30, 0) else "llama runner"
    message = {
        "refused": f"{where}: dial tcp 127.0.0.1:{RUNNER_PORT}: connect: connection refused",
        "terminated": f"{program} process has terminated: signal: killed",
    }.get(fault.kind, f"{where}: EOF")
    return Refusal(app.version.embed_error_status, message)


def _vectors(
    app: App, ask: Ask, model: Model, runner: Runner, counts: list[int], context: int, fault: Fault | None
) -> list[Any]:
    limit = context - SPECIALS
    texts = [text if n <= limit else app.cut(text, limit) for text, n in zip(ask.texts, counts, strict=True)]
    found = [app.vector(text, model.dims) for text in texts]
    dims = ask.dimensions if app.version.has_dimensions else 0
    if 0 < dims < model.dims:
        from tests.fake_ollama import vectors

        found = [vectors.unit(vector[:dims]) for vector in found]
    if fault is not None:
        found = _bent(ask, runner, found, fault)
    return [vector * 0 for vector in found] if runner.poisoned else found


def _bent(ask: Ask, runner: Runner, found: list[Any], fault: Fault) -> list[Any]:
    match fault.kind:
        case "zeros" | "nan":
            runner.poisoned = runner.poisoned or fault.sticky
            return [vector * 0 if fault.hits(text) else vector for text, vector in zip(ask.texts, found, strict=True)]
        case "wrong_dim":
            return [vector[: len(vector) // 2] for vector in found]
        case "short":
            return found[:-1]
        case "duplicate":
            return [found[0]] * len(found)
        case "swapped":
            return [*found[1::-1], *found[2:]]
    return found


def _lists(vectors: list[Any]) -> list[list[float]]:
    """Go writes a float32 with as few digits as it takes to read the same one back; nine significant ones always do."""
    import numpy as np

    exact = [vector.astype("f8") for vector in vectors]
    scales = [10.0 ** (8 - np.floor(np.log10(np.maximum(np.abs(vector), 1e-30)))) for vector in exact]
    return [(np.round(vector * scale) / scale).tolist() for vector, scale in zip(exact, scales, strict=True)]


def _base64(vector: Any) -> str:
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")
