"""A Chromium of this machine: where it is found, and how it is started. Nothing is ever downloaded.

PIPELINE_CHROMIUM names one (empty: none is wanted); else those of the PATH and of macOS's application folders. Its
driver, playwright's, brings no browser of its own in the wheel.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

VARIABLE = "PIPELINE_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
APPLICATIONS = ("Chromium.app/Contents/MacOS/Chromium", "Google Chrome.app/Contents/MacOS/Google Chrome")
FOLDERS = (Path("/Applications"), Path.home() / "Applications")
OPTIONS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",  # a test reads the colour of pixels
)


class NoBrowser(Exception):
    """There is none to use; its text says why in one line."""


def find(environment: Mapping[str, str] = os.environ, folders: tuple[Path, ...] = FOLDERS) -> Path:
    """The browser to use. NoBrowser where there is none; ValueError where PIPELINE_CHROMIUM names no program."""
    named = environment.get(VARIABLE)
    if named is not None:
        if not named:
            raise NoBrowser(f"{VARIABLE} is empty: no browser is wanted")
        if (program := shutil.which(named)) is None:
            raise ValueError(f"{VARIABLE} names no program: {named}")
        return Path(program)
    path = environment.get("PATH", "")
    found = next(filter(None, (shutil.which(name, path=path) for name in NAMES)), None)
    if found is not None:
        return Path(found)
    installed = (folder / name for folder in folders for name in APPLICATIONS)
    program = next((entry for entry in installed if os.access(entry, os.X_OK)), None)
    if program is None:
        raise NoBrowser(f"no Chromium on this machine (install one, or name one in {VARIABLE})")
    return program


@contextmanager
def started() -> Iterator[Browser]:
    """A browser without a window. NoBrowser where there is none, or where the one that was found does not start."""
    program = find()
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise NoBrowser(f"playwright is not installed ({error})") from None
    # As root, as in a container, Chromium refuses its sandbox.
    options = [*OPTIONS, *(["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else [])]
    with sync_playwright() as driver:
        try:
            browser = driver.chromium.launch(executable_path=program, headless=True, args=options)
        except Error as error:
            if VARIABLE in os.environ:
                raise
            # Such as Ubuntu's chromium-browser without its snap.
            raise NoBrowser(f"{program} does not start: {error.message.splitlines()[0]}") from None
        try:
            yield browser
        finally:
            browser.close()
