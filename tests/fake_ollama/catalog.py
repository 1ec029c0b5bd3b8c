"""The models that the fake knows: digests, sizes and shapes as the public registry has them; any other name is an
embedding model of its own.

Digests are those of the manifests at the time of writing. An unknown name gets 768 dimensions, 2,048 tokens and the
SHA-256 of its name as digest; a name that ends in `cloud` gets a `remote_host`, as Ollama marks models whose text
leaves the machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from tests.fake_ollama import tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    name: str  # with its tag
    digest: str  # 64 hex digits
    architecture: str
    dims: int
    context: int  # tokens the model was trained for, specials included
    size: int  # bytes
    parameters: str
    parameter_count: int
    quantization: str = "F16"
    pooling: int | None = 1  # 1 mean, 2 CLS; None: not an embedding model
    tokenizer: str = "bert"
    remote_host: str = ""

    @property
    def embeds(self) -> bool:
        return self.pooling is not None

    @property
    def capabilities(self) -> list[str]:
        return ["embedding"] if self.embeds else ["completion", "tools"]

    def details(self) -> dict[str, Any]:
        return {
            "parent_model": "",
            "format": "gguf",
            "family": self.architecture,
            "families": [self.architecture],
            "parameter_size": self.parameters,
            "quantization_level": self.quantization,
        }

    def info(self, vocabulary: list[str] | None) -> dict[str, Any]:
        """`model_info` of /api/show; arrays are null unless `verbose` asked for them (`vocabulary`: the tokens of a
        WordPiece model).
        """
        kind = self.architecture
        found: dict[str, Any] = {
            "general.architecture": kind,
            "general.file_type": 1,
            "general.parameter_count": self.parameter_count,
            f"{kind}.context_length": self.context,
            f"{kind}.embedding_length": self.dims,
            "tokenizer.ggml.model": self.tokenizer,
            "tokenizer.ggml.tokens": vocabulary,
        }
        if self.embeds:
            found |= {f"{kind}.attention.causal": False, f"{kind}.pooling_type": self.pooling}
        if self.tokenizer == "bert":
            found |= _BERT_TOKENIZER
        return found


_BERT_TOKENIZER: dict[str, Any] = {
    "tokenizer.ggml.bos_token_id": 101,
    "tokenizer.ggml.cls_token_id": 101,
    "tokenizer.ggml.mask_token_id": 103,
    "tokenizer.ggml.padding_token_id": 0,
    "tokenizer.ggml.seperator_token_id": 102,  # spelt so in GGUF
    "tokenizer.ggml.token_type_count": 2,
    "tokenizer.ggml.unknown_token_id": 100,
}

KNOWN = {
    model.name: model
    for model in (
        Model(
            name="mxbai-embed-large:latest",
            digest="468836162de7f81e041c43663fedbbba921dcea9b9fefea135685a39b2d83dd8",
            architecture="bert",
            dims=1024,
            context=512,
            size=669_615_493,
            parameters="334M",
            parameter_count=334_092_288,
            pooling=2,
        ),
        Model(
            name="all-minilm:latest",
            digest="1b226e2802dbb772b5fc32a58f103ca1804ef7501331012de126ab22f67475ef",
            architecture="bert",
            dims=384,
            context=256,
            size=45_960_996,
            parameters="23M",
            parameter_count=22_565_376,
        ),
        Model(
            name="nomic-embed-text:latest",
            digest="0a109f422b47e3a30ba2b10eca18548e944e8a23073ee3f3e947efcf3c45e59f",
            architecture="nomic-bert",
            dims=768,
            context=2048,
            size=274_302_450,
            parameters="137M",
            parameter_count=136_727_040,
        ),
        Model(
            name="bge-m3:latest",
            digest="7907646426070047a77226ac3e684fbbe8410524f7b4a74d02837e43f2146bab",
            architecture="bert",
            dims=1024,
            context=8192,
            size=1_157_672_605,
            parameters="566.70M",
            parameter_count=566_703_104,
            pooling=2,
            tokenizer="t5",
        ),
        Model(
            name="llama3.2:latest",
            digest="a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72",
            architecture="llama",
            dims=3072,
            context=131_072,
            size=2_019_393_189,
            parameters="3.2B",
            parameter_count=3_212_749_888,
            quantization="Q4_K_M",
            pooling=None,
            tokenizer="gpt2",
        ),
    )
}
DEFAULT = ("mxbai-embed-large:latest", "llama3.2:latest")


def full_name(name: str) -> str:
    """`name` with its tag: `x` and `x:latest` are one model."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def model_for(spec: str) -> Model:
    """The model that `NAME` or `NAME=DIGEST` describes; the digest may be short and is filled up to 64 digits."""
    name, _, digest = spec.partition("=")
    name = full_name(name)
    model = KNOWN.get(name) or _same_base(name) or _unknown(name)
    if name.endswith("cloud"):
        model = replace(model, remote_host="https://ollama.com:443")
    return replace(model, digest=(digest * 64)[:64]) if digest else model


def _same_base(name: str) -> Model | None:
    """Another tag of a model we know: its shape, but a digest of its own."""
    base = KNOWN.get(name.partition(":")[0] + ":latest")
    return replace(base, name=name, digest=hashlib.sha256(name.encode()).hexdigest()) if base else None


def _unknown(name: str) -> Model:
    return Model(
        name=name,
        digest=hashlib.sha256(name.encode()).hexdigest(),
        architecture="bert",
        dims=768,
        context=2048,
        size=100_000_000,
        parameters="50M",
        parameter_count=50_000_000,
    )


def vocabulary(model: Model) -> list[str] | None:
    """The tokens that `verbose` shows. Simplified: only of WordPiece models, where Ollama shows any."""
    return tokens.gguf_vocabulary() if model.tokenizer == "bert" else None
