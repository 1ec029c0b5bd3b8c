"""The agents' tools over stdin and stdout, for hosts that start a program: `pipeline mcp`. Links lead to the files.

stdout is the wire. The log goes to stderr, which hosts keep.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from urllib.parse import quote

from pipeline import config, errors, freshness
from pipeline.serve import mcp_http
from pipeline.serve.meter import Meter
from pipeline.serve.shelf import Opened, Shelf


def serve(settings: config.Settings) -> None:
    """Answer until stdin ends.

    Raises:
        ConfigError: the package `mcp` is not installed.
    """
    if not mcp_http.is_installed():
        raise errors.ConfigError("The package mcp is not installed.", mcp_http.INSTALL)
    asyncio.run(_serve(settings))


async def _serve(settings: config.Settings) -> None:
    from pipeline.serve import tools

    shelf = Shelf(settings, Meter())
    try:
        await tools.create(shelf, link).run_stdio_async()
    finally:
        await shelf.aclose()


def link(opened: Opened, chunk_id: str, uri: str, page: int | None) -> str:
    """A file URL of the document, or of the file that it lies in; by its name alone where its folder is not there."""
    at = f"#page={page}" if page is not None else ""
    snapshot = opened.collection.snapshot(opened.note.snapshot) if opened.note is not None else None
    file = freshness.file_of(snapshot, uri) if snapshot is not None else uri
    path = freshness.place(snapshot.sources, file) if snapshot is not None else None
    url = Path(os.fsdecode(path)).as_uri() if path is not None else f"file:///{quote(file)}"
    return url + at
