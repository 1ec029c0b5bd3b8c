"""The page over a running server: search, filters, the retrieval test, the footer, languages, what is refused; and that
nothing of a document, question or filter ever becomes markup."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import lxml.html
import pytest

from pipeline.serve.web import assets, fields, health, layout, results, words
from tests import served
from tests.hostile_passages import ATTACKS
from tests.served import Served
from tests.web_page import HTML, Page, check_harmless, get

SNOW = "snow on the roof of the hut"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
CHINESE = (
    "# 年假\n\n员工每年享有二十五天年假，新员工第一年按月计算。\n\n# 安全\n\n气温低于零下十度时，任何人不得独自上山。\n"
)
LINE_BREAKS = "Snow\n----\n\n## Snow\n\nThe gauge **for snow** stands on\nthe roof of the hut.\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collections "default", "hostile", an empty one and one that was never published."""
    home = tmp_path_factory.mktemp("web")
    docs = served.write(home / "docs", {**served.DOCUMENTS, "zh/年假.md": CHINESE, "snow.md": LINE_BREAKS})
    (docs / "copy").mkdir()
    shutil.copy(docs / "safety.md", docs / "copy" / "safety.md")
    base = served.settings(home / "data")
    served.build(base, docs)
    evil = {f"<b>{name}<b>.md": f"# {EVIL} {name}\n\nAnnual leave. {text}\n" for name, text in ATTACKS.items()}
    served.build(
        base, served.write(home / "evil", {name.replace("/", "_"): text for name, text in evil.items()}), "evil"
    )
    served.build(base, served.write(home / "void", {"void.txt": "\n"}), "void")
    (home / "data" / "unpublished").mkdir()
    return home / "data"


@pytest.fixture(scope="module")
def service(data: Path) -> Iterator[Served]:
    with Served(served.settings(data)) as running:
        yield running


# -- search


def test_a_browser_gets_the_page_and_a_program_what_is_served(service: Served) -> None:
    page = get(service)
    assert page.reply.headers["content-type"].startswith("text/html")
    assert page.texts("//h1") == ["Search"]
    assert page.text("//title") == "Search · default · embed-pipeline"
    for accept in ("*/*", "application/json"):
        told = service.client.get("/", headers={"Accept": accept})
        assert told.json()["service"] == "embed-pipeline"


def test_a_search_shows_cards_that_lead_to_their_sources(service: Served) -> None:
    page = get(service, q=SNOW)
    cards = page.root.xpath("//ol[@class='cards']/li/article")
    assert len(cards) == 5
    found = service.retrieve(SNOW, top_k=5).json()["records"]
    assert page.links("//article//h2/a") == [f"/sources/default/{one['metadata']['chunk_id']}" for one in found]
    assert page.texts("//p[@class='place']/bdi[@class='path']") == [one["metadata"]["path"] for one in found]
    assert re.fullmatch(r"5 passages in [\d.]+ m?s", page.text("//p[@role='status']"))
    assert page.text("//title").startswith(f"{SNOW} · Search")
    assert page.root.xpath("//input[@name='q']/@value") == [SNOW]


def test_a_card_marks_the_words_and_tells_the_parts_of_the_score(service: Served) -> None:
    page = get(service, q="annual leave", path="leave.md")
    card = page.root.xpath("//article")[0]
    assert "Annual" not in card.xpath(".//p[@class='snippet']")[0].text  # the heading stands above
    assert [mark.text for mark in card.xpath(".//mark")] == ["annual", "leave"]
    assert " ".join(card.xpath(".//p[@class='place']")[0].text_content().split()) == "leave.md · Leave › Annual leave"
    names = [part.text for part in card.xpath(".//dt")]
    assert names == ["Cosine", "BM25", "Fused"]
    values = [part.text for part in card.xpath(".//dd")]
    assert re.fullmatch(r"0\.\d{3} \(rank 1\)", values[0])
    assert float(card.xpath(".//meter/@value")[0]) == float(values[0].split()[0])


def test_by_words_alone_there_is_no_cosine(service: Served) -> None:
    page = get(service, q="annual leave", mode="text", top_k="1")
    assert page.texts("//article//dt") == ["BM25", "Fused"]
    assert page.root.xpath("//article//meter") == []


def test_copies_are_named_with_the_passage(service: Served) -> None:
    page = get(service, q="who works alone on the ridge", top_k="1")
    assert page.texts("//p[@class='also']") == ["Also in safety.md"]


