"""Whether PDFs can be read by unstructured's heavy route: a model that looks at a picture of each page, and tesseract.

Never part of the base: its packages bring torch (6.8 GB with CUDA), and its model comes from Hugging Face. All of that
is looked for once, before a run begins; nothing is fetched while files are read. Imports none of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil

from pipeline import errors

NAME = "unstructured-hi_res"  # the value of ReaderOptions.pdf
PACKAGES = ("unstructured_inference", "unstructured_pytesseract", "pdf2image", "pdfminer", "pi_heif", "huggingface_hub")
PROGRAMS = {"tesseract": "tesseract-ocr", "pdftoppm": "poppler-utils"}  # and Debian's name for each
MODEL = ("unstructuredio/yolo_x_layout", "yolox_l0.05.onnx")  # unstructured's default for hi_res
_SETTING = 'readers.unstructured_strategy = "hi_res"'


def chosen(pdf: str, strategy: str) -> str:
    """The value of ReaderOptions.pdf for the settings readers.pdf and readers.unstructured_strategy.

    Raises:
        ConfigError: hi_res was asked for, and cannot be had: packages, programs or the model are missing.
    """
    if strategy == "fast":
        return pdf
    if pdf != "unstructured":
        raise errors.ConfigError(
            f"{_SETTING} is for PDFs, which unstructured does not read here.",
            'Set readers.pdf = "unstructured" as well, or readers.unstructured_strategy = "fast".',
        )
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise errors.ConfigError(
            f"{_SETTING} needs packages that are not installed: {', '.join(missing)}.",
            f'{errors.install_extra("hi-res")} (with torch about 7 GB), or set it to "fast".',
        )
    _check_programs()
    _check_model()
    return NAME


def _check_programs() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise errors.ConfigError(
            f"{_SETTING} needs programs that are not installed: {', '.join(missing)}.",
            f"Install them: apt install {' '.join(PROGRAMS[name] for name in missing)}.",
        )


def _check_model() -> None:
    cache = importlib.import_module("huggingface_hub")
    if not isinstance(cache.try_to_load_from_cache(*MODEL), str):
        raise errors.ConfigError(
            f"{_SETTING} needs the model {MODEL[0]}, which is not on this machine.",
            f"Fetch it once: hf download {' '.join(MODEL)}. A run fetches nothing.",
        )
