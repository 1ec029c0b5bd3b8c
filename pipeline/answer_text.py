"""Words and sentences of questions and passages, without a model. Also: text made safe for a terminal.

Knows Unicode; nothing of hits, prompts or citations.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline import scripts

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])|\n+")

STEM = 6  # letters of a word that are compared, without "s" and "e" at their end: "returned" and "returns", "lapse" and
# "lapses" are one (in `benchmarks.abstention`: English as without, German 74 % refused instead of 69)
_SHORTEST = 4  # letters; shorter words say little, unless they hold a digit

_FUNCTION_WORDS = frozenset(
    """about after been before between call called could does during from have into kind made many most much name other
    should some than that their them then there they this type used were what when where which whose will with would
    your""".split()  # noqa: SIM905  # as a list it takes forty lines
)

# ECMA-48 control sequences (CSI), operating system commands (OSC), other strings and escapes.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|[ -/]*[0-~])?"
)
# What else moves or hides text: C0 but tab and newline, DEL, C1, marks and overrides of direction (Trojan Source,
# CVE-2021-42574), what has no width and joins nothing (U+200C and U+200D are letters' business in many scripts), tag
# characters, the variation selectors that can carry bytes, lone surrogates.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
    r"\U000e0000-\U000e007f\U000e0100-\U000e01ef\ud800-\udfff]"
)
_BREAKS = re.compile(r"\r\n?|[\u2028\u2029]")


def headings(path: str) -> list[str]:
    """The headings of a path as the index holds it (stages.index.SEPARATOR), outermost first."""
    return path.split(" > ")


def headings_shown(path: str) -> str:
    """A path of headings for people: "Leave › Annual leave"."""
    return " › ".join(headings(path))


def terminal_safe(text: str) -> str:
    """`text` without anything that a terminal would obey: escape sequences, control and direction-changing
    characters.
    """
    return _CONTROLS.sub("", _ESCAPES.sub("", _BREAKS.sub("\n", text)))


def units(text: str) -> set[str]:
    """What two texts are compared by: stems of words that say something, and pairs of characters in Chinese,
    Japanese, Korean.
    """
    lowered = text.lower()
    found = {pair for run in scripts.CJK_RUN.findall(lowered) for pair in _pairs(run)}
    for word in scripts.WORD.findall(scripts.CJK_RUN.sub(" ", lowered)):
        if word not in _FUNCTION_WORDS and (len(word) >= _SHORTEST or any(map(str.isdigit, word))):
            found.add(word[:STEM].rstrip("s").rstrip("e") or word)
    return found


def _pairs(run: str) -> Iterable[str]:
    return (run[i : i + 2] for i in range(max(1, len(run) - 1)))


_RUN = re.compile(rf"{scripts.CJK_RUN.pattern}|(?:(?!{scripts.CJK_RUN.pattern})[^\W_])+")


def marked(text: str, question: str) -> list[tuple[str, bool]]:
    """`text` in parts, and whether each is a word of the question: by stems, in Chinese and Japanese by pairs of
    characters.
    """
    wanted = units(question)
    parts: list[tuple[str, bool]] = []
    done = 0
    for found in _RUN.finditer(text) if wanted else ():
        for start, end in _matches(found[0], wanted):
            parts += [
                (text[done : found.start() + start], False),
                (text[found.start() + start : found.start() + end], True),
            ]
            done = found.start() + end
    return [part for part in (*parts, (text[done:], False)) if part[0]]


def _matches(word: str, wanted: set[str]) -> Iterable[tuple[int, int]]:
    """From where to where a word, or a run of characters, is one that is wanted."""
    if not scripts.CJK_RUN.match(word):
        return [(0, len(word))] if units(word) & wanted else []
    pairs = [word[at : at + 2] in wanted for at in range(max(1, len(word) - 1))]
    marks = "".join("1" if any(pairs[max(0, at - 1) : at + 1]) else "0" for at in range(len(word)))
    return [found.span() for found in re.finditer("1+", marks)]


def coverage(question: str, passages: Iterable[str]) -> float:
    """Share of the question's units found in the passage that has most of them; 1.0 for a question without any."""
    wanted = units(question)
    if not wanted:
        return 1.0
    return max((len(wanted & units(passage)) / len(wanted) for passage in passages), default=0.0)


def excerpt(question: str, passage: str, characters: int) -> str:
    """The neighbouring sentences of `passage` that hold most of the question's words, within `characters`; "…" where
    cut.
    """
    sentences = [sentence for sentence in map(str.strip, _SENTENCE_END.split(passage)) if sentence]
    if not sentences or len(passage.strip()) <= characters:
        return passage.strip()
    wanted = units(question)
    matches = [len(wanted & units(sentence)) for sentence in sentences]
    best = max(range(len(sentences)), key=lambda i: (matches[i], -i))
    first, last = _grown(sentences, matches, best, characters)
    text = _joined(sentences[first : last + 1])
    before = "… " if first else ""
    after = " …" if len(text) > characters or last + 1 < len(sentences) else ""
    return before + text[:characters].rstrip() + after


def _grown(sentences: list[str], matches: list[int], best: int, characters: int) -> tuple[int, int]:
    """First and last sentence around `best`, taking the better neighbour while the room lasts."""
    first = last = best
    room = characters - len(sentences[best])
    while True:
        neighbours = [i for i in (last + 1, first - 1) if 0 <= i < len(sentences) and len(sentences[i]) < room]
        if not neighbours:
            return first, last
        taken = max(neighbours, key=lambda i: matches[i])
        room -= len(sentences[taken]) + 1
        first, last = min(first, taken), max(last, taken)


def _joined(sentences: list[str]) -> str:
    """With the blank between them that Chinese and Japanese do not have."""
    return "".join(one if i == 0 or scripts.CJK_RUN.match(one) else f" {one}" for i, one in enumerate(sentences))
