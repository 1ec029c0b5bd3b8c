"""The files of static/: style sheets, scripts and the icon, from this server and nowhere else.

An address carries the beginning of the content's hash: a browser keeps the file for a year, and asks for another the
day this program is updated.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


def names() -> list[str]:
    """Of the files that are served."""
    return sorted(path.name for path in FOLDER.iterdir() if path.suffix in TYPES)


@functools.lru_cache(maxsize=64)
def _read(name: str, mtime_ns: int) -> tuple[bytes, str]:
    """The content, and the beginning of its hash; kept while the file is the same."""
    content = (FOLDER / name).read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


def read(name: str) -> tuple[bytes, str]:
    """A file of `names()`, and its version."""
    return _read(name, (FOLDER / name).stat().st_mtime_ns)


def address(name: str) -> str:
    """Where a page finds the file."""
    return f"/static/{name}?v={read(name)[1]}"


def router() -> APIRouter:
    api = APIRouter(include_in_schema=False)

    @api.get("/static/{name}")
    def static(name: str, request: Request, v: str = "") -> Response:
        if name not in names():  # the names themselves are compared: no path is made of what was sent
            raise HTTPException(404, "There is no such file.")
        content, version = read(name)
        kept = "public, max-age=31536000, immutable" if v == version else "no-cache"
        headers = {"Cache-Control": kept, "ETag": f'"{version}"'}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=TYPES[Path(name).suffix], headers=headers)

    return api