def test_a_snippet_has_no_line_breaks_rules_or_known_headings(service: Served) -> None:
    page = get(service, q="gauge for snow", path="snow.md", top_k="1")
    assert page.texts("//p[@class='snippet']") == ["The gauge for snow stands on the roof of the hut."]


def test_a_script_gets_the_results_alone(service: Served) -> None:
    reply = service.client.get("/", params={"q": SNOW, "part": "results"}, headers=HTML)
    root = lxml.html.fromstring(reply.text)
    assert (root.tag, root.get("id")) == ("div", "results")
    assert root.get("data-tally").startswith("5 passages")
    assert root.get("data-title").startswith(SNOW)
    assert "<header" not in reply.text


def test_nothing_found_is_said(service: Served) -> None:
    assert get(service, q="annual leave", mode="text", path="nowhere/").text("//p[@role='status']") == (
        "No passage matches within these filters."
    )
    assert get(service, q="zyzzyva", mode="text", collection="default").reply.status_code == 200


def test_the_link_of_a_citation_leads_a_browser_to_the_page_of_its_source(service: Served) -> None:
    (record,) = service.retrieve("days of annual leave", top_k=1).json()["records"]
    address = httpx.URL(record["metadata"]["url"]).path
    assert address == f"/passages/default/{record['metadata']['chunk_id']}"
    reply = service.client.get(address, headers=HTML)
    assert (reply.status_code, reply.headers["location"]) == (303, address.replace("/passages/", "/sources/"))
    assert service.client.get(reply.headers["location"], headers=HTML).status_code == 200
    odd = service.client.get("/passages/%2F%2Fevil.example/x%0d%0aSet-Cookie:a", headers=HTML)
    assert odd.status_code == 404 or odd.headers["location"].startswith("/sources/")
    assert "set-cookie" not in odd.headers


# -- filters


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"path": "minutes/"}, {"minutes/2025-11-02.md", "minutes/2026-03-01.md"}),
        ({"path": "docs/minutes/", "heading": "meeting"}, {"minutes/2025-11-02.md", "minutes/2026-03-01.md"}),
        ({"type": "txt"}, {"plain.txt"}),
        ({"modified": "1h"}, None),
        ({"modified": "<2020"}, set()),
        ({"page": ">=1"}, set()),
        ({"path": "'; DROP TABLE chunks; --"}, set()),
        ({"heading": "' OR 1=1 OR '"}, set()),
    ],
)
def test_filters_restrict_and_are_told(service: Served, given: dict[str, str], paths: set[str] | None) -> None:
    page = get(service, q=SNOW, top_k="50", **given)
    assert page.reply.status_code == 200
    found = set(page.texts("//p[@class='place']/bdi[@class='path']"))
    assert found == paths if paths is not None else len(found) > 5
    assert page.text("//p[@class='filtered']").startswith("Only:")
    (clear,) = page.links("//p[@class='filtered']/a")
    assert not set(given) & set(httpx.URL(clear).params)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("page", "three"),
        ("modified", "soon"),
        ("type", "a b"),
        ("mode", "magic"),
        ("top_k", "0"),
        ("top_k", "101"),
        ("top_k", "²"),
        ("modified", "0000"),
        ("page", "<"),
    ],
)
def test_a_field_that_cannot_be_read_is_named_and_nothing_is_searched_for(
    service: Served, name: str, value: str
) -> None:
    page = get(service, q=SNOW, **{name: value})
    assert page.reply.status_code == 400
    (marked,) = page.root.xpath("//*[@aria-invalid='true']")
    assert marked.get("name") == name
    fault = page.text(f"//p[@id='{marked.get('aria-describedby')}']")
    assert fault in page.text("//*[@role='alert']")
    assert page.root.xpath("//details[@class='options']/@open")
    assert page.root.xpath("//article") == []


def test_fields_are_read_as_the_command_line_reads_filters() -> None:
    now = datetime(2026, 6, 1, 12)
    asked = fields.read({"q": " a ", "path": "x/", "page": "<=3", "modified": "7d", "top_k": "7", "mode": "text"}, now)
    assert (asked.question, asked.mode, asked.top_k, asked.faults) == ("a", "text", 7, {})
    assert asked.said == ("path=x/", "modified>=7d", "page<=3")
    assert fields.read({"q": "a" * 4001}, now).faults == {"q": "bad_q"}
    assert not fields.read({"q": "a"}, now).filtered


