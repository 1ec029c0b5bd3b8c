"""The exact text that stands for a passage: document template applied to context and text.

Two stages build it (chunk counts and names it, embed sends it) and must agree to the letter. Knows nothing of models
or tables.
"""

from __future__ import annotations

NO_TITLE = "none"  # what EmbeddingGemma's own template says for a passage without title


def document(template: str, text: str, title: str = "") -> str:
    """`template` with `{text}` and `{title}` filled in; what braces the text or the title hold stays as it is."""
    before, _, after = template.partition("{text}")
    return before.replace("{title}", title or NO_TITLE) + text + after.replace("{title}", title or NO_TITLE)


def embed_text(context: str, text: str, title: str, template: str) -> str:
    """The text sent to the model for one chunk row: its hash is the row's `embed_key`."""
    # A context may be a sentence alone, on its second line (stages.situate).
    return document(template, f"{context.lstrip()}\n{text}" if context else text, title)
