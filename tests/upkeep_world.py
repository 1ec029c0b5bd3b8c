"""Collections of a few small files for the tests of upkeep: built once by real runs against the fake Ollama, then
copied for each test that damages or shrinks one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline import check, config, garbage, ids, lance, live, run
from pipeline.models import EmbedderSpec, canary
from pipeline.progress import Silent
from pipeline.report import Report
from pipeline.store import Collection
from pipeline.store.inventory import Inventory
from tests.fake_ollama.client import FakeOllama

Change = Callable[[Path], object]


def sentence(*seed: object) -> str:
    """A sentence of its own for each seed."""
    words = [ids.embed_key(repr((*seed, n)))[:6] for n in range(14)]
    return f"{' '.join(words).capitalize()}."


def write_document(folder: Path, name: str, *seed: object, paragraphs: int = 3) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# Document {name}"]
    for section in range(2):
        lines.append(f"## Section {section}")
        lines += [
            " ".join(sentence(name, *seed, section, paragraph, n) for n in range(4)) for paragraph in range(paragraphs)
        ]
    (folder / f"{name}.md").write_text("\n\n".join(lines) + "\n")


class World:
    """A folder of documents, a collection and a server, with the calls that the tests make."""

    def __init__(self, folder: Path, server: FakeOllama, docs: Path | None = None) -> None:
        self.docs = docs or folder / "docs"
        self.data = folder / "data"
        self.server = server
        self.settings = config.Settings(
            data=str(self.data),
            embed=config.EmbedSettings(provider="ollama", flush_s=0.2),
            ollama=config.OllamaSettings(hosts=(server.url,)),
            readers=config.ReaderSettings(workers=1),
        )

    def copy(self, folder: Path) -> World:
        """The same collection elsewhere; the documents stay where they are."""
        shutil.copytree(self.data, folder / "data")  # makes `folder` too
        return World(folder, self.server, self.docs)

    def night(self, *stages: str, **options: Any) -> Report:
        chosen = frozenset(stages) or frozenset(run.STAGES)
        folders = (self.docs,) if "ingest" in chosen else ()
        options.setdefault("max_delete", 1.0)
        return run.execute(self.settings, run.Request(stages=chosen, folders=folders, **options), Silent())

    def texts(self, *stages: str) -> int:
        """How many texts of the documents a run sends to the server."""
        before = len(self._sent())
        self.night(*stages)
        return len(self._sent()) - before

    def _sent(self) -> list[str]:
        return [text for text in self.server.texts() if text != canary.TEXT]

    def check(self, *, fix: bool = False) -> check.Checked:
        return check.check(self.settings, Silent(), fix=fix)

    def gc(self, *, dry_run: bool = False) -> garbage.Collected:
        return garbage.collect(self.settings, Silent(), dry_run=dry_run)

    @property
    def collection(self) -> Collection:
        return Collection(self.data, "default")

    @property
    def root(self) -> Path:
        return self.collection.root

    @property
    def inventory(self) -> Inventory:
        return Inventory(self.collection)

    @property
    def spec(self) -> EmbedderSpec:
        spec = self.collection.embedder()
        assert spec is not None
        return spec

    def reader(self) -> lance.Reader:
        note = self.collection.published()
        assert note is not None
        return lance.Reader.open(self.collection.index_folder, live.table_name(self.spec), note.version)

    def rows(self) -> set[tuple[str, str]]:
        """(uri, text) of every row that readers see."""
        docs = live.of_snapshot(self.collection.snapshot())
        chunks_fp = live.chunk_params(self.settings, self.spec).fingerprint()
        found = [
            chunk
            for shard in docs
            for chunk in self.collection.read_chunks(chunks_fp, shard, ["chunk_id"])["chunk_id"].to_pylist()
        ]
        reader = self.reader()
        rows = {(row["uri"], row["text"]) for row in reader.get(found).to_pylist()}
        assert reader.count() == len(rows), "rows that no live document asks for, or double ones"
        return rows


def three_nights(world: World) -> None:
    """Seven documents, then one changed and one gone, then one more: three generations, three shards."""
    for number in range(7):
        write_document(world.docs, str(number))
    world.night()
    write_document(world.docs, "0", "again")
    (world.docs / "6.md").unlink()
    world.night()
    write_document(world.docs, "7")
    world.night()
