"""One run over hundreds of files that are made to hurt, each with a good one beside it.

Nothing crashes, hangs or eats memory; every file is read, or refused for the right reason; all neighbours are found.
"""

from __future__ import annotations

import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from benchmarks import common
from pipeline import config, lance, live, report, run, workers
from pipeline.progress import Silent
from pipeline.store import Collection
from tests.fake_ollama.client import FakeOllama
from tests.readers import hostile

MEMORY_MB = 1024
TIMEOUT_S = 6.0  # of a processor: importing a parser takes one of them
SECRET = "the words that no document may hold"


class Watch(threading.Thread):
    """The most memory that any worker of this process has held, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.seen = 0
        self._over = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.02):
            for child in me.children():
                try:
                    if "spawn_main" in " ".join(child.cmdline()):
                        self.seen += 1
                        self.peak_mb = max(self.peak_mb, _peak_mb(child))
                except (psutil.Error, OSError):
                    pass  # it has ended meanwhile

    def stop(self) -> None:
        self._over.set()
        self.join()


def _peak_mb(process: psutil.Process) -> float:
    if sys.platform == "linux":  # the kernel keeps the mark: nothing passes between two looks
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
        return int(found[1]) / 1000 if found else 0.0
    return float(process.memory_info().rss) / 1e6


@dataclass
class World:
    docs: Path
    expected: dict[str, str]
    server: FakeOllama
    listener: socket.socket
    settings: config.Settings
    report: report.Report = field(init=False)
    watch: Watch = field(default_factory=Watch)
    took_s: float = 0.0

    def execute(self) -> None:
        self.watch.start()
        began = time.monotonic()
        try:
            request = run.Request(stages=frozenset(run.STAGES), folders=(self.docs,))
            self.report = run.execute(self.settings, request, Silent())
        finally:
            self.took_s = time.monotonic() - began
            self.watch.stop()

    @property
    def collection(self) -> Collection:
        return Collection(Path(self.settings.data), "default")

    def statuses(self) -> dict[str, str]:
        snapshot = self.collection.snapshot()
        assert snapshot is not None
        return {row["uri"]: row["status"] for row in snapshot.table.to_pylist()}


def neighbour(number: int) -> bytes:
    text = f"# Neighbour {number}\n\nThe hut number {number} stands on the ridge, and its door is never locked.\n"
    return text.encode()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hostile")
    secret = folder / "secret.txt"
    secret.write_text(SECRET)
    docs = folder / "docs"
    with socket.create_server(("127.0.0.1", 0)) as listener, FakeOllama(vectors="hash") as server:
        expected = {}
        for number, file in enumerate(hostile.everything(secret, listener.getsockname()[1])):
            file.write(docs)
            expected[file.name] = file.fate
            hostile.Hostile(f"{file.name}.neighbour.md", "ok", neighbour(number)).write(docs)
        expected |= hostile.strange(docs / "strange")
        made = World(
            docs=docs,
            expected=expected,
            server=server,
            listener=listener,
            settings=config.Settings(
                data=str(folder / "data"),
                source=config.SourceSettings(follow_symlinks=True, max_file_mb=30),
                readers=config.ReaderSettings(workers=2, timeout_s=TIMEOUT_S, memory_mb=MEMORY_MB),
                embed=config.EmbedSettings(provider="ollama"),
                ollama=config.OllamaSettings(hosts=(server.url,)),
            ),
        )
        before = set(folder.parent.iterdir()) | set(Path.cwd().iterdir())
        made.execute()
        assert set(folder.parent.iterdir()) | set(Path.cwd().iterdir()) == before
        yield made


def test_every_file_is_read_or_refused_for_the_right_reason(world: World) -> None:
    found = {uri: kind for uri, kind in world.statuses().items() if not uri.endswith(".neighbour.md")}
    inside = {uri: kind for uri, kind in found.items() if "!/" in uri}
    files = {uri: kind for uri, kind in found.items() if uri not in inside}
    assert len(files) >= 250
    assert files.keys() == world.expected.keys()
    wrong = {
        uri: (kind, world.expected[uri]) for uri, kind in files.items() if kind not in world.expected[uri].split("|")
    }
    assert wrong == {}
    assert inside.pop("truncated/half.eml!/invoice.pdf") == "damaged"
    assert set(inside.values()) == {"ok"}


def test_reasons_are_for_people(world: World) -> None:
    """A line that says what is wrong, without our folders in it; a remedy where there is one."""
    reasons = {row["uri"]: row["reason"] for row in world.collection.rejects().to_pylist()}
    failed = {uri for uri, status in world.statuses().items() if status != "ok"}
    assert failed <= reasons.keys()
    for uri in failed - {"strange/new\nline.md"}:
        assert 5 < len(reasons[uri]) < 450, uri
        assert "\n" not in reasons[uri], uri
        assert str(world.docs) not in reasons[uri], uri
    for uri, status in world.statuses().items():
        if status in ("encrypted", "too_large", "timeout", "memory") and not uri.endswith(".epub"):
            assert re.search(r"\b(Save|Raise)\b", reasons[uri]), (uri, reasons[uri])


def test_all_neighbours_are_searchable(world: World) -> None:
    spec = world.collection.embedder()
    assert spec is not None
    rows = common.published_rows(lance.Reader.open(world.collection.index_folder, live.table_name(spec)))
    neighbours = {uri for uri, status in world.statuses().items() if uri.endswith(".neighbour.md")}
    assert len(neighbours) > 250
    assert neighbours <= {row["uri"] for row in rows}
    assert world.report.chunks == world.report.vectors == len(rows)


def test_nothing_was_fetched(world: World) -> None:
    """The loopback server that external entities, pictures, templates and actions name has had no visitor."""
    world.listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        world.listener.accept()


def test_no_secret_got_in(world: World) -> None:
    """Neither the file that external entities name nor /etc/passwd is in any document."""
    texts = [
        text
        for shard in live.of_snapshot(world.collection.snapshot())
        for text in world.collection.read_documents(shard, ["text"])["text"].to_pylist()
    ]
    assert len(texts) > 400
    assert not any(SECRET in text or "root:x:0:0" in text for text in texts)


def test_nothing_ran(world: World) -> None:
    """Macros, formulas and names that a shell would carry out leave a file called "ran"."""
    assert not list(world.docs.parent.rglob("ran"))
    assert not Path("ran").exists()


def test_the_limits_hold(world: World) -> None:
    assert world.watch.seen > 0
    assert world.watch.peak_mb <= MEMORY_MB * 1.05
    timed_out = [uri for uri, kind in world.statuses().items() if kind == "timeout"]
    assert "wide/attributes.html" in timed_out
    assert world.report.detail is not None
    # Seconds by the clock: where the machine is busy, a call may take workers.STARVED times its time.
    slowest = world.report.detail.slowest
    assert all(one.seconds <= workers.STARVED * (TIMEOUT_S + one.bytes / 1e6) for one in slowest), slowest


def test_a_second_run_reads_nothing_again(world: World) -> None:
    """What was refused stays refused, unread, until it changes; only what could not be got at is looked at again."""
    request = run.Request(stages=frozenset(run.STAGES), folders=(world.docs,))
    again = run.execute(world.settings, request, Silent())
    assert (again.files["new"], again.files["changed"], again.files["deleted"]) == (0, 0, 0)
    assert again.detail is not None
    assert {one.uri for one in again.detail.slowest} <= {f"strange/{name}" for name in ("growing.txt", "\\xff\\xfe.md")}
