"""The page where keys are asked for: signing in and out, what a session opens, and what it never does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from pipeline import config
from pipeline.serve import app, guard, keys
from pipeline.serve.web import session
from tests import served
from tests.served import Served
from tests.web_page import HTML, Page

KEY, WIKI = "pipe-everything", "pipe-wiki-only"
PAGES = [
    "/",
    "/?q=leave",
    "/?view=ask&q=leave&whole=1",
    "/?view=trial&q=leave",
    "/sources/default/x",
    "/reports/default/x",
]


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Collections "default" and "wiki"; one key for all, one for "wiki" alone, which may ask 40 times a minute."""
    home = tmp_path_factory.mktemp("session")
    base = served.settings(home / "data", keys=(keys.digest(KEY),))
    docs = served.write(home / "docs")
    served.build(base, docs)
    served.build(base, docs, "wiki")
    wiki = config.ClientSettings(key=keys.digest(WIKI), collections=("wiki",), rate=40)
    with Served(msgspec.structs.replace(base, clients={"wiki": wiki})) as running:
        yield running


@pytest.fixture
def browser(locked: Served) -> Iterator[httpx.Client]:
    """A browser that is not signed in."""
    with httpx.Client(base_url=locked.url, headers=HTML, timeout=30.0, trust_env=False, verify=False) as client:
        yield client


def sign_in(client: httpx.Client, key: str, next_: str = "/", **headers: str) -> httpx.Response:
    return client.post("/login", data={"key": key, "next": next_}, headers=headers)


@pytest.mark.parametrize("address", PAGES)
def test_without_a_session_every_page_leads_to_the_login_and_back(browser: httpx.Client, address: str) -> None:
    reply = browser.get(address)
    assert reply.status_code == 303
    assert reply.headers["cache-control"] == "no-store"
    page = Page(browser.get(reply.headers["location"]))
    assert page.texts("//h1") == ["Sign in"]
    assert page.root.xpath("//input[@name='next']/@value") == [address]
    assert "leave" not in page.text("//main")
    entered = sign_in(browser, KEY, address)
    assert (entered.status_code, entered.headers["location"]) == (303, address)


@pytest.mark.parametrize(
    "path", ["/ask", "/sources/default/x/page.png", "/map/data/default", "/reports/default/x", "/logout"]
)
def test_what_is_no_page_to_go_to_is_refused(locked: Served, path: str) -> None:
    for method in ("GET", "POST"):
        reply = locked.client.request(method, path)
        assert reply.status_code == 401, (method, path)
        assert "error" in reply.json()


def paths_of(routes: Iterable[Any]) -> Iterator[str]:
    """The paths of all routes, those of included routers too, which newer versions of FastAPI keep as routers."""
    for route in routes:
        if hasattr(route, "path"):
            yield route.path
        else:
            yield from paths_of(route.original_router.routes)


def test_no_route_answers_without_a_key_but_those_that_tell_nothing(locked: Served, tmp_path: Path) -> None:
    """Whatever route there is: nobody need remember to name it here."""
    guarded: Any = app.create(served.settings(tmp_path), guard.Door(keys=keys.Keys([])))
    routes = set(paths_of(guarded._app.routes))
    assert len(routes) > 15
    for path in sorted(routes - {"/", "/healthz", "/readyz", "/login", "/static/{name}"}):
        for method in ("GET", "POST", "HEAD", "PUT"):
            for headers in ({}, HTML):
                reply = locked.client.request(
                    method, locked.url + re.sub(r"\{[^}]*\}", "default", path), headers=headers
                )
                assert reply.status_code in (303, 401, 403), (method, path)
                assert reply.status_code != 303 or reply.headers["location"].startswith("/login?next=")


def test_the_key_itself_opens_the_page_too(locked: Served) -> None:
    headers = {**HTML, "Authorization": f"Bearer {KEY}"}
    assert locked.client.get("/?q=leave", headers=headers).status_code == 200
    wrong = locked.client.get("/?q=leave", headers={**HTML, "Authorization": "Bearer wrong"})
    assert wrong.status_code == 401


