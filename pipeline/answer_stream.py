"""A model's pieces as they come, made fit to show: terminal controls taken out, links taken apart, citations checked, a
refusal recognised.

Knows streams of pieces; nothing of prompts, and of passages only how many there are and what they say.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TypeVar

from pipeline import answer_citations, answer_links, answer_prompt, answer_text, errors
from pipeline.models import Piece

T = TypeVar("T")


class Stream:
    """`shown` yields the text to show; afterwards the attributes tell how it went.

    Args:
        passages: how many were sent.
        known: texts whose addresses the answer may repeat.

    Attributes:
        text: all that was shown.
        refused: the model said that the passages do not answer; nothing was shown.
        ending: the last piece; None when the stream broke off.
        error: why it broke off after something was shown.
    """

    def __init__(self, passages: int, known: str = "") -> None:
        self._links = answer_links.Links(known)
        self.marks = answer_citations.Marks(passages)
        self.text = ""
        self.refused = False
        self.ending: Piece | None = None
        self.error: errors.PipelineError | None = None
        self._opening: str | None = ""  # held back while it may still become NO_ANSWER; None afterwards

    @property
    def disarmed(self) -> int:
        """Links and markup that were made plain text."""
        return self._links.count

    async def shown(self, pieces: AsyncIterator[Piece]) -> AsyncGenerator[str, None]:
        """The pieces ready to show, none of them empty.

        Raises:
            PipelineError: of the generator, when it failed before anything was shown.
        """
        try:
            async with aclosing(closable(pieces)) as source:
                async for piece in source:
                    ready = self._feed(piece)
                    if ready:
                        yield ready
                    if piece.done or self.refused:
                        self.ending = piece
                        return
        except errors.PipelineError as error:
            self.error = error
        rest = self._show(self._opening or "", last=True)
        if rest:
            yield rest
        if self.error is not None and not self.text:
            raise self.error

    def _feed(self, piece: Piece) -> str:
        text = answer_text.terminal_safe(piece.text)
        if self._opening is not None:
            text = self._opened(self._opening + text, done=piece.done)
        return "" if self.refused else self._show(text, last=piece.done)

    def _opened(self, opening: str, *, done: bool) -> str:
        """What of the opening can be shown: nothing while it may be a refusal, nor when it is one."""
        said = opening.lstrip(" \n\"'*`")
        if said.startswith(answer_prompt.NO_ANSWER):
            self.refused = True
        if not done and answer_prompt.NO_ANSWER.startswith(said):
            self._opening = opening
            return ""
        self._opening = None
        return opening

    def _show(self, text: str, *, last: bool) -> str:
        plain = self._links.feed(text) + (self._links.close() if last else "")
        ready = self.marks.feed(plain) + (self.marks.close() if last else "")
        self.text += ready
        return ready


async def closable(pieces: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The pieces; the connection behind them is closed when the reader stops early (the Protocol cannot ask for it)."""
    try:
        async for piece in pieces:
            yield piece
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
