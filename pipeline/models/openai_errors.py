"""What the error answers of OpenAI-compatible servers mean (llama.cpp's server, vLLM, TEI, LM Studio)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from pipeline import errors

NO_SUCH_PATH = "has no such path"
_TOO_LONG = (
    r"maximum context length|exceeds? (the )?(available |maximum )?context|too large to process"
    r"|larger than the max(imum)? context|must have less than \d+ tokens|input .*too (long|large)"
    r"|longer than the maximum"
)
_BATCH = r"maximum allowed batch size|batch size"
_MISSING = r"model .*(not found|does not exist|not loaded|unknown)|no models? loaded|invalid model identifier"


class _Body(msgspec.Struct):
    error: Any = None
    message: Any = None
    detail: Any = None


def message(body: bytes) -> str:
    """The error text, wherever the server puts it: `error.message`, `error`, `message` or `detail`."""
    try:
        found = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body[:200].decode("utf-8", "replace").strip()
    error = found.error.get("message") if isinstance(found.error, dict) else found.error
    return str(error or found.message or found.detail or "")


def is_missing(text: str) -> bool:
    """Whether an error text says that the server has no such model."""
    return re.search(_MISSING, text, re.I) is not None


def is_too_large(text: str) -> bool:
    """Whether an error text says that a text, or a request of many, is more than the server takes."""
    return re.search(f"{_TOO_LONG}|{_BATCH}", text, re.I) is not None


def classify(status: int, body: bytes, *, model: str, server: str, key_name: str = "") -> errors.ModelError:
    """The error that an answer other than 200 stands for. `key_name`: the variable that holds the API key."""
    text = message(body)
    said = f"{server} answered {status}: {text or 'without a reason'}"
    if status in (401, 403):
        return errors.ServerRefused(said, f"Put the server's key into the variable {key_name or 'OPENAI_API_KEY'}.")
    if re.search(_TOO_LONG, text, re.I):
        return errors.TextRejected("too_long", said)
    if re.search(_BATCH, text, re.I) and status in (400, 413, 422):
        return errors.ServerRefused(said, "Lower embed.batch_texts.")
    if re.search(_MISSING, text, re.I) and status < 500:
        return errors.ModelMissing(said, f"Load {model} in the server, or set openai.model to one that it lists.")
    if status == 500:
        return errors.RunnerFault(said)
    if status in (408, 425, 429) or status > 500:
        return errors.TransientFault(said)
    if status in (404, 405):
        return errors.ServerRefused(
            f"{server} {NO_SUCH_PATH} (it answered {status}).", "Check openai.url; it mostly ends in /v1."
        )
    return errors.ServerRefused(said, "Check openai.url and the model's name.")
