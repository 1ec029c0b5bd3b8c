"""HTML from elements, so that no text can become markup: a string is always text, and only an element is an element.

Standard library alone. Text is also freed of what would mislead a reader: control characters and marks that turn the
direction of writing.
"""

from __future__ import annotations

import base64
import hashlib
from xml.etree import ElementTree

from pipeline.answer_text import terminal_safe

Element = ElementTree.Element
Child = Element | str


def el(tag: str, *children: Child, **attributes: str) -> Element:
    """An element. `class_` and `http_equiv` stand for class and http-equiv."""
    names = {name.rstrip("_").replace("_", "-"): terminal_safe(value) for name, value in attributes.items()}
    made = Element(tag, names)
    for child in children:
        if isinstance(child, str):
            _add_text(made, terminal_safe(child))
        else:
            made.append(child)
    return made


def _add_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def page(title: str, style: str, *body: Child, script: str = "", language: str = "en") -> str:
    """A page that loads nothing and runs nothing but `script`; its policy allows these two alone.

    Args:
        style, script: of our own files. They are not escaped, so never anything but constants.
    """
    policy = f"default-src 'none'; style-src '{_digest(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src '{_digest(script)}'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", title),
        el("link", rel="icon", href="data:,"),
        _raw("style", style),
    )
    inner = el("body", *body, *([_raw("script", script)] if script else []))
    return f"<!doctype html>\n{markup(el('html', head, inner, lang=language))}\n"


def markup(element: Element) -> str:
    """An element as HTML."""
    return ElementTree.tostring(element, encoding="unicode", method="html")


def _raw(tag: str, content: str) -> Element:
    """Neither text of a document nor anything that was typed."""
    made = el(tag)
    made.text = content
    return made


def _digest(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
