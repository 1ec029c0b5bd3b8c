"""The golden questions: a new index that finds less of them is refused, and what was published goes on serving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from pipeline import config, errors, quality, query, search
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.test_run import World, sentence, write_documents

COLOURS = ("amber", "cobalt", "crimson", "ochre", "teal")


@pytest.fixture(scope="module")
def shared() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as server:
        yield server


def asked(colour: str) -> str:
    """Words that no other question has."""
    return f"{colour}wick {colour}dome {colour}bulb"


@pytest.fixture
def world(tmp_path: Path, shared: FakeOllama) -> World:
    """Five documents that each answer a question about one colour, and the questions."""
    shared.reset()
    made = World(tmp_path, shared)
    write_documents(made.docs, files=1)
    lines = []
    for colour in COLOURS:
        filler = " ".join(sentence(colour, n) for n in range(12))
        (made.docs / f"{colour}.md").write_text(f"{asked(colour)}\nblinks when the pump has stopped. {filler}\n")
        question = asked(colour)
        quote = f"{asked(colour)} blinks when the pump has stopped."
        lines.append({"question": question, "path": f"{colour}.md", "quote": quote, "lang": "en"})
    lines.append({"question": "Who won?", "path": None, "quote": ""})
    golden = tmp_path / "golden.jsonl"
    golden.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    made.settings = replace(
        made.settings,
        search=config.SearchSettings(mode="text"),
        quality=config.QualitySettings(questions=str(golden), max_drop=0.2),
    )
    return made


def crowd(world: World, colour: str) -> None:
    """Documents that are nothing but the question: they stand before the answer."""
    for number in range(8):
        (world.docs / f"{colour}-{number}.md").write_text(f"{asked(colour)} {number}{number}\n")


def test_an_index_that_finds_as_much_is_published(world: World) -> None:
    first = world.run()
    assert first.quality is not None
    assert (first.quality.questions, first.quality.recall, first.quality.published_recall) == (5, 1.0, None)
    crowd(world, "teal")
    second = world.run()
    assert second.quality is not None
    assert (second.quality.recall, second.quality.published_recall, second.quality.refused) == (0.8, 1.0, False)
    third = world.run()
    assert third.quality is None, "nothing was published anew: nothing is asked"


def test_an_index_that_finds_less_is_refused_until_it_is_mended(world: World, tmp_path: Path) -> None:
    world.run()
    rows = world.reader().count()
    crowd(world, "teal")
    crowd(world, "ochre")
    with pytest.raises(errors.QualityDropped) as caught:
        world.run()
    assert "3 of 5" in str(caught.value)
    assert "(recall@5 0.600), the published one 5 (1.000)" in str(caught.value)
    assert caught.value.exit_code == 1
    kept = json.loads(world.collection.runs.newest(1)[0].read())
    assert (kept["quality"]["recall"], kept["quality"]["published_recall"], kept["quality"]["refused"]) == (
        0.6,
        1,
        True,
    )
    note = world.collection.published()
    assert note is not None
    assert note.rows == rows
    hits = query.find(world.settings, asked("teal"))
    assert hits[0].path == "teal.md", "the published one goes on serving"
    sent = len(world.sent())
    with pytest.raises(errors.QualityDropped):
        world.run()
    assert len(world.sent()) == sent + 5, "the next run tries again, and embeds nothing but the questions"
    for path in world.docs.glob("ochre-*"):
        path.unlink()
    report = world.run(max_delete=1.0)
    assert report.quality is not None
    assert (report.quality.recall, report.quality.refused) == (0.8, False)
    assert query.find(world.settings, asked("teal"))[0].path != "teal.md"


def test_what_the_documents_no_longer_say_is_left_out_of_both_figures(world: World, tmp_path: Path) -> None:
    world.run()
    (world.docs / "amber.md").unlink()
    (world.docs / "teal.md").write_text("The lamp is gone.\n")
    words = ("--data", str(world.data), "--ollama-host", world.server.url, "run", str(world.docs))
    env = {"PIPELINE_QUALITY_QUESTIONS": world.settings.quality.questions, "PIPELINE_SEARCH_MODE": "text"}
    result = invoke(tmp_path, *words, env=env)
    assert result.exit_code == 0, result.stderr
    told = (
        "Golden questions: recall@5 1.000, published before 1.000 (3 asked, 2 left out: no document holds their quotes)"
    )
    assert told in result.stdout


def hit(text: str, path: str = "a.md", also_in: tuple[str, ...] = ()) -> search.Hit:
    return search.Hit(
        chunk_id="",
        doc_id="",
        path=path,
        title="",
        media_type="text/markdown",
        page=None,
        heading="",
        start=0,
        end=len(text),
        text=text,
        score=1.0,
        similarity=None,
        vector_rank=None,
        text_rank=1,
        fused=1.0,
        also_in=also_in,
    )


@pytest.mark.parametrize(
    ("text", "path", "also_in", "counts"),
    [
        ("so The supply cable may\nbe no longer than 40 m, and", "a.md", (), True),
        ("and so the supply cable may be no", "a.md", (), True),  # the first half: a passage ends there
        ("may be no longer than 40 m. Then", "a.md", (), True),  # the second
        ("The supply cable is blue", "a.md", (), False),
        ("The supply cable may be no longer than 40 m", "b.md", (), False),
        ("The supply cable may be no longer than 40 m", "b.md", ("a.md",), True),  # the same passage in both
    ],
)
def test_a_passage_with_half_of_the_quote_is_an_answer(
    text: str, path: str, also_in: tuple[str, ...], counts: bool
) -> None:
    question = quality.Question(question="?", path="a.md", quote="The supply cable may be no longer than 40 m")
    assert quality.answers(question, [hit("Something else"), hit(text, path, also_in)]) is counts


def test_half_of_a_short_quote_is_none(world: World) -> None:
    question = quality.Question(question="?", path="a.md", quote="40 m of cable")
    assert not quality.answers(question, [hit("It weighs 40 mg.")])
    assert quality.answers(question, [hit("It takes 40 m of cable.")])


def test_a_wrong_line_is_said_before_anything_is_done(world: World, tmp_path: Path) -> None:
    golden = Path(world.settings.quality.questions)
    golden.write_text('{"question": "x", "path": "y", "quote": "z"}\n{"path": 3}\n')
    with pytest.raises(errors.ConfigError, match="line 2"):
        world.run()
    golden.unlink()
    with pytest.raises(errors.ConfigError, match=r"quality\.questions: cannot read"):
        world.run()
    assert world.sent() == []


def test_no_gate_without_questions(world: World) -> None:
    assert quality.load(config.Settings()) == ()
    Path(world.settings.quality.questions).write_text('{"question": "x", "path": "nowhere.md", "quote": "z"}\n')
    assert world.run().quality is None, "none is left that could be asked"
