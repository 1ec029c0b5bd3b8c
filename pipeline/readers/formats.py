"""The table of formats: which extensions, which readers, which media type. Imports no parser and opens no file.

A new format is one entry here and one module with `read(data, name) -> Draft`. A reader whose output changes gets the
next version: documents that an older version read are then read again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the scanner asks for names only: it must not wait for what reading needs
    from pipeline.readers import build

ReadFunction = Callable[..., "build.Draft"]  # of bytes and name; of PDF also ocr.Recognition


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """What turns the bytes of one format into a Draft: `function` of the module `pipeline.readers.<module>`."""

    name: str
    version: int
    module: str
    function: str = "read"
    refuses: bool = False  # what it would need is not there: what another has read stays

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    def load(self) -> ReadFunction:
        function: ReadFunction = getattr(importlib.import_module(f"pipeline.readers.{self.module}"), self.function)
        return function


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One kind of file. `readers`: by the value of the setting `readers.<format>`.

    One entry "" where there is no choice.

    `binary`: its bytes are not text, so that text under such a name is of another format.

    """

    name: str
    media_type: str
    extensions: tuple[str, ...]
    readers: dict[str, Reader]
    binary: bool = False


def _one(name: str, media_type: str, extensions: str, reader: Reader, *, binary: bool = False) -> Format:
    return Format(
        name=name, media_type=media_type, extensions=tuple(extensions.split()), readers={"": reader}, binary=binary
    )


_CODE = (
    "py pyi pyx js mjs cjs jsx ts tsx java kt kts scala groovy c h cc cpp cxx hpp hh cs go rs rb php swift m mm lua pl "
    "pm r jl sh bash zsh fish ps1 bat sql hs elm ml mli clj cljs ex exs erl fs fsx dart vue svelte css scss less proto "
    "graphql tf cmake gradle zig nim v vhd vhdl sv asm s f f90 pas ada lisp el scm rkt vb tcl awk sol"
)
_OOXML = "application/vnd.openxmlformats-officedocument."

