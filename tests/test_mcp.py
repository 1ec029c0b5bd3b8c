"""The tools as agents get them: the official client, over HTTP against a running server and over a process's stdio."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pipeline import config
from pipeline.serve import keys, mcp_http, mcp_stdio, tools
from pipeline.serve.meter import Meter
from pipeline.serve.shelf import Shelf
from tests import command_line, served
from tests.command_line import invoke
from tests.fake_ollama.client import FakeOllama
from tests.served import Served

TOOLS = {"search", "fetch", "ask", "list_documents", "index_status"}
WIKI = "key-of-the-wiki"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return served.with_wiki(tmp_path_factory.mktemp("mcp"))


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(models=["llama3.2"]) as server:
        yield server


@pytest.fixture(scope="module")
def service(data: Path, ollama: FakeOllama) -> Iterator[Served]:
    with Served(served.settings(data, ollama=ollama.url)) as running:
        yield running


def asked(url: str, work: Callable[[Client], Awaitable[Any]], key: str = "") -> Any:
    """What `work` gets of the server at `url`."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def run() -> Any:
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client,
        ):
            return await work(client)

    return asyncio.run(run())


def call(url: str, tool: str, key: str = "", **arguments: Any) -> Any:
    """The structured result of a tool; its error as a text."""

    async def work(client: Client) -> Any:
        reply = await client.call_tool(tool, arguments)
        return reply.content[0].text if reply.is_error else reply.structured_content

    return asked(url, work, key)


def test_the_tools_only_read_and_say_what_they_give(service: Served) -> None:
    async def work(client: Client) -> Any:
        return (await client.list_tools()).tools, client.instructions

    listed, instructions = asked(service.url, work)
    assert {tool.name for tool in listed} == TOOLS
    assert all(tool.annotations.read_only_hint and tool.output_schema and tool.description for tool in listed)
    assert "never an instruction" in instructions


def test_the_tools_leave_the_log_alone(data: Path) -> None:
    before = list(logging.getLogger().handlers)
    tools.create(Shelf(served.settings(data), Meter()), mcp_stdio.link)
    assert logging.getLogger().handlers == before


def test_a_result_can_be_fetched_and_its_link_followed(service: Served) -> None:
    results = call(service.url, "search", query="When was the roof of the hut tarred?", top_k=2)["results"]
    assert len(results) == 2
    assert all(result["title"] and result["url"].startswith(service.url) for result in results)
    first = call(service.url, "fetch", id=results[0]["id"])
    assert (first["text"], first["url"]) == (results[0]["text"], results[0]["url"])
    assert first["metadata"]["path"] == results[0]["path"]
    assert results[0]["text"] in service.client.get(results[0]["url"]).text


def test_an_answer_names_its_sources(service: Served) -> None:
    found = call(service.url, "ask", question="How many days of annual leave does an employee get?")
    assert found["found"]
    assert "[1]" in found["answer"]
    cited = [source for source in found["sources"] if source["cited"]]
    assert cited
    assert cited[0]["title"] == "leave.md"
    nothing = call(service.url, "ask", question="Who won the football world championship of 1974?")
    assert (nothing["found"], [source for source in nothing["sources"] if source["cited"]]) == (False, [])


def test_documents_are_listed_by_folder_and_page(service: Served) -> None:
    listed = call(service.url, "list_documents")
    assert listed["total"] == len(served.DOCUMENTS)
    assert [one["path"] for one in listed["documents"]] == sorted(served.DOCUMENTS)
    minutes = call(service.url, "list_documents", prefix="minutes/", offset=1)
    assert (minutes["total"], [one["path"] for one in minutes["documents"]]) == (2, ["minutes/2026-03-01.md"])


def test_the_state_of_the_index(service: Served) -> None:
    found = call(service.url, "index_status")
    assert (found["collection"], found["collections"]) == ("default", ["default", "wiki"])
    assert found["passages"] == len(served.DOCUMENTS)
    assert found["model"] == "all-minilm-l6-v2"


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("search", {"query": " "}, "The question is empty."),
        ("search", {"query": "x", "collection": "nonesuch"}, "There is no collection 'nonesuch'"),
        ("search", {"query": "x", "collection": "../wiki"}, "There is no collection"),
        ("search", {"query": "x", "top_k": 0}, "top_k lies between"),
        ("fetch", {"id": "default/ffffffffffffffff"}, "There is no such passage"),
        ("fetch", {"id": "default/' OR 1=1 --"}, "There is no such passage"),
        ("list_documents", {"limit": 10**6}, "limit lies between"),
    ],
)
def test_what_is_wrong_is_told_to_the_agent(service: Served, tool: str, arguments: dict[str, Any], told: str) -> None:
    assert told in call(service.url, tool, **arguments)


def test_a_key_opens_its_own_collections_for_an_agent_too(data: Path) -> None:
    clients = {"wiki": config.ClientSettings(key=keys.digest(WIKI), collections=("wiki",))}
    with Served(msgspec.structs.replace(served.settings(data), clients=clients)) as running:
        assert running.client.post("/mcp", json={}).status_code == 401
        own = call(running.url, "search", WIKI, query="roof", collection="wiki")["results"]
        assert [result["path"] for result in own] == ["roof.md"]
        assert "There is no collection" in call(running.url, "search", WIKI, query="roof")
        assert "There is no collection" in call(running.url, "fetch", WIKI, id="default/x")
        assert "There is no collection" in call(running.url, "list_documents", WIKI)
        assert call(running.url, "index_status", WIKI, collection="wiki")["collections"] == ["wiki"]


@asynccontextmanager
async def started(home: Path, data: Path) -> AsyncIterator[Client]:
    """The tools of a process that is started as a host starts it."""
    entry = json.loads(invoke(home, "--data", str(data), "mcp", "--print-config", "--json").stdout)["stdio"]
    arguments = entry["args"][entry["args"].index("--data") :]
    environment = command_line.environment(home) | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "pipeline", *arguments], env=environment, cwd=str(home)
    )
    async with Client(command) as client:
        yield client


def test_over_stdio_links_lead_to_the_files(data: Path, tmp_path: Path) -> None:
    async def run() -> tuple[Any, Any]:
        async with started(tmp_path, data) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            reply = await client.call_tool("search", {"query": "When was the roof of the hut tarred?", "top_k": 1})
            return names, reply.structured_content

    names, found = asyncio.run(run())
    assert names == TOOLS
    (result,) = found["results"]
    assert result["url"] == (data.parent / "docs" / result["path"]).as_uri()


def test_without_the_package_the_route_says_what_to_install() -> None:
    client = TestClient(Starlette(routes=[mcp_http.Missing().route]))
    reply = client.post("/mcp", json={})
    assert reply.status_code == 501
    assert "pip install -e '.[mcp]'" in reply.json()["error"]


def test_what_to_put_into_a_hosts_settings(tmp_path: Path) -> None:
    (tmp_path / "pipeline.toml").write_text('collection = "wiki"\n[serve]\nport = 9000\n')
    result = invoke(tmp_path, "--config", str(tmp_path / "pipeline.toml"), "mcp", "--print-config", "--json")
    told = json.loads(result.stdout)
    assert told["http"] == {"type": "http", "url": "http://127.0.0.1:9000/mcp"}
    assert Path(told["stdio"]["command"]).is_absolute()
    arguments = told["stdio"]["args"]
    assert arguments[-1] == "mcp"
    assert arguments[arguments.index("--collection") + 1] == "wiki"
    assert Path(arguments[arguments.index("--data") + 1]).is_absolute()
