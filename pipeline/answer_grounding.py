"""Whether each sentence of an answer is borne out by the passage it cites: by its words and its numbers.

A citation is supported if the cited passages hold every number of the sentence, enough of its words (answer_text.units:
stems of words that say something, pairs of Chinese and Japanese characters), and of those that were not in the question
enough too: an answer repeats the question, whatever it then makes up. That finds what is invented and what is cited
wrongly; a sentence that turns its source into the opposite with the same words passes. Where sentence and passage are
of different scripts, words cannot be compared, and nothing is said.

Knows texts and positions; nothing of models, prompts or hits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline import answer_text, scripts
from pipeline.answer_citations import Citation

# Shares of the words. `python -m benchmarks.grounding` on XQuAD: of the sentences cited to their own paragraph so many
# are objected to, of those cited to another paragraph of the same article so many: English 2.4 % and 95.2 %, Chinese
# 2.9 % and 97.9 %, German 5.0 % and 95.7 %. With 0.6 for all three: 9 %, 53 % and 24 % of the right ones.
SUPPORT = 0.4
SUPPORT_PAIRS = 0.25  # where most are pairs of characters, half of which lie across the end of a word
SUPPORT_NEW = 0.34
LEAST_UNITS = 2  # words of a sentence that says anything: "Yes." and "In short:" need no source
QUOTED = 60  # characters of a sentence in a note

_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*(?=\s|$|\[\d)|(?<=[。！？])[」』”’]*|\n+")
_MARKS = re.compile(r"(?:\s*\[\d+\])+")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_THOUSANDS = re.compile(r"(?<=\d)[,.](?=\d{3}(?:\D|$))")

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen""".split()  # noqa: SIM905  # as a list it takes twenty lines
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_CHINESE = "〇一二三四五六七八九"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A sentence of an answer that says something, at `start` to `end` (code points) of its text.

    Attributes:
        cites: the numbers of its passages; empty: it cites none.
        share: of its words, found in these passages, 0 to 1.
        supported: None where that cannot be told by words, or nothing is cited.
        better: a passage that supports it where the cited ones do not.
    """

    start: int
    end: int
    cites: tuple[int, ...]
    share: float
    supported: bool | None
    better: int | None = None

    def to_json(self) -> dict[str, object]:
        return {
            "start": self.start,
            "end": self.end,
            "cites": list(self.cites),
            "share": round(self.share, 3),
            "supported": self.supported,
            "better": self.better,
        }


def statements(
    text: str, citations: Sequence[Citation], passages: Sequence[str], question: str = ""
) -> tuple[Statement, ...]:
    """Every sentence of `text` that says something, judged against `passages` (number 1 is the first)."""
    found, asked = [], answer_text.units(question)
    for start, end in _sentences(text):
        said = _MARKS.sub(" ", text[start:end])
        if len(answer_text.units(said)) >= LEAST_UNITS and not said.rstrip().endswith((":", "：")):
            cites = tuple(dict.fromkeys(one.number for one in citations if start <= one.start < end))
            found.append(_judged(_Said(said, asked), cites, passages, start, end))
    return tuple(found)


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    """Ranges, each with the marks that follow its full stop: "Thirty days. [1] Soup." are two sentences."""
    start = 0
    for found in _SENTENCE.finditer(text):
        if found.end() <= start and found.end() != 0:
            continue  # within the marks that were taken along
        marks = _MARKS.match(text, found.end())
        end = marks.end() if marks is not None else found.end()
        yield from _trimmed(text, start, end)
        start = end
    yield from _trimmed(text, start, len(text))


def _trimmed(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The range without the white space around it; nothing where there is nothing else."""
    said = text[start:end]
    if said.strip():
        yield start + len(said) - len(said.lstrip()), start + len(said.rstrip())


@dataclass(frozen=True, slots=True)
class _Said:
    """A sentence without its marks, and what of its words was in the question."""

    text: str
    asked: set[str]


def _judged(said: _Said, cites: tuple[int, ...], passages: Sequence[str], start: int, end: int) -> Statement:
    cited = "\n".join(passages[number - 1] for number in cites)
    if not cites:
        return Statement(start=start, end=end, cites=(), share=0.0, supported=None)
    share, supported = _support(said, cited)
    better = None
    if supported is False:
        others = [(_support(said, passage), number) for number, passage in enumerate(passages, start=1)]
        fitting = [(other, -number) for (other, good), number in others if good and number not in cites]
        better = -max(fitting)[1] if fitting else None
    return Statement(start=start, end=end, cites=cites, share=share, supported=supported, better=better)


def _support(said: _Said, passage: str) -> tuple[float, bool | None]:
    """Share of the words found, and whether that and the numbers are enough."""
    wanted = {unit for unit in answer_text.units(said.text) if not unit.isdigit()}
    there = answer_text.units(passage)
    share = _share(wanted, there)
    if not _numbers(said.text) <= _numbers(passage) | _spelled(said.text, passage):
        return share, False
    script = scripts.language(said.text)
    if bool(script) != bool(scripts.language(passage)):
        return share, None
    enough = share >= (SUPPORT_PAIRS if script else SUPPORT)
    return share, enough and _share(wanted - said.asked, there) >= SUPPORT_NEW


def _share(wanted: set[str], there: set[str]) -> float:
    return len(wanted & there) / len(wanted) if wanted else 1.0


def _numbers(text: str) -> set[str]:
    return {_THOUSANDS.sub("", number) for number in _NUMBER.findall(text)}


def _spelled(said: str, passage: str) -> set[str]:
    """The numbers of `said` that `passage` has in words: 30 as "thirty" or 三十."""
    lowered = passage.lower()
    words = set(scripts.WORD.findall(lowered))
    return {
        number
        for number in _numbers(said)
        if number.isdecimal() and (_english(int(number)) <= words or _chinese(int(number)) in lowered)
    }


def _english(number: int) -> set[str]:
    """The words of a number below 100; beyond, something that no text holds."""
    if number < 20:
        return {_ONES[number]}
    return {_TENS[number // 10 - 2], *([_ONES[number % 10]] if number % 10 else [])} if number < 100 else {""}


def _chinese(number: int) -> str:
    if number >= 100:
        return "\0"
    tens, ones = divmod(number, 10)
    ten = ("" if tens == 1 else _CHINESE[tens]) + "十" if tens else ""
    return ten + (_CHINESE[ones] if ones or not tens else "")


def notes(text: str, found: Sequence[Statement]) -> Iterator[str]:
    """What a reader should know: which citations do not hold, and how many sentences have none."""
    wrong = [one for one in found if one.supported is False]
    for one in wrong[:3]:
        cited = "".join(f"[{number}]" for number in one.cites)
        better = f"; passage [{one.better}] fits better" if one.better else ""
        yield f'Not supported by {cited}, which it cites: "{_quoted(text[one.start : one.end])}"{better}.'
    if len(wrong) > 3:
        yield f"{len(wrong) - 3} more sentences are not supported by the passages that they cite."
    uncited = [one for one in found if not one.cites]
    if uncited and len(uncited) < len(found):
        yield f"{len(uncited)} of {len(found)} sentences cite no passage."


def _quoted(sentence: str) -> str:
    flat = " ".join(_MARKS.sub("", sentence).split()).rstrip(".。")
    return flat if len(flat) <= QUOTED else flat[: QUOTED - 2].rstrip() + " …"
