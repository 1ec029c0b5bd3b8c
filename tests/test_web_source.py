"""Sources and reports on a running server: the passage in its document, the picture of its page, the file; and who asks
for what is not his, not there, or not any more what it was."""

from __future__ import annotations

import asyncio
import http.client
import io
import multiprocessing
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import fastapi
import httpx
import lxml.html
import msgspec
import PIL.Image
import pytest

from pipeline import errors
from pipeline.config import ClientSettings
from pipeline.serve import keys
from pipeline.serve.meter import Meter
from pipeline.serve.shelf import Opened, Shelf
from pipeline.serve.web import source
from tests import served
from tests.readers import boxes, pages, samples
from tests.served import Served
from tests.test_web_source_picture import slow_pdf

HTML = {"Accept": "text/html"}
KEY, OTHER = "pipe-one", "pipe-other"
MARKUP = '<script>alert(1)</script><img src=x onerror=alert(2)> "quoted" & <b>bold</b>'
NAMED = 'a "b" <i>&c.md'
TABLE = "| flag | name |\n|---|---|\n| G | good |\n| D | doubtful \\| odd |\n"


def write(docs: Path) -> None:
    served.write(docs, {"leave.md": served.DOCUMENTS["leave.md"]})
    shutil.copy(served.MANUAL, docs / "manual.pdf")
    (docs / NAMED).write_text(f"# Hostile {MARKUP}\n\nThe text {MARKUP} ends.\n\n{TABLE}\n```\n{MARKUP}\n```\n")
    long = "\n\n".join(f"Paragraph {n} {'x' * 500}" for n in range(300))  # a long word is one token: little to embed
    (docs / "long.txt").write_text(long)
    attached = samples.pdf([["Attached page one.", "It tells of the anemometer."]])
    (docs / "letter.eml").write_bytes(boxes.mail("The report", "See the report.", {"report.pdf": attached}))
    (docs / "evil.html").write_bytes(samples.pdf([["A PDF whose name says otherwise: thermometer."]]))
    big = samples.pdf([["A page as large as a house: barometer."]]).replace(b"[0 0 612 792]", b"[0 0 9999 9999]")
    (docs / "big.pdf").write_bytes(big)
    (docs / "slow.pdf").write_bytes(slow_pdf())
    body = [f"Line {n} of a page that goes on about hygrometers and their hairs." for n in range(4)]
    two = [pages.text(body[:2]), pages.text(body[2:])]
    (docs / "two.pdf").write_bytes(pages.pdf([*two, pages.picture(samples.pdf([body]), dpi=40)]))
    for name in ("changed.pdf", "gone.pdf", "damaged.pdf"):
        (docs / name).write_bytes(samples.pdf([[f"The {name} page tells of lanterns."]]))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Collections "default" and "other"; of some files of the first the content is another since it was indexed."""
    home = tmp_path_factory.mktemp("sources")
    (home / "docs").mkdir()
    write(home / "docs")
    served.build(served.settings(home / "data"), home / "docs")
    served.build(
        served.settings(home / "data"), served.write(home / "few", {"secret.md": "# Secret\n\nA secret.\n"}), "other"
    )
    changed = home / "docs" / "changed.pdf"
    changed.write_bytes(samples.pdf([["Something else altogether, and longer than before."]]))
    (home / "docs" / "gone.pdf").unlink()
    return home


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Served]:
    with Served(served.settings(home / "data")) as running:
        yield running


def passages(service: Served, path: str, collection: str = "default", **more: object) -> list[str]:
    """The ids of a document's passages, in no order."""
    condition = {
        "logical_operator": "and",
        "conditions": [{"name": "path", "comparison_operator": "is", "value": path}],
    }
    reply = service.retrieve("page", collection, top_k=50, condition=condition, **more)
    assert reply.status_code == 200, reply.text
    found = [re.search("[0-9a-f]{32}", record["metadata"]["url"]) for record in reply.json()["records"]]
    assert found, path
    return [match[0] for match in found if match]


def get(service: Served, address: str, **headers: str) -> httpx.Response:
    return service.client.get(address, headers={**HTML, **headers})


