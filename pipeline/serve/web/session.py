"""Who is let in with a browser: a key is typed once, and a random token in a cookie stands for it from then on.

The cookie opens the page's own addresses and no other: /v1, /retrieval, /mcp, /metrics ask for the key itself. It is
HttpOnly (no script reads it) and SameSite=Strict (no other site's page sends it). The server keeps the token's hash, in
memory alone: a restart signs everybody out, and so a key that was taken out of the settings opens nothing.

Knows headers and keys; nothing of what is shown.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

from pipeline.serve.keys import Client, Keys

IDLE_S = 12 * 3600.0  # after which a session that nobody uses ends
MOST = 10_000  # sessions; the one unused for longest goes
MARK = "pipeline.session"  # in a request's scope: the token that let it in

Scope = Any  # of ASGI: a dictionary of the server's making

_PAGES = re.compile(r"/(?:|ask|logout|map|(?:sources|passages|reports|map)/.*)", re.DOTALL)
_PROGRAMS = re.compile(r"/(?:v1/.*|/?retrieval|mcp.*|metrics|healthz|readyz|openapi\.json)", re.DOTALL)
_OPEN = re.compile(r"/(?:login|static/[^/]*)")


def is_page(path: str) -> bool:
    """Whether a session opens this address."""
    return _PAGES.fullmatch(path) is not None


def is_for_programs(path: str) -> bool:
    """Whether who asks for this address reads JSON or text, whatever it accepts."""
    return _PROGRAMS.fullmatch(path) is not None


def is_open(path: str) -> bool:
    """Whether this address of the page needs no key: it tells nothing of the collections."""
    return _OPEN.fullmatch(path) is not None


def header(scope: Scope, name: bytes) -> str:
    """The value of a request's header; "" where it is not there, or more than once."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def wants_html(scope: Scope) -> bool:
    """A browser that goes to an address says so; programs ask for anything, or for JSON."""
    return "text/html" in header(scope, b"accept").lower()


def is_foreign(scope: Scope, *, strict: bool = False) -> bool:
    """Whether a page of another site (or of another server on this machine) made the browser send this request.

    Sec-Fetch-Site says it, where the browser trusts the address (https, this machine). Elsewhere Origin does; under our
    Referrer-Policy a form's is "null", which is nobody's: `strict` refuses that too, for what a script of ours sends.
    A program that is no browser sends neither, and has no cookie that it was not given.
    """
    site = header(scope, b"sec-fetch-site")
    if site:
        return site not in ("same-origin", "none")
    origin = header(scope, b"origin")
    if origin == "null":
        return strict
    return bool(origin) and origin.lower() != f"{scope['scheme']}://{header(scope, b'host')}".lower()


def login_address(scope: Scope) -> str:
    """Where to sign in, and to come back from."""
    query = scope["query_string"].decode("latin-1")
    here = scope["path"] + (f"?{query}" if query else "")
    return f"/login?next={quote(here, safe='/')}"


def inside(address: str) -> str:
    """`address` if it leads to a page of this server, else "/": what a link says must lead nowhere else.

    "//host" and "/\\host" are other servers to a browser, and it takes tabs and line breaks out before it looks.
    """
    safe = re.fullmatch(r"/(?![/\\])[^\\\x00-\x20\x7f]*", address) is not None
    return address if safe and is_page(address.partition("?")[0]) else "/"


class Sessions:
    """Those who are signed in, at most `most`. `clock`: seconds, which only grow."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic, most: int = MOST) -> None:
        self.keys = keys
        self._most = most
        self._clock = clock
        self._known: dict[str, tuple[Client, float]] = {}  # by the token's hash; the longest unused first
        self._lock = threading.Lock()

    @property
    def required(self) -> bool:
        return self.keys.required

    def begin(self, key: str) -> str | None:
        """A token for the client of this key; None where it is none of the server's."""
        client = self.keys.admit(key.strip())
        if client is None:
            return None
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._known[_hash(token)] = (client, self._clock())
            while len(self._known) > self._most:
                self._known.pop(next(iter(self._known)))
        return token

    def client(self, token: str) -> Client | None:
        """Whose session this is, which counts as a use of it."""
        name, now = _hash(token), self._clock()
        with self._lock:
            client, used = self._known.pop(name, (None, 0.0))
            if client is None or now - used > IDLE_S:
                return None
            self._known[name] = (client, now)
            return client

    def end(self, token: str) -> None:
        with self._lock:
            self._known.pop(_hash(token), None)

    def of(self, scope: Scope) -> tuple[Client, str] | None:
        """Client and token of the session that a request's cookie names."""
        token = _cookie(scope)
        client = self.client(token) if token else None
        return None if client is None else (client, token)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def cookie_name(scope: Scope) -> str:
    """Two servers on a machine share their cookies, which know no port: so each has a name of its own."""
    server = scope.get("server") or ("", 0)
    return f"pipeline-{server[1]}"


def _cookie(scope: Scope) -> str:
    try:
        found = SimpleCookie(header(scope, b"cookie")).get(cookie_name(scope))
    except CookieError:
        return ""
    return found.value if found is not None else ""


def cookie(scope: Scope, token: str) -> str:
    """The Set-Cookie header that begins a session; with "" as token, the one that ends it."""
    secure = "; Secure" if scope["scheme"] == "https" else ""
    age = "" if token else "; Max-Age=0"
    return f"{cookie_name(scope)}={token}; Path=/; HttpOnly; SameSite=Strict{secure}{age}"
