"""Reading never touches the network: an audit hook ends the process on the first attempt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.readers import samples

READ = """
import json, sys
ATTEMPTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request")
def forbid(event, arguments):
    if event in ATTEMPTS:
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(forbid)
from pipeline import readers
options = readers.ReaderOptions(**json.loads(sys.argv[2]))
with open(sys.argv[1], "rb") as file:
    made = readers.read_bytes(file.read(), sys.argv[1], options)
heavy = "spacy numba nltk torch huggingface_hub unstructured_client onnxruntime lancedb pyarrow".split()
print(json.dumps([made.reader, len(made.text), [name for name in heavy if name in sys.modules]]))
"""
EXTERNAL = '<!DOCTYPE d [<!ENTITY x SYSTEM "http://127.0.0.1:9/x">]>'

DOCUMENTS = {
    "a.docx": samples.docx(),
    "a.pptx": samples.pptx(),
    "a.msg": samples.msg("Fuses", "Dear Tom,\r\n\r\nthe fuses are ordered. They will come soon.\r\n"),
    "a.pdf": samples.pdf([["A sentence of text."]]),
    "a.html": b"<link rel=stylesheet href='http://127.0.0.1:9/x'><img src='http://127.0.0.1:9/y'><p>Text here.",
    "a.epub": samples.epub([f"{EXTERNAL}<p>Text &x; here.</p>"]),
    "a.odt": samples.odt("<text:p>Text</text:p>"),
}


def read_offline(path: Path, options: dict[str, str]) -> tuple[str, int, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path), json.dumps(options)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    reader, characters, heavy = json.loads(done.stdout)
    return reader, characters, heavy


@pytest.mark.parametrize("name", DOCUMENTS)
def test_offline(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(DOCUMENTS[name])
    _, characters, heavy = read_offline(path, {})
    assert characters > 3
    assert heavy == []


@pytest.mark.parametrize("name", ["a.pdf", "a.html"])
def test_offline_by_unstructured(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(DOCUMENTS[name])
    reader, characters, heavy = read_offline(path, {"pdf": "unstructured", "html": "unstructured"})
    assert reader.startswith("unstructured-")
    assert characters > 3
    assert heavy == []


def test_the_hook_would_notice(tmp_path: Path) -> None:
    script = READ.replace("from pipeline import readers", "import socket; socket.create_connection(('127.0.0.1', 9))")
    done = subprocess.run([sys.executable, "-c", script, "x", "{}"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "socket." in done.stderr
