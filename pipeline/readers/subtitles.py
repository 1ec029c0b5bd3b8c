"""SRT and WebVTT: what is said, without numbers, times and styles; cues are joined to paragraphs at pauses."""

from __future__ import annotations

import re

from pipeline.readers import build, decode, lines

_TIMES = re.compile(
    r"\s*(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})\s*-->\s*(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
)
_TAG = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")
_PAUSE_S = 4.0
_PARAGRAPH_CHARS = 600


def read(data: bytes, name: str) -> build.Draft:
    text = decode.text_of(data)
    builder = build.Builder()
    paragraph: list[str] = []
    size, ended = 0, 0.0
    for start, end, said in _cues(text):
        if paragraph and (start - ended > _PAUSE_S or size > _PARAGRAPH_CHARS):
            builder.add("\n".join(paragraph))
            paragraph, size = [], 0
        if said and said != (paragraph[-1] if paragraph else ""):  # rolling captions repeat the line before
            paragraph.append(said)
            size += len(said)
        ended = end
    builder.add("\n".join(paragraph))
    return builder.draft()


def _cues(text: str) -> list[tuple[float, float, str]]:
    """Start, end (seconds) and text of each cue; what stands outside cues (notes, styles, numbers) is left out."""
    cues: list[tuple[float, float, str]] = []
    times: tuple[float, float] | None = None
    said: list[str] = []
    for start, end in lines.lines(text):
        line = text[start : min(end, start + 2000)].strip()
        if found := _TIMES.match(line):
            times, said = (_seconds(*found.groups()[:4]), _seconds(*found.groups()[4:])), []
        elif line and times is not None:
            said.append(_TAG.sub("", line))
        elif times is not None:
            cues.append((*times, " ".join(said)))
            times = None
    if times is not None:
        cues.append((*times, " ".join(said)))
    return cues


def _seconds(hours: str | None, minutes: str, seconds: str, thousandths: str) -> float:
    return int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds) + int(thousandths.ljust(3, "0")) / 1000
