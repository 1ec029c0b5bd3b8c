"""Kill a run at random moments until it ends: afterwards the collection must hold what an undisturbed run makes.

    python -m benchmarks.crash [--docs FOLDER] [--runs 20] [--seed 1]

Each round builds a new collection of the same documents, killed with SIGKILL (the whole process group) at random
moments and started again until it finishes, then compares documents, chunks, vectors and table rows with the
undisturbed collection. Texts that were embedded twice are counted by the fake Ollama's own log, beside the most that
one flush interval and what was in flight allow.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.incremental import copy_documents, generate
from tests.fake_ollama.client import FakeOllama

FLUSH_S = 1.0
IN_FLIGHT = 100  # texts under way at once, the engine's own bound at its start concurrency


def options(data: Path, server: FakeOllama) -> list[str]:
    return ["--data", str(data), "--provider", "ollama", "--ollama-host", server.url]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PIPELINE_EMBED_FLUSH_S": str(FLUSH_S)}
    return subprocess.Popen(
        [*common.COMMAND, *arguments],
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def run_killed(arguments: list[str], dice: random.Random, longest_s: float, most: int) -> int:
    """Start the run again and again, killed after a random time; the last is left alone. Returns the kills."""
    for kills in range(most):
        process = start(arguments)
        try:
            process.communicate(timeout=dice.uniform(0.3, longest_s))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            continue
        if process.returncode not in (0, 3):
            sys.exit(f"a resumed run ended with {process.returncode}")
        return kills
    process = start(arguments)
    _, messages = process.communicate()
    if process.returncode not in (0, 3):
        sys.exit(f"the last run ended with {process.returncode}: {messages.decode()}")
    return most


def differences(one: dict[str, Any], two: dict[str, Any]) -> list[str]:
    """Which parts of two collections differ; vectors are compared to the last bit."""
    names = [name for name in ("documents", "chunks", "rows", "row_count", "keys") if one[name] != two[name]]
    same = one["vectors"].shape == two["vectors"].shape and np.array_equal(one["vectors"], two["vectors"])
    return names if same else [*names, "vectors"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--files", type=int, default=150)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cost-us-per-token", type=float, default=60.0)
    arguments = parser.parse_args()
    dice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "docs")
        folder.mkdir()
        if arguments.docs:
            copy_documents(arguments.docs, folder, arguments.files, ".md")
        else:
            generate(folder, files=60)
        with FakeOllama(vectors="hash", cost_us_per_token=arguments.cost_us_per_token) as server:
            return rounds(Path(scratch), folder, server, arguments.runs, dice)


def rounds(scratch: Path, folder: Path, server: FakeOllama, runs: int, dice: random.Random) -> int:
    began = time.monotonic()
    common.pipeline(*options(scratch / "whole", server), "run", str(folder))
    whole_s = time.monotonic() - began
    whole = common.content(scratch / "whole")
    texts = len(whole["keys"])
    rate = texts / server.counters()["busy_s"]  # the server's own: the most that a second can bring
    held = f"{len(whole['documents'])} documents, {len(whole['chunks'])} chunks, {texts} texts"
    print(f"undisturbed: {held}, {whole_s:.1f} s")
    rows: list[list[object]] = []
    bad = 0
    for number in range(runs):
        server.reset()
        data = scratch / f"killed-{number}"
        kills = run_killed([*options(data, server), "run", str(folder)], dice, whole_s, most=12)
        twice = sum(count - 1 for count in Counter(server.texts()).values())
        allowed = int(kills * (FLUSH_S * rate + IN_FLIGHT))
        wrong = differences(whole, common.content(data))
        bad += bool(wrong) or twice > allowed
        rows.append([number + 1, kills, twice, allowed, ", ".join(wrong) or "none"])
    print(common.table(["run", "kills", "texts embedded again", "allowed", "differences"], rows))
    print(f"{sum(int(str(row[1])) for row in rows)} kills, {bad} bad runs")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
