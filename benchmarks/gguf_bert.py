"""A BERT in GGUF, for real_server.py: from the weights of all-MiniLM-L6-v2, or of random numbers with a given shape.

    PYTHON benchmarks/gguf_bert.py --file OUT --tokenizer TOKENIZER_JSON [--weights FOLDER] [--layers 2 --hidden 64]

Needs `gguf` and numpy and imports nothing of the pipeline, so that any interpreter can run it. The shape of
mxbai-embed-large: --layers 24 --hidden 1024 --heads 16 --half.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="tokenizer.json with a WordPiece model")
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="of all-MiniLM-L6-v2")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--half", action="store_true", help="matrices as float16")
    given = parser.parse_args()
    shape = {
        "hidden_size": given.hidden,
        "intermediate_size": 4 * given.hidden,
        "num_hidden_layers": given.layers,
        "num_attention_heads": given.heads,
        "layer_norm_eps": 1e-12,
        "type_vocab_size": 2,
        "vocab_size": 30522,
    }
    if given.weights:
        shape |= json.loads((given.weights / "config.json").read_text(encoding="utf-8"))
    write_gguf(given.file, given.tokenizer, shape, given.weights, half=given.half)


def write_gguf(file: Path, tokenizer: Path, shape: dict[str, Any], weights: Path | None, *, half: bool) -> None:
    """`shape`: as the transformers library's config.json names it."""
    gguf = importlib.import_module("gguf")
    writer = gguf.GGUFWriter(str(file), "bert")
    writer.add_name("all-MiniLM-L6-v2" if weights else "random")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_layer_norm_eps(shape["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    _add_vocabulary(writer, tokenizer)
    for name, tensor in _tensors(shape, weights):
        matrix = half and tensor.ndim == 2 and not name.startswith(("position", "token_types"))
        writer.add_tensor(name, tensor.astype(np.float16) if matrix else tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, tokenizer: Path) -> None:
    """As llama.cpp's converter does it: a word's first piece gets U+2581, a later one loses its ##."""
    vocabulary = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    special = [token.startswith("[") and token.endswith("]") and len(token) > 2 for token in ordered]
    pieces = [
        token if kept else token[2:] if token.startswith("##") else "\u2581" + token
        for token, kept in zip(ordered, special, strict=True)
    ]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types([3 if kept else 1 for kept in special])  # control, normal
    writer.add_token_type_count(2)
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])
    writer.add_pad_token_id(vocabulary["[PAD]"])


_OUTER = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm": "token_embd_norm",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def _names(layers: int) -> dict[str, str]:
    """Names of the tensors: of the transformers library, and in GGUF."""
    names = {name: to for name, to in _OUTER.items() if name.endswith("weight")}
    pairs = [("embeddings.LayerNorm", _OUTER["embeddings.LayerNorm"])]
    pairs += [(f"encoder.layer.{n}.{name}", f"blk.{n}.{to}") for n in range(layers) for name, to in _LAYER.items()]
    for name, to in pairs:
        names |= {f"{name}.{part}": f"{to}.{part}" for part in ("weight", "bias")}
    return names


def _tensors(shape: dict[str, Any], weights: Path | None) -> Iterator[tuple[str, Any]]:
    names = _names(shape["num_hidden_layers"])
    if weights is None:
        dice = np.random.default_rng(1)
        for name, to in names.items():
            yield to, _random(name, shape, dice)
        return
    found = _safetensors(weights / "model.safetensors")
    for name, to in names.items():
        yield to, found[name]


def _random(name: str, shape: dict[str, Any], dice: np.random.Generator) -> Any:
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    if "LayerNorm" in name:
        return np.ones(hidden, np.float32) if name.endswith("weight") else np.zeros(hidden, np.float32)
    rows = {"word": shape["vocab_size"], "position": CONTEXT, "token_type": shape["type_vocab_size"]}
    of_table = next((count for table, count in rows.items() if f"{table}_embeddings" in name), 0)
    if of_table:
        return dice.normal(0, 1, (of_table, hidden)).astype(np.float32)
    out, into = (inner, hidden) if "intermediate" in name else (hidden, hidden)
    if ".output.dense" in name and "attention" not in name:
        into = inner
    size: Sequence[int] = (out, into) if name.endswith("weight") else (out,)
    return dice.normal(0, 0.1, size).astype(np.float32)


def _safetensors(file: Path) -> dict[str, Any]:
    """The float32 tensors of a .safetensors file: eight bytes of length, a JSON header, the numbers."""
    data = file.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            first, last = entry["data_offsets"]
            numbers = np.frombuffer(data[start + first : start + last], "<f4").reshape(entry["shape"])
            found[name.removeprefix("bert.")] = numbers
    return found


if __name__ == "__main__":
    main()
