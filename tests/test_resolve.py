"""Who embeds and who answers: what `auto` chooses, what a collection keeps, and what each refusal says to type."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from pipeline import config, errors
from pipeline.models import EmbedderSpec, builtin, ollama, resolve, tokens, vocabulary
from pipeline.models.resolve import Choice
from tests.fake_ollama import tokens as fake_tokens
from tests.fake_ollama.client import FakeOllama

VERSIONS = ("0.3.12", "0.9.0", "0.13.3", "0.32.15")
TODAY = VERSIONS[-1]
T = TypeVar("T")


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOllama]:
    with FakeOllama(
        vectors="hash", models=["mxbai-embed-large", "llama3.2", "bge-m3", "oddity", "gpt-oss:cloud"]
    ) as one:
        yield one


@pytest.fixture
def fake(shared: FakeOllama) -> FakeOllama:
    shared.reset()
    shared.configure(version=TODAY)
    return shared


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address at which nothing listens, and nothing can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def settings(*hosts: str, generate: str = "auto", **embed: Any) -> config.Settings:
    return config.Settings(
        embed=config.EmbedSettings(**embed),
        ollama=config.OllamaSettings(hosts=hosts),
        generate=config.GenerateSettings(provider=generate),  # type: ignore[arg-type]
    )


def opened(
    given: config.Settings,
    recorded: EmbedderSpec | None = None,
    work: Callable[[Choice], Awaitable[T]] | None = None,
    **options: Any,
) -> Choice:
    """The choice, its embedder closed again."""

    async def main() -> Choice:
        choice = await resolve.open_embedder(given, recorded, **options)
        async with contextlib.aclosing(choice.embedder):
            if work is not None:
                await work(choice)
        return choice

    return asyncio.run(main())


def spec_of(given: config.Settings) -> EmbedderSpec:
    return opened(given).embedder.spec


# --- a new collection


@pytest.mark.parametrize("version", VERSIONS)
def test_auto_takes_ollama_where_it_has_the_model(fake: FakeOllama, version: str) -> None:
    fake.configure(version=version)
    choice = opened(settings(fake.url))
    spec = choice.embedder.spec
    assert (spec.provider, spec.model, spec.dims, spec.native_dims, spec.limit) == (
        "ollama",
        "mxbai-embed-large",
        1024,
        0,
        510,
    )
    assert spec.digest == "468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8"
    assert spec.query("x") == "Represent this sentence for searching relevant passages: x"
    assert spec.document("x") == "x"
    assert spec.tokenizer == tokens.builtin().identity
    assert choice.tokenizer is None
    assert "mxbai-embed-large by Ollama" in choice.note
    assert "\n" not in choice.note


def test_auto_takes_the_embedded_model_where_ollama_is_not(nowhere: str) -> None:
    choice = opened(settings(nowhere))
    assert choice.embedder.spec == builtin.spec(tokens.builtin().identity)
    assert nowhere in choice.note
    assert "start Ollama" in choice.note
    assert "ollama pull mxbai-embed-large" in choice.note
    assert "pipeline --collection NAME --provider ollama run DOCS" in choice.note
    assert "\n" not in choice.note


def test_auto_takes_the_embedded_model_where_ollama_lacks_the_model() -> None:
    with FakeOllama(models=["llama3.2"]) as empty:
        choice = opened(settings(empty.url))
    assert choice.embedder.spec.provider == "builtin"
    assert "does not have the model mxbai-embed-large" in choice.note
    assert "start Ollama" not in choice.note


def test_auto_takes_the_embedded_model_where_something_else_answers() -> None:
    with FakeOllama(models=[], version="0.3.4") as old:
        choice = opened(settings(old.url))
    assert choice.embedder.spec.provider == "builtin"
    assert "0.3.4" in choice.note


def test_auto_with_a_model_that_was_named_never_takes_another(fake: FakeOllama, nowhere: str) -> None:
    assert spec_of(settings(fake.url, model="bge-m3")).model == "bge-m3"
    with pytest.raises(errors.ServerUnreachable):
        opened(settings(nowhere, model="bge-m3"))
    assert spec_of(settings(nowhere, model="all-minilm-l6-v2")).provider == "builtin"


@pytest.mark.parametrize("provider", ["ollama", "auto"])
def test_a_missing_model_is_pulled_on_request(provider: str) -> None:
    steps: list[resolve.PullStep] = []
    with FakeOllama(models=[]) as empty:
        choice = opened(settings(empty.url, provider=provider), pull=steps.append)
        assert choice.embedder.spec.provider == "ollama"
    assert {step.model for step in steps} == {"mxbai-embed-large"}
    assert steps[-1].status == "success"
    assert steps[-1].completed == steps[-1].total > 0


def test_a_provider_that_was_named_is_never_replaced(nowhere: str) -> None:
    with pytest.raises(errors.ServerUnreachable, match=nowhere) as caught:
        opened(settings(nowhere, provider="ollama"))
    assert caught.value.exit_code == 5
    with FakeOllama(models=[]) as empty, pytest.raises(errors.ModelMissing) as missing:
        opened(settings(empty.url, provider="ollama"))
    assert missing.value.exit_code == 6
    assert "ollama pull mxbai-embed-large" in missing.value.remedy


def test_the_embedded_model_asks_no_server(fake: FakeOllama) -> None:
    choice = opened(settings(fake.url, provider="builtin"))
    assert (choice.embedder.spec.provider, choice.note) == ("builtin", "")
    assert fake.requests() == []


@pytest.mark.parametrize(("model", "dims"), [("mxbai-embed-large", 0), ("", 128)])
def test_the_embedded_model_is_one_and_is_not_cut(model: str, dims: int) -> None:
    with pytest.raises(errors.ConfigError):
        opened(settings(provider="builtin", model=model, dims=dims))


def test_a_matryoshka_cut(fake: FakeOllama) -> None:
    spec = spec_of(settings(fake.url, dims=512))
    assert (spec.dims, spec.native_dims) == (512, 1024)
    with pytest.raises(errors.ConfigError, match=r"embed\.dims = 100"):
        opened(settings(fake.url, provider="ollama", dims=100))


def test_a_model_without_a_profile_is_described_by_its_server(fake: FakeOllama) -> None:
    choice = opened(settings(fake.url, model="oddity"))
    spec = choice.embedder.spec
    assert (spec.dims, spec.limit, spec.query_template) == (768, 2046, "{text}")
    assert "No query and document templates are known for oddity" in choice.note


def test_a_users_profile_describes_a_model(fake: FakeOllama) -> None:
    own = {
        "oddity": config.ProfileSettings(
            max_tokens=100, query="ask: {text}", document="tell: {text}", languages=("de",)
        )
    }
    choice = opened(config.Settings(profiles=own, **_sections(settings(fake.url, model="oddity"))))
    spec = choice.embedder.spec
    assert (spec.limit, spec.query("x"), spec.document("x"), spec.languages) == (98, "ask: x", "tell: x", ("de",))
    assert choice.note == ""


def _sections(given: config.Settings) -> dict[str, Any]:
    return {"embed": given.embed, "ollama": given.ollama, "generate": given.generate}


def test_a_large_window_is_not_asked_for(fake: FakeOllama) -> None:
    """bge-m3 takes 8192 tokens; Ollama gives 2048 unasked, and asking would load it anew between two endpoints."""
    assert spec_of(settings(fake.url, model="bge-m3")).limit == 2046


def test_a_vocabulary_that_is_not_shown_is_counted_by_a_bound(fake: FakeOllama) -> None:
    choice = opened(settings(fake.url, model="bge-m3"))
    assert choice.embedder.spec.tokenizer == tokens.conservative().identity
    assert choice.tokenizer is None


def test_a_model_that_runs_elsewhere_is_refused(fake: FakeOllama) -> None:
    with pytest.raises(errors.ServerRefused, match=r"ollama\.com"):
        opened(settings(fake.url, model="gpt-oss:cloud"))


def test_a_model_that_does_not_embed_is_told(fake: FakeOllama) -> None:
    assert "does not list llama3.2 as an embedding model" in opened(settings(fake.url, model="llama3.2")).note


def test_a_server_that_is_too_old_is_refused(fake: FakeOllama) -> None:
    fake.configure(version="0.3.6")
    with pytest.raises(errors.ServerRefused, match=r"0\.3\.6"):
        opened(settings(fake.url, provider="ollama"))


# --- several servers


def test_servers_that_do_not_answer_are_left_out(fake: FakeOllama, nowhere: str) -> None:
    async def work(choice: Choice) -> None:
        reply = await choice.embedder.embed(["the harbour gate"], tokens=0)
        assert reply.server == fake.url

    choice = opened(settings(nowhere, fake.url), work=work)
    assert isinstance(choice.embedder, ollama.OllamaEmbedder)
    assert [server.url for server in choice.embedder.servers] == [fake.url, nowhere]
    assert f"Ollama at {nowhere} does not answer" in choice.note


def test_servers_with_different_weights_are_refused(fake: FakeOllama) -> None:
    with FakeOllama(models=["mxbai-embed-large=abc"]) as other:
        for provider in ("auto", "ollama"):
            with pytest.raises(errors.ModelMismatch, match="not the same model") as caught:
                opened(settings(fake.url, other.url, provider=provider))
    assert caught.value.exit_code == 12


# --- a collection that exists


def test_a_collection_keeps_its_embedder(fake: FakeOllama) -> None:
    given = settings(fake.url)
    spec = spec_of(given)
    for same in (given, settings(fake.url, provider="ollama"), settings(fake.url, model="mxbai-embed-large:latest")):
        choice = opened(same, spec)
        assert choice.embedder.spec == spec
        assert choice.note == ""


def test_a_collection_of_the_embedded_model_asks_no_server(fake: FakeOllama) -> None:
    spec = builtin.spec("t")
    assert opened(settings(fake.url), spec).embedder.spec == spec
    assert fake.counters()["requests"] == 0


def test_a_server_that_is_down_is_no_reason_for_another_model(fake: FakeOllama, nowhere: str) -> None:
    spec = spec_of(settings(fake.url))
    with pytest.raises(errors.ServerUnreachable) as caught:
        opened(settings(nowhere), spec)
    assert caught.value.exit_code == 5


def test_a_model_that_is_gone(fake: FakeOllama) -> None:
    spec = spec_of(settings(fake.url))
    with FakeOllama(models=[]) as empty, pytest.raises(errors.ModelMissing) as caught:
        opened(settings(empty.url), spec)
    assert caught.value.exit_code == 6


def test_a_model_that_was_replaced_under_its_name(fake: FakeOllama) -> None:
    spec = spec_of(settings(fake.url))
    fake.set_fault("digest_change")
    with pytest.raises(errors.ModelMismatch, match="digest") as caught:
        opened(settings(fake.url), spec)
    assert caught.value.exit_code == 12
    assert "pipeline migrate --provider ollama --model mxbai-embed-large" in caught.value.remedy


def test_another_version_of_the_embedded_model() -> None:
    with pytest.raises(errors.ModelMismatch, match="this version of the program"):
        opened(settings(), replace(builtin.spec("t"), digest="0" * 64))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"provider": "builtin"}, "provider ollama; builtin"),
        ({"provider": "openai"}, "provider ollama; openai"),
        ({"model": "bge-m3"}, "model mxbai-embed-large; bge-m3"),
        ({"dims": 512}, "embed.dims 1024; 512"),
    ],
)
def test_settings_that_ask_for_another_model_are_refused(fake: FakeOllama, asked: dict[str, Any], said: str) -> None:
    spec = spec_of(settings(fake.url))
    with pytest.raises(errors.ModelMismatch, match=said) as caught:
        opened(settings(fake.url, **asked), spec)
    assert caught.value.exit_code == 12
    assert "pipeline --collection default-new" in caught.value.remedy


def test_the_query_template_may_change_and_the_document_template_may_not(fake: FakeOllama) -> None:
    spec = spec_of(settings(fake.url))
    own = {"mxbai-embed-large": config.ProfileSettings(query="q: {text}", document="d: {text}")}
    changed = opened(config.Settings(profiles=own, **_sections(settings(fake.url))), spec).embedder.spec
    assert changed.query("x") == "q: x"
    assert changed.document("x") == "x"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_reopened_embedder_reconciles_counts(fake: FakeOllama, version: str) -> None:
    fake.configure(version=version)
    spec = spec_of(settings(fake.url))
    n = tokens.builtin().count(["the harbour gate"])[0]

    async def work(choice: Choice) -> None:
        assert (await choice.embedder.embed(["the harbour gate"], tokens=n)).vectors.shape == (1, 1024)
        await asyncio.to_thread(fake.set_fault, "wrong_count")
        for kind in (errors.TransientFault, errors.ModelMismatch):  # one wrong count may be one answer's
            with pytest.raises(kind):
                await choice.embedder.embed(["the harbour gate"], tokens=n)

    opened(settings(fake.url), spec, work)


def test_unknown_characters_may_share_a_vector(fake: FakeOllama) -> None:
    """Two ideographs that the vocabulary lacks are the same [UNK], so the same vector is right; "gate" and "door" are
    not."""
    fake.set_fault("duplicate")
    spec = spec_of(settings(fake.url))

    async def work(choice: Choice) -> None:
        await choice.embedder.embed(["龘", "靐"], tokens=0)
        with pytest.raises(errors.BadVectors, match="same vector"):
            await choice.embedder.embed(["gate", "door"], tokens=0)

    opened(settings(fake.url), spec, work)


# --- tokenizers


def test_another_wordpiece_vocabulary_is_rebuilt() -> None:
    shown = [*fake_tokens.gguf_vocabulary(), "\u2581zzyzx"]
    text = vocabulary.tokenizer_json({"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": shown})
    assert text is not None
    rebuilt, packaged = tokens.from_json(text), tokens.builtin()
    assert rebuilt.identity != packaged.identity
    assert rebuilt.count(["ZZYZX harbour"]) == [2]
    for sample in ("The harbour gate opens.", "Überraschung, naïve café", "港口 unaffable"):
        assert rebuilt.count([sample]) == packaged.count([sample])


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": None},
        {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a"]},
        {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["\u2581a"]},
        {"tokenizer.ggml.model": "bert", "tokenizer.ggml.tokens": ["[UNK]", "\u2581a", "\u2581a"]},
    ],
)
def test_what_is_no_wordpiece_vocabulary_is_not_taken_for_one(info: dict[str, Any]) -> None:
    assert vocabulary.tokenizer_json(info) is None


# --- answers


def generator_of(given: config.Settings) -> Any:
    async def main() -> Any:
        found = await resolve.open_generator(given)
        if found is not None:
            await found.aclose()
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("version", VERSIONS)
def test_ollama_answers_where_it_has_the_model(fake: FakeOllama, version: str, nowhere: str) -> None:
    fake.configure(version=version)
    found = generator_of(settings(nowhere, fake.url))
    assert (found.model, found.context_tokens, found.server.url) == ("llama3.2", 8192, fake.url)


def test_nobody_answers_where_nobody_can(nowhere: str) -> None:
    assert generator_of(settings(nowhere)) is None
    with FakeOllama(models=["mxbai-embed-large"]) as without:
        assert generator_of(settings(without.url)) is None
    assert generator_of(settings(nowhere, generate="none")) is None


def test_a_generator_that_was_named_is_missed(nowhere: str) -> None:
    with pytest.raises(errors.ServerUnreachable):
        generator_of(settings(nowhere, generate="ollama"))
    with FakeOllama(models=["mxbai-embed-large"]) as without, pytest.raises(errors.ModelMissing) as caught:
        generator_of(settings(nowhere, without.url, generate="ollama"))
    assert "ollama pull llama3.2" in caught.value.remedy


# --- languages


@pytest.mark.parametrize(
    ("texts", "warned"),
    [
        (["港口大门七点开门。", "引水员在八点登船。", "One line of English."], True),
        (["ハーバーゲートは七時に開く。"], True),
        (["The harbour gate opens at seven.", "港口"], False),
        (["1234 !!"], False),
        ([], False),
        (["Über die Öffnung des Tores"], False),
    ],
)
def test_an_english_model_for_chinese_documents_is_told(texts: list[str], warned: bool) -> None:
    spec = builtin.spec("t")
    warning = resolve.language_warning(spec, texts)
    assert bool(warning) is warned
    if warned:
        assert "bge-m3" in warning
        assert "qwen3-embedding" in warning
        assert "--provider ollama --model bge-m3" in warning
    assert resolve.language_warning(replace(spec, languages=()), texts) == ""
