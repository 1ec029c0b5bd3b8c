"""What lies on disk under the data folder; nothing else builds a path there."""

from pipeline.store.collection import Collection, Published, Snapshot
from pipeline.store.vectors import VectorLog

__all__ = ["Collection", "Published", "Snapshot", "VectorLog"]
