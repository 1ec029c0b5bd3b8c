"""Model names and the table of facts about models."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import config, errors
from pipeline.models import EmbedderSpec, profiles

MXBAI_QUERY = "Represent this sentence for searching relevant passages: {text}"


@pytest.mark.parametrize(
    "name",
    [
        "mxbai-embed-large",
        "mxbai-embed-large:latest",
        "mxbai-embed-large:335m",
        "MXBAI-Embed-Large",
        "library/mxbai-embed-large",
        "registry.ollama.ai/library/mxbai-embed-large:latest",
        "someone/mxbai-embed-large:v1",
        " mxbai-embed-large ",
    ],
)
def test_every_way_to_write_a_model_finds_its_profile(name: str) -> None:
    profile = profiles.find(name)
    assert profile is not None
    assert (profile.dims, profile.max_tokens, profile.query) == (1024, 512, MXBAI_QUERY)
    assert profile.document == "{text}"
    assert profile.matryoshka == (512, 256, 128)
    assert profile.languages == ("en",)


@pytest.mark.parametrize(
    ("name", "dims", "max_tokens", "languages"),
    [
        ("bge-m3", 1024, 8192, ()),
        ("qwen3-embedding", 4096, 32768, ()),
        ("qwen3-embedding:8b", 4096, 32768, ()),
        ("qwen3-embedding:4b", 2560, 32768, ()),
        ("qwen3-embedding:0.6b", 1024, 32768, ()),
        ("nomic-embed-text-v2-moe", 768, 512, ()),
        ("nomic-embed-text:v1.5", 768, 2048, ("en",)),
        ("embeddinggemma", 768, 2048, ()),
        ("snowflake-arctic-embed2", 1024, 8192, ()),
        ("all-minilm", 384, 256, ("en",)),
        ("all-minilm-l6-v2", 384, 512, ("en",)),
    ],
)
def test_the_table(name: str, dims: int, max_tokens: int, languages: tuple[str, ...]) -> None:
    profile = profiles.find(name)
    assert profile is not None
    assert (profile.dims, profile.max_tokens, profile.languages) == (dims, max_tokens, languages)


def test_templates_of_the_table_are_the_models_own() -> None:
    table = profiles.table()
    assert table["qwen3-embedding:0.6b"].query == (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:{text}"
    )
    assert table["nomic-embed-text"].document == "search_document: {text}"
    assert table["snowflake-arctic-embed2"].query == "query: {text}"
    gemma = table["embeddinggemma"]
    spec = EmbedderSpec(
        provider="ollama",
        model="embeddinggemma",
        digest="",
        dims=768,
        limit=2046,
        tokenizer="",
        query_template=gemma.query,
        document_template=gemma.document,
    )
    assert spec.query("where?") == "task: search result | query: where?"
    assert spec.document("Here.", "A {text}") == "title: A {text} | text: Here."


def test_every_entry_of_the_table_is_complete_and_has_its_text() -> None:
    for name, profile in profiles.table().items():
        assert profile.dims > 0, name
        assert profile.max_tokens > profile.specials, name
        assert "{text}" in profile.query, name
        assert "{text}" in profile.document, name
        assert all(size < profile.dims for size in profile.matryoshka), name


def test_models_to_suggest_are_in_the_table_and_not_english_only() -> None:
    assert all(profiles.table()[name].languages != ("en",) for name in profiles.MULTILINGUAL)


@pytest.mark.parametrize("name", ["nonesuch", "mxbai-embed", "mxbai-embed-large-v2", "hf.co/x/y-GGUF:Q8_0", ""])
def test_an_unknown_model_has_no_profile(name: str) -> None:
    assert profiles.find(name) is None


def test_a_users_profile_changes_what_it_says_and_keeps_the_rest() -> None:
    own = {"mxbai-embed-large": config.ProfileSettings(max_tokens=256)}
    profile = profiles.find("mxbai-embed-large:latest", own)
    assert profile is not None
    assert (profile.max_tokens, profile.query) == (256, MXBAI_QUERY)


def test_a_users_profile_for_one_tag_leaves_the_others_alone() -> None:
    own = {"bge-m3:567m": config.ProfileSettings(query="q: {text}")}
    tagged, untagged = profiles.find("bge-m3:567m", own), profiles.find("bge-m3", own)
    assert tagged is not None
    assert untagged is not None
    assert (tagged.query, untagged.query) == ("q: {text}", "{text}")


def test_a_user_can_add_a_model() -> None:
    own = {"my-model": config.ProfileSettings(dims=32, max_tokens=128, query="ask {text}", languages=("de",))}
    profile = profiles.find("My-Model:v3", own)
    assert profile == profiles.Profile(dims=32, max_tokens=128, query="ask {text}", languages=("de",))


@pytest.mark.parametrize(
    "broken",
    [{"query": "no place"}, {"document": ""}, {"dims": -1}, {"max_tokens": -5}, {"matryoshka": (0,)}],
)
def test_a_broken_profile_of_the_user_is_refused(broken: dict[str, object]) -> None:
    own = {"mine": msgspec.structs.replace(config.ProfileSettings(), **broken)}
    with pytest.raises(errors.ConfigError, match=r"profiles\.mine"):
        profiles.find("mine", own)


@pytest.mark.parametrize(("wanted", "got"), [(0, 1024), (1024, 1024), (512, 512), (128, 128)])
def test_a_matryoshka_model_is_cut_where_it_was_trained_to_be(wanted: int, got: int) -> None:
    profile = profiles.table()["mxbai-embed-large"]
    assert profiles.cut_to("mxbai-embed-large", profile, 1024, wanted) == got


@pytest.mark.parametrize(("name", "wanted"), [("mxbai-embed-large", 300), ("mxbai-embed-large", 2048), ("bge-m3", 512)])
def test_any_other_cut_is_refused(name: str, wanted: int) -> None:
    with pytest.raises(errors.ConfigError, match=f"embed.dims = {wanted}") as caught:
        profiles.cut_to(name, profiles.table()[name], 1024, wanted)
    assert "embed.dims" in caught.value.remedy


@given(st.text("abcABC/:.-", max_size=20))
def test_canonical_names_stay_as_they_are(name: str) -> None:
    once = profiles.canonical(name)
    assert profiles.canonical(once) == once
    assert profiles.canonical(profiles.short(name)) == once or once.endswith(":latest:latest")
