"""Chunks: exact text, full cover, never above the limit, and boundaries that an edit elsewhere does not move."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors, ids, schema
from pipeline.models import Tokenizer, tokens
from pipeline.stages import chunk, chunk_bounds, chunk_cuts, chunk_sections
from pipeline.stages.chunk import ChunkParams

WORDS = """
harbour lamp tide ledger gravel kettle winter signal rope barley copper window northern quiet ferry stone bridge
morning paper engine river salt candle garden market letter road autumn bell thunder meadow crane village keeper
""".split()  # noqa: SIM905


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A block to be: headings carry their level."""

    text: str
    kind: str = "paragraph"
    level: int = 0


def table(parts: Sequence[Part], title: str = "", doc_id: str = "d") -> pa.Table:
    """One document of these parts, an empty line between them."""
    text, blocks, path = "", [], []
    for part in parts:
        if part.level:
            path = [*path[: part.level - 1], part.text]
        start = len(text)
        blocks.append(
            {"start": start, "end": start + len(part.text), "kind": part.kind, "heading_path": list(path), "page": None}
        )
        text += part.text + "\n\n"
    return documents([{"doc_id": doc_id, "title": title, "text": text, "blocks": blocks}])


def documents(rows: Sequence[dict[str, Any]]) -> pa.Table:
    fixed = {"doc_hash": "h", "uri": "a.txt", "media_type": "text/plain", "title": "", "doc_id": "d"}
    return pa.Table.from_pylist([{**fixed, **row} for row in rows], schema=schema.DOCUMENTS)


def plain(text: str, kind: str = "paragraph") -> pa.Table:
    blocks = [{"start": 0, "end": len(text), "kind": kind, "heading_path": [], "page": None}] if text.strip() else []
    return documents([{"text": text, "blocks": blocks}])


def chunks(
    docs: pa.Table, params: ChunkParams | None = None, tokenizer: Tokenizer | None = None
) -> list[dict[str, Any]]:
    """Rows of the chunks, after all checks that hold for every document."""
    params, tokenizer = params or ChunkParams(), tokenizer or tokens.builtin()
    made = chunk.chunk_documents(docs, params, tokenizer)
    schema.check(made, schema.CHUNKS, "chunks")
    rows: list[dict[str, Any]] = made.to_pylist()
    check(docs.to_pylist(), rows, params, tokenizer)
    return rows


def check(
    docs: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], params: ChunkParams, tokenizer: Tokenizer
) -> None:
    sent = [chunk.embed_text(row["context"], row["text"], row["title"], params.document_template) for row in rows]
    assert [row["embed_key"] for row in rows] == [ids.embed_key(text) for text in sent]
    assert [row["tokens"] for row in rows] == tokenizer.count(sent)
    assert all(row["tokens"] <= min(params.max, params.limit) for row in rows)
    assert all(len(row["text"]) <= chunk_sections.MAX_CHARS for row in rows)
    assert len({row["chunk_id"] for row in rows}) == len(rows)
    for doc in docs:
        own = [row for row in rows if row["doc_id"] == doc["doc_id"]]
        assert all(row["text"] == doc["text"][row["start"] : row["end"]] for row in own)
        assert all(row["text"] == row["text"].strip() != "" for row in own)
        edges = [0, *(edge for row in own for edge in (row["start"], row["end"])), len(doc["text"])]
        assert edges == sorted(edges)
        assert not any(doc["text"][start:end].strip() for start, end in list(pairwise(edges))[::2])


# --- what holds for any document ---------------------------------------------------------------------------------

