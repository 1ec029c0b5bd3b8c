"""The page where something is wrong, in a real browser: nothing indexed, a model server or our own that is gone, a key
that is asked for, addresses that lead nowhere, and documents that attack whoever reads them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from pipeline.serve import keys
from tests import hostile_passages, served
from tests.browser import accessibility
from tests.browser.conftest import World
from tests.browser.watched import Watched, watching
from tests.fake_ollama.client import FakeOllama
from tests.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LEAVE = "How many days of annual leave does an employee get?"
KEY = "a-key-of-the-test"
FOREIGN = "[...document.links].map((link) => link.href).filter((to) => !to.startsWith(location.origin + '/'))"
# What a document's markup would have become.
BROUGHT = (
    "script:not([src]), style, iframe, svg, object, [style], [onerror], [onload], a[href^='javascript' i], img[onerror]"
)


def ask(page: Page, question: str) -> None:
    page.get_by_role("main").get_by_role("textbox").fill(question)
    page.get_by_role("main").get_by_role("textbox").press("Enter")


# --- nothing to find


def test_without_an_index_the_page_says_what_to_type(browser: Browser, tmp_path: Path) -> None:
    with Served(served.settings(tmp_path)) as empty, watching(browser, empty.url) as watched:
        page = watched.open("/?q=snow")
        assert "pipeline run" in page.get_by_role("main").inner_text()
        assert "Nothing is indexed here yet." in page.get_by_role("main").inner_text()
        accessibility.check(page, "nothing indexed")


def test_an_address_that_leads_nowhere_is_a_page_of_ours(watched: Watched) -> None:
    watched.expect("status of 404")
    for path in ("/nowhere", "/?collection=none", "/sources/default/none"):
        page = watched.open(path)
        assert page.get_by_role("link", name="embed-pipeline").count() == 1, path
        accessibility.check(page, path)


# --- a server that is gone


def test_a_model_server_that_is_not_there_is_told_first_with_what_to_type(browser: Browser, world: World) -> None:
    with Served(served.settings(world.data)) as alone, watching(browser, alone.url) as watched:
        page = watched.open("/?view=ask")
        ask(page, LEAVE)
        page.get_by_role("article").first.wait_for()
        page.get_by_text("ollama serve").wait_for()
        told, card = page.locator(".panel", has_text="ollama serve"), page.get_by_role("article").first
        assert told.bounding_box()["y"] < card.bounding_box()["y"]
        assert "complete" not in page.get_by_role("status").inner_text()


def test_an_answer_that_breaks_off_keeps_its_words_and_says_so(browser: Browser, world: World) -> None:
    with FakeOllama(models=["llama3.2"]) as doomed:
        given = served.settings(world.data, ollama=doomed.url)
        doomed.configure(says=["Every employee gets twenty-five days of annual leave a year [1]."])
        doomed.set_fault("chat_stall")
        with Served(given) as service, watching(browser, service.url) as watched:
            page = watched.open("/?view=ask")
            ask(page, LEAVE)
            page.locator(".answer", has_text="Every employee").wait_for()
            doomed.kill()
            page.get_by_role("alert").wait_for()
            assert page.locator(".answer", has_text="Every employee").is_visible()


def test_our_server_gone_is_told_and_what_was_found_stays(browser: Browser, world: World) -> None:
    with Served(world.settings) as gone, watching(browser, gone.url) as watched:
        page = watched.open("/?q=snow")
        found = page.get_by_role("article").all_inner_texts()
        gone.__exit__(None, None, None)
        watched.expect("ERR_CONNECTION_REFUSED")
        page.get_by_role("searchbox").fill("annual leave")
        page.get_by_role("status").filter(has_text="server").wait_for()
        assert found
        assert page.get_by_role("article").all_inner_texts() == found


# --- who may see


def test_a_key_is_asked_for_once(browser: Browser, world: World) -> None:
    hashes = (keys.digest(KEY),)
    given = served.settings(world.data, ollama=world.ollama.url, keys=hashes)
    with Served(given) as locked, watching(browser, locked.url) as watched:
        watched.expect("status of 401|status of 403")
        page = watched.open("/?q=snow")
        assert page.get_by_role("article").count() == 0
        accessibility.check(page, "signing in")
        page.get_by_label("API key").fill("wrong")
        page.get_by_label("API key").press("Enter")
        page.get_by_role("alert").wait_for()
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("article").first.wait_for()
        assert page.get_by_role("searchbox").input_value() == "snow"
        (cookie,) = watched.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert KEY not in cookie["value"]
        page.get_by_role("button", name="Sign out").click()
        page.get_by_label("API key").wait_for()
        assert watched.context.cookies() == []


# --- hostile documents and questions


@pytest.mark.parametrize("view", ["search", "trial"])
def test_a_hostile_document_is_text_wherever_it_is_shown(watched: Watched, view: str) -> None:
    page = watched.open(f"/?collection=hostile&view={view}&top_k=50&q={quote('days of annual leave')}")
    links = page.locator("main a[href^='/sources/hostile/']")
    assert links.count() > 10
    assert page.locator("main").locator(BROUGHT).count() == 0
    assert page.evaluate(FOREIGN) == []
    source = links.first.get_attribute("href")
    assert source is not None
    page.goto(watched.origin + source)
    assert page.locator("main").locator(BROUGHT).count() == 0


def test_a_hostile_answer_is_text_while_it_is_written_and_after(watched: Watched, world: World) -> None:
    attacks = ("html", "html-style", "svg", "javascript-link", "image-that-leaks", "autolink", "reference-link")
    said = "\n\n".join(hostile_passages.ATTACKS[name] for name in attacks)
    world.ollama.configure(says=[f"Thirty days [1]. {said}\n\nThe end."])
    page = watched.open("/?view=ask&collection=hostile")
    ask(page, LEAVE)
    page.get_by_text("The end.").first.wait_for()
    page.locator("[aria-busy=true]").wait_for(state="detached")
    assert page.locator("main").locator(BROUGHT).count() == 0
    assert page.evaluate(FOREIGN) == []


def test_a_hostile_question_is_text(watched: Watched) -> None:
    question = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'"
    page = watched.open(f"/?q={quote(question)}")
    assert page.get_by_role("searchbox").input_value() == question
    page.get_by_role("searchbox").fill(question + " snow")
    page.wait_for_url("**snow*")
    assert page.locator("main").locator(BROUGHT).count() == 0


def test_what_would_be_slipped_into_the_page_is_refused_by_its_policy(watched: Watched) -> None:
    watched.expect(
        "refused by the policy: script-src-elem inline", "refused by the policy: img-src", "violates|leak.png: csp"
    )
    page = watched.open("/?q=snow")
    page.evaluate(
        """() => {
          const script = document.createElement("script"), image = document.createElement("img");
          script.textContent = "window.slipped = true";
          image.src = "http://elsewhere.example/leak.png";
          document.body.append(script, image);
        }"""
    )
    assert page.evaluate("window.slipped") is None
    assert not any("request to another host" in problem for problem in watched.problems)
