"""A collection in LangChain and in LlamaIndex, by their own interfaces.

Both are imported by the tests: together they take 3 s, and each process that runs tests imports all modules of tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pipeline import open_collection
from pipeline.api import Collection
from tests import served

ROOF = "When was the roof of the hut tarred?"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    home = tmp_path_factory.mktemp("retrievers")
    served.build(served.settings(home / "data"), served.write(home / "docs"))
    with open_collection(data=home / "data") as collection:
        yield collection


def test_langchain_gets_documents_and_runs_them_in_a_chain(opened: Collection) -> None:
    from langchain_core.runnables import RunnableLambda

    from pipeline.retrievers import langchain

    retriever = langchain.PipelineRetriever(collection=opened, top_k=2)
    documents = retriever.invoke(ROOF)
    hits = opened.search(ROOF, top_k=2)
    assert [(one.id, one.page_content) for one in documents] == [(hit.chunk_id, hit.text) for hit in hits]
    assert documents[0].metadata["source"] == hits[0].path
    assert documents[0].metadata["score"] == round(hits[0].score, 6)
    chain = retriever | RunnableLambda(lambda found: found[0].metadata["source"])
    assert asyncio.run(chain.ainvoke(ROOF)) == hits[0].path


def test_llama_index_gets_nodes_with_scores(opened: Collection) -> None:
    from llama_index.core.schema import MetadataMode

    from pipeline.retrievers import llama_index

    retriever = llama_index.PipelineRetriever(opened, top_k=2)
    nodes = retriever.retrieve(ROOF)
    hits = opened.search(ROOF, top_k=2)
    assert [(one.node_id, one.get_content(MetadataMode.NONE)) for one in nodes] == [(h.chunk_id, h.text) for h in hits]
    assert [one.score for one in nodes] == [hit.score for hit in hits]
    assert nodes[0].metadata["file_path"] == hits[0].path
    assert [one.node_id for one in asyncio.run(retriever.aretrieve(ROOF))] == [one.node_id for one in nodes]


@pytest.mark.parametrize("mode", ["text", "vector"])
def test_filters_and_modes_are_those_of_a_search(opened: Collection, mode: str) -> None:
    from pipeline.retrievers import langchain, llama_index

    where = ("path=minutes/2026-03-01.md",)
    documents = langchain.PipelineRetriever(collection=opened, mode=mode, where=where).invoke("roof")
    nodes = llama_index.PipelineRetriever(opened, mode=mode, where=where).retrieve("roof")  # type: ignore[arg-type]
    assert {one.metadata["source"] for one in documents} == {one.metadata["file_path"] for one in nodes}
    assert {one.metadata["source"] for one in documents} == {"minutes/2026-03-01.md"}
