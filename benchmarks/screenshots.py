"""The pictures of the page in docs/: `pipeline serve` over sample_docs, in a Chromium of this machine.

    python -m benchmarks.screenshots [--out docs]

Written: page-search.png (what a question finds) and page-source.png (the page of a PDF with the passage marked). The
documents are those of the repository and the model is the one in the package, so that they show what `make embed` and
`make serve` do. Each has 128 colours at most, which text and flat areas survive; its size is printed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image

from pipeline import config
from tests import served
from tests.browser import chromium

if TYPE_CHECKING:
    from playwright.sync_api import Page

SAMPLES = Path(__file__).parent.parent / "sample_docs"
QUESTION = "How long may the supply cable be?"
SIZE = {"width": 1200, "height": 800}
COLOURS = 128
# Seen through a proxy, the page keeps to itself where files lie on the machine, which is nothing for a picture.
FROM_AFAR = {"X-Forwarded-For": "192.0.2.1"}


def write_picture(page: Page, path: Path) -> None:
    page.evaluate("document.fonts.ready")
    page.screenshot(path=path)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.name:16} {path.stat().st_size / 1024:6.0f} KiB")


def take(page: Page, url: str, out: Path) -> None:
    """Both pictures of the server at `url`."""
    for _ in range(2):  # the first question waits for the model to be loaded, and the page says how long it took
        page.goto(f"{url}/?q={quote(QUESTION)}")
    page.get_by_role("article").first.wait_for()
    write_picture(page, out / "page-search.png")
    page.get_by_role("article").filter(has_text=served.MANUAL.name).first.get_by_role("link").first.click()
    page.wait_for_url("**/sources/**")
    page.get_by_role("figure").get_by_role("img").evaluate("(image) => image.decode()")
    write_picture(page, out / "page-source.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for the pictures (docs)")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        given: config.Settings = served.settings(Path(folder))
        served.build(given, SAMPLES)
        try:
            with served.Served(given) as service, chromium.started() as browser:
                context = browser.new_context(
                    viewport=SIZE, locale="en-GB", color_scheme="light", extra_http_headers=FROM_AFAR
                )
                take(context.new_page(), service.url, out)
        except chromium.NoBrowser as none:
            sys.exit(str(none))


if __name__ == "__main__":
    main()
