"""Run the embed stage over chunk shards: what lacks a vector goes to the engine, what comes back into the vector log.

Vectors are flushed every few seconds, so that a kill loses at most that; the engine (stages.embed) knows nothing of
files. In memory lie the texts of a shard or two, the vectors of one flush, and 16 bytes for each key sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Container, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import executor, schema
from pipeline.deadline import Deadline
from pipeline.executor import Context, Names
from pipeline.models import Embedder, EmbedderSpec, Tokenizer, canary
from pipeline.models.templates import embed_text
from pipeline.progress import Pace
from pipeline.stages import embed, embed_progress
from pipeline.stages.embed import Engine, EngineOptions, Item, Rejected
from pipeline.store import VectorLog, keys

log = logging.getLogger(__name__)

FLUSH_BYTES = 32 << 20  # of vectors, whatever the interval
PACE_EVERY_S = 1.0
_KEY_COLUMNS = ("doc_id", "embed_key", "tokens")
_COLUMNS = ("doc_id", "text", "context", "title", "tokens", "embed_key")


@dataclass(slots=True, kw_only=True)
class Embedding:
    """What the embed stage has done: texts and tokens embedded and stored, and seconds it was at work."""

    texts: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Flusher:
    """Collects vectors and writes a part of the log every `interval_s` seconds."""

    def __init__(self, vectors: VectorLog, interval_s: float) -> None:
        self._log = vectors
        self._interval_s = interval_s
        self._keys: list[str] = []
        self._vectors: list[NDArray[np.float32]] = []
        self._bytes = 0
        self._last = time.monotonic()

    def add(self, keys: Sequence[str], vectors: NDArray[np.float32]) -> None:
        self._keys.extend(keys)
        self._vectors.append(vectors)
        self._bytes += vectors.nbytes

    @property
    def due(self) -> bool:
        return self._bytes >= FLUSH_BYTES or time.monotonic() - self._last >= self._interval_s

    def flush(self) -> None:
        """Write what has been collected, if anything."""
        if self._keys:
            self._log.append(self._keys, *self._vectors)
        self._keys, self._vectors, self._bytes = [], [], 0
        self._last = time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Who embeds in this run: `made_by` for reject rows; `skip`: keys that it rejected before."""

    made_by: str
    skip: frozenset[str]


Begin = Callable[[], Awaitable[Server]]


async def ask_server(embedder: Embedder, vectors: VectorLog) -> str:
    """The version of the model server, after a look that it still makes the vectors that are in the log.

    Both are written beside the vectors to come, with the canary of the log's first run: every later one was held
    against that, so that many small drifts cannot add up unseen.

    Raises:
        ModelMismatch: it makes others. ServerUnreachable, TransientFault: see `embed.describe`.
    """
    found = await embed.describe(embedder)
    first = "".join(vectors.recorded("canary")[:1])
    if found.canary:
        canary.check_canary(first, found.canary)
    vectors.record(server_version=found.server_version, canary=first or found.canary)
    return found.server_version


@dataclass(frozen=True, slots=True)
class _Sent:
    shard: str
    doc_id: str
    tokens: int


@dataclass(frozen=True, slots=True, order=True)
class _Due:
    """A shard's texts in the queue, or its end: the lowest rank comes first."""

    rank: tuple[int, int]
    texts: tuple[str, keys.Mask] | None = field(compare=False)  # shard; a bit or a byte for each of its chunks


