"""A model tried out: sentences whose similarity is known, and a short measurement of its speed.

Works on any `Embedder`, through the same calls as a run, so what a run would refuse (a wrong norm, a wrong dimension,
token counts that disagree) fails here too. Knows no server and no setting.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import errors
from pipeline.doctor_check import Check, failed
from pipeline.models import Embedder, Vectors, profiles, tokens, transport
from pipeline.models.resolve import Choice

# The most alike first, each step wide (MiniLM: 0.95, 0.85, 0.63, 0.32, -0.03). Each pair has a subject of its own, and
# the two halves lie five places apart in the batch: vectors that changed places would fall out of order.
PAIRS = (
    (
        "The old lighthouse keeper climbs the stairs every evening to light the lamp.",
        "Every evening the old lighthouse keeper climbs up the stairs and lights the lamp.",
    ),
    (
        "Our bakery sells fresh bread and rolls from six in the morning.",
        "The bakery opens at six in the morning and sells fresh rolls, cakes and coffee.",
    ),
    (
        "The train to Geneva was delayed by heavy snow in the mountains.",
        "In the snow people waited for a train.",
    ),
    (
        "She planted tomatoes and beans in the garden behind the house.",
        "Heavy rain in spring is good for the garden.",
    ),
    (
        "The committee rejected the proposal to raise taxes on fuel.",
        "Whales sing to each other across hundreds of miles of ocean.",
    ),
)
CHINESE = (
    ("图书馆每天早上九点开门，晚上八点关门。", "图书馆早上九点开门，周末晚上六点关门。"),
    ("她在院子里种了番茄和豆子。", "火山爆发后，厚厚的灰尘覆盖了整个村庄。"),
)
SPEED_TEXTS = 8
SPEED_TOKENS = 250  # a text: 2,000 in all, about what a passage has
MEASURE_S = 2.5  # a slow machine is not measured for longer
IN_FLIGHT = 2  # as a run starts
# Each is one token of bert-base-uncased.
_WORD_LIST = """
water river stone bridge garden market summer winter morning evening village harbour mountain forest island road train
letter music window table chair paper bread apple horse farmer doctor teacher soldier captain engine metal glass wood
"""
_WORDS = _WORD_LIST.split()

Open = Callable[[], Awaitable[Choice]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the trial found. `vectors`: of the sentences, None where it failed; `tokens_per_s` 0: not measured."""

    checks: tuple[Check, ...]
    vectors: Vectors | None = None
    tokens_per_s: float = 0.0
    error: errors.ModelError | None = None


async def run(open_: Open, *, model: str, server: str, patience_s: float) -> Outcome:
    """Load the model, embed the sentences, measure. `open_` opens the embedder as a run would.

    Args:
        patience_s: for loading and the sentences, and again for the measurement.
    """
    try:
        async with transport.deadline(server, patience_s):
            choice = await open_()
    except errors.PipelineError as error:
        return _failure(error, failed("self-test", error, _remedy(error, model)))
    try:
        return await _try(choice.embedder, server, patience_s)
    except errors.PipelineError as error:
        # A drift of token counts says "run doctor": here that would go round in a circle.
        own = isinstance(error, errors.ModelMismatch | errors.BadVectors) or not error.remedy
        return _failure(error, failed("self-test", _bare(error) if own else error, _remedy(error, model)))
    finally:
        await choice.embedder.aclose()


async def _try(embedder: Embedder, server: str, patience_s: float) -> Outcome:
    pairs = [*PAIRS, *(CHINESE if multilingual(embedder) else ())]
    texts = [first for first, _ in pairs] + [second for _, second in pairs]
    async with transport.deadline(server, patience_s):
        reply = await embedder.embed(texts, tokens=sum(_counts(embedder, texts)))
    checks = [judge(embedder.spec.model, reply.vectors)]
    async with transport.deadline(server, patience_s):
        counted, seconds = await measure(embedder)
    rate = counted / max(seconds, 1e-6)
    detail = f"{rate:,.0f} tokens/s ({counted:,} tokens in {seconds:.2f} s)"
    checks.append(Check(level="pass", name="speed", detail=detail))
    return Outcome(checks=tuple(checks), vectors=reply.vectors, tokens_per_s=rate)


def multilingual(embedder: Embedder) -> bool:
    """Whether the model is known to read Chinese: by its profile, since an unknown model's languages are unknown."""
    return profiles.find(embedder.spec.model) is not None and not embedder.spec.languages


