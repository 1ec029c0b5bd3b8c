"""An embedder in this process on a clock that jumps: what the tests of the embed engine share."""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from pipeline import errors, models
from pipeline.stages import embed
from tests.fake_ollama import vectors

T = TypeVar("T")
DIMS = 32
SPEC = models.EmbedderSpec(provider="builtin", model="fake", digest="d", dims=DIMS, limit=510, tokenizer="t")
CANARIES = tuple(embed.Item(key="", text=text, tokens=9) for text in ("canary one", "canary two"))
WHOLE = embed.EngineOptions(first_texts=64)  # no small first batch: a test that counts requests sends one batch


class VirtualSelector(selectors.DefaultSelector):
    """Where a loop would sleep until the next timer, its clock jumps there instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout:
            self.now_s += timeout
        assert timeout is not None, "everything waits for something that will never come"
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def vector(text: str) -> models.Vectors:
    return vectors.hash_vector(text, DIMS)


Answer = Callable[["FakeEmbedder", list[str]], models.Vectors]


@dataclass
class FakeEmbedder:
    """Embeds at `s_per_token`, one request at a time.

    `answers` are played to the first requests, in order (`right`: as usual). A batch with POISON in it is
    answered by `poison`, always. `sick`: zeros for everything until `reset`.
    """

    limits: models.Limits = field(default_factory=models.Limits)
    spec: models.EmbedderSpec = SPEC
    s_per_token: float = 0.001
    fixed_s: float = 0.0
    parallel: int = 1
    answers: list[Answer] = field(default_factory=list)
    poison: Answer | None = None
    sick: bool = False
    batches: list[list[str]] = field(default_factory=list)
    timeouts_s: list[float | None] = field(default_factory=list)
    in_flight: int = 0
    peak: int = 0
    peak_texts: int = 0
    texts_in_flight: int = 0
    cancelled: int = 0
    resets: int = 0
    closed: bool = False

    def __post_init__(self) -> None:
        self._runner = asyncio.Semaphore(self.parallel)

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> models.EmbedReply:
        self.batches.append(list(texts))
        self.timeouts_s.append(timeout_s)
        answer = self.answers.pop(0) if self.answers else None
        self.in_flight += 1
        self.texts_in_flight += len(texts)
        self.peak = max(self.peak, self.in_flight)
        self.peak_texts = max(self.peak_texts, self.texts_in_flight)
        try:
            await asyncio.sleep(self.fixed_s)
            async with self._runner:
                await asyncio.sleep(tokens * self.s_per_token)
            if answer is hang:
                await asyncio.sleep(1e9)
            return models.EmbedReply(vectors=self._answer(answer, list(texts)))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1
            self.texts_in_flight -= len(texts)

    def _answer(self, answer: Answer | None, texts: list[str]) -> models.Vectors:
        if answer is not None and answer is not right and not (answer is doubled and len(texts) == 1):
            return answer(self, texts)
        if self.poison is not None and any("POISON" in text for text in texts):
            return self.poison(self, texts)
        return zeros(self, texts) if self.sick else right(self, texts)

    async def reset(self) -> None:
        self.resets += 1
        self.sick = False

    async def aclose(self) -> None:
        self.closed = True

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]


class Unmendable(FakeEmbedder):
    """Its model can be loaded again and stays as it was."""

    async def reset(self) -> None:
        self.resets += 1


def right(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    return np.stack([vector(text) for text in texts])


def hang(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise AssertionError("a hang has no answer")


def zeros(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    return np.zeros((len(texts), DIMS), np.float32)


def one_zero(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    found = right(fake, texts)
    found[-1] = 0
    return found


def sticky_zeros(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    fake.sick = True
    return zeros(fake, texts)


def not_a_number(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    found = right(fake, texts)
    found[0, 3] = np.nan
    return found


def short(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    return right(fake, texts)[1:]


def doubled(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    return np.repeat(right(fake, texts)[:1], len(texts), axis=0)


def half(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    return np.ascontiguousarray(right(fake, texts)[:, : DIMS // 2])


def fault(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise errors.RunnerFault("EOF")


def busy(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise errors.TransientFault("server busy")


def silence(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise errors.ServerUnreachable("connection refused", "Start it.")


def refuse(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise errors.TextRejected("poison", "the model cannot read this")


def missing(fake: FakeEmbedder, texts: list[str]) -> models.Vectors:
    raise errors.ModelMissing("model 'x' not found", "ollama pull x")


def items(texts: Iterable[str], tokens: int = 10) -> list[embed.Item]:
    return [embed.Item(key=f"k:{text}", text=text, tokens=tokens) for text in texts]


async def stream(found: Iterable[embed.Item], every_s: float = 0.0) -> AsyncGenerator[embed.Item]:
    for item in found:
        if every_s:
            await asyncio.sleep(every_s)
        yield item


@dataclass
class Outcome:
    vectors: dict[str, models.Vectors] = field(default_factory=dict)
    rejects: dict[str, embed.Rejected] = field(default_factory=dict)
    events: list[embed.Event] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, result: embed.Embedded | embed.Rejected) -> None:
        found = result.keys if isinstance(result, embed.Embedded) else [result.key]
        assert not (self.vectors.keys() | self.rejects.keys()) & set(found), "a key came back twice"
        if isinstance(result, embed.Embedded):
            self.vectors.update(zip(result.keys, result.vectors, strict=True))
        else:
            self.rejects[result.key] = result

    def check(self, expected: Iterable[str]) -> None:
        """Each text has its one right vector or is rejected, and nothing else came back."""
        assert self.vectors.keys() | self.rejects.keys() == {f"k:{text}" for text in expected}
        for key, found in self.vectors.items():
            np.testing.assert_array_equal(found, vector(key.removeprefix("k:")))


async def collect(
    source: AsyncIterator[embed.Item],
    fake: models.Embedder,
    options: embed.EngineOptions = WHOLE,
    outcome: Outcome | None = None,
    known: tuple[embed.Item, ...] = CANARIES,
) -> Outcome:
    outcome = outcome or Outcome()
    results = embed.embed_stream(
        source, fake, options, on_event=outcome.events.append, canaries=known, dice=random.Random(7)
    )
    async with contextlib.aclosing(results):
        async for result in results:
            outcome.add(result)
    outcome.seconds = asyncio.get_running_loop().time()
    return outcome


def embed_all(
    texts: Sequence[str], fake: FakeEmbedder, options: embed.EngineOptions = WHOLE, *, tokens: int = 10, **more: Any
) -> Outcome:
    outcome = run(collect(stream(items(texts, tokens)), fake, options, **more))
    outcome.check(texts)
    return outcome


def numbered(n: int, bad: Iterable[int] = ()) -> list[str]:
    return [f"text {i}" + (" POISON" if i in set(bad) else "") for i in range(n)]
