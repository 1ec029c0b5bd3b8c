"""A run that its time limit ends: what it has is published, each document whole, and the next run does the rest."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline import changes, embedding, guards, live, run, status
from pipeline.deadline import NEVER, Deadline
from pipeline.executor import Context, Names
from pipeline.progress import Silent
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents


@pytest.fixture
def world(tmp_path: Path, shared: FakeOllama) -> World:
    shared.reset()
    shared.configure(cost_us_per_token=0)
    made = World(tmp_path, shared)
    made.embed(batch_texts=4)
    write_documents(made.docs)
    return made


class WhenSent(Deadline):
    """Comes when the server has been sent so many texts."""

    server: FakeOllama
    texts: int

    @classmethod
    def to(cls, server: FakeOllama, texts: int) -> WhenSent:
        made = cls()
        object.__setattr__(made, "server", server)
        object.__setattr__(made, "texts", texts)
        return made

    @property
    def is_set(self) -> bool:
        return True

    def left(self) -> float:
        return 0.0 if self.server.counters()["texts"] >= self.texts else 3600.0

    def earlier_of(self, other: Deadline) -> Deadline:
        return self

    def earlier_by(self, seconds: float) -> Deadline:
        return self


class LookedThrough(Silent):
    """Knows when what is due of so many shards has been told."""

    def __init__(self, shards: int) -> None:
        self.left = shards
        self.all = asyncio.Event()

    def grow(self, task: str, n: int) -> None:
        self.left -= 1
        if not self.left:
            self.all.set()


OVER = Deadline.after(0)
DAYS_AGO = itertools.count(1_600_000_000)


def rewrite(path: Path, seed: str, sections: int = 12) -> None:
    path.write_text(
        "\n\n".join(f"## {seed} {n}\n\n" + " ".join(sentence(seed, n, m) for m in range(9)) for n in range(sections))
    )


def age(folder: Path) -> None:
    """0.md is the oldest."""
    for number, path in enumerate(sorted(folder.iterdir())):
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))


def settle(folder: Path) -> None:
    """What was written just now is dated back: a file as young as the scan is read again, to be sure."""
    for path in sorted(folder.iterdir()):
        if path.stat().st_mtime > time.time() - 3600:
            at = next(DAYS_AGO)
            os.utime(path, (at, at))


def test_the_newest_files_come_first_and_each_is_searched_whole(world: World) -> None:
    write_documents(world.docs, files=30)
    age(world.docs)
    report = world.run(end=WhenSent.to(world.server, 40))
    assert (report.incomplete, report.exit_code, report.files_left) == (True, 0, 0)
    assert 40 <= report.vectors < report.chunks
    assert report.chunks_left == report.chunks - report.vectors
    searched = set(world.table().values())
    assert len(searched) == 30 - report.documents_held > 0
    assert searched == set(sorted(path.name for path in world.docs.iterdir())[-len(searched) :]), "the newest"
    rest = world.run()
    assert not rest.incomplete
    assert rest.embedded_texts == report.chunks_left, "what was embedded is not embedded again"
    assert set(world.table().values()) == {f"{n}.md" for n in range(30)}
    assert len(world.table()) == rest.chunks == rest.vectors


def test_a_document_that_is_not_embedded_whole_goes_on_in_its_last_version(world: World) -> None:
    world.run()
    before = {chunk: uri for chunk, uri in world.table().items() if uri == "3.md"}
    rewrite(world.docs / "3.md", "rewritten")
    rewrite(world.docs / "new.md", "new")
    (world.docs / "5.md").unlink()
    report = world.run(end=WhenSent.to(world.server, len(world.server.texts()) + 1))
    assert (report.incomplete, report.documents_held, report.files["deleted"]) == (True, 2, 1)
    spec = world.collection.embedder()
    assert spec is not None
    found = world.reader().get(list(before)).to_pylist()
    assert {row["chunk_id"] for row in found} == set(before), "the last version, whole"
    note = world.collection.published()
    assert note is not None
    assert (note.held, note.left) == (2, len(before))
    assert world.reader().count() == note.rows + note.left
    assert not world.run().incomplete
    table = world.table()
    assert not set(before) & set(table)
    assert set(table.values()) == {"0.md", "1.md", "2.md", "3.md", "4.md", "new.md"}


def test_what_was_not_read_stays_as_it_was(world: World) -> None:
    """With no time left a changed file keeps its text, a moved one is not lost, and a deleted one goes."""
    settle(world.docs)
    world.run()
    before = world.table()
    rewrite(world.docs / "0.md", "edited")
    (world.docs / "1.md").rename(world.docs / "moved.md")
    (world.docs / "2.md").write_text("A document of another length than any other.")
    settle(world.docs)
    world.run()
    (world.docs / "2.md").unlink()
    rewrite(world.docs / "0.md", "edited again")
    (world.docs / "moved.md").rename(world.docs / "moved-again.md")
    settle(world.docs)
    now = world.table()
    report = world.run(end=OVER)
    assert (report.incomplete, report.files_left, report.files["deleted"]) == (True, 2, 1)
    assert world.table() == {chunk: uri for chunk, uri in now.items() if uri != "2.md"}
    assert before != now
    again = world.run(end=OVER)
    assert (again.incomplete, again.files_left, again.files["unchanged"]) == (True, 2, 3)
    report = world.run()
    assert (report.files["changed"], report.files["moved"], report.files["deleted"]) == (1, 1, 0)
    assert set(world.table().values()) == {"0.md", "3.md", "4.md", "5.md", "moved-again.md"}


def test_new_texts_come_before_what_earlier_nights_left(world: World) -> None:
    for name in ("old-1", "old-2", "new"):
        rewrite(world.docs / f"{name}.md", name, sections=4)
        world.run("ingest")
    world.run("chunk")
    spec = world.collection.embedder()
    assert spec is not None
    shards = {row["uri"]: row["shard"] for row in world.collection.snapshot().table.to_pylist()}
    names = [shards[f"{name}.md"] for name in ("old-1", "old-2", "new")]
    vectors = live.vector_log(world.collection, spec)

    async def begin() -> embedding.Server:
        return embedding.Server(made_by="", skip=frozenset())

    async def order(context: Context) -> list[str]:
        chunks_fp = live.chunk_params(world.settings, spec).fingerprint()
        source = embedding.Source(context, spec, vectors, chunks_fp, begin, last=names[:2])
        queue: Names = asyncio.Queue()
        for name in names:
            queue.put_nowait(name)
        texts = source.items(queue)
        found = [await anext(texts)]
        await watch.all.wait()
        queue.put_nowait(None)
        found += [item async for item in texts]
        return [source.sent[item.key].shard for item in found]

    with run.worker_pool(world.settings) as pool:
        options = changes.reader_options(world.settings)
        watch = LookedThrough(len(names))
        context = Context(
            collection=world.collection, settings=world.settings, options=options, pool=pool, progress=watch
        )
        seen = list(dict.fromkeys(asyncio.run(order(context))))
    assert seen == [names[0], names[2], names[1]], "what was begun is finished, then comes what is new"


def test_what_was_not_even_cut_is_not_taken_for_done(world: World) -> None:
    """Published with nothing in it: as many rows as chunks, none, and yet not complete."""
    world.run("ingest")
    first = world.run("chunk", "embed", "index", end=OVER)
    assert first.incomplete
    assert world.collection.published().held == 6
    assert status.examine(world.settings).pending.documents == 6
    second = world.run()
    assert second.chunks == second.vectors > 0
    assert not second.incomplete
    assert world.collection.published().held == 0


def test_each_stage_alone_stops_as_well(world: World) -> None:
    assert world.run("ingest", end=OVER).files_left == 6
    world.run("ingest")
    assert world.run("chunk", end=OVER).incomplete
    world.run("chunk")
    report = world.run("embed", end=OVER)
    assert report.incomplete
    assert report.chunks_left == report.chunks > 0
    assert world.sent() == []


def test_a_run_with_time_to_spare_says_nothing_of_it(world: World) -> None:
    world.settings = replace(world.settings, run=replace(world.settings.run, max_duration="2h"))
    report = world.run()
    assert (report.incomplete, report.files_left, report.chunks_left, report.documents_held) == (False, 0, 0, 0)


def test_the_command_says_what_is_left_and_ends_with_0(world: World, tmp_path: Path) -> None:
    words = (
        "--data",
        str(world.data),
        "--provider",
        "ollama",
        "--ollama-host",
        world.server.url,
        "run",
        str(world.docs),
    )
    result = invoke(tmp_path, *words, "--max-duration", "0s")
    assert result.exit_code == 0
    assert "Incomplete, stopped by the time limit: 6 files not read. The next run goes on." in result.stdout
    result = invoke(tmp_path, *words, "--until", "25:00")
    assert result.exit_code == 2
    assert 'Give a time of day such as "06:00"' in result.stderr


# -- how much is kept back for publishing


def seconds(deadline: Deadline) -> float:
    left = deadline.left()
    assert left is not None
    return left


def test_time_is_kept_back_for_publishing(world: World) -> None:
    assert guards.time_limit(world.collection, Deadline()) is NEVER
    limit = guards.time_limit(world.collection, Deadline.after(3600))
    assert seconds(limit.wait) == pytest.approx(3600 - guards.PUBLISH_S, abs=2)
    assert seconds(limit.begin) == pytest.approx(3600 - 1.5 * guards.PUBLISH_S, abs=2)
    short = guards.time_limit(world.collection, Deadline.after(10))
    assert seconds(short.wait) == pytest.approx(8, abs=1)
    world.run()
    known = guards.time_limit(world.collection, Deadline.after(3600))
    assert 3600 - guards.PUBLISH_S < seconds(known.wait) < 3600, "by what it took the last time"
