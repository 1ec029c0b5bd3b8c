"""Word 97 to 2003 (.doc) by LibreOffice: converted to OpenDocument in a process of its own, then read as that.

LibreOffice is asked for no more than the conversion: each call has a profile of its own in a temporary folder, in which
macros, active content, linked pictures and the network are switched off, and a time limit, after which it is killed
with all its children; so it is when the worker that waits for it dies. Knows nothing of the text.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import errors, worker_process

if TYPE_CHECKING:  # the scanner asks whether there is a LibreOffice: it must not wait for what reading needs
    from pipeline.readers import build

LIMIT_S = 60.0  # of the clock, for one document; one takes 2 s of a processor
NAMES = ("soffice", "libreoffice")
PLACES = ("/Applications/LibreOffice.app/Contents/MacOS/soffice", "/opt/libreoffice/program/soffice")

# A shell that ends with the pipe that it holds, and takes the whole group of processes with it. The converter itself
# could not be told so: it is a script that starts a program that starts another.
_GUARDED = 'exec 3<&0; "$@" </dev/null >/dev/null 2>&1 & it=$!; (cat <&3 >/dev/null; kill -9 0) & wait $it; exit $?'
_OPTIONS = ("--headless", "--norestore", "--nologo", "--nodefault", "--nolockcheck", "--nofirststartwizard")
_NOWHERE = "127.0.0.1:9"

# A compound file (MS-CFB 2.2), or Word 2 and Word 6, which wrote without one.
_MAGIC = (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"\xdb\xa5", b"\xdc\xa5")

_ITEM = (
    '<item oor:path="/org.openoffice.{path}"><prop oor:name="{name}" oor:op="fuse"><value>{value}</value></prop></item>'
)
_SECURITY = "Office.Common/Security/Scripting"
_PROFILE = (
    (_SECURITY, "MacroSecurityLevel", "3"),
    (_SECURITY, "DisableMacrosExecution", "true"),
    (_SECURITY, "DisableActiveContent", "true"),
    (_SECURITY, "BlockUntrustedRefererLinks", "true"),
    ("Office.Writer/Content/Update", "Link", "0"),
    ("Office.Common/Load", "UpdateDocMode", "0"),
    ("Inet/Settings", "ooInetProxyType", "2"),
    *(("Inet/Settings", f"ooInet{kind}ProxyName", "127.0.0.1") for kind in ("HTTP", "HTTPS", "FTP")),
    *(("Inet/Settings", f"ooInet{kind}ProxyPort", "9") for kind in ("HTTP", "HTTPS", "FTP")),
    ("Inet/Settings", "ooInetNoProxy", ""),
)


def found() -> str:
    """The converter's path, "" where there is none."""
    for name in NAMES:
        if place := shutil.which(name):
            return place
    return next((place for place in PLACES if os.access(place, os.X_OK)), "")


def available() -> str:
    """The value of ReaderOptions.doc here."""
    return "libreoffice" if found() else "none"


def refuse(data: bytes, name: str) -> build.Draft:
    """Stands in where there is no LibreOffice."""
    _check(data)
    raise errors.DocumentError(
        "needs_libreoffice",
        "the old binary .doc format needs LibreOffice, which is not installed",
        "Install it (`apt install libreoffice-writer`, `brew install --cask libreoffice`), or save a copy as .docx.",
    )


def read(data: bytes, name: str) -> build.Draft:
    """Raises DocumentError: needs_libreoffice, encrypted, damaged (it cannot be converted), timeout."""
    program = found()
    if not program:
        return refuse(data, name)
    _check(data)
    if _is_encrypted(data):
        raise errors.DocumentError("encrypted", "protected by a password", "Save a copy without the password.")
    from pipeline.readers import odt

    worker_process.more_time(LIMIT_S + 5)  # what it takes is limited here, where its children can be ended too
    with tempfile.TemporaryDirectory(prefix="pipeline-doc-", ignore_cleanup_errors=True) as folder:
        return odt.read(converted(program, data, Path(folder)), name)


def _check(data: bytes) -> None:
    """What is no Word file is not given to LibreOffice, which would take it for a text of some encoding."""
    if not data.startswith(_MAGIC):
        raise errors.DocumentError("damaged", "not a Word document", "Open it by hand to see what it is.")


def _is_encrypted(data: bytes) -> bool:
    """By the flag of the file information block (MS-DOC 2.5.2), which begins with 0xA5EC at the start of a sector."""
    for start in range(512, min(len(data), 1 << 20) - 12, 512):
        if data[start : start + 2] == b"\xec\xa5":
            return bool(data[start + 11] & 1)
    return False


def converted(program: str, data: bytes, folder: Path, limit_s: float = LIMIT_S) -> bytes:
    """The document as OpenDocument text, made in the empty `folder`.

    Raises:
        DocumentError: damaged, timeout (with all that `program` has started it is gone then).
    """
    source, profile = folder / "in.doc", folder / "profile"
    source.write_bytes(data)
    _write_profile(profile)
    command = [program, *_OPTIONS, f"-env:UserInstallation={profile.as_uri()}"]
    status = _run([*command, "--convert-to", "odt:writer8", "--outdir", str(folder), str(source)], folder, limit_s)
    result = folder / "in.odt"
    if not result.exists():
        what = f"it ended with {status}" if status else "it gave no reason"
        raise errors.DocumentError("damaged", f"LibreOffice cannot convert it ({what})", "Open it by hand to see why.")
    return result.read_bytes()


def _write_profile(profile: Path) -> None:
    (profile / "user").mkdir(parents=True)
    names = 'xmlns:oor="http://openoffice.org/2001/registry" xmlns:xs="http://www.w3.org/2001/XMLSchema"'
    items = "".join(_ITEM.format(path=path, name=name, value=value) for path, name, value in _PROFILE)
    text = f'<?xml version="1.0" encoding="UTF-8"?><oor:items {names}>{items}</oor:items>'
    (profile / "user" / "registrymodifications.xcu").write_text(text, encoding="utf-8")


def _run(command: Sequence[str], folder: Path, limit_s: float) -> int:
    """The exit status of `command`, which is ended with all that it started, at the latest after `limit_s`.

    Raises:
        DocumentError: timeout.
    """
    environment = {
        **{name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")},
        **dict.fromkeys(("http_proxy", "https_proxy", "ftp_proxy"), f"http://{_NOWHERE}"),
        "HOME": str(folder),
        "SAL_USE_VCLPLUGIN": "svp",  # no display
    }
    guarded = ["/bin/sh", "-c", _GUARDED, "sh", *command]
    nobody = subprocess.DEVNULL
    with subprocess.Popen(  # noqa: S603
        guarded,
        stdin=subprocess.PIPE,
        stdout=nobody,
        stderr=nobody,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise errors.DocumentError(
                "timeout", f"LibreOffice was not done within {limit_s:.0f} s", "Save a copy as .docx."
            ) from None
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
