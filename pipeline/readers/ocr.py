"""Recognition of the text in pictures of pages, by rapidocr (an extra that brings its models) or tesseract (a program).

Which engine, in which version, is decided once for a run (`chosen`) and is part of the reader's name: documents that
another engine read are read again. Nothing is fetched. Knows nothing of PDF.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline import errors
from pipeline.readers import decode
from pipeline.readers.pdf_lines import Line

Picture = NDArray[np.uint8]  # (height, width), 255 is white

DPI = 200  # of the pictures that are looked at: letters of ten points are 28 pixels high
MAX_PIXELS = 16_000_000  # an A3 page has 7.7 million

_EXTRA = errors.install_extra("ocr")
_VERSION = re.compile(r"\d+(?:\.\d+)+")
_LANGUAGES = re.compile(r"[\w/-]+(?:\+[\w/-]+)*")
_ASK_S = 20.0  # for tesseract to say its version
_GAP = 0.8  # of a line's height: a wider one separates what stands over one another
_COLUMN = 0.25  # of the width: what is narrower on average is a column of a table, to be read by rows
_GUTTER = 0.01  # of the width


class Engine(Protocol):
    """Tells the lines of a page, in reading order; an empty line stands between paragraphs where that is known.

    Raises:
        TimeoutError: it took more than its time.
        ValueError: it failed on this page.
    """

    def recognise(self, picture: Picture) -> list[Line]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """How pages without readable text are read: by which engine (see `chosen`), for how long and how many at most."""

    choice: str
    page_s: float = 60.0
    pages: int = 500

    def engine(self) -> Engine:
        return engine(self.choice, self.page_s)


# --- the choice -------------------------------------------------------------------------------------------------------


@functools.cache
def chosen(setting: str, languages: str) -> str:
    """The engine's name and version, such as "rapidocr/3.10.0"; "" for none.

    Args:
        setting: "auto" (rapidocr, where the extra is installed), "off", "rapidocr" or "tesseract".
        languages: for tesseract, such as "eng+chi_sim"; rapidocr's model knows Chinese, Japanese and Latin letters.

    Raises:
        ConfigError: the engine that was asked for, or one of the languages, is not installed.
    """
    if setting == "tesseract":
        return _tesseract(languages)
    if setting == "off" or (setting == "auto" and not has_rapidocr()):
        return ""
    if not has_rapidocr():
        raise errors.ConfigError("readers.ocr is rapidocr, which is not installed.", _EXTRA)
    return f"rapidocr/{importlib.metadata.version('rapidocr')}"


def has_rapidocr() -> bool:
    return importlib.util.find_spec("rapidocr") is not None


def _tesseract(languages: str) -> str:
    if shutil.which("tesseract") is None:
        raise errors.ConfigError(
            "readers.ocr is tesseract, and there is no such program on the PATH.",
            'Install it (`apt install tesseract-ocr`, `brew install tesseract`), or set readers.ocr = "auto".',
        )
    version = _VERSION.search(_asked("--version"))
    known = _asked("--list-langs").split("\n")[1:]
    missing = [one for one in languages.split("+") if one not in known]
    if missing or not _LANGUAGES.fullmatch(languages):
        raise errors.ConfigError(
            f"tesseract has no data for {'+'.join(missing)} (readers.ocr_languages).",
            f"Install them (`apt install tesseract-ocr-{missing[0].replace('_', '-')}`), or name others: "
            f"{', '.join(filter(None, known))}.",
        )
    return f"tesseract/{version[0] if version else '0'}({languages})"


def _asked(option: str) -> str:
    try:
        done = subprocess.run(["tesseract", option], capture_output=True, timeout=_ASK_S, check=False)  # noqa: S603, S607
    except (OSError, subprocess.TimeoutExpired) as error:
        raise errors.ConfigError(f"tesseract {option} fails: {error}", "Run it by hand to see why.") from error
    return (done.stdout + done.stderr).decode(errors="replace")


def remedy() -> str:
    """What a user does to have pictures of text read."""
    return 'Set readers.ocr = "auto".' if has_rapidocr() else f'{_EXTRA} Or set readers.ocr = "tesseract".'


@functools.lru_cache(maxsize=1)
def engine(choice: str, page_s: float) -> Engine:
    """The engine that `chosen` named. `page_s`: for one page, where the engine can be stopped."""
    if choice.startswith("rapidocr/"):
        return _Rapid()
    return _Tesseract(choice.partition("(")[2].rstrip(")"), page_s)


# --- tesseract --------------------------------------------------------------------------------------------------------


class _Tesseract:
    def __init__(self, languages: str, page_s: float) -> None:
        self._command = ["tesseract", "stdin", "stdout", "-l", languages, "--dpi", str(DPI)]
        self._page_s = page_s

    def recognise(self, picture: Picture) -> list[Line]:
        height, width = picture.shape
        page = b"P5 %d %d 255\n" % (width, height) + picture.tobytes()
        environment = os.environ | {"OMP_THREAD_LIMIT": "1"}  # there is a worker for each core
        try:
            done = subprocess.run(  # noqa: S603
                self._command,
                input=page,
                capture_output=True,
                timeout=self._page_s,
                check=False,
                env=environment,
                preexec_fn=_limited(self._page_s),
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"tesseract took more than {self._page_s:.0f} s") from error
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().split("\n")[-1]
            raise ValueError(f"tesseract ended with {done.returncode}: {said[:200]}")
        return [Line(text=line.strip()) for line in decode.clean(done.stdout.decode(errors="replace")).split("\n")]


def _limited(seconds: float) -> Callable[[], None] | None:
    """Ends a tesseract whose worker was killed meanwhile: it would go on alone."""
    if sys.platform == "win32":
        return None
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 5))

    return limit


# --- rapidocr ---------------------------------------------------------------------------------------------------------


class _Rapid:
    """Its models are named file by file: asked for a model by name, it would fetch one that it does not find."""

    def __init__(self) -> None:
        import rapidocr

        models = Path(rapidocr.__file__).parent / "models"
        parts = {"Det": "*_det_*.onnx", "Rec": "*_rec_*.onnx", "Cls": "*_cls_*.onnx"}
        paths = {part: sorted(models.glob(pattern)) for part, pattern in parts.items()}
        if not all(paths.values()):
            raise errors.DocumentError(
                "damaged", "rapidocr was installed without its models", f"Reinstall it. {_EXTRA}"
            )
        threads = "EngineConfig.onnxruntime.{}_op_num_threads"
        self._engine: Any = rapidocr.RapidOCR(
            params={f"{part}.model_path": str(found[-1]) for part, found in paths.items()}
            | {threads.format(kind): 1 for kind in ("intra", "inter")}  # there is a worker for each core
            | {"Global.log_level": "critical"}
        )

    def recognise(self, picture: Picture) -> list[Line]:
        found = self._engine(picture)
        if found.boxes is None or found.txts is None:
            return []
        height, width = picture.shape
        boxes = [
            Box(text=decode.clean(text).strip(), left=min(x), right=max(x), top=min(y), bottom=max(y))
            for text, corners in zip(found.txts, found.boxes, strict=True)
            for x, y in [([float(corner[0]) for corner in corners], [float(corner[1]) for corner in corners])]
        ]
        return in_reading_order([box for box in boxes if box.text], width, height)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Text and the place where it stands, in pixels from the upper left."""

    text: str
    left: float
    right: float
    top: float
    bottom: float


