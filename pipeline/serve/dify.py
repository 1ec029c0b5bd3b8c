"""Dify's External Knowledge API: POST /retrieval.

What Dify sends and how it takes the answers is as in its `api/services/external_knowledge_service.py`,
`api/core/helper/ssrf_proxy.py` and `api/core/rag/retrieval/dataset_retrieval.py`: it sorts the records by `score`
again and filters them against a threshold from 0 to 1, writes the keys `score`, `title`, `dataset_id` and
`dataset_name` into our `metadata`, and puts `content` into the prompt without a source. No model writes anything here,
since Dify waits five seconds at most.
"""

from __future__ import annotations

from typing import Annotated, Any, get_args
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from pipeline import errors, search
from pipeline.serve import citing, conditions, described
from pipeline.serve.shelf import Found, Shelf

ANSWER_S = 4.0  # Dify gives up after 5
MOST_HITS = 100


class RetrievalSetting(BaseModel):
    """Dify sends null for what its user left open. Asked for more, MOST_HITS are given: a refusal would be shown as
    "no records"."""

    top_k: Annotated[int, Field(ge=1)] | None = None
    score_threshold: float | None = None


class Retrieval(BaseModel):
    knowledge_id: str
    query: described.NonBlank
    retrieval_setting: RetrievalSetting = RetrievalSetting()
    metadata_condition: conditions.MetadataCondition | None = None


class Record(BaseModel):
    content: str
    score: float
    title: str
    metadata: dict[str, Any]


class Records(BaseModel):
    records: list[Record]


def router(shelf: Shelf) -> APIRouter:
    api = APIRouter(tags=["Dify"])

    @api.post("/retrieval")
    @api.post("//retrieval", include_in_schema=False)
    async def retrieval(asked: Retrieval, request: Request) -> Records:
        """The passages of collection `knowledge_id` that fit `query` best."""
        found = await shelf.within(ANSWER_S, _find(shelf, asked))
        return _records(found, asked, str(request.base_url))

    return api


async def _find(shelf: Shelf, asked: Retrieval) -> Found:
    condition = asked.metadata_condition
    where = conditions.narrowing(condition) if condition is not None else None
    name, mode, rerank = _variant(asked.knowledge_id)
    top_k = asked.retrieval_setting.top_k
    most = None if top_k is None else min(top_k, MOST_HITS)
    question = asked.query.replace('\\"', '"')  # as Dify's retrieval test writes every quotation mark
    return await shelf.find(name, question, top_k=most, mode=mode, where=where, rerank=rerank)


def _variant(knowledge_id: str) -> tuple[str, str | None, bool]:
    """The collection, and how it is to be searched: "wiki?mode=text&rerank=0" is a knowledge base of its own in Dify.

    Raises:
        UsageError: what stands behind the "?" is none of ours.
    """
    name, _, query = knowledge_id.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    mode, rerank = given.pop("mode", None), given.pop("rerank", "1")
    if given or (mode is not None and mode not in get_args(search.Mode)) or rerank not in ("0", "1"):
        raise errors.UsageError(
            "After the collection's name may stand ?mode=hybrid, vector or text, and rerank=0 or 1, joined by &."
        )
    return name, mode, rerank == "1"


def _records(found: Found, asked: Retrieval, base: str) -> Records:
    threshold = asked.retrieval_setting.score_threshold or 0.0
    hits = [hit for hit in found.hits if hit.score >= threshold]
    return Records(records=[_record(hit, citing.url(base, found.opened.settings.collection, hit)) for hit in hits])


def _record(hit: search.Hit, url: str) -> Record:
    """`hit.score` is what Dify needs: from 0 to 1, and falling in our order (min(score before, cosine))."""
    content = f"{citing.source_line(hit.path, hit.page, hit.heading)}\n{hit.text}"
    return Record(content=content, score=hit.score, title=citing.title(hit), metadata=_metadata(hit, url))


def _metadata(hit: search.Hit, url: str) -> dict[str, Any]:
    """What else is known of the passage; what it has not is left out, but for the document's id, which Dify needs."""
    known = {
        "path": hit.path,
        "page": hit.page,
        "heading": hit.heading,
        "document_title": hit.title,
        "media_type": hit.media_type,
        "also_in": list(hit.also_in),
        "chunk_id": hit.chunk_id,
        "similarity": None if hit.similarity is None else round(hit.similarity, 6),
        "vector_rank": hit.vector_rank,
        "text_rank": hit.text_rank,
        "fused": round(hit.fused, 6),
    }
    kept = {name: value for name, value in known.items() if value not in (None, "", [])}
    return {"document_id": hit.doc_id, "url": url, **kept}