def page(service: Served, path: str, query: str = "") -> tuple[lxml.html.HtmlElement, str]:
    """The page of a document's first passage, and its address."""
    address = f"/sources/default/{passages(service, path)[0]}"
    reply = get(service, address + query)
    assert reply.status_code == 200, reply.text
    return lxml.html.document_fromstring(reply.text), address


def css(element: lxml.html.HtmlElement, select: str) -> list[lxml.html.HtmlElement]:
    """As much of CSS as is needed here: "a b", "a > b", "a, b", "tag.class", "tag[attribute]"."""
    found = []
    for one in select.split(","):
        path, below = ".", "//"
        for part in one.split():
            if part == ">":
                below = "/"
                continue
            tag, *classes = re.sub(r"\[.*", "", part).split(".")
            tests = [f"[contains(concat(' ', @class, ' '), ' {name} ')]" for name in classes]
            tests += [f"[@{name}]" for name in re.findall(r"\[(\w+)\]", part)]
            path, below = f"{path}{below}{tag or '*'}{''.join(tests)}", "//"
        found += element.xpath(path)
    return found


def text(element: lxml.html.HtmlElement, select: str) -> str:
    return " ".join(" ".join(found.text_content().split()) for found in css(element, select))


# --- the passage in its document


def test_a_passage_in_its_text(service: Served) -> None:
    found, _ = page(service, "leave.md")
    assert text(found, "h1") == "Leave"
    assert "leave.md" in text(found, ".about")
    assert "Leave › Annual leave" in text(found, ".about")
    assert text(found, ".document h3") == "Leave"
    assert text(found, ".document h4") == "Annual leave", "without the marks of Markdown"
    assert "twenty-five days" in text(found, ".document mark")
    assert [mark.get("id") for mark in css(found, "mark[id]")] == ["passage"]
    assert css(found, "figure") == []


def test_headers_of_every_answer(service: Served) -> None:
    address = f"/sources/default/{passages(service, 'manual.pdf')[0]}"
    for path in ("", "/page.png", "/file"):
        reply = get(service, address + path)
        assert reply.status_code == 200
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        if path:
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert "sandbox" in reply.headers["content-security-policy"]


def test_markup_is_text(service: Served) -> None:
    for chunk_id in passages(service, NAMED):
        reply = get(service, f"/sources/default/{chunk_id}")
        found = lxml.html.document_fromstring(reply.text)
        assert "<script>alert" not in reply.text
        inside = css(found, "article")[0]
        assert {element.tag for element in inside.iter()} <= {
            *("article", "h1", "h2", "h3", "h4", "bdi", "code", "button", "div", "section", "p", "span", "a", "mark"),
            *("pre", "table", "thead", "tbody", "tr", "th", "td"),
        }
        assert [link.get("href") for link in css(inside, "a")] == ["/"]
        assert not [name for element in inside.iter() for name in element.attrib if name.startswith("on")]
        assert MARKUP in text(found, ".document pre")
        assert NAMED in text(found, ".about .path")


def test_tables_have_cells(service: Served) -> None:
    found, _ = page(service, NAMED)
    assert [cell.text_content().strip() for cell in css(found, ".document td")] == [
        "G",
        "good",
        "D",
        "doubtful \\| odd",
    ]
    assert [cell.text_content().strip() for cell in css(found, ".document th")] == ["flag", "name"]


def test_a_long_text_is_shown_in_parts(service: Served) -> None:
    found, address = page(service, "long.txt", "?from=50000")
    shown = text(found, ".document")
    assert 20_000 < len(shown) < 60_000
    earlier, later = (link.get("href") for link in css(found, ".more a"))
    numbers = [int(number) for number in re.findall(r"Paragraph (\d+)", shown)]
    after = lxml.html.document_fromstring(get(service, later).text)
    before = lxml.html.document_fromstring(get(service, earlier).text)
    follows = [int(number) for number in re.findall(r"Paragraph (\d+)", text(after, ".document"))]
    precedes = [int(number) for number in re.findall(r"Paragraph (\d+)", text(before, ".document"))]
    assert follows[0] <= numbers[-1] + 1 < follows[-1]
    assert precedes[0] < numbers[0] - 1 <= precedes[-1]
    assert text(found, "section > p a") == "Back to the passage"
    assert get(service, f"{address}?from=999999999").status_code == 200
    assert get(service, f"{address}?from=-1&page=x").status_code == 200


