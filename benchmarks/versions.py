"""`make embed` and two questions against the fake Ollama of each era: what it was sent, and what came back.

    python -m benchmarks.versions [--docs sample_docs]

Checked of the texts that the server received: none is embedded twice, no document carries the query prefix, each
question carries it, none is longer than the model's 510 tokens. Exit code 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import common
from tests.fake_ollama import tokens
from tests.fake_ollama.client import FakeOllama

VERSIONS = ("0.3.12", "0.9.0", "0.13.3", "0.32.15")
PREFIX = "Represent this sentence for searching relevant passages: "
QUESTIONS = (
    ("How high above the ground must the rim of the gauge be at a ridge station?", "rg-7-rain-gauge-manual.pdf", 2),
    ("电池电量只剩三成左右，要关掉什么？", "青螺岭观测站手册.pdf", 3),
)
ROOT = Path(__file__).parent.parent


def ask(data: Path, question: str, environment: dict[str, str]) -> list[tuple[str, int | None]]:
    """File name and page of each source that the answer cites."""
    command = [*common.COMMAND, "--data", str(data), "ask", question, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 4):
        sys.exit(f"ask ended with {done.returncode}: {done.stderr}")
    answer = json.loads(done.stdout)
    cited = {citation["number"] for citation in answer["citations"]}
    return [(Path(s["path"]).name, s["page"]) for s in answer["sources"] if s["number"] in cited]


def era(version: str, docs: str, scratch: Path) -> tuple[list[object], bool]:
    """A row of the table, and whether all is right."""
    data = scratch / version
    with FakeOllama(version=version) as server:
        environment = os.environ | {"OLLAMA_HOST": server.url, "PIPELINE_DATA": str(data), "DOCS": docs}
        began = time.monotonic()
        done = subprocess.run(["make", "embed"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        if done.returncode:
            sys.exit(f"make embed ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        status = common.run("--data", str(data), "status")
        texts = server.texts()
        found = [(name, page) in ask(data, question, environment) for question, name, page in QUESTIONS]
        questions = server.texts()[len(texts) :]
    right = {
        "twice": len(texts) - len(set(texts)),
        "prefixed": sum(text.startswith(PREFIX) for text in texts),
        "bare": sum(not text.startswith(PREFIX) for text in questions),
        "longest": max(tokens.count(texts)),
    }
    good = (right["twice"], right["prefixed"], right["bare"]) == (0, 0, 0) and right["longest"] <= 510
    good &= status["dims"] == 1024 and status["vectors"] == status["chunks"] and len(questions) == len(QUESTIONS)
    cells = [version, status["documents"], status["chunks"], len(texts), *right.values(), *found, f"{seconds:.1f}"]
    return cells, good and all(found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", default="sample_docs")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = [era(version, arguments.docs, Path(scratch)) for version in VERSIONS]
    header = ["Ollama", "documents", "chunks", "texts sent", "sent twice", "documents with the prefix"]
    header += ["questions without", "most tokens", "English cited", "Chinese cited", "s"]
    print(common.table(header, [cells for cells, _ in rows]))
    return 0 if all(good for _, good in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
