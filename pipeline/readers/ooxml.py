"""Office files made plain for the libraries that read them: what they would drop is put where they look.

- Text boxes, content controls, tracked insertions, custom XML and ruby (furigana) of a Word document become ordinary
  paragraphs and runs: python-docx, and so unstructured, sees none of them.
- "Strict" files (ISO 29500-1; Word and LibreOffice save them by choice) get the usual names of elements: no library
  here knows the strict ones, openpyxl reads such a workbook as empty.

A file without any of these is passed on as it is.
"""

from __future__ import annotations

import io
import re
import zipfile

from lxml import etree

from pipeline import errors
from pipeline.readers import archives, xmltree

_BODY = "word/document.xml"
_STRICT = re.compile(rb"http://purl\.oclc\.org/ooxml/([a-zA-Z]+)/([a-zA-Z])")
_STRICT_MARK = b"http://purl.oclc.org/ooxml/"
_HIDDEN = re.compile(rb"<w:(?:sdt|ins|moveTo|smartTag|customXml|ruby|txbxContent)\b")
_WORD = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # the same again for old programs
_TRANSPARENT = tuple(_WORD + name for name in ("sdt", "sdtContent", "ins", "moveTo", "smartTag", "customXml"))
_PROPERTIES = tuple(_WORD + name for name in ("sdtPr", "sdtEndPr", "smartTagPr", "customXmlPr", "rt", "rubyPr"))


def prepared(data: bytes) -> bytes:
    """The same document for a library; `data` itself where nothing has to be changed.

    Raises:
        DocumentError: see `archives.opened`.
    """
    with archives.opened(data) as archive:
        changed = _transitional(archive) if _is_strict(archive) else {}
        if _BODY in archive.NameToInfo:
            body = changed.get(_BODY) or archives.member(archive, _BODY)
            if _HIDDEN.search(body):
                changed[_BODY] = _uncovered(body)
        return _repacked(archive, changed) if changed else data


def _is_strict(archive: zipfile.ZipFile) -> bool:
    return any(
        _STRICT_MARK in archives.member(archive, name)
        for name in (_BODY, "xl/workbook.xml", "ppt/presentation.xml")
        if name in archive.NameToInfo
    )


def _transitional(archive: zipfile.ZipFile) -> dict[str, bytes]:
    """The members in which a strict name stands, with the transitional one in its place."""
    changed = {}
    for name in archive.namelist():
        if name.endswith((".xml", ".rels")):
            content = archives.member(archive, name)
            if _STRICT_MARK in content:
                changed[name] = _STRICT.sub(rb"http://schemas.openxmlformats.org/\1/2006/\2", content)
    return changed


def _repacked(archive: zipfile.ZipFile, changed: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as copy:
        for name in dict.fromkeys(archive.namelist()):
            copy.writestr(name, changed.get(name) or archives.member(archive, name))
    return out.getvalue()


def _uncovered(body: bytes) -> bytes:
    try:
        root = xmltree.parse(body, _BODY)
    except errors.DocumentError:
        return body  # what the library makes of it decides
    for element in list(root.iter(_FALLBACK, *_PROPERTIES)):
        _remove(element)
    for box in list(root.iter(_WORD + "txbxContent")):
        _move_behind_its_paragraph(box)
    for ruby in list(root.iter(_WORD + "ruby")):
        _in_place_of_its_run(ruby)
    for element in list(root.iter(*_TRANSPARENT)):
        _unwrap(element)
    return etree.tostring(root, encoding="UTF-8", xml_declaration=True, standalone=True)


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    if parent is not None:
        parent.remove(element)


def _move_behind_its_paragraph(box: etree._Element) -> None:
    """A text box's paragraphs behind the paragraph that it hangs on; a box in a box comes behind the outer one."""
    paragraph = next((above for above in box.iterancestors(_WORD + "p")), None)
    if paragraph is None:
        return
    for child in reversed(list(box)):
        paragraph.addnext(child)
    _remove(box)


def _in_place_of_its_run(ruby: etree._Element) -> None:
    """The base text in place of the run that holds it with its reading."""
    run = ruby.getparent()
    if run is None or run.tag != _WORD + "r":
        return
    for base in ruby.iter(_WORD + "rubyBase"):
        for inner in reversed(list(base)):
            run.addnext(inner)
    run.remove(ruby)


def _unwrap(element: etree._Element) -> None:
    if element.getparent() is None:
        return
    for child in reversed(list(element)):
        element.addnext(child)
    _remove(element)
