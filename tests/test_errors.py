"""The error tree: its docstring is its documentation, and every class crosses a process boundary."""

from __future__ import annotations

import pickle
import re

import pytest

from pipeline import errors


def every_class() -> list[type[errors.PipelineError]]:
    found = [errors.PipelineError]
    for kind in found:
        found.extend(kind.__subclasses__())
    return found


@pytest.mark.parametrize("kind", every_class())
def test_errors_pickle_with_message_and_remedy(kind: type[errors.PipelineError]) -> None:
    word = ("kind",) if kind in (errors.DocumentError, errors.TextRejected) else ()
    error = kind(*word, "what happened", "what to do")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.message, back.remedy) == ("what happened", "what to do")
    assert str(back) == "what happened\nwhat to do"


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = re.findall(r"^(?:[│├└─ ]*)(\w+)\s+(\d+|–)   ", errors.__doc__ or "", flags=re.MULTILINE)
    assert {name for name, _ in drawn} == {kind.__name__ for kind in every_class()}
    for name, code in drawn:
        if code != "–":
            assert getattr(errors, name).exit_code == int(code), name
