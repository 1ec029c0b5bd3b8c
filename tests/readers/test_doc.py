"""Old Word files: by LibreOffice where there is one, by a named fake of it, and refused with the remedy without."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from pipeline import errors, readers
from pipeline.readers import doc
from tests.readers import samples
from tests.readers.helpers import paths, read, refusal, texts

OPTIONS = readers.ReaderOptions(doc="libreoffice")
DOC = samples.compound_file([("WordDocument", b"\xec\xa5\xc1\x00" + bytes(600)), ("1Table", bytes(300))])

FAKE = """\
#!{python}
# Stands in for soffice: converts by a table, or does what converters do on bad days.
import os, pathlib, subprocess, sys, time
arguments = sys.argv[1:]
folder = pathlib.Path(arguments[arguments.index("--outdir") + 1])
way = pathlib.Path({way!r}).read_text()
told = [*arguments, os.environ["HOME"], os.environ["http_proxy"], str(os.getpid())]
pathlib.Path({log!r}).write_text(chr(10).join(told))
pathlib.Path({log!r} + ".profile").write_bytes((folder / "profile/user/registrymodifications.xcu").read_bytes())
if way == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
    pathlib.Path({log!r} + ".child").write_text(str(child.pid))
    time.sleep(1000)
if way == "crash":
    os.abort()
if way == "convert":
    (folder / "in.odt").write_bytes(pathlib.Path({result!r}).read_bytes())
"""


class FakeOffice:
    """A `soffice` on the PATH. `way`: convert, hang, crash, or nothing."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self._way = folder / "way"
        self.way = "convert"
        result = folder / "result.odt"
        result.write_bytes(samples.odt('<text:h text:outline-level="1">Ice</text:h><text:p>It is thin.</text:p>'))
        program = folder / "bin" / "soffice"
        program.parent.mkdir()
        fake = FAKE.format(python=sys.executable, way=str(self._way), log=str(self.log), result=str(result))
        program.write_text(fake)
        program.chmod(0o755)
        self.place = str(program.parent)

    @property
    def way(self) -> str:
        return self._way.read_text()

    @way.setter
    def way(self, value: str) -> None:
        self._way.write_text(value)


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeOffice:
    fake = FakeOffice(tmp_path)
    monkeypatch.setenv("PATH", f"{fake.place}:/usr/bin:/bin")
    return fake


@pytest.fixture
def no_office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if doc.found():
        pytest.skip("LibreOffice lies where it is found without the PATH")


def test_converted_and_read(office: FakeOffice) -> None:
    made = read(DOC, "a.doc", OPTIONS)
    assert (made.media_type, made.reader) == ("application/msword", "libreoffice-doc/1")
    assert paths(made) == [("Ice",)]
    assert "It is thin." in made.text


def test_a_profile_of_its_own_without_macros_and_network(office: FakeOffice) -> None:
    read(DOC, "a.doc", OPTIONS)
    *arguments, home, proxy, _ = office.log.read_text().split("\n")
    assert {"--headless", "--norestore", "--convert-to"} <= set(arguments)
    profile = next(word for word in arguments if word.startswith("-env:UserInstallation=file:///"))
    assert home in profile
    assert not Path(home).exists()  # gone with all that was in it
    assert proxy == "http://127.0.0.1:9"
    settings = Path(f"{office.log}.profile").read_text()
    assert 'oor:name="DisableMacrosExecution" oor:op="fuse"><value>true<' in settings
    assert 'oor:name="MacroSecurityLevel" oor:op="fuse"><value>3<' in settings


@pytest.mark.parametrize("way", ["crash", "nothing"])
def test_a_conversion_that_fails(office: FakeOffice, way: str) -> None:
    office.way = way
    error = refusal(DOC, "a.doc", OPTIONS)
    assert error.kind == "damaged"
    assert "LibreOffice cannot convert it" in error.message


def test_a_conversion_that_hangs_is_killed_with_its_children(office: FakeOffice, tmp_path: Path) -> None:
    office.way = "hang"
    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(errors.DocumentError) as caught:
        doc.converted(doc.found(), DOC, folder, limit_s=3.0)
    assert caught.value.kind == "timeout"
    own, child = int(office.log.read_text().split("\n")[-1]), int(Path(f"{office.log}.child").read_text())
    _gone(own, child)


def _gone(*pids: int) -> None:
    end = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < end, "it runs on"
        time.sleep(0.02)


