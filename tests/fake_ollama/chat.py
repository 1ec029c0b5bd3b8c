"""/api/chat, /api/generate and /v1/chat/completions: an answer that a test can foretell.

The prompt is searched for numbered passages (`[1] …`). The answer is the sentence that shares most words (Chinese:
pairs of characters) with the question, which is the last line of the last user message, and the passage's number: `Bern
is the capital [2].` No sampling, no system prompt. A test may also say what is answered (`says`).

As in Ollama: the last line has `done`, `done_reason` and the counts; `num_predict` ends with `length`; an error after
the first line is a line; from 0.30 a prompt over num_ctx loses its front and keeps about half of the window without a
flag (#17427, #3839), or is refused with 400 when `truncate` or `shift` is false. Simplified: tokens are
`tokens.rough_tokens`; before 0.30 the cut is the same.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from tests.fake_ollama import tokens, wire
from tests.fake_ollama.app import Answer, App, Refusal, conduct, error_shape, fields_of
from tests.fake_ollama.faults import Fault
from tests.fake_ollama.wire import Reply, Request, Stream

PIECE = 3  # tokens in one line of a stream
OVERHEAD = 11  # tokens that the template adds
BROKEN = "an error was encountered while running the model: unexpected EOF"
NO_ANSWER = "I do not know."
TOO_LONG = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)
_MARK = re.compile(r"^[ \t]*\[(\d+)\][ \t]*", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A finished answer and its counts."""

    model: str
    pieces: list[str]
    done_reason: str
    prompt_tokens: int
    answer_tokens: int
    load_s: float
    fault: Fault | None


def answer_to(prompt: str, question: str) -> str:
    """The sentence of the numbered passages in `prompt` that is nearest to `question`, with its citation; `NO_ANSWER`
    if none shares a word.
    """
    from tests.fake_ollama import vectors

    wanted = set(vectors.features(question)) - vectors.STOP_WORDS
    best = max(_sentences(prompt), key=lambda found: len(wanted & set(vectors.features(found[1]))), default=("", ""))
    if not wanted & set(vectors.features(best[1])):
        return NO_ANSWER
    return f"{best[1].rstrip('.。 ')} [{best[0]}]."


def _sentences(prompt: str) -> list[tuple[str, str]]:
    """(passage number, sentence) for every sentence of every passage; a passage ends at the next mark."""
    marks = list(_MARK.finditer(prompt))
    ends = [mark.start() for mark in marks[1:]] + [len(prompt)]
    found: list[tuple[str, str]] = []
    for mark, end in zip(marks, ends, strict=False):  # without a mark there is one end too many
        found += [(mark[1], part.strip()) for part in _SENTENCE_END.split(prompt[mark.end() : end]) if part.strip()]
    return found


def split_question(messages: list[dict[str, Any]]) -> tuple[str, str]:
    """All that the messages say but the question, and the question: the last line of the last user message."""
    contents = [str(message.get("content") or "") for message in messages]
    asked = max((i for i, message in enumerate(messages) if message.get("role") == "user"), default=len(messages) - 1)
    head, _, question = contents[asked].rstrip().rpartition("\n")
    contents[asked] = head
    return "\n".join(contents), re.sub(r"^\s*(question|问题)\s*[:：]\s*", "", question, flags=re.IGNORECASE)


async def chat(app: App, request: Request) -> Answer:
    """POST /api/chat."""
    fields = fields_of(request)

    async def work(_: list[int]) -> Answer:
        if loading := await _only_load(app, request.path, fields, bool(fields.get("messages")), "message"):
            return loading
        said = await _say(app, request.path, fields)
        if said.fault is not None and fields.get("stream") is False:
            raise Refusal(500, BROKEN)
        if fields.get("stream") is False:
            return wire.reply(_line(said, "".join(said.pieces), done=True))
        return Stream(pieces=_ndjson(said))

    return await conduct(app, request.path, fields, _texts(fields), embeds=False, work=work)


