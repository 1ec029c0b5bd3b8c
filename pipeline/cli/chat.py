"""The command that goes on asking: questions typed at a prompt, or lines from a pipe.

Answers go to stdout, everything else to stderr. Ctrl-C stops an answer and not the conversation; Ctrl-D, or the end of
the input, ends it.
"""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import click

from pipeline import errors
from pipeline.cli import chat_files, failures, options, render, render_hits
from pipeline.cli.ask import Showing, put, waiting
from pipeline.cli.state import State, color

if TYPE_CHECKING:
    from pipeline import answer, config, conversation, filters, query

PROMPT = "> "
HELP = """Type a question, or:
  /sources         the passages behind the last answer, with their text
  /open N          open the file of source N
  /why             why the last question was answered or refused, sentence by sentence
  /where FILTER …  search only there, such as /where path=docs/2026/ type=pdf; /where alone: everywhere
  /force           answer the last question even if the documents do not seem to
  /help, /quit     this; the end (so is Ctrl-D)
Ctrl-C stops an answer."""


@options.command("chat")
@click.pass_obj
def chat(state: State) -> int:
    """Ask questions one after the other; each may refer to what was said before.

    A follow-up question is rewritten by the answering model so that it can be searched for; what is searched for is
    shown. Without an answering model the passages are the answer, and each question is searched for as it was typed.

    From a pipe, each line is a question; the first error ends it, with its exit code.
    """
    settings = state.load().settings
    from pipeline import conversation, query

    query.open_collection(settings)  # what is wrong with it is told before anybody types
    interactive = sys.stdin is not None and sys.stdin.isatty()
    talk = _Talk(state=state, settings=settings, said=conversation.Conversation(settings=settings))
    with chat_files.history(interactive):
        if interactive:
            talk.greet()
        for line in _lines(interactive):
            code = talk.turn(line)
            if code is None:
                break
            if code and code != errors.NoAnswer.exit_code and not interactive:
                return code
    return 0


def _lines(interactive: bool) -> Iterator[str]:
    """What is typed, until the end. Ctrl-C clears the line."""
    while True:
        try:
            line = input(PROMPT) if interactive else sys.stdin.readline()
        except EOFError:
            click.echo("", err=True)
            return
        except KeyboardInterrupt:
            click.echo("\n(Ctrl-D or /quit ends.)", err=True)
            continue
        if not interactive and not line:
            return
        if line.strip():
            yield line.strip()


@dataclass(slots=True, kw_only=True)
class _Talk:
    """The conversation and what was set in it."""

    state: State
    settings: config.Settings
    said: conversation.Conversation
    where: tuple[str, ...] = ()
    last: str = ""  # the last question, answered or not
    _commands: dict[str, Callable[[list[str]], int]] = field(init=False)

    def __post_init__(self) -> None:
        self._commands = {
            "sources": self._sources,
            "open": self._open,
            "why": self._why,
            "where": self._narrow,
            "force": self._force,
            "help": self._help,
        }

    def greet(self) -> None:
        self.state.say(f"Collection {self.settings.collection}. /help tells what else can be typed; Ctrl-D ends.")

    def turn(self, line: str) -> int | None:
        """One line: a question or a command. Returns its exit code; None: that was the end."""
        try:
            if not line.startswith("/"):
                return self._ask(line)
            name, *arguments = _words(line[1:])
            if name in ("quit", "exit", "q"):
                return None
            if name not in self._commands:
                raise errors.UsageError(f"There is no command /{name}.", "/help lists them.")
            return self._commands[name](arguments)
        except errors.PipelineError as error:
            failures.complain_of(error)
            return error.exit_code
        except KeyboardInterrupt:
            click.echo("\n(stopped)", err=True)
            return 0 if sys.stdin.isatty() else errors.Interrupted.exit_code

    def _ask(self, question: str, *, force: bool = False) -> int:
        self.last = question
        found = asyncio.run(self._answer(question, force))
        click.echo("\n" + "\n".join(["", *render.sources(found)]), color=color())
        for note in found.notes:
            self.state.say(note)
        if found.error is not None:
            raise found.error
        if found.abstained and not force:
            self.state.say("/force answers all the same.")
        return errors.NoAnswer.exit_code if found.abstained else 0

    async def _answer(self, question: str, force: bool) -> answer.Answer:
        from pipeline import conversation

        showing = Showing(lambda: self.state.say(waiting(self.settings)))
        async for event in showing.events(self.said.ask(question, where=self._filters(), force=force)):
            if isinstance(event, conversation.Searching):
                self.state.say(click.style(f"searching for: {render.plain(event.question)}", dim=True))
            elif isinstance(event, str):
                put(event)
            else:
                return event
        raise AssertionError("a conversation's events end with an Answer")

    def _filters(self) -> filters.Filters | None:
        from pipeline import filters

        return filters.parse(self.where, datetime.now()) if self.where else None

    def _answered(self) -> answer.Answer:
        if not self.said.turns:
            raise errors.UsageError("Nothing has been answered yet.", "Type a question first.")
        return self.said.turns[-1].answer

    # -- commands

    def _help(self, _: list[str]) -> int:
        click.echo(HELP, err=True)
        return 0

    def _sources(self, _: list[str]) -> int:
        columns = shutil.get_terminal_size((100, 24)).columns - 4
        for source in self._answered().sources:
            click.echo(f"[{source.number}] {render.place(source.hit)}", color=color())
            for line in render_hits.snippet(source.hit.text, columns, self.said.turns[-1].searched):
                click.echo(f"    {line}", color=color())
        return 0

    def _open(self, arguments: list[str]) -> int:
        sources = self._answered().sources
        number = int(arguments[0]) if len(arguments) == 1 and arguments[0].isdecimal() else 0
        if not 1 <= number <= len(sources):
            raise errors.UsageError(f"There are sources 1 to {len(sources)}.", "Type such as: /open 1")
        chat_files.open_source(self._standing(), sources[number - 1].hit)
        return 0

    def _standing(self) -> query.Standing:
        from pipeline import query

        return query.open_collection(self.settings)

    def _why(self, _: list[str]) -> int:
        for line in render.judged(self._answered()):
            click.echo(line, color=color())
        return 0

    def _narrow(self, arguments: list[str]) -> int:
        before, self.where = self.where, tuple(arguments)
        try:
            self._filters()
        except errors.UsageError:
            self.where = before
            raise
        self.state.say(
            f"Searching where {' and '.join(map(render.plain, self.where))}." if self.where else "Everywhere."
        )
        return 0

    def _force(self, arguments: list[str]) -> int:
        question = " ".join(arguments) or self.last
        if not question:
            raise errors.UsageError("There is no question yet.", "Type it after /force, or ask it first.")
        return self._ask(question, force=True)


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line) or ["help"]
    except ValueError as error:
        raise errors.UsageError(f"/{line}: {error}.", "Close the quotation.") from None
