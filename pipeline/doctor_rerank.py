"""Doctor's look at the reranker: that it answers, puts an answer above a near miss, and what a passage costs.

Asked through the same calls as a search, so what a search would refuse fails here too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from pipeline import config, errors
from pipeline.doctor_check import Check, failed
from pipeline.models import rerank, transport

NAME = "reranker"
# Question, answer, near miss: the miss names the subject and answers nothing.
ENGLISH = (
    "When does the library close on Sundays?",
    "On Sundays the library closes at six in the evening.",
    "The library lends books, films and maps of the region.",
)
CHINESE = ("图书馆星期天几点关门？", "星期天图书馆晚上六点关门。", "图书馆里可以看电影。")
PASSAGES = 8  # timed together, after the first ones have warmed it up
WORDS = 180  # of a timed passage: about as long as one of 256 tokens


async def check(settings: config.Settings, env: Mapping[str, str], patience_s: float) -> list[Check]:
    """Nothing where no reranker is set."""
    try:
        reranker = rerank.create(settings, env)
    except errors.PipelineError as error:
        return [failed(NAME, error)]
    if reranker is None:
        return []
    try:
        return [await _try(reranker, settings, patience_s)]
    except errors.PipelineError as error:
        return [failed(NAME, error)]
    finally:
        await reranker.aclose()


async def _try(reranker: rerank.Reranker, settings: config.Settings, patience_s: float) -> Check:
    await reranker.open()
    ordered = {}
    for language, (question, answer, miss) in (("English", ENGLISH), ("Chinese", CHINESE)):
        first, second = (await reranker.score(question, [answer, miss], timeout_s=patience_s)).values
        ordered[language] = first > second
    begun_s = time.perf_counter()
    await reranker.score(ENGLISH[0], _passages(), timeout_s=patience_s)
    each_ms = 1000 * (time.perf_counter() - begun_s) / PASSAGES
    wanted = settings.search
    where = wanted.rerank if not rerank.is_url(wanted.rerank) or transport.is_loopback(wanted.rerank) else _FAR
    cost = f"{each_ms:.0f} ms a passage, {wanted.rerank_top * each_ms / 1000:.1f} s a question ({where})"
    if not any(ordered.values()):
        return Check(
            level="fail",
            name=NAME,
            detail=f"{reranker.name} puts near misses above answers; {cost}",
            remedy="It is no reranker, or of other languages: set search.rerank to another, or to nothing.",
        )
    languages = " and ".join(language for language, right in ordered.items() if right)
    return Check(level="pass", name=NAME, detail=f"{reranker.name}: tells answers in {languages}; {cost}")


_FAR = "on another machine: questions and passages are sent there"


def _passages() -> list[str]:
    words = " ".join(ENGLISH[1:]).split()
    return [" ".join(words[(place + number) % len(words)] for place in range(WORDS)) for number in range(PASSAGES)]