async def generate(app: App, request: Request) -> Answer:
    """POST /api/generate: loads (no prompt), unloads (no prompt, keep_alive 0), or answers the prompt in one piece."""
    fields = fields_of(request)
    prompt = str(fields.get("prompt") or "")

    async def work(_: list[int]) -> Answer:
        if loading := await _only_load(app, request.path, fields, bool(prompt), "response"):
            return loading
        said = await _say(app, request.path, {**fields, "messages": [{"role": "user", "content": prompt}]})
        line = _line(said, "".join(said.pieces), done=True)
        line["response"] = line.pop("message")["content"]
        return wire.reply(line) if fields.get("stream") is False else Stream(pieces=_lines([line]))

    return await conduct(app, request.path, fields, [prompt], embeds=False, work=work)


async def openai(app: App, request: Request) -> Answer:
    """POST /v1/chat/completions, streamed as server-sent events or whole."""
    given = fields_of(request)
    limit = given.get("max_tokens")
    fields = {**given, "options": {"num_predict": limit} if limit else {}}

    async def work(_: list[int]) -> Answer:
        if not fields.get("messages"):
            raise Refusal(400, "[] is too short - 'messages'")
        said = await _say(app, request.path, fields)
        if given.get("stream"):
            usage = bool((given.get("stream_options") or {}).get("include_usage"))
            return Stream(pieces=_events(said, usage), content_type="text/event-stream")
        if said.fault is not None:
            raise Refusal(500, BROKEN)
        message = {"role": "assistant", "content": "".join(said.pieces)}
        choice = {"index": 0, "message": message, "finish_reason": said.done_reason}
        return wire.reply(_completion(said, "chat.completion", [choice]) | {"usage": _usage(said)})

    return await conduct(app, request.path, fields, _texts(fields), embeds=False, work=work)


def _texts(fields: dict[str, Any]) -> list[str]:
    return [str(message.get("content") or "") for message in fields.get("messages") or []]


async def _only_load(app: App, path: str, fields: dict[str, Any], asks: bool, kind: str) -> Reply | None:
    """The answer to a request without a question: it loads the model, or with keep_alive 0 unloads it."""
    if asks:
        return None
    name = str(fields.get("model", ""))
    model = app.find(name)
    if model is None:
        raise Refusal(404, f"model '{name}' not found")
    reason = "load"
    if fields.get("keep_alive") in (0, "0", "0s"):
        app.engine.unload(model)
        reason = "unload"
    else:
        options = fields.get("options") or {}
        runner, _, _ = await app.engine.acquire(model, path=path, options=options, keep_alive=fields.get("keep_alive"))
        app.engine.release(runner)
    empty: Any = {"role": "assistant", "content": ""} if kind == "message" else ""
    return wire.reply({"model": name, "created_at": _now(), kind: empty, "done": True, "done_reason": reason})


async def _say(app: App, path: str, fields: dict[str, Any]) -> Said:
    name = str(fields.get("model", ""))
    model = app.find(name)
    if model is None:
        raise Refusal(404, f"model '{name}' not found")
    if model.embeds:
        raise Refusal(400, f'"{name}" does not support chat')
    if fields.get("think") and app.version.since(0, 9, 0):
        raise Refusal(400, f'"{name}" does not support thinking')
    options = fields.get("options") or {}
    shift = fields.get("shift") is not False
    runner, load_s, _ = await app.engine.acquire(
        model, path=path, options=options, keep_alive=fields.get("keep_alive"), shift=shift
    )
    app.engine.release(runner)
    prompt, question, count = _fit(app, fields, runner.num_ctx, shift)
    said = tokens.rough_tokens(_scripted(app, fields) or answer_to(prompt, question))
    limit = options.get("num_predict")
    cut = isinstance(limit, int) and 0 < limit < len(said)
    said = said[:limit] if cut else said
    return Said(
        model=name,
        pieces=["".join(said[i : i + PIECE]) for i in range(0, len(said), PIECE)],
        done_reason="length" if cut else "stop",
        prompt_tokens=count,
        answer_tokens=len(said),
        load_s=load_s,
        fault=app.faults.take(("chat_error", "chat_cut", "chat_stall"), path, _texts(fields)),
    )


