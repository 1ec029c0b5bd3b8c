"""What a search costs over 200,000 passages, beside bare LanceDB asked the same of the same table.

    python -m benchmarks.search_latency [--rows 200000] [--rounds 100] [--cold 7] [--data DIR]

Made-up passages: vectors of 1,024 dimensions around a thousand centres (uniformly random ones have no neighbours, and
no index would find them), texts of words drawn by Zipf's law. They go into a collection whose questions a fake Ollama
embeds; with --data it is kept, and used again the next time.

Warm: one process, question after question, ours and bare LanceDB in turns, so that a slow moment hits both. Bare is
what a program without a pipeline would write: the same index parameters, the same 50 candidates of each kind, the same
columns, LanceDB's own reciprocal ranks for the hybrid search, rows as Python objects at the end. Ours does beside: the
cosine of every hit, copies folded, ties in a fixed order. Filters: the same with and without one.

Cold: `pipeline search` as a command, and a script of bare LanceDB that embeds its question at the same server.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import common
from benchmarks.cold_search import cost
from tests.fake_ollama.client import FakeOllama

DIMS = 1_024
BATCH = 5_000
CHUNKS = 10  # of one document
WORDS, LENGTH = 30_000, 150  # different words there are; words of a passage
CENTRES, SPREAD = 1_000, 0.7  # of the vectors; how far they lie from their centre, which has length 1
TOP_K, CANDIDATES, RRF_K, NPROBES, REFINE = 5, 50, 60, 40, 10
MODES = ("hybrid", "vector", "text")
LEAST = 0.5  # of the word occurrences: questions are of rarer words than texts
FILTERS = (
    ("none", None),
    ("type=pdf: 2 of 3", "media_type = 'application/pdf'"),
    ("1 of 20", "starts_with(uri, 'team1/')"),
)
WARM_UP = 10
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Corpus:
    """Passages and questions of one seed."""

    def __init__(self, seed: int = 1) -> None:
        self._draw = np.random.default_rng(seed)
        self._centres = self._unit(self._draw.standard_normal((CENTRES, DIMS)))
        letters = self._draw.integers(97, 123, (WORDS, 8))
        self._words = np.array([bytes(row).decode() for row in letters.astype(np.uint8)])
        share = 1 / np.arange(1, WORDS + 1)
        self._until = np.cumsum(share / share.sum())

    @staticmethod
    def _unit(rows: Any) -> Any:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def centres_of(self, other: Corpus) -> None:
        """Draw vectors around the centres of `other`."""
        self._centres = other._centres
        self._words = other._words

    def texts(self, count: int, length: int = LENGTH, least: float = 0.0) -> list[str]:
        """`least`: words drawn leave out so much of the most frequent ones."""
        drawn = np.searchsorted(self._until, self._draw.uniform(least, 1, (count, length))).clip(max=WORDS - 1)
        return [" ".join(row) for row in self._words[drawn]]

    def vectors(self, count: int) -> Any:
        centres = self._centres[self._draw.integers(0, CENTRES, count)]
        noise = self._draw.standard_normal((count, DIMS), np.float32) * np.float32(SPREAD / DIMS**0.5)
        return self._unit(centres + noise)

    def batch(self, start: int, count: int) -> pa.Table:
        """Rows `start` and on, as the index takes them."""
        from pipeline import ids, lance

        numbers = range(start, start + count)
        uris = [uri(number // CHUNKS) for number in numbers]
        texts = self.texts(count)
        columns: dict[str, list[Any]] = {
            "chunk_id": [ids.chunk_id(path, n, n + 1) for path, n in zip(uris, numbers, strict=True)],
            "doc_id": [ids.doc_id(path, "") for path in uris],
            "uri": uris,
            "title": [f"Report {n // CHUNKS}" for n in numbers],
            "media_type": ["application/pdf" if path.endswith("pdf") else "text/markdown" for path in uris],
            "page": [n % CHUNKS + 1 for n in numbers],
            "heading": [f"Part {n % CHUNKS} > {text[:8]}" for n, text in zip(numbers, texts, strict=True)],
            "start": [n % CHUNKS * 1_000 for n in numbers],
            "end": [n % CHUNKS * 1_000 + len(text) for n, text in zip(numbers, texts, strict=True)],
            "text": texts,
            "context": [""] * count,
            "embed_key": [ids.embed_key(text) for text in texts],
        }
        schema = lance.index_schema(DIMS)
        named = pa.table(
            [pa.array(columns[name], schema.field(name).type) for name in lance.HASHED], list(lance.HASHED)
        )
        flat: Any = pa.array(self.vectors(count).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("vector").type)
        return pa.table([*named.columns, lance.row_hashes(named), vectors], schema=schema)


def uri(document: int) -> str:
    return f"team{document % 20}/{2023 + document % 4}/report-{document:06}.{'pdf' if document % 3 else 'md'}"


def build(data: Path, rows: int, url: str) -> None:
    """A collection of `rows` passages: a small one by the program, then rows that it never read."""
    from pipeline import lance, live
    from pipeline.store import Collection

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "seed.md").write_text("# Seed\n\nSo that the collection is one.\n")
        common.pipeline("--data", str(data), "run", folder, env=environment(url))
    collection = Collection(data, "default")
    note, snapshot = collection.published(), collection.snapshot()
    assert note is not None
    assert note.spec is not None
    assert snapshot is not None
    table = lance.Table.open(
        collection.index_folder, live.table_name(note.spec), DIMS, live.provenance(note.spec), storage=note.spec.storage
    )
    corpus = Corpus()
    for start in range(0, rows, 10 * BATCH):
        parts = (corpus.batch(at, BATCH) for at in range(start, min(rows, start + 10 * BATCH), BATCH))
        batches = (batch for part in parts for batch in part.to_batches())
        table.add(pa.RecordBatchReader.from_batches(lance.index_schema(DIMS), batches))
    done = table.finish(vector_index_from=50_000)
    with collection.writing():
        number = collection.write_again(snapshot, files(snapshot.table, rows // CHUNKS))
        collection.set_published(replace(note, version=done.version, rows=done.rows, chunks=done.rows, snapshot=number))
    print(f"{done.rows:,} passages, vector index: {done.vector_index}", flush=True)


def files(of_one: pa.Table, documents: int) -> pa.Table:
    """The snapshot's row, once for each document, changed one after another over three years until NOW."""
    table = of_one.take([0] * documents)
    newest, step = int(NOW.timestamp() * 1e9), int(3 * 365 * 86_400e9 / documents)
    changed: dict[str, Any] = {
        "uri": pa.array([uri(n) for n in range(documents)]),
        "mtime_ns": pa.array([newest - (documents - n) * step for n in range(documents)], pa.int64()),
    }
    for name, column in changed.items():
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    return table