def test_in_chinese(service: Served) -> None:
    found, _ = page(service, "manual.pdf", "?lang=zh")
    assert found.get("lang") == "zh-Hans"
    assert "高亮显示" in text(found, "figcaption")
    assert "下一页" in text(found, ".steps")


# --- the picture


def picture(service: Served, address: str) -> PIL.Image.Image:
    reply = service.client.get(address)
    assert (reply.status_code, reply.headers["content-type"]) == (200, "image/png"), reply.text[:200]
    return PIL.Image.open(io.BytesIO(reply.content))


def is_marked(image: PIL.Image.Image) -> bool:
    return any(colour == (255, 226, 92) for _, colour in image.convert("RGB").getcolors(1 << 24) or [])


def test_a_pdf_has_its_page_beside_it(service: Served) -> None:
    found, address = page(service, "manual.pdf")
    source = css(found, "figure img")[0].get("src")
    assert source.startswith(f"{address}/page.png")
    assert is_marked(picture(service, source))
    assert picture(service, source).size == (1600, 2263)


def test_a_passage_on_two_pages(service: Served) -> None:
    (chunk_id,) = passages(service, "two.pdf")
    address = f"/sources/default/{chunk_id}"
    for number, other in ((1, 2), (2, 1)):
        picture(service, f"{address}/page.png?page={number}")  # so that the page need not wait for it
        found = lxml.html.document_fromstring(get(service, f"{address}?page={number}").text)
        assert is_marked(picture(service, f"{address}/page.png?page={number}"))
        assert text(found, "figure h2") == f"Page {number}"
        assert f"See page {other}" in text(found, "figcaption")
        assert f"{number} of 3" in text(found, ".steps")
    assert [text(found, ".leaf")] == ["Page 1 Page 2"]


def test_a_page_without_the_passage(service: Served) -> None:
    address = f"/sources/default/{passages(service, 'two.pdf')[0]}"
    assert not is_marked(picture(service, f"{address}/page.png?page=3"))
    found, _ = page(service, "two.pdf", "?page=3")
    assert "not on this page" in text(found, "figcaption")
    assert service.client.get(f"{address}/page.png?page=4").status_code == 404
    missing, _ = page(service, "two.pdf", "?page=4")  # which is known by now
    assert "no such page" in text(missing, "figcaption")


def test_a_pdf_in_a_mail(service: Served) -> None:
    found, address = page(service, "letter.eml!/report.pdf")
    assert [said.text_content() for said in css(found, ".about bdi")] == ["letter.eml!/report.pdf", "letter.eml"]
    assert is_marked(picture(service, f"{address}/page.png"))
    assert service.client.get(f"{address}/file").status_code == 404, "the file is a mail, with more in it"


def test_a_page_as_large_as_a_house(service: Served) -> None:
    _, address = page(service, "big.pdf")
    assert max(picture(service, f"{address}/page.png").size) <= 2_000


# --- files that are not what they were


@pytest.mark.parametrize(
    ("path", "said"), [("changed.pdf", "has changed since it was indexed"), ("gone.pdf", "gone since it was indexed")]
)
def test_a_file_that_is_not_what_was_indexed(service: Served, path: str, said: str) -> None:
    found, address = page(service, path)
    assert said in text(found, ".panel.warn")
    assert f"The {path} page tells of lanterns." in text(found, ".document mark")
    assert css(found, "figure, .about a") == []
    for part in ("page.png", "file"):
        reply = service.client.get(f"{address}/{part}")
        assert reply.status_code == 404
        assert "altogether" not in reply.text


def test_a_file_that_changed_and_looks_as_before(service: Served, home: Path) -> None:
    """Of the same size and time: told by its content alone."""
    path = home / "docs" / "damaged.pdf"
    status = path.stat()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"lanterns", b"lampions"))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        chunk_id = passages(service, "damaged.pdf")[0]
        for part in ("page.png", "file"):
            assert service.client.get(f"/sources/default/{chunk_id}/{part}").status_code == 404
        found, _ = page(service, "damaged.pdf")
        assert "damaged.pdf page tells of lanterns" in text(found, ".document mark")
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_folder_that_is_not_there(service: Served, home: Path) -> None:
    (home / "docs").rename(home / "away")
    try:
        found, address = page(service, "manual.pdf")
        assert "not there" in text(found, ".panel.warn")
        assert css(found, "figure") == []
        assert service.client.get(f"{address}/file").status_code == 404
    finally:
        (home / "away").rename(home / "docs")


