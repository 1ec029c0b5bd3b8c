"""The budgets of the architecture page: short functions, short modules, as much test code as it takes."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conftest import LONGEST_FIRST

ROOT = Path(__file__).parent.parent
MODULES = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "pipeline").rglob("*.py"))}


def test_nine_functions_of_ten_are_within_25_lines() -> None:
    lengths = [
        (node.end_lineno or 0) - node.lineno + 1
        for text in MODULES.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    assert sum(length <= 25 for length in lengths) >= 0.9 * len(lengths)


def test_modules_are_within_450_lines() -> None:
    assert {path.name: text.count("\n") for path, text in MODULES.items() if text.count("\n") > 450} == {}


def test_modules_say_what_they_know() -> None:
    empty = [path.name for path, text in MODULES.items() if text.strip() and not ast.get_docstring(ast.parse(text))]
    assert empty == []


def test_there_is_enough_test_code() -> None:
    package = sum(text.count("\n") for text in MODULES.values())
    tests = sum(path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "tests").rglob("*.py"))
    assert tests >= 0.8 * package


def test_the_files_that_come_first_are_there() -> None:
    assert [name for name in LONGEST_FIRST if not (ROOT / "tests" / name).exists()] == []