def _scripted(app: App, fields: dict[str, Any]) -> str:
    """What a test told the model to say; "" where it told nothing."""
    if not app.says:
        return ""
    said = app.says.pop(0) if len(app.says) > 1 else app.says[0]
    return said.replace("{prompt}", str(fields["messages"][-1].get("content") or ""))


def _fit(app: App, fields: dict[str, Any], num_ctx: int, shift: bool) -> tuple[str, str, int]:
    """What is left of the prompt, the question, and prompt_eval_count. Refusal 400 if it is too long and may not be
    cut.
    """
    prompt, question = split_question(fields["messages"])
    split = tokens.rough_tokens(prompt)
    count = len(split) + len(tokens.rough_tokens(question)) + OVERHEAD
    if count <= num_ctx - 1:
        return prompt, question, count
    if app.version.has_shift and fields.get("truncate") is False:
        asked = f"request ({count} tokens) exceeds the available context size ({num_ctx} tokens)"
        raise Refusal(400, f"{asked}, try increasing it")
    if app.version.since(0, 30, 0) and not shift:
        raise Refusal(400, TOO_LONG)
    limit = num_ctx - max(num_ctx // 2, 1)
    room = max(0, limit - (count - len(split)))
    return "".join(split[len(split) - room :]), question, limit


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"


def _line(said: Said, content: str, *, done: bool = False) -> dict[str, Any]:
    line: dict[str, Any] = {"model": said.model, "created_at": _now()}
    line |= {"message": {"role": "assistant", "content": content}, "done": done}
    if done:
        load_ns = max(1, int(said.load_s * 1e9))
        line |= {"done_reason": said.done_reason, "total_duration": load_ns + 2_000_000, "load_duration": load_ns}
        line |= {"prompt_eval_count": said.prompt_tokens, "prompt_eval_duration": 1_000_000}
        line |= {"eval_count": said.answer_tokens, "eval_duration": 1_000_000}
    return line


async def _lines(lines: list[dict[str, Any]]) -> AsyncIterator[bytes]:
    for line in lines:
        yield msgspec.json.encode(line) + b"\n"


async def _break_off(fault: Fault) -> None:
    """End the stream here, or never; for `chat_error`, whose line the caller writes, nothing."""
    if fault.kind == "chat_stall":
        await asyncio.get_running_loop().create_future()  # until the client goes
    if fault.kind == "chat_cut":
        raise wire.HangUp


async def _ndjson(said: Said) -> AsyncIterator[bytes]:
    for i, piece in enumerate(said.pieces):
        if said.fault is not None and i == len(said.pieces) // 2:
            await _break_off(said.fault)
            yield msgspec.json.encode({"error": BROKEN}) + b"\n"
            return
        yield msgspec.json.encode(_line(said, piece)) + b"\n"
    yield msgspec.json.encode(_line(said, "", done=True)) + b"\n"


def _completion(said: Said, kind: str, choices: list[Any]) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": kind, "created": int(time.time()), "model": said.model}
    return head | {"system_fingerprint": "fp_ollama", "choices": choices}


def _usage(said: Said) -> dict[str, int]:
    total = said.prompt_tokens + said.answer_tokens
    return {"prompt_tokens": said.prompt_tokens, "completion_tokens": said.answer_tokens, "total_tokens": total}


async def _events(said: Said, usage: bool) -> AsyncIterator[bytes]:
    """Server-sent events. Only the first chunk has a role; the finish chunk is empty, then usage if it was asked for,
    then `[DONE]`.
    """
    kind = "chat.completion.chunk"
    for i, piece in enumerate(said.pieces):
        if said.fault is not None and i == len(said.pieces) // 2:
            await _break_off(said.fault)
            yield _event(msgspec.json.decode(error_shape("/v1/")(Refusal(500, BROKEN)).body))
            return
        delta = ({"role": "assistant"} if i == 0 else {}) | {"content": piece}
        yield _event(_completion(said, kind, [{"index": 0, "delta": delta, "finish_reason": None}]))
    yield _event(_completion(said, kind, [{"index": 0, "delta": {}, "finish_reason": said.done_reason}]))
    if usage:
        yield _event(_completion(said, kind, []) | {"usage": _usage(said)})
    yield b"data: [DONE]\n\n"


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
