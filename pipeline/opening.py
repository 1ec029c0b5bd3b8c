"""The collection that the settings name: where it is, what to say when there is none, what it was built from."""

from __future__ import annotations

from pathlib import Path

from pipeline import config, errors
from pipeline.store import Collection


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
