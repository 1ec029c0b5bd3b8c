"""A collection as a LlamaIndex retriever; needs llama-index-core (extra `llama-index`).

from pipeline import open_collection
from pipeline.retrievers.llama_index import PipelineRetriever

retriever = PipelineRetriever(open_collection("default"), top_k=5)
nodes = retriever.retrieve("How long may the supply cable be?")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from pipeline.api import Collection
from pipeline.search import Hit


class PipelineRetriever(BaseRetriever):
    """Passages of `collection` as nodes with their cosine, best first; filters as for Collection.search."""

    def __init__(
        self,
        collection: Collection,
        *,
        top_k: int | None = None,
        mode: Literal["hybrid", "vector", "text"] | None = None,
        where: Sequence[str] = (),
        **more: Any,
    ) -> None:
        """`more`: for LlamaIndex's own base class."""
        super().__init__(**more)
        self._collection = collection
        self._top_k = top_k
        self._asked_mode = mode
        self._where = tuple(where)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._collection.search(
            query_bundle.query_str, top_k=self._top_k, mode=self._asked_mode, where=self._where
        )
        return [_node(hit) for hit in hits]


def _node(hit: Hit) -> NodeWithScore:
    """`file_path` is what LlamaIndex's own readers call the file."""
    plain = {name: value for name, value in hit.to_json().items() if name not in ("text", "chunk_id", "score")}
    node = TextNode(text=hit.text, id_=hit.chunk_id, metadata={"file_path": hit.path, **plain})
    return NodeWithScore(node=node, score=hit.score)