def test_the_converter_ends_with_the_worker(office: FakeOffice, tmp_path: Path) -> None:
    """A worker is killed without a word: by the pool, or by the kernel when the run is killed."""
    office.way = "hang"
    (tmp_path / "a.doc").write_bytes(DOC)
    script = textwrap.dedent(
        f"""
        from pipeline import readers
        data = open({str(tmp_path / "a.doc")!r}, "rb").read()
        readers.read_bytes(data, "a.doc", readers.ReaderOptions(doc="libreoffice"))
        """
    )
    root = Path(readers.__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(root)}) as worker:
        note = Path(f"{office.log}.child")
        end = time.monotonic() + 60
        while not (note.exists() and note.read_text()):
            assert time.monotonic() < end
            time.sleep(0.02)
        worker.send_signal(signal.SIGKILL)
    _gone(int(office.log.read_text().split("\n")[-1]), int(note.read_text()))


def test_without_it_the_remedy_is_named(no_office: None) -> None:
    assert doc.available() == "none"
    for options in (readers.ReaderOptions(doc=doc.available()), OPTIONS):  # it may go between the scan and the reading
        error = refusal(DOC, "a.doc", options)
        assert error.kind == "needs_libreoffice"
        assert "Install it" in error.remedy
        assert "save a copy as .docx" in error.remedy


def test_what_it_has_read_stays_when_it_goes_and_what_it_could_not_is_read_when_it_comes() -> None:
    without = readers.ReaderOptions(doc="none")
    assert readers.reader_of("a.doc", OPTIONS) == "libreoffice-doc/1"
    assert readers.is_current("libreoffice-doc/1", "a.doc", without)
    assert not readers.is_current("libreoffice-doc/0", "a.doc", without)
    assert not readers.is_current(readers.reader_of("a.doc", without), "a.doc", OPTIONS)


def test_what_is_no_word_file_is_not_given_to_it(office: FakeOffice) -> None:
    for options in (OPTIONS, readers.ReaderOptions(doc="none")):
        assert refusal(b"\x00\x00\x00\x01", "a.doc", options).kind == "damaged"
        assert refusal(b"\xd0\xcf\x11\xe0" + bytes(100), "a.doc", options).kind == "damaged"
    assert not office.log.exists()
    assert texts(read(b"\xdb\xa5-\x00" + bytes(100), "a.doc", OPTIONS)) == ["Ice", "It is thin."]  # Word 2


def test_a_password(office: FakeOffice) -> None:
    locked = samples.compound_file([("WordDocument", b"\xec\xa5\xc1\x00" + bytes(7) + b"\x01" + bytes(600))])
    assert refusal(locked, "a.doc", OPTIONS).kind == "encrypted"
    assert not office.log.exists()


@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (rb"{\rtf1\ansi Ice is thin.\par}", "rtf"),
        (b"<html><body><p>Ice is thin.</p></body></html>", "html"),
        (samples.docx(), "unstructured-docx"),
        (samples.odt("<text:p>Ice is thin.</text:p>"), "odt"),
        (b"Ice is thin.\n", "text"),
    ],
)
def test_what_is_only_named_doc_needs_no_libreoffice(no_office: None, data: bytes, reader: str) -> None:
    assert read(data, "a.doc", readers.ReaderOptions()).reader.startswith(f"{reader}/")


@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed (no soffice on the PATH)")
def test_the_real_one(tmp_path: Path) -> None:
    """A .doc that it makes itself, with a picture on a server that must not be asked."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/i.png"
        page = (
            f'<html><meta charset="utf-8"><body><h1>Ice</h1><p>It is thin: 氷。<img src="{address}"></p></body></html>'
        )
        (tmp_path / "a.html").write_text(page, encoding="utf-8")
        profile = f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}"
        target = ["--convert-to", "doc:MS Word 97", "--outdir", str(tmp_path), str(tmp_path / "a.html")]
        subprocess.run(["soffice", "--headless", profile, *target], check=True, capture_output=True, timeout=120)
        listener.setblocking(False)
        visits = _visits(listener)
        assert address.encode("utf-16-le") in (tmp_path / "a.doc").read_bytes()
        made = read((tmp_path / "a.doc").read_bytes(), "a.doc", OPTIONS)
        assert _visits(listener) == 0, f"after {visits} of the conversion that made it"
    assert paths(made) == [("Ice",)]
    assert "It is thin: 氷。" in made.text


def _visits(listener: socket.socket) -> int:
    count = 0
    while True:
        try:
            listener.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1
