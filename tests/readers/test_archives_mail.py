"""Mails and what is attached to them: which parts are documents of their own, and what they are called."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import readers
from pipeline.readers import containers
from tests.readers.boxes import mail, mailbox, message, msg
from tests.readers.test_archives import inside, outcome, refusal

PLAIN = readers.ReaderOptions()


def text(data: bytes, name: str = "a.eml") -> str:
    read = readers.read_member(data, name, PLAIN).document
    assert read is not None
    return read.text


def test_attachments_are_documents_and_the_mail_names_them() -> None:
    data = mail(
        "Lamps", "See below.", {"report.md": "The report.", "photo.png": b"\x89PNG\r\n\x1a\n", "list.csv": "a,b\n1,2\n"}
    )
    assert {path: one.strip() for path, one in inside(data, "a.eml", PLAIN).items()} == {
        "report.md": "The report.",
        "list.csv": "a,b\n1,2",
    }
    assert "Attachments: report.md, photo.png, list.csv" in text(data)
    assert text(data).endswith("See below.")


def test_bodies_and_signatures_are_no_documents() -> None:
    made = message("S", "Plain body.")
    made.add_alternative("<p>Rich body.</p>", subtype="html")
    made.get_payload()[1].add_related(b"\x89PNG", maintype="image", subtype="png", cid="<a>", filename="logo.png")  # type: ignore[index,union-attr]
    made.add_attachment(b"x", maintype="application", subtype="pkcs7-signature", filename="smime.p7s")
    made.add_attachment(b"x", maintype="application", subtype="pgp-signature", filename="signature.asc")
    made.add_attachment(b"x", maintype="application", subtype="ms-tnef", filename="winmail.txt")
    assert inside(made.as_bytes(), "a.eml", PLAIN) == {}


@pytest.mark.parametrize("name", ["报告.md", "Übersicht der Lampen.md", "a/b.md", "x" * 300 + ".md", 'quote".md'])
def test_names_of_attachments(name: str) -> None:
    expected = containers.safe_name(name.rpartition("/")[2])
    assert list(inside(mail("S", attached={name: "Text."}), "a.eml", PLAIN)) == [expected]


def test_a_name_in_the_old_encoded_words() -> None:
    """RFC 2047 forbids them in parameters; Outlook and others write them all the same."""
    data = mail("S", attached={"placeholder.md": "Text."})
    data = data.replace(b'"placeholder.md"', b'"=?utf-8?B?5oql5ZGKLm1k?="')
    assert list(inside(data, "a.eml", PLAIN)) == ["报告.md"]


def test_an_attachment_without_a_name() -> None:
    made = message("S")
    made.add_attachment("<p>Rich.</p>", subtype="html", disposition="attachment")
    made.add_attachment("Words.", disposition="attachment")
    made.add_attachment("Words.", disposition="inline")
    assert list(inside(made.as_bytes(), "a.eml", PLAIN)) == ["attachment.html", "attachment.txt"]


def test_an_attached_mail_is_a_mail() -> None:
    inner = message("Re: lamps/bridges", "The inner body.", {"deep.txt": "Deep."})
    data = mail("Outer", "The outer body.", {"x": inner})
    assert list(inside(data, "a.eml", PLAIN)) == ["Re: lamps_bridges.eml", "Re: lamps_bridges.eml!/deep.txt"]
    assert "Attachments: Re: lamps_bridges.eml\n" in text(data)
    assert "deep.txt" not in text(data)
    (first, _) = inside(data, "a.eml", PLAIN).values()
    assert "The inner body." in text(first.encode())


def test_each_message_of_a_mailbox() -> None:
    data = mailbox(mail("One", "First."), mail("Two", "Second.", {"x.txt": "X."}), mail("Three", "Third."))
    found = inside(data, "in.mbox", PLAIN)
    assert list(found) == ["0001.eml", "0002.eml", "0002.eml!/x.txt", "0003.eml"]
    read = readers.read_member(found["0002.eml"].encode(), "0002.eml", PLAIN).document
    assert read is not None
    assert (read.title, "Second." in read.text) == ("Two", True)
    result = readers.read_member(data, "in.mbox", PLAIN)
    assert (result.document, result.kind, result.reader) == (None, "", "mbox/2+inner/1")
    off = readers.read_member(data, "in.mbox", readers.ReaderOptions(attachments=False))
    assert off.document is not None
    assert [block.page for block in off.document.blocks if block.kind == "heading"] == [1, 2, 3]
    assert refusal(b"Nothing of a mail.\n", "in.mbox").kind == "damaged"


def test_a_mail_without_a_text_has_its_attachments() -> None:
    data = b"Content-Type: text/plain\nContent-Disposition: attachment; filename=a.md\n\nText.\n"
    result = readers.read_member(data, "a.eml", PLAIN)
    assert list(inside_of(result)) == ["a.md"]


def inside_of(result: readers.ReadResult) -> list[str]:
    return [one.path for one in readers.inside(result, "a.eml", PLAIN, containers.Turn())[1]]


# -- Outlook


def test_attachments_of_an_outlook_message() -> None:
    data = msg("Lamps", "See below.", {"report.md": b"The report.", "photo.png": b"\x89PNG", "../说明.txt": b"Words."})
    assert inside(data, "a.msg", PLAIN) == {"report.md": "The report.", "说明.txt": "Words."}
    result = readers.read_member(data, "a.msg", PLAIN)
    assert (result.reader, result.document is not None) == ("unstructured-msg/1+inner/1", True)
    assert "Attachments: report.md, photo.png" in text(data, "a.msg")


@given(st.binary(max_size=400))
def test_any_bytes_as_a_mail(data: bytes) -> None:
    assert outcome(data, "a.eml") in ("", "damaged", "zip_bomb")
    assert outcome(b"From x\n" + data, "a.mbox") in ("", "damaged", "zip_bomb")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2000), st.integers(1, 255))
def test_any_flipped_byte_of_a_mail(at: int, by: int) -> None:
    data = bytearray(mail("S", attached={"a.md": "Text.", "x": message("Inner", attached={"b.md": b"Bytes."})}))
    data[at % len(data)] ^= by
    assert outcome(bytes(data), "a.eml") in ("", "damaged")


def test_mails_read_from_any_program() -> None:
    """What `email` itself could not have written: no headers, a broken multipart, an unknown encoding."""
    for data in (
        b"\n\nOnly a body.\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Disposition: attachment; filename=a.md\n\nText\n",
        b"Content-Type: text/plain; charset=nonsense\nContent-Disposition: attachment; filename=a.md\n\nText\n",
        b"Content-Type: message/rfc822\nContent-Disposition: attachment\n\n",
        b"Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: base64\n\n!!!!\n--x--\n",
    ):
        assert outcome(data, "a.eml") == ""
