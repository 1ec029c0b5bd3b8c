"""A collection as a LangChain retriever; needs langchain-core (extra `langchain`).

from pipeline import open_collection
from pipeline.retrievers.langchain import PipelineRetriever

retriever = PipelineRetriever(collection=open_collection("default"), top_k=5)
documents = retriever.invoke("How long may the supply cable be?")
"""

from __future__ import annotations

from typing import Literal

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from pipeline.api import Collection
from pipeline.search import Hit


class PipelineRetriever(BaseRetriever):
    """Passages of `collection` as documents, best first; filters as for Collection.search."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    collection: Collection
    top_k: int | None = None
    mode: Literal["hybrid", "vector", "text"] | None = None
    where: tuple[str, ...] = ()

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        hits = self.collection.search(query, top_k=self.top_k, mode=self.mode, where=self.where)
        return [_document(hit) for hit in hits]


def _document(hit: Hit) -> Document:
    """`source` is what LangChain's own loaders call the file."""
    plain = {name: value for name, value in hit.to_json().items() if name not in ("text", "chunk_id")}
    return Document(page_content=hit.text, id=hit.chunk_id, metadata={"source": hit.path, **plain})