KINDS = st.sampled_from(["paragraph", "list", "table", "code", "quote", "caption", "header"])
BODIES = st.one_of(
    st.text(min_size=1, max_size=300),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=900).map(" ".join),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=400).map("\n".join),
    st.lists(st.sampled_from("港口在凌晨关闭。天气预报有雷雨；“今天不出海！”船长说"), max_size=700).map("".join),
    st.integers(1, 3000).map(lambda n: "x9Q+" * n),
)
PARTS = st.lists(
    st.one_of(
        st.builds(Part, text=BODIES, kind=KINDS),
        st.builds(
            Part,
            text=st.lists(st.sampled_from(WORDS), min_size=1, max_size=90).map(" ".join),
            kind=st.just("heading"),
            level=st.integers(1, 4),
        ),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(parts=PARTS, title=st.sampled_from(["", "Harbour log", "rope " * 100]))
def test_any_document_is_covered_within_the_limit(parts: list[Part], title: str) -> None:
    chunks(table([part for part in parts if part.text.strip()], title))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    parts=PARTS,
    size=st.integers(16, 300),
    most=st.integers(64, 500),
    limit=st.integers(64, 510),
    template=st.sampled_from(["{text}", "search_document: {text}", "title: {title} | text: {text}"]),
    context=st.booleans(),
)
def test_any_parameters_are_kept(
    parts: list[Part], size: int, most: int, limit: int, template: str, context: bool
) -> None:
    params = ChunkParams(size=size, max=most, limit=limit, document_template=template, context=context)
    docs = table([part for part in parts if part.text.strip()], "Harbour log")
    assert chunks(docs, params) == chunks(docs, params)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(parts=PARTS)
def test_a_tokenizer_whose_counts_are_bounds_is_kept_to_as_well(parts: list[Part]) -> None:
    chunks(table([part for part in parts if part.text.strip()]), tokenizer=tokens.conservative())


@pytest.mark.parametrize("text", ["", " ", "\n\n\t \u3000\n"])
def test_blank_documents_give_no_chunks(text: str) -> None:
    assert chunks(plain(text)) == []


def test_documents_of_a_table_are_chunked_one_by_one() -> None:
    one, two = table([Part(text=prose(1, 40))], doc_id="one"), table([Part(text=prose(2, 40))], doc_id="two")
    both = chunks(pa.concat_tables([one, two]))
    assert both == chunks(one) + chunks(two)


def test_text_outside_of_all_blocks_is_not_lost() -> None:
    text = "before the block. " + "inside. " + "after it."
    rows = chunks(
        documents([{"text": text, "blocks": [{"start": 18, "end": 25, "kind": "paragraph", "heading_path": []}]}])
    )
    assert [row["text"] for row in rows] == [text]


def test_a_template_without_room_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="leaves"):
        chunks(plain("rain"), ChunkParams(limit=40, document_template="rope " * 30 + "{text}"))


# --- headings and context ----------------------------------------------------------------------------------------


def heading(text: str, level: int = 1) -> Part:
    return Part(text=text, kind="heading", level=level)


def test_a_heading_begins_a_chunk_and_is_never_alone() -> None:
    parts = [heading("Log"), heading("May", 2), Part(text=prose(1, 30)), heading("June", 2), Part(text=prose(2, 30))]
    rows = chunks(table([*parts, heading("July", 2)]))
    assert rows[0]["text"].startswith("Log\n\nMay\n\n")
    assert next(row["text"] for row in rows if row["heading_path"] == ["Log", "June"]).startswith("June\n\n")
    assert all(len(row["text"].split()) > 20 for row in rows)
    assert rows[-1]["text"].endswith("July")


def test_a_document_of_headings_alone_is_one_chunk() -> None:
    rows = chunks(table([heading("Log"), heading("May", 2)]))
    assert [row["text"] for row in rows] == ["Log\n\nMay"]
    assert rows[0]["heading_path"] == ["Log", "May"]


def test_the_context_names_title_and_headings_but_not_what_the_text_begins_with() -> None:
    rows = chunks(table([heading("Log"), heading("May", 2), Part(text=prose(1, 60))], title="Harbour book"))
    assert [row["context"] for row in rows] == ["Harbour book"] + ["Harbour book > Log > May"] * (len(rows) - 1)
    assert len(rows) > 2


def test_a_title_equal_to_the_first_heading_or_the_first_words_is_not_said_twice() -> None:
    rows = chunks(table([heading("Log"), Part(text=prose(1, 60))], title="Log"))
    assert [row["context"] for row in rows] == [""] + ["Log"] * (len(rows) - 1)
    assert chunks(table([Part(text="Log of the harbour. Rain.")], title="Log of the harbour"))[0]["context"] == ""


