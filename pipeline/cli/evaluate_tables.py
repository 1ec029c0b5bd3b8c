"""An evaluation as tables, for a terminal or in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.evaluate import Evaluation
    from pipeline.evaluate_baseline import Comparison
    from pipeline.evaluate_calibrate import Calibrated
    from pipeline.placing import LeftOut
    from pipeline.scoring import Estimate

_MOST_LEFT_OUT = 5  # that are named

Table = Sequence[Sequence[str]]  # the header first


def lines(found: Evaluation, compared: Comparison | None, *, markdown: bool) -> Iterator[str]:
    """What was asked, the measures of each row, and what differs from the first row and from the baseline."""
    first = found.rows[0].name
    yield (
        f"{len(found.questions):,} questions to {found.collection!r} ({found.model}), {found.at} passages shown; "
        "in percent, with 95 % intervals."
    )
    yield ""
    yield from _drawn(_measures(found), markdown=markdown)
    if len(found.rows) > 1:
        yield ""
        yield f"+ better, - worse than {first}: beyond doubt, asked the same questions. --json has the intervals."
    if markdown and len(found.rows) > 1:
        yield ""
        yield f"Difference from {first} (*: the 95 % interval leaves out zero):"
        yield ""
        yield from _drawn(_differences(found), markdown=True)
    if compared is not None:
        yield ""
        yield f"Difference from the baseline ({compared.before}) on the {compared.common:,} questions in common:"
        yield ""
        yield from _drawn(_difference_table({first: compared.differences}), markdown=markdown)


def left_out(lost: Sequence[LeftOut]) -> Iterator[str]:
    """Which questions could not be asked, and why."""
    if lost:
        yield f"{len(lost)} questions are left out:"
    for one in lost[:_MOST_LEFT_OUT]:
        place = one.wanted.document or one.wanted.passage[:60]
        yield f"  {one.question.where}: {one.why}: {place}"
    if len(lost) > _MOST_LEFT_OUT:
        yield f"  and {len(lost) - _MOST_LEFT_OUT} more: --json lists them."


_KINDS = {
    "meaning": "questions in a language of the model",
    "words": "questions in another language",
    "coverage": "questions judged by their words alone",
}


def calibrated(found: Calibrated) -> Iterator[str]:
    """What the new threshold does to questions that it was not fitted to."""
    for one in found.fitted:
        held = one.held_out
        yield (
            f"{_KINDS[one.kind].capitalize()}: {one.answerable} with an answer, {one.unanswerable} without. "
            f"Of others like them `ask` will refuse {held.refused:.0%} of those without, and lose {held.lost:.1%} of "
            "those with."
        )
    yield "Kept with the collection."


def _measures(found: Evaluation) -> Table:
    from pipeline import evaluate, scoring

    first = found.rows[0]
    rows = [["", *first.values, "tokens", "ms"]]
    for row in found.rows:
        less = evaluate.difference(row, first)
        cells = [_percent(scoring.estimate(values)) + _mark(less.get(name)) for name, values in row.values.items()]
        rows.append([row.name, *cells, f"{row.tokens:.0f}", _ms(row.milliseconds)])
    return rows


def _differences(found: Evaluation) -> Table:
    from pipeline import evaluate

    first, *others = found.rows
    return _difference_table({row.name: evaluate.difference(row, first) for row in others})


def _difference_table(differences: Mapping[str, Mapping[str, Estimate]]) -> Table:
    header = ["", *next(iter(differences.values()))]
    rows = [[name, *(_signed(one) for one in row.values())] for name, row in differences.items()]
    return [header, *rows]


def _percent(one: Estimate) -> str:
    """A mean with the larger half of its interval: 81.2 ±2.9."""
    return f"{100 * one.mean:.1f} ±{_half(one):.1f}"


def _mark(less: Estimate | None) -> str:
    return "+" if less is not None and less.is_better else "-" if less is not None and less.is_worse else " "


def _signed(one: Estimate) -> str:
    """A difference, with a star if its interval leaves out zero: -9.3 ±2.8*."""
    return f"{100 * one.mean:+.1f} ±{_half(one):.1f}{'*' if one.is_better or one.is_worse else ' '}"


def _half(one: Estimate) -> float:
    return 100 * max(one.high - one.mean, one.mean - one.low)


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds < 100 else f"{milliseconds:.0f}"


def _drawn(table: Table, *, markdown: bool) -> Iterator[str]:
    if markdown:
        yield from (f"| {' | '.join(map(str.strip, row))} |" for row in table[:1])
        yield "|" + "---|" * len(table[0])
        yield from (f"| {' | '.join(map(str.strip, row))} |" for row in table[1:])
        return
    header = [table[0][0], *(f"{cell} " for cell in table[0][1:])]  # above the marks stands nothing
    table = [header, *table[1:]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for row in table:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        yield " ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip()
