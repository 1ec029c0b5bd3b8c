"""A server of collections for tests: real collections of a few small files, a real socket, requests by httpx.

`Served` runs it in a thread of this process; `tests/test_serve_command.py` starts it as a user does.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from pipeline import config, run
from pipeline.progress import Silent
from pipeline.serve import patience, server

MANUAL = Path(__file__).parent.parent / "sample_docs" / "handbook" / "rg-7-rain-gauge-manual.pdf"
DOCUMENTS = {
    "leave.md": "# Leave\n\n## Annual leave\n\nEvery employee gets twenty-five days of annual leave a year.\n",
    "safety.md": "# Safety\n\n## Snow\n\nBelow minus ten degrees nobody works alone on the ridge.\n",
    "minutes/2025-11-02.md": "# Meeting\n\nThe roof of the hut is to be tarred before the first snow falls.\n",
    "minutes/2026-03-01.md": "# Meeting\n\nThe secretary reported that the roof of the hut has been tarred.\n",
    "plain.txt": "The snow gauge on the roof is read at nine o'clock by the keeper of the hut.\n",
}


def write(folder: Path, documents: Mapping[str, str] = DOCUMENTS) -> Path:
    for name, text in documents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def settings(data: Path, *, ollama: str = "http://127.0.0.1:9", **serve: Any) -> config.Settings:
    """The embedded model, answers by `ollama` where one is given; any free port."""
    return config.Settings(
        data=str(data),
        embed=config.EmbedSettings(provider="builtin", flush_s=0.2),
        ollama=config.OllamaSettings(hosts=(ollama,)),
        readers=config.ReaderSettings(workers=1),
        serve=config.ServeSettings(port=0, **serve),
    )


def build(
    base: config.Settings, docs: Path, collection: str = "default", provider: config.Provider = "builtin"
) -> None:
    embed = msgspec.structs.replace(base.embed, provider=provider)
    chosen = msgspec.structs.replace(base, collection=collection, embed=embed)
    run.execute(chosen, run.Request(stages=frozenset(run.STAGES), folders=(docs,)), Silent())


def with_wiki(home: Path) -> Path:
    """A data folder with the collections "default", of DOCUMENTS, and "wiki"."""
    given = settings(home / "data")
    build(given, write(home / "docs"))
    build(given, write(home / "wiki", {"roof.md": "# Roof\n\nThe roof is tarred every spring.\n"}), "wiki")
    return home / "data"


class Served:
    """A running server and a client of it."""

    def __init__(
        self, given: config.Settings, protocol: type[patience.ImpatientProtocol] = patience.ImpatientProtocol
    ) -> None:
        self._socket = server.listen(given)
        self._server = server.create(given, self._socket, protocol)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self.url = server.url_of(self._socket)
        self.client = httpx.Client(base_url=self.url, timeout=30.0, trust_env=False)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def retrieve(self, query: str, knowledge: str = "default", **more: Any) -> httpx.Response:
        """As Dify asks; `more`: top_k, score_threshold, condition."""
        setting = {"top_k": more.get("top_k", 4), "score_threshold": more.get("score_threshold", 0.0)}
        asked: dict[str, Any] = {"retrieval_setting": setting, "query": query, "knowledge_id": knowledge}
        if "condition" in more:
            asked["metadata_condition"] = more["condition"]
        return self.client.post("/retrieval", json=asked, headers=more.get("headers"))

    def warm(self, **more: Any) -> Self:
        """The same, once it has answered: on a busy machine the first question may take longer than Dify waits."""
        while self.retrieve("warm-up", **more).status_code == 503:
            pass
        return self

    def paths(self, query: str, **more: Any) -> list[str]:
        """Of the documents found, in order."""
        reply = self.retrieve(query, **more)
        assert reply.status_code == 200, reply.text
        return [record["metadata"]["path"] for record in reply.json()["records"]]