def judge(model: str, vectors: Vectors) -> Check:
    """Whether the pairs' similarities stand in the order that any sound model gives them.

    Args:
        vectors: first halves, then second halves, of PAIRS and then perhaps of CHINESE; unit length.
    """
    half = len(vectors) // 2
    cosines = np.einsum("ij,ij->i", vectors[:half], vectors[half:])
    groups = (cosines[: len(PAIRS)], cosines[len(PAIRS) :])
    if all((np.diff(group) < 0).all() for group in groups):
        detail = (
            f"{vectors.shape[1]} dimensions, unit length, {half} pairs of sentences in order ({_told(groups, ' > ')})"
        )
        return Check(level="pass", name="self-test", detail=f"{model}: {detail}")
    return Check(
        level="fail",
        name="self-test",
        detail=f"{model}: {half} pairs of sentences are not in their order of similarity ({_told(groups, ', ')})",
        remedy=f"Embed nothing with it. Pull it again (`ollama pull {model}`), update the server, and see whether "
        "it is an embedding model.",
    )


def _told(groups: Sequence[Sequence[float]], between: str) -> str:
    return "; ".join(between.join(f"{value:.2f}" for value in group) for group in groups if len(group))


def _counts(embedder: Embedder, texts: Sequence[str]) -> list[int]:
    """Tokens by the packaged vocabulary; zeros (nothing is compared) where the model has another."""
    packaged = tokens.builtin()
    return packaged.count(texts) if embedder.spec.tokenizer == packaged.identity else [0] * len(texts)


def speed_texts(limit: int) -> list[str]:
    """One text to warm up with and SPEED_TEXTS to measure: the same in every run, all different, of at most `limit`
    tokens."""
    length = max(1, min(SPEED_TOKENS, limit))
    count = len(_WORDS)
    return [
        " ".join(_WORDS[(place * (text + 1) + text) % count] for place in range(length))
        for text in range(SPEED_TEXTS + 1)
    ]


async def measure(embedder: Embedder, budget_s: float = MEASURE_S) -> tuple[int, float]:
    """Tokens and seconds. The first text says how slow the machine is; if it took long, it is the measurement. No
    request is sent after `budget_s`."""
    clock = asyncio.get_running_loop().time
    texts = speed_texts(embedder.spec.limit)
    start_s = clock()
    counted = await _embed(embedder, texts[:1])
    first_s = clock() - start_s
    if first_s > budget_s / 2:  # two more, in flight together, would take the rest and more
        return counted, first_s
    each = max(1, min(SPEED_TEXTS // IN_FLIGHT, int(1.0 / max(first_s, 1e-3))))
    requests = iter([texts[at : at + each] for at in range(1, len(texts), each)])
    start_s = clock()
    lanes = [asyncio.create_task(_lane(embedder, requests, start_s + budget_s)) for _ in range(IN_FLIGHT)]
    try:
        counted = sum(await asyncio.gather(*lanes))
    finally:
        for lane in lanes:
            lane.cancel()
    return counted, clock() - start_s


async def _lane(embedder: Embedder, requests: Iterator[list[str]], until_s: float) -> int:
    counted = 0
    clock = asyncio.get_running_loop().time
    for texts in requests:
        counted += await _embed(embedder, texts)
        if clock() > until_s:
            break
    return counted


async def _embed(embedder: Embedder, texts: Sequence[str]) -> int:
    reply = await embedder.embed(texts, tokens=sum(_counts(embedder, texts)))
    return reply.prompt_tokens or sum(tokens.builtin().count(texts))


def same_vectors(found: Sequence[Vectors]) -> float:
    """The least cosine between any two servers' vectors of one sentence; 1 for one server."""
    pairs = itertools.combinations(found, 2)
    return min((float(np.einsum("ij,ij->i", a, b).min()) for a, b in pairs), default=1.0)


def _failure(error: errors.PipelineError, check: Check) -> Outcome:
    return Outcome(checks=(check,), error=error if isinstance(error, errors.ModelError) else None)


def _bare(error: errors.PipelineError) -> errors.PipelineError:
    return errors.PipelineError(error.message)


def _remedy(error: errors.PipelineError, model: str) -> str:
    """What to do, where the error does not say."""
    if isinstance(error, errors.BadVectors):
        return (
            f"Run `ollama stop {model}` and `pipeline doctor` again: one text can poison a loaded model until it is "
            "loaded anew. If it stays so, update Ollama: https://ollama.com/download"
        )
    if isinstance(error, errors.ModelMismatch):
        return f"Run `ollama pull {model}` (it may have been replaced there), or build a new collection."
    if isinstance(error, errors.TransientFault):
        return "If nothing else uses the server and no model is loading, restart it: a runner can hang for good."
    return ""
