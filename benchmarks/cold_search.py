"""What `pipeline search` costs from a cold start, beside the least that any program could do.

    python -m benchmarks.cold_search --data DIR [--collection NAME] [--runs 7] [QUESTION]

The bare script imports lancedb, embeds the question with the same model file through onnxruntime and asks the same
table for its five nearest rows: no configuration, no checks, no full text, no fusion. Both run as fresh processes, in
turns, so that a slow moment of the machine hits both. DIR must hold an index made with the embedded model
(`--provider builtin`).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
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


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command[:6])} ended with {done.returncode}:\n{done.stderr}")
    return time.perf_counter() - began


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
    seconds(bare)  # the first of each reads the files into memory
    seconds(ours)
    pairs = [(seconds(bare), seconds(ours)) for _ in range(given.runs)]
    for least, took in pairs:
        print(f"bare {least:.2f} s   pipeline search {took:.2f} s   ratio {took / least:.2f}")
    middle = [statistics.median(column) for column in zip(*pairs, strict=True)]
    print(f"median: bare {middle[0]:.2f} s, pipeline search {middle[1]:.2f} s, ratio {middle[1] / middle[0]:.2f}")


if __name__ == "__main__":
    main()
