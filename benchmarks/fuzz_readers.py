"""Fuzzing of the readers of text, Markdown, HTML and CSV, and of the chunker behind them.

    python -m benchmarks.fuzz_readers [--inputs 100000] [--names a.txt,a.md,a.html,a.csv]

Inputs come from hypothesis: markup in random order, any Unicode, tags, random bytes, and these glued together. Each is
to be read, or refused with one of the known reasons; blocks must be in order and cover the text; every chunk must be
exactly its span of the text, in order, above the limit never. A failure is printed with the smallest input that shows
it.
"""

from __future__ import annotations

import argparse
import collections
import time

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmarks.common import table
from pipeline import errors, readers, schema
from pipeline.document import Document
from pipeline.models import tokens
from pipeline.stages import chunk, ingest
from tests.readers import test_readers_properties as properties
from tests.readers.helpers import OPTIONS, check

_TEXT = properties.MARKS | properties.ANY | properties.TAGS
_INPUT = st.lists(_TEXT.map(str.encode) | st.binary(max_size=60), min_size=1, max_size=4).map(b"".join)
_PARAMS = chunk.ChunkParams(size=16, max=32, tokenizer=tokens.builtin().identity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--names", default="a.txt,a.md,a.html,a.csv")
    given_ = parser.parse_args()
    names = given_.names.split(",")
    rows = []
    for name in names:
        began = time.monotonic()
        fates = fuzz(name, given_.inputs // len(names))
        refused = ", ".join(f"{count} {kind}" for kind, count in fates.most_common() if kind != "read")
        rows.append([name, fates.total(), fates["read"], refused, f"{time.monotonic() - began:.0f}"])
    print(table(("file", "inputs", "read", "refused", "s"), rows))


def fuzz(name: str, inputs: int) -> collections.Counter[str]:
    """Read `inputs` random files of this name; returns how many were read, and refused by kind. Raises at a fault."""
    fates: collections.Counter[str] = collections.Counter()

    @given(data=_INPUT)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    def one(data: bytes) -> None:
        fates[_fate(data, name)] += 1

    one()
    return fates


def _fate(data: bytes, name: str) -> str:
    try:
        document = readers.read_bytes(data, name, OPTIONS)
    except errors.DocumentError as error:
        kind = error.kind
    else:
        _check(document, name)
        return "read"
    assert kind in properties.KINDS, kind
    return kind


def _check(document: Document, name: str) -> None:
    check(document)
    row = ingest.document_row(name, document)
    made = chunk.chunk_documents(pa.Table.from_pylist([row], schema=schema.DOCUMENTS), _PARAMS, tokens.builtin())
    end = 0
    for found in made.to_pylist():
        assert end <= found["start"] < found["end"]
        assert document.text[found["start"] : found["end"]] == found["text"]
        assert not document.text[end : found["start"]].strip()
        assert found["tokens"] <= _PARAMS.cap
        end = found["end"]
    assert not document.text[end:].strip()


if __name__ == "__main__":
    main()
