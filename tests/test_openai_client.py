"""The official client of OpenAI's API against the service: what every program built on it gets.

The client is imported by the tests: it takes 1.6 s, and each process that runs tests imports all modules of tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipeline.serve import keys
from tests import served
from tests.fake_ollama.client import FakeOllama
from tests.served import Served

if TYPE_CHECKING:
    from openai import OpenAI

KEY = "key-of-the-test"
MODEL = "pipeline/default"
LEAVE = "How many days of annual leave does an employee get?"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("openai")
    served.build(served.settings(home / "data"), served.write(home / "docs"))
    with (
        FakeOllama(models=["llama3.2"]) as ollama,
        Served(served.settings(home / "data", ollama=ollama.url, keys=(keys.digest(KEY),))) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[OpenAI]:
    from openai import OpenAI

    with OpenAI(base_url=f"{service.url}/v1", api_key=KEY, max_retries=0, timeout=60) as one:
        yield one


def test_the_collections_are_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]


def test_an_answer_has_annotations_at_its_marks(client: OpenAI, service: Served) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": LEAVE}])
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason == "stop"
    assert message.content
    assert message.annotations
    citation = message.annotations[0].url_citation
    assert message.content[citation.start_index : citation.end_index] == "[1]"
    assert citation.title == "leave.md"
    headers = {"Authorization": f"Bearer {KEY}"}
    assert "twenty-five days" in service.client.get(citation.url, headers=headers).text


def test_a_streamed_answer_is_the_same(client: OpenAI) -> None:
    asked = [{"role": "user", "content": LEAVE}]
    whole = client.chat.completions.create(model=MODEL, messages=asked)  # type: ignore[call-overload]
    stream = client.chat.completions.create(model=MODEL, messages=asked, stream=True)  # type: ignore[call-overload]
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_embeddings_in_both_encodings(client: OpenAI) -> None:
    plain = client.embeddings.create(model=MODEL, input=["a roof", "a hut"], encoding_format="float")
    packed = client.embeddings.create(model=MODEL, input=["a roof", "a hut"])  # this client asks for base64
    vectors = np.array([one.embedding for one in plain.data])
    assert vectors.shape == (2, 384)
    assert np.allclose(vectors, [one.embedding for one in packed.data], atol=1e-6)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)


def test_errors_are_the_clients_own(client: OpenAI, service: Served) -> None:
    import openai

    with pytest.raises(openai.NotFoundError, match="nonesuch"):
        client.embeddings.create(model="pipeline/nonesuch", input="x")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": " "}])
    stranger = openai.OpenAI(base_url=f"{service.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
