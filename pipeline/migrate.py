"""Another embedding model for a collection: made beside the one that serves, over as many nights as it takes, and
promoted when it is complete.

Two models need no second collection: chunks, vectors and tables lie under fingerprints, so those of the new model grow
beside the old ones, from the same documents. Until the end nothing refers to them but a record in migrations/; search,
ask and the nightly run go on with the model of the last publication. The promotion is a publication like any other
(publish.py): one note names the new embedder, table and version together. What the folders gained meanwhile is in the
newest snapshot, which is what is embedded; so a run may come between two nights of a migration, and should.

| killed | readers see | repaired by |
|---|---|---|
| while it builds | the old model | the next `migrate`: at most one flush interval is embedded again |
| before the note of the promotion | the old model | the same; nothing is embedded |
| after it, before the record says "promoted" | the new model | nothing to repair: the note decides (kept.under_way) |
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from msgspec.structs import replace

from pipeline import config, errors, guards, history, kept, live, publish, quality, question_sets, run, run_model
from pipeline.deadline import Deadline
from pipeline.models import EmbedderSpec, identity, resolve
from pipeline.progress import Progress
from pipeline.record import Recorder
from pipeline.report import Failure
from pipeline.run_model import Model, Pulled
from pipeline.run_report import Outcome
from pipeline.store import Collection, Migration, Published, Snapshot, keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """The embedder that was asked for on the command line; ""/0: left out."""

    provider: str = ""
    model: str = ""
    dims: int = 0

    @property
    def is_empty(self) -> bool:
        return not (self.provider or self.model or self.dims)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a migration is.

    Attributes:
        state: "none": no other model is being built.
        before, after: models; with state "none" the one that serves is `before`.
        chunks, vectors: of the new model; chunks that are not cut yet are not counted.
        documents: still to be cut.
        texts_left: to be embedded, as far as they are cut.
        seconds_left: by the rate so far; None where that is not known.
    """

    collection: str
    state: Literal["none", "building", "promoted", "aborted", "there already"]
    before: str
    after: str = ""
    dims: int = 0
    chunks: int = 0
    vectors: int = 0
    documents: int = 0
    texts_left: int = 0
    seconds_left: float | None = None
    began_ms: int = 0
    embedded_texts: int = 0
    seconds: float = 0.0
    snapshot: int = 0
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """What the new model has not got yet. `texts`, `documents`: those that it did not refuse."""

    chunks: int
    vectors: int
    texts: int
    documents: int


def status(settings: config.Settings) -> Standing:
    """How far the migration under way is, if there is one. Takes no lock and asks no model server.

    Raises:
        NoIndex: nothing was published.
    """
    collection = history.opened(settings)
    serving, moving = _serving(collection), kept.under_way(collection)
    if moving is None:
        return Standing(collection=collection.name, state="none", before=serving.model, dims=serving.dims)
    return _standing(collection, settings, moving, "building")


def abort(settings: config.Settings) -> Standing:
    """Give the migration up. What it has embedded stays until `gc`, and counts if it is begun again before.

    Raises:
        UsageError: there is none. Locked: it is at work.
    """
    collection = history.opened(settings)
    with collection.writing(settings.run.wait_lock_s):
        moving = kept.under_way(collection)
        if moving is None:
            raise errors.UsageError("No other model is being built.", "See what serves: pipeline status.")
        _record(collection, dataclasses.replace(moving, state="aborted"))
        return _standing(collection, settings, moving, "aborted")


def execute(settings: config.Settings, wish: Wish, progress: Progress, *, pull: bool = False) -> Standing:
    """Go on with the migration, or begin one; promote it if it becomes complete before the time limit.

    Raises:
        NoIndex: nothing was published. UsageError: no model was named, or another than the one being built.
        ModelError: the new model cannot be asked. TooManyDeletions: it refuses too much of the documents.
        QualityDropped: the golden questions speak against it.
    """
    end = Deadline.of(settings.run.max_duration, settings.run.until)
    collection, questions = history.opened(settings), quality.load(settings)
    with collection.writing(end.at_most(settings.run.wait_lock_s)):
        if wish.is_empty and _is_done(collection):  # the nights after the last one
            return _there_already(collection)
        return asyncio.run(_Migration(settings, collection, wish, progress, end, pull, questions).go())