def test_a_path_that_changes_without_a_heading_is_a_cut_as_well() -> None:
    text = prose(1, 8) + "\n" + prose(2, 8)
    middle = text.index("\n")
    blocks = [
        {"start": 0, "end": middle, "kind": "table", "heading_path": ["Sheet 1"], "page": 1},
        {"start": middle + 1, "end": len(text), "kind": "table", "heading_path": ["Sheet 2"], "page": 2},
    ]
    rows = chunks(documents([{"text": text, "blocks": blocks}]))
    assert [(row["heading_path"], row["page"]) for row in rows] == [(["Sheet 1"], 1), (["Sheet 2"], 2)]


def test_tiny_neighbours_under_one_parent_share_a_chunk() -> None:
    parts = [heading("Log"), Part(text=prose(9, 20))]
    for month in ("May", "June", "July"):
        parts += [heading(month, 2), Part(text=f"{month} was wet and the wind came from the north.")]
    parts += [heading("Staff"), heading("Keeper", 2), Part(text="One keeper.")]
    rows = chunks(table(parts))
    assert [row["text"].split("\n")[0] for row in rows][-2:] == ["May", "Staff"]
    assert rows[-2]["context"] == "Log"
    assert "July was wet" in rows[-2]["text"]


def test_the_context_is_cut_to_its_budget_and_keeps_the_innermost_heading() -> None:
    long = " ".join(WORDS * 2)
    parts = [heading(long), heading(long + " two", 2), heading("Innermost", 3), Part(text=prose(3, 60))]
    rows = chunks(table(parts, title="Book"))
    assert rows[-1]["context"] == "Book > Innermost"
    endless = chunks(table([heading(long), Part(text=prose(3, 60))]))[-1]["context"]
    assert tokens.builtin().count([endless]) == [64]
    assert long.startswith(endless)


def test_context_can_be_left_out() -> None:
    rows = chunks(table([heading("Log"), Part(text=prose(1, 60))], title="Book"), ChunkParams(context=False))
    assert {row["context"] for row in rows} == {""}
    assert {row["title"] for row in rows} == {"Book"}


def test_the_page_is_that_of_the_first_character_and_no_cut() -> None:
    first, second = "The ferry left the quiet", "harbour before the bell. Then rain."
    text = f"{first}\n{second}"
    blocks = [
        {"start": 0, "end": len(first), "kind": "paragraph", "heading_path": [], "page": 1},
        {"start": len(first) + 1, "end": len(text), "kind": "paragraph", "heading_path": [], "page": 2},
    ]
    rows = chunks(documents([{"text": text, "blocks": blocks}]))
    assert [(row["text"], row["page"]) for row in rows] == [(text, 1)]


# --- edits -------------------------------------------------------------------------------------------------------


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(5, 28))).capitalize() + rng.choice("...!?")


def prose(seed: int, sentences: int) -> str:
    rng = random.Random(seed)
    return " ".join(sentence(rng) for _ in range(sentences))


Story = list[tuple[str, list[list[str]]]]  # sections: heading, paragraphs of sentences


def story(rng: random.Random, sections: int, paragraphs: int = 12) -> Story:
    return [
        (
            " ".join(rng.choices(WORDS, k=3)).capitalize() + f" {number}",
            [[sentence(rng) for _ in range(rng.randint(1, 7))] for _ in range(rng.randint(1, paragraphs))],
        )
        for number in range(sections)
    ]


def keys(tale: Story) -> set[str]:
    parts = [Part(text="Tales of the harbour", kind="heading", level=1)]
    for name, paragraphs in tale:
        parts.append(Part(text=name, kind="heading", level=2))
        parts.extend(Part(text=" ".join(sentences)) for sentences in paragraphs)
    made = chunk.chunk_documents(table(parts, title="Tales"), ChunkParams(), tokens.builtin())
    return set(made["embed_key"].to_pylist())


