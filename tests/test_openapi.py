"""/openapi.json against the server that publishes it: requests made from the document, by schemathesis. What the
document calls valid is answered, what it calls invalid is refused, and every answer is of the documented form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

from tests import served
from tests.served import Served

EXAMPLES = 10  # of each operation and kind
BOUNDED = settings(
    max_examples=EXAMPLES,
    database=None,
    derandomize=True,  # the same requests everywhere
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
Operation = Any  # schemathesis names its type in a private module


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("openapi")
    base = served.settings(home / "data")
    served.build(base, served.write(home / "docs"))
    with Served(base) as running:
        yield running.warm()


@pytest.fixture(scope="module")
def operations(service: Served) -> list[Operation]:
    schema = schemathesis.openapi.from_dict(service.client.get("/openapi.json").json())
    schema.config.update(base_url=service.url)
    return [found.ok() for found in schema.get_all_operations()]


def asked(operation: Operation, mode: GenerationMode, change: Callable[[Case], None]) -> Counter[int]:
    """How often each status came; the answers are validated by all checks of schemathesis."""
    seen: Counter[int] = Counter()
    session = requests.Session()
    session.trust_env = False  # a proxy of the machine is not asked

    @BOUNDED
    @given(operation.as_strategy(generation_mode=mode))
    def probe(case: Case) -> None:
        change(case)
        reply = case.call(session=session, timeout=30)
        seen[reply.status_code] += 1
        case.validate_response(reply)

    with session:
        probe()
    return seen


def at_home(case: Case) -> None:
    """What the document cannot know: which collections there are, and how long their vectors are."""
    if not isinstance(case.body, dict):
        return
    if "knowledge_id" in case.body:
        case.body["knowledge_id"] = "default"
    if "model" in case.body:
        case.body["model"] = "pipeline/default"
    case.body.pop("dimensions", None)


def untouched(case: Case) -> None:
    """As it was made."""


def test_every_interface_is_in_the_document(operations: list[Operation]) -> None:
    labels = {operation.label for operation in operations}
    interfaces = {"retrieval", "v1/models", "v1/chat/completions", "v1/embeddings", "v1/rerank", "metrics", "healthz"}
    assert interfaces <= {label.partition(" /")[2] for label in labels}


def test_what_the_document_calls_valid_is_answered(operations: list[Operation]) -> None:
    for operation in operations:
        seen = asked(operation, GenerationMode.POSITIVE, at_home)
        assert seen, operation.label
        assert not [status for status in seen if status >= 500 and status != 503], (operation.label, seen)
        if operation.body:  # else its path names a passage, and none of those made up is there
            assert seen[200] >= EXAMPLES // 2, (operation.label, seen)


def test_what_the_document_calls_invalid_is_refused(operations: list[Operation]) -> None:
    for operation in operations:
        if operation.body:
            seen = asked(operation, GenerationMode.NEGATIVE, untouched)
            assert set(seen) <= {400, 404, 422}, (operation.label, seen)
            assert sum(seen.values()) >= EXAMPLES, operation.label
