"""What people read: reports, status and sources as lines of text. Data in, lines out; prints nothing.

Names of files, headings and texts come from the documents, so none reaches a terminal without `plain`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.answer_text import terminal_safe
from pipeline.cli.progress_bars import clock_time
from pipeline.report import Failure, Pending, Planned, Report, Status

if TYPE_CHECKING:
    from pipeline.answer import Answer
    from pipeline.calibration import Judgement
    from pipeline.search import Hit

SHOWN = 10  # failures and fates named before "and n more"
FATES = ("new", "changed", "moved", "deleted", "unchanged", "failed")
QUESTION = "..."  # to be replaced by the reader
STAGES = ("ingest", "chunk", "embed", "index")


def report(done: Report) -> list[str]:
    """What a run did, or what it would do."""
    if done.planned is not None:
        return list(_planned(done, done.planned))
    lines = [line for line in (_files(done), _chunks(done), _rows(done), _asked(done), _left(done)) if line]
    if not lines:
        lines = ["Nothing was due."]
    return [*lines[:-1], f"{lines[-1]} Done in {done.seconds:.1f} s."]


def _files(done: Report) -> str:
    """Such as "14 files: 12 new, 2 failed."; what is gone is not counted among the files."""
    if "ingest" not in done.stages:
        return ""
    total = sum(count for fate, count in done.files.items() if fate != "deleted")
    if not any(done.files.values()):
        return "No files."
    fates = [f"{done.files[fate]:,} {fate}" for fate in FATES if done.files.get(fate)]
    if done.files.get("unchanged", 0) == total and not done.files.get("deleted"):
        return f"{_count(total, 'file')}, nothing changed."
    return f"{_count(total, 'file')}: {', '.join(fates)}."


def _chunks(done: Report) -> str:
    """Such as "52 chunks, 50 embedded with MODEL (builtin, 384 dims), 9,120 tokens, 2,942 tokens/s."."""
    if not {"chunk", "embed"} & set(done.stages):
        return ""
    line = _count(done.chunks, "chunk")
    if "embed" not in done.stages:
        return f"{line} of {_count(done.documents, 'document')}."
    if not done.embedded_texts:
        return f"{line}, all embedded before with {_model(done)}." if done.chunks else f"{line}."
    line += f", {done.embedded_texts:,} embedded with {_model(done)}, {done.embedded_tokens:,} tokens"
    if done.embed_seconds > 0:
        line += f", {done.embedded_tokens / done.embed_seconds:,.0f} tokens/s"
    return f"{line}."


def _rows(done: Report) -> str:
    changes = [(done.rows_added, "added"), (done.rows_deleted, "removed")]
    told = ", ".join(f"{_count(rows, 'row')} {what}" for rows, what in changes if rows)
    return f"Index: {told}." if told else ""


def _asked(done: Report) -> str:
    """Such as "Golden questions: recall@5 0.925, published before 0.900 (40 asked, 2 left out)."."""
    if (found := done.quality) is None:
        return ""
    before = f", published before {found.published_recall:.3f}" if found.published_recall is not None else ""
    left_out = f", {len(found.left_out)} left out: no document holds their quotes" if found.left_out else ""
    return f"Golden questions: recall@5 {found.recall:.3f}{before} ({found.questions} asked{left_out})."


def _left(done: Report) -> str:
    """Such as "Incomplete, stopped by its time limit: 120 files not read; 3,400 chunks not embedded. ..."."""
    if not done.incomplete:
        return ""
    parts = (
        f"{_count(done.files_left, 'file')} not read" if done.files_left else "",
        f"{_count(done.chunks_left, 'chunk')} not embedded" if done.chunks_left else "",
        f"{_count(done.documents_held, 'document')} not searchable yet in the present version"
        if done.documents_held
        else "",
    )
    told = "; ".join(part for part in parts if part)
    return f"Incomplete, stopped by the time limit: {told or 'not all was chunked'}. The next run goes on."


def _planned(done: Report, planned: Planned) -> Iterator[str]:
    yield "Dry run, nothing is written."
    if files := _files(done):
        yield files
    width = max((len(fate) for _, fate in planned.fates), default=0)
    yield from (f"  {fate:{width}}  {plain(uri)}" for uri, fate in planned.fates[:SHOWN])
    if len(planned.fates) > SHOWN:
        yield f"  and {len(planned.fates) - SHOWN:,} more (--json names all)"
    if not planned.chunks:
        yield "Nothing to embed."
        return
    cost = f"To embed: {_count(planned.chunks, 'chunk')}, {planned.tokens:,} tokens"
    if done.model:
        cost += f" with {_model(done)}"
    if planned.seconds is not None:
        cost += f", about {clock_time(planned.seconds)} by earlier runs"
    yield f"{cost}."


def failures(found: Sequence[Failure]) -> Iterator[str]:
    """What could not be read or embedded, the first SHOWN by name."""
    if not found:
        return
    yield f"{_count(len(found), 'failure')}:"
    for failure in found[:SHOWN]:
        yield f"  {plain(failure.uri)}: {failure.kind}: {plain(failure.reason)}"
    if len(found) > SHOWN:
        yield f"  and {len(found) - SHOWN:,} more; all of them: pipeline status --json"
    yield "They are tried again when they change, or by `pipeline retry`."


def next_command(done: Report) -> str:
    """What to type after a run, without the program's name."""
    if done.dry_run:
        return " ".join(("run",) if set(done.stages) == set(STAGES) else done.stages[:1])
    if "ingest" in done.stages and not done.documents:
        return "run FOLDER"
    last = max(STAGES.index(stage) for stage in done.stages)
    return f'ask "{QUESTION}"' if STAGES[last] == "index" else STAGES[last + 1]


