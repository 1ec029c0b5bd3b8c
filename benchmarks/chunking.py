"""The chunker beside others at the same budget: speed, fill, limit, offsets, and the chunks that an edit changes.

    python -m benchmarks.chunking --docs DIR [--docs DIR ...] --peers-python PYTHON [--edits 300] [--own-edits 3000]

Text and Markdown files under each DIR (folders of one project's documents), as far as --megabytes of each kind reach:
"CJK" where a third of the letters are Chinese, Japanese or Korean, else "English". The budget is 512 tokens with [CLS]
and [SEP] of BERT WordPiece (the vocabulary of all-MiniLM and mxbai-embed-large), so 510; no overlap, no context.

Chunkers run in turn, each in a process of its own (`chunking_process`), and the least CPU of --rounds counts: compare
within one run only. "Ours" gets the blocks that ingest leaves in its checkpoint, as in a run; a row of its own counts
the reading of Markdown too. "over the limit": by the count of the reference tokenizer, and by that of llama.cpp, which
Ollama runs and which knows no [UNK] for a word of over 100 letters.

An edit is made in a real file and what is new among the chunks is counted: a word put in, a sentence taken out, a
paragraph put in at the top, in the middle or at the end; headings and front matter are left alone, for
they stand before other chunks as context by intention.
"""

from __future__ import annotations

import argparse
import collections
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import chunking_process
from benchmarks.common import table
from pipeline import errors, readers
from pipeline.models import tokens

SIZE = 510
EXTENSIONS = (".md", ".txt", ".rst")
EDITED = (4_000, 120_000)  # characters of a file that is edited: more than a chunk or two, and soon cut again
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_LETTER = re.compile(r"[^\W\d_]")
_SENTENCE = re.compile(r"(?<=[.!?] )[A-Z][^.!?\n]{15,200}[.!?] |(?<=[。！？])[^。！？\n]{5,120}[。！？]")
_FRONT = re.compile(r"---\n.*?\n---\n", re.DOTALL)
_PAGE = """# The chunker beside others

Printed by `python -m benchmarks.chunking`, whose docstring says what is counted. 512 tokens of BERT WordPiece with
[CLS] and [SEP], so 510; no overlap. Chunkers took turns on one machine: the ratios are what can be compared.
"""
_HEADER = ("chunker", "MB/s", "of ours", "chunks", "median tokens", "over 510", "of llama.cpp's", "wrong offsets")
EDITS = {
    "word": "a word put in",
    "sentence": "a sentence out",
    "top": "a paragraph at the top",
    "middle": "in the middle",
    "end": "at the end",
}
_EDIT_HEADER = ("new chunks: median, most", "edits", *EDITS.values(), "mean of all", "over 3")


def main() -> None:
    options = _options()
    groups = _texts(options.docs, options.megabytes)
    names = ["ours", *_peers(options.peers_python), *(name for name in chunking_process.CHUNKERS if "ours, " in name)]
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        _write_tokenizer(scratch / "tokenizer.json")
        parts = [_PAGE]
        for kind, texts in groups.items():
            size = sum(len(text.encode()) for text in texts)
            parts.append(f"## {kind}: {len(texts)} files, {size / 1e6:.1f} MB")
            parts.append(table(_HEADER, _cost(names, texts, size, scratch, options)))
            parts.append(table(_EDIT_HEADER, list(_edit_rows(names, texts, scratch, options))))
    page = "\n\n".join(parts) + "\n"
    print(page)
    if options.markdown:
        options.markdown.write_text(page, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument("--peers-python", default=sys.executable, help="an interpreter that has the other libraries")
    parser.add_argument("--megabytes", type=float, default=3.0, help="of each kind of text")
    parser.add_argument("--rounds", type=int, default=3, help="the least CPU of these counts")
    parser.add_argument("--edits", type=int, default=300)
    parser.add_argument("--own-edits", type=int, default=3000, help="of our own chunker: rare cases must be seen")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the page there as well")
    return parser.parse_args()


def _texts(folders: Sequence[Path], megabytes: float) -> dict[str, list[str]]:
    """By kind, in an order that mixes the folders; each as our reader hands it on (encoding, NFC, line ends)."""
    paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.suffix in EXTENSIONS]
    random.Random(0).shuffle(paths)
    found: dict[str, list[str]] = collections.defaultdict(list)
    sizes: collections.Counter[str] = collections.Counter()
    for path in paths:
        try:
            text = readers.read_bytes(path.read_bytes(), "text.md", readers.ReaderOptions()).text
        except errors.DocumentError:
            continue
        kind = "CJK" if 3 * len(_CJK.findall(text)) > len(_LETTER.findall(text)) else "English"
        if sizes[kind] < megabytes * 1e6:
            found[kind].append(text)
            sizes[kind] += len(text.encode())
    return {kind: found[kind] for kind in ("English", "CJK") if kind in found}


def _peers(python: str) -> list[str]:
    there: dict[str, bool] = {}
    for module in set(chunking_process.LIBRARIES.values()):
        done = subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False)
        there[module] = done.returncode == 0
    return [name for name, module in chunking_process.LIBRARIES.items() if there[module]]


def _write_tokenizer(path: Path) -> None:
    """The packaged one without the truncation in its file: with it, some libraries count 128 for whatever is longer."""
    described = json.loads(tokens.BUILTIN.read_text(encoding="utf-8"))
    path.write_text(json.dumps(described | {"truncation": None, "padding": None}), encoding="utf-8")


