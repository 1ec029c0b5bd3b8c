"""One who searches all the while: opens what is published again and again, and says what it saw.

    python -m benchmarks.onlooker --data DIR --log FILE [--word water] [--pause-s 0.25]

A process of its own, beside runs that are killed or that change the model. Each look opens the collection as `search`
does, searches it by words and by a vector, and reads every row; besides, one reader stays open for a few seconds, as
that of `serve` does, and is asked again. Each look becomes a JSON line: when, how many rows, one word for all of them
(common.digest), whose vectors they are; or what failed. Ends when its stdin closes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from benchmarks import common
from pipeline import lance_lean

KEEP_OPEN_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What one look saw. `at`: Unix time; `error`: "" where nothing failed."""

    at: float
    rows: int = 0
    digest: str = ""
    model: str = ""
    error: str = ""


class Onlooker:
    """The process, for the length of a `with` block."""

    def __init__(self, data: Path, log: Path, *, word: str = "water", pause_s: float = 0.25) -> None:
        self._command = [sys.executable, "-m", "benchmarks.onlooker", f"--data={data}", f"--log={log}"]
        self._command += [f"--word={word}", f"--pause-s={pause_s}"]
        self._log = log
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._log.touch()
        self._process = subprocess.Popen(self._command, cwd=Path(__file__).parents[1], stdin=subprocess.PIPE)
        self.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate(timeout=60)

    def looks(self) -> list[Look]:
        """What it saw since this was asked last."""
        with self._log.open(encoding="utf-8") as file:
            file.seek(self._read)
            text = file.read()
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole.encode())
        return [Look(**json.loads(line)) for line in whole.splitlines()]

    def wait(self, looks: int = 1, longest_s: float = 60.0) -> None:
        """Until it has looked so often from now on."""
        assert self._process is not None
        size, deadline = self._log.stat().st_size, time.monotonic() + longest_s
        while self._log.read_bytes()[size:].count(b"\n") < looks:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the onlooker does not look")
            time.sleep(0.02)


class Eyes:
    """What is done at each look; in this process."""

    def __init__(self, data: Path, word: str) -> None:
        from pipeline import config

        self._settings = config.Settings(data=str(data))
        self._word = word
        self._alone = re.compile(rf"(?<!\S){re.escape(word)}(?!\S)")
        self._kept: Any = None
        self._kept_since = 0.0

    def look(self) -> Look:
        """Never raises: what fails is what is to be told."""
        try:
            return self._look()
        except Exception as error:
            return Look(at=time.time(), error=f"{type(error).__name__}: {error}")

    def _look(self) -> Look:
        from pipeline import query

        standing = query.open_collection(self._settings)
        reader = query.open_reader(standing)
        rows = self._ask(reader)
        if self._kept is None or time.monotonic() - self._kept_since > KEEP_OPEN_S:
            self._kept, self._kept_since = reader, time.monotonic()
        self._ask(self._kept)
        model = reader.provenance.get("model", standing.spec.model)
        return Look(at=time.time(), rows=len(rows), digest=common.digest(rows), model=model)

    def _ask(self, reader: Any) -> list[dict[str, Any]]:
        import numpy as np

        vector = np.ones(reader.dims, np.float32)
        by_words, by_vector = reader.text(self._word, 5), reader.vector(vector, 5)
        rows = common.published_rows(reader)
        if by_vector.num_rows != min(5, len(rows)):
            raise LookupError(f"a search by vector found {by_vector.num_rows} of {len(rows)} rows")
        matching = sum(bool(self._alone.search(str(row["text"]))) for row in rows)
        if by_words.num_rows < min(5, matching):
            raise LookupError(f"a search by words found {by_words.num_rows} of {matching} rows")
        return rows


def _watch(eyes: Eyes, log: TextIO, pause_s: float, ended: threading.Event) -> None:
    while not ended.wait(pause_s):
        look = eyes.look()
        words = {name: getattr(look, name) for name in Look.__slots__}
        log.write(json.dumps(words) + "\n")
        log.flush()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--word", default="water", help="that some passages hold")
    parser.add_argument("--pause-s", type=float, default=0.25)
    options = parser.parse_args()
    lance_lean.install()  # as the commands do
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with options.log.open("a", encoding="utf-8") as log:
        _watch(Eyes(options.data, options.word), log, options.pause_s, ended)
    return 0


if __name__ == "__main__":
    sys.exit(main())
