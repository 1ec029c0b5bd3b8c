"""The reader of HTTP replies: what it takes, what it refuses, and that it makes no difference how the bytes arrive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.models import http1_reply
from pipeline.models.http1_reply import ReplyReader


@dataclass(frozen=True)
class Seen:
    """What a reader made of some bytes: a reply, why it is none, or nothing yet."""

    status: int = 0
    body: bytes = b""
    keep_alive: bool = False
    wrong: str = ""
    done: bool = False


def read(pieces: Sequence[bytes], *, closed: bool = False, max_body: int = http1_reply.MAX_BODY) -> Seen:
    reader = ReplyReader(max_body=max_body)
    try:
        for piece in pieces:
            reader.feed(memoryview(piece))
        if closed and not reader.done:
            reader.end()
    except ValueError as error:
        return Seen(wrong=str(error))
    if not reader.done:
        return Seen()
    return Seen(reader.status, bytes(reader.body), reader.keep_alive, done=True)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
GOOD = {
    "a length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", Seen(200, b"hello", True, done=True)),
    "no body": (b"HTTP/1.1 500 Oh no\r\ncontent-length:0\r\n\r\n", Seen(500, b"", True, done=True)),
    "no reason": (b"HTTP/1.1 404\r\nContent-Length: 2 \r\n\r\n{}", Seen(404, b"{}", True, done=True)),
    "an empty reason": (b"HTTP/1.1 404 \r\nContent-Length: 2\r\n\r\n{}", Seen(404, b"{}", True, done=True)),
    "a reason in Latin-1": (b"HTTP/1.1 400 d\xe9j\xe0\r\nContent-Length: 0\r\n\r\n", Seen(400, b"", True, done=True)),
    "chunks": (CHUNKED + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n", Seen(200, b"hello", True, done=True)),
    "capitals": (
        b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: Chunked\r\n\r\nA\r\n0123456789\r\n00\r\n\r\n",
        Seen(200, b"0123456789", True, done=True),
    ),
    "extensions": (CHUNKED + b'5 ;a="b;c"\r\nhello\r\n0;end\r\n\r\n', Seen(200, b"hello", True, done=True)),
    "trailers": (CHUNKED + b"1\r\nx\r\n0\r\nDigest: 1\r\nMore: 2\r\n\r\n", Seen(200, b"x", True, done=True)),
    "the last on its connection": (
        b"HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 1\r\n\r\nx",
        Seen(200, b"x", False, done=True),
    ),
    "interim replies": (
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\n\r\n"
            b"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\nx"
        ),
        Seen(201, b"x", True, done=True),
    ),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", Seen(204, b"", True, done=True)),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", Seen(304, b"", True, done=True)),
    "one length twice": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        Seen(200, b"x", True, done=True),
    ),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", Seen(200, b"x", False, done=True)),
    "1.0 that stays": (
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        Seen(200, b"x", True, done=True),
    ),
    "not compressed": (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx",
        Seen(200, b"x", True, done=True),
    ),
    "more than one reply": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n",
        Seen(200, b"x", False, done=True),
    ),
}
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nall that comes"


@pytest.mark.parametrize("name", GOOD)
def test_replies(name: str) -> None:
    wire, expected = GOOD[name]
    assert read([wire]) == expected


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    assert read([UNTIL_CLOSED]) == Seen()
    assert read([UNTIL_CLOSED], closed=True) == Seen(200, b"all that comes", False, done=True)


@st.composite
def cut(draw: st.DrawFn, wire: bytes) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(0, len(wire)), max_size=12)))
    return [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)], strict=True)]


@given(st.data(), st.sampled_from([*GOOD, "until closed"]))
def test_it_makes_no_difference_how_the_bytes_arrive(data: st.DataObject, name: str) -> None:
    wire = UNTIL_CLOSED if name == "until closed" else GOOD[name][0]
    expected = read([wire], closed=True)
    assert read(data.draw(cut(wire)), closed=True) == expected
    assert read([bytes([byte]) for byte in wire], closed=True) == expected


@given(st.binary(max_size=5000), st.integers(1, 700), st.booleans(), st.data())
def test_any_body_comes_out_as_it_went_in(body: bytes, size: int, chunked: bool, data: st.DataObject) -> None:
    if chunked:
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        wire = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        wire = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    assert read(data.draw(cut(wire))) == Seen(200, body, True, done=True)


LONG = b"x" * http1_reply.MAX_LINE
BAD = {
    b"SSH-2.0-OpenSSH_9.6\r\n": "not HTTP: b'S",
    b"H2": "not HTTP",  # at once: no line needs to end
    b"HTTP/2 200\r\n": "not HTTP/1.1",
    b"HTTP/1.2 200 OK\r\n": "not HTTP/1.1",
    b"HTTP/1.1 2000 OK\r\n": "not HTTP/1.1",
    b"HTTP/1.1 099 OK\r\n": "not HTTP/1.1",
    b"HTTP/1.1  200 OK\r\n": "not HTTP/1.1",
    b"HTTP/1.1 200 OK\n": "not a line of HTTP",
    b"HTTP/1.1 200 OK\rContent-Length: 0\r\n": "not a line of HTTP",
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n": "another protocol",
    b"HTTP/1.1 200 OK\r\nno colon\r\n": "not a header",
    b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n": "not a header",
    b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n": "not a header",
    b"HTTP/1.1 200 OK\r\n: x\r\n": "not a header",
    b"HTTP/1.1 200 OK\r\nA: \0\r\n": "not a line of HTTP",
    b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n": "Content-Length",
    b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n": "Content-Length",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n": "Content-Length",
    b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n": "Content-Length",
    b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n": "Content-Length",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n": "Content-Length",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n": "Transfer-Encoding",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n": "Transfer-Encoding",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n": "Transfer-Encoding",
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n": "compressed",
    CHUNKED + b"g\r\n": "length of a chunk",
    CHUNKED + b"\r\n": "length of a chunk",
    CHUNKED + b"-1\r\n": "length of a chunk",
    CHUNKED + b"1_0\r\n": "length of a chunk",
    CHUNKED + b"1\n": "not a line of HTTP",
    CHUNKED + b"1\r\nxy\r\n": "longer than it said",
    CHUNKED + b"fffffffffff\r\n": "a body of more than",
    b"HTTP/1.1 200 OK\r\nA: " + LONG: "a line of more than",
    CHUNKED + b"1;" + LONG: "a line of more than",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000: "headers of more than",
    b"HTTP/1.1 103 Early\r\n\r\n" * 5_000: "headers of more than",
    CHUNKED + b"0\r\n" + b"A: b\r\n" * 20_000: "headers of more than",
}


@pytest.mark.parametrize("wire", BAD, ids=lambda wire: str(wire[:60]))
def test_what_is_no_reply(wire: bytes) -> None:
    found = read([wire])
    assert BAD[wire] in found.wrong
    assert len(found.wrong) < 200
    if len(wire) < 1000:
        assert BAD[wire] in read([bytes([byte]) for byte in wire]).wrong


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", b""),
        (CHUNKED, b"64\r\n" + b"x" * 100 + b"\r\n1\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 101),
    ],
)
def test_a_body_is_not_taken_in_without_end(head: bytes, body: bytes) -> None:
    assert "a body of more than 100 bytes" in read([head, body], max_body=100).wrong


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (b"", "closed unanswered"),
        (b"HTTP/1.1 200", "in the middle"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "in the middle"),
        (CHUNKED + b"5\r\nhello\r\n", "in the middle"),
        (CHUNKED + b"5\r\nhello\r\n0\r\n", "in the middle"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", "in the middle"),
    ],
)
def test_a_reply_that_breaks_off_is_none(wire: bytes, said: str) -> None:
    assert read([wire]) == Seen()
    assert said in read([wire], closed=True).wrong


@given(st.sampled_from([wire for wire, _ in GOOD.values()]), st.data())
def test_damage_is_an_error_or_a_reply_and_never_anything_else(wire: bytes, data: st.DataObject) -> None:
    damaged = bytearray(wire)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        damaged += b"\r"
    found, other = read([bytes(damaged)], closed=True), read(data.draw(cut(bytes(damaged))), closed=True)
    assert found.done != bool(found.wrong)
    assert replace(found, wrong="") == replace(other, wrong="")
    assert bool(found.wrong) == bool(other.wrong)


@given(st.binary(max_size=300))
def test_noise_is_an_error(noise: bytes) -> None:
    assert read([b"HTTP/1.1 200 OK\r\n\r\n"[: len(noise) % 12] + b"\x01", noise], closed=True).wrong
