"""Line-wise scanning of text formats: a state machine that turns classified lines into Spans.

Linear in time, one line in memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.readers import build


def lines(text: str, start: int = 0) -> Iterator[tuple[int, int]]:
    """Start and end of each line, the "\\n" left out."""
    while start <= len(text):
        end = text.find("\n", start)
        if end < 0:
            end = len(text)
        yield start, end
        start = end + 1


class Scan:
    """Collects spans. At most one is open; lines extend it until something closes it."""

    def __init__(self) -> None:
        self.spans: list[build.Span] = []
        self.kind = ""  # of the open span; "" for none
        self.start = 0
        self.end = 0
        self.lines = 0  # in the open span
        self.gap = False  # a blank line follows the open span

    def put(self, kind: str, start: int, end: int) -> None:
        """Extend the open span if it is of this kind, else close it and open another."""
        if self.kind != kind:
            self.close()
            self.kind, self.start, self.lines = kind, start, 0
        self.end = end
        self.lines += 1
        self.gap = False

    def close(self) -> None:
        if self.kind:
            self.spans.append(build.Span(start=self.start, end=self.end, kind=self.kind))
        self.kind = ""
        self.gap = False

    def heading(self, level: int, heading: str, start: int, end: int) -> None:
        self.close()
        self.spans.append(build.Span(start=start, end=end, kind="heading", level=level, heading=heading))

    def drop(self) -> int:
        """Forget the open span; its start is returned (it turned out to be part of what comes now)."""
        self.kind = ""
        self.gap = False
        return self.start


def first_heading(spans: list[build.Span]) -> str:
    """The bare text of the first heading of the highest level there is; "" for none."""
    headings = [span for span in spans if span.level]
    return build.one_line(min(headings, key=lambda span: span.level).heading) if headings else ""
