"""One file: what a run would do with it, and which part of what makes a vector asks for it.

Looks at the folders as a run does, and reads and cuts this one file in a worker. Writes nothing, asks no model server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import changes, config, errors, executor, forecast, left_out, live, opening, pools, readers, tasks
from pipeline.models import EmbedderSpec
from pipeline.readers import containers
from pipeline.scan import File
from pipeline.stages import ingest
from pipeline.store import Collection, Snapshot

Verdict = Literal["unchanged", "touched", "new", "moved", "changed", "deleted", "rejected", "unreadable", "left out"]

SHOWN = 100  # characters of a chunk's text
SHOWN_INSIDE = 5  # documents of a file that cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWhy:
    """A chunk as the next run would make it. `reason`: why it would be embedded; "" where it has its vector."""

    start: int
    end: int
    heading_path: tuple[str, ...]
    tokens: int
    embedded: bool
    reason: str
    text: str  # its beginning


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What would happen to a file. `causes`: what asks for it, one sentence each."""

    uri: str
    verdict: Verdict
    summary: str
    causes: tuple[str, ...] = ()
    chunks: tuple[ChunkWhy, ...] = ()

    @property
    def to_embed(self) -> int:
        return sum(not chunk.embedded for chunk in self.chunks)

    @property
    def tokens(self) -> int:
        """Of the chunks to embed."""
        return sum(chunk.tokens for chunk in self.chunks if not chunk.embedded)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"to_embed": self.to_embed, "tokens": self.tokens}


