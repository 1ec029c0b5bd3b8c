"""A tokenizer.json from the vocabulary that Ollama's `/api/show` tells with `verbose`: WordPiece models only.

GGUF marks the beginning of a word (U+2581 before it) where WordPiece marks the rest of one (## before it). llama.cpp
(llm_tokenizer_wpm) lower-cases and strips accents whatever the model says, so the packaged uncased rules hold for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from pipeline.models import builtin

PHANTOM_SPACE = "\u2581"
UNKNOWN = "[UNK]"


@cache
def packaged() -> str:
    """The packaged tokenizer.json."""
    return (builtin.FOLDER / "tokenizer.json").read_text(encoding="utf-8")


def tokenizer_json(model_info: Mapping[str, Any]) -> str | None:
    """The tokenizer.json of a WordPiece model; None for another kind of model, or where no vocabulary is shown.

    A vocabulary that equals the packaged one gives the packaged file, letter for letter, so that identities agree.
    """
    shown = model_info.get("tokenizer.ggml.tokens")
    if model_info.get("tokenizer.ggml.model") != "bert" or not isinstance(shown, list):
        return None
    words = [_word_piece(str(token)) for token in shown]
    if UNKNOWN not in words or len(set(words)) != len(words):
        return None
    file: dict[str, Any] = msgspec.json.decode(packaged())
    vocabulary = {word: number for number, word in enumerate(words)}
    if vocabulary == file["model"]["vocab"]:
        return packaged()
    file["model"]["vocab"] = vocabulary
    file["added_tokens"], file["post_processor"] = (
        [],
        None,
    )  # ids of the other vocabulary; special tokens are not counted
    return msgspec.json.encode(file).decode()


def _word_piece(token: str) -> str:
    if token.startswith(PHANTOM_SPACE):
        return token.removeprefix(PHANTOM_SPACE)
    return token if token.startswith("[") and token.endswith("]") and len(token) > 2 else f"##{token}"
