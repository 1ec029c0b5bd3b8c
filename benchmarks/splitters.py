"""How other libraries cut texts by default. Run by a Python that has them (`--peers-python` of search_quality):

    PYTHON benchmarks/splitters.py < texts.json > spans.json

texts.json: {"corpus": "text"}. spans.json: {"splitter": {"corpus": [[start, end], ...]}}, in code points. Imports
nothing of this project.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

Spans = list[tuple[int, int]]


def langchain(module: Any) -> Callable[[str], Spans]:
    """4,000 characters, of which 200 overlap."""
    splitter = module.RecursiveCharacterTextSplitter(add_start_index=True)

    def split(text: str) -> Spans:
        found = splitter.create_documents([text])
        starts = [document.metadata["start_index"] for document in found]
        return [(at, at + len(document.page_content)) for at, document in zip(starts, found, strict=True)]

    return split


def llama_index(module: Any) -> Callable[[str], Spans]:
    """1,024 tokens (tiktoken), of which 200 overlap."""
    splitter = module.SentenceSplitter()
    schema = importlib.import_module("llama_index.core.schema")

    def split(text: str) -> Spans:
        nodes = splitter.get_nodes_from_documents([schema.Document(text=text)])
        return [(node.start_char_idx, node.end_char_idx) for node in nodes]

    return split


SPLITTERS = {
    "LangChain RecursiveCharacterTextSplitter": ("langchain_text_splitters", "langchain-text-splitters", langchain),
    "LlamaIndex SentenceSplitter": ("llama_index.core.node_parser", "llama-index-core", llama_index),
}


def main() -> None:
    texts: dict[str, str] = json.load(sys.stdin)
    found: dict[str, dict[str, Spans]] = {}
    for name, (module, package, make) in SPLITTERS.items():
        split = make(importlib.import_module(module))
        found[f"{name} {metadata.version(package)}"] = {corpus: split(text) for corpus, text in texts.items()}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
