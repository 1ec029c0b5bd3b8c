"""Numbered records of a collection: JSON files of which the newest counts, each written once and never changed.

Knows files and numbers; what a record means is its owner's. A reader needs no lock: a record that is dropped while it
looks was not the newest.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Literal, TypeVar

import msgspec

from pipeline import errors
from pipeline.models import EmbedderSpec
from pipeline.store import files

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A publication: everything a reader has to know, and what was published.

    Attributes:
        live: hash of the live documents and their shards.
        rows: chunks that have their vector.
        snapshot: the number of the snapshot that was published; 0 in a record older than the field.
        version: of the table of `spec`; 0: the one that the table's tag names.
        at_ms: when, Unix time.
        spec: who embeds the collection from then on; None in a record older than the field.
        held: documents of the snapshot that are not embedded whole, and so are not in it; left: rows of their last
            versions, which go on being served.
        chunking: the parameters behind `chunks_fp`, for people; empty in an older record.
        rollback_of: the snapshot that it shows again; 0: it shows no older one.
    """

    live: str
    chunks_fp: str
    vectors_fp: str
    documents: int
    chunks: int
    rows: int
    snapshot: int = 0
    version: int = 0
    at_ms: int = 0
    spec: EmbedderSpec | None = None
    rollback_of: int = 0
    held: int = 0
    left: int = 0
    chunking: dict[str, str | int | bool] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether every document of the snapshot is shown, each with all its chunks. What is held back may not be cut
        yet, and then is in no count.
        """
        return self.rows == self.chunks and not self.held and not self.left


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A change of model: `spec` is being made beside `before`, which serves, until it is promoted or given up.

    Attributes:
        began_ms: Unix time of its first night.
        texts, seconds: embedded so far, and how long that took.
    """

    spec: EmbedderSpec
    before: EmbedderSpec
    state: Literal["building", "promoted", "aborted"]
    began_ms: int
    texts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How signals are weighed; below `threshold` a question is taken for unanswerable (see calibration.py)."""

    threshold: float
    similarity: float = 0.0
    coverage: float = 0.0
    strength: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What `pipeline evaluate` found out about questions to this collection, asked with `spec` in `mode`.

    Attributes:
        scales: by kind of question.
        answerable, unanswerable: questions that it was fitted to.
        refused, lost: shares of these, measured on questions that it was not fitted to.
        at_ms: when, Unix time.
    """

    spec: EmbedderSpec
    mode: str
    scales: dict[str, Scale]
    answerable: int
    unanswerable: int
    refused: float
    lost: float
    at_ms: int


def numbered(folder: Path, suffix: str) -> list[tuple[int, Path]]:
    """The files in `folder` whose name is a number, by number."""
    found = ((path.stem, path) for path in folder.glob(f"*{suffix}"))
    return sorted((int(stem), path) for stem, path in found if stem.isdigit())


class Records(Generic[T]):
    """The records of type `kind` (a dataclass or a msgspec Struct) in `folder`."""

    def __init__(self, folder: Path, temporary: Path, kind: type[T]) -> None:
        self._folder = folder
        self._temporary = temporary
        self._kind = kind

    def newest(self) -> T | None:
        """The record that counts; None before the first.

        One that is torn was never finished: the one before it counts, so that a question is answered all the same.

        Raises:
            CorruptStore: it is whole and says something else than a record, or all there are are torn.
        """
        found = numbered(self._folder, ".json")
        for _, path in reversed(found):
            with files.disk_errors(path):
                data = path.read_bytes()
            if not _is_torn(data) or path == found[0][1]:
                return self._decode(path, data)
            log.warning("%s: torn by a crash of the machine; the one before it counts", path)
        return None

    def all(self) -> list[tuple[int, T]]:
        """Every record there is, oldest first, with its number; what is torn, or dropped meanwhile, is left out."""
        records = []
        for number, path in numbered(self._folder, ".json"):
            with contextlib.suppress(FileNotFoundError):
                if not _is_torn(data := path.read_bytes()):
                    records.append((number, self._decode(path, data)))
        return records

    def append(self, record: T) -> int:
        """Write `record`, which counts from now on; returns its number."""
        found = numbered(self._folder, ".json")
        number = found[-1][0] + 1 if found else 1
        data = msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"
        files.write_once(self._temporary, self._folder / f"{number:08d}.json", lambda file: file.write(data))
        return number

    def drop(self, numbers: Iterable[int]) -> None:
        """Forget these; never the newest."""
        found = dict(numbered(self._folder, ".json")[:-1])
        for number in numbers:
            if number in found:
                with files.disk_errors(found[number]):
                    found[number].unlink(missing_ok=True)

    def _decode(self, path: Path, data: bytes) -> T:
        try:
            return msgspec.json.decode(data, type=self._kind)
        except msgspec.DecodeError as error:
            raise errors.CorruptStore(f"{path} is damaged: {error}", errors.MEND) from error


def _is_torn(data: bytes) -> bool:
    """Whether it ends too soon: `append` writes one JSON object and a line feed."""
    return not data.endswith(b"}\n")
