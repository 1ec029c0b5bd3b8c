"""The command that says how well a collection is searched."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import options
from pipeline.cli.state import State, complain, put_json

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.evaluate import Evaluation, Variant
    from pipeline.evaluate_baseline import Comparison
    from pipeline.question_sets import Question

MODES = ("hybrid", "vector", "text")
WORSE = 1  # exit code: worse than the baseline

_file = click.Path(path_type=Path)


@options.command("evaluate")
@click.argument("questions", required=False, type=_file)
@click.option("--queries", type=_file, metavar="FILE", help="The questions' text, where QUESTIONS are TREC qrels.")
@click.option("--mode", type=click.Choice(MODES), help="Ask in this mode only, not in all three.")
@click.option("--top-k", metavar="N", help="Passages that a user is shown: the k of recall@k.")
@click.option("--sweep", multiple=True, metavar="KEY=A,B", help="Compare settings; may be repeated.")
@click.option("--baseline", type=_file, metavar="FILE", help="Compare with a former --json output.")
@click.option("--make-questions", type=click.IntRange(1, 10_000), metavar="N", help="Draft N questions into QUESTIONS.")
@click.option("--calibrate", is_flag=True, help='Set when `ask` says "not in your documents", by these questions.')
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@options.json_output
@click.pass_obj
def evaluate(
    state: State,
    questions: Path | None,
    queries: Path | None,
    mode: str | None,
    top_k: str | None,
    sweep: tuple[str, ...],
    baseline: Path | None,
    make_questions: int | None,
    calibrate: bool,
    markdown: bool,
) -> int:
    """Measure how well the collection is searched.

    \b
    pipeline evaluate --make-questions 50 questions.jsonl     draft questions, then read through them
    pipeline evaluate questions.jsonl                         in each mode, with intervals
    pipeline evaluate questions.jsonl --sweep chunk.size=128,256,400
    pipeline evaluate questions.jsonl --json > baseline.json
    pipeline evaluate questions.jsonl --baseline baseline.json
    pipeline evaluate questions.jsonl --calibrate             questions with and without an answer, 30 of each

    \b
    QUESTIONS is, by its name:
      *.jsonl          lines {"question", "path", "quote"}; without a path: not answered by the documents
      *.json           SQuAD
      *.csv            chunking_evaluation: question, references, corpus_id
      a folder         BEIR: queries.jsonl and qrels/
      anything else    TREC qrels, with --queries
    Left out: quality.questions of the settings. The collection is asked as it is. Where --sweep asks for other chunks
    or another model, the same documents are indexed once more in a scratch folder, which is gone afterwards.

    Exit code 1: recall or nDCG is worse than the baseline beyond doubt (the 95 % interval of the difference, by paired
    bootstrap over the questions, lies below zero).
    """
    settings = state.load(search__top_k=top_k, search__mode=mode).settings
    path = questions or _default(settings)
    if make_questions is not None:
        return _draft(state, settings, path, make_questions)
    from pipeline import evaluate as evaluation
    from pipeline import evaluate_baseline, question_sets

    asked = question_sets.load(path, queries)
    if calibrate:
        return _calibrate(state, settings, asked)
    before = evaluate_baseline.load(baseline) if baseline is not None else None
    found = evaluation.evaluate(settings, asked, _variants(state, settings, mode, top_k, sweep), state.progress())
    compared = evaluate_baseline.compare(found, before) if before is not None else None
    return _tell(state, found, compared, markdown=markdown)


def _default(settings: Settings) -> Path:
    if not settings.quality.questions:
        raise errors.UsageError(
            "Which questions? No file was named, and quality.questions is not set.",
            "Name one: pipeline evaluate questions.jsonl. To draft some: pipeline evaluate --make-questions 50 "
            "questions.jsonl",
        )
    return Path(settings.quality.questions).expanduser()


def _variants(
    state: State, settings: Settings, mode: str | None, top_k: str | None, sweep: tuple[str, ...]
) -> list[Variant]:
    """What is compared: the sweep's combinations, else the modes; first the one that the settings ask for."""
    from pipeline import config_load, evaluate_sweep
    from pipeline.evaluate import Variant

    modes = [f"search.mode={','.join(sorted(MODES, key=lambda one: one != settings.search.mode))}"] if not mode else []
    found = []
    for choice in evaluate_sweep.choices(sweep or modes or [f"search.mode={mode}"]):
        given = {key.replace(".", "__"): value for key, value in choice.items()}
        common = {"search__top_k": top_k, "search__mode": mode}
        found.append(Variant(settings=state.load(**(common | given)).settings, choice=choice))
    now = config_load.flatten(settings)
    as_now = [all(config_load.flatten(one.settings)[key] == now[key] for key in one.choice) for one in found]
    return [one for _, one in sorted(zip(as_now, found, strict=True), key=lambda pair: not pair[0])]


def _tell(state: State, found: Evaluation, compared: Comparison | None, *, markdown: bool) -> int:
    from pipeline.cli import evaluate_tables

    if state.json:
        put_json(found.to_json() | ({"baseline": compared.to_json()} if compared is not None else {}))
    for line in evaluate_tables.lines(found, compared, markdown=markdown):
        state.tell(line)
    if found.unanswerable:
        state.say(f"{found.unanswerable} questions without an answer in the documents were not asked.")
    for line in evaluate_tables.left_out(found.left_out):
        state.say(line)
    if compared is None or not compared.regressions:
        return 0
    complain(f"{click.style('worse:', fg='red')} {', '.join(compared.regressions)} than the baseline, beyond doubt.")
    return WORSE


def _calibrate(state: State, settings: Settings, asked: Sequence[Question]) -> int:
    """Fit the threshold of `ask` to the collection, and tell what it does."""
    from pipeline import evaluate_calibrate
    from pipeline.cli import evaluate_tables

    found = evaluate_calibrate.calibrate(settings, asked, state.progress())
    if state.json:
        put_json(found.to_json())
    for line in evaluate_tables.calibrated(found):
        state.tell(line)
    for line in evaluate_tables.left_out(found.left_out):
        state.say(line)
    state.suggest('ask "..."')
    return 0


def _draft(state: State, settings: Settings, path: Path, count: int) -> int:
    """Write drafted questions to a file that is not there yet."""
    import asyncio

    from pipeline import evaluate_drafts, query, question_sets

    if path.exists():
        raise errors.UsageError(f"{path} is there already.", "Name a new file: what people have corrected stays.")
    if not path.parent.is_dir():
        raise errors.UsageError(f"There is no folder {path.parent}.", "Make it first, or name another one.")
    standing = query.open_collection(settings)
    found = asyncio.run(evaluate_drafts.draft(settings, standing, count, state.progress()))
    if found.lines:
        path.write_bytes(b"".join(map(question_sets.dump_line, found.lines)))
    if state.json:
        put_json({"model": found.model, "questions": len(found.lines), "refused": found.refused, "file": str(path)})
    refused = ", ".join(f"{reason} ({number})" for reason, number in found.refused.items())
    if refused:
        state.say(f"Drafts of {found.model} that were dropped: {refused}.")
    if not found.lines:
        raise errors.PipelineError(
            f"{found.model} wrote no question that could be kept.", "Try another model: PIPELINE_GENERATE_MODEL=..."
        )
    state.tell(
        f"{len(found.lines)} questions in {path}. Read through them: what they ask, and whether the quote answers."
    )
    state.suggest(f"evaluate {shlex.quote(str(path))}")
    return 0
