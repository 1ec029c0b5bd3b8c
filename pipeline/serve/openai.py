"""The OpenAI-compatible interface: a collection is a model, its answers cite their passages, its embedder embeds.

Only what a client of documents needs is read; other parameters of OpenAI's API (temperature, tools, …) are accepted
and have no effect. The last message of the user is the question; with what was said before it is made to stand alone.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from pipeline import answer, errors
from pipeline.conversation import Exchange, readable
from pipeline.models import Vectors
from pipeline.serve import citing, described, faults
from pipeline.serve.answering import answers
from pipeline.serve.shelf import Shelf

PREFIX = "pipeline/"  # of a model's name; the collection follows
MOST_SAID = 20  # exchanges of a conversation that are looked at
MOST_TEXTS = 2_048  # in a request to embed: OpenAI's own limit
_EVENT = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
_STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}


class Part(BaseModel):
    type: str
    text: str = ""


class Message(BaseModel):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content if part.type == "text")
        return self.content or ""


class Chat(BaseModel):
    model: str
    messages: Annotated[list[Message], Field(json_schema_extra=described.ASKS)]
    stream: bool | None = False


class Embedding(BaseModel):
    model: str
    input: described.NonBlank | Annotated[list[described.NonBlank], described.between(1, MOST_TEXTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


def router(shelf: Shelf) -> APIRouter:
    api = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

    @api.get("/models")
    def models() -> dict[str, Any]:
        """Every collection that can be asked."""
        listed = [{"id": PREFIX + name, "object": "model", "owned_by": "pipeline"} for name in shelf.names()]
        return {"object": "list", "data": listed}

    @api.post("/chat/completions", responses=_STREAMED)
    async def chat(asked: Chat, request: Request) -> Response:
        """Answer the last question from the collection's documents."""
        events = _answer(shelf, asked)
        completion = _Completion(asked.model, str(request.base_url))
        first = await anext(events)  # what fails before the first word is an error with its status
        if asked.stream:
            chunks = completion.stream(first, events)
            return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        return JSONResponse(await completion.whole(first, events))

    @api.post("/embeddings")
    async def embeddings(asked: Embedding) -> dict[str, Any]:
        """Vectors of the texts exactly as given, by the collection's own model; no template is added."""
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not 1 <= len(texts) <= MOST_TEXTS:
            raise errors.UsageError(f"Send 1 to {MOST_TEXTS} texts.")
        collection = collection_of(asked.model)
        dims = (await shelf.open(collection)).spec.dims
        if asked.dimensions not in (None, dims):
            raise errors.UsageError(f"The vectors of {asked.model} have {dims} dimensions.")
        reply = await shelf.embed(collection, texts)
        return _embeddings(asked, reply.vectors, reply.prompt_tokens)

    return api


def collection_of(model: str) -> str:
    if not model.startswith(PREFIX):
        raise errors.NoIndex(f"There is no model {model!r}: /v1/models lists them.")
    return model.removeprefix(PREFIX)


def _embeddings(asked: Embedding, vectors: Vectors, tokens: int | None) -> dict[str, Any]:
    encoded = [_base64(vector) if asked.encoding_format == "base64" else vector.tolist() for vector in vectors]
    data = [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(encoded)]
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return {"object": "list", "model": asked.model, "data": data, **usage}


def _base64(vector: Vectors) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


# --- answers


def _answer(shelf: Shelf, asked: Chat) -> AsyncGenerator[answer.AnswerEvent, None]:
    question, said = _conversation(asked.messages)
    return answers(shelf, collection_of(asked.model), question, said=said)


def _conversation(messages: Sequence[Message]) -> tuple[str, list[Exchange]]:
    """The user's last message, and the exchanges before it: a question that nobody answered is none."""
    last = max((at for at, message in enumerate(messages) if message.role == "user"), default=len(messages))
    said, asked = list[Exchange](), ""
    for message in messages[:last]:
        if message.role == "user":
            asked = message.text.strip()
        elif message.role == "assistant" and asked and (answered := readable(message.text)):
            said.append(Exchange(question=asked, answer=answered))
            asked = ""
    return "".join(message.text for message in messages[last : last + 1]), said[-MOST_SAID:]


class _Completion:
    """One answer in OpenAI's shapes. `base`: of this server as the client sees it, for the links of citations."""

    def __init__(self, model: str, base: str) -> None:
        self._model = model
        self._base = base
        self._about = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    async def whole(self, first: answer.AnswerEvent, rest: AsyncGenerator[answer.AnswerEvent, None]) -> dict[str, Any]:
        """Raises: what ended the answer early, as there is no half an answer here."""
        async with aclosing(rest):
            events = [first, *[event async for event in rest]]
        ending = next(event for event in events if isinstance(event, answer.Answer))
        if ending.error is not None:
            raise ending.error
        content = ending.text + _postscript(ending)
        message = {"role": "assistant", "content": content, "annotations": self._annotations(ending)}
        choice = {"index": 0, "message": message, "finish_reason": _reason(ending)}
        return {**self._about, "object": "chat.completion", "choices": [choice]}

    async def stream(
        self, first: answer.AnswerEvent, rest: AsyncGenerator[answer.AnswerEvent, None]
    ) -> AsyncIterator[str]:
        """Server-sent events. Annotations come with the last piece; an error after the first word as an `error`."""
        yield self._chunk({"role": "assistant", "content": ""})
        async with aclosing(rest):
            event = first
            while not isinstance(event, answer.Answer):
                yield self._chunk({"content": event})
                event = await anext(rest)
        for delta in ({"content": _postscript(event)}, {"annotations": self._annotations(event)}):
            if any(delta.values()):
                yield self._chunk(delta)
        if event.error is not None:
            yield _event({"error": faults.openai(faults.of(event.error, "/v1/"))})
        else:
            yield self._chunk({}, _reason(event))
        yield "data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _event({**self._about, "object": "chat.completion.chunk", "choices": [choice]})

    def _annotations(self, ending: answer.Answer) -> list[dict[str, Any]]:
        """One for each `[n]`, at its place in the text (code points)."""
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "url": citing.url(self._base, collection_of(self._model), ending.sources[mark.number - 1].hit),
                    "title": citing.title(ending.sources[mark.number - 1].hit),
                    "start_index": mark.start,
                    "end_index": mark.end,
                },
            }
            for mark in ending.citations
        ]


def _reason(ending: answer.Answer) -> str:
    return "length" if ending.incomplete else "stop"


def _postscript(ending: answer.Answer) -> str:
    """What the reader should know about the answer, below it: a chat has no other place for that."""
    return "" if ending.abstained or not ending.notes else f"\n\n({' '.join(ending.notes)})"


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"
