"""Collections and a fake Ollama for all browser tests of a process, a browser and a server for those of a module, and a
watched context of its own for each test.

Where there is no Chromium every test is skipped and says why; nothing is built then.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline import config
from tests import hostile_passages, served
from tests.browser import chromium
from tests.browser.watched import Watched, watching
from tests.fake_ollama.client import FakeOllama
from tests.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HANDBOOK = {
    **served.DOCUMENTS,
    "制度/年假.md": "# 年假制度\n\n## 天数\n\n员工每年有二十五天带薪年假。\n\n## 结转\n\n未使用的年假于三月底失效。\n",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Documents, the data folder with collections "default" and "hostile", and the model server they are asked with."""

    docs: Path
    data: Path
    ollama: FakeOllama

    @property
    def settings(self) -> config.Settings:
        return served.settings(self.data, ollama=self.ollama.url)


@pytest.fixture(scope="session")
def found_program() -> Path:
    """The browser to use; the reason for a skip where there is none."""
    try:
        return chromium.find()
    except chromium.NoBrowser as none:
        pytest.skip(str(none))


@pytest.fixture(scope="session")
def ollama(found_program: Path) -> Iterator[FakeOllama]:
    with FakeOllama(models=["mxbai-embed-large", "llama3.2"]) as running:
        yield running


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory, ollama: FakeOllama) -> World:
    home = tmp_path_factory.mktemp("page")
    docs = served.write(home / "docs", HANDBOOK)
    shutil.copy(served.MANUAL, docs / "manual.pdf")
    hostile = {f"{name}.md": hostile_passages.document(name) for name in hostile_passages.ATTACKS}
    found = World(docs=docs, data=home / "data", ollama=ollama)
    served.build(found.settings, docs)
    served.build(found.settings, served.write(home / "hostile", hostile), "hostile")
    return found


@pytest.fixture(scope="module")
def service(world: World) -> Iterator[Served]:
    with Served(world.settings) as running:
        yield running


@pytest.fixture(scope="module")
def browser(service: Served) -> Iterator[Browser]:
    """Started after all that is built: while it is open, this thread has an event loop that runs."""
    try:
        with chromium.started() as running:
            yield running
    except chromium.NoBrowser as none:
        pytest.skip(str(none))


@pytest.fixture
def watched(browser: Browser, service: Served, world: World) -> Iterator[Watched]:
    """A fresh context over `service`, English and light; what went wrong in it fails the test at its end."""
    world.ollama.reset()
    world.ollama.configure(says=[])
    with watching(browser, service.url) as found:
        yield found
