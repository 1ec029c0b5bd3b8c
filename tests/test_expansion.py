"""Hits with their surroundings: nothing twice, nothing lost, nothing over a heading, nothing above the budget."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import answer_prompt, expansion, query, texts
from pipeline.document import Block
from pipeline.expansion import Passage, Text
from pipeline.models import tokens
from pipeline.search import Hit
from pipeline.stages import chunk, chunk_sections
from tests import served
from tests.test_chunk import Part, table

TINY = chunk.ChunkParams(size=16, max=40, context=False, tokenizer="t")


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A source of documents held in memory: a Protocol's other half, without a collection."""

    documents: Mapping[str, Text]

    def texts(self, doc_ids: Collection[str]) -> Mapping[str, Text]:
        return {doc_id: self.documents[doc_id] for doc_id in doc_ids if doc_id in self.documents}


def hit(doc_id: str, start: int, end: int, text: str) -> Hit:
    return Hit(
        chunk_id=f"{doc_id}:{start}",
        doc_id=doc_id,
        path=f"{doc_id}.md",
        title="",
        media_type="text/markdown",
        page=None,
        heading="",
        start=start,
        end=end,
        text=text,
        score=0.5,
        similarity=0.5,
        vector_rank=1,
        text_rank=None,
        fused=0.01,
    )


def cut(parts: Sequence[Part], doc_id: str = "d") -> tuple[Text, list[Hit]]:
    """A document of these parts as a source has it, and a hit for each of its chunks, in order."""
    found = table(parts, doc_id=doc_id)
    row = found.to_pylist()[0]
    blocks = [Block(**{**block, "heading_path": tuple(block["heading_path"])}) for block in row["blocks"]]
    rows = chunk.chunk_documents(found, TINY, tokens.builtin()).to_pylist()
    hits = [hit(doc_id, one["start"], one["end"], one["text"]) for one in rows]
    return Text(text=row["text"], blocks=blocks), hits


def count(text: str) -> int:
    return tokens.builtin().count([text])[0]


def expanded(source: Mapping[str, Text], hits: Sequence[Hit], **limits: int) -> list[Passage]:
    return expansion.expand(Held(documents=source), hits, count=count, **{"budget_tokens": 10_000, **limits})


# --- by example

SENTENCE = "The {} of the northern ferry is read at nine in the morning by the keeper of the lamp."
TIDE, LAMP, ROPE, SALT = (SENTENCE.format(word) for word in ("tide", "lamp oil", "rope", "salt store"))
LEAVE = [
    Part(text="Handbook", kind="heading", level=1),
    Part(text=TIDE),
    Part(text="Leave", kind="heading", level=2),
    Part(text=f"{LAMP} {ROPE}"),
    Part(text=SALT),
    Part(text="Pay", kind="heading", level=2),
    Part(text=SENTENCE.format("barley")),
]


def holding(hits: Sequence[Hit], words: str) -> Hit:
    return next(one for one in hits if words in one.text)


def test_a_hit_grows_to_its_section_and_no_further() -> None:
    text, hits = cut(LEAVE)
    (passage,) = expanded({"d": text}, [holding(hits, "rope")])
    assert passage.text == f"Leave\n\n{LAMP} {ROPE}\n\n{SALT}"
    assert text.text[passage.start : passage.end] == passage.text


def test_the_budget_decides_how_far() -> None:
    text, hits = cut(LEAVE)
    found = holding(hits, "rope")
    lengths = [len(expanded({"d": text}, [found], budget_tokens=budget)[0].text) for budget in range(90)]
    assert lengths == sorted(lengths)
    assert lengths[0] == len(found.text)
    assert len(set(lengths)) == 4  # the hit, with what follows, with what came before, with the heading


def test_a_limit_for_each_is_kept_beside_that_of_all() -> None:
    text, hits = cut(LEAVE)
    rope, barley = holding(hits, "rope"), holding(hits, "barley")
    first, second = expanded({"d": text}, [rope, barley], each_tokens=count(rope.text) + 2)
    assert (first.text, second.hit) == (rope.text, barley)
    assert expanded({"d": text}, [rope], each_tokens=0)[0].text == rope.text