class Source:
    """The texts that the named shards' chunks lack, as an async iterator of the engine's items.

    Shards are looked through as soon as they are named, and read when the engine asks: so what is left is known in
    tokens, long before it is in memory.

    Args:
        vectors: what is there; begin: asked once, when the first text is due (a night without news asks no server).
        last: shards whose texts wait for those of all others that are known by then.
        live: of shards that were there before this run. Chunks of their other documents, which no file holds any more,
            are not due. A shard that is named once more was written again by this run: all of it is.
    """

    def __init__(
        self,
        context: Context,
        spec: EmbedderSpec,
        vectors: VectorLog,
        chunks_fp: str,
        begin: Begin,
        *,
        last: Container[str] = (),
        live: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._context = context
        self._spec = spec
        self._vectors = vectors
        self._chunks_fp = chunks_fp
        self._begin = begin
        self._last = last
        self._live = live if live is not None else {}
        self._looked: set[str] = set()
        self._server: Server | None = None
        self._seen = keys.KeySet()  # due in this run, or not to be tried
        self.sent: dict[str, _Sent] = {}  # under way
        self.tokens_left = 0  # of all that is known to be due

    @property
    def made_by(self) -> str:
        """Who made what was sent; "" before anything was."""
        return self._server.made_by if self._server is not None else ""

    async def items(self, names: Names) -> AsyncGenerator[Item]:
        """Texts until `names` ends with None. Use it under `contextlib.aclosing`."""
        due: asyncio.PriorityQueue[_Due] = asyncio.PriorityQueue()
        looking = asyncio.create_task(self._look(names, due))
        over = self._context.limit.begin.over
        try:
            while not over():
                if (found := (await due.get()).texts) is None:
                    await looking  # raises what ended it
                    return
                for item in await asyncio.to_thread(self._read, *found):
                    if not over():
                        yield item
        finally:
            looking.cancel()
            await asyncio.wait({looking})
            if not looking.cancelled() and (left := looking.exception()) is not None:
                log.debug("Looking for texts ended with %r", left)

    async def _look(self, names: Names, due: asyncio.PriorityQueue[_Due]) -> None:
        number = 0
        try:
            while (shard := await names.get()) is not None:
                wanted, tokens, alive = await asyncio.to_thread(self._keys, shard)
                mask = alive & ~self._vectors.has(wanted)
                if mask.any() and self._server is None:
                    self._server = await self._begin()
                    self._seen.add(keys.packed(sorted(self._server.skip)))
                mask[mask] = self._seen.add(wanted[mask])
                if mask.any():
                    self.tokens_left += int(tokens[mask].sum())
                    self._context.progress.grow("texts", int(mask.sum()))
                    number += 1
                    due.put_nowait(_Due((1 if shard in self._last else 0, number), (shard, mask)))
        finally:
            due.put_nowait(_Due((2, 0), None))

    def _keys(self, shard: str) -> tuple[keys.Keys, NDArray[np.int32], keys.Mask]:
        """Key and tokens of each chunk, and whether a live document holds it."""
        table = self._context.collection.read_chunks(self._chunks_fp, shard, _KEY_COLUMNS)
        alive = np.ones(table.num_rows, dtype=bool)
        docs = None if shard in self._looked else self._live.get(shard)
        self._looked.add(shard)
        if docs is not None:
            alive &= np.isin(np.array(schema.strings(table["doc_id"]), dtype=str), sorted(docs))
        return keys.of_column(table["embed_key"]), table["tokens"].to_numpy(), alive

    def _read(self, shard: str, due: keys.Mask) -> list[Item]:
        table = self._context.collection.read_chunks(self._chunks_fp, shard, _COLUMNS)
        return [self._item(shard, row) for row in table.filter(pa.array(due)).to_pylist()]

    def _item(self, shard: str, row: dict[str, Any]) -> Item:
        key = row["embed_key"]
        self.sent[key] = _Sent(shard, row["doc_id"], row["tokens"])
        text = embed_text(row["context"], row["text"], row["title"], self._spec.document_template)
        return Item(key=key, text=text, tokens=row["tokens"])

    def settle(self, key: str) -> _Sent:
        """The text is embedded or rejected."""
        sent = self.sent.pop(key)
        self.tokens_left -= sent.tokens
        return sent

    def uri(self, sent: _Sent) -> str:
        """The document that a text was sent for."""
        documents = self._context.collection.read_documents(sent.shard, ["doc_id", "uri"])
        names = dict(zip(schema.strings(documents["doc_id"]), schema.strings(documents["uri"]), strict=True))
        return names[sent.doc_id]


async def embed_shards(
    context: Context,
    embedder: Embedder,
    vectors: VectorLog,
    source: Source,
    names: Names,
    tokenizer: Tokenizer,
    done: Embedding,
) -> None:
    """Embed until `names` ends with None, or the time limit has come. `tokenizer`: the model's. `done` is counted on,
    so that it is right for a run that fails, too.
    """
    settings, began = context.settings.embed, time.monotonic()
    flusher = Flusher(vectors, settings.flush_s)
    options = EngineOptions(batch_texts=settings.batch_texts, batch_tokens=settings.batch_tokens)
    engine = Engine(embedder, options, canaries=embed.canaries(tokenizer))
    context.progress.start("texts", 0, "text")
    telling = asyncio.create_task(_tell_pace(context, source, engine))
    try:
        async with _until(context.limit.wait), aclosing(engine.run(source.items(names))) as results:
            async for result in results:
                if isinstance(result, Rejected):
                    _reject(context, source, result)
                    continue
                flusher.add(result.keys, result.vectors)
                _count(context, source, done, result.keys)
                if flusher.due:
                    await asyncio.to_thread(flusher.flush)
    finally:
        telling.cancel()
        flusher.flush()  # not awaited: what has been paid for is kept, also when the run is being cancelled
        done.seconds += time.monotonic() - began
    context.progress.finish("texts")


@asynccontextmanager
async def _until(end: Deadline) -> AsyncGenerator[None]:
    """Leave the block when that time comes, whatever it waits for."""
    timer = asyncio.timeout(end.left())
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise


async def _tell_pace(context: Context, source: Source, engine: Engine) -> None:
    """Every second, also while a server says nothing: a rate that falls to 0 is news."""
    while True:
        now_s, stats = embed_progress.now_s(), engine.stats
        pace = Pace(
            tokens_per_s=stats.tokens_per_s(now_s),
            average=stats.average(now_s),
            left_s=stats.left_s(source.tokens_left, now_s),
            servers=stats.servers_in_use(now_s),
            known_servers=len(stats.servers),
            retries=stats.retries,
            rejected=stats.rejected,
        )
        context.progress.pace("texts", pace)
        await asyncio.sleep(PACE_EVERY_S)


def _count(context: Context, source: Source, done: Embedding, keys_: Sequence[str]) -> None:
    done.tokens += sum(source.settle(key).tokens for key in keys_)
    done.texts += len(keys_)
    context.progress.advance("texts", len(keys_))


def _reject(context: Context, source: Source, result: Rejected) -> None:
    uri = source.uri(source.settle(result.key))
    context.progress.message(f"{uri}: one chunk cannot be embedded: {result.kind}: {result.reason}")
    context.progress.advance("texts")
    row = executor.reject("embed", uri, result.key, source.made_by, result.kind, result.reason)
    context.collection.add_rejects([row])  # at once: a kill must not send a poison text again
