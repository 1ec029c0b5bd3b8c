"""The collection that the settings name: where it is, what to say when there is none, what it was built from."""

from __future__ import annotations

import logging
from pathlib import Path

from msgspec.structs import replace

from pipeline import config, errors
from pipeline.models import EmbedderSpec, identity
from pipeline.store import Collection

log = logging.getLogger(__name__)


def collection_of(settings: config.Settings) -> Collection:
    return Collection(Path(settings.data), settings.collection)


def nothing(settings: config.Settings) -> errors.NoIndex:
    return errors.NoIndex(
        f"There is no collection {settings.collection!r} in {settings.data}.",
        "Build it first: pipeline run DOCS",
    )


def last_folders(settings: config.Settings) -> tuple[Path, ...]:
    """The folders of the last ingest; none where there was none."""
    collection = collection_of(settings)
    snapshot = collection.snapshot() if collection.exists else None
    return tuple(Path(source) for source in snapshot.sources) if snapshot else ()


def settings_for(settings: config.Settings, spec: EmbedderSpec) -> config.Settings:
    """`settings` for the collection's model `spec`, without a model that was changed into it, or is to follow it.

    The setting that named the old model outlives `pipeline migrate`, which may end at night: then neither the next run
    nor a search should fail over it. What names any other model is left in, and refused where it always is.
    """
    others = [one for _, note in collection_of(settings).migrations.all() for one in (note.before, note.spec)]
    if not others or _names(settings, spec) or not any(_names(settings, other) for other in others):
        return settings
    log.warning(
        "The settings name another embedding model (%s) than collection %r has now (%s), which is used. Take "
        "embed.model, embed.provider and embed.dims out of them.",
        settings.embed.model or settings.openai.model or settings.embed.provider,
        settings.collection,
        spec.model,
    )
    return replace(
        settings,
        embed=replace(settings.embed, provider="auto", model="", dims=0),
        openai=replace(settings.openai, model=""),
    )


def _names(settings: config.Settings, spec: EmbedderSpec) -> bool:
    """Whether what the settings say of the embedder, if anything, is true of `spec`."""
    try:
        identity.refuse_another(settings, spec)
    except errors.ModelMismatch:
        return False
    return True
