"""The page's answers over a running server and a fake Ollama: as they are written and whole, refusals, what is told
about them, a model server that is not there; markup in what a model writes."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lxml.html
import msgspec
import pytest

from pipeline import answer, answer_grounding, asking, config
from pipeline.serve.web import asked, layout, notes, words
from tests import served
from tests.fake_ollama.client import FakeOllama
from tests.served import Served
from tests.test_answer import hit
from tests.web_page import HTML, Page, check_harmless, get

LEAVE = "How many days of annual leave does an employee get?"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> [click](https://evil.example/?q=1)"


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(models=["llama3.2"]) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, ollama: FakeOllama) -> Path:
    home = tmp_path_factory.mktemp("asked")
    served.build(served.settings(home / "data", ollama=ollama.url), served.write(home / "docs"))
    return home


@pytest.fixture(scope="module")
def service(home: Path, ollama: FakeOllama) -> Iterator[Served]:
    with Served(served.settings(home / "data", ollama=ollama.url)) as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(ollama: FakeOllama) -> Iterator[None]:
    yield
    ollama.reset()


def ask(running: Served, question: str, **parameters: str) -> list[dict[str, Any]]:
    """The events of an answer."""
    reply = running.client.post("/ask", params=parameters, data={"q": question}, headers=HTML)
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("application/x-ndjson")
    assert reply.headers["cache-control"] == "no-store"
    return [json.loads(line) for line in reply.text.splitlines()]


def shown(event: dict[str, Any]) -> lxml.html.HtmlElement:
    return lxml.html.fragment_fromstring(event.get("done") or event.get("sources") or event["error"], "div")


def test_an_answer_comes_in_pieces_with_its_sources(service: Served) -> None:
    events = ask(service, LEAVE)
    assert events[0] == {"state": "Searching the documents …"}
    assert re.fullmatch(r"The model reads \d passages …", events[1]["state"])
    assert shown(events[1]).xpath("//article/@id")[0] == "source-1"
    pieces = [event["text"] for event in events[2:-1]]
    assert len(pieces) > 2
    assert "twenty-five days of annual leave a year" in "".join(pieces)
    done = shown(events[-1])
    (written,) = done.xpath("//div[@class='answer']")
    assert written.text_content() == "".join(pieces)
    assert re.fullmatch(r"\d passages read, 1 cited, [\d.]+ s", events[-1]["said"])


def test_each_mark_is_a_link_to_the_card_of_its_passage(service: Served) -> None:
    done = shown(ask(service, LEAVE)[-1])
    (link,) = done.xpath("//a[@class='cite']")
    assert (link.text, link.get("href"), link.get("aria-label")) == ("[1]", "#source-1", "Source 1")
    (card,) = done.xpath("//article[@id='source-1']")
    assert card.get("tabindex") == "-1"
    assert "leave.md" in card.text_content()
    others = done.xpath("//details//article/@id")
    assert others
    assert "source-1" not in others


def test_without_a_script_the_answer_is_on_the_page(service: Served) -> None:
    page = get(service, view="ask", q=LEAVE, whole="1")
    assert "twenty-five days" in page.text("//div[@class='answer']")
    assert page.links("//div[@class='answer']/a") == ["#source-1"]
    assert page.text("//title").startswith(LEAVE)
    assert page.root.xpath("//textarea[@name='q']")[0].text == LEAVE
    assert page.root.xpath("//noscript/input[@name='whole']/@value") == ["1"]


def test_with_a_script_the_page_comes_at_once_and_asks_nothing(service: Served, ollama: FakeOllama) -> None:
    page = get(service, view="ask", q=LEAVE)
    assert page.root.xpath("//div[@id='results']/@data-ask") == ["1"]
    (link,) = page.links("//noscript//a")
    assert "whole=1" in link
    assert [entry for entry in ollama.requests() if entry.endpoint == "/api/chat"] == []
    assert get(service, view="ask").root.xpath("//div[@id='results']/@data-ask") == []


def test_another_sites_link_sets_no_model_to_work(service: Served, ollama: FakeOllama) -> None:
    wanted = {"view": "ask", "q": LEAVE, "whole": "1"}
    page = Page(service.client.get("/", params=wanted, headers={**HTML, "Sec-Fetch-Site": "cross-site"}))
    assert "press Ask" in page.text("//main")
    assert page.root.xpath("//div[@id='results']/@data-ask") == []
    assert [entry for entry in ollama.requests() if entry.endpoint == "/api/chat"] == []


def test_filters_hold_for_answers(service: Served) -> None:
    events = ask(service, "When was the roof of the hut tarred?", path="minutes/2026-03-01.md")
    done = shown(events[-1])
    assert {path.text for path in done.xpath("//p[@class='place']/bdi[1]")} == {"minutes/2026-03-01.md"}
    assert "path=minutes/2026-03-01.md" in done.text_content()
    bad = ask(service, LEAVE, page="x")
    assert set(bad[-1]) == {"error", "said"}
    assert "A page such as 3" in shown(bad[-1]).text_content()


def test_what_is_not_in_the_documents_is_said_plainly_and_no_model_is_asked(
    service: Served, ollama: FakeOllama
) -> None:
    events = ask(service, "Who invented the telephone exchange in Bratislava?")
    assert not any("sources" in event for event in events)
    assert events[-1]["said"] == "Not in your documents."
    done = shown(events[-1])
    assert [title.text for title in done.xpath("//h2[not(a)]")] == ["Not in your documents.", "Nearest passages"]
    assert done.xpath("//article/@id")[0] == "source-1"
    assert done.xpath("//div[@class='answer']") == []
    assert [entry for entry in ollama.requests() if entry.endpoint == "/api/chat"] == []


def test_a_model_that_finds_no_answer_is_told_apart(service: Served, ollama: FakeOllama) -> None:
    ollama.configure(says=["NO ANSWER"])
    done = shown(ask(service, LEAVE)[-1])
    assert "The model read these passages" in done.text_content()


def test_a_sentence_that_is_not_supported_is_underlined_and_told(service: Served, ollama: FakeOllama) -> None:
    ollama.configure(
        says=["Every employee gets twenty-five days of annual leave [1]. Dragons guard forty castles [1]."]
    )
    done = shown(ask(service, LEAVE)[-1])
    (wrong,) = done.xpath("//span[@class='unsupported']")
    assert wrong.text_content().strip() == "Dragons guard forty castles [1]."
    assert wrong.xpath("./a/@href") == ["#source-1"]
    assert "Not supported by [1]" in done.xpath("//ul[@class='notes']")[0].text_content()
    chinese = shown(ask(service, LEAVE, lang="zh")[-1])
    assert "所引的 [1] 不支持这句话" in chinese.xpath("//ul[@class='notes']")[0].text_content()


def test_a_file_that_has_changed_is_told_at_the_answer_and_at_its_card(tmp_path: Path, ollama: FakeOllama) -> None:
    given = served.settings(tmp_path / "data", ollama=ollama.url)
    docs = served.write(tmp_path / "docs", {"leave.md": served.DOCUMENTS["leave.md"]})
    served.build(given, docs)
    (docs / "leave.md").write_text("# Leave\n\nThirty days.\n")
    with Served(given) as running:
        done = shown(ask(running, LEAVE)[-1])
        assert "leave.md has changed since it was indexed" in done.xpath("//ul[@class='notes']")[0].text_content()
        assert done.xpath("//article/p[@class='stale']/text()") == ["This file has changed since it was indexed."]
        (docs / "leave.md").unlink()
        page = get(running, view="ask", q=LEAVE, whole="1", lang="zh")
        assert page.texts("//p[@class='stale']") == ["此文件在索引之后已被删除。"]


def test_what_a_model_writes_is_never_markup(service: Served, ollama: FakeOllama) -> None:
    ollama.configure(says=[f"Annual leave is twenty-five days {EVIL} [1] [99]."])
    events = ask(service, LEAVE)
    assert all("<script" not in event.get("text", "") for event in events)
    assert "evil.example" not in "".join(shown(events[-1]).xpath("//@href"))
    page = get(service, view="ask", q=f"{LEAVE} {EVIL}", whole="1")
    check_harmless(page)
    assert "‹script>" in page.text("//div[@class='answer']")


# -- what goes wrong


def test_without_a_model_server_the_remedy_stands_before_the_passages(home: Path) -> None:
    with Served(served.settings(home / "data")) as running:
        events = ask(running, LEAVE)
        done = shown(events[-1])
        assert events[-1]["said"] == "No model answered."
        assert done[0].xpath("./pre/code/text()") == ["ollama serve\nollama pull llama3.2"]
        assert done.xpath("//div[@class='answer']") == []
        assert "leave.md" in done.xpath("//article")[0].text_content()


def test_a_server_that_is_set_to_show_passages_says_so(home: Path) -> None:
    given = msgspec.structs.replace(served.settings(home / "data"), generate=config.GenerateSettings(provider="none"))
    with Served(given) as running:
        done = shown(ask(running, LEAVE)[-1])
        assert "generate.provider is set to none" in done[0].text_content()
        assert done.xpath("//pre") == []


def test_a_model_that_breaks_off_keeps_what_it_said(service: Served, ollama: FakeOllama) -> None:
    ollama.set_fault("chat_cut")
    done = shown(ask(service, LEAVE)[-1])
    assert "stopped in the middle" in done.text_content() or done.xpath("//section[@role='alert']")


def test_an_error_before_the_first_word_is_an_event_and_a_page(service: Served, ollama: FakeOllama) -> None:
    ollama.set_fault("busy503", endpoint="/api/chat")
    events = ask(service, LEAVE)
    assert set(events[-1]) == {"error", "said"}
    panel = shown(events[-1])
    assert panel.xpath("//section/@role") == ["alert"]
    assert panel.xpath("//h2/text()") == ["That did not work"]
    page = get(service, view="ask", q=LEAVE, whole="1")
    assert page.reply.status_code == 503
    assert page.texts("//section[@role='alert']/h2") == ["That did not work"]


@pytest.mark.parametrize("question", ["", " ", "x" * 5000])
def test_no_question_is_no_search(service: Served, question: str) -> None:
    events = ask(service, question)
    assert [set(event) for event in events] == [{"error", "said"}]


def test_a_reader_who_goes_away_ends_the_answer(service: Served, ollama: FakeOllama) -> None:
    def under_way() -> int:
        """Requests, the one that asks this among them."""
        metrics = service.client.get("/metrics").text
        return int(float(metrics.partition("\npipeline_http_requests_under_way ")[2].partition("\n")[0]))

    def until_alone() -> None:
        patience = time.monotonic() + 30
        while under_way() > 1:
            assert time.monotonic() < patience, "the model is still being listened to"

    until_alone()  # what an earlier test has read to its end may just be ending
    ollama.set_fault("chat_stall")
    with service.client.stream("POST", "/ask", data={"q": LEAVE}, headers=HTML) as reply:
        lines = reply.iter_lines()  # held: without it httpx closes the connection
        while "text" not in json.loads(next(lines)):
            pass
        assert under_way() == 2
    until_alone()


# -- notes in both languages


def told_by(module: Any) -> list[str]:
    """The notes that a module yields, every blank filled with a number."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Yield) and isinstance(node.value, ast.Constant | ast.JoinedStr):
            parts = node.value.values if isinstance(node.value, ast.JoinedStr) else [node.value]
            found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "7" for part in parts))
    return [note for note in found if note.endswith(".") or note.startswith("Not supported")]