def test_the_cookie_tells_nothing_and_is_for_no_script_and_no_other_site(browser: httpx.Client) -> None:
    cookie = sign_in(browser, KEY).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie  # over plain HTTP a browser would drop it
    assert KEY not in cookie
    assert keys.digest(KEY) not in cookie
    (name, token) = cookie.partition(";")[0].split("=")
    assert name == f"pipeline-{browser.base_url.port}"
    assert len(token) >= 43


@pytest.mark.parametrize("key", ["", "wrong", KEY[:-1], keys.digest(KEY), "x" * 2000, "\udcff", "<b>"])
def test_a_wrong_key_is_told_and_begins_nothing(browser: httpx.Client, key: str) -> None:
    content = f"key={key.encode('utf-8', 'surrogateescape').hex('%')}" if key == "\udcff" else None
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = browser.post("/login", content=content, headers=kind) if content else sign_in(browser, key)
    assert reply.status_code == 401
    assert "set-cookie" not in reply.headers
    page = Page(reply)
    assert page.text("//*[@role='alert']") == "This key is not one of the server's."
    assert page.root.xpath("//input[@name='key']/@value") == []


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/",
        "/\t/evil.example",
        "\\\\evil",
        "/v1/models",
        "evil",
        "",
    ],
)
def test_signing_in_leads_nowhere_else(browser: httpx.Client, wanted: str) -> None:
    assert sign_in(browser, KEY, wanted).headers["location"] == "/"
    assert browser.get("/login", params={"next": wanted}).headers["location"] == "/"
    assert session.inside(wanted) == "/"


def test_addresses_inside_are_kept() -> None:
    for address in ("/", "/?q=a&lang=zh", "/sources/default/ab12?lang=zh", "/map", "/map?collection=x", "/?q=//x"):
        assert session.inside(address) == address


def test_a_session_opens_the_page_and_no_other_interface(browser: httpx.Client) -> None:
    sign_in(browser, KEY)
    assert browser.get("/?q=annual+leave").status_code == 200
    for method, path in (
        ("GET", "/v1/models"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/mcp"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
    ):
        assert browser.request(method, path).status_code == 401, path
    assert browser.post("/retrieval").status_code == 403


def test_signing_out_ends_the_session_on_the_server(browser: httpx.Client) -> None:
    sign_in(browser, KEY)
    cookies = dict(browser.cookies)
    page = Page(browser.get("/"))
    assert page.root.xpath("//form[@action='/logout']/@method") == ["post"]
    reply = browser.post("/logout")
    assert (reply.status_code, reply.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in reply.headers["set-cookie"]
    assert browser.get("/").status_code == 303
    browser.cookies.update(cookies)
    assert browser.get("/").status_code == 303


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "OWN"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, 200),
        ({"Origin": "OWN"}, 200),
        ({}, 200),
    ],
)
def test_another_sites_page_can_set_nothing_to_work(
    browser: httpx.Client, headers: dict[str, str], status: int
) -> None:
    sign_in(browser, KEY)
    own = {name: str(browser.base_url).rstrip("/") if value == "OWN" else value for name, value in headers.items()}
    assert browser.post("/ask", data={"q": "leave"}, headers=own).status_code == status
    assert sign_in(browser, KEY, **own).status_code == (303 if status == 200 else status)
    assert browser.post("/logout", headers=own).status_code == (303 if status == 200 else status)


def test_an_unknown_origin_may_sign_in_but_not_ask(browser: httpx.Client) -> None:
    """Under `Referrer-Policy: no-referrer` a browser sends a form's origin as "null", to plain HTTP without more."""
    assert sign_in(browser, KEY, Origin="null").status_code == 303
    assert browser.post("/ask", data={"q": "leave"}, headers={"Origin": "null"}).status_code == 403