def test_the_question_and_the_settings_stay_in_the_address(service: Served) -> None:
    page = get(service, q=SNOW, path="minutes/", top_k="3", lang="zh", collection="default")
    ask, trial = (httpx.URL(link) for link in page.links("//nav/a")[1:3])
    for url in (ask, trial):
        assert {"q": SNOW, "path": "minutes/", "top_k": "3", "lang": "zh"}.items() <= dict(url.params).items()
    (other,) = page.links("//a[@class='lang']")
    assert dict(httpx.URL(other).params) == {
        "q": SNOW,
        "path": "minutes/",
        "top_k": "3",
        "lang": "en",
        "collection": "default",
    }


# -- the retrieval test


def test_the_retrieval_test_shows_both_rankings_and_the_prompt(service: Served) -> None:
    page = get(service, view="trial", q="annual leave", top_k="2")
    assert page.texts("//h1") == ["Retrieval test"]
    facts = dict(zip(page.texts("//section[1]//dt"), page.texts("//section[1]//dd"), strict=True))
    assert facts["Embedded as"] == "as it is"
    assert facts["Tokens"] == "2: annual leave"
    assert facts["Words looked for"] == "annual leave"
    assert re.fullmatch(r"\d+ by meaning, \d+ by words", facts["Candidates"])
    rows = page.texts("//section[2]//tbody/tr")
    assert re.match(r"1 ?leave ?leave\.md · Leave › Annual leave ?#1 · 0\.\d{3} ?#1 · \d", rows[0], re.IGNORECASE)
    assert len(rows) == 2
    assert "ranks below" in page.text("//section[3]")
    sent = page.texts("//pre[@class='prompt']")
    assert "numbered passages" in sent[0]
    assert sent[1].startswith("[1] leave.md, Leave > Annual leave")
    assert sent[1].endswith("Question: annual leave")
    assert {"embed the question", "rank by meaning", "rank by words", "fuse"} <= set(
        page.texts("//div[@class='bars']/span")
    )


def test_the_retrieval_test_says_what_filters_and_copies_did(service: Served) -> None:
    page = get(service, view="trial", q="who works alone on the ridge", path="minutes/", top_k="1")
    assert "path=minutes/: 2 of" in page.text("//section[1]")
    assert "the filters leave it out" in page.text("//section[3]")


def test_the_retrieval_test_says_where_no_model_is_asked(service: Served) -> None:
    page = get(service, view="trial", q="who invented the telephone")
    assert "no model is asked" in page.texts("//section")[-2]
    assert page.root.xpath("//pre[@class='prompt']") == []


# -- footer, what is not there, errors


def test_the_footer_tells_how_the_index_stands(service: Served) -> None:
    page = get(service)
    told = page.text("//footer")
    assert re.search(r"8 documents · \d+ passages · all-minilm-l6-v2 · indexed \d{4}-\d\d-\d\d .* · generation 1", told)
    assert "last run succeeded" in told
    (report,) = page.links("//footer//a")
    assert re.fullmatch(r"/reports/default/[\w.-]+", report)
    assert service.client.get(report).status_code == 200


def test_the_start_names_the_folders_to_look_in(service: Served) -> None:
    page = get(service, lang="zh")
    assert page.texts("//ul[@class='folders']/li") == ["minutes/ 2 个文档", "copy/ 1 个文档", "zh/ 1 个文档"]
    (address, _, _) = page.links("//ul[@class='folders']//a")
    chosen = Page(service.client.get(address, headers=HTML))
    assert chosen.root.xpath("//input[@name='path']/@value") == ["minutes/"]
    assert chosen.text("//p[@class='filtered']").startswith("仅限： path=minutes/")


def test_a_collection_that_cannot_be_read_is_a_page_with_the_command_that_looks(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "default", tmp_path / "default")
    with Served(served.settings(tmp_path)) as running:
        assert get(running).reply.status_code == 200
        (tmp_path / "default" / "VERSION").write_text("99")
        page = get(running, q=SNOW)
        assert page.reply.status_code == 500
        assert page.text("//pre") == "pipeline check"
        assert str(tmp_path) not in page.reply.text
        assert page.root.xpath("//h1")[0].text == "That did not work"


def test_a_failed_run_is_said_in_the_footer(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "default", tmp_path / "default")
    runs = tmp_path / "default" / "runs"
    (runs / "29990101T000000.000-abcd.json").write_text('{"exit_code": 5}')
    with Served(served.settings(tmp_path)) as running:
        assert "last run failed: the index is of before" in get(running).text("//footer")
        (runs / "29990101T000001.000-abcd.json").write_text('{"exit_code": 3}')
        (runs / "29990101T000001.000-abcd.html").write_text("<p>")
        found = health.look(running_standing(tmp_path))
        assert (found.ending, found.report) == ("warn", "29990101T000001.000-abcd")
        (runs / "29990101T000002.000-abcd.json").write_text('{"exit_code": 0, "incomplete": true}')
        assert health.look(running_standing(tmp_path)).ending == "incomplete"


