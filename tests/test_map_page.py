"""The map as a browser gets it from a running server: the page, points, texts and hits; and to whom it is closed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from lxml import html as parser

from pipeline import chart, config, query
from pipeline.progress import Silent
from pipeline.serve import keys
from pipeline.serve.web import map as map_page
from pipeline.serve.web import words
from tests import served
from tests.served import Served

KEY, OTHER = "the key of all", "the key of another collection"
PAGE = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> config.Settings:
    """Two collections, "default" with a map and "bare" without; a third, "later", is published after its map."""
    folder = tmp_path_factory.mktemp("page")
    given = served.settings(folder / "data")
    hostile = {"evil.md": "# <script>alert(1)</script>\n\nA document about <img src=x onerror=alert(2)> gauges.\n"}
    docs = served.write(folder / "docs", served.DOCUMENTS | hostile)
    for name in ("default", "bare", "later"):
        served.build(given, docs, name)
    for name in ("default", "later"):
        chart.make(msgspec.structs.replace(given, collection=name), Silent())
    (docs / "leave.md").unlink()
    (docs / "new.md").write_text("# Lightning\n\nDuring a thunderstorm the mast is left at once.\n")
    served.build(given, docs, "later")
    return given


@pytest.fixture(scope="module")
def running(settings: config.Settings) -> Iterator[Served]:
    with Served(settings) as server:
        yield server


def page(running: Served, address: str = "/map", **headers: str) -> Any:
    reply = running.client.get(address, headers=PAGE | headers)
    assert reply.status_code == 200, reply.text
    assert "default-src 'self'" in reply.headers["Content-Security-Policy"]
    assert reply.headers["Cache-Control"] == "no-store"
    return parser.document_fromstring(reply.text)


def source(running: Served, which: str, address: str = "/map") -> str:
    found: str = page(running, address).get_element_by_id("map").get(f"data-{which}")
    return found


def made(settings: config.Settings, name: str = "default") -> chart.Chart:
    standing = query.open_collection(msgspec.structs.replace(settings, collection=name))
    found = chart.newest(standing.collection, standing.note)
    assert found is not None
    return chart.read(standing.collection, found[0])


def test_the_page_shows_the_groups_without_a_script_and_runs_none_of_its_own(
    running: Served, settings: config.Settings
) -> None:
    root = page(running)
    drawn = made(settings)
    assert root.xpath("//nav//a[@aria-current]")[0].text_content() == "Map"
    assert root.get_element_by_id("map").get("hidden"), "the script shows it"
    links = root.xpath("//section[contains(@class, 'map-groups')]//li/a")
    ids = drawn.rows["chunk_id"].to_pylist()
    assert [link.get("href") for link in links] == [
        f"/sources/default/{ids[row]}" for group in drawn.note.groups for row in group.typical
    ]
    assert not root.xpath("//script[not(@src)] | //style | //@style | //main//script | //@onerror | //main//img")
    assert any("map.js" in address for address in root.xpath("//script/@src"))
    picture = root.xpath("//canvas")[0]
    assert picture.get("tabindex") == "0"
    assert str(drawn.note.points) in picture.get("aria-label")
    assert root.get_element_by_id(picture.get("aria-describedby")).text_content()


def test_links_lead_to_the_sources(running: Served) -> None:
    link = page(running).xpath("//section[contains(@class, 'map-groups')]//li/a")[0]
    reply = running.client.get(link.get("href"), headers=PAGE)
    assert reply.status_code == 200, reply.text


def test_the_page_in_chinese(running: Served) -> None:
    root = page(running, "/map?lang=zh")
    assert root.xpath("//h1")[0].text == words.of("zh")["map"]
    assert words.of("zh")["map_keys"] in root.text_content()
    links = root.xpath("//section[contains(@class, 'map-groups')]//li/a/@href")
    assert links
    assert all(link.endswith("?lang=zh") for link in links)


def test_where_no_map_was_drawn_the_page_says_what_to_type(running: Served) -> None:
    root = page(running, "/map?collection=bare")
    assert root.xpath("//main//code")[0].text == "pipeline map --collection bare"
    assert not root.xpath("//canvas")


def test_where_nothing_is_published_the_page_says_so(running: Served) -> None:
    root = page(running, "/map?collection=none")
    assert "pipeline run DOCS" in root.xpath("//main//code")[0].text


def test_a_map_of_an_older_publication_is_shown_and_named_so(running: Served, settings: config.Settings) -> None:
    root = page(running, "/map?collection=later")
    assert "older publication" in root.xpath("//*[contains(@class, 'warn')]")[0].text_content()
    assert root.xpath("//main//code")[0].text == "pipeline map --collection later"
    drawn = made(settings, "later")
    gone = drawn.rows["uri"].to_pylist().index("leave.md")
    address = root.get_element_by_id("map").get("data-passages")
    told = running.client.get(f"{address}?i={gone}").json()["passages"][0]
    assert told["text"] is None, "it is not in the index any more"


def test_a_damaged_map_is_no_server_error(running: Served, settings: config.Settings) -> None:
    standing = query.open_collection(msgspec.structs.replace(settings, collection="bare"))
    name = chart.made_from(standing.note, standing.note.rows)
    path = standing.collection.root / "maps" / f"{1:013d}-{name}.parquet"
    path.parent.mkdir()
    try:
        path.write_bytes(b"PAR1 and nothing else")
        root = page(running, "/map?collection=bare")
        assert root.xpath("//main//code")[0].text == "pipeline map --collection bare --again"
    finally:
        path.unlink()
        path.parent.rmdir()


def test_points_come_in_columns(running: Served, settings: config.Settings) -> None:
    reply = running.client.get(source(running, "columns"))
    told, drawn = reply.json(), made(settings)
    assert reply.headers["Cache-Control"] == "no-store"
    assert told["count"] == drawn.rows.num_rows == len(np.frombuffer(base64.b64decode(told["x"]), "<u2"))
    assert [told["files"][n] for n in np.frombuffer(base64.b64decode(told["file"]), "<u4")] == drawn.rows[
        "uri"
    ].to_pylist()
    assert "text" not in told, "texts are asked for when they are looked at"


def test_a_passage_is_read_when_it_is_looked_at(running: Served, settings: config.Settings) -> None:
    address, drawn = source(running, "passages"), made(settings)
    number = drawn.rows["uri"].to_pylist().index("safety.md")
    (told,) = running.client.get(f"{address}?i={number}").json()["passages"]
    assert told["i"] == number
    assert "works alone on the ridge" in told["text"]
    assert told["heading"] == "Safety › Snow"
    assert told["href"] == f"/sources/default/{drawn.rows['chunk_id'][number].as_py()}"
    both = running.client.get(f"{address}?i=0&i=1").json()["passages"]
    assert [one["i"] for one in both] == [0, 1]


def test_hits_of_a_question_are_points(running: Served, settings: config.Settings) -> None:
    told = running.client.get(source(running, "hits"), params={"q": "How many days of leave?"}).json()["hits"]
    uris = made(settings).rows["uri"].to_pylist()
    assert told[0]["path"] == uris[told[0]["i"]] == "leave.md"
    later = running.client.get(
        source(running, "hits", "/map?collection=later"), params={"q": "thunderstorm lightning mast"}
    ).json()["hits"]
    assert later[0]["path"] == "new.md"
    assert later[0]["i"] is None, "it was published after the map was drawn"


@pytest.mark.parametrize("numbers", ["i=-1", "i=100000", "i=x", "", "i=1&" * (map_page.MOST_TEXTS + 1) + "i=1"])
def test_points_that_there_are_none_of_are_refused(running: Served, numbers: str) -> None:
    assert running.client.get(f"{source(running, 'passages')}?{numbers}").status_code in (400, 422)


@pytest.mark.parametrize("name", ["none", "..%2F..%2FVERSION", "1795392239641-cc7f723e07f16f80", "%00", "*"])
@pytest.mark.parametrize("which", ["", "/passages?i=0", "/hits?q=snow"])
def test_maps_that_there_are_none_of_are_refused(running: Served, name: str, which: str) -> None:
    reply = running.client.get(f"/map/data/default/{name}{which}")
    assert reply.status_code in (400, 404), reply.text
    assert "VERSION" not in reply.text


def test_another_client_s_collection_stays_closed(settings: config.Settings) -> None:
    clients = {
        "all": config.ClientSettings(key=keys.digest(KEY)),
        "other": config.ClientSettings(key=keys.digest(OTHER), collections=("bare",)),
    }
    locked = msgspec.structs.replace(settings, clients=clients)
    with Served(locked) as running:
        addresses = [source_of(running, which) for which in ("columns", "passages", "hits")]
        asked = [f"{address}?{more}" for address, more in zip(addresses, ("", "i=0", "q=snow"), strict=True)]
        for address in asked:
            assert get(running, address, KEY).status_code == 200
            refused, none = (get(running, one, OTHER) for one in (address, address.replace("/default/", "/none/")))
            assert refused.status_code == none.status_code == 404
            assert refused.text.replace("default", "none") == none.text, "as if it were not there"
            assert running.client.get(address).status_code == 401
        assert "snow" not in get(running, "/map?collection=default", OTHER).text.lower()


def get(running: Served, address: str, key: str) -> httpx.Response:
    return running.client.get(address, headers={"Authorization": f"Bearer {key}"})


def source_of(running: Served, which: str) -> str:
    root = parser.document_fromstring(get(running, "/map", KEY).text)
    found: str = root.get_element_by_id("map").get(f"data-{which}")
    return found


def test_drawing_is_no_business_of_a_request(running: Served, settings: config.Settings) -> None:
    page(running, "/map?collection=bare")
    assert not (Path(settings.data) / "bare" / "maps").exists()
