"""Questions whose answers are known, from the files that people have them in.

| file | what it is |
|---|---|
| `*.jsonl` | our own lines `{"question", "path", "quote"}`; without a path: the documents do not answer it |
| `*.json` | SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016): paragraphs with questions, answers by offset |
| `*.csv` | chunking_evaluation's table: question, corpus_id, references as JSON with content, start_index, end_index |
| a folder | BEIR (Thakur et al. 2021): `queries.jsonl`, `qrels/*.tsv`; which documents are relevant, by their ids |
| anything else | TREC qrels: lines `question 0 document grade`; the questions' text is in a second file |

Knows files and their formats; knows nothing of collections: whether a document or a quote is there is not asked here.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipeline import errors, ids

csv.field_size_limit(1 << 24)  # the references of one question are one field


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One thing that a question asks for.

    Attributes:
        document: a uri; where `by_name` is set any name of a document will do (its last part, with or without its
            suffix), and "" stands for "whichever holds the passage".
        quote: the words that answer; "": the document as a whole does.
        start: where the quote is said to begin, in code points, of the passage if there is one, else of the document.
        passage: the text around the quote that counts as relevant; "": the quote alone.
        grade: how relevant, from 1.
    """

    document: str
    quote: str = ""
    start: int | None = None
    passage: str = ""
    grade: int = 1
    by_name: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with all that it asks for; nothing: the documents do not answer it. `where`: its place in the file."""

    text: str
    wanted: tuple[Wanted, ...]
    where: str

    @property
    def key(self) -> str:
        """The same question with the same answers has the same key, in whatever file."""
        parts = [[one.document, one.quote, one.grade] for one in self.wanted]
        return ids.embed_key(msgspec.json.encode([self.text, parts]).decode())[:16]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of our own; other fields are for other readers. `quote` stands in the document at `path`, a uri."""

    question: str
    path: str | None = None
    quote: str = ""


def load(path: Path, queries: Path | None = None) -> tuple[Question, ...]:
    """The questions of a file or folder, in its order.

    Args:
        queries: the text of the questions, where `path` holds TREC qrels: lines `id<tab>text`, or JSON lines with
            `_id` or `id` and `text`.

    Raises:
        UsageError: it cannot be read, is not what its name says, or holds no question.
    """
    if path.is_dir():
        found = _beir(path)
    elif path.suffix == ".jsonl":
        found = _lines(path)
    elif path.suffix == ".json":
        found = _squad(path)
    elif path.suffix == ".csv":
        found = _table(path)
    else:
        found = _trec(path, queries)
    questions = tuple(found)
    if not questions:
        raise errors.UsageError(f"{path} holds no question.", "Name a file that does; see `pipeline evaluate --help`.")
    return questions


def read_lines(path: Path) -> Iterator[tuple[int, Line]]:
    """Our own lines with their numbers, from 1.

    Raises:
        UsageError: the file cannot be read, or a line is not of that form.
    """
    for number, line in enumerate(_bytes(path).splitlines(), start=1):
        if line.strip():
            yield number, _decoded(path, number, line)


