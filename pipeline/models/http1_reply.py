"""The reader of one HTTP/1.1 reply: bytes in, in pieces of any size; status and body out. Knows no socket.

Strict where RFC 9112 leaves a choice: lines end in CRLF, a length is told once and in one way, nothing is guessed.
Whatever is wrong raises ValueError, whose text says what; the caller (http1.py) knows which server it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_LINE = 16 << 10
MAX_HEAD = 64 << 10  # all lines that are not body: interim replies, headers, trailers (without the lengths of chunks)
MAX_BODY = 256 << 20  # a verbose /api/show has some 10 MB, 64 vectors of 4096 numbers in JSON 6 MB

_PIECE = 512  # bytes that are looked through for the end of a line at a time: most lines are far shorter
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -\xff]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(?:;[\t -\xff]*)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_NO_BODY = (204, 304)
_SWITCHING = 101
Step = Callable[[memoryview, int], int]


class ReplyReader:
    """Reads one reply to a GET or POST. `feed` it what comes; `end` it when the connection was closed.

    Attributes:
        status, body: meaningful when `done`.
        keep_alive: whether another request may be sent on the connection.
        started: whether a byte came.
    """

    def __init__(self, *, max_body: int = MAX_BODY) -> None:
        self.status = 0
        self.body = bytearray()
        self.done = self.started = self.keep_alive = False
        self._max_body = max_body
        self._line = bytearray()  # the part of a line that came so far
        self._head_bytes = 0
        self._headers: dict[bytes, bytes] = {}
        self._old = False  # HTTP/1.0
        self._left = 0  # bytes of this body, or of this chunk, that are to come
        self._step: Step = self._status

    def feed(self, data: memoryview) -> None:
        """Take in what came.

        Raises:
            ValueError: it is no HTTP, or too much.
        """
        self.started = self.started or len(data) > 0
        at = 0
        while at < len(data):
            if self.done:  # RFC 9112, 6.3: what follows is thrown away, and must not be taken for another reply
                self.keep_alive = False
                return
            at = self._step(data, at)

    def end(self) -> None:
        """The connection was closed: the end of a body without a length, of any other an error."""
        if self._step == self._rest:
            self.done = True
        if not self.done:
            raise ValueError("it was closed in the middle of a reply" if self.started else "it was closed unanswered")

    # --- lines

    def _take_line(self, data: memoryview, at: int) -> tuple[bytes | None, int]:
        """The line that ends in `data`, if one does, and where what follows begins."""
        piece = bytes(data[at : at + _PIECE])
        end = piece.find(b"\n")
        self._line += piece if end < 0 else piece[: end + 1]
        if len(self._line) > MAX_LINE:
            raise ValueError(f"a line of more than {MAX_LINE} bytes")
        if end < 0:
            return None, at + len(piece)
        line = bytes(self._line)
        self._line.clear()
        if line[-2:] != b"\r\n" or b"\r" in line[:-2] or b"\0" in line:
            raise ValueError(f"not a line of HTTP: {line[:60]!r}")
        return line[:-2], at + end + 1

    def _take_head_line(self, data: memoryview, at: int) -> tuple[bytes | None, int]:
        line, next_ = self._take_line(data, at)
        self._head_bytes += next_ - at
        if self._head_bytes > MAX_HEAD:
            raise ValueError(f"headers of more than {MAX_HEAD} bytes")
        return line, next_

    def _status(self, data: memoryview, at: int) -> int:
        line, next_ = self._take_head_line(data, at)
        start = bytes(self._line[:5]) if line is None else line[:5]
        if not b"HTTP/".startswith(start):  # at once: who speaks another protocol may wait for us to go on
            raise ValueError(f"not HTTP: {start!r}")
        if line is not None:
            found = _STATUS.fullmatch(line)
            if found is None:
                raise ValueError(f"not HTTP/1.1: {line[:60]!r}")
            self._old, self.status = found[1] == b"0", int(found[2])
            self._headers.clear()
            self._step = self._header
        return next_

    def _header(self, data: memoryview, at: int) -> int:
        line, next_ = self._take_head_line(data, at)
        if line is None:
            return next_
        if line:
            self._add(line)
        elif self.status >= 200:
            self._begin_body()
        elif self.status == _SWITCHING:
            raise ValueError("it changes to another protocol")
        else:  # an interim reply: the real one follows
            self._step = self._status
        return next_

    def _add(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not colon or _NAME.fullmatch(name) is None:
            raise ValueError(f"not a header: {line[:60]!r}")
        name, value = name.lower(), value.strip(b" \t")
        before = self._headers.get(name)
        self._headers[name] = value if before is None else before + b", " + value  # RFC 9110, 5.3

    def _tokens(self, name: bytes) -> list[bytes]:
        return [
            token.strip(b" \t").lower() for token in self._headers.get(name, b"").split(b",") if token.strip(b" \t")
        ]

    # --- the body

    def _begin_body(self) -> None:
        """RFC 9112, 6.3: how long the body is."""
        connection, transfer = self._tokens(b"connection"), self._tokens(b"transfer-encoding")
        self.keep_alive = b"close" not in connection and (not self._old or b"keep-alive" in connection)
        if self._tokens(b"content-encoding") not in ([], [b"identity"]):
            raise ValueError("a compressed body, which was not asked for")
        if transfer:
            if transfer != [b"chunked"] or self._old or b"content-length" in self._headers:
                raise ValueError("a Transfer-Encoding that cannot be relied on")
            self._step = self._chunk_size
        elif self.status in _NO_BODY:
            self.done = True
        elif b"content-length" in self._headers:
            self._expect(self._content_length(), self._sized)
            self.done = not self._left
        else:
            self.keep_alive = False
            self._step = self._rest

    def _content_length(self) -> int:
        told = set(self._tokens(b"content-length"))
        if len(told) != 1 or _LENGTH.fullmatch(length := told.pop()) is None:
            raise ValueError(f"a Content-Length of {self._headers[b'content-length'][:60]!r}")
        return int(length)

    def _expect(self, more: int, step: Step) -> None:
        if len(self.body) + more > self._max_body:
            raise ValueError(f"a body of more than {self._max_body} bytes")
        self._left, self._step = more, step

    def _take(self, data: memoryview, at: int) -> int:
        piece = data[at : at + self._left]
        self.body += piece
        self._left -= len(piece)
        return at + len(piece)

    def _sized(self, data: memoryview, at: int) -> int:
        at = self._take(data, at)
        self.done = not self._left
        return at

    def _rest(self, data: memoryview, at: int) -> int:
        self._expect(len(data) - at, self._rest)
        return self._take(data, at)

    def _chunk_size(self, data: memoryview, at: int) -> int:
        line, next_ = self._take_line(data, at)
        if line is not None:
            found = _CHUNK.fullmatch(line)
            if found is None:
                raise ValueError(f"not the length of a chunk: {line[:60]!r}")
            size = int(found[1], 16)
            self._expect(size, self._chunk if size else self._trailer)
        return next_

    def _chunk(self, data: memoryview, at: int) -> int:
        at = self._take(data, at)
        if not self._left:
            self._step = self._chunk_end
        return at

    def _chunk_end(self, data: memoryview, at: int) -> int:
        line, next_ = self._take_line(data, at)
        if line:
            raise ValueError("a chunk longer than it said")
        if line is not None:
            self._step = self._chunk_size
        return next_

    def _trailer(self, data: memoryview, at: int) -> int:
        line, next_ = self._take_head_line(data, at)
        self.done = line == b""
        return next_
