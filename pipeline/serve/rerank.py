"""POST /v1/rerank, in the shape that Jina, Cohere and llama.cpp share: passages of anybody in the order of a question.

For clients (Dify, Open WebUI, ...) that search elsewhere and rank here: Ollama has no such call. With a reranker in the
settings its scores are given; else the cosine by a collection's embedder, which is no cross-encoder, and the answer's
`model` says so.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from pipeline import errors
from pipeline.serve import described, openai
from pipeline.serve.shelf import Shelf

MOST_TEXTS = 1_000  # in a request


class Document(BaseModel):
    """Cohere's first version sends objects."""

    text: described.NonBlank


class Rerank(BaseModel):
    query: described.NonBlank
    documents: Annotated[list[described.NonBlank | Document], described.between(1, MOST_TEXTS)]
    model: str = ""
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False


def router(shelf: Shelf) -> APIRouter:
    api = APIRouter(prefix="/v1", tags=["OpenAI-compatible"])

    @api.post("/rerank")
    async def rerank(asked: Rerank) -> dict[str, Any]:
        """The documents' scores, best first."""
        texts = [one if isinstance(one, str) else one.text for one in asked.documents]
        if not 1 <= len(texts) <= MOST_TEXTS:
            raise errors.UsageError(f"Send 1 to {MOST_TEXTS} documents.")
        collection = openai.collection_of(asked.model) if asked.model else shelf.settings.collection
        ranked = await shelf.rank(collection, asked.query, texts)
        order = sorted(range(len(texts)), key=lambda i: (-ranked.values[i], i))[: asked.top_n]
        return {
            "model": ranked.model,
            "object": "list",
            "results": [_result(asked, texts, ranked.values, i) for i in order],
        }

    return api


def _result(asked: Rerank, texts: list[str], values: tuple[float, ...], index: int) -> dict[str, Any]:
    result: dict[str, Any] = {"index": index, "relevance_score": round(values[index], 6)}
    return result | ({"document": {"text": texts[index]}} if asked.return_documents else {})