def in_reading_order(boxes: Sequence[Box], width: float, height: float) -> list[Line]:
    """Lines from boxes in any order: columns one after the other, tables by rows."""
    if not boxes:
        return []
    usual = statistics.median(box.bottom - box.top for box in boxes)
    lines: list[Line] = []
    for band in _apart(boxes, "top", "bottom", _GAP * usual):
        columns = _apart(band, "left", "right", _GUTTER * width)
        texts = all(statistics.mean(box.right - box.left for box in column) > _COLUMN * width for column in columns)
        for block in columns if texts else [band]:
            lines += [_line(row, height) for row in _rows(block)]
            lines.append(Line(text=""))
    return lines


def _apart(boxes: Sequence[Box], start: str, end: str, gap: float) -> list[list[Box]]:
    """Groups of boxes between which a strip of at least `gap` is empty."""
    groups: list[list[Box]] = []
    reach = 0.0
    for box in sorted(boxes, key=lambda box: float(getattr(box, start))):
        if not groups or getattr(box, start) - reach > gap:
            groups.append([])
        groups[-1].append(box)
        reach = max(reach, getattr(box, end)) if len(groups[-1]) > 1 else float(getattr(box, end))
    return groups


def _rows(boxes: Sequence[Box]) -> list[list[Box]]:
    """Boxes whose middles are on one height, from left to right."""
    rows: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box.top + box.bottom):
        last = rows[-1][-1] if rows else None
        if last is not None and last.top < (box.top + box.bottom) / 2 < last.bottom:
            rows[-1].append(box)
        else:
            rows.append([box])
    return [sorted(row, key=lambda box: box.left) for row in rows]


def _line(row: Sequence[Box], height: float) -> Line:
    return Line(text=" ".join(box.text for box in row), top=max(box.bottom for box in row) / height)