def test_a_client_sees_its_own_collections_alone(browser: httpx.Client) -> None:
    sign_in(browser, WIKI)
    page = Page(browser.get("/?q=annual+leave"))
    assert page.links("//article//h2/a")[0].startswith("/sources/wiki/")
    assert page.texts("//span[@class='only']") == ["wiki"]
    assert "default" not in page.reply.text
    for address in ("/?collection=default&q=leave", "/?collection=default&view=ask&q=leave&whole=1"):
        refused = Page(browser.get(address))
        assert refused.reply.status_code == 404
        assert refused.text("//footer") == "Nothing is indexed here yet."
        assert refused.root.xpath("//article") == []
    events = browser.post("/ask?collection=default", data={"q": "leave"}).text
    assert "no_passage" not in events
    assert "There is no such collection" in events
    other = Page(browser.get("/?collection=nowhere&q=leave"))
    assert other.text("//main") == Page(browser.get("/?collection=default&q=leave")).text("//main")


@pytest.mark.parametrize(
    "address", ["/sources/{}/{}", "/sources/{}/{}/page.png", "/reports/{}/{}", "/map?collection={}", "/map/data/{}"]
)
def test_what_is_anothers_is_as_if_it_were_not_there(browser: httpx.Client, locked: Served, address: str) -> None:
    """The same answer for a collection that is not the client's and for one that there is none of."""
    chunk = locked.client.post(
        "/retrieval",
        json={"knowledge_id": "default", "query": "annual leave"},
        headers={"Authorization": f"Bearer {KEY}"},
    ).json()["records"][0]["metadata"]["chunk_id"]
    sign_in(browser, WIKI)
    others, nowhere = (browser.get(address.format(name, chunk)) for name in ("default", "nowhere"))
    assert others.status_code == nowhere.status_code
    assert others.text.replace("default", "nowhere") == nowhere.text
    assert "leave.md" not in others.text


def test_a_sessions_rate_is_its_keys(tmp_path: Path) -> None:
    given = served.settings(tmp_path)
    slow = config.ClientSettings(key=keys.digest(WIKI), rate=2)
    with (
        Served(msgspec.structs.replace(given, clients={"slow": slow})) as running,
        httpx.Client(base_url=running.url, headers=HTML, trust_env=False) as client,
    ):
        sign_in(client, WIKI)
        replies = [client.get("/") for _ in range(3)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert "Too many requests" in Page(replies[2]).text("//main")
        assert int(replies[2].headers["retry-after"]) > 0


def test_without_keys_there_is_nothing_to_sign_in_to(tmp_path: Path) -> None:
    with Served(served.settings(tmp_path)) as running:
        assert running.client.get("/login", params={"next": "/map"}).headers["location"] == "/map"
        assert running.client.get("/", headers=HTML).status_code == 200
        assert running.client.post("/login", data={"key": KEY}).status_code == 401


# -- sessions themselves


class Clock:
    """Seconds that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def sessions(clock: Clock, most: int = session.MOST) -> session.Sessions:
    return session.Sessions(keys.Keys([keys.Client(name="a", digest=keys.digest(KEY))]), clock, most)


def test_a_session_ends_when_nobody_uses_it() -> None:
    clock = Clock()
    known = sessions(clock)
    token = known.begin(f" {KEY}\n")
    assert token is not None
    for _ in range(3):
        clock.now += session.IDLE_S
        assert known.client(token) is not None
    clock.now += session.IDLE_S + 1
    assert known.client(token) is None
    clock.now -= session.IDLE_S
    assert known.client(token) is None


def test_there_are_so_many_sessions_and_the_unused_ones_go() -> None:
    known = sessions(Clock(), most=3)
    tokens = [known.begin(KEY) for _ in range(3)]
    assert known.client(str(tokens[0])) is not None
    known.begin(KEY)
    assert [known.client(str(token)) is not None for token in tokens] == [True, False, True]


@pytest.mark.parametrize(
    "cookie", ["", "=", "pipeline-80=", "pipeline-80=wrong", "pipeline-80=\xff", ";;;", "a" * 5000]
)
def test_a_cookie_that_is_none_opens_nothing(cookie: str) -> None:
    scope: dict[str, Any] = {"headers": [(b"cookie", cookie.encode("latin-1"))], "server": ("127.0.0.1", 80)}
    assert sessions(Clock()).of(scope) is None


def test_over_https_the_cookie_is_for_https_alone() -> None:
    assert "; Secure" in session.cookie({"scheme": "https", "server": ("h", 443)}, "x")
