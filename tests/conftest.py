"""What holds for all tests: a shell that runs them in the background makes them, and their children, ignore Ctrl-C.

And the fake Ollama that most tests with a server use: one process for the tests of a module, as new for each of them. A
module that wants other models has a `shared` of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.fake_ollama.client import FakeOllama

signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


@pytest.fixture
def server(shared: FakeOllama) -> FakeOllama:
    shared.reset()
    return shared
