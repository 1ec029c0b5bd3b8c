"""`pipeline evaluate` on real collections: what is measured, compared, swept, refused and drafted."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline import (
    config,
    errors,
    evaluate,
    evaluate_baseline,
    evaluate_drafts,
    evaluate_sweep,
    query,
    question_sets,
    quotes,
)
from pipeline.evaluate import Evaluation, Row
from pipeline.models import Message, Piece
from pipeline.placing import Spot
from pipeline.progress import Silent
from pipeline.question_sets import Question, Wanted
from pipeline.store.scratch import scratch
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.fake_reranker import FakeReranker
from tests.test_quality import hit
from tests.test_run import World, sentence

COLOURS = ("amber", "cobalt", "crimson", "ochre", "teal")


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    with FakeOllama(vectors="hash") as fake:
        yield fake


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, server: FakeOllama) -> World:
    """Five documents of several chunks, each with the answer to a question about one colour; only read from."""
    folder = tmp_path_factory.mktemp("world")
    made = World(folder, server)
    made.docs.mkdir()
    for colour in COLOURS:
        filler = [" ".join(sentence(colour, part, n) for n in range(3)) for part in range(9)]
        body = "\n\n".join(
            [*filler[:5], f"The {colour}wick of the {colour}dome blinks at {len(colour)} Hz.", *filler[5:]]
        )
        (made.docs / f"{colour}.md").write_text(f"{body}\n")
    made.settings = replace(made.settings, chunk=config.ChunkSettings(size=160, max=240))
    made.run()
    return made


@pytest.fixture(scope="module")
def asked(world: World) -> Path:
    """A question a colour, one that nothing answers, and two that cannot be asked."""
    lines = [
        {"question": f"{colour}wick {colour}dome", "path": f"{colour}.md", "quote": f"blinks at {len(colour)} Hz"}
        for colour in COLOURS
    ]
    lines += [
        {"question": "Who won?", "path": None},
        {"question": "gone", "path": "gone.md", "quote": "x"},
        {"question": "wrong", "path": "teal.md", "quote": "blinks at 99 Hz"},
    ]
    path = world.docs.parent / "questions.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def command(world: World, home: Path, *words: str, **env: str) -> Any:
    """`pipeline evaluate` as a user types it."""
    given = ("--data", str(world.data), "--ollama-host", world.server.url, "--provider", "ollama")
    sizes = {"PIPELINE_CHUNK_SIZE": "160", "PIPELINE_CHUNK_MAX": "240"}
    return invoke(home, *given, "evaluate", *words, env=sizes | env)


def measured(result: Any) -> dict[str, Any]:
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


# --- what counts as found


def test_a_hit_shows_what_is_asked_for() -> None:
    text = "The lamp is green. The cable is 40 m long."
    found = [hit("Something else"), hit(text, "b.md", ("a.md",)), hit(text)]
    quote = Spot(uri="a.md", quote="the cable is\n40 m long", region=(19, 41))
    assert evaluate.ranking([quote], found).ranks == (2,), "a copy in another document counts"
    assert evaluate.ranking([Spot(uri="c.md", quote="40 m")], found).ranks == (None,)
    assert evaluate.ranking([Spot(uri="a.md", grade=2), quote], found).grades == (2, 1)
    document = Spot(uri="a.md")
    assert evaluate.ranking([document], found).ranks == (1,), "a document is shown by any passage of it"


@pytest.mark.parametrize(("at", "shown"), [((32, 36), True), ((40, 44), False), ((0, 4), True)])
def test_where_the_place_is_known_only_that_place_counts(at: tuple[int, int], shown: bool) -> None:
    text = "40 m. The lamp is green. Take it: 40 m."
    spot = Spot(uri="a.md", quote="40 m", at=at, region=(0, 60))
    assert evaluate.shows(hit(text), spot) is shown


# --- the command


def test_each_mode_is_measured_and_what_cannot_be_asked_is_told_apart(
    world: World, asked: Path, tmp_path: Path
) -> None:
    result = command(world, tmp_path, str(asked))
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].startswith("5 questions to 'default' (mxbai-embed-large), 5 passages shown; in percent")
    assert [line.split()[0] for line in lines[3:6]] == ["hybrid", "vector", "text"]
    assert lines[2].split()[:4] == ["recall@5", "recall@10", "nDCG@10", "MRR"]
    assert "1 questions without an answer" in result.stderr
    assert "line 7: no such document: gone.md" in result.stderr
    assert "line 8: quote not found: teal.md" in result.stderr
    assert max(map(len, lines)) <= 110


def test_figures_are_those_of_the_hits(world: World, asked: Path, tmp_path: Path) -> None:
    """Words find each passage first; what is read and found is counted again by hand."""
    found = measured(command(world, tmp_path, str(asked), "--mode", "text", "--top-k", "2", "--json"))
    (row,) = found["rows"]
    assert {name: one["mean"] for name, one in row["measures"].items() if "@" in name or name == "MRR"} == {
        "recall@2": 1.0,
        "recall@10": 1.0,
        "nDCG@10": 1.0,
        "MRR": 1.0,
    }
    precision = []
    settings = replace(world.settings, search=config.SearchSettings(mode="text", top_k=2))
    for colour in COLOURS:
        hits = query.find(settings, f"{colour}wick {colour}dome")
        precision.append(len(f"blinks at {len(colour)} Hz") / sum(one.end - one.start for one in hits))
    assert row["values"]["precision"] == pytest.approx(precision)
    assert row["measures"]["char recall"]["mean"] == 1.0
    assert (found["at"], found["questions"], found["unanswerable"], len(found["left_out"])) == (2, 5, 1, 2)
    assert row["tokens"] > 0


def test_documents_are_ranked_where_documents_are_judged(world: World, tmp_path: Path) -> None:
    (tmp_path / "qrels").write_text("".join(f"{n} 0 {colour} 1\n" for n, colour in enumerate(COLOURS)))
    queries = tmp_path / "queries.tsv"
    queries.write_text("".join(f"{n}\t{colour}wick\n" for n, colour in enumerate(COLOURS)))
    words = (str(tmp_path / "qrels"), "--queries", str(queries), "--json")
    found = measured(command(world, tmp_path, *words, "--mode", "text"))
    (row,) = found["rows"]
    assert row["measures"]["nDCG@10"]["mean"] == 1.0
    assert "precision" not in row["measures"], "nobody said which characters"
    vector = measured(command(world, tmp_path, *words, "--mode", "vector"))
    assert vector["rows"][0]["measures"]["recall@10"]["mean"] == 1.0, "five documents, each once among the first ten"


def test_the_questions_of_the_settings_are_the_default(world: World, asked: Path, tmp_path: Path) -> None:
    none = command(world, tmp_path)
    assert (none.exit_code, "--make-questions" in none.stderr) == (2, True)
    found = measured(command(world, tmp_path, "--json", "--mode", "text", PIPELINE_QUALITY_QUESTIONS=str(asked)))
    assert found["questions"] == 5


def test_questions_about_other_documents_are_refused_with_the_reasons(world: World, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"question": "a", "path": "gone.md", "quote": "b"}\n{"question": "c"}\n')
    result = command(world, tmp_path, str(path))
    assert result.exit_code == 2
    assert "None of the 2 questions can be asked: no answer is given (1), no such document (1)." in result.stderr
    assert "line 1: 'gone.md'" in result.stderr


def test_nothing_indexed(tmp_path: Path, asked: Path) -> None:
    result = invoke(tmp_path, "--data", str(tmp_path / "none"), "evaluate", str(asked))
    assert result.exit_code == 10


def test_markdown_is_a_table(world: World, asked: Path, tmp_path: Path) -> None:
    result = command(world, tmp_path, str(asked), "--markdown", "--mode", "text")
    table = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in table] == [11] * 3
    assert table[1] == "|" + "---|" * 10
    assert table[2].startswith("| text | 100.0 ±0.0 |")


# --- sweeps


def test_other_chunks_are_tried_beside_the_collection_and_nothing_is_embedded_twice(
    world: World, asked: Path, tmp_path: Path
) -> None:
    before = sorted(path for path in world.data.rglob("*") if path.is_file())
    known = len(world.sent())
    words = (str(asked), "--sweep", "chunk.size=160,80", "--sweep", "mode=text,vector", "--json")
    found = measured(command(world, tmp_path, *words))
    names = [row["name"] for row in found["rows"]]
    assert names == [f"size {size}, {mode}" for size in (160, 80) for mode in ("text", "vector")]
    sent = world.sent()[known:]
    questions = [text for text in sent if "Represent this sentence" in text]
    passages = [text for text in sent if "Represent this sentence" not in text]
    assert len(questions) == 5, "once for all settings of one model"
    assert len(passages) == len(set(passages)) > 0
    assert not set(passages) & set(world.sent()[:known]), "what the collection has is taken over"
    tokens = [row["tokens"] for row in found["rows"]][::2]
    assert tokens == sorted(tokens, reverse=True)
    assert sorted(path for path in world.data.rglob("*") if path.is_file()) == before, "nothing is left behind"


def test_another_model_is_tried_beside_the_collection(world: World, asked: Path, tmp_path: Path) -> None:
    known = len(world.sent())
    words = (str(asked), "--mode", "vector", "--sweep", "embed.provider=ollama,builtin", "--json")
    own, other = measured(command(world, tmp_path, *words))["rows"]
    assert (own["name"], other["name"]) == ("provider ollama", "provider builtin")
    assert len(world.sent()) - known == 5, "the collection's own model embeds the questions and nothing else"
    assert other["measures"]["recall@10"]["mean"] > own["measures"]["recall@10"]["mean"], "it knows words"
    assert world.collection.embedder() == query.open_collection(world.settings).spec
    assert list(world.data.glob(".scratch-*")) == []


def test_sentences_before_each_passage_are_tried_beside_the_collection(
    world: World, asked: Path, tmp_path: Path
) -> None:
    known = len(world.sent())
    words = (str(asked), "--mode", "text", "--sweep", "contextual=false,true", "--json")
    plain, situated = measured(command(world, tmp_path, *words))["rows"]
    assert [row["name"] for row in (plain, situated)] == ["contextual false", "contextual true"]
    embedded = world.sent()[known:]
    assert len(embedded) > 20, "every passage, with its sentence; the questions need no vector"
    assert not set(embedded) & set(world.sent()[:known])
    assert plain["measures"]["recall@5"]["mean"] == 1.0


def test_a_setting_of_search_builds_nothing(world: World, asked: Path, tmp_path: Path) -> None:
    known = len(world.sent())
    found = measured(command(world, tmp_path, str(asked), "--sweep", "candidates=50,5", "--mode", "vector", "--json"))
    assert [row["settings"] for row in found["rows"]] == [{"search.candidates": "50"}, {"search.candidates": "5"}]
    assert len(world.sent()) - known == 5


def test_a_reranker_is_measured_as_it_is_used(world: World, asked: Path, tmp_path: Path) -> None:
    with FakeReranker() as reranker:
        words = (str(asked), "--mode", "vector", "--sweep", f"rerank=,{reranker.url}", "--json")
        result = command(world, tmp_path, *words, PIPELINE_SEARCH_RERANK_TOP="500")
        plain, reranked = measured(result)["rows"]
        assert len(reranker.asked) == 5, "once for each question"
    assert (plain["name"], reranked["settings"]) == ("no rerank", {"search.rerank": reranker.url})
    assert plain["measures"]["MRR"]["mean"] < 1.0, "these vectors mean nothing"
    assert reranked["measures"]["MRR"]["mean"] == 1.0, "of all passages the words of the question decide"


def test_surroundings_are_read_and_counted(world: World, asked: Path, tmp_path: Path) -> None:
    words = (str(asked), "--mode", "text", "--top-k", "1", "--sweep", "expand=0,400", "--json")
    plain, grown = measured(command(world, tmp_path, *words))["rows"]
    assert grown["tokens"] > 1.5 * plain["tokens"]
    assert grown["measures"]["precision"]["mean"] < plain["measures"]["precision"]["mean"]
    assert grown["measures"]["char recall"]["mean"] == plain["measures"]["char recall"]["mean"] == 1.0


def test_the_row_of_the_settings_as_they_are_comes_first(world: World, asked: Path, tmp_path: Path) -> None:
    found = measured(command(world, tmp_path, str(asked), "--sweep", "candidates=5,50", "--mode", "text", "--json"))
    assert [row["name"] for row in found["rows"]] == ["candidates 50", "candidates 5"]
    assert found["rows"][1]["less_first"]["nDCG@10"]["mean"] == pytest.approx(
        found["rows"][1]["measures"]["nDCG@10"]["mean"] - found["rows"][0]["measures"]["nDCG@10"]["mean"]
    )


def test_choices_are_every_combination_the_last_key_fastest() -> None:
    assert evaluate_sweep.choices(["chunk.size=1,2", "mode=text,hybrid"]) == [
        {"chunk.size": "1", "search.mode": "text"},
        {"chunk.size": "1", "search.mode": "hybrid"},
        {"chunk.size": "2", "search.mode": "text"},
        {"chunk.size": "2", "search.mode": "hybrid"},
    ]
    assert evaluate_sweep.choices(["mode=text,text"]) == [{"search.mode": "text"}]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ("chunk.size", "no values"),
        ("chunk.size=", "no values"),
        ("chunk.siz=3", "Did you mean chunk.size?"),
        ("readers.pdf=pdfium", "cannot be compared"),
        (f"chunk.size={','.join(map(str, range(8, 80)))}", "more than 64"),
    ],
)
def test_a_sweep_that_is_none(sweep: str, said: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        evaluate_sweep.choices([sweep])
    assert said in f"{caught.value.message} {caught.value.remedy}"


def test_a_wrong_value_is_refused_before_anything_is_built(world: World, asked: Path, tmp_path: Path) -> None:
    result = command(world, tmp_path, str(asked), "--sweep", "chunk.size=160,many")
    assert (result.exit_code, '"many" is not accepted' in result.stderr) == (2, True)
    assert list(world.data.glob(".scratch-*")) == []


def test_a_scratch_folder_goes_and_so_do_those_of_the_killed(tmp_path: Path) -> None:
    killed = tmp_path / ".scratch-killed"
    killed.mkdir()
    (killed / "LOCK").touch()
    with scratch(tmp_path) as one, scratch(tmp_path) as other:
        assert one.is_dir()
        assert other.is_dir(), "one that is in use is left alone"
        assert not killed.exists()
    with pytest.raises(RuntimeError), scratch(tmp_path) as folder:
        raise RuntimeError
    assert not folder.exists()
    assert list(tmp_path.iterdir()) == []


# --- baselines


def rows(*values: float, name: str = "hybrid", measure: str = "recall@5") -> Evaluation:
    questions = tuple(Question(text=str(n), wanted=(Wanted(document="d"),), where="") for n in range(len(values)))
    row = Row(name=name, choice={}, values={measure: np.array(values)}, tokens=1.0, milliseconds=1.0)
    return Evaluation(
        collection="default", model="m", at=5, questions=questions, rows=(row,), left_out=(), unanswerable=0
    )


def as_baseline(found: Evaluation, path: Path) -> Any:
    path.write_text(json.dumps(found.to_json()))
    return evaluate_baseline.load(path)


def test_a_drop_beyond_doubt_is_a_regression_and_a_doubtful_one_is_not(tmp_path: Path) -> None:
    before = as_baseline(rows(*[1.0] * 40), tmp_path / "before.json")
    clear = evaluate_baseline.compare(rows(*[1.0] * 30, *[0.0] * 10), before)
    assert clear.regressions == ("recall@5",)
    assert clear.differences["recall@5"].mean == pytest.approx(-0.25)
    one = evaluate_baseline.compare(rows(*[1.0] * 39, 0.0), before)
    assert one.regressions == (), "another forty questions might not have shown it"
    other = as_baseline(rows(*[1.0] * 40, measure="precision"), tmp_path / "other.json")
    assert evaluate_baseline.compare(rows(*[0.0] * 40, measure="precision"), other).regressions == (), "shown only"


def test_only_common_questions_are_compared(tmp_path: Path) -> None:
    before = as_baseline(rows(0.0, 1.0, 1.0), tmp_path / "before.json")
    found = evaluate_baseline.compare(rows(1.0, 1.0), before)
    assert (found.common, found.differences["recall@5"].mean) == (2, 0.5)
    with pytest.raises(errors.UsageError, match="other questions"):
        evaluate_baseline.compare(rows(1.0), _other(tmp_path))


def _other(folder: Path) -> Any:
    (folder / "other.json").write_text('{"keys": ["0000"], "rows": [{"name": "a", "values": {"recall@5": [1]}}]}')
    return evaluate_baseline.load(folder / "other.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot read"), ("{}", "not what"), ("no", "not what"), ('{"keys": [], "rows": []}', "cut short")],
)
def test_a_baseline_that_is_none(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "b.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.UsageError, match=said):
        evaluate_baseline.load(path)


def test_the_exit_code_tells_a_regression(world: World, asked: Path, tmp_path: Path) -> None:
    first = command(world, tmp_path, str(asked), "--mode", "text", "--json")
    baseline = tmp_path / "base.json"
    baseline.write_text(first.stdout)
    same = command(world, tmp_path, str(asked), "--mode", "text", "--baseline", str(baseline))
    assert same.exit_code == 0, same.stderr
    assert "5 questions in common" in same.stdout
    assert "+0.0 ±0.0" in same.stdout
    # Of words that no document holds nothing is found.
    lost = [line | {"question": "nowhere"} for line in map(json.loads, asked.read_text().splitlines()[:5])]
    (tmp_path / "lost.jsonl").write_text("\n".join(map(json.dumps, lost)))
    again = json.loads(first.stdout)
    again["keys"] = [question.key for question in question_sets.load(tmp_path / "lost.jsonl")]
    baseline.write_text(json.dumps(again))
    words = (str(tmp_path / "lost.jsonl"), "--mode", "text", "--baseline", str(baseline))
    worse = command(world, tmp_path, *words)
    assert worse.exit_code == 1
    assert "worse: recall@5, recall@10, nDCG@10 than the baseline" in worse.stderr
    told = command(world, tmp_path, *words, "--json")
    assert told.exit_code == 1
    assert json.loads(told.stdout)["baseline"]["regressions"] == ["recall@5", "recall@10", "nDCG@10"]


# --- calibration


def test_questions_with_and_without_an_answer_set_the_threshold_of_ask(world: World, tmp_path: Path) -> None:
    """On a copy of the collection: it is kept there."""
    own = World(tmp_path, world.server)
    shutil.copytree(world.data, own.data)
    asks = ("Where is the {0}wick?", "What blinks in the {0}dome?", "At how many Hz does the {0}wick blink?")
    asks += ("How often does the {0}wick of the {0}dome blink?", "{0}wick", "Does the {0}dome blink at all?")
    lines = [{"question": ask.format(c), "path": f"{c}.md", "quote": "blinks"} for ask in asks for c in COLOURS]
    path = tmp_path / "both.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    few = command(own, tmp_path, str(path), "--calibrate")
    assert (few.exit_code, "30 questions that the documents answer and 0" in few.stderr) == (2, True)
    assert own.collection.calibrations.newest() is None
    lines += [{"question": f"Who won the {sentence('prize', n)[:30]}?"} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, lines)))
    result = command(own, tmp_path, str(path), "--calibrate")
    assert result.exit_code == 0, result.stderr
    assert "30 with an answer, 30 without" in result.stdout
    kept = own.collection.calibrations.newest()
    assert kept is not None
    assert (kept.answerable, kept.unanswerable, kept.mode) == (30, 30, "hybrid")
    assert kept.refused >= 0.9, "words that no document holds are easily told"
    told = measured(command(own, tmp_path, str(path), "--calibrate", "--json"))
    assert told["calibration"]["scales"].keys() == kept.scales.keys()


# --- drafts


class Writer:
    """A model that answers each passage as it was told to: a named fake of Generator."""

    model = "writer"
    context_tokens = 8192

    def __init__(self, *replies: str) -> None:
        self.replies = list(replies)
        self.asked: list[str] = []

    async def stream(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[Piece]:
        self.asked.append(messages[-1].content)
        for half in (self.replies[0][:7], self.replies[0][7:]):
            yield Piece(text=half)
        self.replies.append(self.replies.pop(0))

    async def aclose(self) -> None:
        pass


PASSAGE = evaluate_drafts.Passage(path="a.md", text="The cable of the lamp is 40 m long. It may lie in water.")


def kept(reply: str, passage: evaluate_drafts.Passage = PASSAGE) -> evaluate_drafts.Drafts:
    found = evaluate_drafts.Drafts()
    evaluate_drafts.keep(found, passage, reply)
    return found


def test_a_draft_is_kept_with_its_path_and_quote() -> None:
    found = kept('Sure! {"question": "How long is the cable? ", "quote": "is 40 m\\nlong"} Anything else?')
    assert [(line.question, line.path, line.quote) for line in found.lines] == [
        ("How long is the cable?", "a.md", "is 40 m\nlong")
    ]


CHINESE = evaluate_drafts.Passage(path="b.md", text="雨量计的电缆不得超过四十米，冬天要加热。")


@pytest.mark.parametrize(
    ("reply", "passage", "reason"),
    [
        ("I cannot do that.", PASSAGE, "not the JSON"),
        ('{"question": "x"}', PASSAGE, "not the JSON"),
        ('{"question": "How long?", "quote": "The cable is 50 m long"}', PASSAGE, "does not stand in the passage"),
        ('{"question": "", "quote": "The cable of the lamp"}', PASSAGE, "does not stand"),
        ('{"question": "How long?", "quote": "40 m"}', PASSAGE, "too short or too long"),
        ('{"question": "Is it true that it may lie in water?", "quote": "it may lie in water"}', PASSAGE, "its answer"),
        ('{"question": "How long may the cable be?", "quote": "不得超过四十米"}', CHINESE, "another language"),
    ],
)
def test_a_draft_that_is_no_good_is_counted_by_its_reason(
    reply: str, passage: evaluate_drafts.Passage, reason: str
) -> None:
    found = kept(reply, passage)
    assert found.lines == []
    ((told, count),) = found.refused.items()
    assert (reason in told, count) == (True, 1)


def test_chinese_says_as_much_in_fewer_characters() -> None:
    assert len(kept('{"question": "电缆最长多少？", "quote": "四十米"}', CHINESE).lines) == 1


def test_the_same_question_is_not_kept_twice() -> None:
    found = kept('{"question": "How long is the cable?", "quote": "is 40 m long"}')
    evaluate_drafts.keep(found, PASSAGE, '{"question": "how long is  the cable?", "quote": "is 40 m long"}')
    assert (len(found.lines), found.refused) == (1, {"asked before": 1})


NONE = '{"question": "What?", "quote": "words that no passage holds"}'


def test_passages_of_all_documents_are_asked_about_in_turn(world: World) -> None:
    writer = Writer(NONE)
    standing = query.open_collection(world.settings)
    found = asyncio.run(evaluate_drafts.draft_with(writer, standing, 2, Silent()))
    assert found.refused == {"the quote does not stand in the passage": len(writer.asked)}
    assert len(writer.asked) == 2 * evaluate_drafts.TRIES
    documents = [next(c for c in COLOURS if _is_of(world, text, c)) for text in writer.asked]
    assert sorted(documents[:5]) == sorted(COLOURS), "one of each before a second of any"
    again = Writer(NONE)
    asyncio.run(evaluate_drafts.draft_with(again, standing, 2, Silent()))
    assert again.asked == writer.asked, "the same passages every time"


def _is_of(world: World, prompt: str, colour: str) -> bool:
    whole = quotes.folded((world.docs / f"{colour}.md").read_text())
    passage = prompt.split("[1] ", 1)[1].split("\n</passage>", 1)[0]
    return quotes.folded(passage) in whole


def test_questions_are_drafted_into_a_new_file_and_can_be_asked(tmp_path: Path, server: FakeOllama) -> None:
    """The fake answers with the sentence nearest to what it is asked: here one that is the JSON that was wanted."""
    world = World(tmp_path, server)
    world.docs.mkdir()
    wanted = {"question": "Which colour has the buoy?", "quote": "The buoy of the northern channel is crimson"}
    filler = " ".join(sentence("buoy", n) for n in range(4))
    (world.docs / "buoy.txt").write_text(
        f"{wanted['quote']}. {filler} An example of a question: {json.dumps(wanted)}\n"
    )
    world.run()
    path = tmp_path / "drafts.jsonl"
    result = command(world, tmp_path, "--make-questions", "1", str(path))
    assert result.exit_code == 0, result.stderr
    assert json.loads(path.read_text()) == {**wanted, "path": "buoy.txt"}
    assert "1 questions in" in result.stdout
    assert f"evaluate {path}" in result.stderr
    again = command(world, tmp_path, "--make-questions", "1", str(path))
    assert (again.exit_code, "there already" in again.stderr) == (2, True)
    found = measured(command(world, tmp_path, str(path), "--mode", "text", "--json"))
    assert found["rows"][0]["measures"]["recall@5"]["mean"] == 1.0


def test_without_a_model_nothing_can_be_drafted(world: World, tmp_path: Path) -> None:
    words = ("--make-questions", "3", str(tmp_path / "q.jsonl"))
    result = command(world, tmp_path, *words, PIPELINE_GENERATE_PROVIDER="none")
    assert (result.exit_code, "No model can be asked" in result.stderr) == (5, True)
    assert command(world, tmp_path, *words[:2], str(tmp_path / "no" / "q.jsonl")).exit_code == 2
    assert not (tmp_path / "q.jsonl").exists()