def edited(tale: Story, rng: random.Random) -> Story:
    """One sentence replaced, put in, or taken out."""
    copy = [(name, [list(sentences) for sentences in paragraphs]) for name, paragraphs in tale]
    sentences = rng.choice(rng.choice(copy)[1])
    at = rng.randrange(len(sentences))
    new: list[str] = [] if rng.random() < 0.2 and len(sentences) > 1 else [sentence(rng)]
    sentences[at : at + rng.randint(0 if new else 1, 1)] = new
    return copy


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), sections=st.integers(1, 6), paragraphs=st.sampled_from([2, 12, 40]))
def test_an_edit_changes_at_most_three_chunks(seed: int, sections: int, paragraphs: int) -> None:
    rng = random.Random(seed)
    tale = story(rng, sections, paragraphs)
    before = keys(tale)
    for _ in range(4):
        assert len(keys(edited(tale, rng)) - before) <= 3


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), sections=st.integers(1, 4))
def test_a_line_at_the_top_and_a_paragraph_at_the_end_change_at_most_two(seed: int, sections: int) -> None:
    rng = random.Random(seed)
    tale = story(rng, sections)
    before = keys(tale)
    top = [(tale[0][0], [[sentence(rng)], *tale[0][1]]), *tale[1:]]
    assert len(keys(top) - before) <= 2
    end = [*tale[:-1], (tale[-1][0], [*tale[-1][1], [sentence(rng), sentence(rng)]])]
    assert len(keys(end) - before) <= 2


def test_in_a_file_of_200_kb_an_edit_changes_few_of_many_chunks() -> None:
    rng = random.Random(5)
    tale = story(rng, 1, 600)
    while sum(len(" ".join(sentences)) for _, paragraphs in tale for sentences in paragraphs) < 200_000:
        tale[0][1].extend(story(rng, 1, 50)[0][1])
    before = keys(tale)
    changes = [len(keys(edited(tale, rng)) - before) for _ in range(12)]
    assert len(before) > 120
    assert max(changes) <= 3
    assert sum(changes) / len(changes) < 2


def test_moving_sections_embeds_nothing_else_anew() -> None:
    tale = story(random.Random(8), 6, 20)
    moved = keys([*tale[3:], *tale[:3]]) - keys(tale)
    assert len(moved) <= 2  # the document's heading stands before another section now


# --- kinds of text -----------------------------------------------------------------------------------------------


def test_chinese_is_cut_after_its_sentences() -> None:
    rng = random.Random(3)
    words = ["港口", "灯塔", "潮水", "船长", "风暴", "清晨", "渡轮", "石桥", "市场", "信号", "绳索", "冬天"]
    closings = ("。", "！", "？”", "；", "。」")
    text = "".join("".join(rng.choices(words, k=rng.randint(4, 12))) + rng.choice(closings) for _ in range(300))
    rows = chunks(plain(text))
    assert len(rows) > 10
    assert all(row["text"].endswith(closings) for row in rows)
    assert all(not row["text"].startswith(("”", "」", "。")) for row in rows)


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("Dr. Brown met Mr. J. K. Smith at 5 p.m. in May. It rained.", ["It rained."]),
        ("Siehe z.B. den 3. Oktober bzw. Abb. 4 an. Danach kam 1989. Dann Regen.", ["Danach", "Dann"]),
        ('"Stop!" she said. "Why?" He ran off... and fell.', ['"Why?"', "He ran"]),
        ("He left (at last.) Nobody saw. “Good.” Then night.", ["Nobody", "“Good.”", "Then"]),
        ("First line\nsecond line. Third\nfourth", ["second", "Third", "fourth"]),
        ("他说：“走吧。”然后走了。Then English. 完", ["然后", "Then", "完"]),
    ],
)
def test_sentences_begin_where_a_reader_would_say(text: str, starts: Sequence[str]) -> None:
    block = chunk.Block(start=0, end=len(text), kind="paragraph")
    found = [at for at, _ in chunk_bounds.inside(text, block) if at < len(text)]
    assert [text[at:].startswith(start) for at, start in zip(found, starts, strict=True)] == [True] * len(starts), [
        text[at:] for at in found
    ]


def test_list_items_and_code_blocks_stay_whole_where_they_can() -> None:
    items = "\n".join(f"- {prose(n, 2)}\n  and a second line" for n in range(40))
    assert all(row["text"].startswith("- ") for row in chunks(plain(items, "list")))
    code = "\n\n".join(f"def f{n}(x):\n" + "\n".join(f"    y{k} = x * {k}" for k in range(8)) for n in range(40))
    assert all(row["text"].startswith("def ") for row in chunks(plain(code, "code")))


def test_a_huge_table_is_cut_between_rows() -> None:
    rng = random.Random(4)
    lines = ["station\tdate\train"] + [f"{rng.choice(WORDS)}\t2026-{n:05}\t{rng.random():.2f}" for n in range(3000)]
    rows = chunks(plain("\n".join(lines), "table"))
    assert [line for row in rows for line in row["text"].split("\n")] == lines


