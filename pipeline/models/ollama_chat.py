"""Generator over an Ollama server: what is asked for an answer, and how it comes. HTTP is in ollama_client.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from pipeline import errors
from pipeline.models import Message, Piece
from pipeline.models.ollama_client import ChatLine, Server

CHAT_STALL_S = 330.0  # Ollama gives a loading model 5 minutes without progress before it gives up itself
SEED = 1


class OllamaGenerator:
    """Answers by /api/chat. One fixed set of options per model: another num_ctx would load it anew."""

    def __init__(
        self,
        server: Server,
        model: str,
        *,
        num_ctx: int = 8192,
        temperature: float = 0.0,
        keep_alive: str = "30m",
        stall_s: float = CHAT_STALL_S,
        digest: str = "",
    ) -> None:
        self._server = server
        self._model = model
        self._num_ctx = num_ctx
        self._temperature = temperature
        self._keep_alive = keep_alive
        self._stall_s = stall_s
        self._digest = digest

    @property
    def digest(self) -> str:
        """Identity of the model's weights, as the server told it."""
        return self._digest

    @property
    def model(self) -> str:
        return self._model

    @property
    def server(self) -> Server:
        return self._server

    @property
    def context_tokens(self) -> int:
        return self._num_ctx

    async def aclose(self) -> None:
        await self._server.aclose()

    async def stream(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[Piece]:
        """The answer as it is written. Never cut in silence: `truncate` and `shift` are off (Ollama >= 0.12.6 obeys),
        and an answer that ran into `max_tokens` ends with done_reason "length".

        Raises:
            TextRejected: the conversation is longer than num_ctx.
            TransientFault: it broke off after it had begun.
            ServerUnreachable, TransientFault, ModelMissing, ServerRefused: see ollama_errors.py.
        """
        body, began = self._body(messages, max_tokens), False
        try:
            async with aclosing(self._server.chat(body, model=self._model, stall_s=self._stall_s)) as lines:
                async for line in lines:
                    began = True
                    yield _piece(line)
        except (errors.ServerUnreachable, errors.TransientFault) as error:
            if not began:
                raise
            remedy = "Ask again. If it stops again, the server's log tells why; often its memory is full."
            raise errors.TransientFault(error.message, remedy) from error

    def _body(self, messages: Sequence[Message], max_tokens: int) -> dict[str, object]:
        return {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "stream": True,
            "truncate": False,
            "shift": False,
            "keep_alive": self._keep_alive,
            "options": {
                "num_ctx": self._num_ctx,
                "num_predict": max_tokens,
                "temperature": self._temperature,
                "seed": SEED,
            },
        }


def _piece(line: ChatLine) -> Piece:
    return Piece(
        text=line.message.content,
        done=line.done,
        done_reason=line.done_reason,
        prompt_tokens=line.prompt_eval_count,
        answer_tokens=line.eval_count,
    )
