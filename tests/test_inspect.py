"""`pipeline inspect`: what is shown is what a run makes of the same file."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from pipeline import config, inspection, inspection_page, run
from pipeline.progress import Silent
from pipeline.store import Collection
from tests import command_line

TEXT = "# Leave & <b>rest\n\n## Annual & other\n\nEveryone gets twenty-five days.\n\n## 病假\n\n员工每年有十天病假。\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "docs" / "leave.md"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


def settings(tmp_path: Path) -> config.Settings:
    return config.Settings(
        data=str(tmp_path / "data"),
        chunk=config.ChunkSettings(size=8, max=24),
        embed=config.EmbedSettings(provider="builtin"),
        readers=config.ReaderSettings(workers=1),
    )


def invoke(tmp_path: Path, *arguments: str) -> Result:
    env = {"PIPELINE_PROVIDER": "builtin", "PIPELINE_CHUNK_SIZE": "8", "PIPELINE_CHUNK_MAX": "24"}
    return command_line.invoke(tmp_path, "--data", str(tmp_path / "data"), "inspect", *arguments, env=env)


def test_it_shows_what_a_run_makes(tmp_path: Path, file: Path) -> None:
    before = inspection.inspect(settings(tmp_path), file)
    assert not (tmp_path / "data").exists()
    assert [chunk.embedded for chunk in before.chunks] == [False] * len(before.chunks)
    run.execute(settings(tmp_path), run.Request(stages=frozenset(run.STAGES), folders=(file.parent,)), Silent())
    found = inspection.inspect(settings(tmp_path), file)
    assert all(chunk.embedded for chunk in found.chunks)
    rows = table_rows(tmp_path)
    assert [(chunk.start, chunk.end, chunk.tokens) for chunk in found.chunks] == rows
    assert [block.kind for block in found.blocks] == ["heading", "heading", "paragraph", "heading", "paragraph"]
    assert found.blocks[-1].heading_path == ("Leave & rest", "病假")


def table_rows(tmp_path: Path) -> list[tuple[int, int, int]]:
    from pipeline import live

    given = settings(tmp_path)
    collection = Collection(Path(given.data), given.collection)
    spec = collection.embedder()
    assert spec is not None
    (shard,) = live.of_snapshot(collection.snapshot())
    table = collection.read_chunks(live.chunk_params(given, spec).fingerprint(), shard, ["start", "end", "tokens"])
    return [(row["start"], row["end"], row["tokens"]) for row in table.to_pylist()]


def test_chunks_and_blocks_in_the_terminal(tmp_path: Path, file: Path) -> None:
    shown = invoke(tmp_path, str(file))
    assert shown.exit_code == 0
    assert shown.stdout.startswith("leave.md: text/markdown, read by markdown/1\ntitle: Leave & rest\n")
    assert "· Leave & rest > 病假 · to be embedded" in shown.stdout
    assert "员工每年有十天病假。" in shown.stdout
    blocks = invoke(tmp_path, "--blocks", str(file)).stdout
    assert "\nheading 0-17 Leave & rest\n  # Leave & <b>rest\n" in blocks


def test_as_json(tmp_path: Path, file: Path) -> None:
    found: dict[str, Any] = json.loads(invoke(tmp_path, "--json", str(file)).stdout)
    assert found["text"] == TEXT
    spans = [found["text"][chunk["start"] : chunk["end"]] for chunk in found["chunks"]]
    assert all(chunk["sent"].endswith(span) for chunk, span in zip(found["chunks"], spans, strict=True))
    assert "".join("".join(spans).split()) == "".join(TEXT.split())


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.pre = ""
        self._in_pre = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._in_pre = self._in_pre or tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self._in_pre = self._in_pre and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._in_pre:
            self.pre += data


def test_the_page_holds_the_text_and_none_of_its_markup(tmp_path: Path, file: Path) -> None:
    page = tmp_path / "page.html"
    assert invoke(tmp_path, str(file), "--html", str(page)).exit_code == 0
    html = page.read_text()
    parsed = _Texts()
    parsed.feed(html)
    assert "b" not in parsed.tags
    assert "script" not in parsed.tags
    assert "Everyone gets twenty-five days." in parsed.pre
    assert "default-src 'none'" in html
    assert html.count("<section") == len(inspection.inspect(settings(tmp_path), file).chunks)
    refused = invoke(tmp_path, str(file), "--html", str(tmp_path / "nowhere" / "page.html"))
    assert refused.exit_code == 2


def test_neighbours_have_other_colours(tmp_path: Path, file: Path) -> None:
    html = inspection_page.render(inspection.inspect(settings(tmp_path), file))
    classes = [part.split('"')[1] for part in html.split("<section ")[1:]]
    assert all(a != b for a, b in pairwise(classes))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    damaged = tmp_path / "a.pdf"
    damaged.write_bytes(b"%PDF-1.4 nothing")
    shown = invoke(tmp_path, str(damaged))
    assert (shown.exit_code, shown.stdout) == (3, "")
    assert "a.pdf: damaged: " in shown.stderr
    missing = invoke(tmp_path, str(tmp_path / "nothing.md"))
    assert missing.exit_code == 1
    assert "nothing.md: No such file or directory." in missing.stderr
