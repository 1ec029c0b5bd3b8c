"""Which East Asian language a text is written in, told by its characters. Knows Unicode blocks and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence

CJK_RUN = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af]+")
WORD = re.compile(r"[^\W_]+")
_KANA = re.compile(r"[\u3040-\u30ff]")
_HANGUL = re.compile(r"[\uac00-\ud7af]")


def language(text: str) -> str:
    """ "ja", "ko" or "zh" where at least a third of the letters say so, else ""."""
    characters = "".join(CJK_RUN.findall(text))
    if not characters or 3 * len(characters) < sum(map(len, WORD.findall(text))):
        return ""
    if _KANA.search(characters):
        return "ja"
    return "ko" if _HANGUL.search(characters) else "zh"


def is_foreign(text: str, languages: Sequence[str]) -> bool:
    """Whether a model that knows these languages (none named: many) cannot read `text`."""
    written = language(text)
    return bool(written and languages) and written not in languages


def same_script(question: str, text: str) -> bool:
    """Whether `text` may be in the language of `question`, as far as characters tell: Chinese and Japanese share some.
    True for what has hardly any letters.
    """
    if sum(map(len, WORD.findall(text))) < 12:
        return True
    asked, said = language(question), language(text)
    return asked == said or {asked, said} == {"zh", "ja"}