def test_the_best_hit_grows_first() -> None:
    text, hits = cut(LEAVE)
    rope, barley = holding(hits, "rope"), holding(hits, "barley")
    room = count(rope.text) + count(barley.text) + 30
    first, second = expanded({"d": text}, [rope, barley], budget_tokens=room)
    assert len(first.text) > len(rope.text)
    assert second.text == barley.text


def test_hits_side_by_side_under_one_heading_become_one() -> None:
    text, hits = cut(LEAVE)
    salt, lamp, tide = (holding(hits, words) for words in ("salt store", "lamp oil", "tide"))
    first, second = expanded({"d": text}, [salt, tide, lamp])
    assert first.text == f"Leave\n\n{LAMP} {ROPE}\n\n{SALT}"
    assert (first.hits, first.hit, first.chunk_ids) == ((salt, lamp), salt, (salt.chunk_id, lamp.chunk_id))
    assert second.text == f"Handbook\n\n{TIDE}"


def test_as_a_hit_it_keeps_everything_but_its_range() -> None:
    text, hits = cut(LEAVE)
    rope = holding(hits, "rope")
    (passage,) = expanded({"d": text}, [rope])
    grown = passage.as_hit()
    assert (grown.start, grown.end, grown.text) == (passage.start, passage.end, passage.text)
    assert (grown.chunk_id, grown.score, grown.path) == (rope.chunk_id, rope.score, rope.path)


def test_headings_of_the_same_words_are_two_sections() -> None:
    parts = [Part(text="Note", kind="heading", level=1), Part(text=TIDE)]
    text, hits = cut([*parts, parts[0], Part(text=ROPE)])
    first, second = expanded({"d": text}, [holding(hits, "tide"), holding(hits, "rope")])
    assert (first.text, second.text) == (f"Note\n\n{TIDE}", f"Note\n\n{ROPE}")


def test_a_table_is_reached_back_to_its_header_before_anything_else() -> None:
    rows = [f"gauge {n}\t{n * 37} mm\tharbour\twinter" for n in range(12)]
    group = "\n".join(["name\train\tplace\tseason", *rows])
    text, hits = cut([Part(text="Rain", kind="heading", level=1), Part(text=group, kind="table"), Part(text=TIDE)])
    last = holding(hits, "gauge 11")
    assert "name\train" not in last.text  # the group was cut
    (passage,) = expanded({"d": text}, [last], budget_tokens=count(group))
    assert passage.text == group


def test_what_a_copy_shows_already_is_not_shown_again() -> None:
    one, hits = cut([Part(text=TIDE), Part(text=ROPE), Part(text=SALT)], "one")
    two, others = cut([Part(text=TIDE), Part(text=f"{ROPE} It is new."), Part(text=SALT)], "two")
    first, second = expanded({"one": one, "two": two}, [holding(hits, "rope"), holding(others, "rope")])
    assert first.text == f"{TIDE}\n\n{ROPE}\n\n{SALT}"
    assert second.text == f"{ROPE} It is new."


def test_chinese_grows_by_sentences() -> None:
    said = ["图书馆每天早上九点开门，晚上八点关门。", "周末图书馆早上十点开门，晚上六点关门。", "节假日图书馆不开门。"]
    text, hits = cut([Part(text="开放时间", kind="heading", level=1), Part(text="".join(said * 3))])
    (passage,) = expanded({"d": text}, hits[:1], budget_tokens=count(hits[0].text) + 25)
    assert passage.text.startswith(hits[0].text)
    assert passage.text.endswith("。")
    assert len(passage.text) > len(hits[0].text)


def test_a_hit_whose_text_is_not_there_stays_as_it_is() -> None:
    text, hits = cut(LEAVE)
    rope = holding(hits, "rope")
    changed = Text(text=text.text.replace("rope", "cord"), blocks=text.blocks)
    for source in ({}, {"d": changed}, {"d": Text(text="", blocks=[])}):
        (passage,) = expanded(source, [rope])
        assert (passage.text, passage.start, passage.end) == (rope.text, rope.start, rope.end)


def test_a_book_without_headings_is_looked_at_near_the_hit_only() -> None:
    book = " ".join(SENTENCE.format(f"gauge {n}") for n in range(20_000))
    at = book.index("The gauge 10000 ")
    found = hit("d", at, at + 80, book[at : at + 80])
    source = {"d": Text(text=book, blocks=[Block(start=0, end=len(book), kind="paragraph")])}
    (passage,) = expanded(source, [found], budget_tokens=1_000_000)
    assert passage.start >= at - expansion.REACH
    assert passage.end <= at + 80 + expansion.REACH
    assert expanded({}, []) == []


