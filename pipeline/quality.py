"""Golden questions: a new index that finds clearly less of them than the published one is not published.

Both are asked the same questions in the same way, so that a question that was never found counts against neither. What
the documents no longer say is left out of both figures, and said.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline import config, errors, lance, live, opening, placing, question_sets, quotes, search
from pipeline.models import Embedder, EmbedderSpec, Vectors, resolve
from pipeline.question_sets import Line as Question
from pipeline.report import Quality
from pipeline.store import Collection, Published

log = logging.getLogger(__name__)

AT = 5  # hits looked at
BATCH = 32  # questions in a request


def load(settings: config.Settings) -> tuple[Question, ...]:
    """The golden questions; none where none are set.

    Raises:
        ConfigError: the file cannot be read, or a line is not {"question", "path", "quote"}.
    """
    if not settings.quality.questions:
        return ()
    path = Path(settings.quality.questions).expanduser()
    try:
        lines = [line for _, line in question_sets.read_lines(path)]
    except errors.UsageError as error:
        raise errors.ConfigError(f"quality.questions: {error.message}", error.remedy) from error
    return tuple(line for line in lines if line.path)  # without a path: the documents do not answer it


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
        wanted = search.SearchParams.of(self._settings.search, asked.spec.languages)
        params = replace(wanted, top_k=AT, offered=0)  # no reranker: it would hide what the index itself finds
        pairs = zip(self._questions, asked.vectors, strict=True)
        return sum(answers(item, search.search(reader, item.question, vector, params)) for item, vector in pairs)


def answers(item: Question, hits: Sequence[search.Hit]) -> bool:
    """Whether one of the hits is a passage of the document with the quote in it, or with half of a longer one."""
    return any(item.path in (hit.path, *hit.also_in) and quotes.holds(hit.text, item.quote) for hit in hits)


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
    asked = {question_sets.of_line(item): item for item in questions}
    placed = placing.place(collection, collection.snapshot(), list(asked))
    left_out = {one.question for one in placed.left_out}
    kept = [item for question, item in asked.items() if question not in left_out]
    return kept, [item.path or "" for question, item in asked.items() if question in left_out]


async def _ask(
    settings: config.Settings, questions: Sequence[Question], spec: EmbedderSpec, embedder: Embedder | None
) -> _Asked:
    vectors = await embed_questions(settings, spec, [item.question for item in questions], embedder)
    return _Asked(spec=spec, vectors=vectors)


async def embed_questions(
    settings: config.Settings, spec: EmbedderSpec, texts: Sequence[str], embedder: Embedder | None
) -> Vectors:
    """The vectors of questions after the model's query template, shape (questions, dims).

    Args:
        embedder: of `spec`; None: it is opened for this.

    Raises:
        ModelError: it cannot be reached, or is not the model that `spec` says.
    """
    if embedder is None:
        choice = await resolve.open_embedder(opening.settings_for(settings, spec), spec, bulk=False)
        try:
            return await embed_questions(settings, spec, texts, choice.embedder)
        finally:
            await choice.embedder.aclose()
    sent = [spec.query(text) for text in texts]
    replies = [await embedder.embed(sent[at : at + BATCH], tokens=0) for at in range(0, len(sent), BATCH)]
    vectors: Vectors = np.concatenate([reply.vectors for reply in replies])
    return vectors