def explain(settings: config.Settings, path: Path) -> Why:
    """What a run would do with the file at `path`, or of this uri.

    Raises:
        NoIndex: there is no collection. UsageError: the file lies in none of its folders. SourceError: a folder is
            not there.
    """
    collection = opening.collection_of(settings)
    snapshot = collection.snapshot() if collection.exists else None
    if snapshot is None:
        raise opening.nothing(settings)
    folders = [Path(source) for source in snapshot.sources]
    scanned = changes.look(settings, collection, folders)
    place = _place(path, folders, scanned.found.prefixes, snapshot.table["uri"])
    return _Case(settings, collection, snapshot, scanned, place).explain()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a file lies: its source folder, the path below that, and its uri."""

    folder: Path
    relative: str
    uri: str


def _place(path: Path, folders: Sequence[Path], prefixes: Sequence[str], known: Any) -> _Place:
    absolute = Path(os.path.abspath(path.expanduser()))  # noqa: PTH100  (a link's own name counts, not what it names)
    places = list(zip(folders, prefixes, strict=True))
    for folder, prefix in places:
        for candidate in (absolute, absolute.parent.resolve() / absolute.name):
            if candidate.is_relative_to(folder) and candidate != folder:
                relative = candidate.relative_to(folder).as_posix()
                return _Place(folder=folder, relative=relative, uri=prefix + relative)
    name = path.as_posix()
    for folder, prefix in [] if path.is_absolute() else places:  # as `search` names it
        file = folder / containers.split(name.removeprefix(prefix))[0]
        if name.startswith(prefix) and (pc.any(_is(known, name)).as_py() or file.exists()):
            return _Place(folder=folder, relative=name.removeprefix(prefix), uri=name)
    raise errors.UsageError(
        f"{path} lies in none of this collection's folders: {', '.join(map(str, folders))}.",
        "Name a file below one of them, or another --collection.",
    )


def _is_as(file: File, row: ingest.Row) -> bool:
    return (file.size, file.mtime_ns, file.inode) == (row["size"], row["mtime_ns"], row["inode"])


def _is(column: Any, value: str) -> Any:
    return pc.is_in(column, pa.array([value], pa.string()))


def _row(snapshot: Snapshot, uri: str) -> ingest.Row | None:
    rows: list[ingest.Row] = snapshot.table.filter(_is(snapshot.table["uri"], uri)).to_pylist()
    return rows[0] if rows else None


def _file_of(uri: str, files: Sequence[str], row: ingest.Row | None) -> str:
    """The file that holds the document `uri`; `uri` itself for a file."""
    known, at = frozenset(files), uri.find(containers.SEPARATOR)
    while at >= 0 and uri not in known:
        if uri[:at] in known:
            return uri[:at]
        at = uri.find(containers.SEPARATOR, at + 1)
    return row["container"] or uri if row is not None else uri if uri in known else containers.split(uri)[0]


class _Case:
    def __init__(
        self,
        settings: config.Settings,
        collection: Collection,
        snapshot: Snapshot,
        scanned: changes.Scanned,
        place: _Place,
    ) -> None:
        self._settings = settings
        self._collection = collection
        self._snapshot = snapshot
        self._scanned = scanned
        self._place = place
        self._spec = collection.embedder()
        self._row = _row(snapshot, place.uri)
        self._file_uri = _file_of(place.uri, scanned.found.files.uris, self._row)
        self._member = place.uri.removeprefix(self._file_uri).removeprefix(containers.SEPARATOR)

    def _say(self, verdict: Verdict, summary: str, *causes: str) -> Why:
        return Why(uri=self._place.uri, verdict=verdict, summary=summary, causes=causes)

    def explain(self) -> Why:
        uri = self._file_uri
        for refused in self._scanned.refused:
            if uri == refused.uri or uri.startswith(f"{refused.uri}/"):
                stays = "; what was known of it stays searchable" if refused.kept else ""
                return self._say("unreadable", f"{refused.uri}: {refused.kind}: {refused.reason}{stays}")
        files = self._scanned.found.files
        if uri not in files.uris:
            return self._absent()
        file = files[files.uris.index(uri)]
        due = next((item for item in self._scanned.plan.due if item.uri == uri), None)
        return self._kept() if due is None else self._due(file, due)

    def _absent(self) -> Why:
        inside = len(self._place.uri) - len(self._file_uri)
        relative = self._place.relative[: len(self._place.relative) - inside]
        path = self._place.folder / relative
        there = os.path.lexists(path)
        if self._row is None and not there:
            raise errors.UsageError(f"There is no file {path}.", "Check its name.")
        gone = ("it was searchable until now: its rows would be dropped",) if self._row and self._row["doc_id"] else ()
        if not there:
            return self._say("deleted", "it is not there any more", *gone)
        rule = left_out.rule(changes.scan_rules(self._settings), self._place.folder, relative)
        if rule.startswith("no reader knows") and containers.may_be_archive(relative):
            rule = f"{rule}: archives are read if readers.archives = true"
        return self._say("left out", rule or "it is no regular file", *gone)

    def _not_inside(self) -> errors.UsageError:
        return errors.UsageError(
            f"There is no document {self._member} in {self._file_uri}.",
            f"`pipeline inspect {self._file_uri}` lists what is in it; files of unknown kinds are left out.",
        )

    def _kept(self) -> Why:
        row = self._row
        if row is None:
            raise self._not_inside()
        if row["status"] != "ok":
            reason = next((r["reason"] for r in self._rejects("ingest") if r["uri"] == row["uri"]), "")
            return self._say(
                "rejected",
                f"{row['status']}: {reason}",
                f"it is read again when it changes, or by `pipeline retry`; {self._since('status', 'content_hash')}",
            )
        said = self._say("unchanged", self._since("content_hash", "doc_hash"), *self._holds())
        return self._with_chunks(said, self._cut(row), changed=False) if row["shard"] is not None else said

    def _holds(self) -> Iterator[str]:
        """What is inside the file, in a sentence."""
        table = self._snapshot.table
        rows = table.filter(_is(table["container"], self._place.uri)).to_pylist()
        failed = [row for row in rows if row["status"] != "ok"]
        if rows:
            names = ", ".join(f"{row['uri']} ({row['status']})" for row in failed[:SHOWN_INSIDE])
            which = f"; {len(failed):,} cannot be read: {names}" if failed else ""
            yield f"it holds {len(rows):,} {'document' if len(rows) == 1 else 'documents'}{which}"

    def _since(self, *columns: str) -> str:
        """Such as "unchanged since snapshot 12 (2026-11-21 02:30)": as far back as snapshots are kept."""
        assert self._row is not None
        oldest, more = self._snapshot, ""
        for number in reversed(self._collection.snapshots()[:-1]):
            earlier = self._collection.snapshot(number)
            row = _row(earlier, self._place.uri) if earlier is not None else None
            if earlier is None or row is None or any(row[name] != self._row[name] for name in columns):
                break
            oldest = earlier
        else:
            more = " or longer" if oldest.number > 1 else ""
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(oldest.scanned_ns / 1e9))
        return f"unchanged since snapshot {oldest.number} ({at}){more}"

    def _due(self, file: File, due: ingest.Due) -> Why:
        row = self._row
        if due.previous is not None and self._is_same(file, due):
            return self._kept()  # looked into by a run only because it was so young at the last one
        read, rows = self._read(file)
        if read.row is None:
            return self._without_text(due, read)
        if row is not None and row["status"] == "ok" and row["doc_hash"] == read.row["doc_hash"]:
            summary = "it was touched, its content is the same"
            if row["content_hash"] == read.content_hash and self._member:
                summary = "its file is looked into again, its content is the same"
            elif not due.known_hash or row["content_hash"] != read.content_hash:
                summary = f"{', '.join(self._causes(read))}; the text is the same"
            return self._with_chunks(self._say("touched", summary), rows, changed=False)
        verdict: Verdict = "changed" if row is not None else "new"
        moved = [old["uri"] for old in self._scanned.plan.gone if old["content_hash"] == read.content_hash]
        if row is None and moved:
            return self._with_chunks(self._say("moved", f"it was {moved[0]}"), rows, changed=True)
        causes = self._causes(read)
        return self._with_chunks(self._say(verdict, causes[0], *causes[1:]), rows, changed=True)

    def _is_same(self, file: File, due: ingest.Due) -> bool:
        """Whether the file is what it was, though it has to be opened to know."""
        known = due.known_hash != "" and due.previous is not None and _is_as(file, due.previous)
        return known and tasks.hash_file(file.path, file.size) == due.known_hash

    def _without_text(self, due: ingest.Due, read: tasks.Read) -> Why:
        """A failure, a file that only holds documents, or a document that is not in its file any more."""
        if read.kind == "vanished" and self._member:
            if self._row is None:
                raise self._not_inside()
            return self._say("deleted", f"it is no longer in {self._file_uri}")
        causes = self._causes(read)
        if read.kind != "ok":
            return self._say("rejected", f"{read.kind}: {read.reason}", *causes)
        each = f"what is in it is listed by `pipeline inspect {self._file_uri}`"
        return self._say("changed" if due.previous is not None else "new", causes[0], *causes[1:], each)

    def _causes(self, read: tasks.Read) -> list[str]:
        row, found = self._row, []
        if row is None:
            return ["it was not there at the last snapshot"]
        if row["content_hash"] != read.content_hash:
            found.append("its content changed")
        if not readers.is_current(row["reader"], row["uri"], changes.reader_options(self._settings)):
            found.append(f"its reader changed: {row['reader']} -> {read.reader}")
        if row["status"] != "ok":
            found.append(f"it could not be read at the last snapshot ({row['status']})")
        return found or ["its text changed" if read.row is not None else "what is in it may have changed"]

    # -- chunks

    def _tokenizer(self, spec: EmbedderSpec) -> Path | None:
        return forecast.tokenizer_of(self._collection, spec)

    def _read(self, file: File) -> tuple[tasks.Read, list[dict[str, Any]]]:
        """The document as it is now, and its chunks (none before a model was chosen)."""
        options = changes.reader_options(self._settings)
        timeout_s = 2 * executor.read_timeout_s(self._settings, file.size)
        words: tuple[Any, ...] = ("pipeline.tasks:read_one", file.path, executor.seen(file), options)
        if self._spec is not None:
            params = live.chunk_params(self._settings, self._spec)
            words = ("pipeline.tasks:inspect", *words[1:], params, self._tokenizer(self._spec))
        try:
            with pools.opened(1, self._settings.readers.memory_mb) as pool:
                found = pool.submit(*words, self._member, timeout_s=timeout_s).result()
        except errors.WorkerError as error:
            reader = readers.reader_of(file.uri, options)
            found = tasks.Read(
                seen=executor.seen(file), content_hash="", reader=reader, kind=error.kind, reason=error.message
            )
        return found if isinstance(found, tuple) else (found, [])

    def _cut(self, row: ingest.Row) -> list[dict[str, Any]]:
        """The chunks of a document that was read before, as they are or as they would be cut now."""
        if self._spec is None:
            return []
        params = live.chunk_params(self._settings, self._spec)
        if self._collection.has_chunks(params.fingerprint(), row["shard"]):
            table = self._collection.read_chunks(params.fingerprint(), row["shard"])
            return table.filter(_is(table["doc_id"], row["doc_id"])).to_pylist()
        words = (self._collection, row["shard"], row["doc_id"], params, self._tokenizer(self._spec))
        timeout_s = self._settings.chunk.timeout_s
        with pools.opened(1, self._settings.readers.memory_mb) as pool:
            made: pa.Table = pool.submit("pipeline.tasks:chunk_one", *words, timeout_s=timeout_s).result()
        return made.to_pylist()

    def _rejects(self, stage: str) -> list[dict[str, Any]]:
        """The newest reject rows first."""
        return [row for row in reversed(self._collection.rejects().to_pylist()) if row["stage"] == stage]

    def _with_chunks(self, said: Why, rows: list[dict[str, Any]], *, changed: bool) -> Why:
        """The same with each chunk's fate; `changed`: the document's text is not what it was."""
        if self._spec is None or not rows:
            return said
        there = live.vector_log(self._collection, self._spec).contains([row["embed_key"] for row in rows])
        refused = {
            row["key"]: f"refused before: {row['kind']}: {row['reason']}" for row in self._rejects("embed")[::-1]
        }
        why = self._why_uncut() if not changed else "the text is new to this model"
        chunks = tuple(
            ChunkWhy(
                start=row["start"],
                end=row["end"],
                heading_path=tuple(row["heading_path"]),
                tokens=row["tokens"],
                embedded=bool(has),
                reason="" if has else refused.get(row["embed_key"], why),
                text=" ".join(row["text"][:SHOWN].split()),
            )
            for row, has in zip(rows, there, strict=True)
        )
        causes = said.causes if changed or all(there) else (*said.causes, why)
        nothing = "" if not all(there) or changed else "nothing: "
        return replace(said, chunks=chunks, causes=causes, summary=nothing + said.summary)

    def _why_uncut(self) -> str:
        """Why the chunks of a document that did not change may lack their vectors."""
        assert self._spec is not None
        note, params = self._collection.published(), live.chunk_params(self._settings, self._spec)
        if note is not None and note.chunks_fp != params.fingerprint():
            now = asdict(params)
            parts = [
                f"{name} {note.chunking[name]} -> {now[name]}"
                for name in now
                if note.chunking.get(name, now[name]) != now[name]
            ]
            what = ", ".join(parts) or "not known in which, or the program cuts otherwise now"
            return f"the chunk settings changed since the last publication: {what}"
        if note is not None and note.vectors_fp != live.vectors_fp(self._spec):
            return f"the model changed: {self._spec.model}"
        return "an earlier run did not get to it"
