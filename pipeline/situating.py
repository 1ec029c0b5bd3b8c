"""Situate chunks over a collection: a sentence before each, asked of the answering model once and kept for good.

Runs between chunk and embed. Chunks are first cut without sentences; then the model is asked for what the log lacks;
what comes is flushed every few seconds, so that a kill loses at most that. Names of shards go on only when all are
done: on one server two models of which only one fits into memory would else take turns at every shard.

A chunk for which the model brings nothing of use goes on without a sentence; that is in the log too, with the reason,
in the report, and tried again by `--retry` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
from msgspec.structs import replace

from pipeline import answer_stream, config, errors, executor, ids, schema, tasks
from pipeline.deadline import Deadline
from pipeline.document import Block
from pipeline.executor import Context, Names
from pipeline.models import EmbedderSpec, Generator, Identified, Message, Piece, Tokenizer, resolve
from pipeline.models.templates import embed_text
from pipeline.stages import situate
from pipeline.stages.chunk import ChunkParams
from pipeline.store import Collection, SentenceLog
from pipeline.store.sentences import Entry

IN_FLIGHT = 2  # requests: the next one is there when the server is done with one
PAUSES_S = (0.5, 2.0)  # before the next tries of a request that another try may help
LOST = 5  # requests one after the other that no try helped: then it is the server
NOTED = 3  # chunks without a sentence that are named in the report
Row = dict[str, Any]  # of schema.CHUNKS or schema.DOCUMENTS

SHARE = 0.8  # of a limited run's time: what has its sentence must still be embedded, in a twentieth of that or less


@dataclass(slots=True, kw_only=True)
class Author:
    """Who writes sentences. `made_by`: see situate.made_by; `generator`: None where it did not answer.

    `failure`: why it did not.
    """

    made_by: str
    generator: Generator | None = None
    failure: errors.ModelError | None = None

    async def aclose(self) -> None:
        """Let go of the server."""
        if self.generator is not None:
            await self.generator.aclose()


async def find_author(settings: config.Settings, known: str) -> Author:
    """The model that the settings name, asked for its identity. `known`: who wrote so far, "" for nobody.

    Where there were sentences before, a server that is down may stay down until one is due.

    Raises:
        ConfigError: nobody writes sentences here: there is no server, or none is wanted.
        ModelMissing, ServerRefused, ServerUnreachable: of a server or provider that is named.
    """
    wanted = settings.generate
    remedy = "Start Ollama (ollama serve; ollama pull llama3.2), or set chunk.contextual = false."
    if wanted.provider == "none":
        raise errors.ConfigError("chunk.contextual needs a model that answers, and generate.provider is none.", remedy)
    provider = "ollama" if wanted.provider == "auto" else wanted.provider
    asking = replace(settings, generate=replace(wanted, provider=provider, temperature=0.0))
    try:
        generator = await resolve.open_generator(asking)
    except errors.ServerUnreachable as error:
        if known:
            return Author(made_by=known, failure=error)
        if wanted.provider == "auto":
            raise errors.ConfigError(
                f"chunk.contextual needs a model that answers ({wanted.model}): {error.message}", remedy
            ) from error
        raise
    assert generator is not None
    digest = generator.digest if isinstance(generator, Identified) else ""
    return Author(made_by=situate.made_by(digest or generator.model), generator=generator)


@dataclass(slots=True, kw_only=True)
class Situated:
    """What came of it: `asked` requests that were answered, `known` sentences that were there, and chunks without."""

    asked: int = 0
    known: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)  # uri, why
    left: int = 0  # shards that the time limit left out

    def notes(self) -> list[str]:
        """For the report."""
        if not self.faults:
            return []
        named = "; ".join(f"{uri} ({why})" for uri, why in self.faults[:NOTED])
        said = (
            f"{len(self.faults)} chunks have no sentence before them, since the model's answer was of no use: {named}."
        )
        return [f"{said} They are embedded without one; `--retry` asks again."]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    """A chunk that lacks its sentence."""

    key: str
    document: tuple[str, ...]
    messages: Sequence[Message]


class Situating:
    """One pass over the shards of a run.

    Args:
        params: of the chunks, with `situated_by`.
        retry: ask again for what the model brought nothing for.
    """

    def __init__(
        self,
        context: Context,
        spec: EmbedderSpec,
        params: ChunkParams,
        tokenizer: Path | None,
        author: Author,
        *,
        retry: bool = False,
    ) -> None:
        self._context = context
        self._params = params
        self._tokenizer_path = tokenizer
        self._counter: Tokenizer = tasks.tokenizer(spec.tokenizer, tokenizer)
        self._template = spec.document_template
        self._author = author
        self._limit = spec.limit
        self._retry = retry
        self._log: SentenceLog = context.collection.sentences(params.situated_by, situate.is_same)
        if retry:
            self._log.forget_faults()
        self._flushed = time.monotonic()
        self._lost = 0  # requests that failed one after the other
        self.done = Situated()

    async def run(self, names: Names, out: Names) -> None:
        """Until `names` ends with None; every shard that has all its sentences goes to `out`, None at the end.

        Raises:
            ServerUnreachable, ModelError: the model does not answer; what it has said is kept.
        """
        due: Names = asyncio.Queue()
        cut: Names = asyncio.Queue()
        ready: list[str] = []
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sort(names, due, ready))
            chunking = group.create_task(
                executor.chunk_shards(self._context, self._params.plain(), self._tokenizer_path, due, cut)
            )
            group.create_task(self._situate(cut, ready))
        self.done.left += chunking.result()
        for name in ready:
            out.put_nowait(name)
        out.put_nowait(None)

    async def _sort(self, names: Names, due: Names, ready: list[str]) -> None:
        """What has its sentences is ready; the rest is to be cut."""
        seen: set[str] = set()
        fingerprint = self._params.fingerprint()
        while (name := await names.get()) is not None:
            if name in seen:
                continue
            seen.add(name)
            whole = self._context.collection.has_chunks(fingerprint, name)
            if whole and self._retry and self._lacks(name):
                self._context.collection.drop_chunks(fingerprint, name)
                whole = False
            if whole:
                ready.append(name)
            else:
                due.put_nowait(name)
        due.put_nowait(None)

    def _lacks(self, shard: str) -> bool:
        table = self._context.collection.read_chunks(self._params.fingerprint(), shard, ["context"])
        return not all(map(situate.sentence_in, schema.strings(table["context"])))

    async def _situate(self, cut: Names, ready: list[str]) -> None:
        end = self._end()
        self._context.progress.start("contexts", 0, "sentence")
        try:
            while (name := await cut.get()) is not None:
                if not end.over() and await self._shard(name, end):
                    ready.append(name)
                else:
                    self.done.left += 1
        finally:
            self._log.flush()  # what has been paid for is kept, also when the run is being cancelled
        self._log.compact()
        self._context.progress.finish("contexts")

    def _end(self) -> Deadline:
        left = self._context.limit.begin.left()
        return Deadline() if left is None else Deadline.after(left * SHARE)

    async def _shard(self, shard: str, end: Deadline) -> bool:
        """Ask for what the shard's chunks lack, and write them with their sentences; False where time ran out."""
        rows = self._context.collection.read_chunks(self._params.plain().fingerprint(), shard).to_pylist()
        sketches = _sketches(rows)
        due = await asyncio.to_thread(self._due, shard, rows, sketches)
        self.done.known += len(rows) - len(due)
        self._context.progress.grow("contexts", len(due))
        await self._ask(due, end)
        entries = [self._log.find(row["embed_key"], sketches[row["doc_id"]]) for row in rows]
        if None in entries:
            return False
        uris = self._uris(shard)
        made = [self._row(row, entry, uris[row["doc_id"]]) for row, entry in zip(rows, entries, strict=True) if entry]
        table = pa.Table.from_pylist(made, schema=schema.CHUNKS)
        await asyncio.to_thread(self._context.collection.write_chunks, self._params.fingerprint(), shard, table)
        return True

    def _due(self, shard: str, rows: Sequence[Row], sketches: Mapping[str, tuple[str, ...]]) -> list[_Due]:
        """What is to be asked, document by document and in order: a server keeps what it read of the one before."""
        lacking = [row for row in rows if self._log.find(row["embed_key"], sketches[row["doc_id"]]) is None]
        if not lacking:
            return []
        if self._author.generator is None:
            raise self._author.failure or errors.ServerUnreachable("The answering model cannot be asked.", "")
        window = self._author.generator.context_tokens
        documents = {row["doc_id"]: row for row in self._context.collection.read_documents(shard).to_pylist()}
        due: list[_Due] = []
        for doc, group in groupby(lacking, key=lambda row: str(row["doc_id"])):
            view = _view(documents[doc], window)
            due += [
                _Due(key=row["embed_key"], document=sketches[doc], messages=view.messages(row["start"], row["end"]))
                for row in group
            ]
        return due

    async def _ask(self, due: Sequence[_Due], end: Deadline) -> None:
        left = iter(due)

        async def consume() -> None:
            for item in left:
                if end.over():
                    return
                self._keep(item, await self._sentence(item.messages))

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(consume())

    def _keep(self, item: _Due, sentence: situate.Sentence) -> None:
        self._log.add(Entry(key=item.key, document=item.document, sentence=sentence.text, fault=sentence.fault))
        self.done.asked += 1
        self._context.progress.advance("contexts")
        if time.monotonic() - self._flushed >= self._context.settings.embed.flush_s:
            self._log.flush()  # some kilobytes, a hundredth of the time of one sentence
            self._flushed = time.monotonic()

    async def _sentence(self, messages: Sequence[Message]) -> situate.Sentence:
        """Ask once, and again after a fault of the server.

        Raises:
            ServerUnreachable, TransientFault, ModelError: it is not this chunk's fault.
        """
        for pause_s in (*PAUSES_S, None):
            try:
                found = await self._reply(messages)
            except errors.TextRejected as error:
                return situate.Sentence(fault=f"refused: {error.message}")
            except (errors.TransientFault, errors.ServerUnreachable) as error:
                if pause_s is None:
                    return self._given_up(error)
                await asyncio.sleep(pause_s)
            else:
                self._lost = 0
                return found
        raise AssertionError("the last try returns or raises")

    def _given_up(self, error: errors.ModelError) -> situate.Sentence:
        """No try has helped: one chunk is done without, a server that fails again and again ends the run."""
        self._lost += 1
        if isinstance(error, errors.ServerUnreachable) or self._lost >= LOST:
            raise error
        return situate.Sentence(fault=f"the server failed: {error.message}")

    async def _reply(self, messages: Sequence[Message]) -> situate.Sentence:
        generator = self._author.generator
        assert generator is not None
        text, last = "", Piece(text="")
        stream = answer_stream.closable(generator.stream(messages, max_tokens=situate.REPLY_TOKENS))
        async with aclosing(stream) as pieces:
            async for last in pieces:
                text += last.text
        # prompt_eval_count says nothing here: chunks of one document share their beginning, which some servers count
        # and others remember. The prompt is kept to 0.75 of the window, and `truncate` and `shift` are off.
        return situate.from_reply(text, last.done_reason if last.done else "", self._counter)

    def _uris(self, shard: str) -> dict[str, str]:
        rows = self._context.collection.read_documents(shard, ["doc_id", "uri"]).to_pylist()
        return {row["doc_id"]: row["uri"] for row in rows}

    def _row(self, row: Row, entry: Entry, uri: str) -> Row:
        """The chunk with its sentence, counted and named as it will be sent."""
        context = situate.context(row["context"], entry.sentence)
        sent = embed_text(context, row["text"], row["title"], self._template)
        count, fault = self._counter.count([sent])[0], entry.fault
        if count > self._limit:  # a tokenizer that joins over the line's end
            context, sent, count, fault = row["context"], "", row["tokens"], "too long with its chunk"
        if fault:
            self.done.faults.append((uri, fault))
        key = ids.embed_key(sent) if sent else row["embed_key"]
        return {**row, "context": context, "tokens": count, "embed_key": key}


def _sketches(rows: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    keys: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        keys[row["doc_id"]].append(row["embed_key"])
    return {doc: situate.sketch(found) for doc, found in keys.items()}


def _view(document: Row, window: int) -> situate.View:
    blocks = [Block(**{**block, "heading_path": tuple(block["heading_path"])}) for block in document["blocks"]]
    return situate.View(document["title"], document["text"], blocks, window)


def calls(collection: Collection, params: ChunkParams, shards: Iterable[str], keys: Iterable[str]) -> int:
    """How many sentences a run would ask for: `keys` are of texts that lack a vector, in part with their sentences."""
    if not collection.exists:
        return len(set(keys))
    fingerprint = params.fingerprint()
    situated: set[str] = set()
    for shard in shards:
        if collection.has_chunks(fingerprint, shard):
            situated.update(schema.strings(collection.read_chunks(fingerprint, shard, ["embed_key"])["embed_key"]))
    known = collection.sentences(params.situated_by, situate.is_same)
    return sum(not known.knows(key) for key in set(keys) - situated)
