"""What the pipeline asks of a model server: two Protocols, and the facts about a model that travel with them.

Only modules of this package know HTTP or onnxruntime; what they raise is from `pipeline.errors` alone:
ServerUnreachable (no answer), TransientFault (another try may help), its RunnerFault and BadVectors (the same, but a
text may be to blame), TextRejected (this batch never: bisect it), ModelMissing, ModelMismatch, ServerRefused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.models import templates

Vectors = NDArray[np.float32]
Storage = Literal["float32", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderSpec:
    """Who embeds: everything that decides which vector a text gets, and what a text may be.

    Attributes:
        digest: identity of the weights (Ollama's manifest digest, the file's SHA-256), "" where the server tells none.
        dims: length of the vectors that come out (after a Matryoshka cut, where one is set).
        limit: most tokens a text may have, special tokens *not* counted (mxbai: 510).
        tokenizer: `Tokenizer.identity` of the tokenizer that counts for this model.
        query_template, document_template: with `{text}` (and `{title}`) to be replaced.
        languages: such as ("en",); empty means many.
        situated_by: who writes a sentence before each passage (stages.situate.made_by); "" for nobody.
        storage: what vectors are kept as. It decides what is compared with a question, so it is part of who made them.
    """

    provider: Literal["ollama", "openai", "builtin"]
    model: str
    digest: str
    dims: int
    limit: int
    tokenizer: str
    query_template: str = "{text}"
    document_template: str = "{text}"
    languages: tuple[str, ...] = ()
    native_dims: int = 0  # dims before the cut; 0: not cut
    storage: Storage = "float32"
    situated_by: str = ""

    def query(self, text: str) -> str:
        """The exact text to embed for a question."""
        return self.query_template.replace("{text}", text)

    def document(self, text: str, title: str = "") -> str:
        """The exact text to embed for a passage (title first, so that a title in braces cannot capture the text)."""
        return templates.document(self.document_template, text, title)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How an embedder wants to be fed; tuning only, never part of a fingerprint.

    Attributes:
        concurrency: requests in flight, of all its `servers` together.
    """

    batch_texts: int = 64
    batch_tokens: int = 16_000
    concurrency: int = 2
    servers: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedReply:
    """Vectors in input order, float32 of shape (len(texts), dims), and what the server said about the batch."""

    vectors: Vectors
    prompt_tokens: int | None = None  # as counted by the server; None where it tells nothing
    load_ns: int = 0
    server: str = ""


class Embedder(Protocol):
    """Embeds texts exactly as given: templates are the caller's work."""

    @property
    def spec(self) -> EmbedderSpec: ...

    @property
    def limits(self) -> Limits: ...

    async def embed(self, texts: Sequence[str], *, tokens: int, timeout_s: float | None = None) -> EmbedReply:
        """One request. `tokens`: the caller's count for the whole batch (the server's must agree with it)."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What stands beside the vectors for the record, and to notice another model by.

    Attributes:
        server_version: as the server tells it; "" where it tells none.
        canary: the vector of a known text, encoded for `canary.check_canary`; "" where none was made.
    """

    server_version: str = ""
    canary: str = ""


@runtime_checkable
class Divided(Protocol):
    """An embedder over servers of which one can be kept for one caller, while the others go on."""

    def alone(self) -> AbstractAsyncContextManager[Embedder]:
        """One server, once what was in flight there is done; nothing else is sent there until the end of the block.

        Raises:
            ServerUnreachable, TransientFault, ModelMissing, ServerRefused, ModelMismatch: there is none to be had.
        """
        ...

    @property
    def spare(self) -> bool:
        """Whether some server is well and nobody has it for himself."""
        ...

    @property
    def taken(self) -> bool:
        """Whether each server that answers is kept for somebody."""
        ...


@runtime_checkable
class Later(Protocol):
    """An embedder that asks no server until it has to."""

    async def open(self) -> object:
        """Have it ask now. Raises as `resolve.open_embedder`."""
        ...


@runtime_checkable
class Described(Protocol):
    """An embedder that can say more of its server than the spec does. Asking costs it a known text."""

    async def describe(self) -> Description: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a streamed answer. The last has `done` True, says why it ended ("stop", "length"), counts tokens."""

    text: str
    done: bool = False
    done_reason: str = ""
    prompt_tokens: int | None = None
    answer_tokens: int | None = None


class Generator(Protocol):
    """Answers a conversation."""

    @property
    def model(self) -> str: ...

    @property
    def context_tokens(self) -> int:
        """Size of the window that requests ask for (num_ctx)."""
        ...

    def stream(self, messages: Sequence[Message], *, max_tokens: int) -> AsyncIterator[Piece]: ...

    async def aclose(self) -> None: ...


@runtime_checkable
class Identified(Protocol):
    """A generator whose server tells who its model is: a name can move to other weights."""

    @property
    def digest(self) -> str: ...


class Tokenizer(Protocol):
    """Counts as a model does. Offsets are code points into the text given."""

    @property
    def identity(self) -> str:
        """Hash of the vocabulary and rules: part of the chunk fingerprint."""
        ...

    def offsets(self, text: str) -> NDArray[np.int32]:
        """Start and end of each token, shape (tokens, 2), in order, special tokens left out; linear in time."""
        ...

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, special tokens left out."""
        ...