def _in_process(name: str, job: dict[str, Any], scratch: Path, python: str) -> dict[str, Any]:
    ours = name.startswith("ours")
    start = [sys.executable, "-m", "benchmarks.chunking_process"] if ours else [python, chunking_process.__file__]
    names = ("job.json", "result.json")
    (scratch / names[0]).write_text(json.dumps(job | {"size": SIZE, "tokenizer": str(scratch / "tokenizer.json")}))
    command = [*start, name, *(str(scratch / file) for file in names)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    found: dict[str, Any] = json.loads((scratch / names[1]).read_text())
    return found


# --- cost --------------------------------------------------------------------------------------------------------


def _cost(
    names: Sequence[str], texts: Sequence[str], size: int, scratch: Path, options: argparse.Namespace
) -> list[list[object]]:
    best: dict[str, dict[str, Any]] = {}
    for _ in range(options.rounds):  # in turn, so that a busy minute of the machine strikes all alike
        for name in names:
            found = _in_process(name, {"texts": texts, "edits": []}, scratch, options.peers_python)
            if name not in best or found["cpu_s"] < best[name]["cpu_s"]:
                best[name] = found
    reference = tokens.from_json((scratch / "tokenizer.json").read_text(encoding="utf-8"))
    plain = _Reference(scratch / "tokenizer.json")
    own = best["ours"]["cpu_s"]
    rows = []
    for name, found in best.items():
        pieces = [text for each in found["chunks"] for _, _, text in each]
        counts, longest = plain.count(pieces), reference.count(pieces)
        over = [sum(count > SIZE for count in each) for each in (counts, longest)]
        speed = f"{size / 1e6 / found['cpu_s']:.2f}", f"{own / found['cpu_s']:.2f}"
        rows.append([name, *speed, len(pieces), f"{statistics.median(counts):.0f}", *over, found["wrong"]])
    return rows


class _Reference:
    """The `tokenizers` package as it is: a word of over 100 letters is one [UNK]."""

    def __init__(self, path: Path) -> None:
        import tokenizers

        self._inner = tokenizers.Tokenizer.from_file(str(path))

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(found) for found in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]


# --- edits -------------------------------------------------------------------------------------------------------

Edit = tuple[int, int, int, str]  # text's index, start, end, new text


def _edit_rows(
    names: Sequence[str], texts: Sequence[str], scratch: Path, options: argparse.Namespace
) -> Iterator[list[object]]:
    known = [text for text in texts if EDITED[0] <= len(text) <= EDITED[1]]
    for name in names:
        if "reading" in name:
            continue  # the same chunks as ours
        count = options.own_edits if name.startswith("ours") else options.edits
        made = list(_edits(known, count, random.Random(options.seed)))
        job = {"texts": known, "edits": [edit for _, edit in made]}
        changed = _in_process(name, job, scratch, options.peers_python)["changed"]
        by_kind: dict[str, list[int]] = {kind: [] for kind in EDITS}
        for (kind, _), number in zip(made, changed, strict=True):
            by_kind[kind].append(number)
        cells = [f"{statistics.median(numbers):.0f}, {max(numbers)}" for numbers in by_kind.values()]
        over = sum(number > 3 for number in changed)
        yield [name, len(made), *cells, f"{statistics.mean(changed):.2f}", f"{100 * over / len(made):.2f} %"]


def _edits(texts: Sequence[str], count: int, rng: random.Random) -> Iterator[tuple[str, Edit]]:
    for number in range(count):
        kind = list(EDITS)[number % len(EDITS)]
        index = rng.randrange(len(texts))
        yield kind, (index, *_edit(kind, texts[index], rng))


def _edit(kind: str, text: str, rng: random.Random) -> tuple[int, int, str]:
    front = _FRONT.match(text)
    body = front.end() if front else 0
    cjk = len(_CJK.findall(text)) * 3 > len(_LETTER.findall(text))
    if kind == "sentence":
        found = [match.span() for match in _SENTENCE.finditer(text, body)]
        if found:
            return (*rng.choice(found), "")
    if kind in ("word", "sentence"):
        return _word(text, body, cjk, rng)
    new = _paragraph(cjk, rng)
    gaps = [match.end() for match in re.finditer(r"\n\n", text[body:])] or [0]
    at = {"top": gaps[0] + body, "middle": rng.choice(gaps) + body, "end": len(text)}[kind]
    return at, at, new + "\n\n" if kind != "end" else "\n\n" + new


def _word(text: str, body: int, cjk: bool, rng: random.Random) -> tuple[int, int, str]:
    """A word put in between two letters (CJK) or words, not in a heading."""
    between = re.compile(r"(?<=[\u3040-\u9fff])(?=[\u3040-\u9fff])" if cjk else r"(?<=\w) (?=\w)")
    found = [match.start() for match in between.finditer(text, body) if not _in_heading(text, match.start())]
    at = rng.choice(found or [len(text)])
    return at, at, "潮水" if cjk else " harbour"


def _in_heading(text: str, at: int) -> bool:
    start, end = text.rfind("\n", 0, at) + 1, text.find("\n", at)
    after = text[end + 1 : end + 4]
    return text[start : start + 1] == "#" or after in ("===", "---") or text[start : start + 2] == "= "


def _paragraph(cjk: bool, rng: random.Random) -> str:
    if cjk:
        words = ("港口", "灯塔", "潮水", "船长", "风暴", "清晨", "渡轮", "石桥", "市场", "信号", "绳索", "冬天")
        return "".join("".join(rng.choices(words, k=rng.randint(4, 12))) + "。" for _ in range(rng.randint(1, 6)))
    english = ("harbour", "tide", "ledger", "winter", "signal", "rope", "lantern", "gravel", "ferry", "market", "bell")
    sentences = (" ".join(rng.choices(english, k=rng.randint(5, 20))).capitalize() for _ in range(rng.randint(1, 6)))
    return ". ".join(sentences) + "."


if __name__ == "__main__":
    main()
