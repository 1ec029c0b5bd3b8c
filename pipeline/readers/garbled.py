"""Whether the text of a page is what people see on it: fonts of a PDF may tell wrong characters, or none.

Knows letters, not languages: what is looked for does not happen in any of the 53 Latin-script languages that the table
was counted from (the translations of a browser's pages), nor in code, formulas, tables and data. Other scripts are
judged by their unreadable characters alone. In doubt a text is sound: a page that is left out cannot be found.
"""

from __future__ import annotations

import itertools
import operator
import re
import unicodedata
from collections.abc import Collection

from pipeline.readers import decode

# Pairs of letters (first: seconds) that are less than one in 500 in each of those languages, in distinct words of four
# letters and more without their accents. Natural text has at most 7.5 % of them (Xhosa; English 0.5 %). Of texts in
# five languages whose letters were permuted at random, the median has 30 %, and 77 % have more than PAIRS.
_UNUSUAL = {
    "b": "cdfghjkmnpqvwxz",
    "c": "bdfgmpqvwx",
    "d": "bcfgjkmqvx",
    "e": "o",
    "f": "cdghkmpqvwxz",
    "g": "bcfmpqvxz",
    "h": "bcghpqsxz",
    "i": "x",
    "j": "bdfghjlpqrwxy",
    "k": "bcdfghmpqvwxz",
    "l": "bchkqrxz",
    "m": "cfgkqrvwx",
    "n": "bpqrwx",
    "o": "qx",
    "p": "bdfghkmqvwx",
    "q": "abcdfghijklmnoprstvwxyz",
    "r": "fqx",
    "s": "bdfrx",
    "t": "bdfkq",
    "u": "qy",
    "v": "bcdfghjkmpqstvwxz",
    "w": "bdfgklmpqvwxz",
    "x": "bcdfghjklmnqrsuvwxyz",
    "y": "jqxz",
    "z": "cdfhjlpqsx",
}
_PAIRS = frozenset(first + second for first, seconds in _UNUSUAL.items() for second in seconds)
PAIRS = 0.25  # share of them from which a text is no language; C headers with their macros come to 0.23
NATURAL = 0.1  # share below which it surely is one
WORDS = 40  # distinct ones: fewer prove nothing
_MOST_WORDS = 150  # of a page are looked at
_WORD = re.compile(r"\b[^\W\d_]{4,20}\b")
_PLAIN = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "ı": "i", "ß": "s", "æ": "e", "œ": "e", "ð": "d", "þ": "t"})

_CODES = re.compile(r"\(cid:\d{1,5}\)")  # what other programs write for a glyph without a character
_CODES_SHARE = 0.3
_HIGH = re.compile("[\u00aa-\u00ff]")  # Cyrillic and Greek that were read in a wrong code page are made of them
_HIGH_SHARE = 0.6  # of the letters of words; French has 0.05, Vietnamese, Icelandic and Faroese less than 0.2
_SCRIPTS = re.compile("[\u0370-\u1dff\u1f00-\u1fff]")  # those of which a page has one, rarely two, never in one word
_MIXED_SHARE = 0.2  # of the pairs of such letters
_LOOKED_AT = 4000  # characters of a page
_SHIFTS = range(1, 64)


def fault(text: str) -> str:
    """What is wrong with a page's text, in words; "" where nothing is."""
    share = decode.unreadable_share(text)
    if share > decode.GARBLED_SHARE:
        return f"{share:.0%} of its characters are unreadable"
    if "(cid:" in text and sum(map(len, _CODES.findall(text))) > _CODES_SHARE * len(text):
        return "numbers of glyphs in place of letters"
    return _impossible(text[:_LOOKED_AT]) or _mixed(text[:_LOOKED_AT])


def _impossible(text: str) -> str:
    words = list(dict.fromkeys(_WORD.findall(text)))[:_MOST_WORDS]
    if len(words) < WORDS:
        return ""
    whole = "".join(words)
    if not whole.isascii() and len(_HIGH.findall(whole)) > _HIGH_SHARE * len(whole):
        return "letters of a wrong code page"
    lower = [word for word in words if word[1:].islower()]
    if len(lower) >= WORDS and unusual_share(lower) > PAIRS:
        return "its letters make no words"
    upper = [word for word in words if word.isupper()]
    # Lists of proteins, shares and stations are no words either: here the shift that mends it has to be found.
    if len(upper) >= WORDS and len(upper) > len(lower) and unusual_share(upper) > NATURAL and _is_shifted(text):
        return "its letters are shifted"
    return ""


def _mixed(text: str) -> str:
    """Scripts that change from letter to letter, as where numbers of glyphs were taken for characters."""
    if len(_SCRIPTS.findall(text)) < WORDS:
        return ""
    # 256 characters hold a script or a few neighbours; ancient Greek has two such ranges.
    blocks = [ord(one) >> 8 if _SCRIPTS.match(one) else 0 for one in text]
    blocks = [3 if block == 0x1F else block for block in blocks]
    pairs = [(first, second) for first, second in itertools.pairwise(blocks) if first and second]
    mixed = sum(first != second for first, second in pairs)
    return "its scripts change within words" if mixed > max(_MIXED_SHARE * len(pairs), WORDS / 2) else ""


def unusual_share(words: Collection[str]) -> float:
    """Of the pairs of letters in these words, the share that no language has often; 0.0 where none is Latin."""
    plain = " ".join(words).lower()
    if not plain.isascii():
        plain = " ".join(word for word in map(_folded, plain.split()) if word.isascii())
    pairs = len(plain) - 2 * plain.count(" ") - 1
    return sum(map(_PAIRS.__contains__, map(operator.add, plain, plain[1:]))) / pairs if pairs > 0 else 0.0


def _folded(word: str) -> str:
    if word.isascii():
        return word
    marked = unicodedata.normalize("NFKD", word.translate(_PLAIN))
    return "".join(character for character in marked if not unicodedata.combining(character))


def _is_shifted(text: str) -> bool:
    """Whether all characters moved by one number make words: what the glyph numbers of TrueType fonts read like."""
    for shift in _SHIFTS:
        moved = text.translate({code: code + shift for code in range(1, 127) if code not in (9, 10, 13, 32)})
        words = frozenset(word for word in _WORD.findall(moved) if word[1:].islower())
        if len(words) >= WORDS and unusual_share(words) < NATURAL / 2:
            return True
    return False
