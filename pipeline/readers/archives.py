"""Zip-based formats: told apart by their members, refused before any parser sees a bomb.

Unpacks nothing but small members.

Limits from 480 real files, none of which comes near them: more than 300 MB unpacked, or more than 30 MB at a ratio
above 150.
"""

from __future__ import annotations

import io
import zipfile
import zlib

from pipeline import errors
from pipeline.readers import formats

MAX_UNPACKED = 300_000_000
SUSPECT_UNPACKED = 30_000_000
SUSPECT_RATIO = 150
MAX_MEMBERS = 50_000

_OPEN_DOCUMENT = {
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.text-template": "odt",
    "application/vnd.oasis.opendocument.spreadsheet": "ods",
    "application/vnd.oasis.opendocument.spreadsheet-template": "ods",
    "application/vnd.oasis.opendocument.presentation": "odp",
    "application/vnd.oasis.opendocument.presentation-template": "odp",
}


def opened(data: bytes) -> zipfile.ZipFile:
    """The archive, its declared sizes checked.

    Raises:
        DocumentError: damaged (no readable directory), zip_bomb, encrypted.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, OSError) as error:
        raise errors.DocumentError("damaged", f"not a readable zip archive: {error}") from error
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    # The sum of what the directory declares: two entries over the same bytes (a "better zip bomb") count twice.
    if unpacked > MAX_UNPACKED or (unpacked > SUSPECT_UNPACKED and unpacked > SUSPECT_RATIO * len(data)):
        raise errors.DocumentError("zip_bomb", f"{len(data)} bytes that unpack to {unpacked}")
    if len(members) > MAX_MEMBERS:
        raise errors.DocumentError("zip_bomb", f"{len(members)} members")
    if any(member.flag_bits & 1 for member in members):
        raise errors.DocumentError("encrypted", "protected by a password", "Save a copy without the password.")
    return archive


def member(archive: zipfile.ZipFile, name: str) -> bytes:
    """One member's bytes, never more than it declares.

    Raises:
        DocumentError: damaged (absent, or it does not unpack).
    """
    try:
        info = archive.getinfo(name)
        with archive.open(info) as file:
            return file.read(info.file_size + 1)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise errors.DocumentError("damaged", f"the archive's member {name!r} cannot be read: {error}") from error


def format_name(data: bytes, promised: formats.Format | None) -> str:
    """Name of the format that is packed in this zip.

    Raises:
        DocumentError: see `opened`; unknown_type for a plain archive.
    """
    with opened(data) as archive:
        names = set(archive.namelist())
        if "mimetype" in names:
            mimetype = member(archive, "mimetype").decode("ascii", "replace").strip()
            if found := _OPEN_DOCUMENT.get(mimetype, "epub" if mimetype == "application/epub+zip" else ""):
                return found
    for folder, found in (("word/", "docx"), ("ppt/", "pptx"), ("xl/", "xlsx")):
        if "[Content_Types].xml" in names and any(name.startswith(folder) for name in names):
            return found
    if "META-INF/container.xml" in names:
        return "epub"
    if promised is not None and promised.name in ("odt", "ods", "odp") and "content.xml" in names:
        return promised.name
    raise errors.DocumentError("unknown_type", "a zip archive", "Set readers.archives = true to read what is in it.")
