"""Another parser in a process of its own, started by benchmarks.readers: a path on each line in, a JSON object out.

    PYTHON reading_process.py unstructured|markitdown MEMORY_MB

Imports the standard library and that parser: its interpreter need hold nothing of ours. The parent kills it at the time
limit; memory it limits itself (where the system has RLIMIT_AS), and what the parser prints goes nowhere.

`unstructured` runs its `partition` with the fast strategy. No version of it works without a network as it comes: it
fetches data for `nlp.tokenize`, three functions that tell titles from sentences. Simple ones stand in their place, as
in `pipeline.readers.unstructured_`; the text is the same. Its PDF module imports models that want torch (6.8 GB) and
that the fast strategy does not use: classes of nothing stand in for these.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import re
import resource
import sys
import types
from collections.abc import Callable
from typing import Any

_SETTINGS = {
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "UNSTRUCTURED_DISABLE_NOTICE": "1",
    "AUTO_DOWNLOAD_NLTK": "false",
}


def main() -> None:
    name, memory_mb = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    parse = PARSERS[name]()
    _limit(int(memory_mb))
    answers.write("ready\n")
    for line in sys.stdin:
        answers.write(json.dumps(_measured(parse, json.loads(line))) + "\n")


def _limit(memory_mb: int) -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _measured(parse: Callable[[str], str], path: str) -> dict[str, Any]:
    began, refusal, text = cpu_s(), "", ""
    try:
        text = parse(path)
        refusal = "" if text.strip() else "empty"
    except Exception as error:  # these parsers raise anything, and that is what is counted
        refusal = type(error).__name__
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory_mb = peak / (1e6 if sys.platform == "darwin" else 1e3)
    # A lone surrogate has no UTF-8: some parsers return one.
    text = text.encode("utf-8", "replace").decode("utf-8")
    return {"refusal": refusal, "text": text, "cpu_s": cpu_s() - began, "memory_mb": memory_mb}


def cpu_s() -> float:
    """With what it started and waited for: pandoc and LibreOffice."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def _unstructured() -> Callable[[str], str]:
    os.environ.update(_SETTINGS)
    words = re.compile(r"\w+(?:'\w+)?|[^\w\s]")
    gap = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])")
    module: Any = types.ModuleType("unstructured.nlp.tokenize")
    module.word_tokenize = words.findall
    module.sent_tokenize = lambda text: [sentence for sentence in gap.split(text) if sentence]
    module.pos_tag = lambda text: [(word, _part_of_speech(word)) for word in words.findall(text)]
    sys.modules[module.__name__] = module
    package: Any = importlib.import_module("unstructured.nlp")
    package.tokenize = module
    sys.meta_path.append(_StandIns())
    partition = importlib.import_module("unstructured.partition.auto").partition
    return lambda path: "\n".join(str(element) for element in partition(path, strategy="fast", languages=[""]))


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Modules of the layout models: every name in them is a class of nothing but numbers."""

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        ours = name.split(".")[0] in ("unstructured_inference", "torch")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class _Empty(types.ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Class(name, (), {})


class _Class(type):
    def __getattr__(cls, name: str) -> float:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0.5  # thresholds of models that do not run


def _part_of_speech(word: str) -> str:
    return "VB" if word.lower().endswith(("ed", "ing", "ize", "ify")) or word.lower() in ("is", "are", "was") else "NN"


def _markitdown() -> Callable[[str], str]:
    converter = importlib.import_module("markitdown").MarkItDown(enable_plugins=False)
    return lambda path: str(converter.convert_local(path).text_content)


PARSERS: dict[str, Callable[[], Callable[[str], str]]] = {"unstructured": _unstructured, "markitdown": _markitdown}

if __name__ == "__main__":
    main()
