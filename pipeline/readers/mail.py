"""E-mail by the standard library: subject, people, date, then the plain part, or the HTML part as text.

Attachments are named in the text. Where they are documents of their own (readers.attachments), so is each message of a
mailbox: a mailbox grows at its end, and nothing before that changes. Else a mailbox is one document whose pages are its
messages.
"""

from __future__ import annotations

import codecs
import email
import email.message
import email.policy
import functools
import re
from collections.abc import Iterator

from pipeline import errors
from pipeline.readers import build, containers, decode, formats, html

_PARSED = 8_000  # characters of a header
_HEADERS = ("Subject", "From", "To", "Cc", "Date")
# RFC 4155: a line that begins a message, after an empty line or at the start of the file.
_FROM_LINE = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\r\n\r\n))From [^\n]*\n")
# What goes with a mail and is no document: signatures, keys, Outlook's wrapping of what the mail says anyway.
NO_DOCUMENT = (
    "application/pkcs7-signature",
    "application/x-pkcs7-signature",
    "application/pkcs7-mime",
    "application/x-pkcs7-mime",
    "application/pgp-signature",
    "application/pgp-encrypted",
    "application/pgp-keys",
    "application/ms-tnef",
    "application/vnd.ms-tnef",
)
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
    message = _parsed(data)
    attached = [_name(part) for part in _leaves(message) if part.get_content_disposition() == "attachment"]
    headers = {key: _header(message, key) for key in _HEADERS}
    if page is not None:
        builder.add(headers["Subject"], page=page, level=1)
    builder.add(header_text(headers, [name for name in attached if name]), "header", page=page)
    has_header = builder.length
    body = message.get_body(preferencelist=("plain", "html"))
    if body is not None:
        _add_body(builder, body, page)
    if builder.length == has_header and body is not None and body.get_content_type() == "text/plain":
        other = message.get_body(preferencelist=("html",))  # some programs send an empty plain part
        if other is not None:
            _add_body(builder, other, page)
    return headers["Subject"]


def _parsed(data: bytes) -> email.message.EmailMessage:
    """A mail, also one that an editor has saved in UTF-16 or with a mark before it: its headers are bytes by rule."""
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data[:2]:
        data = decode.text_of(data).encode()
    return email.message_from_bytes(data, policy=email.policy.default)


def attachments(data: bytes) -> Iterator[containers.Member]:
    """What is attached to a mail: files, and mails as "<subject>.eml". Pictures within the text have no name that a
    reader knows.
    """
    message = _parsed(data)
    bodies = [message.get_body(preferencelist=(kind,)) for kind in ("plain", "html")]
    for part in _leaves(message):
        if any(part is body for body in bodies) or part.get_content_type() in NO_DOCUMENT:
            continue
        name = _name(part)
        if part.get_content_type() == "message/rfc822":
            yield containers.Member(name=name, size=0, load=functools.partial(_attached_mail, part))
        elif name or part.get_content_disposition() == "attachment":
            name = name or f"attachment{_ending(part.get_content_type())}"
            size = len(part.get_payload()) if isinstance(part.get_payload(), str) else 0
            yield containers.Member(name=flat(name), size=size, load=functools.partial(_attached, part))


def messages(data: bytes) -> Iterator[containers.Member]:
    """The messages of a mailbox, named by their place. Raises DocumentError: damaged."""
    for number, message in enumerate(_messages(data), 1):
        yield containers.Member(name=f"{number:04}.eml", size=len(message), load=functools.partial(bytes, message))


def _leaves(message: email.message.Message) -> Iterator[email.message.EmailMessage]:
    """The parts of a mail in order, but for those of mails attached to it."""
    stack = [message]
    while stack:
        part = stack.pop()
        if part.get_content_maintype() == "multipart" and isinstance(part.get_payload(), list):
            stack.extend(reversed(part.get_payload()))  # type: ignore[arg-type]
        else:
            yield part  # type: ignore[misc]


def flat(name: str) -> str:
    """A file's name, without the folder that some programs put into a mail."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _name(part: email.message.EmailMessage) -> str:
    """The attachment's file name, that of a mail by its subject; "" for none."""
    name = part.get_filename() or ""
    if part.get_content_type() != "message/rfc822":
        return name
    inner = part.get_payload()
    first = inner[0] if isinstance(inner, list) and inner else None
    subject = _header(first, "Subject", 100) if isinstance(first, email.message.Message) else ""
    name = flat(name) or subject.replace("/", "_").replace("\\", "_") or "message"
    return name if formats.extension(name) == "eml" else f"{name}.eml"


def _ending(media_type: str) -> str:
    found = next((one for one in formats.FORMATS.values() if one.media_type == media_type), None)
    return f".{found.extensions[0]}" if found is not None else ""


def _attached(part: email.message.EmailMessage) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _attached_mail(part: email.message.EmailMessage) -> bytes:
    inner = part.get_payload()
    if not isinstance(inner, list) or not inner or not isinstance(inner[0], email.message.Message):
        raise errors.DocumentError("damaged", "the attached mail is cut off")
    return inner[0].as_bytes(policy=email.policy.compat32)


def header_text(headers: dict[str, str], attachments: list[str]) -> str:
    """The head of a message as lines of text; shared with .msg."""
    filled = [f"{key}: {value}" for key, value in headers.items() if value]
    return "\n".join([*filled, *([f"Attachments: {', '.join(attachments)}"] if attachments else [])])


def add_plain(builder: build.Builder, text: str, page: int | None = None) -> None:
    """A plain body: paragraphs, quoted ones marked as such."""
    for paragraph in decode.clean(text).split("\n\n"):
        quoted = all(line.startswith(">") for line in paragraph.strip().split("\n"))
        builder.add(paragraph, "quote" if quoted else "paragraph", page=page)


def _header(message: email.message.Message, key: str, longest: int = 500) -> str:
    """The beginning of a header on one line. Only so much of it is parsed: the library takes a gigabyte for 75,000
    characters of encoded words, and seconds for 20,000 recipients.
    """
    raw = next((str(value) for name, value in message.raw_items() if name.lower() == key.lower()), "")
    if len(raw) > _PARSED:
        raw = raw[:_PARSED].rpartition("\n")[0] or raw[:_PARSED]  # where it is folded, no encoded word is cut
    return build.one_line(str(message.policy.header_fetch_parse(key, raw)), longest)


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
