"""What `pipeline search` costs from a cold start, beside the least that any program could do.

    python -m benchmarks.cold_search --data DIR [--collection NAME] [--runs 7] [QUESTION]

The bare script imports lancedb, embeds the question with the same model file through onnxruntime and asks the same
table for its five nearest rows: no configuration, no checks, no full text, no fusion. Both run as fresh processes, in
turns, so that a slow moment of the machine hits both. DIR must hold an index made with the embedded model
(`--provider builtin`).
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

from benchmarks import common

BARE = """
import sys
folder, name, model, question = sys.argv[1:]
import lancedb, numpy, onnxruntime, tokenizers
ids = tokenizers.Tokenizer.from_file(model + "/tokenizer.json").encode(question).ids
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model + "/model.onnx", options, providers=["CPUExecutionProvider"])
row = numpy.array([ids], dtype=numpy.int64)
(vector,) = session.run(None, {"input_ids": row, "attention_mask": numpy.ones_like(row)})
table = lancedb.connect(folder).open_table(name)
found = table.search(vector[0], vector_column_name="vector").distance_type("cosine").limit(5)
print(found.select(["text", "uri", "_distance"]).to_arrow().num_rows)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    wall_s: float
    cpu_s: float  # user and system, all threads: steadier than wall time on a busy machine


def cost(command: list[str], environment: Mapping[str, str] | None = None) -> Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} ended with {done.returncode}:\n{done.stderr}")
    return Cost(wall_s=wall_s, cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def compare(bare: list[str], ours: list[str], runs: int) -> None:
    for command in (bare, ours):
        cost(command)  # the first of each reads the files into memory
    pairs = [(cost(bare), cost(ours)) for _ in range(runs)]
    for least, took in pairs:
        print(f"bare {least.wall_s:.2f} s ({least.cpu_s:.2f} CPU)   ours {took.wall_s:.2f} s ({took.cpu_s:.2f})")
    for what, of in (("wall", attrgetter("wall_s")), ("CPU", attrgetter("cpu_s"))):
        least_s, took_s = (statistics.median(map(of, column)) for column in zip(*pairs, strict=True))
        print(f"median {what}: bare {least_s:.2f} s, pipeline search {took_s:.2f} s, ratio {took_s / least_s:.2f}")


def table_of(data: Path, collection: str) -> tuple[Path, str]:
    """The folder of the LanceDB database and the table's name."""
    from pipeline import live
    from pipeline.store import Collection

    store = Collection(data, collection)
    spec = store.embedder()
    if spec is None or spec.provider != "builtin":
        sys.exit(f"{data} holds no index made with the embedded model (pipeline --provider builtin run DOCS)")
    return store.index_folder, live.table_name(spec)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--collection", default="default")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("question", nargs="?", default="When does it open?")
    given = parser.parse_args()
    from pipeline.models import builtin

    folder, name = table_of(given.data, given.collection)
    bare = [sys.executable, "-c", BARE, str(folder), name, str(builtin.FOLDER), given.question]
    place = ["--data", str(given.data), "--collection", given.collection]
    ours = [*common.COMMAND, *place, "search", given.question, "--json"]
    compare(bare, ours, given.runs)


if __name__ == "__main__":
    main()