def _decoded(path: Path, number: int, line: bytes) -> Line:
    try:
        return msgspec.json.decode(line, type=Line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.UsageError(
            f"{path}, line {number}: {error}",
            'Write one object a line: {"question": "...", "path": "...", "quote": "..."}',
        ) from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise errors.UsageError(f"cannot read {path}: {error.strerror}", "Correct the path.") from error


def _text(path: Path) -> str:
    try:
        return _bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise errors.UsageError(f"{path} is not UTF-8 text: {error}", "Save it as UTF-8.") from error


def _lines(path: Path) -> Iterator[Question]:
    for number, line in read_lines(path):
        yield of_line(line, f"line {number}")


def of_line(line: Line, where: str = "") -> Question:
    """A line as a question; without a path the documents do not answer it."""
    wanted = (Wanted(document=line.path, quote=line.quote),) if line.path else ()
    return Question(text=line.question, wanted=wanted, where=where)


# --- SQuAD


class _Said(msgspec.Struct, frozen=True):
    text: str
    answer_start: int


class _Asked(msgspec.Struct, frozen=True):
    question: str
    answers: tuple[_Said, ...] = ()
    id: str | int = ""
    is_impossible: bool = False


class _Paragraph(msgspec.Struct, frozen=True):
    context: str
    qas: tuple[_Asked, ...]


class _Article(msgspec.Struct, frozen=True):
    paragraphs: tuple[_Paragraph, ...]
    title: str = ""


class _Squad(msgspec.Struct, frozen=True):
    data: tuple[_Article, ...]


def _squad(path: Path) -> Iterator[Question]:
    """Several answers to one question are the words of several people for the same thing: the first one is taken."""
    try:
        whole = msgspec.json.decode(_bytes(path), type=_Squad)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.UsageError(
            f"{path} is not SQuAD's JSON: {error}",
            'It begins {"data": [{"title": "...", "paragraphs": [...]}]}; lines of our own belong into a .jsonl file.',
        ) from error
    for article in whole.data:
        for paragraph in article.paragraphs:
            for number, asked in enumerate(paragraph.qas, start=1):
                where = f"{article.title}, {asked.id or number}".strip(", ")
                yield Question(text=asked.question, wanted=_answer(paragraph.context, asked), where=where)


def _answer(context: str, asked: _Asked) -> tuple[Wanted, ...]:
    if asked.is_impossible or not asked.answers:
        return ()
    said = asked.answers[0]
    return (Wanted(document="", quote=said.text, start=said.answer_start, passage=context),)


# --- chunking_evaluation


class _Reference(msgspec.Struct, frozen=True):
    content: str
    start_index: int | None = None


def _table(path: Path) -> Iterator[Question]:
    rows = csv.DictReader(io.StringIO(_text(path), newline=""))
    lacking = {"question", "references", "corpus_id"} - set(rows.fieldnames or ())
    if lacking:
        raise errors.UsageError(
            f"{path} has no column {', '.join(sorted(lacking))}.",
            "A .csv file is read as chunking_evaluation writes it: question, references (JSON), corpus_id.",
        )
    for number, row in enumerate(rows, start=1):
        yield Question(text=row["question"], wanted=tuple(_references(path, number, row)), where=f"row {number}")


def _references(path: Path, number: int, row: dict[str, str]) -> Iterator[Wanted]:
    try:
        references = msgspec.json.decode(row["references"] or "[]", type=list[_Reference])
    except (msgspec.DecodeError, TypeError) as error:
        raise errors.UsageError(
            f"{path}, row {number}: references: {error}", 'Write [{"content": "...", "start_index": 0}].'
        ) from error
    for one in references:
        yield Wanted(document=row["corpus_id"], quote=one.content, start=one.start_index, by_name=True)


# --- documents by id: TREC and BEIR


class _Query(msgspec.Struct, frozen=True, kw_only=True):
    text: str
    under: str | int | None = msgspec.field(name="_id", default=None)
    id: str | int | None = None


Judged = tuple[str, str, int]  # question, document, grade


def _trec(path: Path, queries: Path | None) -> Iterator[Question]:
    judged = list(_judged(path))
    if queries is None:
        raise errors.UsageError(
            f"{path} is read as TREC qrels, which name questions by their ids.",
            "Give the file with their text as well: --queries FILE (lines of id and text). "
            "Other formats end with .jsonl, .json or .csv.",
        )
    return _graded(queries, judged)


def _beir(path: Path) -> Iterator[Question]:
    queries, found = path / "queries.jsonl", sorted((path / "qrels").glob("*.tsv"))
    if not queries.exists() or not found:
        raise errors.UsageError(
            f"{path} is a folder, but not one in BEIR's layout: queries.jsonl and qrels/*.tsv.",
            "Name the file with the questions.",
        )
    chosen = next((one for one in found if one.stem == "test"), found[0])
    return _graded(queries, _judged(chosen))


def _judged(path: Path) -> Iterator[Judged]:
    """Lines `question iteration document grade`, or BEIR's three columns under a header."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        fields = line.split("\t") if line.count("\t") == 2 else line.split()
        if not fields or (number == 1 and fields[0] == "query-id"):
            continue
        question, *_, document, grade = fields if len(fields) in (3, 4) else ("", "", "")
        if not question or not grade.lstrip("-").isdigit():
            raise errors.UsageError(
                f"{path}, line {number}: not a line of TREC qrels: {line[:60]!r}",
                "A line is `question 0 document grade`. Other formats end with .jsonl, .json or .csv.",
            )
        yield question, document, int(grade)


def _graded(queries: Path, judged: Iterable[Judged]) -> Iterator[Question]:
    texts = dict(_queries(queries))
    wanted: dict[str, list[Wanted]] = {}
    for question, document, grade in judged:
        if question not in texts:
            raise errors.UsageError(f"{queries} has no question {question!r}.", "It must hold every one of the qrels.")
        wanted.setdefault(question, [])
        if grade > 0:
            wanted[question].append(Wanted(document=document, grade=grade, by_name=True))
    for question, found in wanted.items():
        yield Question(text=texts[question], wanted=tuple(found), where=question)


def _queries(path: Path) -> Iterator[tuple[str, str]]:
    read: Callable[[str], tuple[str, str]] = _query if path.suffix == ".jsonl" else _tabbed
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            try:
                yield read(line)
            except (msgspec.DecodeError, ValueError) as error:
                raise errors.UsageError(
                    f"{path}, line {number}: {error}", 'A line is `id<tab>text`, or in .jsonl {"_id", "text"}.'
                ) from error


def _query(line: str) -> tuple[str, str]:
    found = msgspec.json.decode(line, type=_Query)
    name = found.under if found.under is not None else found.id
    if name is None:
        raise ValueError("neither _id nor id")
    return str(name), found.text


def _tabbed(line: str) -> tuple[str, str]:
    name, tab, text = line.partition("\t")
    if not tab or not text.strip():
        raise ValueError("no tab between id and text")
    return name, text.strip()


def names_of(uri: str) -> Sequence[str]:
    """What a document may be called by those who do not know its uri: with and without folder and suffix."""
    last = uri.rpartition("/")[2]
    return list(dict.fromkeys((uri, _bare(uri), last, _bare(last))))


def _bare(name: str) -> str:
    stem, dot, _ = name.rpartition(".")
    return stem if dot and stem and not stem.endswith("/") else name


def dump_line(line: Line, **more: Any) -> bytes:
    """One of our own lines, with its end."""
    return msgspec.json.encode({"question": line.question, "path": line.path, "quote": line.quote, **more}) + b"\n"
