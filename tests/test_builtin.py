"""The embedded model: real weights, real tokenizer, and the promise that a vector depends on its text alone."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors
from pipeline.models import builtin, vectors

TEXTS = [
    "The harbour gate opens at seven.",
    "At what time can ships enter the port?",
    "Recipe for plum dumplings: boil the potatoes.",
    "oslo",
    " ".join(["A longer passage about tides, pilots and the harbour master."] * 20),
    "港口七点开门。",
    "x" * 300,
]


@pytest.fixture(scope="module")
def embedder() -> builtin.BuiltinEmbedder:
    return builtin.BuiltinEmbedder(builtin.spec("t"))


@pytest.fixture(scope="module")
def alone(embedder: builtin.BuiltinEmbedder) -> np.ndarray:
    """Each of TEXTS embedded by itself."""
    return np.concatenate([embedder.embed_sync([text]) for text in TEXTS])


def test_the_spec_says_who_embeds() -> None:
    spec = builtin.spec("tokenizer identity")
    assert (spec.provider, spec.model, spec.dims, spec.limit) == ("builtin", "all-minilm-l6-v2", 384, 510)
    assert spec.digest == "59f2f16cc342bb03b7abb06030c3da6e27502aee6e505f3eb78cbdf35e657bff"
    assert spec.tokenizer == "tokenizer identity"
    assert spec.languages == ("en",)


def test_vectors_are_of_unit_length_and_near_where_the_meaning_is(alone: np.ndarray) -> None:
    assert alone.shape == (len(TEXTS), 384)
    assert alone.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    harbour, port, dumplings = alone[:3]
    assert harbour @ port > harbour @ dumplings + 0.3


def test_a_vector_does_not_depend_on_its_neighbours_or_their_order(
    embedder: builtin.BuiltinEmbedder, alone: np.ndarray
) -> None:
    """To the last bit. In a padded batch int8 dynamic quantisation moves a vector to a cosine of 0.98."""
    assert np.array_equal(embedder.embed_sync(TEXTS), alone)
    assert np.array_equal(embedder.embed_sync(TEXTS[::-1])[::-1], alone)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_vector_does_not_depend_on_the_number_of_threads(threads: int, alone: np.ndarray) -> None:
    other = builtin.BuiltinEmbedder(builtin.spec("t"), threads=threads)
    assert np.array_equal(other.embed_sync(TEXTS), alone)
    asyncio.run(other.aclose())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=40), min_size=1, max_size=6))
def test_any_text_gets_the_same_vector_in_company(texts: list[str]) -> None:
    embedder = SHARED
    together = embedder.embed_sync(texts)
    assert np.array_equal(together, np.concatenate([embedder.embed_sync([text]) for text in texts]))


SHARED = builtin.BuiltinEmbedder(builtin.spec("t"), threads=2)


def test_embed_and_embed_sync_agree(embedder: builtin.BuiltinEmbedder, alone: np.ndarray) -> None:
    reply = asyncio.run(embedder.embed(TEXTS, tokens=0))
    assert np.array_equal(reply.vectors, alone)
    assert reply.server == "builtin"
    assert reply.prompt_tokens == sum(len(ids) - 2 for ids in embedder.token_ids(TEXTS))


def test_two_batches_at_once_load_one_model_and_agree(alone: np.ndarray) -> None:
    fresh = builtin.BuiltinEmbedder(builtin.spec("t"))

    async def both() -> list[np.ndarray]:
        replies = await asyncio.gather(*(fresh.embed(TEXTS, tokens=0) for _ in range(3)))
        await fresh.aclose()
        return [reply.vectors for reply in replies]

    assert all(np.array_equal(found, alone) for found in asyncio.run(both()))


def test_threads_may_share_one_embedder(embedder: builtin.BuiltinEmbedder, alone: np.ndarray) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: embedder.embed_sync([text])[0], TEXTS))
    assert np.array_equal(np.stack(found), alone)


def test_it_works_again_after_it_was_closed(alone: np.ndarray) -> None:
    fresh = builtin.BuiltinEmbedder(builtin.spec("t"))
    asyncio.run(fresh.embed(TEXTS[:2], tokens=0))
    asyncio.run(fresh.aclose())
    assert np.array_equal(fresh.embed_sync(TEXTS[:2]), alone[:2])


def test_no_texts_give_no_vectors(embedder: builtin.BuiltinEmbedder) -> None:
    assert embedder.embed_sync([]).shape == (0, 384)


@pytest.mark.parametrize(("words", "fits"), [(510, True), (511, False)])
def test_the_limit_is_510_tokens_and_nothing_is_cut(embedder: builtin.BuiltinEmbedder, words: int, fits: bool) -> None:
    text = "gate " * words
    if fits:
        shorter = embedder.embed_sync(["gate " * (words - 200) + "ship " * 200])
        assert not np.array_equal(embedder.embed_sync([text]), shorter)
        return
    with pytest.raises(errors.TextRejected, match="511 tokens") as caught:
        embedder.embed_sync([text])
    assert caught.value.kind == "too_long"


def copy_of_the_model(folder: Path) -> Path:
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copy(builtin.FOLDER / name, folder)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_changed_file_is_refused(name: str, tmp_path: Path) -> None:
    damaged = copy_of_the_model(tmp_path) / name
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(errors.ModelError, match="not the file that was shipped") as caught:
        builtin.BuiltinEmbedder(builtin.spec("t"), folder=tmp_path).embed_sync(["x"])
    assert "nstall" in caught.value.remedy


def test_what_was_loaded_is_used_again_until_the_file_changes(tmp_path: Path) -> None:
    model = copy_of_the_model(tmp_path) / "model.onnx"

    def loaded() -> object:
        return builtin.BuiltinEmbedder(builtin.spec("t"), folder=tmp_path)._session

    assert loaded() is loaded()
    with model.open("ab") as file:
        file.write(b"more")
    with pytest.raises(errors.ModelError, match="not the file that was shipped"):
        loaded()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    copy_of_the_model(tmp_path)
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(errors.ModelError, match=r"model\.onnx"):
        builtin.BuiltinEmbedder(builtin.spec("t"), folder=tmp_path).embed_sync(["x"])


def test_the_notice_beside_the_model_names_its_files_and_licence() -> None:
    notice = (builtin.FOLDER / "NOTICE.md").read_text()
    assert builtin.MODEL_SHA256 in notice
    assert builtin.TOKENIZER_SHA256 in notice
    assert "Apache License 2.0" in notice


@pytest.mark.parametrize(
    "module", ["pipeline.models", "pipeline.models.builtin", "pipeline.models.resolve", "pipeline.models.profiles"]
)
def test_importing_a_module_imports_no_heavy_package(module: str) -> None:
    heavy = ("httpx", "onnxruntime", "tokenizers", "lancedb")
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_folding_sees_texts_as_an_uncased_model_does(embedder: builtin.BuiltinEmbedder) -> None:
    for a, b in (("Résumé", "resume"), ("a\tb", "a  b"), ("OSLO ", "oslo")):
        assert vectors.fold(a) == vectors.fold(b)
        assert vectors.twins(embedder.embed_sync([a, b]), [a, b]) == [(0, 1)]
    assert vectors.fold("gate") != vectors.fold("gates")