# --- whatever the document

WORDS = ("tide", "lamp", "kettle", "northern ferry", "copper window", "signal")
SENTENCES = st.builds(
    lambda words, number: f"The {' '.join(words)} number {number} is here.",
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=14),
    st.integers(0, 10_000),
)
CHINESE = st.integers(0, 999).map(lambda number: f"第{number}号码头的灯每天早上九点由看守人点亮。")
PROSE = st.lists(st.one_of(SENTENCES, CHINESE), min_size=1, max_size=8).map(" ".join)
ROWS = st.lists(st.integers(0, 999), min_size=1, max_size=10)
PARTS = st.one_of(
    PROSE.map(lambda text: Part(text=text)),
    ROWS.map(
        lambda rows: Part(text="\n".join(["gauge\train\tplace", *(f"g{n}\t{n} mm\tpier" for n in rows)]), kind="table")
    ),
    ROWS.map(lambda rows: Part(text="\n".join(f"- item {n} of the list" for n in rows), kind="list")),
    st.builds(
        lambda n, level: Part(text=f"Part {n}", kind="heading", level=level), st.integers(1, 3), st.integers(1, 3)
    ),
)


@st.composite
def corpora(draw: st.DrawFn) -> tuple[dict[str, Text], list[Hit]]:
    """One to three documents and some of their chunks in any order."""
    source, found = {}, []
    for number in range(draw(st.integers(1, 3))):
        text, hits = cut(draw(st.lists(PARTS, min_size=1, max_size=14)), f"d{number}")
        source[f"d{number}"] = text
        found += hits
    return source, draw(st.lists(st.sampled_from(found), max_size=8, unique_by=lambda one: one.chunk_id))


@settings(deadline=None, max_examples=50)
@given(corpora(), st.integers(0, 400), st.one_of(st.just(expansion.UNLIMITED), st.integers(0, 200)))
def test_whatever_is_found(corpus: tuple[dict[str, Text], list[Hit]], budget: int, each: int) -> None:
    source, hits = corpus
    passages = expanded(source, hits, budget_tokens=budget, each_tokens=each)
    for passage in passages:
        text = source[passage.hit.doc_id]
        assert passage.text == text.text[passage.start : passage.end]
        assert all(passage.start <= one.start and one.end <= passage.end for one in passage.hits)
        assert only_hits_cross_headings(text, passage)
        alone = sum(count(one.text) for one in passage.hits)
        assert count(passage.text) <= max(alone, each * len(passage.hits))
    assert [one.chunk_id for one in sorted(hits, key=lambda one: one.chunk_id)] == sorted(
        chunk_id for passage in passages for chunk_id in passage.chunk_ids
    )
    ranks = {one.chunk_id: rank for rank, one in enumerate(hits)}
    assert [ranks[one.hit.chunk_id] for one in passages] == sorted(ranks[one.hit.chunk_id] for one in passages)
    assert sum(count(one.text) for one in passages) <= max(budget, sum(count(one.text) for one in hits))
    for left, right in pairwise(sorted(passages, key=lambda one: (one.hit.doc_id, one.start))):
        assert left.hit.doc_id != right.hit.doc_id or left.end <= right.start


def only_hits_cross_headings(text: Text, passage: Passage) -> bool:
    """Whether each change of heading strictly inside the passage lies inside a hit, which may hold small sections."""
    blocks = chunk_sections.cover(text.text, text.blocks)
    turns = [b.start for a, b in pairwise(blocks) if b.kind == "heading" or a.heading_path != b.heading_path]
    inner = [turn for turn in turns if passage.start < turn < passage.end]
    return all(any(one.start < turn < one.end for one in passage.hits) for turn in inner)


@settings(deadline=None, max_examples=25)
@given(corpora())
def test_without_a_limit_no_unit_of_a_section_is_left_out(corpus: tuple[dict[str, Text], list[Hit]]) -> None:
    source, hits = corpus
    for one in hits[:2]:
        (passage,) = expanded(source, [one], budget_tokens=100_000)
        text = source[one.doc_id].text
        blocks = [b for b in source[one.doc_id].blocks if b.start >= passage.end]
        after = text[passage.end : blocks[0].start if blocks else len(text)].strip()
        assert not after


