"""Where a citation leads: a passage in its document, and for a PDF the picture of its page with the passage marked.

    /sources/{collection}/{chunk_id}            the page; ?page= another page's picture, ?from= another part of the text
    /sources/{collection}/{chunk_id}/page.png   the picture
    /sources/{collection}/{chunk_id}/file       the PDF itself

An address names a passage, never a file: which file that is says the published snapshot (origin.py), and what is read
of it is shown only if its content is what was indexed. Only PDFs are handed out, as a download: every page of theirs
can be looked at here in any case, so that it gives away little more. Other files may hold more than the text that was
read of them (hidden sheets, earlier versions, attachments), and may do something when they are opened.
"""

from __future__ import annotations

import asyncio
import os
import re
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, BinaryIO
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from pipeline import errors, ids, origin, query, readers, search, texts
from pipeline.expansion import Text
from pipeline.readers.pdf_page import Picture, Wanted
from pipeline.serve import citing
from pipeline.serve.shelf import Shelf
from pipeline.serve.web import layout, source_page
from pipeline.serve.web.source_page import PDF, Drawn, Passage
from pipeline.serve.web.source_pictures import Pictures
from pipeline.serve.web.source_text import on_page

PATIENCE_S = 0.8  # that the page waits for its picture, to say what is on it; then the browser waits
PAGE_CHARS = 50_000  # of a page's text, on either side of the passage: 25 times a page of a book
# An answer that is no page of ours: nothing of it may run, load or stand in a page of another site.
LOCKED = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox", **layout.NO_STORE}

_CHUNK_ID = re.compile(f"[0-9a-f]{{{ids.LENGTH}}}")
_NUMBER = re.compile("[0-9]{1,9}", re.ASCII)
_BLOCK = 1 << 18  # bytes sent at a time
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def router(shelf: Shelf, pictures: Pictures | None = None) -> APIRouter:
    """The addresses above. `pictures`: with other limits than the usual ones."""
    limits = shelf.settings
    drawing = pictures or Pictures(memory_mb=limits.readers.memory_mb, most_mb=limits.source.max_file_mb)

    @asynccontextmanager
    async def living(_: object) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await drawing.aclose()

    api = APIRouter(include_in_schema=False, lifespan=living)
    sources = _Sources(shelf, drawing)
    api.get("/sources/{collection}/{chunk_id}")(sources.page)
    api.get("/sources/{collection}/{chunk_id}/page.png")(sources.picture)
    api.get("/sources/{collection}/{chunk_id}/file")(sources.file)
    return api


