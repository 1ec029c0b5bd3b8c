"""Every fault of the fake Ollama at random, on two servers, and `kill -9` of client and servers, until all is done.

    python -m benchmarks.soak [--texts 20000] [--seed 1] [--rate 0.01] [--batch-texts 16] [--longest-s 900]

`pipeline embed` works on a collection that was ingested and chunked before. It is killed with SIGKILL (the whole
process group) at random moments; so are the servers, which come back on the same port. Each kind of fault strikes each
request with --rate, `hang` with a quarter of it (each costs the 30 seconds that a model may take to load); batches are
smaller than usual, so that there are more requests to strike. A run that ends by itself, because a fault says what no
retry mends (a model that is gone from every server, another digest), is started again, as cron would. At the end every
text must have its one right vector, compared with what the fake makes of it, or stand in `rejects` with the right
reason; only texts with POISON in them may, and they kill the runner always.

Left out: `swapped` (two vectors that changed places). No client can see it in one answer; the versions that did it
(0.2.6 to 0.3.6) are refused by number. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks import common
from pipeline import config, live, schema
from pipeline.models.templates import embed_text
from pipeline.store import Collection
from tests.fake_ollama import faults
from tests.fake_ollama.client import FakeOllama
from tests.fake_ollama.vectors import hash_vector

WORDS = [f"{a}{b}" for a in ("stone", "river", "cloud", "lamp", "field") for b in ("maker", "light", "bridge", "song")]
SECTIONS = 100  # per file; each becomes one chunk
POISON_EVERY = 1000
INVISIBLE = "swapped"
SERVERS = 2
COST_US = 40.0  # per token
TIMES = {"digest_change": 5.0, "hang": 0.25}  # of --rate: one meets only requests that open a model
FATAL = {"poison": "EOF"}  # words that a reject's reason must hold, by the fault of its text


@dataclass(slots=True)
class Seen:
    """What happened."""

    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    client_kills: int = 0
    server_kills: int = 0
    last_words: dict[int, str] = field(default_factory=dict)


class Servers:
    """Two fakes on fixed ports, each with a log of what it was sent, that are killed and started again."""

    def __init__(self, folder: Path, seed: int, rate: float) -> None:
        self._folder = folder
        self._rate = rate
        self._seeds = iter(range(seed * 1000, seed * 1000 + 1000))
        self._fakes = [self._start(n, 0) for n in range(SERVERS)]

    def _start(self, number: int, port: int) -> FakeOllama:
        log = self._folder / f"server-{number}.jsonl"
        fake = FakeOllama(
            vectors="hash", cost_us_per_token=COST_US, seed=next(self._seeds), port=port, log=log, record=False
        )
        fake.start()
        self._disturb(fake)
        return fake

    def _disturb(self, fake: FakeOllama) -> None:
        if not self._rate:
            return
        for kind in kinds():
            rate = 1.0 if kind == "poison" else self._rate * TIMES.get(kind, 1.0)
            fake.set_fault(kind, rate=rate)
        fake.set_fault("zeros", rate=self._rate / 5, sticky=True)

    @property
    def urls(self) -> list[str]:
        return [fake.url for fake in self._fakes]

    def strike(self, number: int, seen: Seen) -> None:
        """kill -9, and another on the same port."""
        fake = self._fakes[number]
        self._count(fake, seen)
        fake.kill()
        self._fakes[number] = self._start(number, fake.port)

    def stop(self, seen: Seen) -> None:
        for fake in self._fakes:
            self._count(fake, seen)
            fake.stop()

    def _count(self, fake: FakeOllama, seen: Seen) -> None:
        for fault in fake.faults():
            name = f"{fault['kind']} until reload" if fault["sticky"] else fault["kind"]
            seen.faults[name] += fault["fired"]

    def sent(self) -> Counter[str]:
        """How often each text arrived."""
        found: Counter[str] = Counter()
        for path in self._folder.glob("server-*.jsonl"):
            with path.open(encoding="utf-8") as file:
                found.update(json.loads(line)["text"] for line in file)
        return found


def kinds() -> list[str]:
    """The faults that a client can meet while it embeds, but the one that nobody can see."""
    met = {"/api/embed", "/v1/embeddings", "/api/tags", "/api/ps"}
    return sorted(kind for kind, paths in faults.SCOPES.items() if paths & met and kind != INVISIBLE)


def main() -> int:
    options = _options()
    dice = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        began = time.monotonic()
        _prepare(scratch, options.texts, dice)
        print(f"{options.texts} texts ingested and chunked in {time.monotonic() - began:.0f} s", flush=True)
        seen, servers = Seen(), Servers(scratch, options.seed, options.rate)
        began = time.monotonic()
        try:
            finished = _embed(scratch, servers, seen, dice, options)
        finally:
            servers.stop(seen)
        seconds = time.monotonic() - began
        wrong = _verify(scratch) if finished else [f"not finished after {seconds:.0f} s"]
        _show(options.texts, seconds, seen, servers.sent())
    for line in wrong[:20]:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.01, help="of each kind of fault, per request")
    parser.add_argument("--batch-texts", type=int, default=16, help="most texts in a request")
    parser.add_argument("--client-kills", type=int, default=12, help="at most; then the runs are left to end")
    parser.add_argument("--server-kills", type=int, default=12, help="at most")
    parser.add_argument("--longest-s", type=float, default=900.0, help="give up after this")
    parser.add_argument("--verbose", action="store_true", help="print each end of a run with its last message")
    return parser.parse_args()


# --- the collection ----------------------------------------------------------------------------------------------


def _prepare(scratch: Path, texts: int, dice: random.Random) -> None:
    """Files of SECTIONS sections, ingested and chunked: each section is one chunk, and so one text."""
    folder = scratch / "docs"
    folder.mkdir()
    for first in range(0, texts, SECTIONS):
        sections = [_section(number, dice) for number in range(first, min(texts, first + SECTIONS))]
        (folder / f"{first:07d}.md").write_text("\n".join(sections), encoding="utf-8")
    with FakeOllama(vectors="hash", record=False) as quiet:
        common.pipeline(*_arguments(scratch, [quiet.url]), "ingest", str(folder))
        common.pipeline(*_arguments(scratch, [quiet.url]), "chunk")


def _section(number: int, dice: random.Random) -> str:
    words = dice.choices(WORDS, k=dice.randint(5, 40))
    if number % POISON_EVERY == POISON_EVERY // 2:
        words.insert(len(words) // 2, faults.POISON)
    return f"## Section {number}\n\n{' '.join(words)}.\n"


def _arguments(scratch: Path, urls: list[str]) -> list[str]:
    hosts = [argument for url in urls for argument in ("--ollama-host", url)]
    return ["--data", str(scratch / "data"), "--provider", "ollama", *hosts]


# --- the storm ---------------------------------------------------------------------------------------------------


def _embed(scratch: Path, servers: Servers, seen: Seen, dice: random.Random, options: argparse.Namespace) -> bool:
    """Run until a run ends well; True if one does in time."""
    ends_s = time.monotonic() + options.longest_s
    strikes = _moments(dice)
    next_strike_s = time.monotonic() + next(strikes)
    while time.monotonic() < ends_s:
        may_kill = seen.client_kills < options.client_kills
        killed_at_s = time.monotonic() + dice.uniform(1.0, 30.0) if may_kill else ends_s
        with _running(scratch, servers.urls, options.batch_texts) as process:
            while process.poll() is None and time.monotonic() < min(killed_at_s, ends_s):
                if time.monotonic() > next_strike_s and seen.server_kills < options.server_kills:
                    servers.strike(dice.randrange(SERVERS), seen)
                    seen.server_kills += 1
                    next_strike_s = time.monotonic() + next(strikes)
                time.sleep(0.05)
        if _note(seen, process, (scratch / "messages").read_text("utf-8", "replace"), say=options.verbose):
            return True
    return False


def _note(seen: Seen, process: subprocess.Popen[bytes], messages: str, *, say: bool) -> bool:
    """How a run ended; True if that was well (3: with rejects)."""
    code = process.returncode
    if code < 0:
        seen.client_kills += 1
        return False
    seen.exits[code] += 1
    lines = [line for line in messages.splitlines() if line.strip()]
    told = next((line for line in lines if line.startswith("error")), lines[-1] if lines else "no message")
    seen.last_words.setdefault(code, told)
    if say:
        print(f"exit {code}: {told}", flush=True)
    return code in (0, 3)


def _moments(dice: random.Random) -> Iterator[float]:
    """Seconds between two deaths of a server."""
    while True:
        yield dice.uniform(2.0, 20.0)


@contextlib.contextmanager
def _running(scratch: Path, urls: list[str], batch_texts: int) -> Iterator[subprocess.Popen[bytes]]:
    """`pipeline embed` in a process group of its own, which is killed at the end of the block if it is still there."""
    with (scratch / "messages").open("wb") as messages:
        process = subprocess.Popen(
            [*common.COMMAND, *_arguments(scratch, urls), "embed"],
            env=os.environ | {"PIPELINE_EMBED_FLUSH_S": "1.0", "PIPELINE_EMBED_BATCH_TEXTS": str(batch_texts)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=messages,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()


# --- afterwards --------------------------------------------------------------------------------------------------


def _verify(scratch: Path) -> list[str]:
    """Everything that is not as it should be, a line each."""
    settings = config.Settings(data=str(scratch / "data"))
    collection = Collection(scratch / "data", settings.collection)
    spec = collection.embedder()
    assert spec is not None
    texts = _texts(collection, settings)
    wrong = _vectors(scratch, texts, spec.dims)
    log = live.vector_log(collection, spec)
    keys = list(texts)
    there = {key for key, found in zip(keys, log.contains(keys), strict=True) if found}
    rejected = {row["key"]: row for row in collection.rejects().to_pylist() if row["stage"] == "embed"}
    for key, text in texts.items():
        poisoned = faults.POISON in text
        if key in there and key in rejected:
            wrong.append(f"{key}: rejected ({rejected[key]['reason']}) and embedded")
        elif key not in there and key not in rejected:
            wrong.append(f"{key}: neither embedded nor rejected")
        elif (key in rejected) != poisoned:
            wrong.append(f"{key}: {'not ' if poisoned else ''}rejected: {text[:60]!r} {rejected.get(key)}")
        elif poisoned and FATAL["poison"] not in rejected[key]["reason"]:
            wrong.append(f"{key}: rejected for another reason: {rejected[key]['kind']}: {rejected[key]['reason']}")
    stray = rejected.keys() - texts.keys()
    return wrong + [f"{key}: rejected, and no chunk has it" for key in stray]


def _texts(collection: Collection, settings: config.Settings) -> dict[str, str]:
    """The exact text of every key that the live chunks want."""
    spec, snapshot = collection.embedder(), collection.snapshot()
    assert spec is not None
    assert snapshot is not None
    chunks_fp = live.chunk_params(settings, spec).fingerprint()
    return {
        row["embed_key"]: embed_text(row["context"], row["text"], row["title"], spec.document_template)
        for shard in live.of_snapshot(snapshot)
        for row in collection.read_chunks(chunks_fp, shard).to_pylist()
    }


def _vectors(scratch: Path, texts: dict[str, str], dims: int) -> list[str]:
    """Every row of every part, double ones too: each must be the vector of its text, to the last bit."""
    wrong: list[str] = []
    for part in sorted((scratch / "data").glob("*/vectors/*/*.parquet")):
        table = pq.read_table(part, columns=["embed_key", "vector"])
        matrix = schema.matrix(table["vector"].combine_chunks(), dims)
        for key, vector in zip(schema.strings(table["embed_key"]), matrix, strict=True):
            if key not in texts:
                wrong.append(f"{key}: a vector that no chunk wants")
            elif not np.array_equal(vector, hash_vector(texts[key], dims)):
                wrong.append(f"{key}: another text's vector, or a broken one")
    return wrong


def _show(texts: int, seconds: float, seen: Seen, sent: Counter[str]) -> None:
    print(common.table(["fault", "survived"], [[kind, count] for kind, count in sorted(seen.faults.items())]))
    again = sum(count - 1 for text, count in sent.items() if faults.POISON not in text)
    print(f"{seen.faults.total()} faults, {seen.client_kills} kills of the client, {seen.server_kills} of a server")
    print(f"{texts} texts in {seconds:.0f} s; {again} sent again, canaries included ({again / texts:.2f} per text)")
    print(f"runs that ended by themselves, by exit code: {dict(sorted(seen.exits.items()))}")
    for code, words in sorted(seen.last_words.items()):
        print(f"  first with {code}: {words}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # client and servers have been stopped on the way up
        sys.exit(130)