@settings(deadline=None, max_examples=25)
@given(corpora(), st.integers(0, 300))
def test_the_measure_of_prompts_keeps_its_budget_too(corpus: tuple[dict[str, Text], list[Hit]], budget: int) -> None:
    source, hits = corpus
    passages = expansion.expand(Held(documents=source), hits, budget_tokens=budget, count=answer_prompt.estimate)
    spent = sum(answer_prompt.estimate(one.text) for one in passages)
    assert spent <= max(budget, sum(answer_prompt.estimate(f"{one.text}\n\n") for one in hits))  # neighbours are joined
    assert sum(one.tokens for one in passages) >= spent


# --- a real collection

RULES = "# Snow\n\nBelow minus ten degrees nobody works alone.\n\n{}\n\nThe keeper of the hut writes down who goes.\n"
BEFORE, AFTER = RULES.format("Ropes are checked in May."), RULES.format("Ropes are checked in June.")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of two publications: 1 with BEFORE, 2 with AFTER."""
    folder = tmp_path_factory.mktemp("expansion")
    docs = served.write(folder / "docs", {"snow.md": BEFORE, "other.md": "# Pay\n\nWages are paid in May.\n"})
    served.build(served.settings(folder / "data"), docs)
    (docs / "snow.md").write_text(AFTER)
    served.build(served.settings(folder / "data"), docs)
    return folder


def source_of(folder: Path, number: int = 0) -> tuple[texts.StoredTexts, query.Standing]:
    standing = query.open_collection(served.settings(folder / "data"))
    return texts.StoredTexts(standing.collection, number or standing.note.snapshot), standing


def test_the_stored_text_is_that_of_the_publication(built: Path) -> None:
    source, standing = source_of(built)
    hits = query.find(served.settings(built / "data"), "who goes alone in the snow?", top_k=2, standing=standing)
    snow = next(one for one in hits if one.path == "snow.md")
    (passage,) = expansion.expand(source, [snow], budget_tokens=500, count=count)
    assert "June" in passage.text
    text = source.texts([snow.doc_id])[snow.doc_id].text
    assert text[passage.start : passage.end] == passage.text
    assert source.texts([snow.doc_id, "unknown"]).keys() == {snow.doc_id}  # remembered, and what is unknown left out


def test_a_reader_of_an_older_publication_gets_its_text(built: Path) -> None:
    old = texts.StoredTexts(source_of(built)[1].collection, 1)
    table_ = source_of(built)[1].collection.snapshot(1).table  # type: ignore[union-attr]
    doc_id = next(row["doc_id"] for row in table_.to_pylist() if row["uri"] == "snow.md")
    assert "May" in old.texts([doc_id])[doc_id].text
    newest = source_of(built)[0]  # a version that was held back is searched under a newer publication
    assert "May" in newest.texts([doc_id])[doc_id].text


def test_texts_are_remembered_up_to_a_limit(built: Path) -> None:
    standing = source_of(built)[1]
    source = texts.of(standing.collection.root, standing.note.snapshot)
    assert source is texts.of(standing.collection.root, standing.note.snapshot)
    rows = standing.collection.snapshot(standing.note.snapshot).table.to_pylist()  # type: ignore[union-attr]
    first, second = (row["doc_id"] for row in rows)
    assert source.texts([first])[first] is source.texts([first, second])[first]
    small = texts.StoredTexts(standing.collection, standing.note.snapshot, remembered=0)
    assert small.texts([first])[first] is not small.texts([first])[first]
    assert small.texts([first])[first] == source.texts([first])[first]


def test_a_damaged_shard_costs_the_surroundings_and_nothing_else(
    built: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    shutil.copytree(built / "data", tmp_path / "data")
    source, standing = source_of(tmp_path)
    for shard in (standing.collection.root / "documents").glob("*.parquet"):
        shard.write_bytes(b"PAR1 torn")
    hits = query.find(served.settings(tmp_path / "data"), "ropes", top_k=2, standing=standing)
    with caplog.at_level(logging.WARNING):
        passages = expansion.expand(source, hits, budget_tokens=500, count=count)
    assert [one.text for one in passages] == [one.text for one in hits]
    assert "without their surroundings" in caplog.text
