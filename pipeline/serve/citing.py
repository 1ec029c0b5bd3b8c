"""How a passage is named to those who read it elsewhere: a source line, a title, a link. Knows hits and URLs alone."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote

from pipeline import answer, answer_text
from pipeline.search import Hit

_BLANKS = re.compile(r"\s+")


def _clean(text: str) -> str:
    """On one line and without control characters: a heading comes from a document, and may hold anything."""
    return _BLANKS.sub(" ", answer.terminal_safe(text)).strip()


def name(path: str) -> str:
    """The file's name; never empty."""
    return _clean(posixpath.basename(path)) or "document"


def source_line(path: str, page: int | None, heading: str) -> str:
    """`[handbook.pdf p.3 › Leave › Annual]`: what a passage begins with where nothing else tells its source."""
    place = f" p.{page}" if page is not None else ""
    below = answer_text.headings_shown(_clean(heading))
    return f"[{name(path)}{place}{f' › {below}' if below else ''}]"


def title(hit: Hit) -> str:
    """`handbook.pdf · p.3`"""
    return titled(hit.path, hit.page)


def titled(path: str, page: int | None) -> str:
    """The same of a passage that was not searched for."""
    return name(path) if page is None else f"{name(path)} · p.{page}"


def url(base: str, collection: str, hit: Hit) -> str:
    """Where this server shows the passage. `base`: of the server as the client sees it, such as "http://host:8765/"."""
    return passage_url(base, collection, hit.chunk_id, hit.page)


def passage_url(base: str, collection: str, chunk_id: str, page: int | None) -> str:
    """The same of a passage that was not searched for."""
    at = f"#page={page}" if page is not None else ""
    return f"{base.rstrip('/')}/passages/{quote(collection, safe='')}/{chunk_id}{at}"
