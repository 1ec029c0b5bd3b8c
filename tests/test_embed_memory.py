"""The embed stage's memory, by the benchmark's own means with fewer texts: what a million take must not hide in it."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

CODE = """
import asyncio, json, sys
from pathlib import Path
from benchmarks import embed_memory
from pipeline.store import Collection

texts = int(sys.argv[2])
collection = Collection(Path(sys.argv[1]), "memory")
names = embed_memory.write_shards(collection, texts)
watch = embed_memory.Watch(texts)
log, before = asyncio.run(embed_memory.embed(collection, names, 8, watch))
log.refresh()
print(json.dumps({"vectors": len(log), "resident": watch.resident, "before": before}))
"""


def test_the_embed_stage_does_not_grow_with_its_texts(tmp_path: Path) -> None:
    """After the first half everything is in place that does not grow; a text more may take 300 bytes. The middle one of
    five steps counts: a leak is in each, while an allocator takes 10 MB at once, when the machine is busy also late.
    """
    texts = 60_000
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path), str(texts)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    resident = found["resident"]
    assert found["vectors"] == texts
    assert len(resident) == 10
    steps = [after - before for before, after in itertools.pairwise(resident[4:])]
    assert statistics.median(steps) < 300 * texts / len(resident), resident
    assert max(resident) - found["before"] < 150 << 20
