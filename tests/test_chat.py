"""`pipeline chat`: follow-up questions, history, commands, and a terminal of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from pipeline import answer, answer_prompt, config, conversation, errors
from pipeline.cli import chat_files, entry
from pipeline.conversation import Conversation, Searching, Turn, usable
from tests import command_line, served
from tests.fake_ollama.client import FakeOllama
from tests.test_asking import DOCUMENTS, LEAVES, World

LAPSE = "When does it lapse?"
STANDALONE = "When does unused annual leave lapse?"


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama() as server:
        yield server


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, ollama: FakeOllama) -> World:
    return World(tmp_path_factory.mktemp("chat"), ollama)


@pytest.fixture
def world(built: World) -> World:
    built.ollama.reset()
    served.write(built.docs, DOCUMENTS)
    return built


def chat(world: World, *lines: str, **env: str) -> Result:
    """Lines from a pipe, to their end."""
    wanted: dict[str, str | None] = dict.fromkeys(os.environ)
    wanted.update(command_line.environment(world.folder, world.env | env))
    with command_line._logging_restored():
        result = CliRunner().invoke(entry.cli, ["chat"], input="".join(f"{line}\n" for line in lines), env=wanted)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


# --- follow-up questions


def test_a_follow_up_question_is_searched_for_as_rewritten(world: World) -> None:
    world.ollama.configure(says=["Thirty days [1].", STANDALONE, "Unused leave lapses in March [1]."])
    found = chat(world, LEAVES, LAPSE)
    assert found.exit_code == 0
    assert f"searching for: {STANDALONE}" in found.stderr
    assert "Unused leave lapses in March [1]." in found.stdout


def test_the_first_question_is_never_rewritten(world: World) -> None:
    chat(world, LEAVES)
    assert len([one for one in world.ollama.requests() if one.endpoint == "/api/chat"]) == 1


def test_what_was_said_is_sent_along(world: World) -> None:
    async def talk() -> Conversation:
        said = Conversation(settings=world.settings)
        for question in (LEAVES, LAPSE):
            async for _ in said.ask(question):
                pass
        return said

    world.ollama.configure(says=["Thirty days [1].", STANDALONE, "In March [1]."])
    said = asyncio.run(talk())
    assert [turn.searched for turn in said.turns] == [LEAVES, STANDALONE]
    contents = [message.content for message in said.history()]
    assert contents == [LEAVES, "Thirty days.", STANDALONE, "In March."]  # numbers mean other passages by now


def test_a_model_that_cannot_rewrite_costs_nothing(world: World) -> None:
    world.ollama.set_fault("http500", endpoint="/api/chat", after=1, count=1)
    found = chat(world, LEAVES, "When, then, has unused leave lapsed? It lapses")
    assert found.exit_code == 0
    assert "searching for" not in found.stderr
    assert "Unused leave lapses in March" in found.stdout


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (STANDALONE, STANDALONE),
        (f'"{STANDALONE}"', STANDALONE),
        (f"Question: {STANDALONE}", STANDALONE),
        (f"Rewritten question: “{STANDALONE}”", STANDALONE),
        (f"  {STANDALONE}\n", STANDALONE),
        ("", LAPSE),
        ("   \n", LAPSE),
        ("leave " * 200, LAPSE),  # too long
        (f"{STANDALONE}\nAnd another question?", LAPSE),  # more than one line
        ("I do not know.", LAPSE),  # about nothing that was said
        ("未使用的年假什么时候失效?", LAPSE),  # another language
        ("\x1b[31mWhen does leave lapse?", "When does leave lapse?"),
    ],
)
def test_what_the_model_writes_is_checked(written: str, expected: str) -> None:
    assert usable(written, LAPSE, "How many days of annual leave?\nThirty days of leave.") == expected


def test_chinese_follow_up_questions_stay_chinese() -> None:
    said = "员工每年有几天年假?\n三十天年假。"
    assert usable("未使用的年假什么时候失效?", "什么时候失效?", said) == "未使用的年假什么时候失效?"
    assert usable("When does leave lapse?", "什么时候失效?", said) == "什么时候失效?"


@given(st.text(max_size=80), st.text(min_size=1, max_size=40), st.text(max_size=80))
def test_a_rewritten_question_is_one_line_and_not_empty(written: str, question: str, said: str) -> None:
    found = usable(written, question, said)
    assert found == question or (found.strip() and "\n" not in found)


# --- history within its budget


def turn(number: int, words: int = 20) -> Turn:
    said = answer.Answer(text=f"Answer {number} " + "word " * words + "[1].")
    return Turn(question=f"Question {number}?", searched=f"Question {number}?", answer=said)


@pytest.mark.parametrize("budget", [0, 50, 200, 400, 100_000])
def test_the_oldest_turns_go_first(budget: int) -> None:
    settings = config.Settings(ask=config.AskSettings(history_tokens=budget))
    history = Conversation(settings=settings, turns=[turn(n) for n in range(12)]).history()
    assert sum(answer_prompt.estimate(message.content) for message in history) <= budget
    numbers = [int(message.content.split()[1].rstrip("?")) for message in history]
    assert numbers == sorted(numbers)
    assert not numbers or numbers[-1] == 11
    assert (len(history) == 24) is (budget == 100_000)


def test_passages_still_fit_beside_a_long_history() -> None:
    settings = config.Settings(ask=config.AskSettings(history_tokens=1_500))
    history = Conversation(settings=settings, turns=[turn(n, 100) for n in range(9)]).history()
    from tests.test_answer import LEAVE, Scripted, hit
    from tests.test_answer import ask as answered

    generator = Scripted("Thirty days [1].", window=4096)
    answered(LEAVES, [hit(LEAVE * 20, path=f"{n}.md") for n in range(9)], generator, history=history, min_score=-1.0)
    sent = sum(answer_prompt.estimate(message.content) for message in generator.asked[0])
    assert sent + 512 <= 4096 * answer_prompt.WINDOW_SHARE + 100
    assert "<passage>" in generator.asked[0][-1].content


def test_what_no_passage_bore_out_is_not_said_again(world: World) -> None:
    world.ollama.configure(
        says=["Thirty days of leave [1]. There is a bonus of 500 euros [1]. Leave lapses in March [1]."]
    )

    async def talk() -> str:
        said = Conversation(settings=world.settings)
        async for _ in said.ask(LEAVES):
            pass
        return said.history()[1].content

    assert asyncio.run(talk()) == "Thirty days of leave. Leave lapses in March."


# --- commands


def test_sources_why_and_open(world: World) -> None:
    found = chat(world, LEAVES, "/sources", "/why", "/open 1")
    assert found.exit_code == 0
    assert "    # Leave Every employee has thirty days of annual leave." in found.stdout
    assert re.search(r"Evidence \d\.\d\d \(nearness and words, built-in calibration\): answered", found.stdout)
    assert "supported: Every employee" in found.stdout
    assert found.stdout.rstrip().endswith(str(world.docs / "leave.md"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/nonsense", "There is no command /nonsense."),
        ("/open 99", "There are sources 1 to"),
        ("/open x", "There are sources 1 to"),
        ("/open ../../etc/passwd", "There are sources 1 to"),
        ("/where colour=red", "colour"),
        ("/where 'path", "No closing quotation"),
    ],
)
def test_a_wrong_command_says_so(world: World, line: str, message: str) -> None:
    found = chat(world, LEAVES, line)
    assert found.exit_code == 2
    assert message in found.stderr


@pytest.mark.parametrize("line", ["/sources", "/open 1", "/why"])
def test_before_the_first_answer_there_is_nothing_to_show(world: World, line: str) -> None:
    found = chat(world, line)
    assert found.exit_code == 2
    assert "Nothing has been answered yet." in found.stderr


def test_open_says_when_the_file_is_gone(world: World) -> None:
    (world.docs / "leave.md").unlink()
    found = chat(world, LEAVES, "/open 1")
    assert found.exit_code == 1
    assert "leave.md is not there any more." in found.stderr


def test_where_holds_until_it_is_taken_back(world: World) -> None:
    found = chat(world, "/where path=leave.md", LEAVES, "/where", LEAVES)
    assert "Searching where path=leave.md." in found.stderr
    assert "Everywhere." in found.stderr
    first, second = found.stdout.split("Sources:")[1:]
    assert "canteen.md" not in first
    assert "canteen.md" in second


def test_force_answers_the_last_question(world: World) -> None:
    found = chat(world, "Who won the football championship in Brazil?", "/force", "/quit", "never asked")
    assert found.exit_code == 0
    assert "/force answers all the same." in found.stderr
    assert found.stdout.count("do not seem to answer") == 1
    assert "never asked" not in found.output
    nothing = chat(world, "/force")
    assert "There is no question yet." in nothing.stderr


def test_without_a_model_the_passages_are_the_answer(world: World) -> None:
    found = chat(world, LEAVES, "Does unused annual leave lapse?", PIPELINE_GENERATE_PROVIDER="none")
    assert found.exit_code == 0
    assert found.stdout.count("Every employee has thirty days of annual leave.") == 2
    assert "No answering model" in found.stderr
    assert "searching for" not in found.stderr


def test_help_and_a_collection_that_is_not_there(world: World, tmp_path: Path) -> None:
    assert "/open N" in chat(world, "/help").stderr
    assert chat(world, "/").exit_code == 0
    assert chat(world, LEAVES, PIPELINE_DATA=str(tmp_path)).exit_code == 10


def test_an_error_ends_a_pipe_with_its_code(world: World) -> None:
    world.ollama.set_fault("chat_cut", count=1)
    world.ollama.configure(says=["Thirty days of leave are granted to each and everyone [1]."])
    found = chat(world, LEAVES, "never asked")
    assert found.exit_code == 5
    assert "Thirty days" in found.stdout


def test_no_color_leaves_no_escape(world: World) -> None:
    world.ollama.configure(says=["Thirty days [1].", STANDALONE, "In March [1]."])
    found = chat(world, LEAVES, LAPSE, NO_COLOR="1")
    assert "\x1b" not in found.output


# --- files


@pytest.mark.parametrize(
    ("environment", "platform", "text", "expected"),
    [
        ({}, "darwin", True, ["open"]),
        ({"SSH_CONNECTION": "1 2 3 4", "PAGER": "less -R"}, "darwin", True, ["less", "-R"]),
        ({"PAGER": "less -R"}, "linux", True, ["less", "-R"]),
        ({"PAGER": "less -R"}, "linux", False, []),
        ({"PAGER": "less 'broken"}, "linux", True, []),
        ({}, "linux", True, []),
    ],
)
def test_who_opens_a_file(environment: dict[str, str], platform: str, text: bool, expected: list[str]) -> None:
    assert chat_files.opener(environment, platform, text=text) == expected


def test_a_file_is_one_argument_and_no_shell_reads_it(tmp_path: Path) -> None:
    name = tmp_path / "a; touch pwned $(touch pwned) `touch pwned`.txt"
    name.write_text("text")
    copy = tmp_path / "copy"
    chat_files._start([sys.executable, "-c", "import sys, shutil; shutil.copy(sys.argv[2], sys.argv[1])", str(copy),
                       str(name)], wait=True)  # fmt: skip
    assert copy.read_text() == "text"
    assert not list(tmp_path.glob("pwned*"))
    with pytest.raises(errors.StoreError, match="cannot be started"):
        chat_files._start([str(tmp_path / "no such program"), str(name)], wait=True)


# --- at a terminal


class Terminal:
    """The command at a pseudo terminal. `until` reads what it shows up to a text."""

    def __init__(self, world: World, state: Path) -> None:
        master, slave = pty.openpty()
        env = command_line.environment(world.folder, world.env) | {"PYTHONPATH": str(Path(__file__).parent.parent)}
        env |= {"XDG_STATE_HOME": str(state), "TERM": "xterm", "NO_COLOR": "1", "PIPELINE_ASK_WAIT_S": "60"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "chat"],
            env=env,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.master = master
        self.shown = ""

    def until(self, text: str, seconds: float = 60.0) -> str:
        ends = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(ends - time.monotonic(), 0))
            assert ready, f"{text!r} never came: {self.shown!r}"
            with contextlib.suppress(OSError):  # EIO: Linux's way to say that the other end is closed
                self.shown += os.read(self.master, 65536).decode("utf-8", "replace")
        before, _, self.shown = self.shown.partition(text)
        return before

    def interrupt_until(self, text: str) -> None:
        """Ctrl-C at a prompt, again where it met Python between its look for signals and its wait for a key: there it
        waits for one more key or signal.
        """
        for _ in range(30):
            os.kill(self.process.pid, signal.SIGINT)
            with contextlib.suppress(AssertionError):
                self.until(text, 2)
                return
        self.until(text, 2)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_a_conversation_at_a_terminal(world: World, tmp_path: Path) -> None:
    terminal = Terminal(world, tmp_path / "state")
    try:
        terminal.until("/help tells what else can be typed")
        terminal.until("> ")
        terminal.type(f"{LEAVES}\n")
        terminal.until("Every employee has thirty days of annual leave [1].")
        terminal.until("> ")
        world.ollama.set_fault("hang", endpoint="/api/chat", count=1, match="stop me")
        terminal.type("Does unused annual leave lapse, stop me?\n")
        _wait_for_chat(world, 2)
        os.kill(terminal.process.pid, signal.SIGINT)  # Ctrl-C stops the answer
        terminal.until("(stopped)")
        terminal.until("> ")
        terminal.type("/sources\n")  # and the conversation goes on
        terminal.until("leave.md")
        terminal.until("\n> ")
        terminal.type("half a line")
        terminal.until("half a line")
        terminal.interrupt_until("(Ctrl-D or /quit ends.)")  # at the prompt it clears the line
        terminal.until("\n> ")  # before it the line is the terminal's own, and nobody's end of input
        terminal.type("\x04")
        assert terminal.process.wait(30) == 0
    finally:
        terminal.close()
    history = tmp_path / "state" / "embed-pipeline" / "chat_history"
    if sys.platform == "linux":  # elsewhere platformdirs has its own idea of a state folder
        assert LEAVES in history.read_text().replace("\\040", " ")
        assert stat.S_IMODE(history.stat().st_mode) == 0o600


def _wait_for_chat(world: World, requests: int) -> None:
    """Until the model was asked so often."""
    ends = time.monotonic() + 30
    while len([one for one in world.ollama.requests() if one.endpoint == "/api/chat"]) < requests:
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_events_of_a_conversation_are_in_order(world: World) -> None:
    world.ollama.configure(says=["Thirty days [1].", STANDALONE, "In March [1]."])

    async def talk() -> list[conversation.Event]:
        said = Conversation(settings=world.settings)
        async for _ in said.ask(LEAVES):
            pass
        return [event async for event in said.ask(LAPSE)]

    events = asyncio.run(talk())
    assert isinstance(events[0], Searching)
    assert isinstance(events[-1], answer.Answer)
    assert all(isinstance(event, str) for event in events[1:-1])