def environment(url: str) -> dict[str, str]:
    return common.environment(ollama_hosts=url, embed_provider="ollama")


# -- warm


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question with its vector, and a filter."""

    text: str
    vector: Any
    where: str | None = None


class Bare:
    """LanceDB as its documentation has it, on the table that the collection publishes."""

    def __init__(self, reader: Any) -> None:
        from lancedb.rerankers import RRFReranker

        from pipeline import lance

        self._table = reader._table  # the very same state, opened once
        self._columns = list(lance.FOUND)
        self._fusion = RRFReranker(K=RRF_K)

    def ask(self, mode: str, asked: Asked, limit: int = CANDIDATES) -> list[dict[str, Any]]:
        search, columns = getattr(self, f"_{mode}")(asked), list(self._columns)
        if mode != "text":
            search = search.distance_type("cosine").nprobes(NPROBES).refine_factor(REFINE)
        if asked.where:
            search = search.where(asked.where)
        columns += {"vector": ["_distance"], "text": ["_score"], "hybrid": []}[mode]
        found: list[dict[str, Any]] = search.select(columns).limit(limit).to_arrow().to_pylist()[:TOP_K]
        return found

    def _vector(self, asked: Asked) -> Any:
        return self._table.search(asked.vector, vector_column_name="vector")

    def _text(self, asked: Asked) -> Any:
        return self._table.search(asked.text, query_type="fts", fts_columns="words")

    def _hybrid(self, asked: Asked) -> Any:
        both = self._table.search(query_type="hybrid", vector_column_name="vector", fts_columns="words")
        return both.vector(asked.vector).text(asked.text).rerank(self._fusion)


def ours(reader: Any, mode: str, asked: Asked) -> list[Any]:
    from pipeline import lance, search

    where = lance.Predicate(asked.where) if asked.where else None
    params = search.SearchParams(
        mode=mode,  # type: ignore[arg-type]  # one of MODES
        top_k=TOP_K, candidates=CANDIDATES, rrf_k=RRF_K, where=where,
    )  # fmt: skip
    return search.search(reader, asked.text, None if mode == "text" else asked.vector, params)


def warm(reader: Any, rounds: int) -> None:
    corpus, bare = Corpus(seed=2), Bare(reader)
    corpus.centres_of(Corpus())
    rows = []
    for name, where in FILTERS:
        for mode in MODES:
            texts = corpus.texts(rounds + WARM_UP, 8, LEAST)
            vectors = corpus.vectors(rounds + WARM_UP)
            pairs = zip(texts, vectors, strict=True)
            asked = [Asked(text=text, vector=vector, where=where) for text, vector in pairs]
            compared = _compared(functools.partial(bare.ask, mode), functools.partial(ours, reader, mode), asked)
            rows.append([mode, name, *compared])
    print(common.table(["mode", "filter", "bare p50", "p95", "ours p50", "p95", "ratio p50", "p95"], rows), flush=True)


def _compared(bare: Callable[[Asked], Any], ours_: Callable[[Asked], Any], asked: Sequence[Asked]) -> list[str]:
    """Milliseconds of both, in turns, and their ratios."""
    for one in asked[:WARM_UP]:
        bare(one)
        ours_(one)
    pairs = []
    for number, one in enumerate(asked[WARM_UP:]):
        first, second = (bare, ours_) if number % 2 else (ours_, bare)  # the second finds warmer caches
        took = {first: _ms(first, one), second: _ms(second, one)}
        pairs.append((took[bare], took[ours_]))
    least, most = (_percentiles(column) for column in zip(*pairs, strict=True))
    ratios = [f"{most[at] / least[at]:.2f}" for at in (0, 1)]
    return [*(f"{ms:.1f}" for ms in (*least, *most)), *ratios]


def _ms(ask: Callable[[Asked], Any], one: Asked) -> float:
    began = time.perf_counter()
    ask(one)
    return (time.perf_counter() - began) * 1e3


def _percentiles(ms: Sequence[float]) -> tuple[float, float]:
    return statistics.median(ms), float(np.percentile(ms, 95))


# -- cold

BARE = """
import sys
mode, url, folder, name, version, question = sys.argv[1:]
import json, urllib.request
import lancedb
from lancedb.rerankers import RRFReranker
if mode != "text":
    body = json.dumps({"model": "mxbai-embed-large", "input": [question]}).encode()
    request = urllib.request.Request(url + "/api/embed", body, {"Content-Type": "application/json"})
    vector = json.load(urllib.request.urlopen(request))["embeddings"][0]
