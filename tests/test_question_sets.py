"""Question files of every format, what is wrong with them, and where their answers stand in a collection."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import errors, ids, placing, question_sets, quotes, schema
from pipeline.question_sets import Question, Wanted
from pipeline.store import Collection

CONTEXT = "The lamp is green. The cable is 40 m long and may lie in water. It weighs 4 kg."
SQUAD = {
    "version": "1.1",
    "data": [
        {
            "title": "Lamp",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "q1",
                            "question": "How long is the cable?",
                            "answers": [
                                {"text": "40 m", "answer_start": 32},
                                {"text": "40 m long", "answer_start": 32},
                            ],
                        },
                        {"id": "q2", "question": "Who made it?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}
CSV = 'question,references,corpus_id\n"How long, and how heavy?","[{""content"": ""40 m"", ""start_index"": 32, '
CSV += '""end_index"": 36}, {""content"": ""4 kg"", ""start_index"": 0}]",lamp\n'


def written(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


# --- files


def test_our_own_lines(tmp_path: Path) -> None:
    lines = [
        {"question": "How long?", "path": "a.md", "quote": "40 m", "lang": "en"},
        {"question": "Who won?", "path": None, "quote": ""},
    ]
    found = question_sets.load(written(tmp_path / "q.jsonl", "\n\n".join(map(json.dumps, lines))))
    assert found == (
        Question(text="How long?", wanted=(Wanted(document="a.md", quote="40 m"),), where="line 1"),
        Question(text="Who won?", wanted=(), where="line 3"),
    )


def test_squad_takes_the_first_of_several_people_s_answers(tmp_path: Path) -> None:
    answered, impossible = question_sets.load(written(tmp_path / "q.json", SQUAD))
    assert answered.wanted == (Wanted(document="", quote="40 m", start=32, passage=CONTEXT),)
    assert (answered.where, impossible.wanted) == ("Lamp, q1", ())


def test_chunking_evaluation_s_table(tmp_path: Path) -> None:
    (found,) = question_sets.load(written(tmp_path / "q.csv", CSV))
    assert found.wanted == (
        Wanted(document="lamp", quote="40 m", start=32, by_name=True),
        Wanted(document="lamp", quote="4 kg", start=0, by_name=True),
    )


@pytest.mark.parametrize(
    "queries", ["7\tHow long?\n8\tWho won?\n", '{"id": 7, "text": "How long?"}\n{"_id": "8", "text": "Who won?"}\n']
)
def test_trec_qrels_with_the_questions_beside(tmp_path: Path, queries: str) -> None:
    suffix = ".jsonl" if queries.startswith("{") else ".tsv"
    qrels = written(tmp_path / "qrels.txt", "7 0 doc1 2\n7 0 doc2 0\n8 0 doc9 0\n7 0 doc3 1\n")
    long, won = question_sets.load(qrels, written(tmp_path / f"queries{suffix}", queries))
    assert long == Question(
        text="How long?",
        wanted=(Wanted(document="doc1", grade=2, by_name=True), Wanted(document="doc3", by_name=True)),
        where="7",
    )
    assert won.wanted == (), "judged, and nothing is relevant"


def test_beir_takes_the_test_questions(tmp_path: Path) -> None:
    written(tmp_path / "set" / "queries.jsonl", '{"_id": "1", "text": "a"}\n{"_id": "2", "text": "b"}\n')
    written(tmp_path / "set" / "qrels" / "dev.tsv", "query-id\tcorpus-id\tscore\n2\td\t1\n")
    written(tmp_path / "set" / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n1\tmy doc\t1\n")
    (found,) = question_sets.load(tmp_path / "set")
    assert found.wanted == (Wanted(document="my doc", by_name=True),)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.jsonl", '{"question": "a", "path": "b"}\n{"path": 3}\n', "line 2"),
        ("q.jsonl", "\n", "holds no question"),
        ("q.json", '{"question": "a"}', "not SQuAD's JSON"),
        ("q.json", "[", "not SQuAD's JSON"),
        ("q.csv", "question,answer\na,b\n", "no column corpus_id, references"),
        ("q.csv", 'question,references,corpus_id\na,"[{}]",c\n', "row 1: references"),
        ("qrels", "1 0 d 1\n", "--queries"),
        ("notes.md", "# Notes about the lamp\n", "line 1: not a line of TREC qrels"),
        ("qrels", "1 0 d one\n", "line 1"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        question_sets.load(written(tmp_path / name, content))
    assert said in f"{caught.value.message} {caught.value.remedy}"
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_other_things_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="No such file"):
        question_sets.load(tmp_path / "gone.json")
    with pytest.raises(errors.UsageError, match="BEIR's layout"):
        question_sets.load(tmp_path)
    (tmp_path / "latin.csv").write_bytes("question,références\n".encode("latin-1"))
    with pytest.raises(errors.UsageError, match="UTF-8"):
        question_sets.load(tmp_path / "latin.csv")
    qrels = written(tmp_path / "qrels", "1 0 d 1\n")
    for name, content in (("a.tsv", "2\tother\n"), ("b.tsv", "1 no tab\n"), ("c.jsonl", '{"text": "no id"}\n')):
        with pytest.raises(errors.UsageError, match="1"):
            question_sets.load(qrels, written(tmp_path / name, content))


def test_a_question_is_known_again_by_what_it_asks() -> None:
    one = Question(text="a", wanted=(Wanted(document="d", quote="q"),), where="line 1")
    assert one.key == Question(text="a", wanted=(Wanted(document="d", quote="q", start=3),), where="line 9").key
    assert one.key != Question(text="a", wanted=(Wanted(document="d", quote="r"),), where="line 1").key


# --- quotes


@pytest.mark.parametrize(
    ("text", "quote", "span"),
    [
        ("the cable is 40 m long", "40 m", (13, 17)),
        ("the cable is\n  40 m\tlong", "is 40 m long", (10, 24)),
        ("The Cable", "the cable", (0, 9)),
        ("最低气温是 零下\n17.3度", "气温是零下17.3", (2, 13)),
        ("Straße 40", "STRASSE 40", (0, 9)),  # one character that is two in the other case
        ("Zeilen\u00adumbruch", "\ufeffZeilenumbruch", (0, 14)),  # what nobody sees
        ("abc", "abd", None),
        ("abc", "", None),
        ("abc", "  ", None),
    ],
)
def test_a_quote_is_found_whatever_its_white_space_and_case(
    text: str, quote: str, span: tuple[int, int] | None
) -> None:
    assert quotes.Text(text).find(quote) == span


def test_a_place_is_believed_if_the_quote_is_there() -> None:
    text = quotes.Text("one two one")
    assert text.find("one", near=8) == (8, 11)
    assert text.find("one", near=5) == (0, 3)
    assert text.find("one") == (0, 3)


@given(st.text(alphabet="aB \nßéİ雨", max_size=30), st.integers(0, 30), st.integers(1, 10))
def test_what_is_cut_out_of_a_text_is_found_in_it(text: str, start: int, length: int) -> None:
    quote = text[start : start + length].swapcase()
    found = quotes.Text(text).find(quote)
    if quotes.folded(quote) in quotes.folded(text) and quote.strip():
        assert found is not None
        assert quotes.folded(quote) in quotes.folded(text[slice(*found)])
    else:
        assert found is None


# --- their places in a collection

Documents = dict[str, str]


@pytest.fixture
def collection(tmp_path: Path) -> Callable[[Documents], Collection]:
    """A collection with a snapshot of these documents, as ingest would leave it."""

    def made(documents: Documents) -> Collection:
        store = Collection(tmp_path / "data", "default")
        with store.writing():
            rows: list[dict[str, Any]] = []
            for uri, text in documents.items():
                doc = {"doc_hash": "", "title": "", "media_type": "", "blocks": []}
                doc_id = ids.embed_key(uri)
                table = pa.Table.from_pylist([{**doc, "doc_id": doc_id, "uri": uri, "text": text}], schema.DOCUMENTS)
                store.write_documents(f"s-{doc_id[:8]}", table)
                row = {field.name: 0 if pa.types.is_integer(field.type) else "" for field in schema.SNAPSHOT}
                rows.append(row | {"uri": uri, "doc_id": doc_id, "shard": f"s-{doc_id[:8]}", "status": "ok"})
            store.write_snapshot(pa.Table.from_pylist(rows, schema.SNAPSHOT), [str(tmp_path)], 0)
        return store

    return made


def placed(store: Collection, *wanted: Wanted) -> placing.Placed:
    return placing.place(store, store.snapshot(), [Question(text="?", wanted=wanted, where="line 1")])


def spot(store: Collection, wanted: Wanted) -> placing.Spot:
    ((_, spots),) = placed(store, wanted).questions
    return spots[0]


def why(store: Collection, wanted: Wanted) -> str:
    (left_out,) = placed(store, wanted).left_out
    return left_out.why


def test_a_quote_is_placed_in_its_document(collection: Callable[[Documents], Collection]) -> None:
    store = collection({"docs/lamp.md": CONTEXT, "docs/other.md": "Something else."})
    assert spot(store, Wanted(document="docs/lamp.md", quote="40 m\nlong")).region == (32, 41)
    assert why(store, Wanted(document="docs/lamp.md", quote="50 m")) == "quote not found"
    assert why(store, Wanted(document="lamp.md", quote="40 m")) == "no such document", "a uri is a uri"
    assert spot(store, Wanted(document="docs/lamp.md")).region is None


def test_documents_by_name(collection: Callable[[Documents], Collection]) -> None:
    store = collection({"docs/lamp.md": CONTEXT, "a/notes.txt": "1", "b/notes.txt": "2"})
    for name in ("docs/lamp.md", "docs/lamp", "lamp.md", "lamp"):
        assert spot(store, Wanted(document=name, by_name=True)).uri == "docs/lamp.md"
    assert why(store, Wanted(document="notes", by_name=True)) == "name is ambiguous"
    assert spot(store, Wanted(document="b/notes", by_name=True)).uri == "b/notes.txt"
    assert why(store, Wanted(document="gone", by_name=True)) == "no such document"


def test_a_passage_is_looked_for_everywhere_and_the_answer_inside_it(
    collection: Callable[[Documents], Collection],
) -> None:
    store = collection({"other.md": "40 m is much.", "lamp.md": f"# Lamp\n\n40 m: see below.\n\n{CONTEXT}\n"})
    found = spot(store, Wanted(document="", quote="40 m", start=32, passage=CONTEXT))
    begin = len("# Lamp\n\n40 m: see below.\n\n")
    assert (found.uri, found.region, found.at) == ("lamp.md", (begin, begin + len(CONTEXT)), (begin + 32, begin + 36))
    assert why(store, Wanted(document="", quote="x", start=0, passage="Not in any document.")) == "quote not found"


def test_a_question_with_one_lost_answer_is_left_out_and_one_without_any_is_counted(
    collection: Callable[[Documents], Collection],
) -> None:
    store = collection({"lamp.md": CONTEXT})
    both = placed(store, Wanted(document="lamp.md", quote="40 m"), Wanted(document="lamp.md", quote="50 m"))
    assert (both.questions, len(both.left_out)) == ((), 1)
    assert both.left_out[0].to_json() == {
        "where": "line 1",
        "question": "?",
        "document": "lamp.md",
        "why": "quote not found",
    }
    assert len(placed(store).unanswerable) == 1