@dataclass(slots=True)
class _Migration:
    settings: config.Settings
    collection: Collection
    wish: Wish
    progress: Progress
    end: Deadline
    pull: bool
    questions: tuple[question_sets.Line, ...]

    async def go(self) -> Standing:
        moving, model = await self._open()
        if live.vectors_fp(model.spec) == live.vectors_fp(_serving(self.collection)):
            await model.aclose()
            return _there_already(self.collection)
        done = await self._embed(moving, model)
        moving = kept.under_way(self.collection) or moving
        standing = _standing(self.collection, self.settings, moving, "building")
        standing = dataclasses.replace(
            standing, embedded_texts=done.embedding.texts, notes=(model.note,) if model.note else ()
        )
        if standing.texts_left or standing.documents:
            return standing
        note = await self._promote(moving, standing)
        return dataclasses.replace(standing, state="promoted", snapshot=note.snapshot)

    async def _embed(self, moving: Migration, model: Model) -> Outcome:
        outcome = Outcome(stages=frozenset({"chunk", "embed"}), record=Recorder(self.progress), spec=model.spec)
        limit = guards.time_limit(self.collection, self.end)
        try:
            self._check_space(moving)
        except errors.StoreError:
            await model.aclose()
            raise
        await run.embed_all(self.settings, self.collection, model, outcome, limit)
        if outcome.embedding.texts:  # for an estimate of the nights to come
            texts, seconds = moving.texts + outcome.embedding.texts, moving.seconds + outcome.embedding.seconds
            _record(self.collection, dataclasses.replace(moving, texts=texts, seconds=seconds))
        return outcome

    # -- who embeds

    async def _open(self) -> tuple[Migration, Model]:
        moving, serving = kept.under_way(self.collection), _serving(self.collection)
        pulled = Pulled(self.progress) if self.pull else None
        if moving is not None:
            self._same(moving.spec)
            choice = await resolve.open_embedder(self._asking(Wish()), moving.spec, pull=pulled)
            return moving, await self._resumed(Model(spec=moving.spec, embedder=choice.embedder))
        if self.wish.is_empty:
            raise errors.UsageError("Which model?", "Name it: pipeline migrate --model bge-m3.")
        choice = await resolve.open_embedder(self._asking(self._whole(serving)), None, pull=pulled)
        half = "float16" in (self.settings.embed.storage, serving.storage)
        spec = dataclasses.replace(choice.embedder.spec, storage="float16" if half else "float32")
        if choice.tokenizer is not None:
            self.collection.keep_tokenizer(spec.tokenizer, choice.tokenizer)
        model = Model(spec=spec, embedder=choice.embedder, note=choice.note or "")
        model = await run_model.with_author(self.settings, model, serving)
        spec = model.spec
        moving = Migration(spec=spec, before=serving, state="building", began_ms=time.time_ns() // 1_000_000)
        if live.vectors_fp(spec) != live.vectors_fp(serving):
            self.collection.migrations.append(moving)
        return moving, model

    def _whole(self, serving: EmbedderSpec) -> Wish:
        """The wish with what goes without saying: the provider stays, and so does the model if only dims were asked."""
        provider = self.wish.provider or (self.wish.model and self.settings.embed.provider) or serving.provider
        if not self.wish.provider and self.wish.model and provider == "builtin":
            provider = "auto"
        model = self.wish.model or ("" if self.wish.provider else serving.model)
        return Wish(provider=provider, model=model, dims=self.wish.dims)

    def _asking(self, wish: Wish) -> config.Settings:
        """The settings with this embedder in place of the one they name, which is the one that serves."""
        embed = replace(self.settings.embed, provider=wish.provider or "auto", model=wish.model, dims=wish.dims)
        openai = replace(self.settings.openai, model="") if wish.model or not wish.provider else self.settings.openai
        return replace(self.settings, embed=embed, openai=openai)

    async def _resumed(self, model: Model) -> Model:
        found = await run_model.with_author(self.settings, model, model.spec)
        if found.spec != model.spec:
            await found.aclose()
            raise errors.ModelMismatch(
                "Another model, or none, writes the sentences before the chunks than when this change began.",
                "Begin it again: pipeline migrate --abort, then pipeline migrate --model. Vectors are kept.",
            )
        return found

    def _same(self, spec: EmbedderSpec) -> None:
        """Refuse to begin a second migration before the first is at its end."""
        try:
            identity.refuse_another(self._asking(self.wish), spec)
        except errors.ModelMismatch as error:
            raise errors.UsageError(
                f"The collection is being changed to {spec.model} ({spec.dims} dimensions) already.",
                "Go on with that: pipeline migrate. Or give it up first: pipeline migrate --abort.",
            ) from error

    # -- space and promotion

    def _check_space(self, moving: Migration) -> None:
        """Raises DiskFull where a second set of vectors and its table will not fit."""
        note = self.collection.published()
        if not self.settings.run.disk_check or note is None:
            return
        due = guards.Due(chunks=max(0, note.chunks - len(live.vector_log(self.collection, moving.spec))))
        tokens = min(self.settings.chunk.size, moving.spec.limit)
        guards.check_space(self.collection.root, guards.need(due, moving.spec, tokens, 0), 0)

    async def _promote(self, moving: Migration, standing: Standing) -> Published:
        lost, most = standing.chunks - standing.vectors, self.settings.run.max_delete
        if lost > most * standing.chunks:
            raise errors.TooManyDeletions(
                f"{moving.spec.model} refused {lost} of {standing.chunks} chunks: more than the {most:.0%} that one "
                f"run may drop. {standing.before} goes on serving.",
                "See which: pipeline migrate --status --json. Give it up: pipeline migrate --abort.",
            )
        snapshot = self.collection.snapshot()
        assert snapshot is not None  # something is published
        chunks_fp = live.chunk_params(self.settings, moving.spec).fingerprint()
        target = publish.Target.of(snapshot, chunks_fp, moving.spec)
        gate = None
        if self.questions:
            calm = self._asking(Wish())  # names no model: the questions are asked of both
            gate = await quality.open_gate(calm, self.collection, self.questions, moving.spec, None)
        note = publish.publish_target(self.collection, self.settings, target, self.progress, check=gate).note
        _record(self.collection, dataclasses.replace(moving, state="promoted"))
        return note


def _is_done(collection: Collection) -> bool:
    """Whether the last migration was promoted, and what it made serves."""
    last = collection.migrations.newest()
    if last is None or last.state == "aborted":
        return False
    return live.vectors_fp(last.spec) == live.vectors_fp(_serving(collection))


def _there_already(collection: Collection) -> Standing:
    spec = _serving(collection)
    return Standing(collection=collection.name, state="there already", before=spec.model, dims=spec.dims)


def _record(collection: Collection, migration: Migration) -> None:
    """Write this in place of what was said of the same migration before."""
    collection.migrations.append(migration)
    same = [number for number, one in collection.migrations.all() if one.began_ms == migration.began_ms]
    collection.migrations.drop(same)


def _serving(collection: Collection) -> EmbedderSpec:
    found = collection.embedder()
    assert found is not None  # something is published
    return found


def _standing(
    collection: Collection,
    settings: config.Settings,
    moving: Migration,
    state: Literal["building", "aborted"],
) -> Standing:
    snapshot = collection.snapshot()
    refused = live.given_up(collection, moving.spec)
    failures = live.open_failures(collection, settings, moving.spec, snapshot)
    left = _left(collection, settings, moving.spec, snapshot)
    pace = moving.texts / moving.seconds if moving.texts and moving.seconds else None
    return Standing(
        collection=collection.name,
        state=state,
        before=_serving(collection).model,
        after=moving.spec.model,
        dims=moving.spec.dims,
        chunks=left.chunks,
        vectors=left.vectors,
        documents=left.documents,
        texts_left=left.texts,
        seconds_left=left.texts / pace if pace and not left.documents else None,
        began_ms=moving.began_ms,
        embedded_texts=moving.texts,
        seconds=moving.seconds,
        failures=tuple(
            Failure(uri=row["uri"], stage=row["stage"], kind=row["kind"], reason=row["reason"])
            for row in failures
            if row["stage"] == "chunk" or (row["stage"] == "embed" and row["key"] in refused)
        ),
    )


def _left(
    collection: Collection,
    settings: config.Settings,
    spec: EmbedderSpec,
    snapshot: Snapshot | None,
) -> _Left:
    chunks_fp = live.chunk_params(settings, spec).fingerprint()
    log = live.vector_log(collection, spec)
    refused = keys.packed(sorted(live.given_up(collection, spec)))
    chunks = vectors = documents = 0
    lacking = [keys.empty()]
    for shard, docs in live.of_snapshot(snapshot).items():
        if not collection.has_chunks(chunks_fp, shard):
            documents += len(docs)
            continue
        wanted = live.keys_of(collection, chunks_fp, shard, docs)
        there = log.has(wanted)
        chunks, vectors = chunks + len(wanted), vectors + int(there.sum())
        lacking.append(wanted[~there])
    texts = len(np.setdiff1d(np.concatenate(lacking), refused))
    return _Left(chunks=chunks, vectors=vectors, texts=texts, documents=documents)
