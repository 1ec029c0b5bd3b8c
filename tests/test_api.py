"""The package as a script uses it: on a real collection with the embedded model, answers by the fake Ollama."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pipeline
from pipeline import answer, errors, open_collection
from tests import served
from tests.fake_ollama.client import FakeOllama

ROOF = "When was the roof of the hut tarred?"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama(models=["llama3.2"]) as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, server: FakeOllama) -> Path:
    """A folder with documents, a collection of them, and settings that say where."""
    home = tmp_path_factory.mktemp("api")
    served.build(served.settings(home / "data"), served.write(home / "docs"))
    (home / "own.toml").write_text(
        f'data = "{home / "data"}"\n[embed]\nprovider = "builtin"\n[ollama]\nhosts = ["{server.url}"]\n'
    )
    return home


@pytest.fixture(scope="module")
def opened(home: Path) -> Iterator[pipeline.api.Collection]:
    with open_collection(config_file=home / "own.toml") as collection:
        yield collection


def test_a_search_finds_passages(opened: pipeline.api.Collection) -> None:
    hits = opened.search(ROOF, top_k=2)
    assert len(hits) == 2
    assert all(hit.path.startswith("minutes/") for hit in hits)
    assert 1 >= hits[0].score >= hits[1].score >= 0
    assert opened.search("tarred", mode="text", top_k=1)[0].vector_rank is None


def test_filters_are_those_of_the_command_line(opened: pipeline.api.Collection) -> None:
    assert {hit.path for hit in opened.search(ROOF, where=["path=minutes/2026-03-01.md"])} == {"minutes/2026-03-01.md"}
    assert opened.search(ROOF, where=["modified>2100-01-01"]) == []
    with pytest.raises(errors.UsageError):
        opened.search(ROOF, where=["colour=red"])


def test_an_answer_and_the_same_in_pieces(opened: pipeline.api.Collection) -> None:
    found = opened.ask("How many days of annual leave does an employee get?")
    assert (found.abstained, found.generated) == (False, True)
    assert found.citations
    assert found.sources[0].hit.path == "leave.md"
    *pieces, ending = opened.stream("How many days of annual leave does an employee get?")
    assert isinstance(ending, answer.Answer)
    assert "".join(piece for piece in pieces if isinstance(piece, str)) == ending.text == found.text
    assert opened.ask("Who won the football world championship of 1974?").abstained


def test_a_stream_may_be_left_in_the_middle(opened: pipeline.api.Collection) -> None:
    assert list(itertools.islice(opened.stream("How many days of annual leave does an employee get?"), 1))
    assert opened.search(ROOF)


def test_documents_come_with_their_text(opened: pipeline.api.Collection) -> None:
    documents = {document.path: document for document in opened.documents()}
    assert sorted(documents) == sorted(served.DOCUMENTS)
    assert documents["leave.md"].title == "Leave"
    hit = opened.search("annual leave", top_k=1)[0]
    assert documents[hit.path].text[hit.start : hit.end] == hit.text


def test_vectors_are_of_length_one(opened: pipeline.api.Collection) -> None:
    vectors = opened.embed(["a roof", "a hut"])
    assert vectors.shape == (2, 384)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    assert (opened.model, opened.name) == ("all-minilm-l6-v2", "default")


def test_threads_may_share_it(opened: pipeline.api.Collection) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(opened.search(ROOF)[0].path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_what_a_run_publishes_meanwhile_is_found(home: Path, tmp_path: Path) -> None:
    given = served.settings(tmp_path / "data")
    docs = served.write(tmp_path / "docs", {"a.md": "# A\n\nThe boat is blue.\n"})
    served.build(given, docs)
    with open_collection(data=tmp_path / "data") as collection:
        assert [hit.path for hit in collection.search("boat")] == ["a.md"]
        served.write(docs, {"b.md": "# B\n\nThe barge is green.\n"})
        served.build(given, docs)
        assert "b.md" in [hit.path for hit in collection.search("barge")]


def test_a_collection_that_is_not_there(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(errors.NoIndex):
        open_collection("nonesuch", data=tmp_path)
    assert threading.active_count() == before
    with pytest.raises(errors.ConfigError):
        open_collection("../x", data=tmp_path)


def test_closing_twice_does_no_harm(home: Path) -> None:
    collection = open_collection(data=home / "data")
    collection.close()
    collection.close()


def test_importing_the_package_costs_no_model() -> None:
    """The command line imports it at every start."""
    code = "import sys, pipeline; print(sorted({'lancedb', 'onnxruntime', 'pyarrow', 'msgspec'} & set(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
    with pytest.raises(AttributeError):
        pipeline.nonesuch  # noqa: B018