def test_a_passage_that_is_not_in_the_index_any_more(service: Served) -> None:
    reply = get(service, f"/sources/default/{'0' * 32}")
    assert reply.status_code == 404
    assert "not in the index any more" in reply.text


# --- the file


def test_the_pdf_is_saved_and_never_opened(service: Served) -> None:
    found, address = page(service, "manual.pdf")
    reply = service.client.get(css(found, "a[download]")[0].get("href"))
    assert reply.content == served.MANUAL.read_bytes()
    assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''manual.pdf"
    assert int(reply.headers["content-length"]) == len(reply.content)
    _, address = page(service, "evil.html")
    saved = service.client.get(f"{address}/file").headers["content-disposition"]
    assert saved == "attachment; filename*=UTF-8''evil.html.pdf", "what it is, whatever it calls itself"


@pytest.mark.parametrize("path", ["leave.md", "long.txt", NAMED])
def test_other_files_are_not_handed_out(service: Served, path: str) -> None:
    found, address = page(service, path)
    assert css(found, "a[download]") == []
    assert service.client.get(f"{address}/file").status_code == 404
    assert service.client.get(f"{address}/page.png").status_code == 404


def test_the_path_is_for_who_sits_here(service: Served, home: Path) -> None:
    found, address = page(service, "leave.md")
    assert text(found, ".about code.path") == str(home / "docs" / "leave.md")
    for proxied in ("X-Forwarded-For", "Forwarded", "Via"):
        assert str(home) not in get(service, address, **{proxied: "1.2.3.4"}).text


# --- addresses that want something else

TRAVERSALS = (
    *(
        "..",
        "../..",
        "%2e%2e",
        "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "..%5c..%5cwindows",
        "%00",
        "a%00b",
        "%2fetc%2fpasswd",
    ),
    *("' OR 1=1 --", "%27%20OR%20%271%27%3D%271", "a" * 5_000, "\u202e", "leave.md", "-", "%ff%fe"),
)


def raw(service: Served, address: str) -> tuple[int, bytes]:
    """As it is: httpx would make "/a/../b" shorter."""
    connection = http.client.HTTPConnection(service.client.base_url.host, service.client.base_url.port, timeout=30)
    try:
        connection.request("GET", address, headers=HTML)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_leads_out(service: Served, name: str) -> None:
    known = passages(service, "manual.pdf")[0]
    for address in (
        f"/sources/default/{name}",
        f"/sources/default/{name}/page.png",
        f"/sources/default/{name}/file",
        f"/sources/{name}/{known}",
        f"/sources/{name}/{known}/file",
        f"/reports/default/{name}",
        f"/reports/{name}/latest",
        f"/sources/default/{known}/{name}",
    ):
        status, body = raw(service, quote(address, safe="/%'=-"))
        assert status in (400, 404), address
        assert b"root:" not in body


@pytest.fixture(scope="module")
def guarded(home: Path) -> Iterator[Served]:
    clients = {
        "one": ClientSettings(key=keys.digest(KEY), collections=("default",)),
        "two": ClientSettings(key=keys.digest(OTHER), collections=("other",)),
    }
    given = msgspec.structs.replace(served.settings(home / "data"), clients=clients)
    with Served(given) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_each_client_sees_its_own_collections(guarded: Served, home: Path) -> None:
    mine = passages(guarded, "manual.pdf", headers=bearer(KEY))[0]
    secret = passages(guarded, "secret.md", "other", headers=bearer(OTHER))[0]
    assert guarded.client.get(f"/sources/default/{mine}", headers={**HTML, **bearer(KEY)}).status_code == 200
    report = newest_report(home)
    for address in (f"/sources/default/{mine}", f"/sources/default/{mine}/page.png", f"/sources/default/{mine}/file"):
        assert guarded.client.get(address, headers=bearer(OTHER)).status_code == 404
        assert guarded.client.get(address).status_code == 401
    for address in (f"/sources/other/{secret}", f"/sources/default/{secret}", "/reports/other/x"):
        reply = guarded.client.get(address, headers={**HTML, **bearer(KEY)})
        assert (reply.status_code, "A secret." in reply.text) == (404, False)
    assert guarded.client.get(f"/reports/default/{report}", headers=bearer(KEY)).status_code == 200
    assert guarded.client.get(f"/reports/default/{report}", headers=bearer(OTHER)).status_code == 404