def test_the_footer_tells_what_is_not_as_it_should_be() -> None:
    stood = health.Health(
        documents=1, passages=1, model="m", generation=7, at_ms=0, rollback_of=3, ending="incomplete", stale=True
    )
    shown = layout.respond(layout.View(health=stood, words=words.of("en"), collection="a b/c"), "x")
    foot = lxml.html.fromstring(bytes(shown.body).decode()).xpath("//footer")[0].text_content()
    assert foot == (
        "1 document · 1 passage · m · generation 7last run ended at its time limit; the next goes on · "
        "rolled back to generation 3 · newer documents are read but not yet published"
    )


def running_standing(data: Path) -> Any:
    from pipeline import query

    return query.open_collection(served.settings(data))


def test_nothing_published_says_what_to_type(tmp_path: Path) -> None:
    with Served(served.settings(tmp_path)) as running:
        for view in ("search", "ask", "trial"):
            page = get(running, view=view, q="anything")
            assert page.reply.status_code == 200
            assert page.text("//pre") == "pipeline run FOLDER"
            assert page.text("//footer") == "Nothing is indexed here yet."


def test_an_index_without_passages_says_so(service: Served) -> None:
    page = get(service, collection="void", q="anything")
    assert "holds no passage" in page.text("//main")


@pytest.mark.parametrize("name", ["unpublished", "nowhere", "../web", EVIL, "a" * 300, ""])
def test_an_unknown_collection_is_a_page_that_helps(service: Served, name: str) -> None:
    page = get(service, collection=name, q=SNOW)
    assert page.reply.status_code == (404 if name else 200)
    assert page.root.xpath("//script[not(@src)]") == []


def test_the_chooser_shows_what_is_published(service: Served) -> None:
    page = get(service, q=SNOW)
    assert page.texts("//details[@class='menu']//a") == ["default", "evil", "void"]
    (_, evil, _) = page.links("//details[@class='menu']//a")
    assert dict(httpx.URL(evil).params) == {"q": SNOW, "collection": "evil"}
    assert page.texts("//details[@class='menu']//a[@aria-current]") == ["default"]


def test_addresses_that_there_are_none_of_are_pages_for_browsers_alone(service: Served) -> None:
    page = get(service, "/nowhere")
    assert page.reply.status_code == 404
    assert "nothing at this address" in page.text("//main")
    assert page.links("//main//a") == ["/"]
    assert service.client.get("/nowhere").json() == {"error": "Not Found"}
    assert service.client.get("/v1/nowhere", headers=HTML).headers["content-type"] == "application/json"
    assert get(service, "/ask").reply.status_code == 405


# -- hostile documents and questions


@pytest.mark.parametrize("view", ["search", "trial"])
def test_what_documents_say_is_never_markup(service: Served, view: str) -> None:
    page = get(service, view=view, q=f"annual leave {EVIL}", collection="evil", top_k="50", lang="zh")
    assert page.reply.status_code == 200
    assert len(page.links("//a[starts-with(@href, '/sources/')]")) > 30
    check_harmless(page)
    assert EVIL in page.text("//title")


@pytest.mark.parametrize(
    "name", ["q", "path", "type", "heading", "mode", "lang", "view", "collection", "part", "whole"]
)
def test_what_addresses_say_is_never_markup(service: Served, name: str) -> None:
    for view in ("search", "ask", "trial"):
        wanted = {"q": "leave", "view": view, name: f'"><i>{EVIL}\u202e\x00'}
        page = Page(service.client.get("/", params=wanted, headers=HTML))
        check_harmless(page)
        assert page.root.xpath("//i") == []


def test_bytes_that_are_no_text_are_answered(service: Served) -> None:
    for query in ("q=%ff%fe", "q=%ed%a0%80", "q=%00", "q=a&q=b", "top_k=" + "9" * 400, "q=" + "x" * 5000):
        assert service.client.get(f"/?{query}", headers=HTML).status_code in (200, 400), query


# -- what every answer has


@pytest.mark.parametrize("path", ["/", "/healthz", "/nowhere", "/v1/models", "/static/page.css", "/login", "/metrics"])
def test_every_answer_has_the_policy(service: Served, path: str) -> None:
    for headers in (HTML, {}):
        reply = service.client.get(path, headers=headers)
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self';")
        assert "'unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"


