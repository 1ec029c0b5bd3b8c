"""The embedded default: all-MiniLM-L6-v2, int8, through onnxruntime. No server, no download, no event loop needed.

Each text runs through the graph alone. The model is quantised dynamically: onnxruntime takes one activation scale per
tensor, so in a batch a vector would depend on its neighbours (measured over batches of 4 to 96 texts: cosine 0.981 to
0.998 between a text embedded in company and alone, no vector identical). Alone, a vector depends on its text and on
nothing else, to the last bit: batch, order, threads and restarts do not matter. It is also the fastest way on a CPU,
since padding is work: over 96 texts of 7 to 476 tokens on two cores 12.7k tokens/s (one text per core), against 7.0k in
batches of 8 and 3.8k in batches of 32. Processors with other int8 instructions may still differ in the last digits.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import os
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import errors
from pipeline.models import Description, EmbedderSpec, EmbedReply, Limits, Vectors, canary, vectors

MODEL = "all-minilm-l6-v2"
FOLDER = Path(__file__).parent / "data" / MODEL
MODEL_SHA256 = "59f2f16cc342bb03b7abb06030c3da6e27502aee6e505f3eb78cbdf35e657bff"
TOKENIZER_SHA256 = "5fd1c882abbd30517dced455a2c9768945ec726b96727927e4959348d9de550b"
DIMS = 384
# The position table has 512 places, two of them for [CLS] and [SEP]. (The original was trained on 256; `all-minilm` in
# profiles.toml says so. Longer texts are embedded whole, not cut.)
LIMIT = 510


def spec(tokenizer: str) -> EmbedderSpec:
    """Who embeds. Loads nothing. `tokenizer`: identity of the tokenizer that counts for it (`tokens.builtin()`)."""
    return EmbedderSpec(
        provider="builtin",
        model=MODEL,
        digest=MODEL_SHA256,
        dims=DIMS,
        limit=LIMIT,
        tokenizer=tokenizer,
        languages=("en",),
    )


class BuiltinEmbedder:
    """Embedder on this machine's processor. The model is loaded (about 0.3 s) by the first text, not before.

    Args:
        folder: where `model.onnx` and `tokenizer.json` lie.
        threads: texts computed at the same time; 0: one per core that this process may use.
    """

    def __init__(self, spec: EmbedderSpec, *, folder: Path = FOLDER, threads: int = 0) -> None:
        self._spec = spec
        self._folder = folder
        self._threads = threads or cores()
        self._loading = threading.Lock()
        self._loaded_tokenizer: Any = None
        self._loaded_session: Any = None
        self._threads_pool: ThreadPoolExecutor | None = None

    @property
    def spec(self) -> EmbedderSpec:
        return self._spec

    @property
    def limits(self) -> Limits:
        """Two batches in flight: one is tokenised or written while the other computes. Small ones, so that stopping is
        quick."""
        return Limits(batch_texts=32, batch_tokens=8_000, concurrency=2)

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        """As `Embedder.embed`, on threads. There is no server to cut a text or to be stuck in: what is too long is
        refused by its own count, and neither `tokens` nor `timeout_s` is needed."""
        return await asyncio.to_thread(self._reply, texts)

    def embed_sync(self, texts: Sequence[str]) -> Vectors:
        """Vectors of shape (len(texts), 384), without an event loop: the cold-start path of `search`.

        Raises:
            TextRejected: a text has more than 510 tokens.
            ModelError: model or tokenizer are not the files that were shipped, or cannot be loaded.
        """
        return self._run_all(self._encode(texts))

    async def describe(self) -> Description:
        """The library that computes, and the canary: another version or processor may change the last digits."""
        found = await asyncio.to_thread(self.embed_sync, [canary.TEXT])
        library = f"onnxruntime {importlib.metadata.version('onnxruntime')}"
        return Description(server_version=library, canary=canary.encode(found[0]))

    async def aclose(self) -> None:
        """Stop the threads; texts that wait are dropped."""
        pool, self._threads_pool = self._threads_pool, None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, [CLS] and [SEP] included."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        ids = self.token_ids(texts)
        longest = max(map(len, ids), default=0) - 2
        if longest > LIMIT:
            raise errors.TextRejected("too_long", f"A text of {longest} tokens; {MODEL} takes {LIMIT}.")
        return ids

    def _reply(self, texts: Sequence[str]) -> EmbedReply:
        ids = self._encode(texts)
        return EmbedReply(vectors=self._run_all(ids), prompt_tokens=sum(len(row) - 2 for row in ids), server="builtin")

    def _run_all(self, ids: list[list[int]]) -> Vectors:
        found = np.empty((len(ids), self._spec.dims), dtype=np.float32)
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))  # longest first: no core waits for a straggler
        session = self._session
        apply = self._pool.map if len(ids) > 1 else map
        for i, row in zip(order, apply(partial(_run, session), (ids[i] for i in order)), strict=True):
            found[i] = row
        vectors.verify(found, "The embedded model")
        return found

    @property
    def _pool(self) -> ThreadPoolExecutor:
        with self._loading:
            if self._threads_pool is None:
                self._threads_pool = ThreadPoolExecutor(self._threads, thread_name_prefix="builtin-embed")
            return self._threads_pool

    @property
    def _tokenizer(self) -> Any:
        with self._loading:
            if self._loaded_tokenizer is None:
                path = self._folder / "tokenizer.json"
                self._loaded_tokenizer = _load_tokenizer(path, _stamp(path))
            return self._loaded_tokenizer

    @property
    def _session(self) -> Any:
        with self._loading:
            if self._loaded_session is None:
                path = self._folder / "model.onnx"
                self._loaded_session = _load_session(path, _stamp(path))
            return self._loaded_session


def _run(session: Any, ids: list[int]) -> Vectors:
    row = np.array([ids], dtype=np.int64)
    (out,) = session.run(None, {"input_ids": row, "attention_mask": np.ones_like(row)})
    return np.asarray(out[0], dtype=np.float32)


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells a file from the one that was there before."""
    try:
        status = path.stat()
    except OSError:
        return ()  # reading it says why
    return status.st_ino, status.st_size, status.st_mtime_ns


# One of each is kept between two questions: 0.1 s to load, of which a third is the check of the files.
@lru_cache(maxsize=1)
def _load_tokenizer(path: Path, stamp: tuple[int, ...]) -> Any:
    import tokenizers

    verified(path, TOKENIZER_SHA256)
    return tokenizers.Tokenizer.from_file(str(path))


@lru_cache(maxsize=1)
def _load_session(path: Path, stamp: tuple[int, ...]) -> Any:
    import onnxruntime

    verified(path, MODEL_SHA256)
    options = onnxruntime.SessionOptions()
    # Parallel over texts, not inside one: no spinning threads, and the same bits on any number of cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # every length is another shape: patterns would pile up
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no public base but Exception
        raise errors.ModelError(f"onnxruntime cannot load {path}: {error}", _REINSTALL) from error


_REINSTALL = "Install embed-pipeline again; the file in the package is damaged."


def verified(path: Path, sha256: str) -> Path:
    """`path`, whose content has this SHA-256 (read in a stream; 20 ms for 23 MB).

    Raises:
        ModelError: the file is missing, unreadable, or another.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise errors.ModelError(f"The embedded model cannot be read: {error}", _REINSTALL) from error
    if found != sha256:
        raise errors.ModelError(f"{path} is not the file that was shipped (SHA-256 {found}, not {sha256}).", _REINSTALL)
    return path


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
