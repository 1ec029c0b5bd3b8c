"""One chunker in a process of its own, so that its CPU seconds are its own; started by benchmarks.chunking.

    PYTHON chunking_process.py NAME JOB RESULT

JOB is a JSON file: `texts`, `edits` as [text's index, start, end, new text], `size` in tokens and `tokenizer`, the path
of a tokenizer.json. RESULT: `cpu_s` for the texts (imports, loading and one small text before do not count; ours read
Markdown before, unless the name says that reading counts), `chunks` of each text as [start, end, text], `wrong`
offsets, and `changed`: for each edit, the chunks whose text (ours: what is sent to the model) was not there before.

Imports the standard library and the one library that it measures: a peer's interpreter need hold nothing of ours.
"""

from __future__ import annotations

import collections
import importlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

WARM_UP = "The harbour is closed. It rains.\n\n" * 40


class Piece(NamedTuple):
    """`text[start:end]` as the library says it; `sent` to the model."""

    start: int
    end: int
    text: str
    sent: str


Chunker = Callable[[str], list[Piece]]


def main() -> None:
    name, job_file, result_file = sys.argv[1:]
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    chunked = CHUNKERS[name](job["size"], job["tokenizer"])
    chunked(WARM_UP)
    prepare = _reader(name)
    prepared = [prepare(text) for text in job["texts"]]
    began = time.process_time()
    pieces = [chunked(each) for each in prepared]
    cpu_s = time.process_time() - began
    result = {
        "cpu_s": cpu_s,
        "chunks": [[piece[:3] for piece in each] for each in pieces],
        "wrong": sum(_wrong(text, each) for text, each in zip(job["texts"], pieces, strict=True)),
        "changed": _changed(job, lambda text: chunked(prepare(text))),
    }
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


def _wrong(text: str, pieces: Sequence[Piece]) -> int:
    return sum(text[piece.start : piece.end] != piece.text for piece in pieces)


def _changed(job: dict[str, Any], chunked: Chunker) -> list[int]:
    before: dict[int, collections.Counter[str]] = {}
    found = []
    for index, start, end, new in job["edits"]:
        text = job["texts"][index]
        if index not in before:
            before[index] = _keys(chunked(text))
        found.append((_keys(chunked(text[:start] + new + text[end:])) - before[index]).total())
    return found


def _keys(pieces: Sequence[Piece]) -> collections.Counter[str]:
    return collections.Counter(piece.sent for piece in pieces)


# --- ours ---------------------------------------------------------------------------------------------------------


def _reader(name: str) -> Callable[[str], Any]:
    """What comes before a chunker and is not its work: the outline of a Markdown file, which only ours takes."""
    return _read if name.startswith("ours") and "read" not in name else lambda text: text


def _read(text: str) -> Any:
    import pyarrow as pa

    from pipeline import readers, schema

    found = readers.read_bytes(text.encode(), "text.md", readers.ReaderOptions())
    blocks = [
        {
            "start": block.start,
            "end": block.end,
            "kind": block.kind,
            "heading_path": list(block.heading_path),
            "page": None,
        }
        for block in found.blocks
    ]
    row = {"doc_id": "d", "doc_hash": "", "uri": "", "media_type": "", "title": found.title, "text": found.text}
    return pa.Table.from_pylist([{**row, "blocks": blocks}], schema=schema.DOCUMENTS)


def _ours(size: int, tokenizer: str, *, default: bool = False) -> Chunker:
    from pipeline.models import tokens
    from pipeline.stages import chunk

    counter = tokens.load(Path(tokenizer))
    params = chunk.ChunkParams() if default else chunk.ChunkParams(size=size, max=size, limit=size, context=False)

    def chunked(given: Any) -> list[Piece]:
        table = _read(given) if isinstance(given, str) else given
        return [
            Piece(row["start"], row["end"], row["text"], f"{row['context']}\n{row['text']}")
            for row in chunk.chunk_documents(table, params, counter).to_pylist()
        ]

    return chunked


# --- other libraries, as their documentation says, without overlap ---------------------------------------------------


def _tokenizer(path: str) -> Any:
    return importlib.import_module("tokenizers").Tokenizer.from_file(path)


def _semantic(size: int, tokenizer: str, *, kind: str) -> Chunker:
    library = importlib.import_module("semantic_text_splitter")
    splitter = getattr(library, kind).from_huggingface_tokenizer(_tokenizer(tokenizer), size)
    return lambda text: [Piece(at, at + len(part), part, part) for at, part in splitter.chunk_indices(text)]


def _chonkie(size: int, tokenizer: str) -> Chunker:
    chunker = importlib.import_module("chonkie").RecursiveChunker(tokenizer=_tokenizer(tokenizer), chunk_size=size)
    return lambda text: [Piece(one.start_index, one.end_index, one.text, one.text) for one in chunker.chunk(text)]


def _langchain(size: int, tokenizer: str) -> Chunker:
    counter = importlib.import_module("transformers").PreTrainedTokenizerFast(tokenizer_file=tokenizer)
    splitter = importlib.import_module("langchain_text_splitters").RecursiveCharacterTextSplitter
    made = splitter.from_huggingface_tokenizer(counter, chunk_size=size, chunk_overlap=0, add_start_index=True)

    def chunked(text: str) -> list[Piece]:
        found = [(one.metadata["start_index"], one.page_content) for one in made.create_documents([text])]
        return [Piece(at, at + len(part), part, part) for at, part in found]

    return chunked


def _llama_index(size: int, tokenizer: str) -> Chunker:
    encode = _tokenizer(tokenizer).encode
    core = importlib.import_module("llama_index.core")
    splitter = importlib.import_module("llama_index.core.node_parser").SentenceSplitter(
        chunk_size=size, chunk_overlap=0, tokenizer=lambda text: encode(text, add_special_tokens=False).ids
    )

    def chunked(text: str) -> list[Piece]:
        found = splitter.get_nodes_from_documents([core.Document(text=text)])
        # No place at all (None) is a wrong one.
        return [Piece(one.start_char_idx or 0, one.end_char_idx or 0, one.text, one.text) for one in found]

    return chunked


CHUNKERS: dict[str, Callable[[int, str], Chunker]] = {
    "ours": _ours,
    "ours, and reading Markdown": _ours,
    "ours, default sizes": lambda size, tokenizer: _ours(size, tokenizer, default=True),
    "chonkie Recursive": _chonkie,
    "LangChain Recursive": _langchain,
    "LlamaIndex SentenceSplitter": _llama_index,
    "semantic-text-splitter text": lambda size, tokenizer: _semantic(size, tokenizer, kind="TextSplitter"),
    "semantic-text-splitter Markdown": lambda size, tokenizer: _semantic(size, tokenizer, kind="MarkdownSplitter"),
}
LIBRARIES = {
    "chonkie Recursive": "chonkie",
    "LangChain Recursive": "langchain_text_splitters, transformers",
    "LlamaIndex SentenceSplitter": "llama_index.core",
    "semantic-text-splitter text": "semantic_text_splitter",
    "semantic-text-splitter Markdown": "semantic_text_splitter",
}

if __name__ == "__main__":
    main()
