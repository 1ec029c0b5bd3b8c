"""What the pipeline asks of a reranker: how well each passage answers a question, read together with it.

An embedder reads question and passage apart; a cross-encoder reads both at once, which costs a pass of the model for
each passage and tells near misses from answers. Two kinds stand behind one Protocol: an ONNX file on this machine
(rerank_onnx.py) and a server (rerank_server.py). Which of the two is meant is in the setting: a URL is a server.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline import config, errors

REMEDY = "Check search.rerank, or search without it: --no-rerank."


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One number for each passage, in the order of the passages: the higher, the better, on the model's own scale.

    Attributes:
        cut: passages that were too long for the model and judged by their beginning; 0 where a server does not tell.
    """

    values: tuple[float, ...]
    cut: int = 0


class Reranker(Protocol):
    """Scores passages by a question. May be asked by several at a time."""

    @property
    def name(self) -> str:
        """For people: of the model, or of the server."""
        ...

    @property
    def changed(self) -> bool:
        """Whether another model lies where this one was loaded from, so that it should be opened anew.

        Raises:
            ModelMissing: none lies there any more.
        """
        ...

    async def open(self) -> None:
        """Load what has to be loaded, so that the first question need not wait for it. Nothing where a server does."""
        ...

    async def score(self, question: str, texts: Sequence[str], *, timeout_s: float) -> Scores:
        """Errors: as those of the package; TransientFault also where it takes longer than `timeout_s`."""
        ...

    async def aclose(self) -> None: ...


def create(settings: config.Settings, environment: Mapping[str, str] | None = None) -> Reranker | None:
    """The reranker that the settings name, not opened yet; None where they name none.

    Raises:
        ModelMissing: there is no such folder, or no model in it.
    """
    wanted = settings.search
    if not wanted.rerank:
        return None
    if is_url(wanted.rerank):
        from pipeline.models import rerank_server

        key = (os.environ if environment is None else environment).get(wanted.rerank_key_env, "")
        return rerank_server.ServerReranker(
            wanted.rerank, model=wanted.rerank_model, key=key, key_name=wanted.rerank_key_env
        )
    from pipeline.models import rerank_onnx

    return rerank_onnx.OnnxReranker(Path(wanted.rerank))


def is_url(rerank: str) -> bool:
    """Whether the setting names a server; else it is a folder."""
    return rerank.startswith(("http://", "https://"))


def checked(values: Sequence[float | None], name: str, passages: int) -> tuple[float, ...]:
    """Scores that can be believed.

    Raises:
        ModelError: another number of them than of passages, or one that is no number: an order made of these would be
            made up.
    """
    if len(values) != passages:
        raise errors.ModelError(f"{name} gave {len(values)} scores for {passages} passages.", REMEDY)
    found = tuple(math.nan if value is None else float(value) for value in values)
    bad = sum(not math.isfinite(value) for value in found)
    if bad:
        raise errors.ModelError(f"{name} gave {bad} of {passages} passages a score that is no number.", REMEDY)
    return found
