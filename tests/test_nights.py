"""Whether the benchmark of 30 nights can tell growth from noise, and draws what can be opened."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import nights
from benchmarks.incremental import documents, generate


@given(st.floats(0.1, 1e6), st.floats(-0.02, 0.05), st.integers(8, 40))
def test_a_straight_line_grows_by_what_it_grows(start: float, per_night: float, count: int) -> None:
    values = [start * (1 + per_night * n) for n in range(count)]
    grown = (values[-1] - values[0]) / sorted(values)[count // 2]
    found = nights.judge(values)
    assert found.growth == pytest.approx(grown, rel=0.1, abs=1e-9)
    assert found.least == pytest.approx(found.growth, rel=1e-6, abs=1e-9)


def test_noise_is_no_growth_and_growth_in_noise_is() -> None:
    dice = random.Random(4)
    noise = [10 + dice.uniform(-2, 2) for _ in range(23)]
    assert nights.judge(noise).within(0.1)
    assert not nights.judge([value + 0.3 * n for n, value in enumerate(noise)]).within(0.1)


def test_one_slow_night_is_no_growth() -> None:
    assert nights.judge([10.0] * 20 + [90.0, 10.0, 10.0]).growth == 0.0


def test_one_night_in_five_that_costs_double_is_no_growth_either() -> None:
    assert nights.judge([20.0 if n % 5 == 4 else 10.0 for n in range(23)]).within(0.1)


def test_a_day_changes_moves_deletes_and_writes(tmp_path: Path) -> None:
    generate(tmp_path, files=50, paragraphs=3)
    before = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in documents(tmp_path)}
    nights.change(tmp_path, random.Random(1), 1, share=0.04)
    after = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in documents(tmp_path)}
    assert len(after) == len(before)
    assert sum(before.get(name, text) != text for name, text in after.items()) == 2
    moved = [name for name in after if name.endswith("moved.md")]
    assert len(moved) == 2
    assert {after[name] for name in moved} <= set(before.values())
    assert len(set(before) - set(after)) == 4
    assert len([name for name in after if name.endswith("new.md")]) == 2


def test_the_plot_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "nights.svg"
    path.write_text(nights.svg([("on disk, MB", [1.0, 2.0, 3.0]), ("a question", [0.5, 0.5, 0.4])]))
    root = ET.parse(path).getroot()
    lines = [element for element in root.iter() if element.tag.endswith("path")]
    assert [len(line.attrib["d"].split()) for line in lines] == [3, 3]
    assert [text.text for text in root.iter() if text.text and "MB" in text.text] == ["on disk, MB"]
