"""A page of the server as a browser without a script reads it, for tests."""

from __future__ import annotations

import re

import httpx
import lxml.html

from pipeline.serve.web import assets
from tests.served import Served

HTML = {"Accept": "text/html,application/xhtml+xml"}


class Page:
    """A page as a browser without a script reads it."""

    def __init__(self, reply: httpx.Response) -> None:
        self.reply = reply
        self.root = lxml.html.fromstring(reply.text)

    def texts(self, path: str) -> list[str]:
        return [" ".join(found.text_content().split()) for found in self.root.xpath(path)]

    def text(self, path: str) -> str:
        (found,) = self.texts(path)
        return found

    def links(self, path: str) -> list[str]:
        return [str(found) for found in self.root.xpath(f"{path}/@href")]


def get(running: Served, address: str = "/", **parameters: str) -> Page:
    return Page(running.client.get(address, params=parameters or None, headers=HTML))


def check_harmless(page: Page) -> None:
    """Our own elements alone, scripts from /static alone, links into this server alone."""
    assert {str(src) for src in page.root.xpath("//script/@src")} <= {assets.address(name) for name in assets.names()}
    assert page.root.xpath("//script[not(@src)] | //style | //iframe | //svg | //object | //b") == []
    assert [src for src in page.root.xpath("//img/@src") if not str(src).startswith("/static/")] == []
    assert page.root.xpath("//@*[starts-with(name(), 'on')] | //@style") == []
    assert [link for link in page.root.xpath("//@href | //@action") if not re.match(r"/(?!/)|#", str(link))] == []
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e\u200b]", page.reply.text)
