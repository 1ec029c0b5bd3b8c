"""What a reranker costs on this machine: CPU and time of one question, by the length of its passages.

    python -m benchmarks.reranking [--model DIR] [--passages 30] [--tokens 64,128,256,400] [--rounds 5]

Without --model: the packaged all-MiniLM-L6-v2 (int8) with a head of random weights put on it, which is what a
cross-encoder of that size (ms-marco-MiniLM-L6) computes for a pair. Its time is right and its order means nothing.
Scores of a real model are for `pipeline evaluate --sweep search.rerank=,DIR`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.common import table
from pipeline import doctor_selftest
from pipeline.models import builtin, rerank_onnx
from tests import tiny_onnx
from tests.tiny_onnx import FLOAT

QUESTION = "how does the old train cross the river in winter"


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or with_head(Path(folder))
        rows = asyncio.run(_measure(model, options))
    print(table(("tokens of a passage", f"{options.passages} passages, s", "CPU ms a passage"), rows))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a cross-encoder's folder")
    parser.add_argument("--passages", type=int, default=30)
    parser.add_argument("--tokens", default="64,128,256,400")
    parser.add_argument("--rounds", type=int, default=5, help="the least of these counts")
    return parser.parse_args()


async def _measure(model: Path, options: argparse.Namespace) -> list[list[object]]:
    reranker = rerank_onnx.OnnxReranker(model)
    await reranker.open()
    rows: list[list[object]] = []
    for tokens in map(int, options.tokens.split(",")):
        texts = list(_texts(options.passages, tokens))
        walls, cpus = [], []
        for _ in range(options.rounds):
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            await reranker.score(QUESTION, texts, timeout_s=600)
            walls.append(time.perf_counter() - began_s)
            cpus.append(time.process_time() - began_cpu_s)
        rows.append([tokens, f"{min(walls):.2f}", f"{min(cpus) / options.passages * 1000:.0f}"])
    await reranker.aclose()
    return rows


def _texts(passages: int, tokens: int) -> Iterator[str]:
    """Words of one token each."""
    chosen = random.Random(0)
    words = [word for text in doctor_selftest.speed_texts(250) for word in text.split()]
    for _ in range(passages):
        yield " ".join(chosen.choice(words) for _ in range(tokens))


def with_head(folder: Path) -> Path:
    """The packaged model with a product of its embedding and random weights for output."""
    weights = np.random.default_rng(0).normal(size=builtin.DIMS).tolist()
    parts = [
        tiny_onnx.field(1, tiny_onnx.node("MatMul", ["embedding", "head"], "logits")),
        tiny_onnx.field(5, tiny_onnx.tensor("head", FLOAT, weights, [builtin.DIMS, 1])),
        tiny_onnx.field(12, tiny_onnx.value("logits", FLOAT, ["b", 1])),
    ]
    return tiny_onnx.write(folder, tiny_onnx.extended((builtin.FOLDER / "model.onnx").read_bytes(), b"".join(parts)))


if __name__ == "__main__":
    main()
