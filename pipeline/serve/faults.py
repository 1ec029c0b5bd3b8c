"""A refusal in the words of the client it goes to: Dify, an OpenAI client, or anybody else, told apart by the path.

Which status an error of ours becomes is decided here, once. Dify (its ssrf_proxy.py and external_knowledge_service.py)
tries 429, 500, 502, 503 and 504 three times more, half a second, one and two seconds apart, and then shows the user
an error; any other status but 200 it takes for "no records", silently, and the answer is written as if the documents
said nothing. So what is the request's own fault is a 4xx, and everything that an operator has to mend (a model server
that is down or lacks the model, an index of another model) is 503: it costs Dify's user four seconds, and is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.responses import JSONResponse

from pipeline import errors

MALFORMED, NOT_AUTHORISED, NO_SUCH_KNOWLEDGE = 1001, 1002, 2001  # Dify's own error codes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a request is not answered.

    Attributes:
        status: of HTTP.
        message: for people; holds nothing of a document.
        dify: Dify's error code; 0: it has none for this, and the status stands in its place.
        code: OpenAI's name of the error, such as "invalid_api_key"; "" where it has none.
        retry_s: seconds after which to try again; 0: trying again alone does not help.
    """

    status: int
    message: str
    dify: int = 0
    code: str = ""
    retry_s: int = 0


def is_dify(path: str) -> bool:
    """Dify joins its endpoint and "/retrieval" without trimming: an endpoint that ends with a slash gives two, and one
    that has the address typed in whole "/retrieval/retrieval", where a wrong key must be told as well."""
    return path.endswith("/retrieval")


def is_openai(path: str) -> bool:
    return path.startswith("/v1/")


def of(error: errors.PipelineError, path: str) -> Refusal:
    """What an error of ours means to the client."""
    match error:
        case errors.NoIndex():
            # 404 is what Dify's registration takes for a wrong address.
            status = 404 if not is_dify(path) else 400
            return Refusal(status=status, message=error.message, dify=NO_SUCH_KNOWLEDGE, code="model_not_found")
        case errors.UsageError() | errors.TextRejected():
            return Refusal(status=400, message=error.message, code="invalid_request")
        case errors.ModelError() | errors.IndexMismatch():
            return Refusal(status=503, message=str(error), code="model_unavailable")
    return Refusal(status=500, message="The collection cannot be read; the server's log says more.")


class DifyError(BaseModel):
    """A refusal as Dify reads it."""

    error_code: int
    error_msg: str


class OpenAIDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class OpenAIError(BaseModel):
    """A refusal as OpenAI's clients read it."""

    error: OpenAIDetail


class PlainError(BaseModel):
    """A refusal for anybody else."""

    error: str


_STATUSES = {
    400: "the request cannot be answered as it is",
    401: "no key, or none of the server's",
    403: "the same, for Dify",
    404: "there is no such collection or passage, or not for this key",
    408: "the request did not arrive in time",
    413: "the request is too large",
    421: "the Host header is not one of this server's names",
    422: "the request is not of the documented form",
    429: "the key's rate is used up",
    500: "a defect",
    503: "the model server, or this one, is busy or down",
}


def documented(shape: type[BaseModel]) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for its description in /openapi.json: JSON, whatever the route itself answers with."""
    schema = shape.model_json_schema()
    if "$defs" in schema:  # must be known to the whole document, which FastAPI sees to
        return {status: {"model": shape, "description": text} for status, text in _STATUSES.items()}
    content = {"application/json": {"schema": schema}}
    return {status: {"content": content, "description": text} for status, text in _STATUSES.items()}


def reply(path: str, refusal: Refusal) -> JSONResponse:
    """`refusal` in the shape that the client of `path` reads."""
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
    headers |= {"Retry-After": str(refusal.retry_s)} if refusal.retry_s else {}
    return JSONResponse(_content(path, refusal), status_code=refusal.status, headers=headers)


def _content(path: str, refusal: Refusal) -> dict[str, object]:
    if is_dify(path):
        return {"error_code": refusal.dify or refusal.status, "error_msg": refusal.message}
    if is_openai(path):
        return {"error": openai(refusal)}
    return {"error": refusal.message}


def openai(refusal: Refusal) -> dict[str, object]:
    """The `error` object of OpenAI's API."""
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    return {"message": refusal.message, "type": kind, "param": None, "code": refusal.code or None}
