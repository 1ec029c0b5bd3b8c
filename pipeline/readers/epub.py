"""EPUB: the chapters in the order of the spine, each read as XHTML and counted as a page."""

from __future__ import annotations

import posixpath
import urllib.parse
import zipfile

from lxml import etree

from pipeline import errors
from pipeline.readers import archives, build, html, xmltree

_PAGES = frozenset(("application/xhtml+xml", "text/html"))


def read(data: bytes, name: str) -> build.Draft:
    builder = build.Builder()
    with archives.opened(data) as archive:
        if "META-INF/encryption.xml" in archive.namelist() and _is_protected(archive):
            raise errors.DocumentError("encrypted", "protected by digital rights management")
        place, package = _package(archive)
        chapters = _chapters(package, posixpath.dirname(place))
        read_any = False
        for page, chapter in enumerate(chapters, 1):
            if chapter in archive.NameToInfo:
                read_any = True
                _add_chapter(builder, archives.member(archive, chapter), page)
        if not read_any:
            raise errors.DocumentError("damaged", "no chapter of the spine is in the archive")
    title = next((element.text for element in package.iter("{*}title") if element.text), "")
    return builder.draft(title or "")


def _add_chapter(builder: build.Builder, data: bytes, page: int) -> None:
    builder.begin_file()
    try:
        html.add_page(data, builder, page=page)
    except errors.DocumentError as error:
        if error.kind != "empty":  # a chapter that is a picture
            raise


def _is_protected(archive: zipfile.ZipFile) -> bool:
    """Whether more than fonts is encrypted (those are merely obfuscated, in many free books)."""
    root = xmltree.parse(archives.member(archive, "META-INF/encryption.xml"), "META-INF/encryption.xml")
    names = [element.get("URI", "") for element in root.iter("{*}CipherReference")]
    return any(not name.lower().endswith((".otf", ".ttf", ".woff", ".woff2")) for name in names)


def _package(archive: zipfile.ZipFile) -> tuple[str, etree._Element]:
    container = xmltree.parse(archives.member(archive, "META-INF/container.xml"), "META-INF/container.xml")
    for element in container.iter("{*}rootfile"):
        place = urllib.parse.unquote(element.get("full-path", ""))
        return place, xmltree.parse(archives.member(archive, place), place)
    raise errors.DocumentError("damaged", "META-INF/container.xml names no package")


def _chapters(package: etree._Element, folder: str) -> list[str]:
    """Paths in the archive, in reading order, each once, as EPUB wants it: named 10,000 times, it is a bomb."""
    items = {element.get("id"): element for element in package.iter("{*}item")}
    found = []
    for reference in package.iter("{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is not None and item.get("media-type") in _PAGES:
            target = urllib.parse.unquote(item.get("href", "").partition("#")[0])
            found.append(posixpath.normpath(posixpath.join(folder, target)))
    return list(dict.fromkeys(found))