def test_a_refusal_at_the_door_has_the_policy_too(service: Served) -> None:
    reply = service.client.get("/", headers={**HTML, "Host": "evil.example"})
    assert reply.status_code == 421
    assert reply.headers["content-security-policy"].startswith("default-src 'self'")
    assert "localhost" in Page(reply).text("//main")


def test_static_files_are_kept_by_their_version_and_are_these_alone(service: Served) -> None:
    page = get(service)
    for address in [*page.root.xpath("//link/@href"), *page.root.xpath("//script/@src")]:
        reply = service.client.get(str(address))
        assert reply.status_code == 200
        assert "immutable" in reply.headers["cache-control"]
    plain = service.client.get("/static/page.css")
    assert plain.headers["cache-control"] == "no-cache"
    again = service.client.get("/static/page.css", headers={"If-None-Match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("../words.py", "..%2fwords.py", "%2e%2e/words.py", "nothing.css", "page.css%00", "/etc/passwd"):
        assert service.client.get(f"/static/{name}").status_code == 404, name


def test_no_file_names_another_machine() -> None:
    for name in assets.names():
        found = re.findall(r"(?:https?:)?//[\w.-]+\.\w+", assets.read(name)[0].decode())
        assert [address for address in found if "www.w3.org" not in address] == []


def test_a_page_is_kept_nowhere_and_a_question_is_in_no_log(service: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        page = get(service, q="kangaroo pouch", path="wombat/")
        service.client.post("/ask", data={"q": "kangaroo pouch"}, headers=HTML)
    assert page.reply.headers["cache-control"] == "no-store"
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]
    told = "\n".join([service.client.get("/metrics").text, *ours])
    assert "GET / 200" in told
    assert "POST /ask 200" in told
    assert "kangaroo" not in told
    assert "wombat" not in told
    assert 'route="/"' in told


# -- languages


def test_both_languages_say_everything_with_the_same_blanks() -> None:
    english, chinese = (words.of(language) for language in words.LANGUAGES)
    assert set(english) == set(chinese)
    for key, said in english.items():
        assert said.strip()
        assert chinese[key].strip()
        if not key.endswith("_one"):
            assert words.fields(said) == words.fields(chinese[key]), key
    assert {key.removesuffix("_one") for key in english if key.endswith("_one")} <= set(english)


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en;q=0.3, zh;q=0.8", "zh"),
        ("de-DE", "en"),
        ("de, zh-Hant;q=0.5", "zh"),
        ("zh;q=x, en;q=0.1", "en"),
        ("en, zh", "en"),
    ],
)
def test_the_language_that_the_browser_likes(service: Served, accept: str, language: str) -> None:
    assert words.preferred(accept) == language
    page = Page(service.client.get("/", headers={**HTML, "Accept-Language": accept}))
    assert page.root.get("lang") == {"en": "en", "zh": "zh-Hans"}[language]


@pytest.mark.parametrize("view", ["search", "ask", "trial"])
def test_chinese_is_complete(service: Served, view: str) -> None:
    """No English word of ours is left: what is Latin are names, figures and what documents say."""
    page = get(service, view=view, q="年假有几天", lang="zh", path="zh/")
    said = "//article | //pre | //bdi | //kbd | //span[@class='token'] | //*[@lang='en'] | //title | //ul/li/a"
    for element in page.root.xpath(said):
        element.drop_tree()
    told = re.sub(r"embed-pipeline|all-minilm-l6-v2|llama3\.2|BM25|default", "", page.text("//body"))
    assert re.findall(r"[A-Za-z]{3,}", told) == []


def test_chinese_documents_are_found_and_marked(service: Served) -> None:
    page = get(service, q="年假有几天", top_k="1")
    assert page.texts("//p[@class='place']/bdi[@class='path']") == ["zh/年假.md"]
    assert page.root.xpath("//p[@class='snippet']/@lang") == ["zh"]
    assert "年假" in page.texts("//article//mark")


def test_lines_of_chinese_are_joined_by_nothing() -> None:
    assert results._on_one_line("员工每年\n享有年假。\nNew line\nhere") == "员工每年享有年假。 New line here"


def test_emphasis_is_dropped_and_code_is_left_alone() -> None:
    lines = ["**Clear** the funnel", "**年假**是二十五天", "f(**kwargs, **more) and 2**3**4", "__init__ of it"]
    said = ["Clear the funnel", "年假是二十五天", "f(**kwargs, **more) and 2**3**4", "__init__ of it"]
    assert list(results._lines("\n".join(lines), "")) == said
