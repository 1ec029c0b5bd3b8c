"""/reports/{collection}/{name}: the report of a run, as the run wrote it.

A name is compared with those that the store lists; no path is made of it. The page has one style sheet within it: the
policy sent along allows that one by its hash, and nothing else, least of all a script.
"""

from __future__ import annotations

import asyncio
import re

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from pipeline import errors
from pipeline.serve.shelf import Shelf
from pipeline.serve.web.layout import NO_STORE
from pipeline.store import files
from pipeline.store.runs import Runs

_STYLE = re.compile(r"style-src '(sha256-[A-Za-z0-9+/]{43}=)'")  # as report_markup.page writes it, near the beginning
_HEAD = 4_000  # characters


def router(shelf: Shelf) -> APIRouter:
    """The address above."""
    api = APIRouter(include_in_schema=False)

    @api.get("/reports/{collection}/{name}")
    async def report(collection: str, name: str) -> Response:
        standing = await asyncio.to_thread(shelf.standing, collection)  # refuses other clients' collections
        page = await asyncio.to_thread(_read, standing.collection.runs, name.removesuffix(".html"))
        return HTMLResponse(page, headers={"Content-Security-Policy": policy(page), **NO_STORE})

    return api


def _read(runs: Runs, name: str) -> str:
    entry = next((entry for entry in runs.newest() if entry.page.stem == name), None)
    if entry is None or not entry.page.is_file():
        raise errors.NoIndex("There is no such report: the oldest ones are dropped.")
    with files.disk_errors(entry.page):
        return entry.page.read_text(encoding="utf-8")


def policy(page: str) -> str:
    """What a browser may do with a report: show it."""
    found = _STYLE.search(page, 0, _HEAD)
    style = f"'{found[1]}'" if found else "'none'"
    return (
        f"default-src 'none'; style-src {style}; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox"
    )
