"""How much of a passage is marked in the picture of its PDF page, and how much else.

    python -m benchmarks.highlight FOLDER...

Every PDF below the folders is read as a run reads it, and cut into passages of up to 1,000 characters of one page. For
each, the rectangles are asked for that the page of `pipeline serve` would show, and then pdfium which letters stand
under them (by their middles): that is independent of how the passage was found. Words are those of three letters or
more, or of one Chinese, Japanese or Korean character.

Recall: of a passage's words, those under its marks. Precision: of the words under its marks, those of the passage.
"""

from __future__ import annotations

import collections
import itertools
import re
import sys
import unicodedata
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pypdfium2

from pipeline import document, errors, readers, workers
from pipeline.readers import pdf_lines, pdf_page, pdf_picture

PASSAGE = 1_000  # characters
PAGES = 40  # of a document: no long one shall count for more
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]|[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3]{3,}")
BREAK = re.compile(r"\s(?=\S*\Z)")
NOTHING = re.compile("[-\x02\u2010\u00ad\ufffe]\\s*|\u200b")  # pdfium's own mark for a hyphen at a line's end: 2


@dataclass(frozen=True, slots=True)
class Counts:
    """`exact`: passages of which every word, and no other, is marked. `unmarked`: those of which none is."""

    passages: int = 0
    exact: int = 0
    unmarked: int = 0
    words: int = 0
    found: int = 0
    under: int = 0
    right: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


def measure(path: Path) -> Counts:
    """Of one PDF; runs in a worker."""
    data = path.read_bytes()
    made = readers.read_bytes(data, path.name, readers.ReaderOptions())
    if made.media_type != "application/pdf":
        raise errors.DocumentError("unknown_type", "no PDF, whatever its name")
    pdf = pypdfium2.PdfDocument(data)
    total = Counts()
    for number, passages in _passages(made):
        page = pdf[number - 1]
        for before, marked, after in passages:
            wanted = pdf_page.Wanted(page=number, before=before, marked=marked, after=after)
            total = total.plus(_compared(marked, under(page, pdf_picture.find(page, wanted))))
        page.close()
    pdf.close()
    return total


def _passages(made: document.Document) -> Iterator[tuple[int, list[tuple[str, str, str]]]]:
    pages = collections.defaultdict[int, list[str]](list)
    for block in made.blocks:
        if block.page is not None:
            pages[block.page].append(made.text[block.start : block.end])
    for number in sorted(pages)[:PAGES]:
        text = "\n\n".join(pages[number])
        cuts = [*_cuts(text), len(text)]
        yield number, [(text[:start], text[start:end], text[end:]) for start, end in itertools.pairwise(cuts)]


def _cuts(text: str) -> Iterator[int]:
    """Never within a word, where there are spaces."""
    at = 0
    while at < len(text):
        yield at
        space = BREAK.search(text, at, at + PASSAGE) if at + PASSAGE < len(text) else None
        at = space.start() if space is not None and space.start() > at + PASSAGE / 2 else at + PASSAGE


def under(page: pypdfium2.PdfPage, marks: pdf_picture.Marks) -> str:
    """The characters whose middles lie under the marks, and the spaces between them."""
    text_page = page.get_textpage()
    size = pdf_picture.picture_size(page)
    look = pdf_picture.Look(page, text_page)
    kept = []
    for place, character in enumerate(look.characters):
        box = look.box(place, size)
        inside = box is not None and any(
            left - 2 <= (box[0] + box[2]) / 2 <= right + 2 and top - 2 <= (box[1] + box[3]) / 2 <= bottom + 2
            for left, top, right, bottom in marks.boxes
        )
        kept.append(character if inside or character.isspace() or character == "\x02" else " ")
    text_page.close()
    return "".join(kept)


def words(text: str) -> collections.Counter[str]:
    plain = unicodedata.normalize("NFKC", NOTHING.sub("", pdf_lines.with_symbols(text)))
    return collections.Counter(WORD.findall(plain.lower()))


def _compared(marked: str, under: str) -> Counts:
    mine, other = words(marked), words(under)
    common = (mine & other).total()
    return Counts(
        passages=1,
        exact=int(mine == other),
        unmarked=int(bool(mine) and not other),
        words=mine.total(),
        found=common,
        under=other.total(),
        right=common,
    )


def main(folders: list[str]) -> None:
    files = sorted(path for folder in folders for path in Path(folder).rglob("*.pdf"))
    total, per_file, refused = Counts(), list[tuple[float, float, Path]](), 0
    with workers.WorkerPool(1, memory_mb=3072) as pool:
        futures: list[tuple[Path, Future[Counts]]] = [
            (path, pool.submit("benchmarks.highlight:measure", path, timeout_s=60)) for path in files
        ]
        for path, future in futures:
            try:
                counts = future.result()
            except errors.PipelineError as error:
                refused += 1
                if not isinstance(error, errors.DocumentError):
                    print(f"{path.name}: {error.message}")
                continue
            total = total.plus(counts)
            per_file.append((counts.found / max(1, counts.words), counts.right / max(1, counts.under), path))
    for recall, precision, path in sorted(per_file)[:15]:
        print(f"{recall:7.1%} {precision:7.1%}  {path.name}")
    print(f"{len(files)} PDFs, {refused} not read; {total.passages} passages, {total.words} words")
    print(f"recall {total.found / total.words:.2%}, precision {total.right / max(1, total.under):.2%}")
    print(f"exact {total.exact / total.passages:.1%}, unmarked {total.unmarked}")


if __name__ == "__main__":
    main(sys.argv[1:])
