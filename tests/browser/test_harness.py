"""What the browser tests rest on: which browser is taken, and that nothing goes wrong on a page unseen."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import accessibility, chromium
from tests.browser.watched import watching

if TYPE_CHECKING:
    from playwright.sync_api import Browser

ELSEWHERE = "http://elsewhere.example/x.png"
POLICY = "default-src 'self'; connect-src *; script-src 'self' 'unsafe-inline'"
PAGES = {
    "/quiet": "<!doctype html><html lang=en><title>t</title><main><h1>Quiet</h1></main>",
    "/throws": "<script>throw new Error('broken')</script>",
    "/says": "<script>console.error('said')</script>",
    "/asks": "<script>alert('asked')</script>",
    "/loads": f"<script>fetch('{ELSEWHERE}').catch(() => 0)</script>",
    "/refused": "<style>p { color: red }</style><p>Text",
    "/missing": "<script src='/broken.js'></script>",
    "/mute": "<!doctype html><title>t</title><main><h1>Mute</h1><button></button></main>",
}


def program(folder: Path, name: str) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)
    return folder / name


# --- which browser


def test_the_browser_of_the_path_is_taken(tmp_path: Path) -> None:
    chrome = program(tmp_path, "google-chrome")
    assert chromium.find({"PATH": str(tmp_path)}, ()) == chrome
    assert chromium.find({"PATH": f"/nowhere:{tmp_path}"}, ()) == chrome
    better = program(tmp_path, "chromium")
    assert chromium.find({"PATH": str(tmp_path)}, ()) == better


def test_a_browser_in_an_application_folder_is_taken_where_the_path_has_none(tmp_path: Path) -> None:
    app = program(tmp_path, "Google Chrome.app/Contents/MacOS/Google Chrome")
    assert chromium.find({"PATH": ""}, (Path("/nowhere"), tmp_path)) == app


def test_a_variable_decides(tmp_path: Path) -> None:
    chosen = program(tmp_path, "my-browser")
    assert chromium.find({"PATH": "", "PIPELINE_CHROMIUM": str(chosen)}, ()) == chosen
    with pytest.raises(ValueError, match=r"PIPELINE_CHROMIUM names no program: .*/none"):
        chromium.find({"PATH": str(tmp_path), "PIPELINE_CHROMIUM": str(tmp_path / "none")}, ())


@pytest.mark.parametrize(
    ("environment", "why"),
    [({"PATH": ""}, "no Chromium on this machine"), ({"PIPELINE_CHROMIUM": ""}, "no browser is wanted")],
)
def test_without_a_browser_it_is_said_why(environment: dict[str, str], why: str) -> None:
    with pytest.raises(chromium.NoBrowser, match=why) as none:
        chromium.find(environment, ())
    assert "\n" not in str(none.value)


# --- what is seen on a page


class Pages(http.server.BaseHTTPRequestHandler):
    """PAGES, with a policy for "/refused"; anything else is an error of the server."""

    def do_GET(self) -> None:
        if self.path == "/favicon.ico":
            self.send_response(204)
            self.end_headers()
            return
        body = PAGES.get(self.path, "").encode()
        self.send_response(200 if body else 500)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: stderr belongs to the tests."""


@pytest.fixture(scope="module")
def origin(found_program: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture(scope="module")
def bare(origin: str) -> Iterator[Browser]:
    try:
        with chromium.started() as running:
            yield running
    except chromium.NoBrowser as none:
        pytest.skip(str(none))


def test_a_quiet_page_passes(bare: Browser, origin: str) -> None:
    with watching(bare, origin) as watched:
        accessibility.check(watched.open("/quiet"), "quiet")
    assert watched.problems == []


def test_what_goes_wrong_fails_a_test_that_did_not_expect_it(bare: Browser, origin: str) -> None:
    wrong = {
        "/throws": "exception: broken",
        "/says": "console error: said",
        "/asks": "dialog: asked",
        "/loads": f"request to another host: {ELSEWHERE}",
        "/refused": "refused by the policy: style-src-elem inline",
        "/missing": "answered 500: ",
    }
    with watching(bare, origin) as watched:
        for path in wrong:
            watched.open(path)
        with pytest.raises(AssertionError) as failed:
            watched.check()
        assert [seen for seen in wrong.values() if seen not in str(failed.value)] == []
        watched.expect("broken", "said", "asked", ELSEWHERE, "refused by", "inline style", "500", "ERR_FAILED")


def test_what_is_expected_must_happen(bare: Browser, origin: str) -> None:
    with watching(bare, origin) as watched:
        watched.open("/quiet")
        watched.expect("broken")
        with pytest.raises(AssertionError, match="did not happen: broken"):
            watched.check()
        watched.open("/throws")


def test_what_people_cannot_use_is_reported(bare: Browser, origin: str) -> None:
    with watching(bare, origin) as watched:
        found = accessibility.report(watched.open("/mute"))
    assert {line.split(":")[0] for line in found} == {"critical button-name", "serious html-has-lang"}
