"""What lies on disk under the data folder; nothing else builds a path there."""

from pipeline.store.collection import Collection, Snapshot, own_folders
from pipeline.store.records import Calibration, Migration, Published, Scale
from pipeline.store.sentences import SentenceLog
from pipeline.store.vectors import VectorLog

__all__ = [
    "Calibration",
    "Collection",
    "Migration",
    "Published",
    "Scale",
    "SentenceLog",
    "Snapshot",
    "VectorLog",
    "own_folders",
]
