"""A cross-encoder on this machine: a folder with an ONNX file and its tokenizer, as model hubs lay them out.

Nothing is downloaded. What the graph wants is read from the graph: which of input_ids, attention_mask and
token_type_ids, in which integers; one logit or two. A pair is as long as the model allows at most; what is too long
is the passage, which loses its end and is counted.

Each pair runs through the graph alone, one on each core, for the reasons in builtin.py: no padding, and a score
depends on its pair and not on its neighbours in a batch.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline import errors
from pipeline.models import builtin, rerank

# Whole precision first: an int8 export is named when nothing else is there.
MODELS = tuple(
    f"{folder}{name}.onnx" for name in ("model", "model_quantized", "model_int8") for folder in ("", "onnx/")
)
T = TypeVar("T")
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
LIMIT = 512  # tokens of a pair, where no file says how many
LONGEST = 8_192  # whatever the files say: attention over more takes gigabytes
OFFSET_MODELS = ("roberta", "xlm-roberta", "camembert", "mpnet")  # their first two positions are never used


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """A reranker's folder, looked at but not loaded.

    Attributes:
        limit: tokens of a pair, special ones included.
        state: size and time of the model: another one is another model.
    """

    folder: Path
    model: Path
    tokenizer: Path
    limit: int
    state: tuple[int, int]


def look(folder: Path) -> Files:
    """Raises ModelMissing: no such folder, or not what a reranker needs. ModelError: its configuration is no JSON."""
    model = next((path for name in MODELS if (path := folder / name).is_file()), None)
    tokenizer = folder / "tokenizer.json"
    missing = [name for name, there in (("model.onnx", model), ("tokenizer.json", tokenizer.is_file())) if not there]
    if model is None or missing:
        what = f"has no {' and no '.join(missing)}" if folder.is_dir() else "is not a folder"
        raise errors.ModelMissing(
            f"The reranker's folder {folder} {what}.",
            "Put a cross-encoder's model.onnx and tokenizer.json there, set search.rerank to where they are, or "
            "search without: --no-rerank.",
        )
    status = model.stat()
    state = (status.st_size, status.st_mtime_ns)
    return Files(folder=folder, model=model, tokenizer=tokenizer, limit=_limit(folder), state=state)


def _limit(folder: Path) -> int:
    """Tokens that the files beside the model allow. `model_max_length` is 10^30 where nobody set it."""
    about, words = _json(folder / "config.json"), _json(folder / "tokenizer_config.json")
    positions = about.get("max_position_embeddings")
    offset = 2 if about.get("model_type") in OFFSET_MODELS else 0
    told = [positions - offset if isinstance(positions, int) else 0, words.get("model_max_length")]
    known = [int(number) for number in told if isinstance(number, int | float) and 16 <= number < 1e6]
    return min([*known, LONGEST]) if known else LIMIT


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise errors.ModelError(f"The reranker's {path} cannot be read: {error}", rerank.REMEDY) from error
    return found if isinstance(found, dict) else {}


class OnnxReranker:
    """A `rerank.Reranker` of a folder. The model is loaded by `open` or by the first question, once in a process.

    Args:
        threads: pairs computed at the same time; 0: one per core that this process may use.

    Raises:
        ModelMissing, ModelError: see `look`.
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        self._files = look(folder)
        self._pool = ThreadPoolExecutor(threads or builtin.cores(), thread_name_prefix="rerank")

    @property
    def name(self) -> str:
        return self._files.folder.resolve().name

    @property
    def changed(self) -> bool:
        """Whether the folder holds another model now, or none. Raises as `look`, where it holds none."""
        return look(self._files.folder) != self._files

    async def open(self) -> None:
        await self._in_pool(_load, self._files)

    async def aclose(self) -> None:
        """Stop the threads; pairs that wait are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def score(self, question: str, texts: Sequence[str], *, timeout_s: float) -> rerank.Scores:
        """As `Reranker.score`; a value is the model's own probability, from 0 to 1."""
        try:
            async with asyncio.timeout(timeout_s):
                found = await self._scores(question, texts)
        except TimeoutError as error:
            raise errors.TransientFault(
                f"The reranker {self.name} did not read {len(texts)} passages within {timeout_s:.3g} s.",
                "Lower search.rerank_top, raise search.rerank_timeout_s, use a smaller model, or --no-rerank.",
            ) from error
        values = rerank.checked([one.value for one in found], f"The reranker {self.name}", len(texts))
        return rerank.Scores(values=values, cut=sum(one.cut for one in found))

    async def _scores(self, question: str, texts: Sequence[str]) -> list[_Score]:
        """In the order of the texts. Cancelled, pairs that were not begun are dropped."""
        graph = await self._in_pool(_load, self._files)
        asked = await self._in_pool(graph.question, question)
        longest_first = sorted(range(len(texts)), key=lambda i: -len(texts[i]))  # no core waits for a straggler
        scores = await asyncio.gather(*(self._in_pool(graph.score, asked, texts[i]) for i in longest_first))
        by_place = dict(zip(longest_first, scores, strict=True))
        return [by_place[i] for i in range(len(texts))]

    def _in_pool(self, work: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """Not in the event loop's own threads: searches wait in those for these scores."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work, *args)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Score:
    """What the graph says of a passage. `cut`: it lost its end."""

    value: float
    cut: bool


class _Graph:
    """The loaded model. Safe to share between threads."""

    def __init__(self, files: Files) -> None:
        self._name = files.folder
        self._limit = files.limit
        self._tokenizer = _tokenizer(files.tokenizer)
        self._session = _session(files.model)
        self._kinds = {put.name: _integers(put, files.folder) for put in self._session.get_inputs()}
        outputs = [put.name for put in self._session.get_outputs()]
        self._output = "logits" if "logits" in outputs else outputs[0]

    def question(self, text: str) -> Any:
        """Its tokens. One that would take more than half of the model's length loses its end as well."""
        asked = self._tokenizer.encode(text, add_special_tokens=False)
        asked.truncate(self._limit // 2)
        return asked

    def score(self, asked: Any, text: str) -> _Score:
        """The probability that the passage answers: one logit through the logistic function, or the second of two
        through softmax, which is the same of their difference.

        Raises:
            ModelError: the graph gives something else than one or two logits.
        """
        told = self._tokenizer.encode(text, add_special_tokens=False)
        room = self._limit - self._tokenizer.num_special_tokens_to_add(is_pair=True) - len(asked)
        cut = len(told) > room
        told.truncate(room)
        logits = self._logits(self._tokenizer.post_process(asked, told))
        if logits.size not in (1, 2) or logits.ndim > 2:
            raise errors.ModelError(
                f"{self._name} gives an output of shape {logits.shape} for a pair, not one or two logits: it is no "
                "cross-encoder.",
                rerank.REMEDY,
            )
        flat = logits.reshape(-1)
        logit = float(flat[-1] - (flat[0] if flat.size == 2 else 0.0))
        value = 1 / (1 + math.exp(-min(max(logit, -700.0), 700.0))) if math.isfinite(logit) else math.nan
        return _Score(value=value, cut=cut)

    def _logits(self, pair: Any) -> NDArray[np.float64]:
        """Raises ModelError: the graph fails over the pair."""
        rows = {"input_ids": pair.ids, "attention_mask": [1] * len(pair.ids), "token_type_ids": pair.type_ids}
        given = {name: np.array([rows[name]], dtype=kind) for name, kind in self._kinds.items()}
        try:
            (out,) = self._session.run([self._output], given)
        except Exception as error:  # onnxruntime's own classes have no public base but Exception
            raise errors.ModelError(f"The reranker {self._name} failed: {error}", rerank.REMEDY) from error
        return np.asarray(out, dtype=np.float64)


_loading = threading.Lock()
_loaded: dict[Files, _Graph] = {}  # at most one: the next question of this process finds it, until its file changes


def _load(files: Files) -> _Graph:
    with _loading:
        if files not in _loaded:
            graph = _Graph(files)
            _loaded.clear()
            _loaded[files] = graph
        return _loaded[files]


def _tokenizer(path: Path) -> Any:
    import tokenizers

    try:
        found = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises bare Exception for every fault of the file
        raise errors.ModelError(f"The reranker's {path} cannot be read: {error}", rerank.REMEDY) from error
    found.no_truncation()
    found.no_padding()
    return found


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # parallel over pairs, not inside one
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # every length is another shape
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no public base but Exception
        raise errors.ModelError(f"onnxruntime cannot load the reranker {path}: {error}", rerank.REMEDY) from error


def _integers(put: Any, folder: Path) -> type[np.signedinteger[Any]]:
    """The integers that an input takes.

    Raises:
        ModelError: it is none that a cross-encoder has.
    """
    kinds: dict[str, type[np.signedinteger[Any]]] = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}
    if put.name not in INPUTS or put.type not in kinds:
        raise errors.ModelError(
            f"{folder} wants the input {put.name!r} as {put.type}: it is no cross-encoder for texts.", rerank.REMEDY
        )
    return kinds[put.type]
