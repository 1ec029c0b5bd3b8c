"""An evaluation against an earlier one: the same questions, answered then and now. Knows the file that
`pipeline evaluate --json` wrote, and nothing of collections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from pipeline import errors, scoring
from pipeline.evaluate import Evaluation
from pipeline.scoring import Estimate

JUDGED = ("recall@", "nDCG@")  # beginnings of the measures that decide; the others are shown


class _Row(msgspec.Struct, frozen=True):
    name: str
    values: dict[str, list[float]]


class _File(msgspec.Struct, frozen=True):
    keys: list[str]
    rows: list[_Row]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What became of the first row since the baseline.

    Attributes:
        before: the baseline's row.
        common: questions that both were asked; only these count.
        differences: measure → now less then.
        regressions: measures that decide and are worse beyond doubt (the whole 95 % interval lies below zero).
    """

    before: str
    common: int
    differences: dict[str, Estimate]
    regressions: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.before,
            "questions": self.common,
            "differences": {name: one.to_json() for name, one in self.differences.items()},
            "regressions": list(self.regressions),
        }


def load(path: Path) -> _File:
    """A former `--json` output.

    Raises:
        UsageError: it cannot be read, or is something else.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except OSError as error:
        raise errors.UsageError(f"--baseline: cannot read {path}: {error.strerror}", "Correct the path.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.UsageError(
            f"--baseline: {path} is not what `pipeline evaluate --json` wrote: {error}",
            "Write one: pipeline evaluate QUESTIONS --json > baseline.json",
        ) from error
    if not found.rows or any(len(values) != len(found.keys) for row in found.rows for values in row.values.values()):
        raise errors.UsageError(f"--baseline: {path} is cut short.", "Write it again.")
    return found


def compare(now: Evaluation, baseline: _File) -> Comparison:
    """The first rows of both, on the questions that both have.

    Raises:
        UsageError: there is none.
    """
    positions = {key: number for number, key in enumerate(baseline.keys)}
    common = [(number, positions[key]) for number, key in enumerate(now.keys) if key in positions]
    if not common:
        raise errors.UsageError(
            "--baseline: it was made with other questions.", "Compare evaluations of the same file of questions."
        )
    row, before = now.rows[0], baseline.rows[0]
    here, there = (list(side) for side in zip(*common, strict=True))
    differences = {
        name: scoring.estimate(values[here] - np.array(before.values[name])[there])
        for name, values in row.values.items()
        if name in before.values
    }
    return Comparison(
        before=before.name,
        common=len(common),
        differences=differences,
        regressions=tuple(_worse(differences)),
    )


def _worse(differences: dict[str, Estimate]) -> Sequence[str]:
    return [name for name, one in differences.items() if name.startswith(JUDGED) and one.is_worse]
