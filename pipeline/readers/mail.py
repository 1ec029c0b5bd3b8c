"""E-mail by the standard library: subject, people, date, then the plain part, or the HTML part as text.

Attachments are only named.
"""

from __future__ import annotations

import email
import email.message
import email.policy

from pipeline.readers import build, decode, html

_HEADERS = ("Subject", "From", "To", "Cc", "Date")


def read(data: bytes, name: str) -> build.Draft:
    message = email.message_from_bytes(data, policy=email.policy.default)
    builder = build.Builder()
    attachments = [
        part.get_filename() or "" for part in message.walk() if part.get_content_disposition() == "attachment"
    ]
    headers = {key: _header(message, key) for key in _HEADERS}
    builder.add(header_text(headers, [name for name in attachments if name]), "header")
    has_header = builder.length
    body = message.get_body(preferencelist=("plain", "html"))
    if body is not None:
        _add_body(builder, body)
    if builder.length == has_header and body is not None and body.get_content_type() == "text/plain":
        other = message.get_body(preferencelist=("html",))  # some programs send an empty plain part
        if other is not None:
            _add_body(builder, other)
    return builder.draft(headers["Subject"])


def header_text(headers: dict[str, str], attachments: list[str]) -> str:
    """The head of a message as lines of text; shared with .msg."""
    filled = [f"{key}: {value}" for key, value in headers.items() if value]
    return "\n".join([*filled, *([f"Attachments: {', '.join(attachments)}"] if attachments else [])])


def add_plain(builder: build.Builder, text: str) -> None:
    """A plain body: paragraphs, quoted ones marked as such."""
    for paragraph in decode.clean(text).split("\n\n"):
        quoted = all(line.startswith(">") for line in paragraph.strip().split("\n"))
        builder.add(paragraph, "quote" if quoted else "paragraph")


def _header(message: email.message.EmailMessage, key: str) -> str:
    return build.one_line(str(message.get(key, "")), 500)


def _add_body(builder: build.Builder, body: email.message.Message) -> None:
    payload = body.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    if not data.strip():
        return
    text = decode.text_of(data, body.get_content_charset() or "")
    if body.get_content_type() == "text/html":
        html.add_page(text.encode(), builder)
    else:
        add_plain(builder, text)