class _Sources:
    def __init__(self, shelf: Shelf, pictures: Pictures) -> None:
        self._shelf = shelf
        self._pictures = pictures

    async def page(self, request: Request, collection: str, chunk_id: str) -> Response:
        """The passage in its document."""
        view = await layout.view(self._shelf, request, collection)
        found = await self._find(collection, chunk_id)
        if found is None:
            return source_page.gone(view)
        wanted = _wanted(found, request.query_params)
        drawn = await self._drawn(found, wanted) if _can_be_drawn(found) else None
        start = _number(request.query_params, "from")
        path = _path_shown(found, request, self._shelf)
        return source_page.respond(view, found, drawn, start=start, path=path)

    async def picture(self, request: Request, collection: str, chunk_id: str) -> Response:
        """The picture of a page, as a PNG."""
        found = await self._find(collection, chunk_id)
        if found is None or not _can_be_drawn(found):
            raise _nothing()
        try:
            picture = await self._pictures.get(found.origin, _wanted(found, request.query_params))
        except (errors.DocumentError, errors.WorkerError) as error:
            raise errors.NoIndex(f"There is no picture of this page: {error.message}.") from error
        return Response(picture.png, media_type="image/png", headers=LOCKED)

    async def file(self, collection: str, chunk_id: str) -> Response:
        """The PDF that was indexed, to be saved."""
        found = await self._find(collection, chunk_id)
        if found is None or not source_page.can_be_saved(found):
            raise _nothing()
        most_bytes = self._shelf.settings.source.max_file_mb * readers.MEGABYTE
        try:
            file = await asyncio.to_thread(origin.open_same, found.origin, most_bytes)
        except errors.DocumentError as error:
            raise errors.NoIndex(f"The file cannot be had: {error.message}.") from error
        name = citing.name(found.origin.uri)
        name = name if name.lower().endswith(".pdf") else f"{name}.pdf"  # what it is, whatever it calls itself
        headers = {
            **LOCKED,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
            "Content-Length": str(found.origin.size),
        }
        response = StreamingResponse(_blocks(file, found.origin.size), media_type=PDF, headers=headers)
        weakref.finalize(response, file.close)  # of a client that goes away before the first byte
        return response

    async def _find(self, collection: str, chunk_id: str) -> Passage | None:
        """The passage with its document and file; None where the collection has none of this id (any more).

        Raises:
            NoIndex: there is no such collection, or it is not for this client.
        """
        if not _CHUNK_ID.fullmatch(chunk_id):
            await asyncio.to_thread(self._shelf.standing, collection)
            return None
        standing, row = await self._row(collection, chunk_id)
        if row is None:
            return None
        snapshot = standing.note.snapshot
        behind = await asyncio.to_thread(origin.look, standing.collection, snapshot, row["uri"], row["doc_id"])
        text = await asyncio.to_thread(_text, standing, row)
        address = f"/sources/{quote(collection, safe='')}/{chunk_id}"
        return Passage(address=address, row=row, text=text, origin=behind)

    async def _row(self, collection: str, chunk_id: str) -> tuple[query.Standing, search.Row | None]:
        """From the reader that is open; by a new one where the model cannot be opened, which this does not need, or
        where the version that is open was freed."""
        try:
            opened = await self._shelf.open(collection)
            standing, reader = opened.standing, opened.reader
            rows = await asyncio.to_thread(reader.get, [chunk_id])
        except (errors.ModelError, errors.StoreError):
            standing = await asyncio.to_thread(self._shelf.standing, collection)
            reader = await asyncio.to_thread(query.open_reader, standing)
            rows = await asyncio.to_thread(reader.get, [chunk_id])
        return standing, next(iter(rows.to_pylist()), None)

    async def _drawn(self, found: Passage, wanted: Wanted) -> Drawn:
        try:
            picture: Picture | None = await asyncio.wait_for(self._pictures.get(found.origin, wanted), PATIENCE_S)
        except TimeoutError:
            return Drawn(page=wanted.page, marked=bool(wanted.marked))
        except (errors.DocumentError, errors.WorkerError, errors.TransientFault) as error:
            kind = error.kind if isinstance(error, (errors.DocumentError, errors.WorkerError)) else "busy"
            return Drawn(page=wanted.page, marked=bool(wanted.marked), fault=kind)
        return Drawn(page=wanted.page, marked=bool(wanted.marked), picture=picture)


def _nothing() -> errors.NoIndex:
    return errors.NoIndex("There is no such passage, or its file is not what was indexed.")


def _text(standing: query.Standing, row: Mapping[str, Any]) -> Text | None:
    """The document; None where it is not there, or is not what the passage was cut from."""
    number = standing.note.snapshot
    text = texts.of(standing.collection.root, number).texts([row["doc_id"]]).get(row["doc_id"])
    return text if text is not None and text.text[row["start"] : row["end"]] == row["text"] else None


def _can_be_drawn(found: Passage) -> bool:
    return bool(found.row["media_type"] == PDF and found.row["page"] is not None and found.origin.fate == "same")


def _wanted(found: Passage, parameters: Mapping[str, str]) -> Wanted:
    row = found.row
    page = _number(parameters, "page") or row["page"] or 1
    if found.text is None:
        return Wanted(page=page, marked=row["text"] if page == row["page"] else "")
    before, marked, after = on_page(found.text, page, row["start"], row["end"], PAGE_CHARS)
    return Wanted(page=page, before=before, marked=marked, after=after)


def _number(parameters: Mapping[str, str], name: str) -> int | None:
    given = parameters.get(name, "")
    return int(given) if _NUMBER.fullmatch(given) else None


def _path_shown(found: Passage, request: Request, shelf: Shelf) -> str:
    """Where the file lies, for who sits at this machine alone; "" for anybody else."""
    settings = shelf.settings
    remote = (
        settings.serve.host not in _LOOPBACK
        or bool(settings.serve.keys or settings.clients)
        or request.client is None
        or request.client.host not in _LOOPBACK
        or any(name in request.headers for name in _PROXIED)
    )
    return "" if remote or found.origin.path is None else os.fsdecode(found.origin.path)


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The file's bytes, as many as were promised at most."""
    with file:
        left = size
        while left > 0 and (block := file.read(min(left, _BLOCK))):
            left -= len(block)
            yield block
