"""The page as its user meets it, in a real browser: search, answers, sources, the keyboard, small screens, the dark,
Chinese, no script, and axe-core's opinion of every view.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from pipeline import chart
from pipeline.progress import Silent
from tests.browser import accessibility
from tests.browser.conftest import World
from tests.browser.watched import Watched, watching
from tests.served import Served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

LEAVE = "How many days of annual leave does an employee get?"
GAUGE = "Which battery does the rain gauge need?"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
SMALLEST = 24  # CSS pixels of what is to be hit by a finger: WCAG 2.2, 2.5.8
VIEWS = ("search", "ask", "trial")
_ACTIVE = "document.activeElement"


def hits(page: Page) -> Locator:
    return page.get_by_role("article")


def ask(page: Page, question: str) -> None:
    box = page.get_by_role("main").get_by_role("textbox").first
    box.fill(question)
    box.press("Enter")


def settled(page: Page) -> None:
    """Wait for what is under way. (Playwright's wait_for_function needs eval, which our policy forbids.)"""
    page.locator("[aria-busy=true]").wait_for(state="detached")


def address(view: str, question: str = "", **more: str) -> str:
    return f"/?view={view}" + "".join(
        f"&{name}={quote(value)}" for name, value in {"q": question, **more}.items() if value
    )


# --- search


def test_results_come_while_one_types_and_the_address_keeps_them(watched: Watched) -> None:
    page = watched.open()
    page.get_by_role("searchbox").press_sequentially("tarred roof", delay=20)
    hits(page).filter(has_text="tarred").first.wait_for()
    page.wait_for_url("**q=tarred*roof*")
    found = hits(page).all_inner_texts()
    page.reload()
    assert page.get_by_role("searchbox").input_value() == "tarred roof"
    assert hits(page).all_inner_texts() == found


def test_back_leads_to_the_question_before(watched: Watched) -> None:
    page = watched.open("/?q=snow")
    before = hits(page).all_inner_texts()
    page.get_by_role("searchbox").fill("annual leave")
    page.get_by_role("searchbox").press("Enter")
    hits(page).filter(has_text="twenty-five").first.wait_for()
    page.wait_for_url("**q=annual*")
    page.evaluate("document.body.id = 'before'")
    page.go_back()
    page.locator("body:not(#before) [type=search][value=snow]").wait_for()
    assert hits(page).all_inner_texts() == before


def test_a_filter_narrows_and_is_kept_in_the_address(watched: Watched) -> None:
    page = watched.open("/?q=roof of the hut")
    assert hits(page).count() > 2
    page.locator("details.options > summary").click()
    page.get_by_label("Folder or file").fill("minutes/2026*")
    page.get_by_label("Folder or file").press("Enter")
    page.wait_for_url("**path=minutes*")
    page.get_by_text("Only").first.wait_for()
    paths = {text.split(" · ")[0] for text in page.locator("article .path").all_inner_texts()}
    assert paths == {"minutes/2026-03-01.md"}
    page.reload()
    assert page.locator("article").count() == 1


# --- answers


def test_an_answer_is_written_as_it_comes_and_its_marks_lead_to_the_cards(watched: Watched) -> None:
    page = watched.open(address("ask"))
    ask(page, LEAVE)
    mark = page.locator(".answer a", has_text="1").first
    mark.wait_for()
    settled(page)
    assert "twenty-five days of annual leave" in page.locator(".answer").inner_text()
    mark.click()
    assert page.evaluate(f"{_ACTIVE}.tagName") == "ARTICLE"
    card = page.locator("article:focus")
    assert "leave.md" in card.inner_text()
    assert card.evaluate("(card) => getComputedStyle(card).boxShadow") != "none"
    page.keyboard.press("Escape")
    assert page.evaluate(f"{_ACTIVE}.className") == "cite"
    assert page.title().startswith(LEAVE)


def test_the_beginning_of_an_answer_is_there_before_its_end_and_it_can_be_stopped(
    watched: Watched, world: World
) -> None:
    world.ollama.configure(says=["Every employee gets twenty-five days of annual leave a year [1]."])
    world.ollama.set_fault("chat_stall")
    page = watched.open(address("ask"))
    ask(page, LEAVE)
    page.locator(".answer", has_text="Every employee").wait_for()
    assert page.locator("[aria-busy=true]").count() == 1
    assert "a year" not in page.locator(".answer").inner_text()
    page.get_by_role("button", name="Stop").click()
    settled(page)
    assert page.locator(".answer", has_text="Every employee").is_visible()
    assert page.get_by_role("button", name="Stop").count() == 0
    world.ollama.clear_faults()
    ask(page, LEAVE)
    page.locator(".answer", has_text="a year").wait_for()


def test_what_is_not_in_the_documents_is_said_plainly(watched: Watched, world: World) -> None:
    world.ollama.configure(says=["NO ANSWER"])
    page = watched.open(address("ask"))
    ask(page, "Who won the chess championship of 1972?")
    page.get_by_role("heading", name="Not in your documents.").wait_for()


# --- sources


def colours(picture: Locator) -> np.ndarray:
    """Of an element on the screen: (height, width, 3)."""
    with Image.open(io.BytesIO(picture.screenshot())) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def test_a_card_leads_to_the_page_of_the_pdf_with_the_passage_marked(watched: Watched) -> None:
    page = watched.open(address("search", GAUGE, path="manual.pdf"))
    hits(page).first.get_by_role("link").first.click()
    page.wait_for_url("**/sources/default/*")
    for shown in (page.get_by_role("heading", level=1), page.locator("main mark").first):
        place = shown.bounding_box()
        assert place is not None
        assert 0 <= place["y"] < 900, "what was looked for is out of sight"
    picture = page.locator("main img").first
    assert picture.evaluate("(image) => image.decode().then(() => image.naturalWidth)") > 500
    found = colours(picture)
    yellow = (found[..., 0] > 230) & (found[..., 1] > 200) & (found[..., 2] < 160)
    assert 0.005 < yellow.mean() < 0.6
    assert (found.min(axis=2) > 240).mean() > 0.2  # the rest of the page is white paper
    page.go_back()
    assert page.get_by_role("searchbox").input_value() == GAUGE


# --- the map


@pytest.fixture(scope="module")
def drawn(world: World) -> World:
    chart.make(world.settings, Silent())
    return world


def test_a_map_that_was_not_drawn_says_what_to_type(watched: Watched) -> None:
    page = watched.open("/map?collection=hostile")
    assert "pipeline map --collection hostile" in page.get_by_role("main").inner_text()


def a_point(picture: np.ndarray) -> dict[str, float]:
    """Where a dot of the map lies, well inside of it: most colourful of all that have the same colour around."""
    colour = picture.max(axis=2) - picture.min(axis=2)
    inner = np.minimum.reduce(
        [colour[2:-2, 2:-2], colour[:-4, 2:-2], colour[4:, 2:-2], colour[2:-2, :-4], colour[2:-2, 4:]]
    )
    row, column = np.unravel_index(inner.argmax(), inner.shape)
    assert inner[row, column] > 60, "there is no point to be seen"
    return {"x": float(column) + 2, "y": float(row) + 2}


def test_a_point_of_the_map_tells_its_text_and_leads_to_its_source(watched: Watched, drawn: World) -> None:
    page = watched.open("/map")
    canvas = page.locator("canvas")
    page.locator(".map-legend button").first.wait_for()
    at = a_point(colours(canvas))
    canvas.hover(position=at)
    page.locator(".map-text").wait_for()
    assert len(page.locator(".map-text").inner_text()) > 20
    canvas.click(position=at)
    page.wait_for_url("**/sources/default/*")


def test_the_map_can_be_read_without_seeing_it(watched: Watched, drawn: World) -> None:
    page = watched.open("/map")
    page.locator("canvas").focus()
    page.keyboard.press("+")
    group = page.locator("details", has=page.locator("a[href^='/sources/default/']")).first
    group.locator("summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/sources/default/*")


# --- the keyboard alone


def test_the_keyboard_alone_searches_looks_and_opens(watched: Watched) -> None:
    page = watched.open("/?q=snow")
    page.keyboard.press("/")
    assert page.evaluate(f"{_ACTIVE}.name") == "q"
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.evaluate(f"{_ACTIVE}.closest('article').id") == "hit-1"
    page.keyboard.press("j")
    assert page.evaluate(f"{_ACTIVE}.closest('article').id") == "hit-2"
    page.keyboard.press("k")
    assert page.evaluate(f"{_ACTIVE}.closest('article').id") == "hit-1"
    page.keyboard.press("Enter")
    page.wait_for_url("**/sources/default/*")


def test_the_keyboard_alone_chooses_another_collection_and_keeps_the_question(watched: Watched) -> None:
    page = watched.open("/?q=snow")
    page.locator(".menu summary").focus()
    page.keyboard.press("Enter")
    page.get_by_role("link", name="hostile").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**collection=hostile*")
    assert page.get_by_role("searchbox").input_value() == "snow"
    assert page.locator(".menu summary").inner_text().endswith("hostile")


def test_a_letter_typed_into_the_box_is_a_letter(watched: Watched) -> None:
    page = watched.open("/?q=snow")
    page.get_by_role("searchbox").fill("")
    page.get_by_role("searchbox").press_sequentially("j/k")
    assert page.get_by_role("searchbox").input_value() == "j/k"


def test_tab_goes_through_everything_in_order_and_shows_where_it_is(watched: Watched) -> None:
    page = watched.open("/?q=snow")
    page.evaluate(f"{_ACTIVE}.blur()")
    seen: list[str] = []
    for _ in range(14):
        page.keyboard.press("Tab")
        shown = page.evaluate(
            f"""[{_ACTIVE}.className || {_ACTIVE}.id || {_ACTIVE}.dataset.tab || {_ACTIVE}.tagName,
                 getComputedStyle({_ACTIVE}).outlineStyle !== 'none']"""
        )
        assert shown[1], f"{shown[0]} does not show that it has the focus"
        seen.append(shown[0])
    assert seen[:6] == ["skip", "brand", "search", "ask", "trial", "map"]
    assert seen.index("q") < seen.index("go") < seen.index("open")


# --- small, dark, Chinese, without a script


# What is to be tapped; links within a text may be as small as it is.
TAPPED = ", ".join(
    f"{kind}:not(:is(.answer, p, dd, td, .snippet) *, .skip, [type=hidden])"
    for kind in ("a", "button", "input", "select", "summary", "textarea")
)


def too_small(page: Page) -> list[str]:
    """What is to be tapped and is smaller than it should be."""
    found: list[str] = page.locator(TAPPED).evaluate_all(
        """(parts, smallest) => parts.filter((part) => part.checkVisibility())
          .map((part) => [(part.closest("label") || part).getBoundingClientRect(), part.outerHTML.slice(0, 120)])
          .filter(([box]) => Math.min(box.width, box.height) < smallest)
          .map(([box, html]) => `${box.width} x ${box.height}: ${html}`)""",
        SMALLEST,
    )
    return found


def fits(page: Page, name: str) -> None:
    """Nothing is wider than the screen, and all can be tapped, on a usual phone and on the smallest."""
    for width in (390, 320):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert too_small(page) == [], name


def test_on_a_phone_nothing_is_wider_than_it_and_all_can_be_tapped(
    browser: Browser, service: Served, drawn: World
) -> None:
    with watching(browser, service.url, **PHONE) as watched:
        for view in VIEWS:
            fits(watched.open(address(view, "battery of the rain gauge")), view)
        page = watched.open(address("search", GAUGE, path="manual.pdf"))
        hits(page).first.get_by_role("link").first.tap()
        page.wait_for_url("**/sources/default/*")
        fits(page, "source")
        page = watched.open("/map")
        page.locator(".map-legend button").first.wait_for()
        fits(page, "map")


def luminance(colour: str) -> float:
    """Of "rgb(r, g, b)", from 0 to 1, near enough to tell dark from light."""
    return sum(int(part) for part in colour.removeprefix("rgb(").rstrip(")").split(",")[:3]) / 765


def test_the_dark_is_dark(browser: Browser, service: Served) -> None:
    with watching(browser, service.url, color_scheme="dark") as watched:
        page = watched.open("/?q=snow")
        style = "(part) => { const style = getComputedStyle(part); return [style.backgroundColor, style.color]; }"
        for where in ("body", "article", "header", "[type=search]"):
            ground, text = page.locator(where).first.evaluate(style)
            if where != "body" or ground != "rgba(0, 0, 0, 0)":
                assert luminance(ground) < 0.25, where
            assert luminance(text) > 0.6, where


def test_chinese(watched: Watched) -> None:
    page = watched.open(address("search", "年假有多少天"))
    page.get_by_role("link", name="中文").click()
    page.wait_for_url("**lang=zh*")
    assert page.locator("html").get_attribute("lang") == "zh-Hans"
    assert page.get_by_role("navigation").get_by_role("link").all_inner_texts() == ["搜索", "提问", "检索测试", "地图"]
    assert page.get_by_role("searchbox").input_value() == "年假有多少天"
    best = hits(page).first
    assert "制度/年假.md" in best.inner_text()
    assert "年假" in "".join(best.locator("mark").all_inner_texts())
    page.get_by_role("link", name="提问").click()
    ask(page, "员工每年有多少天年假？")
    page.locator(".answer", has_text="二十五天").wait_for()
    assert "lang=zh" in page.url


def test_without_a_script_search_and_ask_work(browser: Browser, service: Served) -> None:
    with watching(browser, service.url, java_script_enabled=False) as watched:
        page = watched.open()
        page.get_by_role("searchbox").fill("tarred roof")
        page.get_by_role("searchbox").press("Enter")
        hits(page).filter(has_text="tarred").first.wait_for()
        page.get_by_role("link", name="Ask", exact=True).click()
        page.get_by_role("main").get_by_role("textbox").first.fill(LEAVE)
        page.get_by_role("button", name="Ask").click()
        page.locator(".answer", has_text="twenty-five").wait_for()


# --- axe-core


def axe(page: Page, name: str) -> None:
    """In the light, and once more in the dark, where only colours are others."""
    page.locator("details:not([open])").evaluate_all("(all) => all.forEach((one) => { one.open = true })")
    accessibility.check(page, name)
    page.emulate_media(color_scheme="dark")
    accessibility.check(page, f"{name}, dark", "color-contrast")


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_serious_in_a_view(browser: Browser, service: Served, view: str) -> None:
    with watching(browser, service.url, reduced_motion="reduce") as watched:
        watched.expect("status of 400")
        accessibility.check(watched.open(address(view)), f"{view}, empty")
        page = watched.open(address(view, GAUGE))
        settled(page)
        axe(page, view)
        axe(
            watched.open(address(view, "snow", top_k="many", lang="zh")),
            f"{view}, Chinese, a field that cannot be read",
        )


def test_axe_finds_nothing_serious_in_a_source_and_on_the_map(browser: Browser, service: Served, drawn: World) -> None:
    with watching(browser, service.url, reduced_motion="reduce") as watched:
        page = watched.open(address("search", GAUGE, path="manual.pdf"))
        hits(page).first.get_by_role("link").first.click()
        page.wait_for_url("**/sources/default/*")
        axe(page, "source")
        page = watched.open("/map")
        page.locator(".map-legend button").first.wait_for()
        axe(page, "map")
