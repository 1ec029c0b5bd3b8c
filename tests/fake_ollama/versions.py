"""What changed between Ollama's versions, as far as a client can see it. Every rule is one comparison with a version.

Read from the source at the tags named below. Not modelled: the shuffled batches of 0.2.6-0.3.6, the reused buffer of
0.4.0-0.5.7 and the long-input fault of 0.12.6; a client refuses or warns about those by number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Version:
    """An Ollama version `x.y.z` (a suffix such as `-rc1` is kept in `text` and ignored otherwise) and how that version
    behaves.
    """

    text: str

    @cached_property
    def triple(self) -> Triple:
        found = re.match(r"(\d+)\.(\d+)\.(\d+)", self.text)
        if found is None:
            raise ValueError(f"not an Ollama version: {self.text!r}; write x.y.z")
        return int(found[1]), int(found[2]), int(found[3])

    def since(self, *triple: int) -> bool:
        """Whether this version is `triple` or later."""
        return self.triple >= triple

    @property
    def counts_specials(self) -> bool:
        """From 0.13.3 the runner counts, so prompt_eval_count holds [CLS] and [SEP]; before, the handler counted
        content tokens.
        """
        return self.since(0, 13, 3)

    @property
    def has_dimensions(self) -> bool:
        """`dimensions` came with 0.11.11; before, the field is ignored in silence."""
        return self.since(0, 11, 11)

    @property
    def has_base64(self) -> bool:
        """`encoding_format: base64` came with 0.12.7; before, the field is ignored and lists are sent."""
        return self.since(0, 12, 7)

    @property
    def embed_error_status(self) -> int:
        """A runner that dies gives 500 before 0.13.3 and 400 from then on (#16582)."""
        return 400 if self.since(0, 13, 3) else 500

    @property
    def empty_error_object(self) -> bool:
        """0.3.5 to 0.6.0 put a Go error value into JSON: `{"error":{}}` for every embedding failure."""
        return (0, 3, 5) <= self.triple <= (0, 6, 0)

    @property
    def runner_path(self) -> str:
        """The runner's own endpoint, as it shows in error messages."""
        return "/v1/embeddings" if self.since(0, 30, 0) else "/embedding"

    @property
    def over_limit_message(self) -> str:
        if self.since(0, 13, 3):
            return "the input length exceeds the context length"
        if self.since(0, 12, 0):
            return "input exceeds maximum context length"
        return "input length exceeds maximum context length"

    @property
    def nan_is_zeros(self) -> bool:
        """From 0.30 a NaN travels as JSON null and becomes 0 with status 200 (#17878)."""
        return self.since(0, 30, 0)

    @property
    def nan_error(self) -> tuple[int, str]:
        """Status and message for a NaN before 0.30: Go's JSON encoder refuses, or from 0.14 the handler's own check
        does.
        """
        if self.since(0, 14, 0):
            return 400, "embedding contains NaN or Inf values"
        return 500, "failed to encode response: json: unsupported value: NaN"

    @property
    def default_num_ctx(self) -> int:
        """2048, from 0.6.7 4096. By VRAM from 0.15.5; this server has the smallest, so 4096."""
        return 4096 if self.since(0, 6, 7) else 2048

    @property
    def clamps_num_ctx(self) -> bool:
        """From 0.30 num_ctx is compared after it is cut to the trained context: 512 and 2048 are one profile for a
        512-token model.
        """
        return self.since(0, 30, 0)

    @property
    def shift_reloads(self) -> bool:
        """From 0.30 context shift is a launch flag of the runner: a chat that changes `shift` reloads the model."""
        return self.since(0, 30, 0)

    @property
    def has_shift(self) -> bool:
        """`truncate` and `shift` on /api/chat came with 0.12.6; before, both are ignored in silence."""
        return self.since(0, 12, 6)

    @property
    def ps_has_context(self) -> bool:
        return self.since(0, 10, 0)

    @property
    def show_has_capabilities(self) -> bool:
        return self.since(0, 6, 4)

    @property
    def tags_have_capabilities(self) -> bool:
        return self.since(0, 30, 0)
