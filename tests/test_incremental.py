"""What a change costs, by the benchmark's own means on a small folder; and that the benchmark sees what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import incremental
from benchmarks.incremental import EDITED, GONE, Look, Step
from tests.fake_ollama.client import FakeOllama


def step(name: str) -> Step:
    (found,) = (one for one in incremental.SERIES if one.name.startswith(name))
    return found


def edit_and_delete(folder: Path) -> dict[str, str]:
    return {**incremental.edit_end(folder), **incremental.delete(folder)}


def test_texts_sent_are_those_that_are_due(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an edit and a deletion shards hold documents that no file has any more: another chunk size cuts them too,
    but they are not embedded. The whole series: python -m benchmarks.incremental.
    """
    monkeypatch.setenv("PIPELINE_READERS_WORKERS", "1")  # a second takes longer to start than it saves
    (tmp_path / "docs").mkdir()
    incremental.generate(tmp_path / "docs", files=14, paragraphs=8)
    steps = (Step(name="edited and deleted", change=edit_and_delete, most=2), step("chunk size"))
    with FakeOllama(vectors="hash") as server:
        good = incremental.series(tmp_path / "docs", tmp_path / "data", server, steps)
    assert good, capsys.readouterr().out


def row(uri: str, text: str, chunk: str = "c") -> dict[str, object]:
    return {"uri": uri, "text": text, "chunk_id": chunk, "start": 0, "end": 1, "page": None, "heading": "", "title": ""}


@pytest.mark.parametrize(
    ("after", "changed", "wrong"),
    [
        ([row("a", "1"), row("b", "2")], {}, []),
        ([row("a", "1")], {}, ["b"]),
        ([row("a", "1")], {"b": GONE}, []),
        ([row("a", "1"), row("b", "2")], {"b": GONE}, ["b"]),
        ([row("a", "2"), row("b", "1")], {"a": "b", "b": "a"}, []),
        ([row("a", "1"), row("c", "2")], {"c": "b", "b": GONE}, []),
        ([row("a", "1"), row("c", "1")], {"c": "b", "b": GONE}, ["c"]),
        ([row("a", "new"), row("b", "2")], {"a": EDITED}, []),
        ([row("a", "1"), row("b", "2")], {"a": EDITED}, ["a"]),
        ([row("a", "1"), row("a", "1"), row("b", "2")], {}, ["a"]),
    ],
)
def test_rows_are_judged_by_what_the_step_did(
    after: list[dict[str, object]], changed: dict[str, str], wrong: list[str]
) -> None:
    before = {"rows": [row("a", "1"), row("b", "2")]}
    assert incremental.wrong_rows(before, {"rows": after}, changed) == wrong


def test_looks_are_the_old_table_and_then_the_new_one() -> None:
    old, new = {"rows": [row("a", "1")], "model": "one"}, {"rows": [row("a", "1")], "model": "two"}
    digest = incremental.common.digest(old["rows"])
    one, two = Look(at=0, digest=digest, model="one"), Look(at=0, digest=digest, model="two")
    assert incremental.wrong_looks([one, one, two], old, new) == []
    assert incremental.wrong_looks([one, two, one], old, new) == ["not the old table and then the new one"]
    assert incremental.wrong_looks([one], old, new) == ["not the old table and then the new one"]
    other = Look(at=0, digest="0", model="one")
    assert incremental.wrong_looks([one, other, two], old, new) == ["1 looks saw another table"]
    assert incremental.wrong_looks([one, Look(at=0, error="no"), two], old, new) == ["no"]


def test_two_collections_are_compared_to_the_last_bit() -> None:
    one = {"documents": ["d"], "chunks": [], "rows": [], "row_count": 0, "keys": ["k"], "vectors": np.ones((1, 2))}
    assert incremental.differences(one, dict(one)) == []
    assert incremental.differences(one, one | {"vectors": np.ones((1, 2)) + 1e-15}) == ["vectors"]
    assert incremental.differences(one, one | {"rows": [1], "row_count": 1}) == ["rows", "row_count"]


def test_the_large_file_is_one_of_200_kb(tmp_path: Path) -> None:
    incremental.generate_large(tmp_path)
    assert 200_000 <= (tmp_path / incremental.LARGE).stat().st_size < 210_000
    before = (tmp_path / incremental.LARGE).read_text()
    assert incremental.edit_middle(tmp_path) == {incremental.LARGE: EDITED}
    after = (tmp_path / incremental.LARGE).read_text()
    assert len(after) == len(before) + len(" quite")
