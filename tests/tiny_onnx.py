"""Tiny ONNX models, written byte by byte: a cross-encoder whose score one can count, and some that are broken.

The real thing made small: onnxruntime loads and runs these as it does any export. Written here by the wire format of
protobuf (field numbers of onnx.proto3), because the package `onnx` is no dependency and a binary file could not be
read in a review.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.models import tokens

FLOAT, INT32, INT64 = 1, 6, 7
OPSET, IR = 17, 8
GRAPH, OUTPUT = 7, 12  # fields of a model, and of its graph
N = "tokens"  # a dimension of any length


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def field(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def tensor(name: str, kind: int, values: Sequence[float], dims: Sequence[int]) -> bytes:
    data = struct.pack(f"<{len(values)}{'f' if kind == FLOAT else 'q'}", *values)
    return b"".join(_number(1, dim) for dim in dims) + _number(2, kind) + field(8, name) + field(9, data)


def value(name: str, kind: int, shape: Sequence[int | str]) -> bytes:
    dims = b"".join(field(1, _number(1, dim) if isinstance(dim, int) else field(2, dim)) for dim in shape)
    return field(1, name) + field(2, field(1, _number(1, kind) + field(2, dims)))


def node(kind: str, inputs: Sequence[str], output: str, **attributes: int) -> bytes:
    named = b"".join(field(1, i) for i in inputs) + field(2, output) + field(4, kind)
    given = (field(1, name) + _number(3, value) + _number(20, 2) for name, value in attributes.items())
    return named + b"".join(field(5, attribute) for attribute in given)


def _model(nodes: Sequence[bytes], constants: Sequence[bytes], inputs: Sequence[bytes], output: bytes) -> bytes:
    graph = b"".join(field(1, node) for node in nodes) + field(2, "tiny")
    graph += b"".join(field(5, constant) for constant in constants)
    graph += b"".join(field(11, one) for one in inputs) + field(12, output)
    return _number(1, IR) + field(7, graph) + field(8, field(1, "") + _number(2, OPSET))


def extended(model: bytes, graph: bytes) -> bytes:
    """`model` with the fields `graph` after those of its graph, whose own outputs go."""
    parts = []
    for number, start, end in _fields(model):
        if number == GRAPH:
            body = model[start:end]
            kept = b"".join(field(of, body[a:b]) for of, a, b in _fields(body) if of != OUTPUT)
            parts.append(field(GRAPH, kept + graph))
        else:
            parts.append(_number(number, start) if end < 0 else field(number, model[start:end]))
    return b"".join(parts)


def _fields(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of each field of a message; of a number its value, and -1 for the end."""
    at = 0
    while at < len(data):
        key, at = _read(data, at)
        size, at = _read(data, at)
        if key & 7 == 0:
            yield key >> 3, size, -1
        else:
            yield key >> 3, at, at + size
            at += size


def _read(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def overlap(*, logits: int = 1, kind: int = INT64, scale: float = 0.1, extra: str = "", rank: int = 2) -> bytes:
    """A cross-encoder whose logit is `scale` times the number of pairs of equal tokens, one of the question and one of
    the passage; the two [SEP] are such a pair too.

    Args:
        logits: 1, or 2 (the first always 0), or more, which no cross-encoder has.
        kind: of the inputs.
        scale: NaN makes every score no number.
        extra: an input besides, which no text has.
        rank: 3 puts the logits where an embedder puts its tokens.
    """
    nodes = [
        node("Unsqueeze", ["input_ids", "one"], "row"),
        node("Unsqueeze", ["input_ids", "two"], "column"),
        node("Equal", ["row", "column"], "equal"),
        node("Cast", ["equal"], "equal_f", to=FLOAT),
        node("Cast", ["token_type_ids"], "second", to=FLOAT),
        node("Sub", ["unit", "second"], "first"),
        node("Unsqueeze", ["second", "one"], "second_row"),
        node("Unsqueeze", ["first", "two"], "first_column"),
        node("Mul", ["equal_f", "second_row"], "half"),
        node("Mul", ["half", "first_column"], "both"),
        node("ReduceSum", ["both", "two"], "by_token", keepdims=0),
        node("ReduceSum", ["by_token", "one"], "sum", keepdims=1),
        node("Mul", ["sum", "scale"], "one_logit" if logits > 1 or rank == 3 else "logits"),
    ]
    if logits > 1:
        nodes.append(node("Mul", ["one_logit", "spread"], "wide" if rank == 3 else "logits"))
    if rank == 3:
        nodes.append(node("Unsqueeze", ["wide" if logits > 1 else "one_logit", "one"], "logits"))
    constants = [
        tensor("one", INT64, [1], [1]),
        tensor("two", INT64, [2], [1]),
        tensor("unit", FLOAT, [1.0], [1]),
        tensor("scale", FLOAT, [scale], [1]),
        tensor("spread", FLOAT, [0.0] * (logits - 1) + [1.0], [1, logits]),
    ]
    named = ["input_ids", "attention_mask", "token_type_ids", *([extra] if extra else [])]
    inputs = [value(name, kind, [1, N]) for name in named]
    shape: list[int | str] = [1, logits] if rank == 2 else [1, 1, logits]
    return _model(nodes, constants, inputs, value("logits", FLOAT, shape))


def write(folder: Path, model: bytes | None = None, name: str = "model.onnx") -> Path:
    """A reranker's folder with the packaged tokenizer, which is that of most English cross-encoders."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(overlap() if model is None else model)
    shutil.copy(tokens.BUILTIN, folder / "tokenizer.json")
    return folder
