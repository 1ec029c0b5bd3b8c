"""E-mail by the standard library: subject, people, date, then the plain part, or the HTML part as text.

Attachments are only named. A mailbox is a document whose pages are its messages.
"""

from __future__ import annotations

import email
import email.message
import email.policy
import re
from collections.abc import Iterator

from pipeline import errors
from pipeline.readers import build, decode, html

_HEADERS = ("Subject", "From", "To", "Cc", "Date")
# RFC 4155: a line that begins a message, after an empty line or at the start of the file.
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\n]*\n")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.M)  # mboxrd


def read(data: bytes, name: str) -> build.Draft:
    builder = build.Builder()
    return builder.draft(_add_message(builder, data))


def read_mailbox(data: bytes, name: str) -> build.Draft:
    """Each message a page under its subject as heading."""
    builder = build.Builder()
    for page, message in enumerate(_messages(data), 1):
        builder.leave_headings()
        _add_message(builder, message, page=page)
    return builder.draft(heading_as_title=False)


def _messages(data: bytes) -> Iterator[bytes]:
    """The messages of a mailbox (RFC 4155, and mboxrd's ">From " undone). Raises DocumentError: damaged."""
    data = data.lstrip(b"\r\n")
    if not data.startswith(b"From "):
        raise errors.DocumentError("damaged", 'not a mailbox: it does not begin with "From "')
    lines = list(_FROM_LINE.finditer(data))
    ends = [line.start() for line in lines[1:]] + [len(data)]
    for line, end in zip(lines, ends, strict=True):
        yield _QUOTED_FROM.sub(rb"\1", data[line.end() : end])


def _add_message(builder: build.Builder, data: bytes, page: int | None = None) -> str:
    """Headers and body; in a mailbox (`page`: the message's number) under the subject as heading. Returns that."""
    message = email.message_from_bytes(data, policy=email.policy.default)
    attachments = [
        part.get_filename() or "" for part in message.walk() if part.get_content_disposition() == "attachment"
    ]
    headers = {key: _header(message, key) for key in _HEADERS}
    if page is not None:
        builder.add(headers["Subject"], page=page, level=1)
    builder.add(header_text(headers, [name for name in attachments if name]), "header", page=page)
    has_header = builder.length
    body = message.get_body(preferencelist=("plain", "html"))
    if body is not None:
        _add_body(builder, body, page)
    if builder.length == has_header and body is not None and body.get_content_type() == "text/plain":
        other = message.get_body(preferencelist=("html",))  # some programs send an empty plain part
        if other is not None:
            _add_body(builder, other, page)
    return headers["Subject"]


def header_text(headers: dict[str, str], attachments: list[str]) -> str:
    """The head of a message as lines of text; shared with .msg."""
    filled = [f"{key}: {value}" for key, value in headers.items() if value]
    return "\n".join([*filled, *([f"Attachments: {', '.join(attachments)}"] if attachments else [])])


def add_plain(builder: build.Builder, text: str, page: int | None = None) -> None:
    """A plain body: paragraphs, quoted ones marked as such."""
    for paragraph in decode.clean(text).split("\n\n"):
        quoted = all(line.startswith(">") for line in paragraph.strip().split("\n"))
        builder.add(paragraph, "quote" if quoted else "paragraph", page=page)


def _header(message: email.message.EmailMessage, key: str) -> str:
    return build.one_line(str(message.get(key, "")), 500)


def _add_body(builder: build.Builder, body: email.message.Message, page: int | None) -> None:
    payload = body.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    if not data.strip():
        return
    text = decode.text_of(data, body.get_content_charset() or "")
    if body.get_content_type() == "text/html":
        _add_html(builder, text.encode(), page)
    else:
        add_plain(builder, text, page)


def _add_html(builder: build.Builder, data: bytes, page: int | None) -> None:
    try:
        html.add_page(data, builder, page=page)
    except errors.DocumentError as error:
        if error.kind != "empty":  # a message of headers alone is one, too
            raise