@pytest.mark.parametrize(
    "make",
    [
        lambda: "word soup " * 30_000,
        lambda: " ".join(random.Random(1).choices(WORDS, k=50_000)),
        lambda: "x" * 100_000,
        lambda: "." * 100_000,
        lambda: "港" * 50_000,
        lambda: "same line again\n" * 10_000,
        lambda: "e" + "\u0301" * 20_000,
        lambda: ("a" + " " * 9_000) * 20,
        lambda: "กขคงจ" * 10_000,
        lambda: "👩‍👩‍👧" * 5_000,
    ],
    ids=["soup", "line", "letter", "dots", "ideograph", "lines", "accents", "spaces", "thai", "families"],
)
def test_text_without_places_to_cut_is_cut_all_the_same(make: Callable[[], str]) -> None:
    started = time.process_time()
    assert chunks(plain(make()))
    assert time.process_time() - started < 20


def test_a_line_of_1500_kb_is_cut_at_words_whose_neighbourhood_decides() -> None:
    rng = random.Random(2)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(4000)]
    line = rng.choices(words, k=240_000)
    before = {row["embed_key"] for row in chunks(plain(" ".join(line)))}
    after = {row["embed_key"] for row in chunks(plain(" ".join([*line[:100_000], "inserted", *line[100_000:]])))}
    assert len(" ".join(line)) > 1_500_000
    assert len(before) > 2_500
    assert len(after - before) <= 3


def test_no_chunk_is_so_sparse_that_it_has_over_8000_characters() -> None:
    rows = chunks(plain(("1" + "\u00a0" * 200) * 500, "table"))
    assert max(len(row["text"]) for row in rows) <= chunk_sections.MAX_CHARS


# --- parameters and the choice of cuts ---------------------------------------------------------------------------


def test_the_fingerprint_holds_what_changes_the_output() -> None:
    made = {
        ChunkParams().fingerprint(),
        ChunkParams(size=200).fingerprint(),
        ChunkParams(max=300).fingerprint(),
        ChunkParams(limit=100).fingerprint(),
        ChunkParams(context=False).fingerprint(),
        ChunkParams(document_template="passage: {text}").fingerprint(),
        ChunkParams(tokenizer="other").fingerprint(),
    }
    assert len(made) == 7
    assert ChunkParams(limit=8000).fingerprint() == ChunkParams(limit=510).fingerprint()  # max is the lower one


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    weights=st.lists(st.integers(1, 60), min_size=1, max_size=120),
    seed=st.integers(0, 10**6),
    least=st.integers(1, 150),
    kinds=st.sampled_from([1, 3, 2**60]),
)
def test_pieces_are_never_too_heavy_and_anchors_never_too_near(
    weights: list[int], seed: int, least: int, kinds: int
) -> None:
    rng, most = random.Random(seed), 3 * least + 60
    ends = [0]
    for weight in weights:
        ends.append(ends[-1] + weight)
    priorities = [rng.randrange(kinds) for _ in ends]
    cuts = chunk_cuts.choose(ends, priorities, least=least, most=most, aim=2 * least)
    pieces = [ends[b] - ends[a] for a, b in pairwise([0, *cuts, len(weights)])]
    assert cuts == sorted(set(cuts))
    assert all(piece <= most for piece in pieces)
    assert len(pieces) <= 1 + 2 * ends[-1] // max(1, least // 2)


def test_a_boundary_number_depends_on_24_characters_on_either_side() -> None:
    text = prose(1, 3)
    at = len(text) // 2

    def number(changed: str) -> int:
        return chunk_bounds.priorities(changed, [at], [chunk_bounds.SENTENCE])[0]

    for offset in (at - 1, at - 24, at, at + 23):
        assert number(text[:offset] + "#" + text[offset + 1 :]) != number(text)
    for offset in (at - 25, at + 24):
        assert number(text[:offset] + "#" + text[offset + 1 :]) == number(text)


def test_a_better_rank_beats_any_number() -> None:
    text = prose(1, 20)
    at = list(range(10, 200, 7))
    best = chunk_bounds.priorities(text, at, [chunk_bounds.BLOCK] * len(at))
    worse = chunk_bounds.priorities(text, at, [chunk_bounds.SENTENCE] * len(at))
    assert max(best) < min(worse)