table = lancedb.connect(folder).open_table(name, version=int(version))
if mode == "hybrid":
    search = table.search(query_type="hybrid", vector_column_name="vector", fts_columns="words")
    search = search.vector(vector).text(question).rerank(RRFReranker(K=60))
elif mode == "vector":
    search = table.search(vector, vector_column_name="vector")
else:
    search = table.search(question, query_type="fts", fts_columns="words")
if mode != "text":
    search = search.distance_type("cosine").nprobes(40).refine_factor(10)
scores = {"hybrid": [], "vector": ["_distance"], "text": ["_score"]}[mode]
for row in search.limit(50).select(["uri", "page", "heading", "text", *scores]).to_list()[:5]:
    print(row["uri"], row["text"][:200])
"""


def cold(data: Path, url: str, runs: int) -> None:
    from pipeline import config, live, query

    standing = query.open_collection(config.Settings(data=str(data)))
    folder, name = standing.collection.index_folder, live.table_name(standing.spec)
    environment_ = environment(url)
    rows = []
    for mode in MODES:
        took = []
        for number in range(runs + 1):
            question = Corpus(seed=100 + number).texts(1, 8, LEAST)[0]
            bare = [sys.executable, "-c", BARE, mode, url, str(folder), name, str(standing.note.version), question]
            command = [*common.COMMAND, "--data", str(data), "search", "--mode", mode, question]
            took.append((cost(bare), cost(command, environment_)))
        wall = [_percentiles([one.wall_s * 1e3 for one in column]) for column in zip(*took[1:], strict=True)]
        cpu = [statistics.median(one.cpu_s for one in column) for column in zip(*took[1:], strict=True)]
        cells = [f"{ms:.0f}" for ms in (*wall[0], *wall[1])]
        rows.append(
            [mode, *cells, f"{wall[1][0] / wall[0][0]:.2f}", *(f"{s:.2f}" for s in cpu), f"{cpu[1] / cpu[0]:.2f}"]
        )
    header = ["mode", "bare ms p50", "p95", "ours ms p50", "p95", "ratio", "bare CPU s", "ours", "ratio"]
    print(common.table(header, rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--cold", type=int, default=7, help="cold starts of each; 0: none")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    with contextlib.ExitStack() as stack:
        data = given.data or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(FakeOllama())
        if not (data / "default").exists():
            build(data, given.rows, server.url)
        from pipeline import config, query

        reader = query.open_reader(query.open_collection(config.Settings(data=str(data))))
        print(f"{reader.count():,} passages; milliseconds of {given.rounds} questions each, in turns", flush=True)
        warm(reader, given.rounds)
        if given.cold:
            cold(data, server.url, given.cold)


if __name__ == "__main__":
    main()
