"""A page on which nothing goes wrong unseen: every browser test ends with `Watched.check`.

It notes errors on the console (refusals of the content security policy are such), exceptions of scripts, dialogs,
requests to any other host, requests that failed, and answers of 500 and above. A test that causes one of these says so
first, by `expect`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request, Response, Route

PATIENCE_MS = 30_000  # a machine with two slow cores runs three of these at once
# Refusals that the browser tells to listeners alone, noted in the page itself from before its first line.
_REFUSALS = """
addEventListener("securitypolicyviolation",
  (event) => console.error(`refused by the policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


class Watched:
    """A context of the browser, its pages and what went wrong on them."""

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.context = context
        self.origin = origin
        self.problems: list[str] = []
        self._expected: list[re.Pattern[str]] = []
        context.set_default_timeout(PATIENCE_MS)
        context.route("**/*", self._let_through)
        context.add_init_script(_REFUSALS)
        context.on("page", self._watch)

    def open(self, path: str = "/") -> Page:
        """A new page at `path` of the server."""
        page = self.context.new_page()
        page.goto(self.origin + path)
        return page

    def expect(self, *patterns: str) -> None:
        """These (regular expressions) are meant to go wrong in this test, and must."""
        self._expected += [re.compile(pattern) for pattern in patterns]

    def check(self) -> None:
        """AssertionError with everything that went wrong and was not expected, or was expected and did not."""
        for page in self.context.pages:
            page.title()  # what it told before has then arrived here
        missing = [f"did not happen: {wanted.pattern}" for wanted in self._expected if not self._any(wanted)]
        found = [problem for problem in self.problems if not any(wanted.search(problem) for wanted in self._expected)]
        assert not found + missing, "\n".join(found + missing)

    def _any(self, wanted: re.Pattern[str]) -> bool:
        return any(wanted.search(problem) for problem in self.problems)

    def _let_through(self, route: Route) -> None:
        """Nothing leaves the machine, whatever a document would have the browser load."""
        target = urlsplit(route.request.url)
        if target.scheme in ("data", "blob") or f"{target.scheme}://{target.netloc}" == self.origin:
            route.continue_()
            return
        self.problems.append(f"request to another host: {route.request.url}")
        route.abort()

    def _watch(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("dialog", self._dialog)
        page.on("requestfailed", self._failed)
        page.on("response", self._response)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            where: Any = message.location
            self.problems.append(f"console {message.type}: {message.text} ({where.get('url', '')})")

    def _dialog(self, dialog: Dialog) -> None:
        self.problems.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _failed(self, request: Request) -> None:
        # What a page itself takes back, typing on or leaving, is no failure.
        if request.failure and "ERR_ABORTED" not in request.failure:
            self.problems.append(f"failed: {request.method} {request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        if response.status >= 500:
            self.problems.append(f"answered {response.status}: {response.url}")


@contextmanager
def watching(browser: Browser, origin: str, **options: Any) -> Iterator[Watched]:
    """A fresh context over the server at `origin`, English and light unless `options` say else; what went wrong in it
    is an AssertionError at its end.
    """
    context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1200, "height": 900}, **options})
    try:
        found = Watched(context, origin)
        yield found
        found.check()
    finally:
        context.close()
