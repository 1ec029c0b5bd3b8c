"""What lies on disk under the data folder; nothing else builds a path there."""

from pipeline.store.collection import Collection, Snapshot, own_folders
from pipeline.store.records import Migration, Published
from pipeline.store.vectors import VectorLog

__all__ = ["Collection", "Migration", "Published", "Snapshot", "VectorLog", "own_folders"]
