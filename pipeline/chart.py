"""A map of a collection: the passages of its publication as points of a plane, in groups with names.

What is published is read as a question reads it, so that no lock is held and a run goes on beside it. Each map is kept
under what it was made from (store.charts). Of more than POINTS passages a sample is drawn: those with the smallest
ids, which are hashes, so that the sample is fair and stays nearly the same from night to night.

Knows passages and files of the collection; how points are placed, projection does, and how groups are named, telling.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import config, errors, ids, lance, lance_rows, projection, query, schema, telling
from pipeline.progress import Progress
from pipeline.projection import Projection
from pipeline.store import Collection, Published
from pipeline.store.charts import Entry

log = logging.getLogger(__name__)

POINTS = 50_000  # that a browser pans with ease, and two cores place within a minute
MOST_POINTS = 200_000
TYPICAL = 5  # passages that stand for a group, of as many documents where there are
_READ = ("chunk_id", "uri", "title", "page", "text", "vector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Passages that lie together.

    Attributes:
        words: the most telling first; none where no word tells it from the others.
        typical: rows of the map, the most typical first.
    """

    words: tuple[str, ...]
    size: int
    typical: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What stands beside the rows of a map.

    Attributes:
        passages: of the publication; points: of these, how many are drawn.
        snapshot: number of the publication; published_ms: when it was made, Unix time; seconds: what the map took.
    """

    passages: int
    points: int
    snapshot: int
    published_ms: int
    model: str
    dims: int
    seconds: float
    groups: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chart:
    """A map. `rows`: of schema.MAP. `fresh`: it was made just now, not found."""

    entry: Entry
    rows: pa.Table
    note: Note
    fresh: bool = False

    def to_json(self) -> dict[str, Any]:
        """For `pipeline map --json`."""
        told = {"file": str(self.entry.path), "at_ms": self.entry.at_ms, "made": self.fresh}
        noted: dict[str, Any] = msgspec.to_builtins(self.note)
        return told | noted


def made_from(note: Published, points: int) -> str:
    """What a map of this publication is made from, in one word: what is searched, and how it is drawn."""
    what = {"live": note.live, "chunks": note.chunks_fp, "vectors": note.vectors_fp, "rows": note.rows}
    what |= {"held": note.held, "left": note.left}
    return ids.fingerprint("map", projection.VERSION, what | ({"points": points} if note.rows > points else {}))


def make(settings: config.Settings, progress: Progress, *, points: int = POINTS, again: bool = False) -> Chart:
    """The map of what is published: the one that is kept, or a new one.

    Args:
        again: make a new one in any case.

    Raises:
        ConfigError: the extra is not installed. NoIndex: nothing is published, or no passage is in it.
    """
    standing = query.open_collection(settings)
    name, charts = made_from(standing.note, points), standing.collection.charts
    found = charts.find(name)
    if found is not None and not again:
        try:
            return read(standing.collection, found)
        except errors.CorruptStore as error:  # it can be made again, and nothing else is lost with it
            log.warning("A map is made again: %s", error.message)
    projection.check()
    chart = _draw(standing, points, name, progress)
    charts.tidy()
    return chart


def _draw(standing: query.Standing, points: int, name: str, progress: Progress) -> Chart:
    begin = time.monotonic()
    rows, total = _published(query.open_reader(standing), points)
    if not rows.num_rows:
        raise errors.NoIndex("No passage is indexed, so there is nothing to draw.", "Run `pipeline run DOCS`.")
    progress.start("map", projection.STEPS, "step")
    placed = projection.project(_matrix(rows), lambda: progress.advance("map"))
    progress.finish("map")
    note = Note(
        passages=total,
        points=rows.num_rows,
        snapshot=standing.note.snapshot,
        published_ms=standing.note.at_ms,
        model=standing.spec.model,
        dims=standing.spec.dims,
        seconds=round(time.monotonic() - begin, 2),
        groups=_groups(rows, placed),
    )
    drawn = _with_places(rows, placed)
    entry = standing.collection.charts.write(name, drawn, msgspec.json.encode(note).decode())
    return Chart(entry=entry, rows=drawn, note=note, fresh=True)


def _with_places(rows: pa.Table, placed: Projection) -> pa.Table:
    drawn = rows.select(["chunk_id", "uri", "title", "page"])
    for column, values in (("x", placed.points[:, 0]), ("y", placed.points[:, 1]), ("group", placed.groups)):
        drawn = drawn.append_column(schema.MAP.field(column), pa.array(values))
    return schema.check(drawn, schema.MAP, "map")


def _published(reader: lance.Reader, points: int) -> tuple[pa.Table, int]:
    """Rows with their vectors, at most `points`, in order of chunk_id, and how many there are in all."""
    names = reader.rows(["chunk_id"])["chunk_id"]
    where = None
    if len(names) > points:
        last = names.take(pc.array_sort_indices(names)[points - 1 : points])[0].as_py()
        where = lance.Predicate(f"chunk_id <= {lance.quote(last)}")
    rows = reader.rows(_READ, where)
    return rows.sort_by("chunk_id").combine_chunks(), len(names)


def _matrix(rows: pa.Table) -> projection.Numbers:
    return np.concatenate([lance_rows.matrix(batch) for batch in rows.select(["vector"]).to_batches()])


def _groups(rows: pa.Table, placed: Projection) -> tuple[Group, ...]:
    """Each group with its name; of its texts the most typical are read."""
    count = int(placed.groups.max()) + 1
    members = [np.flatnonzero(placed.groups == group) for group in range(count)]
    members = [rows_[np.argsort(placed.distances[rows_], kind="stable")] for rows_ in members]
    texts = [schema.strings(rows["text"].take(one[: telling.READ])) for one in members]
    uris = rows["uri"]
    return tuple(
        Group(words=words, size=len(one), typical=_typical(one, uris))
        for one, words in zip(members, telling.labels(texts), strict=True)
    )


def _typical(members: Sequence[int] | Any, uris: Any) -> tuple[int, ...]:
    """The first TYPICAL members, each of another document where there are so many."""
    near = [int(row) for row in members[: telling.READ]]
    first: dict[str, int] = {}
    for row in near:
        first.setdefault(uris[row].as_py(), row)
    chosen = list(first.values())[:TYPICAL]
    chosen += [row for row in near if row not in chosen][: TYPICAL - len(chosen)]
    return tuple(chosen)


# -- what there is


def newest(collection: Collection, note: Published) -> tuple[Entry, bool] | None:
    """The map to show for this publication, and whether it is of this one: else it is of an older one. None: there is
    no map.
    """
    entries = collection.charts.all()
    if not entries:
        return None
    for entry in reversed(entries):
        if is_of(collection, entry, note):
            return entry, True
    return entries[-1], False


def is_of(collection: Collection, entry: Entry, note: Published) -> bool:
    """Whether this map shows this publication, with however many points."""
    if entry.made_from == made_from(note, note.rows):  # all of its passages
        return True
    drawn = _note(collection, entry)
    return drawn.passages > drawn.points and entry.made_from == made_from(note, drawn.points)


def _note(collection: Collection, entry: Entry) -> Note:
    try:
        return msgspec.json.decode(collection.charts.note(entry), type=Note)
    except msgspec.DecodeError as error:
        raise errors.CorruptStore(
            f"{entry.path} is damaged: {error}", "Delete that file, or make it again: pipeline map --again"
        ) from error


def read(collection: Collection, entry: Entry) -> Chart:
    """A map that is there.

    Raises:
        CorruptStore: it is damaged, or was dropped meanwhile.
    """
    rows, _ = collection.charts.read(entry)
    return Chart(entry=entry, rows=rows, note=_note(collection, entry))
