"""Golden questions: a new index that finds clearly less of them than the published one is not published.

Both are asked the same questions in the same way, so that a question that was never found counts against neither. What
the documents no longer say is left out of both figures, and said.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from pipeline import config, errors, lance, live, schema, search
from pipeline.models import Embedder, EmbedderSpec, Vectors, resolve
from pipeline.report import Quality
from pipeline.store import Collection, Published

log = logging.getLogger(__name__)

AT = 5  # hits looked at
BATCH = 32  # questions in a request
WHOLE = 20  # characters of a quote that must stand in one passage as a whole; of a longer one, half


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file; other fields are for other readers. `quote`: stands in the document at `path`, a uri. A line
    without a path (a question that the documents do not answer) is passed over.
    """

    question: str
    path: str | None = None
    quote: str = ""


def load(settings: config.Settings) -> tuple[Question, ...]:
    """The golden questions; none where none are set.

    Raises:
        ConfigError: the file cannot be read, or a line is not {"question", "path", "quote"}.
    """
    if not settings.quality.questions:
        return ()
    path = Path(settings.quality.questions).expanduser()
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise errors.ConfigError(
            f"quality.questions: cannot read {path}: {error.strerror}", "Correct the path, or leave the setting out."
        ) from error
    found = [_decode(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    return tuple(question for question in found if question.path)


def _decode(path: Path, number: int, line: bytes) -> Question:
    try:
        return msgspec.json.decode(line, type=Question)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.ConfigError(
            f"{path}, line {number}: {error}",
            'Write one object a line: {"question": "...", "path": "...", "quote": "..."}',
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Questions with their vectors by one embedder, shape (questions, dims)."""

    spec: EmbedderSpec
    vectors: Vectors


class Gate:
    """What `publish` shows the new index to: see `open_gate`. `verdict`: after it was called."""

    def __init__(
        self,
        collection: Collection,
        settings: config.Settings,
        questions: Sequence[Question],
        left_out: Sequence[str],
        new: _Asked,
        old: tuple[_Asked, Published] | None,
    ) -> None:
        self._collection = collection
        self._settings = settings
        self._questions = questions
        self._left_out = tuple(left_out)
        self._new = new
        self._old = old
        self.verdict: Quality | None = None

    def __call__(self, candidate: lance.Reader) -> None:
        """Ask `candidate` and what is published.

        Raises:
            QualityDropped: it finds less by more than quality.max_drop.
        """
        found = self._found(candidate, self._new)
        before = None
        if self._old is not None:
            asked, note = self._old
            name = live.table_name(asked.spec)
            before = self._found(lance.Reader.open(self._collection.index_folder, name, note.version), asked)
        count = len(self._questions)
        most = self._settings.quality.max_drop * count + 1e-9
        refused = before is not None and before - found > most
        self.verdict = Quality(
            questions=count,
            left_out=self._left_out,
            recall=found / count,
            published_recall=before / count if before is not None else None,
            max_drop=self._settings.quality.max_drop,
            refused=refused,
        )
        if refused:
            raise self._refusal(found, before or 0)

    def _refusal(self, found: int, before: int) -> errors.QualityDropped:
        count, wanted = len(self._questions), self._settings.quality
        return errors.QualityDropped(
            f"The new index finds {found} of {count} golden questions among its first {AT} passages "
            f"(recall@{AT} {found / count:.3f}), the published one {before} ({before / count:.3f}). The new one "
            "was not published; the published one goes on serving.",
            "The next run tries again. If the drop is right, raise quality.max_drop "
            f"({wanted.max_drop:g}) or correct {wanted.questions}.",
        )

    def _found(self, reader: lance.Reader, asked: _Asked) -> int:
        wanted = self._settings.search
        params = search.SearchParams(
            mode=wanted.mode,
            top_k=AT,
            candidates=wanted.candidates,
            rrf_k=wanted.rrf_k,
            languages=asked.spec.languages,
        )
        pairs = zip(self._questions, asked.vectors, strict=True)
        return sum(answers(item, search.search(reader, item.question, vector, params)) for item, vector in pairs)


def answers(item: Question, hits: Sequence[search.Hit]) -> bool:
    """Whether one of the hits is a passage of the document with the quote in it, or with half of a longer one: a quote
    may lie across the end of a passage.
    """
    quote = _folded(item.quote)
    middle = len(quote) // 2
    parts = (quote,) if len(quote) < WHOLE else (quote[:middle], quote[middle:])
    texts = [_folded(hit.text) for hit in hits if item.path in (hit.path, *hit.also_in)]
    return any(part in text for text in texts for part in parts)


def _folded(text: str) -> str:
    """Without white space: a passage breaks its lines as the file did."""
    return "".join(text.split()).casefold()


async def open_gate(
    settings: config.Settings,
    collection: Collection,
    questions: Sequence[Question],
    spec: EmbedderSpec,
    embedder: Embedder | None,
) -> Gate | None:
    """Embed the questions that the newest snapshot can answer, for what is about to be published and for what is.

    Args:
        embedder: of `spec`; None: it is opened for this. What is published may be of another model: that is opened.

    Returns None where no question is left; which ones were left out is logged as a warning.

    Raises:
        PipelineError: an embedder cannot be reached.
    """
    kept, left_out = _answerable(collection, questions)
    if left_out:
        log.warning("%d golden questions are left out: the documents no longer hold their quotes.", len(left_out))
    if not kept:
        return None
    new = await _ask(settings, kept, spec, embedder)
    note = collection.published()
    old = None
    if note is not None:
        former = note.spec or spec
        old = (new if former == spec else await _ask(settings, kept, former, None), note)
    return Gate(collection, settings, kept, left_out, new, old)


def _answerable(collection: Collection, questions: Sequence[Question]) -> tuple[list[Question], list[str]]:
    """The questions whose quote stands in the newest snapshot's document, and the paths of the others."""
    snapshot = collection.snapshot()
    rows = snapshot.table.select(["uri", "shard", "doc_id"]).to_pylist() if snapshot is not None else []
    paths = {item.path for item in questions}
    places = {row["uri"]: (row["shard"], row["doc_id"]) for row in rows if row["uri"] in paths and row["doc_id"]}
    texts: dict[str, str] = {}
    for shard in {shard for shard, _ in places.values()}:
        table = collection.read_documents(shard, ["doc_id", "text"])
        texts |= dict(zip(schema.strings(table["doc_id"]), map(_folded, schema.strings(table["text"])), strict=True))
    kept, left_out = [], []
    for item in questions:
        place = places.get(item.path or "")
        if place is not None and _folded(item.quote) in texts.get(place[1], ""):
            kept.append(item)
        else:
            left_out.append(item.path or "")
    return kept, left_out


async def _ask(
    settings: config.Settings, questions: Sequence[Question], spec: EmbedderSpec, embedder: Embedder | None
) -> _Asked:
    if embedder is None:
        choice = await resolve.open_embedder(settings, spec, bulk=False)
        try:
            return await _ask(settings, questions, spec, choice.embedder)
        finally:
            await choice.embedder.aclose()
    texts = [spec.query(item.question) for item in questions]
    replies = [await embedder.embed(texts[at : at + BATCH], tokens=0) for at in range(0, len(texts), BATCH)]
    return _Asked(spec=spec, vectors=np.concatenate([reply.vectors for reply in replies]))