def test_no_path_is_shown_where_keys_are_asked_for(guarded: Served, home: Path) -> None:
    mine = passages(guarded, "leave.md", headers=bearer(KEY))[0]
    reply = guarded.client.get(f"/sources/default/{mine}", headers={**HTML, **bearer(KEY)})
    assert reply.status_code == 200
    assert str(home) not in reply.text


# --- reports


def newest_report(home: Path) -> str:
    return max(path.stem for path in (home / "data" / "default" / "runs").glob("*.html"))


def test_the_report_of_a_run(service: Served, home: Path) -> None:
    name = newest_report(home)
    reply = get(service, f"/reports/default/{name}")
    assert reply.status_code == 200
    assert "<h1>" in reply.text
    policy = reply.headers["content-security-policy"]
    assert re.search("style-src 'sha256-[A-Za-z0-9+/]{43}='", policy)
    assert policy.startswith("default-src 'none'")
    assert "script" not in policy
    assert get(service, f"/reports/default/{name}.html").text == reply.text
    assert get(service, f"/reports/other/{name}").status_code == 404, "it is another collection's"
    linked = css(lxml.html.document_fromstring(get(service, "/").text), "footer a")
    assert f"/reports/default/{name}" in [link.get("href") for link in linked]


def test_nothing_else_of_the_folder_is_a_report(service: Served, home: Path) -> None:
    runs = home / "data" / "default" / "runs"
    (runs / "notes.html").write_text("<script>alert(1)</script>")
    name = newest_report(home)
    try:
        for asked in ("notes", "notes.html", f"{name}.json", f"../runs/{name}", "..%2fVERSION"):
            assert get(service, f"/reports/default/{asked}").status_code == 404
    finally:
        (runs / "notes.html").unlink()


# --- a model server that is down


class Modelless(Shelf):
    """A shelf whose models are out of reach."""

    async def open(self, name: str) -> Opened:
        raise errors.ServerUnreachable("No answer from the model server.", "Start it.")


def test_a_source_needs_no_model(service: Served, home: Path) -> None:
    address = f"/sources/default/{passages(service, 'leave.md')[0]}"
    drawn = f"/sources/default/{passages(service, 'manual.pdf')[0]}/page.png"
    before = set(multiprocessing.active_children())

    async def go() -> tuple[httpx.Response, httpx.Response]:
        app = fastapi.FastAPI()
        app.include_router(source.router(Modelless(served.settings(home / "data"), Meter())))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://a") as client,
        ):
            replies = await client.get(address), await client.get(drawn)
            assert set(multiprocessing.active_children()) - before, "a process draws"
            return replies

    text_, picture_ = asyncio.run(go())
    assert (text_.status_code, "twenty-five days" in text_.text, picture_.status_code) == (200, True, 200)
    assert set(multiprocessing.active_children()) <= before, "and ends with the server"


# --- last, since it keeps a process busy until its server ends


def test_a_slow_pdf_keeps_nobody_waiting(guarded: Served) -> None:
    """Its page is there with the text while it is being drawn, and another picture is drawn meanwhile."""
    ask = {**HTML, **bearer(KEY)}
    slow, good = (passages(guarded, path, headers=bearer(KEY))[0] for path in ("slow.pdf", "manual.pdf"))
    found = lxml.html.document_fromstring(guarded.client.get(f"/sources/default/{slow}", headers=ask).text)
    assert "slow page tells of snow" in text(found, ".document mark")
    assert css(found, "figure img")
    assert guarded.client.get(f"/sources/default/{good}/page.png", headers=ask).status_code == 200
