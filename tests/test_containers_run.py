"""Documents inside files through the whole graph, with worker processes and a server that counts what it embeds; and
what the commands say of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline import check, config, errors, inspection, lance, live, schema, why
from pipeline.progress import Silent
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.readers.boxes import mail, mailbox, tarred, zipped
from tests.test_changes import age
from tests.test_run import World, sentence

FILES = {f"folder/{n}.md": f"# Note {n}\n\n{sentence(n)}\n" for n in range(3)}


class Boxes(World):
    def __init__(self, tmp_path: Path, server: FakeOllama) -> None:
        super().__init__(tmp_path, server)
        self.settings = replace(self.settings, readers=config.ReaderSettings(workers=1, archives=True))
        self.docs.mkdir()

    def put(self, name: str, data: bytes) -> Path:
        path = self.docs / name
        path.write_bytes(data)
        age(path)
        return path

    def found(self) -> list[str]:
        """The documents of which the search table has rows."""
        spec = self.collection.embedder()
        assert spec is not None
        table = lance.Table.open(
            self.collection.index_folder, live.table_name(spec), spec.dims, live.provenance(spec), storage=spec.storage
        )
        return sorted(set(schema.strings(table.rows("uri")["uri"])))

    def preview(self) -> dict[str, str]:
        planned = self.plan().planned
        assert planned is not None
        return dict(planned.fates)


@pytest.fixture
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as running:
        yield running


@pytest.fixture
def world(tmp_path: Path, server: FakeOllama) -> Boxes:
    made = Boxes(tmp_path, server)
    made.put("box.zip", zipped({**FILES, "bad.pdf": b"%PDF-1.4"}))
    made.put("mail.eml", mail("Lamps", sentence("mail"), {"report.md": sentence("report")}))
    made.put("plain.md", sentence("plain").encode())
    return made


def test_only_new_texts_are_embedded(world: Boxes) -> None:
    planned, report = world.plan(), world.run()
    assert planned.files == report.files
    assert (planned.chunks, planned.planned and planned.planned.chunks, len(world.sent())) == (6, 6, 6)
    assert world.found() == sorted(
        [*(f"box.zip!/{name}" for name in FILES), "mail.eml", "mail.eml!/report.md", "plain.md"]
    )
    assert world.texts() == 0
    (world.docs / "box.zip").rename(world.docs / "case.zip")
    assert world.preview() == {f"case.zip!/{name}": "moved" for name in FILES} | {"case.zip!/bad.pdf": "damaged"}
    assert world.texts() == 0, "moved"
    (world.docs / "case.zip").unlink()
    world.put("case.tar.gz", tarred({**FILES, "4.md": sentence("fourth")}, mode="w:gz"))
    assert world.preview()["case.tar.gz!/4.md"] == "new"
    assert world.texts() == 1, "packed otherwise, with one more"
    world.put("in.mbox", mailbox(mail("One", sentence("one")), mail("Two", sentence("report"))))
    assert world.texts() == 2


def test_check_finds_nothing_and_mends_what_is_inside(world: Boxes) -> None:
    world.run()
    assert check.check(world.settings, Silent()).ok
    snapshot = world.collection.snapshot()
    assert snapshot is not None
    shard = next(row["shard"] for row in snapshot.table.to_pylist() if row["uri"].startswith("box.zip!/folder/"))
    path = world.collection.root / "documents" / f"{shard}.parquet"
    path.write_bytes(path.read_bytes()[:100])
    found = check.check(world.settings, Silent(), fix=True)
    assert any(finding.kind == "documents" for finding in found.mended)
    assert world.texts() == 0, "read again, cut again, embedded before"
    assert len(world.found()) == 6
    assert check.check(world.settings, Silent()).ok


# -- what is said of them


def test_why_of_a_document_inside_a_file(world: Boxes) -> None:
    world.run()

    def asked(name: str) -> why.Why:
        return why.explain(world.settings, Path(name))

    name = "box.zip!/folder/1.md"
    for spelt in (name, str(world.docs / name)):
        found = asked(spelt)
        assert (found.uri, found.verdict, len(found.chunks)) == (name, "unchanged", 1)
    assert (asked("box.zip!/bad.pdf").verdict, asked("mail.eml").verdict) == ("rejected", "unchanged")
    box = asked("box.zip")
    assert (box.verdict, box.causes) == (
        "unchanged",
        ("it holds 4 documents; 1 cannot be read: box.zip!/bad.pdf (damaged)",),
    )
    with pytest.raises(errors.UsageError, match=r"no document none\.md in box\.zip"):
        asked("box.zip!/none.md")
    world.put("box.zip", zipped({**FILES, "folder/1.md": sentence("other"), "new.md": sentence("new")}))
    assert [(asked(f"box.zip!/{one}").verdict) for one in ("folder/0.md", "folder/1.md", "new.md", "bad.pdf")] == [
        "touched",
        "changed",
        "new",
        "deleted",
    ]
    assert asked("box.zip").verdict == "changed"
    (world.docs / "box.zip").unlink()
    assert asked(name).verdict == "deleted"
    world.settings = replace(world.settings, readers=config.ReaderSettings(workers=1))
    world.put("box.zip", zipped(FILES))
    left_out = asked(name)
    assert (left_out.verdict, left_out.summary) == (
        "left out",
        "no reader knows *.zip files: archives are read if readers.archives = true",
    )


def test_inspect_shows_what_is_inside(world: Boxes) -> None:
    found = inspection.inspect(world.settings, world.docs / "box.zip")
    assert (found.kind, found.text, found.reader) == ("ok", "", "archive/1")
    assert [(entry.path, entry.kind) for entry in found.inside] == [(name, "ok") for name in [*FILES, "bad.pdf"]]
    one = inspection.inspect(world.settings, world.docs / "box.zip!" / "folder" / "1.md")
    assert (one.file, one.title, one.chunks[0].tokens > 0) == ("box.zip!/folder/1.md", "Note 1", True)
    bad = inspection.inspect(world.settings, world.docs / "box.zip!/bad.pdf")
    assert (bad.file, bad.kind) == ("box.zip!/bad.pdf", "damaged")
    absent = inspection.inspect(world.settings, world.docs / "box.zip!/x.md")
    assert (absent.kind, absent.reason) == ("vanished", "x.md is not in it")
    letter = inspection.inspect(world.settings, world.docs / "mail.eml")
    assert ([entry.path for entry in letter.inside], letter.title) == (["report.md"], "Lamps")
    with pytest.raises(errors.SourceError, match="No such file"):
        inspection.inspect(world.settings, world.docs / "none.zip!/x.md")


def test_the_command_lists_what_is_inside(world: Boxes) -> None:
    options = ["--data", str(world.data), "inspect"]
    env = {"PIPELINE_PROVIDER": "builtin", "PIPELINE_READERS_ARCHIVES": "true"}
    lines = invoke(world.docs, *options, str(world.docs / "box.zip"), env=env).output.splitlines()
    assert lines[0] == "box.zip: read by archive/1"
    assert lines[2] == "4 documents inside:"
    assert lines[3].startswith("  folder/0.md · ")
    assert lines[-1] == f"One of them: pipeline inspect '{world.docs}/box.zip!/folder/0.md'"
    shown = invoke(world.docs, *options, "--json", f"{world.docs}/mail.eml!/report.md", env=env)
    assert json.loads(shown.output)["text"].strip() == sentence("report")
    refused = invoke(
        world.docs, *options, str(world.docs / "box.zip"), env=env | {"PIPELINE_READERS_ARCHIVES": "false"}
    )
    assert refused.exit_code == 3
    assert "readers.archives = true" in refused.output


def test_a_night_with_a_time_limit_leaves_no_half_of_a_file(world: Boxes) -> None:
    """The last moment has passed before anything is begun: nothing changes, and the next run does it all."""
    from pipeline.deadline import Deadline

    world.run()
    before = world.found()
    world.put("box.zip", zipped({"other.md": sentence("other")}))
    world.put("new.zip", zipped(FILES))
    report = world.run(end=Deadline.of("0s", ""), max_delete=1.0)
    assert (report.incomplete, report.files_left, world.found()) == (True, 2, before)
    world.run(max_delete=1.0)
    assert {"box.zip!/other.md", "new.zip!/folder/0.md"} <= set(world.found())
