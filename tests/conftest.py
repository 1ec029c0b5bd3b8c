"""What holds for all tests: a shell that runs them in the background makes them, and their children, ignore Ctrl-C.

And the fake Ollama that most tests with a server use: one process for the tests of a module, as new for each of them. A
module that wants other models has a `shared` of its own.

And the workers of runs in this process, which serve one run after another.

And hypothesis without its time limit for an input: 200 ms pass on a busy machine without any work being done.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from pipeline import pools
from tests.fake_ollama.client import FakeOllama

signal.signal(signal.SIGINT, signal.default_int_handler)
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")


# Files that take 5 s and more, the longest first (then the others, by name), so that several processes end together.
# pytest-xdist's own order is by the number of tests: it begins last what has one test of half a minute.
LONGEST_FIRST = (
    "browser/",
    "readers/test_hostile.py",
    "test_crash.py",
    "readers/test_doc.py",
    "test_lance.py",
    "test_sample_docs.py",
    "test_run.py",
    "test_promotion.py",
    "test_contextual.py",
    "test_gc.py",
    "test_ollama_servers.py",
    "readers/test_readers_hostile.py",
    "test_serve_command.py",
    "test_incremental.py",
    "test_generations.py",
    "test_serve.py",
    "test_publish.py",
    "test_disk_full.py",
    "test_guards.py",
    "test_reranked_search.py",
    "test_retrievers.py",
    "test_containers_run.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent

    def turn(item: pytest.Item) -> int:
        name = item.path.relative_to(here).as_posix()
        return next((n for n, first in enumerate(LONGEST_FIRST) if name.startswith(first)), len(LONGEST_FIRST))

    items.sort(key=turn)


@pytest.fixture(scope="session", autouse=True)
def kept_pools() -> Iterator[None]:
    with pools.kept():
        yield


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


@pytest.fixture
def server(shared: FakeOllama) -> FakeOllama:
    shared.reset()
    return shared
