"""What a user of `ask` sees when something is wrong: with the answer, its citations, its files, or the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import Result

from pipeline import answer, answer_prompt, asking, config, errors
from pipeline.cli.ask import Showing, waiting
from pipeline.models import Message, Piece
from pipeline.store import Collection
from tests import command_line, served
from tests.fake_ollama.client import FakeOllama
from tests.test_answer import CHINESE, LEAVE, Scripted, hit
from tests.test_answer import ask as answered

DOCUMENTS = {
    "leave.md": "# Leave\n\nEvery employee has thirty days of annual leave. Unused leave lapses in March.\n",
    "canteen.md": "# Canteen\n\nThe canteen opens at noon. It serves soup on Mondays and fish on Fridays.\n",
    "规定.md": "# 规定\n\n员工每年有三十天年假。食堂中午十二点开门。\n",
}
LEAVES = "How many days of annual leave does an employee have?"
CANTEEN = "When does the canteen open, and what does it serve on Mondays?"


class World:
    """A collection with the embedded model, and a model that says what it is told to."""

    def __init__(self, folder: Path, ollama: FakeOllama) -> None:
        self.folder = folder
        self.ollama = ollama
        self.docs = served.write(folder / "docs", DOCUMENTS)
        self.settings = served.settings(folder / "data", ollama=ollama.url)
        served.build(self.settings, self.docs)
        self.env = {"OLLAMA_HOST": ollama.url, "PIPELINE_DATA": str(folder / "data")}

    def ask(self, *arguments: str, **env: str) -> Result:
        return command_line.invoke(self.folder, "ask", *arguments, env=self.env | env)

    def asked(self, *arguments: str, says: str) -> Result:
        self.ollama.configure(says=[says])
        return self.ask(*arguments)


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama() as server:
        yield server


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, ollama: FakeOllama) -> World:
    return World(tmp_path_factory.mktemp("asking"), ollama)


@pytest.fixture
def world(built: World) -> World:
    built.ollama.reset()
    served.write(built.docs, DOCUMENTS)
    return built


# --- what the issue names


def test_a_made_up_answer_is_told(world: World) -> None:
    found = world.asked(CANTEEN, says="The canteen serves sushi to pilots [1].")
    assert found.exit_code == 0
    assert "The canteen serves sushi to pilots [1]." in found.stdout
    assert 'Not supported by [1], which it cites: "The canteen serves sushi to pilots"' in found.stderr


def test_a_wrong_citation_number_is_removed_and_told(world: World) -> None:
    found = world.asked(CANTEEN, says="The canteen opens at noon [1] [7].")
    assert "The canteen opens at noon [1].\n" in found.stdout
    assert "1 citation(s) of passages that do not exist were removed." in found.stderr
    assert "Not supported" not in found.stderr


def test_a_citation_of_the_wrong_passage_names_the_better_one(world: World) -> None:
    found = world.asked(CANTEEN, "--where", "path!=规定.md", says="The canteen opens at noon [2].")
    assert "passage [1] fits better" in found.stderr


def test_a_passage_from_a_changed_file_is_told(world: World) -> None:
    (world.docs / "canteen.md").write_text("# Canteen\n\nThe canteen is closed for good.\n")
    found = world.ask(CANTEEN)
    assert "[1] canteen.md · Canteen" in found.stdout
    assert "changed since it was indexed" in found.stdout
    assert "[1] canteen.md has changed since it was indexed: `pipeline run`" in found.stderr
    assert "leave.md has" not in found.stderr


def test_a_passage_from_a_file_that_is_gone_is_told(world: World) -> None:
    (world.docs / "canteen.md").unlink()
    found = world.ask(CANTEEN)
    assert "its file is gone" in found.stdout
    assert "[1] canteen.md is gone" in found.stderr


def test_a_model_that_stops_in_mid_sentence_keeps_its_words_and_ends_badly(world: World) -> None:
    world.ollama.set_fault("chat_cut", count=1)
    found = world.asked(CANTEEN, says="The canteen opens at noon and serves soup on Mondays [1]. It also has")
    assert found.exit_code == 5
    assert found.stdout.startswith("The canteen opens at noon")
    assert "The model stopped in the middle of its answer." in found.stderr
    assert "Sources:" in found.stdout or "Not cited:" in found.stdout
    assert "error: The connection to Ollama at" in found.stderr
    assert "Ask again." in found.stderr


def test_an_answer_in_time_or_none_while_the_server_is_busy(world: World) -> None:
    world.ollama.set_fault("hang", endpoint="/api/chat")
    found = world.ask(CANTEEN, PIPELINE_ASK_WAIT_S="0.5")
    assert found.exit_code == 5
    assert "said nothing within 0.5 s (ask.wait_s)" in found.stderr
    assert "A run may keep the model server busy" in found.stderr


def test_a_question_is_embedded_in_time_or_not_at_all(tmp_path: Path, world: World) -> None:
    docs = served.write(tmp_path / "docs", {"leave.md": DOCUMENTS["leave.md"]})
    served.build(served.settings(tmp_path / "data", ollama=world.ollama.url), docs, provider="ollama")
    world.ollama.set_fault("hang", endpoint="/api/embed")
    env = {"OLLAMA_HOST": world.ollama.url, "PIPELINE_DATA": str(tmp_path / "data"), "PIPELINE_ASK_WAIT_S": "0.5"}
    found = command_line.invoke(tmp_path, "ask", LEAVES, env=env)
    assert found.exit_code == 5
    assert "error: " in found.stderr


def test_who_waits_is_told_what_for(world: World) -> None:
    assert waiting(world.settings) == (
        "No word yet: programs and models are still being loaded; the model has 120 s (ask.wait_s)."
    )
    with Collection(Path(world.settings.data), "default").writing():
        told = waiting(world.settings)
    assert "a run is under way (process " in told
    assert told.endswith("may keep the model server busy; the model has 120 s (ask.wait_s).")


async def _late(seconds: float) -> AsyncGenerator[str, None]:
    await asyncio.sleep(seconds)
    yield "first"
    yield "second"


@pytest.mark.parametrize(("seconds", "patience_s", "told"), [(0.0, 30.0, 0), (0.3, 0.02, 1)])
def test_a_late_word_is_announced_once(seconds: float, patience_s: float, told: int) -> None:
    notes: list[str] = []

    async def collect() -> list[str]:
        showing = Showing(lambda: notes.append("late"), patience_s=patience_s)
        return [event async for event in showing.events(_late(seconds))]

    assert asyncio.run(collect()) == ["first", "second"]
    assert len(notes) == told


def test_a_stream_that_nobody_waits_for_any_more_is_closed() -> None:
    closed: list[bool] = []

    async def slow() -> AsyncGenerator[str, None]:
        try:
            await asyncio.sleep(60)
            yield "never"
        finally:
            closed.append(True)

    async def leave() -> None:
        events = Showing(lambda: None, patience_s=0.01).events(slow())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(events)
        await events.aclose()

    asyncio.run(leave())
    assert closed == [True]


# --- not in the documents


FOREIGN = "Who won the football championship in Brazil?"


def test_what_is_not_in_the_documents_is_refused_before_the_model(world: World) -> None:
    found = world.ask(FOREIGN)
    assert found.exit_code == 4
    assert "The documents do not seem to answer this question." in found.stdout
    assert "Nearest passages:" in found.stdout
    assert "ask --force" in found.stderr
    assert "(nearness and words, built-in calibration): refused; below 0.50 no model is asked." in found.stderr
    assert not [one for one in world.ollama.requests() if one.endpoint == "/api/chat"]


def test_force_asks_all_the_same(world: World) -> None:
    found = world.ask("--force", FOREIGN)
    assert found.exit_code == 0
    assert [one for one in world.ollama.requests() if one.endpoint == "/api/chat"]


def test_a_chinese_question_is_judged_by_its_words(world: World) -> None:
    assert world.ask("员工每年有几天年假?").exit_code == 0
    found = world.ask("谁赢得了足球冠军?")
    assert found.exit_code == 4
    assert "文档中似乎没有这个问题的答案。" in found.stdout


def test_filters_decide_what_may_be_found(world: World) -> None:
    found = world.ask("--where", "path=leave.md", LEAVES, "--json")
    assert [source["path"] for source in json.loads(found.stdout)["sources"]] == ["leave.md"]
    wrong = world.ask("--where", "colour=red", LEAVES)
    assert wrong.exit_code == 2


# --- as data


def test_json_tells_everything(world: World) -> None:
    (world.docs / "canteen.md").write_text("changed\n")
    world.ollama.configure(says=["The canteen opens at noon [1]. It serves sushi to pilots [1] [9]. It is nice there."])
    found = json.loads(world.ask(CANTEEN, "--json").stdout)
    assert (found["abstained"], found["invalid_citations"], found["unsupported"], found["uncited"]) == (False, 1, 1, 0)
    assert [one["supported"] for one in found["statements"]] == [True, False]
    assert found["sources"][0]["stale"] == "changed"
    assert found["evidence"] > 0.5
    assert 0 < found["sources"][0]["score"] <= 1


def test_an_answer_in_another_language_is_told(world: World) -> None:
    found = world.asked("员工每年有几天年假?", says="Every employee has thirty days of annual leave each year [2].")
    assert "The answer is not in the language of the question." in found.stderr
    same = world.asked("员工每年有几天年假?", says="员工每年有三十天年假 [1]。")
    assert "language" not in same.stderr


def test_the_service_tells_the_same(world: World) -> None:
    (world.docs / "canteen.md").write_text("changed\n")
    world.ollama.configure(says=["The canteen serves sushi to pilots [1]."])
    with served.Served(world.settings) as server:
        body = {"model": "pipeline/default", "messages": [{"role": "user", "content": CANTEEN}]}
        said = server.client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"]
    assert "Not supported by [1]" in said
    assert "canteen.md has changed since it was indexed" in said


# --- whether the model saw everything


def counting(prompt_tokens: int | None) -> Scripted:
    generator = Scripted("Thirty days [1].")
    generator._ending = Piece(text="", done=True, done_reason="stop", prompt_tokens=prompt_tokens, answer_tokens=5)
    return generator


@pytest.mark.parametrize(
    ("prompt_tokens", "told"),
    [
        (None, False),  # the server does not say
        (20, False),  # it remembers the rest
        (400, True),  # cut without a word
        (2_000, False),
    ],
)
def test_a_prompt_that_was_cut_in_silence_is_told(prompt_tokens: int | None, told: bool) -> None:
    long = hit("Leave is granted to everybody who asks for it. " * 100)
    _, ending = answered("What about leave?", [long], counting(prompt_tokens), min_score=-1.0)
    assert any("the server cut the prompt" in note for note in ending.notes) is told


@pytest.mark.parametrize("text", [LEAVE * 5, CHINESE * 5, "0x3F, -1.25e-7; " * 20, "a b c", "Straße für Übung " * 9])
def test_the_least_is_less_than_the_estimate(text: str) -> None:
    sent = [Message(role="user", content=text)]
    assert answer_prompt.least(sent) <= answer_prompt.estimate(text)


def test_history_is_sent_between_the_rules_and_the_question() -> None:
    generator = Scripted("Thirty days [1].")
    history = (Message(role="user", content="Who?"), Message(role="assistant", content="Everybody."))
    answered("How many days of leave?", [hit(LEAVE)], generator, history=history)
    assert [message.role for message in generator.asked[0]] == ["system", "user", "assistant", "user"]
    assert generator.asked[0][1:3] == list(history)


# --- in time


def _events(pieces: Sequence[str], delay_s: float = 0.0) -> AsyncGenerator[answer.AnswerEvent, None]:
    async def stream() -> AsyncGenerator[answer.AnswerEvent, None]:
        await asyncio.sleep(delay_s)
        for piece in pieces:
            yield piece

    return stream()


def _in_time(wait_s: float, delay_s: float) -> list[answer.AnswerEvent]:
    async def collect() -> list[answer.AnswerEvent]:
        return [event async for event in asking.in_time(_events(["a", "b"], delay_s), wait_s)]

    return asyncio.run(collect())


def test_only_the_first_word_has_a_limit() -> None:
    assert _in_time(5.0, 0.0) == ["a", "b"]
    assert _in_time(0.0, 0.05) == ["a", "b"]
    with pytest.raises(errors.TransientFault, match=r"within 0\.02 s") as caught:
        _in_time(0.02, 5.0)
    assert "pipeline search" in caught.value.remedy


def test_a_reader_that_is_slow_is_not_the_models_fault() -> None:
    async def collect() -> list[answer.AnswerEvent]:
        found = []
        async for event in asking.in_time(_events(["a", "b"]), 0.3):
            await asyncio.sleep(0.4)
            found.append(event)
        return found

    assert asyncio.run(collect()) == ["a", "b"]


def test_more_is_searched_for_than_is_shown() -> None:
    assert asking.pool(5) == 30
    assert asking.pool(50) == 50
    assert config.AskSettings().wait_s == 120