def test_every_note_is_known_in_chinese() -> None:
    said = [*told_by(answer), *told_by(answer_grounding)]
    assert len(said) >= 11
    source = answer.Source(number=1, hit=hit("text", path="a b/c.md"), cited=True, stale="changed")
    said += [asking._told(source), asking._told(answer.Source(number=1, hit=source.hit, cited=True, stale="gone"))]
    said += ['Not supported by [1], which it cites: "7"; passage [2] fits better.']
    for note in said:
        for one in {note, note.replace('"7.', '".')}:
            if one.startswith("Not supported") and not one.endswith('".') and "fits better" not in one:
                continue
            assert re.search("[\u4e00-\u9fff]", notes.of(one, "zh")), one
            assert notes.of(one, "en") == one
    assert notes.of("Something new.", "zh") == "Something new."


def test_judgements_are_known_in_chinese() -> None:
    for by in ("nearness and words, built-in calibration", "cosine 0.45 or half of the words; not calibrated"):
        assert not re.search("[A-Za-z]{2}", notes.reason(by, "zh"))
        assert notes.reason(by, "en") == by


def test_links_and_underlines_of_an_answer_keep_its_text() -> None:
    text = "Leave is short [1] [2]. Dragons fly [2]. End."
    marks = tuple(
        answer.Citation(number=int(found[1]), start=found.start(), end=found.end())
        for found in re.finditer(r"\[(\d)\]", text)
    )
    start = text.index("Dragons")
    wrong = answer_grounding.Statement(start=start, end=start + 16, cites=(2,), share=0.0, supported=False)
    ending = answer.Answer(text=text, citations=marks, statements=(wrong,))
    view = layout.View(words=words.of("en"))
    parts = asked.text(view, ending)
    joined = "".join(part if isinstance(part, str) else "".join(part.itertext()) for part in parts)
    assert joined == text
    assert sum(not isinstance(part, str) for part in parts) == 3
