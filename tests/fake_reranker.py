"""A reranking server for tests behind a real socket, in the shapes and with the faults that real ones have.

Scores are countable: the words that question and passage share, in tenths. What each shape answers is as the servers'
sources say: llama.cpp `format_response_rerank`, TEI `router/src/http/server.rs`, vLLM `pooling/score/protocol.py`.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Entries = list[dict[str, Any]]
Reply = tuple[int, Any]  # status, JSON; bytes are sent as they are


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came."""

    path: str
    body: dict[str, Any]
    key: str

    @property
    def texts(self) -> Sequence[str]:
        return self.body.get("documents") or self.body.get("texts") or []


def words(text: str) -> set[str]:
    return set(text.lower().replace(".", " ").replace("?", " ").split())


def scores(asked: Asked) -> list[float]:
    question = words(asked.body["query"])
    return [len(question & words(text)) / 10 for text in asked.texts]


def entries(asked: Asked, name: str = "relevance_score") -> Entries:
    """Best first, as most servers send them."""
    found = [{"index": index, name: score} for index, score in enumerate(scores(asked))]
    return sorted(found, key=lambda entry: -entry[name])


def jina(asked: Asked) -> Reply:
    """llama.cpp, vLLM, Jina, Cohere: /v1/rerank (and more)."""
    if not asked.path.endswith("rerank"):
        return 404, {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}
    if "documents" not in asked.body:
        return 422, {"detail": [{"type": "missing", "loc": ["body", "documents"], "msg": "Field required"}]}
    return 200, {"object": "list", "model": asked.body.get("model", "m"), "results": entries(asked)}


def infinity(asked: Asked) -> Reply:
    """The same at /rerank alone."""
    return jina(asked) if asked.path == "/rerank" else (404, {"detail": "Not Found"})


def tei(asked: Asked) -> Reply:
    """Text Embeddings Inference: another path and another shape."""
    if asked.path != "/rerank":
        return 404, b""
    if "texts" not in asked.body:
        said = "Failed to deserialize the JSON body into the target type: missing field `texts` at line 1 column 80"
        return 422, said.encode()
    if len(asked.texts) > 32:
        return 422, {"error": f"batch size {len(asked.texts)} > maximum allowed batch size 32", "error_type": "x"}
    return 200, entries(asked, "score")


class FakeReranker:
    """Answers by `behaviour`; replies in `queue` go first. `asked`: every request, in order."""

    def __init__(self, behaviour: Callable[[Asked], Reply] = jina, queue: Sequence[Reply] = ()) -> None:
        self.behaviour = behaviour
        self.queue = list(queue)
        self.asked: list[Asked] = []
        self.release = threading.Event()  # set when the test is over: a handler that hangs waits for it
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                one = Asked(path=self.path, body=body, key=self.headers.get("Authorization", ""))
                fake.asked.append(one)
                status, reply = fake.queue.pop(0) if fake.queue else fake.behaviour(one)
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                with contextlib.suppress(ConnectionError):  # the client may have given up
                    self.end_headers()
                    self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def hang(self, _: Asked) -> Reply:
        """A behaviour: says nothing until the test is over."""
        self.release.wait(60)
        return 503, b""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
