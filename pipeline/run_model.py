"""Who embeds in a run: found once, written into the collection, and kept by every later run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from pipeline import config, errors, opening, situating
from pipeline.models import Embedder, EmbedderSpec, Storage, resolve
from pipeline.progress import Progress
from pipeline.situating import Author
from pipeline.store import Collection


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Who embeds in this run; `embedder` is None when no stage needs one. `note`: what the user should know of it.

    `author`: who writes sentences before the chunks, None for nobody.
    """

    spec: EmbedderSpec
    embedder: Embedder | None = None
    note: str = ""
    author: Author | None = None

    async def aclose(self) -> None:
        """Let go of the servers."""
        try:
            if self.embedder is not None:
                await self.embedder.aclose()
        finally:
            if self.author is not None:
                await self.author.aclose()


async def open_model(
    settings: config.Settings, collection: Collection, stages: frozenset[str], progress: Progress, *, pull: bool
) -> Model | None:
    """Find out who embeds, and keep it: a collection stays with the model it was begun with.

    Returns None when no stage of `stages` needs to know.

    Raises:
        NoIndex: `index` alone, before anything was embedded.
        PipelineError: as `resolve.open_embedder`.
    """
    recorded = collection.embedder()
    if not stages & {"chunk", "embed", "index"}:
        return None
    model = await _opened(settings, collection, stages, progress, recorded, pull=pull)
    model = await with_author(settings, model, recorded)
    if model.embedder is not None:
        collection.set_embedder(model.spec)
    return model


async def with_author(settings: config.Settings, model: Model, known: EmbedderSpec | None) -> Model:
    """`model` with who writes sentences before the chunks, where the settings want it; closed if there is nobody.
    `known`: who wrote them so far. Raises as `situating.find_author`.
    """
    try:
        author = await find_author(settings, known)
    except BaseException:
        await model.aclose()
        raise
    spec = dataclasses.replace(model.spec, situated_by=author.made_by if author is not None else "")
    return dataclasses.replace(model, spec=spec, author=author)


async def _opened(
    settings: config.Settings,
    collection: Collection,
    stages: frozenset[str],
    progress: Progress,
    recorded: EmbedderSpec | None,
    *,
    pull: bool,
) -> Model:
    """The embedder alone."""
    if "embed" not in stages and recorded is not None:
        return Model(spec=recorded)
    if stages == {"index"}:
        raise errors.NoIndex("Nothing has been embedded yet.", "Run `pipeline embed` first, or `pipeline run DOCS`.")
    if recorded is not None:
        settings = opening.settings_for(settings, recorded)
    storage = _storage(settings, recorded)
    pulled = Pulled(progress) if pull else None
    choice = await resolve.open_embedder(settings, recorded, pull=pulled, later=True)
    if choice.note:
        progress.message(choice.note)
    spec = dataclasses.replace(choice.embedder.spec, storage=storage)
    if choice.tokenizer is not None:
        collection.keep_tokenizer(spec.tokenizer, choice.tokenizer)
    return Model(spec=spec, embedder=choice.embedder, note=choice.note or "")


async def find_author(settings: config.Settings, recorded: EmbedderSpec | None) -> Author | None:
    """Who writes sentences by these settings, None for nobody. `recorded`: of the collection; raises as
    `situating.find_author`.
    """
    if not settings.chunk.contextual:
        return None
    return await situating.find_author(settings, recorded.situated_by if recorded is not None else "")


async def would_choose(settings: config.Settings, collection: Collection) -> tuple[EmbedderSpec, str]:
    """The model that a run would use, and the line that would be said about it; writes nothing.

    Raises:
        PipelineError: as `resolve.open_embedder`, where the collection has no model yet.
    """
    recorded = collection.embedder() if collection.exists else None
    author = await find_author(settings, recorded)
    situated_by = author.made_by if author is not None else ""
    if author is not None:
        await author.aclose()
    if recorded is not None:
        return dataclasses.replace(recorded, situated_by=situated_by), ""
    choice = await resolve.open_embedder(settings, None, bulk=False)
    await choice.embedder.aclose()
    spec = dataclasses.replace(choice.embedder.spec, storage=settings.embed.storage, situated_by=situated_by)
    return spec, choice.note or ""


def _storage(settings: config.Settings, recorded: EmbedderSpec | None) -> Storage:
    """What vectors are kept as: by the settings, and then as the collection was begun.

    Raises:
        ModelMismatch: half the size was asked for, and it has the whole. (The other way round cannot be told from
            a setting that was left out.)
    """
    asked, name = settings.embed.storage, settings.collection
    if recorded is not None and asked == "float16" != recorded.storage:
        raise errors.ModelMismatch(
            f"Collection {name!r} keeps its vectors as {recorded.storage}; embed.storage = {asked} was asked for.",
            "Leave that out to go on with it, or build another collection: "
            f"PIPELINE_EMBED_STORAGE={asked} pipeline --collection {name}-new run DOCS",
        )
    return recorded.storage if recorded is not None else asked


@dataclass(slots=True)
class Pulled:
    """How far a pull is, as progress."""

    progress: Progress
    total: int = 0
    done: int = 0

    def __call__(self, step: resolve.PullStep) -> None:
        """Show how far a pull is."""
        self.progress.start("pull", None, "B")
        self.progress.grow("pull", step.total - self.total)
        self.progress.advance("pull", step.completed - self.done)
        self.total, self.done = step.total, step.completed
        if step.status == "success":
            self.progress.finish("pull")
            self.progress.message(f"Pulled {step.model}.")