_ALL = (
    _one(
        "text",
        "text/plain",
        "txt text log ini cfg conf yaml yml toml properties env",
        Reader(name="text", version=1, module="plain"),
    ),
    _one("xml", "application/xml", "xml nxml", Reader(name="xml", version=1, module="xml")),
    _one(
        "markdown",
        "text/markdown",
        "md markdown mkd mdx qmd rmd",
        Reader(name="markdown", version=1, module="markdown"),
    ),
    _one("rst", "text/x-rst", "rst", Reader(name="rst", version=1, module="markup", function="read_rst")),
    _one(
        "asciidoc",
        "text/asciidoc",
        "adoc asciidoc asc",
        Reader(name="asciidoc", version=1, module="markup", function="read_asciidoc"),
    ),
    _one("org", "text/org", "org", Reader(name="org", version=1, module="markup", function="read_org")),
    _one("tex", "application/x-tex", "tex ltx", Reader(name="tex", version=1, module="markup", function="read_tex")),
    _one("code", "text/x-source", _CODE, Reader(name="code", version=1, module="plain", function="read_code")),
    Format(
        name="html",
        media_type="text/html",
        extensions=("html", "htm", "xhtml"),
        readers={
            "lxml": Reader(name="html", version=2, module="html"),
            "unstructured": Reader(name="unstructured-html", version=1, module="unstructured_", function="read_html"),
        },
    ),
    Format(
        name="pdf",
        media_type="application/pdf",
        extensions=("pdf",),
        readers={
            "pdfium": Reader(name="pdfium", version=3, module="pdf"),
            "unstructured": Reader(name="unstructured-pdf", version=2, module="pdf", function="read_by_unstructured"),
            "unstructured-hi_res": Reader(
                name="unstructured-pdf-hi-res", version=1, module="unstructured_", function="read_pdf_hi_res"
            ),
        },
        binary=True,
    ),
    Format(
        name="docx",
        media_type=_OOXML + "wordprocessingml.document",
        extensions=("docx", "docm", "dotx"),
        readers={
            "unstructured": Reader(name="unstructured-docx", version=1, module="unstructured_", function="read_docx"),
        },
        binary=True,
    ),
    Format(
        name="doc",
        media_type="application/msword",
        extensions=("doc", "dot"),
        readers={
            "libreoffice": Reader(name="libreoffice-doc", version=1, module="doc"),
            "none": Reader(name="no-libreoffice", version=1, module="doc", function="refuse", refuses=True),
        },
        binary=True,
    ),
    _one(
        "pptx",
        _OOXML + "presentationml.presentation",
        "pptx pptm ppsx",
        Reader(name="unstructured-pptx", version=2, module="unstructured_", function="read_pptx"),
        binary=True,
    ),
    _one(
        "msg",
        "application/vnd.ms-outlook",
        "msg",
        Reader(name="unstructured-msg", version=1, module="unstructured_", function="read_msg"),
        binary=True,
    ),
    _one(
        "xlsx",
        _OOXML + "spreadsheetml.sheet",
        "xlsx xlsm xltx",
        Reader(name="xlsx", version=2, module="xlsx"),
        binary=True,
    ),
    _one("xls", "application/vnd.ms-excel", "xls xlt", Reader(name="xls", version=2, module="xls"), binary=True),
    _one(
        "ods",
        "application/vnd.oasis.opendocument.spreadsheet",
        "ods ots",
        Reader(name="ods", version=2, module="odt", function="read_sheets"),
        binary=True,
    ),
    _one(
        "odp",
        "application/vnd.oasis.opendocument.presentation",
        "odp otp",
        Reader(name="odp", version=3, module="odt", function="read_presentation"),
        binary=True,
    ),
    _one("csv", "text/csv", "csv tsv tab", Reader(name="csv", version=1, module="delimited")),
    _one("epub", "application/epub+zip", "epub", Reader(name="epub", version=3, module="epub"), binary=True),
    _one(
        "odt",
        "application/vnd.oasis.opendocument.text",
        "odt ott",
        Reader(name="odt", version=1, module="odt"),
        binary=True,
    ),
    _one("rtf", "application/rtf", "rtf", Reader(name="rtf", version=2, module="rtf"), binary=True),
    _one("eml", "message/rfc822", "eml", Reader(name="eml", version=3, module="mail")),
    _one(
        "mbox", "application/mbox", "mbox mbx", Reader(name="mbox", version=2, module="mail", function="read_mailbox")
    ),
    _one("json", "application/json", "json geojson json5", Reader(name="json", version=1, module="records")),
    _one(
        "jsonl",
        "application/jsonl",
        "jsonl ndjson",
        Reader(name="jsonl", version=1, module="records", function="read_lines"),
    ),
    _one("ipynb", "application/x-ipynb+json", "ipynb", Reader(name="ipynb", version=1, module="notebook")),
    _one("subtitles", "text/vtt", "srt vtt", Reader(name="subtitles", version=1, module="subtitles")),
)

FORMATS = {entry.name: entry for entry in _ALL}
BY_EXTENSION = {extension: entry for entry in _ALL for extension in entry.extensions}
BY_READER = {reader.name: (entry, reader) for entry in _ALL for reader in entry.readers.values()}

# Documents that customarily have no extension. Lower case.
_BARE_WORDS = (
    "readme license licence copying notice authors contributors contributing changelog changes history news todo "
    "install makefile dockerfile rakefile gemfile vagrantfile"
)
_BARE_NAMES = frozenset(_BARE_WORDS.split())


def extension(name: str) -> str:
    """What follows the last dot, in lower case; "" for none and for a dot file such as ".env"."""
    base = name.rsplit("/", 1)[-1]
    stem, dot, ending = base.rpartition(".")
    return ending.lower() if dot and stem else ""


def by_name(name: str) -> Format | None:
    """The format that the name promises, or None."""
    found = BY_EXTENSION.get(extension(name))
    if found is None and name.rsplit("/", 1)[-1].lower() in _BARE_NAMES:
        return FORMATS["text"]
    return found