def status(found: Status) -> Iterator[str]:
    """How a collection stands."""
    yield f"{'collection':11}{found.collection}, snapshot {found.snapshot}, {found.disk_bytes / 1e6:,.1f} MB on disk"
    yield f"{'folders':11}{', '.join(plain(folder) for folder in found.folders) or 'none yet'}"
    yield f"{'model':11}{_model(found) if found.model else 'none yet'}"
    held = f"{_count(found.documents, 'document')}, {_count(found.chunks, 'chunk')}, {_count(found.vectors, 'vector')}"
    yield f"{'holds':11}{held}, {_count(found.indexed_rows, 'row')} searchable"
    yield f"{'due':11}{_due(found.pending) or 'nothing'}"
    if found.failures:
        yield f"{'rejected':11}{found.rejects:,}"
        yield from (f"  {line}" for line in list(failures(found.failures))[1:])


def _due(pending: Pending) -> str:
    parts = ["a folder cannot be listed"] if pending.files is None else []
    counts = (
        (pending.files, "file", "read"),
        (pending.documents, "document", "chunk"),
        (pending.chunks, "chunk", "embed"),
    )
    parts += [f"{_count(count, noun)} to {verb}" for count, noun, verb in counts if count]
    return ", ".join(parts + ["the index to bring up to date"] * pending.index)


def after_status(found: Status) -> str:
    """What to type after a look at the status, without the program's name."""
    due = _due(found.pending) or not found.indexed_rows
    return ("run" if found.folders else "run FOLDER") if due else f'ask "{QUESTION}"'


def sources(found: Answer) -> Iterator[str]:
    """The passages behind an answer, by the numbers that it cites."""
    parts = (
        (
            "Nearest passages:" if found.abstained else "Sources:",
            [s for s in found.sources if s.cited or found.abstained],
        ),
        ("Not cited:", [s for s in found.sources if not s.cited and not found.abstained]),
    )
    for title, part in parts:
        if part:
            yield title
            yield from (f"[{source.number}] {place(source.hit)}{_STALE[source.stale]}" for source in part)


_STALE = {"": "", "changed": " · changed since it was indexed", "gone": " · its file is gone"}


def judged(found: Answer) -> Iterator[str]:
    """Why a question was answered or refused, and what became of each sentence of the answer."""
    if found.judgement is not None:
        yield judgement(found.judgement)
    for one in found.statements:
        cited = "".join(f"[{number}]" for number in one.cites) or "nothing"
        yield f"{_VERDICTS[one.supported] if one.cites else 'cites nothing'}: {plain(found.text[one.start : one.end])}"
        if one.cites:
            better = f"; [{one.better}] fits better" if one.better else ""
            yield f"    {one.share:.0%} of its words in {cited}{better}"


def judgement(found: Judgement) -> str:
    """Why a model was asked, or not."""
    verdict = "refused" if found.refused else "answered"
    return f"Evidence {found.evidence:.2f} ({found.by}): {verdict}; below 0.50 no model is asked."


_VERDICTS = {True: "supported", False: "not supported", None: "cannot be compared"}


def place(hit: Hit) -> str:
    """Such as "handbook.pdf · p.3 · Leave > Annual · 0.83"."""
    page = f"p.{hit.page}" if hit.page is not None else ""
    parts = (plain(hit.path), page, plain(hit.heading), f"{hit.score:.2f}")
    return " · ".join(part for part in parts if part)


def plain(text: str) -> str:
    """A name or reason on one line, without anything that a terminal would obey."""
    return terminal_safe(text).replace("\n", " ")


def _model(of: Report | Status) -> str:
    return f"{of.model} ({of.provider}, {of.dims} dims)"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
