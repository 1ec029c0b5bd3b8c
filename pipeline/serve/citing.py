"""How a passage is named to those who read it elsewhere: a source line, a title, a link. Knows hits and URLs alone."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote

from pipeline import answer
from pipeline.search import Hit

_BLANKS = re.compile(r"\s+")
_SEPARATOR = " > "  # of a heading path in the index


def _clean(text: str) -> str:
    """On one line and without control characters: a heading comes from a document, and may hold anything."""
    return _BLANKS.sub(" ", answer.terminal_safe(text)).strip()


def name(path: str) -> str:
    """The file's name; never empty."""
    return _clean(posixpath.basename(path)) or "document"


def source_line(path: str, page: int | None, heading: str) -> str:
    """`[handbook.pdf p.3 › Leave › Annual]`: what a passage begins with where nothing else tells its source."""
    place = f" p.{page}" if page is not None else ""
    below = _clean(heading).replace(_SEPARATOR, " › ")
    return f"[{name(path)}{place}{f' › {below}' if below else ''}]"


def title(hit: Hit) -> str:
    """`handbook.pdf · p.3`"""
    return name(hit.path) if hit.page is None else f"{name(hit.path)} · p.{hit.page}"


def url(base: str, collection: str, hit: Hit) -> str:
    """Where this server shows the passage. `base`: of the server as the client sees it, such as "http://host:8765/"."""
    page = f"#page={hit.page}" if hit.page is not None else ""
    return f"{base.rstrip('/')}/passages/{quote(collection, safe='')}/{hit.chunk_id}{page}"
